"""Batches of a thousand structured cases, and what it means for a statement to hold on them."""

import json
import os

import numpy as np
from numpy.typing import NDArray

from jaxsmooth.theory.statement import Statement
from support.matrices import Array, attention_batch, token_batch

CASES = 1008  # at least 1,000, and a multiple of the 14 matrices that `attention_batch` makes
MANY = 100_800


def assert_holds(statement: Statement, *, rtol: float = 1e-9, share: float = 1.0) -> None:
    """lhs <= rhs up to rounding wherever the statement applies, and it applies to at least `share` of the cases."""
    lhs, rhs, applicable = (np.asarray(part) for part in statement)
    assert lhs.shape == rhs.shape == applicable.shape
    assert applicable.mean() >= share
    lhs, rhs = lhs[applicable], rhs[applicable]
    assert np.isfinite(lhs).all()
    assert not np.isnan(rhs).any()
    record(lhs, rhs, int(np.sum(lhs > rhs * (1 + rtol) + 1e-12)))
    assert np.all(lhs <= rhs * (1 + rtol) + 1e-12), np.max(lhs - rhs)


def record(lhs: NDArray, rhs: NDArray, false: int = 0) -> None:
    """One line for the table of docs/properties.md, where a run asks for it."""
    path = os.environ.get("JAXSMOOTH_RECORD")
    if path is None:
        return
    lhs, rhs = np.broadcast_arrays(np.asarray(lhs, float), np.asarray(rhs, float))
    told = (rhs > 1e-9) & np.isfinite(rhs)
    test = os.environ["PYTEST_CURRENT_TEST"].partition(" ")[0]
    line = {"test": test, "cases": lhs.size, "false": false, "worst": float((lhs[told] / rhs[told]).max(initial=0))}
    with open(path, "a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


def attentions(rng: np.random.Generator, cases: int = CASES) -> tuple[Array, NDArray[np.bool_]]:
    """Padded attention of every family, [cases PADDED PADDED], and its mask."""
    batches = [attention_batch(rng) for _ in range(cases // 14)]
    return np.concatenate([a for a, _ in batches]), np.concatenate([m for _, m in batches])


def tokens_for(rng: np.random.Generator, mask: NDArray[np.bool_]) -> Array:
    """Hidden states of every scale and offset for these masks; huge values on padding."""
    hidden, own = token_batch(rng, len(mask))
    real = np.where(own[..., None], hidden, rng.standard_normal(hidden.shape))
    return np.where(mask[..., None], real, 1e6 * rng.standard_normal(hidden.shape))


def distance(hidden: Array) -> float:
    """d_M of one unpadded sentence, by the definition."""
    return float(np.linalg.norm(hidden - hidden.mean(axis=0)))
