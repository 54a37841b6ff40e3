"""Fisher's ratio of classes, and what mixing does to it."""

import jax
import numpy as np
import pytest
import scipy.linalg
import scipy.special
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.matrices import GARBAGE, structured

from jaxsmooth.theory import class_separation, zhang2026_smoothing

TOKENS, DIM = 6, 4
RATIO = jax.jit(class_separation)
SEED = st.integers(0, 2**32 - 1)
ALL = np.ones(TOKENS, bool)
LABELS = np.array([3, 3, 3, -1, -1, 7])


def fisher(x: np.ndarray, labels: np.ndarray) -> float:
    """Class by class."""
    inside = sum(((x[labels == c] - x[labels == c].mean(axis=0)) ** 2).sum() for c in set(labels))
    between = sum(
        (labels == c).sum() * ((x[labels == c].mean(axis=0) - x.mean(axis=0)) ** 2).sum() for c in set(labels)
    )
    return between / inside


def averaging(labels: np.ndarray) -> np.ndarray:
    same = (labels[:, None] == labels).astype(float)
    return same / same.sum(axis=1, keepdims=True)


def rows(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((TOKENS, DIM)) + 10 ** rng.uniform(-3, 3) * rng.standard_normal((TOKENS, 1)) * 0.1


def test_the_ratio_against_the_definition():
    rng = np.random.default_rng(0)
    for _ in range(30):
        x = rows(rng) * 10 ** rng.uniform(-20, 20)
        mask = rng.permuted(np.arange(TOKENS) < 5)
        expected = fisher(x[mask], LABELS[mask])
        found = RATIO(np.where(mask[:, None], x, GARBAGE), LABELS, mask)
        assert float(found) == pytest.approx(expected, rel=1e-9)
        # Neither a shift, a rotation, a scale nor the names of the classes matter.
        frame = np.linalg.qr(rng.standard_normal((DIM, DIM)))[0]
        moved = np.where(mask[:, None], 3 * x @ frame + np.abs(x).max(), 0)
        assert float(RATIO(moved, 100 - LABELS, mask)) == pytest.approx(expected, rel=1e-9)


def test_the_edges_of_the_ratio():
    x = np.random.default_rng(1).standard_normal((TOKENS, DIM))
    assert float(RATIO(x, 0 * LABELS, ALL)) == pytest.approx(0, abs=1e-30)
    assert float(RATIO(x, np.arange(TOKENS), ALL)) == np.inf
    assert np.isnan(float(RATIO(np.ones((TOKENS, DIM)), LABELS, ALL)))
    assert np.isnan(float(RATIO(x, LABELS, ~ALL)))
    assert float(RATIO(averaging(LABELS) @ np.eye(TOKENS, DIM), LABELS, ALL)) > 1e25
    assert float(RATIO((1e-20 * x).astype(np.float32), LABELS, ALL)) == pytest.approx(fisher(x, LABELS), rel=1e-5)


@settings(max_examples=60)
@given(seed=SEED)
def test_the_bound_holds(seed):
    """Structured attention, part of it turned towards the classes, and matrices of any sign whose rows have one sum."""
    rng = np.random.default_rng(seed)
    attn = structured(rng, 14)[rng.integers(14)]
    attn = attn if rng.uniform() < 0.7 else rng.standard_normal((TOKENS, TOKENS))
    attn = attn - (attn.sum(axis=1, keepdims=True) - 1) / TOKENS
    share = rng.choice([0.0, 0.9, 1 - 1e-3])
    attn = (1 - share) * attn + share * (0.3 * np.eye(TOKENS) + 0.7 * averaging(LABELS))
    x = rows(rng) + 10 ** rng.uniform(-1, 1) * LABELS[:, None]
    found = zhang2026_smoothing(attn, x, LABELS)
    # Where A leaves no difference within classes, as uniform attention does, nothing is claimed.
    assert found.applicable or np.linalg.norm(attn @ x - averaging(LABELS) @ attn @ x) < 1e-9
    assume(found.applicable)
    assert found.lhs <= found.rhs * (1 + 1e-9)
    assert found.rhs == pytest.approx(np.sqrt(fisher(attn @ x, LABELS)), rel=1e-6)
    if share == 1 - 1e-3 and np.abs(attn).max() < 1.5:
        # Mixing that is nearly within classes: the bound promises more than there was.
        assert found.lhs > np.sqrt(fisher(x, LABELS))


@settings(max_examples=50)
@given(seed=SEED)
def test_mixing_within_classes_is_exact(seed):
    """a I + b P + c 11^T / n: F grows by ((a + b) / a)^2 whatever c is, up if b > 0, down if b < 0 (a + b > 0)."""
    rng = np.random.default_rng(seed)
    a, b, c = rng.uniform(0.1, 1), rng.uniform(-0.09, 1), rng.uniform(-0.9, 3)
    mix = a * np.eye(TOKENS) + b * averaging(LABELS) + c / TOKENS
    x = rng.standard_normal((TOKENS, DIM))
    before, after = (float(RATIO(state, LABELS, ALL)) for state in (x, mix @ x))
    assert after / before == pytest.approx(((a + b) / a) ** 2, rel=1e-9)
    assert (after > before) == (b > 0) or abs(b) < 1e-9
    found = zhang2026_smoothing(mix, x, LABELS)
    assert found.lhs == pytest.approx(found.rhs, rel=1e-9)


def test_smoothing_and_separation_are_two_things():
    """All three bring tokens together; F stays if all mix with all, rises within classes, falls across them."""
    x = np.random.default_rng(2).standard_normal((TOKENS, DIM)) + LABELS[:, None]

    def distance(x: np.ndarray) -> float:
        return np.linalg.norm(x - x.mean(axis=0))

    start, apart = float(RATIO(x, LABELS, ALL)), distance(x)
    even = 0.5 * np.eye(TOKENS) + 0.5 / TOKENS
    inside = 0.5 * np.eye(TOKENS) + 0.5 * averaging(LABELS)
    swap = np.eye(TOKENS)[[3, 4, 5, 0, 1, 2]]
    across = 0.5 * np.eye(TOKENS) + 0.5 * swap
    for mix, sign in ((even, 0), (inside, 1), (across, -1)):
        after = float(RATIO(mix @ x, LABELS, ALL))
        assert distance(mix @ x) < apart
        assert np.sign(np.round(after / start - 1, 9)) == sign


@settings(max_examples=50)
@given(seed=SEED)
def test_attention_within_texts(seed):
    """The corollary: b = 1, l = 0, w the largest mixing rate, k at most what attention received is uneven by."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1, 2], [3, 2, 4])
    blocks = [scipy.special.softmax(rng.uniform(0, 2) * rng.standard_normal((n, n)), axis=1) for n in (3, 2, 4)]
    x = rng.standard_normal((9, DIM)) + 10 ** rng.uniform(0, 1) * rng.standard_normal((3, DIM))[labels]
    found = zhang2026_smoothing(scipy.linalg.block_diag(*blocks), x, labels)
    mixing = max(np.linalg.norm(block - block.mean(axis=0), 2) for block in blocks)
    uneven = max(np.sqrt(len(block)) * np.linalg.norm(block.mean(axis=0) - 1 / len(block)) for block in blocks)
    f = np.sqrt(fisher(x, labels))
    assert (f - uneven) / mixing <= found.lhs * (1 + 1e-9)
    assert found.lhs <= min(found.rhs, f / mixing)


def test_what_the_hypotheses_are_for():
    """Rows of unequal sums bring the mean in and break the bound. One class, and classes of one point, are out."""
    labels = np.array([0, 0, 1, 1])
    x = np.array([[6.0], [4.0], [-4.0], [-6.0]])
    uneven = np.diag([1.1, 0.9, 1.1, 0.9])
    found = zhang2026_smoothing(uneven, x + 100, labels)
    assert not found.applicable
    between, within = averaging(labels) - 0.25, np.eye(4) - averaging(labels)
    least, spread = np.linalg.norm(between @ uneven @ between, 2), np.linalg.norm(within @ uneven @ within, 2)
    out, into = np.linalg.norm(within @ uneven @ between, 2), np.linalg.norm(between @ uneven @ within, 2)
    f = np.sqrt(fisher(x + 100, labels))
    assert (least * f - into) / (spread + out * f) > 3 > 0.5 > found.rhs
    assert not zhang2026_smoothing(np.eye(4), x, 0 * labels).applicable
    assert not zhang2026_smoothing(np.eye(4), np.array([[1.0], [1.0], [2.0], [2.0]]), labels).applicable
    assert not zhang2026_smoothing(np.zeros((0, 0)), np.zeros((0, 2)), np.zeros(0, int)).applicable
