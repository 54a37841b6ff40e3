"""The fit of a power law to a tail, against scipy, and on laws that are known."""

import numpy as np
import pytest
import scipy.stats

from jaxsmooth.theory import clauset2009_power_law


def by_scipy(values: np.ndarray, least: float) -> tuple[float, float]:
    """Distance and exponent of the values from `least` on."""
    tail = values[values >= least]
    shape, _, _ = scipy.stats.pareto.fit(tail, floc=0, fscale=least)
    return scipy.stats.kstest(tail, scipy.stats.pareto(shape, scale=least).cdf).statistic, shape + 1


@pytest.mark.parametrize("law", ["pareto", "lognormal", "uniform", "ties"])
def test_it_is_scipys_best_of_all_beginnings(law):
    rng = np.random.default_rng(1)
    draws = {
        "pareto": rng.pareto(1.5, 60) + 1,
        "lognormal": rng.lognormal(size=60),
        "uniform": rng.uniform(1, 2, 60),
        "ties": np.round(rng.lognormal(size=60), 1) + 0.1,
    }[law]
    begins = np.unique(draws)[:-1]
    distance, alpha = min(by_scipy(draws, least) for least in begins)
    found = clauset2009_power_law(draws)
    assert (found.distance, found.alpha) == pytest.approx((distance, alpha), rel=1e-9)
    assert found.tail == np.sum(draws >= found.smallest)
    assert found.error == pytest.approx((alpha - 1) / found.tail**0.5, rel=1e-9)


@pytest.mark.parametrize("alpha", [1.5, 2.5, 4.0])
def test_the_exponent_of_a_power_law_is_found(alpha):
    """Over 40 samples of 1000: within four standard errors each, three quarters within two (the beginning is free)."""
    rng = np.random.default_rng(2)
    found = [clauset2009_power_law(rng.pareto(alpha - 1, 1000) + 1) for _ in range(40)]
    off = np.array([abs(one.alpha - alpha) / one.error for one in found])
    assert off.max() < 4
    assert np.mean(off < 2) >= 0.75
    assert max(one.distance for one in found) < 0.05


def test_a_power_law_above_something_else_is_found_where_it_begins():
    rng = np.random.default_rng(3)
    found = clauset2009_power_law(np.concatenate([rng.uniform(0, 1, 2000), rng.pareto(1.5, 2000) + 1]))
    assert 0.8 < found.smallest < 1.6
    assert found.alpha == pytest.approx(2.5, abs=4 * found.error)


def test_a_random_matrix_has_no_heavy_tail():
    """Marchenko and Pastur's law ends at an edge: exponents beyond those of trained layers, or far from the fit."""
    rng = np.random.default_rng(4)
    for columns in (400, 1600):
        matrix = rng.standard_normal((400, columns))
        found = clauset2009_power_law(np.linalg.eigvalsh(matrix @ matrix.T))
        heavy = clauset2009_power_law(rng.pareto(1.5, 400) + 1)
        assert found.alpha > 6 or found.distance > 2 * heavy.distance


@pytest.mark.parametrize("size", [1e-200, 1e-20, 1e20, 1e200])
def test_it_does_not_depend_on_the_unit_or_the_order(size):
    draws = np.random.default_rng(5).lognormal(size=50)
    found, moved = clauset2009_power_law(draws), clauset2009_power_law(size * draws[::-1])
    assert moved[:2] + moved[3:] == pytest.approx(found[:2] + found[3:], rel=1e-9)
    assert moved.smallest == pytest.approx(size * found.smallest, rel=1e-12)


@pytest.mark.parametrize("values", [[], [3.0], [2.0, 2.0, 2.0], [0.0, 0.0], [1.0, np.nan], [1.0, np.inf], [0.0, 5.0]])
def test_what_has_no_tail(values):
    found = clauset2009_power_law(np.array(values))
    assert found.tail == 0
    assert np.isnan([found.alpha, found.error, found.smallest, found.distance]).all()


def test_zeros_are_left_out():
    draws = np.random.default_rng(6).lognormal(size=50)
    assert clauset2009_power_law(np.concatenate([draws, np.zeros(7), [-1e-18]])) == clauset2009_power_law(draws)
