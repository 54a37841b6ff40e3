"""Checkpoints that are wrong: each is refused by the file's and the tensor's name."""

import fnmatch
import json
import os
import shutil
import struct
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.checkpoint import QUERY, Tensors, assert_same_bits, rewrite, set_config, shard
from support.formats import torch_draft, write
from support.models import random_model

import jaxsmooth
from jaxsmooth.checkpoints.tensors import INDEX, WEIGHTS
from jaxsmooth.errors import AssetError, CheckpointError, ConfigError


@pytest.fixture(scope="module")
def model() -> jaxsmooth.Encoder:
    return random_model(dtype=jnp.float32)


@pytest.fixture
def folder(model, tmp_path) -> Path:
    """A good checkpoint, for a test to damage."""
    jaxsmooth.save(model, tmp_path)
    return tmp_path


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
    t["bert." + QUERY] = t[QUERY] + 1


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


def test_numbers_too_large_for_the_dtype_asked_for_are_refused(folder):
    rewrite(folder, put(3.4e38))
    jaxsmooth.load(folder, check=False)
    with pytest.raises(CheckpointError, match=r"holds numbers too large for bfloat16"):
        jaxsmooth.load(folder, dtype="bfloat16")


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
    with pytest.raises(
        CheckpointError, match=f"{WEIGHTS} is (not a whole safetensors file: .*|empty.*) Download it again"
    ):
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
    save_file(tensors | {name: others[name] + 1}, folder / first)
    with pytest.raises(CheckpointError, match=f"{second}: tensor '{name}' occurs twice, .* first as .*{first}"):
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


def test_a_folder_without_weights_says_which_are_read(folder):
    (folder / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=r"holds no weights; .*model.safetensors, .*pytorch_model.bin"):
        jaxsmooth.load(folder)


def test_an_unsupported_family_is_refused(folder):
    set_config(folder, model_type="t5")
    with pytest.raises(ConfigError, match=r"config.json: model_type must be one of .*got 't5'"):
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
    with pytest.raises((CheckpointError, ConfigError), match=r"model\.safetensors|config\.json"):
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


class FakeHub:
    """A repository on the hub: `snapshot_download` copies what the patterns allow, as the real one does."""

    def __init__(self, repository, cache):
        self.repository, self.cache, self.asked = repository, cache, []

    def snapshot_download(self, name, allow_patterns):
        self.asked.append((name, allow_patterns))
        self.cache.mkdir(exist_ok=True)
        for file in self.repository.iterdir():
            if any(fnmatch.fnmatch(file.name, pattern) for pattern in allow_patterns):
                shutil.copy(file, self.cache)
        return str(self.cache)


@pytest.mark.compatibility(
    "tokenizer",
    "a hub id with special_tokens_map.json, added_tokens.json or SentencePiece files",
    "what the reader reads is fetched",
    was=1,
)
@pytest.mark.parametrize("layout", ["whole", "shards", "torch"])
def test_a_hub_id_is_downloaded_in_whatever_format_it_lies(layout, folder, model, tmp_path, monkeypatch):
    repository = tmp_path / "repository"
    shutil.copytree(folder, repository)
    expected = model
    if layout == "shards":
        shard(repository)
    if layout == "torch":
        (repository / WEIGHTS).unlink()
        write(repository, {"pytorch_model.bin": torch_draft().pack()})
        expected, _ = jaxsmooth.load(repository)
    else:
        (repository / "pytorch_model.bin").write_bytes(b"a second copy that nobody needs")
    (repository / "model.onnx").write_bytes(b"nor this")
    for name in ("special_tokens_map.json", "added_tokens.json", "sentencepiece.bpe.model", "vocab.txt"):
        (repository / name).write_text("{}" if name.endswith("json") else "[UNK]\n[CLS]\n[SEP]\n")
    hub = FakeHub(repository, tmp_path / "cache")
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert_same_bits(jaxsmooth.load("some/model")[0], expected)
    assert {name for name, _ in hub.asked} == {"some/model"}
    there = {file.name for file in hub.cache.iterdir()}
    assert there >= {"config.json", "special_tokens_map.json", "added_tokens.json", "sentencepiece.bpe.model"}
    assert "model.onnx" not in there
    assert ("pytorch_model.bin" in there) == (layout == "torch")
    assert len(hub.asked) == (2 if layout == "torch" else 1)


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


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises((CheckpointError, ConfigError), match="is a pipe or a device"):
        jaxsmooth.load(folder)
