"""Attention has no Lipschitz constant on all inputs, and one that grows as sqrt(n) on bounded ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from support.matrices import PADDED, lengths_mask
from support.statements import assert_holds, few_or_many_seeds

from jaxsmooth.theory.literature import lipschitz

CASES, FEATURES = 1024, 3
local = jax.jit(jax.vmap(lipschitz.castin2024_local_lipschitz))
jacobian = jax.jit(jax.jacfwd(lipschitz.dot_product_attention))


def sentences(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Tokens of all radii, some aligned, some equal; interactions and values of all sizes: (hidden, mask, B, V)."""
    mask = lengths_mask(rng.integers(1, PADDED + 1, CASES))
    hidden = 10 ** rng.uniform(-1, 1, (CASES, 1, 1)) * rng.standard_normal((CASES, PADDED, FEATURES))
    hidden[::4] = hidden[::4, :1] * rng.uniform(-1, 1, (CASES // 4, PADDED, 1))
    matrices = rng.standard_normal((2, CASES, FEATURES, FEATURES)) * 10 ** rng.uniform(-1, 0.5, (2, CASES, 1, 1))
    return np.where(mask[..., None], hidden, 1e6), mask, matrices[0], matrices[1]


@few_or_many_seeds
def test_the_bound_holds(seeds):
    for seed in seeds:
        assert assert_holds(local(*sentences(np.random.default_rng(seed))), rtol=1e-8).max() > 0.3


def test_both_sides_against_a_dense_jacobian():
    args = sentences(np.random.default_rng(1))
    found = local(*args)
    for case in range(0, CASES, 32):
        hidden, mask, interaction, value = (a[case] for a in args)
        x, n = hidden[mask], int(mask.sum())
        slope, step = np.empty((n * FEATURES, n * FEATURES)), 1e-6 * np.abs(x).max()

        def attention(y: np.ndarray, b: np.ndarray = interaction, v: np.ndarray = value) -> np.ndarray:
            return (scipy.special.softmax(y @ b @ y.T, axis=1) @ y @ v).ravel()

        for k in range(n * FEATURES):
            nudge = np.zeros(n * FEATURES)
            nudge[k] = step
            nudge = nudge.reshape(x.shape)
            slope[:, k] = (attention(x + nudge) - attention(x - nudge)) / (2 * step)
        norm = np.linalg.norm(slope, 2)
        assert float(found.lhs[case]) == pytest.approx(norm, rel=1e-5, abs=1e-7 * np.linalg.norm(value, 2))
        square = (np.linalg.norm(interaction, 2) * np.max(np.sum(x * x, axis=1))) ** 2
        bound = np.sqrt(3) * np.linalg.norm(value, 2) * np.sqrt(square * (4 * n + 1) + n)
        assert float(found.rhs[case]) == pytest.approx(bound, rel=1e-9)


@pytest.mark.parametrize("tokens", [4, 16, 64])
def test_the_growth_with_the_number_of_tokens_is_real(tokens):
    """All tokens attend to one: moving it moves all, so the Jacobian's norm is at least sqrt(n) ||V||."""
    x = np.full((tokens, 1), 4.0)
    x[0] = 8.0
    slope = np.asarray(jacobian(x, np.ones(tokens, bool), np.eye(1), np.eye(1)))[:, 0, :, 0]
    norm = np.linalg.norm(slope, 2)
    assert norm >= np.sqrt(tokens) * (1 - 1e-4)
    bound = float(lipschitz.castin2024_bound(jnp.array(1.0), jnp.array(1.0), jnp.array(8.0), jnp.array(float(tokens))))
    assert norm <= bound


def test_no_constant_serves_all_radii():
    """Three tokens 0, R, -R: the slope is 1/3 + 2 R^2 / 3, against central differences, and exceeds any constant."""
    for radius in (1.0, 10.0, 1000.0):
        x = lipschitz.kim2021_witness(radius)
        slope = float(jacobian(x, jnp.ones(3, bool), jnp.eye(1), jnp.eye(1))[0, 0, 0, 0])
        assert slope == pytest.approx(1 / 3 + 2 * radius**2 / 3, rel=1e-12)
        step = 1e-4 / radius
        moved = [np.asarray(x) + np.array([[s], [0], [0]]) for s in (step, -step)]
        outputs = [(scipy.special.softmax(y @ y.T, axis=1) @ y)[0, 0] for y in moved]
        assert (outputs[0] - outputs[1]) / (2 * step) == pytest.approx(slope, rel=1e-6)
        bound = lipschitz.castin2024_bound(jnp.array(1.0), jnp.array(1.0), jnp.array(radius), jnp.array(3.0))
        assert slope <= float(bound)


def test_without_the_radius_squared_twice_the_bound_fails():
    """The witness's slope grows as R^2: a bound of the form c (||B|| R + 1) is passed."""
    slope = float(jacobian(lipschitz.kim2021_witness(1e3), jnp.ones(3, bool), jnp.eye(1), jnp.eye(1))[0, 0, 0, 0])
    assert slope > np.sqrt(3) * np.sqrt(1e3**2 * 13 + 3)


def test_padding_changes_nothing():
    hidden, mask, interaction, value = sentences(np.random.default_rng(2))
    clean = np.where(mask[..., None], hidden, 0)
    for dirty, tidy in zip(
        local(hidden, mask, interaction, value), local(clean, mask, interaction, value), strict=True
    ):
        np.testing.assert_array_equal(dirty, tidy)
