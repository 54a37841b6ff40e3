"""Lemma 1 of Shi et al. (2022): it holds, it is tight, and it fails once a hypothesis is dropped."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from support.matrices import TOKENS, WIDTH, centring, lengths_mask, stochastic, token_batch, two_camps, uniform_causal
from support.statements import (
    CASES,
    LANCZOS,
    MANY,
    assert_at_most,
    assert_holds,
    attentions,
    distance,
    few_or_many,
    record,
    tokens_for,
)

from jaxsmooth.activations import ACTIVATIONS, OTHERS
from jaxsmooth.theory import SLOPES, mixing_rate
from jaxsmooth.theory.block import lemmas

ALL = np.ones(TOKENS, bool)
PHI = {name: activation.function for name, activation in (ACTIVATIONS | OTHERS).items()}
linear = jax.jit(jax.vmap(lemmas.shi2022_linear))
activation = jax.jit(lemmas.shi2022_activation, static_argnums=2)
total = jax.jit(jax.vmap(lemmas.shi2022_sum))
mixing, defect = jax.jit(lemmas.shi2022_mixing), jax.jit(lemmas.mixing_with_defect)
rate = jax.jit(mixing_rate)
CHEAP = {name: jax.jit(getattr(lemmas, f"mixing_rate_by_{name}")) for name in ("columns", "ergodicity", "entries")}


@few_or_many(CASES, MANY)
def test_linear_maps(seed, cases):
    """W of every shape and spectrum, singular ones included, one to a sentence."""
    rng = np.random.default_rng(seed)
    for columns in (2, 9):
        hidden, mask = token_batch(rng, cases // 2)
        weight = 10 ** rng.uniform(-2, 2, (cases // 2, 1, 1)) * rng.standard_normal((cases // 2, WIDTH, columns))
        weight[::4, :, -1] = weight[::4, :, 0]
        weight[1::4] = weight[1::4, :, :1] * weight[1::4, :1]
        found = linear(hidden, weight, mask)
        np.testing.assert_allclose(
            found.lhs,
            [distance(h[m] @ w) for h, m, w in zip(hidden, mask, weight, strict=True)],
            rtol=1e-9,
            atol=1e-12 * np.abs(found.rhs).max(),
        )
        np.testing.assert_allclose(
            found.rhs,
            np.linalg.norm(weight, 2, axis=(1, 2)) * [distance(h[m]) for h, m in zip(hidden, mask, strict=True)],
            rtol=1e-9,
        )
        assert_holds(found)


def test_linear_maps_are_attained():
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((WIDTH, 9))
    left = np.linalg.svd(weight)[0][:, 0]
    hidden = np.outer(rng.standard_normal(TOKENS), left) + rng.standard_normal(WIDTH)
    found = linear(hidden[None], weight[None], ALL[None])
    assert float(found.lhs[0]) == pytest.approx(float(found.rhs[0]), rel=1e-12)


@few_or_many(CASES, MANY)
@pytest.mark.parametrize("name", SLOPES)
def test_activations(name, seed, cases):
    hidden, mask = token_batch(np.random.default_rng(seed), cases)
    most = max(abs(slope) for slope in SLOPES[name])
    assert_holds(activation(hidden, PHI[name](jnp.asarray(hidden)), most, mask))


@pytest.mark.parametrize("name", sorted(set(SLOPES) - {"relu"}))
def test_activations_with_factor_one_fail_and_say_so(name):
    steepest = {"silu": 2.4, "quick_gelu": 2.4 / 1.702, "mish": 1.49}.get(name, math.sqrt(2))
    hidden = jnp.array([[steepest - 0.05], [steepest + 0.05]])
    found = activation(hidden, PHI[name](hidden), 1.0, np.ones(2, bool))
    assert float(found.lhs) > 1.08 * float(found.rhs)
    assert not found.applicable
    found = activation(hidden, PHI[name](hidden), SLOPES[name][1], np.ones(2, bool))
    assert found.applicable
    assert float(found.lhs) == pytest.approx(float(found.rhs), rel=1e-3)


@few_or_many(CASES, MANY)
def test_sums(seed, cases):
    rng = np.random.default_rng(seed)
    (hidden, mask), (other, _) = token_batch(rng, cases), token_batch(rng, cases)
    other = np.where((np.arange(cases) % 3 == 0)[:, None, None], -3 * hidden, other)
    alpha, beta = rng.standard_normal((2, cases)) * rng.choice([0, 1, 100], (2, cases))
    found = total(hidden, other, alpha, beta, mask)
    assert_holds(found, rtol=1e-7)
    # Multiples of one another, with factors such that both terms point the same way: an equality.
    aligned = (np.arange(cases) % 3 == 0) & (alpha * beta < 0)
    assert aligned.sum() > cases / 50
    np.testing.assert_allclose(found.lhs[aligned], found.rhs[aligned], rtol=1e-9)


def test_sums_need_absolute_factors():
    hidden = np.arange(TOKENS, dtype=float)[:, None]
    found = total(hidden[None], hidden[None], np.array([1.0]), np.array([-1.0]), ALL[None])
    assert float(found.lhs[0]) == 0 < float(found.rhs[0])
    found = total(hidden[None], -hidden[None], np.array([1.0]), np.array([-1.0]), ALL[None])
    assert float(found.lhs[0]) == pytest.approx(float(found.rhs[0]))
    signed = (1 - 1) * distance(hidden)
    assert float(found.lhs[0]) > signed


@few_or_many(CASES, MANY)
def test_mixing(seed, cases):
    rng = np.random.default_rng(seed)
    attn, mask = attentions(rng, cases)
    hidden = tokens_for(rng, mask)
    found = mixing(attn, hidden, mask)
    for k in range(0, cases, 7):
        a, h = attn[k][mask[k]][:, mask[k]], hidden[k][mask[k]]
        norm = np.linalg.svd(centring(len(a)) @ a, compute_uv=False)[0]
        assert float(found.lhs[k]) == pytest.approx(distance(a @ h), rel=1e-9, abs=1e-10)
        assert float(found.rhs[k]) == pytest.approx(norm * distance(h), rel=1e-9, abs=1e-9)
    # Tokens may share a mean 100 times their spread: its rounding error is no violation.
    size = np.max(np.abs(hidden) * mask[..., None], axis=(1, 2))
    assert found.applicable.all()
    assert_at_most(found, 1e-13 * size, recorded=1e-6 * size)


def test_mixing_is_attained():
    attn, mask = attentions(np.random.default_rng(3), 14 * 20)
    worst = np.zeros((*mask.shape, 1))
    for k, real in enumerate(mask):
        worst[k, real] = np.linalg.svd(centring(real.sum()) @ attn[k][real][:, real])[2][:1].T
    found = mixing(attn, worst, mask)
    # Where J A = 0 there is nothing to attain.
    some = np.asarray(found.rhs) > 1e-6
    assert some.mean() > 0.9
    np.testing.assert_allclose(found.lhs[some], found.rhs[some], rtol=1e-8)


def test_mixing_needs_rows_of_equal_sums():
    """Queries set to zero, as some libraries leave padding: consensus is torn apart, and the statement knows."""
    zeroed = stochastic(np.random.default_rng(0), TOKENS)
    zeroed[-2:] = 0
    found = mixing(zeroed, np.ones((TOKENS, 1)), ALL)
    assert float(found.lhs) == pytest.approx(math.sqrt(4 * 2 / 6))
    assert float(found.rhs) == 0
    assert not found.applicable
    repaired = defect(zeroed, np.ones((TOKENS, 1)), ALL)
    assert float(repaired.lhs) == pytest.approx(float(repaired.rhs))


def test_mixing_does_not_apply_where_padding_leaks():
    attn, hidden = np.full((TOKENS, TOKENS), 1 / TOKENS), np.ones((TOKENS, 1))
    mask = lengths_mask([4], TOKENS)[0]
    assert not mixing(attn, hidden, mask).applicable
    assert mixing(np.where(mask, 1 / 4, 0) * np.ones((TOKENS, 1)), hidden, mask).applicable


def test_mixing_with_an_unnormalised_e_is_false():
    """Definition 1 read literally, e = (1, .., 1): the eigenvalue .00673 does not bound the square .0100."""
    attn, hidden = np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([[1.0], [-1.0]])
    found = mixing(attn, hidden, np.ones(2, bool))
    literal = np.linalg.eigvalsh(attn.T @ (np.eye(2) - np.ones((2, 2))) @ attn).max()
    assert literal == pytest.approx(0.00673, abs=5e-6)
    assert float(found.lhs) ** 2 / 2 == pytest.approx(0.01)
    assert float(found.lhs) == pytest.approx(float(found.rhs))


@few_or_many(CASES, MANY)
def test_mixing_with_defect(seed, cases):
    """Any matrices: dropout, sigmoid attention, sinks that take a share of every row, negative entries."""
    rng = np.random.default_rng(seed)
    attn, mask = attentions(rng, cases)
    kinds = [
        lambda a: a * (rng.uniform(size=a.shape) > 0.1) / 0.9,
        lambda a: scipy.special.expit(5 * rng.standard_normal(a.shape)),
        lambda a: a * rng.uniform(size=(*a.shape[:-1], 1)),
        lambda a: rng.standard_normal(a.shape),
    ]
    attn = np.concatenate([make(part) for make, part in zip(kinds, np.split(attn, 4), strict=True)])
    hidden = tokens_for(rng, mask)
    assert_holds(defect(attn, hidden, mask), rtol=LANCZOS)
    sums = np.ma.masked_where(~mask, attn.sum(axis=2))
    apart = np.asarray(sums.max(axis=1) - sums.min(axis=1)) / np.maximum(np.asarray(np.abs(sums).max(axis=1)), 1e-300)
    applicable = np.asarray(mixing(attn, hidden, mask).applicable)
    # A dropped entry of 1e-12 is beyond rounding: the statement says so where it can tell.
    assert applicable[apart < 1e-15].all()
    assert not applicable[apart > 1e-13].any()
    assert np.mean((apart >= 1e-15) & (apart <= 1e-13)) < 0.05


def test_the_largest_mixing_rate_over_all_extreme_matrices():
    """lambda is convex, so its supremum is among the matrices that copy one token into each row: all, n <= 5."""
    for n in range(2, 6):
        rows = np.array(list(itertools.product(range(n), repeat=n)))
        attn = np.eye(n)[rows]
        largest = np.linalg.svd(centring(n) @ attn, compute_uv=False)[:, 0].max()
        assert float(lemmas.largest_mixing_rate(jnp.array(n))) == pytest.approx(largest, rel=1e-12)


@pytest.mark.parametrize("n", [7, 8, 64, 101])
def test_the_largest_mixing_rate_is_attained_by_two_camps(n):
    found = float(rate(two_camps(n), np.ones(n, bool)))
    assert found == pytest.approx(float(lemmas.largest_mixing_rate(jnp.array(n))), rel=1e-10)


@few_or_many(CASES, MANY)
def test_upper_bounds_of_the_mixing_rate(seed, cases):
    attn, mask = attentions(np.random.default_rng(seed), cases)
    found = np.asarray(rate(attn, mask))
    every = {name: np.asarray(bound(attn, mask)) for name, bound in CHEAP.items()}
    every["all of n tokens"] = np.asarray(lemmas.largest_mixing_rate(jnp.asarray(mask.sum(axis=1))))
    for name, most in every.items():
        false = found > most * (1 + 1e-9) + 1e-12
        record(found, most, int(false.sum()))
        assert not false.any(), name


def test_upper_bounds_of_the_mixing_rate_are_attained():
    camps = two_camps(TOKENS)
    for name in ("columns", "entries"):
        assert float(CHEAP[name](camps, ALL)) == pytest.approx(float(rate(camps, ALL)), rel=1e-10)
    pairs = np.random.default_rng(0).dirichlet(np.ones(2), (CASES, 2))
    both = np.ones((CASES, 2), bool)
    np.testing.assert_allclose(CHEAP["ergodicity"](pairs, both), rate(pairs, both), rtol=1e-8, atol=1e-12)


def test_upper_bounds_of_the_mixing_rate_need_rows_that_sum_to_one():
    """Rows that sum to 3: three times the largest rate; entries of both signs: columns that sum to nothing."""
    assert float(rate(3 * two_camps(TOKENS), ALL)) > 2.9 * float(lemmas.largest_mixing_rate(jnp.array(TOKENS)))
    signed = np.outer(np.array([1.0, 1, 1, -1, -1, -1]), np.array([1.0, 0, 0, 0, 0, 0]))
    assert float(CHEAP["columns"](signed, ALL)) == 0 < float(rate(signed, ALL))


def test_softmax_and_plain_masks_reach_mixing_rates_above_one():
    logits = 12 * two_camps(64)
    assert float(rate(scipy.special.softmax(logits, axis=1), np.ones(64, bool))) ** 2 == pytest.approx(31.97, abs=0.01)
    for n, expected in ((2, 0.50), (8, 0.84), (64, 1.235), (512, 1.488)):
        assert float(rate(uniform_causal(n), np.ones(n, bool))) == pytest.approx(expected, abs=5e-3)


def test_padding_changes_nothing():
    rng = np.random.default_rng(5)
    attn, mask = attentions(rng, 14 * 4)
    hidden = tokens_for(rng, mask)
    functions = {
        "mixing": lambda a, h, m: mixing(a, h, m)[:2],
        "defect": lambda a, h, m: defect(a, h, m)[:2],
        **{name: functools.partial(lambda bound, a, h, m: (bound(a, m),), bound) for name, bound in CHEAP.items()},
    }
    full = mask.sum(axis=1) == TOKENS
    bare = attn[full][:, :TOKENS, :TOKENS], hidden[full][:, :TOKENS], mask[full][:, :TOKENS]
    size = np.abs(bare[1]).max(axis=(1, 2))
    for name, function in functions.items():
        for ours, theirs in zip(function(*bare), function(attn, hidden, mask), strict=True):
            assert np.all(np.abs(ours - theirs[full]) <= 1e-9 * np.abs(ours) + 1e-11 * size), name
