"""Dropout: means, keys, the places where BERT has it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.training import SMALL, compiled, small_batch, small_encoder

import jaxsmooth
from jaxsmooth import Edits
from jaxsmooth.training.config import FinetuneConfig
from jaxsmooth.training.dropout import drop, dropout, generator
from jaxsmooth.training.loop import with_generator


def test_dropout_keeps_the_mean_and_is_a_function_of_its_key():
    value = jnp.ones((400, 100))
    one, two = drop(jax.random.key(0), 0.1, value), drop(jax.random.key(1), 0.1, value)
    assert set(np.unique(one)) == {0.0, 2**16 / (2**16 - round(0.1 * 2**16))}
    assert abs(float(one.mean()) - 1) < 0.01  # 4 standard deviations are 0.0067
    assert np.array_equal(one, drop(jax.random.key(0), 0.1, value))
    assert not np.array_equal(one, two)


def test_a_number_that_is_not_finite_is_not_hidden():
    """As torch's dropout, which multiplies by its mask."""
    dropped = drop(jax.random.key(0), 0.5, jnp.full(100, jnp.inf))
    kept = drop(jax.random.key(0), 0.5, jnp.ones(100)) > 0
    assert np.array_equal(jnp.isnan(dropped), ~kept)
    assert np.array_equal(jnp.isinf(dropped), kept)


def test_the_way_back_keeps_a_byte_an_entry():
    value = jnp.ones((40, 10))
    dropped, back = jax.vjp(lambda value: drop(jax.random.key(0), 0.1, value), value)
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(back)) <= value.size + 8  # and the rate
    np.testing.assert_array_equal(back(value)[0], dropped)


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


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_either_generator_drops_as_many_and_draws_anew_for_every_key(impl):
    key = jax.random.wrap_key_data(jax.random.key_data(jax.random.key(7, impl=impl)), impl=impl)
    value = jnp.ones((200, 101), jnp.float32)
    masks = [np.asarray(drop(jax.random.fold_in(key, layer), 0.25, value)) == 0 for layer in range(3)]
    for k, mask in enumerate(masks):
        assert abs(mask.mean() - 0.25) < 4 * (0.25 * 0.75 / value.size) ** 0.5
        assert abs(np.corrcoef(mask[:, :50].ravel(), mask[:, 51:].ravel())[0, 1]) < 0.05
        assert not any(np.array_equal(mask, other) for other in masks[:k])


def test_a_run_keeps_the_generator_it_was_begun_with(tmp_path):
    asked = FinetuneConfig(out=tmp_path)
    assert asked.prng == "auto"
    assert with_generator(asked).prng == "threefry2x32"  # of a CPU
    dataclasses.replace(asked, prng="rbg").save(tmp_path / "config.json")
    assert with_generator(asked).prng == "rbg"
    assert with_generator(dataclasses.replace(asked, prng="threefry2x32")).prng == "threefry2x32"  # and is refused
    assert [generator("auto", platform) for platform in ("cpu", "gpu", "cuda", "tpu")] == ["threefry2x32", *["rbg"] * 3]
