"""The self-check at load: what is damaged is caught and named, what is whole passes, and off means off."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from support.checkpoint import QUERY, assert_same_bits, rewrite, set_config
from support.models import CONFIG, random_batch, random_model

import jaxsmooth
from jaxsmooth.activations import ACTIVATIONS
from jaxsmooth.assets.registry import REGISTRY
from jaxsmooth.bert import block
from jaxsmooth.bert.encoder import encode
from jaxsmooth.bert.heads import init_head
from jaxsmooth.checkpoints import self_check
from jaxsmooth.checkpoints.config_json import ANSWER_KEY, family_config
from jaxsmooth.checkpoints.families import FAMILIES
from jaxsmooth.checkpoints.host import run_on_host
from jaxsmooth.checkpoints.self_check import known_answer, make_answer
from jaxsmooth.cli import main as cli
from jaxsmooth.cli.parsing import parse
from jaxsmooth.errors import CheckpointError
from jaxsmooth.inputs.tokenizer import TINY_VOCAB, Tokenizer

KEY = QUERY.replace("query", "key")


def small(family: str, **fields) -> jaxsmooth.EncoderConfig:
    vision = family_config(family).is_vision
    sizes = {"image_size": 4, "patch_size": 2} if vision else {"vocab": 30, "max_length": 12, "pad_token": 0}
    narrow = {"embedding_width": 4} if family in ("albert", "electra") else {}
    return family_config(family, **{"width": 12, "layers": 2, "heads": 3, "mlp_width": 20, **sizes, **narrow, **fields})


def answer_of(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())[ANSWER_KEY]


@pytest.fixture
def folder(tmp_path) -> Path:
    """A good checkpoint of three layers and three heads, for a test to damage."""
    jaxsmooth.save(random_model(dtype=jnp.float32), tmp_path)
    return tmp_path


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.compatibility("self-check", "any family, as saved", "passes in every dtype", was=0)
def test_what_is_whole_passes_in_every_family_and_dtype(family, tmp_path):
    model = random_model(
        small(family, **({"heads": 2} if family == "modernbert" else {})), dtype=jnp.float32, pooler=False
    )
    jaxsmooth.save(model, tmp_path)
    assert set(answer_of(tmp_path)) >= {"tokens", "tolerance", "float32", "bfloat16", "float16"}
    assert jaxsmooth.load(tmp_path)[0].config == model.config
    for dtype in ("float64", "bfloat16"):
        jaxsmooth.load(tmp_path, dtype=dtype)
    with jax.enable_x64(False):
        jaxsmooth.load(tmp_path)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_a_model_saved_in_another_dtype_passes_too(dtype, tmp_path):
    model = random_model(dtype=dtype)
    jaxsmooth.save(model, tmp_path)
    for read in ("float32", "float64", "bfloat16"):
        jaxsmooth.load(tmp_path, dtype=read)


@pytest.mark.parametrize("stored", [np.float16, ml_dtypes.bfloat16, np.float64])
@pytest.mark.parametrize("read", ["float32", "bfloat16"])
@pytest.mark.compatibility("self-check", "weights rounded to float16 or bfloat16 since", "pass", was=0)
def test_rounded_weights_are_the_model_still(stored, read, folder):
    rewrite(folder, lambda t: {name: tensor.astype(stored) for name, tensor in t.items()})
    jaxsmooth.load(folder, dtype=read)


def one_number(t):
    t[QUERY][3, 5] += 0.05


def swapped(t):
    t[QUERY], t[KEY] = t[KEY].copy(), t[QUERY].copy()


def transposed(t):
    t[QUERY] = np.ascontiguousarray(t[QUERY].T)


def other_layer(t):
    t[QUERY], other = t[QUERY.replace("1", "2", 1)].copy(), t[QUERY].copy()
    t[QUERY.replace("1", "2", 1)] = other


def halved_norm(t):
    t["encoder.layer.2.output.LayerNorm.weight"] *= 0.5


@pytest.mark.parametrize("damage", [one_number, swapped, transposed, other_layer, halved_norm])
@pytest.mark.compatibility("self-check", "one weight altered", "refused: off by so much, the cause", was=1)
@pytest.mark.compatibility("self-check", "queries and keys swapped", "refused", was=1)
@pytest.mark.compatibility("self-check", "a square matrix transposed", "refused", was=1)
@pytest.mark.compatibility("self-check", "two layers swapped", "refused", was=1)
def test_damaged_weights_are_refused(damage, folder):
    rewrite(folder, damage)
    with pytest.raises(CheckpointError, match=r"off by .*weights, or config.json, are not those that were saved"):
        jaxsmooth.load(folder)
    jaxsmooth.load(folder, check=False)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"hidden_act": "gelu_new"}, "activation was 'gelu' and is 'gelu_tanh'"),
        ({"hidden_act": "relu"}, "activation was 'gelu' and is 'relu'"),
        ({"num_attention_heads": 4}, "heads was 3 and is 4"),
        ({"layer_norm_eps": 1e-3}, "eps was 1e-12 and is 0.001"),
        ({"num_hidden_layers": 2}, "layers was 3 and is 2"),
    ],
)
@pytest.mark.compatibility("self-check", "hidden_act changed, gelu to gelu_new", "refused, the key named", was=1)
@pytest.mark.compatibility("self-check", "num_attention_heads miscounted", "refused, the key named", was=1)
@pytest.mark.compatibility("self-check", "layer_norm_eps changed", "refused, the key named", was=1)
def test_a_changed_configuration_is_refused_and_named(change, named, folder):
    if "num_hidden_layers" in change:
        rewrite(folder, lambda t: {name: tensor for name, tensor in t.items() if "layer.2" not in name})
    set_config(folder, **change)
    with pytest.raises(CheckpointError, match=f"config.json was changed: {named}"):
        jaxsmooth.load(folder)
    jaxsmooth.load(folder, check=False)


@pytest.mark.compatibility(
    "self-check", "a NaN among the weights", "refused, the tensor named; read with check off", was=0
)
def test_weights_that_are_not_finite_are_named_or_read_with_the_check_off(folder):
    def put_nan(t):
        t[QUERY][0, 0] = np.nan

    rewrite(folder, put_nan)
    with pytest.raises(CheckpointError, match=f"{QUERY}.* not finite"):
        jaxsmooth.load(folder)
    model, _ = jaxsmooth.load(folder, check=False)
    assert np.isnan(model.blocks.attn.query.kernel).sum() == 1


@pytest.mark.parametrize(
    ("tensor", "place"),
    [
        (QUERY, "'query' of layer 1"),
        ("encoder.layer.2.output.dense.weight", "'mlp' of layer 2"),
        ("embeddings.word_embeddings.weight", "the embedding"),
    ],
)
@pytest.mark.compatibility("self-check", "weights that overflow", "refused: the first layer and array", was=1)
def test_the_first_array_that_is_not_finite_is_named(tensor, place, folder):
    rewrite(folder, lambda t: t | {tensor: np.full_like(t[tensor], 3e38)})
    with pytest.raises(CheckpointError, match=f"first that are not are in {place}"):
        jaxsmooth.load(folder)


def test_the_first_array_is_the_first_of_a_pre_norm_block_too(tmp_path):
    jaxsmooth.save(random_model(small("gpt2"), dtype=jnp.float32, pooler=False), tmp_path)
    rewrite(tmp_path, lambda t: t | {"h.1.ln_1.weight": np.full(12, 3e38, np.float32)})
    with pytest.raises(CheckpointError, match="first that are not are in 'query' of layer 1"):
        jaxsmooth.load(tmp_path)


def cut(folder: Path, rows: int) -> None:
    name = "embeddings.word_embeddings.weight"
    rewrite(folder, lambda t: t | {name: np.ascontiguousarray(t[name][:rows])})
    set_config(folder, vocab_size=rows)


@pytest.mark.compatibility("self-check", "the word table cut", "refused: an id without a row", was=1)
def test_a_cut_vocabulary_is_refused(folder):
    cut(folder, 20)
    with pytest.raises(CheckpointError, match=r"was saved with id 29; the word table has rows 0 to 19\. Was the vocab"):
        jaxsmooth.load(folder)


def test_a_tokenizer_of_a_larger_vocabulary_is_refused(tmp_path):
    config = jaxsmooth.EncoderConfig(vocab=TINY_VOCAB, width=12, layers=1, heads=3, mlp_width=20, max_length=32)
    model, tokenizer = random_model(config, dtype=jnp.float32), Tokenizer.tiny(config)
    ids = tokenizer.rows([self_check.TEXT], length=32)[0].ids
    self_check.check_read(model, tokenizer, "here", None)
    smaller = random_model(jaxsmooth.EncoderConfig(**{**vars(config), "vocab": max(ids)}), dtype=jnp.float32)
    with pytest.raises(
        CheckpointError, match=f"its tokenizer gives a text id {max(ids)}; the word table has rows 0 to"
    ):
        self_check.check_read(smaller, tokenizer, "here", None)


def test_attention_whose_rows_do_not_sum_to_one_is_refused(folder, monkeypatch):
    probs = block.attention_probs
    monkeypatch.setattr(block, "attention_probs", lambda *arguments: 1.01 * probs(*arguments))
    self_check._program.cache_clear()
    jax.clear_caches()
    with pytest.raises(CheckpointError, match=r"row of attention must sum to 1 within 0.0001; got one off by 0.01"):
        jaxsmooth.load(folder)
    self_check._program.cache_clear()
    jax.clear_caches()


@pytest.mark.compatibility(
    "self-check", "trained on and saved by transformers", "passes: the answer was of before", was=0
)
def test_an_answer_beside_transformers_version_is_of_other_weights(folder):
    rewrite(folder, one_number)
    set_config(folder, transformers_version="5.24.0")
    jaxsmooth.load(folder)


@pytest.mark.parametrize("change", [{"float32": [1.0]}, {"tokens": "x"}, {"tolerance": None}, {"bfloat16": "?"}])
def test_an_answer_that_is_none_is_refused(change, folder):
    set_config(folder, **{ANSWER_KEY: answer_of(folder) | change})
    with pytest.raises(CheckpointError, match=f"{ANSWER_KEY} must hold tokens, tolerance and 8 numbers"):
        jaxsmooth.load(folder)
    set_config(folder, **{ANSWER_KEY: 3})
    with pytest.raises(CheckpointError, match=f"{ANSWER_KEY} must hold"):
        jaxsmooth.load(folder)


def test_a_diverged_model_can_be_saved_and_read_with_the_check_off(tmp_path):
    model = jax.tree.map(lambda leaf: leaf * 1e30, random_model(dtype=jnp.float32))
    jaxsmooth.save(model, tmp_path)
    assert ANSWER_KEY not in json.loads((tmp_path / "config.json").read_text())
    assert_same_bits(jaxsmooth.load(tmp_path, check=False)[0], model)


def test_a_model_with_a_head_is_checked_too(tmp_path):
    model = random_model(dtype=jnp.float32)
    jaxsmooth.save_with_head(model, init_head(CONFIG, "classification", jax.random.key(0)), tmp_path)
    jaxsmooth.load_with_head(tmp_path)
    rewrite(tmp_path, lambda t: t | {f"bert.{QUERY}": t[f"bert.{QUERY}"] + np.float32(0.05)})
    for read in (jaxsmooth.load, jaxsmooth.load_with_head):
        with pytest.raises(CheckpointError, match="not those that were saved"):
            read(tmp_path)
        read(tmp_path, check=False)


def test_no_later_call_is_compiled_anew(folder, traces):
    model, _ = jaxsmooth.load(folder)
    batch = random_batch()
    encode(model, batch)
    before = len(traces)
    again, _ = jaxsmooth.load(folder)
    encode(again, batch)
    assert len(traces) == before


def test_nothing_is_checked_while_it_is_traced():
    model, other = (random_model(seed=seed, dtype=jnp.float32) for seed in (0, 1))
    wrong = make_answer(other)
    with pytest.raises(CheckpointError, match="not those that were saved"):
        self_check.check_read(model, None, "here", wrong)

    def traced(model):
        self_check.check_read(model, None, "here", wrong)
        return model

    assert jax.eval_shape(traced, model).config == CONFIG


@pytest.mark.parametrize("name", [name for name, asset in REGISTRY.items() if asset.kind == "model"])
def test_every_model_asset_has_a_pinned_answer(name, tmp_path):
    answer = known_answer(name, tmp_path)
    assert answer is not None
    assert 0 < answer["tolerance"] < 1e-4


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("family", ["roberta", "albert", "mpnet", "modernbert", "gpt2", "vit"])
def test_the_program_run_in_numpy_is_the_encoder(family, activation):
    config = small(family, activation=activation, **({"heads": 2} if family == "modernbert" else {}))
    model = random_model(config, dtype=jnp.float64, pooler=False)
    tokens = self_check._probe_tokens(config)
    batch = jax.tree.map(jnp.asarray, self_check._batch(config, tokens))
    if config.is_vision:
        batch = jaxsmooth.image_batch(config, batch.pixels.astype(jnp.float64))
    program = jax.make_jaxpr(encode)(model, batch)
    found = run_on_host(program, [np.asarray(leaf) for leaf in jax.tree.leaves((model, batch))])
    hidden, trace = encode(model, batch)
    for ours, theirs in zip(found, jax.tree.leaves((hidden, trace)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-11)


def test_the_command_checks_unless_it_is_told_not_to(tmp_path, capsys):
    config = jaxsmooth.EncoderConfig(vocab=TINY_VOCAB, width=12, layers=2, heads=3, mlp_width=20, max_length=32)
    jaxsmooth.save(random_model(config, dtype=jnp.float32), tmp_path)
    Tokenizer.tiny(config).save(tmp_path)
    rewrite(tmp_path, one_number)
    assert cli.main(["diagnose", str(tmp_path), "--data", "tiny", "--out", str(tmp_path / "out")]) == 1
    assert "not those that were saved" in capsys.readouterr().err
    for words, expected in ((["diagnose", "x"], True), (["verify", "x", "--no-check"], False)):
        assert parse(words).check is expected
    for words, expected in ((["finetune"], True), (["finetune", "--no-check"], False)):
        assert parse(words).config.check is expected
