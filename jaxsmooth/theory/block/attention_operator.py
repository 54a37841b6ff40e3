"""The attention sub-layer of a block as one linear operator, and the norm that L3 needs of it."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ...linalg.block_lanczos import largest_eigenvalues_of_queue
from ...linalg.lanczos import Eigenvalue, largest_eigenvector
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
      Lanczos's `Eigenvalue`, [B], a lower estimate. The value's derivative is that of ||T(x)||^2 at its unit
      eigenvector x, which is held and takes a search of its own; of a repeated eigenvalue, that of the x found.
    """
    count = jnp.maximum(jnp.sum(mask, axis=1), 1).astype(attn.dtype)
    tolerance = TOLERANCE[attn.dtype.itemsize] if tolerance is None else tolerance
    value, residual, steps = _squared_norm(tolerance, block, _Operator(attn, precision, mask, count))
    return Eigenvalue(value, residual, steps.astype(jnp.int32))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _squared_norm(tolerance: float, block: Block, operators: "_Operator") -> tuple[Array, Array, Array]:
    """Value, residual, and the steps as a floating-point number: an integer has no tangent."""
    found = largest_eigenvalues_of_queue(
        functools.partial(_apply, block),
        operators,
        _starts(block, operators),
        tolerance=tolerance,
        slots=max(1, TOKENS_AT_ONCE // operators.mask.shape[1]),
    )
    return found.value, found.residual, found.steps.astype(found.value.dtype)


@_squared_norm.defjvp
def _squared_norm_tangent(
    tolerance: float, primals: tuple[Block, "_Operator"], tangents: tuple[Any, Any]
) -> tuple[tuple[Array, Array, Array], tuple[Array, Array, Array]]:
    block, operators = jax.lax.stop_gradient(primals)
    value, residual, steps = _squared_norm(tolerance, block, operators)

    def vector(one: tuple[_Operator, Array]) -> Array:
        own, pair = one
        return largest_eigenvector(lambda v: _apply(block, own, v), jnp.sum(pair, axis=0), tolerance=tolerance)

    vectors = jax.lax.map(vector, (operators, _starts(block, operators)))

    def form(block: Block, attn: Array, precision: Array) -> Array:
        own = operators._replace(attn=attn, precision=precision)
        images = jax.vmap(functools.partial(_apply, block))(own, vectors)
        return jnp.sum(vectors * images, axis=(1, 2))

    changed = tangents[0], tangents[1].attn, tangents[1].precision
    _, change = jax.jvp(form, (block, operators.attn, operators.precision), changed)
    nothing = jnp.zeros_like(value)
    return (value, residual, steps), (change, nothing, nothing)


def _apply(block: Block, own: "_Operator", x: Array) -> Array:
    """T* T(x), of one sentence."""
    weighted = pair_laplacian(own.precision, own.tokens, mixing_operator(block, own.attn, x))
    return centre_tokens(mixing_adjoint(block, own.attn, weighted), own.mask)


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
    starts = source_token_starts(block, attn, weighted, (precision * others)[..., 0] / count[:, None])
    return centre_tokens(starts, jnp.broadcast_to(operators.mask[:, None], starts.shape[:-1]))
