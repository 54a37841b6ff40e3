"""Jacobi's method and batched LAPACK on symmetric matrices."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.matrices import symmetric

from jaxsmooth.linalg.eigh import batched_eigh, jacobi_eigh

SEED = st.integers(0, 2**32 - 1)
jacobi = jax.jit(jax.vmap(jacobi_eigh))
eigh, eigh_mapped = jax.jit(batched_eigh), jax.jit(jax.vmap(jax.vmap(batched_eigh)))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 12])
@given(seed=SEED)
def test_jacobi_diagonalises(seed, size):
    rng = np.random.default_rng(seed)
    spectra = [rng.standard_normal(size), np.zeros(size), np.arange(size) + 1.0]
    matrices = np.stack([symmetric(rng, values) for values in spectra])
    values, vectors = (np.asarray(x) for x in jacobi(matrices))
    np.testing.assert_allclose(values, np.linalg.eigvalsh(matrices), atol=1e-12)
    frames = np.broadcast_to(np.eye(size), matrices.shape)
    np.testing.assert_allclose(np.swapaxes(vectors, 1, 2) @ vectors, frames, atol=1e-13)
    np.testing.assert_allclose(vectors * values[:, None] @ np.swapaxes(vectors, 1, 2), matrices, atol=1e-12)


@given(seed=SEED)
def test_jacobi_finds_repeated_eigenvalues(seed):
    rng = np.random.default_rng(seed)
    matrices = np.stack([symmetric(rng, rng.choice([-1.0, 0.0, 2.0], 12)) for _ in range(4)])
    np.testing.assert_allclose(jacobi(matrices)[0], np.linalg.eigvalsh(matrices), atol=1e-10)


@given(seed=SEED)
def test_batched_eigh_is_lapack_at_any_batch_shape(seed):
    rng = np.random.default_rng(seed)
    matrices = np.stack([symmetric(rng, rng.standard_normal(6)) for _ in range(6)]).reshape(2, 3, 6, 6)
    for solve in (eigh, eigh_mapped):
        values, vectors = (np.asarray(x) for x in solve(matrices))
        np.testing.assert_allclose(values, np.linalg.eigvalsh(matrices), atol=1e-13)
        np.testing.assert_allclose(vectors * values[..., None, :] @ np.swapaxes(vectors, -1, -2), matrices, atol=1e-13)
