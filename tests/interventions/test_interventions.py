"""Interventions: selections, patching between runs, and attribution, against numpy; one on a real model."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from support import reference
from support.edits import SHAPES, edited_blocks
from support.models import CONFIG, hugging_face, random_batch, random_model
from support.parity import minilm_directory

import jaxsmooth
from jaxsmooth import Edits, compose, interventions
from jaxsmooth.errors import OptionError, ShapeError
from jaxsmooth.types import SITES

MODEL = random_model()
LENGTHS = (7, 3)
BATCH, SOURCE = random_batch(LENGTHS), random_batch(LENGTHS, seed=3)
WEIGHTS = reference.Weights(*hugging_face(MODEL))


def hidden_of(trace):
    return trace.hidden


def run(edits, batch=BATCH):
    return np.asarray(jaxsmooth.encode(MODEL, batch, edits=edits, collect=hidden_of)[1])


def in_numpy(b: int, edit, batch=BATCH, length=None) -> np.ndarray:
    """Every block's output of sentence b with `edit(layer, site, value)`, [L n D]."""
    x = np.asarray(jaxsmooth.embed(MODEL, batch))[b, : length or LENGTHS[b]]
    return edited_blocks(WEIGHTS, x, edit)["hidden"]


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


def test_a_recording_put_back_changes_nothing_another_runs_does():
    recorded = interventions.record(MODEL, SOURCE, SITES)
    target = run(Edits())
    same = interventions.record(MODEL, BATCH, SITES)
    np.testing.assert_allclose(run(interventions.patch(same)), target, rtol=0, atol=1e-11)
    # Recorded queries and keys are those that the scores are made of.
    scores = np.einsum("lbnth,lbnsh->lbnts", recorded["query"], recorded["key"]) / 2
    np.testing.assert_allclose(recorded["attn_logits"], scores, rtol=0, atol=1e-12)
    # One site at a time: each takes effect by itself.
    for site in ("query", "key", "attn_logits", "scale_attn", "std_mlp"):
        other = run(interventions.patch({site: recorded[site] * 1.5}))
        assert np.abs(other[-1] - target[-1]).max() > 1e-3, site
    # The whole residual stream at one layer: from there on the target is the source.
    source = run(Edits(), SOURCE)
    for site, layers in (("hidden", 0), ("pre_mlp", 0), ("embedded", -1)):
        patched = run(interventions.patch({site: recorded[site]}, layers=layers))
        np.testing.assert_allclose(patched, source, rtol=0, atol=1e-11, err_msg=site)


def test_an_edited_run_can_be_recorded():
    edits = interventions.scale("mixed", 0.0, layers=1)
    recorded = interventions.record(MODEL, SOURCE, ["mixed", "embedded"], edits=edits)
    assert np.all(recorded["mixed"][1] == 0)
    assert np.any(recorded["mixed"][0] != 0)
    np.testing.assert_array_equal(recorded["embedded"][2], jaxsmooth.embed(MODEL, SOURCE))


def test_patching_one_heads_context_against_numpy():
    effect = interventions.patch_effect(
        MODEL, SOURCE, BATCH, ["context"], layers=1, heads=[2], readout=lambda h, batch: h[:, 0] @ jnp.ones((12, 2))
    )
    for b, n in enumerate(LENGTHS):
        other = {}

        def listen(layer, site, value, other=other):
            if (layer, site) == (1, "context"):
                other["context"] = value
            return value

        in_numpy(b, listen, SOURCE)

        def edit(layer, site, value, other=other):
            if (layer, site) == (1, "context"):
                value = value.copy()
                value[2] = other["context"][2]
            return value

        difference = in_numpy(b, edit)[-1] - in_numpy(b, lambda layer, site, value: value)[-1]
        np.testing.assert_allclose(effect.hidden[b, :n], difference, rtol=0, atol=1e-11)
        np.testing.assert_allclose(effect.readout[b], np.full(2, difference[0].sum()), rtol=0, atol=1e-10)
    assert np.abs(effect.hidden).max() > 1e-3


