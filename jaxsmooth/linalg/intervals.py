"""Arithmetic that encloses its rounding errors: intervals of numbers and balls of matrices.

Everything here runs on numpy and, under jit and vmap, on jax arrays, in float32 and float64. The error model is
fl(a op b) = (a op b)(1 + delta) + eta with |delta| <= 4 u, |eta| <= the smallest normal number: it covers operations
that are an ulp or two short of correctly rounded, hardware that flushes denormal numbers to zero on the way in or
out (XLA's CPU backend does), contraction into fused multiply-adds, and every order of summation. It does not cover
products of fewer digits than the dtype has; all products ask for full precision, and `faithful_products` shows
whether they get it.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Namespace = Any  # numpy or jax.numpy
# Overflow and NaN are answers here, the whole line, and not worth a warning.
quiet = np.errstate(all="ignore")


def namespace(array: Any) -> Namespace:
    """numpy for numpy's arrays and scalars, jax.numpy for jax's."""
    return np if isinstance(array, np.ndarray | np.generic | float) else jnp


def epsilon(array: Any) -> float:
    """2 u, the distance from 1 to the next number."""
    return float(np.finfo(array.dtype).eps)


def tiny(array: Any) -> float:
    """The smallest normal number, below which anything may count as zero."""
    return float(np.finfo(array.dtype).tiny)


def gamma(terms: int, array: Any) -> float:
    """Relative error of a sum of so many products in any order, u k / (1 - u k), with room to spare."""
    small = (terms + 8) * epsilon(array)
    if small >= 0.5:
        raise ValueError(f"a sum of {terms} terms has no digit to rely on in {array.dtype}.")
    return small / (1 - small)


def fence(array: Any) -> Any:
    """The array, rounded to its dtype here and now: XLA may otherwise keep two differently rounded copies of it."""
    return array if namespace(array) is np else jax.lax.optimization_barrier(array)


def raised(bound: Any) -> Any:
    """A computed upper bound, moved up past the rounding of its own last operation."""
    return bound + (abs(bound) * (4 * epsilon(bound)) + 4 * tiny(bound))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Interval:
    """A real number, or an array of them, known to lie in [down, up]. An end that is NaN says nothing."""

    down: Any
    up: Any

    @staticmethod
    @quiet
    def around(low: Any, high: Any) -> "Interval":
        """Outward from two computed ends."""
        # An overflown end becomes NaN or stays infinite; either decides nothing.
        return Interval(low - (abs(low) * (4 * epsilon(low)) + 4 * tiny(low)), raised(high))

    @staticmethod
    def exact(number: Any) -> "Interval":
        """A given floating-point number; one too small to be normal may be read as zero, so it gets a width."""
        xp = namespace(number)
        pad = xp.where(abs(number) < tiny(number), xp.full_like(number, 2 * tiny(number)), xp.zeros_like(number))
        return Interval(number - pad, number + pad)

    def nonnegative(self) -> "Interval":
        """Of a quantity known to be at least 0."""
        return Interval(namespace(self.down).maximum(self.down, 0), self.up)

    @quiet
    def __add__(self, other: "Interval") -> "Interval":
        if not isinstance(other, Interval):
            return NotImplemented
        return Interval.around(self.down + other.down, self.up + other.up)

    @quiet
    def __sub__(self, other: "Interval") -> "Interval":
        if not isinstance(other, Interval):
            return NotImplemented
        return Interval.around(self.down - other.up, self.up - other.down)

    @quiet
    def __mul__(self, other: "Interval") -> "Interval":
        if not isinstance(other, Interval):
            return NotImplemented
        xp = namespace(self.down)
        ends = [a * b for a in (self.down, self.up) for b in (other.down, other.up)]
        low, high = ends[0], ends[0]
        for end in ends[1:]:
            low, high = xp.minimum(low, end), xp.maximum(high, end)
        return Interval.around(low, high)

    @quiet
    def __truediv__(self, other: "Interval") -> "Interval":
        """By a positive divisor; anything else gives the whole line."""
        if not isinstance(other, Interval):
            return NotImplemented
        xp = namespace(self.down)
        inverse = Interval.around(1 / other.up, 1 / other.down)
        positive = other.down > 0
        down = xp.where(positive, xp.maximum(inverse.down, 0), -xp.inf)
        return self * Interval(down, xp.where(positive, inverse.up, xp.inf))

    def sqrt(self) -> "Interval":
        """Of a quantity known to be at least 0."""
        xp = namespace(self.down)
        return Interval.around(xp.sqrt(xp.maximum(self.down, 0)), xp.sqrt(xp.maximum(self.up, 0))).nonnegative()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Ball:
    """A matrix known entry by entry to within `radius` of `middle`."""

    middle: Any
    radius: Any

    @staticmethod
    def exact(matrix: Any) -> "Ball":
        """A given floating-point matrix."""
        xp = namespace(matrix)
        small = abs(matrix) < tiny(matrix)
        return Ball(matrix, xp.where(small, xp.full_like(matrix, 2 * tiny(matrix)), xp.zeros_like(matrix)))

    @staticmethod
    def of(interval: Interval) -> "Ball":
        """An array of intervals."""
        middle = fence(0.5 * interval.down + 0.5 * interval.up)
        xp = namespace(middle)
        return Ball(middle, raised(xp.maximum(interval.up - middle, middle - interval.down)))

    def interval(self) -> Interval:
        """The same, as ends."""
        return Interval.around(self.middle - self.radius, self.middle + self.radius)

    def rounded(self) -> "Ball":
        """With room for the rounding of the operation that computed `middle`, and of `radius` itself."""
        return Ball(self.middle, raised(self.radius + abs(self.middle) * (4 * epsilon(self.middle))))

    @property
    def T(self) -> "Ball":  # noqa: N802
        return Ball(self.middle.T, self.radius.T)

    @quiet
    def __add__(self, other: "Ball") -> "Ball":
        return Ball(fence(self.middle + other.middle), self.radius + other.radius).rounded()

    @quiet
    def __sub__(self, other: "Ball") -> "Ball":
        return Ball(fence(self.middle - other.middle), self.radius + other.radius).rounded()

    @quiet
    def __mul__(self, other: "Ball") -> "Ball":
        """Entry by entry."""
        spread = abs(self.middle) * other.radius + self.radius * (abs(other.middle) + other.radius)
        return Ball(fence(self.middle * other.middle), raised(raised(spread))).rounded()

    @quiet
    def __matmul__(self, other: "Ball") -> "Ball":
        """|fl(X Y) - X Y| <= gamma_k |X| |Y| entry by entry, on top of what the radii contribute."""
        x, y = self, other
        terms = x.middle.shape[-1]
        rounding = gamma(terms, x.middle)
        inner = y.radius + rounding * abs(y.middle) + tiny(x.middle)
        spread = dot(abs(x.middle), inner) + dot(x.radius, abs(y.middle) + y.radius + tiny(x.middle))
        radius = spread * (1 + 4 * rounding) + (4 * terms + 4) * tiny(x.middle)
        return Ball(fence(dot(x.middle, y.middle)), raised(radius))


def settled(vector: Any) -> Any:
    """A nearby vector that has one value wherever it is used: the last bit of every entry is cleared.

    A product that feeds a difference may be contracted into it, unrounded, in one place and not in another; an
    integer operation in between rules that out where a fence is dropped by the compiler.
    """
    whole = {4: np.int32, 8: np.int64}[np.dtype(vector.dtype).itemsize]
    return (vector.view(whole) & np.array(-2, whole)).view(vector.dtype)


@quiet
def dot(x: Any, y: Any) -> Any:
    """The matrix product in the full precision of its dtype, on every device."""
    return np.matmul(x, y) if namespace(x) is np else jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)


def power_of_two(array: Any) -> Any:
    """The largest power of two that is at most max |array|, kept far enough from the ends to have an inverse."""
    xp = namespace(array)
    info = np.finfo(array.dtype)
    largest = xp.max(abs(array)) if array.size else xp.asarray(0.0, array.dtype)
    safe = xp.clip(xp.where(xp.isfinite(largest), largest, 1), 2.0 ** (info.minexp + 6), 2.0 ** (info.maxexp - 6))
    # The mantissa is cleared bit by bit: exp2 is not exact on every device.
    whole = {4: np.int32, 8: np.int64}[np.dtype(array.dtype).itemsize]
    bits = xp.asarray(safe, array.dtype).view(whole)
    return (bits & np.array(-1 << info.nmant, whole)).view(array.dtype)


@quiet
def total(array: Any, axis: int | None = None) -> Interval:
    """Encloses the sum of the entries of a computed array (along one axis), whatever order they are added in."""
    xp = namespace(array)
    terms = array.size if axis is None else array.shape[axis]
    value, size = xp.sum(array, axis=axis), xp.sum(abs(array), axis=axis)
    slack = size * (2 * gamma(terms, array)) + 2 * terms * tiny(array)
    return Interval.around(value - slack, value + slack)


def sum_of(terms: Interval, axis: int | None = None) -> Interval:
    """The sum of intervals."""
    return Interval(total(terms.down, axis).down, total(terms.up, axis).up)


@quiet
def sum_of_squares(matrix: Any) -> tuple[Interval, Any]:
    """||M / s||_F^2 and the power of two s, for a matrix of any scale."""
    scale = power_of_two(matrix)
    scaled = fence(matrix * (1 / scale))
    rows = fence(namespace(matrix).sum(scaled * scaled, axis=-1))
    inside = gamma(matrix.shape[-1] + 2, matrix)
    slack = (16 * matrix.size + 16) * tiny(matrix)
    whole = total(rows)
    return Interval.around(whole.down * (1 - inside) - slack, whole.up * (1 + 2 * inside) + slack).nonnegative(), scale


def frobenius(matrix: Ball) -> Interval:
    """||M||_F."""
    square, scale = sum_of_squares(matrix.middle)
    return fuzzy(square.sqrt() * Interval.exact(scale), matrix.radius)


def fuzzy(norm: Interval, radius: Any) -> Interval:
    """A norm of at most the Frobenius norm, of `middle`, made one of every matrix within `radius`."""
    square, scale = sum_of_squares(radius)
    spread = (square.sqrt() * Interval.exact(scale)).up
    return Interval.around(norm.down - spread, norm.up + spread).nonnegative()


def faithful_products(dtype: Any) -> bool:
    """Whether this device multiplies matrices with every digit of the dtype.

    With TF32 or bfloat16 products (1 + eps)^2 - (1 + 2 eps), the error of a float32 product, is far larger than a
    rounding, and no enclosure of this module holds.

    >>> faithful_products("float32")
    True
    """
    size = 32
    eps = np.finfo(dtype).eps
    ones = np.eye(size, dtype=dtype) * np.asarray(1 + eps, dtype)
    found = np.asarray(jax.jit(dot)(jnp.asarray(ones), jnp.asarray(ones)))
    exact = np.eye(size) * (1 + 2 * float(eps))
    return bool(np.all(np.abs(found.astype(np.float64) - exact) <= 4 * eps * float(eps) * np.eye(size)))
