"""What is written beside the weights: labels, problem type, the rest of a config.json; what an interrupt leaves."""

import dataclasses
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from support.checkpoint import assert_same_bits, set_config
from support.models import CONFIG, random_model

import jaxsmooth
from jaxsmooth.bert.heads import init_head
from jaxsmooth.checkpoints.config_json import family_config
from jaxsmooth.checkpoints.heads import load_with_head
from jaxsmooth.checkpoints.save import save_with_head
from jaxsmooth.errors import ConfigError, ShapeError

NAMED = {"id2label": {"0": "no", "1": "yes", "2": "maybe"}, "label2id": {"no": 0, "yes": 1, "maybe": 2}}
MULTI = {**NAMED, "problem_type": "multi_label_classification", "hidden_dropout_prob": 0.3, "sep_token_id": 4}


def written(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())


def headed(folder: Path, kind: str = "classification", labels: int = 3, **config: object):
    """A checkpoint with a head, its config.json changed as a user's would be, read back."""
    model = random_model(dtype=jnp.float32)
    save_with_head(model, init_head(CONFIG, kind, jax.random.key(0), labels=labels), folder)
    set_config(folder, **config)
    return load_with_head(folder)[:2]


@pytest.mark.compatibility(
    "saving", "a classifier of several labels, loaded and saved", "problem_type and names kept", was=1
)
def test_a_classifier_of_several_labels_stays_one(tmp_path):
    model, head = headed(tmp_path / "first", **MULTI)
    save_with_head(model, head, tmp_path / "again")
    assert {key: written(tmp_path / "again")[key] for key in MULTI} == MULTI
    assert_same_bits(load_with_head(tmp_path / "again")[0], model)
    jaxsmooth.save(model, tmp_path / "bare")
    assert {key: written(tmp_path / "bare")[key] for key in MULTI} == MULTI


def test_names_of_another_number_of_classes_are_not_kept(tmp_path):
    model, _ = headed(tmp_path, **MULTI)
    save_with_head(model, init_head(CONFIG, "tokens", jax.random.key(0), labels=4), tmp_path)
    assert written(tmp_path)["id2label"] == {str(k): f"LABEL_{k}" for k in range(4)}
    # Two numbers are transformers' default, and three names would make it three.
    save_with_head(model, init_head(CONFIG, "span", jax.random.key(0)), tmp_path)
    assert not {"id2label", "label2id", "num_labels"} & written(tmp_path).keys()
    save_with_head(model, init_head(CONFIG, "masked_lm", jax.random.key(0)), tmp_path)
    assert written(tmp_path)["id2label"] == NAMED["id2label"]


@pytest.mark.compatibility("saving", "num_labels without id2label", "kept, where the head has as many", was=1)
def test_a_count_of_labels_is_kept(tmp_path):
    counted = {"id2label": None, "label2id": None, "num_labels": 3}
    model, head = headed(tmp_path, **counted)
    save_with_head(model, head, tmp_path)
    assert written(tmp_path)["num_labels"] == 3
    assert written(tmp_path)["id2label"] is None


@pytest.mark.parametrize(
    ("kind", "labels", "read", "expected"),
    [
        ("regression", 1, "multi_label_classification", "regression"),
        ("classification", 3, "regression", None),
        ("classification", 3, "single_label_classification", "single_label_classification"),
        ("classification", 1, "single_label_classification", None),
        ("classification", 3, None, None),
    ],
)
def test_a_problem_type_that_the_head_contradicts_is_not_kept(kind, labels, read, expected, tmp_path):
    other_keys = "" if read is None else json.dumps({"problem_type": read})
    model = random_model(dataclasses.replace(CONFIG, other_keys=other_keys), dtype=jnp.float32)
    save_with_head(model, init_head(CONFIG, kind, jax.random.key(0), labels=labels), tmp_path)
    assert written(tmp_path).get("problem_type") == expected


def test_keys_that_are_given_win(tmp_path):
    model, head = headed(tmp_path, **MULTI)
    save_with_head(model, head, tmp_path, labels=["x", "y", "z"], keys={"hidden_dropout_prob": 0.5, "note": [1]})
    found = written(tmp_path)
    assert (found["hidden_dropout_prob"], found["note"], found["sep_token_id"]) == (0.5, [1], 4)
    assert found["label2id"] == {"x": 0, "y": 1, "z": 2}


