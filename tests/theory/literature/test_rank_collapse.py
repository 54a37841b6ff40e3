"""Dong et al.'s cubic collapse with its caveats, and Noci et al.'s collapse at initialisation."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from support.matrices import PADDED, WIDTH, lengths_mask, pad_tokens
from support.statements import assert_holds, few_or_many_seeds, record

from jaxsmooth.theory import subspace_distance, token_mean
from jaxsmooth.theory.literature import rank_collapse as rc

CASES, HEADS, HEAD_WIDTH = 1024, 2, 4
norm = jax.jit(rc.dong2021_composite_norm)
gamma = jax.jit(rc.dong2021_gamma)
mean = jax.jit(token_mean)
over_cases = (0, 0, 0, 0, 0, None)
one_layer = jax.jit(jax.vmap(rc.dong2021_one_layer, over_cases), static_argnums=5)
next_centre = jax.jit(jax.vmap(rc.dong2021_next_centre, over_cases), static_argnums=5)
cubic_rate = jax.jit(jax.vmap(rc.dong2021_cubic_rate, over_cases), static_argnums=5)


def networks(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Tokens, masks, centres and two heads: (hidden, mask, centre, query_key, value)."""
    mask = lengths_mask(rng.integers(1, PADDED + 1, CASES))
    tokens = 10 ** rng.uniform(-3, 0, (CASES, 1, 1)) * rng.standard_normal((CASES, PADDED, WIDTH))
    tokens += rng.choice([0.0, 1.0], (CASES, 1, 1)) * rng.standard_normal((CASES, 1, WIDTH))
    hidden = np.stack([pad_tokens(rng, x[: m.sum()]) for x, m in zip(tokens, mask, strict=True)])
    centre = np.asarray(mean(hidden, mask)) + rng.choice([0.0, 0.1], (CASES, 1, 1)) * rng.standard_normal(
        (CASES, 1, WIDTH)
    )
    # Heads of very different shapes: dense, with one large row, with one large column.
    stretch = 10 ** rng.uniform(-1, 1, (2, CASES, HEADS, WIDTH))
    query_key = rng.standard_normal((CASES, HEADS, WIDTH, WIDTH)) * rng.uniform(0, 1, (CASES, HEADS, 1, 1))
    value = stretch[0][..., None] * rng.standard_normal((CASES, HEADS, WIDTH, WIDTH)) * stretch[1][:, :, None]
    return hidden, mask, centre, query_key, value


@few_or_many_seeds
def test_the_residual_is_cubed(seeds):
    for seed in seeds:
        found = one_layer(*networks(np.random.default_rng(seed)), HEAD_WIDTH)
        assert assert_holds(found, share=0.5).max() > 1e-3


def numpy_layer(x: np.ndarray, query_key: np.ndarray, value: np.ndarray) -> np.ndarray:
    attn = [scipy.special.softmax(x @ m @ x.T / np.sqrt(HEAD_WIDTH), axis=1) for m in query_key]
    return sum(a @ x @ w for a, w in zip(attn, value, strict=True))


def numpy_norm(x: np.ndarray) -> float:
    return np.sqrt(np.linalg.norm(x, 1) * np.linalg.norm(x, np.inf))


def test_both_sides_against_numpy():
    args = networks(np.random.default_rng(1))
    found = one_layer(*args, HEAD_WIDTH)
    target = np.asarray(next_centre(*args, HEAD_WIDTH))
    for case in range(40):
        hidden, mask, centre, query_key, value = (a[case] for a in args)
        x = hidden[mask]
        after = numpy_layer(x, query_key, value) - target[case]
        assert float(found.lhs[case]) == pytest.approx(numpy_norm(after), rel=1e-6)
        residual, columns, rows, ranges = x - centre, 0.0, 0.0, []
        for m, w in zip(query_key, value, strict=True):
            e = residual @ m @ residual.T / np.sqrt(HEAD_WIDTH)
            spread = e.max(axis=1) - e.min(axis=1)
            pairs = [np.abs(e[:, j] - e[:, k]).sum() for j, k in itertools.product(range(len(x)), repeat=2)]
            data = spread.sum() / max(pairs) if max(pairs) else 1.0
            columns += data * np.linalg.norm(m, 1) * np.linalg.norm(w, 1)
            rows += np.linalg.norm(m, 1) * np.linalg.norm(w, np.inf)
            ranges.append(spread.max())
        bound = 4 * np.sqrt(columns * rows / HEAD_WIDTH) * numpy_norm(residual) ** 3
        assert float(found.rhs[case]) == pytest.approx(bound, rel=1e-9)
        assert bool(found.applicable[case]) == (max(ranges) <= 1.256)


