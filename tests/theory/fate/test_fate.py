"""Maps of known fate, their states' stability against numpy's eigenvalues, and groups of tokens."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsmooth.studies.fate.programs import _followed
from jaxsmooth.theory import (
    Fate,
    approach_consensus,
    consensus_basin,
    follow,
    jacobian_krylov,
    krylov_radius,
    token_clusters,
    wu2024_antipodal,
    wu2024_equilibrium,
    wu2024_layer,
)

T, D, STEPS = 7, 3, 150
REAL = 5
MASK = np.arange(T) < REAL


def turned(x: jax.Array, steps: int) -> jax.Array:
    """The first two features turned by one `steps`-th of a circle."""
    angle = 2 * math.pi / steps
    turn = (
        jnp.eye(D).at[:2, :2].set(jnp.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]))
    )
    return x @ turn


FIXED = np.random.default_rng(0).standard_normal((T, D))
MAPS = {
    "shrinks": lambda x: 2 + (x - 2) * 0.7,
    "shrinks, and its mean turns": lambda x: 1 + turned(x - 1, 7) * 0.8,
    "stays": lambda x: x,
    "comes to rest": lambda x: FIXED + (x - FIXED) * 0.8,
    "comes to rest in swings": lambda x: FIXED - (x - FIXED) * 0.8,
    "tokens change places": lambda x: x[jnp.array([1, 2, 3, 4, 0, 5, 6])],
    "features turn": lambda x: turned(x, 13),
    "a longer cycle": lambda x: turned(x, 40),
    "grows for ever": lambda x: 1.5 * x,
    "overflows": lambda x: 1e30 * x,
    "too large to measure": lambda x: jnp.full_like(x, 1.7e308) * jnp.where(x > 0, 1, -1),
    "vanishes": lambda x: 0 * x,
    **dict.fromkeys(("one token", "no token", "equal tokens"), lambda x: x + jnp.nan),  # never asked
}


@pytest.fixture(scope="module")
def found():
    """All maps in one program, each on a sentence of its own; NaN under the padding."""
    start = np.random.default_rng(1).standard_normal((len(MAPS), T, D))
    start[-1], start[:, REAL:] = 3.0, np.nan

    def apply(x: jax.Array) -> jax.Array:
        return jnp.stack([step(x[k]) for k, step in enumerate(MAPS.values())])

    mask = np.tile(MASK, (len(MAPS), 1))
    mask[-3, 1:], mask[-2] = False, False
    orbit = jax.jit(lambda x: follow(apply, x, jnp.asarray(mask), steps=STEPS))(start)
    return start, {name: jax.tree.map(lambda leaf, k=k: np.asarray(leaf), orbit) for k, name in enumerate(MAPS)}


EXPECTED = {
    "shrinks": ("CONSENSUS", 0),
    "shrinks, and its mean turns": ("CONSENSUS", 0),
    "stays": ("CLUSTERS", 1),
    "comes to rest": ("CLUSTERS", 1),
    "comes to rest in swings": ("CLUSTERS", 1),
    "tokens change places": ("CYCLE", 5),
    "features turn": ("CYCLE", 13),
    "a longer cycle": ("MOVING", 0),
    "grows for ever": ("MOVING", 0),
    "overflows": ("DIVERGED", 0),
    "too large to measure": ("DIVERGED", 0),
    "vanishes": ("CONSENSUS", 0),
    **dict.fromkeys(("one token", "no token", "equal tokens"), ("CONSENSUS", 0)),
}


@pytest.mark.parametrize("name", MAPS)
def test_the_fate_of_a_map_that_is_known(found, name):
    orbit, k = found[1][name], list(MAPS).index(name)
    assert (Fate(int(orbit.fate[k])).name, int(orbit.period[k])) == EXPECTED[name]
    assert np.all(np.isfinite(orbit.final[k]))
    np.testing.assert_array_equal(orbit.final[k, REAL:], 0)


def test_distances_and_steps_are_those_of_the_iterates(found):
    start, orbits = found
    for name, factor, centre in (("shrinks", 0.7, 2.0), ("comes to rest", 0.8, FIXED[:REAL])):
        k = list(MAPS).index(name)
        orbit, x = orbits[name], start[k, :REAL]
        shares = []
        for _ in range(STEPS + 1):
            shares.append(np.linalg.norm(x - x.mean(axis=0)) / np.linalg.norm(x))
            x = centre + (x - centre) * factor
        steps = int(orbit.steps[k])
        np.testing.assert_allclose(orbit.distances[: steps + 1, k], shares[: steps + 1], rtol=1e-9, atol=1e-15)
        assert np.all(np.isnan(orbit.distances[steps + 1 :, k]))
        if name == "shrinks":
            assert steps == next(j for j, share in enumerate(shares) if share <= 1e-9)
        else:
            assert float(orbit.late_change[k]) == pytest.approx(factor, rel=1e-5)


def layer_of(value: jax.Array):
    """Attention with LayerNorm, W_QK = I, sentence by sentence."""
    return jax.vmap(lambda x: wu2024_layer(x, jnp.ones(len(x), bool), jnp.eye(3), value))


def radius_by_differences(apply, state: np.ndarray) -> float:
    """The largest eigenvalue modulus of a Jacobian of central differences, by LAPACK."""
    step, columns = 1e-6, []
    for k in range(state.size):
        move = np.zeros(state.size)
        move[k] = step
        move = move.reshape(state.shape)
        columns.append(np.ravel(apply(state + move) - apply(state - move)) / (2 * step))
    return float(np.abs(np.linalg.eigvals(np.array(columns))).max())


@pytest.fixture(scope="module")
def equilibria():
    """Of Wu et al.'s kind: near the opposite tokens, and at the orthogonal ones; with the Jacobians where they end."""
    points = wu2024_antipodal(), wu2024_equilibrium()
    apply = jax.vmap(lambda x, v: wu2024_layer(x, jnp.ones(2, bool), jnp.eye(3), v))
    values = jnp.stack([point.value for point in points])
    start = np.stack([point.hidden for point in points])
    start[0] += 0.1 * np.random.default_rng(2).standard_normal((2, 3))

    @jax.jit
    def run(start):
        two, one = jnp.ones((2, 2), bool), jnp.ones(2, jnp.int32)
        orbit = follow(lambda x: apply(x, values), start, two, steps=STEPS)
        krylov = jacobian_krylov(
            lambda x: apply(x, values), orbit.final, two, period=one, centred=one == 0, start=orbit.move, size=6
        )
        return orbit, krylov, apply(start, values)

    orbit, krylov, _ = run(start)
    return points, orbit, krylov_radius(krylov, np.ones(2, int)), lambda x: np.asarray(run(x)[2])


