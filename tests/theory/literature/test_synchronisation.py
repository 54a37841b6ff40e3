"""Tokens on a sphere become one at rates free of their number: against integration, attained, and where it fails."""

import jax
import numpy as np
import pytest
import scipy.integrate
import scipy.special
from support.matrices import PADDED, lengths_mask, orthonormal
from support.statements import assert_holds, few_or_many_seeds

from jaxsmooth.errors import OptionError
from jaxsmooth.theory import (
    chen2025_clustering,
    geshkovski2023_clustering,
    geshkovski2023_flow,
    rigollet2025_gap,
    rigollet2025_range,
)

CASES = 512
FLOW = jax.jit(geshkovski2023_flow, static_argnums=(3, 4))
FOUND, OLDER = jax.jit(chen2025_clustering), jax.jit(geshkovski2023_clustering)
GAP, RANGE = jax.jit(rigollet2025_gap, static_argnums=4), jax.jit(rigollet2025_range)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def acute(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of one octant in a random frame, from nearly a point to its corners."""
    mask = lengths_mask(rng.integers(1, PADDED + 1, CASES))
    spread = 10 ** rng.uniform(-3, 1, (CASES, 1, 1))
    x = 1 + spread * np.abs(rng.standard_normal((CASES, PADDED, 4)))
    corners = np.eye(4)[rng.integers(0, 4, (CASES, PADDED))]
    x = np.where(rng.uniform(size=(CASES, 1, 1)) < 0.3, corners, x)
    return np.where(mask[..., None], unit(x) @ orthonormal(rng, 4, 4).T, 1e6), mask


@few_or_many_seeds
def test_it_holds_and_is_sharper_than_the_rate_by_pairs(seeds):
    for seed in seeds:
        rng = np.random.default_rng(seed)
        x, mask = acute(rng)
        sharpness, time = np.float64(rng.choice([0.0, 1.0, 4.0])), 1.0
        after = FLOW(x, mask, sharpness, time, 64)
        found, older = FOUND(x, after, mask, sharpness, time), OLDER(x, after, mask, sharpness, time)
        assert assert_holds(found, rtol=1e-7, atol=1e-13, share=0.99).max() > 0.9
        gaps = 1 - np.asarray(older.lhs)
        assert np.all(np.asarray(found.rhs) <= gaps * (1 + 1e-6) + 1e-14)
        # Of many tokens the other is slower by the order of n.
        many = (mask.sum(axis=1) == PADDED) & (gaps > 0.5)
        assert not many.any() or np.asarray(found.rhs)[many].mean() < gaps[many].mean()


def simplex(tokens: int, cosine: float) -> np.ndarray:
    return np.linalg.cholesky((1 - cosine) * np.eye(tokens) + cosine)


def moved(x: np.ndarray, beta: float, time: float) -> np.ndarray:
    """By scipy, from numpy's velocity."""

    def velocity(_: float, flat: np.ndarray) -> np.ndarray:
        y = flat.reshape(x.shape)
        pull = scipy.special.softmax(beta * y @ y.T, axis=1) @ y
        return (pull - np.sum(pull * y, axis=1, keepdims=True) * y).ravel()

    solved = scipy.integrate.solve_ivp(velocity, (0, time), x.ravel(), rtol=1e-10, atol=1e-13)
    return unit(solved.y[:, -1].reshape(x.shape))


@pytest.mark.parametrize(("tokens", "cosine"), [(2, 0.5), (5, 0.0), (8, 0.1), (8, 0.9)])
def test_it_is_attained_by_simplices_under_uniform_attention(tokens, cosine):
    x, mask = simplex(tokens, cosine), np.ones(tokens, bool)
    for time in (0.1, 1.0, 3.0):
        found = chen2025_clustering(x, moved(x, 0.0, time), mask, 0.0, time)
        assert found.applicable
        assert float(found.lhs) == pytest.approx(float(found.rhs), rel=1e-6)


@pytest.mark.parametrize("beta", [0.0, 1.0, 6.0])
def test_the_law_of_one_cosine_is_that_of_the_tokens(beta):
    """Against all tokens integrated: cosines stay alike and are the law's; both ends of the range hold them."""
    for tokens, cosine in ((2, -0.5), (4, 0.0), (7, 0.3)):
        x = simplex(tokens, cosine)
        for time in (0.5, 4.0):
            y = moved(x, beta, time)
            gaps = 1 - (y @ y.T)[~np.eye(tokens, dtype=bool)]
            given = (np.float64(1 - cosine), np.float64(beta), np.float64(tokens), np.float64(time))
            found, (low, high) = float(GAP(*given, 400)), map(float, RANGE(*given))
            np.testing.assert_allclose(gaps, found, rtol=1e-6, atol=1e-11)
            assert low * (1 - 1e-9) <= found <= high * (1 + 1e-9)
            if beta == 0:
                assert [low, high] == pytest.approx([found, found], rel=1e-9)


def test_in_the_end_the_rate_is_2_whatever_sharpness_and_number():
    for beta, tokens in ((0.0, 2.0), (3.0, 10.0), (8.0, 1000.0)):
        given = np.float64(1e-6), np.float64(beta), np.float64(tokens)
        assert float(GAP(*given, np.float64(2.0), 400)) == pytest.approx(1e-6 * np.exp(-4), rel=1e-4)


def test_long_contexts_wait_where_sharpness_is_beyond_log_n():
    """Orthogonal tokens, beta = k log n: until c = 1/2 a time like log n for k < 1, n^(k - 1) log n for k > 1."""

    def waited(k: float, log_tokens: float) -> float:
        tokens = np.exp(log_tokens)
        times = np.geomspace(1e-2, 1e9, 2000)  # by 1.3 per cent
        y0, y1 = 0.0, np.log(1 + tokens)
        y = np.linspace(y0, y1, 200_001)
        slow = np.exp(k * log_tokens * tokens / (tokens - 1 + np.exp(y)) - np.log(2 * tokens))
        exact = np.trapezoid(slow + (tokens - 1) / (2 * tokens), y)
        ends = np.asarray(RANGE(np.ones(2000), np.float64(k * log_tokens), np.float64(tokens), times))
        # The time lies between those at which the two ends pass one half.
        assert times[np.argmax(ends[0] <= 0.5)] * 0.98 <= exact <= times[np.argmax(ends[1] <= 0.5)] * 1.02
        return float(exact)

    assert waited(0.5, 16.0) / waited(0.5, 8.0) == pytest.approx(2, rel=0.05)
    assert np.log(waited(1.5, 20.0) / waited(1.5, 12.0)) == pytest.approx(0.5 * 8 + np.log(20 / 12), abs=0.2)


def test_obtuse_angles_and_values_of_the_other_sign_break_it():
    nearly = np.pi - 1e-3
    x, mask = np.array([[1.0, 0.0], [np.cos(nearly), np.sin(nearly)]]), np.ones(2, bool)
    found = chen2025_clustering(x, moved(x, 0.0, 1.0), mask, 0.0, 1.0)
    assert not found.applicable
    # Two at an acute angle, the third far from both: the smallest cosine falls at first.
    low, beta, time = -0.473, 4.0, 0.5
    start = np.linalg.cholesky([[1, -0.47, low], [-0.47, 1, 0.6], [low, 0.6, 1]])
    parting = chen2025_clustering(start, moved(start, beta, time), np.ones(3, bool), beta, time)
    assert not parting.applicable
    rhs = 3 * (1 - low) / (2 * (1 - low) + (1 + 2 * low) * np.exp(2 * np.exp(-beta * (1 - low)) * time))
    assert 0 < float(parting.rhs) <= rhs < float(parting.lhs) - 0.01
    # A triangle on the circle stays for ever, and attains it; tokens that repel each other part (time backwards).
    turns = 2 * np.pi * np.arange(3) / 3
    ring = np.stack([np.cos(turns), np.sin(turns)], axis=1)
    still = chen2025_clustering(ring, ring, np.ones(3, bool), 0.0, 1.0)
    assert not still.applicable
    assert float(still.lhs) == pytest.approx(float(still.rhs), rel=1e-14)
    acute_two = simplex(2, 0.9)
    parted = chen2025_clustering(moved(acute_two, 0.0, 0.5), acute_two, mask, 0.0, 0.5)
    assert parted.applicable
    assert float(parted.lhs) > 2 * float(parted.rhs)


@pytest.mark.parametrize("tokens", [2.0, 3.0, 7.0, 1000.0])
def test_of_no_such_tokens_nothing_is_answered(tokens):
    """Gaps beyond n / (n - 1), negative numbers; both ends of the gap stay what they are, however long."""
    most = tokens / (tokens - 1)
    sound = np.array([0.5, 1.0, tokens, 1.0])
    for place, value in ((0, most * (1 + 1e-12)), (0, -1e-9), (0, np.nan), (1, -1.0), (2, 1.0), (3, -0.1)):
        given = np.where(np.arange(4) == place, value, sound)
        assert np.isnan([GAP(*given, 400), *RANGE(*given)]).all(), (place, value)
    for gap in (0.0, most):
        for time in (0.0, 3.0, 1e4):
            given = np.array([gap, 1.0, tokens, time])
            np.testing.assert_allclose([GAP(*given, 400), *RANGE(*given)], gap, rtol=1e-14, atol=0)


def test_degenerate_sentences():
    one = np.eye(4)[:1]
    single = chen2025_clustering(one, one, np.ones(1, bool), 1.0, 1.0)
    assert (bool(single.applicable), float(single.lhs), float(single.rhs)) == (True, 0, 0)
    same = np.repeat(one, 3, axis=0)
    equal = chen2025_clustering(same, same, np.ones(3, bool), 1.0, 1.0)
    assert (bool(equal.applicable), float(equal.lhs), float(equal.rhs)) == (True, 0, 0)
    assert not chen2025_clustering(same, same, np.zeros(3, bool), 1.0, 1.0).applicable
    with pytest.raises(OptionError):
        rigollet2025_gap(np.float64(0.5), 1.0, 3.0, 1.0, 0)
