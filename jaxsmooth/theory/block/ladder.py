"""How much one Transformer block can stretch the distance to consensus: a ladder of bounds.

The block is post-LN, as BERT's: U = X + sum_h A_h X W_h + b, Y = LN1(U), Z = Y + phi(Y W_1 + b_1) W_2 + b_2,
H' = LN2(Z). Each function bounds d_M(H') / d_M(X) with the constants evaluated AT the given attention and
LayerNorm stds; composed over layers they multiply. Ordering: actual <= L4 <= L3 <= L2b <= L2 <= L1 <= L0.
Proofs are in docs/theory.md. L0 is the theorem of Shi et al. (2022), arXiv 2202.08625, with what a real BERT
needs restored (the gains G_1 G_2 and the slope L of the activation); the others refine it. The formulas are those of
`theorems.rates`, which `verify` certifies, evaluated by `PlainCalculus`.

All functions take a batch of sentences at once; padded tokens take no part.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ...activations import LIPSCHITZ
from ...linalg.lanczos import Eigenvalue
from ...linalg.norms import quotient
from ...linalg.precision import at_least_float32
from ...meshes import on_any_mesh
from ...types import Block
from ..consensus import subspace_distance
from ..theorems import rates
from ..theorems.parameters import BlockNorms
from ..theorems.quantities import BlockQuantities
from .plain_calculus import PlainCalculus
from .traced_block import BlockState, TracedBlock

_BY_SENTENCE = on_any_mesh(lambda norms, state, *rest: state.mask)


@at_least_float32
@on_any_mesh()
def actual_rate(
    before: Float[Array, "B T D"], after: Float[Array, "B T D"], mask: Bool[Array, "B T"]
) -> Float[Array, " B"]:
    """d_M(H') / d_M(X): the contraction that took place; below 1 tokens came closer, NaN from consensus.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[[1.0], [-1.0]]])
    >>> actual_rate(x, x / 2, jnp.ones((1, 2), bool))
    Array([0.5], dtype=float32)
    """
    apart, started = subspace_distance(after, mask), subspace_distance(before, mask)
    return jnp.where(apart > 0, quotient(apart, started, jnp.inf), quotient(apart, started))


@at_least_float32
@on_any_mesh(lambda norms, activation, mixing_rates, *rest: mixing_rates)
def shi2022_rate(
    norms: BlockNorms, activation: str, mixing_rates: Float[Array, "L B N"], std_products: Float[Array, "L B"]
) -> Float[Array, "L B"]:
    """L0: the rate of Shi et al. (2022), Theorem 2, valid for a real post-LN block.

    (1 + L s^2)(1 + sqrt(lambda) N s) G_1 G_2 / (sigma_1 sigma_2), after Shi et al. (2022): s is the largest
    spectral norm over the weights W_h, W_1, W_2 of ALL layers and sqrt(lambda) the largest mixing rate over
    all heads of all layers; G_1 G_2 and the stds are the layer's own. The paper has ReLU (L = 1) and unit gains.

    Args:
      norms: of every layer, stacked on a leading axis L.
      activation: a key of `activations.LIPSCHITZ`.
      mixing_rates: sqrt(lambda_h) of every head, [L B N].
      std_products: sigma_1 sigma_2, see `std_product`, [L B].

    Returns:
      [L B].

    References: Shi et al. (2022), arXiv 2202.08625, Theorem 2; proof and corrections in docs/theory.md.
    """
    return rates.shi2022_rate(q := _EveryBlock(norms, activation, mixing_rates, std_products)).value(q)


class _EveryBlock(BlockQuantities[Array, Array]):
    """What L0 needs of all blocks at once: numbers are [L B]."""

    def __init__(self, norms: BlockNorms, activation: str, mixing_rates: Array, std_products: Array) -> None:
        self.c = PlainCalculus(jnp.ones(1, bool), std_products.dtype)
        self.slope, self.heads = self.c.number(LIPSCHITZ[activation]), mixing_rates.shape[-1]
        self.largest_norm = jnp.maximum(jnp.max(norms.heads), jnp.maximum(jnp.max(norms.up), jnp.max(norms.down)))
        self.largest_mixing = jnp.max(mixing_rates, axis=(0, 2))[None]
        # G_1 G_2 is one factor: the order of multiplication decides the last bit.
        self.gain_attn, self.gain_mlp = (norms.gain_attn * norms.gain_mlp)[:, None], self.one
        self.least_stds = std_products


@_BY_SENTENCE
@at_least_float32
def contraction_threshold(norms: BlockNorms, state: BlockState) -> Float[Array, " B"]:
    """What sigma_1 sigma_2 must exceed for L1 to promise contraction.

    (1 + L ||W_1|| ||W_2||)(1 + sum_h sqrt(lambda_h) ||W_h||) G_1 G_2, after Shi et al. (2022), Theorem 2.
    """
    return rates.block_rate(TracedBlock(norms, state)).undivided


@_BY_SENTENCE
@at_least_float32
def block_rate(norms: BlockNorms, state: BlockState) -> Float[Array, " B"]:
    """L1: Shi et al.'s rate with every constant the block's own, `contraction_threshold` / `std_product`."""
    return rates.block_rate(q := TracedBlock(norms, state)).value(q)


@_BY_SENTENCE
@at_least_float32
def refined_rate(norms: BlockNorms, state: BlockState) -> Float[Array, " B"]:
    """L2: a f G_2 / sqrt(product of the two smallest stds at each LayerNorm).

    a is the least of three bounds of attention with its residual, f that of gain and MLP (`BlockNorms.mlp`);
    two smallest stds instead of the smallest twice, because every pair of tokens meets two stds.
    """
    return rates.refined_rate(q := TracedBlock(norms, state)).value(q)


@_BY_SENTENCE
@at_least_float32
def pairwise_rate(norms: BlockNorms, state: BlockState) -> Float[Array, " B"]:
    """L2b: as L2, with every pair of tokens weighted by its own stds: a f G_2 lambda_max(L_P)^(1/2).

    L_P = (1/n)[diag(P) sum(P) - P P^T] with P_i = 1 / (std_attn_i std_mlp_i).
    """
    return rates.pairwise_rate(q := TracedBlock(norms, state)).value(q)


@at_least_float32
@on_any_mesh(lambda block, norms, state, **options: state.mask)
def operator_rate(
    block: Block, norms: BlockNorms, state: BlockState, *, tolerance: float | None = None
) -> tuple[Float[Array, " B"], Eigenvalue]:
    """L3: f G_2 ||T||, T(X) = L_P^(1/2) J (X + sum_h A_h X W_h) C, attention and both stds as ONE operator.

    Args:
      block: the parameters.
      norms: their norms.
      state: what the block did.
      tolerance: relative error of ||T||^2 at which Lanczos stops, see `squared_operator_norm`.

    Returns:
      The rate, [B], and Lanczos's `Eigenvalue`: ||T|| is a lower estimate, so this rung is for measuring
      tightness; a certificate needs an upper bound of it.
    """
    q = TracedBlock(norms, state, block, tolerance=tolerance)
    return rates.operator_rate(q).value(q), q.squared_operator_norm


@_BY_SENTENCE
@at_least_float32
def data_rate(norms: BlockNorms, state: BlockState) -> Float[Array, " B"]:
    """L4: f G_2 [(1/n) sum_{i<j} P_i P_j ||C u_i - C u_j||^2]^(1/2) / d_M(X), at the data's own U.

    NaN where d_M(X) = 0 and the tokens of U are equal too.
    """
    return rates.data_rate(q := TracedBlock(norms, state)).value(q)


@_BY_SENTENCE
@at_least_float32
def pre_norm_block_rate(norms: BlockNorms, state: BlockState, activation: str) -> Float[Array, " B"]:
    """The rate of a PRE-LN block, U = X + sum_h A_h LN1(X) W_h + b, H' = U + phi(LN2(U) W_1 + b_1) W_2 + b_2.

    (1 + G_1 sum_h sqrt(lambda_h) ||W_h|| / sqrt(s_(1) s_(2))) (1 + L G_2 ||W_1|| ||W_2|| / sqrt(t_(1) t_(2))), s_(1)
    and s_(2) the two smallest stds of the rows of X, t of the rows of U. Never below 1: of a pre-LN network no rate of
    this kind promises collapse in d_M, and what can vanish is d_M(X) / ||X||. The functions L0 to L4 of this module
    are about post-LN blocks and do not hold here. Each factor: d_M(X + B) <= d_M(X) + d_M(B), the LayerNorm lemma,
    Lemma 1(1), (2) and (4).

    Args:
      norms: the block's norms.
      state: `std_attn` the stds of X, `std_mlp` those of U, where LN1 and LN2 stand.
      activation: a key of `activations.LIPSCHITZ`.

    Returns:
      [B].
    """
    c = PlainCalculus(state.mask, state.input.dtype)
    by_head = jnp.sum(state.mixing_rate * norms.heads[None], axis=-1)
    attention = norms.gain_attn * by_head / jnp.sqrt(c.least(state.std_attn[..., 0], 2))
    slope = LIPSCHITZ[activation] * norms.gain_mlp * norms.up * norms.down
    return (1 + attention) * (1 + slope / jnp.sqrt(c.least(state.std_mlp[..., 0], 2)))


@at_least_float32
@on_any_mesh(lambda state: state.mask)
def std_product(state: BlockState) -> Float[Array, " B"]:
    """sigma_1 sigma_2 of the theorem: the least std over real tokens at one LayerNorm times that at the other.

    Infinite where no token is real.
    """
    c = PlainCalculus(state.mask, state.input.dtype)
    return c.least(state.std_attn[..., 0]) * c.least(state.std_mlp[..., 0])


@_BY_SENTENCE
@at_least_float32
def attention_stretch(norms: BlockNorms, state: BlockState) -> Float[Array, " B"]:
    """a: how much X + sum_h A_h X W_h can stretch d_M; the least of three bounds.

    1 + sum_h sqrt(lambda_h) ||W_h||;  1 + max_h sqrt(lambda_h) ||W_V|| ||W_O||, without a factor of the number of
    heads;  1 + ||sum_h J A_h A_h^T J||^(1/2) ||sum_h W_h W_h^T||^(1/2), by Cauchy and Schwarz.
    """
    return TracedBlock(norms, state).stretch
