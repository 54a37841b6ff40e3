"""Which vectors can reach a block's LayerNorms, whatever the text: ellipsoids, and sums of ellipsoids.

A row that left a LayerNorm is beta + s Gamma with |s| <= sqrt(D). Attention averages such rows, head by head over
tokens of its own choice, and a ball is convex, so what a head reads is again such a row, of an s of its own.
"""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...linalg.norm_ball import NormBall, size, up
from ...types import Block, LayerNorm, Linear
from ..theorems.parameters import heads_of

FLOOR = {"relu": 0.0, "gelu": 0.16997120747990369, "gelu_tanh": 0.17004075057125412, "silu": 0.27846454276107374}
"""The largest of max(z, 0) - phi(z), reached at z and at -z for one z: every phi(z) is z times a gate in [0, 1]."""
MARGIN = 1e-9
"""What `FLOOR` is raised by: its entries are rounded."""


@dataclasses.dataclass(frozen=True)
class Rows:
    """The rows that a norm can put out: centre + s map, |s| <= radius.

    Attributes:
      centre: [1 D].
      map: [E D].
      radius: sqrt(E), to within a rounding.
    """

    centre: NormBall
    map: NormBall
    radius: float


@dataclasses.dataclass(frozen=True)
class Reachable:
    """One block over everything that its input can be.

    With C the centring of features, U C = mean + sum_k s_k B_k, |s_k| <= 1, and Z C = offset + s skip + phi(shift +
    s up) down, s = U C / std_attn.

    Attributes:
      grams: B_k^T B_k of the residual, of every head, and mean^T mean, each [D D].
      skip: C Gamma_1 C, [D D].
      up: C Gamma_1 W_1, [D F].
      shift: beta_1 W_1 + b_1, [1 F].
      down: W_2 C, [F D].
      offset: (beta_1 + b_2) C, [1 D].
      eps: of the LayerNorms.
      floor: phi(z) >= max(z, 0) - floor.
    """

    grams: tuple[NormBall, ...]
    skip: NormBall
    up: NormBall
    shift: NormBall
    down: NormBall
    offset: NormBall
    eps: float
    floor: float

    @property
    def width(self) -> int:
        """D."""
        return len(self.skip.mid)


def rows_of_norm(norm: LayerNorm, projection: Linear | None = None) -> Rows:
    """The rows that a LayerNorm can put out, and an affine map of them after it.

    Args:
      norm: gain and shift, [E].
      projection: E -> D, as ALBERT and ELECTRA have after the embedding's norm.

    Returns:
      The `Rows`.

    >>> rows_of_norm(LayerNorm(scale=np.ones(2), bias=np.array([0.0, 1.0]))).centre.mid
    array([[0., 1.]])
    """
    gain = _float64(norm.scale)
    centre, spread = exact(_bias(norm.bias, len(gain))[None]), exact(np.diag(gain))
    if projection is not None:
        kernel = exact(_float64(projection.kernel))
        centre = centre @ kernel + exact(_bias(projection.bias, kernel.mid.shape[1])[None])
        spread = spread @ kernel
    return Rows(centre, spread, float(np.sqrt(len(gain))))


def reachable(block: Block, rows: Rows, activation: str, eps: float) -> Reachable:
    """The block over all inputs whose rows are `rows`, and all attention whose rows are probabilities.

    Args:
      block: one post-LN block without a layer axis.
      rows: what its input's rows can be.
      activation: a key of `FLOOR`.
      eps: of the LayerNorms.

    Returns:
      The `Reachable`.
    """
    width = rows.map.mid.shape[1]
    centring = NormBall(np.eye(width) - 1 / width, 4 * width * 2.0**-52)
    gain, shift = _float64(block.norm_attn.scale), _bias(block.norm_attn.bias, width)
    kernel, down = _float64(block.up.kernel), _float64(block.down.kernel)
    hidden, b_out = _bias(block.up.bias, kernel.shape[1]), _bias(block.down.bias, width)
    gained = centring @ exact(np.diag(gain))
    return Reachable(
        grams=_grams(block, rows, centring),
        skip=gained @ centring,
        up=gained @ exact(kernel),
        shift=exact(shift[None]) @ exact(kernel) + exact(hidden[None]),
        down=exact(down) @ centring,
        offset=(exact(shift[None]) + exact(b_out[None])) @ centring,
        eps=eps,
        floor=FLOOR[activation] * (1 + MARGIN),
    )


def _grams(block: Block, rows: Rows, centring: NormBall) -> tuple[NormBall, ...]:
    source = scaled(rows.map, rows.radius)
    mean, found = rows.centre, [_gram(source @ centring)]
    for mixer, bias in _heads(block):
        found.append(_gram(source @ mixer @ centring))
        mean = mean + rows.centre @ mixer + bias
    if block.attn.output.bias is not None:
        mean = mean + exact(_float64(block.attn.output.bias)[None])
    return (*found, _gram(mean @ centring))


def _heads(block: Block) -> list[tuple[NormBall, NormBall]]:
    """Every head's value kernel times its output kernel, and what its value bias adds."""
    heads, found = heads_of(block.attn), []
    biases = np.asarray(heads.value.bias)
    for value, output, bias in zip(heads.value.kernel, heads.output.kernel, biases, strict=True):
        out = exact(_float64(output))
        found.append((exact(_float64(value)) @ out, exact(_float64(bias)) @ out))
    return found


def exact(matrix: NDArray[np.float64]) -> NormBall:
    """A matrix of floats."""
    return NormBall(matrix, 0.0)


def transposed(ball: NormBall) -> NormBall:
    """Of every matrix in the ball."""
    return NormBall(ball.mid.T, ball.error)


def scaled(ball: NormBall, factor: float) -> NormBall:
    """Times a number, exact or rounded once."""
    found = ball.mid * factor
    return NormBall(found, up(ball.error * abs(factor) + 2.0**-50 * size(found)))


def _gram(ball: NormBall) -> NormBall:
    return transposed(ball) @ ball


def _bias(bias: Any, width: int) -> NDArray[np.float64]:
    return np.zeros(width) if bias is None else _float64(bias)


def _float64(array: Any) -> NDArray[np.float64]:
    return np.asarray(array).astype(np.float64)
