"""Attention sinks: the measure, what it bounds, and where the bounds are attained."""

import jax
import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from support import reference
from support.certify import one_head
from support.matrices import GARBAGE, PADDED, TOKENS, WIDTH, attention_batch, pad_attention, structured, two_camps

from jaxsmooth.report.wording import SINK_LEVEL
from jaxsmooth.theory import (
    attention_dilution,
    first_token_attention,
    has_sink,
    sink_distance,
    sink_ergodicity,
    sink_strength,
    sink_update,
)
from jaxsmooth.theory.certify.arb_calculus import ArbCalculus
from jaxsmooth.theory.certify.float_calculus import HostCalculus
from jaxsmooth.theory.hypotheses import attention_pattern
from jaxsmooth.theory.statement import Verdict, decide
from jaxsmooth.theory.theorems import THEOREMS

STRENGTH, FIRST, TAU = jax.jit(sink_strength), jax.jit(first_token_attention), jax.jit(sink_ergodicity)
VALUES, DILUTION = jax.jit(lambda *given: (sink_distance(*given), sink_update(*given))), jax.jit(attention_dilution)
SEED = st.integers(0, 2**32 - 1)
ALL = np.ones(TOKENS, bool)
SIGNED = np.array([[1.5, -0.5], [-0.5, 1.5]])


def with_sinks(rng: np.random.Generator, cases: int = 14) -> np.ndarray:
    """Structured attention, part of which goes to one token, from query to query as much or differently."""
    attn = structured(rng, cases)
    share = rng.choice([0, 0.5, 0.9, 0.999], (cases, 1, 1)) * rng.choice([1.0, rng.uniform()], (cases, TOKENS, 1))
    return (1 - share) * attn + share * np.eye(TOKENS)[rng.integers(0, TOKENS, cases)][:, None]


