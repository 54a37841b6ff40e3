"""Dobrushin's coefficient of row-stochastic matrices, and how it bounds the mixing rate and lambda_2."""

import jax
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from support import reference
from support.matrices import (
    FAMILIES,
    PADDED,
    TOKENS,
    attention_batch,
    centring,
)

from jaxsmooth.linalg.lanczos import default_tolerance
from jaxsmooth.theory import ergodicity_coefficient, mixing_rate, subspace_distance

SEED = st.integers(0, 2**32 - 1)
ALL = np.ones(TOKENS, bool)
# What mixing_rate promises: half the relative residual at which Lanczos stops.
RTOL = default_tolerance(np.float64) / 2
rate, tau, distance = jax.jit(mixing_rate), jax.jit(ergodicity_coefficient), jax.jit(subspace_distance)


def unpadded(attn: np.ndarray, mask: np.ndarray) -> list[np.ndarray]:
    return [a[real][:, real] for a, real in zip(attn, mask, strict=True)]


@given(seed=SEED)
def test_the_reference_agrees_on_every_family(seed):
    attn, mask = attention_batch(np.random.default_rng(seed))
    expected = [reference.ergodicity_coefficient(a) for a in unpadded(attn, mask)]
    np.testing.assert_allclose(tau(attn, mask), expected, rtol=1e-14, atol=1e-15)


@given(seed=SEED)
def test_upper_bounds_of_lambda(seed):
    attn, mask = attention_batch(np.random.default_rng(seed))
    found, count = np.asarray(rate(attn, mask)), mask.sum(axis=1)
    columns = (attn * mask[..., None]).sum(axis=1).max(axis=1)
    frobenius = np.array([np.linalg.norm(centring(len(a)) @ a) for a in unpadded(attn, mask)])
    exact = 1 + 1e-12
    assert np.all(found**2 <= columns * exact)
    assert np.all(found <= frobenius * exact + 1e-15)
    assert np.all(found <= np.sqrt(count / 2) * tau(attn, mask) * exact + 1e-15)
    assert np.all(found**2 <= np.where(count % 2, (count - 1 / count) / 2, count / 2) * exact)


@given(seed=SEED)
def test_dobrushin_equality_for_two_tokens(seed):
    attn = np.random.default_rng(seed).dirichlet(np.ones(2), (16, 2))
    mask = np.ones((16, 2), bool)
    np.testing.assert_allclose(rate(attn, mask), tau(attn, mask), rtol=RTOL, atol=1e-16)


@given(seed=SEED)
def test_the_spread_of_a_vector_shrinks_by_tau(seed):
    rng = np.random.default_rng(seed)
    attn, mask = attention_batch(rng)
    for a, bound in zip(unpadded(attn, mask), tau(attn, mask), strict=True):
        vectors = rng.standard_normal((len(a), 50))
        assert np.all(np.ptp(a @ vectors, axis=0) <= float(bound) * np.ptp(vectors, axis=0) + 1e-14)
        apart = np.abs(a[:, None] - a[None]).sum(axis=2)
        i, k = np.unravel_index(apart.argmax(), apart.shape)
        attained = (a[i] > a[k]).astype(float)
        assert np.ptp(a @ attained) >= float(bound) * (1 - 1e-12) - 1e-15


@given(seed=SEED)
def test_tau_is_submultiplicative_and_bounds_the_second_eigenvalue(seed):
    rng = np.random.default_rng(seed)
    names = list(FAMILIES)
    left, right = (np.stack([FAMILIES[name](rng, TOKENS) for name in order]) for order in (names, names[::-1]))
    mask = np.ones((len(names), TOKENS), bool)
    assert np.all(tau(left @ right, mask) <= tau(left, mask) * tau(right, mask) + 1e-14)
    eigenvalues = np.sort(np.abs(np.linalg.eigvals(left)), axis=1)
    # Eigenvalues of a non-normal matrix lose digits: a double eigenvalue half of them.
    assert np.all(eigenvalues[:, -2] <= tau(left, mask) + 1e-7)


def test_tau_of_extremes():
    for attn, expected in ((np.full((TOKENS, TOKENS), 1 / TOKENS), 0.0), (np.eye(TOKENS), 1.0)):
        assert float(tau(attn, ALL)) == expected
    half = np.array([[1.0, 0.0], [0.5, 0.5]])
    assert float(tau(half, np.ones(2, bool))) == 0.5


@given(seed=SEED)
def test_heads_share_the_mask_of_their_sentence(seed):
    attn, mask = attention_batch(np.random.default_rng(seed))
    heads = np.stack([attn, attn @ attn], axis=1)
    for measure in (rate, tau):
        alone = np.stack([measure(heads[:, 0], mask), measure(heads[:, 1], mask)], axis=1)
        np.testing.assert_allclose(measure(heads, mask), alone, rtol=RTOL, atol=1e-16)


@given(seed=SEED)
def test_padded_query_rows_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    attn, mask = attention_batch(rng)
    garbage = np.where(mask[..., None], attn, 1e3 * rng.standard_normal((len(attn), PADDED, PADDED)))
    for measure in (rate, tau):
        np.testing.assert_allclose(measure(garbage, mask), measure(attn, mask), rtol=RTOL, atol=1e-15)


def test_single_precision():
    attn, mask = attention_batch(np.random.default_rng(0))
    for measure in (rate, tau):
        single = measure(attn.astype(np.float32), mask)
        assert single.dtype == np.float32
        np.testing.assert_allclose(single, measure(attn, mask), rtol=1e-5, atol=1e-6)
