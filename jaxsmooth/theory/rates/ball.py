"""The rate of a ball: every input whose tokens are within a radius of an observed one's, attention recomputed.

The hypothesis is about the input alone. What the ball's inputs do to attention, stds and pre-activations is bounded
(`reach`), which puts the ball inside a neighbourhood of theorem 5. Statement and proof: docs/rates.md, theorem 6. Host
only, float64, one sentence, a block of BERT's kind without a causal mask.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from ...errors import OptionError, ShapeError, arguments_checked
from ...linalg.intervals import epsilon, quiet
from ...linalg.norm_ball import raise_all, up
from ...types import Block
from ..certify.float_calculus import HostCalculus
from .nearest_input import Neighbourhood
from .neighbourhood import check_block, farthest_output, least_stds
from .reach import Centre, centre_of

BISECTIONS = 24
LARGEST = 1.0  # the first radius tried


class BallRate(NamedTuple):
    """What is proved of d_M(H') / d_M(X) for every X of a ball.

    Attributes:
      rate: at least the ratio: `farthest` over `nearest`; infinite where `nearest` is 0.
      farthest: at least d_M(H').
      nearest: at most d_M(X).
      near: a neighbourhood that contains the ball; of the stds at the MLP LayerNorm it asks no more than epsilon gives.
    """

    rate: float
    farthest: float
    nearest: float
    near: Neighbourhood


@arguments_checked
@quiet
def ball_rate(
    block: Block,
    hidden: Float[NDArray, "T D"],
    radius: float,
    activation: str,
    eps: float,
    mask: Bool[NDArray, " T"] | None = None,
) -> BallRate:
    """An upper bound of d_M(H') / d_M(X) over all X with |x_i - hidden_i| <= radius for every token i.

    Attention is softmax attention over all real tokens, recomputed for every X. Rounding is accounted for: all arrays
    are exact as given. As the radius shrinks, the bound tends to the actual rate of `hidden`.

    Args:
      block: a post-LN block, float64 numpy arrays.
      hidden: the centre, the block's input, [T D].
      radius: Euclidean, of every token, at least 0.
      activation: "gelu".
      eps: LayerNorm's epsilon.
      mask: True on real tokens, [T]; the others are left out. None: all are real.

    Returns:
      A `BallRate`, of the real tokens.

    Raises:
      OptionError, ShapeError: what `neighbourhood_rate` refuses; a radius below 0 or not finite; shapes that do not
        fit.

    >>> from jaxsmooth.theory import block_of
    >>> eye, one, none = np.eye(3), np.ones(3), np.zeros((3, 1, 1))
    >>> block = block_of(none, none.T, one, eye, 0 * eye, one)
    >>> x = np.array([[3.0, 0, -3], [-6, 3, 3]])  # without attention and MLP: both LayerNorms and nothing else
    >>> normed = x / x.std(axis=1, keepdims=True)
    >>> actual = np.linalg.norm(normed[0] - normed[1]) / np.linalg.norm(x[0] - x[1])
    >>> bool(actual < ball_rate(block, x, 0.01, "gelu", 0.0).rate < 1.1 * actual)
    True

    References: docs/rates.md, theorem 6.
    """
    check_block(block, activation, eps)
    hidden = _real(block, hidden, mask)
    if not (np.isfinite(radius) and radius >= 0):
        raise OptionError(f"radius must be a finite number of at least 0; got {radius}.")
    near = _around(block, centre_of(block, hidden, eps), radius, eps)
    nearest = _distance(hidden) - up(radius * np.sqrt(len(hidden)))
    nearest = max(nearest * (1 - 1e-14), 0.0)
    known = all(np.all(np.isfinite(leaf)) for leaf in near) and np.min(near.std_attn) > 0
    farthest = farthest_output(block, near, eps) if known else np.inf
    rate = up(farthest / nearest) if nearest > 0 and np.isfinite(farthest) else np.inf
    return BallRate(rate, farthest if np.isfinite(farthest) else np.inf, nearest, near)


@arguments_checked
@quiet
def inner_radius(block: Block, hidden: Float[NDArray, "T D"], near: Neighbourhood, eps: float) -> float:
    """A radius around an input, the largest known, such that all inputs within it belong to a neighbourhood.

    Args:
      block: a post-LN block, float64 numpy arrays.
      hidden: the centre, the block's input, [T D]; the neighbourhood is one of its own run or near that.
      near: the neighbourhood, of the same tokens.
      eps: LayerNorm's epsilon.

    Returns:
      The radius, Euclidean, of every token; 0 where none was found.

    >>> from jaxsmooth.theory import block_of
    >>> eye, one, none = np.eye(3), np.ones(3), np.zeros((3, 1, 1))
    >>> block = block_of(none, none.T, one, eye, 0 * eye, one)
    >>> x = np.array([[3.0, 0, -3], [-6, 3, 3]])
    >>> std, half = x.std(axis=1), np.full((1, 2, 2), 0.5)
    >>> near = Neighbourhood(half, x / std[:, None], 0.9 * std, 0.9 * np.ones(2), np.full(3, 0.1), attn_move=0.1)
    >>> 0.01 < inner_radius(block, x, near, 0.0) < 0.3
    True

    References: docs/rates.md, theorem 6.
    """
    check_block(block, "gelu", eps)
    centre = centre_of(block, _real(block, hidden, None), eps)
    allowed = _Allowed(block, centre, near, eps)
    low, high = 0.0, LARGEST
    for _ in range(BISECTIONS):
        middle = high / 8 if low == 0 else np.sqrt(low * high)
        low, high = (middle, high) if allowed.holds(middle) else (low, middle)
    return float(low)


class _Allowed:
    """What a neighbourhood leaves to move, once its own distance from the centre is taken off."""

    def __init__(self, block: Block, centre: Centre, near: Neighbourhood, eps: float) -> None:
        self.centre, self.near = centre, near
        move, offset = _attention_offset(centre, near.attn), _pre_offset(block, centre, near.normed)
        self.move = np.broadcast_to(np.asarray(near.attn_move, np.float64), move.shape) - move
        self.pre = near.radius[None] - offset
        found = least_stds(block, near, eps)
        room = np.maximum(found.centre - near.std_mlp, 0) * (1 - 1e-14)
        # The part of the box that may be used before a std at the MLP LayerNorm can be below its bound.
        self.share = min(1.0, float(np.min(room / found.fall)))

    def holds(self, radius: float) -> bool:
        reach = self.centre.reach(radius)
        stds = np.all(reach.std_attn >= self.near.std_attn)
        # The share counts from the neighbourhood's own centre.
        used = reach.pre_move + (self.near.radius[None] - self.pre)
        box = np.all(used <= self.share * self.near.radius[None])
        return bool(stds and box and np.all(reach.attn_move <= self.move))


def _around(block: Block, centre: Centre, radius: float, eps: float) -> Neighbourhood:
    """A neighbourhood that contains the ball, centred at floating-point numbers next to the centre."""
    reach = centre.reach(radius)
    attn, normed = np.maximum(centre.attn.mid, 0), centre.normed.mid
    move = raise_all(reach.attn_move + _attention_offset(centre, attn))
    pre = raise_all(np.max(reach.pre_move, axis=0) + _pre_offset(block, centre, normed).max(axis=0))
    least = max(np.sqrt(eps) * (1 - 1e-14), float(np.finfo(np.float64).tiny))
    return Neighbourhood(attn, normed, reach.std_attn, np.full(len(normed), least), pre, move)


def _attention_offset(centre: Centre, attn: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far rows of `attn`, divided by their sums, are from the centre's exact attention, [N T]."""
    sums = np.abs(attn.sum(axis=-1) - 1) + 4 * attn.shape[-1] * epsilon(attn)
    far = np.abs(attn - centre.attn.mid) * (1 + 4 * epsilon(attn)) + centre.attn.rad + 2 * sums[..., None] * attn
    return raise_all(np.sqrt((far * far).sum(axis=-1)) * (1 + 1e-12))


def _pre_offset(block: Block, centre: Centre, normed: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far the pre-activations of `normed` are from the centre's exact ones, [T F]."""
    c = HostCalculus(np.ones(len(normed), bool), np.float64)
    moved = (c.matrix(normed) - centre.normed) @ c.matrix(block.up.kernel)
    return raise_all(np.abs(moved.mid) + moved.rad)


def _distance(hidden: NDArray[np.float64]) -> float:
    c = HostCalculus(np.ones(len(hidden), bool), np.float64)
    return float(c.distance(c.matrix(hidden)).lower)


def _real(block: Block, hidden: Float[NDArray, "T D"], mask: Bool[NDArray, " T"] | None) -> Float[NDArray, "R D"]:
    hidden = np.asarray(hidden, np.float64)
    real = np.ones(len(hidden), bool) if mask is None else np.asarray(mask, bool)
    width = block.up.kernel.shape[0]
    if hidden.ndim != 2 or hidden.shape[1] != width or real.shape != hidden.shape[:1] or not real.any():
        raise ShapeError(
            f"hidden must have shape (T, {width}), mask (T,) with a real token; got {hidden.shape} and {real.shape},"
            f" {int(real.sum())} of it real."
        )
    if not np.all(np.isfinite(hidden[real])):
        raise OptionError("hidden must be finite.")
    return hidden[real]
