"""How long tokens stay in so many clusters: known counts, padding, and two tokens whose time is a recursion's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.matrices import GARBAGE

from jaxsmooth.theory import cluster_counts, dwell_times, token_clusters


def test_clusters_of_a_map_that_joins_tokens_one_after_the_other():
    """Tokens on a line at 1, 2, 4, 8: their distances, halved again and again, fall below a tenth of their length."""
    start = np.full((3, 5, 1), GARBAGE)
    start[0, 1:, 0], start[1, 1::2] = [1, 2, 4, 8], 3
    mask = np.array([[0, 1, 1, 1, 1], [0, 1, 0, 1, 0], [0] * 5], bool)
    run = jax.jit(lambda x, goal: cluster_counts(lambda y: goal + (y - goal) / 2, x, mask, steps=6))
    found, x, expected = np.asarray(run(start, 6.0)), np.array([1.0, 2.0, 4.0, 8.0]), []
    for _ in range(7):
        length = np.sqrt(np.mean(x * x))
        expected.append(1 + int(np.sum(np.diff(np.sort(x)) > 0.1 * length)))
        x = 6 + (x - 6) / 2
    assert found[:, 0].tolist() == expected
    assert sorted(set(expected)) == [1, 2, 3, 4]
    assert found[:, 1:].tolist() == [[1, 0]] * 7  # equal tokens, and none
    for factor in (1e-20, 1e20):  # of the unit
        assert np.asarray(run(factor * start, factor * 6)).tolist() == found.tolist()


def test_the_longest_stay_is_the_longest_run():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 5, (40, 6)).astype(np.int32)
    counts[:, 0] = 2
    found = np.asarray(dwell_times(counts, 3))
    for b, k in np.ndindex(6, 3):
        runs = "".join("x" if c == k + 1 else " " for c in counts[:, b]).split()
        assert found[b, k] == max(map(len, runs), default=0)
    assert found[0].tolist() == [0, 40, 0]


def test_two_clusters_stay_for_a_time_that_grows_exponentially_with_the_sharpness():
    """Causal attention with scores beta <u_i, u_j> on the circle: tan t' = (1 - m) sin t / (m + (1 - m) cos t)."""
    sharpness, real = jnp.array([1.0, 4.0, 6.0, 8.0]), np.ones((4, 2), bool)

    def step(x: jax.Array) -> jax.Array:
        logits = sharpness[:, None, None] * jnp.einsum("btd,bsd->bts", x, x)
        mixed = jax.nn.softmax(jnp.where(np.tri(2, dtype=bool)[None], logits, -jnp.inf), axis=-1) @ x
        return mixed / jnp.linalg.norm(mixed, axis=-1, keepdims=True)

    start = jnp.tile(jnp.eye(2)[None], (4, 1, 1))
    stays = np.asarray(jax.jit(lambda x: dwell_times(cluster_counts(step, x, real, steps=6000), 2))(start))
    expected = []
    for beta in np.asarray(sharpness):
        angle, steps = np.pi / 2, 0
        while 2 * np.sin(angle / 2) > 0.1:
            m = 1 / (1 + np.exp(beta * (1 - np.cos(angle))))
            angle = np.arctan2((1 - m) * np.sin(angle), m + (1 - m) * np.cos(angle))
            steps += 1
        expected.append(steps)
    assert stays[:, 1].tolist() == expected
    # At a right angle m is about exp(-beta), and they leave it by 1 / beta: a time like exp(beta) / beta.
    assert np.log(expected[3] / expected[1]) == pytest.approx(4 - np.log(2), abs=0.4)


def test_clusters_by_a_length_of_ones_own():
    x, mask = np.array([[[0.0], [1.0], [3.0]]] * 3), np.ones((3, 3), bool)
    run = jax.jit(lambda of: token_clusters(x, mask, separation=0.1, of=of))
    assert run(np.array([3.0, 10, 20])).tolist() == [[0, 1, 2], [0, 0, 2], [0, 0, 0]]
