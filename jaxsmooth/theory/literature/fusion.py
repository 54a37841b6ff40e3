"""Fusion of an encoder's layers: bounds of the distance to consensus, and which fusion can leave the subspace.

Shi et al. (2022) propose to fuse the outputs H_1, ..., H_L of all layers against over-smoothing. Two of their three
fusions cannot be further from consensus than the layers together are; only gates can.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ...linalg.lanczos import spectral_norm
from ...linalg.norms import norm
from ...linalg.precision import at_least_float32, einsum
from ..consensus import subspace_distance, token_mean
from ..statement import Statement


@at_least_float32
def fusion_concat(
    hidden: Float[Array, "L *B T D"], weight: Float[Array, "L D E"], mask: Bool[Array, "*B T"]
) -> Statement:
    """Concatenation fuses to sum_l H_l W_l with d_M <= ||W|| S, S = (sum_l d_M(H_l)^2)^(1/2), W all W_l stacked.

    Layers that all lie in M fuse to a state in M.

    Args:
      hidden: H_l of every layer, [L, ..., T, D].
      weight: W_l, [L, D, E].
      mask: True on real tokens, [..., T].

    Returns:
      A `Statement` of shape [...], always applicable.

    >>> import jax.numpy as jnp
    >>> layers = jnp.array([[[3.0], [-3.0]], [[4.0], [-4.0]]])
    >>> found = fusion_concat(layers, jnp.array([[[3.0]], [[4.0]]]), jnp.ones(2, bool))
    >>> round(float(found.lhs), 3) == round(float(found.rhs), 3)
    True

    References: the fusion after Shi et al. (2022), arXiv 2202.08625; the bound in docs/lemmas.md.
    """
    lhs = subspace_distance(einsum("l...td,lde->...te", hidden, weight), mask)
    rhs = spectral_norm(weight.reshape(-1, weight.shape[-1])) * layers_distance(hidden, mask)
    return Statement(lhs, rhs, jnp.ones(lhs.shape, bool))


@at_least_float32
def fusion_max(hidden: Float[Array, "L *B T D"], mask: Bool[Array, "*B T"]) -> Statement:
    """The elementwise maximum over layers has d_M <= S, S = (sum_l d_M(H_l)^2)^(1/2).

    For two tokens, |max_l a_l - max_l b_l| <= max_l |a_l - b_l|, entry by entry. Layers that all lie in M fuse to a
    state in M.

    Args:
      hidden: H_l of every layer, [L, ..., T, D].
      mask: True on real tokens, [..., T].

    Returns:
      A `Statement` of shape [...], always applicable.

    >>> import jax.numpy as jnp
    >>> found = fusion_max(jnp.array([[[3.0, -9.0], [-3.0, -9.0]], [[-9.0, 4.0], [-9.0, -4.0]]]), jnp.ones(2, bool))
    >>> round(float(found.lhs), 4), round(float(found.rhs), 4)
    (7.0711, 7.0711)

    References: the fusion after Shi et al. (2022), arXiv 2202.08625; the bound in docs/lemmas.md.
    """
    lhs = subspace_distance(jnp.max(hidden, axis=0), mask)
    return Statement(lhs, layers_distance(hidden, mask), jnp.ones(lhs.shape, bool))


@at_least_float32
def fusion_gate(
    hidden: Float[Array, "L *B T D"], gates: Float[Array, "L *B T"], mask: Bool[Array, "*B T"]
) -> Statement:
    """Token-wise gates: d_M(sum_l diag(g_l) H_l) <= sum_l max|g_l| d_M(H_l) + ||J sum_l g_l m_l^T||, m_l = mean of H_l.

    The second term lets the state leave M, which no other fusion can: gates that differ between tokens separate
    tokens that every layer has made equal. It is exact when all layers lie in M; the output then has rank at most L.

    Args:
      hidden: H_l of every layer, [L, ..., T, D].
      gates: g_l of every layer and token, of any sign and sum, [L, ..., T].
      mask: True on real tokens, [..., T].

    Returns:
      A `Statement` of shape [...], always applicable.

    >>> import jax.numpy as jnp
    >>> consensus = jnp.stack([jnp.full((3, 1), 1.0), jnp.full((3, 1), 2.0)])
    >>> gate = jnp.array([0.1, 0.5, 0.9])
    >>> found = fusion_gate(consensus, jnp.stack([gate, 1 - gate]), jnp.ones(3, bool))
    >>> round(float(found.lhs), 3), round(float(found.rhs), 3)
    (0.566, 0.566)

    References: the fusion after Shi et al. (2022), arXiv 2202.08625; the bound in docs/lemmas.md.
    """
    lhs = subspace_distance(jnp.sum(gates[..., None] * hidden, axis=0), mask)
    real = jnp.broadcast_to(mask, gates.shape)
    largest = jnp.max(jnp.abs(jnp.where(real, gates, 0)), axis=-1)
    kept = jnp.sum(largest * _distances(hidden, mask), axis=0)
    middle = token_mean(hidden, jnp.broadcast_to(mask, hidden.shape[:-1]))
    away = subspace_distance(jnp.sum(gates[..., None] * middle, axis=0), mask)
    return Statement(lhs, kept + away, jnp.ones(lhs.shape, bool))


@at_least_float32
def layers_distance(hidden: Float[Array, "L *B T D"], mask: Bool[Array, "*B T"]) -> Float[Array, "*B"]:
    """S = (sum_l d_M(H_l)^2)^(1/2): the distance to consensus of all layers together.

    >>> import jax.numpy as jnp
    >>> round(float(layers_distance(jnp.array([[[3.0], [-3.0]], [[4.0], [-4.0]]]), jnp.ones(2, bool))), 4)
    7.0711
    """
    return norm(_distances(hidden, mask), 0)


def _distances(hidden: Array, mask: Array) -> Array:
    return subspace_distance(hidden, jnp.broadcast_to(mask, hidden.shape[:-1]))
