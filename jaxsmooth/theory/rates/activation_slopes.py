"""Slopes of the MLP's activations over intervals: of tangents, and of secants between two intervals.

Two rows of the MLP differ by (y - y') (I + W_1 D W_2) with D diagonal and D_kk the secant slope
(phi(a_k) - phi(a'_k)) / (a_k - a'_k) of unit k between its two pre-activations. What is known of the
pre-activations bounds D; everything here is elementwise.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...activations import ACTIVATIONS
from ...linalg.precision import at_least_float32

# Where phi' and phi'' have local extrema, besides the mirror images of these points; erf-GELU: phi'' = (2 - x^2) N(x),
# phi''' = (x^2 - 4) x N(x) with N the normal density. The others were found numerically to the last digit.
_STEEPEST = {"gelu": 2**0.5, "gelu_tanh": 1.4185040087908284, "silu": 2.3993572805154677}
_SHARPEST = {"gelu": (0.0, 2.0), "gelu_tanh": (0.0, 2.013480724624257), "silu": (0.0, 3.435840993535111)}


def activate(activation: str, x: Float[Array, "..."]) -> Float[Array, "..."]:
    """phi(x).

    >>> import jax.numpy as jnp
    >>> activate("relu", jnp.array([-1.0, 2.0]))
    Array([0., 2.], dtype=float32)
    """
    return ACTIVATIONS[activation].function(x)


@at_least_float32
def slope_range(
    activation: str, low: Float[Array, "..."], high: Float[Array, "..."]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Least and largest phi'(x) over low <= x <= high, exact up to rounding.

    For ReLU at the kink, both one-sided slopes count. Every secant slope between two points of the interval
    lies in the range (mean value theorem).

    Args:
      activation: a key of `activations.LIPSCHITZ`.
      low: left ends, any shape.
      high: right ends, same shape.

    Returns:
      `(least, largest)`, each of that shape.

    >>> import jax.numpy as jnp
    >>> least, largest = slope_range("gelu", jnp.array(-9.0), jnp.array(9.0))
    >>> round(float(least), 4), round(float(largest), 4)
    (-0.1289, 1.1289)
    """
    if activation == "relu":
        return (low > 0).astype(low.dtype), (high >= 0).astype(low.dtype)
    ends = [_derivative(activation, low), _derivative(activation, high)]
    least, largest = jnp.minimum(*ends), jnp.maximum(*ends)
    top = _derivative(activation, jnp.asarray(_STEEPEST[activation], low.dtype))
    # phi'(x) + phi'(-x) = 1, so the least slope is 1 minus the largest.
    least = jnp.where((low < -_STEEPEST[activation]) & (high > -_STEEPEST[activation]), 1 - top, least)
    return least, jnp.where((low < _STEEPEST[activation]) & (high > _STEEPEST[activation]), top, largest)


@at_least_float32
def secant_slope(activation: str, a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    """(phi(a) - phi(b)) / (a - b), the derivative where a = b.

    >>> import jax.numpy as jnp
    >>> round(float(secant_slope("relu", jnp.array(-1.0), jnp.array(3.0))), 4)
    0.75
    """
    step = a - b
    # Below this distance the quotient loses more to cancellation than the midpoint's slope to curvature; ReLU has no
    # cancellation, and a midpoint's slope is wrong for a pair on both sides of the kink.
    near = jnp.abs(step) < (0 if activation == "relu" else jnp.finfo(step.dtype).eps ** (1 / 3))
    near = near | (step == 0)
    quotient = (activate(activation, a) - activate(activation, b)) / jnp.where(near, 1, step)
    return jnp.where(near, _derivative(activation, (a + b) / 2), quotient)


@at_least_float32
def secant_range(
    activation: str,
    a: Float[Array, "..."],
    b: Float[Array, "..."],
    radius_a: Float[Array, "..."],
    radius_b: Float[Array, "..."],
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Bounds of the secant slope between any point within `radius_a` of a and any within `radius_b` of b.

    A secant slope is s(a, b) = int_0^1 phi'(a + t (b - a)) dt, so its partial derivatives are at most half the
    largest |phi''| on the hull of both intervals; this, and the range of phi' on the hull, bound it. ReLU is
    convex, so its secant slopes increase in both arguments and the ends are exact.

    Args:
      activation: a key of `activations.LIPSCHITZ`.
      a: centres of the first intervals, any shape.
      b: centres of the second intervals, same shape.
      radius_a: half-widths of the first intervals, at least 0.
      radius_b: half-widths of the second.

    Returns:
      `(least, largest)`; equal to the secant slope where both radii are 0.

    >>> import jax.numpy as jnp
    >>> zero = jnp.zeros(())
    >>> least, largest = secant_range("gelu", jnp.array(0.5), jnp.array(1.0), zero, zero)
    >>> bool(least == largest)
    True
    """
    if activation == "relu":
        return (
            secant_slope(activation, a - radius_a, b - radius_b),
            secant_slope(activation, a + radius_a, b + radius_b),
        )
    low = jnp.minimum(a - radius_a, b - radius_b)
    high = jnp.maximum(a + radius_a, b + radius_b)
    least, largest = slope_range(activation, low, high)
    centre = secant_slope(activation, a, b)
    step = 0.5 * _largest_curvature(activation, low, high) * (radius_a + radius_b)
    # The centre may leave the range of slopes by rounding; it must not leave the result empty.
    return jnp.minimum(jnp.maximum(least, centre - step), centre), jnp.maximum(
        jnp.minimum(largest, centre + step), centre
    )


def _largest_curvature(activation: str, low: Array, high: Array) -> Array:
    largest = jnp.maximum(jnp.abs(_curvature(activation, low)), jnp.abs(_curvature(activation, high)))
    for point in _SHARPEST[activation]:
        value = jnp.abs(_curvature(activation, jnp.asarray(point, low.dtype)))
        for place in (point, -point):
            largest = jnp.where((low < place) & (high > place), jnp.maximum(largest, value), largest)
    return largest


def _derivative(activation: str, x: Array) -> Array:
    return jax.jvp(ACTIVATIONS[activation].function, (x,), (jnp.ones_like(x),))[1]


def _curvature(activation: str, x: Array) -> Array:
    return jax.jvp(functools.partial(_derivative, activation), (x,), (jnp.ones_like(x),))[1]
