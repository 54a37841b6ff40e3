"""The comparison system: two numbers that bound a sentence near consensus, and what a block does to them.

m is the distance of the mean token from the reference row, |m|_Q; D the largest distance of two tokens, |.|_P. Both
bounds grow with m and D, so a box [0, m] x [0, D] that is mapped into a smaller one stays there. The first block of
all is entered from a Euclidean ball, about which more is known: every token is within m = D / 2 of the reference.
Proofs: docs/basin.md.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...linalg.norm_ball import NormBall, size, up
from ...types import Block
from ..theorems.parameters import bias_of, heads_of
from .gauges import Frames, Reach
from .matrices import Matrix, exact, inverse, norm, pooled_norm, stacked, transposed
from .row_map import RowMap

# A step is fewer than 10^4 additions, products and quotients (and N tanh) of non-negative numbers, whose relative error
# is below 10^4 * 2^-50; 1 - turn is at least 1/2.
RAISE = 1 + 1e-10
TRAPEZES = 8  # of an integral from above


@dataclasses.dataclass(frozen=True)
class Step:
    """One block of the orbit.

    Attributes:
      mean: at least ||N|| in Q, from before the block to after it.
      mixed: how attention moves the mean, through W_h M from P to Q.
      value: how it moves a row, through W_h in P.
      point, mean_score, score: at least |q_h W_K^hT| in P's dual, ||W_QK^h|| from Q and from P to P's dual, each over
        sqrt(H), [N].
      gap: at least |block(1 x) - x'|_Q: the reference orbit is made of floating-point rows.
      spread: a move of the mean and one of the differences, in units of `ratio`, is at most this long in v's frame.
      ratio: D over m that the frame is balanced for.
      ball: how the tokens lie.
      differences, shared: how the derivative strays.
    """

    mean: float
    mixed: "Tilt"
    value: "Tilt"
    point: NDArray[np.float64]
    mean_score: NDArray[np.float64]
    score: NDArray[np.float64]
    gap: float
    spread: float
    ratio: float
    ball: "Spread"
    differences: Reach
    shared: Reach

    def distance(self, m: float, d: float) -> float:
        """At least the distance of every row behind attention from the reference, in v's frame."""
        beside = self.ball.share * d + self._tilted(self.value, m, d)
        return float(self.spread * np.hypot(m, beside / self.ratio) * RAISE)

    def _tilted(self, through: "Tilt", m: float, d: float) -> float:
        """At least |sum_h (c_h - mean) W_h|: each head by itself, or their first order in the logits together."""
        moved = (self.mean_score * m + self.score * (self.ball.share * d)) * d
        logits = self.point * d + moved
        alone = through.of_each(np.tanh(logits / 4)) * d
        rest = through.of_each(moved / 4 + 3 / 32 * logits**2) * d
        return float(min(alone, through.joint * self.ball.scatter * d * d + rest))

    def _averaged(self, r: float) -> float:
        """At least the mean of the shared stray over [0, r]: it is convex and 0 at 0, so trapezes lie above it."""
        inner = sum(self.shared.stray(r * place / TRAPEZES) for place in range(1, TRAPEZES))
        return (inner + 0.5 * self.shared.stray(r)) / TRAPEZES

    def contraction(self, m: float, d: float) -> float:
        """At least D' / D."""
        attention = 1 + self.value.of_each(np.tanh(self.score * d * d / 4))
        return float(self.differences.most(self.distance(m, d)) * attention * RAISE)

    def consensus_contraction(self, m: float) -> float:
        """At least the Lipschitz constant, in Q, of the one-token map on |e|_Q <= m."""
        return float((self.mean + self.spread * self.shared.stray(self.distance(m, 0.0))) * RAISE)

    def __call__(self, m: float, d: float) -> tuple[float, float]:
        """(m', D')."""
        r = self.distance(m, d)
        after = self.gap + self.mean * m + self._tilted(self.mixed, m, d) + self._averaged(r) * r
        return float(after * RAISE), float(self.contraction(m, d) * d * RAISE)


