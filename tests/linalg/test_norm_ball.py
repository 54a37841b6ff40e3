"""Upper bounds of norms by Cholesky's factorisation, against numpy."""

import numpy as np
import pytest

from jaxsmooth.linalg.norm_ball import NormBall


@pytest.mark.parametrize("seed", range(30))
def test_norms_by_cholesky_are_not_below_numpy_s(seed):
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(1, 40, 2)
    few = min(rows, columns)
    u, v = (np.linalg.qr(rng.standard_normal((n, few)))[0] for n in (rows, columns))
    spectrum = 10 ** rng.uniform(-6, 6) * rng.choice([1, 1 - 1e-9, 0.5], few)
    matrix = NormBall((u * spectrum) @ v.T, 0.0)
    exact = np.linalg.svd(matrix.mid, compute_uv=False)[0]
    assert exact * (1 - 1e-15) <= matrix.norm() <= exact * (1 + 1e-3)
    error = 0.1 * exact
    assert NormBall(matrix.mid, error).norm() == pytest.approx(matrix.norm() + error)
    other = NormBall(rng.standard_normal((columns, 3)), 0.01)
    product = NormBall(matrix.mid, error) @ other
    for _ in range(20):
        e, f = rng.standard_normal(matrix.mid.shape), rng.standard_normal((columns, 3))
        near = (matrix.mid + error * e / np.linalg.norm(e)) @ (other.mid + 0.01 * f / np.linalg.norm(f))
        assert np.linalg.norm(near - product.mid) <= product.error
