"""Theorem 3 as `diagnose` computes it: against singular value decompositions in numpy, and the rate it bounds."""

import jax.numpy as jnp
import numpy as np
import pytest
from support.matrices import GARBAGE
from support.regions import PHI, SENTENCES, TOKENS, WIDTH, small_attention, small_block
from support.statements import distances, record

from jaxsmooth.theory import block_of
from jaxsmooth.theory.rates.spectrum_rung import output_spectrum, spectrum_rung


def rung(block, mask, x, run):
    b_attn, b_norm, b_up, b_down = map(jnp.asarray, block.biases)
    biases = {"output_bias": b_attn, "bias_attn": b_norm, "up_bias": b_up, "down_bias": b_down}
    weights = block_of(*map(jnp.asarray, block.weights), **biases)
    lengths = np.linalg.norm(run["less_shift"], axis=-1)
    arrays = (distances(x, mask), run["normed"], run["std_mlp"], lengths, mask)
    return np.asarray(spectrum_rung(weights, output_spectrum(weights), *map(jnp.asarray, arrays), block.activation))


def by_decompositions(block, real, x, run, row):
    """The same for one sentence, from the statement."""
    normed, pre, std = (run[key][row][real] for key in ("normed", "pre", "std_mlp"))
    n, weight = len(std), 1 / std[:, 0]
    values, vectors = np.linalg.eigh((np.diag(weight) * weight.sum() - np.outer(weight, weight)) / n)
    root = vectors * np.sqrt(np.clip(values, 0, None)) @ vectors.T
    fitted, active = root @ pre, root @ PHI[block.activation](pre)
    energy = (fitted**2).sum(axis=0)
    slopes = (fitted * active).sum(axis=0) / np.where(energy > 0, energy, 1)
    out = (block.down - block.down.mean(axis=1, keepdims=True)) * block.scale_mlp
    lengths = np.linalg.norm(out, axis=1)
    scale = np.where(lengths > 0, np.where(lengths > 0, lengths, 1) ** -0.5, 1)
    skip = root @ normed
    linear = (skip - skip.mean(axis=1, keepdims=True)) * block.scale_mlp + fitted * slopes @ out
    scaled = scale[:, None] * out
    singular = [
        np.linalg.svd(m, compute_uv=False) for m in ((active - fitted * slopes) / scale, scaled, scaled @ linear.T)
    ]
    own, rows, turned = (np.pad(s, (0, 10))[:8] for s in singular)
    size, rho = np.linalg.norm(linear), np.linalg.norm(own * rows)
    e2, s = (run["less_shift"][row][real] ** 2).sum(axis=1), std[:, 0]
    i, j = np.triu_indices(n, 1)
    gain = np.sum((s[j] - s[i]) * (e2[i] * s[i] - e2[j] * s[j]) / (s[i] * s[j])) / n
    square = size**2 + 2 * min(size * rho, own @ turned) + rho**2 + gain
    return np.sqrt(max(square, 0)) / np.linalg.norm(x[row][real] - x[row][real].mean(axis=0))


@pytest.mark.parametrize("activation", list(PHI))
def test_it_is_the_statement_and_bounds_the_rate(activation):
    rng = np.random.default_rng(7)
    for _ in range(4):
        block, (attn, mask) = small_block(rng, activation), small_attention(rng)
        x = rng.standard_normal((SENTENCES, TOKENS, WIDTH)) + 3 * rng.standard_normal(WIDTH)
        run = block.run(attn, x)
        found = rung(block, mask, x, run)
        expected = [by_decompositions(block, real, x, run, row) for row, real in enumerate(mask)]
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        rates = distances(run["less_shift"], mask) / distances(x, mask)
        record(rates, found, int(np.sum(rates > found * (1 + 1e-8))))
        assert np.all(rates <= found * (1 + 1e-8))
        if activation == "relu":  # padding changes nothing
            littered = {key: np.where(mask[..., None], value, GARBAGE) for key, value in run.items()}
            np.testing.assert_array_equal(rung(block, mask, x, littered), found)


def test_consensus_has_no_rate():
    rng = np.random.default_rng(8)
    block, (attn, mask) = small_block(rng, "gelu"), small_attention(rng)
    x = np.ones((SENTENCES, TOKENS, WIDTH))
    assert np.isnan(rung(block, mask, x, block.run(attn, x))).all()
