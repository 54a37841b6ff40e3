"""Weight files that are damaged or hostile: one error that names the file, nothing run, nothing filled."""

import dataclasses
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.formats import (
    FILES,
    BundleDraft,
    TorchDraft,
    bundle_draft,
    crc32c,
    entry,
    masked,
    onnx_model,
    torch_draft,
    varint,
    write,
)
from support.limits import limits

import jaxsmooth
from jaxsmooth.checkpoints.formats import open_weights
from jaxsmooth.checkpoints.formats.snappy import decompress
from jaxsmooth.checkpoints.formats.torch_pickle import SIZE_LIMIT, read_state_dict
from jaxsmooth.errors import CheckpointError

FILE = "pytorch_model.bin"
GAMMA = b"bert/embeddings/LayerNorm/gamma"


def refused(folder: Path, files: dict[str, bytes], message: str) -> None:
    write(folder, files)
    with limits(), pytest.raises(CheckpointError, match=message):
        jaxsmooth.load(folder)


@pytest.mark.parametrize("form", FILES)
def test_every_truncation_is_refused_by_the_files_name(form, tmp_path):
    files = FILES[form]()
    name = next(iter(files))
    content = files[name]
    for end in sorted({0, 1, 40, *range(100, len(content), len(content) // 25), len(content) - 1}):
        refused(tmp_path, files | {name: content[:end]}, name)


def test_a_shard_cut_short_or_damaged_is_refused(tmp_path):
    files = bundle_draft().pack()
    shard = "model.data-00000-of-00001"
    refused(tmp_path, files | {shard: files[shard][:-1]}, f"{shard}: .*global_step.* the file has .*cut short")
    flipped = bytes([files[shard][0] ^ 1]) + files[shard][1:]
    refused(tmp_path, files | {shard: flipped}, f"{shard}: tensor .* has a wrong checksum")
    (tmp_path / shard).unlink()
    with pytest.raises(CheckpointError, match=f"{shard} is missing, though model.index names it"):
        jaxsmooth.load(tmp_path)


# Hostile pickles


class Call:
    """Pickles to a call of anything."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def hostile(folder: Path) -> dict[str, bytes]:
    """Pickles that would create a file in `folder`, or worse, if anything in them were run."""
    touch = f"touch {folder}/ran"
    code = f"open({str(folder / 'ran')!r}, 'w')"
    calls = {
        "os.system": Call(os.system, touch),
        "eval": Call(eval, code),
        "exec": Call(exec, code),
        "in a dict": {"bert.pooler.dense.bias": Call(os.system, touch)},
        "as a key": {Call(os.system, touch): 1},
        "as an attribute": [Call(eval, code)],
        "numpy": np.zeros(3),
        "a class": CheckpointError("x"),
    }
    dumped = {f"{name}, protocol {p}": pickle.dumps(c, p) for name, c in calls.items() for p in (0, 2, 4, 5)}
    by_hand = {
        "INST": b"(S'" + touch.encode() + b"'\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nX" + struct.pack("<I", len(touch)) + touch.encode() + b"o.",
        "NEWOBJ": b"\x80\x02ccollections\nOrderedDict\n)\x81.",
        "torch's own loader": b"\x80\x02ctorch\nload\n(X\x03\0\0\0abctR.",
        "a dotted name": b"\x80\x04\x8c\x0btorch._utils\x8c\x06os.system\x93.",
        "an extension": b"\x80\x02\x82\x01.",
    }
    return dumped | by_hand


def test_no_pickle_runs_anything(tmp_path):
    for name, raw in hostile(tmp_path).items():
        draft = dataclasses.replace(torch_draft(), pickle=raw)
        refused(tmp_path, {FILE: draft.pack()}, FILE)
        assert not (tmp_path / "ran").exists(), name


def test_the_hostile_pickles_do_run_where_they_may(tmp_path):
    # The test above means something: Python's own unpickler does what these ask for.
    pickle.loads(hostile(tmp_path)["os.system, protocol 2"])
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "whole pickle"),
        (b".", "whole pickle"),
        (b"\x80\x02N.", "must hold a dict of tensors; got NoneType"),
        (b"\x80\x02}.", "tensor 'embeddings.LayerNorm.bias' is missing|declares"),
        (b"\x80\x02}X\x01\0\0\0aK\x01s.", "must hold tensors by name; got int under 'a'"),
        (b"\x80\x02}K\x01K\x01s.", "got int under 1"),
        (b"\x80\x02}q\0X\x01\0\0\0ah\0s.", "got dict under 'a'"),  # a dict in itself
        (b"\x80\x02]q\0h\0a.", "must hold a dict of tensors; got list"),  # a list in itself
        (b"\x80\x02}]K\x01s.", "set that are none of a dict"),  # a list as a key
        (b"\x80\x02}(K\x01u.", "set that are none of a dict"),
        (b"\x80\x02(lp0\n.", "opcode LIST"),
        (b"\x80\x02Kq.", "whole pickle|dict of tensors"),
        (b"\x80\x02N" + b"r\xff\xff\xff\x7f" + b".", "got NoneType"),  # a memo of two billion places
        (b"\x80\x02N" + b"j\xff\xff\xff\x7f" + b".", "whole pickle"),
        (b"\x80\x02X\xff\xff\xff\x7fabc.", "whole pickle"),  # two billion characters
        (b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"abc.", "whole pickle|opcode"),
        (b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b".", "got tuple"),
        (b"\x80\x02" + b"]" + b"\x85" * 100_000 + b".", "got tuple"),
        (b"\x80\x02(X\x01\0\0\0atQ.", "whole pickle"),  # a persistent id of nothing
        (b"\x80\x02NQ.", "persistent id is no tuple"),
        (b"\x80\x02NNR.", "called in a way"),
        (b"\x80\x02NNb.", "attributes are set"),
        (b"\x80\x02ccollections\nOrderedDict\n.", "got the name 'collections.OrderedDict'"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(NK\0))\x89NtR.", "has no storage, or no shape"),
        (b"I" + b"9" * 10_000 + b"\n.", "whole pickle"),
    ],
)
def test_pickles_of_anything_else_are_refused(raw, message, tmp_path):
    refused(tmp_path, {FILE: dataclasses.replace(torch_draft(), pickle=raw).pack()}, f"{FILE}.*({message})")


def test_a_pickle_without_end_is_refused(tmp_path):
    with limits(), pytest.raises(CheckpointError, match=f"at most {SIZE_LIMIT} bytes"):
        read_state_dict(b"]" * (SIZE_LIMIT + 1), FILE)


def tensors_that_share(draft: TorchDraft) -> None:
    words = draft.row("word_embeddings.weight")
    draft.rows += [dataclasses.replace(words, name=f"cls.{k}") for k in range(100)]


def set_row(**changes: object) -> Callable[[TorchDraft], None]:
    def change(draft: TorchDraft) -> None:
        for field, value in changes.items():
            setattr(draft.row("word_embeddings.weight"), field, value)

    return change


WRONG_TORCH: dict[str, tuple[Callable[[TorchDraft], object], str]] = {
    "huge": (set_row(shape=(2**40, 2**20), numbers=2**60), "must lie in a member"),
    "huge view": (set_row(shape=(2**31, 20), strides=(0, 1)), "reaches beyond its storage"),
    "far strides": (set_row(strides=(2**40, 1)), "reaches beyond its storage"),
    "offset": (set_row(offset=1), "reaches beyond its storage"),
    "negative stride": (set_row(strides=(-20, 1)), "has no storage, or no shape"),
    "negative offset": (set_row(offset=-1), "has no storage, or no shape"),
    "one stride": (set_row(strides=(1,)), "has no storage, or no shape"),
    "many axes": (set_row(shape=(1,) * 999, strides=(1,) * 999), "has no storage, or no shape"),
    "more numbers": (set_row(numbers=961), "must lie in a member data/.* of 3844 bytes; got 3840"),
    "no member": (set_row(key="nowhere"), "must lie in a member data/nowhere of .*; got none"),
    "a path": (set_row(key="../../../etc/passwd"), r"must lie in a member data/\.\./\.\./\.\./etc/passwd"),
    "another type": (set_row(storage="torch\nQInt8Storage"), "asks for 'torch.QInt8Storage', which no tensor needs"),
    "sharing": (tensors_that_share, "they share storages"),
    "two pickles": (lambda d: d.extra.update({"other/data.pkl": b"."}), r"must hold one data.pkl"),
    "no pickle": (lambda d: setattr(d, "root", "a/b"), r"must hold one data.pkl"),
    "compressed": (lambda d: setattr(d, "compression", zipfile.ZIP_DEFLATED), "is compressed, which torch.save never"),
    "big-endian": (
        lambda d: d.extra.update({"archive/byteorder": b"big"}),
        "little-endian numbers; got byteorder b'big'",
    ),
    "not finite": (
        lambda d: d.data.update({d.row("word_embeddings.weight").key: bytes(3836) + b"\0\0\x80\x7f"}),
        "word_embeddings.weight' holds values that are not finite",
    ),
}


@pytest.mark.parametrize("case", WRONG_TORCH)
def test_a_wrong_torch_file_is_refused_by_name(case, tmp_path):
    change, message = WRONG_TORCH[case]
    draft = torch_draft()
    change(draft)
    refused(tmp_path, {FILE: draft.pack()}, f"{FILE}.*{message}")


def test_nothing_is_written_whatever_the_members_are_called(tmp_path):
    draft = torch_draft()
    draft.extra = {"../escaped": b"x", "/escaped": b"x", "archive/data/../../escaped": b"x"}
    inside = tmp_path / "inside"
    inside.mkdir()
    open_weights(write(inside, {FILE: draft.pack()}))
    assert not list(tmp_path.glob("escaped"))


# Wrong checkpoints of TensorFlow


def set_entry(name: bytes = GAMMA, **changes: object) -> Callable[[BundleDraft], None]:
    good: dict = {"kind": 1, "shape": (20,), "offset": 80, "size": 80, "crc": bytes(4)}
    return lambda draft: draft.entries.update({name: entry(**(good | changes))})  # type: ignore[arg-type]


WRONG_BUNDLE: dict[str, tuple[Callable[[BundleDraft], object], str]] = {
    "no header": (lambda d: d.entries.pop(b""), "whole index"),
    "no shards": (lambda d: d.entries.update({b"": b"\x08\x00"}), "0 shards"),
    "many shards": (lambda d: d.entries.update({b"": b"\x08" + varint(2**40)}), f"{2**40} shards"),
    "big-endian": (lambda d: d.entries.update({b"": b"\x08\x01\x10\x01"}), "big-endian numbers"),
    "another shard": (set_entry(shard=1), "shard 1, of 1"),
    "far shard": (set_entry(shard=2**60), f"shard {2**60}, of 1"),
    "huge": (set_entry(shape=(2**40, 2**20)), "must have .* bytes; got 80"),
    "negative": (set_entry(shape=(2**64 - 1,)), "must have .* bytes; got 80"),
    "many axes": (set_entry(shape=(1,) * 999), "must have -1 bytes"),
    "beyond": (set_entry(offset=2**62), "the file has .*cut short"),
    "checksum": (set_entry(), "has a wrong checksum"),
    "a string": (set_entry(kind=7), "must be one of .*; got TensorFlow's type 7"),
    "slices": (lambda d: d.entries.update({GAMMA: d.entries[GAMMA] + b"\x3a\x00"}), "is cut into slices"),
    "another model": (lambda d: d.entries.update({b"bert/extra/kernel": d.entries[GAMMA]}), "its tensors would fill"),
    "not utf-8": (lambda d: d.entries.update({b"\xff": d.entries[GAMMA]}), "whole index.*utf-8"),
    "a message for a number": (lambda d: d.entries.update({GAMMA: b"\x0a\x00"}), "protobuf field 1 is no number"),
    "a number for a message": (lambda d: d.entries.update({GAMMA: b"\x10\x01"}), "protobuf field 2 is no message"),
    "a group": (lambda d: d.entries.update({GAMMA: b"\x0b"}), "wire type 3"),
    "cut short": (lambda d: d.entries.update({GAMMA: b"\x12\x09"}), "is cut short"),
    "no end": (lambda d: d.entries.update({GAMMA: b"\x08" + b"\xff" * 12}), "more than 64 bits"),
}


@pytest.mark.parametrize("case", WRONG_BUNDLE)
def test_a_wrong_checkpoint_is_refused_by_name(case, tmp_path):
    change, message = WRONG_BUNDLE[case]
    draft = bundle_draft()
    change(draft)
    refused(tmp_path, draft.pack(), f"model.(index|data).*{message}")


def test_a_block_packed_in_an_unknown_way_is_refused(tmp_path):
    files = bundle_draft().pack()
    content = files["model.index"]
    end = content.index(b"\0\0\0\0\1\0\0\0") + 8  # of the first block: one restart, at 0
    changed = content[:end] + b"\2" + masked(crc32c(content[:end] + b"\2")) + content[end + 5 :]
    refused(tmp_path, files | {"model.index": changed}, "a block packed in way 2")


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\xff" * 11,
        varint(2**40),
        varint(5) + b"\x10abc",  # a literal cut short
        varint(2) + b"\x10abcde",  # longer than it says
        varint(9) + b"\x10abcde",  # shorter
        varint(9) + b"\x10abcde\x01\x06",  # a copy from before the start
        varint(9) + b"\x10abcde\x01\x00",  # a copy from nowhere
        varint(9) + b"\x10abcde\x02",
        varint(9) + b"\xfc\xff\xff\xff\xff",
    ],
)
def test_wrong_snappy_blocks_are_refused(packed):
    with limits(), pytest.raises(ValueError, match=r"block|copy|number"):
        decompress(packed, 2**20)


# Wrong graphs


def rename(graph, old: str, new: str) -> None:
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]


def external(graph) -> None:
    tensor = graph.initializer[0]
    tensor.data_location = 1
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value="../../../etc/passwd")


def twice(graph) -> None:
    graph.initializer.append(graph.initializer[3])


def same_bias(graph) -> None:
    adds = [node for node in graph.node if node.op_type == "Add"]
    (bias,) = (name for name in adds[0].input if name.endswith("bias"))
    (other,) = (name for name in adds[1].input if name.endswith("bias"))
    adds[1].input[:] = [bias if name == other else name for name in adds[1].input]


def no_bias(graph) -> None:
    del graph.node[1]


def named_twice(graph) -> None:
    add = next(node for node in graph.node if node.op_type == "Add")
    (bias,) = (name for name in add.input if name.endswith("bias"))
    copy = graph.initializer.add()
    copy.CopyFrom(graph.initializer[0])
    copy.name = bias.removesuffix("bias") + "weight"


WRONG_ONNX: dict[str, tuple[Callable, str]] = {
    "external": (external, "lies in another file, which is not followed"),
    "twice": (twice, "occurs twice"),
    "same bias": (same_bias, "do not tell which matrix"),
    "no bias": (no_bias, "tensor '.*' is missing"),
    "named twice": (named_twice, "is there twice, as itself and in a product"),
    "quantised": (lambda g: setattr(g.node[0], "op_type", "MatMulInteger"), "quantised graph .MatMulInteger."),
    "type": (lambda g: setattr(g.initializer[0], "data_type", 8), "must be one of .*; got ONNX's type 8"),
    "negative": (lambda g: g.initializer[0].dims.__setitem__(0, -1), "has no shape that a parameter may have"),
    "huge": (lambda g: g.initializer[0].dims.__setitem__(0, 2**40), "has .* bytes"),
    "axes": (lambda g: g.initializer[0].dims.extend([1] * 99), "has no shape that a parameter may have"),
    "no values": (lambda g: g.initializer[0].ClearField("raw_data"), "cannot be read|has 0 bytes"),
}


@pytest.mark.parametrize("case", WRONG_ONNX)
def test_a_wrong_graph_is_refused_by_name(case, tmp_path):
    change, message = WRONG_ONNX[case]
    proto = onnx_model()
    change(proto.graph)
    refused(tmp_path, {"model.onnx": proto.SerializeToString()}, f"model.onnx.*({message})")
