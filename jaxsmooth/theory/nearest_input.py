"""How near consensus an input can be whose attention sub-layer's output points, token by token, where it is known to.

By duality: for any G of rows and columns of sum zero, <G, X + sum_h A_h X W_h> is at most ||T* G|| d_M(X) and is a sum
over tokens of their stds times what G finds in the direction of the token. The best G solves a linear system; no
solution of it is trusted. Statement and proof: docs/rates.md, theorem 4, second half. Host only, float64.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .block_data import BlockParameters
from .enclosures import HostCalculus
from .norm_ball import raise_all, size, up
from .rounding import Ball, Interval, epsilon, frobenius, sum_of

WEIGHT = 0.05  # of the box against the distance in the search, whose result hardly depends on it from 0.01 to 0.1
STEPS = 200
RESIDUAL = 1e-4  # relative, at which the search stops
ROUNDS = 8
SPARE = 1.2  # what a held token's term is over what the box takes of it


class Box(NamedTuple):
    """The displacements e of a normed token with |e W_1| <= radius, every unit, and an ellipsoid around them.

    Attributes:
      root: R, [D D]; every such e is f R for some f.
      length: at least |f|.
      scales: S, [F]; the ellipsoid is that of |e W_1 S| <= its largest value over the box.
      radius: [F].
    """

    root: NDArray[np.float64]
    length: float
    scales: NDArray[np.float64]
    radius: NDArray[np.float64]


def least_distance(
    block: BlockParameters,
    attn: NDArray[np.float64],
    normed: NDArray[np.float64],
    std: NDArray[np.float64],
    box: Box,
) -> float:
    """A lower bound of d_M(X) over all X with attention `attn`, stds at least `std` and normed tokens in the box.

    Args:
      block: float64 parameters; no gain of the attention LayerNorm is zero.
      attn: A_h, at least 0, rows of sums near 1, meant to be divided by them, [N T T].
      normed: the normed tokens Y at the centre of the box, [T D].
      std: lower bounds of the stds at the attention LayerNorm, [T].
      box: around every row of `normed`.

    Returns:
      The bound; 0 where none was found.

    References: docs/rates.md, theorem 4.
    """
    try:
        dual = _Search(block, attn, normed, std, box).best()
    except np.linalg.LinAlgError:
        return 0.0
    return _proved(block, attn, normed, std, box, dual)


def _proved(
    block: BlockParameters,
    attn: NDArray[np.float64],
    normed: NDArray[np.float64],
    std: NDArray[np.float64],
    box: Box,
    dual: NDArray[np.float64],
) -> float:
    """sum_i s_i (<v_i, y_i - b> - what the box can take of it) / ||T* G||, v = G / gamma_1, if no term is negative."""
    c = HostCalculus(np.ones(len(dual), bool), np.float64)
    dual_ball = c.centre_tokens(c.centre_features(c.matrix(dual)))
    inverse = 1 / block.scale_attn
    direction = dual_ball * _rows_of(Ball(inverse, 4 * epsilon(inverse) * abs(inverse)), len(dual))
    centre = c.matrix(normed) - _rows_of(Ball.exact(block.bias_attn), len(dual))
    found = sum_of((direction * centre).interval(), axis=-1)
    # <v, e> = <w, e W_1> + <v - W_1 w, e> for any w: here the one that the ellipsoid suggests.
    w = ((direction.middle @ box.root.T @ box.root) @ block.up) * box.scales**2
    missed = direction - Ball.exact(w) @ Ball.exact(block.up.T)
    rest = np.array([size(x[None]) + size(r[None]) for x, r in zip(missed.middle, missed.radius, strict=True)])
    longest = Interval.exact(np.full_like(rest, up(box.length * size(box.root))))
    taken = sum_of(Interval.exact(np.abs(w)) * Interval.exact(np.broadcast_to(box.radius, w.shape)), axis=-1)
    taken = taken + Interval.exact(raise_all(rest)) * longest
    kept = (found - taken).down
    if not np.all(kept >= 0):
        return 0.0
    terms = Interval.exact(kept) * Interval.exact(std)
    quotient = sum_of(terms) / frobenius(_mixed_back(block, attn, dual_ball))
    return float(quotient.down) if quotient.down > 0 else 0.0


def _mixed_back(block: BlockParameters, attn: NDArray[np.float64], dual: Ball) -> Ball:
    """G + sum_h A_h^T G W_h^T, the rows of A_h divided by their sums."""
    # |1/s - 1| <= 2 |s - 1| for a sum s of at least 1/2; nothing cancels in a sum of weights.
    off = np.max(np.abs(attn.sum(axis=-1) - 1)) + 4 * attn.shape[-1] * epsilon(attn)
    total = dual
    for head, value, output in zip(attn, block.heads.value, block.heads.output, strict=True):
        divided = Ball(head, up(2 * off) * head)
        total = total + (divided.T @ (dual @ Ball.exact(output.T))) @ Ball.exact(value.T)
    return total


def _rows_of(row: Ball, count: int) -> Ball:
    return Ball(*(np.broadcast_to(x, (count, x.shape[-1])) for x in (row.middle, row.radius)))


class _Search:
    """Conjugate gradients for the G of largest bound, by a quadratic stand-in for what the box takes.

    As stds may be larger than their bounds, no token may be left with a negative term: those that would are held at a
    term that is just positive, G_i = `floor` in the direction of the token.
    """

    def __init__(self, block: BlockParameters, attn: NDArray, normed: NDArray, std: NDArray, box: Box) -> None:
        heads, width = block.heads, normed.shape[1]
        self.attn, self.std, self.gain, self.root = attn, std[:, None], block.scale_attn, box.root
        self.value = heads.value.transpose(1, 0, 2).reshape(width, -1)
        self.output = heads.output.reshape(-1, width)
        self.direction = (normed - block.bias_attn) / self.gain

    def best(self) -> NDArray[np.float64]:
        """G, whose centring is left to the proof."""
        held, floor = np.zeros(len(self.direction), bool), np.zeros(len(self.direction))
        for _ in range(ROUNDS):
            dual = self._solve(held, floor)
            taken = np.linalg.norm((dual / self.gain) @ self.root.T, axis=1)
            short = np.sum(dual * self.direction, axis=1) <= taken
            if not np.any(short):
                break
            held |= short
            floor = np.where(short, SPARE * taken, floor)
        return dual

    def _solve(self, held: NDArray[np.bool_], floor: NDArray[np.float64]) -> NDArray[np.float64]:
        y = np.where(held[:, None], self.direction, 0)
        square = np.where(held, np.sum(y * y, axis=1), 1)
        inverse = np.linalg.pinv(len(y) * np.eye(y.shape[1]) - (y.T / square) @ y, hermitian=True)

        def meet(x: NDArray, goal: NDArray) -> NDArray:
            """The nearest G of centred rows, columns that sum to zero, and held rows of <G_i, y_i> = goal_i."""
            x = x - x.mean(axis=1, keepdims=True)
            excess = (np.sum(x * y, axis=1) - goal) / square
            common = (x.sum(axis=0) - excess @ y) @ inverse
            return x - common - (excess - (y @ common) / square)[:, None] * y

        def apply(x: NDArray) -> NDArray:
            box = WEIGHT * self.std**2 * ((x / self.gain) @ self.root.T @ self.root) / self.gain
            return self._mix(self._mix_back(x)) + box

        free = np.zeros(len(y))
        fixed = meet(np.zeros_like(y), floor)
        right = meet(self.std * self.direction - apply(fixed), free)
        return fixed + _conjugate_gradients(lambda x: meet(apply(x), free), right)

    def _mix(self, x: NDArray) -> NDArray:
        values = (x @ self.value).reshape(len(x), len(self.attn), -1).transpose(1, 0, 2)
        return x + (self.attn @ values).transpose(1, 0, 2).reshape(len(x), -1) @ self.output

    def _mix_back(self, y: NDArray) -> NDArray:
        outputs = (y @ self.output.T).reshape(len(y), len(self.attn), -1).transpose(1, 0, 2)
        return y + (self.attn.transpose(0, 2, 1) @ outputs).transpose(1, 0, 2).reshape(len(y), -1) @ self.value.T


def _conjugate_gradients(apply: Callable[[NDArray], NDArray], right: NDArray) -> NDArray:
    found, rest = np.zeros_like(right), right
    step, square = rest, np.sum(rest * rest)
    goal = RESIDUAL**2 * square
    for _ in range(STEPS):
        if square <= goal:
            break
        moved = apply(step)
        length = square / np.sum(step * moved)
        found, rest = found + length * step, rest - length * moved
        before, square = square, np.sum(rest * rest)
        step = rest + square / before * step
    return found
