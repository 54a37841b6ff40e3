"""Every metric: its closed form, the independent reference, padding, collapse, precision and gradient."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import reference
from support.matrices import (
    GARBAGE,
    PADDED,
    TOKENS,
    WIDTH,
    attention_batch,
    lengths_mask,
    pad_tokens,
    token_batch,
    with_spectrum,
)

from jaxsmooth import metrics
from jaxsmooth.metrics import dong_residual, mean_average_distance

SEED = st.integers(0, 2**32 - 1)
CASES = 8

HIDDEN = {
    "subspace_distance": (metrics.subspace_distance, reference.subspace_distance),
    "relative_distance": (metrics.relative_distance, reference.relative_distance),
    "token_cosine_similarity": (metrics.token_cosine_similarity, reference.token_cosine_similarity),
    "dirichlet_energy": (metrics.dirichlet_energy, reference.dirichlet_energy),
    "mad, mean_pairs": (mean_average_distance, lambda x: reference.mean_average_distance(x, "pairs")),
    "mad, sum_neighbours": (
        partial(mean_average_distance, convention="sum_neighbours"),
        lambda x: reference.mean_average_distance(x, "neighbours"),
    ),
    "effective_rank": (metrics.effective_rank, reference.effective_rank),
    "stable_rank": (metrics.stable_rank, reference.stable_rank),
    "frequency_ratio": (metrics.frequency_ratio, reference.frequency_ratio),
    "token_norm": (metrics.token_norm, reference.token_norm),
    "dong_residual, mean": (dong_residual, lambda x: reference.dong_residual(x, "mean")),
}
JITTED = {name: jax.jit(ours) for name, (ours, _) in HIDDEN.items()}
MINIMISER = jax.jit(partial(dong_residual, centre="minimiser"))
SINGULAR, PROFILE = jax.jit(metrics.singular_values), jax.jit(metrics.singular_value_profile)
ALIKE = jax.jit(metrics.attention_similarity)
COSINES, ENTROPY, RANGE = jax.jit(metrics.cosine_matrix), jax.jit(metrics.attention_entropy), jax.jit(metrics.std_range)
DIFFERENTIABLE = [name for name in HIDDEN if "rank" not in name]


def tokens(rng: np.random.Generator, cases: int = CASES) -> tuple[np.ndarray, np.ndarray]:
    """Random lengths from 2, offsets up to the size of the differences, garbage on padding."""
    lengths = rng.integers(2, PADDED + 1, cases)
    offset = rng.uniform(0, 2, cases)[:, None] * rng.standard_normal((cases, WIDTH))
    made = [pad_tokens(rng, c + rng.standard_normal((n, WIDTH))) for c, n in zip(offset, lengths, strict=True)]
    return np.stack(made), lengths_mask(lengths)


@pytest.mark.parametrize("name", HIDDEN)
@settings(max_examples=25)
@given(seed=SEED)
def test_the_reference_agrees_and_padding_does_not_matter(name, seed):
    hidden, mask = tokens(np.random.default_rng(seed))
    expected = [HIDDEN[name][1](x[real]) for x, real in zip(hidden, mask, strict=True)]
    np.testing.assert_allclose(JITTED[name](hidden, mask), expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", [*HIDDEN, "dong_residual, minimiser"])
def test_garbage_of_any_size_on_padding_gives_the_same_number(name):
    """Up to the largest finite number, whose square is infinite."""
    hidden, mask = tokens(np.random.default_rng(0))
    measure = JITTED.get(name, MINIMISER)
    clean = np.where(mask[..., None], hidden, 0)
    for size in (GARBAGE, 1e200, np.finfo(np.float64).max):
        np.testing.assert_array_equal(measure(np.where(mask[..., None], hidden, size), mask), measure(clean, mask))


@pytest.mark.parametrize("name", HIDDEN)
def test_leading_axes_are_free(name):
    hidden, mask = tokens(np.random.default_rng(1), 6)
    flat = JITTED[name](hidden, mask)
    stacked = JITTED[name](hidden.reshape(2, 3, PADDED, WIDTH), mask.reshape(2, 3, PADDED))
    np.testing.assert_allclose(stacked, np.asarray(flat).reshape(2, 3), rtol=1e-13)
    np.testing.assert_allclose(JITTED[name](hidden[0], mask[0]), flat[0], rtol=1e-13)


@pytest.mark.parametrize("name", HIDDEN)
def test_single_precision(name):
    hidden, mask = tokens(np.random.default_rng(2))
    single = JITTED[name](hidden.astype(np.float32), mask)
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, JITTED[name](hidden, mask), rtol=3e-5, atol=3e-6)


@pytest.mark.parametrize(
    ("name", "expected"),
    {
        "subspace_distance": 0,
        "relative_distance": 0,
        "token_cosine_similarity": 1,
        "dirichlet_energy": 0,
        "mad, mean_pairs": 0,
        "mad, sum_neighbours": 0,
        "effective_rank": 1,
        "stable_rank": 1,
        "frequency_ratio": 0,
        "token_norm": math.sqrt(WIDTH),
        "dong_residual, mean": 0,
        "dong_residual, minimiser": 0,
    }.items(),
)
def test_at_exact_collapse(name, expected):
    """All tokens equal (here to a vector of ones): every metric has a value, and it is the extreme one."""
    rng = np.random.default_rng(3)
    hidden = np.stack([pad_tokens(rng, np.ones((n, WIDTH))) for n in range(2, PADDED + 1)])
    found = JITTED.get(name, MINIMISER)(hidden, lengths_mask(range(2, PADDED + 1)))
    np.testing.assert_allclose(found, expected, atol=1e-7 if name == "effective_rank" else 1e-13)


def test_a_single_token_has_no_cosine_but_everything_else():
    hidden, mask = np.ones((1, PADDED, WIDTH)), lengths_mask([1])
    undefined = {name for name, measure in JITTED.items() if np.isnan(measure(hidden, mask)[0])}
    assert undefined == {"token_cosine_similarity", "mad, mean_pairs", "mad, sum_neighbours"}


def test_zero_tokens_where_documented():
    """Ratios of zero to zero are NaN; a zero token has cosine 0 with everything."""
    hidden, mask = np.zeros((TOKENS, WIDTH)), np.ones(TOKENS, bool)
    undefined = {name for name, measure in JITTED.items() if np.isnan(measure(hidden, mask))}
    assert undefined == {"relative_distance", "effective_rank", "stable_rank", "frequency_ratio", "dong_residual, mean"}
    hidden[:2] = 1
    assert float(JITTED["token_cosine_similarity"](hidden, mask)) == pytest.approx(2 / (TOKENS * (TOKENS - 1)))


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_are_finite_and_ignore_padding(name):
    hidden, mask = tokens(np.random.default_rng(4))
    slope = jax.jit(jax.grad(lambda x, real: jnp.sum(JITTED[name](x, real))))
    for padding in (0.0, GARBAGE):
        found = np.asarray(slope(np.where(mask[..., None], hidden, padding), mask))
        assert np.isfinite(found).all()
        assert np.all(found[~mask] == 0)
        assert np.all(np.linalg.norm(found, axis=(1, 2)) > 0)
        direction = np.random.default_rng(5).standard_normal(hidden.shape) * mask[..., None]
        ahead, behind = (float(jnp.sum(JITTED[name](hidden + sign * 1e-6 * direction, mask))) for sign in (1, -1))
        assert np.sum(found * direction) == pytest.approx((ahead - behind) / 2e-6, rel=1e-5, abs=1e-7)


# Closed forms


def test_cosine_similarity_of_known_angles():
    angles = np.radians([0, 60, 120])
    hidden = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.array([[1.0], [5.0], [0.1]])
    found = float(metrics.token_cosine_similarity(jnp.asarray(hidden), jnp.ones(3, bool)))
    assert found == pytest.approx((0.5 + 0.5 - 0.5) / 3, rel=1e-14)
    antipodal = jnp.asarray(np.array([[1.0], [-1.0]]))
    assert float(metrics.token_cosine_similarity(antipodal, jnp.ones(2, bool))) == -1


@given(seed=SEED)
def test_the_cosine_matrix_holds_the_pairs(seed):
    hidden, mask = tokens(np.random.default_rng(seed))
    found = np.asarray(COSINES(hidden, mask))
    count = mask.sum(axis=1)
    np.testing.assert_allclose(np.trace(found, axis1=1, axis2=2), count, rtol=1e-13)
    assert np.all(found[~(mask[:, :, None] & mask[:, None])] == 0)
    pairs = (found.sum(axis=(1, 2)) - count) / (count * (count - 1))
    np.testing.assert_allclose(pairs, JITTED["token_cosine_similarity"](hidden, mask), atol=1e-14)


@given(seed=SEED)
def test_singular_values_are_lapacks(seed):
    hidden, mask = tokens(np.random.default_rng(seed))
    found, profile = np.asarray(SINGULAR(hidden, mask)), np.asarray(PROFILE(hidden, mask))
    for x, real, values, ratios in zip(hidden, mask, found, profile, strict=True):
        expected = np.linalg.svd(x[real], compute_uv=False)
        np.testing.assert_allclose(values[: len(expected)], expected, rtol=1e-10)
        assert np.all(values[len(expected) :] == 0)
        np.testing.assert_allclose(ratios, values / values[0], rtol=1e-14)


def test_small_singular_values_keep_their_digits():
    """The roots of the Gram matrix's eigenvalues have half of them."""
    hidden = with_spectrum(np.random.default_rng(6), np.array([1.0, 1e-6]), PADDED, WIDTH)
    found = np.asarray(SINGULAR(hidden, np.ones(PADDED, bool)))
    np.testing.assert_allclose(found[:2], [1, 1e-6], rtol=1e-7)
    assert np.linalg.eigvalsh(hidden.T @ hidden)[-2] ** 0.5 != pytest.approx(1e-6, rel=1e-7)


