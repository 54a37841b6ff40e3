"""LayerNorm with its standard deviation in the open."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..linalg.rows import accumulation_dtype as accumulation_dtype
from ..linalg.rows import centre_features, row_std


def token_std(hidden: Float[Array, "*B T D"], eps: float, *, norm: str = "layernorm") -> Float[Array, "*B T 1"]:
    """Per-token standard deviation over features, sqrt(variance + eps): what LayerNorm divides by.

    Its minimum over tokens is the sigma of Shi et al. (2022). Computed in at least float32.

    Args:
      hidden: token vectors, [..., T, D].
      eps: LayerNorm's epsilon, inside the root, as in BERT.
      norm: "rmsnorm" takes the root mean square instead, without centring; "none" gives ones.

    Returns:
      [..., T, 1], in `hidden`'s dtype or float32, whichever is wider.

    >>> import jax.numpy as jnp
    >>> token_std(jnp.array([[1.0, 3.0]]), 0.0)
    Array([[1.]], dtype=float32)
    """
    if norm == "none":
        return jnp.ones((*hidden.shape[:-1], 1), accumulation_dtype(hidden.dtype))
    if norm == "rmsnorm":
        return row_std(_wide(hidden), eps)
    # Centred first, which `var` does again: its mean is then what rounding left of the first.
    return jnp.sqrt(centre_features(_wide(hidden)).var(axis=-1, keepdims=True) + eps)


def layer_norm(
    hidden: Float[Array, "*B T D"],
    scale: Float[Array, " D"],
    bias: Float[Array, " D"] | None,
    std: Float[Array, "*B T 1"],
    *,
    norm: str = "layernorm",
) -> Float[Array, "*B T D"]:
    """`scale * (hidden - mean) / std + bias` with the std given: LayerNorm when `std = token_std(hidden, eps)`.

    Args:
      hidden: token vectors, [..., T, D].
      scale: learned gain, [D].
      bias: learned shift, [D], or None.
      std: what to divide by, [..., T, 1]; any positive value, for experiments that impose it.
      norm: "rmsnorm" and "none" do not subtract the mean.

    Returns:
      [..., T, D] in `hidden`'s dtype.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[1.0, 3.0]])
    >>> layer_norm(x, jnp.ones(2), jnp.zeros(2), token_std(x, 0.0))
    Array([[-1.,  1.]], dtype=float32)

    References: Ba, Kiros and Hinton (2016), arXiv 1607.06450; Zhang and Sennrich (2019), arXiv 1910.07467 (RMSNorm).
    """
    wide = centre_features(_wide(hidden)) if norm == "layernorm" else _wide(hidden)
    wide = wide / std.astype(wide.dtype) * _row(scale, wide)
    return (wide if bias is None else wide + _row(bias, wide)).astype(hidden.dtype)


def _row(parameter: Array, wide: Array) -> Array:
    return parameter.astype(wide.dtype).reshape((1,) * (wide.ndim - 1) + parameter.shape)


def _wide(hidden: Array) -> Array:
    return hidden.astype(accumulation_dtype(hidden.dtype))
