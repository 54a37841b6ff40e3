"""Batches of a thousand structured cases, and what it means for a statement to hold on them."""

import json
import os

import numpy as np
import pytest
from numpy.typing import NDArray

from jaxsmooth.theory.statement import Statement
from support.matrices import PADDED, WIDTH, Array, attention_batch, pad_tokens

CASES = 1008  # at least 1,000, and a multiple of the 14 matrices that `attention_batch` makes
MANY = 100_800
LANCZOS = 1e-9  # relative: norms by Lanczos, on the right-hand side of a statement, are lower estimates
LONG_SEEDS = range(1, 101)  # of batches of CASES: MANY cases

few_or_many_seeds = pytest.mark.parametrize(
    "seeds", [pytest.param([0], id="few"), pytest.param(LONG_SEEDS, id="many", marks=pytest.mark.long)]
)
"""One batch, or a hundred in a long run."""


def few_or_many(few: int, many: int) -> pytest.MarkDecorator:
    """A seed and a number of cases: `few`, or `many` in a long run."""
    large = pytest.param(1, many, id="many", marks=pytest.mark.long)
    return pytest.mark.parametrize(("seed", "cases"), [pytest.param(0, few, id="few"), large])


def assert_holds(statement: Statement, *, rtol: float = 1e-11, atol: float = 1e-13, share: float = 1.0) -> Array:
    """lhs <= rhs up to rounding in float64 wherever the statement applies: in at least `share` of the cases.

    `atol` is relative to the largest right-hand side of the batch.

    Returns:
      lhs / rhs where it applies, 0 where both sides are 0.
    """
    lhs, rhs, applicable = (np.asarray(side) for side in statement)
    assert lhs.shape == rhs.shape == applicable.shape
    assert applicable.mean() >= share, applicable.mean()
    lhs, rhs = lhs[applicable], rhs[applicable]
    assert np.isfinite(lhs).all()
    assert not np.isnan(rhs).any()
    most = rhs * (1 + rtol) + atol * np.max(np.abs(rhs), initial=0)
    record(lhs, rhs, int(np.sum(lhs > most)))
    assert np.all(lhs <= most), np.max(lhs - rhs)
    return np.divide(lhs, rhs, out=np.zeros_like(lhs), where=rhs != 0)


def assert_at_most(statement: Statement, slack: NDArray | float, *, recorded: NDArray | float) -> None:
    """lhs <= rhs up to 1e-9 and an absolute `slack`, whether the statement applies or not.

    Cases whose right-hand side is at most `recorded` are not recorded: their ratios are those of rounding errors.
    """
    lhs, rhs = np.asarray(statement.lhs), np.asarray(statement.rhs)
    false, above = lhs > rhs * (1 + 1e-9) + slack, rhs > recorded
    record(lhs[above], rhs[above], int(false.sum()))
    assert not false.any()


def record(lhs: NDArray, rhs: NDArray, false: int = 0) -> None:
    """One line for the table of docs/properties.md, where a run asks for it."""
    path = os.environ.get("JAXSMOOTH_RECORD")
    if path is None:
        return
    lhs, rhs = np.broadcast_arrays(np.asarray(lhs, float), np.asarray(rhs, float))
    counted = (rhs > 1e-9) & np.isfinite(rhs)
    test = os.environ["PYTEST_CURRENT_TEST"].partition(" ")[0]
    worst = float((lhs[counted] / rhs[counted]).max(initial=0))
    with open(path, "a", encoding="utf-8") as stream:
        stream.write(json.dumps({"test": test, "cases": lhs.size, "false": false, "worst": worst}) + "\n")


def attentions(rng: np.random.Generator, cases: int = CASES) -> tuple[Array, NDArray[np.bool_]]:
    """Padded attention of every family, [cases PADDED PADDED], and its mask."""
    batches = [attention_batch(rng) for _ in range(cases // 14)]
    return np.concatenate([a for a, _ in batches]), np.concatenate([m for _, m in batches])


def tokens_for(rng: np.random.Generator, mask: NDArray[np.bool_], width: int = WIDTH) -> Array:
    """Hidden states for a mask: random scales, some with a large common offset, huge values on padding."""
    cases = len(mask)
    scale = 10 ** rng.uniform(-2, 2, (cases, 1, 1))
    offset = rng.choice([0.0, 1.0, 100.0], (cases, 1, 1)) * rng.standard_normal((cases, 1, width))
    tokens = scale * (rng.standard_normal((cases, PADDED, width)) + offset)
    return np.stack([pad_tokens(rng, x[: m.sum()]) for x, m in zip(tokens, mask, strict=True)])


def distance(hidden: Array) -> float:
    """d_M of one unpadded sentence."""
    return float(np.linalg.norm(hidden - hidden.mean(axis=0)))


def distances(hidden: Array, mask: NDArray[np.bool_]) -> Array:
    """d_M of every sentence of a batch, [B]."""
    return np.array([distance(x[real]) for x, real in zip(hidden, mask, strict=True)])