def test_ranks_of_prescribed_singular_values():
    equal = np.eye(TOKENS, WIDTH)
    mask = np.ones(TOKENS, bool)
    assert float(JITTED["effective_rank"](equal, mask)) == pytest.approx(WIDTH, rel=1e-13)
    assert float(JITTED["stable_rank"](equal, mask)) == pytest.approx(WIDTH, rel=1e-13)
    values = np.array([4.0, 2.0, 1.0, 1.0, 0.0])
    uneven = np.eye(TOKENS, WIDTH) * values
    assert float(JITTED["stable_rank"](uneven, mask)) == pytest.approx(22 / 16, rel=1e-13)
    entropy = math.log(2) / 2 + math.log(4) / 4 + 2 * math.log(8) / 8
    assert float(JITTED["effective_rank"](uneven, mask)) == pytest.approx(math.exp(entropy), rel=1e-13)


def test_the_stable_rank_is_of_the_matrix_not_of_its_gram_matrix():
    uneven = np.diag([2.0, 1.0])
    gram = np.sum(np.array([2.0, 1.0]) ** 4) / 2.0**4
    assert float(metrics.stable_rank(jnp.asarray(uneven), jnp.ones(2, bool))) == 1.25 != gram


def test_mean_average_distance_has_two_conventions():
    hidden, mask = tokens(np.random.default_rng(7))
    pairs, neighbours = np.asarray(JITTED["mad, mean_pairs"](hidden, mask)), JITTED["mad, sum_neighbours"](hidden, mask)
    np.testing.assert_allclose(neighbours, pairs * (mask.sum(axis=1) - 1), rtol=1e-13)