@pytest.mark.parametrize(("site", "over", "count"), [("attn", "heads", 3), ("hidden", "tokens", 8)])
def test_a_map_of_patches_is_each_patch(site, over, count):
    found = interventions.patch_map(MODEL, SOURCE, BATCH, site=site, over=over)
    assert found.shape == (CONFIG.layers, count, 2)
    clean = np.asarray(jaxsmooth.encode(MODEL, BATCH)[0])
    real = np.asarray(BATCH.mask)[..., None]
    for layer, index in ((0, 1), (2, 0)):
        effect = interventions.patch_effect(MODEL, SOURCE, BATCH, [site], layers=layer, **{over: index})
        away = np.linalg.norm((np.asarray(effect.hidden) * real).reshape(2, -1), axis=1)
        np.testing.assert_allclose(found[layer, index], away / np.linalg.norm((clean * real).reshape(2, -1), axis=1))
    if over == "tokens":  # a padded token reaches no real one
        assert np.all(found[:, 3:, 1] == 0)
    with pytest.raises(OptionError, match="over must be 'heads' or 'tokens'; got 'keys'"):
        interventions.patch_map(MODEL, SOURCE, BATCH, site=site, over="keys")


def log_distance(x: np.ndarray) -> float:
    return np.log(np.linalg.norm(x - x.mean(axis=0)) / np.linalg.norm(x))


def test_attribution_is_the_change_over_each_step():
    found = np.asarray(interventions.attribution(MODEL, BATCH))
    assert found.shape == (CONFIG.layers, 4, 2)
    plain = np.asarray(interventions.attribution(MODEL, BATCH, measure="relative_distance"))
    for b, n in enumerate(LENGTHS):
        run_ = reference.forward(
            *hugging_face(MODEL), np.asarray(BATCH.tokens[b, :n]), np.asarray(BATCH.segments[b, :n])
        )
        for layer in range(CONFIG.layers):
            gain, shift = WEIGHTS.norm(f"encoder.layer.{layer}.attention.output.LayerNorm")
            y, _ = reference.normalise(run_.pre_attn[layer], gain, shift, CONFIG.eps)
            steps = [run_.hidden[layer], run_.pre_attn[layer], y, run_.pre_mlp[layer], run_.hidden[layer + 1]]
            logs = [log_distance(x) for x in steps]
            np.testing.assert_allclose(found[layer, :, b], np.diff(logs), rtol=0, atol=1e-11)
            np.testing.assert_allclose(plain[layer, :, b], np.diff(np.exp(logs)), rtol=0, atol=1e-11)
        # The parts of all layers add up to what the whole encoder did.
        total = log_distance(run_.hidden[-1]) - log_distance(run_.hidden[0])
        np.testing.assert_allclose(found[..., b].sum(), total, rtol=0, atol=1e-11)
    longer = random_batch(LENGTHS, 11)
    longer = dataclasses.replace(
        longer, tokens=longer.tokens.at[:, :8].set(BATCH.tokens), segments=longer.segments.at[:, :8].set(BATCH.segments)
    )
    np.testing.assert_allclose(interventions.attribution(MODEL, longer), found, rtol=0, atol=1e-11)


def test_attribution_under_edits_and_in_a_pre_ln_encoder():
    silent = compose(interventions.scale("mixed", 0.0, layers=1), interventions.scale("mlp", 0.0, layers=1))
    found = np.asarray(interventions.attribution(MODEL, BATCH, edits=silent))
    assert np.all(np.abs(found[1, [0, 2]]) < 1e-12)  # nothing was added, so nothing changed there
    assert np.abs(found[1, 1]).max() > 1e-3
    pre = random_model(dataclasses.replace(CONFIG, placement="pre"))
    found = np.asarray(interventions.attribution(pre, BATCH, measure="log_subspace_distance"))
    assert np.all(found[:, [1, 3]] == 0)
    hidden = np.asarray(jaxsmooth.encode(pre, BATCH)[1].hidden)[-1, 0, :7]
    first = np.asarray(jaxsmooth.embed(pre, BATCH))[0, :7]
    whole = np.log(np.linalg.norm(hidden - hidden.mean(0)) / np.linalg.norm(first - first.mean(0)))
    np.testing.assert_allclose(found[..., 0].sum(), whole, rtol=0, atol=1e-11)
    lone = random_batch((1,), 4)
    assert np.isnan(interventions.attribution(MODEL, lone, measure="log_subspace_distance")).all()
    with pytest.raises(OptionError, match="measure must be one of log_relative_distance"):
        interventions.attribution.__wrapped__(MODEL, BATCH, measure="cosine")


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
