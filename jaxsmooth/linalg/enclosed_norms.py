"""Spectral norms enclosed from both sides: by matrix products alone under jit, by a checked SVD on the host."""

from typing import Any

import jax
import numpy as np

from .intervals import Ball, Interval, dot, fence, frobenius, gamma, namespace, power_of_two, quiet, raised, tiny

SQUARINGS = 10


def squared_norm(matrix: Any, squarings: int = SQUARINGS) -> Interval:
    """||B|| by products alone: ||B||^2 <= ||(B B^T)^(2^k)||_F^(1/2^k), and >= |B^T v|^2 / |v|^2.

    Every squaring is normalised by a power of two and its rounding error carried along. The upper end exceeds the
    norm by a factor of at most rank^(1/2^(k+2)) besides rounding; v, the largest column of the power, needs no
    accuracy of its own. Runs on device, in any batch that `jax.vmap` makes.

    Args:
      matrix: [rows, columns], numpy or jax.
      squarings: k.

    Returns:
      An `Interval`.

    >>> import numpy as np
    >>> found = squared_norm(np.diag([3.0, 1.0]))
    >>> bool(found.lower <= 3 <= found.upper), bool(found.upper - found.lower < 1e-12)
    (True, True)
    """
    xp = namespace(matrix)
    if matrix.shape[0] > matrix.shape[1]:
        matrix = matrix.T
    scale = power_of_two(matrix)
    scaled = Ball.exact(fence(matrix * (1 / scale)))
    gram = scaled @ scaled.T
    power, bys, errors = _powers(_symmetric(gram.mid), squarings)
    bound = _size(power)
    bound = _unwound(bound, bys, errors)
    bound = raised(bound + _size(gram.rad))
    upper = Interval.around(bound, bound).sqrt().upper
    found = Interval(_rayleigh(scaled, power), upper).nonnegative() * Interval.exact(scale)
    return Interval(xp.where(xp.isnan(found.lower), 0, found.lower), found.upper).nonnegative()


@quiet
def decomposed_norm(matrix: Any) -> Interval:
    """||B|| from a computed B ~ U S V^T, none of which is trusted: host only, excess about 1e-13.

    ||B|| <= s_1 sqrt((1 + ||U^T U - I||_F)(1 + ||V V^T - I||_F)) + ||B - U S V^T||_F, and >= |u_1^T B| / |u_1|.

    Args:
      matrix: [rows, columns], numpy.

    Returns:
      An `Interval`; that of `squared_norm` where LAPACK gives up.

    References: Rump (2011), Verified bounds for singular values, for the idea.
    """
    try:
        scale = power_of_two(matrix)
        scaled = matrix * (1 / scale)
        u, s, v = np.linalg.svd(scaled, full_matrices=False)
    except np.linalg.LinAlgError:
        return squared_norm(matrix)
    left, middle, right = (Ball.exact(np.ascontiguousarray(x)) for x in (u, np.diag(s), v))
    rest = frobenius(Ball.exact(scaled) - left @ middle @ right)
    bound = Interval.exact(s.max()) * _unit_norm(left) * _unit_norm(right.T) + rest
    vector = left.T
    lower = frobenius(Ball(vector.mid[:1], vector.rad[:1]) @ Ball.exact(scaled)) / frobenius(
        Ball(vector.mid[:1], vector.rad[:1])
    )
    found = Interval(np.maximum(lower.lower, 0), bound.upper) * Interval.exact(scale)
    return Interval(np.where(np.isnan(found.lower), 0, found.lower), found.upper).nonnegative()


@quiet
def product_norm(left: Any, right: Any) -> Interval:
    """||A B|| of a tall A and a wide B from matrices of their common size: host only.

    With A ~ Q R, ||A B|| <= ||Q|| ||R B|| + ||A - Q R|| ||B||_F, and Q's norm is next to 1.

    Args:
      left: A, [rows, k], numpy.
      right: B, [k, columns].

    Returns:
      An `Interval`.
    """
    dtype = np.float64
    scales = [power_of_two(x) for x in (left, right)]
    a, b = (Ball.exact(np.asarray(x * (1 / s), dtype)) for x, s in zip((left, right), scales, strict=True))
    q, r = (Ball.exact(x) for x in np.linalg.qr(a.mid))
    small = r @ b
    inner = decomposed_norm(small.mid)
    upper = (Interval(inner.lower, inner.upper) + frobenius(Ball(0 * small.mid, small.rad))) * _unit_norm(q)
    upper = upper + frobenius(a - q @ r) * frobenius(b)
    vector = Ball.exact(q.mid @ np.linalg.svd(small.mid)[0][:, :1]).T
    lower = frobenius(vector @ a @ b) / frobenius(vector)
    found = Interval(np.where(np.isfinite(lower.lower), np.maximum(lower.lower, 0), 0), upper.upper)
    for scale in scales:
        found = found * Interval.exact(np.float64(scale))
    return found.nonnegative()