def test_two_opposite_tokens_attract_what_is_near(equilibria):
    """LayerNorm keeps them opposite; what is common to both shrinks by 1 / (2 tanh sqrt 3) a step."""
    points, orbit, (radius, _), _ = equilibria
    assert Fate(int(orbit.fate[0])) == Fate.CLUSTERS
    np.testing.assert_allclose(orbit.final[0], points[0].hidden, atol=1e-7)
    expected = 1 / (2 * math.tanh(math.sqrt(3)))
    assert radius[0] == pytest.approx(expected, rel=1e-6)
    assert float(orbit.late_change[0]) == pytest.approx(expected, rel=0.02)


def test_a_state_of_rest_may_repel(equilibria):
    """Two orthogonal tokens stay where they are, so they are at rest; that the rest is unstable the radius says."""
    points, orbit, (radius, residual), apply = equilibria
    assert Fate(int(orbit.fate[1])) == Fate.CLUSTERS
    state = np.stack([point.hidden for point in points])
    expected = radius_by_differences(lambda x: apply(np.stack([state[0], x]))[1], state[1])
    assert radius[1] == pytest.approx(expected, rel=1e-5)
    assert radius[1] > 1
    assert residual[1] < 1e-6


def test_the_jacobian_of_a_cycle_and_of_the_quotient():
    """The logistic map's cycle of 2 has the multiplier 4 + 2 r - r^2; on the quotient the mean's growth is not seen."""
    r = 3.2
    low = (r + 1 - math.sqrt((r - 3) * (r + 1))) / (2 * r)

    def apply(x: jax.Array) -> jax.Array:
        doubled = 0.5 * x + 1.5 * jnp.mean(x, axis=1, keepdims=True)
        return jnp.concatenate([r * x[:1] * (1 - x[:1]), doubled[1:]])

    period, centred = np.array([2, 1, 1], np.int32), np.array([False, True, False])
    state, real = np.full((3, 2, 1), low), np.ones((3, 2), bool)
    run = jax.jit(lambda state: jacobian_krylov(apply, state, real, period=period, centred=centred, size=2))
    radius, _ = krylov_radius(run(state), period)
    np.testing.assert_allclose(radius, [math.sqrt(abs(4 + 2 * r - r * r)), 0.5, 2.0], rtol=1e-6)


