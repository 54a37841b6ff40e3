"""The rate of all inputs near an observed one, proved: how far apart their outputs can be, over how near they can be.

A box around every MLP pre-activation confines every normed token, because W_1 has full row rank; so the block's output
is known to within a perturbation, and the input, through its attention sub-layer, has at least a certain distance from
consensus. Norms of the block's factors enter times the size of the box, and of what attention may move, only. Statement
and proof: docs/rates.md, theorems 4 and 5. Host only, float64, one sentence.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ...errors import OptionError, ShapeError, arguments_checked
from ...linalg.intervals import Ball, Interval, epsilon, frobenius, quiet, sum_of
from ...linalg.norm_ball import NormBall, raise_all, size, up
from ...types import Block
from ..certify.float_calculus import HostCalculus
from ..certify.matrix_calculus import FUNCTION_ULPS
from ..theorems.parameters import bias_of
from .activation_slopes import secant_range
from .nearest_input import Box, Neighbourhood, least_distance

SUMS = 1e-3  # how far from 1 the rows of attention may sum


class NeighbourhoodRate(NamedTuple):
    """What is proved of d_M(H') / d_M(X) for every X of a neighbourhood.

    Attributes:
      rate: at least the ratio: `farthest` over `nearest`; infinite where `nearest` is 0.
      farthest: at least d_M(H').
      nearest: at most d_M(X).
    """

    rate: float
    farthest: float
    nearest: float


@arguments_checked
@quiet
def neighbourhood_rate(block: Block, near: Neighbourhood, activation: str, eps: float) -> NeighbourhoodRate:
    """An upper bound of d_M(H') / d_M(X) for every input X of the neighbourhood, rounding accounted for.

    All arrays are exact as given, but for attention, see `Neighbourhood`. As the box shrinks to a point and the stds
    are the observed ones, the bound tends to the actual rate, unless an input nearer to consensus has the same
    normed tokens. The work grows as T D^2 (F + D): about a second for a sentence and a layer of a small BERT.

    Args:
      block: a post-LN block, float64.
      near: the neighbourhood.
      activation: "gelu": the slopes of others are not enclosed.
      eps: LayerNorm's epsilon.

    Returns:
      A `NeighbourhoodRate`.

    Raises:
      OptionError, ShapeError: another activation; a gain of the attention LayerNorm that is zero; W_1 whose rank is
        not its number of rows; a radius or std that is not positive, eps or a move of attention below 0; attention
        that is negative or whose rows do not sum to 1 within 1e-3; numbers that are not finite; shapes that do not
        fit.

    >>> from jaxsmooth.theory import block_of
    >>> eye, one, none = np.eye(3), np.ones(3), np.zeros((3, 1, 1))
    >>> block = block_of(none, none.T, one, eye, 0 * eye, one)
    >>> x = np.array([[3.0, 0, -3], [-6, 3, 3]])  # without attention and MLP: both LayerNorms and nothing else
    >>> normed = x / x.std(axis=1, keepdims=True)
    >>> near = Neighbourhood(np.full((1, 2, 2), 0.5), normed, x.std(axis=1), np.ones(2), np.full(3, 0.01))
    >>> actual = np.linalg.norm(normed[0] - normed[1]) / np.linalg.norm(x[0] - x[1])
    >>> bool(actual < neighbourhood_rate(block, near, "gelu", 0.0).rate < 1.1 * actual)
    True

    References: docs/rates.md, theorems 4 and 5.
    """
    check_block(block, activation, eps)
    _check(block, near)
    box = _box(block, near)
    farthest = _farthest(block, near, box, eps)
    nearest = least_distance(block, near, box)
    rate = up(farthest / nearest) if nearest > 0 and np.isfinite(farthest) else np.inf
    return NeighbourhoodRate(rate, farthest if np.isfinite(farthest) else np.inf, nearest)


def check_block(block: Block, activation: str, eps: float) -> None:
    """Refuse a block that no neighbourhood is proved for."""
    if block.gate is not None or block.norm_attn_out is not None or block.norm_mlp_out is not None:
        raise OptionError(
            "the block has a gate or sandwich norms: neighbourhoods are proved for BERT's post-LN blocks."
        )
    if activation != "gelu":
        raise OptionError(f"activation must be 'gelu' for a certificate; got {activation!r}.")
    if not all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(block)) or eps < 0:
        raise OptionError(f"parameters must be finite and eps at least 0; eps is {eps}.")
    if not np.all(block.norm_attn.scale):
        raise OptionError("the attention LayerNorm has a gain of zero: what passes it does not tell the token.")


def _check(block: Block, near: Neighbourhood) -> None:
    tokens, (width, units) = len(near.normed), block.up.kernel.shape
    heads = block.attn.value.kernel.shape[1]
    wanted = ((heads, tokens, tokens), (tokens, width), (tokens,), (tokens,), (units,))
    given = tuple(np.shape(leaf) for leaf in near[:-1])
    if given != wanted or not tokens:
        raise ShapeError(
            f"attn, normed, std_attn, std_mlp, radius must have shapes {wanted}, of at least one token; got {given}."
        )
    if np.shape(near.attn_move) not in ((), (heads, tokens)) or not np.all(np.asarray(near.attn_move) >= 0):
        raise ShapeError(
            f"attn_move must be one number or of shape {(heads, tokens)}, at least 0; got shape"
            f" {np.shape(near.attn_move)}, the least of it {np.min(near.attn_move)}."
        )
    for name, leaf in zip(near._fields, near, strict=True):
        if not np.all(np.isfinite(leaf)):
            raise OptionError(f"{name} must be finite.")
    for name in ("radius", "std_attn", "std_mlp"):
        if not np.all((least := np.min(getattr(near, name))) > 0):
            raise OptionError(f"{name} must be positive; the least of it is {least}.")
    if np.min(near.attn) < 0 or (off := np.max(np.abs(near.attn.sum(axis=-1) - 1))) > SUMS:
        what = f"the least weight is {np.min(near.attn)}" if np.min(near.attn) < 0 else f"a sum is off by {off:.2g}"
        raise OptionError(f"attn must have weights of at least 0 that sum to 1 within {SUMS}; {what}.")


def _box(block: Block, near: Neighbourhood) -> Box:
    """|e W_1 S|^2 <= |S radius|^2 over the box; with e = f R, that is f M f^T for M = (R W_1 S)(R W_1 S)^T ~ I."""
    width, units = block.up.kernel.shape
    scales = 1 / (near.radius * np.sqrt(units))
    try:
        _, triangle = np.linalg.qr((block.up.kernel * scales).T)
        root = np.linalg.inv(triangle.T)
    except np.linalg.LinAlgError as error:
        raise OptionError(f"W_1 [{width} {units}] must have full row rank: else its box confines no token.") from error
    scaled = block.up.kernel * scales
    mapped = NormBall(root, 0.0) @ NormBall(scaled, up(4 * epsilon(scaled) * size(scaled)))
    gram = mapped @ NormBall(mapped.mid.T, mapped.error)
    off = up(size(gram.mid - np.eye(width)) + gram.error)
    largest = sum_of(Interval.exact(scales * near.radius) * Interval.exact(scales * near.radius))
    length = up(np.sqrt(up(float(largest.upper)) / (1 - off))) if off < 1 else np.inf
    return Box(root, length, scales, near.radius)


def farthest_output(block: Block, near: Neighbourhood, eps: float) -> float:
    """At least d_M(H') over the neighbourhood, whatever attention is: see `neighbourhood_rate` for what it takes."""
    return _farthest(block, near, _box(block, near), eps)


def _farthest(block: Block, near: Neighbourhood, box: Box, eps: float) -> float:
    """At least d_M(H'): that of the centre, and how far every output token can move from it."""
    centre = _Outputs(block, near, box, eps)
    moved = [centre.moved(token, least) for token, least in enumerate(near.std_mlp.tolist())]
    return up(float(centre.c.distance(centre.out).upper) + size(np.array([moved])))


class LeastStds(NamedTuple):
    """What the stds at the MLP LayerNorm are at least: `centre` less `fall` times the share of the box that is used.

    Attributes:
      centre: [T].
      fall: [T].
    """

    centre: NDArray[np.float64]
    fall: NDArray[np.float64]


def least_stds(block: Block, near: Neighbourhood, eps: float) -> LeastStds:
    """Of a neighbourhood, whatever attention is; see `neighbourhood_rate` for what it takes."""
    outputs, width = _Outputs(block, near, _box(block, near), eps), near.normed.shape[1]
    lengths = np.array([outputs.length(token) for token in range(len(near.normed))])
    return LeastStds(outputs.stds.lower, raise_all(lengths / np.sqrt(width)))


class _Outputs:
    """The outputs at the centre of a neighbourhood, and how far each can move."""

    def __init__(self, block: Block, near: Neighbourhood, box: Box, eps: float) -> None:
        c = self.c = HostCalculus(np.ones(len(near.normed), bool), np.float64)
        normed = c.matrix(near.normed)
        pre = self.pre = c.add_row(normed @ c.matrix(block.up.kernel), c.matrix(bias_of(block.up)[None]))
        down, self.radius = c.matrix(block.down.kernel), near.radius
        activated = c.activation(pre, "gelu")
        self.centre = c.centre_features(c.add_row(normed + activated @ down, c.matrix(bias_of(block.down)[None])))
        self.stds = c.stds(self.centre, eps)
        gains, none = c.matrix(block.norm_mlp.scale[None]), c.matrix(np.zeros((1, len(block.norm_mlp.scale))))
        self.out = c.layer_norm(self.centre, gains, none, self.stds)
        self.moves = _Moves(block, box, NormBall.of(c.centre_features(down)))

    def moved(self, token: int, least: float) -> float:
        """At least the move of an output token whose std at the MLP LayerNorm is at least `least`."""
        linear, bend = self._linear(token)
        out, std = float(frobenius(_row(self.out, token)).upper), float(self.stds.lower[token])
        return self.moves.of_output(linear, bend, _Token(_row(self.centre, token), out, std, least))

    def length(self, token: int) -> float:
        """At least the move of a token in front of the MLP LayerNorm."""
        return self.moves.length(*self._linear(token))

    def _linear(self, token: int) -> tuple[NormBall, NDArray[np.float64]]:
        return self.moves.of_token(*_slopes(self.pre, token, self.radius))


class _Token(NamedTuple):
    """A token at the centre: C z, at least ||Gamma_2 C z|| / a, at most its std a, and the least std of the region."""

    centre: Ball
    out: float
    std: float
    least: float


class _Moves:
    """How far a token can move while its pre-activations stay in the box."""

    def __init__(self, block: Block, box: Box, down: NormBall) -> None:
        c = HostCalculus(np.ones(len(block.up.kernel), bool), np.float64)
        self.box, self.down, self.gains = box, down, np.asarray(block.norm_mlp.scale)
        self.units = NormBall(box.root, 0.0) @ NormBall(np.asarray(block.up.kernel), 0.0)  # e W_1 = f R W_1
        self.straight = NormBall.of(c.centre_features(c.matrix(box.root)))
        self.norms = down.norm(), down.columns(self.gains).norm()

    def of_token(self, slope: NDArray[np.float64], spread: NDArray[np.float64]) -> tuple[NormBall, NDArray[np.float64]]:
        """The move in front of the MLP's LayerNorm is f B + g W_2 C: B, and the largest |g| unit by unit."""
        return self.straight + self.units.columns(slope) @ self.down, raise_all(self.box.radius * spread)

    def of_output(self, linear: NormBall, bend: NDArray[np.float64], token: _Token) -> float:
        """At least ||Gamma_2 (LN(z + D) - LN(z))||, by the lemma of theorem 4."""
        width, bent = len(self.gains), size(bend[None])
        length = self.length(linear, bend)
        gained = up(self.box.length * linear.columns(self.gains).norm() + bent * self.norms[1])
        along = self._along(linear, bend, token.centre)
        least = max(token.least, (token.std - up(length / np.sqrt(width))) * (1 - 1e-12))
        turned = min(up(length / np.sqrt(width)), up((2 * along + length * length) / (width * (token.std + least))))
        return up((gained + token.out * turned) / least)

    def length(self, linear: NormBall, bend: NDArray[np.float64]) -> float:
        """At least the length of the move in front of the MLP LayerNorm."""
        return up(self.box.length * linear.norm() + size(bend[None]) * self.norms[0])

    def _along(self, linear: NormBall, bend: NDArray[np.float64], centre: Ball) -> float:
        """At least |<C z, D>|."""
        token = NormBall.of(centre.T)
        straight, bent = linear @ token, self.down @ token
        units = float(np.sum(np.abs(bent.mid[:, 0]) * bend)) * (1 + 4 * len(bend) * epsilon(bend))
        return up(self.box.length * up(size(straight.mid) + straight.error) + units + bent.error * size(bend[None]))


def _row(matrix: Ball, token: int) -> Ball:
    return Ball(matrix.mid[token : token + 1], matrix.rad[token : token + 1])


def _slopes(pre: Ball, token: int, radius: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Middles and half-widths of GELU's secant slopes between a pre-activation and any within `radius` of it, [F]."""
    at, known = pre.mid[token], pre.rad[token]
    with jax.enable_x64(True):
        ends = secant_range("gelu", *(jnp.asarray(x) for x in (at, at, known, raise_all(known + radius))))
    least, largest = (np.asarray(end, np.float64) for end in ends)
    pad = 8 * FUNCTION_ULPS * epsilon(at) * (1 + 2 * np.abs(at) + radius + 2 * known)
    return (least + largest) / 2, raise_all((largest - least) / 2 + pad)
