"""The distance to consensus and Lemma 1(1) and 1(3) of Shi et al. (2022)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import reference
from support.matrices import GARBAGE, PADDED, TOKENS, WIDTH, centring, lengths_mask, token_batch, with_spectrum

from jaxsmooth.theory import centre_tokens, relative_distance, subspace_distance, token_mean

SEED = st.integers(0, 2**32 - 1)
CASES = 16
distance, relative = jax.jit(subspace_distance), jax.jit(relative_distance)
centre, mean = jax.jit(centre_tokens), jax.jit(token_mean)


@given(seed=SEED)
def test_the_reference_agrees_on_every_unpadded_sentence(seed):
    hidden, mask = token_batch(np.random.default_rng(seed), CASES)
    for ours, theirs in ((distance, reference.subspace_distance), (relative, reference.relative_distance)):
        expected = [theirs(x[real]) for x, real in zip(hidden, mask, strict=True)]
        np.testing.assert_allclose(ours(hidden, mask), expected, rtol=1e-12)


@given(seed=SEED)
def test_it_is_the_distance_to_the_nearest_consensus(seed):
    """d_M is a minimum: no common row does better than the mean, and the mean attains it."""
    rng = np.random.default_rng(seed)
    hidden, mask = token_batch(rng, CASES)
    found, middle = distance(hidden, mask), np.asarray(mean(hidden, mask))

    def apart(row: np.ndarray) -> np.ndarray:
        return np.linalg.norm((hidden - row) * mask[..., None], axis=(1, 2))

    np.testing.assert_allclose(apart(middle), found, rtol=1e-13)
    scale = np.asarray(found)[:, None, None]
    for size in (1e-3, 1.0):
        assert np.all(apart(middle + size * scale * rng.standard_normal(middle.shape)) > found)


@given(seed=SEED)
def test_half_the_mean_pair_distance(seed):
    """d_M^2 = (1/n) sum over pairs of ||h_i - h_j||^2: the form every proof about rows uses."""
    hidden, mask = token_batch(np.random.default_rng(seed), CASES)
    for x, real, found in zip(hidden, mask, distance(hidden, mask), strict=True):
        x = x[real]
        pairs = sum(np.sum((x[i] - x[j]) ** 2) for i in range(len(x)) for j in range(i))
        assert float(found) ** 2 == pytest.approx(pairs / len(x), rel=1e-12)


@given(seed=SEED)
def test_centring_is_the_projection_along_the_real_tokens(seed):
    hidden, mask = token_batch(np.random.default_rng(seed), CASES)
    centred = np.asarray(centre(hidden, mask))
    assert np.all(centred[~mask] == 0)
    np.testing.assert_allclose(centre(centred, mask), centred, atol=1e-15 * np.abs(hidden[mask]).max())
    for x, real, found in zip(hidden, mask, centred, strict=True):
        atol = 1e-14 * np.abs(x[real]).max()
        np.testing.assert_allclose(found[real], centring(real.sum()) @ x[real], atol=atol)


@given(seed=SEED)
def test_common_offsets_cancel(seed):
    """Biases are rows common to all tokens: they do not enter d_M."""
    rng = np.random.default_rng(seed)
    hidden, mask = token_batch(rng, CASES)
    scale = np.abs(hidden[mask]).max()
    moved = hidden + scale * rng.standard_normal(WIDTH)
    np.testing.assert_allclose(distance(moved, mask), distance(hidden, mask), atol=1e-13 * scale)


@given(seed=SEED)
def test_lemma_1_a_weight_stretches_by_at_most_its_spectral_norm(seed):
    rng = np.random.default_rng(seed)
    hidden, mask = token_batch(rng, CASES)
    values = 10 ** rng.uniform(-3, 3, 4)
    weight = with_spectrum(rng, values, WIDTH, 7)
    assert np.all(distance(hidden @ weight, mask) <= values.max() * distance(hidden, mask) * (1 + 1e-9))


def test_lemma_1_is_tight():
    """Tokens that differ only along the first left singular vector are stretched by exactly s."""
    rng = np.random.default_rng(0)
    weight = with_spectrum(rng, np.array([3.0, 1.0, 0.1]), WIDTH, 7)
    direction = np.linalg.svd(weight)[0][:, 0]
    hidden = np.outer(rng.standard_normal(PADDED), direction) + rng.standard_normal(WIDTH)
    mask = np.ones(PADDED, bool)
    assert float(distance(hidden @ weight, mask)) == pytest.approx(3 * float(distance(hidden, mask)), rel=1e-13)


@given(seed=SEED)
def test_lemma_3_sums_for_coefficients_of_any_sign(seed):
    rng = np.random.default_rng(seed)
    hidden, mask = token_batch(rng, CASES)
    other = rng.permutation(hidden.ravel()).reshape(hidden.shape) / GARBAGE
    a, b = rng.standard_normal(2)
    most = abs(a) * distance(hidden, mask) + abs(b) * distance(other, mask)
    assert np.all(distance(a * hidden + b * other, mask) <= most * (1 + 1e-10))
    aligned = np.sign(a * b) * hidden
    np.testing.assert_allclose(
        distance(a * hidden + b * aligned, mask), (abs(a) + abs(b)) * distance(hidden, mask), rtol=1e-10
    )


def test_lemma_3_needs_the_moduli_of_the_coefficients():
    """With a signed coefficient instead, the right-hand side is even negative."""
    hidden = jnp.array([[1.0], [-1.0]])
    mask = jnp.ones(2, bool)
    assert float(distance(-2 * hidden, mask)) > -2 * float(distance(hidden, mask))


def test_consensus_one_token_no_token():
    tokens = np.random.default_rng(0).standard_normal((3, PADDED, WIDTH))
    tokens[0] = tokens[0, 0]
    mask = lengths_mask([PADDED, 1, 0])
    np.testing.assert_allclose(distance(tokens, mask), 0, atol=1e-15)
    found = np.asarray(relative(tokens, mask))
    assert found[0] < 1e-15
    assert found[1] == 0
    assert np.isnan(found[2])
    assert np.isnan(float(relative(np.zeros((TOKENS, WIDTH)), np.ones(TOKENS, bool))))


@given(seed=SEED)
def test_relative_distance_is_a_share(seed):
    hidden, mask = token_batch(np.random.default_rng(seed), CASES)
    found = relative(hidden, mask)
    assert np.all(found >= 0)
    assert np.all(found <= 1 + 1e-15)
    np.testing.assert_allclose(relative(centre(hidden, mask), mask), 1, rtol=1e-9)


def test_the_gradient_is_the_unit_direction_away_from_consensus():
    hidden, mask = token_batch(np.random.default_rng(1), CASES)
    slope = jax.jit(jax.grad(lambda x: jnp.sum(distance(x, jnp.asarray(mask)))))(hidden)
    expected = centre(hidden, mask) / distance(hidden, mask)[:, None, None]
    np.testing.assert_allclose(slope, expected, atol=1e-12)
