"""diagnose, verify and converge on every family: what they measure everywhere, and what they leave without a value."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import reference
from support.models import random_model

import jaxsmooth
from jaxsmooth import metrics, report
from jaxsmooth.checkpoints.config_json import family_config
from jaxsmooth.errors import ShapeError, TextError
from jaxsmooth.inputs.batches import encoded_batches
from jaxsmooth.inputs.tokenizer import TINY_VOCAB
from jaxsmooth.report import headline
from jaxsmooth.results.summaries import RATES
from jaxsmooth.studies.converge import converge_heads
from jaxsmooth.studies.verify import applicable
from jaxsmooth.theory.block.ladder import actual_rate
from jaxsmooth.theory.theorems import THEOREMS
from jaxsmooth.types import Batch

SIZES = {"width": 12, "layers": 3, "heads": 3, "mlp_width": 16}
TEXT = {**SIZES, "vocab": TINY_VOCAB, "max_length": 16, "pad_token": 0}
PIXELS = {**SIZES, "image_size": 8, "patch_size": 4, "max_length": 5, "channels": 2}
# What differs in kind: shared layers; relative biases; pre-LN with rotary positions, windows and gates; causal; images.
FAMILIES = {
    "albert": family_config("albert", **TEXT, embedding_width=8),
    "mpnet": family_config("mpnet", **TEXT),
    "modernbert": family_config("modernbert", **TEXT, window=2, global_every=2),
    "gpt2": family_config("gpt2", **TEXT),
    "vit": family_config("vit", **PIXELS),
}
TEXTS = ["so be it", "a film", "no", "not at all"]
IMAGES = np.random.default_rng(0).standard_normal((4, 2, 8, 8))


def given(name: str) -> tuple[jaxsmooth.Encoder, jaxsmooth.Tokenizer | None, list]:
    config = FAMILIES[name]
    model = random_model(config, pooler=False)
    if config.is_vision:
        return model, None, list(IMAGES)
    return model, jaxsmooth.Tokenizer.tiny(config), TEXTS


def pre_norm_rate(block, trace, layer: int, row: int, mask: np.ndarray) -> float:
    """The rate of one sentence's pre-LN block, from its definition; GELU's steepest slope is 1.12899..."""
    norm = functools.partial(np.linalg.norm, ord=2)
    heads = [
        reference.mixing_rate(trace.attn[layer, row, h][mask][:, mask])
        * norm(block.attn.value.kernel[layer, :, h] @ block.attn.output.kernel[layer, h])
        for h in range(trace.attn.shape[2])
    ]
    least = [np.sort(std[layer, row, mask, 0])[:2].prod() ** 0.5 for std in (trace.std_attn, trace.std_mlp)]
    gains = [np.abs(own.scale[layer]).max() for own in (block.norm_attn, block.norm_mlp)]
    slope = {"gelu": 1.1289041, "gelu_tanh": 1.1289931}[trace.activation]
    wide = slope * norm(block.up.kernel[layer]) * norm(block.down.kernel[layer])
    return (1 + gains[0] * sum(heads) / least[0]) * (1 + gains[1] * wide / least[1])


@pytest.mark.parametrize("name", ["gpt2", pytest.param("vit", marks=pytest.mark.long)])
def test_pre_norm_blocks_have_a_rate_of_their_own(name):
    model, tokenizer, data = given(name)
    found = jaxsmooth.diagnose(model, tokenizer, data, tokens_per_batch=64)
    batch = tokenizer(data) if tokenizer else jaxsmooth.image_batch(model.config, jnp.asarray(data))
    _, trace = jaxsmooth.encode(model, batch)
    block, trace = (jax.tree.map(np.asarray, tree) for tree in (model.blocks, trace))
    trace = SimpleNamespace(**{key: getattr(trace, key) for key in ("attn", "std_attn", "std_mlp")})
    trace.activation = model.config.activation
    rates = np.array(
        [
            [pre_norm_rate(block, trace, layer, row, np.asarray(mask)) for row, mask in enumerate(batch.mask)]
            for layer in range(model.config.layers)
        ]
    )
    l1 = found.rates["L1"]
    np.testing.assert_allclose(l1.mean, rates.mean(axis=1), rtol=1e-6)  # seven digits of the slope
    np.testing.assert_allclose(l1.min, rates.min(axis=1), rtol=1e-6)
    assert (l1.min >= 1).all()
    assert (l1.mean >= found.rates["actual"].mean).all()
    for rung in set(RATES[1:]) - {"L1"}:
        assert np.isnan(found.rates[rung].mean).all(), rung
    assert np.isnan(found.threshold.mean).all()
    assert found.model.rungs == ("L1",)
    words = headline(found)
    assert words.theory == "vacuous"
    assert "shown here as L1, cannot be below 1" in words.explanation
    page = report.render_page(found)
    assert "Of pre-LN blocks it is their own rate" in page
    assert "L1  pre-LN blocks" in page
    assert "theorem, per layer" not in page


@pytest.mark.parametrize("name", [pytest.param("albert", marks=pytest.mark.long), "modernbert"])
def test_diagnose_measures_every_family(name):
    model, tokenizer, data = given(name)
    found = jaxsmooth.diagnose(model, tokenizer, data, tokens_per_batch=64)
    plain = model.config.is_plain
    assert plain == (name == "albert")
    assert np.isfinite(found.rates["actual"].mean).all()
    for rung in RATES[1:]:
        assert np.isfinite(found.rates[rung].mean).all() == plain, rung
        assert plain or np.isnan(found.rates[rung].mean).all()
        if plain:
            assert (found.rates[rung].min >= found.rates["actual"].min * (1 - 1e-9)).all()
    batch = tokenizer(data) if tokenizer else jaxsmooth.image_batch(model.config, jnp.asarray(data))
    _, trace = jaxsmooth.encode(model, batch)
    inputs = jnp.concatenate([jaxsmooth.embed(model, batch)[None], trace.hidden[:-1]])
    actual = [actual_rate(x, y, batch.mask) for x, y in zip(inputs, trace.hidden, strict=True)]
    np.testing.assert_allclose(found.rates["actual"].mean, np.mean(actual, axis=1), rtol=1e-9)
    cosine = [metrics.token_cosine_similarity(h, batch.mask).mean() for h in trace.hidden]
    np.testing.assert_allclose(found.cosine_similarity.mean[1:], cosine, rtol=1e-9)
    words = headline(found)
    if plain:
        assert words.theory != "inapplicable"
    else:
        assert words.theory == "inapplicable"
        assert "pre-LN blocks" in words.explanation
        assert "are not proved for" in words.headline


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name == "albert" else name for name in FAMILIES]
)
def test_verify_claims_what_the_theorems_say_and_finds_it_true(name):
    model, tokenizer, data = given(name)
    found = jaxsmooth.verify(model, tokenizer, data, tokens_per_batch=64)
    assert not found.violated
    confirmed = {check.theorem for check in found.checks if check.counts["CONFIRMED"]}
    unclaimed = {check.theorem for check in found.checks if check.verdict == "NOT_APPLICABLE"}
    assert confirmed | unclaimed == set(THEOREMS)
    expected = {name for name, entry in THEOREMS.items() if model.config.is_plain or entry.of_head}
    if name != "albert" and name != "vit":
        expected -= {name for name, entry in THEOREMS.items() if entry.needs == "scores"}
    assert confirmed == expected == applicable(model.config) & set(THEOREMS)
    assert not confirmed & unclaimed


def test_converge_iterates_the_attention_that_the_model_has():
    model, tokenizer, data = given("gpt2")
    found = converge_heads(model, tokenizer, data[:1], steps=16)
    assert np.isfinite(found.operators["full"]["mixing_rate"].mean).all()
    for key, spread in found.operators["full"].items():  # all that a causal model sees is the past
        np.testing.assert_array_equal(spread.mean, found.operators["causal"][key].mean, err_msg=key)


def test_images_come_in_batches_of_one_shape_and_others_are_refused():
    model, _, data = given("vit")
    with pytest.raises(ShapeError, match=r"images\[0\] must be floating-point, of shape \(2, 8, 8\)"):
        jaxsmooth.diagnose(model, None, [np.zeros((8, 8, 2))])
    with pytest.raises(TextError, match="at least one"):
        jaxsmooth.diagnose(model, None, [])
    batches = list(encoded_batches(model.config, None, iter(data), tokens_per_batch=3 * 5 + 4))
    assert [batch.indices.tolist() for batch in batches] == [[0, 1, 2], [3]]
    assert {batch.batch.pixels.shape for batch in batches} == {(3, 2, 8, 8)}
    np.testing.assert_array_equal(batches[1].batch.pixels, np.stack([data[3]] * 3))
    assert all(np.asarray(batch.batch.mask).all() for batch in batches)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "vit"])
def test_padding_changes_nothing(name):
    model, tokenizer, _ = given(name)
    padded = tokenizer(["so be it"], length=14)
    length = int(padded.mask.sum())
    bare = Batch(padded.tokens[:, :length], padded.segments[:, :length], padded.mask[:, :length])
    junk = Batch(jnp.where(padded.mask, padded.tokens, 9), padded.segments, padded.mask)
    for one in (bare, junk):
        hidden, trace = jaxsmooth.encode(model, one)
        whole, traced = jaxsmooth.encode(model, padded)
        np.testing.assert_allclose(hidden[:, :length], whole[:, :length], atol=1e-12)
        attn = traced.attn[..., :length, :length]
        np.testing.assert_allclose(trace.attn[..., :length, :length], attn, atol=1e-12)
        assert not np.asarray(traced.attn[..., :length, length:]).any()
