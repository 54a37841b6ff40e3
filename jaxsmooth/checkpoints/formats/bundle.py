"""TensorFlow's checkpoint bundle: `NAME.index`, a table of protobufs, and `NAME.data-0000K-of-0000N`, the numbers.

Reference: tensorflow/core/protobuf/tensor_bundle.proto (BundleHeaderProto under the empty key, a BundleEntryProto
under every tensor's name), framework/tensor_shape.proto and framework/types.proto.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import CheckpointError
from .crc32c import masked_crc32c
from .snappy import read_varint
from .sstable import read_table
from .tensor import DTYPES

INDEX_LIMIT = 64 * 2**20
"""Bytes of an index: a thousand tensors have a hundred thousand."""
_SHARDS_LIMIT = 10_000

# DataType -> safetensors' name; the rest (strings, resources, complex and quantised numbers) hold no weights.
_TYPES = {1: "F32", 2: "F64", 3: "I32", 4: "U8", 5: "I16", 6: "I8", 9: "I64", 10: "BOOL", 14: "BF16", 19: "F16"}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Entry(NamedTuple):
    """Where the numbers of one tensor lie.

    Attributes:
      shard: the file.
      dtype: as `stored.DTYPES` spells it, or what TensorFlow numbers it.
      shape: as TensorFlow has it.
      offset: first byte in the shard.
      size: bytes.
      crc: masked CRC-32C of these bytes.
      sliced: whether the tensor is cut into pieces under keys of their own, which is not read.
    """

    shard: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int
    crc: int
    sliced: bool


def read_bundle(index: Path) -> dict[str, Entry]:
    """Every tensor of a checkpoint by TensorFlow's name.

    Args:
      index: the file `NAME.index`.

    Raises:
      CheckpointError: an index that is damaged, of a big-endian machine, or whose shards are not there.
    """
    try:
        if index.stat().st_size > INDEX_LIMIT:
            raise ValueError(f"more than {INDEX_LIMIT} bytes")
        table = read_table(index.read_bytes())
        header = dict(_fields(table.pop(b"")))
        shards = _shards(index, _integer(header, 1))
        if _integer(header, 2) != 0:
            raise ValueError("big-endian numbers")
        entries = {key.decode("utf-8"): _entry(value, shards) for key, value in table.items()}
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{index} is not the whole index of a TensorFlow checkpoint: {error}.") from error
    for name, entry in entries.items():
        _check(index, name, entry)
    # Tensors that share bytes would let small shards fill any memory.
    for shard in shards:
        filled = sum(entry.size for entry in entries.values() if entry.shard == shard and not entry.sliced)
        if filled > shard.stat().st_size:
            raise CheckpointError(f"{shard} has {shard.stat().st_size} bytes; its tensors would fill {filled}.")
    return entries


def read_numbers(name: str, entry: Entry) -> NDArray:
    """The numbers of one tensor, in TensorFlow's shape.

    Raises:
      CheckpointError: a shard that is cut short, or a wrong checksum.
    """
    try:
        with entry.shard.open("rb") as file:
            file.seek(entry.offset)
            raw = file.read(entry.size)
    except OSError as error:
        raise CheckpointError(f"{entry.shard} cannot be read: {error.strerror}.") from error
    if masked_crc32c(raw) != entry.crc:
        raise CheckpointError(f"{entry.shard}: tensor {name!r} has a wrong checksum. Is the file damaged?")
    return np.frombuffer(raw, DTYPES[entry.dtype]).reshape(entry.shape)


def _shards(index: Path, count: int) -> list[Path]:
    if not 1 <= count <= _SHARDS_LIMIT:
        raise ValueError(f"{count} shards")
    stem = index.name.removesuffix(".index")
    shards = [index.with_name(f"{stem}.data-{k:05}-of-{count:05}") for k in range(count)]
    absent = [shard.name for shard in shards if not shard.is_file()]
    if absent:
        raise CheckpointError(f"{index.with_name(absent[0])} is missing, though {index.name} names it.")
    return shards


def _entry(value: bytes, shards: list[Path]) -> Entry:
    fields = list(_fields(value))
    single = dict(fields)
    shard = _integer(single, 3)
    if shard >= len(shards):
        raise ValueError(f"shard {shard}, of {len(shards)}")
    number = _integer(single, 1)
    dimensions = [
        _integer(dict(_fields(part)), 1)
        for field, part in _fields(_message(single, 2))
        if field == 2 and isinstance(part, bytes)
    ]
    return Entry(
        shard=shards[shard],
        dtype=_TYPES.get(number, f"TensorFlow's type {number}"),
        shape=tuple(dimensions),
        offset=_integer(single, 4),
        size=_integer(single, 5),
        crc=_integer(single, 6),
        sliced=any(field == 7 for field, _ in fields),
    )


def _check(index: Path, name: str, entry: Entry) -> None:
    if entry.dtype not in DTYPES or entry.sliced:
        return  # of no use as weights: for the caller to miss, or not
    size = math.prod(entry.shape) * DTYPES[entry.dtype].itemsize if len(entry.shape) <= 8 else -1
    if size != entry.size:
        raise CheckpointError(
            f"{index}: tensor {name!r:.100} of shape {entry.shape[:8]} must have {size} bytes; got {entry.size}."
        )
    end = entry.shard.stat().st_size
    if entry.offset + entry.size > end:
        raise CheckpointError(
            f"{entry.shard}: tensor {name!r:.100} must lie at bytes {entry.offset} to {entry.offset + entry.size}; the "
            f"file has {end}. Was it cut short?"
        )


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a protobuf: integers as they are, messages as bytes."""
    place = 0
    while place < len(message):
        tag, place = read_varint(message, place)
        kind = tag & 7
        if kind == _VARINT:
            value, place = read_varint(message, place)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            size, place = read_varint(message, place)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"a protobuf field of wire type {kind}")
        if place + size > len(message):
            raise ValueError("a protobuf field is cut short")
        raw = message[place : place + size]
        yield tag >> 3, raw if kind == _BYTES else int.from_bytes(raw, "little")
        place += size


def _integer(fields: dict[int, int | bytes], number: int) -> int:
    value = fields.get(number, 0)  # protobuf leaves out zeros
    if not isinstance(value, int):
        raise ValueError(f"protobuf field {number} is no number")
    return value


def _message(fields: dict[int, int | bytes], number: int) -> bytes:
    value = fields.get(number, b"")
    if not isinstance(value, bytes):
        raise ValueError(f"protobuf field {number} is no message")
    return value
