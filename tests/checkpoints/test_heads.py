"""Checkpoints with a head, against numpy and what torch transformers computed (made by make_families.py)."""

import dataclasses
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support import make_families
from support.checkpoint import assert_same_bits, rewrite, set_config
from support.models import random_model
from support.parity import run_ours_with_head

import jaxsmooth
from jaxsmooth.bert.heads import FORMS, LANGUAGE, apply_head, init_head
from jaxsmooth.bert.heads import KINDS as HEAD_KINDS
from jaxsmooth.checkpoints.config_json import family_config
from jaxsmooth.checkpoints.families import FAMILIES
from jaxsmooth.checkpoints.head_names import HEADS
from jaxsmooth.checkpoints.heads import load_with_head
from jaxsmooth.checkpoints.names import NAMES
from jaxsmooth.checkpoints.save import save_with_head
from jaxsmooth.checkpoints.tensors import WEIGHTS
from jaxsmooth.errors import CheckpointError, ConfigError

SIZES = {"vocab": 9, "width": 6, "layers": 1, "heads": 2, "mlp_width": 5, "max_length": 8, "pad_token": 0}
HIDDEN = np.random.default_rng(5).standard_normal((4, 3, 6))
MASK = jnp.asarray([[True, True, True]] * 3 + [[True, True, False]])


def write(folder: Path, family: str, architecture: str, shapes: dict[str, tuple[int, ...]], **config: object) -> dict:
    """A checkpoint whose head holds random tensors of the given shapes; returns them."""
    pooled = architecture.endswith(("Classification", "Choice")) and family in ("bert", "albert")
    model = random_model(family_config(family, **SIZES), dtype=jnp.float32, pooler=pooled)
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


def test_every_kind_of_head_and_every_family_is_in_the_table():
    assert {kind for family in HEADS.values() for kind in family.heads} | {"regression"} == set(HEAD_KINDS)
    assert set(HEADS) == set(FORMS) == set(FAMILIES)


FROZEN_HEADS = [
    (name, head)
    for name in make_families.MODELS
    if name not in (*make_families.LIVE_ONLY, *make_families.UNHEADED)
    for head in make_families.heads_of(name)
]


@pytest.fixture(scope="module")
def frozen():
    """The logits that transformers computed, and the tensors of its heads, by model."""
    stored = {}
    for name in {name for name, _ in FROZEN_HEADS}:
        with np.load(make_families.FROZEN / name / "heads.npz") as file:
            stored[name] = dict(file)
    return stored


@pytest.mark.parametrize(("name", "head"), FROZEN_HEADS)
def test_heads_give_the_logits_of_torch_and_are_saved_bit_for_bit(name, head, frozen, tmp_path):
    values = {key.removeprefix(f"{head}/"): v for key, v in frozen[name].items() if key.startswith(f"{head}/")}
    theirs = {key.removeprefix("tensors/"): v for key, v in values.items() if key.startswith("tensors/")}
    theirs |= load_file(make_families.FROZEN / name / WEIGHTS)
    prefix = NAMES[make_families.MODELS[name][0]].prefix
    theirs = {key if key in values["names"] else prefix + key: tensor for key, tensor in theirs.items()}
    theirs = {key: theirs[key] for key in values["names"]}
    config = json.loads((make_families.FROZEN / name / "config.json").read_text())
    config |= make_families.HEAD_SETTINGS.get(name, {}) | {"architectures": [str(values["architecture"])]}
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "config.json").write_text(json.dumps(config))
    save_file(theirs, tmp_path / "theirs" / WEIGHTS)

    batch = make_families.random_batch(name)
    error = np.abs(run_ours_with_head(tmp_path / "theirs", "float64", batch) - values["logits"])
    assert (error[batch["mask"]].max() if error.ndim == 3 else error.max()) <= 1e-10

    model, own, _ = load_with_head(tmp_path / "theirs")
    save_with_head(model, own, tmp_path / "ours")
    ours = load_file(tmp_path / "ours" / WEIGHTS)
    assert {key: tensor.tobytes() for key, tensor in ours.items()} == {k: t.tobytes() for k, t in theirs.items()}
    again = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert again["architectures"] == config["architectures"]
    assert_same_bits(load_with_head(tmp_path / "ours")[0], model)
    assert jax.tree.structure(load_with_head(tmp_path / "ours")[1]) == jax.tree.structure(own)


@pytest.mark.parametrize("family", sorted(HEADS))
def test_a_freshly_drawn_head_of_every_kind_comes_back(family, tmp_path):
    sizes = {"width": 6, "layers": 1, "heads": 1, "mlp_width": 5}
    vision = family_config(family).is_vision
    extra = {"image_size": 4, "patch_size": 2} if vision else {"vocab": 9, "max_length": 8, "pad_token": 0}
    narrow = {"embedding_width": 4} if family in ("albert", "electra") else {}
    model = random_model(family_config(family, **sizes, **extra, **narrow), dtype=jnp.float32, pooler=True)
    kinds = [*HEADS[family].heads, "regression"]
    for kind in kinds:
        for tied in (True, False) if kind in LANGUAGE else (True,):
            head = init_head(model.config, kind, jax.random.key(1), labels=3, tied=tied)
            save_with_head(model, head, tmp_path)
            again_model, again, _ = load_with_head(tmp_path)
            assert jax.tree.structure(again) == jax.tree.structure(head)
            leaves = zip(jax.tree.leaves(again), jax.tree.leaves(head), strict=True)
            assert all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in leaves)
            kept = kind in ("classification", "regression", "choice") and head.reads == "pooler"
            assert (again_model.pooler is not None) == kept