def test_the_basin_along_the_way_to_the_mean():
    """+-a goes to 0 under x^3 for a < 1, and to 0 from anywhere under x / 2; never under x."""
    start = jnp.array([[[2.0], [-2.0]]])
    apply = lambda x: jnp.concatenate([x[:1] ** 3, 0.5 * x[1:2] + 1, x[2:]])  # noqa: E731
    reached, missed = consensus_basin(apply, jnp.tile(start, (3, 1, 1)), jnp.ones((3, 2), bool), steps=80, halvings=9)
    assert float(reached[0]) < 0.5 <= float(missed[0])
    assert float(missed[0] - reached[0]) < 0.002
    assert (float(reached[1]), float(missed[1])) == (4.0, np.inf)
    assert (float(reached[2]), float(missed[2])) == (0.0, pytest.approx(2.0**-10))


def test_clusters_are_the_components_of_the_near_pairs():
    rng = np.random.default_rng(4)
    places = rng.standard_normal((6, 4, 2))
    member = rng.integers(0, 4, (6, 12))
    hidden = np.take_along_axis(places, member[..., None], axis=1) + 1e-4 * rng.standard_normal((6, 12, 2))
    mask = rng.random((6, 12)) < 0.8
    hidden[~mask] = 1e6
    labels = np.asarray(jax.jit(token_clusters)(hidden, mask))
    for row in range(6):
        for i, j in np.argwhere(mask[row][:, None] & mask[row][None]):
            assert (labels[row, i] == labels[row, j]) == (member[row, i] == member[row, j])
            assert labels[row, i] <= i
        assert np.all(labels[row][~mask[row]] == -1)


@pytest.mark.parametrize(("dtype", "far"), [(np.float64, 1e18), (np.float32, 1e9)])
def test_a_rate_next_to_a_consensus_that_is_far_away(dtype, far):
    """Of a first deviation of about 1 nothing is left beside such a mean, and a rate of 0 would be that of rounding."""
    mask = jnp.ones((1, T), bool)
    start = np.random.default_rng(2).standard_normal((1, T, D)).astype(dtype)

    def halves(x):
        return dtype(far) + dtype(0.5) * (x - jnp.mean(x, axis=1, keepdims=True))

    _, near = jax.jit(lambda x: _followed(halves, x, mask, 40, 1e-5, 50))(start)
    assert near.rate[0] == pytest.approx(0.5, rel=1e-2)
    lost = jax.jit(lambda x: approach_consensus(halves, x, mask, steps=50))(dtype(far) + dtype(0) * start)
    assert np.isnan(lost.rate[0])
    rounded = dtype(far) * (1 + 4 * np.finfo(dtype).eps * np.sign(start))
    lost = jax.jit(lambda x: approach_consensus(halves, x, mask, steps=50))(rounded)
    assert np.isnan(lost.rate[0])


def test_a_rate_of_what_outgrows_the_numbers_is_unknown():
    """Not 0, as if a step had left nothing of the deviation."""
    start = np.random.default_rng(2).standard_normal((1, T, D))
    grown = jax.jit(lambda x: approach_consensus(lambda y: 1e200 * y, x, jnp.ones((1, T), bool), steps=9))(start)
    assert np.isnan(grown.rate[0])


def test_the_jacobian_of_a_sentence_is_found_alike_in_every_batch_and_behind_any_padding():
    """Its start is random; were it drawn for the batch as it is padded, the estimate would depend on both."""
    rng = np.random.default_rng(5)
    state, weight = jnp.asarray(rng.normal(size=(1, 3, 4))), jnp.asarray(rng.normal(size=(4, 4)))
    padded = jnp.zeros((3, 6, 4)).at[2, :3].set(state[0])
    mask = jnp.zeros((3, 6), bool).at[2, :3].set(True)

    def found(x, mask):
        one = jnp.ones(len(x), jnp.int32)
        return jacobian_krylov(lambda h: jnp.tanh(h @ weight), x, mask, period=one, centred=one == 0, size=5).projected

    alone = found(state, jnp.ones((1, 3), bool))
    np.testing.assert_allclose(found(padded, mask)[2], alone[0], rtol=1e-9, atol=1e-12)
