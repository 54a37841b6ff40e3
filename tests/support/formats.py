"""Writes small weight files of every format, by hand where the format's own library is not to be had, and breaks them.

All hold the same model: the frozen one of `SOURCE`, under Hugging Face's names.
"""

import dataclasses
import functools
import io
import json
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from support.make_frozen import FROZEN

SOURCE = FROZEN / "gelu-one-head"
TENSORS: dict[str, np.ndarray] = load_file(SOURCE / "model.safetensors")
CONFIG = (SOURCE / "config.json").read_bytes()

# torch: a zip of a pickle and of raw numbers


@dataclasses.dataclass
class Row:
    """What the pickle says of one tensor, to be changed by a test."""

    name: str
    key: str
    numbers: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    storage: str = "torch\nFloatStorage"


@dataclasses.dataclass
class TorchDraft:
    """A `pytorch_model.bin` before it is packed."""

    rows: list[Row]
    data: dict[str, bytes]
    pickle: bytes | None = None  # instead of that of the rows
    root: str = "archive"
    extra: dict[str, bytes] = dataclasses.field(default_factory=dict)
    compression: int = zipfile.ZIP_STORED

    def pack(self) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", self.compression) as zipped:
            zipped.writestr(f"{self.root}/data.pkl", pickle_of(self.rows) if self.pickle is None else self.pickle)
            for key, raw in self.data.items():
                zipped.writestr(f"{self.root}/data/{key}", raw)
            for name, raw in self.extra.items():
                zipped.writestr(name, raw)
        return out.getvalue()

    def row(self, ending: str) -> Row:
        return next(row for row in self.rows if row.name.endswith(ending))


