"""The largest eigenvalue of tridiagonal matrices, against LAPACK."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsmooth.linalg.tridiagonal import largest_of_tridiagonal

tridiagonal = jax.jit(largest_of_tridiagonal)


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
