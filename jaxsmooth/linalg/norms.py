"""Lengths and quotients that are right from 1e-20 to 1e20 in float32, and have derivatives where they have values."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def binary_size(array: Float[Array, "..."], axis: int | Sequence[int] | None = None) -> Float[Array, "..."]:
    """The power of two next to max |array|, of which nothing is lost by dividing by it; 1 of zeros. Axes are kept.

    It is a constant of differentiation: what is homogeneous may be computed of `array / binary_size(array)` and scaled
    back. NaN where an entry is not finite.

    >>> import jax.numpy as jnp
    >>> binary_size(jnp.array([3.0, -4.5]))
    Array([4.], dtype=float32)
    """
    array = jax.lax.stop_gradient(array)
    largest = jnp.max(jnp.abs(array), axis=axis, keepdims=True, initial=0)
    info = jnp.finfo(array.dtype)
    # Kept away from the ends, so that it has an inverse.
    within = jnp.clip(largest, 2.0 ** (info.minexp + 6), 2.0 ** (info.maxexp - 6))
    # A normal number less its mantissa, the last bits. `frexp` and `ldexp` would be 40 instructions, at every norm.
    bits = jax.lax.bitcast_convert_type(within, f"int{info.bits}")
    power = jax.lax.bitcast_convert_type(bits & -(1 << info.nmant), within.dtype)
    return jnp.where(largest == 0, 1, jnp.where(jnp.isfinite(largest), power, jnp.nan))


def norm(array: Float[Array, "..."], axis: int | tuple[int, ...] = -1, *, keepdims: bool = False) -> Array:
    """Euclidean norm along one axis or more, whose squares neither overflow nor vanish; its derivative at 0 is 0.

    >>> import jax, jax.numpy as jnp
    >>> round(float(norm(jnp.array([3e-30, 4e-30]))) * 1e30, 4), jax.grad(norm)(jnp.zeros(2)).tolist()
    (5.0, [0.0, 0.0])
    """
    size = binary_size(array, axis)
    scaled = array / size
    squares = jnp.sum(scaled * scaled, axis=axis, keepdims=True)
    zero = squares == 0
    found = jnp.where(zero, 0, size * jnp.sqrt(jnp.where(zero, 1, squares)))
    return found if keepdims else jnp.squeeze(found, axis=axis)


def quotient(
    over: Float[Array, "..."], under: Float[Array, "..."], undefined: float | int = jnp.nan
) -> Float[Array, "..."]:
    """over / under; `undefined`, a constant with derivative 0, where `under` is 0.

    >>> import jax.numpy as jnp
    >>> quotient(jnp.array([1.0, 1.0]), jnp.array([2.0, 0.0]))
    Array([0.5, nan], dtype=float32)
    """
    zero = under == 0
    # Over a power of two first: the derivative has the square of `under`. By its inverse, as XLA makes of
    # (a / s) / (b / s) one quotient of the products a s and s b, which overflow.
    inverse = 1 / binary_size(under, ())
    return jnp.where(zero, undefined, (over * inverse) / (jnp.where(zero, 1, under) * inverse))


def unit_vectors(array: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """Every vector over its length; zero, with derivative 0, where that is 0.

    >>> import jax.numpy as jnp
    >>> [round(float(x), 4) for x in unit_vectors(jnp.array([[3e-30, 4e-30], [0.0, 0.0]])).ravel()]
    [0.6, 0.8, 0.0, 0.0]
    """
    scaled = array / binary_size(array, -1)
    return quotient(scaled, norm(scaled, keepdims=True), 0)


def safe_sqrt(square: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """sqrt, whose derivative at 0 is 0.

    >>> import jax, jax.numpy as jnp
    >>> float(jax.grad(safe_sqrt)(0.0))
    0.0
    """
    zero = square == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, square)))


def within(
    value: Float[Array, "*B"], low: Array | float | int, high: Array | float | int, slack: Array | float = jnp.inf
) -> Float[Array, "*B"]:
    """The value moved into [low, high] if it is outside by at most `slack`, as by rounding; its derivative is kept.

    >>> import jax, jax.numpy as jnp
    >>> float(within(jnp.float32(1.0000001), 0, 1)), float(jax.grad(lambda x: within(3 * x, 0, 1))(1.0))
    (1.0, 3.0)
    """
    return _moved(value, *(jnp.asarray(bound, value.dtype) for bound in (low, high, slack)))


@jax.custom_jvp
def _moved(value: Array, low: Array, high: Array, slack: Array) -> Array:
    clipped = jnp.clip(value, low, high)
    return jnp.where(jnp.abs(clipped - value) <= slack, clipped, value)


_moved.defjvps(lambda change, *_: change, None, None, None)
