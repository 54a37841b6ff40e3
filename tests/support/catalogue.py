"""A thousand structured cases at once, of one shape, and the comparison that all theorems of the catalogue share."""

import numpy as np
from numpy.typing import NDArray

from jaxsmooth.theory.statement import Statement
from support.matrices import PADDED, WIDTH, attention_batch, centring, pad_tokens
from support.statements import record

Array = NDArray[np.float64]
REPEATS = 72  # times the 14 matrices of attention_batch: 1008 cases
LONG_SEEDS = range(1, 101)  # 100 batches: 100,800 cases and more


def many_attentions(rng: np.random.Generator) -> tuple[Array, NDArray[np.bool_]]:
    """1008 row-stochastic matrices of every family, padded: ([1008 PADDED PADDED], mask)."""
    batches = [attention_batch(rng) for _ in range(REPEATS)]
    return np.concatenate([a for a, _ in batches]), np.concatenate([m for _, m in batches])


def many_tokens(rng: np.random.Generator, mask: NDArray[np.bool_], width: int = WIDTH) -> Array:
    """Hidden states for a mask: random scales, some with a large common offset, huge values on padding."""
    cases = len(mask)
    scale = 10 ** rng.uniform(-2, 2, (cases, 1, 1))
    offset = rng.choice([0.0, 1.0, 100.0], (cases, 1, 1)) * rng.standard_normal((cases, 1, width))
    tokens = scale * (rng.standard_normal((cases, PADDED, width)) + offset)
    return np.stack([pad_tokens(rng, x[: m.sum()]) for x, m in zip(tokens, mask, strict=True)])


def distance(hidden: Array) -> float:
    """d_M of one unpadded sentence."""
    return float(np.linalg.norm(centring(len(hidden)) @ hidden))


def tightness(found: Statement, *, rtol: float = 1e-11, atol: float = 1e-13, share: float = 1.0) -> Array:
    """Asserts lhs <= rhs wherever applicable, in at least a share of the cases; returns lhs / rhs there.

    The allowances are for rounding in float64; `atol` is relative to the largest right-hand side of the batch.
    """
    lhs, rhs, applicable = (np.asarray(side) for side in found)
    assert applicable.mean() >= share, applicable.mean()
    lhs, rhs = lhs[applicable], rhs[applicable]
    assert np.all(np.isfinite(lhs))
    most = rhs * (1 + rtol) + atol * np.max(np.abs(rhs))
    record(lhs, rhs, int(np.sum(lhs > most)))
    assert np.all(lhs <= most), np.max(lhs - rhs)
    return np.divide(lhs, rhs, out=np.zeros_like(lhs), where=rhs != 0)
