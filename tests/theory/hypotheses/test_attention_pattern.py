"""Sinks and roots against exact rational arithmetic and a search of the graph."""

import jax.numpy as jnp
import numpy as np
import pytest
from support.hypothesis_cases import edge_of_a_sink, exact_sink, random_graph, searched_radius

from jaxsmooth.theory import has_sink, rooted_radius, wu2024_radius


def test_a_sink_is_decided_exactly_next_to_the_level():
    rng = np.random.default_rng(0)
    found = [(has_sink(*case), exact_sink(*case)) for case in (edge_of_a_sink(rng) for _ in range(500))]
    assert all(ours == exact for ours, exact in found)
    assert {exact for _, exact in found} == {True, False}


def test_a_mean_of_exactly_the_level_is_no_sink():
    assert not has_sink(np.full((4, 4), 0.25), 0.25)
    assert has_sink(np.full((4, 4), 0.25) + 2.0**-50 * np.eye(4), 0.25)


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
