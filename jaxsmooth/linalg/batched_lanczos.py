"""The largest eigenvalue of many positive semidefinite matrices at once, each applied to a vector of its own."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

FIRST = 8  # steps before the first test for the end; later tests come every 4 steps, then every quarter of the steps
LARGE = 2**20  # bytes of operators from which it pays to compile more in order to pass over them less often
SEARCH = 16  # steps in single precision that a search in double precision starts with
FEW = 8  # once at most one operator in so many is not done, the others are left out
# Where to look next between two bounds besides where Newton's step leads, as a share of their distance from the lower
# one, which is usually far nearer, at the square of the distance of the upper one.
SHARES = (0.67, 0.33, 0.1, 0.01)
ROUNDS = 60
ROWS = 4  # of a tridiagonal matrix, eliminated at a time


class _Vectors(NamedTuple):
    now: Array  # [N K], the last basis vector
    before: Array  # [N K], the one before it
    coupling: Array  # [N], beta between the two


class _Lanczos(NamedTuple):
    vectors: _Vectors
    diagonal: Array  # [M N], alpha_1 ...
    coupling: Array  # [M N], beta_1 ...
    steps: Array
    value: Array  # [N]
    done: Array  # [N]


def largest_eigenvalues(
    apply: Callable[[Any, Array], Array],
    operators: Any,
    start: Float[Array, "K"],
    *,
    tolerance: float,
    max_steps: int = 600,
) -> Float[Array, "N"]:
    """Largest eigenvalue of N positive semidefinite operators by Lanczos's three-term recurrence, nothing kept.

    Without reorthogonalisation eigenvalues are found again and again, which costs steps and spoils nothing: every
    Ritz value stays within rounding of the spectrum (Paige), and only the largest is asked for. Memory is that of
    two vectors. An operator is done, and its value frozen, when the residual of its eigenpair, beta_k times the last
    entry of the tridiagonal matrix's eigenvector, is at most `tolerance * value`: so the result does not depend on the
    others. In double precision, where there is much to pass over, a few steps in single precision, at half the price,
    come first, and their Ritz vector is the start: value and residual are those of double precision all the same, and
    the error of the value is quadratic in that of the vector.

    Args:
      apply: `apply(operators, vectors)`, every operator on its own vector, [N K] -> [N K]; scaled to traces of about 1,
        as only what is above rounding beside 1 is found.
      operators: what `apply` needs of them, a pytree of floating-point arrays with a leading axis N.
      start: not orthogonal to any eigenvector sought, [K].
      tolerance: residual over value at which to stop.
      max_steps: at most so many applications.

    Returns:
      [N], lower estimates.

    >>> import jax.numpy as jnp
    >>> matrices = jnp.array([[[0.36, 0.0], [0.0, 0.64]], [[0.0, 0.0], [0.0, 0.0]]])
    >>> product = lambda matrices, v: jnp.einsum("nij,nj->ni", matrices, v)
    >>> largest_eigenvalues(product, matrices, jnp.ones(2), tolerance=1e-6).round(4)
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
    nothing = jnp.zeros(count, dtype)
    state = _Lanczos(_begin(starts), empty, empty, jnp.int32(0), nothing, jnp.zeros(count, bool))

    def cycle(operators: Any, state: _Lanczos) -> _Lanczos:
        def step(k: Array, state: _Lanczos) -> _Lanczos:
            vectors, own = _three_terms(apply(operators, state.vectors.now), state.vectors)
            diagonal, coupling = state.diagonal.at[k].set(own), state.coupling.at[k].set(vectors.coupling)
            return state._replace(vectors=vectors, diagonal=diagonal, coupling=coupling)

        more = jnp.where(state.steps < FIRST, FIRST, jnp.maximum(4, state.steps // 4))
        steps = jnp.minimum(state.steps + jnp.where(state.steps == 0, first, more), max_steps)
        state = jax.lax.fori_loop(state.steps, steps, step, state)
        value, residual = largest_of_tridiagonal(state.diagonal, state.coupling, steps)
        value = jnp.where(state.done, state.value, value)
        return state._replace(steps=steps, value=value, done=state.done | (residual <= tolerance * value))

    def until(left: int, operators: Any, state: _Lanczos) -> _Lanczos:
        """Go on until at most so many are left."""

        def unfinished(state: _Lanczos) -> Array:
            return (jnp.sum(jnp.logical_not(state.done)) > left) & (state.steps < max_steps)

        return jax.lax.while_loop(unfinished, lambda state: cycle(operators, state), state)

    few = count // FEW if large else 0
    state = until(few, operators, state)
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
    return state.value.at[chosen].set(until(0, jax.tree.map(lambda leaf: leaf[chosen], operators), rest).value)


def ritz_vectors(apply: Callable[[Any, Array], Array], operators: Any, start: Float[Array, "K"]) -> Float[Array, "N K"]:
    """What a few steps of Lanczos in single precision find of every operator's eigenvector of the largest eigenvalue.

    Args:
      apply: as in `largest_eigenvalues`.
      operators: in double precision.
      start: in double precision, [K].

    Returns:
      [N K], not normalised, in double precision; the start where nothing is found or single precision overflows.
    """
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), operators)
    starts = jnp.broadcast_to(start, (jax.tree.leaves(operators)[0].shape[0], *start.shape))

    def step(vectors: _Vectors, _: None) -> tuple[_Vectors, tuple[Array, Array, Array]]:
        following, own = _three_terms(apply(single, vectors.now), vectors)
        return following, (vectors.now, own, following.coupling)

    _, (basis, diagonal, coupling) = jax.lax.scan(step, _begin(starts.astype(jnp.float32)), length=SEARCH)
    found = jnp.einsum("mn,mnk->nk", vector_of_tridiagonal(diagonal, coupling), basis).astype(start.dtype)
    usable = jnp.all(jnp.isfinite(found), axis=1) & jnp.any(found != 0, axis=1)
    return jnp.where(usable[:, None], found, starts)


