"""Rates that hold on a whole region of inputs: everything but attention may move.

The region is every input X of a post-LN block with the given attention, whose LayerNorm stds are at least
the given ones, and whose MLP pre-activations stay in a box around the observed ones. The rates rest on two facts:
a LayerNorm is half linear (`layer_norm_half_linear`), and a pair of tokens passes the MLP through
I + W_1 D W_2 with D the secant slopes of the pair, which the box confines. So attention, the linear half of both
LayerNorms, the gains and the MLP are ONE operator on X whose norm is taken as a whole, and only what is left is
bounded factor by factor. Statements and proofs: docs/rates.md.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ...linalg.lanczos import default_tolerance, largest_eigenvalue, start_vector
from ...linalg.precision import at_least_float32, matmul
from ...linalg.rows import centre_features, row_std
from ...types import Block
from ..block.attention_operator import mixing_adjoint, mixing_operator
from ..consensus import centre_tokens
from ..statement import Statement
from .activation_slopes import secant_range, slope_range

GAIN_SPLIT = 2.0  # th in `secant_box_rate`; on trained weights no other value tried gained 10%
PAIRS_AT_ONCE = 256


class Region(NamedTuple):
    """A set of inputs of one block, sentence by sentence.

    Attributes:
      attn: the attention that every input of the region is mixed with, [B N T S].
      std_attn: lower bounds of the stds at the attention LayerNorm, [B T 1].
      std_mlp: lower bounds of the stds at the MLP LayerNorm, [B T 1].
      mask: True on real tokens, [B T].
      centre: centres of the boxes of the MLP's pre-activations Y W_1 + b_1, [B T F].
      radius: their half-widths, at least 0, [B T F].
    """

    attn: Float[Array, "B N T S"]
    std_attn: Float[Array, "B T 1"]
    std_mlp: Float[Array, "B T 1"]
    mask: Bool[Array, "B T"]
    centre: Float[Array, "B T F"]
    radius: Float[Array, "B T F"]


class RegionRate(NamedTuple):
    """A bound of d_M(H') / d_M(X), valid for every input of a region.

    Attributes:
      rate: `composed + separate`.
      composed: norm of the one operator that joins attention, LayerNorms, gains and MLP.
      separate: what is bounded factor by factor: the other half of the LayerNorms, and the width of the box.
    """

    rate: Float[Array, " B"]
    composed: Float[Array, " B"]
    separate: Float[Array, " B"]


class _Pairs(NamedTuple):
    """The pairs of tokens (i, j), i < j, of one sentence; the slopes have one row if all pairs share them."""

    first: Array  # [P], i
    second: Array  # [P], j
    weight: Array  # [P], k_ij, zero with padding
    slope: Array  # [P or 1, F]
    radius: Array  # [P or 1, F]


@at_least_float32
def layer_norm_half_linear(
    u: Float[Array, "*B D"],
    v: Float[Array, "*B D"],
    least_u: Float[Array, "*B"],
    least_v: Float[Array, "*B"],
    *,
    eps: float = 0.0,
) -> Statement:
    """LayerNorm without gain is half linear: ||LN(u) - LN(v) - k C(u - v)|| <= k ||C(u - v)||, k = 1/(s + t).

    s and t are ANY positive lower bounds of the stds of u and v. In words: the difference of two tokens passes
    LayerNorm as k times itself plus a rest that is no longer than that. In particular
    ||LN(u) - LN(v)|| <= 2 ||C(u - v)|| / (s + t), which is never worse than the factor 1/sqrt(s t), and is
    attained by antipodal tokens; the rest is attained by tokens that differ in length alone.

    Args:
      u: tokens, [..., D].
      v: tokens, [..., D].
      least_u: lower bounds of sqrt(var(u) + eps), positive, [...].
      least_v: of v.
      eps: LayerNorm's epsilon.

    Returns:
      A `Statement`, [...]; not applicable where a lower bound is not one.

    >>> import jax.numpy as jnp
    >>> u = jnp.array([1.0, -1.0])
    >>> lhs, rhs, applicable = layer_norm_half_linear(u, -u, jnp.array(1.0), jnp.array(1.0))
    >>> round(float(lhs), 4), round(float(rhs), 4), bool(applicable)
    (1.4142, 1.4142, True)

    References: docs/rates.md, theorem 1; for s = t it is the firm non-expansiveness of the projection onto a ball.
    """
    u, v = centre_features(u), centre_features(v)
    std_u, std_v = row_std(u, eps), row_std(v, eps)
    k = 1 / (least_u + least_v)[..., None]
    rest = u / std_u - v / std_v - k * (u - v)
    lhs, rhs = (jnp.sqrt(jnp.sum(x * x, axis=-1)) for x in (rest, k * (u - v)))
    slack = 1 + 8 * jnp.finfo(u.dtype).eps
    positive = (least_u > 0) & (least_v > 0)
    return Statement(lhs, rhs, positive & (least_u <= std_u[..., 0] * slack) & (least_v <= std_v[..., 0] * slack))


@at_least_float32
def inside(
    region: Region,
    std_attn: Float[Array, "B T 1"],
    std_mlp: Float[Array, "B T 1"],
    pre_activation: Float[Array, "B T F"],
) -> Bool[Array, " B"]:
    """Whether an input with these stds and pre-activations, mixed by `region.attn`, is in the region.

    Args:
      region: the region.
      std_attn: stds of the rows of U, [B T 1].
      std_mlp: stds of the rows of Z, [B T 1].
      pre_activation: Y W_1 + b_1, [B T F].

    Returns:
      [B].

    >>> import jax.numpy as jnp
    >>> one, real = jnp.ones((1, 2, 1)), jnp.ones((1, 2), bool)
    >>> region = Region(jnp.ones((1, 1, 2, 2)) / 2, one, one, real, jnp.zeros((1, 2, 3)), jnp.ones((1, 2, 3)))
    >>> inside(region, one, 2 * one, jnp.full((1, 2, 3), 0.5)), inside(region, one, one, jnp.full((1, 2, 3), 1.5))
    (Array([ True], dtype=bool), Array([False], dtype=bool))
    """
    near = jnp.all(jnp.abs(pre_activation - region.centre) <= region.radius, axis=-1)
    wide = (std_attn >= region.std_attn) & (std_mlp >= region.std_mlp)
    return jnp.all((near & wide[..., 0]) | ~region.mask, axis=-1)


@at_least_float32
def secant_box_rate(block: Block, region: Region, activation: str, *, tolerance: float | None = None) -> RegionRate:
    """A rate for a box around every token: secant slopes pair by pair.

    With k_ij = 1/((s_i + s_j)(t_i + t_j)), s and t the lower bounds of the stds at the two LayerNorms, D_ij the
    middle and r_ij the half-width of the pair's secant slopes over its two boxes, B_ij = Gamma_1 (I + W_1 D_ij
    W_2) C, G_2 = max |gamma_2|, Gamma~^2 = (1 + th) Gamma_2^2 + (1 + 1/th) G_2^2 and pair(V)^2 = (1/n) sum_{i<j}
    ||V_ij||^2, every input X of the region has d_M(H') <= (composed + separate) d_M(X) with

      composed = || X -> k_ij (TX)_ij B_ij Gamma~ ||_pair, (TX)_ij the difference of rows of (X + sum_h A_h X W_h) C,
      separate = || X -> k_ij (||B_ij Gamma~|| + 2 ||Gamma_1 W_1 r_ij^(1/2) q||
                 ||q^-1 r_ij^(1/2) W_2 C Gamma~||) (TX)_ij ||_pair,

    for any th > 0 and any diagonal q > 0; here th = 2, and q^2 balances the lengths of columns and rows.

    Args:
      block: the parameters.
      region: the region.
      activation: a key of `activations.LIPSCHITZ`.
      tolerance: relative residual of the Lanczos iterations, 1e-3 by default.

    Returns:
      A `RegionRate`; all norms in it are Lanczos's, hence lower estimates, see `linalg.largest_eigenvalue`.

    References: docs/rates.md, theorem 2.
    """
    first, second = jnp.triu_indices(region.mask.shape[1], 1)

    def slopes(sentence: Region) -> tuple[Array, Array]:
        return _middle(
            secant_range(
                activation,
                sentence.centre[first],
                sentence.centre[second],
                sentence.radius[first],
                sentence.radius[second],
            )
        )

    return _rate(block, region, slopes, tolerance)


@at_least_float32
def slope_box_rate(block: Block, region: Region, activation: str, *, tolerance: float | None = None) -> RegionRate:
    """A rate for one box per unit, shared by all tokens: the hull of the region's boxes over its real tokens.

    As `secant_box_rate`, with the range of phi' over the unit's hull instead of every pair's secant slopes:
    it holds for more inputs (any token may be anywhere in the hull) and is larger for it.

    Args:
      block: the parameters.
      region: the region; only the union of its boxes over real tokens, unit by unit, matters.
      activation: a key of `activations.LIPSCHITZ`.
      tolerance: relative residual of the Lanczos iterations, 1e-3 by default.

    Returns:
      A `RegionRate`; all norms in it are lower estimates.

    References: docs/rates.md, theorem 2, corollary.
    """

    def slopes(sentence: Region) -> tuple[Array, Array]:
        real = sentence.mask[:, None]
        low = jnp.min(jnp.where(real, sentence.centre - sentence.radius, jnp.inf), axis=0, keepdims=True)
        high = jnp.max(jnp.where(real, sentence.centre + sentence.radius, -jnp.inf), axis=0, keepdims=True)
        # Without a real token there is no hull, and no pair that asks for it.
        low, high = (jnp.where(jnp.any(real), end, 0) for end in (low, high))
        return _middle(slope_range(activation, low, high))

    return _rate(block, region, slopes, tolerance)


def _middle(ends: tuple[Array, Array]) -> tuple[Array, Array]:
    return (ends[0] + ends[1]) / 2, (ends[1] - ends[0]) / 2


def _rate(
    block: Block, region: Region, slopes: Callable[[Region], tuple[Array, Array]], tolerance: float | None
) -> RegionRate:
    tolerance = 10 * default_tolerance(jnp.float32) if tolerance is None else tolerance
    first, second = jnp.triu_indices(region.mask.shape[1], 1)
    top = jnp.max(jnp.abs(block.norm_mlp.scale))
    gain = jnp.sqrt((1 + GAIN_SPLIT) * block.norm_mlp.scale**2 + (1 + 1 / GAIN_SPLIT) * top**2)

    def one(sentence: Region) -> RegionRate:
        real = (sentence.mask[first] & sentence.mask[second]).astype(gain.dtype)
        sums = [std[first, 0] + std[second, 0] for std in (sentence.std_attn, sentence.std_mlp)]
        pairs = _Pairs(first, second, real / (sums[0] * sums[1]), *slopes(sentence))
        composed = _composed_norm(block, sentence, pairs, gain, tolerance)
        separate = _separate_norm(block, sentence, pairs, gain, tolerance)
        return RegionRate(composed + separate, composed, separate)

    return jax.lax.map(one, region)


def _composed_norm(block: Block, sentence: Region, pairs: _Pairs, gain: Array, tolerance: float) -> Array:
    """|| X -> k_ij (TX)_ij B_ij Gamma~ ||_pair."""
    squared = (pairs.weight**2)[:, None]

    def middle(differences: Array) -> Array:
        return squared * _mlp_adjoint(block, pairs.slope, gain, _mlp(block, pairs.slope, gain, differences))

    return _pair_norm(block, sentence, pairs, middle, tolerance)


def _separate_norm(block: Block, sentence: Region, pairs: _Pairs, gain: Array, tolerance: float) -> Array:
    """|| X -> k_ij (||B_ij Gamma~|| + 2 times the box's share) C (TX)_ij ||_pair."""
    start = start_vector(gain.shape, gain.dtype)

    def norm(apply: Callable[[Array], Array]) -> Array:
        return jnp.sqrt(jnp.maximum(largest_eigenvalue(apply, start, tolerance=tolerance).value, 0))

    left, right = block.norm_attn.scale[:, None] * block.up.kernel, centre_features(block.down.kernel) * gain[None]
    inner, outer = jnp.sum(left * left, axis=0), jnp.sum(right * right, axis=1)
    dead = (inner == 0) | (outer == 0)
    balance = jnp.where(dead, 1, jnp.sqrt(outer / jnp.where(dead, 1, inner)))

    def of_pair(ends: tuple[Array, Array]) -> Array:
        slope, radius = ends
        middle = norm(lambda v: _mlp_adjoint(block, slope, gain, _mlp(block, slope, gain, v)))
        inward = norm(lambda v: matmul(matmul(v, left) * (radius * balance), left.T))
        outward = norm(lambda v: matmul(matmul(v, right.T) * (radius / balance), right))
        return middle + 2 * inward * outward

    # A few hundred pairs at once: their Krylov bases stay small and wait only for the slowest of those few.
    norms = jax.lax.map(of_pair, (pairs.slope, pairs.radius), batch_size=PAIRS_AT_ONCE)
    factor = (pairs.weight * norms)[:, None] ** 2
    return _pair_norm(block, sentence, pairs, lambda differences: factor * centre_features(differences), tolerance)


def _pair_norm(
    block: Block, sentence: Region, pairs: _Pairs, middle: Callable[[Array], Array], tolerance: float
) -> Array:
    """The norm whose square is the largest eigenvalue of T* Delta* middle Delta T / n, Delta all pair differences."""
    real = sentence.mask[:, None].astype(pairs.weight.dtype)
    count = jnp.maximum(jnp.sum(real), 1)

    def apply(x: Array) -> Array:
        mixed = mixing_operator(block, sentence.attn, x)
        found = middle(mixed[pairs.first] - mixed[pairs.second])
        back = jnp.zeros_like(x).at[pairs.first].add(found).at[pairs.second].add(-found)
        return mixing_adjoint(block, sentence.attn, back) * real / count

    start = centre_tokens(start_vector((real.shape[0], block.norm_mlp.scale.size), real.dtype), sentence.mask)
    return jnp.sqrt(jnp.maximum(largest_eigenvalue(apply, start, tolerance=tolerance).value, 0))


def _mlp(block: Block, slope: Array, gain: Array, x: Array) -> Array:
    """x Gamma_1 (I + W_1 D W_2) C Gamma~."""
    x = x * _as_row(block.norm_attn.scale, x)
    return centre_features(x + matmul(matmul(x, block.up.kernel) * slope, block.down.kernel)) * _as_row(gain, x)


def _mlp_adjoint(block: Block, slope: Array, gain: Array, y: Array) -> Array:
    y = centre_features(y * _as_row(gain, y))
    return (y + matmul(matmul(y, block.down.kernel.T) * slope, block.up.kernel.T)) * _as_row(block.norm_attn.scale, y)


def _as_row(vector: Array, like: Array) -> Array:
    return vector.reshape((1,) * (like.ndim - 1) + vector.shape)
