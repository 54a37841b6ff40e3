"""How far the derivative of a block's row map strays from its value at a point, as functions of how far the row moves.

A move v of the row is measured as |v'|, v = v' B for a given factor B ("frame"); so is the row e that the derivative
is applied to, in a frame of its own. Every function below returns an upper bound that grows with the move and is
convex in it, by the formulas of docs/basin.md; the norms in them are enclosed once, by `Side.of` and `Gauge.of`.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from ...linalg.norm_ball import NormBall, size, up
from .matrices import Matrix, columns, contracted_norm, gram, gram_norm, hadamard, norm, scaled, stacked, transposed
from .row_map import RowMap

FOURTH = 1.5958 / 6  # |phi''''| = |x^4 - 7 x^2 + 4| n(x) is at most 4 n(0) = 1.59577 for GELU
EXTRA = 2.0  # weight of the directions that only terms of higher order have
MOST = 0.5  # largest relative change of a std that the formulas are used for
INVALID = np.inf


class Side(NamedTuple):
    """A frame, seen from the first LayerNorm.

    Attributes:
      along, across: at least |n B^T|, and at least the length of e C across n where |n| < 1 is made up for.
      units: e' -> the units' tangents, B L_1 W_1, [D F].
      frame: B.
    """

    along: float
    across: float
    units: NormBall
    frame: NormBall

    @staticmethod
    def of(frame: NormBall, at: RowMap) -> "Side":
        first = at.first
        found = frame @ transposed(first.unit)
        along = up(size(found.mid) + found.error)
        across = up(norm(frame @ first.off) + along * first.rest)
        return Side(along, across, frame @ first.linear @ at.up, frame)


class Tensors(NamedTuple):
    """What the bend of the units is measured with, for one frame of e and one of v.

    Attributes:
      second, third: entrywise products of Gram matrices, [F F].
      own: Gram matrix of v's vectors, [F F].
      remainder: at least the root of `third`'s norm.
      extra_e, extra_v, extra_move: how e's and v's vectors were lengthened.
    """

    second: NormBall
    third: NormBall
    own: NormBall
    remainder: float
    extra_e: float
    extra_v: float
    extra_move: float

    @staticmethod
    def of(e: Side, v: Side, at: RowMap) -> "Tensors":
        width = len(e.units.mid)
        # sqrt(D) n Gamma_1 W_1: along it the normed row moves to second order only.
        still = scaled(at.first.unit.columns(at.first.gain) @ at.up, np.sqrt(width), up(np.sqrt(width)))
        moves = EXTRA * np.sqrt(width) * size(still.mid) if np.any(still.mid) else 0.0
        extra_e, extra_v = (moves / size(side.units.mid) for side in (e, v))
        extra_move = EXTRA * size(v.units.mid) / size(e.units.mid)
        lengthened_v = stacked(v.units, still.columns(np.full(still.mid.shape[1], _over(extra_v))))
        lengthened_e = stacked(
            e.units,
            v.units.columns(np.full(still.mid.shape[1], _over(extra_move))),
            still.columns(np.full(still.mid.shape[1], _over(extra_e))),
        )
        gram_v = gram(lengthened_v)
        second = hadamard(gram(lengthened_e), gram_v)
        third = hadamard(second, gram_v)
        remainder = up(np.sqrt(gram_norm(third)))
        return Tensors(second, third, gram_v, remainder, extra_e, extra_v, extra_move)


def _known(bound: float) -> float:
    """A bound; beyond the largest number, or of infinity less infinity, there is none."""
    return float(bound) if np.isfinite(bound) else INVALID


def _over(extra: float) -> float:
    """1 / extra; nothing was lengthened where there is nothing along n."""
    return 1 / extra if extra > 0 else 0.0


class Shape(NamedTuple):
    """The numbers of one frame of e and one of v that every target shares."""

    per_move: float
    e_along: float
    e_across: float
    v_along: float
    v_across: float
    extras: tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Gauge:
    """e D(h) R at distance r from the point, h the map up to the second LayerNorm, R a factor behind it.

    Attributes:
      shape: of the frames.
      at_point: at least ||B_e L_1 H R||.
      at_point_v: the same for v's frame.
      still: at least |n Gamma_1 H R| / std.
      second, third, fourth: norms of the units' bend: of orders one, two and three in r.
    """

    shape: Shape
    at_point: float
    at_point_v: float
    still: float
    second: float
    third: float
    fourth: float

    @staticmethod
    def of(sides: tuple[Side, Side], tensors: Tensors, at: RowMap, target: NormBall) -> "Gauge":
        e, v = sides
        rest = at.mlp @ target
        first, down = at.first.linear @ rest, at.down @ target
        rows = [columns(transposed(down), bend) for bend in at.bends]
        still = first_gain(at) @ rest
        beside = hadamard(tensors.own, down @ transposed(down))
        extras = tensors.extra_e, tensors.extra_v, tensors.extra_move
        return Gauge(
            Shape(at.first.unit_per_move, e.along, e.across, v.along, v.across, extras),
            norm(e.frame @ first),
            norm(v.frame @ first),
            up(up(size(still.mid) + still.error) * at.first.inverse_std),
            contracted_norm(tensors.second, transposed(rows[0])),
            contracted_norm(tensors.third, transposed(rows[1])),
            up(FOURTH * tensors.remainder * np.sqrt(gram_norm(beside))),
        )

    def stray(self, r: float) -> float:
        """At least |e (Dh(u) - Dh(u_0)) R| over |v'| <= r, |e'| <= 1."""
        s = self.shape
        move = np.float64(r * s.per_move)  # whose powers overflow to infinity; those of a float raise
        turn, across = s.v_along * move, s.v_across * move
        if turn > MOST:
            return INVALID
        least = 1 / (1 - turn)
        bent = (
            self.at_point * (turn * least + 0.5 * across**2)
            + least**2 * (s.e_along * self.at_point_v * move + s.e_across * across * self.still)
            + least**3 * (across**2 * s.e_along * self.still + s.e_across * across * self.at_point_v * move)
        )
        extra_e, extra_v, extra_move = s.extras
        beside = extra_move * (least**2 * s.e_along + least**3 * s.e_across * across) * move
        behind = extra_e * (least**3 * across**2 * s.e_along + least**2 * s.e_across * across) * s.per_move
        x = np.sqrt(least**2 + beside**2 + behind**2)
        y = np.sqrt((least * r) ** 2 + (extra_v * 0.5 * (across * least) ** 2) ** 2)
        return _known(bent + x * y * (self.second + y * (self.third + y * self.fourth)))


def first_gain(at: RowMap) -> NormBall:
    """n Gamma_1."""
    return at.first.unit.columns(at.first.gain)


@dataclasses.dataclass(frozen=True)
class Reach:
    """e Df(u) Gamma P at distance r: the whole block behind attention, for a frame of e and one of v.

    Attributes:
      own, own_v: gauges of L_2 Gamma_2 P for e and for v.
      along, along_v: of n_2.
      across, across_v: of C - n_2^T n_2.
      still: at least |n_2 Gamma_2 P| / std_2.
      per_move: 1 / (sqrt(D) std_2).
      rest: at least (1 - |n_2|^2)^(1/2).
    """

    own: Gauge
    own_v: Gauge
    along: Gauge
    along_v: Gauge
    across: Gauge
    across_v: Gauge
    still: float
    per_move: float
    rest: float

    def stray(self, r: float) -> float:
        """At least |e (Df(u) - Df(u_0)) P| over |v'| <= r, |e'| <= 1."""
        strays = [np.float64(g.stray(r)) for g in (self.own, self.along, self.across)]
        beside = (self.own_v, self.along_v, self.across_v)
        moves = [np.float64((g.at_point + 0.5 * g.stray(r)) * r * self.per_move) for g in beside]
        if not np.isfinite(sum(strays) + sum(moves)) or moves[1] > MOST:
            return INVALID
        along, across = self.along.at_point + strays[1], self.across.at_point + strays[2]
        straight, turn, side = moves
        across, side = across + self.rest * along, side + self.rest * turn
        least = 1 / (1 - turn)
        return _known(
            self.own.at_point * (turn * least + 0.5 * side**2)
            + strays[0] * least
            + least**2 * (along * straight + across * side * self.still)
            + least**3 * (side**2 * along * self.still + across * side * straight)
        )

    def most(self, r: float) -> float:
        """At least |e Df(u) P|."""
        return self.own.at_point + self.stray(r)


class Frames:
    """Both frames of one block at its point: gauges are made once for every factor behind it."""

    def __init__(self, at: RowMap, e: NormBall, v: NormBall) -> None:
        self.at, self.e, self.v = at, Side.of(e, at), Side.of(v, at)
        self.mixed = Tensors.of(self.e, self.v, at)
        self.plain = Tensors.of(self.v, self.v, at)
        second = at.second
        self.along, self.across = (self._pair(target) for target in (transposed(second.unit), second.off))

    def _pair(self, target: NormBall) -> tuple[Gauge, Gauge]:
        mixed = Gauge.of((self.e, self.v), self.mixed, self.at, target)
        return mixed, Gauge.of((self.v, self.v), self.plain, self.at, target)

    def _still(self, root: Matrix) -> float:
        second = self.at.second
        row = second.unit.columns(second.gain) @ NormBall(root, 0.0)
        return up(up(size(row.mid) + row.error) * second.inverse_std)

    def of_differences(self, root: Matrix) -> Reach:
        """For e in its own frame, measured behind the block by P."""
        own, own_v = self._pair(self.at.second.linear @ NormBall(root, 0.0))
        return self._reach(own, own_v, root, mixed=True)

    def of_mean(self, root: Matrix) -> Reach:
        """For e in v's frame."""
        own = Gauge.of((self.v, self.v), self.plain, self.at, self.at.second.linear @ NormBall(root, 0.0))
        return self._reach(own, own, root, mixed=False)

    def _reach(self, own: Gauge, own_v: Gauge, root: Matrix, *, mixed: bool) -> Reach:
        along, across = (pair if mixed else (pair[1], pair[1]) for pair in (self.along, self.across))
        return Reach(own, own_v, *along, *across, self._still(root), self.at.second.unit_per_move, self.at.second.rest)