def test_modernberts_pooling_is_kept(tmp_path):
    config = family_config(
        "modernbert", vocab=30, width=12, layers=2, heads=2, mlp_width=20, max_length=12, pad_token=0
    )
    model = random_model(config, dtype=jnp.float32, pooler=False)
    save_with_head(model, init_head(config, "classification", jax.random.key(0)), tmp_path)
    assert "classifier_pooling" not in written(tmp_path)
    set_config(tmp_path, classifier_pooling="mean", classifier_activation="gelu_fast", classifier_dropout=0.4)
    model, head, _ = load_with_head(tmp_path)
    assert head.reads == "mean"
    save_with_head(model, head, tmp_path)
    assert (written(tmp_path)["classifier_pooling"], written(tmp_path)["classifier_dropout"]) == ("mean", 0.4)


@pytest.mark.compatibility(
    "saving", "a save interrupted at any moment", "the former model, or none; never a mixture", was=0
)
def test_an_interrupt_at_any_moment_leaves_one_generation(tmp_path, monkeypatch):
    old, new = (random_model(seed=seed, dtype=jnp.float32) for seed in (1, 2))
    moments = []
    for moment in range(4):
        folder = tmp_path / str(moment)
        jaxsmooth.save(old, folder)
        calls = []

        def replace(source, target, *, calls=calls, moment=moment):
            calls.append(target)
            if len(calls) == moment:
                raise KeyboardInterrupt
            os.rename(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace)
            try:
                jaxsmooth.save(new, folder)
            except KeyboardInterrupt:
                with pytest.raises(ConfigError, match=r"config\.json does not exist"):
                    jaxsmooth.load(folder)
                moments.append(moment)
            else:
                assert_same_bits(jaxsmooth.load(folder)[0], new)
        assert {path.name for path in folder.iterdir()} <= {"README.md", "config.json", "model.safetensors"}
    assert moments == [1, 2, 3]


@pytest.mark.compatibility("saving", "`save` to `~/model` or `$MODELS/model`", "where `load` reads it", was=1)
@pytest.mark.compatibility("saving", "weights on a shared disk", "readable by others, as every file beside them", was=3)
def test_a_model_is_saved_where_it_is_loaded_from(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MODELS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    model, tokenizer = jaxsmooth.load("tiny")
    for name in ("~/home", "$MODELS/there"):
        jaxsmooth.save(model, name)
        tokenizer.save(name)
        assert_same_bits(jaxsmooth.load(name)[0], model)
    assert {path.name for path in tmp_path.iterdir()} == {"home", "there"}
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "home").iterdir()} == {0o644}


@pytest.mark.compatibility("saving", "layers or rows taken out of a model, its config left", "refused by name", was=4)
@pytest.mark.compatibility("saving", "parameters as integers", "refused before anything is written", was=4)
@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda m: {"blocks": jax.tree.map(lambda leaf: leaf[:2], m.blocks)},
            r"\(3, .*by the model's config; got \(2, ",
        ),
        (lambda m: {"config": dataclasses.replace(m.config, layers=2)}, r"\(2, .*by the model's config; got \(3, "),
        (lambda m: {"config": dataclasses.replace(m.config, vocab=9)}, "embeddings.word must have shape"),
        (lambda m: {"embeddings": jax.tree.map(lambda leaf: leaf.astype(int), m.embeddings)}, "to be saved; got int"),
    ],
)
def test_a_model_that_was_edited_in_part_is_refused(edit, message, tmp_path):
    model = random_model(dtype=jnp.float32)
    with pytest.raises(ShapeError, match=message):
        jaxsmooth.save(dataclasses.replace(model, **edit(model)), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_fewer_layers_are_saved_with_their_config(tmp_path):
    model = random_model(dtype=jnp.float32)
    config = dataclasses.replace(model.config, layers=2)
    model = dataclasses.replace(model, blocks=jax.tree.map(lambda leaf: leaf[:2], model.blocks), config=config)
    jaxsmooth.save(model, tmp_path)
    assert_same_bits(jaxsmooth.load(tmp_path)[0], model)


@pytest.mark.compatibility(
    "saving", "parameters of several dtypes", "dtype in config.json is the one that holds all", was=1
)
@pytest.mark.compatibility(
    "saving", "quantization_config beside full weights", "not kept: it is not what is written", was=1
)
def test_what_the_files_hold_is_said_anew(tmp_path):
    model = random_model(dtype=jnp.float32)
    jaxsmooth.save(model, tmp_path)
    set_config(tmp_path, quantization_config={"quant_method": "bitsandbytes"})
    model, _ = jaxsmooth.load(tmp_path)
    half = {"blocks": jnp.float16, "embeddings": jnp.bfloat16}
    model = dataclasses.replace(
        model,
        **{name: jax.tree.map(lambda a, d=dtype: a.astype(d), getattr(model, name)) for name, dtype in half.items()},
    )
    jaxsmooth.save(model, tmp_path)
    assert (written(tmp_path)["dtype"], "quantization_config" in written(tmp_path)) == ("float32", False)
