"""What mixing with a row-stochastic matrix does to the distance to consensus: Lemma 1(4) and around it."""

import itertools
import math

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import reference
from support.matrices import (
    FAMILIES,
    PADDED,
    TOKENS,
    WIDTH,
    attention_batch,
    centring,
    doubly_stochastic,
    pad_tokens,
    stochastic,
    two_camps,
    uniform_causal,
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
def test_lemma_4_mixing_stretches_by_at_most_the_mixing_rate(seed):
    rng = np.random.default_rng(seed)
    attn, mask = attention_batch(rng)
    hidden = np.stack([pad_tokens(rng, rng.standard_normal((n, WIDTH))) for n in mask.sum(axis=1)])
    before, after = distance(hidden, mask), distance(attn @ hidden, mask)
    assert np.all(after <= rate(attn, mask) * before * (1 + RTOL) + 1e-14)


@given(seed=SEED)
def test_lemma_4_is_attained_by_the_first_singular_vector(seed):
    attn, mask = attention_batch(np.random.default_rng(seed))
    found = np.asarray(rate(attn, mask))
    for a, attained in zip(unpadded(attn, mask), found, strict=True):
        worst = np.linalg.svd(centring(len(a)) @ a)[2][0]
        stretch = np.linalg.norm(centring(len(a)) @ a @ worst) / np.linalg.norm(centring(len(a)) @ worst)
        assert stretch == pytest.approx(attained, rel=RTOL, abs=1e-14)


def test_lemma_4_with_an_unnormalised_e_is_false():
    """Definition 1 read literally, e = (1, .., 1): lambda = ||A^T (I - e e^T) A|| no longer bounds the square."""
    attn, hidden = np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([[1.0], [-1.0]])
    mask = np.ones(2, bool)
    stretch = float(distance(attn @ hidden, mask) / distance(hidden, mask)) ** 2
    literal = np.linalg.eigvalsh(attn.T @ (np.eye(2) - np.ones((2, 2))) @ attn).max()
    assert stretch > 1.4 * literal
    assert stretch == pytest.approx(float(rate(attn, mask)) ** 2)


def test_lemma_4_needs_rows_of_equal_sums():
    """Sums that differ turn consensus into disagreement, which no factor bounds: padded queries set to zero."""
    zeroed = stochastic(np.random.default_rng(0), TOKENS)
    zeroed[-2:] = 0
    consensus = np.ones((TOKENS, 1))
    assert float(distance(consensus, ALL)) == 0
    assert float(distance(zeroed @ consensus, ALL)) == pytest.approx(math.sqrt(4 * 2 / 6))


def test_lemma_4_with_the_second_eigenvalue_is_false():
    """Without symmetry the rate of ONE step is no eigenvalue: the causal mask alone expands, with |lambda_2| = 1/2."""
    attn = uniform_causal(64)
    eigenvalues = np.sort(np.abs(np.linalg.eigvals(attn)))
    assert eigenvalues[-2] == pytest.approx(0.5)
    assert float(rate(attn, np.ones(64, bool))) > 1.2


@pytest.mark.parametrize(("size", "expected"), [(2, 0.50), (8, 0.84), (64, 1.235), (512, 1.488)])
def test_the_causal_mask_alone(size, expected):
    found = float(rate(uniform_causal(size), np.ones(size, bool)))
    assert found == pytest.approx(expected, abs=6e-3)
    assert found == pytest.approx(reference.mixing_rate(uniform_causal(size)), rel=RTOL)
    assert found < 2  # Hardy's inequality


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


@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_supremum_of_lambda_over_all_extreme_points(size):
    """lambda is convex in A, so its maximum is at 0/1 rows; here are all of them."""
    choices = np.array(list(itertools.product(range(size), repeat=size)))
    found = np.asarray(rate(np.eye(size)[choices], np.ones((len(choices), size), bool))) ** 2
    assert found.max() == pytest.approx(size / 2 if size % 2 == 0 else (size**2 - 1) / (2 * size), rel=2 * RTOL)


@pytest.mark.parametrize("size", [5, 6, 64])
def test_two_camps_attain_the_supremum(size):
    found = float(rate(two_camps(size), np.ones(size, bool))) ** 2
    assert found == pytest.approx(size / 2 if size % 2 == 0 else (size**2 - 1) / (2 * size), rel=2 * RTOL)


def test_softmax_comes_close_to_the_supremum():
    logits = 12 * two_camps(64)
    attn = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert 31.9 < float(rate(attn, np.ones(64, bool))) ** 2 < 32


@given(seed=SEED)
def test_dobrushin_equality_for_two_tokens(seed):
    attn = np.random.default_rng(seed).dirichlet(np.ones(2), (16, 2))
    mask = np.ones((16, 2), bool)
    np.testing.assert_allclose(rate(attn, mask), tau(attn, mask), rtol=RTOL, atol=1e-16)


@given(seed=SEED)
def test_doubly_stochastic_attention_never_expands(seed):
    """There, and only there in general, sqrt(lambda) is the second singular value."""
    rng = np.random.default_rng(seed)
    attn = np.stack([doubly_stochastic(rng, TOKENS) for _ in range(16)])
    found = np.asarray(rate(attn, np.ones((16, TOKENS), bool)))
    assert np.all(found <= 1 + 1e-12)
    np.testing.assert_allclose(found, np.linalg.svd(attn, compute_uv=False)[:, 1], rtol=RTOL, atol=1e-14)


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