def test_frequency_ratio_without_a_mean_is_infinite():
    hidden, mask = np.array([[1.0, -2.0], [-1.0, 2.0]]), np.ones(2, bool)
    assert float(JITTED["frequency_ratio"](hidden, mask)) == math.inf


@given(seed=SEED)
def test_relative_distance_is_a_function_of_the_frequency_ratio(seed):
    hidden, mask = tokens(np.random.default_rng(seed))
    ratio = np.asarray(JITTED["frequency_ratio"](hidden, mask))
    np.testing.assert_allclose(JITTED["relative_distance"](hidden, mask), ratio / np.hypot(1, ratio), rtol=1e-12)


@given(seed=SEED)
def test_attention_entropy_is_the_references(seed):
    rng = np.random.default_rng(seed)
    attn, mask = attention_batch(rng)
    expected = [reference.attention_entropy(a[real][:, real]) for a, real in zip(attn, mask, strict=True)]
    np.testing.assert_allclose(ENTROPY(attn, mask), expected, rtol=1e-13, atol=1e-15)
    garbage = np.where(mask[..., None], attn, GARBAGE * rng.standard_normal(attn.shape))
    np.testing.assert_array_equal(ENTROPY(garbage, mask), ENTROPY(attn, mask))
    heads = np.stack([attn, attn @ attn], axis=1)
    np.testing.assert_allclose(ENTROPY(heads, mask)[:, 1], ENTROPY(attn @ attn, mask), rtol=1e-13)


