"""Dropout: means, keys, the places where BERT has it."""

import jax
import jax.numpy as jnp
import numpy as np
from support.training import SMALL, compiled, small_batch, small_encoder

import jaxsmooth
from jaxsmooth import Edits
from jaxsmooth.training.dropout import drop, dropout


def test_dropout_keeps_the_mean_and_is_a_function_of_its_key():
    value = jnp.ones((400, 100))
    one, two = drop(jax.random.key(0), 0.1, value), drop(jax.random.key(1), 0.1, value)
    kept = np.float32(2**16) / np.float32(2**16 - round(0.1 * 2**16))
    assert set(np.unique(one)) == {0.0, np.float64(kept)}
    assert abs(float(one.mean()) - 1) < 0.01  # 4 standard deviations are 0.0067
    assert np.array_equal(one, drop(jax.random.key(0), 0.1, value))
    assert not np.array_equal(one, two)


def test_dropout_acts_at_berts_places_with_a_mask_of_its_own_at_each():
    model, batch = small_encoder(), small_batch("classification").batch
    edits = dropout(jax.random.key(0), hidden=0.5, attention=0.5)
    assert {site for site in jaxsmooth.SITES if getattr(edits, site) is not None} == {
        "embedded",
        "attn",
        "mixed",
        "mlp",
    }

    def zeros(trace):
        return {name: getattr(trace, name) == 0 for name in ("mixed", "mlp")}

    _, found = jaxsmooth.encode(model, batch, edits=edits, collect=zeros)
    masks = [np.asarray(found[name][layer]) for name in found for layer in range(SMALL.layers)]
    assert all(0.4 < mask.mean() < 0.6 for mask in masks)
    assert not any(np.array_equal(a, b) for k, a in enumerate(masks) for b in masks[:k])


def test_dropout_averages_out_in_a_linear_place():
    """The mean over keys of the dropped attention output is the output itself."""
    model, batch = small_encoder(), small_batch("classification").batch

    def mixed(edits):
        return jaxsmooth.encode(model, batch, edits=edits, collect=lambda t: t.mixed)[1][0]

    keys = jax.random.split(jax.random.key(0), 500)
    mean = compiled(jax.vmap(lambda key: mixed(dropout(key, hidden=0.0, attention=0.3))))(keys).mean(0)
    exact = mixed(Edits())
    spread = float(jnp.abs(exact).max())
    assert float(jnp.abs(mean - exact).max()) < 0.15 * spread
