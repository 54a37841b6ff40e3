"""Checkpoints: what is written is read back bit for bit, and what is wrong is refused by name."""

import dataclasses
import json
import os
import struct
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from helpers_models import CONFIG, random_batch, random_model
from make_frozen import FROZEN, RANDOM
from safetensors.numpy import load_file, save_file

import jaxsmooth
from jaxsmooth.checkpoint import IGNORED, INDEX, NAMES, TINY, WEIGHTS
from jaxsmooth.errors import AssetError, CheckpointError, ConfigError

QUERY = "encoder.layer.1.attention.self.query.weight"
Tensors = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def model() -> jaxsmooth.Encoder:
    return random_model(dtype=jnp.float32)


@pytest.fixture
def folder(model, tmp_path) -> Path:
    """A good checkpoint, for a test to damage."""
    jaxsmooth.save(model, tmp_path)
    return tmp_path


def assert_same_bits(ours: jaxsmooth.Encoder, theirs: jaxsmooth.Encoder) -> None:
    assert ours.config == theirs.config
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def rewrite(folder: Path, change: Callable[[Tensors], Tensors | None]) -> None:
    """Replace the weights by `change(weights)`, or by the weights as it changed them."""
    tensors = load_file(folder / WEIGHTS)
    changed = change(tensors)
    save_file(tensors if changed is None else changed, folder / WEIGHTS)


def shard(folder: Path, count: int = 3) -> list[str]:
    """Split the weights into shards with an index, as transformers does; returns the shards' names."""
    tensors = load_file(folder / WEIGHTS)
    shards = [f"model-{k + 1:05}-of-{count:05}.safetensors" for k in range(count)]
    for k, name in enumerate(shards):
        save_file({key: tensors[key] for key in sorted(tensors)[k::count]}, folder / name)
    weight_map = {key: shards[place % count] for place, key in enumerate(sorted(tensors))}
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": weight_map}))
    (folder / WEIGHTS).unlink()
    return shards


def set_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


@pytest.mark.parametrize("pooler", [True, False])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.bfloat16])
def test_save_and_load_give_the_same_bits(dtype, pooler, tmp_path):
    model = random_model(dtype=dtype, pooler=pooler)
    jaxsmooth.save(model, tmp_path / "new" / "folder")
    loaded, tokenizer = jaxsmooth.load(tmp_path / "new" / "folder", dtype=dtype)
    assert_same_bits(loaded, model)
    assert tokenizer is None
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == ["config.json", WEIGHTS]


@pytest.mark.parametrize("name", RANDOM)
def test_a_directory_of_transformers_is_saved_again_bit_for_bit(name, tmp_path):
    model, _ = jaxsmooth.load(FROZEN / name)
    jaxsmooth.save(model, tmp_path)
    theirs = {key.removeprefix("bert."): tensor for key, tensor in load_file(FROZEN / name / WEIGHTS).items()}
    ours = load_file(tmp_path / WEIGHTS)
    assert set(ours) == {key for key in theirs if not key.startswith(IGNORED)}
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


def test_every_array_has_a_tensor_and_every_tensor_one_array(model):
    paths = ["".join(map(str, path)).strip(".") for path, _ in jax.tree_util.tree_leaves_with_path(model)]
    entries = NAMES["bert"]
    assert sorted(entry.path for entry in entries) == sorted(paths)
    assert len({entry.tensor for entry in entries}) == len(entries)


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


def drop(t: Tensors) -> None:
    del t[QUERY]


def add(t: Tensors) -> None:
    t["encoder.layer.3.output.dense.bias"] = np.zeros(12, np.float32)


def transpose(t: Tensors) -> None:
    name = "encoder.layer.1.intermediate.dense.weight"
    t[name] = np.ascontiguousarray(t[name].T)


def widen(t: Tensors) -> None:
    t["embeddings.word_embeddings.weight"] = np.zeros((31, 12), np.float32)


def make_integer(t: Tensors) -> None:
    t[QUERY] = t[QUERY].astype(np.int64)


def put(value: float) -> Callable[[Tensors], None]:
    def change(t: Tensors) -> None:
        t[QUERY][3, 4] = value

    return change


