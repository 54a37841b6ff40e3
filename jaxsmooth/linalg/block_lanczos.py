"""Batched block Lanczos with continuous refill of finished slots."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .block_tridiagonal import eigenvalues_above, largest_of_block_tridiagonal
from .lanczos import Eigenvalue, orthonormal_rows
from .norms import norm
from .precision import matmul


class _Slots(NamedTuple):
    """The searches in progress, one in each slot, and what the finished ones have found."""

    slot_operator: Array  # [W], which operator each slot works on; the number of operators once there is no more
    next_operator: Array  # the one that the next free slot takes
    basis: Array  # [W 2 ...], the last two basis vectors
    previous_basis: Array  # [W 2 ...], the two before them
    diagonal: Array  # [M 2 2 W], the operator between the two of a pair
    coupling: Array  # [M 2 2 W], and from a pair to the next
    size: Array  # [W], pairs so far
    free: Array  # [W], whether a slot's search is over
    found: Eigenvalue  # [B] each


def largest_eigenvalues_of_queue(
    apply: Callable[[Any, Array], Array],
    operators: Any,
    starts: Float[Array, "B 2 ..."],
    *,
    tolerance: float,
    slots: int,
    max_steps: int = 600,
) -> Eigenvalue:
    """Largest eigenvalue of B operators by Lanczos with blocks of two, W at a time; a free slot takes the next one.

    Mapping `largest_eigenvalue` over B operators instead would wait for the slowest of them. Every search is
    independent of the others. An eigenvector is missed only if both starts are orthogonal to it. Only the last two
    pairs of basis vectors are stored: without reorthogonalisation eigenvalues are found again and again, which costs
    steps but does no harm when only the largest is wanted (Paige).

    Args:
      apply: `apply(operator, vector)`, symmetric positive semidefinite, on vectors of the starts' shape.
      operators: a pytree whose leaves have a leading axis B.
      starts: two starting vectors each, [B 2 ...].
      tolerance: relative error to stop at. A residual of at most tolerance * value is enough, as some eigenvalue
        lies within it; so is 5 times that if residual^2 over the gap to the next Ritz value is half of it.
      slots: W, how many operators are worked on at once.
      max_steps: at most about this many applications for each.

    Returns:
      An `Eigenvalue` of arrays [B].

    >>> import jax.numpy as jnp
    >>> spectra = jnp.array([[1.0, 4.0, 2.0], [3.0, 0.0, 1.0]])
    >>> starts = jnp.array([[[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]] * 2)
    >>> largest_eigenvalues_of_queue(jnp.multiply, spectra, starts, tolerance=1e-6, slots=1).value.round(4)
    Array([4., 3.], dtype=float32)

    References: Golub and Underwood (1977), The block Lanczos method; Paige (1976) for the effect of rounding.
    """
    count, width, most = starts.shape[0], min(slots, starts.shape[0]), max(1, max_steps // 2)
    # A test costs time in proportion to the size: after every pair at first, then at an eighth more, about.
    stride = [1 << max(0, size.bit_length() - 4) for size in range(most + 1)]
    tested = jnp.array([size % stride[size] == 0 or size == most for size in range(most + 1)])
    unknown = jnp.zeros(width, starts.dtype), jnp.zeros(width, starts.dtype), jnp.zeros(width, bool)

    def test(diagonal: Array, coupling: Array, size: Array) -> tuple[Array, Array, Array]:
        return _test(diagonal, coupling, size, tolerance)

    # Of all at once, as their text, which is long, then stands here alone.
    bases = jax.vmap(lambda pair: orthonormal_rows(pair)[0])(starts)

    def cycle(state: _Slots) -> _Slots:
        state = _extend(apply, operators, _refill(state, bases))
        due = tested[state.size]
        value, residual, near = jax.lax.cond(
            jnp.any(due), test, lambda *_: unknown, state.diagonal, state.coupling, state.size
        )
        free = due & (near | (state.size >= most))
        place = jnp.where(free, state.slot_operator, count)
        latest = Eigenvalue(value, residual, 2 * state.size)
        found = jax.tree.map(lambda all_, new: all_.at[place].set(new, mode="drop"), state.found, latest)
        return state._replace(free=free, found=found)

    def unfinished(state: _Slots) -> Array:
        return (state.next_operator < count) | jnp.any(jnp.logical_not(state.free) & (state.slot_operator < count))

    return jax.lax.while_loop(unfinished, cycle, _free_slots(starts, width, most)).found


def _free_slots(starts: Array, width: int, most: int) -> _Slots:
    """W slots before they have taken an operator."""
    nothing, empty = jnp.zeros(starts.shape[0], starts.dtype), jnp.zeros((width, *starts.shape[1:]), starts.dtype)
    return _Slots(
        slot_operator=jnp.zeros(width, jnp.int32),
        next_operator=jnp.int32(0),
        basis=empty,
        previous_basis=empty,
        diagonal=jnp.zeros((most, 2, 2, width), starts.dtype),
        coupling=jnp.zeros((most, 2, 2, width), starts.dtype),
        size=jnp.zeros(width, jnp.int32),
        free=jnp.ones(width, bool),
        found=Eigenvalue(nothing, nothing, jnp.zeros(starts.shape[0], jnp.int32)),
    )


def _extend(apply: Callable[[Any, Array], Array], operators: Any, state: _Slots) -> _Slots:
    """One more pair of basis vectors in every slot."""
    slot = jnp.arange(state.size.shape[0])
    here = jax.tree.map(lambda leaf: leaf.at[state.slot_operator].get(mode="clip"), operators)
    images = jax.vmap(lambda one, pair: jax.vmap(lambda v: apply(one, v))(pair))(here, state.basis)
    last = state.coupling.at[state.size - 1, :, :, slot].get(mode="clip")
    rows, own, inner = jax.vmap(_three_terms)(images, state.basis, state.previous_basis, last)
    place = state.size, slice(None), slice(None), slot
    diagonal, coupling = state.diagonal.at[place].set(own), state.coupling.at[place].set(inner)
    return state._replace(
        basis=rows, previous_basis=state.basis, diagonal=diagonal, coupling=coupling, size=state.size + 1
    )


def _test(diagonal: Array, coupling: Array, size: Array, tolerance: float) -> tuple[Array, Array, Array]:
    """Largest Ritz values, their residuals, and whether they are near enough."""
    value, residual = largest_of_block_tridiagonal(diagonal, coupling, size)
    error = tolerance * value
    # In a cluster the gap between Ritz values is larger than that of the eigenvalues, so it is not trusted alone.
    bound = value - 2 * residual * (residual / jnp.where(error > 0, error, 1))
    near_value = eigenvalues_above(diagonal, coupling, size, bound)
    return value, residual, (residual <= error) | ((residual <= 5 * error) & (near_value <= 1))


def _refill(state: _Slots, bases: Array) -> _Slots:
    """Free slots take the next operators in their order; where there is none left, vectors of zeros."""
    count = bases.shape[0]
    taken = jnp.cumsum(state.free, dtype=jnp.int32)
    slot_operator = jnp.where(state.free, jnp.minimum(state.next_operator + taken - 1, count), state.slot_operator)
    fresh = state.free.reshape(-1, *(1,) * (bases.ndim - 1))
    return state._replace(
        slot_operator=slot_operator,
        next_operator=jnp.minimum(state.next_operator + taken[-1], count),
        basis=jnp.where(fresh, bases.at[slot_operator].get(mode="fill", fill_value=0), state.basis),
        previous_basis=jnp.where(fresh, 0, state.previous_basis),
        size=jnp.where(state.free, 0, state.size),
    )


def _three_terms(images: Array, basis: Array, previous: Array, last: Array) -> tuple[Array, Array, Array]:
    """One step of the block recurrence A Q_j = Q_j-1 B_j-1^T + Q_j A_j + Q_j+1 B_j: gives Q_j+1, A_j, B_j.

    Args:
      images: A Q_j, [2 ...].
      basis: Q_j, [2 ...].
      previous: Q_j-1, zero at the start, [2 ...].
      last: B_j-1, [2 2].
    """
    shape, (images, basis, previous) = images.shape, (v.reshape(2, -1) for v in (images, basis, previous))
    floor = 8 * jnp.finfo(images.dtype).eps * jnp.max(norm(images))
    own = matmul(basis, images.T)
    rest = images - matmul(own.T, basis) - matmul(last, previous)
    again = matmul(basis, rest.T)
    # Of a vector that is nearly the other's multiple little is left, and not orthogonal to the basis any more: the
    # recurrence would be off by the rounding over what is left, far more than by rounding.
    rows, inner = orthonormal_rows(rest - matmul(again.T, basis), floor, basis)
    own = own + again
    return rows.reshape(shape), (own + own.T) / 2, inner