def test_three_layers_collapse_doubly_exponentially():
    """The chained statement: the centre of one layer is where the next starts, and the rates' maximum serves all."""
    hidden, mask, centre, query_key, value = networks(np.random.default_rng(3))
    value = value / np.linalg.norm(value, axis=(2, 3), keepdims=True)
    first = np.log(np.maximum(norm(hidden - centre, mask), 1e-300))
    rates, inside = [], np.ones(CASES, bool)
    for depth in range(1, 4):
        args = (hidden, mask, centre, query_key, value)
        found = one_layer(*args, HEAD_WIDTH)
        inside &= np.asarray(found.applicable)
        rates.append(np.log(cubic_rate(*args, HEAD_WIDTH)))
        centre, attended = next_centre(*args, HEAD_WIDTH), []
        for x, real, m, w in zip(hidden, mask, query_key, value, strict=True):
            attended.append(np.where(real[:, None], 0.0, 1e6))
            attended[-1] = np.broadcast_to(attended[-1], x.shape).copy()
            attended[-1][real] = numpy_layer(x[real], m, w)
        hidden = np.stack(attended)
        bound = rc.dong2021_log_residual(jnp.asarray(first), jnp.max(jnp.stack(rates), axis=0), depth)
        some = inside & (mask.sum(axis=1) > 1)
        # Below 1e-13 of the tokens' size the residual of the computed output is rounding.
        reached = np.maximum(np.asarray(norm(hidden - centre, mask)), 1e-300)
        floor = 1e-13 * np.abs(np.where(mask[..., None], hidden, 0)).max(axis=(1, 2)) * PADDED
        assert some.mean() > 0.4
        assert np.all((np.log(reached) <= np.asarray(bound) + 1e-9)[some & (reached > floor)])
    shrinking = some & (np.asarray(jnp.max(jnp.stack(rates), axis=0)) + 2 * first < 0)
    assert shrinking.sum() > 50
    assert np.all(np.asarray(bound)[shrinking] < first[shrinking])


def test_on_its_simplest_case_the_bound_is_eight_times_too_large():
    """Two tokens +-r: the residual sqrt2 r becomes sqrt2 r tanh(r^2), the bound is 4 (sqrt2 r)^3: cubic, not tight."""
    r = np.array([1e-3, 1e-2, 1e-1])
    x = np.stack([r, -r], axis=1)[..., None]
    one = np.ones((3, 1, 1, 1))
    found = one_layer(x, np.ones((3, 2), bool), np.zeros((3, 1, 1)), one, one, 1)
    np.testing.assert_allclose(found.lhs, np.sqrt(2) * r * np.tanh(r**2), rtol=1e-9)
    np.testing.assert_allclose(found.rhs / found.lhs, 8 * r**2 / np.tanh(r**2), rtol=1e-9)


def test_beyond_small_logits_it_is_not_applicable():
    x = np.array([[[2.0], [-2.0]]])
    one = np.ones((1, 1, 1, 1))
    assert not one_layer(x, np.ones((1, 2), bool), np.zeros((1, 1, 1)), one, one, 1).applicable[0]


def test_caveat_one_the_composite_norm_is_no_norm():
    row, column = np.zeros((5, 5)), np.zeros((5, 5))
    row[0], column[:, 0] = 1, 1
    every = np.ones(5, bool)
    assert float(norm(row, every)) == float(norm(column, every)) == pytest.approx(np.sqrt(5))
    assert float(norm(row + column, every)) == 6 > 2 * np.sqrt(5)


def test_caveat_two_it_promises_nothing_above_its_threshold():
    log_rate = jnp.array(np.log(4.0))
    for residual, direction in ((0.49, -1), (0.51, 1)):
        start = jnp.array(np.log(residual))
        bounds = [float(rc.dong2021_log_residual(start, log_rate, depth)) for depth in range(6)]
        assert bounds[0] == pytest.approx(float(start))
        assert np.all(direction * np.diff(bounds) > 0)


@pytest.mark.parametrize("tokens", [2, 8, 32])
def test_caveat_three_gamma_belongs_to_the_data(tokens):
    """Each token agreeing only with itself: gamma = sqrt(n / 2), without limit; equal rows: gamma = 1."""
    assert float(gamma(np.eye(tokens), np.ones(tokens, bool))) == pytest.approx(np.sqrt(tokens / 2))
    assert float(gamma(np.tile(np.arange(tokens, dtype=float), (tokens, 1)), np.ones(tokens, bool))) == pytest.approx(1)


def test_padding_changes_nothing():
    hidden, mask, centre, query_key, value = networks(np.random.default_rng(4))
    with_garbage = one_layer(hidden, mask, centre, query_key, value, HEAD_WIDTH)
    clean = np.where(mask[..., None], hidden, 0)
    np.testing.assert_array_equal(with_garbage.lhs, one_layer(clean, mask, centre, query_key, value, HEAD_WIDTH).lhs)
    np.testing.assert_array_equal(with_garbage.rhs, one_layer(clean, mask, centre, query_key, value, HEAD_WIDTH).rhs)


# Noci et al. (2022)

TRIALS, DEPTH, FEATURES = 2000, 24, 16
STRENGTHS = (1.0, DEPTH**-0.5)


