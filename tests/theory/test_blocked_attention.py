"""Attention that is never formed, against plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.heads import LENGTHS, REACHES, SIZE, attention_matrix, head

from jaxsmooth.theory import (
    Centred,
    blocked_attention,
    operator_norm,
)


@jax.jit(static_argnames="block")
def both_ways(query, key, hidden, mask, behind, ahead, block):
    operator = blocked_attention(query, key, mask, behind=behind, ahead=ahead, block=block)
    return operator.apply(hidden), operator.transpose_apply(hidden)


def reach(limit: int | None) -> np.int32:
    return np.int32(SIZE if limit is None else limit)


@pytest.mark.parametrize("block", [4, 8, 64])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", REACHES)
def test_blocked_attention_is_the_softmax_it_never_forms(name, length, block):
    query, key, hidden = head()
    mask, (behind, ahead) = LENGTHS[length], REACHES[name]
    matrix = attention_matrix(query, key, mask, behind, ahead)
    # Whatever stands on padding, even NaN, must not be read.
    for rows in (query, key, hidden):
        rows[~mask] = np.nan
    forward, backward = both_ways(query, key, hidden, mask, reach(behind), reach(ahead), block)
    real = np.where(mask[:, None], hidden, 0)
    np.testing.assert_allclose(forward, matrix @ real, atol=2e-15, rtol=1e-13)
    np.testing.assert_allclose(backward, matrix.T @ real, atol=2e-15, rtol=1e-13)


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 1000.0])
def test_blocked_attention_survives_any_scores(scale):
    """Scores of 1e6 overflow exp; the running maximum does not let them."""
    query, key, hidden = head(1, scale)
    mask = LENGTHS["padded"]
    forward, backward = both_ways(query, key, hidden, mask, reach(None), reach(None), 4)
    matrix, real = attention_matrix(query, key, mask, None, None), np.where(mask[:, None], hidden, 0)
    # Scores of size s carry s times the rounding error into the exponent.
    tolerance = 1e-14 * max(1.0, 10 * scale**2)
    np.testing.assert_allclose(forward, matrix @ real, atol=tolerance)
    np.testing.assert_allclose(backward, matrix.T @ real, atol=tolerance)


def test_blocked_attention_in_single_precision():
    query, key, hidden = (part.astype(np.float32) for part in head(2, 1.0))
    mask = LENGTHS["whole"]
    forward, backward = both_ways(query, key, hidden, mask, reach(3), reach(0), 8)
    assert forward.dtype == backward.dtype == np.float32
    matrix = attention_matrix(query.astype(np.float64), key.astype(np.float64), mask, 3, 0)
    np.testing.assert_allclose(forward, matrix @ hidden, atol=2e-6)
    np.testing.assert_allclose(backward, matrix.T @ hidden, atol=2e-6)


def test_a_batch_of_heads_and_of_masks_is_one_vmap():
    query, key, hidden = (np.stack(parts) for parts in zip(*(head(seed) for seed in range(5)), strict=True))
    behinds, aheads = (np.stack([reach(pair[k]) for pair in REACHES.values()]) for k in (0, 1))
    mask = jnp.asarray(LENGTHS["padded"])

    @jax.jit
    @jax.vmap
    def run(query, key, hidden, behind, ahead):
        return blocked_attention(query, key, mask, behind=behind, ahead=ahead, block=8).apply(hidden)

    found = run(query, key, hidden, behinds, aheads)
    for k, (behind, ahead) in enumerate(REACHES.values()):
        matrix = attention_matrix(query[k], key[k], mask, behind, ahead)
        np.testing.assert_allclose(found[k], matrix @ hidden[k], atol=2e-15, rtol=1e-13)


def test_the_mixing_rate_of_attention_that_is_never_formed():
    """sqrt(lambda) = ||J A|| under every mask at once, for a matrix in 12 blocks."""
    query, key, _ = (np.stack(parts) for parts in zip(*(head(seed, 1.5) for seed in range(5)), strict=True))
    behinds, aheads = (np.stack([reach(pair[k]) for pair in REACHES.values()]) for k in (0, 1))
    mask = jnp.asarray(LENGTHS["padded"])

    @jax.jit
    @jax.vmap
    def run(query, key, behind, ahead):
        return operator_norm(Centred(blocked_attention(query, key, mask, behind=behind, ahead=ahead, block=4)))

    found = run(query, key, behinds, aheads)
    mask = LENGTHS["padded"]
    centre = np.diag(mask.astype(float)) - np.outer(mask, mask) / mask.sum()
    for k, (behind, ahead) in enumerate(REACHES.values()):
        expected = np.linalg.norm(centre @ attention_matrix(query[k], key[k], mask, behind, ahead), 2)
        assert float(found.value[k]) == pytest.approx(expected, rel=1e-10)
