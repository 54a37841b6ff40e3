"""Half-spaces: planted on both sides, exactly degenerate, and at the edge of what can be decided."""

import numpy as np
import pytest
from support.hypothesis_cases import planted, vanishing

from jaxsmooth.theory import open_hemisphere


def test_planted_tokens():
    rng = np.random.default_rng(0)
    found = [open_hemisphere(planted(rng)).holds for _ in range(200)]
    assert False not in found
    assert found.count(True) > 195


def test_vanishing_combinations():
    rng = np.random.default_rng(1)
    found = [open_hemisphere(vanishing(rng)).holds for _ in range(200)]
    assert True not in found
    assert found.count(False) > 190


def test_a_certificate_shows_itself():
    found = open_hemisphere(np.array([[3.0, 1.0], [2.0, -1.0], [0.1, 5.0]]))
    assert found.holds
    assert (np.array([[3.0, 1.0], [2.0, -1.0], [0.1, 5.0]]) @ found.direction > 0).all()
    against = open_hemisphere(np.array([[1.0, 2.0], [5.0, 5.0], [-3.0, -6.0]]))
    assert (against.holds, against.support) == (False, (0, 2))


def test_a_token_of_zero_lies_in_no_open_half_space():
    assert open_hemisphere(np.array([[1.0, 1.0], [0.0, 0.0]])).support == (1,)


def test_one_token_and_tokens_that_are_equal():
    assert open_hemisphere(np.array([[-2.0, 1.0]])).holds
    assert open_hemisphere(np.full((5, 3), -1e-300)).holds
    assert open_hemisphere(np.array([[1e308, 1e-300], [1e-308, -1e-308]])).holds


@pytest.mark.parametrize("tilt", [1e-30, -1e-30])
def test_what_neither_certificate_reaches_is_open(tilt):
    """Opposite but for a tilt that the linear program's tolerance hides: never the wrong verdict."""
    found = open_hemisphere(np.array([[1.0, tilt], [-1.0, tilt], [1.0, 0.5], [-1.0, 0.7]])).holds
    # With +tilt all are above the axis. With -tilt they surround zero, but the program's tolerance takes the two first.
    assert found is not (tilt < 0)
