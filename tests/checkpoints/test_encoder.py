"""Checkpoints: what is written is read back bit for bit."""

import dataclasses
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from safetensors.numpy import load_file
from support.checkpoint import Tensors, assert_same_bits, rewrite, shard
from support.make_frozen import FROZEN, RANDOM
from support.models import CONFIG, random_batch, random_model

import jaxsmooth
from jaxsmooth.bert.params import encoder_shapes
from jaxsmooth.checkpoints.config_json import family_config
from jaxsmooth.checkpoints.encoder import TINY
from jaxsmooth.checkpoints.families import FAMILIES
from jaxsmooth.checkpoints.names import NAMES
from jaxsmooth.checkpoints.tensors import WEIGHTS
from jaxsmooth.errors import ConfigError


@pytest.fixture(scope="module")
def model() -> jaxsmooth.Encoder:
    return random_model(dtype=jnp.float32)


@pytest.fixture
def folder(model, tmp_path) -> Path:
    """A good checkpoint, for a test to damage."""
    jaxsmooth.save(model, tmp_path)
    return tmp_path


@pytest.mark.parametrize("pooler", [True, False])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.bfloat16])
def test_save_and_load_give_the_same_bits(dtype, pooler, tmp_path):
    model = random_model(dtype=dtype, pooler=pooler)
    jaxsmooth.save(model, tmp_path / "new" / "folder")
    loaded, tokenizer = jaxsmooth.load(tmp_path / "new" / "folder", dtype=dtype)
    assert_same_bits(loaded, model)
    assert tokenizer is None
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [
        "README.md",
        "config.json",
        WEIGHTS,
    ]


@pytest.mark.parametrize("name", RANDOM)
def test_a_directory_of_transformers_is_saved_again_bit_for_bit(name, tmp_path):
    model, _ = jaxsmooth.load(FROZEN / name)
    jaxsmooth.save(model, tmp_path)
    theirs = {key.removeprefix("bert."): tensor for key, tensor in load_file(FROZEN / name / WEIGHTS).items()}
    ours = load_file(tmp_path / WEIGHTS)
    assert set(ours) == set(theirs)
    for key, tensor in ours.items():
        assert (tensor.dtype, tensor.shape) == (theirs[key].dtype, theirs[key].shape)
        assert tensor.tobytes() == theirs[key].tobytes(), key
    with (
        safetensors.safe_open(tmp_path / WEIGHTS, "numpy") as ours,
        safetensors.safe_open(FROZEN / name / WEIGHTS, "numpy") as theirs,
    ):
        assert ours.metadata() == theirs.metadata() == {"format": "pt"}  # transformers refuses a file without it


def test_the_config_says_the_dtype(tmp_path):
    jaxsmooth.save(random_model(dtype=jnp.bfloat16), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["dtype"], config["model_type"], config["architectures"]) == ("bfloat16", "bert", ["BertModel"])


def test_a_model_without_token_types_round_trips(tmp_path):
    model = random_model(dataclasses.replace(CONFIG, segments=0), dtype=jnp.float32)
    jaxsmooth.save(model, tmp_path)
    assert_same_bits(jaxsmooth.load(tmp_path)[0], model)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_array_has_one_place_in_a_tensor(family):
    config = family_config(family, layers=2, mlp_bias=True, attn_bias=True, norm_bias=True)
    named = NAMES[family].entries
    expected = set(encoder_shapes(config, pooler="pooler.kernel" in {entry.path for entry in named}))
    assert {entry.path for entry in named} == expected
    places = [(entry.path, name, entry.part) for entry in named for name in entry.names(config) if name]
    assert len({place[1:] for place in places}) == len(places)


def test_shards_are_read_together(folder, model):
    shard(folder)
    assert_same_bits(jaxsmooth.load(folder)[0], model)


def with_prefix(t: Tensors) -> Tensors:
    return {f"bert.{name}": tensor for name, tensor in t.items()}


def with_tensorflow_names(t: Tensors) -> Tensors:
    new = (".LayerNorm.weight", ".LayerNorm.bias")
    old = (".LayerNorm.gamma", ".LayerNorm.beta")
    return {name.replace(new[0], old[0]).replace(new[1], old[1]): tensor for name, tensor in t.items()}


