"""Lemma 1 for other subspaces than consensus: spans of patterns over tokens, such as ker(I - A).

Attention with several closed classes (padding, blocks, windows that do not communicate) does not lead to consensus
but to ker(I - A), spanned by the absorption probabilities of its classes; symmetric normalisation leads to
span(D^(1/2) 1). For the distance d to such a span (`subspace.span_distance`) the linear parts of the lemma stay
as they are; the activation does not.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ...linalg.lanczos import root_of_largest_eigenvalue, spectral_norm
from ...linalg.precision import at_least_float32, einsum, matmul
from ..consensus import orthonormal_basis, project_away, span_distance
from ..statement import Statement
from .lemmas import ROUNDING, stretched_at_most


@at_least_float32
def invariant_linear(
    hidden: Float[Array, "*B T D"],
    weight: Float[Array, "D E"],
    patterns: Float[Array, "*B T K"],
    mask: Bool[Array, "*B T"],
) -> Statement:
    """Lemma 1(1) for any span: d(H W) <= ||W|| d(H).

    Args:
      hidden: H, [..., T, D].
      weight: W, [D, E].
      patterns: a basis of the span, [..., T, K].
      mask: True on real tokens, [..., T].

    Returns:
      A `Statement` of shape [...], always applicable.

    >>> import jax.numpy as jnp
    >>> h, real = jnp.array([[1.0], [3.0]]), jnp.ones(2, bool)
    >>> found = invariant_linear(h, 2 * jnp.ones((1, 1)), jnp.array([[1.0], [2.0]]), real)
    >>> round(float(found.lhs), 4) == round(float(found.rhs), 4)
    True
    """
    lhs = span_distance(matmul(hidden, weight), patterns, mask)
    rhs = spectral_norm(weight) * span_distance(hidden, patterns, mask)
    return Statement(lhs, rhs, jnp.ones(lhs.shape, bool))


@at_least_float32
def invariant_sum(
    hidden: Float[Array, "*B T D"],
    other: Float[Array, "*B T D"],
    alpha: Float[Array, ""],
    beta: Float[Array, ""],
    patterns: Float[Array, "*B T K"],
    mask: Bool[Array, "*B T"],
) -> Statement:
    """Lemma 1(3) for any span: d(alpha H + beta B) <= |alpha| d(H) + |beta| d(B).

    Args:
      hidden: H, [..., T, D].
      other: B, [..., T, D].
      alpha: factor of H.
      beta: factor of B.
      patterns: a basis of the span, [..., T, K].
      mask: True on real tokens, [..., T].

    Returns:
      A `Statement` of shape [...], always applicable.

    >>> import jax.numpy as jnp
    >>> h, one = jnp.array([[1.0], [3.0]]), jnp.array(1.0)
    >>> found = invariant_sum(h, -h, one, -one, jnp.array([[1.0], [2.0]]), jnp.ones(2, bool))
    >>> round(float(found.lhs), 4) == round(float(found.rhs), 4)
    True
    """
    lhs = span_distance(alpha * hidden + beta * other, patterns, mask)
    rhs = jnp.abs(alpha) * span_distance(hidden, patterns, mask) + jnp.abs(beta) * span_distance(other, patterns, mask)
    return Statement(lhs, rhs, jnp.ones(lhs.shape, bool))


@at_least_float32
def invariant_mixing(
    attn: Float[Array, "*B T S"],
    hidden: Float[Array, "*B T D"],
    patterns: Float[Array, "*B T K"],
    mask: Bool[Array, "*B T"],
) -> Statement:
    """Lemma 1(4) for a span that A maps into itself: d(A H) <= ||(I - Pi) A (I - Pi)|| d(H).

    (I - Pi) A Pi = 0 is what invariance says, so (I - Pi) A = (I - Pi) A (I - Pi). ker(I - A) is such a span, and
    D^(1/2) 1 for A the symmetric normalisation.

    Args:
      attn: A, vanishing on padded keys, [..., T, S].
      hidden: H, [..., T, D].
      patterns: a basis of the span, [..., T, K].
      mask: True on real tokens, [..., T].

    Returns:
      A `Statement` of shape [...], applicable where A maps the span into itself up to rounding, and padded keys
      have weight 0.

    >>> import jax.numpy as jnp
    >>> blocks = jnp.array([[0.5, 0.5, 0.0], [0.2, 0.8, 0.0], [0.0, 0.0, 1.0]])
    >>> classes = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> found = invariant_mixing(blocks, jnp.array([[1.0], [-1.0], [7.0]]), classes, jnp.ones(3, bool))
    >>> bool(found.applicable), round(float(found.lhs), 4), round(float(found.rhs), 4)
    (True, 0.4243, 0.4243)

    References: after Shi et al. (2022), arXiv 2202.08625, Lemma 1.
    """
    real = mask[..., None].astype(hidden.dtype)
    lhs = span_distance(matmul(attn, hidden * real), patterns, mask)
    # (I - Pi) A (I - Pi) = (I - Pi) (A^T projected away by columns)^T
    restricted = project_away(
        jnp.swapaxes(project_away(jnp.swapaxes(attn, -1, -2), patterns, mask), -1, -2), patterns, mask
    )
    gram = einsum("...ts,...us->...tu", restricted, restricted)
    rhs = root_of_largest_eigenvalue(gram) * span_distance(hidden, patterns, mask)
    return Statement(lhs, rhs, _maps_into_itself(attn, patterns, mask))


@at_least_float32
def invariant_activation(
    before: Float[Array, "*B T D"],
    after: Float[Array, "*B T D"],
    lipschitz: float,
    patterns: Float[Array, "*B T K"],
    mask: Bool[Array, "*B T"],
) -> Statement:
    """Lemma 1(2) for a span of indicators: d(phi(H)) <= L d(H) if the span says "equal within each group".

    Then d^2 is a sum over the groups of their own d_M^2. Among the spans that contain 1, such as every ker(I - A),
    no other will do, not even for ReLU: a subspace with 1 in it that ReLU maps into itself is closed under maxima,
    and those have a basis of indicators. With transient tokens ker(I - A) is not of this kind.

    Args:
      before: H, [..., T, D].
      after: phi(H), [..., T, D].
      lipschitz: L, the largest absolute slope of phi.
      patterns: a basis of the span, [..., T, K].
      mask: True on real tokens, [..., T].

    Returns:
      A `Statement` of shape [...], applicable where the span has a basis of indicators of groups that cover the
      real tokens, and no feature of no two tokens is stretched by more than L.

    >>> import jax.numpy as jnp
    >>> absorbed = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])  # token 2 is transient
    >>> h = jnp.array([[1.0], [-1.0], [0.0]])
    >>> found = invariant_activation(h, jnp.maximum(h, 0), 1.0, absorbed, jnp.ones(3, bool))
    >>> bool(found.applicable), round(float(found.lhs), 3), round(float(found.rhs), 3)
    (False, 0.408, 0.0)
    """
    lhs, rhs = span_distance(after, patterns, mask), lipschitz * span_distance(before, patterns, mask)
    return Statement(
        lhs, rhs, spanned_by_indicators(patterns, mask) & stretched_at_most(before, after, lipschitz, mask)
    )


@at_least_float32
def spanned_by_indicators(patterns: Float[Array, "*B T K"], mask: Bool[Array, "*B T"]) -> Bool[Array, "*B"]:
    """Whether the span consists of the patterns that are constant on each group of some partition of the real tokens.

    Read off the projector, whatever the basis: it averages over groups if and only if it is non-negative with row
    sums 1, as idempotent doubly stochastic matrices do nothing else.

    >>> import jax.numpy as jnp
    >>> rotated = jnp.array([[1.0, 1.0], [1.0, 1.0], [1.0, -3.0]])
    >>> bool(spanned_by_indicators(rotated, jnp.ones(3, bool)))
    True
    """
    frame = orthonormal_basis(patterns, mask)
    projector = einsum("...tk,...sk->...ts", frame, frame)
    slack = ROUNDING * patterns.shape[-2] * jnp.finfo(patterns.dtype).eps
    covered = jnp.abs(jnp.sum(projector, axis=-1) - mask.astype(projector.dtype)) <= slack
    return jnp.all(covered, axis=-1) & jnp.all(projector >= -slack, axis=(-2, -1))


def _maps_into_itself(attn: Array, patterns: Array, mask: Array) -> Array:
    frame = orthonormal_basis(patterns, mask)
    moved = jnp.max(jnp.abs(project_away(matmul(attn, frame), patterns, mask)), axis=(-2, -1))
    size = jnp.max(jnp.sum(jnp.abs(attn) * mask[..., None].astype(attn.dtype), axis=-1), axis=-1)
    leak = jnp.any((attn != 0) & mask[..., :, None] & ~mask[..., None, :], axis=(-2, -1))
    slack = ROUNDING * attn.shape[-1] * jnp.finfo(attn.dtype).eps
    return (moved <= slack * size) & ~leak
