"""Edits: every site, layer by layer, against a block written out in numpy; under jit, grad and vmap."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from support import reference
from support.edits import SHAPES, edited_blocks
from support.models import CONFIG, hugging_face, random_batch, random_model

import jaxsmooth
from jaxsmooth import SITES, Edits, compose
from jaxsmooth.errors import ShapeError
from jaxsmooth.theory import subspace_distance

BLOCK_SITES = tuple(site for site in SITES if site != "embedded")
MODEL = random_model()
LENGTHS = (7, 3)
BATCH = random_batch(LENGTHS)
WEIGHTS = reference.Weights(*hugging_face(MODEL))


def bend(value):
    """Not linear, the same in numpy and jax, positive on positive numbers, and zero stays zero."""
    return value + 0.3 * value * value


def recompute(b: int, chosen_site: str, chosen_layer: int) -> dict[str, np.ndarray]:
    """Sentence b through all blocks, with `bend` at one site of one layer."""
    x = np.asarray(jaxsmooth.embed(MODEL, BATCH))[b, : LENGTHS[b]]
    chosen = (chosen_layer, chosen_site)
    return edited_blocks(WEIGHTS, x, lambda layer, site, value: bend(value) if (layer, site) == chosen else value)


def at_layer(chosen, layer, value):
    return jnp.where(layer == chosen, bend(value), value)


@pytest.mark.parametrize("site", BLOCK_SITES)
def test_an_edit_does_at_its_layer_what_it_says(site):
    plain = jaxsmooth.encode(MODEL, BATCH)[1]
    for chosen in range(CONFIG.layers):
        # The layer is a traced leaf of the Partial: one compile serves the three.
        _, trace = jaxsmooth.encode(MODEL, BATCH, edits=Edits(**{site: Partial(at_layer, jnp.int32(chosen))}))
        for b, n in enumerate(LENGTHS):
            expected = recompute(b, site, chosen)
            ours = {"attn": trace.attn[:, b, :, :n, :n], "hidden": trace.hidden[:, b, :n]}
            ours |= {"std_attn": trace.std_attn[:, b, :n], "std_mlp": trace.std_mlp[:, b, :n]}
            for name, value in expected.items():
                np.testing.assert_allclose(ours[name], value, rtol=0, atol=1e-11, err_msg=f"{name}, layer {chosen}")
        # It took effect there, and what lies below did not move.
        assert np.abs(trace.hidden[chosen] - plain.hidden[chosen]).max() > 1e-3
        np.testing.assert_allclose(trace.hidden[:chosen], plain.hidden[:chosen], rtol=0, atol=1e-13)


def test_the_embedding_is_edited_before_the_first_block():
    edits = Edits(embedded=lambda layer, x: jnp.where(layer == -1, bend(x), jnp.nan))
    hidden, _ = jaxsmooth.encode(MODEL, BATCH, edits=edits)
    for b, n in enumerate(LENGTHS):
        x = bend(np.asarray(jaxsmooth.embed(MODEL, BATCH))[b, :n])
        expected = edited_blocks(WEIGHTS, x, lambda layer, site, value: value)["hidden"][-1]
        np.testing.assert_allclose(hidden[b, :n], expected, rtol=0, atol=1e-11)


def test_composed_edits_act_in_turn_and_stay_traced(traces):
    plus = jax.tree_util.Partial(lambda amount, layer, x: x + amount)
    for amount in (1.0, 2.0):
        first = Edits(mixed=Partial(plus.func, jnp.asarray(amount)), attn=Partial(at_layer, jnp.int32(0)))
        both = compose(Edits(), first, Edits(mixed=Partial(at_layer, jnp.int32(1))))
        hidden, _ = jaxsmooth.encode(MODEL, BATCH, edits=both)
        by_hand = Edits(
            attn=lambda layer, a: jnp.where(layer == 0, bend(a), a),
            mixed=lambda layer, x, c=amount: jnp.where(layer == 1, bend(x + c), x + c),
        )
        np.testing.assert_allclose(hidden, jaxsmooth.encode(MODEL, BATCH, edits=by_hand)[0], rtol=0, atol=1e-12)
    assert len(traces) == 3  # one program for both amounts, and one for each reference


def test_edits_combine():
    edits = Edits(
        attn=lambda layer, a: jnp.where(layer == 0, bend(a), a),
        hidden=lambda layer, h: jnp.where(layer == 2, bend(h), h),
    )
    hidden, _ = jaxsmooth.encode(MODEL, BATCH, edits=edits)
    alone, _ = jaxsmooth.encode(MODEL, BATCH, edits=Edits(attn=edits.attn))
    np.testing.assert_allclose(hidden, bend(alone), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.bfloat16])
def test_the_identity_changes_no_bit(dtype):
    model = random_model(dtype=dtype)
    plain = jaxsmooth.encode(model, BATCH)
    edits = Edits(**{site: lambda layer, value: value for site in SITES})
    jax.tree.map(np.testing.assert_array_equal, jaxsmooth.encode(model, BATCH, edits=edits), plain)


def test_uniform_attention_at_one_layer():
    def uniform(layer, a):
        return jnp.where(layer == 1, 1 / a.shape[-1], a)

    _, trace = jaxsmooth.encode(MODEL, BATCH, edits=Edits(attn=uniform))
    plain = jaxsmooth.encode(MODEL, BATCH)[1]
    np.testing.assert_array_equal(trace.attn[1], np.full_like(trace.attn[1], 1 / 8))
    np.testing.assert_allclose(trace.hidden[0], plain.hidden[0], rtol=0, atol=1e-13)
    # Every row of attention is the same, so the block adds one and the same vector to every token.
    _, mixed = jaxsmooth.encode(MODEL, BATCH, edits=Edits(attn=uniform), collect=lambda trace: trace.mixed)
    assert np.ptp(mixed[1], axis=1).max() < 1e-12 < np.ptp(mixed[0], axis=1).max()


def test_logits_are_edited_before_padding_is_masked():
    edits = Edits(attn_logits=lambda layer, logits: jnp.zeros_like(logits))
    _, trace = jaxsmooth.encode(MODEL, BATCH, edits=edits)
    for b, n in enumerate(LENGTHS):
        expected = np.where(np.arange(8) < n, 1 / n, 0)
        np.testing.assert_allclose(trace.attn[:, b], np.broadcast_to(expected, trace.attn[:, b].shape), rtol=1e-14)


def test_an_imposed_std_divides_by_exactly_that():
    edits = Edits(std_mlp=lambda layer, std: jnp.full_like(std, 2.5))
    _, trace = jaxsmooth.encode(MODEL, BATCH, edits=edits, collect=lambda trace: trace)
    np.testing.assert_array_equal(trace.std_mlp, np.full_like(trace.std_mlp, 2.5))
    centred = np.asarray(trace.pre_mlp) - np.mean(trace.pre_mlp, axis=-1, keepdims=True)
    gain, shift = (np.asarray(a)[:, None, None] for a in (MODEL.blocks.norm_mlp.scale, MODEL.blocks.norm_mlp.bias))
    np.testing.assert_allclose(trace.hidden, gain * centred / 2.5 + shift, rtol=0, atol=1e-12)


def distances(std):
    """The design's sweep: one imposed std of the MLP LayerNorm, [] -> [L B]."""
    edits = Edits(std_mlp=lambda layer, s: jnp.full_like(s, std))
    return jaxsmooth.encode(
        MODEL, BATCH, edits=edits, collect=lambda trace: subspace_distance(trace.hidden, BATCH.mask)
    )[1]


