"""Largest eigenvalue, residual and inertia of block tridiagonal matrices, against numpy."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsmooth.linalg.block_tridiagonal import eigenvalues_above, largest_of_block_tridiagonal

MOST, WIDTH = 7, 6
SEED = st.integers(0, 2**32 - 1)
largest = jax.jit(largest_of_block_tridiagonal)
above = jax.jit(eigenvalues_above)


def block_tridiagonals(
    rng: np.random.Generator, beyond: float = 1e3
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
    """Positive semidefinite matrices of several sizes and kinds; B_j upper triangular and numbers beyond."""
    diagonal, coupling = rng.standard_normal((2, MOST, 2, 2, WIDTH)) * beyond
    size, dense = rng.integers(1, MOST, WIDTH), []
    for k, kind in enumerate(("plain", "plain", "graded", "thin", "apart", "zero")):
        n = 2 * size[k]
        band = np.tril(np.triu(rng.standard_normal((n + 2, n + 2))), 2)
        factor = np.array([[band[i, j] if i // 2 in (j // 2, j // 2 - 1) else 0 for j in range(n)] for i in range(n)])
        factor *= {"graded": 10.0 ** -np.arange(n), "zero": np.zeros(n)}.get(kind, np.ones(n))
        factor = factor.T if kind == "plain" else factor
        matrix = factor.T @ factor
        if kind == "thin":  # the second starting vector was zero
            matrix[1::2] = 0
            matrix[:, 1::2] = 0
        if kind == "apart":  # the Krylov space of the starts is exhausted
            matrix[2:] = 0
            matrix[:, 2:] = 0
        for j in range(size[k]):
            diagonal[j, :, :, k] = matrix[2 * j : 2 * j + 2, 2 * j : 2 * j + 2]
            if j + 1 < size[k]:
                coupling[j, :, :, k] = matrix[2 * j + 2 : 2 * j + 4, 2 * j : 2 * j + 2]
        dense.append(matrix)
    return diagonal, coupling, size.astype(np.int32), dense


@settings(max_examples=100)
@given(seed=SEED)
def test_value_residual_and_inertia_are_numpys(seed):
    rng = np.random.default_rng(seed)
    diagonal, coupling, size, dense = block_tridiagonals(rng)
    value, residual = (np.asarray(found) for found in largest(diagonal, coupling, size))
    bound = rng.uniform(0, 1, WIDTH) * value
    count = np.asarray(above(diagonal, coupling, size, bound))
    for k, matrix in enumerate(dense):
        values, vectors = np.linalg.eigh(matrix)
        outer = coupling[size[k] - 1, :, :, k]
        scale = np.abs(outer).sum() + np.abs(matrix).sum()
        assert value[k] == pytest.approx(values[-1], rel=1e-13, abs=1e-14 * scale)
        if len(values) == 1 or values[-1] - values[-2] > 1e-3 * values[-1]:
            expected = np.linalg.norm(outer @ vectors[-2:, -1])
            assert residual[k] == pytest.approx(expected, rel=1e-6, abs=1e-9 * scale)
        if np.all(np.abs(values - bound[k]) > 1e-12 * scale):
            assert count[k] == np.sum(values > bound[k])


def test_single_precision_and_its_range():
    diagonal, coupling, size, dense = block_tridiagonals(np.random.default_rng(5), beyond=1.0)
    exact = np.array([np.linalg.eigvalsh(matrix)[-1] for matrix in dense])
    for scale in (1e-30, 1.0, 1e30):
        value, _ = largest(*(np.float32(part * scale) for part in (diagonal, coupling)), size)
        np.testing.assert_allclose(value, np.float32(exact * scale), rtol=1e-5, atol=1e-6 * scale)
