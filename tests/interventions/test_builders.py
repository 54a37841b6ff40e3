"""Edits that act at chosen layers, heads, tokens and keys, against numpy; one on a real model."""

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from support import reference
from support.edited_runs import BATCH, LENGTHS, MODEL, SOURCE, in_numpy, run
from support.edits import SHAPES, edited_blocks
from support.models import CONFIG, random_batch
from support.parity import minilm_directory

import jaxsmooth
from jaxsmooth import Edits, compose, interventions
from jaxsmooth.errors import ShapeError
from jaxsmooth.types import SITES


def changed(site, value, index):
    """The value with `index` of its entries tripled."""
    value = value.copy()
    value[index] = 3 * value[index]
    return value


SELECTIONS = {
    "mixed, a token": ("mixed", {"layers": 1, "tokens": 2}, np.s_[2]),
    "context, a head": ("context", {"layers": [1], "heads": 2}, np.s_[2]),
    "value, a head's tokens": ("value", {"layers": [1], "heads": [0], "tokens": [0, 2]}, np.s_[0, [0, 2]]),
    "attn, a head's query and keys": (
        "attn",
        {"layers": 1, "heads": [1], "tokens": [2], "keys": [0, 1]},
        np.s_[1, 2, [0, 1]],
    ),
    "logits, keys": ("attn_logits", {"layers": 1, "keys": np.array([0])}, np.s_[:, :, 0]),
    "std, a token": ("std_attn", {"layers": 1, "tokens": [1]}, np.s_[1]),
    "gain": ("scale_mlp", {"layers": 1}, np.s_[:]),
    "hidden": ("hidden", {"layers": [1, 1], "tokens": [0]}, np.s_[0]),
}


@pytest.mark.parametrize("name", SELECTIONS)
def test_scaling_acts_where_it_should_and_nowhere_else(name):
    site, where, index = SELECTIONS[name]
    hidden = run(interventions.scale(site, 3.0, **where))
    for b, n in enumerate(LENGTHS):
        expected = in_numpy(b, lambda layer, s, v: changed(s, v, index) if (layer, s) == (1, site) else v)
        np.testing.assert_allclose(hidden[:, b, :n], expected, rtol=0, atol=1e-11)


def test_replacing_one_heads_attention():
    """The design's example: overwriting one head's attention takes effect, and exactly the effect it should."""
    hidden = run(interventions.replace("attn", 1 / 3, layers=2, heads=1, keys=[0, 1, 2]))

    def edit(layer, site, value):
        if (layer, site) != (2, "attn"):
            return value
        value = value.copy()
        value[1, :, :3] = 1 / 3
        return value

    for b, n in enumerate(LENGTHS):
        np.testing.assert_allclose(hidden[:, b, :n], in_numpy(b, edit), rtol=0, atol=1e-11)
    assert np.abs(hidden[2] - run(Edits())[2]).max() > 1e-2


def test_a_sweep_of_places_is_one_program(traces):
    found = [run(interventions.scale("query", 0.0, layers=layer, heads=head)) for layer in (0, 2) for head in (0, 1)]
    assert len(traces) == 1
    assert len({float(one[-1].sum()) for one in found}) == 4


@pytest.mark.parametrize("site", SITES)
def test_every_site_can_be_restricted_to_the_axes_it_has(site):
    axes = interventions.SITE_AXES[site]
    assert len(axes) == len(SHAPES.get(site, ())) or site == "embedded"
    value, other = jnp.ones(SHAPES[site]), Edits(**{site: lambda layer, v: 2 * v})
    for name, letter in (("heads", "N"), ("tokens", "T"), ("keys", "S")):
        has = letter in axes or (name == "tokens" and "S" in axes)
        has = has and not (name == "keys" and "T" not in axes)
        if not has:
            with pytest.raises(ShapeError, match=f"the site '{site}' has axes {axes}; it cannot be .* {name}"):
                interventions.restrict(other, **{name: 0})
            continue
        edited = np.asarray(getattr(interventions.restrict(other, **{name: 1}), site)(jnp.int32(0), value))
        axis = axes.index(letter if letter in axes else "S")
        assert np.all(np.take(edited, 1, axis) == 2)
        assert np.all(np.delete(edited, 1, axis) == 1)