def _begin(starts: Array) -> _Vectors:
    norms = jnp.linalg.norm(starts, axis=1)
    unit = starts / jnp.where(norms > 0, norms, 1)[:, None]
    return _Vectors(unit, 0 * unit, 0 * norms)


def _three_terms(images: Array, vectors: _Vectors) -> tuple[_Vectors, Array]:
    """A q_k = beta_k-1 q_k-1 + alpha_k q_k + beta_k q_k+1; gives q_k+1, with q_k and beta_k, and alpha_k."""
    own = jnp.sum(images * vectors.now, axis=1)
    rest = images - own[:, None] * vectors.now - vectors.coupling[:, None] * vectors.before
    norm = jnp.linalg.norm(rest, axis=1)
    # Rounding noise: the space is exhausted, and so is what there was to find in it.
    norm = jnp.where(norm > 8 * jnp.finfo(images.dtype).eps, norm, 0)
    following = jnp.where(norm[:, None] > 0, rest / jnp.where(norm > 0, norm, 1)[:, None], 0)
    return _Vectors(following, vectors.now, norm), own


def largest_of_tridiagonal(
    diagonal: Float[Array, "M N"], coupling: Float[Array, "M N"], size: Array
) -> tuple[Float[Array, "N"], Float[Array, "N"]]:
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
    matrix = _Tridiagonal.of(diagonal, coupling, size)
    value, high = _enclose(matrix)
    vector = _sweep(matrix, high[None])
    return value, jnp.take(coupling, size - 1, axis=0) * vector.last[0] / jnp.sqrt(vector.norm[0])