class Tilt(NamedTuple):
    """What follows when attention leaves the mean.

    Attributes:
      heads: at least ||W_h||, [N].
      stacked: at least the norm of all W_h one under the other.
      joint: at least the norm of C -> sum_h g_h^T C W_h over matrices C of Frobenius norm 1, g_h the keys' scores at
        the reference over sqrt(H).
    """

    heads: NDArray[np.float64]
    stacked: float
    joint: float

    @staticmethod
    def of(asked: list[NormBall], values: list[NormBall], width: float) -> "Tilt":
        """From g_h sqrt(H), rows [1 D], and W_h, [D D]."""
        heads = np.array([norm(value) for value in values])
        return Tilt(heads, norm(stacked(*values)), up(pooled_norm(stacked(*asked), values, heads) / width))

    def of_each(self, lengths: NDArray[np.float64]) -> float:
        """At least |sum_h c_h W_h| for rows c_h of these lengths."""
        return float(min(np.sum(self.heads * lengths), self.stacked * np.linalg.norm(lengths)))


class Spread(NamedTuple):
    """How tokens lie that are at most D apart.

    Attributes:
      share: of D: the distance from the mean, or in a ball from its centre.
      scatter: of D^2: the Frobenius norm of their covariance.
    """

    share: float
    scatter: float


# The covariance's eigenvalues are at most D^2 / 4, their sum at most D^2 / 2; D^2 / 4 in a ball of radius D / 2.
APART, BALL = Spread(1.0, 8**-0.5), Spread(0.5, 0.25)


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
    before: Roots | None,
    ratio: float,
) -> Step:
    """The numbers of one block, enclosed.

    Args:
      block: float64 numpy leaves, one layer.
      row: x, the reference in front of the block, [D].
      at: the block there.
      after: the reference behind the block, and the norms there.
      before: the norms in front of it; None for the Euclidean one, of tokens in a ball around the reference.
      ratio: D over m for which the frame of moves is balanced.
    """
    next_row, roots = after
    eye = exact(np.eye(len(row)))
    from_differences = eye if before is None else inverse(before.differences)
    from_mean = eye if before is None else inverse(before.mean)
    # Of a ball's tokens e_i itself is known to be small, and what is left of the mean passes W only.
    shared = at.mixer if before is None else from_mean @ (eye + at.mixer)
    both = stacked(shared, from_differences.columns(np.full(len(row), ratio)))
    # A triangle F with F^T F = B^T B: every move x B is y F with |y| <= |x|, up to rounding.
    frame = np.asarray(np.linalg.qr(both.mid, mode="r"), np.float64)
    frames = Frames(at, from_differences, exact(frame))
    to_mean = exact(roots.mean)
    gap = at.gap(next_row) @ to_mean
    return Step(
        mean=norm(from_mean @ at.shared_law() @ to_mean),
        gap=up(size(gap.mid) + gap.error),
        spread=norm(both @ inverse(frame)),
        ratio=ratio,
        ball=BALL if before is None else APART,
        differences=frames.of_differences(roots.differences),
        shared=frames.of_mean(roots.mean),
        **_heads(block, row, at, (from_differences, None if before is None else from_mean), (before, roots.mean)),
    )


def _heads(
    block: Block,
    row: NDArray[np.float64],
    at: RowMap,
    inverses: tuple[NormBall, NormBall | None],
    roots: tuple[Roots | None, Matrix],
) -> dict[str, Any]:
    """The norms of every head's kernels, and of all together."""
    heads, (p, q), (before, root) = heads_of(block.attn), inverses, roots
    behind, width = at.law() @ exact(root), np.sqrt(block.attn.query.kernel.shape[-1])
    found: dict[str, list[Any]] = {name: [] for name in ("asked", "mean_score", "score", "value", "mixed")}
    for head in range(len(heads.query.kernel)):
        query, key, value, output = (
            exact(np.asarray(side.kernel[head])) for side in (heads.query, heads.key, heads.value, heads.output)
        )
        bias = exact(np.asarray(bias_of(heads.query)[head]).reshape(1, -1))
        offered, value_p = transposed(p @ key), p @ value
        found["asked"].append((exact(row[None]) @ query + bias) @ offered)
        found["mean_score"].append(0.0 if q is None else up(norm((q @ query) @ offered) / width))
        found["score"].append(up(norm((p @ query) @ offered) / width))
        found["value"].append(value_p @ (output if before is None else output @ exact(before.differences)))
        found["mixed"].append(value_p @ (output @ behind))
    asked = found.pop("asked")
    tilts = {name: Tilt.of(asked, found.pop(name), width) for name in ("value", "mixed")}
    point = np.array([up(norm(one) / width) for one in asked])
    return {"point": point, **tilts, **{name: np.array(values) for name, values in found.items()}}
