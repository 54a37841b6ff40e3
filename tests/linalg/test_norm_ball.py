"""Upper bounds of norms by Cholesky's factorisation, against numpy."""

import math
from fractions import Fraction

import numpy as np
import pytest

from jaxsmooth.linalg.norm_ball import NormBall, size


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


@pytest.mark.parametrize("shape", [(1,), (1, 1), (3, 40), (40, 3), (2, 5, 7)])
@pytest.mark.parametrize("scale", [5e-324, 1e-310, 1e-200, 1.0, 1e150, 1e307])
def test_the_frobenius_norm_is_not_below_the_exact_one(shape, scale):
    """Against rational arithmetic, at every scale of float64; and it is that norm up to its last digits."""
    rng = np.random.default_rng(0)
    matrix = scale * rng.choice([1.0, 1e-170, -0.5, 0.0], shape) * (1 + rng.random(shape))
    square = sum(Fraction(float(x)) ** 2 for x in matrix.ravel())
    found = size(matrix)
    assert Fraction(found) ** 2 >= square
    assert found == pytest.approx(math.hypot(*matrix.ravel()), rel=1e-12, abs=1e-305)


def test_the_frobenius_norm_of_what_is_not_finite_is_not():
    assert size(np.array([[1.0, np.inf]])) == np.inf
    assert math.isnan(size(np.array([[1.0, np.nan]])))
    assert 0 < size(np.zeros((3, 4))) < 1e-300