def test_what_lies_beyond_the_edge_is_seen():
    for where in ({"heads": 3}, {"tokens": [0, 8]}):
        edits = interventions.scale("context", 0.0, **where)
        assert np.isnan(np.asarray(edits.context(jnp.int32(0), jnp.ones((2, 3, 8, 4))))).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: interventions.scale("atn", 0.0), "there is no site 'atn'; the sites are embedded, query"),
        (lambda: interventions.scale("attn", 0.0, heads=-1), "heads must be at least 0; got -1"),
        (lambda: interventions.scale("attn", 0.0, layers=[-2]), "layers must be at least -1; got -2"),
        (lambda: interventions.scale("attn", 0.0, heads=np.array(0.5)), "heads must be an integer or several"),
        (
            lambda: run(interventions.scale("attn", 0.0, heads=[0, 99])),
            r"acts at head 99, and the model has heads 0\.\.",
        ),
        (lambda: run(interventions.replace("mixed", np.ones(5))), r"must broadcast to it; got \(5,\)"),
        (lambda: interventions.record(MODEL, BATCH, ["queries"]), "there is no site 'queries'"),
        (lambda: interventions.replace("hidden", 0.0, layers=-1), "occurs in blocks, which count from 0 only"),
        (lambda: interventions.scale("embedded", 0.0, layers=[0, 1]), "occurs at layer -1 only"),
        (lambda: interventions.patch(interventions.record(MODEL, BATCH, ["attn"]), layers=99), r"must lie in -1..2"),
        (lambda: interventions.patch_effect(MODEL, random_batch((3,)), BATCH, ["attn"]), "must have one shape"),
        (lambda: interventions.patch_effect(MODEL, SOURCE, BATCH, ["attn"], layers=3), r"layers must lie in -1..2"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ShapeError, match=message):
        call()


def test_one_head_of_a_real_model():
    """minilm-l6: head 5 of layer 2 attends to [CLS] alone; the logits move as a from-scratch computation says."""
    directory = minilm_directory()
    model, tokenizer = jaxsmooth.load(directory, dtype="float64")
    assert model.config.eps == CONFIG.eps  # what `edited_block` uses
    batch = tokenizer(["A film worth seeing, if only once."])
    tokens = np.asarray(batch.tokens[0, : int(batch.mask.sum())])
    edits = compose(
        interventions.replace("attn", 0.0, layers=2, heads=5),
        interventions.replace("attn", 1.0, layers=2, heads=5, keys=0),
    )
    hidden, _ = jaxsmooth.encode(model, batch, edits=edits, collect=jaxsmooth.keep_nothing)
    weights = reference.Weights(load_file(directory / "model.safetensors"), jaxsmooth.config_to_dict(model.config))
    plain = reference.forward(weights.tensors, jaxsmooth.config_to_dict(model.config), tokens)

    def edit(layer, site, value):
        if (layer, site) == (2, "attn"):
            value[5] = 0
            value[5, :, 0] = 1
        return value

    x = edited_blocks(weights, plain.hidden[0], edit)["hidden"][-1]
    np.testing.assert_allclose(hidden[0, : len(tokens)], x, rtol=0, atol=1e-10)
    # The model was distilled without a head, so its words are scored as a tied masked-LM decoder scores them.
    words = np.float64(load_file(directory / "model.safetensors")["embeddings.word_embeddings.weight"])
    logits = hidden[0, : len(tokens)] @ model.embeddings.word.T
    np.testing.assert_allclose(logits, x @ words.T, rtol=0, atol=1e-9)
    assert np.abs((x - plain.hidden[-1]) @ words.T).max() > 1e-2
