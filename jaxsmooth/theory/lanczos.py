"""The largest eigenvalue of many positive semidefinite matrices at once, each applied to a vector of its own."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

FIRST = 8  # steps before the first test for the end; later tests come every 4 steps, then every quarter of the steps
# Where to look next between two bounds, as a share of their distance from the lower one; the lower one is usually
# far nearer, at the square of the distance of the upper one, and halving is the worst case.
SHARES = (0.5, 0.25, 0.125, 2.0**-6, 2.0**-12, 2.0**-20, 2.0**-30, 2.0**-45)
ROUNDS = 60


class _Lanczos(NamedTuple):
    now: Array  # [N K], the last basis vector
    before: Array  # [N K], the one before it
    diagonal: Array  # [M N], alpha_1 ...
    coupling: Array  # [M N], beta_1 ...
    steps: Array
    value: Array  # [N]
    done: Array  # [N]


def largest_eigenvalues(
    apply: Callable[[Array], Array],
    start: Float[Array, "K"],
    trace: Float[Array, "N"],
    *,
    tolerance: float,
    max_steps: int = 600,
) -> Float[Array, "N"]:
    """Largest eigenvalue of N positive semidefinite matrices by Lanczos's three-term recurrence, nothing kept.

    Without reorthogonalisation eigenvalues are found again and again, which costs steps and spoils nothing: every
    Ritz value stays within rounding of the spectrum (Paige), and only the largest is asked for. Memory is that of
    two vectors. A matrix is done, and its value frozen, when the residual
    of its eigenpair, beta_k times the last entry of the tridiagonal matrix's eigenvector, is at most
    `tolerance * value`: so the result does not depend on the other matrices.

    Args:
      apply: every matrix times its own vector, [N K] -> [N K].
      start: not orthogonal to any eigenvector sought, [K].
      trace: the traces of the matrices, for scaling, [N]; with 0 the matrix is taken to be zero.
      tolerance: residual over value at which to stop.
      max_steps: at most so many applications.

    Returns:
      [N], lower estimates.

    >>> import jax.numpy as jnp
    >>> diagonals = jnp.array([[9.0, 16.0], [0.0, 0.0]])
    >>> largest_eigenvalues(lambda v: diagonals * v, jnp.ones(2), diagonals.sum(1), tolerance=1e-6).round(4)
    Array([16.,  0.], dtype=float32)

    References: Paige (1976), Error analysis of the Lanczos algorithm for tridiagonalizing a symmetric matrix.
    """
    count, dtype = trace.shape[0], trace.dtype
    # Scaled to traces of 1: squares of what is left neither overflow nor vanish.
    scale = jnp.where(trace > 0, 1 / jnp.where(trace > 0, trace, 1), 0)[:, None]
    floor = 8 * jnp.finfo(dtype).eps
    unit = jnp.broadcast_to(start / jnp.linalg.norm(start), (count, start.shape[0]))
    empty = jnp.zeros((max_steps, count), dtype)
    state = _Lanczos(unit, 0 * unit, empty, empty, jnp.int32(0), jnp.zeros(count, dtype), jnp.zeros(count, bool))

    def step(k: Array, state: _Lanczos) -> _Lanczos:
        image = apply(state.now) * scale
        own = jnp.sum(image * state.now, axis=1)
        last = jnp.where(k > 0, state.coupling[k - 1], 0)
        rest = image - own[:, None] * state.now - last[:, None] * state.before
        norm = jnp.linalg.norm(rest, axis=1)
        # Rounding noise: the space is exhausted, and so is what there was to find in it.
        norm = jnp.where(norm > floor, norm, 0)
        following = jnp.where(norm[:, None] > 0, rest / jnp.where(norm > 0, norm, 1)[:, None], 0)
        diagonal, coupling = state.diagonal.at[k].set(own), state.coupling.at[k].set(norm)
        return state._replace(now=following, before=state.now, diagonal=diagonal, coupling=coupling)

    def cycle(state: _Lanczos) -> _Lanczos:
        more = jnp.where(state.steps == 0, FIRST, jnp.maximum(4, state.steps // 4))
        steps = jnp.minimum(state.steps + more, max_steps)
        state = jax.lax.fori_loop(state.steps, steps, step, state)
        value, residual = largest_of_tridiagonal(state.diagonal, state.coupling, steps)
        value = jnp.where(state.done, state.value, value)
        return state._replace(steps=steps, value=value, done=state.done | (residual <= tolerance * value))

    def unfinished(state: _Lanczos) -> Array:
        return jnp.logical_not(jnp.all(state.done)) & (state.steps < max_steps)

    return jax.lax.while_loop(unfinished, cycle, state).value * trace


def largest_of_tridiagonal(
    diagonal: Float[Array, "M N"], coupling: Float[Array, "M N"], size: Array
) -> tuple[Float[Array, "N"], Float[Array, "N"]]:
    """Largest eigenvalue of N positive semidefinite tridiagonal matrices, and what Lanczos's residual is there.

    The pivots d_j(x) = x - alpha_j - beta_j^2 / d_j+1(x), from the last row up, are all positive if and only if x is
    above the spectrum. There x - d_1 / d_1' is the Rayleigh quotient of (x - T)^-1 e_1, a lower bound of the largest
    eigenvalue, quadratically close; so one sweep tightens both bounds. Copies of an eigenvalue, of which Lanczos
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
    eps, least = jnp.finfo(diagonal.dtype).eps, jnp.finfo(diagonal.dtype).tiny ** 0.25
    rows = jnp.arange(diagonal.shape[0], dtype=size.dtype)[:, None]
    inside = jnp.where(rows < size - 1, coupling, 0)
    above = jnp.concatenate([jnp.zeros_like(coupling[:1]), inside[:-1]])
    # Gershgorin's discs, a little wider than rounding.
    bound = jnp.max(jnp.where(rows < size, diagonal + inside + above, 0), axis=0)
    upper = bound * (1 + 16 * eps) + least

    def sweep(x: Array) -> tuple[Array, Array, Array]:
        """At points [P N]: -inf or the Rayleigh quotient, and the last entry and squared norm of its vector."""

        def row(i: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
            pivot, slope, last, positive = state
            j = size - 1 - i
            ratio = inside[j][None] / pivot
            found = x - diagonal[j][None] - ratio * inside[j][None]
            return jnp.maximum(found, least), 1 + ratio * ratio * slope, last * ratio, positive & (found > 0)

        found = x - diagonal[size - 1][None]
        start = jnp.maximum(found, least), jnp.ones_like(x), jnp.ones_like(x), found > 0
        pivot, slope, last, positive = jax.lax.fori_loop(1, size, row, start)
        return jnp.where(positive, x - pivot / slope, -jnp.inf), last, slope

    value, high = enclose_largest(lambda points: sweep(points)[0], upper)
    _, last, norm = sweep(high[None])
    return value, jnp.take(coupling, size - 1, axis=0) * last[0] / jnp.sqrt(norm[0])


def enclose_largest(quotients: Callable[[Array], Array], upper: Float[Array, "N"]) -> tuple[Array, Array]:
    """Two bounds within rounding of the largest eigenvalue of N positive semidefinite matrices.

    Args:
      quotients: at points [P N]: -inf where the point is not above the spectrum, else some Rayleigh quotient there,
        the closer to the largest eigenvalue the closer the point is.
      upper: above the spectra, [N].

    Returns:
      `(low, high)`, [N] each; `high` is above the spectrum.
    """
    eps, shares = jnp.finfo(upper.dtype).eps, jnp.asarray(SHARES, upper.dtype)[:, None]

    def tighten(state: tuple[Array, ...]) -> tuple[Array, ...]:
        low, high, rounds = state
        points = jnp.concatenate([high[None], low[None] + shares * (high - low)[None]])
        found = quotients(points)
        below = jnp.isneginf(found)
        low = jnp.maximum(low, jnp.max(jnp.where(below, points, found), axis=0))
        high = jnp.min(jnp.where(below, high[None], points), axis=0)
        return jnp.minimum(low, high), high, rounds + 1

    def apart(state: tuple[Array, ...]) -> Array:
        low, high, rounds = state
        return jnp.any(high - low > 4 * eps * high) & (rounds < ROUNDS)

    first: tuple[Array, ...] = (jnp.zeros_like(upper), upper, jnp.int32(0))
    low, high, _ = jax.lax.while_loop(apart, tighten, first)
    return low, high
