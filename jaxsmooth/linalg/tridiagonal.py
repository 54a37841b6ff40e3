"""The largest eigenvalue of symmetric tridiagonal matrices, many at a time, by bisection and Newton's method."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

# Where to look next between two bounds besides where Newton's step leads, as a share of their distance from the lower
# one, which is usually far nearer, at the square of the distance of the upper one.
SHARES = (0.67, 0.33, 0.1, 0.01)
ROUNDS = 60  # at most so many sweeps


def largest_of_tridiagonal(
    diagonal: Float[Array, "M N"], coupling: Float[Array, "M N"], size: Array
) -> tuple[Float[Array, " N"], Float[Array, " N"]]:
    """Largest eigenvalue of N positive semidefinite tridiagonal matrices, and what Lanczos's residual is there.

    The pivots d_j(x) = x - alpha_j - beta_j^2 / d_j+1(x), from the last row up, are all positive if and only if x is
    above the spectrum. There x - d_1 / d_1' is the Rayleigh quotient of (x - T)^-1 e_1, a lower bound of the largest
    eigenvalue, and x - 1 / sum d_j' / d_j is Newton's step for the characteristic polynomial prod d_j, an upper one,
    both quadratically close; so one sweep tightens both bounds. Copies of an eigenvalue, of which Lanczos
    without reorthogonalisation makes many, do not slow it down. At the eigenvalue d_1' is the squared norm of the
    eigenvector whose first entry is 1.

    Args:
      diagonal: alpha, the first `size` rows in use.
      coupling: beta, beta_j between rows j and j + 1; beta_size couples to what is not in the matrix. After a
        coupling of 0 both are 0, as where Lanczos has exhausted its space.
      size: rows of the matrices, at least 1.

    Returns:
      `(value, residual)`, residual = beta_size |last entry of the unit eigenvector|.

    References: Parlett (1998), The Symmetric Eigenvalue Problem, sections 3.3, 4.6 and 7.9.
    """
    value, _, residual = _enclose(_Tridiagonal.of(diagonal, coupling, size))
    return value, residual


def vector_of_tridiagonal(diagonal: Float[Array, "M N"], coupling: Float[Array, "M N"]) -> Float[Array, "M N"]:
    """The eigenvectors of `largest_of_tridiagonal`, all rows in use, each with first entry 1.

    >>> import jax.numpy as jnp
    >>> vector_of_tridiagonal(jnp.array([[2.0], [2.0]]), jnp.array([[1.0], [7.0]])).round(3).T
    Array([[1., 1.]], dtype=float32)
    """
    matrix = _Tridiagonal.of(diagonal, coupling, jnp.int32(diagonal.shape[0]))
    _, high, _ = _enclose(matrix)

    def row(below: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        ratio = row[1] / below
        return jnp.maximum(high - row[0] - ratio * row[1], _least(high.dtype)), ratio

    # Every entry over the one before it; the last row's is 0 and is dropped.
    _, ratios = jax.lax.scan(row, jnp.ones_like(high), (matrix.diagonal, matrix.inside), reverse=True)
    return jnp.cumprod(jnp.concatenate([jnp.ones_like(ratios[:1]), ratios[:-1]]), axis=0)


def enclose_largest(
    bounds: Callable[[Array], tuple[Array, Array, Array]], upper: Float[Array, " N"]
) -> tuple[Float[Array, " N"], Float[Array, " N"], Float[Array, " N"]]:
    """Two bounds within rounding of the largest eigenvalue of N positive semidefinite matrices.

    Args:
      bounds: of points [P N] two bounds each: some Rayleigh quotient, or -inf where the point is not above the
        spectrum; and what is above the spectrum but for rounding where the point is, the point itself at worst. The
        closer to the largest eigenvalue the closer the point is. And a number that is wanted of the last point above
        the spectrum, so that the text of a sweep stands, and is compiled, once.
      upper: above the spectra, [N].

    Returns:
      `(low, high, wanted)`, [N] each; `high` is above the spectrum and `wanted` the number there, NaN where no point
      was above it.
    """
    eps, shares = jnp.finfo(upper.dtype).eps, jnp.asarray(SHARES, upper.dtype)[:, None]

    def tighten(state: tuple[Array, ...]) -> tuple[Array, ...]:
        low, high, guess, wanted, rounds = state
        points = jnp.concatenate([guess[None], low[None] + shares * (high - low)[None]])
        quotient, closer, found = bounds(points)
        below = jnp.isneginf(quotient)
        low = jnp.maximum(low, jnp.max(jnp.where(below, points, quotient), axis=0))
        # A guess becomes a bound only once it has been a point.
        guess = jnp.min(jnp.where(below, high[None], closer), axis=0)
        high = jnp.min(jnp.where(below, high[None], points), axis=0)
        last = jnp.logical_not(below) & (points == high[None])
        wanted = jnp.where(jnp.any(last, axis=0), jnp.max(jnp.where(last, found, -jnp.inf), axis=0), wanted)
        return jnp.minimum(low, high), high, jnp.minimum(guess, high), wanted, rounds + 1

    def unfinished(state: tuple[Array, ...]) -> Array:
        low, high, _, _, rounds = state
        return jnp.any(high - low > 4 * eps * high) & (rounds < ROUNDS)

    first: tuple[Array, ...] = (jnp.zeros_like(upper), upper, upper, jnp.full_like(upper, jnp.nan), jnp.int32(0))
    low, high, _, wanted, _ = jax.lax.while_loop(unfinished, tighten, first)
    return low, high, wanted


class _Tridiagonal(NamedTuple):
    diagonal: Array  # [M N], zero outside the matrix
    inside: Array  # [M N], from row to row; zero from the last row on
    outside: Array  # [N], from the last row to what is not in the matrix
    size: Array

    @classmethod
    def of(cls, diagonal: Array, coupling: Array, size: Array) -> "_Tridiagonal":
        rows = jnp.arange(diagonal.shape[0], dtype=size.dtype)[:, None]
        outside = jnp.take(coupling, size - 1, axis=0)
        return cls(jnp.where(rows < size, diagonal, 0), jnp.where(rows < size - 1, coupling, 0), outside, size)


class _Sweep(NamedTuple):
    """Elimination of x - T from the last row up: what is known at the first row."""

    pivot: Array  # d_1; NaN where x is not above the spectrum
    norm: Array  # d_1', the squared norm of the vector with first entry 1
    last: Array  # its last entry
    decay: Array  # the sum of d_j' / d_j, which is p' / p of the characteristic polynomial p


def _sweep(matrix: _Tridiagonal, x: Array) -> _Sweep:
    """At points [P N]."""

    def row(i: Array, found: _Sweep) -> _Sweep:
        j = matrix.size - 1 - i
        coupling = matrix.inside[j][None]
        ratio = coupling / found.pivot
        pivot = x - matrix.diagonal[j][None] - ratio * coupling
        pivot = jnp.where(pivot > 0, jnp.maximum(pivot, _least(x.dtype)), jnp.nan)
        norm = 1 + ratio * ratio * found.norm
        last = jnp.where(i == 0, 1, found.last * ratio)
        return _Sweep(pivot, norm, last, found.decay + norm / pivot)

    one = jnp.ones_like(x)
    return jax.lax.fori_loop(0, matrix.size, row, _Sweep(one, one, one, 0 * one))


def _enclose(matrix: _Tridiagonal) -> tuple[Array, Array, Array]:
    """Bounds [N] of the largest eigenvalue, within rounding, and Lanczos's residual at the upper one."""
    above = jnp.concatenate([jnp.zeros_like(matrix.inside[:1]), matrix.inside[:-1]])
    # Gershgorin's discs, a little wider than rounding.
    widest = jnp.max(matrix.diagonal + matrix.inside + above, axis=0)
    upper = widest * (1 + 16 * jnp.finfo(widest.dtype).eps) + _least(widest.dtype)

    def bounds(points: Array) -> tuple[Array, Array, Array]:
        found = _sweep(matrix, points)
        positive = jnp.logical_not(jnp.isnan(found.pivot))
        residual = matrix.outside[None] * found.last / jnp.sqrt(found.norm)
        return jnp.where(positive, points - found.pivot / found.norm, -jnp.inf), points - 1 / found.decay, residual

    return enclose_largest(bounds, upper)


def _least(dtype: DTypeLike) -> Array:
    return jnp.asarray(jnp.finfo(dtype).tiny, dtype) ** 0.25