def test_attention_entropy_at_its_extremes():
    mask = np.ones(TOKENS, bool)
    assert float(ENTROPY(np.full((TOKENS, TOKENS), 1 / TOKENS), mask)) == pytest.approx(math.log(TOKENS), rel=1e-14)
    assert float(ENTROPY(np.eye(TOKENS), mask)) == 0


def test_the_gradient_of_attention_entropy_survives_masked_keys():
    """Through a masked softmax: the entropy's slope is infinite at the padded keys' zeros."""
    logits, mask = np.random.default_rng(8).standard_normal((PADDED, PADDED)), lengths_mask([5])[0]

    def entropy(logits: jax.Array) -> jax.Array:
        return ENTROPY(jax.nn.softmax(jnp.where(mask[None], logits, -jnp.inf), axis=-1), jnp.asarray(mask))

    slope = np.asarray(jax.grad(entropy)(jnp.asarray(logits)))
    assert np.isfinite(slope).all()
    assert np.abs(slope[:5, :5]).min() > 0


@given(seed=SEED)
def test_attention_similarity_is_the_references(seed):
    rng = np.random.default_rng(seed)
    attn, mask = attention_batch(rng)
    one, two = np.stack([attn, attn @ attn], axis=1), np.stack([attn @ attn, attn, attn @ attn], axis=1)
    expected = [
        reference.attention_similarity(*(x[b][:, real][:, :, real] for x in (one, two))) for b, real in enumerate(mask)
    ]
    np.testing.assert_allclose(ALIKE(one, two, mask), expected, rtol=1e-12)
    real = mask[:, None, :, None] & mask[:, None, None, :]
    garbage = [np.where(real, x, GARBAGE * rng.standard_normal(x.shape)) for x in (one, two)]
    np.testing.assert_array_equal(ALIKE(*garbage, mask), ALIKE(one, two, mask))
    np.testing.assert_allclose(ALIKE(one, one[:, ::-1], mask), 1, rtol=1e-12)


def test_attention_similarity_without_tokens_or_attention():
    assert np.isnan(ALIKE(np.ones((1, 2, 2)), np.ones((1, 2, 2)), np.zeros(2, bool)))
    assert ALIKE(np.eye(2)[None], np.eye(2)[None, ::-1], np.ones(2, bool)) == 0


@pytest.mark.parametrize("seed", range(3))
def test_dongs_residual_comes_close_to_the_global_minimum(seed):
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((5, 3)) ** 3
    best = reference.dong_residual(hidden, "minimiser")
    padded, mask = pad_tokens(rng, hidden), lengths_mask([5])[0]
    mean, found = (float(dong(padded, mask)) for dong in (JITTED["dong_residual, mean"], MINIMISER))
    assert best * (1 - 1e-9) <= found <= best * 1.01
    assert found < mean


def test_dongs_norm_keeps_its_square_root():
    """||X||_1 = 4 and ||X||_inf = 3 for this X, whose mean is zero: residual over norm is 1, and it is homogeneous."""
    hidden, mask = np.array([[3.0], [1.0]]), np.ones(2, bool)
    assert float(JITTED["dong_residual, mean"](hidden, mask)) == pytest.approx(math.sqrt(2 * 1) / math.sqrt(4 * 3))
    assert float(JITTED["dong_residual, mean"](7 * hidden, mask)) == pytest.approx(math.sqrt(1 / 6))


