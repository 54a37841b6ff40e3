"""Attention with normalisation as the power method: tokens turn towards one eigenvector of F = W_V W_O.

Rows are tokens, so x -> x F: an invariant direction is a LEFT eigenvector, v F = mu v. Proofs: docs/catalogue.md.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ...linalg.norms import norm, quotient, unit_vectors, within
from ...linalg.precision import at_least_float32, matmul
from ..consensus import real_tokens, token_mean


@at_least_float32
def li2026_step(
    hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"], weight: Float[Array, "*B D D"]
) -> Float[Array, "*B T D"]:
    """N(X + (1 1^T / n) X F): uniform attention, residual, every token back to norm 1.

    Args:
      hidden: X, [..., T, D].
      mask: True on real tokens, [..., T].
      weight: F, [..., D, D].

    Returns:
      [..., T, D], unit rows.

    >>> import jax.numpy as jnp
    >>> li2026_step(jnp.eye(2), jnp.ones(2, bool), 2 * jnp.eye(2)).round(4)
    Array([[0.8944, 0.4472],
           [0.4472, 0.8944]], dtype=float32)

    References: after Li and Altafini (2026), arXiv 2605.25619: full attention, shared weights, no MLP.
    """
    moved = hidden + matmul(token_mean(hidden, mask), weight)
    return unit_vectors(moved)


@at_least_float32
def li2026_tangent(
    hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"], direction: Float[Array, "*B D"]
) -> Float[Array, "*B"]:
    """Tangent of the angle between the mean token and a direction.

    Under `li2026_step` with symmetric F of top eigenvector `direction` its ratio from step to step tends to
    `li2026_rate`.

    Args:
      hidden: X, [..., T, D].
      mask: True on real tokens, [..., T].
      direction: a unit vector, [..., D].

    Returns:
      [...]; infinite where the mean is orthogonal to it.

    >>> import jax.numpy as jnp
    >>> li2026_tangent(jnp.array([[3.0, 4.0]]), jnp.ones(1, bool), jnp.array([0.0, 1.0]))
    Array(0.75, dtype=float32)
    """
    mean = token_mean(hidden, mask)[..., 0, :]
    along = jnp.sum(mean * direction, axis=-1, keepdims=True)
    return quotient(norm(mean - along * direction), jnp.abs(along[..., 0]), jnp.inf)


@at_least_float32
def li2026_rate(eigenvalues: Float[Array, "*B D"]) -> Float[Array, "*B"]:
    """(1 + mu_2) / (1 + mu_1): factor per layer of the tangent to the top eigenvector, for symmetric F.

    The tokens agree after a while, x_i = x, and then x <- N(x (I + F)) is the power method on I + F. With a true
    LayerNorm in place of N, the eigenvalues are those of C (I + F) C instead, see `li2026_layer_norm_matrix`.

    Args:
      eigenvalues: mu of F, any order, [..., D].

    Returns:
      [...], 0 of a single feature; NaN unless 1 + mu_1 is positive and exceeds every other |1 + mu_j|, and mu_1 > 0,
      without which tokens need not agree.

    >>> import jax.numpy as jnp
    >>> li2026_rate(jnp.array([0.5, 1.0, 0.0]))
    Array(0.75, dtype=float32)

    References: after Li and Altafini (2026), arXiv 2605.25619; proof in docs/catalogue.md.
    """
    ordered = jnp.sort(eigenvalues, axis=-1)
    top = 1 + ordered[..., -1]
    rest = jnp.max(jnp.abs(1 + ordered[..., :-1]), axis=-1, initial=0)
    return jnp.where((ordered[..., -1] > 0) & (rest < top), rest / top, jnp.nan)


@at_least_float32
def li2026_layer_norm_matrix(weight: Float[Array, "*B D D"]) -> Float[Array, "*B D D"]:
    """C (I + F) C, C the centring of features: what consensus under LayerNorm iterates.

    Args:
      weight: F, [..., D, D].

    Returns:
      [..., D, D].

    >>> import jax.numpy as jnp
    >>> li2026_layer_norm_matrix(jnp.zeros((2, 2)))
    Array([[ 0.5, -0.5],
           [-0.5,  0.5]], dtype=float32)

    References: docs/catalogue.md.
    """
    eye = jnp.broadcast_to(jnp.eye(weight.shape[-1], dtype=weight.dtype), weight.shape)
    centred = eye + weight
    centred = centred - jnp.mean(centred, axis=-1, keepdims=True)
    return centred - jnp.mean(centred, axis=-2, keepdims=True)


@at_least_float32
def li2026_alignment(
    hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"], direction: Float[Array, "*B D"]
) -> Float[Array, "*B"]:
    """Mean over real tokens of |cos(x_i, v)|: 1 when all lie on the line of v, about sqrt(2 / (pi D)) by chance.

    Args:
      hidden: X, [..., T, D].
      mask: True on real tokens, [..., T].
      direction: v, any non-zero length, [..., D].

    Returns:
      [...], in [0, 1]; a zero token counts as 0.

    >>> import jax.numpy as jnp
    >>> li2026_alignment(jnp.array([[2.0, 0.0], [0.0, 3.0]]), jnp.ones(2, bool), jnp.array([1.0, 0.0]))
    Array(0.5, dtype=float32)

    References: after Li and Altafini (2026), arXiv 2605.25619 (projection of tokens on the principal eigenvector).
    """
    unit = unit_vectors(real_tokens(hidden, mask))
    along = jnp.abs(jnp.sum(unit * unit_vectors(direction)[..., None, :], axis=-1))
    count = jnp.maximum(jnp.sum(mask, axis=-1), 1).astype(hidden.dtype)
    return within(jnp.sum(along, axis=-1) / count, 0, 1)


@at_least_float32
def li2026_steered_weight(
    weight: Float[Array, "*B D D"], direction: Float[Array, "*B D"], eigenvalue: Float[Array, "*B"]
) -> Float[Array, "*B D D"]:
    """F with `direction` made an eigenvector: (I - v v^T) F (I - v v^T) + mu v v^T, v of norm 1.

    v F' = mu v and F' v^T = mu v^T exactly, and the rest of F acts on v's complement only; v is the principal
    eigenvector once mu exceeds ||F||. Symmetric F stays symmetric.

    Args:
      weight: F, [..., D, D].
      direction: v, any non-zero length, [..., D].
      eigenvalue: mu, [...].

    Returns:
      [..., D, D].

    >>> import jax.numpy as jnp
    >>> li2026_steered_weight(jnp.ones((2, 2)), jnp.array([1.0, 0.0]), jnp.array(5.0))
    Array([[5., 0.],
           [0., 1.]], dtype=float32)

    References: after Li and Altafini (2026), arXiv 2605.25619 (steering); this form is ours.
    """
    unit = unit_vectors(direction)
    outer = unit[..., :, None] * unit[..., None, :]
    rest = jnp.broadcast_to(jnp.eye(weight.shape[-1], dtype=weight.dtype), weight.shape) - outer
    return matmul(matmul(rest, weight), rest) + eigenvalue[..., None, None] * outer
