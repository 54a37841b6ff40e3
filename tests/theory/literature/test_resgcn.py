"""ResGCN: its bound holds, is met, needs its hypotheses; its subspace is its own."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxsmooth import theory

TOKENS, FEATURES = 6, 3
step, stretch = jax.jit(theory.shi2022_resgcn), jax.jit(theory.shi2022_resgcn_stretch)
affinity = jax.jit(theory.shi2022_affinity)
ALL = np.ones(TOKENS, bool)


def by_numpy(x: np.ndarray, graph: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """The step, the unit vector of the subspace, and the second eigenvalue modulus, of the walk."""
    degrees = graph.sum(axis=1)
    normal = np.diag(degrees**-0.5) @ graph @ np.diag(degrees**-0.5)
    moduli = np.sort(np.abs(np.linalg.eigvals(graph / degrees[:, None])))[::-1]
    return x + np.maximum(normal @ x @ weight, 0), np.sqrt(degrees / degrees.sum()), float(moduli[1])


def apart(x: np.ndarray, unit: np.ndarray) -> float:
    return float(np.linalg.norm(x - np.outer(unit, unit @ x)))


@given(st.integers(0, 2**32 - 1), st.floats(0.0, 6.0), st.floats(0.1, 5.0), st.sampled_from([1e-20, 1.0, 1e20]))
def test_the_bound_holds_and_its_parts_are_numpys(seed, sharpness, strength, size):
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((TOKENS, 4))
    graph = np.asarray(affinity(sharpness * root @ root.T, ALL))
    x, weight = size * rng.standard_normal((TOKENS, FEATURES)), strength * rng.standard_normal((FEATURES, FEATURES))
    image, unit, second = by_numpy(x, graph, weight)
    np.testing.assert_allclose(step(x, graph, weight, ALL), image, rtol=1e-11, atol=1e-13 * size)
    found = stretch(x, graph, weight, ALL)
    assert bool(found.applicable)
    assert float(found.lhs) == pytest.approx(apart(image, unit), rel=1e-9)
    rate = 1 + second * np.linalg.norm(weight, 2)
    assert float(found.rhs) == pytest.approx(rate * apart(x, unit), rel=1e-7)
    assert float(found.lhs) <= float(found.rhs) * (1 + 1e-7)


def test_the_bound_is_met():
    """Tokens along the second eigenvector, lifted above 0 by D^(1/2) 1, W = s I."""
    rng = np.random.default_rng(1)
    root = rng.standard_normal((TOKENS, 4))
    graph = np.asarray(affinity(root @ root.T, ALL))
    degrees = graph.sum(axis=1)
    values, vectors = np.linalg.eigh(graph / np.sqrt(np.outer(degrees, degrees)))
    x = 100 * np.sqrt(degrees)[:, None] + np.outer(vectors[:, -2], rng.standard_normal(FEATURES))
    assert values[-2] > abs(values[0])
    found = stretch(x, graph, 2 * np.eye(FEATURES), ALL)
    assert float(found.lhs) == pytest.approx(float(found.rhs), rel=1e-9)


def test_each_normalisation_keeps_its_own_subspace():
    """Equal tokens stay equal under softmax, D^(1/2) c stays so under ResGCN with W = w I; not the other way."""
    rng = np.random.default_rng(2)
    root = rng.standard_normal((TOKENS, 4))
    graph = np.asarray(affinity(root @ root.T, ALL))
    degrees = graph.sum(axis=1)
    walk, normal = graph / degrees[:, None], graph / np.sqrt(np.outer(degrees, degrees))
    np.testing.assert_allclose(walk, jax.nn.softmax(root @ root.T, axis=-1), rtol=1e-12)
    np.testing.assert_allclose(np.sort(np.linalg.eigvals(walk).real), np.linalg.eigvalsh(normal), atol=1e-12)
    c = rng.standard_normal(FEATURES)
    own, equal = np.outer(np.sqrt(degrees), c), np.outer(np.ones(TOKENS), c)
    unit, one = np.sqrt(degrees / degrees.sum()), np.full(TOKENS, TOKENS**-0.5)
    for scale in (0.7, -0.7):  # of either sign the ReLU acts on whole features
        assert apart(np.asarray(step(own, graph, scale * np.eye(FEATURES), ALL)), unit) < 1e-12
        assert apart(np.asarray(step(equal, graph, scale * np.eye(FEATURES), ALL)), one) > 1e-2
    assert apart(walk @ equal, one) < 1e-12
    assert apart(walk @ own, unit) > 1e-2


def test_of_a_directed_graph_the_eigenvalue_is_too_small():
    """D^(1/2) 1 is kept still, but what is left is not normal: it stretches by more than its eigenvalues say."""
    graph = np.array([[1.0, 5.0, 0.1], [0.1, 1.0, 5.0], [0.1, 0.1, 1.0]])
    real, degrees = np.ones(3, bool), graph.sum(axis=1)
    unit = np.sqrt(degrees / degrees.sum())
    rest = graph / np.sqrt(np.outer(degrees, degrees)) - np.outer(unit, unit)
    across = np.eye(3) - np.outer(unit, unit)
    left, _, right = np.linalg.svd(across @ rest @ across)
    x = (100 * unit + np.sign(left[:, 0] @ right[0]) * right[0])[:, None]
    found = stretch(x, graph, 10 * np.eye(1), real)
    assert not bool(found.applicable)
    second = np.sort(np.abs(np.linalg.eigvals(graph / degrees[:, None])))[1]
    assert float(found.lhs) > 1.05 * (1 + 10 * second) * apart(x, unit)


def test_where_it_does_not_apply():
    real = np.ones(2, bool)
    for graph in ([[1.0, -0.5], [-0.5, 1.0]], [[1.0, 0.0], [0.0, 0.0]], [[1.0, 0.5], [0.4, 1.0]]):
        assert not bool(stretch(np.ones((2, 1)), np.array(graph), np.eye(1), real).applicable)


def test_padding_changes_nothing():
    rng = np.random.default_rng(3)
    root = rng.standard_normal((TOKENS, 4))
    x, weight, mask = rng.standard_normal((TOKENS, FEATURES)), rng.standard_normal((FEATURES, FEATURES)), ALL.copy()
    mask[4:] = False
    scores = root @ root.T
    scores[4:], scores[:, 4:], x[4:] = np.nan, np.nan, np.nan
    graph = np.asarray(affinity(scores, mask))
    small = affinity(scores[:4, :4], mask[:4])
    np.testing.assert_allclose(graph[:4, :4], small, rtol=1e-14)
    assert (graph[4:] == 0).all()
    np.testing.assert_allclose(step(x, graph, weight, mask)[:4], step(x[:4], small, weight, mask[:4]), rtol=1e-12)
    for one, other in zip(stretch(x, graph, weight, mask), stretch(x[:4], small, weight, mask[:4]), strict=True):
        assert float(one) == pytest.approx(float(other), rel=1e-9)


def test_of_no_token_and_of_one():
    nothing = stretch(np.ones((2, 2)), np.ones((2, 2)), np.eye(2), np.zeros(2, bool))
    assert (float(nothing.lhs), float(nothing.rhs)) == (0, 0)
    alone = stretch(np.ones((2, 2)), np.ones((2, 2)), np.eye(2), np.array([True, False]))
    assert float(alone.lhs) == pytest.approx(0, abs=1e-12)