def _unit_norm(q: Ball) -> Interval:
    """||Q|| of nearly orthonormal columns: at most (1 + ||Q^T Q - I||_F)^(1/2)."""
    unit = Ball.exact(np.eye(q.mid.shape[1], dtype=q.mid.dtype))
    return (Interval.exact(q.mid.dtype.type(1)) + frobenius(q.T @ q - unit)).sqrt()


def _powers(power: Any, squarings: int) -> tuple[Any, Any, Any]:
    """G^(2^k) over powers of two; those, and the error of each step."""
    if namespace(power) is not np:

        def step(power: Any, _: None) -> tuple[Any, tuple[Any, Any]]:
            power, by, error = _square(power)
            return power, (by, error)

        power, (bys, errors) = jax.lax.scan(step, power, None, length=squarings)
        return power, bys, errors
    bys, errors = [], []
    for _ in range(squarings):
        power, by, error = _square(power)
        bys.append(by)
        errors.append(error)
    return power, bys, errors


def _unwound(bound: Any, bys: Any, errors: Any) -> Any:
    """||G|| from ||G^(2^k)||: at each step ||G||^2 = ||G^2|| <= (||fl(G^2 / by)|| + error) * by."""
    xp = namespace(bound)

    def step(bound: Any, factors: tuple[Any, Any]) -> tuple[Any, None]:
        by, error = factors
        return raised(xp.sqrt(raised(raised(bound + error) * by))), None

    if xp is not np:
        return jax.lax.scan(step, bound, (bys, errors), reverse=True)[0]
    for factors in zip(bys[::-1], errors[::-1], strict=True):
        bound, _ = step(bound, factors)
    return bound


def _size(matrix: Any) -> Any:
    """An upper bound of ||M||_F for entries of moderate size: squares may vanish, but not overflow."""
    xp = namespace(matrix)
    # Row by row: a sum of millions of terms has no digits to rely on in single precision, by the bound for any order.
    rows = fence(xp.sum(matrix * matrix, axis=-1))
    inside = (1 + 2 * gamma(matrix.shape[-1], matrix)) * (1 + 2 * gamma(matrix.shape[0], matrix))
    return raised(xp.sqrt(raised(xp.sum(rows) * inside + 16 * matrix.size * tiny(matrix))))


def _symmetric(matrix: Any) -> Any:
    """Of a computed product whose exact value is symmetric: no farther from it."""
    return fence(0.5 * matrix + 0.5 * matrix.T)


@quiet
def _square(power: Any) -> tuple[Any, Any, Any]:
    """G^2 over a power of two, that power, and how far the result is from the exact one in Frobenius norm."""
    size = power.shape[0]
    product = _symmetric(dot(power, power))
    by = power_of_two(product)
    norm = _size(power)
    slack = raised(norm * norm * (2 * gamma(size, power)) + 16 * size * size * tiny(power))
    return fence(product * (1 / by)), by, raised(slack * (1 / by) + 16 * size * size * tiny(power))


@quiet
def _rayleigh(matrix: Ball, power: Any) -> Any:
    """|v^T B| / |v| from below, v the column of the power with the largest diagonal entry."""
    xp = namespace(power)
    place = xp.argmax(xp.sum(power * xp.eye(power.shape[0], dtype=power.dtype), axis=0))
    row = jax.lax.dynamic_slice_in_dim(power, place, 1, axis=0) if xp is not np else power[int(place)][None]
    # An arbitrary vector: rounded here, exact from here on.
    vector = Ball.exact(fence(row))
    norm = frobenius(vector)
    found = (frobenius(vector @ matrix) / norm).lower
    return xp.where(norm.lower > 0, xp.maximum(found, 0), 0)
