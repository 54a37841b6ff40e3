"""Thick-restarted Lanczos, against LAPACK on operators with a prescribed spectrum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.matrices import orthonormal, symmetric, with_spectrum
from support.spectra import SIZE, SPECTRA

from jaxsmooth.linalg.lanczos import BASIS, default_tolerance
from jaxsmooth.theory import Eigenvalue, largest_eigenvalue, mixing_rate, spectral_norm

SEED = st.integers(0, 2**32 - 1)
TOLERANCE = default_tolerance(np.float64)
SINGLE = default_tolerance(np.float32)


def find(matrix: jax.Array, start: jax.Array, tolerance: float = TOLERANCE) -> Eigenvalue:
    return largest_eigenvalue(lambda v: matrix @ v, start, tolerance=tolerance)


many = jax.jit(jax.vmap(find))
loose = jax.jit(jax.vmap(lambda matrix, start: find(matrix, start, 1e-1)))
one = jax.jit(find)
rate, norm = jax.jit(mixing_rate), jax.jit(spectral_norm)


def operators(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    matrices = np.stack([symmetric(rng, spectrum(rng)) for spectrum in SPECTRA.values()])
    return matrices, rng.standard_normal((len(SPECTRA), SIZE))


@given(seed=SEED)
def test_lanczos_finds_the_largest_eigenvalue_of_every_spectrum(seed):
    matrices, starts = operators(np.random.default_rng(seed))
    exact = np.linalg.eigvalsh(matrices)[:, -1]
    found = many(matrices, starts)
    assert np.all(found.value <= exact * (1 + 1e-14))
    assert np.all(exact <= found.value + found.residual + 1e-14 * exact)
    tight = np.asarray(found.residual <= TOLERANCE * found.value)
    np.testing.assert_allclose(found.value[tight], exact[tight], rtol=TOLERANCE)
    # A cluster may use up the steps allowed; the residual then says so.
    assert np.all(tight | (np.array(list(SPECTRA)) == "clustered top"))


@given(seed=SEED)
def test_some_eigenvalue_lies_within_the_residual(seed):
    """The residual is honest at every tolerance, also where Lanczos stopped early and the value is poor."""
    matrices, starts = operators(np.random.default_rng(seed))
    spectra = np.linalg.eigvalsh(matrices)
    for search in (loose, many):
        found = search(matrices, starts)
        nearest = np.abs(spectra - np.asarray(found.value)[:, None]).min(axis=1)
        assert np.all(nearest <= found.residual + 1e-14 * spectra[:, -1])


def test_a_loose_tolerance_stops_early_and_low():
    matrices, starts = operators(np.random.default_rng(0))
    early, late = loose(matrices, starts), many(matrices, starts)
    assert early.steps[0] < late.steps[0]
    assert early.value[0] < late.value[0]
    assert early.residual[0] > 1e-6


def test_the_residual_is_that_of_the_ritz_vector():
    """From a start that is its own Ritz vector, A start - value start can be written down."""
    largest = find(jnp.array([[2.0, 1.0], [1.0, 2.0]]), jnp.array([1.0, 0.0]))
    assert float(largest.value) == pytest.approx(3.0, rel=1e-15)
    assert float(largest.residual) < 1e-15
    # One cycle on the second difference of 200 points is far from enough.
    laplacian = 2 * np.eye(200) - np.eye(200, k=1) - np.eye(200, k=-1)
    start = np.random.default_rng(0).standard_normal(200)
    found = jax.jit(lambda m, v: largest_eigenvalue(lambda x: m @ x, v, tolerance=0.0, max_steps=1))(laplacian, start)
    powers = np.stack([np.linalg.matrix_power(laplacian, k) @ start for k in range(int(found.steps))], axis=1)
    krylov = np.linalg.qr(powers)[0]
    values, vectors = np.linalg.eigh(krylov.T @ laplacian @ krylov)
    ritz = krylov @ vectors[:, -1]
    assert found.residual > 1e-3
    assert float(found.value) == pytest.approx(values[-1], rel=1e-9)
    assert float(found.residual) == pytest.approx(np.linalg.norm(laplacian @ ritz - values[-1] * ritz), rel=1e-6)


@given(seed=SEED)
def test_operators_of_a_batch_do_not_disturb_each_other(seed):
    rng = np.random.default_rng(seed)
    matrices, starts = operators(rng)
    order = rng.permutation(len(matrices))
    together, shuffled = many(matrices, starts), many(matrices[order], starts[order])
    for a, b in zip(together, shuffled, strict=True):
        np.testing.assert_array_equal(a[order], b)


def test_one_operator_alone_takes_the_same_steps():
    matrices, starts = operators(np.random.default_rng(3))
    together = many(matrices, starts)
    for k, (matrix, start) in enumerate(zip(matrices, starts, strict=True)):
        alone = one(matrix, start)
        assert int(alone.steps) == int(together.steps[k])
        assert float(alone.value) == pytest.approx(float(together.value[k]), rel=1e-14)


def test_a_start_without_the_eigenvector_does_not_find_it():
    """The hypothesis on the start is needed: the largest eigenvalue met is that of the start's own subspace."""
    spectrum = jnp.array([5.0, *np.linspace(0, 1, SIZE - 1)])
    start = jnp.ones(SIZE).at[0].set(0.0)
    found = largest_eigenvalue(lambda v: spectrum * v, start, tolerance=TOLERANCE)
    assert float(found.value) == pytest.approx(1.0)


