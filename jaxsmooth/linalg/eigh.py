"""Eigendecomposition of symmetric matrices: Jacobi's method, and LAPACK where a batched call of it is safe."""

import contextlib
import functools
import threading
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap
from jaxtyping import Array, Float
from threadpoolctl import threadpool_limits

from .precision import einsum

# 12 x 12 float64 matrices with simple eigenvalues, as Lanczos makes them, were never met to need more than 7 for
# full accuracy. Repeated eigenvalues converge slowly: of 40,000 matrices, 8 left the worst 4e-11 of the norm off.
SWEEPS = 8


def jacobi_eigh(matrix: Float[Array, "K K"]) -> tuple[Float[Array, " K"], Float[Array, "K K"]]:
    """Eigenvalues, ascending, and eigenvectors, in columns, of one SMALL symmetric matrix; batch with `jax.vmap`.

    Cyclic Jacobi with K/2 rotations at a time, all elementwise: a vmapped call is a few fused loops on every
    device. LAPACK, which `jnp.linalg.eigh` calls on CPU, spreads a batch over XLA's thread pool and waits
    inside it; two such calls at once, as independent Lanczos loops make them, wait for ever on two cores
    (seen with jax 0.10.2).

    Args:
      matrix: symmetric, [K K].

    Returns:
      `(values, vectors)`, [K] and [K K].

    >>> import jax.numpy as jnp
    >>> jacobi_eigh(jnp.array([[0.0, 1.0], [1.0, 0.0]]))[0].round(4)
    Array([-1.,  1.], dtype=float32)

    References: Brent and Luk (1985) for the parallel order; Golub and Van Loan (2013), section 8.5.
    """
    size = matrix.shape[0]
    if size == 1:
        return matrix[0], jnp.ones_like(matrix)
    # An odd matrix gets a decoupled zero row, whose eigenvector is recognised by its entry there.
    even = jnp.pad(matrix, ((0, size % 2), (0, size % 2)))
    frame = jnp.eye(even.shape[0], dtype=matrix.dtype)
    rounds = SWEEPS * (even.shape[0] - 1)
    even, frame = jax.lax.fori_loop(0, rounds, lambda _, state: _round(*state), (even, frame))
    values = jnp.diag(even)
    if size % 2:
        values = jnp.where(frame[-1] ** 2 > 0.5, jnp.inf, values)
    order = jnp.argsort(values)[:size]
    return values[order], frame[:size, order]


def batched_eigh(matrix: Float[Array, "*B K K"]) -> tuple[Float[Array, "*B K"], Float[Array, "*B K K"]]:
    """`jnp.linalg.eigh` of many matrices, one after the other on CPU, where a batch can wait for ever.

    Single ones have not been seen to, in two programs at once either.

    >>> import jax.numpy as jnp
    >>> batched_eigh(jnp.array([[[0.0, 1.0], [1.0, 0.0]]]))[0].round(4)
    Array([[-1.,  1.]], dtype=float32)
    """
    flat = matrix.reshape(-1, *matrix.shape[-2:])
    one_by_one = functools.partial(jax.lax.map, _one_eigh)
    values, vectors = jax.lax.platform_dependent(flat, cpu=one_by_one, default=_many_eigh)
    return values.reshape(matrix.shape[:-1]), vectors.reshape(matrix.shape)


@jax.custom_jvp
def batched_eigvalsh(matrix: Float[Array, "*B K K"]) -> Float[Array, "*B K"]:
    """Eigenvalues, ascending, of many symmetric matrices, with a derivative that equal ones do not spoil.

    That of a value is v^T dA v, v its unit eigenvector, which is held; of equal values, which have none, that of the v
    that were found. Second derivatives are not those of the values.

    >>> import jax.numpy as jnp
    >>> jax.grad(lambda a: batched_eigvalsh(a)[0, 1])(jnp.array([[[1.0, 0.0], [0.0, 2.0]]]))[0].tolist()
    [[0.0, 0.0], [0.0, 1.0]]
    """
    return batched_eigh(matrix)[0]


@batched_eigvalsh.defjvp
def _values_tangent(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    values, vectors = batched_eigh(jax.lax.stop_gradient(primals[0]))
    return values, einsum("...ik,...ij,...jk->...k", vectors, tangents[0], vectors)


class _Limit:
    """The one that holds, and how many want it."""

    lock = threading.Lock()
    users = 0
    held: threadpool_limits | None = None


@contextlib.contextmanager
def one_lapack_thread() -> Iterator[None]:
    """Within, LAPACK and BLAS (which numpy, scipy and on CPU XLA's decompositions call) work with one thread.

    OpenBLAS keeps its threads spinning for some time after each call. Between thousands of small decompositions, as
    studies make them, that takes a whole core away from XLA. It holds for the whole process, until the last of several
    such blocks that overlap has ended.
    """
    import scipy.linalg.cython_lapack  # noqa: F401  what jax calls: a limit is set to libraries that are there

    with _Limit.lock:
        _Limit.held = _Limit.held or threadpool_limits(1, user_api="blas")
        _Limit.users += 1
    try:
        yield
    finally:
        with _Limit.lock:
            _Limit.users -= 1
            if _Limit.users == 0 and _Limit.held is not None:
                _Limit.held.restore_original_limits()
                _Limit.held = None


def _many_eigh(matrix: Array) -> tuple[Array, Array]:
    return tuple(jnp.linalg.eigh(matrix))


@sequential_vmap
def _one_eigh(matrix: Array) -> tuple[Array, Array]:
    return tuple(jnp.linalg.eigh(matrix))


def _round(matrix: Array, frame: Array) -> tuple[Array, Array]:
    """Rotate the pairs (i, i + K/2) of rows and columns so that their couplings vanish, then re-pair."""
    half = matrix.shape[0] // 2
    own, coupling = jnp.diag(matrix), jnp.diag(matrix[:half, half:])
    tau = (own[half:] - own[:half]) / jnp.where(coupling == 0, 1, 2 * coupling)
    sign = jnp.where(tau >= 0, jnp.ones_like(tau), -jnp.ones_like(tau))
    tangent = jnp.where(coupling == 0, 0, sign / (jnp.abs(tau) + jnp.sqrt(1 + tau * tau)))
    cosine = 1 / jnp.sqrt(1 + tangent * tangent)
    sine = tangent * cosine

    def rotate(matrix: Array) -> Array:
        left, right = matrix[:, :half], matrix[:, half:]
        cos, sin = cosine[None], sine[None]
        return _regroup(cos * left - sin * right, sin * left + cos * right)

    return rotate(rotate(matrix).T).T, rotate(frame)


def _regroup(left: Array, right: Array) -> Array:
    """Brent and Luk's tournament: column 0 stays, the others move on by one place."""
    if left.shape[1] == 1:
        return jnp.concatenate([left, right], axis=1)
    return jnp.concatenate([left[:, :1], right[:, :1], left[:, 1:-1], right[:, 1:], left[:, -1:]], axis=1)
