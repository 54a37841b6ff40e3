"""Checkpoints with a head, against numpy; the logits of every class are compared with torch in test_parity.py."""

import json
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from helpers_checkpoint import assert_same_bits, rewrite, set_config
from helpers_models import random_model

import jaxsmooth
from jaxsmooth.bert.config import EncoderConfig
from jaxsmooth.bert.heads import KINDS as HEAD_KINDS
from jaxsmooth.bert.heads import apply_head
from jaxsmooth.checkpoint_heads import KINDS, load_with_head
from jaxsmooth.errors import CheckpointError, ConfigError

SIZES = {"vocab": 9, "width": 6, "layers": 1, "heads": 2, "mlp_width": 5, "max_length": 8, "pad_token": 0}
HIDDEN = np.random.default_rng(5).standard_normal((4, 3, 6))
MASK = jnp.asarray([[True, True, True]] * 3 + [[True, True, False]])


def write(folder: Path, family: str, architecture: str, shapes: dict[str, tuple[int, ...]], **config: object) -> dict:
    """A checkpoint whose head holds random tensors of the given shapes; returns them."""
    pooled = architecture.endswith(("Classification", "Choice")) and family in ("bert", "albert")
    model = random_model(EncoderConfig.of(family, **SIZES), dtype=jnp.float32, pooler=pooled)
    jaxsmooth.save(model, folder)
    random = np.random.default_rng(1)
    head = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    rewrite(folder, lambda tensors: tensors | head)
    set_config(folder, architectures=[architecture], **config)
    return head


def logits(folder: Path, choices: int = 1) -> np.ndarray:
    model, head, tokenizer = load_with_head(folder, dtype=jnp.float64)
    assert tokenizer is None
    return np.asarray(apply_head(head, model, jnp.asarray(HIDDEN), MASK, choices=choices))


def test_every_kind_of_head_can_be_loaded():
    assert set(KINDS.values()) | {"regression"} == set(HEAD_KINDS)


def test_roberta_keeps_its_pooler_in_the_head(tmp_path):
    shapes = {"dense.weight": (6, 6), "dense.bias": (6,), "out_proj.weight": (3, 6), "out_proj.bias": (3,)}
    h = write(
        tmp_path,
        "roberta",
        "RobertaForSequenceClassification",
        {f"classifier.{name}": shape for name, shape in shapes.items()},
    )
    h = {name.removeprefix("classifier."): tensor.astype(np.float64) for name, tensor in h.items()}
    pooled = np.tanh(HIDDEN[:, 0] @ h["dense.weight"].T + h["dense.bias"])
    np.testing.assert_allclose(logits(tmp_path), pooled @ h["out_proj.weight"].T + h["out_proj.bias"], atol=1e-12)


def test_distilberts_dense_layer_has_a_relu_and_choices_stand_side_by_side(tmp_path):
    shapes = {"pre_classifier.weight": (6, 6), "pre_classifier.bias": (6,)}
    shapes |= {"classifier.weight": (1, 6), "classifier.bias": (1,)}
    h = write(tmp_path, "distilbert", "DistilBertForMultipleChoice", shapes)
    pooled = np.maximum(HIDDEN[:, 0] @ h["pre_classifier.weight"].T.astype(float) + h["pre_classifier.bias"], 0)
    scores = pooled @ h["classifier.weight"].T.astype(float) + h["classifier.bias"]
    np.testing.assert_allclose(logits(tmp_path, choices=2), scores.reshape(2, 2), atol=1e-12)