def both_names(t: Tensors) -> None:
    t["bert." + QUERY] = t[QUERY]


def half_a_pooler(t: Tensors) -> None:
    del t["pooler.dense.bias"]


BAD_TENSORS = {
    "missing": (drop, f"tensor '{QUERY}' is missing"),
    "half a pooler": (half_a_pooler, "tensor 'pooler.dense.bias' is missing"),
    "unexpected": (add, "tensor 'encoder.layer.3.output.dense.bias' is unexpected"),
    "transposed": (
        transpose,
        r"'encoder.layer.1.intermediate.dense.weight' must have shape \(20, 12\); got \(12, 20\)",
    ),
    "other vocabulary": (widen, r"word_embeddings.weight' must have shape \(30, 12\); got \(31, 12\)"),
    "integers": (make_integer, f"tensor '{QUERY}' must be one of .*'F32'.*; got I64"),
    "not a number": (put(np.nan), f"tensor '{QUERY}' holds values that are not finite"),
    "infinite": (put(-np.inf), f"tensor '{QUERY}' holds values that are not finite"),
    "twice": (both_names, f"tensor '(bert.)?{QUERY}' occurs twice"),
}


@pytest.mark.parametrize("case", BAD_TENSORS)
def test_a_bad_tensor_is_refused_by_name_and_file(case, folder):
    change, message = BAD_TENSORS[case]
    rewrite(folder, change)
    with pytest.raises(CheckpointError, match=message) as refusal:
        jaxsmooth.load(folder)
    assert str(folder / WEIGHTS) in str(refusal.value)


def test_only_the_first_of_many_missing_tensors_is_named(folder):
    rewrite(folder, lambda t: {name: tensor for name, tensor in t.items() if "layer.2" not in name})
    with pytest.raises(CheckpointError, match=r"encoder.layer.2\S*' is missing, and 15 more"):
        jaxsmooth.load(folder)


def test_shapes_are_checked_before_values_are_read(folder):
    rewrite(folder, lambda t: (put(np.nan)(t), widen(t))[0])
    with pytest.raises(CheckpointError, match="must have shape"):
        jaxsmooth.load(folder)


def corrupt_header(content: bytes) -> bytes:
    return content[:8] + b"{" * 40 + content[48:]


def long_header(content: bytes) -> bytes:
    return struct.pack("<Q", 2**62) + content[8:]


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: c[:-10],
        lambda c: c[:100],
        lambda c: c[:5],
        lambda c: b"",
        corrupt_header,
        long_header,
        lambda c: c + b"x",
    ],
    ids=["cut at the end", "cut in the header", "cut in the length", "empty", "corrupt", "long", "too long"],
)
def test_a_damaged_file_is_refused_by_name(damage, folder):
    (folder / WEIGHTS).write_bytes(damage((folder / WEIGHTS).read_bytes()))
    with pytest.raises(CheckpointError, match=f"{WEIGHTS} is not a whole safetensors file: .* Download it again"):
        jaxsmooth.load(folder)


def test_a_damaged_shard_is_refused_by_name(folder):
    _, second, _ = shard(folder)
    (folder / second).write_bytes((folder / second).read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=f"{second} is not a whole safetensors file"):
        jaxsmooth.load(folder)


def test_a_missing_shard_is_refused_by_name(folder):
    _, second, third = shard(folder)
    (folder / second).unlink()
    with pytest.raises(CheckpointError, match=f"{second} is missing, though {INDEX} names it"):
        jaxsmooth.load(folder)
    (folder / third).unlink()
    with pytest.raises(CheckpointError, match=f"{second} is missing.*and 1 more"):
        jaxsmooth.load(folder)


def test_a_tensor_in_two_shards_is_refused(folder):
    first, second, _ = shard(folder)
    tensors, others = load_file(folder / first), load_file(folder / second)
    name = sorted(others)[0]
    save_file(tensors | {name: others[name]}, folder / first)
    with pytest.raises(CheckpointError, match=f"{second}: tensor '{name}' occurs twice, first as .*{first}"):
        jaxsmooth.load(folder)


