"""Multipliers for theorem 2 of docs/every-input.md: Adam on a smoothed largest eigenvalue, which is convex in them.

Nothing here has to be right: whatever it returns, `certificate` proves a bound from it.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from ...linalg.intervals import quiet
from .relaxation import Floats, Form, Multipliers, matrix, root, shares_of, slopes

KEPT = 32  # eigenvectors that the smoothing sees
WIDTH = (0.03, 0.002)  # of the smoothing, relative to the eigenvalue: in the first and in the last step
FIELDS = ("curve", "shares", "sphere", "low", "high")

Report = Callable[[float], None]


@quiet
def improve(
    form: Form, first: Multipliers, steps: int, rate: float, *, until: float = 0.0, report: Report = lambda bound: None
) -> tuple[float, Multipliers, Floats]:
    """The best multipliers of a number of steps, their bound, and its eigenvector.

    Args:
      form: the form.
      first: where to start; with a `side`, its own multipliers move too.
      steps: at most so many.
      rate: of the first step, relative to each field's own size; falls to nothing.
      until: stop at a bound below this.
      report: called with every step's bound.

    Returns:
      `(bound, multipliers, eigenvector [2 D + 1])`.
    """
    at, best = first, (np.inf, first, np.zeros(0))
    sizes: dict[str, Floats] = {}
    mean: dict[str, Floats] = {}
    square: dict[str, Floats] = {}
    for step in range(steps):
        left = 1 - step / steps
        try:
            values, vectors = np.linalg.eigh(matrix(form, at))
        except np.linalg.LinAlgError:  # a step too far, or numbers that float32 does not hold
            break
        values, vectors = values[-KEPT:], vectors[:, -KEPT:]
        bound = float(values[-1]) / np.sqrt(len(form.skip))
        report(bound)
        if bound < best[0]:
            best = (bound, at, vectors[:, -1])
        if bound < until or not np.isfinite(bound):
            break
        sizes = sizes or _sizes(form, first, float(values[-1]))
        weights = np.exp((values - values[-1]) / (values[-1] * max(WIDTH[0] * left, WIDTH[1])))
        found = slopes(form, at, vectors, weights / weights.sum(), values)
        slope = {name: np.asarray(getattr(found, name)) / values[-1] for name in FIELDS}
        mean = {name: 0.9 * mean.get(name, g) + 0.1 * g for name, g in slope.items()}
        square = {name: 0.99 * square.get(name, g * g) + 0.01 * g * g for name, g in slope.items()}
        at = _stepped(at, mean, square, sizes, rate * left)
    return best


def halves(form: Form, multipliers: Multipliers, vector: Floats) -> tuple[Multipliers, Multipliers]:
    """The two halves of all inputs on either side of the plane to which the worst direction is normal."""
    width = len(form.skip)
    basis = root(np.einsum("kde,k->de", form.grams, 1 / shares_of(multipliers)[:-1]))
    inner = vector[width:-1].astype(np.float64)
    side = np.linalg.solve(basis.T, inner / (np.linalg.norm(inner) + np.finfo(np.float32).tiny))
    return dataclasses.replace(multipliers, side=side), dataclasses.replace(multipliers, side=-side)


def _sizes(form: Form, first: Multipliers, value: float) -> dict[str, Floats]:
    """How far one step of rate 1 goes in each field."""
    linear = 0.5 * np.linalg.norm(form.down, axis=1) * (first.side is not None)
    sphere = 0.5 * value / form.largest_std**2
    return dict(zip(FIELDS, (np.ones(()), np.ones(()), np.asarray(sphere), linear, linear), strict=True))


def _stepped(
    at: Multipliers, mean: dict[str, Floats], square: dict[str, Floats], sizes: dict[str, Floats], rate: float
) -> Multipliers:
    """One step of Adam; where a field's slopes are small beside its others, it stays behind."""
    moved = {}
    for name in FIELDS:
        typical = np.sqrt(square[name])
        damped = typical + 0.3 * np.sqrt(np.mean(square[name])) + np.finfo(np.float32).tiny
        moved[name] = getattr(at, name) - rate * sizes[name] * mean[name] / damped
    return Multipliers(
        moved["curve"],
        moved["shares"],
        float(moved["sphere"]),
        np.maximum(moved["low"], 0),
        np.maximum(moved["high"], 0),
        at.side,
    )


@quiet
def std_shares(grams: Floats, steps: int = 60) -> Floats:
    """Shares for `certificate.largest_std`: the least lambda_max(sum_k B_k^T B_k / nu_k), which is convex in nu."""
    traces = np.sqrt(np.maximum(np.einsum("kdd->k", grams), np.finfo(np.float32).tiny))
    shares = best = traces / traces.sum()
    least = np.inf
    for _ in range(steps):
        values, vectors = np.linalg.eigh(np.einsum("kde,k->de", grams, 1 / shares))
        if values[-1] < least:
            least, best = float(values[-1]), shares
        width = 0.01 * max(float(values[-1]), np.finfo(np.float64).tiny)
        weights = np.exp((values - values[-1]) / width)
        kept = weights > 1e-6 * weights.sum()
        along = np.einsum("dr,kde,er->kr", vectors[:, kept], grams, vectors[:, kept], optimize=True) @ weights[kept]
        # Half a step: a whole one may swing between two vectors.
        shares = np.sqrt(shares * np.sqrt(np.maximum(along, np.finfo(np.float32).tiny) / weights.sum()))
        shares = shares / shares.sum()
    return best
