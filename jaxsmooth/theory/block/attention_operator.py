"""The attention sub-layer of a block as one linear operator, and the norm that L3 needs of it."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ...linalg.block_lanczos import largest_eigenvalues_of_queue
from ...linalg.lanczos import Eigenvalue
from ...linalg.precision import einsum
from ...types import Block
from ..consensus import centre_features, centre_tokens
from .ladder_starts import source_token_starts
from .plain_calculus import pair_laplacian

# Twice as many vectors: enough rows for fast products, few enough for their bases to stay in cache.
TOKENS_AT_ONCE = 128

# By bytes of the dtype: the relative error of ||T||^2 to stop at. 1e-3 in ||T||^2 is half of that in ||T||.
TOLERANCE = {4: 1e-3, 8: 2e-10}


def mixing_operator(block: Block, attn: Float[Array, "N T S"], x: Float[Array, "S D"]) -> Float[Array, "T D"]:
    """(X + sum_h A_h X W_h) C of one sentence: what the attention sub-layer makes of X, centred as LayerNorm does."""
    mixed = einsum("nts,snh->tnh", attn, einsum("sd,dnh->snh", x, block.attn.value.kernel))
    return centre_features(x + einsum("tnh,nhd->td", mixed, block.attn.output.kernel))


def mixing_adjoint(block: Block, attn: Float[Array, "N T S"], y: Float[Array, "T D"]) -> Float[Array, "S D"]:
    """The adjoint of `mixing_operator` in the Frobenius inner product: Y C + sum_h A_h^T (Y C) W_h^T."""
    y = centre_features(y)
    mixed = einsum("nts,tnh->snh", attn, einsum("td,nhd->tnh", y, block.attn.output.kernel))
    return y + einsum("snh,dnh->sd", mixed, block.attn.value.kernel)


def squared_operator_norm(
    block: Block,
    attn: Float[Array, "B N T S"],
    precision: Float[Array, "B T 1"],
    mask: Bool[Array, "B T"],
    tolerance: float | None = None,
) -> Eigenvalue:
    """||T||^2, T(X) = L_P^(1/2) J (X + sum_h A_h X W_h) C, attention and both stds as ONE operator.

    It is the largest eigenvalue of T* T(X) = M*(L_P M(X)) with M(X) = (X + sum_h A_h X W_h) C, restricted
    to centred X: no root of L_P is needed, L_P J = L_P, and nothing larger than X is formed. Block Lanczos starts
    from two vectors (`source_token_starts`): a single one that happens to be nearly orthogonal to the largest
    eigenvector converges to the second, with a residual that looks as good.

    Args:
      block: the parameters.
      attn: A_h, [B N T S].
      precision: P, zero on padding, [B T 1].
      mask: True on real tokens, [B T].
      tolerance: relative error at which Lanczos stops, see `largest_eigenvalues_of_queue`; by default 1e-3 in
        float32, 2e-10 in float64.

    Returns:
      Lanczos's `Eigenvalue`, [B], a lower estimate.
    """
    count = jnp.maximum(jnp.sum(mask, axis=1), 1).astype(attn.dtype)
    operators = _Operator(attn, precision, mask, count)

    def apply(own: _Operator, x: Array) -> Array:
        weighted = pair_laplacian(own.precision, own.tokens, mixing_operator(block, own.attn, x))
        return centre_tokens(mixing_adjoint(block, own.attn, weighted), own.mask)

    starts = _starts(block, operators)
    return largest_eigenvalues_of_queue(
        apply,
        operators,
        centre_tokens(starts, jnp.broadcast_to(mask[:, None], starts.shape[:-1])),
        tolerance=TOLERANCE[attn.dtype.itemsize] if tolerance is None else tolerance,
        slots=max(1, TOKENS_AT_ONCE // mask.shape[1]),
    )


class _Operator(NamedTuple):
    """What T knows of the sentences: A_h, [B N T S]; P, [B T 1]; mask, [B T]; numbers of real tokens, [B]."""

    attn: Array
    precision: Array
    mask: Array
    tokens: Array


def _starts(block: Block, operators: _Operator) -> Array:
    attn, precision, _, count = operators
    others = jnp.sum(precision, axis=1, keepdims=True) - precision
    weighted = pair_laplacian(precision[:, None], count[:, None, None, None], attn)
    return source_token_starts(block, attn, weighted, (precision * others)[..., 0] / count[:, None])
