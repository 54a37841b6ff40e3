"""The bridge between the distance to consensus and the mean cosine of two tokens."""

import itertools

import jax
import numpy as np
import pytest
from support.matrices import PADDED, token_batch
from support.statements import CASES, MANY, assert_holds, distance, few_or_many

from jaxsmooth.theory.literature import cosine

cosine_distance, bound = jax.jit(cosine.cosine_distance), jax.jit(cosine.cosine_distance_bound)
bridge = jax.jit(cosine.cosine_bridge)


def mean_cosine(hidden: np.ndarray) -> float:
    """The definition, pair by pair."""
    pairs = itertools.permutations(hidden, 2)
    return float(np.mean([a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for a, b in pairs]))


def on_a_sphere(seed: int, cases: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens of one norm per sentence, before and after being pulled together or apart."""
    rng = np.random.default_rng(seed)
    before, mask = token_batch(rng, cases)
    middle = np.mean(before, axis=1, where=mask[..., None], keepdims=True)
    after = (
        middle
        + (before - middle) * 10 ** rng.uniform(-4, 1, (cases, 1, 1))
        + rng.choice([0, 0.1], (cases, 1, 1)) * rng.standard_normal(before.shape)
    )
    radius = 10 ** rng.uniform(-3, 3, (cases, 1, 1))
    return *(radius * x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (before, after)), mask


def test_the_identity():
    hidden, mask = token_batch(np.random.default_rng(0), CASES)
    found = np.asarray(cosine_distance(hidden, mask))
    for k in range(0, CASES, 5):
        assert found[k] == pytest.approx(1 - mean_cosine(hidden[k][mask[k]]), rel=1e-9, abs=1e-12)


def test_near_consensus_no_digits_are_lost():
    """Two tokens at an angle of 1e-9: 1 - cos = 5e-19, far below the rounding of a cosine near 1."""
    hidden = np.array([[1.0, 0.0], [1.0, 1e-9]])
    assert float(cosine_distance(hidden, np.ones(2, bool))) == pytest.approx(5e-19, rel=1e-6)
    assert 1 - mean_cosine(hidden) == 0


@few_or_many(CASES, MANY)
def test_the_bound(seed, cases):
    assert_holds(bound(*token_batch(np.random.default_rng(seed), cases)))


def test_the_bound_is_attained_on_a_sphere_and_the_identity_behind_it():
    hidden, _, mask = on_a_sphere(0, CASES)
    found = bound(hidden, mask)
    np.testing.assert_allclose(found.lhs, found.rhs, rtol=1e-7, atol=1e-13)
    k = 3
    radius = np.linalg.norm(hidden[k, 0])
    count = mask[k].sum()
    expected = radius**2 * (count - 1) * (1 - mean_cosine(hidden[k][mask[k]]))
    assert distance(hidden[k][mask[k]]) ** 2 == pytest.approx(expected, rel=1e-9)


def test_the_converse_is_false():
    """H -> 0 collapses in d_M at CosSim = 0."""
    hidden = 1e-8 * np.eye(4)
    assert distance(hidden) < 1e-7
    assert float(cosine_distance(hidden, np.ones(4, bool))) == pytest.approx(1)


@few_or_many(CASES, MANY)
def test_the_bridge(seed, cases):
    before, after, mask = on_a_sphere(seed, cases)
    actual = [distance(b[m]) / distance(a[m]) for a, b, m in zip(before, after, mask, strict=True)]
    loose = np.array(actual) * np.random.default_rng(seed).choice([1, 1.5, 10], cases)
    found = bridge(before, after, loose, mask)
    assert_holds(found, rtol=1e-6, share=0.99)
    tight = bridge(before, after, np.array(actual) * (1 + 1e-12), mask)
    np.testing.assert_allclose(tight.lhs, tight.rhs, rtol=1e-6, atol=1e-13)


def test_the_bridge_needs_one_norm_and_a_rate_that_holds():
    """Scaling H by 1/10 divides d_M by 10 and leaves every cosine as it was."""
    hidden, _, mask = on_a_sphere(0, 20)
    found = bridge(hidden, hidden / 10, np.full(20, 0.1), mask)
    assert np.all(np.asarray(found.lhs) > 50 * np.asarray(found.rhs))
    assert not found.applicable.any()
    too_small = bridge(hidden, hidden, np.full(20, 0.9), mask)
    assert not too_small.applicable.any()
    assert bridge(hidden, hidden, np.ones(20), mask).applicable.all()


def test_single_tokens_and_zero_tokens_do_not_apply():
    hidden = np.ones((2, PADDED, 3))
    hidden[1, 0] = 0
    mask = np.ones((2, PADDED), bool)
    mask[0, 1:] = False
    assert not bound(hidden, mask).applicable.any()
    assert not bridge(hidden, hidden, np.ones(2), mask).applicable.any()
    assert np.isnan(cosine_distance(hidden, mask)[0])


def test_padding_changes_nothing():
    hidden, mask = token_batch(np.random.default_rng(1), CASES)
    garbage = np.where(mask[..., None], hidden, 1e9)
    np.testing.assert_array_equal(cosine_distance(garbage, mask), cosine_distance(hidden, mask))
    for ours, theirs in zip(bound(garbage, mask), bound(hidden, mask), strict=True):
        np.testing.assert_array_equal(ours, theirs)
