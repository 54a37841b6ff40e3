"""Arithmetic that encloses its rounding errors: intervals of numbers and balls of matrices.

Everything here runs on numpy and, under jit and vmap, on jax arrays, in float32 and float64. The error model is
fl(a op b) = (a op b)(1 + delta) + eta with |delta| <= 4 u, |eta| <= the smallest normal number: it covers operations
that are an ulp or two short of correctly rounded, hardware that flushes denormal numbers to zero on the way in or
out (XLA's CPU backend does), contraction into fused multiply-adds, and every order of summation. It does not cover
products of fewer digits than the dtype has; all products ask for full precision, and `faithful_products` shows
whether they get it.
"""

import dataclasses
import functools
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
    return _limits(array.dtype)[0]


def tiny(array: Any) -> float:
    """The smallest normal number, below which anything may count as zero."""
    return _limits(array.dtype)[1]


@functools.cache
def _limits(dtype: np.dtype) -> tuple[float, float]:
    """Asked for at every operation, and `finfo` is slow."""
    return float(np.finfo(dtype).eps), float(np.finfo(dtype).tiny)


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
    """A real number, or an array of them, known to lie in [lower, upper]. An end that is NaN says nothing."""

    lower: Any
    upper: Any

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
        return Interval(namespace(self.lower).maximum(self.lower, 0), self.upper)

    @quiet
    def __add__(self, other: "Interval") -> "Interval":
        if not isinstance(other, Interval):
            return NotImplemented
        return Interval.around(self.lower + other.lower, self.upper + other.upper)

    @quiet
    def __sub__(self, other: "Interval") -> "Interval":
        if not isinstance(other, Interval):
            return NotImplemented
        return Interval.around(self.lower - other.upper, self.upper - other.lower)

    @quiet
    def __mul__(self, other: "Interval") -> "Interval":
        if not isinstance(other, Interval):
            return NotImplemented
        xp = namespace(self.lower)
        ends = [a * b for a in (self.lower, self.upper) for b in (other.lower, other.upper)]
        low, high = ends[0], ends[0]
        for end in ends[1:]:
            low, high = xp.minimum(low, end), xp.maximum(high, end)
        return Interval.around(low, high)

    @quiet
    def __truediv__(self, other: "Interval") -> "Interval":
        """By a positive divisor; anything else gives the whole line."""
        if not isinstance(other, Interval):
            return NotImplemented
        xp = namespace(self.lower)
        inverse = Interval.around(1 / other.upper, 1 / other.lower)
        positive = other.lower > 0
        down = xp.where(positive, xp.maximum(inverse.lower, 0), -xp.inf)
        return self * Interval(down, xp.where(positive, inverse.upper, xp.inf))

    def sqrt(self) -> "Interval":
        """Of a quantity known to be at least 0."""
        xp = namespace(self.lower)
        return Interval.around(xp.sqrt(xp.maximum(self.lower, 0)), xp.sqrt(xp.maximum(self.upper, 0))).nonnegative()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Ball:
    """A matrix known entry by entry to within `rad` of `mid`."""

    mid: Any
    rad: Any

    @staticmethod
    def exact(matrix: Any) -> "Ball":
        """A given floating-point matrix."""
        xp = namespace(matrix)
        small = abs(matrix) < tiny(matrix)
        return Ball(matrix, xp.where(small, xp.full_like(matrix, 2 * tiny(matrix)), xp.zeros_like(matrix)))

    @staticmethod
    def of(interval: Interval) -> "Ball":
        """An array of intervals."""
        middle = fence(0.5 * interval.lower + 0.5 * interval.upper)
        xp = namespace(middle)
        return Ball(middle, raised(xp.maximum(interval.upper - middle, middle - interval.lower)))

    def interval(self) -> Interval:
        """The same, as ends."""
        return Interval.around(self.mid - self.rad, self.mid + self.rad)

    def rounded(self) -> "Ball":
        """With room for the rounding of the operation that computed `mid`, and of `rad` itself."""
        return Ball(self.mid, raised(self.rad + abs(self.mid) * (4 * epsilon(self.mid))))

    @property
    def T(self) -> "Ball":  # noqa: N802
        return Ball(self.mid.T, self.rad.T)

    @quiet
    def __add__(self, other: "Ball") -> "Ball":
        return Ball(fence(self.mid + other.mid), self.rad + other.rad).rounded()

    @quiet
    def __sub__(self, other: "Ball") -> "Ball":
        return Ball(fence(self.mid - other.mid), self.rad + other.rad).rounded()

    @quiet
    def __mul__(self, other: "Ball") -> "Ball":
        """Entry by entry."""
        spread = abs(self.mid) * other.rad + self.rad * (abs(other.mid) + other.rad)
        return Ball(fence(self.mid * other.mid), raised(raised(spread))).rounded()

    @quiet
    def __matmul__(self, other: "Ball") -> "Ball":
        """|fl(X Y) - X Y| <= gamma_k |X| |Y| entry by entry, on top of what the radii contribute."""
        x, y = self, other
        terms = x.mid.shape[-1]
        rounding = gamma(terms, x.mid)
        inner = y.rad + rounding * abs(y.mid) + tiny(x.mid)
        spread = dot(abs(x.mid), inner) + dot(x.rad, abs(y.mid) + y.rad + tiny(x.mid))
        radius = spread * (1 + 4 * rounding) + (4 * terms + 4) * tiny(x.mid)
        return Ball(fence(dot(x.mid, y.mid)), raised(radius))


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
    return Interval(total(terms.lower, axis).lower, total(terms.upper, axis).upper)


@quiet
def sum_of_squares(matrix: Any) -> tuple[Interval, Any]:
    """||M / s||_F^2 and the power of two s, for a matrix of any scale."""
    scale = power_of_two(matrix)
    scaled = fence(matrix * (1 / scale))
    rows = fence(namespace(matrix).sum(scaled * scaled, axis=-1))
    inside = gamma(matrix.shape[-1] + 2, matrix)
    slack = (16 * matrix.size + 16) * tiny(matrix)
    whole = total(rows)
    return Interval.around(
        whole.lower * (1 - inside) - slack, whole.upper * (1 + 2 * inside) + slack
    ).nonnegative(), scale


def frobenius(matrix: Ball) -> Interval:
    """||M||_F."""
    square, scale = sum_of_squares(matrix.mid)
    return fuzzy(square.sqrt() * Interval.exact(scale), matrix.rad)


def fuzzy(norm: Interval, radius: Any) -> Interval:
    """A norm of at most the Frobenius norm, of `mid`, made one of every matrix within `rad`."""
    square, scale = sum_of_squares(radius)
    spread = (square.sqrt() * Interval.exact(scale)).upper
    return Interval.around(norm.lower - spread, norm.upper + spread).nonnegative()


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
