"""Damaged checkpoints: `load` succeeds or raises the library's own errors; it never hangs, crashes or gorges."""

import json
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from support.formats import CONFIG, FILES
from support.limits import limits
from support.make_frozen import FROZEN
from support.mutation import (
    mutate_bytes,
    mutate_json,
    mutate_lines,
    mutate_numbers,
    mutate_pickle,
    mutate_safetensors,
)
from support.parity import VOCABULARY
from support.quantised import Draft

import jaxsmooth
from jaxsmooth.checkpoints.tensors import CheckpointWarning
from jaxsmooth.errors import JaxsmoothError

INDEX = "model.safetensors.index.json"


def checkpoint_files() -> dict[str, bytes]:
    """A small valid checkpoint: one weight file, both kinds of tokenizer file."""
    from tokenizers import BertWordPieceTokenizer

    vocab = "\n".join(VOCABULARY) + "\n"
    tokenizer = BertWordPieceTokenizer({word: i for i, word in enumerate(VOCABULARY)})
    source = FROZEN / "gelu-one-head"
    files = {name: (source / name).read_bytes() for name in ("config.json", "model.safetensors")}
    return files | {"vocab.txt": vocab.encode(), "tokenizer.json": tokenizer.to_str().encode()}


def sharded_files() -> dict[str, bytes]:
    """The same weights in two shards with an index."""
    files = checkpoint_files()
    tensors = load_file(FROZEN / "gelu-one-head" / "model.safetensors")
    names = sorted(tensors)
    index: dict = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": {}}
    with tempfile.TemporaryDirectory() as folder:
        for k, part in enumerate((names[::2], names[1::2])):
            shard = f"model-0000{k + 1}-of-00002.safetensors"
            save_file({name: tensors[name] for name in part}, f"{folder}/{shard}")
            files[shard] = Path(folder, shard).read_bytes()
            index["weight_map"] |= dict.fromkeys(part, shard)
    del files["model.safetensors"]
    return files | {INDEX: json.dumps(index).encode()}


WHOLE, SHARDED, PACKED = checkpoint_files(), sharded_files(), {"small-q4.bin": Draft().pack()}
TORCH, GRAPH = ({"config.json": CONFIG, **FILES[form]()} for form in ("torch", "ONNX"))
TARGETS: dict[str, tuple[dict[str, bytes], str, tuple[Callable[[bytes, Random], bytes], ...]]] = {
    "config": (WHOLE, "config.json", (mutate_json, mutate_json, mutate_bytes)),
    "weights": (WHOLE, "model.safetensors", (mutate_safetensors, mutate_safetensors, mutate_bytes)),
    "index": (SHARDED, INDEX, (mutate_json, mutate_json, mutate_bytes)),
    "tokenizer": (WHOLE, "tokenizer.json", (mutate_json, mutate_json, mutate_bytes)),
    "vocabulary": (
        {k: v for k, v in WHOLE.items() if k != "tokenizer.json"},
        "vocab.txt",
        (mutate_lines, mutate_bytes),
    ),
    "4-bit": (PACKED, "small-q4.bin", (mutate_numbers, mutate_numbers, mutate_bytes)),
    "torch": (TORCH, "pytorch_model.bin", (mutate_pickle, mutate_pickle, mutate_bytes)),
    "ONNX": (GRAPH, "model.onnx", (mutate_numbers, mutate_bytes)),
}


def write(folder: str, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        Path(folder, name).write_bytes(content)
    return Path(folder)


def load_and_tokenise(directory: Path) -> bool:
    """Whether the checkpoint was accepted; anything but a JaxsmoothError propagates."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", CheckpointWarning
            )  # a tensor whose name is damaged is none of the encoder's
            _, tokenizer = jaxsmooth.load(directory)
        if tokenizer is not None:
            tokenizer(["a bad cab", ""])
    except JaxsmoothError:
        return False
    return True


def check_damage(target: str, rnd: Random) -> None:
    files, name, mutations = TARGETS[target]
    damaged = rnd.choice(mutations)(files[name], rnd)
    with tempfile.TemporaryDirectory() as folder:
        directory = write(folder, files | {name: damaged})
        with limits():
            load_and_tokenise(directory)


RANDOMS = st.randoms(note_method_calls=False, use_true_random=False)


@pytest.mark.parametrize("cases", [80, pytest.param(4000, marks=pytest.mark.long)])
@pytest.mark.parametrize("target", TARGETS)
def test_damaged_checkpoints_are_refused_cleanly(target, cases):
    few = settings(max_examples=cases, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)

    @settings(few, derandomize=cases <= 80)
    @given(rnd=RANDOMS)
    def check(rnd: Random) -> None:
        check_damage(target, rnd)

    check()


GOOD = {"whole": WHOLE, "sharded": SHARDED, "vocabulary": TARGETS["vocabulary"][0], "4-bit": PACKED}


@pytest.mark.parametrize("files", GOOD.values(), ids=GOOD)
def test_the_undamaged_checkpoint_is_accepted(files, tmp_path):
    with limits():
        assert load_and_tokenise(write(str(tmp_path), files))


def set_config(**changes) -> bytes:
    return json.dumps(json.loads(WHOLE["config.json"]) | changes).encode()


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 2**31 - 1, "num_attention_heads": 1},
        {"vocab_size": 2**31 - 1},
        {"intermediate_size": 2**31 - 1},
        {"num_hidden_layers": 2**31 - 1},
        {"max_position_embeddings": 2**31 - 1},
        {"type_vocab_size": 2**31 - 1},
        {"hidden_size": 2**31},
        {"num_hidden_layers": -1},
        {"num_hidden_layers": 1.5},
        {"layer_norm_eps": "1e-12"},
    ],
    ids=str,
)
def test_absurd_sizes_are_refused_before_anything_is_allocated(changes, tmp_path):
    with limits(), pytest.raises(JaxsmoothError):
        jaxsmooth.load(write(str(tmp_path), WHOLE | {"config.json": set_config(**changes)}))


ODDITIES = ["empty", "directory", "no permission"]
# A dangling link is a missing file, and a missing tokenizer is allowed.
CASES = [(name, what) for name in ("config.json", "model.safetensors", "tokenizer.json") for what in ODDITIES]
CASES += [("config.json", "dangling link"), ("model.safetensors", "dangling link")]


@pytest.mark.parametrize(("name", "what"), CASES)
def test_files_that_are_not_files_are_refused(name, what, tmp_path):
    path = write(str(tmp_path), WHOLE) / name
    path.unlink()
    if what == "empty":
        path.write_bytes(b"")
    elif what == "directory":
        path.mkdir()
    elif what == "dangling link":
        path.symlink_to(tmp_path / "nowhere")
    else:
        path.write_bytes(WHOLE[name])
        path.chmod(0)
        if os.access(path, os.R_OK):
            pytest.skip("this user may read everything (root)")
    with limits(), pytest.raises(JaxsmoothError):
        jaxsmooth.load(tmp_path)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "every file"])
def test_missing_files_are_refused(missing, tmp_path):
    kept = {} if missing == "every file" else {name: c for name, c in WHOLE.items() if name != missing}
    with limits(), pytest.raises(JaxsmoothError):
        jaxsmooth.load(write(str(tmp_path), kept))
