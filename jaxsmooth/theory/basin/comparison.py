"""The comparison system: two numbers that bound a sentence near consensus, and what a block does to them.

m is the distance of the mean token from the reference row, |m|_Q; D the largest distance of two tokens, |.|_P. Both
bounds grow with m and D, so a box [0, m] x [0, D] that is mapped into a smaller one stays there. Proofs: docs/basin.md.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from ...linalg.norm_ball import NormBall, size, up
from ...types import Block
from ..theorems.parameters import bias_of, heads_of
from .gauges import Frames, Reach
from .matrices import Matrix, exact, inverse, norm, stacked, transposed
from .row_map import RowMap

# A step is fewer than 10^4 additions, products and quotients (and N tanh) of non-negative numbers, whose relative error
# is below 10^4 * 2^-50; 1 - turn is at least 1/2.
RAISE = 1 + 1e-10


@dataclasses.dataclass(frozen=True)
class Step:
    """One block of the orbit.

    Attributes:
      mean: at least ||N|| in Q, from before the block to after it.
      mixed: at least ||W_h M||, from P to Q, [N].
      value: at least ||W_h|| in P, [N].
      point, mean_score, score: at least |q_h W_K^hT| in P's dual, ||W_QK^h|| from Q and from P to P's dual, each over
        sqrt(H), [N].
      gap: at least |block(1 x) - x'|_Q: the reference orbit is made of floating-point rows.
      spread: a move of the mean and one of the differences, in units of `ratio`, is at most this long in v's frame.
      ratio: D over m that the frame is balanced for.
      differences, shared: how the derivative strays.
    """

    mean: float
    mixed: NDArray[np.float64]
    value: NDArray[np.float64]
    point: NDArray[np.float64]
    mean_score: NDArray[np.float64]
    score: NDArray[np.float64]
    gap: float
    spread: float
    ratio: float
    differences: Reach
    shared: Reach

    def distance(self, m: float, d: float) -> float:
        """At least the distance of every row behind attention from the reference, in v's frame."""
        return float(self.spread * np.hypot(m, self._spread_out(m, d) / self.ratio) * RAISE)

    def _tilt(self, m: float, d: float) -> NDArray[np.float64]:
        """At least the total variation between a row of attention and the uniform one."""
        return np.tanh((self.point + self.mean_score * m + self.score * d) * d / 4)

    def _spread_out(self, m: float, d: float) -> float:
        return float(d * (1 + np.sum(self.value * self._tilt(m, d))))

    def contraction(self, m: float, d: float) -> float:
        """At least D' / D."""
        attention = 1 + np.sum(self.value * np.tanh(self.score * d * d / 4))
        return float(self.differences.most(self.distance(m, d)) * attention * RAISE)

    def consensus_contraction(self, m: float) -> float:
        """At least the Lipschitz constant, in Q, of the one-token map on |e|_Q <= m."""
        return float((self.mean + self.spread * self.shared.stray(self.distance(m, 0.0))) * RAISE)

    def __call__(self, m: float, d: float) -> tuple[float, float]:
        """(m', D')."""
        r = self.distance(m, d)
        tilted = np.sum(self.mixed * self._tilt(m, d)) * d
        after = self.gap + self.mean * m + tilted + 0.5 * self.shared.stray(r) * r
        return float(after * RAISE), float(self.contraction(m, d) * d * RAISE)


@dataclasses.dataclass(frozen=True)
class Roots:
    """P and Q, before a block or after it."""

    differences: Matrix
    mean: Matrix


def step(
    block: Block,
    row: NDArray[np.float64],
    at: RowMap,
    after: tuple[NDArray[np.float64], Roots],
    before: Roots,
    ratio: float,
) -> Step:
    """The numbers of one block, enclosed.

    Args:
      block: float64 numpy leaves, one layer.
      row: x, the reference in front of the block, [D].
      at: the block there.
      after: the reference behind the block, and the norms there.
      before: the norms in front of it.
      ratio: D over m for which the frame of moves is balanced.
    """
    next_row, roots = after
    from_differences, from_mean = inverse(before.differences), inverse(before.mean)
    eye = exact(np.eye(len(row)))
    shared = from_mean @ (eye + at.mixer)
    both = stacked(shared, from_differences.columns(np.full(len(row), ratio)))
    # A triangle F with F^T F = B^T B: every move x B is y F with |y| <= |x|, up to rounding.
    frame = np.asarray(np.linalg.qr(both.mid, mode="r"), np.float64)
    spread = norm(both @ inverse(frame))
    frames = Frames(at, from_differences, exact(frame))
    to_mean = exact(roots.mean)
    gap = at.gap(next_row) @ to_mean
    return Step(
        mean=norm(from_mean @ at.shared_law() @ to_mean),
        gap=up(size(gap.mid) + gap.error),
        spread=spread,
        ratio=ratio,
        differences=frames.of_differences(roots.differences),
        shared=frames.of_mean(roots.mean),
        **_heads(block, row, at, (from_differences, from_mean), (before.differences, roots.mean)),
    )


def _heads(
    block: Block,
    row: NDArray[np.float64],
    at: RowMap,
    inverses: tuple[NormBall, NormBall],
    roots: tuple[Matrix, Matrix],
) -> dict[str, NDArray[np.float64]]:
    """The norms of every head's kernels."""
    heads = heads_of(block.attn)
    (p, q), (to_p, to_q) = inverses, (exact(root) for root in roots)
    behind = at.law() @ to_q
    width = np.sqrt(block.attn.query.kernel.shape[-1])
    found: dict[str, list[float]] = {name: [] for name in ("mixed", "value", "point", "mean_score", "score")}
    for head in range(len(heads.query.kernel)):
        query, key, value, output = (
            exact(np.asarray(side.kernel[head])) for side in (heads.query, heads.key, heads.value, heads.output)
        )
        bias = exact(np.asarray(bias_of(heads.query)[head]).reshape(1, -1))
        asked = exact(row[None]) @ query + bias
        offered = transposed(p @ key)
        value_p = p @ value
        found["mixed"].append(norm(value_p @ (output @ behind)))
        found["value"].append(norm(value_p @ (output @ to_p)))
        found["point"].append(up(norm(asked @ offered) / width))
        found["mean_score"].append(up(norm((q @ query) @ offered) / width))
        found["score"].append(up(norm((p @ query) @ offered) / width))
    return {name: np.array(values) for name, values in found.items()}
