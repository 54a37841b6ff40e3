"""Three-term Lanczos for a batch: the largest eigenvalues of many positive semidefinite matrices at once."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .precision import einsum
from .tridiagonal import largest_of_tridiagonal, vector_of_tridiagonal

FIRST = 8  # steps before the first test of convergence; later ones come every 4 steps, then every quarter of the steps
LARGE = 2**20  # bytes of operators from which reading them less often is worth more to compile
SEARCH = 16  # steps in single precision that a search in double precision starts with
FEW = 8  # once at most one operator in so many is not done, the others are dropped


class _Vectors(NamedTuple):
    basis: Array  # [N K], the last basis vector
    previous: Array  # [N K], the one before it
    coupling: Array  # [N], beta between the two


class _Lanczos(NamedTuple):
    vectors: _Vectors
    diagonal: Array  # [M N], alpha_1 ...
    coupling: Array  # [M N], beta_1 ...
    steps: Array
    value: Array  # [N]
    done: Array  # [N]


def largest_eigenvalues_of_batch(
    apply: Callable[[Any, Array], Array],
    operators: Any,
    start: Float[Array, " K"],
    *,
    tolerance: float,
    max_steps: int = 600,
) -> Float[Array, " N"]:
    """Largest eigenvalue of N positive semidefinite operators by Lanczos's three-term recurrence, no basis stored.

    Without reorthogonalisation eigenvalues are found again and again, which costs steps but does no harm: every
    Ritz value stays within rounding of the spectrum (Paige), and only the largest is wanted. Memory is that of
    two vectors. An operator is done, and its value frozen, when the residual of its eigenpair, beta_k times the last
    entry of the tridiagonal matrix's eigenvector, is at most `tolerance * value`: so the result does not depend on the
    others. In double precision, where the operators are large, a few steps in single precision, at half the price,
    come first, and their Ritz vector is the start: value and residual are those of double precision all the same, and
    the error of the value is quadratic in that of the vector.

    Args:
      apply: `apply(operators, vectors)`, every operator on its own vector, [N K] -> [N K]; scaled to traces of about 1,
        as only what is above rounding next to 1 is found.
      operators: what `apply` needs of them, a pytree of floating-point arrays with a leading axis N.
      start: not orthogonal to any eigenvector sought, [K].
      tolerance: residual over value at which to stop.
      max_steps: at most so many applications.

    Returns:
      [N], lower estimates.

    >>> import jax.numpy as jnp
    >>> matrices = jnp.array([[[0.36, 0.0], [0.0, 0.64]], [[0.0, 0.0], [0.0, 0.0]]])
    >>> product = lambda matrices, v: jnp.einsum("nij,nj->ni", matrices, v)
    >>> largest_eigenvalues_of_batch(product, matrices, jnp.ones(2), tolerance=1e-6).round(4)
    Array([0.64, 0.  ], dtype=float32)

    References: Paige (1976), Error analysis of the Lanczos algorithm for tridiagonalizing a symmetric matrix.
    """
    leaves = jax.tree.leaves(operators)
    count, dtype = leaves[0].shape[0], start.dtype
    large = sum(leaf.nbytes for leaf in leaves) >= LARGE
    starts, first = jnp.broadcast_to(start, (count, *start.shape)), FIRST
    if large and dtype == jnp.float64:
        starts, first = ritz_vectors(apply, operators, start), 1
    empty = jnp.zeros((max_steps, count), dtype)
    state = _Lanczos(_begin(starts), empty, empty, jnp.int32(0), jnp.zeros(count, dtype), jnp.zeros(count, bool))
    search = functools.partial(_search, apply, first=first, tolerance=tolerance, max_steps=max_steps)
    few = count // FEW if large else 0
    state = search(operators, state, left=few)
    if not few:
        return state.value
    # Those that are left come first; the rest of `few` are done and stay as they are.
    chosen = jnp.argsort(state.done)[:few]
    rest = _Lanczos(
        vectors=jax.tree.map(lambda leaf: leaf[chosen], state.vectors),
        diagonal=state.diagonal[:, chosen],
        coupling=state.coupling[:, chosen],
        steps=state.steps,
        value=state.value[chosen],
        done=state.done[chosen],
    )
    left_over = search(jax.tree.map(lambda leaf: leaf[chosen], operators), rest, left=0)
    return state.value.at[chosen].set(left_over.value)


def _search(
    apply: Callable[[Any, Array], Array],
    operators: Any,
    state: _Lanczos,
    *,
    left: int,
    first: int,
    tolerance: float,
    max_steps: int,
) -> _Lanczos:
    """Iterate until at most `left` operators are not done; the first test comes after `first` steps."""

    def step(k: Array, state: _Lanczos) -> _Lanczos:
        vectors, own = _three_terms(apply(operators, state.vectors.basis), state.vectors)
        diagonal, coupling = state.diagonal.at[k].set(own), state.coupling.at[k].set(vectors.coupling)
        return state._replace(vectors=vectors, diagonal=diagonal, coupling=coupling)

    def cycle(state: _Lanczos) -> _Lanczos:
        more = jnp.where(state.steps < FIRST, FIRST, jnp.maximum(4, state.steps // 4))
        steps = jnp.minimum(state.steps + jnp.where(state.steps == 0, first, more), max_steps)
        state = jax.lax.fori_loop(state.steps, steps, step, state)
        value, residual = largest_of_tridiagonal(state.diagonal, state.coupling, steps)
        value = jnp.where(state.done, state.value, value)
        return state._replace(steps=steps, value=value, done=state.done | (residual <= tolerance * value))

    def unfinished(state: _Lanczos) -> Array:
        return (jnp.sum(jnp.logical_not(state.done)) > left) & (state.steps < max_steps)

    return jax.lax.while_loop(unfinished, cycle, state)


def ritz_vectors(
    apply: Callable[[Any, Array], Array], operators: Any, start: Float[Array, " K"]
) -> Float[Array, "N K"]:
    """Approximate eigenvectors of the largest eigenvalues, by a few steps of Lanczos in single precision.

    Args:
      apply: as in `largest_eigenvalues_of_batch`.
      operators: in double precision.
      start: in double precision, [K].

    Returns:
      [N K], not normalised, in double precision; the start where nothing is found or single precision overflows.
    """
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), operators)
    starts = jnp.broadcast_to(start, (jax.tree.leaves(operators)[0].shape[0], *start.shape))

    def step(vectors: _Vectors, _: None) -> tuple[_Vectors, tuple[Array, Array, Array]]:
        next_vectors, own = _three_terms(apply(single, vectors.basis), vectors)
        return next_vectors, (vectors.basis, own, next_vectors.coupling)

    _, (basis, diagonal, coupling) = jax.lax.scan(step, _begin(starts.astype(jnp.float32)), length=SEARCH)
    found = einsum("mn,mnk->nk", vector_of_tridiagonal(diagonal, coupling), basis).astype(start.dtype)
    usable = jnp.all(jnp.isfinite(found), axis=1) & jnp.any(found != 0, axis=1)
    return jnp.where(usable[:, None], found, starts)


def _begin(starts: Array) -> _Vectors:
    norms = jnp.linalg.norm(starts, axis=1)
    unit = starts / jnp.where(norms > 0, norms, 1)[:, None]
    return _Vectors(unit, 0 * unit, 0 * norms)


def _three_terms(images: Array, vectors: _Vectors) -> tuple[_Vectors, Array]:
    """A q_k = beta_k-1 q_k-1 + alpha_k q_k + beta_k q_k+1; gives q_k+1, with q_k and beta_k, and alpha_k."""
    own = jnp.sum(images * vectors.basis, axis=1)
    rest = images - own[:, None] * vectors.basis - vectors.coupling[:, None] * vectors.previous
    norm = jnp.linalg.norm(rest, axis=1)
    # Rounding noise: the Krylov space is exhausted.
    norm = jnp.where(norm > 8 * jnp.finfo(images.dtype).eps, norm, 0)
    unit = jnp.where(norm[:, None] > 0, rest / jnp.where(norm > 0, norm, 1)[:, None], 0)
    return _Vectors(unit, vectors.basis, norm), own
