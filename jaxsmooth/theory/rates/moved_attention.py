"""What attention whose rows may move a little can add to an adjoint: the largest of a norm, from above and below.

Rows e_a with |e_a| <= 1 and vectors v_a, one pair for every head and token, make the matrix sum_a e_a v_a^T. Its
Frobenius norm is largest over a convex set, where it is hard to find, and bounded by any positive numbers d_a; the
search that approaches it from below also finds numbers that are next to the best. Statement and proof: docs/rates.md,
theorem 5. Host only, float64.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...linalg.intervals import Ball, epsilon
from ...linalg.norm_ball import NormBall, raise_all, size, up
from ...types import Block
from ..theorems.parameters import heads_of

SWEEPS = 60


class Moved(NamedTuple):
    """How rows of sum zero can move.

    Attributes:
      rows: e, every one of length at most 1 and sum zero, [K S].
      scales: d, positive, [K].
    """

    rows: NDArray[np.float64]
    scales: NDArray[np.float64]


def moved_adjoint(block: Block, attn_move: NDArray[np.float64], dual: Ball) -> float:
    """At least ||sum_h E_h^T G W_h^T||_F for all E_h whose row i is no longer than `attn_move[h, i]`; [N T], [T D]."""
    own = heads_of(block.attn)
    found = [
        (dual @ Ball.exact(output.T)) @ Ball.exact(value.T)
        for value, output in zip(own.value.kernel, own.output.kernel, strict=True)
    ]
    mid, rad = (np.concatenate([getattr(v, part) for v in found]) for part in ("mid", "rad"))
    move = attn_move.reshape(-1, 1)
    vectors = Ball(mid, rad) * Ball(*np.broadcast_arrays(move, 0 * move, mid)[:2])
    return largest_turn(vectors, dual.mid.shape[0])


def largest_turn(vectors: Ball, size_of_row: int) -> float:
    """At least ||sum_a e_a v_a^T||_F whatever the e_a of length at most 1.

    For any d_a > 0 it is at most (sum_a d_a)^(1/2) ||D^(-1/2) V||, and at most sum_a |v_a|.

    Args:
      vectors: v_a, [K D].
      size_of_row: how many entries an e_a has; for the search alone.

    Returns:
      The bound.

    >>> v = Ball.exact(np.array([[3.0, 0.0], [0.0, 4.0]]))
    >>> 5 <= largest_turn(v, 4) < 5.001  # orthogonal: 7, the sum of their lengths, is not reached
    True
    """
    lengths = np.array([size(v[None]) + size(r[None]) for v, r in zip(vectors.mid, vectors.rad, strict=True)])
    total = up(float(np.sum(lengths)) * (1 + 4 * len(lengths) * epsilon(lengths)))
    if not np.isfinite(total) or total == 0:
        return total
    scales = best_turn(vectors.mid, size_of_row).scales
    factors = 1 / np.sqrt(scales)
    # Rounded here, exact from here on: D is whatever these factors are the square roots of the inverses of.
    weights = raise_all(1 / (factors * factors) * (1 + 16 * epsilon(factors)))
    weight = up(float(np.sum(weights)) * (1 + 4 * len(weights) * epsilon(weights)))
    scaled = vectors.mid * factors[:, None]
    error = up(size(raise_all(vectors.rad * factors[:, None])) + 4 * epsilon(scaled) * size(scaled))
    return min(total, up(np.sqrt(weight) * NormBall(scaled, error).norm()))


def best_turn(vectors: NDArray[np.float64], size_of_row: int) -> Moved:
    """Rows that make ||sum_a e_a v_a^T||_F large: each sweep turns all to where the others' sum points.

    The square is convex in the rows, so no sweep makes it smaller. Where rows have enough entries the end is the
    maximum, and |(V M)_a| for M = sum_a v_a e_a^T are the d of the least bound.
    """
    rng = np.random.default_rng(0)
    rows = _unit(_centred(rng.standard_normal((len(vectors), size_of_row))))
    for _ in range(SWEEPS):
        rows = _unit(_centred(vectors @ (vectors.T @ rows)))
    lengths = np.linalg.norm(vectors @ (vectors.T @ rows), axis=1)
    floor = 1e-6 * max(float(lengths.max()), np.finfo(np.float64).tiny)
    return Moved(rows, np.maximum(lengths, floor))


def _centred(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows - rows.mean(axis=1, keepdims=True)


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)
