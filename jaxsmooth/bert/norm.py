"""LayerNorm with its standard deviation in the open."""

import functools

import jax
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
    wide = _centred(_wide(hidden), norm)
    return gained(wide / std.astype(wide.dtype), scale, bias).astype(hidden.dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def standardise(
    hidden: Float[Array, "*B T D"], eps: float, norm: str = "layernorm"
) -> tuple[Float[Array, "*B T D"], Float[Array, "*B T 1"]]:
    """(hidden - mean) / std and std, of every token: of both, a backward pass keeps these alone.

    Args:
      hidden: token vectors, [..., T, D].
      eps: as in `token_std`.
      norm: as in `token_std`.

    Returns:
      [..., T, D] and [..., T, 1], in `hidden`'s dtype or float32, whichever is wider.

    >>> import jax.numpy as jnp
    >>> standardise(jnp.array([[1.0, 3.0]]), 0.0)
    (Array([[-1.,  1.]], dtype=float32), Array([[1.]], dtype=float32))
    """
    std = token_std(hidden, eps, norm=norm)
    return _centred(_wide(hidden), norm) / std, std


@standardise.defjvp
def _standardise_tangent(eps: float, norm: str, primals: tuple[Array], tangents: tuple[Array]) -> tuple:
    unit, std = standardise(*primals, eps, norm)
    moved = _centred(_wide(tangents[0]), norm)
    if norm == "none":
        return (unit, std), (moved, jnp.zeros_like(std))
    moved_std = jnp.mean(unit * moved, axis=-1, keepdims=True)
    return (unit, std), ((moved - unit * moved_std) / std, moved_std)


def gained(unit: Float[Array, "*B T D"], scale: Float[Array, " D"], bias: Float[Array, " D"] | None) -> Array:
    """`scale * unit + bias`: the learned half of a norm.

    Args:
      unit: standardised token vectors, [..., T, D].
      scale: learned gain, [D].
      bias: learned shift, [D], or None.

    Returns:
      [..., T, D].
    """
    wide = unit * _row(scale, unit)
    return wide if bias is None else wide + _row(bias, wide)


def _centred(wide: Array, norm: str) -> Array:
    return centre_features(wide) if norm == "layernorm" else wide


def _row(parameter: Array, wide: Array) -> Array:
    return parameter.astype(wide.dtype).reshape((1,) * (wide.ndim - 1) + parameter.shape)


def _wide(hidden: Array) -> Array:
    return hidden.astype(accumulation_dtype(hidden.dtype))
