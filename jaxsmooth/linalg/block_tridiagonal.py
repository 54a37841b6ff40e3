"""The largest eigenvalue of many block tridiagonal matrices with 2 x 2 blocks, as block Lanczos makes them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .rows import reciprocal
from .tridiagonal import enclose_largest


class _Sweep(NamedTuple):
    """Elimination of x - T from the last block up; 2 x 2 matrices on the leading axes, [2 2 ...]."""

    pivot: Array  # Schur complement D_j
    squares: Array  # N_j, |v_j|^2 + |v_j+1|^2 + ... = v_j^T N_j v_j
    last: Array  # E_j, v_size = E_j v_j
    negative: Array  # eigenvalues below zero of the pivots so far: as many of T lie above x


def largest_of_block_tridiagonal(
    diagonal: Float[Array, "M 2 2 W"], coupling: Float[Array, "M 2 2 W"], size: Int[Array, " W"]
) -> tuple[Float[Array, " W"], Float[Array, " W"]]:
    """Largest eigenvalue of W positive semidefinite matrices T, and what block Lanczos's residual is there.

    T has A_1 ... A_size on its diagonal and B_j below A_j. The pivots D_j(x) = x - A_j - B_j^T D_j+1(x)^-1 B_j, from
    the last block up, are all positive definite if and only if x is above the spectrum. There the vector
    v_j+1 = D_j+1^-1 B_j v_j, begun with the eigenvector of D_1's smaller eigenvalue mu, has the Rayleigh quotient
    x - mu / |v|^2, a lower bound of the largest eigenvalue, quadratically close: one sweep tightens both bounds.

    Args:
      diagonal: A_j, symmetric, one matrix along the last axis; rows from `size` on are ignored.
      coupling: B_j; that of the last block couples to what is not in the matrix.
      size: blocks of each matrix, at least 1.

    Returns:
      `(value, residual)`, residual = |B_size v_size| for the unit eigenvector v.

    >>> import jax.numpy as jnp
    >>> blocks = jnp.zeros((3, 2, 2, 1)).at[0, :, :, 0].set(jnp.array([[2.0, 1.0], [1.0, 2.0]]))
    >>> value, residual = largest_of_block_tridiagonal(blocks, jnp.zeros_like(blocks), jnp.array([1]))
    >>> value.round(4), residual.round(4)
    (Array([3.], dtype=float32), Array([0.], dtype=float32))

    References: Parlett (1998), The Symmetric Eigenvalue Problem, sections 3.3, 4.6 and 7.9, for the scalar case.
    """
    scale, diagonal, coupling = _scaled(diagonal, coupling, size)

    outer = jnp.take_along_axis(coupling, size[None, None, None] - 1, axis=0)[0]

    def bounds(points: Array) -> tuple[Array, Array, Array]:
        found = _sweep(diagonal, coupling, size, points)
        smaller, vector = _smaller_eigenpair(found.pivot)
        square = _form(found.squares, vector)
        left = _times(outer[:, :, None], _times(found.last, vector[:, None]))
        residual = jnp.sqrt(jnp.sum(left**2, axis=(0, 1)) / square)
        return jnp.where(found.negative > 0, -jnp.inf, points - smaller / square), points, residual

    # Scaled to discs below 1, so that squares neither overflow nor vanish; 1 with a margin for rounding.
    value, _, residual = enclose_largest(bounds, jnp.full_like(scale, 1 + 16 * jnp.finfo(scale.dtype).eps))
    return value * scale, residual * scale


def eigenvalues_above(
    diagonal: Float[Array, "M 2 2 W"],
    coupling: Float[Array, "M 2 2 W"],
    size: Int[Array, " W"],
    bound: Float[Array, " W"],
) -> Int[Array, " W"]:
    """How many eigenvalues of each matrix lie above a number of its own: Sylvester's law of inertia.

    >>> import jax.numpy as jnp
    >>> blocks = jnp.zeros((3, 2, 2, 1)).at[0, :, :, 0].set(jnp.array([[2.0, 1.0], [1.0, 2.0]]))
    >>> eigenvalues_above(blocks, jnp.zeros_like(blocks), jnp.array([1]), jnp.array([2.0]))
    Array([1], dtype=int32)
    """
    scale, diagonal, coupling = _scaled(diagonal, coupling, size)
    return _sweep(diagonal, coupling, size, (bound * reciprocal(scale))[None]).negative[0]


def _sweep(diagonal: Array, coupling: Array, size: Array, x: Array) -> _Sweep:
    """At points x [S W]; every result [2 2 S W] or [S W]."""
    least = float(jnp.finfo(diagonal.dtype).tiny) ** 0.25
    eye = jnp.broadcast_to(jnp.eye(2, dtype=x.dtype)[:, :, None, None], (2, 2, *x.shape))

    def block(i: Array, state: _Sweep) -> _Sweep:
        j = jnp.max(size) - 1 - i
        here, below = diagonal[j][:, :, None], coupling[j][:, :, None]
        (first, side, second), _ = _factor(state.pivot, least)
        # D^-1 B through D = L diag(first, second) L^T, L = [[1, 0], [side, 1]].
        tail = (below[1] - side[None] * below[0]) / second[None]
        solved = jnp.stack([below[0] / first[None] - side[None] * tail, tail])
        started, inside = (jnp.broadcast_to((j < end)[None], x.shape) for end in (size, size - 1))
        more = inside[None, None]
        pivot = x[None, None] * eye - here - jnp.where(more, _times(jnp.swapaxes(below, 0, 1), solved), 0)
        squares = eye + jnp.where(more, _times(jnp.swapaxes(solved, 0, 1), _times(state.squares, solved)), 0)
        last = jnp.where(more, _times(state.last, solved), eye)
        negative = jnp.where(inside, state.negative, 0) + _factor(pivot, least)[1]
        new = _Sweep(pivot, squares, last, negative)
        return jax.tree.map(lambda one, old: jnp.where(jnp.broadcast_to(started, one.shape), one, old), new, state)

    state = _Sweep(eye, eye, eye, jnp.zeros(x.shape, jnp.int32))
    return jax.lax.fori_loop(0, jnp.max(size), block, state)


def _factor(pivot: Array, least: float) -> tuple[tuple[Array, Array, Array], Array]:
    """L diag(first, second) L^T of symmetric 2 x 2 matrices, and how many of first and second are below zero."""
    first = _away_from_zero(pivot[0, 0], least)
    side = pivot[0, 1] / first
    second = _away_from_zero(pivot[1, 1] - side * pivot[0, 1], least)
    return (first, side, second), (first < 0).astype(jnp.int32) + (second < 0).astype(jnp.int32)


def _away_from_zero(value: Array, least: float) -> Array:
    """Zero counts as below zero: x is then an eigenvalue of a trailing matrix, not above it."""
    return jnp.where(jnp.abs(value) < least, -least, value)


def _smaller_eigenpair(matrix: Array) -> tuple[Array, Array]:
    """The smaller eigenvalue of symmetric 2 x 2 matrices and its unit eigenvector, [2 ...]."""
    a, b, c = matrix[0, 0], matrix[0, 1], matrix[1, 1]
    root = jnp.hypot((a - c) / 2, b)
    # The longer of the two rows of the adjugate.
    vector = jnp.where(a >= c, jnp.stack([-b, (a - c) / 2 + root]), jnp.stack([(c - a) / 2 + root, -b]))
    length = jnp.linalg.norm(vector, axis=0, keepdims=True)
    unit = jnp.where(length > 0, vector / jnp.where(length > 0, length, 1), jnp.full_like(vector, 0.5**0.5))
    return (a + c) / 2 - root, unit


def _form(matrix: Array, vector: Array) -> Array:
    return jnp.sum(vector[:, None] * matrix * vector[None], axis=(0, 1))


def _times(left: Array, right: Array) -> Array:
    """Products of 2 x 2 matrices on leading axes, elementwise over the others."""
    return jnp.sum(left[:, :, None] * right[None], axis=1)


def _scaled(diagonal: Array, coupling: Array, size: Array) -> tuple[Array, Array, Array]:
    """Divided by the largest sum of absolute values of a row of [T; B_size], not below any eigenvalue (Gershgorin)."""
    inner = jnp.abs(coupling).sum(2)
    before = jnp.concatenate([jnp.zeros_like(inner[:1]), inner[:-1]])
    rows = jnp.abs(diagonal).sum(2) + before + jnp.abs(coupling).sum(1)
    used = jnp.arange(diagonal.shape[0], dtype=size.dtype)[:, None, None] < size[None, None]
    scale = jnp.max(jnp.where(used, rows, 0), axis=(0, 1))
    unit = reciprocal(scale)[None, None, None]
    return scale, diagonal * unit, coupling * unit
