"""Loops with recall: no two states in a row collapse, fixed states lie between two distances, and where it fails."""

import jax
import numpy as np
import pytest
from support.matrices import PADDED, WIDTH, lengths_mask
from support.statements import CASES, assert_holds, attentions, distances, few_or_many_seeds, tokens_for

from jaxsmooth.theory import labovich2026_fixed_state, labovich2026_recall

RECALL, FIXED = jax.jit(labovich2026_recall), jax.jit(labovich2026_fixed_state)


def linear_map(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """X <- A X W + U: attention, weights of norm 10^-2 to 10, what is put in, and the mask."""
    attn, mask = attentions(rng)
    weight = 10 ** rng.uniform(-2, 1, (CASES, 1, 1)) * rng.standard_normal((CASES, WIDTH, WIDTH)) / WIDTH**0.5
    return np.where(mask[..., None, :], attn, 0), weight, tokens_for(rng, mask), mask


def clean(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.where(mask[..., None], x, 0)


@few_or_many_seeds
def test_no_two_states_in_a_row_collapse(seeds):
    for seed in seeds:
        rng = np.random.default_rng(seed)
        attn, weight, injected, mask = linear_map(rng)
        x = clean(tokens_for(rng, mask), mask)
        image = attn @ x @ weight
        before, moved = distances(x, mask), distances(image, mask)
        rate = np.divide(moved, before, out=np.zeros(CASES), where=before > 1e-9) * rng.choice([1.0, 1.5], CASES)
        rate[before <= 1e-9] = 1e3
        found = RECALL(x, image + clean(injected, mask), injected, mask, rate)
        assert_holds(found, rtol=1e-9, atol=1e-12, share=0.99)
        np.testing.assert_allclose(found.lhs, distances(injected, mask), rtol=1e-9, atol=1e-9)


def solved(attn: np.ndarray, weight: np.ndarray, injected: np.ndarray) -> np.ndarray:
    """X = A X W + U, as one linear system."""
    system = np.eye(injected.size) - np.kron(attn, weight.T)
    return np.linalg.solve(system, injected.ravel()).reshape(injected.shape)


def test_fixed_states_lie_between_the_two_distances():
    rng, asked = np.random.default_rng(0), 0
    attn, weight, injected, mask = linear_map(rng)
    for k in range(0, CASES, 9):
        real = mask[k]
        u, a = injected[k][real], attn[k][real][:, real]
        x = np.zeros((PADDED, WIDTH))
        x[real] = solved(a, weight[k], u)
        sizes = [float(np.linalg.norm(y - y.mean(axis=0))) for y in (x[real], a @ x[real] @ weight[k])]
        if sizes[0] < 1e-6 * np.abs(x).max():
            continue
        rate = np.array(sizes[1] / sizes[0])
        low, high = RECALL(x, x, injected[k], real, rate), FIXED(x, injected[k], real, rate)
        for found in (low, high):
            assert not found.applicable or float(found.lhs) <= float(found.rhs) * (1 + 1e-9)
        assert bool(high.applicable) <= bool(rate < 1)
        asked += bool(high.applicable)
    assert asked > 40


@pytest.mark.parametrize("rate", [0.1, 0.9])
@pytest.mark.parametrize("size", [1e-20, 1.0, 1e20])
def test_both_are_attained(rate, size):
    """F = -v on what differs between tokens for the lower end, F = v for the upper."""
    u = size * np.random.default_rng(1).standard_normal((PADDED, WIDTH))
    u -= u.mean(axis=0)
    mask = np.ones(PADDED, bool)
    low, high = u / (1 + rate), u / (1 - rate)
    found = RECALL(low, low, u, mask, rate)
    assert found.applicable
    assert float(found.lhs) == pytest.approx(float(found.rhs), rel=1e-12)
    found = FIXED(high, u, mask, rate)
    assert found.applicable
    assert float(found.lhs) == pytest.approx(float(found.rhs), rel=1e-12)


def test_without_the_rate_or_with_a_norm_around_the_sum_it_fails():
    u, x, mask = np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([[0.5, 0.0], [0.5, 0.0]]), np.ones(2, bool)
    # F(X) = -U moves consensus: no rate bounds it.
    found = RECALL(x, x, u, mask, 3.0)
    assert not found.applicable
    assert float(found.lhs) > float(found.rhs) == 0
    # F = 0 and a norm around the sum: rows u and 2 u become equal, though v = 0.
    normed = u / np.linalg.norm(u, axis=1, keepdims=True)
    found = RECALL(normed, normed, u, mask, 0.0)
    assert not found.applicable
    assert float(found.lhs) > float(found.rhs) == 0
    # A rate of 1 and more bounds nothing from above: X = F(X) + U with F = 2 X - U.
    assert not FIXED(u, u, mask, 2.0).applicable


def test_without_recall_the_fixed_state_is_consensus():
    u, mask = np.zeros((PADDED, WIDTH)), lengths_mask([5])[0]
    found = FIXED(np.ones((PADDED, WIDTH)), u, mask, 0.5)
    assert (bool(found.applicable), float(found.lhs), float(found.rhs)) == (True, 0, 0)
