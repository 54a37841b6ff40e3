"""The three-term Lanczos and the tridiagonal matrices in it, against LAPACK on spectra of every shape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers_matrices import symmetric
from hypothesis import given
from hypothesis import strategies as st
from test_spectrum import SIZE, SPECTRA

from jaxsmooth.theory.lanczos import largest_eigenvalues, largest_of_tridiagonal
from jaxsmooth.theory.spectrum import default_tolerance, start_vector

SEED = st.integers(0, 2**32 - 1)


@jax.jit
def find(matrices, start):
    trace = jnp.trace(matrices, axis1=1, axis2=2)
    apply = lambda v: jnp.einsum("nij,nj->ni", matrices, v)  # noqa: E731
    return largest_eigenvalues(apply, start, trace, tolerance=default_tolerance(matrices.dtype))


tridiagonal = jax.jit(largest_of_tridiagonal)


@given(seed=SEED)
def test_it_finds_the_largest_eigenvalue_of_every_spectrum(seed):
    rng = np.random.default_rng(seed)
    matrices = np.stack([symmetric(rng, spectrum(rng)) for spectrum in SPECTRA.values()])
    exact = np.linalg.eigvalsh(matrices)[:, -1]
    found = np.asarray(find(matrices, start_vector((SIZE,), np.float64)))
    assert np.all(found <= exact * (1 + 1e-13))
    np.testing.assert_allclose(found, exact, rtol=1e-10)


def test_it_does_so_in_single_precision_at_any_scale():
    rng = np.random.default_rng(0)
    matrices = np.stack([symmetric(rng, spectrum(rng)) for spectrum in SPECTRA.values()])
    matrices /= np.maximum(np.abs(matrices).max(axis=(1, 2), keepdims=True), 1e-300)
    for scale in (1e-20, 1.0, 1e20):
        single = (scale * matrices).astype(np.float32)
        found = find(single, start_vector((SIZE,), np.float32))
        assert found.dtype == np.float32
        np.testing.assert_allclose(
            found, np.linalg.eigvalsh(single.astype(np.float64))[:, -1], rtol=default_tolerance(np.float32)
        )


def test_a_matrix_does_not_see_its_neighbours():
    """A crowd that takes hundreds of steps leaves the others' values as they are alone."""
    rng = np.random.default_rng(1)
    matrices = np.stack([symmetric(rng, spectrum(rng)) for spectrum in SPECTRA.values()])
    start = start_vector((SIZE,), np.float64)
    together = np.asarray(find(matrices, start))
    alone = np.concatenate([np.asarray(find(matrix[None], start)) for matrix in matrices])
    np.testing.assert_allclose(together, alone, rtol=1e-13)


@pytest.mark.parametrize("size", [1, 2, 3, 12, 30])
def test_tridiagonal_matrices(size):
    """Value and residual, also where Lanczos had exhausted its space, which leaves zeros."""
    rng = np.random.default_rng(size)
    couplings = rng.uniform(0.01, 1, (30, 20))
    # Diagonally dominant, so positive semidefinite.
    diagonals = rng.uniform(2, 3, (30, 20))
    ends = np.r_[1, 2, 5, np.full(17, 30)]
    couplings[np.arange(30)[:, None] >= ends - 1] = 0
    diagonals[np.arange(30)[:, None] >= ends] = 0
    value, residual = (np.asarray(x) for x in tridiagonal(diagonals, couplings, jnp.int32(size)))
    for k in range(20):
        off = np.diag(couplings[: size - 1, k], 1)
        values, vectors = np.linalg.eigh(np.diag(diagonals[:size, k]) + off + off.T)
        assert value[k] == pytest.approx(values[-1], rel=1e-14)
        expected = couplings[size - 1, k] * abs(vectors[-1, -1])
        assert residual[k] == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_a_start_without_the_eigenvector_does_not_find_it():
    spectrum = jnp.array([[5.0, *np.linspace(0, 1, SIZE - 1)]])
    start = jnp.ones(SIZE).at[0].set(0.0)
    found = largest_eigenvalues(lambda v: spectrum * v, start, spectrum.sum(axis=1), tolerance=1e-10)
    assert float(found[0]) == pytest.approx(1.0)