@jax.jit
def stack(key: jax.Array, hidden: jax.Array, mask: jax.Array, strength: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(squared norm of the mean over its start, d_M over its start), after DEPTH random blocks."""

    def block(x: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
        weight = jax.random.normal(key, (FEATURES, FEATURES), jnp.float64) / np.sqrt(FEATURES)
        return rc.noci2022_step(x, mask, weight, strength), None

    x = jax.lax.scan(block, hidden, jax.random.split(key, DEPTH))[0]
    growth, apart = (f(x) / f(hidden) for f in (lambda x: jnp.sum(token_mean(x, mask) ** 2), lambda x: far(x, mask)))
    return growth, apart


def far(x: jax.Array, mask: jax.Array) -> jax.Array:
    return subspace_distance(x, mask)


def stacks(seed: int, strength: float, trials: int) -> tuple[np.ndarray, np.ndarray]:
    """Sentences of 2 to 5 tokens, means up to ten times the differences, padding of another size."""
    rng = np.random.default_rng(seed)
    mask = lengths_mask(rng.integers(2, 6, trials), 5)
    hidden = rng.standard_normal((trials, 5, FEATURES)) + 10 ** rng.uniform(-1, 1, (trials, 1, 1))
    hidden = np.where(mask[..., None], hidden, 1e6)
    run = jax.jit(jax.vmap(stack, (0, 0, 0, None)))
    growth, apart = run(jax.random.split(jax.random.key(seed), trials), hidden, mask, jnp.float64(strength))
    return np.asarray(growth), np.asarray(apart)


def check_distance(growth: np.ndarray, apart: np.ndarray) -> None:
    """Every token gets the same row; what is left is rounding, relative to the size that the mean grows to."""
    # The mean starts at up to 30 times the differences.
    slack = 1e-14 * DEPTH * 30 * np.sqrt(np.maximum(growth, 1))
    record(apart, np.ones_like(apart), int(np.sum(np.abs(apart - 1) > slack)))
    assert np.all(np.abs(apart - 1) <= slack)


def check_growth(growth: np.ndarray, strength: float) -> None:
    """The sample mean lies within four of its standard errors of the expectation."""
    predicted = float(rc.noci2022_mean_growth(jnp.array(strength), DEPTH))
    error = growth.std(ddof=1) / np.sqrt(len(growth))
    assert error < 0.1 * predicted
    assert abs(growth.mean() - predicted) < 4 * error


@pytest.fixture(scope="module")
def random_stacks() -> dict[float, tuple[np.ndarray, np.ndarray]]:
    return {strength: stacks(1, strength, TRIALS) for strength in STRENGTHS}


def test_the_distance_is_exactly_constant(random_stacks):
    for growth, apart in random_stacks.values():
        check_distance(growth, apart)


def test_the_distance_is_not_constant_without_uniform_attention():
    """The causal mask alone: tokens get different rows."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, FEATURES)) + 1
    before = np.linalg.norm(x - x.mean(axis=0))
    causal = np.tri(5) / np.arange(1, 6)[:, None]
    for _ in range(DEPTH):
        x = x + causal @ x @ rng.standard_normal((FEATURES, FEATURES)) / np.sqrt(FEATURES)
    assert np.linalg.norm(x - x.mean(axis=0)) > 2 * before


@pytest.mark.long
def test_100_000_random_stacks():
    for strength in (*STRENGTHS, 0.5, 0.0):
        growth, apart = zip(*(stacks(seed, strength, TRIALS) for seed in range(2, 15)), strict=True)
        check_distance(np.concatenate(growth), np.concatenate(apart))
        if strength:
            check_growth(np.concatenate(growth), strength)
        else:
            np.testing.assert_allclose(np.concatenate(growth), 1, rtol=1e-12)


@pytest.mark.parametrize(("strength", "expected"), [(1.0, 2.0**24), (DEPTH**-0.5, 2.664)])
def test_the_mean_grows_by_one_plus_alpha_squared(random_stacks, strength, expected):
    check_growth(random_stacks[strength][0], strength)
    assert float(rc.noci2022_mean_growth(jnp.array(strength), DEPTH)) == pytest.approx(expected, rel=3e-4)


def test_the_relative_distance_dies_unless_the_branch_is_scaled(random_stacks):
    """Jensen: the formula is at most the expected value; it stays of order one only for alpha^2 = 1/L."""
    start = rc.noci2022_relative_distance(jnp.array(1.0), jnp.array(1.0), 3, jnp.array(1.0))
    seen = {}
    for strength, (growth, _) in random_stacks.items():
        relative = 1 / np.sqrt(1 + 3 * growth)
        formula = rc.noci2022_relative_distance(
            jnp.array(1.0), jnp.array(1.0), 3, rc.noci2022_mean_growth(jnp.array(strength), DEPTH)
        )
        assert float(formula) <= relative.mean()
        seen[strength] = relative.mean() / float(start)
    assert seen[1.0] < 1e-2
    assert seen[DEPTH**-0.5] > 0.5
