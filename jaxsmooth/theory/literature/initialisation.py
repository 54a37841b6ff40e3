"""Attention at initialisation as a random matrix: its spectrum, and what removing its outlier changes."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ...linalg.norms import safe_sqrt
from ...linalg.precision import at_least_float32, matmul
from ..consensus import subspace_distance
from ..operators import uniform_attention
from ..statement import Statement


@at_least_float32
def saada2025_second_singular_value(logit_std: Float[Array, "*B"], tokens: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """Limit of the second singular value of softmax attention: 2 sqrt(e^{s^2} - 1) / sqrt(n).

    For independent logits N(0, s^2) and n -> infinity; the first stays near 1, the gap that Saada et al. call rank
    collapse in width. The entries behave as independent ones of mean 1/n and variance (e^{s^2} - 1)/n^2. An
    asymptotic constant, slow for large s, not a bound.

    Args:
      logit_std: s, [...].
      tokens: n, [...].

    Returns:
      [...].

    >>> import jax.numpy as jnp
    >>> saada2025_second_singular_value(jnp.array([0.5]), jnp.array([1024.0])).round(4)
    Array([0.0333], dtype=float32)

    References: after Saada, Naderi and Tanner (2025), arXiv 2410.07799.
    """
    return 2 * saada2025_second_eigenvalue(logit_std, tokens)


@at_least_float32
def saada2025_second_eigenvalue(logit_std: Float[Array, "*B"], tokens: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """Limit of the second largest modulus of an eigenvalue: sqrt(e^{s^2} - 1) / sqrt(n), half the singular value's.

    Args:
      logit_std: s, [...].
      tokens: n, [...].

    Returns:
      [...].

    >>> import jax.numpy as jnp
    >>> saada2025_second_eigenvalue(jnp.array([0.5]), jnp.array([1024.0])).round(4)
    Array([0.0167], dtype=float32)

    References: after Saada, Naderi and Tanner (2025), arXiv 2410.07799.
    """
    return safe_sqrt(jnp.expm1(logit_std * logit_std) / tokens)


@at_least_float32
def ali2023_centred_attention(attn: Float[Array, "*B T S"], mask: Bool[Array, "*B T"]) -> Float[Array, "*B T S"]:
    """A - 1 1^T / n over real keys: attention without the eigenvalue of consensus. Rows sum to 0.

    With fixed A and no residual it leaves d_M exactly as it is, layer by layer, since J(A - 1 q^T) = J A for every q:
    only the mean goes, so relative measures change and absolute ones do not.

    Args:
      attn: A, zero on padded keys, [..., T, S].
      mask: True on real tokens, [..., T].

    Returns:
      [..., T, S].

    >>> import jax.numpy as jnp
    >>> ali2023_centred_attention(jnp.array([[0.75, 0.25], [0.5, 0.5]]), jnp.ones(2, bool))
    Array([[ 0.25, -0.25],
           [ 0.  ,  0.  ]], dtype=float32)

    References: after Ali et al. (2023), arXiv 2306.01610; the identity is proved in docs/catalogue.md.
    """
    return attn - uniform_attention(attn, mask)


@at_least_float32
def ali2023_centring_keeps_distance(
    attn: Float[Array, "*B T S"], hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]
) -> Statement:
    """d_M((A - 1 1^T / n) X) = d_M(A X): an equality, given as a `Statement` with both sides.

    Args:
      attn: A, zero on padded keys, any rows, [..., T, S].
      hidden: X, [..., T, D].
      mask: True on real tokens, [..., T].

    Returns:
      A `Statement`, [...], always applicable.

    >>> import jax.numpy as jnp
    >>> attn, x = jnp.array([[0.75, 0.25], [0.5, 0.5]]), jnp.array([[4.0], [0.0]])
    >>> [round(float(side), 4) for side in ali2023_centring_keeps_distance(attn, x, jnp.ones(2, bool))[:2]]
    [0.7071, 0.7071]

    References: proved in docs/catalogue.md; the method after Ali et al. (2023), arXiv 2306.01610.
    """
    clean = hidden * mask[..., None].astype(hidden.dtype)
    centred = subspace_distance(matmul(ali2023_centred_attention(attn, mask), clean), mask)
    return Statement(lhs=centred, rhs=subspace_distance(matmul(attn, clean), mask), applicable=jnp.any(mask, axis=-1))