def test_electra_decodes_from_a_narrower_space_with_its_word_table(tmp_path):
    names = "generator_predictions"
    shapes = {f"{names}.dense.weight": (4, 6), f"{names}.dense.bias": (4,)}
    shapes |= {f"{names}.LayerNorm.weight": (4,), f"{names}.LayerNorm.bias": (4,), "generator_lm_head.bias": (9,)}
    config = EncoderConfig.of("electra", **{**SIZES, "embedding_width": 4})
    model = random_model(config, dtype=jnp.float32, pooler=False)
    jaxsmooth.save(model, tmp_path)
    random = np.random.default_rng(1)
    head = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    rewrite(tmp_path, lambda tensors: tensors | head)
    set_config(tmp_path, architectures=["ElectraForMaskedLM"])
    wide = HIDDEN @ head[f"{names}.dense.weight"].T.astype(float) + head[f"{names}.dense.bias"]
    wide = wide * 0.5 * (1 + np.vectorize(math.erf)(wide / math.sqrt(2)))
    centred = wide - wide.mean(axis=-1, keepdims=True)
    wide = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + config.eps)
    wide = wide * head[f"{names}.LayerNorm.weight"] + head[f"{names}.LayerNorm.bias"]
    expected = wide @ np.asarray(model.embeddings.word, float).T + head["generator_lm_head.bias"]
    np.testing.assert_allclose(logits(tmp_path), expected, atol=1e-11)


def test_an_untied_decoder_is_read(tmp_path):
    stem = "cls.predictions"
    shapes = {f"{stem}.transform.dense.weight": (6, 6), f"{stem}.transform.dense.bias": (6,), f"{stem}.bias": (9,)}
    shapes |= {f"{stem}.transform.LayerNorm.{part}": (6,) for part in ("weight", "bias")}
    shapes[f"{stem}.decoder.weight"] = (9, 6)
    h = write(tmp_path, "bert", "BertForMaskedLM", shapes, tie_word_embeddings=False)
    _, head, _ = load_with_head(tmp_path)
    np.testing.assert_array_equal(head.out.kernel, h[f"{stem}.decoder.weight"].T)
    set_config(tmp_path, tie_word_embeddings=True)
    assert load_with_head(tmp_path)[1].out.kernel is None


def test_a_regression_is_told_by_its_problem_type_and_the_encoder_is_the_one_that_load_gives(tmp_path):
    write(
        tmp_path,
        "bert",
        "BertForSequenceClassification",
        {"classifier.weight": (1, 6), "classifier.bias": (1,)},
        problem_type="regression",
    )
    model, head, _ = load_with_head(tmp_path)
    assert head.kind == "regression"
    assert_same_bits(model, jaxsmooth.load(tmp_path)[0])


@pytest.mark.parametrize(
    ("config", "shapes", "error", "message"),
    [
        ({"architectures": None}, {}, ConfigError, "architectures must name a class that ends in one of"),
        ({"architectures": ["BertModel"]}, {}, ConfigError, r"got \['BertModel'\]"),
        ({}, {}, CheckpointError, "tensor 'classifier.weight' of the head is missing"),
        ({}, {"classifier.weight": (2, 5)}, CheckpointError, r"'classifier.weight' must have shape \(2, 6\)"),
        ({}, {"classifier.weight": (2,)}, CheckpointError, r"'classifier.weight' must have shape"),
        ({}, {"classifier.weight": (2, 6), "classifier.bias": (3,)}, CheckpointError, r"must have shape \(2,\)"),
    ],
)
def test_what_is_no_head_is_refused(config, shapes, error, message, tmp_path):
    write(tmp_path, "bert", "BertForTokenClassification", shapes)
    set_config(tmp_path, **config)
    with pytest.raises(error, match=message):
        load_with_head(tmp_path)


def test_a_head_that_the_encoder_cannot_have_is_refused(tmp_path):
    write(tmp_path, "gpt2", "GPT2ForSequenceClassification", {})
    with pytest.raises(ConfigError, match="the head of GPT2ForSequenceClassification is not supported"):
        load_with_head(tmp_path)
    write(tmp_path, "roberta", "RobertaForMaskedLM", {}, hidden_act="relu")
    with pytest.raises(ConfigError, match="always uses gelu"):
        load_with_head(tmp_path)
    write(tmp_path, "bert", "BertForSequenceClassification", {"classifier.weight": (2, 6)})
    rewrite(tmp_path, lambda t: {name: tensor for name, tensor in t.items() if not name.startswith("pooler")})
    with pytest.raises(CheckpointError, match="reads the pooler, which is missing"):
        load_with_head(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "bert"