@pytest.mark.parametrize("where", ["../{}", "{parent}/{}", "inner/{}", "..\\{}", "./../{}", ".."])
def test_an_index_cannot_leave_its_folder(where, folder, tmp_path_factory):
    # The stranger exists and is a good file: only where it lies is wrong.
    content = (folder / WEIGHTS).read_bytes()
    for place in (folder.parent / "stranger.safetensors", folder / "inner" / "stranger.safetensors"):
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(content)
    stranger = where.format("stranger.safetensors", parent=folder.parent)
    (folder / INDEX).write_text(json.dumps({"weight_map": {QUERY: stranger}}))
    (folder / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=r"must name files of its own directory|is missing"):
        jaxsmooth.load(folder)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": {"a": 3}}', "\xff", "[" * 99999],
)
def test_a_bad_index_is_refused_by_name(content, folder):
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_bytes(content.encode("latin-1"))
    with pytest.raises(CheckpointError, match=INDEX):
        jaxsmooth.load(folder)


def test_a_pickle_alone_is_refused_with_the_way_out(folder):
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin, a pickle, which is not read.*safe_serialization"):
        jaxsmooth.load(folder)


def test_an_unsupported_family_is_refused(folder):
    set_config(folder, model_type="roberta")
    with pytest.raises(ConfigError, match=r"config.json: model_type must be one of .*got 'roberta'"):
        jaxsmooth.load(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 2**31 - 1},
        {"hidden_size": 2**31 - 1, "num_attention_heads": 1},
        {"vocab_size": 2**31 - 1},
        {"num_hidden_layers": 4},
        {"num_hidden_layers": 2},
        {"type_vocab_size": 3},
    ],
    ids=str,
)
def test_weights_of_another_config_are_refused_at_once(changes, folder):
    set_config(folder, **changes)
    started = time.perf_counter()
    with pytest.raises(CheckpointError, match=WEIGHTS):
        jaxsmooth.load(folder)
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("name", ["no-such-model", "no/such/model", "/no/such/folder", "./relative/path", "a\0b"])
def test_an_unknown_name_is_answered_with_what_there_is(name):
    with pytest.raises(CheckpointError, match=r"no directory here, no model asset \(tiny, minilm-l6.*hub id"):
        jaxsmooth.load(name)


def test_a_text_asset_is_no_model():
    with pytest.raises(CheckpointError, match=r"'movie-reviews' is a text asset.* --data movie-reviews"):
        jaxsmooth.load("movie-reviews")


def test_a_hub_id_without_huggingface_hub_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"'some/model' .*pip install 'jaxsmooth\[hub\]'"):
        jaxsmooth.load("some/model")


def test_a_hub_id_is_downloaded_by_huggingface_hub(folder, model, monkeypatch):
    asked = []

    def snapshot_download(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(folder)

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=snapshot_download))
    assert_same_bits(jaxsmooth.load("some/model")[0], model)
    ((name, patterns),) = asked
    assert name == "some/model"
    assert {"config.json", "*.safetensors", INDEX} <= set(patterns)
    assert not any("bin" in pattern or pattern == "*" for pattern in patterns)


@pytest.mark.parametrize("error", [OSError("no route to host"), ValueError("Repo id must be in the form")])
def test_a_failed_download_says_what_to_do(error, monkeypatch):
    def snapshot_download(name, allow_patterns):
        raise error

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=snapshot_download))
    with pytest.raises(AssetError, match=f"cannot fetch 'some/model' from the hub: {error}. Offline, name a local"):
        jaxsmooth.load("some/model")


@pytest.mark.parametrize("name", ["folder", "tiny"])
def test_float64_needs_x64(name, folder):
    with jax.enable_x64(False), pytest.raises(CheckpointError, match=r"float64 needs jax\.config\.update"):
        jaxsmooth.load(folder if name == "folder" else name, dtype="float64")


@pytest.mark.parametrize("dtype", ["float16", "int32", "complex64"])
def test_other_dtypes_are_refused(dtype, folder):
    with pytest.raises(CheckpointError, match=f"float32, float64 or bfloat16; got {dtype}"):
        jaxsmooth.load(folder, dtype=dtype)


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
    assert sorted(renamed) == ["config.json", WEIGHTS]
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
