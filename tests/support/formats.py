"""Small weight files of every format, written by hand where the format's own library is not to be had, and broken.

All hold the same model: the frozen one of `SOURCE`, under Hugging Face's names.
"""

import dataclasses
import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import jaxsmooth
from jaxsmooth.errors import CheckpointError
from support.limits import limits
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


def refused(folder: Path, files: dict[str, bytes], message: str) -> None:
    """Loading a model directory of these weights is refused, in little time and memory, with that message."""
    write(folder, files)
    with limits(), pytest.raises(CheckpointError, match=message):
        jaxsmooth.load(folder)
