"""The largest eigenvalue of many operators of one shape: a few at a time, the next as soon as one is done."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .jacobi import jacobi_eigh
from .spectrum import Eigenvalue, expand_basis, orthonormal_rows, restart_basis


class _Lanes(NamedTuple):
    turn: Array  # [W], which operator each lane works on; the number of operators once there is no more
    following: Array  # the operator that is next
    space: Array  # [W K+P ...]
    values: Array  # [W K]
    vectors: Array  # [W K K]
    steps: Array  # [W]
    found: Eigenvalue  # [B] each


def block_lanczos(
    apply: Callable[[Any, Array], Array],
    operators: Any,
    starts: Float[Array, "B P ..."],
    *,
    tolerance: float,
    lanes: int,
    basis: int,
    kept: int,
    max_steps: int = 600,
) -> Eigenvalue:
    """Block Lanczos for B operators, W at a time; a lane that has converged takes the next operator at once.

    Mapping `largest_eigenvalue` over B operators instead would wait for the slowest of them. What is found does not
    depend on the neighbours. With P starts an eigenvector is missed only if all of them are orthogonal to it.

    Args:
      apply: `apply(operator, vector)`, symmetric positive semidefinite, on vectors of the starts' shape.
      operators: a pytree whose leaves have a leading axis B.
      starts: P starting vectors each, [B P ...].
      tolerance: relative error to stop at. A residual of at most tolerance * value will do, as some eigenvalue
        lies within it; so will 5 times that if residual^2 over the gap to the next Ritz value is half of it.
      lanes: W, how many are worked on at once.
      basis: K, vectors that each lane keeps at once.
      kept: Ritz vectors that survive a restart; P divides `basis - kept`, the steps between tests for the end.
      max_steps: at most about this many applications for each.

    Returns:
      An `Eigenvalue` of arrays [B].

    >>> import jax.numpy as jnp
    >>> spectra = jnp.array([[1.0, 4.0, 2.0], [3.0, 0.0, 1.0]])
    >>> found = block_lanczos(
    ...     jnp.multiply, spectra, jnp.ones((2, 1, 3)), tolerance=1e-6, lanes=1, basis=3, kept=2)
    >>> found.value.round(4)
    Array([4., 3.], dtype=float32)
    """
    (count, block), dtype = starts.shape[:2], starts.dtype
    width = min(lanes, count)

    def begin(turn: Array) -> Array:
        """Bases with nothing but the starts, in the place of the vectors that continue the Krylov space."""
        chosen = starts.at[turn].get(mode="fill", fill_value=0)
        rows = jax.vmap(lambda start: orthonormal_rows(start)[0])(chosen)
        return jnp.zeros((width, basis + block, *starts.shape[2:]), dtype).at[:, basis:].set(rows)

    def cycle(state: _Lanes) -> _Lanes:
        here = jax.tree.map(lambda leaf: leaf.at[state.turn].get(mode="clip"), operators)
        own = jax.vmap(lambda space, values, vectors: restart_basis(space, values, vectors, kept))
        grow = jax.vmap(lambda one, space, projected: expand_basis(lambda v: apply(one, v), space, projected, kept))
        space, projected, coupling = grow(here, *own(state.space, state.values, state.vectors))
        values, vectors = jax.vmap(jacobi_eigh)(projected)
        steps = state.steps + basis - kept
        left = jnp.linalg.norm(jnp.einsum("wij,wj->wi", coupling, vectors[:, -block:, -1]), axis=1)
        now = Eigenvalue(values[:, -1], left, steps)
        done = _near(now, values[:, -1] - values[:, -2], tolerance) | (steps >= max_steps)
        place = jnp.where(done, state.turn, count)
        found = jax.tree.map(lambda all_, new: all_.at[place].set(new, mode="drop"), state.found, now)
        # Lanes that are done take the next operators in their order.
        ahead = jnp.cumsum(done, dtype=jnp.int32)
        turn = jnp.where(done, jnp.minimum(state.following + ahead - 1, count), state.turn)

        def fresh(new: Array, old: Array) -> Array:
            return jnp.where(done.reshape(-1, *(1,) * (old.ndim - 1)), new, old)

        return _Lanes(
            turn=turn,
            following=jnp.minimum(state.following + ahead[-1], count),
            space=fresh(begin(turn), space),
            values=fresh(jnp.zeros_like(values), values),
            vectors=fresh(jnp.zeros_like(vectors), vectors),
            steps=fresh(jnp.zeros_like(steps), steps),
            found=found,
        )

    first = jnp.arange(width, dtype=jnp.int32)
    nothing = jnp.zeros(count, dtype)
    state = _Lanes(
        turn=first,
        following=jnp.int32(width),
        space=begin(first),
        values=jnp.zeros((width, basis), dtype),
        vectors=jnp.zeros((width, basis, basis), dtype),
        steps=jnp.zeros(width, jnp.int32),
        found=Eigenvalue(nothing, nothing, jnp.zeros(count, jnp.int32)),
    )
    return jax.lax.while_loop(lambda state: jnp.any(state.turn < count), cycle, state).found


def _near(now: Eigenvalue, gap: Array, tolerance: float) -> Array:
    """Whether the value is near enough. The gap is seen too wide in a crowd, so it is not trusted alone."""
    error = tolerance * now.value
    return (now.residual <= error) | ((now.residual <= 5 * error) & (now.residual**2 <= 0.5 * error * gap))