def padded(rng: np.random.Generator, attn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    wide = np.stack([pad_attention(rng, a) for a in attn])
    return wide, np.broadcast_to(np.arange(PADDED) < TOKENS, (len(attn), PADDED))


def alone(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """One case in the shapes of the others, so that nothing is compiled again: padded, and its mask."""
    wide = [np.zeros((14, PADDED, PADDED if a.shape[0] == a.shape[1] else WIDTH)) for a in arrays]
    for full, own in zip(wide, arrays, strict=True):
        full[:, : own.shape[0], : own.shape[1]] = own
    return *wide, np.broadcast_to(np.arange(PADDED) < len(arrays[0]), (14, PADDED))


def first(found):
    """Of a batch of one case many times."""
    return jax.tree.map(lambda side: np.asarray(side)[0], found)


def mixing_bound(attn: np.ndarray) -> float:
    """(n s min(1, 2 (1 - s)))^(1/2)."""
    n, s = len(attn), max(attn.mean(axis=0))
    return float(np.sqrt(n * s * min(1, 2 * (1 - s))))


def holds(statement, rtol: float = 1e-12) -> None:
    lhs, rhs, applicable = (np.asarray(side) for side in statement)
    assert applicable.all()
    assert np.all(lhs <= rhs * (1 + rtol) + 1e-14)


@given(seed=SEED)
def test_the_measures_are_the_references(seed):
    attn, mask = attention_batch(np.random.default_rng(seed))
    real = [a[m][:, m] for a, m in zip(attn, mask, strict=True)]
    garbage = np.where(mask[..., None], attn, GARBAGE)
    for found, expected in ((STRENGTH, reference.sink_strength), (FIRST, reference.first_token_attention)):
        np.testing.assert_allclose(found(attn, mask), [expected(a) for a in real], rtol=1e-14, atol=1e-300)
        np.testing.assert_array_equal(found(garbage, mask), found(attn, mask))


def test_padding_in_front_and_heads():
    """The first real token is not the first place; every head has its own sink."""
    attn = np.zeros((1, 2, 4, 4))
    attn[0, :, 1:, 1:] = [[[0.5, 0.25, 0.25]] * 3, [[0, 0, 1]] * 3]
    mask = np.array([[False, True, True, True]])
    assert np.asarray(STRENGTH(attn, mask)).tolist() == [[0.5, 1]]
    assert np.asarray(FIRST(attn, mask)).tolist() == [[0.5, 0]]


def test_has_sink_asks_for_the_same_number():
    attn = with_sinks(np.random.default_rng(0), 28)
    strengths = np.asarray(STRENGTH(attn, np.broadcast_to(ALL, (28, TOKENS))))
    assert [has_sink(a) for a in attn] == (strengths > SINK_LEVEL).tolist()
    assert 0 < np.sum(strengths > SINK_LEVEL) < 28
    assert attention_pattern.SINK_LEVEL == SINK_LEVEL


@given(seed=SEED)
def test_a_sink_bounds_the_mixing_rate(seed):
    for attn in with_sinks(np.random.default_rng(seed)):
        assert reference.mixing_rate(attn) <= mixing_bound(attn) * (1 + 1e-12) + 1e-14


def test_the_registered_theorem_is_this_one():
    """Its enclosed sides hold numpy's, in floats and in Arb; at rows of exactly one kind it is decided."""
    text = THEOREMS["sink_mixing"].statement
    hidden = np.ones((TOKENS, 1))
    for attn in with_sinks(np.random.default_rng(1)):
        sides = [text(one_head(calculus, hidden, attn)) for calculus in (HostCalculus, ArbCalculus)]
        ends = [(side.lower, side.upper) for side in sides[0][:2]]
        ends += [(float(side.lower()), float(side.upper())) for side in sides[1][:2]]
        for (low, high), value in zip(ends, (reference.mixing_rate(attn), mixing_bound(attn)) * 2, strict=True):
            assert low - 1e-7 <= value <= high + 1e-7
        assert decide(*sides[0]) != Verdict.VIOLATED
    even = text(one_head(HostCalculus, hidden, np.full((TOKENS, TOKENS), 1 / TOKENS)))
    assert decide(*even) == Verdict.CONFIRMED


def groups(*sizes: int) -> np.ndarray:
    """One token is copied by so many, another by so many."""
    return np.eye(sum(sizes))[np.repeat(np.arange(len(sizes)), sizes)]


@pytest.mark.parametrize("sizes", [(3, 3), (4, 2), (5, 1), (2, 2, 1, 1), (1,) * 6])
def test_the_bound_of_the_mixing_rate_is_attained(sizes):
    """At every strength from 1/n up: below 1/2 it takes a second token as strong, above it the others' only one."""
    attn = groups(*sizes)
    assert reference.mixing_rate(attn) == pytest.approx(mixing_bound(attn), rel=1e-12)


def test_a_sink_below_a_half_makes_mixing_no_weaker():
    """So what prevents mixing is a share above a half: the bound grows up to there."""
    rates = [reference.mixing_rate(groups(k, 6 - k)) for k in (3, 4, 5, 6)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == pytest.approx(reference.mixing_rate(two_camps(6)))
    assert rates[-1] == pytest.approx(0, abs=1e-14)
    assert reference.mixing_rate(groups(2, 2, 2)) > reference.mixing_rate(groups(1, 1, 1, 1, 1, 1))


def test_the_mixing_bound_needs_probabilities():
    assert reference.mixing_rate(SIGNED) > 1.9 * mixing_bound(SIGNED)
    heavy = 1.5 * np.eye(2)
    assert reference.mixing_rate(heavy) > 1.7 * mixing_bound(heavy)
    applicable = THEOREMS["sink_mixing"].statement(one_head(HostCalculus, np.ones((2, 1)), SIGNED)).applicable
    assert not applicable


@given(seed=SEED)
def test_what_all_queries_give_one_key_bounds_tau(seed):
    rng = np.random.default_rng(seed)
    attn = with_sinks(rng)
    found = TAU(*padded(rng, attn))
    np.testing.assert_allclose(found.rhs, [1 - max(a.min(axis=0)) for a in attn], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(found.lhs, [reference.ergodicity_coefficient(a) for a in attn], rtol=1e-12, atol=1e-15)
    holds(found)


def test_the_bound_of_tau_is_attained_and_needs_probabilities():
    attained = first(TAU(*alone(np.array([[0.7, 0.3, 0], [0.7, 0, 0.3], [0.7, 0.1, 0.2]]))))
    assert attained.lhs == pytest.approx(attained.rhs, rel=1e-14)
    broken = first(TAU(*alone(np.array([[1.0, 0.0], [1.5, -0.5]]))))
    assert broken.lhs > broken.rhs + 0.4
    assert not broken.applicable
    assert not first(TAU(*alone(1.5 * np.eye(2)))).applicable


@given(seed=SEED)
def test_a_head_with_a_sink_adds_what_stands_there(seed):
    rng = np.random.default_rng(seed)
    attn = with_sinks(rng)
    values = rng.standard_normal((len(attn), TOKENS, WIDTH)) * 10 ** rng.uniform(-2, 2, (len(attn), TOKENS, 1))
    wide, mask = padded(rng, attn)
    rows = np.full((len(attn), PADDED, WIDTH), GARBAGE)
    rows[:, :TOKENS] = values
    near, added = VALUES(wide, rows, mask)
    holds(near)
    holds(added)
    for k, (a, v) in enumerate(zip(attn, values, strict=True)):
        found = [near.lhs[k], added.lhs[k], near.rhs[k], added.rhs[k]]
        sides = [np.array(sides_at(a, v, j)) for j in np.flatnonzero(a.mean(axis=0) >= a.mean(axis=0).max() - 1e-12)]
        scale = np.abs(v).max()
        assert min(np.abs(np.array(found) - expected).max() for expected in sides) <= 1e-12 * scale


def sides_at(a: np.ndarray, v: np.ndarray, j: int) -> list[float]:
    """The four sides, for one of the strongest keys."""
    s, sizes = a.mean(axis=0)[j], np.linalg.norm(v, axis=1)
    means = [np.linalg.norm(a @ v - v[j], axis=1).mean(), np.linalg.norm(a @ v, axis=1).mean()]
    far, others = np.linalg.norm(v - v[j], axis=1).max(), np.delete(sizes, j).max()
    return [*means, (1 - s) * far, s * sizes[j] + (1 - s) * others]


def test_what_a_sink_adds_is_attained_and_needs_probabilities():
    """Whatever the sink leaves goes to one other token, whose value points the same way."""
    attn = np.array([[0.6, 0.4, 0], [0.9, 0.1, 0], [0.75, 0.25, 0]])
    values = np.array([[1.0, 2.0], [3.0, 6.0], [2.0, 0.0]])
    for found in first(VALUES(*alone(attn, values))):
        assert found.lhs == pytest.approx(found.rhs, rel=1e-14)
    for broken in (SIGNED, 1.5 * np.eye(2)):
        found = first(VALUES(*alone(broken, np.array([[1.0], [-1.0]]))))
        assert any(side.lhs > side.rhs + 0.2 for side in found)
        assert not any(side.applicable for side in found)


@given(seed=SEED)
def test_no_key_receives_more_than_the_spread_of_logits_allows(seed):
    rng = np.random.default_rng(seed)
    logits = 10 ** rng.uniform(-2, 1.5, (14, 1, 1)) * rng.standard_normal((14, TOKENS, TOKENS))
    attn = scipy.special.softmax(logits, axis=-1)
    wide, mask = padded(rng, attn)
    found = DILUTION(wide, np.pad(logits, ((0, 0), (0, 2), (0, 2)), constant_values=GARBAGE), mask)
    delta = np.ptp(logits, axis=-1).max(axis=-1)
    np.testing.assert_allclose(found.lhs, attn.max(axis=(1, 2)), rtol=1e-14)
    np.testing.assert_allclose(found.rhs, np.exp(delta) / (np.exp(delta) + TOKENS - 1), rtol=1e-12)
    holds(found)


@pytest.mark.parametrize("tokens", [2, 4, 8])
def test_a_share_takes_logits_of_size_log_n(tokens):
    """One key above all others attains the bound: a half takes log(n - 1), and a fixed spread leaves ever less."""
    spread = np.log(tokens - 1)
    logits = np.zeros((tokens, tokens))
    logits[:, 0] = spread
    found = first(DILUTION(*alone(scipy.special.softmax(logits, axis=-1), logits)))
    assert [found.lhs, found.rhs] == pytest.approx([0.5, 0.5], rel=1e-12)
    fixed = scipy.special.softmax(np.sign(logits), axis=-1)
    assert first(DILUTION(*alone(fixed, np.sign(logits)))).rhs == pytest.approx(fixed.max(), rel=1e-12)
    assert fixed.max() <= np.e / tokens


def test_the_bound_by_logits_needs_one_mask_for_all_queries():
    seen = np.tri(3, dtype=bool)
    logits = np.where(seen, 0.0, -np.inf)
    found = first(DILUTION(*alone(scipy.special.softmax(logits, axis=-1), logits)))
    assert not found.applicable
    assert found.lhs == 1  # the first query, though all logits that it may see are equal