STDS = jnp.array([0.5, 1.0, 4.0])


def test_a_sweep_under_vmap_is_the_loop():
    swept = jax.vmap(distances)(STDS)
    assert swept.shape == (3, CONFIG.layers, 2)
    np.testing.assert_allclose(swept, np.stack([distances(std) for std in STDS]), rtol=1e-12)
    # The last LayerNorm only divides: a fourfold std on the first block gives a quarter of its distance.
    np.testing.assert_allclose(swept[1, 0], 4 * swept[2, 0], rtol=1e-12)


def test_gradients_flow_through_an_edit():
    slopes = jax.jacfwd(distances)(STDS[1])
    backward = jax.grad(lambda std: distances(std)[2, 1])(STDS[1])
    step = 1e-5
    numeric = (distances(STDS[1] + step) - distances(STDS[1] - step)) / (2 * step)
    np.testing.assert_allclose(slopes, numeric, rtol=1e-6)
    np.testing.assert_allclose(backward, slopes[2, 1], rtol=1e-11)
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.jacfwd(distances)))(STDS)[1], slopes, rtol=1e-11)


def test_every_site_is_differentiable():
    def loss(strengths):
        def bend_by(strength):
            return lambda layer, value: value + strength * bend(value)

        edits = Edits(**{site: bend_by(strength) for site, strength in zip(SITES, strengths, strict=True)})
        return jnp.sum(jnp.sin(jaxsmooth.encode(MODEL, BATCH, edits=edits, collect=jaxsmooth.keep_nothing)[0]))

    slopes = jax.jit(jax.grad(loss))(jnp.zeros(len(SITES)))
    steps = 1e-6 * np.eye(len(SITES))
    values = jax.jit(jax.vmap(loss))(jnp.asarray(np.concatenate([steps, -steps])))
    numeric = (values[: len(SITES)] - values[len(SITES) :]) / 2e-6
    assert np.abs(slopes).min() > 1e-3
    np.testing.assert_allclose(slopes, numeric, rtol=1e-5)