def torch_draft(prefix: str = "bert.") -> TorchDraft:
    """The model as `torch.save(model.state_dict(), ...)` writes it."""
    rows, data = [], {}
    for number, (name, array) in enumerate(TENSORS.items()):
        strides = tuple(stride // 4 for stride in np.ascontiguousarray(array).strides)
        rows.append(Row(prefix + name, str(number), array.size, array.shape, strides))
        data[str(number)] = array.astype("<f4").tobytes()
    data["ids"] = np.arange(16, dtype="<i8").tobytes()
    ids = Row(f"{prefix}embeddings.position_ids", "ids", 16, (1, 16), (16, 1), storage="torch\nLongStorage")
    return TorchDraft([ids, *rows], data)


def pickle_of(rows: list[Row]) -> bytes:
    """An ordered dict of tensors, in the opcodes of protocol 2."""
    ordered = b"ccollections\nOrderedDict\n)R"
    body = b"".join(_text(row.name) + _tensor(row) for row in rows)
    attributes = b"}" + _text("_metadata") + ordered + b"s"
    return b"\x80\x02" + ordered + b"q\x00(" + body + b"u" + attributes + b"b."


def _tensor(row: Row) -> bytes:
    identity = b"(" + _text("storage") + f"c{row.storage}\n".encode() + _text(row.key) + _text("cpu")
    identity += _integer(row.numbers) + b"tQ"
    view = _integer(row.offset) + _tuple(row.shape) + _tuple(row.strides)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + identity + view + b"\x89ccollections\nOrderedDict\n)RtR"


def _text(text: str) -> bytes:
    raw = text.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def _integer(value: int) -> bytes:
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def _tuple(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(_integer, values)) + b"t"


# TensorFlow: a LevelDB table of protobufs, and raw numbers

_SPECIAL_NAMES = ("word_embeddings", "position_embeddings", "token_type_embeddings")


def tensorflow_name(name: str) -> str:
    """The variable that google-research/bert keeps a tensor in."""
    name = re.sub(r"layer\.(\d+)", r"layer_\1", name)
    *scopes, module, last = name.split(".")
    if module in _SPECIAL_NAMES:
        return "/".join(["bert", *scopes, module])
    last = {"weight": "gamma", "bias": "beta"}[last] if module == "LayerNorm" else last.replace("weight", "kernel")
    return "/".join(["bert", *scopes, module, last])


@functools.cache
def crc32c(data: bytes) -> int:
    """The checksum, bit by bit; of the same tensors again and again."""
    register = 0xFFFFFFFF
    for octet in data:
        register ^= octet
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def masked(crc: int) -> bytes:
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def entry(kind: int, shape: tuple[int, ...], offset: int, size: int, crc: bytes, shard: int = 0) -> bytes:
    """A BundleEntryProto; like protobuf itself it leaves out zeros."""
    dimensions = b"".join(b"\x12" + varint(len(d)) + d for d in (b"\x08" + varint(n) if n else b"" for n in shape))
    out = b"\x08" + varint(kind) + b"\x12" + varint(len(dimensions)) + dimensions
    out += b"\x18" + varint(shard) if shard else b""
    out += b"\x20" + varint(offset) if offset else b""
    return out + (b"\x28" + varint(size) if size else b"") + b"\x35" + crc


@dataclasses.dataclass
class BundleDraft:
    """A checkpoint before it is packed: the entries of its index, header included, and the numbers."""

    entries: dict[bytes, bytes]
    data: bytes
    blocks: int = 2
    snappy: bool = False

    def pack(self) -> dict[str, bytes]:
        return {"model.index": self.index(), "model.data-00000-of-00001": self.data}

    def index(self) -> bytes:
        keys = sorted(self.entries)
        cut = -(-len(keys) // self.blocks)
        out, handles = b"", {}
        for start in range(0, len(keys), cut):
            part = keys[start : start + cut]
            raw = self._block({key: self.entries[key] for key in part})
            handles[part[-1]] = varint(len(out)) + varint(len(raw) - 5)
            out += raw
        index = self._block(handles)
        meta = self._block({})
        footer = varint(len(out) + len(index)) + varint(len(meta) - 5) + varint(len(out)) + varint(len(index) - 5)
        return out + index + meta + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)

    def _block(self, items: dict[bytes, bytes]) -> bytes:
        raw, before = b"", b""
        for key, value in items.items():
            shared = next((k for k, (a, b) in enumerate(zip(before, key, strict=False)) if a != b), len(before))
            raw += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
            before = key
        raw += struct.pack("<II", 0, 1)
        raw = (snappy(raw) + b"\1") if self.snappy else raw + b"\0"
        return raw + masked(crc32c(raw))


def bundle_draft() -> BundleDraft:
    entries, data = {b"": b"\x08\x01\x1a\x02\x08\x01"}, b""
    arrays: dict[str, np.ndarray] = {}
    for name, array in TENSORS.items():
        variable = tensorflow_name(name)
        arrays[variable] = (array.T if variable.endswith("kernel") else array).astype("<f4")
    arrays["global_step"] = np.array(7, "<i8")
    for variable, array in arrays.items():
        raw = array.tobytes()
        kind = 9 if array.dtype.kind == "i" else 1
        entries[variable.encode()] = entry(kind, array.shape, len(data), len(raw), masked(crc32c(raw)))
        data += raw
    return BundleDraft(entries, data)


def snappy(raw: bytes) -> bytes:
    """Pack with literals and copies of one, two and four bytes of offset, wherever four bytes occurred before."""
    out, place, literal, seen = varint(len(raw)), 0, 0, {}
    while place < len(raw):
        four = raw[place : place + 4]
        start = seen.get(four)
        seen[four] = place
        if start is None or len(four) < 4:
            place += 1
            continue
        size = 4
        while size < 60 and place + size < len(raw) and raw[start + size] == raw[place + size]:
            size += 1
        out += _literal(raw[literal:place]) + _copy(place - start, size)
        place = literal = place + size
    return out + _literal(raw[literal:])


def _literal(raw: bytes) -> bytes:
    if not raw:
        return b""
    size = len(raw) - 1
    if size < 60:
        return bytes([size << 2]) + raw
    return (
        bytes([61 << 2]) + struct.pack("<H", size) if size < 2**16 else bytes([63 << 2]) + struct.pack("<I", size)
    ) + raw


def _copy(offset: int, size: int) -> bytes:
    if size < 12 and offset < 2048:
        return bytes([offset >> 8 << 5 | size - 4 << 2 | 1, offset & 0xFF])
    if offset % 2 and offset < 2**16:
        return bytes([size - 1 << 2 | 2]) + struct.pack("<H", offset)
    return bytes([size - 1 << 2 | 3]) + struct.pack("<I", offset)


# ONNX: a graph whose matrices have lost their names


def onnx_model(prefix: str = "model.0.auto_model."):
    """An exported graph, as far as the weights go: tables and norms by name, matrices by the bias added to them."""
    from onnx import helper, numpy_helper

    initialisers, nodes = [], []
    for number, (name, array) in enumerate(TENSORS.items()):
        matrix = name.endswith("dense.weight") or (".self." in name and name.endswith("weight"))
        if not matrix or "pooler" in name:
            initialisers.append(numpy_helper.from_array(array, prefix + name))
            continue
        anonymous, product = f"onnx::MatMul_{number}", f"product{number}"
        initialisers.append(numpy_helper.from_array(np.ascontiguousarray(array.T), anonymous))
        bias = prefix + name.removesuffix("weight") + "bias"
        nodes.append(helper.make_node("MatMul", ["x", anonymous], [product]))
        added = [bias, product] if number % 2 else [product, bias]  # exporters write either
        nodes.append(helper.make_node("Add", added, [f"sum{number}"]))
    initialisers.append(numpy_helper.from_array(np.float32(2), "/attention/Constant_output_0"))
    return helper.make_model(helper.make_graph(nodes, "small", [], [], initialisers))


# All of them

FILES: dict[str, Callable[[], dict[str, bytes]]] = {
    "torch": lambda: {"pytorch_model.bin": torch_draft().pack()},
    "TensorFlow": lambda: bundle_draft().pack(),
    "TensorFlow, packed": lambda: dataclasses.replace(bundle_draft(), snappy=True, blocks=1).pack(),
    "ONNX": lambda: {"model.onnx": onnx_model().SerializeToString()},
}
"""Format -> the files of the model in it."""


def write(folder: Path, files: dict[str, bytes]) -> Path:
    """A model directory of these weights."""
    for name, content in {"config.json": CONFIG, **files}.items():
        (folder / name).write_bytes(content)
    return folder


def set_config(folder: Path, **changes: object) -> None:
    (folder / "config.json").write_text(json.dumps(json.loads(CONFIG) | changes))
