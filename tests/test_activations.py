"""The slopes of the activations: Lemma 1(2) of Shi et al. (2022) with the factor each activation needs."""

import math

import flint
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from support.matrices import token_batch

from jaxsmooth.activations import ACTIVATIONS, OTHERS
from jaxsmooth.checkpoints.config_json import ACTIVATION_NAMES
from jaxsmooth.theory import LIPSCHITZ, SLOPES, subspace_distance

distance = jax.jit(subspace_distance)
PHI = {name: activation.function for name, activation in (ACTIVATIONS | OTHERS).items()}
slopes = {name: jax.jit(jax.vmap(jax.grad(phi))) for name, phi in PHI.items()}
STEEPEST = {"gelu": math.sqrt(2), "gelu_tanh": 1.4185040087908284, "silu": 2.3993572805154677}


def test_every_activation_has_its_constant():
    assert set(LIPSCHITZ) == set(ACTIVATIONS) == set(ACTIVATION_NAMES.values())
    assert set(SLOPES) == set(PHI)


@pytest.mark.parametrize("name", LIPSCHITZ)
def test_no_slope_exceeds_the_constant_and_one_attains_it(name):
    grid = jnp.linspace(-20, 20, 400_001)
    found = np.asarray(slopes[name](grid))
    assert found.max() <= LIPSCHITZ[name] * (1 + 1e-15)
    assert found.max() >= LIPSCHITZ[name] * (1 - 1e-9)
    assert found.min() >= 1 - LIPSCHITZ[name] - 1e-15


@pytest.mark.parametrize("name", STEEPEST)
def test_the_constant_is_the_slope_at_the_steepest_point(name):
    def slope(x: float) -> float:
        return float(slopes[name](jnp.array([x]))[0])

    assert slope(STEEPEST[name]) == pytest.approx(LIPSCHITZ[name], rel=1e-15)
    searched = minimize_scalar(lambda x: -slope(x), bounds=(1, 3), method="bounded", options={"xatol": 1e-10})
    assert searched.x == pytest.approx(STEEPEST[name], rel=1e-6)


@pytest.mark.parametrize("name", LIPSCHITZ)
def test_slopes_at_opposite_points_add_up_to_one(name):
    x = jnp.linspace(1e-3, 10, 1001)
    np.testing.assert_allclose(slopes[name](x) + slopes[name](-x), 1, rtol=1e-14)


@pytest.mark.parametrize("name", LIPSCHITZ)
@given(seed=st.integers(0, 2**32 - 1))
def test_lemma_2_holds_with_the_constant(name, seed):
    hidden, mask = token_batch(np.random.default_rng(seed), 16)
    before, after = distance(hidden, mask), distance(PHI[name](hidden), mask)
    assert np.all(after <= LIPSCHITZ[name] * before * (1 + 1e-12))


@pytest.mark.parametrize("name", LIPSCHITZ)
def test_lemma_2_is_tight(name):
    """Two scalars on either side of the steepest point: the ratio attains L, up to the curvature there."""
    apart = 1e-5 * jnp.array([[-1.0], [1.0]]) + STEEPEST.get(name, 1.0)
    mask = jnp.ones(2, bool)
    ratio = float(distance(PHI[name](apart), mask) / distance(apart, mask))
    assert ratio == pytest.approx(LIPSCHITZ[name], rel=1e-9)


@pytest.mark.parametrize("name", STEEPEST)
def test_lemma_2_with_factor_one_fails_for_all_but_relu(name):
    apart = jnp.array([[1.3], [1.5]]) if name != "silu" else jnp.array([[2.3], [2.5]])
    mask = jnp.ones(2, bool)
    assert float(distance(PHI[name](apart), mask)) > 1.09 * float(distance(apart, mask))


def test_lemma_2_fails_for_the_subspace_of_symmetric_normalisation():
    """Graph networks with D^(-1/2) A D^(-1/2) collapse to span(D^(1/2) 1). GELU leaves it, ReLU does not."""
    direction = np.sqrt([1.0, 4.0])
    away = np.eye(2) - np.outer(direction, direction) / 5
    phi = {name: np.asarray(PHI[name](jnp.asarray(direction))) for name in ("relu", "gelu")}
    assert np.linalg.norm(away @ direction) < 1e-15
    assert np.linalg.norm(away @ phi["relu"]) < 1e-15
    normal = 0.5 * (1 + np.array([math.erf(x / math.sqrt(2)) for x in (1, 2)]))
    assert np.linalg.norm(away @ phi["gelu"]) == pytest.approx(2 * (normal[1] - normal[0]) / math.sqrt(5))


@pytest.mark.parametrize("name", SLOPES)
def test_the_slopes_span_exactly_the_stated_interval(name):
    found = np.asarray(slopes[name](jnp.linspace(-20, 20, 400_001)))
    least, most = SLOPES[name]
    assert least * (1 + 1e-15) - 1e-15 <= found.min() <= least + 1e-9
    assert most - 1e-9 <= found.max() <= most * (1 + 1e-15)


@pytest.mark.parametrize(("place", "which"), [(-2.2563763963607931, 0), (1.4905711794854285, 1)])
def test_mish_has_slopes_of_its_own(place, which):
    """An interval that [1 - L, L] does not cover, checked in 200-bit ball arithmetic."""
    x = flint.arb_series([flint.arb(place), 1], prec=3)
    square = (x.exp() + 1) * (x.exp() + 1)
    series = x * (square - 1) / (square + 1)
    assert abs(float(series[2])) < 1e-15
    assert float(series[1]) == pytest.approx(SLOPES["mish"][which], rel=1e-15)
    assert SLOPES["mish"][0] < 1 - SLOPES["mish"][1]


@pytest.mark.parametrize(("dtype", "most"), [(jnp.float32, 2e-7), (jnp.bfloat16, 2.0**-8), (jnp.float16, 2.0**-11)])
def test_gelu_where_it_is_differentiated_is_as_exact_as_its_dtype(dtype, most):
    """Value and slope, up to one rounding, in the left tail too, where 1 + erf is small and would be rounded away."""
    x = jnp.linspace(-8.0, 8.0, 4001, dtype=jnp.float32).astype(dtype)
    value, slope = jax.jit(lambda x: jax.jvp(ACTIVATIONS["gelu"].function, (x,), (jnp.ones_like(x),)))(x)
    assert value.dtype == slope.dtype == dtype
    exact = np.asarray(x, np.float64)
    normal, density = scipy.stats.norm.cdf(exact), exact * scipy.stats.norm.pdf(exact)
    for found, expected in ((value, exact * normal), (slope, normal + density)):
        error = np.abs(np.asarray(found, np.float64) - expected)
        assert np.all(error <= most * np.abs(expected) + 2e-7 * np.maximum(1, np.abs(exact)))
