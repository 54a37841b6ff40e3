"""The spectral radius by Gelfand's formula, against numpy's eigenvalues."""

import jax
import numpy as np
import pytest
from support.statements import few_or_many

from jaxsmooth.linalg.gelfand import log_spectral_radius

DIM = 6


@few_or_many(1000, 100_000)
def test_the_spectral_radius_is_numpys(seed, cases):
    rng = np.random.default_rng(seed)
    matrices = 10 ** rng.uniform(-3, 3, (cases, 1, 1)) * rng.standard_normal((cases, DIM, DIM))
    matrices[::3] += np.swapaxes(matrices[::3], 1, 2)
    matrices[1::3] = np.triu(matrices[1::3])
    found = np.exp(jax.jit(jax.vmap(log_spectral_radius))(matrices))
    np.testing.assert_allclose(found, np.abs(np.linalg.eigvals(matrices)).max(axis=1), rtol=1e-8)


def test_the_spectral_radius_of_special_matrices():
    """A Jordan block, a rotation, a nilpotent matrix, zero."""
    radius = jax.jit(log_spectral_radius)
    assert float(radius(2 * np.eye(DIM) + np.diag(np.ones(DIM - 1), 1))) == pytest.approx(np.log(2), abs=1e-9)
    turn = np.kron(np.eye(3), np.array([[0.0, -3.0], [3.0, 0.0]]))
    assert float(radius(turn)) == pytest.approx(np.log(3), abs=1e-12)
    assert float(radius(np.diag(np.ones(DIM - 1), 1))) == -np.inf
    assert float(radius(np.zeros((DIM, DIM)))) == -np.inf
