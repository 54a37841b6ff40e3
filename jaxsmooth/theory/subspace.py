"""The subspace of consensus: M = {1 c^T}, all tokens equal, and the distance to it.

M is Definition 1 of Shi et al. (2022). Their e must be read as the UNIT vector 1/sqrt(n): with e = ones their
Lemma 1(4) is false, for instance for A = [[.9, .1], [.8, .2]] and H = (1, -1)^T.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def token_mean(hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]) -> Float[Array, "*B 1 D"]:
    """Mean over real tokens: the coordinates of the projection onto M.

    Args:
      hidden: token vectors, [..., T, D].
      mask: True on real tokens, [..., T].

    Returns:
      [..., 1, D]; zero where a sentence has no real token.

    >>> import jax.numpy as jnp
    >>> token_mean(jnp.array([[1.0], [3.0], [99.0]]), jnp.array([True, True, False]))
    Array([[2.]], dtype=float32)
    """
    weight = _weight(hidden, mask)
    return jnp.sum(hidden * weight, axis=-2, keepdims=True) / jnp.maximum(jnp.sum(weight, axis=-2, keepdims=True), 1)


def centre_tokens(hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]) -> Float[Array, "*B T D"]:
    """J H: every real token minus the mean of the real tokens; zero on padding.

    Args:
      hidden: token vectors, [..., T, D].
      mask: True on real tokens, [..., T].

    Returns:
      [..., T, D].

    >>> import jax.numpy as jnp
    >>> centre_tokens(jnp.array([[1.0], [3.0], [99.0]]), jnp.array([True, True, False])).ravel()
    Array([-1.,  1.,  0.], dtype=float32)
    """
    return (hidden - token_mean(hidden, mask)) * _weight(hidden, mask)


def centre_features(hidden: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """H C: every row minus its own mean, which is what LayerNorm does first.

    >>> import jax.numpy as jnp
    >>> centre_features(jnp.array([1.0, 3.0]))
    Array([-1.,  1.], dtype=float32)
    """
    return hidden - jnp.mean(hidden, axis=-1, keepdims=True)


def subspace_distance(hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]) -> Float[Array, "*B"]:
    """d_M(H) = min over Y in M of ||H - Y||_F = ||J H||_F, over real tokens.

    Args:
      hidden: token vectors, [..., T, D].
      mask: True on real tokens, [..., T].

    Returns:
      [...], in the units of `hidden`.

    >>> import jax.numpy as jnp
    >>> subspace_distance(jnp.array([[2.0, 2.0], [-2.0, -2.0]]), jnp.array([True, True]))
    Array(4., dtype=float32)

    References: Shi et al. (2022), arXiv 2202.08625, Definition 1.
    """
    return _frobenius(centre_tokens(hidden, mask))


def relative_distance(hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]) -> Float[Array, "*B"]:
    """d_M(H) / ||H||_F, in [0, 1]: the share of the hidden state that distinguishes tokens.

    Args:
      hidden: token vectors, [..., T, D].
      mask: True on real tokens, [..., T].

    Returns:
      [...]; NaN where every real token is the zero vector.

    >>> import jax.numpy as jnp
    >>> relative_distance(jnp.array([[3.0], [-3.0]]), jnp.array([True, True]))
    Array(1., dtype=float32)
    """
    return subspace_distance(hidden, mask) / _frobenius(hidden * _weight(hidden, mask))


def _weight(hidden: Array, mask: Array) -> Array:
    return mask[..., None].astype(hidden.dtype)


def _frobenius(hidden: Array) -> Array:
    return jnp.sqrt(jnp.sum(hidden * hidden, axis=(-2, -1)))