def vector_of_tridiagonal(diagonal: Float[Array, "M N"], coupling: Float[Array, "M N"]) -> Float[Array, "M N"]:
    """The eigenvectors of `largest_of_tridiagonal`, all rows in use, each with first entry 1.

    >>> import jax.numpy as jnp
    >>> vector_of_tridiagonal(jnp.array([[2.0], [2.0]]), jnp.array([[1.0], [7.0]])).round(3).T
    Array([[1., 1.]], dtype=float32)
    """
    matrix = _Tridiagonal.of(diagonal, coupling, jnp.int32(diagonal.shape[0]))
    _, high = _enclose(matrix)

    def row(below: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        ratio = row[1] / below
        return jnp.maximum(high - row[0] - ratio * row[1], _least(high.dtype)), ratio

    # Every entry over the one before it; the last row's is 0 and has no place.
    _, ratios = jax.lax.scan(row, jnp.ones_like(high), (matrix.diagonal, matrix.inside), reverse=True)
    return jnp.cumprod(jnp.concatenate([jnp.ones_like(ratios[:1]), ratios[:-1]]), axis=0)[: diagonal.shape[0]]


class _Tridiagonal(NamedTuple):
    diagonal: Array  # [M N], M a multiple of ROWS; zero outside the matrix
    inside: Array  # [M N], from row to row; zero from the last row on
    size: Array

    @classmethod
    def of(cls, diagonal: Array, coupling: Array, size: Array) -> "_Tridiagonal":
        rows = jnp.arange(diagonal.shape[0], dtype=size.dtype)[:, None]
        more = [(0, -diagonal.shape[0] % ROWS), (0, 0)]
        diagonal, inside = jnp.where(rows < size, diagonal, 0), jnp.where(rows < size - 1, coupling, 0)
        return cls(jnp.pad(diagonal, more), jnp.pad(inside, more), size)


class _Sweep(NamedTuple):
    """Elimination of x - T from the last row up; what `_sweep` has found at the first."""

    pivot: Array  # d_1; NaN where x is not above the spectrum
    norm: Array  # d_1', the squared norm of the vector with first entry 1
    last: Array  # its last entry
    decay: Array  # the sum of d_j' / d_j, which is p' / p of the characteristic polynomial p


def _sweep(matrix: _Tridiagonal, x: Array) -> _Sweep:
    """At points [P N]. Some rows of zeros may come before the last row: they add roots 0 to p."""

    def rows(i: Array, found: _Sweep) -> _Sweep:
        for k in range(1, ROWS + 1):
            j = ROWS * (chunks - i) - k
            coupling = matrix.inside[j][None]
            ratio = coupling / found.pivot
            pivot = x - matrix.diagonal[j][None] - ratio * coupling
            pivot = jnp.where(pivot > 0, jnp.maximum(pivot, _least(x.dtype)), jnp.nan)
            norm = 1 + ratio * ratio * found.norm
            last = jnp.where(j == matrix.size - 1, 1, found.last * ratio)
            found = _Sweep(pivot, norm, last, found.decay + norm / pivot)
        return found

    chunks = (matrix.size + ROWS - 1) // ROWS
    one = jnp.ones_like(x)
    return jax.lax.fori_loop(0, chunks, rows, _Sweep(one, one, one, 0 * one))


def _enclose(matrix: _Tridiagonal) -> tuple[Array, Array]:
    """Bounds [N] of the largest eigenvalue, within rounding."""
    above = jnp.concatenate([jnp.zeros_like(matrix.inside[:1]), matrix.inside[:-1]])
    # Gershgorin's discs, a little wider than rounding.
    widest = jnp.max(matrix.diagonal + matrix.inside + above, axis=0)
    upper = widest * (1 + 16 * jnp.finfo(widest.dtype).eps) + _least(widest.dtype)

    def bounds(points: Array) -> tuple[Array, Array]:
        found = _sweep(matrix, points)
        positive = jnp.logical_not(jnp.isnan(found.pivot))
        return jnp.where(positive, points - found.pivot / found.norm, -jnp.inf), points - 1 / found.decay

    return enclose_largest(bounds, upper)


def _least(dtype: DTypeLike) -> Array:
    return jnp.asarray(jnp.finfo(dtype).tiny, dtype) ** 0.25


def enclose_largest(
    bounds: Callable[[Array], tuple[Array, Array]], upper: Float[Array, "N"]
) -> tuple[Float[Array, "N"], Float[Array, "N"]]:
    """Two bounds within rounding of the largest eigenvalue of N positive semidefinite matrices.

    Args:
      bounds: of points [P N] two bounds each: some Rayleigh quotient, or -inf where the point is not above the
        spectrum; and what is above the spectrum but for rounding where the point is, the point itself at worst. The
        closer to the largest eigenvalue the closer the point is.
      upper: above the spectra, [N].

    Returns:
      `(low, high)`, [N] each; `high` is above the spectrum.
    """
    eps, shares = jnp.finfo(upper.dtype).eps, jnp.asarray(SHARES, upper.dtype)[:, None]

    def tighten(state: tuple[Array, ...]) -> tuple[Array, ...]:
        low, high, guess, rounds = state
        points = jnp.concatenate([guess[None], low[None] + shares * (high - low)[None]])
        quotient, closer = bounds(points)
        below = jnp.isneginf(quotient)
        low = jnp.maximum(low, jnp.max(jnp.where(below, points, quotient), axis=0))
        # A guess is not believed before it has been looked at.
        guess = jnp.min(jnp.where(below, high[None], closer), axis=0)
        high = jnp.min(jnp.where(below, high[None], points), axis=0)
        return jnp.minimum(low, high), high, jnp.minimum(guess, high), rounds + 1

    def apart(state: tuple[Array, ...]) -> Array:
        low, high, _, rounds = state
        return jnp.any(high - low > 4 * eps * high) & (rounds < ROUNDS)

    first: tuple[Array, ...] = (jnp.zeros_like(upper), upper, upper, jnp.int32(0))
    low, high, _, _ = jax.lax.while_loop(apart, tighten, first)
    return low, high
