"""The mixing rate, norms of operators that are only applied, and the rule for equal row sums."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import reference
from support.matrices import (
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
from jaxsmooth.linalg.rows import accumulation_dtype, masked_softmax
from jaxsmooth.theory import ergodicity_coefficient, mixing_rate, subspace_distance
from jaxsmooth.theory.mixing import FURTHER_ROUNDINGS, equal_row_sums, rows_sum_to_one

SEED = st.integers(0, 2**32 - 1)
TOLERANCE = default_tolerance(np.float64)
ALL = np.ones(TOKENS, bool)
RTOL = TOLERANCE / 2  # what mixing_rate promises: half the relative residual at which Lanczos stops
rate, tau, distance = jax.jit(mixing_rate), jax.jit(ergodicity_coefficient), jax.jit(subspace_distance)
equal, one = jax.jit(equal_row_sums), jax.jit(rows_sum_to_one)
softmax = jax.jit(masked_softmax)


def unpadded(attn: np.ndarray, mask: np.ndarray) -> list[np.ndarray]:
    return [a[real][:, real] for a, real in zip(attn, mask, strict=True)]


@given(seed=SEED)
def test_mixing_rate_is_the_reference_on_every_family(seed):
    attn, mask = attention_batch(np.random.default_rng(seed))
    expected = [reference.mixing_rate(a[real][:, real]) for a, real in zip(attn, mask, strict=True)]
    np.testing.assert_allclose(rate(attn, mask), expected, rtol=RTOL, atol=1e-15)


def test_mixing_rate_of_one_token_and_of_none_is_zero():
    mask = np.array([[True, False, False], [False, False, False]])
    attn = np.where(np.arange(3) == 0, 1.0, 0.0) * np.ones((2, 3, 1))
    assert np.asarray(rate(attn, mask)).tolist() == [0.0, 0.0]


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
def test_doubly_stochastic_attention_never_expands(seed):
    """There, and only there in general, sqrt(lambda) is the second singular value."""
    rng = np.random.default_rng(seed)
    attn = np.stack([doubly_stochastic(rng, TOKENS) for _ in range(16)])
    found = np.asarray(rate(attn, np.ones((16, TOKENS), bool)))
    assert np.all(found <= 1 + 1e-12)
    np.testing.assert_allclose(found, np.linalg.svd(attn, compute_uv=False)[:, 1], rtol=RTOL, atol=1e-14)


KEYS = 96


def softmax_rows(seed: int, dtype: str) -> tuple[jax.Array, np.ndarray]:
    """Two heads of 32 sentences with padded keys, from nearly uniform to one-hot, stored in a dtype; and the mask."""
    rng = np.random.default_rng(seed)
    mask = np.arange(KEYS) < rng.integers(1, KEYS + 1, 32)[:, None]
    logits = 10 ** rng.uniform(-2, 2, (32, 1, 1, 1)) * rng.standard_normal((32, 2, KEYS, KEYS))
    wide = logits.astype(np.float64 if dtype == "float64" else np.float32)
    return softmax(wide, mask[:, None, None]).astype(dtype), mask


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@settings(max_examples=25)
@given(seed=SEED)
def test_softmax_rows_have_one_sum_and_rows_off_by_ten_tolerances_not(dtype, seed):
    attn, mask = softmax_rows(seed, dtype)
    assert np.all(equal(attn, mask))
    assert np.all(one(attn, mask))
    wide = accumulation_dtype(jnp.dtype(dtype))
    tolerance = float(FURTHER_ROUNDINGS * jnp.finfo(dtype).eps + 2 * KEYS * jnp.finfo(wide).eps)
    off = attn.at[:, :, 0].multiply(jnp.asarray(1 + 10 * tolerance, dtype))
    # A sentence of one token has one sum, whatever it is.
    assert np.array_equal(equal(off, mask), np.tile(mask.sum(axis=1)[:, None] == 1, (1, 2)))
    assert not np.any(one(off, mask))
    assert np.all(equal(3 * attn, mask))
    assert not np.any(one(3 * attn, mask))


@pytest.mark.parametrize("seed", range(20))
def test_rows_centred_after_the_softmax_have_one_sum(seed):
    """What is left of nearly even rows keeps the rounding of the rows, far above its own."""
    logits = 1e-3 * np.random.default_rng(seed).standard_normal((4, 64, 64)).astype(np.float32)
    attn = jax.nn.softmax(jnp.asarray(logits), axis=-1)
    centred = attn - jnp.float32(1 / 64)
    mask = jnp.ones((4, 64), bool)
    assert equal_row_sums(centred, mask, edited_from=1.0).all()
    assert not equal_row_sums(centred.at[:, 0, 0].add(jnp.float32(1e-3)), mask, edited_from=1.0).any()


def test_without_the_rows_before_an_edit_its_rounding_is_seen():
    logits = 1e-3 * np.random.default_rng(0).standard_normal((64, 64, 64)).astype(np.float32)
    centred = jax.nn.softmax(jnp.asarray(logits), axis=-1) - jnp.float32(1 / 64)
    assert not equal_row_sums(centred, jnp.ones((64, 64), bool)).all()


def test_weight_on_padded_keys_is_no_row_sum():
    attn = np.full((1, 4, 4), 0.25)
    mask = np.array([[True, True, True, False]])
    assert not equal(attn, mask)[0]
    assert equal(np.where(mask[:, None], attn, 0), mask)[0]
    dropped = np.where(mask[:, None], attn, 0)
    dropped[0, 1, 2] = 0
    assert not equal(dropped, mask)[0]
    dropped[0, 1] = dropped[0, 0]
    dropped[0, 3] = np.nan  # a padded query
    assert equal(dropped, mask)[0]


def test_a_sentence_without_tokens_has_equal_sums():
    assert equal(np.ones((3, 3)), np.zeros(3, bool))
    assert one(np.ones((3, 3)), np.zeros(3, bool))
