"""How much one Transformer block can stretch the distance to consensus: a ladder of bounds.

The block is post-LN, as BERT's: U = X + sum_h A_h X W_h + b, Y = LN1(U), Z = Y + phi(Y W_1 + b_1) W_2 + b_2,
H' = LN2(Z). Each function bounds d_M(H') / d_M(X) with the constants evaluated AT the given attention and
LayerNorm stds; composed over layers they multiply. Ordering: actual <= L4 <= L3 <= L2b <= L2 <= L1 <= L0.
Proofs are in docs/theory.md. L0 is the theorem of Shi et al. (2022), arXiv 2202.08625, with what a real BERT
needs restored (the gains G_1 G_2 and the slope L of the activation); the others refine it.

All functions take a batch of sentences at once; padded tokens take no part.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ...activations import LIPSCHITZ
from ...linalg.block_lanczos import largest_eigenvalues_of_queue
from ...linalg.lanczos import Eigenvalue, root_of_largest_eigenvalue
from ..consensus import centre_features, centre_tokens, subspace_distance
from .ladder_starts import source_token_starts
from .layernorm import pair_weight
from .parameter_norms import BlockNorms, BlockWeights

TOKENS_AT_ONCE = (
    128  # twice as many vectors: enough rows for fast products, few enough for their bases to stay in cache
)


# By bytes of the dtype: the relative error of ||T||^2 to stop at. 1e-3 in ||T||^2 is half of that in ||T||.
TOLERANCE = {4: 1e-3, 8: 2e-10}


class BlockState(NamedTuple):
    """What one block did to a batch of sentences.

    Attributes:
      input: X, [B T D].
      attn: A_h, [B N T S].
      pre_attn: U, [B T D].
      std_attn: std of the rows of U, [B T 1].
      std_mlp: std of the rows of Z, [B T 1].
      mask: True on real tokens, [B T].
      mixing_rate: sqrt(lambda_h) = ||J A_h||, [B N].
    """

    input: Float[Array, "B T D"]
    attn: Float[Array, "B N T S"]
    pre_attn: Float[Array, "B T D"]
    std_attn: Float[Array, "B T 1"]
    std_mlp: Float[Array, "B T 1"]
    mask: Bool[Array, "B T"]
    mixing_rate: Float[Array, "B N"]


def actual_rate(
    before: Float[Array, "B T D"], after: Float[Array, "B T D"], mask: Bool[Array, "B T"]
) -> Float[Array, "B"]:
    """d_M(H') / d_M(X): the contraction that took place; below 1 tokens came closer, NaN from consensus.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[[1.0], [-1.0]]])
    >>> actual_rate(x, x / 2, jnp.ones((1, 2), bool))
    Array([0.5], dtype=float32)
    """
    return subspace_distance(after, mask) / subspace_distance(before, mask)


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
    s = jnp.maximum(jnp.max(norms.heads), jnp.maximum(jnp.max(norms.up), jnp.max(norms.down)))
    mixing = jnp.max(mixing_rates, axis=(0, 2))[None]
    gains = (norms.gain_attn * norms.gain_mlp)[:, None]
    attention = 1 + mixing * mixing_rates.shape[-1] * s
    return (1 + LIPSCHITZ[activation] * s * s) * attention * gains / std_products


def contraction_threshold(norms: BlockNorms, state: BlockState) -> Float[Array, "B"]:
    """What sigma_1 sigma_2 must exceed for L1 to promise contraction.

    (1 + L ||W_1|| ||W_2||)(1 + sum_h sqrt(lambda_h) ||W_h||) G_1 G_2, after Shi et al. (2022), Theorem 2.
    """
    mixed = 1 + jnp.sum(state.mixing_rate * norms.heads[None], axis=-1)
    return norms.mlp_lipschitz * mixed * norms.gain_attn * norms.gain_mlp


def block_rate(norms: BlockNorms, state: BlockState) -> Float[Array, "B"]:
    """L1: Shi et al.'s rate with every constant the block's own, `contraction_threshold` / `std_product`."""
    return contraction_threshold(norms, state) / std_product(state)


def refined_rate(norms: BlockNorms, state: BlockState) -> Float[Array, "B"]:
    """L2: a f G_2 / sqrt(product of the two smallest stds at each LayerNorm).

    a is the least of three bounds of attention with its residual, f that of gain and MLP (`BlockNorms.mlp`);
    two smallest stds instead of the smallest twice, because every pair of tokens meets two stds.
    """
    smallest = _two_smallest(state.std_attn, state.mask) * _two_smallest(state.std_mlp, state.mask)
    return attention_stretch(norms, state) * norms.mlp * norms.gain_mlp / jnp.sqrt(smallest)


def pairwise_rate(norms: BlockNorms, state: BlockState) -> Float[Array, "B"]:
    """L2b: as L2, with every pair of tokens weighted by its own stds: a f G_2 lambda_max(L_P)^(1/2).

    L_P = (1/n)[diag(P) sum(P) - P P^T] with P_i = 1 / (std_attn_i std_mlp_i).
    """
    weight = pair_weight(_precision(state)[..., 0], state.mask)
    return attention_stretch(norms, state) * norms.mlp * norms.gain_mlp * weight


def operator_rate(
    weights: BlockWeights, norms: BlockNorms, state: BlockState, *, tolerance: float | None = None
) -> tuple[Float[Array, "B"], Eigenvalue]:
    """L3: f G_2 ||T||, T(X) = L_P^(1/2) J (X + sum_h A_h X W_h) C, attention and both stds as ONE operator.

    ||T||^2 is the largest eigenvalue of T* T(X) = M*(L_P M(X)) with M(X) = (X + sum_h A_h X W_h) C, restricted
    to centred X: no root of L_P is needed, L_P J = L_P, and nothing larger than X is formed. Block Lanczos starts
    from two vectors (`source_token_starts`): a single one that happens to be nearly orthogonal to the largest
    eigenvector converges to the second, with a residual that looks as good.

    Args:
      weights: the block's parameters.
      norms: their norms.
      state: what the block did.
      tolerance: relative error of ||T||^2 at which Lanczos stops, see `largest_eigenvalues_of_queue`; by default
        1e-3 in float32, 2e-10 in float64.

    Returns:
      The rate, [B], and Lanczos's `Eigenvalue`: ||T|| is a lower estimate, so this rung is for measuring
      tightness; a certificate needs an upper bound of it.
    """
    count = jnp.maximum(jnp.sum(state.mask, axis=1), 1).astype(state.input.dtype)
    operators = _Operator(state.attn, _precision(state), state.mask, count)

    def apply(own: _Operator, x: Array) -> Array:
        weighted = _pair_laplacian(own.precision, own.tokens, mixing_operator(weights, own.attn, x))
        return centre_tokens(mixing_adjoint(weights, own.attn, weighted), own.mask)

    starts = _starts(weights, operators)
    found = largest_eigenvalues_of_queue(
        apply,
        operators,
        centre_tokens(starts, jnp.broadcast_to(state.mask[:, None], starts.shape[:-1])),
        tolerance=TOLERANCE[state.input.dtype.itemsize] if tolerance is None else tolerance,
        slots=max(1, TOKENS_AT_ONCE // state.mask.shape[1]),
    )
    return norms.mlp * norms.gain_mlp * jnp.sqrt(jnp.maximum(found.value, 0)), found


def data_rate(norms: BlockNorms, state: BlockState) -> Float[Array, "B"]:
    """L4: f G_2 [(1/n) sum_{i<j} P_i P_j ||C u_i - C u_j||^2]^(1/2) / d_M(X), at the data's own U."""
    centred = centre_features(state.pre_attn)
    # Subtracting the token mean changes no pair difference and keeps the cancellation small.
    centred = centre_tokens(centred, state.mask)
    count = jnp.maximum(jnp.sum(state.mask, axis=-1), 1)[:, None, None].astype(centred.dtype)
    spread = jnp.sum(centred * _pair_laplacian(_precision(state), count, centred), axis=(-2, -1))
    return norms.mlp * norms.gain_mlp * jnp.sqrt(jnp.maximum(spread, 0)) / subspace_distance(state.input, state.mask)


def pre_norm_rate(norms: BlockNorms, state: BlockState, activation: str) -> Float[Array, "B"]:
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
    by_head = jnp.sum(state.mixing_rate * norms.heads[None], axis=-1)
    attention = norms.gain_attn * by_head / jnp.sqrt(_two_smallest(state.std_attn, state.mask))
    slope = LIPSCHITZ[activation] * norms.gain_mlp * norms.up * norms.down
    return (1 + attention) * (1 + slope / jnp.sqrt(_two_smallest(state.std_mlp, state.mask)))


def std_product(state: BlockState) -> Float[Array, "B"]:
    """sigma_1 sigma_2 of the theorem: the least std over real tokens at one LayerNorm times that at the other."""
    real = state.mask[..., None]
    least = [jnp.min(jnp.where(real, std, jnp.inf), axis=(-2, -1)) for std in (state.std_attn, state.std_mlp)]
    return least[0] * least[1]


def attention_stretch(norms: BlockNorms, state: BlockState) -> Float[Array, "B"]:
    """a: how much X + sum_h A_h X W_h can stretch d_M; the least of three bounds.

    1 + sum_h sqrt(lambda_h) ||W_h||;  1 + max_h sqrt(lambda_h) ||W_V|| ||W_O||, without a factor of the number of
    heads;  1 + ||sum_h J A_h A_h^T J||^(1/2) ||sum_h W_h W_h^T||^(1/2), by Cauchy and Schwarz.
    """
    by_head = jnp.sum(state.mixing_rate * norms.heads[None], axis=-1)
    joint = jnp.max(state.mixing_rate, axis=-1) * norms.value * norms.output
    centred = centre_tokens(state.attn, jnp.broadcast_to(state.mask[:, None], state.attn.shape[:-1]))
    gram = jnp.einsum("bnts,bnus->btu", centred, centred)
    together = root_of_largest_eigenvalue(gram) * norms.stacked
    return 1 + jnp.minimum(by_head, jnp.minimum(joint, together))


def _precision(state: BlockState) -> Array:
    """P_i = 1 / (std_attn_i std_mlp_i), zero on padding, [B T 1]."""
    return jnp.where(state.mask[..., None], 1 / (state.std_attn * state.std_mlp), 0)


def _pair_laplacian(precision: Array, count: Array, x: Array) -> Array:
    """L_P x along the token axis: (1/n)[P sum(P) x - P (P^T x)]; <x, L_P x> = (1/n) sum_{i<j} P_i P_j |x_i - x_j|^2."""
    total = jnp.sum(precision, axis=-2, keepdims=True)
    return precision * (total * x - jnp.sum(precision * x, axis=-2, keepdims=True)) / count


class _Operator(NamedTuple):
    """What T knows of the sentences: A_h, [B N T S]; P, [B T 1]; mask, [B T]; numbers of real tokens, [B]."""

    attn: Array
    precision: Array
    mask: Array
    tokens: Array


def _starts(weights: BlockWeights, operators: _Operator) -> Array:
    attn, precision, _, count = operators
    others = jnp.sum(precision, axis=1, keepdims=True) - precision
    weighted = _pair_laplacian(precision[:, None], count[:, None, None, None], attn)
    return source_token_starts(weights, attn, weighted, (precision * others)[..., 0] / count[:, None])


def mixing_operator(weights: BlockWeights, attn: Float[Array, "N T S"], x: Float[Array, "S D"]) -> Float[Array, "T D"]:
    """(X + sum_h A_h X W_h) C of one sentence: what the attention sub-layer makes of X, centred as LayerNorm does."""
    mixed = jnp.einsum("nts,snh->tnh", attn, jnp.einsum("sd,dnh->snh", x, weights.value))
    return centre_features(x + jnp.einsum("tnh,nhd->td", mixed, weights.output))


def mixing_adjoint(weights: BlockWeights, attn: Float[Array, "N T S"], y: Float[Array, "T D"]) -> Float[Array, "S D"]:
    """The adjoint of `mixing_operator` in the Frobenius inner product: Y C + sum_h A_h^T (Y C) W_h^T."""
    y = centre_features(y)
    mixed = jnp.einsum("nts,tnh->snh", attn, jnp.einsum("td,nhd->tnh", y, weights.output))
    return y + jnp.einsum("snh,dnh->sd", mixed, weights.value)


def _two_smallest(std: Array, mask: Array) -> Array:
    """Product of the two smallest stds over real tokens; with one real token, its square."""
    real = jnp.where(mask, std[..., 0], jnp.inf)
    least = jnp.sort(real, axis=-1)[:, :2]
    return least[:, 0] * jnp.where(jnp.isfinite(least[:, 1]), least[:, 1], least[:, 0])
