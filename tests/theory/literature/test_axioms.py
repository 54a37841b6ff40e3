"""Rusch et al.'s axioms: which measures of over-smoothing satisfy them, and the relations between those in use."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.matrices import PADDED, WIDTH, lengths_mask
from support.statements import assert_holds, few_or_many_seeds, tokens_for

from jaxsmooth import metrics
from jaxsmooth.theory import diameter
from jaxsmooth.theory.literature import axioms

BOTH = jnp.ones(2, bool)
decay = jax.jit(axioms.rusch2023_decay)


def root_of_energy(hidden: jax.Array, mask: jax.Array) -> jax.Array:
    return jnp.sqrt(metrics.dirichlet_energy(hidden, mask))


GOOD = {"d_M": metrics.subspace_distance, "diameter": diameter, "root of the energy": root_of_energy}
subadditivity = {
    name: jax.jit(functools.partial(axioms.rusch2023_subadditivity, measure)) for name, measure in GOOD.items()
}


def tokens(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    mask = lengths_mask(rng.integers(1, PADDED + 1, 1024))
    left, right = tokens_for(rng, mask), tokens_for(rng, mask)
    right[::3] = left[::3] * rng.uniform(-1, 1, (342, 1, 1))
    return left, right, mask


@few_or_many_seeds
@pytest.mark.parametrize("name", GOOD)
def test_subadditivity_holds_and_is_attained(name, seeds):
    for seed in seeds:
        ratio = assert_holds(subadditivity[name](*tokens(np.random.default_rng(seed))), rtol=1e-10, atol=1e-12)
        assert ratio.max() > 1 - 1e-9


@pytest.mark.parametrize("name", GOOD)
def test_they_vanish_exactly_at_consensus(name):
    rng = np.random.default_rng(1)
    mask = lengths_mask(rng.integers(2, PADDED + 1, 64))
    hidden = tokens_for(rng, mask)
    hidden[::2] = np.where(mask[::2, :, None], hidden[::2, :1], 1e6)
    check = jax.jit(functools.partial(axioms.rusch2023_vanishes_at_consensus, GOOD[name], tolerance=1e-9))
    assert np.all(check(hidden, mask))


def mad(hidden: jax.Array, mask: jax.Array) -> jax.Array:
    return metrics.mean_average_distance(hidden, mask, convention="sum_neighbours")


def test_mad_vanishes_away_from_consensus():
    """Rows u and 2u: parallel, so MAD is 0, and not equal."""
    rows = jnp.array([[1.0, 2.0, -1.0], [2.0, 4.0, -2.0]])
    assert float(mad(rows, BOTH)) == pytest.approx(0, abs=1e-15)
    assert float(metrics.subspace_distance(rows, BOTH)) > 1
    assert not axioms.rusch2023_vanishes_at_consensus(mad, rows, BOTH, 1e-9)
    assert axioms.rusch2023_vanishes_at_consensus(metrics.subspace_distance, rows, BOTH, 1e-9)


def test_mad_is_not_subadditive():
    """Two nearly parallel pairs whose sum is an antipodal one: 2 against 2e-6."""
    left, right = jnp.array([[1.0, 0.0], [1.0, 0.0]]), jnp.array([[-1.0, 1e-3], [-1.0, -1e-3]])
    found = axioms.rusch2023_subadditivity(mad, left, right, BOTH)
    assert found.applicable
    assert float(found.lhs) == pytest.approx(2)
    assert float(found.rhs) < 1e-5


def test_the_energy_without_its_root_is_not_subadditive():
    """It is homogeneous of degree two: the energy of X + X is four times that of X."""
    x = jnp.array([[1.0], [-1.0]])
    found = axioms.rusch2023_subadditivity(metrics.dirichlet_energy, x, x, BOTH)
    assert float(found.lhs) == pytest.approx(2 * float(found.rhs))


def test_energy_and_mad_on_the_complete_graph():
    """(1/n) sum_ij |x_i - x_j|^2 = 2 d_M^2, and MAD = (n - 1)(1 - CosSim), both from double sums in numpy."""
    rng = np.random.default_rng(2)
    left, _, mask = tokens(rng)
    found = [np.asarray(jax.jit(f)(left, mask)) for f in (metrics.dirichlet_energy, metrics.subspace_distance, mad)]
    for case in range(0, 1024, 16):
        x = left[case][mask[case]]
        n = len(x)
        energy = sum(np.sum((a - b) ** 2) for a in x for b in x) / n
        assert found[0][case] == pytest.approx(energy, rel=1e-9, abs=1e-9)
        assert found[0][case] == pytest.approx(2 * found[1][case] ** 2, rel=1e-12)
        if n > 1:
            u = x / np.linalg.norm(x, axis=1, keepdims=True)
            total = sum(1 - u[i] @ u[j] for i in range(n) for j in range(n) if i != j) / n
            assert found[2][case] == pytest.approx(total, rel=1e-9, abs=1e-12)


def test_the_decay_of_iterated_mixing_is_its_second_eigenvalue():
    """A symmetric A: d_M(A^l X) decays as |lambda_2|^l; with the fitted constant the inequality holds."""
    rng = np.random.default_rng(3)
    frame = np.linalg.qr(np.column_stack([np.ones(6), rng.standard_normal((6, 5))]))[0]
    attn = frame * np.array([1, 0.7, 0.5, 0.2, -0.3, 0.1]) @ frame.T
    x, values = rng.standard_normal((6, WIDTH)), []
    for _ in range(60):
        values.append(np.linalg.norm(x - x.mean(axis=0)))
        x = attn @ x
    found = decay(np.array(values[20:]))
    assert float(found.rate) == pytest.approx(-np.log(0.7), rel=1e-3)
    bound = float(found.constant) * np.exp(-float(found.rate) * np.arange(40))
    assert np.all(values[20:] <= bound * (1 + 1e-12))
    assert np.min(bound / values[20:]) == pytest.approx(1)
    assert float(decay(np.array([1.0, 2.0, 4.0])).rate) == pytest.approx(-np.log(2))
