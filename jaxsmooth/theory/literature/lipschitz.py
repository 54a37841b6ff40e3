"""Lipschitz constants of attention: none on all inputs, of the order of sqrt(n) on bounded ones."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ...errors import arguments_checked
from ...linalg.lanczos import default_tolerance, largest_eigenvalue, spectral_norm, start_vector
from ...linalg.norms import norm
from ...linalg.precision import at_least_float32, matmul
from ...linalg.rows import masked_softmax
from ..statement import Statement


def dot_product_attention(
    hidden: Float[Array, "T D"], mask: Bool[Array, " T"], interaction: Float[Array, "D D"], value: Float[Array, "D E"]
) -> Float[Array, "T E"]:
    """softmax(X B X^T) X V of one sentence, B with the factor 1 / sqrt(d) inside; zero on padding.

    Args:
      hidden: X, [T, D].
      mask: True on real tokens, [T].
      interaction: B = W_Q W_K^T / sqrt(d), [D, D].
      value: V, [D, E].

    Returns:
      [T, E].

    >>> import jax.numpy as jnp
    >>> dot_product_attention(jnp.array([[1.0], [3.0]]), jnp.ones(2, bool), jnp.zeros((1, 1)), jnp.eye(1)).ravel()
    Array([2., 2.], dtype=float32)
    """
    real = mask[:, None].astype(hidden.dtype)
    clean = hidden * real
    return matmul(matmul(masked_softmax(matmul(matmul(clean, interaction), clean.T), mask[None]), clean), value) * real


@arguments_checked
def kim2021_witness(radius: float) -> Float[Array, "T D"]:
    """Three tokens 0, R, -R of one feature, at which dot-product attention has a slope of 1/3 + 2 R^2 / 3.

    With B = V = 1 the first output, 0, has derivative 1/n + Var under uniform attention in its own token: unbounded in
    R, so dot-product self-attention has no Lipschitz constant on R^d.

    Args:
      radius: R.

    Returns:
      [3, 1], in jax's default precision.

    >>> import jax, jax.numpy as jnp
    >>> attention = lambda x: dot_product_attention(x, jnp.ones(3, bool), jnp.eye(1), jnp.eye(1))
    >>> round(float(jax.jacobian(attention)(kim2021_witness(3.0))[0, 0, 0, 0]), 4)
    6.3333

    References: after Kim, Papamakarios and Mnih (2021), arXiv 2006.04710.
    """
    return jnp.array([[0.0], [radius], [-radius]])


@at_least_float32
def castin2024_bound(
    value_norm: Float[Array, "*B"],
    interaction_norm: Float[Array, "*B"],
    radius: Float[Array, "*B"],
    tokens: Float[Array, "*B"],
) -> Float[Array, "*B"]:
    """sqrt(3) ||V|| sqrt(||B||^2 R^4 (4 n + 1) + n): attention's Lipschitz constant on n tokens of norm at most R.

    The growth with sqrt(n) is attained; the constant is not claimed to be.

    Args:
      value_norm: ||V||, [...].
      interaction_norm: ||B||, B with the factor 1 / sqrt(d) inside, [...].
      radius: R, [...].
      tokens: n, [...].

    Returns:
      [...].

    >>> import jax.numpy as jnp
    >>> castin2024_bound(jnp.array([1.0]), jnp.array([0.0]), jnp.array([1.0]), jnp.array([3.0]))
    Array([3.], dtype=float32)

    References: after Castin, Ablin and Peyré (2024), arXiv 2312.14820.
    """
    square = (interaction_norm * radius * radius) ** 2
    return math.sqrt(3) * value_norm * jnp.sqrt(square * (4 * tokens + 1) + tokens)


@at_least_float32
def castin2024_local_lipschitz(
    hidden: Float[Array, "T D"], mask: Bool[Array, " T"], interaction: Float[Array, "D D"], value: Float[Array, "D E"]
) -> Statement:
    """Norm of attention's Jacobian at X against `castin2024_bound` with R = max ||x_i||. One sentence; batch by vmap.

    Args:
      hidden: X, [T, D].
      mask: True on real tokens, [T].
      interaction: B = W_Q W_K^T / sqrt(d), [D, D].
      value: V, [D, E].

    Returns:
      A scalar `Statement`; the left-hand side by Lanczos on the Jacobian, which is applied and never formed. Applicable
      where a token is real, and scores and Jacobian are numbers of the dtype.

    >>> import jax.numpy as jnp
    >>> found = castin2024_local_lipschitz(jnp.eye(2), jnp.ones(2, bool), jnp.eye(2), jnp.eye(2))
    >>> bool(found.lhs <= found.rhs)
    True

    References: after Castin, Ablin and Peyré (2024), arXiv 2312.14820.
    """
    real = mask[:, None].astype(hidden.dtype)
    _, push = jax.linearize(lambda x: dot_product_attention(x, mask, interaction, value), hidden)
    pull = jax.linear_transpose(push, hidden)
    start = start_vector(hidden.shape, hidden.dtype) * real
    found = largest_eigenvalue(lambda v: pull(push(v))[0], start, tolerance=default_tolerance(hidden.dtype))
    count = jnp.sum(mask).astype(hidden.dtype)
    radius = jnp.max(jnp.where(mask, norm(hidden), 0))
    bound = castin2024_bound(spectral_norm(value), spectral_norm(interaction), radius, count)
    return Statement(
        lhs=jnp.sqrt(jnp.maximum(found.value, 0)), rhs=bound, applicable=(count > 0) & jnp.isfinite(found.value)
    )
