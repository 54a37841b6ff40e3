"""Numerical and effective rank against the distance to consensus: it holds, it is attained, the converse is false."""

import jax
import numpy as np
import pytest
from support import reference
from support.matrices import GARBAGE, PADDED, WIDTH, lengths_mask, orthonormal, pad_tokens
from support.statements import assert_holds, few_or_many_seeds, tokens_for

from jaxsmooth.theory import zhang2025_effective_rank, zhang2025_numerical_rank, zhang2025_rank_order

CASES = 504
ALL = jax.jit(
    lambda x, mask: tuple(
        text(x, mask) for text in (zhang2025_numerical_rank, zhang2025_effective_rank, zhang2025_rank_order)
    )
)


def states(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Of any rank, from far apart to nearly equal, and some without a token."""
    mask = lengths_mask(rng.integers(0, PADDED + 1, CASES))
    x = np.where(mask[..., None], tokens_for(rng, mask), 0)
    thin = rng.standard_normal((CASES, PADDED, 1)) @ rng.standard_normal((CASES, 1, WIDTH))
    near = 10 ** rng.uniform(-6, 1, (CASES, 1, 1)) * rng.standard_normal((CASES, PADDED, WIDTH)) + 1
    x = np.choose(rng.integers(0, 3, (CASES, 1, 1)), [x, thin, near])
    return np.where(mask[..., None], x, GARBAGE), mask


def largest_effective_rank(distance: float, kinds: int) -> float:
    """Of all singular values with this share behind the first: the others equal, by numpy."""
    tail = np.full(kinds - 1, np.sqrt(min(distance**2 / (1 - distance**2), kinds - 1) / max(kinds - 1, 1)))
    share = np.array([1.0, *tail]) / (1 + tail.sum())
    share = share[share > 0]
    return float(np.exp(-np.sum(share * np.log(share))))


@few_or_many_seeds
def test_distance_bounds_rank(seeds):
    for seed in seeds:
        x, mask = states(np.random.default_rng(seed))
        numerical, effective, order = ALL(x, mask)
        assert_holds(numerical, rtol=1e-9, atol=1e-14, share=0.7)
        assert_holds(effective, rtol=1e-9, share=0.7)
        assert_holds(order, rtol=1e-12, share=0.7)
        for k in range(0, CASES, 12):
            real = x[k][mask[k]]
            if not np.any(real):
                assert not numerical.applicable[k]
                continue
            share = float(np.linalg.norm(real - real.mean(axis=0)) / np.linalg.norm(real))
            sides = 1 - 1 / reference.stable_rank(real), share**2
            np.testing.assert_allclose([side[k] for side in numerical[:2]], sides, rtol=1e-8, atol=1e-14)
            if share < 0.999:
                sides = reference.effective_rank(real), largest_effective_rank(share, min(real.shape))
                np.testing.assert_allclose([side[k] for side in effective[:2]], sides, rtol=1e-6)
            assert float(order.rhs[k]) <= np.linalg.matrix_rank(real, tol=1e-13 * np.linalg.norm(real)) + 1e-6


def with_mean_first(rng: np.random.Generator, small: float) -> np.ndarray:
    """The mean is the first singular part, of size 1; all others have size `small`."""
    left = np.column_stack([np.full(PADDED, PADDED**-0.5), rng.standard_normal((PADDED, WIDTH - 1))])
    left, right = np.linalg.qr(left)[0], orthonormal(rng, WIDTH, WIDTH)
    return left @ np.diag([1.0, *[small] * (WIDTH - 1)]) @ right.T


@pytest.mark.parametrize("small", [1e-5, 0.1, 1.0])
@pytest.mark.parametrize("size", [1e-20, 1.0, 1e20])
def test_both_bounds_are_attained(small, size):
    x, mask = states(np.random.default_rng(0))
    x[0], mask[0] = pad_tokens(np.random.default_rng(1), size * with_mean_first(np.random.default_rng(2), small)), True
    numerical, effective, order = (jax.tree.map(lambda side: float(side[0]), found) for found in ALL(x, mask))
    assert numerical.lhs == pytest.approx(numerical.rhs, rel=1e-9)
    assert effective.lhs == pytest.approx(effective.rhs, rel=1e-6)
    if small == 1:
        assert order.lhs == pytest.approx(order.rhs) == pytest.approx(WIDTH)


def test_rank_one_far_from_consensus_and_energy_without_its_unit():
    """Tokens c_i y: rank 1 and d_M / ||H|| = 1. An energy of any size goes with any rank."""
    x, mask = states(np.random.default_rng(0))
    line = np.outer(np.linspace(-1, 1, PADDED), np.ones(WIDTH))
    x[0], x[1], mask[:2] = line, 1e-6 * with_mean_first(np.random.default_rng(3), 1.0), True
    numerical, effective, _ = ALL(x, mask)
    assert float(numerical.lhs[0]) < 1e-14 < float(numerical.rhs[0]) == pytest.approx(1)
    assert float(effective.lhs[0]) == pytest.approx(1, abs=1e-6)
    assert float(effective.rhs[0]) == pytest.approx(WIDTH, rel=1e-6)
    energy = float(np.sum((x[1] - x[1].mean(axis=0)) ** 2))
    assert float(numerical.lhs[1]) > 1e10 * energy
    assert reference.stable_rank(x[1]) - 1 == pytest.approx(WIDTH - 1)


def test_sums_over_padding_would_break_it():
    """The mean of n real tokens, not of all places: with zeros in it equal tokens would have a distance."""
    x, mask = states(np.random.default_rng(4))
    mask[0] = np.arange(PADDED) < 3
    x[0] = np.where(mask[0][:, None], 1.0, GARBAGE)
    numerical, _, order = ALL(x, mask)
    assert float(numerical.rhs[0]) < 1e-30
    assert (float(order.lhs[0]), float(order.rhs[0])) == pytest.approx((1, 1), abs=1e-6)
