"""Closed classes, periods and sensitivity of chains, against structures known by hand."""

import jax
import numpy as np
import pytest
from support.matrices import pad_attention, stochastic

from jaxsmooth.theory import (
    chain_limit,
    closed_classes,
    detailed_balance_defect,
    group_inverse,
    meyer1994_lower,
    meyer1994_upper,
    stationary_law,
)

CASES = 1000
limit_of, law_of, defect_of = jax.jit(chain_limit), jax.jit(stationary_law), jax.jit(detailed_balance_defect)
STRUCTURES = {
    "irreducible": (np.full((3, 3), 1 / 3), [1], 0, "irreducible", True),
    "cycle": (np.eye(4)[[1, 2, 3, 0]], [4], 0, "irreducible", False),
    "two and three": (np.array([[0, 1, 0], [0.5, 0, 0.5], [1, 0, 0]]), [1], 0, "irreducible", True),
    "bipartite": (np.array([[0, 0, 0.5, 0.5], [0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0]]), [2], 0, "irreducible", False),
    "causal": (np.tri(4) / np.arange(1, 5)[:, None], [1], 3, "unichain", True),
    "identity": (np.eye(3), [1, 1, 1], 0, "absorbing", True),
    "sinks": (np.array([[1, 0, 0], [0.5, 0, 0.5], [0, 0, 1]]), [1, 1], 1, "absorbing", True),
    "sink and swap": (np.array([[1.0, 0, 0], [0, 0, 1], [0, 1, 0]]), [1, 2], 0, "reducible", False),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_structures_known_by_hand(name):
    attn, periods, transient, kind, converges = STRUCTURES[name]
    # A padded token in front, with garbage around it.
    wide = np.full((len(attn) + 1, len(attn) + 1), 0.5)
    wide[1:, 1:] = attn
    found = closed_classes(wide, np.arange(len(wide)) > 0)
    assert (list(found.periods), len(found.transient), found.kind) == (periods, transient, kind)
    assert found.converges == converges
    assert found.ergodic == (converges and len(periods) == 1)
    assert all(0 not in members for members in found.closed)
    # The period counts the eigenvalues of modulus 1.
    assert np.sum(np.abs(np.linalg.eigvals(attn)) > 1 - 1e-9) == sum(periods)


def test_meyers_bounds_hold():
    """P-3.4, on irreducible matrices with a float spectrum that can be trusted."""
    rng = np.random.default_rng(3)
    largest = 0.0
    for _ in range(CASES):
        size = int(rng.integers(2, 9))
        attn = pad_attention(rng, (1 - 1e-3) * stochastic(rng, size) + 1e-3 / size, 9)
        mask = np.arange(9) < size
        lower, upper = meyer1994_lower(attn, mask), meyer1994_upper(attn, mask)
        assert lower.applicable
        assert upper.applicable
        assert lower.lhs <= lower.rhs * (1 + 1e-9)
        assert upper.lhs < upper.rhs
        largest = max(largest, float(upper.lhs / upper.rhs))
    # The factor 2 has never been needed.
    assert 0.4 < largest <= 0.5 * (1 + 1e-9)


def test_meyers_lower_bound_is_attained_and_needs_irreducibility():
    rho = 0.999
    swap = np.array([[1 + rho, 1 - rho], [1 - rho, 1 + rho]]) / 2
    lower = meyer1994_lower(swap, np.ones(2, bool))
    assert float(lower.rhs) == pytest.approx(float(lower.lhs), rel=1e-9)
    assert not meyer1994_lower(np.array([[1.0, 0.0], [0.5, 0.5]]), np.ones(2, bool)).applicable
    assert not meyer1994_upper(np.ones((1, 1)), np.ones(1, bool)).applicable


def test_the_group_inverse_is_one():
    """Its three defining equations, and what it is for: the derivative of pi along a change E of A."""
    rng = np.random.default_rng(4)
    attn, mask = stochastic(rng, 7), np.ones(7, bool)
    deficit, inverse = np.eye(7) - attn, group_inverse(attn, mask)
    for left, right in (
        (deficit @ inverse @ deficit, deficit),
        (inverse @ deficit @ inverse, inverse),
        (deficit @ inverse, inverse @ deficit),
    ):
        np.testing.assert_allclose(left, right, atol=1e-9 * np.abs(inverse).max())
    step = 1e-7 * (stochastic(rng, 7) - attn)
    law = np.asarray(law_of(attn, mask))
    moved = np.asarray(law_of(attn + step, mask)) - law
    np.testing.assert_allclose(moved, law @ step @ inverse, atol=1e-4 * np.abs(moved).max())