def test_names_of_classes_are_written_and_a_decoder_keeps_its_own_kernel(tmp_path):
    model = random_model(family_config("bert", **SIZES), dtype=jnp.float32)
    save_with_head(model, init_head(model.config, "tokens", jax.random.key(0), labels=2), tmp_path, labels=["B", "I"])
    written = json.loads((tmp_path / "config.json").read_text())
    assert (written["id2label"], written["label2id"]) == ({"0": "B", "1": "I"}, {"B": 0, "I": 1})
    save_with_head(model, init_head(model.config, "masked_lm", jax.random.key(0), tied=False), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["tie_word_embeddings"] is False


@pytest.mark.parametrize(
    ("family", "kind", "change", "labels", "message"),
    [
        ("bert", "causal_lm", {}, (), "no class of the family 'bert' has a head of kind 'causal_lm'"),
        ("gpt2", "masked_lm", {}, (), "its kinds are .*'causal_lm'"),
        ("gpt2", "classification", {"reads": "mean"}, (), "'reads': 'last'.* got .*'reads': 'mean'"),
        ("bert", "masked_lm", {"activation": "relu"}, (), "got .*'activation': 'relu'"),
        ("bert", "classification", {"labels": 3}, ("a", "b"), "labels must be 3 different names"),
        ("bert", "classification", {}, ("a", "a"), "labels must be 2 different names"),
        ("bert", "span", {}, ("a", "b"), "has no labels"),
        ("bert", "classification", {"bias": None}, (), r"out.bias .* must have shape \(2,\); got None"),
        ("bert", "tokens", {"width": 8}, (), r"out.kernel .* must have shape \(6, 2\); got \(8, 2\)"),
        ("modernbert", "tokens", {"dense": None}, (), r"dense.kernel .* must have shape \(6, 6\); got None"),
    ],
)
def test_a_head_without_a_class_is_not_written(family, kind, change, labels, message, tmp_path):
    model = random_model(family_config(family, **{**SIZES, "heads": 1}), dtype=jnp.float32)
    config = dataclasses.replace(model.config, width=change.get("width", 6))
    head = init_head(config, kind, jax.random.key(0), labels=change.get("labels", 2))
    fields = {name: value for name, value in change.items() if name in ("reads", "activation", "dense")}
    head = dataclasses.replace(head, **fields)
    if "bias" in change:
        head = dataclasses.replace(head, out=dataclasses.replace(head.out, bias=None))
    with pytest.raises(ConfigError, match=message):
        save_with_head(model, head, tmp_path / "new", labels=labels)
    assert not (tmp_path / "new").exists()


def test_a_pooled_head_needs_its_pooler(tmp_path):
    model = random_model(family_config("bert", **SIZES), dtype=jnp.float32, pooler=False)
    head = init_head(model.config, "classification", jax.random.key(0))
    with pytest.raises(ConfigError, match="see `with_pooler`"):
        save_with_head(model, head, tmp_path)


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


def test_distilberts_dense_layer_has_a_relu_and_choices_are_columns(tmp_path):
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
    config = family_config("electra", **{**SIZES, "embedding_width": 4})
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
    set_config(tmp_path, tie_word_embeddings=True)  # what is stored, and differs, decodes all the same
    np.testing.assert_array_equal(load_with_head(tmp_path)[1].out.kernel, h[f"{stem}.decoder.weight"].T)


def test_a_regression_is_known_by_its_problem_type(tmp_path):
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
    write(tmp_path, "gpt2", "GPT2ForMaskedLM", {})
    with pytest.raises(ConfigError, match=r"ends in one of .*'LMHeadModel'.*family 'gpt2'; got \['GPT2ForMaskedLM'\]"):
        load_with_head(tmp_path)
    write(tmp_path, "gpt2", "GPT2DoubleHeadsModel", {}, summary_type="first")
    with pytest.raises(ConfigError, match="summary_type must be 'cls_index' for the head of GPT2DoubleHeadsModel"):
        load_with_head(tmp_path)
    modern = family_config("modernbert", **{**SIZES, "heads": 1})
    jaxsmooth.save(random_model(modern, dtype=jnp.float32, pooler=False), tmp_path)
    set_config(tmp_path, architectures=["ModernBertForSequenceClassification"], classifier_pooling="max")
    with pytest.raises(ConfigError, match="classifier_pooling must be one of"):
        load_with_head(tmp_path)
    written = {"hidden_size": 6, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 5}
    written |= {"model_type": "deit", "architectures": ["DeiTForImageClassificationWithTeacher"]}
    (tmp_path / "config.json").write_text(json.dumps(written))
    with pytest.raises(ConfigError, match="WithTeacher is not supported: it averages two classifiers"):
        load_with_head(tmp_path)
    write(tmp_path, "bert", "BertForSequenceClassification", {"classifier.weight": (2, 6)})
    rewrite(tmp_path, lambda t: {name: tensor for name, tensor in t.items() if not name.startswith("pooler")})
    with pytest.raises(CheckpointError, match="reads the pooler, which is missing"):
        load_with_head(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "bert"