@pytest.mark.parametrize("size", [1, 2, 5, BASIS, BASIS + 1])
def test_spaces_no_larger_than_the_basis(size):
    rng = np.random.default_rng(size)
    matrix = symmetric(rng, rng.uniform(0, 1, size))
    found = find(jnp.asarray(matrix), jnp.asarray(rng.standard_normal(size)))
    assert float(found.value) == pytest.approx(np.linalg.eigvalsh(matrix)[-1], rel=1e-13)
    assert float(found.residual) < 1e-7


def test_zero_starts_and_zero_operators_give_zero():
    for matrix, start in ((np.eye(SIZE), np.zeros(SIZE)), (np.zeros((SIZE, SIZE)), np.ones(SIZE))):
        assert [float(x) for x in one(matrix, start)[:2]] == [0.0, 0.0]


def test_lanczos_in_single_precision():
    matrices, starts = operators(np.random.default_rng(5))
    found = jax.jit(jax.vmap(lambda m, s: find(m, s, SINGLE)))(matrices.astype(np.float32), starts.astype(np.float32))
    assert found.value.dtype == jnp.float32
    np.testing.assert_allclose(found.value, np.linalg.eigvalsh(matrices)[:, -1], rtol=SINGLE)


@given(seed=SEED)
def test_spectral_norm_is_the_largest_singular_value(seed):
    rng = np.random.default_rng(seed)
    values = [
        10 ** rng.uniform(-3, 3, 9),
        np.ones(9),
        np.r_[2.0, 2.0, np.zeros(7)],
        np.zeros(9),
        np.r_[1e-8, np.zeros(8)],
    ]
    tall = np.stack([with_spectrum(rng, v, 30, 9) for v in values])
    expected = np.array([v.max() for v in values])
    for matrices in (tall, np.swapaxes(tall, 1, 2)):
        np.testing.assert_allclose(norm(matrices), expected, rtol=TOLERANCE / 2)


def test_spectral_norm_of_a_lone_direction_is_found_from_any_start():
    rng = np.random.default_rng(0)
    rank_one = np.stack([np.outer(orthonormal(rng, 30, 1), orthonormal(rng, 9, 1)) for _ in range(50)])
    np.testing.assert_allclose(norm(rank_one), 1, rtol=1e-12)
