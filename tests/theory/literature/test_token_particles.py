"""Tokens on the unit sphere: clustering, its rate, and where it fails (Geshkovski et al. 2023)."""

import jax
import numpy as np
import pytest
import scipy.integrate
import scipy.sparse.csgraph
from support.matrices import PADDED, lengths_mask, orthonormal
from support.statements import assert_holds, few_or_many_seeds

from jaxsmooth.metrics import token_cosine_similarity
from jaxsmooth.theory.literature import token_particles

CASES = 1024
BOTH = np.ones(2, bool)
cosine = jax.jit(token_cosine_similarity)
flow = jax.jit(token_particles.geshkovski2023_flow, static_argnums=(3, 4))
clustering, discrete = (
    jax.jit(token_particles.geshkovski2023_clustering),
    jax.jit(token_particles.geshkovski2023_discrete_step),
)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def acute_tokens(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors with non-negative coordinates in a random frame, from one octant to almost one point."""
    mask = lengths_mask(rng.integers(2, PADDED + 1, CASES))
    frame = orthonormal(rng, 4, 4)
    x = np.abs(rng.standard_normal((CASES, PADDED, 4))) * 10 ** rng.uniform(-3, 0, (CASES, 1, 1)) + np.where(
        rng.uniform(size=(CASES, 1, 1)) < 0.5, np.eye(4)[rng.integers(0, 4, (CASES, PADDED))], np.ones(4)
    )
    return np.where(mask[..., None], unit(x) @ frame.T, 1e6), mask


def check_clustering(rng: np.random.Generator) -> None:
    x, mask = acute_tokens(rng)
    sharpness = rng.choice([0.0, 1.0, 4.0])
    # Both cosines near 1: the comparison is of 1 - g, and 64 steps of the integrator leave 1e-9 of it.
    found = clustering(x, flow(x, mask, sharpness, 1.0, 64), mask, sharpness, 1.0)
    lhs, rhs, applicable = map(np.asarray, found)
    assert applicable.mean() > 0.99
    assert np.all((1 - rhs <= (1 - lhs) * (1 + 1e-8) + 1e-14)[applicable])


def check_discrete_step(rng: np.random.Generator) -> None:
    x, mask = acute_tokens(rng)
    sharpness = 10 ** rng.uniform(-2, 1)
    after = np.stack([numpy_sphere_layer(y, real, sharpness) for y, real in zip(x, mask, strict=True)])
    assert assert_holds(discrete(x, after, mask, sharpness), rtol=1e-9, atol=1e-14, share=0.9).max() > 0.5


CHECKS = {"clustering": check_clustering, "discrete step": check_discrete_step}


@few_or_many_seeds
@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS.keys())
def test_it_holds(check, seeds):
    for seed in seeds:
        check(np.random.default_rng(seed))


def numpy_sphere_layer(x: np.ndarray, real: np.ndarray, sharpness: float) -> np.ndarray:
    logits = sharpness * x[real] @ x[real].T
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    out = x.copy()
    out[real] = unit(weights / weights.sum(axis=1, keepdims=True) @ x[real])
    return out


@pytest.mark.parametrize("start", [0.0, 0.5, 0.99])
def test_the_clustering_rate_is_attained_by_two_uniform_tokens(start):
    """n = 2, beta = 0: g(t) = tanh(artanh g_0 + t) exactly."""
    x = np.array([[1.0, 0.0], [start, np.sqrt(1 - start**2)]])
    found = clustering(x, flow(x, BOTH, 0.0, 1.0, 64), BOTH, 0.0, 1.0)
    assert float(found.lhs) == pytest.approx(np.tanh(np.arctanh(start) + 1), rel=1e-14)
    assert 1 - float(found.rhs) == pytest.approx(1 - float(found.lhs), rel=1e-7)


def test_the_flow_against_scipy():
    x, mask = acute_tokens(np.random.default_rng(5))
    found = np.asarray(flow(x, mask, 4.0, 1.0, 64))
    for case in range(0, CASES, 128):
        start = x[case][mask[case]]

        def velocity(_: float, flat: np.ndarray, shape: tuple = start.shape) -> np.ndarray:
            y = flat.reshape(shape)
            weights = np.exp(4 * y @ y.T)
            pull = weights / weights.sum(axis=1, keepdims=True) @ y
            return (pull - np.sum(pull * y, axis=1, keepdims=True) * y).ravel()

        solved = scipy.integrate.solve_ivp(velocity, (0, 1), start.ravel(), rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(found[case][mask[case]], solved.y[:, -1].reshape(start.shape), atol=1e-7)
        np.testing.assert_array_equal(found[case][~mask[case]], x[case][~mask[case]])


def test_almost_every_start_clusters_and_symmetric_ones_do_not():
    """300 uniform starts of 5 tokens on the sphere of R^3 end in one point; opposite pairs and triangles stay."""
    starts = unit(np.random.default_rng(6).standard_normal((300, 5, 3)))
    every = np.ones((300, 5), bool)
    ends = np.asarray(flow(starts, every, 1.0, 120.0, 1200))
    assert np.asarray(cosine(ends, every)).min() > 1 - 1e-9
    for count in (2, 3):
        angles = 2 * np.pi * np.arange(count) / count
        ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        np.testing.assert_allclose(flow(ring, np.ones(count, bool), 1.0, 1.0, 20), ring, atol=1e-14)
        assert not clustering(ring, ring, np.ones(count, bool), 1.0, 1.0).applicable


def test_obtuse_angles_break_the_rate():
    """Just inside a hemisphere two tokens do cluster, but from g_0 < 0 no rate of the acute form holds uniformly."""
    nearly = np.pi - 1e-3
    x = np.array([[1.0, 0.0], [np.cos(nearly), np.sin(nearly)]])
    found = clustering(x, flow(x, BOTH, 0.0, 1.0, 64), BOTH, 0.0, 1.0)
    assert not found.applicable
    assert float(found.lhs) > float(found.rhs) + 0.5


def test_the_discrete_step_is_attained_near_consensus():
    """Two tokens: the ratio of both sides is the norm of the mixed token over its bound, 1 as D -> 0; and cubic."""
    for half in (1e-2, 1e-1):
        x = np.array([[np.cos(half), np.sin(half)], [np.cos(half), -np.sin(half)]])
        found = discrete(x, numpy_sphere_layer(x, BOTH, 1.0), BOTH, 1.0)
        assert float(found.lhs / found.rhs) == pytest.approx(1, abs=2 * half**4)
        assert float(found.lhs) == pytest.approx((2 * half) ** 3 / 4, rel=2 * half**2 + 1e-9)
