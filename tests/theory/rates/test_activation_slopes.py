"""Slopes of activations and of their secants over intervals."""

import jax.numpy as jnp
import numpy as np
import pytest
from support.regions import PHI

from jaxsmooth.theory.rates.activation_slopes import secant_range, secant_slope, slope_range


@pytest.mark.parametrize("activation", list(PHI))
def test_slope_ranges_hold_and_are_attained(activation):
    rng = np.random.default_rng(0)
    low = 4 * rng.standard_normal(3000)
    high = low + 10 ** rng.uniform(-3, 1, 3000)
    least, largest = slope_range(activation, jnp.asarray(low), jnp.asarray(high))
    at = np.linspace(low, high, 401)
    slopes = np.diff(PHI[activation](at), axis=0) / np.diff(at, axis=0)
    assert np.all(slopes.min(axis=0) >= least - 1e-9)
    assert np.all(slopes.max(axis=0) <= largest + 1e-9)
    if activation != "relu":  # whose slopes jump within a step
        step = np.diff(at, axis=0)[0]
        assert np.all(slopes.min(axis=0) <= least + step)
        assert np.all(slopes.max(axis=0) >= largest - step)


@pytest.mark.parametrize("activation", list(PHI))
def test_secant_ranges_hold_and_close_at_zero_radius(activation):
    rng = np.random.default_rng(1)
    a, b = 3 * rng.standard_normal((2, 3000))
    b[::4] = a[::4] + 1e-3 * rng.standard_normal(750)
    radius = 10 ** rng.uniform(-3, 0.5, (2, 3000))
    least, largest = secant_range(activation, *map(jnp.asarray, (a, b, *radius)))
    for _ in range(200):
        x, y = (c + r * rng.uniform(-1, 1, 3000) for c, r in ((a, radius[0]), (b, radius[1])))
        apart = np.abs(x - y) > 1e-4
        secant = (PHI[activation](x) - PHI[activation](y))[apart] / (x - y)[apart]
        assert np.all(secant >= least[apart] - 1e-10)
        assert np.all(secant <= largest[apart] + 1e-10)
    zero = jnp.zeros(3000)
    ends = secant_range(activation, jnp.asarray(a), jnp.asarray(b), zero, zero)
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-12)
    np.testing.assert_allclose(ends[0], (PHI[activation](a) - PHI[activation](b)) / (a - b), atol=1e-9)


def test_secant_slope_of_equal_points_is_the_derivative():
    x = np.linspace(-4, 4, 201)
    expected = (PHI["gelu"](x + 1e-6) - PHI["gelu"](x - 1e-6)) / 2e-6
    np.testing.assert_allclose(secant_slope("gelu", jnp.asarray(x), jnp.asarray(x)), expected, atol=1e-9)