def test_dongs_composite_norm_is_no_norm():
    """A row of ones plus a column of ones is larger than both together, as docs/theory.md says."""
    row, column = np.zeros((5, 5)), np.zeros((5, 5))
    row[0], column[:, 0] = 1, 1
    together = reference.composite_norm(row + column)
    assert together > 1.3 * (reference.composite_norm(row) + reference.composite_norm(column))


def test_an_unknown_centre_is_refused():
    with pytest.raises(Exception, match="centre"):
        dong_residual(jnp.ones((2, 2)), jnp.ones(2, bool), centre="median")


@given(seed=SEED)
def test_std_range(seed):
    rng = np.random.default_rng(seed)
    _, mask = tokens(rng)
    std = np.where(mask, rng.uniform(1, 2, mask.shape), rng.choice([1e-6, GARBAGE], mask.shape))[..., None]
    low, mean, high = RANGE(std, mask)
    expected = [(s[real].min(), s[real].mean(), s[real].max()) for s, real in zip(std, mask, strict=True)]
    np.testing.assert_allclose(np.stack([low, mean, high], axis=1), expected, rtol=1e-14)


# CosSim and the distance to consensus


@given(seed=SEED)
def test_the_bridge_for_equal_row_norms(seed):
    """d_M^2 = rho^2 (n - 1) (1 - CosSim): what LayerNorm's output with unit gain and no shift has."""
    rng = np.random.default_rng(seed)
    hidden, mask = tokens(rng)
    radius = 10 ** rng.uniform(-3, 3)
    hidden = radius * hidden / np.linalg.norm(hidden, axis=-1, keepdims=True)
    squared = np.asarray(JITTED["subspace_distance"](hidden, mask)) ** 2
    cosine = np.asarray(JITTED["token_cosine_similarity"](hidden, mask))
    np.testing.assert_allclose(squared, radius**2 * (mask.sum(axis=1) - 1) * (1 - cosine), rtol=1e-10)


@given(seed=SEED)
def test_the_bridge_in_general(seed):
    """1 - CosSim is d_M^2 of the row-normalised state over n - 1, and at most d_M^2 / ((n - 1) r_1 r_2)."""
    hidden, mask = token_batch(np.random.default_rng(seed), CASES)
    distance = 1 - np.asarray(JITTED["token_cosine_similarity"](hidden, mask))
    norms = np.linalg.norm(hidden, axis=-1)
    unit = np.asarray(JITTED["subspace_distance"](hidden / norms[..., None], mask))
    pairs = mask.sum(axis=1) - 1
    np.testing.assert_allclose(distance, unit**2 / pairs, rtol=1e-9, atol=1e-14)
    least = np.sort(np.where(mask, norms, np.inf), axis=1)[:, :2].prod(axis=1)
    most = np.asarray(JITTED["subspace_distance"](hidden, mask)) ** 2 / (pairs * least)
    assert np.all(distance <= most * (1 + 1e-9) + 1e-14)


def test_the_bridge_needs_norms_bounded_below():
    """d_M can vanish with CosSim at -1: the tokens shrink to zero without ever agreeing."""
    hidden, mask = 1e-30 * np.array([[1.0], [-1.0]]), np.ones(2, bool)
    assert float(JITTED["subspace_distance"](hidden, mask)) < 1e-29
    assert float(JITTED["token_cosine_similarity"](hidden, mask)) == pytest.approx(-1)


@pytest.mark.parametrize("metric", [metrics.effective_rank, metrics.stable_rank])
def test_ranks_have_the_derivative_that_finite_differences_see(metric):
    rng = np.random.default_rng(5)
    hidden, step = (jnp.asarray(rng.normal(size=(2, 6, 4))) for _ in range(2))
    mask = jnp.asarray(np.arange(6)[None] < np.array([[6], [3]]))
    slope = jnp.sum(jax.grad(lambda h: jnp.sum(metric(h, mask)))(hidden) * step)
    seen = jnp.sum(metric(hidden + 1e-6 * step, mask) - metric(hidden - 1e-6 * step, mask)) / 2e-6
    np.testing.assert_allclose(slope, seen, rtol=1e-7)