def test_sweeping_a_partial_never_recompiles(traces):
    def replace_std(std, layer, value):
        return jnp.full_like(value, std)

    def run(edits):
        return jaxsmooth.encode(MODEL, BATCH, edits=edits)[0]

    first = run(Edits(std_mlp=Partial(replace_std, jnp.float64(1.0))))
    compiled = len(traces)
    assert compiled
    others = [run(Edits(std_mlp=Partial(replace_std, jnp.float64(std)))) for std in (2.0, 3.0)]
    assert len(traces) == compiled
    assert not np.allclose(first, others[0])
    assert not np.allclose(others[0], others[1])
    # A fresh function is a fresh compile: this is what the Partial saves.
    run(Edits(std_mlp=lambda layer, value: jnp.full_like(value, 2.0)))
    assert len(traces) == 2 * compiled


def test_one_plain_function_compiles_once(traces):
    def halve(layer, value):
        return value / 2

    counts = []
    for seed in range(3):
        jaxsmooth.encode(MODEL, random_batch(LENGTHS, seed=seed), edits=Edits(mixed=halve))
        counts.append(len(traces))
    assert counts[-1] == counts[0] > 0


def test_an_edit_closes_over_values_of_the_callers_jit():
    @jax.jit
    def run(strength):
        return jaxsmooth.encode(MODEL, BATCH, edits=Edits(mixed=lambda layer, value: strength * value))[0]

    for strength in (jnp.float64(0.0), jnp.float64(1.5)):
        scaled = Edits(mixed=Partial(lambda s, layer, value: s * value, strength))
        np.testing.assert_allclose(run(strength), jaxsmooth.encode(MODEL, BATCH, edits=scaled)[0], rtol=1e-11)


def test_an_edit_may_return_another_dtype_or_a_constant():
    with jax.numpy_dtype_promotion("standard"):
        model = random_model(dtype=jnp.float32)
        edits = Edits(std_attn=lambda layer, s: np.full(s.shape, 2.0), hidden=lambda layer, h: h.astype(jnp.bfloat16))
        hidden, trace = jaxsmooth.encode(model, BATCH, edits=edits)
    assert hidden.dtype == trace.std_attn.dtype == jnp.float32
    np.testing.assert_array_equal(hidden, hidden.astype(jnp.bfloat16).astype(jnp.float32))


@pytest.mark.parametrize("site", SITES)
def test_a_wrong_shape_is_refused_and_the_site_named(site):
    for wrong in (lambda layer, value: value[0], lambda layer, value: value[None], lambda layer, value: 1.0):
        with pytest.raises(ShapeError, match=f"edit of '{site}' must return shape .*; got") as refusal:
            jaxsmooth.encode(MODEL, BATCH, edits=Edits(**{site: wrong}))
        assert str(SHAPES[site]) in str(refusal.value)


def test_every_site_is_documented():
    assert set(SHAPES) == set(SITES)
    assert all(f"``{site}``" in Edits.__doc__ for site in SITES)


def test_edits_are_pytrees_whose_arrays_are_leaves():
    edits = Edits(std_mlp=Partial(at_layer, jnp.float64(2.0)), attn=lambda layer, attn: attn)
    assert jax.tree.leaves(edits) == [2.0]
    assert jax.tree.leaves(Edits()) == []
    assert dataclasses.replace(edits, std_mlp=None).attn is edits.attn
