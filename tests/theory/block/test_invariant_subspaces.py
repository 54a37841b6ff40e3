"""Lemma 1 for the spans that several closed classes, and symmetric normalisation, leave in place."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from scipy.sparse.csgraph import connected_components
from support.matrices import PADDED, WIDTH, lengths_mask, pad_tokens
from support.statements import CASES, LANCZOS, MANY, assert_holds, few_or_many

from jaxsmooth.activations import ACTIVATIONS
from jaxsmooth.theory import consensus as subspace
from jaxsmooth.theory.block import invariant_subspaces

CLASSES = 3
distance = jax.jit(subspace.span_distance)
consensus = jax.jit(subspace.subspace_distance)
mixing = jax.jit(invariant_subspaces.invariant_mixing)
linear = jax.jit(jax.vmap(invariant_subspaces.invariant_linear))
total = jax.jit(jax.vmap(invariant_subspaces.invariant_sum))
activation = jax.jit(invariant_subspaces.invariant_activation, static_argnums=2)


@functools.cache
def classes(seed: int, cases: int, transient: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Attention with one to three closed classes and so many transient tokens, its absorption probabilities, tokens.

    (attn [cases PADDED PADDED], patterns [cases PADDED CLASSES], hidden [cases PADDED WIDTH], mask [cases PADDED])
    """
    rng = np.random.default_rng(seed)
    attn, patterns = np.zeros((cases, PADDED, PADDED)), np.zeros((cases, PADDED, CLASSES))
    lengths = rng.integers(CLASSES + transient + 1, PADDED + 1, cases)
    hidden = np.empty((cases, PADDED, WIDTH))
    for k, n in enumerate(lengths):
        count = rng.integers(1, CLASSES + 1)
        stay = n - transient
        group = np.concatenate([rng.permutation(np.arange(stay) % count), np.full(transient, -1)])
        allowed = (group[:, None] == group[None]) | (group == -1)[:, None]
        a = np.where(allowed, rng.exponential(size=(n, n)) + 0.05, 0)
        a /= a.sum(axis=1, keepdims=True)
        member = (group[:stay, None] == np.arange(count)).astype(float)
        absorbed = np.linalg.solve(np.eye(transient) - a[stay:, stay:], a[stay:, :stay] @ member)
        # Any basis of the span will do: a random one.
        attn[k, :n, :n] = a
        patterns[k, :n, :count] = np.concatenate([member, absorbed]) @ rng.standard_normal((count, count))
        patterns[k, n:] = 1e3
        hidden[k] = pad_tokens(rng, rng.standard_normal((n, WIDTH)) + 10 * rng.standard_normal(WIDTH))
    return attn, patterns, hidden, lengths_mask(lengths)


def by_definition(hidden: np.ndarray, patterns: np.ndarray) -> float:
    """Least squares: the distance to the nearest combination of the patterns."""
    fit = np.linalg.lstsq(patterns, hidden, rcond=1e-10)[0]
    return float(np.linalg.norm(hidden - patterns @ fit))


