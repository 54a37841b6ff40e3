"""Sinks and roots against exact rational arithmetic and a search of the graph."""

from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsmooth.theory import has_sink, rooted_radius, wu2024_radius


def exact_sink(attn: np.ndarray, level: float) -> bool:
    columns = [[Fraction(x) for x in column] for column in attn.T.tolist()]
    return any(sum(column) > Fraction(level) * len(attn) for column in columns)


def edge_of_a_sink(rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Columns whose mean is within a few units in the last place of the level, or equal to it."""
    size, level = int(rng.integers(2, 7)), float(rng.choice([0.25, 0.3, 0.5]))
    attn = rng.uniform(0, 1, (size, size))
    attn[:, 0] = level + (rng.uniform(-1, 1, size) * 1e-17 if rng.uniform() < 0.3 else 0)
    attn[-1, 0] += rng.integers(-2, 3) * 2.0**-54
    attn[:, 1:] *= 0.1
    return attn, level


def test_a_sink_is_decided_exactly_next_to_the_level():
    rng = np.random.default_rng(0)
    found = [(has_sink(*case), exact_sink(*case)) for case in (edge_of_a_sink(rng) for _ in range(500))]
    assert all(ours == exact for ours, exact in found)
    assert {exact for _, exact in found} == {True, False}


def test_a_mean_of_exactly_the_level_is_no_sink():
    assert not has_sink(np.full((4, 4), 0.25), 0.25)
    assert has_sink(np.full((4, 4), 0.25) + 2.0**-50 * np.eye(4), 0.25)


def searched_radius(graph: np.ndarray) -> int:
    """Steps that the best token needs to reach all others, token by token; -1 where none does."""
    best = -1
    for root in range(len(graph)):
        reached, steps = {root}, 0
        while len(reached) < len(graph):
            more = {t for t in range(len(graph)) if any(graph[t, s] for s in reached)} | reached
            if more == reached:
                break
            reached, steps = more, steps + 1
        if len(reached) == len(graph) and (best < 0 or steps < best):
            best = steps
    return best


def random_graph(rng: np.random.Generator) -> np.ndarray:
    size = int(rng.integers(1, 6))
    return (rng.uniform(size=(size, size)) < rng.choice([0.15, 0.4])) | np.eye(size, dtype=bool)


def test_a_radius_is_that_of_the_batched_function():
    rng = np.random.default_rng(2)
    graphs = rng.uniform(size=(40, 4, 4)) < 0.35
    together = wu2024_radius(jnp.asarray(graphs), jnp.ones((40, 4), bool))
    assert together.tolist() == [rooted_radius(graph) for graph in graphs]


def test_a_radius_is_what_a_search_finds():
    rng = np.random.default_rng(1)
    found = [(rooted_radius(graph), searched_radius(graph)) for graph in (random_graph(rng) for _ in range(60))]
    assert all(ours == exact for ours, exact in found)
    assert {-1, 0, 1, 2} <= {exact for _, exact in found}


@pytest.mark.parametrize(
    ("graph", "radius"),
    [(np.tri(6, dtype=bool), 1), (np.eye(3, dtype=bool), -1), (np.eye(5, dtype=bool) | np.eye(5, k=-1, dtype=bool), 4)],
    ids=["causal", "alone", "window of 2"],
)
def test_radii_of_known_masks(graph, radius):
    assert rooted_radius(graph) == radius
