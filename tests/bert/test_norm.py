"""What the encoder's LayerNorm does to the distances between tokens."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.matrices import lengths_mask, pad_tokens

from jaxsmooth.bert.norm import layer_norm, token_std
from jaxsmooth.theory import subspace_distance

SEED = st.integers(0, 2**32 - 1)
EPS = 1e-3
norm, distance = jax.jit(layer_norm), jax.jit(subspace_distance)
stds = jax.jit(functools.partial(token_std, eps=EPS))


@given(seed=SEED)
def test_the_layer_norm_identity(seed):
    """||y_i - y_j||^2 = [||u_i - u_j||^2 - d (s_i - s_j)^2 (1 + eps / (s_i s_j))] / (s_i s_j), u = C x."""
    rng = np.random.default_rng(seed)
    x = 10 ** rng.uniform(-3, 3, (6, 1)) * rng.standard_normal((6, 8)) + rng.standard_normal((6, 1))
    s = np.asarray(stds(x))
    y = np.asarray(norm(x, np.ones(8), np.zeros(8), s))
    u = x - x.mean(axis=1, keepdims=True)
    product = s * s.T
    gaps = np.sum((u[:, None] - u[None]) ** 2, axis=2)
    claimed = (gaps - 8 * (s - s.T) ** 2 * (1 + EPS / product)) / product
    np.testing.assert_allclose(np.sum((y[:, None] - y[None]) ** 2, axis=2), claimed, rtol=1e-9, atol=1e-9)


@given(seed=SEED)
def test_layer_norm_stretches_by_at_most_gain_over_the_two_smallest_stds(seed):
    rng = np.random.default_rng(seed)
    mask = lengths_mask(rng.integers(2, 9, 8))
    x = np.stack([pad_tokens(rng, rng.standard_normal((n, 8)) * rng.uniform(0, 3, (n, 1))) for n in mask.sum(axis=1)])
    gain, shift = rng.standard_normal((2, 8))
    s = np.asarray(stds(x))
    least = np.sort(np.where(mask, s[..., 0], np.inf), axis=1)[:, :2].prod(axis=1)
    centred = x - x.mean(axis=-1, keepdims=True)
    most = np.abs(gain).max() * np.asarray(distance(centred, mask)) / np.sqrt(least)
    assert np.all(distance(norm(x, gain, shift, s), mask) <= most * (1 + 1e-12))


def test_the_layer_norm_bound_is_attained():
    """Opposite tokens of equal std along the feature of the largest gain."""
    direction = np.array([1.0, -1.0, 0, 0, 0, 0, 0, 0])
    x = np.outer([1.0, -1.0, 1.0], direction)
    gain = np.array([-2.0, 2.0, 1, 1, 0, 0, 0, 1e-6])
    s = np.asarray(stds(x))
    after = norm(x, gain, np.ones(8), s)
    mask = np.ones(3, bool)
    assert float(distance(after, mask)) == pytest.approx(2 / s.min() * float(distance(x, mask)), rel=1e-14)


def test_dividing_by_arbitrary_stds_is_not_bounded():
    """The stds must be the tokens' own: as a linear statement, d_M(D^-1 H) <= d_M(H) / min D is false."""
    x = np.ones((2, 1)) * np.array([1.0, -1.0, 0, 0, 0, 0, 0, 0])
    mask = np.ones(2, bool)
    after = norm(x, np.ones(8), np.zeros(8), np.array([[1.0], [2.0]]))
    assert float(distance(x, mask)) == 0
    assert float(distance(after, mask)) == pytest.approx(0.5)
