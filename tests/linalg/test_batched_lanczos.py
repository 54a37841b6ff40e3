"""Three-term Lanczos on a batch, against LAPACK on spectra of every shape."""

import functools
import math
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.matrices import symmetric
from support.spectra import SIZE, SPECTRA

from jaxsmooth.linalg import batched_lanczos
from jaxsmooth.linalg import lanczos as spectrum
from jaxsmooth.linalg.batched_lanczos import largest_eigenvalues_of_batch
from jaxsmooth.linalg.lanczos import default_tolerance, root_of_largest_eigenvalue, start_vector
from jaxsmooth.theory import mixing_rate

SEED = st.integers(0, 2**32 - 1)


def product(matrices, v):
    return jnp.einsum("nij,nj->ni", matrices, v)


@functools.partial(jax.jit, static_argnames="large")
def find(matrices, start, large):
    """Largest eigenvalues as they are found where there are few or many bytes of matrices."""
    trace = jnp.trace(matrices, axis1=1, axis2=2)
    scaled = matrices / jnp.where(trace > 0, trace, 1)[:, None, None]
    with mock.patch.object(batched_lanczos, "LARGE", 0 if large else math.inf):
        return trace * largest_eigenvalues_of_batch(product, scaled, start, tolerance=default_tolerance(matrices.dtype))


both = pytest.mark.parametrize("large", [False, True])


@both
@given(seed=SEED)
def test_it_finds_the_largest_eigenvalue_of_every_spectrum(large, seed):
    rng = np.random.default_rng(seed)
    matrices = np.stack([symmetric(rng, values(rng)) for values in SPECTRA.values()])
    exact = np.linalg.eigvalsh(matrices)[:, -1]
    found = np.asarray(find(matrices, start_vector((SIZE,), np.float64), large))
    assert np.all(found <= exact * (1 + 1e-13))
    np.testing.assert_allclose(found, exact, rtol=1e-10)


@both
def test_it_does_so_in_single_precision_at_any_scale(large):
    rng = np.random.default_rng(0)
    matrices = np.stack([symmetric(rng, values(rng)) for values in SPECTRA.values()])
    matrices /= np.maximum(np.abs(matrices).max(axis=(1, 2), keepdims=True), 1e-300)
    for scale in (1e-20, 1.0, 1e20):
        single = (scale * matrices).astype(np.float32)
        found = find(single, start_vector((SIZE,), np.float32), large)
        assert found.dtype == np.float32
        np.testing.assert_allclose(
            found, np.linalg.eigvalsh(single.astype(np.float64))[:, -1], rtol=default_tolerance(np.float32)
        )


def test_double_precision_is_its_own_beyond_the_range_of_single(monkeypatch):
    """The search in single precision overflows or finds zeros there; double precision then does without."""
    monkeypatch.setattr(batched_lanczos, "LARGE", 0)
    rng = np.random.default_rng(2)
    matrices = np.stack([symmetric(rng, rng.uniform(0, 1, SIZE)) for _ in range(3)])
    exact = np.linalg.eigvalsh(matrices)[:, -1]
    for scale in (1e-60, 1e60):
        found = root_of_largest_eigenvalue(jnp.asarray(scale * matrices))
        np.testing.assert_allclose(found, np.sqrt(scale * exact), rtol=1e-10)


def test_a_loose_tolerance_leaves_double_precision_far_below_it(monkeypatch):
    """The value's error is quadratic in the vector's, and its rounding that of double precision."""
    monkeypatch.setattr(batched_lanczos, "LARGE", 0)
    attn = np.random.default_rng(3).dirichlet(np.ones(64) / 4, (8, 64))
    exact = np.linalg.svd(attn - attn.mean(axis=1, keepdims=True), compute_uv=False)[:, 0]
    found = np.asarray(mixing_rate(jnp.asarray(attn), jnp.ones((8, 64), bool), tolerance=1e-4))
    assert np.all(found <= exact * (1 + 1e-13))
    np.testing.assert_allclose(found, exact, rtol=1e-6)


@pytest.mark.parametrize("count", [6, 7])
def test_portions_change_nothing(monkeypatch, count):
    """Also where the last is not full."""
    rng = np.random.default_rng(4)
    matrices = np.stack([symmetric(rng, rng.uniform(0, 1, SIZE)) for _ in range(count)])
    monkeypatch.setattr(spectrum, "PORTION", 2 * matrices[0].nbytes)
    found = root_of_largest_eigenvalue(jnp.asarray(matrices))
    np.testing.assert_allclose(found, np.sqrt(np.linalg.eigvalsh(matrices)[:, -1]), rtol=1e-10)


@both
def test_a_matrix_does_not_see_its_neighbours(large):
    """A cluster that takes hundreds of steps leaves the others' values as they are alone."""
    rng = np.random.default_rng(1)
    matrices = np.stack([symmetric(rng, values(rng)) for values in SPECTRA.values()])
    start = start_vector((SIZE,), np.float64)
    together = np.asarray(find(matrices, start, large))
    alone = np.concatenate([np.asarray(find(matrix[None], start, large)) for matrix in matrices])
    np.testing.assert_allclose(together, alone, rtol=1e-13)


@both
def test_a_start_without_the_eigenvector_does_not_find_it(large):
    matrices = jnp.diag(jnp.array([5.0, *np.linspace(0, 1, SIZE - 1)]))[None]
    found = find(matrices, jnp.ones(SIZE).at[0].set(0.0), large)
    assert float(found[0]) == pytest.approx(1.0)
