"""Arnoldi's Ritz values, against LAPACK."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.matrices import FAMILIES, centring, stochastic

from jaxsmooth.theory import (
    Centred,
    Dense,
    arnoldi,
    ritz_values,
)


def test_arnoldi_finds_the_eigenvalues_of_every_family():
    """The whole Krylov space gives every eigenvalue; diagonalisable ones to many digits."""
    size = 6
    run = jax.jit(jax.vmap(lambda a: arnoldi(Centred(Dense(a, jnp.ones(size, bool))), size)))
    matrices = np.stack([make(np.random.default_rng(k), size) for k, make in enumerate(FAMILIES.values())])
    found = run(matrices)
    for k, matrix in enumerate(matrices):
        values, residuals = ritz_values(jax.tree.map(lambda leaf, k=k: leaf[k], found))
        exact = np.linalg.eigvals(centring(size) @ matrix)
        assert abs(values[0]) == pytest.approx(np.abs(exact).max(), rel=1e-6, abs=1e-6)
        assert residuals[0] < 1e-12


def test_arnoldi_cut_short_says_how_far_it_is_off():
    rng = np.random.default_rng(8)
    matrix = stochastic(rng, 60) @ stochastic(rng, 60)
    values, residuals = ritz_values(arnoldi(Dense(jnp.asarray(matrix), jnp.ones(60, bool)), 12))
    exact = np.linalg.eigvals(matrix)
    assert np.abs(values[0] - 1) < 1e-6
    # Residual r: value is an eigenvalue of A + E with ||E|| <= r, so A - value is singular to within r.
    for value, residual in zip(values, residuals, strict=True):
        least = np.linalg.svd(matrix - value * np.eye(60), compute_uv=False)[-1]
        assert least <= residual + 1e-12
    assert np.all(np.abs(values[:1, None] - exact).min(axis=1) < 1e-6)
