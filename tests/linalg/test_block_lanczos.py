"""Batched block Lanczos with refill of finished slots, against LAPACK."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.matrices import symmetric

from jaxsmooth.linalg.block_lanczos import largest_eigenvalues_of_queue

SEED = st.integers(0, 2**32 - 1)
SIZE = 40
TOLERANCE = 1e-9


@functools.partial(jax.jit, static_argnames="slots")
def find(matrices, starts, slots=3):
    options = {"tolerance": TOLERANCE, "slots": slots}
    return largest_eigenvalues_of_queue(lambda matrix, v: matrix @ v, matrices, starts, **options)


@jax.jit
def sharper(matrices, starts):
    return largest_eigenvalues_of_queue(lambda matrix, v: matrix @ v, matrices, starts, tolerance=2e-10, slots=40)


def operators(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    spectra = [
        rng.uniform(0, 1, SIZE),
        10.0 ** -np.arange(SIZE) * 10 ** rng.uniform(-5, 5),
        np.r_[np.full(6, 2.0), rng.uniform(0, 1.9, SIZE - 6)],
        rng.choice([0.5, 1.0, 3.0], SIZE),
        np.ones(SIZE),
        np.r_[3.0, np.zeros(SIZE - 1)],
        np.zeros(SIZE),
        np.r_[1.0, 0.98, rng.uniform(0, 0.9, SIZE - 2)],
    ]
    return np.stack([symmetric(rng, s) for s in spectra]), rng.standard_normal((len(spectra), 2, SIZE))


@settings(max_examples=30)
@given(seed=SEED)
def test_every_operator_gets_its_own_largest_eigenvalue(seed):
    matrices, starts = operators(np.random.default_rng(seed))
    exact = np.linalg.eigvalsh(matrices)[:, -1]
    found = find(matrices, starts)
    np.testing.assert_allclose(found.value, exact, rtol=TOLERANCE, atol=1e-14)
    assert np.all(found.value <= exact * (1 + 1e-14) + 1e-15)
    assert np.all(found.residual <= 5 * TOLERANCE * np.asarray(found.value))


@given(seed=SEED)
@settings(max_examples=10)
def test_neighbours_and_slots_change_nothing(seed):
    rng = np.random.default_rng(seed)
    matrices, starts = operators(rng)
    order = rng.permutation(len(matrices))
    found, shuffled, wide = find(matrices, starts), find(matrices[order], starts[order]), find(matrices, starts, 8)
    np.testing.assert_array_equal(found.steps[order], shuffled.steps)
    np.testing.assert_allclose(found.value[order], shuffled.value, rtol=1e-13, atol=1e-14)
    # Another number of slots is another program, which rounds otherwise and may stop one cycle sooner.
    np.testing.assert_allclose(found.value, wide.value, rtol=TOLERANCE, atol=1e-14)


def test_one_start_misses_what_a_pair_finds():
    """A start without the top eigenvector ends at the second, its residual as good as any; with another it does not."""
    spectrum = np.r_[1.0, 0.9, np.linspace(0, 0.5, SIZE - 2)]
    matrix = np.diag(spectrum)[None]
    blind = np.ones((1, 1, SIZE)) * np.r_[0.0, 30.0, np.ones(SIZE - 2)]
    seeing = np.random.default_rng(0).standard_normal((1, 1, SIZE))
    alone = find(matrix, np.concatenate([blind, 0 * blind], axis=1))
    assert float(alone.value[0]) == pytest.approx(0.9, rel=1e-12)
    assert float(alone.residual[0]) <= 5 * TOLERANCE
    for pair in ([blind, seeing], [seeing, blind]):
        assert float(find(matrix, np.concatenate(pair, axis=1)).value[0]) == pytest.approx(1, rel=1e-12)


def test_dependent_and_zero_starts():
    matrix = np.diag(np.linspace(0, 1, SIZE))[None]
    start = np.random.default_rng(1).standard_normal((1, 1, SIZE))
    for second in (2 * start, 0 * start):
        assert float(find(matrix, np.concatenate([start, second], axis=1)).value[0]) == pytest.approx(1, rel=1e-9)
    assert float(find(matrix, np.zeros((1, 2, SIZE))).value[0]) == 0


def test_the_step_limit_ends_the_search():
    matrices, starts = operators(np.random.default_rng(0))
    limited = jax.jit(
        lambda m, s: largest_eigenvalues_of_queue(lambda a, v: a @ v, m, s, tolerance=0.0, slots=2, max_steps=16)
    )(matrices, starts)
    assert np.all(np.asarray(limited.steps) <= 16)
    assert np.all(limited.value <= np.linalg.eigvalsh(matrices)[:, -1] * (1 + 1e-14) + 1e-15)


@pytest.mark.parametrize("width", [1e-5, 1e-8, 3e-9, 1e-9])
def test_next_to_a_multiple_of_the_identity_nothing_is_found_above_the_spectrum(width):
    """Eigenvalues 1 + width z, and starts with a part in the kernel, which hides what is left of a pair."""
    rng = np.random.default_rng(0)
    frames = np.linalg.qr(rng.standard_normal((40, 24, 24)))[0]
    spectra = np.concatenate([1 + width * rng.standard_normal((40, 12)), np.zeros((40, 12))], axis=1)
    matrices = (frames * spectra[:, None]) @ frames.swapaxes(1, 2)
    starts = rng.standard_normal((40, 2, 13)) @ frames[:, :, :13].swapaxes(1, 2)
    found = sharper((matrices + matrices.swapaxes(1, 2)) / 2, starts)
    assert np.all(found.value <= spectra.max(axis=1) * (1 + 1e-14))
    nearest = np.abs(spectra - np.asarray(found.value)[:, None]).min(axis=1)
    assert np.all(nearest <= np.asarray(found.residual) * (1 + 1e-6) + 1e-14)
