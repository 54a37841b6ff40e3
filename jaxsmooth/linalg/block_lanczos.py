"""The largest eigenvalue of many operators of one shape: a few at a time, the next as soon as one is done."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .block_tridiagonal import eigenvalues_above, largest_of_block_tridiagonal
from .lanczos import Eigenvalue, orthonormal_rows


class _Lanes(NamedTuple):
    turn: Array  # [W], which operator each lane works on; the number of operators once there is no more
    following: Array  # the operator that is next
    now: Array  # [W 2 ...], the last two basis vectors
    before: Array  # [W 2 ...], the two before them
    diagonal: Array  # [M 2 2 W], the operator between the two of a pair
    coupling: Array  # [M 2 2 W], and from a pair to the next
    size: Array  # [W], pairs so far
    found: Eigenvalue  # [B] each


def block_lanczos(
    apply: Callable[[Any, Array], Array],
    operators: Any,
    starts: Float[Array, "B 2 ..."],
    *,
    tolerance: float,
    lanes: int,
    max_steps: int = 600,
) -> Eigenvalue:
    """Lanczos with blocks of two for B operators, W at a time; a lane that has converged takes the next at once.

    Mapping `largest_eigenvalue` over B operators instead would wait for the slowest of them. What is found does not
    depend on the neighbours. An eigenvector is missed only if both starts are orthogonal to it. Nothing is kept but
    two pairs of vectors: without reorthogonalisation eigenvalues are found again and again, which costs steps and
    spoils nothing when only the largest is asked for (Paige).

    Args:
      apply: `apply(operator, vector)`, symmetric positive semidefinite, on vectors of the starts' shape.
      operators: a pytree whose leaves have a leading axis B.
      starts: two starting vectors each, [B 2 ...].
      tolerance: relative error to stop at. A residual of at most tolerance * value will do, as some eigenvalue
        lies within it; so will 5 times that if residual^2 over the gap to the next Ritz value is half of it.
      lanes: W, how many are worked on at once.
      max_steps: at most about this many applications for each.

    Returns:
      An `Eigenvalue` of arrays [B].

    >>> import jax.numpy as jnp
    >>> spectra = jnp.array([[1.0, 4.0, 2.0], [3.0, 0.0, 1.0]])
    >>> starts = jnp.array([[[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]] * 2)
    >>> block_lanczos(jnp.multiply, spectra, starts, tolerance=1e-6, lanes=1).value.round(4)
    Array([4., 3.], dtype=float32)

    References: Golub and Underwood (1977), The block Lanczos method; Paige (1976) for what rounding does to it.
    """
    count, dtype = starts.shape[0], starts.dtype
    width, most = min(lanes, count), max(1, max_steps // 2)
    own_lane = jnp.arange(width)
    # A look costs time in proportion to the size: after every pair at first, then at an eighth more, about.
    stride = [1 << max(0, size.bit_length() - 4) for size in range(most + 1)]
    tested = jnp.array([size % stride[size] == 0 or size == most for size in range(most + 1)])
    unseen = jnp.zeros(width, dtype), jnp.zeros(width, dtype), jnp.zeros(width, bool)

    def begin(turn: Array) -> Array:
        chosen = starts.at[turn].get(mode="fill", fill_value=0)
        return jax.vmap(lambda start: orthonormal_rows(start)[0])(chosen)

    def advance(state: _Lanes) -> _Lanes:
        """One pair of vectors more for every lane."""
        here = jax.tree.map(lambda leaf: leaf.at[state.turn].get(mode="clip"), operators)
        images = jax.vmap(lambda one, pair: jax.vmap(lambda v: apply(one, v))(pair))(here, state.now)
        last = state.coupling.at[state.size - 1, :, :, own_lane].get(mode="clip")
        rows, own, inner = jax.vmap(_three_terms)(images, state.now, state.before, last)
        place = state.size, slice(None), slice(None), own_lane
        diagonal, coupling = state.diagonal.at[place].set(own), state.coupling.at[place].set(inner)
        return state._replace(now=rows, before=state.now, diagonal=diagonal, coupling=coupling, size=state.size + 1)

    def look(diagonal: Array, coupling: Array, size: Array) -> tuple[Array, Array, Array]:
        """Largest Ritz values, their residuals, and whether they are near enough."""
        value, residual = largest_of_block_tridiagonal(diagonal, coupling, size)
        error = tolerance * value
        # The gap is seen too wide in a crowd, so it is not trusted alone.
        crowd = eigenvalues_above(diagonal, coupling, size, value - 2 * residual**2 / jnp.where(error > 0, error, 1))
        return value, residual, (residual <= error) | ((residual <= 5 * error) & (crowd <= 1))

    def cycle(state: _Lanes) -> _Lanes:
        state = advance(state)
        due = tested[state.size]
        value, residual, near = jax.lax.cond(
            jnp.any(due), look, lambda *_: unseen, state.diagonal, state.coupling, state.size
        )
        done = due & (near | (state.size >= most))
        now = Eigenvalue(value, residual, 2 * state.size)
        place = jnp.where(done, state.turn, count)
        found = jax.tree.map(lambda all_, new: all_.at[place].set(new, mode="drop"), state.found, now)
        # Lanes that are done take the next operators in their order.
        ahead = jnp.cumsum(done, dtype=jnp.int32)
        turn = jnp.where(done, jnp.minimum(state.following + ahead - 1, count), state.turn)
        fresh = done.reshape(-1, *(1,) * (starts.ndim - 1))
        return state._replace(
            turn=turn,
            following=jnp.minimum(state.following + ahead[-1], count),
            now=jnp.where(fresh, begin(turn), state.now),
            before=jnp.where(fresh, 0, state.before),
            size=jnp.where(done, 0, state.size),
            found=found,
        )

    first = jnp.arange(width, dtype=jnp.int32)
    nothing = jnp.zeros(count, dtype)
    state = _Lanes(
        turn=first,
        following=jnp.int32(width),
        now=begin(first),
        before=jnp.zeros((width, *starts.shape[1:]), dtype),
        diagonal=jnp.zeros((most, 2, 2, width), dtype),
        coupling=jnp.zeros((most, 2, 2, width), dtype),
        size=jnp.zeros(width, jnp.int32),
        found=Eigenvalue(nothing, nothing, jnp.zeros(count, jnp.int32)),
    )
    return jax.lax.while_loop(lambda state: jnp.any(state.turn < count), cycle, state).found


def _three_terms(images: Array, now: Array, before: Array, last: Array) -> tuple[Array, Array, Array]:
    """What of the images is new: A Q_j = Q_j-1 B_j-1^T + Q_j A_j + Q_j+1 B_j; gives Q_j+1, A_j, B_j.

    Args:
      images: A Q_j, [2 ...].
      now: Q_j, [2 ...].
      before: Q_j-1, zero at the start, [2 ...].
      last: B_j-1, [2 2].
    """
    shape, (images, now, before) = images.shape, (v.reshape(2, -1) for v in (images, now, before))
    floor = 8 * jnp.finfo(images.dtype).eps * jnp.max(jnp.linalg.norm(images, axis=1))
    own = now @ images.T
    rest = images - own.T @ now - last @ before
    again = now @ rest.T
    rows, inner = orthonormal_rows(rest - again.T @ now, floor)
    own = own + again
    return rows.reshape(shape), (own + own.T) / 2, inner