@pytest.mark.parametrize("transient", [0, 2])
def test_the_distance_is_that_of_least_squares(transient):
    _, patterns, hidden, mask = classes(0, CASES, transient)
    found = distance(hidden, patterns, mask)
    expected = [by_definition(h[m], p[m]) for h, p, m in zip(hidden, patterns, mask, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


def test_the_span_of_one_is_consensus():
    _, _, hidden, mask = classes(0, CASES, 0)
    np.testing.assert_allclose(distance(hidden, np.ones((CASES, PADDED, 1)), mask), consensus(hidden, mask), rtol=1e-12)


@few_or_many(CASES, MANY // 2)
def test_linear_parts_of_the_lemma(seed, cases):
    for transient in (0, 2):
        attn, patterns, hidden, mask = classes(seed, cases, transient)
        rng = np.random.default_rng(seed)
        assert_holds(mixing(attn, hidden, patterns, mask), rtol=LANCZOS, share=0.99)
        weight = rng.standard_normal((cases, WIDTH, WIDTH))
        assert_holds(linear(hidden, weight, patterns, mask), rtol=LANCZOS)
        other, (alpha, beta) = rng.permuted(hidden, axis=2), rng.standard_normal((2, cases))
        assert_holds(total(hidden, other, alpha, beta, patterns, mask))


def test_mixing_is_attained():
    attn, patterns, hidden, mask = classes(0, CASES, 2)
    worst = np.zeros_like(hidden)
    for k in range(0, CASES, 20):
        real = mask[k]
        frame = scipy.linalg.orth(patterns[k][real], rcond=1e-10)
        away = np.eye(real.sum()) - frame @ frame.T
        worst[k, real] = np.linalg.svd(away @ attn[k][real][:, real] @ away)[2][:1].T
    found = mixing(attn, worst, patterns, mask)
    np.testing.assert_allclose(found.lhs[::20], found.rhs[::20], rtol=1e-7, atol=1e-9)


def test_mixing_needs_an_invariant_span():
    """One pattern too few: what belongs to another class is moved away from the span."""
    attn, patterns, hidden, mask = classes(0, CASES, 0)
    turned = np.random.default_rng(0).standard_normal(patterns.shape)
    assert not np.asarray(mixing(attn, hidden, turned, mask).applicable)[mask.sum(axis=1) > CLASSES].any()
    inside = mask[..., None] * (turned @ np.ones((CLASSES, WIDTH)))
    found = mixing(attn, inside, turned, mask)
    torn = np.asarray(found.lhs) > np.asarray(found.rhs) + 1e-3
    assert torn.mean() > 0.9


@pytest.mark.parametrize("transient", [0, 2])
def test_attention_converges_to_the_span_and_its_dimension_is_the_number_of_classes(transient):
    attn, patterns, hidden, mask = classes(0, CASES, transient)
    hidden = hidden * mask[..., None]
    limit = np.linalg.matrix_power(attn, 2**14) @ hidden
    assert np.max(distance(limit, patterns, mask)) < 1e-9
    for k in range(0, CASES, 20):
        a = attn[k][mask[k]][:, mask[k]]
        kernel = len(a) - np.linalg.matrix_rank(np.eye(len(a)) - a, tol=1e-9)
        closed = _closed_classes(a)
        assert kernel == closed == np.linalg.matrix_rank(patterns[k][mask[k]], tol=1e-9)


def _closed_classes(attn: np.ndarray) -> int:
    """Strongly connected components that no edge leaves."""
    _, label = connected_components(attn > 0, directed=True, connection="strong")
    leaving = {label[i] for i, j in zip(*np.nonzero(attn), strict=True) if label[i] != label[j]}
    return len(set(label) - leaving)


@few_or_many(CASES, MANY)
def test_activation_with_indicators(seed, cases):
    _, patterns, hidden, mask = classes(seed, cases, 0)
    rng = np.random.default_rng(seed)
    hidden = hidden - 10 * rng.uniform(size=(cases, 1, 1))
    for slope, phi in ((1.0, lambda x: np.maximum(x, 0)), (1.0, np.tanh), (2.0, lambda x: np.abs(2 * x + 1))):
        assert_holds(activation(hidden, phi(hidden), slope, patterns, mask), share=0.99)


def test_activation_is_attained():
    _, patterns, hidden, mask = classes(0, CASES, 0)
    found = activation(hidden, -3 * hidden + 1, 3.0, patterns, mask)
    np.testing.assert_allclose(found.lhs, found.rhs, rtol=1e-9, atol=1e-9)


def test_activation_fails_with_transient_tokens():
    """h = (1, 0, 1/2), (0, 1, 1/2) and the column (1, -1, 0): ReLU leaves the span, 0 -> .408."""
    absorbed = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    column = np.array([[1.0], [-1.0], [0.0]])
    found = activation(column, np.maximum(column, 0), 1.0, absorbed, np.ones(3, bool))
    assert float(found.rhs) == pytest.approx(0, abs=1e-15)
    assert float(found.lhs) == pytest.approx(1 / np.sqrt(6))
    assert not found.applicable
    _, patterns, hidden, mask = classes(0, CASES, 2)
    several = np.array([np.linalg.matrix_rank(p[m], tol=1e-9) > 1 for p, m in zip(patterns, mask, strict=True)])
    found = np.asarray(activation(hidden, hidden, 1.0, patterns, mask).applicable)
    assert not found[several].any()
    assert found[~several].all()


def test_symmetric_normalisation():
    """span(D^(1/2) 1): mixing holds, ReLU too as it scales, GELU does not: 0 -> .12 for degrees 1 and 4."""
    rng = np.random.default_rng(0)
    adjacency = rng.exponential(size=(CASES, PADDED, PADDED))
    adjacency += np.swapaxes(adjacency, 1, 2)
    mask = lengths_mask(rng.integers(2, PADDED + 1, CASES))
    adjacency *= mask[:, None] & mask[:, :, None]
    degrees = np.where(mask, adjacency.sum(axis=2), 1)
    attn = adjacency / np.sqrt(degrees[:, None] * degrees[:, :, None])
    basis = jax.jit(subspace.symmetric_basis)(degrees, mask)
    hidden = rng.standard_normal((CASES, PADDED, WIDTH))
    assert_holds(mixing(attn, hidden, basis, mask), rtol=LANCZOS)
    away, rectified = distance(hidden, basis, mask), distance(np.maximum(hidden, 0), basis, mask)
    assert np.all(rectified <= away * (1 + 1e-12))
    two = subspace.symmetric_basis(jnp.array([1.0, 4.0]), jnp.ones(2, bool))
    gelu = ACTIVATIONS["gelu"].function(two)
    assert float(distance(two, two, np.ones(2, bool))) == pytest.approx(0, abs=1e-15)
    assert float(distance(gelu, two, np.ones(2, bool))) == pytest.approx(0.12155, abs=1e-5)


def test_dependent_patterns_count_once():
    rng = np.random.default_rng(0)
    one = rng.standard_normal((PADDED, 1))
    hidden, mask = rng.standard_normal((PADDED, WIDTH)), np.ones(PADDED, bool)
    twice = np.concatenate([one, -2 * one, 0 * one], axis=1)
    assert float(distance(hidden, twice, mask)) == pytest.approx(float(distance(hidden, one, mask)), rel=1e-12)


def test_padding_changes_nothing():
    attn, patterns, hidden, mask = classes(0, CASES, 2)
    short = mask.sum(axis=1) == PADDED - 2
    bare = [x[short][:, : PADDED - 2] for x in (hidden, patterns, mask)]
    cut = attn[short][:, : PADDED - 2, : PADDED - 2]
    np.testing.assert_allclose(distance(*bare), distance(hidden, patterns, mask)[short], rtol=1e-9, atol=1e-12)
    for ours, theirs in zip(mixing(cut, *bare), mixing(attn, hidden, patterns, mask), strict=True):
        np.testing.assert_allclose(ours, theirs[short], rtol=1e-8, atol=1e-12)
