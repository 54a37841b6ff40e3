"""Enclosures of the spectral radius against exact values, Arb's eigenvalues, and matrices hard on both ends."""

import numpy as np
import pytest
from flint import acb_mat, arb, ctx
from support.hypothesis_cases import known_matrix

from jaxsmooth.linalg.norm_ball import NormBall
from jaxsmooth.theory import spectral_radius


def of(matrix: np.ndarray, error: float = 0.0) -> tuple[float, float]:
    found = spectral_radius(NormBall(np.asarray(matrix, np.float64), error))
    return float(found.lower), float(found.upper)


def test_known_spectra_are_enclosed():
    rng, widths = np.random.default_rng(0), []
    for _ in range(15):
        matrix, radius = known_matrix(rng, int(rng.integers(1, 6)))
        power = 2.0 ** rng.integers(-30, 30)
        low, high = of(matrix * power)
        assert low <= radius * power <= high
        widths.append((high - low) / (radius * power) if radius else high)
    assert np.median(widths) < 1e-8


def test_arb_agrees():
    """Random matrices with complex pairs: Arb's eigenvalues, 60 digits of them, are inside."""
    rng, ctx.prec = np.random.default_rng(1), 200
    for _ in range(8):
        matrix = rng.standard_normal((5, 5))
        exact = max((abs(value) for value in acb_mat(matrix.tolist()).eig()), key=lambda x: float(x.mid()))
        low, high = of(matrix)
        assert arb(low) <= exact
        assert exact <= arb(high)
        assert high - low < 1e-9


@pytest.mark.parametrize("error", [1e-8, 1e-3])
def test_every_matrix_of_a_ball(error):
    rng = np.random.default_rng(2)
    middle = rng.standard_normal((4, 4))
    low, high = of(middle, error)
    for _ in range(200):
        step = rng.standard_normal((4, 4))
        inside = middle + 0.999 * error * step / np.linalg.norm(step)
        assert low <= np.max(np.abs(np.linalg.eigvals(inside))) <= high
    assert low < np.max(np.abs(np.linalg.eigvals(middle))) < high


def test_a_rotation_whose_traces_cancel_is_known_from_its_eigenvectors():
    """The cyclic shift: no power below the 5-th has a trace, and every eigenvalue has modulus 1."""
    low, high = of(1.25 * np.roll(np.eye(5), 1, axis=1))
    assert 1.25 - 1e-9 < low <= 1.25 <= high < 1.25 + 1e-9


def test_a_jordan_block_has_no_eigenvectors_and_is_known_from_its_powers():
    """Far from normal: norm 2.2, radius 1/2, and computed eigenvectors that are parallel."""
    matrix = 0.5 * np.eye(3) + 2 * np.eye(3, k=1)
    low, high = of(matrix)
    assert 0.4 < low <= 0.5 <= high < 0.6
    assert of(np.eye(12, k=1))[1] < 0.3


def test_exactly_1_is_open():
    low, high = of(np.array([[1.0, 1.0], [0.0, 0.25]]))
    assert low < 1 < high


@pytest.mark.parametrize("matrix", [np.full((2, 2), np.nan), np.array([[np.inf, 0], [0, 1]])])
def test_what_is_not_finite_says_nothing(matrix):
    assert of(matrix) == (0.0, np.inf)
    assert of(np.eye(2), np.inf) == (0.0, np.inf)
