"""Rows that come to rest, go round, do neither, or are no numbers."""

from collections.abc import Iterator

import jax
import numpy as np
import pytest

import jaxsmooth
from jaxsmooth.theory.equal_tokens import equal_token_map, equal_token_walk, settle

PLACES = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])


def halved(rows: np.ndarray) -> np.ndarray:
    return 1 + (rows - 1) / 2


def turned(rows: np.ndarray) -> np.ndarray:
    return np.roll(rows, 1, axis=1)


def walk_of(apply):
    def walk(rows: np.ndarray) -> Iterator[np.ndarray]:
        while True:
            yield (rows := apply(rows))

    return walk


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_rest_is_found_at_the_step_at_which_it_is_reached(scale):
    """The distance to 1 halves: after k steps the last was 2^-k, of a row of length about 1."""
    asked = []

    def apply(rows):
        asked.append(rows)
        return scale * halved(rows / scale)

    found = settle(walk_of(apply), np.full((1, 1), 2 * scale), steps=99, tolerance=2.0**-20)
    assert len(asked) == 20
    np.testing.assert_allclose(found.rows, scale, rtol=2.0**-19)
    np.testing.assert_allclose(found.change, 2.0**-20, rtol=1e-5)
    assert found.period.tolist() == [1]


@pytest.mark.parametrize(("longest", "period"), [(1, 0), (2, 0), (3, 3), (8, 3)])
def test_a_cycle_is_found_if_so_many_steps_back_are_looked_at(longest, period):
    found = settle(walk_of(turned), PLACES, steps=7, tolerance=1e-9, longest_cycle=longest)
    assert found.period.tolist() == 3 * [period]
    np.testing.assert_allclose(found.change, np.sqrt(2))


def test_each_row_is_judged_by_itself():
    """At rest, at zero, growing for ever, not a number."""
    factors = np.array([1.0, 1.0, 2.0, np.nan])
    walk, start = walk_of(lambda rows: rows * factors[:, None]), np.array([[1.0], [0.0], [1.0], [1.0]])
    found = settle(walk, start, steps=5, tolerance=1e-9)
    assert found.period.tolist() == [1, 1, 0, 0]
    np.testing.assert_array_equal(found.change[:3], [0, 0, 0.5])
    assert found.rows[2, 0] == 32
    assert settle(walk_of(halved), np.zeros((0, 2)), steps=3, tolerance=1e-9).rows.shape == (0, 2)


def test_a_walk_is_the_map_again_and_again_over_the_end_of_a_portion():
    model, _ = jaxsmooth.load("tiny")
    blocks = [jax.tree.map(lambda leaf, k=k: np.asarray(leaf[k], np.float64), model.blocks) for k in range(2)]
    given = blocks, float(model.config.eps), model.config.activation
    rows = np.random.default_rng(0).normal(size=(3, model.config.width))
    once, walk = equal_token_map(*given), equal_token_walk(*given, at_once=3)(rows)
    for _ in range(7):
        rows = once(rows)
        np.testing.assert_allclose(next(walk), rows, rtol=1e-12, atol=1e-13)
    assert rows.dtype == np.float64