def with_heads_and_buffer(t: Tensors) -> Tensors:
    extra = {
        "bert.embeddings.position_ids": np.arange(12)[None],
        "cls.predictions.bias": np.zeros(30, np.float32),
        "cls.seq_relationship.weight": np.full((2, 12), np.nan, np.float32),
        "classifier.weight": np.zeros((3, 12), np.float32),
        "qa_outputs.bias": np.zeros(2, np.float32),
    }
    return with_prefix(t) | extra


@pytest.mark.parametrize("change", [with_prefix, with_tensorflow_names, with_heads_and_buffer])
def test_other_names_mean_the_same_model(change, folder, model):
    rewrite(folder, change)
    assert_same_bits(jaxsmooth.load(folder)[0], model)


def test_without_pooler_there_is_none(folder, model):
    rewrite(folder, lambda t: {name: tensor for name, tensor in t.items() if not name.startswith("pooler")})
    loaded, _ = jaxsmooth.load(folder)
    assert loaded.pooler is None
    assert_same_bits(loaded, dataclasses.replace(model, pooler=None))


@pytest.mark.parametrize("stored", [np.float16, ml_dtypes.bfloat16, np.float64])
@pytest.mark.parametrize("x64", [False, True])
def test_other_float_types_are_converted(stored, x64, folder, model):
    rewrite(folder, lambda t: {name: tensor.astype(stored) for name, tensor in t.items()})
    with jax.enable_x64(x64):
        loaded, _ = jaxsmooth.load(folder)
    assert_same_bits(
        loaded, jax.tree.map(lambda a: jnp.asarray(np.asarray(a).astype(stored).astype(np.float32)), model)
    )


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_the_asked_for_dtype_is_the_models(name, folder, model):
    loaded, _ = jaxsmooth.load(folder, dtype=name)
    expected = jax.tree.map(lambda a: a.astype(name), model)
    assert_same_bits(loaded, expected)
    assert jaxsmooth.encode(loaded, random_batch())[0].dtype == name


def test_tiny_is_always_there_and_always_the_same():
    first, tokenizer = jaxsmooth.load("tiny")
    assert first.config == tokenizer.config == TINY
    with jax.enable_x64(False):
        assert_same_bits(jaxsmooth.load("tiny")[0], first)
    for dtype in ("float64", "bfloat16"):
        other, _ = jaxsmooth.load("tiny", dtype=dtype)
        assert_same_bits(other, jax.tree.map(lambda a, dtype=dtype: a.astype(dtype), first))


def test_a_directory_wins_over_a_name(folder, model, monkeypatch):
    monkeypatch.chdir(folder.parent)
    folder.rename(folder.parent / "minilm-l6")
    assert_same_bits(jaxsmooth.load("minilm-l6")[0], model)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("No space left on device")])
def test_an_interrupted_save_leaves_the_old_files(error, folder, model, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def half_written(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise error

    monkeypatch.setattr(safetensors.numpy, "save_file", half_written)
    with pytest.raises((KeyboardInterrupt, OSError)):
        jaxsmooth.save(random_model(seed=9, dtype=jnp.float32), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    monkeypatch.undo()
    assert_same_bits(jaxsmooth.load(folder)[0], model)


def test_files_appear_whole_and_by_renaming(folder, monkeypatch):
    renamed = []

    def replace(source, target):
        renamed.append(Path(target).name)
        assert Path(source).stat().st_dev == folder.stat().st_dev  # a rename across devices would be a copy
        os.rename(source, target)

    monkeypatch.setattr(os, "replace", replace)
    new = random_model(seed=9, dtype=jnp.float32)
    jaxsmooth.save(new, folder)
    assert sorted(renamed) == ["README.md", "config.json", WEIGHTS]
    assert_same_bits(jaxsmooth.load(folder)[0], new)


def test_saving_over_a_file_is_an_os_error(tmp_path, model):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="file"):
        jaxsmooth.save(model, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_save_interrupted_between_its_files_leaves_nothing_that_loads(folder, monkeypatch):
    def replace(source, target):
        if Path(target).name == "config.json":
            raise KeyboardInterrupt
        os.rename(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        jaxsmooth.save(random_model(seed=9, dtype=jnp.float32), folder)
    with pytest.raises(ConfigError, match=r"config\.json does not exist"):
        jaxsmooth.load(folder)
