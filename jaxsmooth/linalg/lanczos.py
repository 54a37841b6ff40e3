"""Thick-restarted Lanczos: the largest eigenvalue of a symmetric operator that is only applied, never formed."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from ..errors import arguments_checked
from .batched_lanczos import largest_eigenvalues_of_batch
from .eigh import jacobi_eigh
from .norms import binary_size, norm, quotient
from .precision import at_least_float32, einsum, matmul
from .rows import reciprocal
from .singular import largest_singular_pair

BASIS = 10  # vectors stored: memory is BASIS + 1 times one vector
KEPT = 6  # Ritz vectors that survive a restart: convergence is tested every BASIS - KEPT steps
LARGEST_CONSTANT = 2**16  # numbers of a start vector that may be a constant of a program
PORTION = 3 * 2**20  # bytes of matrices that are worked on at the same time


class Eigenvalue(NamedTuple):
    """A computed eigenvalue, never larger than the true one beyond rounding.

    Attributes:
      value: the Ritz value, a LOWER estimate of the largest eigenvalue.
      residual: ||A v - value v|| of its unit Ritz vector; some eigenvalue lies within it.
      steps: applications of the operator.
    """

    value: Float[Array, ""]
    residual: Float[Array, ""]
    steps: Int[Array, ""]


class _Krylov(NamedTuple):
    basis: Array  # [BASIS + 1, ...], orthonormal rows, or zero; the last continues the Krylov space
    values: Array  # [BASIS], Ritz values, ascending
    vectors: Array  # [BASIS, BASIS], Ritz vectors in that basis, in columns
    result: Eigenvalue


@arguments_checked
def largest_eigenvalue(
    apply: Callable[[Array], Array], start: Float[Array, "..."], *, tolerance: float, max_steps: int = 600
) -> Eigenvalue:
    """Largest eigenvalue of a symmetric positive semidefinite operator, by thick-restarted Lanczos.

    Every new vector is orthogonalised twice against the whole basis, so no eigenvalue is found twice and
    the accuracy does not decay with the steps. Made for `jax.vmap`: an element of the batch that has converged is
    frozen, so its result does not depend on the others. Stops when the residual is at most `tolerance * value`; the
    error is then usually of the order of residual^2 / gap, but a sharper stop by that estimate trusts a gap that a
    cluster of eigenvalues makes look wider than it is.

    Args:
      apply: the operator, a function of arrays of `start`'s shape.
      start: starting vector, any shape; must not be orthogonal to the eigenvector sought. A zero start
        gives value 0.
      tolerance: residual over value at which to stop.
      max_steps: at most about this many applications.

    Returns:
      An `Eigenvalue`, a lower estimate whose residual is returned with it, in float32 at least. Operators as small as
      1e-20 or as large as 1e20 are no less accurate. The value's derivative with respect to what `apply` is made of is
      x^T dA x, x its unit eigenvector, which is held; a repeated eigenvalue has none, and gets that of the x found. Its
      error is of the size of residual / gap. The start, the residual and the steps have the derivative 0.

    >>> import jax.numpy as jnp
    >>> found = largest_eigenvalue(lambda v: v * jnp.array([1.0, 4.0, 2.0]), jnp.ones(3), tolerance=1e-6)
    >>> round(float(found.value), 4)
    4.0

    References: Wu and Simon (2000), Thick-restart Lanczos method for large symmetric eigenvalue problems;
    Parlett (1998), The Symmetric Eigenvalue Problem, chapters 11 and 13.
    """
    if jnp.finfo(start.dtype).bits < 32:
        narrow, image, start = start.dtype, apply, start.astype(jnp.float32)
        apply = lambda v: image(v.astype(narrow)).astype(jnp.float32)  # noqa: E731
    # The operator is held during the search, whose loop has no derivative in reverse.
    state = _search(lambda v: jax.lax.stop_gradient(apply(v)), jax.lax.stop_gradient(start), tolerance, max_steps)
    vector = _vector(state)
    # Every restart adds its rounding to the values that it carries on; the quotient of the vector found has its own
    # alone, and the derivative that the value has.
    value = quotient(jnp.sum(vector * apply(vector)), jnp.sum(vector * vector), 0)
    return state.result._replace(value=value)


def largest_eigenvector(
    apply: Callable[[Array], Array], start: Float[Array, "..."], *, tolerance: float, max_steps: int = 600
) -> Float[Array, "..."]:
    """A unit eigenvector of the largest eigenvalue, as `largest_eigenvalue` finds it; zero of a zero start.

    >>> import jax.numpy as jnp
    >>> abs(largest_eigenvector(lambda v: v * jnp.array([1.0, 4.0]), jnp.ones(2), tolerance=1e-6)).round(3).tolist()
    [0.0, 1.0]
    """
    return _vector(_search(apply, start, tolerance, max_steps))


def _vector(state: "_Krylov") -> Array:
    basis = state.basis[: state.values.size]
    return matmul(state.vectors[:, -1], basis.reshape(len(basis), -1)).reshape(basis.shape[1:])


def _search(apply: Callable[[Array], Array], start: Array, tolerance: float, max_steps: int) -> "_Krylov":
    """Until the largest Ritz value is near enough; its vector in the basis is the last of `vectors`."""
    # A basis wider than the space would be filled up with rounding errors.
    size = min(BASIS, start.size)
    kept = min(KEPT, size - 1)
    # The first cycle is like any other, with zeros in the place of the Ritz vectors that are kept: the loop's body,
    # the only large thing to compile, then occurs once.
    basis = jnp.zeros((size + 1, *start.shape), start.dtype).at[size:].set(orthonormal_rows(start[None])[0])
    zero = jnp.zeros((), start.dtype)
    unknown = Eigenvalue(value=zero, residual=zero + jnp.inf, steps=jnp.zeros((), jnp.int32))
    state = _Krylov(basis, jnp.zeros(size, start.dtype), jnp.zeros((size, size), start.dtype), unknown)

    def unfinished(state: _Krylov) -> Array:
        tight = state.result.residual <= tolerance * state.result.value
        return jnp.logical_not(tight) & (state.result.steps < max_steps)

    def cycle(state: _Krylov) -> _Krylov:
        basis, projected, coupling = expand_basis(
            apply, *restart_basis(state.basis, state.values, state.vectors, kept), kept
        )
        values, vectors = jacobi_eigh(projected)
        residual = jnp.abs(coupling[0, 0] * vectors[-1, -1])
        return _Krylov(basis, values, vectors, Eigenvalue(values[-1], residual, state.result.steps + size - kept))

    return jax.lax.while_loop(unfinished, cycle, state)


@at_least_float32
def spectral_norm(matrix: Float[Array, "*B rows columns"], *, tolerance: float | None = None) -> Float[Array, "*B"]:
    """Largest singular value of each matrix, by Lanczos on its smaller Gram matrix.

    Args:
      matrix: [..., rows, columns].
      tolerance: relative residual at which Lanczos stops; by default as `mixing_rate`.

    Returns:
      [...]; a lower estimate, usually far closer than the tolerance, less close when the largest eigenvalues are so
      near each other that the step limit ends the search.

    >>> import jax.numpy as jnp
    >>> round(float(spectral_norm(jnp.array([[3.0, 0.0], [0.0, -4.0]]))), 4)
    4.0
    """
    return _spectral_norm(tolerance, matrix)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _spectral_norm(tolerance: float | None, matrix: Array) -> Array:
    size = binary_size(matrix, (-2, -1))
    matrix = matrix / size
    wide = matrix.shape[-2] < matrix.shape[-1]
    gram = einsum("...ij,...kj->...ik" if wide else "...ij,...ik->...jk", matrix, matrix)
    return root_of_largest_eigenvalue(gram, tolerance=tolerance) * size[..., 0, 0]


@_spectral_norm.defjvp
def _norm_tangent(tolerance: float | None, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    left, right = largest_singular_pair(*primals)
    return _spectral_norm(tolerance, *primals), einsum("...i,...ij,...j->...", left, *tangents, right)


def root_of_largest_eigenvalue(gram: Float[Array, "*B K K"], *, tolerance: float | None = None) -> Float[Array, "*B"]:
    """Square root of the largest eigenvalue of each positive semidefinite matrix: the norm of its factor.

    >>> import jax.numpy as jnp
    >>> round(float(root_of_largest_eigenvalue(jnp.array([[9.0, 0.0], [0.0, 16.0]]))), 4)
    4.0
    """
    return _root(default_tolerance(gram.dtype) if tolerance is None else tolerance, gram)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _root(tolerance: float, gram: Array) -> Array:
    start = start_vector(gram.shape[-1:], gram.dtype)

    def apply(matrices: tuple[Array, Array], v: Array) -> Array:
        gram, scale = matrices
        return einsum("nij,nj->ni", gram, v * scale)

    def roots(gram: Array) -> Array:
        trace = jnp.trace(gram, axis1=1, axis2=2)
        value = largest_eigenvalues_of_batch(apply, (gram, reciprocal(trace)[:, None]), start, tolerance=tolerance)
        # Lanczos takes numbers that are not finite for the end of its space.
        known = jnp.all(jnp.isfinite(gram), axis=(1, 2))
        return jnp.where(known, jnp.sqrt(jnp.maximum(value * trace, 0)), jnp.nan)

    return by_portions(roots, gram.reshape(-1, *gram.shape[-2:])).reshape(gram.shape[:-2])


@_root.defjvp
def _root_tangent(tolerance: float, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (gram,), (change,) = primals, tangents
    root, (vector, _) = _root(tolerance, gram), largest_singular_pair(gram)
    return root, quotient(einsum("...i,...ij,...j->...", vector, change, vector), 2 * root, 0)


def by_portions(function: Callable[[Any], Array], matrices: Any) -> Array:
    """`function` of a few MB of matrices after the other: its intermediate arrays then need little memory.

    On CPU that is faster too: memory that is used again is in the cache already.

    Args:
      function: maps a pytree of arrays [N ...] to numbers [N].
      matrices: such a pytree, of any N.

    Returns:
      [N].
    """
    leaves = jax.tree.leaves(matrices)
    count = leaves[0].shape[0]
    least = max(1, math.ceil(sum(leaf.nbytes for leaf in leaves) / PORTION))
    portions = next((k for k in range(least, 2 * least) if count % k == 0), least)
    width = math.ceil(count / portions)
    if portions * width > count:
        # All are copied so that the last portion is full.
        more = portions * width - count
        matrices = jax.tree.map(lambda leaf: jnp.pad(leaf, [(0, more), *[(0, 0)] * (leaf.ndim - 1)]), matrices)
    portioned = jax.tree.map(lambda leaf: leaf.reshape(portions, width, *leaf.shape[1:]), matrices)
    return jax.lax.map(function, portioned).ravel()[:count]


def default_tolerance(dtype: DTypeLike) -> float:
    """Relative residual of an eigenpair that is safely above rounding in `dtype`."""
    return 1e-10 if jnp.dtype(dtype) == jnp.float64 else 1e-4


def start_vector(shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """A fixed vector of independent normal numbers: generic, and the same in every run.

    A small one is a constant of the program that uses it: the generator of one vector has hundreds of instructions,
    and in memory a loaded program costs about 4 KiB for each.
    """
    if math.prod(shape) > LARGEST_CONSTANT:
        return jax.random.normal(jax.random.key(0), shape, jnp.float32).astype(dtype)
    # Of numpy's generators the one whose numbers never change.
    return jnp.asarray(np.random.RandomState(0).standard_normal(shape).astype(np.float32), dtype)


def expand_basis(
    apply: Callable[[Array], Array], basis: Float[Array, "rows ..."], projected: Float[Array, "K K"], first: int
) -> tuple[Float[Array, "rows ..."], Float[Array, "K K"], Float[Array, "P P"]]:
    """Grow the basis of a block Krylov space, P vectors at a time, until it is full.

    Args:
      apply: the operator.
      basis: orthonormal rows up to `first`, P more that continue the space, zero after them; [K+P ...].
      projected: the operator in the first `first` rows, [K K].
      first: from where to grow; P divides K - first.

    Returns:
      The basis; the operator in its first K rows; the coupling of the last P of these to the P rows after them.
    """
    size = projected.shape[0]
    block = basis.shape[0] - size

    def step(k: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        basis, projected, _ = state
        at = first + block * k
        images = jax.vmap(apply)(jax.lax.dynamic_slice_in_dim(basis, at, block))
        scale = jnp.maximum(jnp.max(norm(images.reshape(block, -1))), jnp.max(jnp.abs(projected)))
        images, columns = _orthogonalise(images, basis)
        rows, inner = orthonormal_rows(images, 8 * jnp.finfo(images.dtype).eps * scale)
        # Twice, and only now: what is left of nearly parallel images may not be orthogonal to the basis any more.
        rows, rest = _orthogonalise(rows, basis)
        rows, outer = orthonormal_rows(rows, 0.5)
        columns, coupling = (columns + matmul(inner.T, rest))[:, :size], matmul(outer, inner)
        projected = jax.lax.dynamic_update_slice_in_dim(projected, columns, at, 0)
        projected = jax.lax.dynamic_update_slice_in_dim(projected, columns.T, at, 1)
        return jax.lax.dynamic_update_slice_in_dim(basis, rows, at + block, 0), projected, coupling

    nothing = jnp.zeros((block, block), basis.dtype)
    return jax.lax.fori_loop(0, (size - first) // block, step, (basis, projected, nothing))


def restart_basis(
    basis: Float[Array, "rows ..."], values: Float[Array, " K"], vectors: Float[Array, "K K"], kept: int
) -> tuple[Float[Array, "rows ..."], Float[Array, "K K"]]:
    """Keep the best Ritz vectors and the P vectors that leave the basis, which continue the Krylov space.

    Args:
      basis: as `expand_basis` returns it, [K+P ...].
      values: Ritz values, ascending, [K].
      vectors: Ritz vectors in that basis, in columns, [K K].
      kept: how many to keep.

    Returns:
      Basis and projected operator from which `expand_basis` can start at row `kept`.
    """
    size = values.size
    best = slice(size - kept, size)
    ritz = matmul(vectors[:, best].T, basis[:size].reshape(size, -1))
    fresh = jnp.zeros_like(basis).at[:kept].set(ritz.reshape(kept, *basis.shape[1:]))
    fresh = fresh.at[kept : kept + basis.shape[0] - size].set(basis[size:])
    return fresh, jnp.zeros_like(vectors).at[:kept, :kept].set(jnp.diag(values[best]))


def orthonormal_rows(
    vectors: Float[Array, "P ..."], floor: Array | float = 0.0, against: Float[Array, "Q ..."] | None = None
) -> tuple[Array, Float[Array, "P P"]]:
    """Gram and Schmidt's orthonormal basis of a few vectors, and their parts in it.

    Args:
      vectors: [P ...].
      floor: norm below which what is left of a vector is rounding noise and its basis vector zero.
      against: orthonormal rows to which the vectors are orthogonal, but for rounding; so is then every row of Q, also
        one of which little was left.

    Returns:
      Rows Q and coefficients R, vectors[i] = sum_j R[j, i] Q[j].
    """
    flat = vectors.reshape(vectors.shape[0], -1)
    others = None if against is None else against.reshape(against.shape[0], -1)
    rows, parts = jnp.zeros_like(flat), jnp.zeros((flat.shape[0],) * 2, flat.dtype)
    for i, vector in enumerate(flat):
        for _ in range(2 if i else 0):
            part = matmul(rows, vector)
            vector, parts = vector - matmul(part, rows), parts.at[:, i].add(part)
            if others is not None:
                vector = vector - matmul(matmul(others, vector), others)
        length = norm(vector)
        real = length > floor
        rows = rows.at[i].set(jnp.where(real, vector / jnp.where(real, length, 1), 0))
        parts = parts.at[i, i].set(jnp.where(real, length, 0))
    return rows.reshape(vectors.shape), parts


def _orthogonalise(vectors: Array, basis: Array) -> tuple[Array, Array]:
    # Rows not yet filled are zero and take nothing away.
    flat = basis.reshape(basis.shape[0], -1)
    parts = matmul(vectors.reshape(vectors.shape[0], -1), flat.T)
    return vectors - matmul(parts, flat).reshape(vectors.shape), parts
