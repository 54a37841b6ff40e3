"""Checkpoints of an encoder with a task head, in the form of BertForSequenceClassification and its like."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from ..bert.config import EncoderConfig
from ..bert.heads import FORMS, LANGUAGE, POOLED, Head, Kind, tied_output
from ..bert.params import Encoder
from ..errors import CheckpointError, ConfigError, arguments_checked
from ..inputs.tokenizer import Tokenizer
from ..json_reading import loads
from ..types import LayerNorm, Linear
from .encoder import cast, check_dtype, find_directory, read_encoder
from .folders import read_config, read_tokenizer, reading
from .formats import FileTensor, open_weights
from .head_names import HEADS, head_names
from .self_check import check_read, known_answer
from .tensors import by_plain_name, check_tensor, read_tensor
from .tied import is_tied, with_word_table, word_table
from .wrappers import sort_names


@arguments_checked
def load_with_head(
    name: str | Path, *, dtype: DTypeLike = jnp.float32, check: bool = True
) -> tuple[Encoder, Head, Tokenizer | None]:
    """Load an encoder with the task head of its checkpoint, as `BertForSequenceClassification` and its like save it.

    Args:
      name: as for `load`; a directory in Hugging Face's format, whose `architectures` names the head's class.
      dtype: dtype of every parameter.
      check: as for `load`.

    Returns:
      `(model, head, tokenizer)`, for `bert.heads.apply_head`. Where a family keeps the dense layer over the first
      token in its head (RoBERTa, MPNet, ELECTRA, DistilBERT), it is the model's `pooler`.

    Raises:
      CheckpointError: as `load`; also a head that is missing or mis-shaped.
      ConfigError: an unusable `config.json`, or a class whose head is not known for the family.
    """
    wanted = check_dtype(dtype)
    with reading(name):
        directory = find_directory(name)
        config = read_config(directory)
        hf = loads((directory / "config.json").read_text(encoding="utf-8"))
        kind = head_kind(config, hf)
        names = head_names(config, kind)
        weights = with_word_table(open_weights(directory), config, directory)
        model = read_encoder(weights, config, dtype=wanted, finite=check)
        sorted_names = sort_names((tensor.name for tensor in weights.tensors), config.family)
        found = by_plain_name(weights.tensors, {**sorted_names.own, **sorted_names.heads}.get)
        reader = _Reader(found, weights.where, wanted, check)
        if names.pooler:
            model = dataclasses.replace(model, pooler=reader.linear(names.pooler, config.width, config.width))
        head = _read_head(reader, config, kind, hf)
        if kind in POOLED and head.reads == "pooler" and model.pooler is None:
            raise CheckpointError(f"{weights.where}: a head of kind {kind!r} reads the pooler, which is missing.")
        tokenizer = read_tokenizer(directory, config)
        if check:
            check_read(model, tokenizer, str(name), known_answer(str(name), directory))
    return model, head, tokenizer


def head_kind(config: EncoderConfig, hf: Mapping[str, Any]) -> Kind:
    """What the head of a checkpoint does, one of `bert.heads.KINDS`, by `architectures` and `problem_type`.

    Raises:
      ConfigError: no such class, or one whose head is not known for the family.
    """
    family, classes = HEADS[config.family], hf.get("architectures")
    name = classes[0] if isinstance(classes, list) and classes and isinstance(classes[0], str) else ""
    why = next((why for ending, why in family.refused.items() if name.endswith(ending)), None)
    if why is not None:
        raise ConfigError(f"the head of {name} is not supported: {why}.")
    kind = next((kind for kind, names in family.heads.items() if name.endswith(names.classes)), None)
    if kind is None:
        known = tuple(ending for names in family.heads.values() for ending in names.classes)
        raise ConfigError(
            f"architectures must name a class that ends in one of {known}, whose heads are known for the family "
            f"{config.family!r}; got {classes!r}."
        )
    for key, only in family.heads[kind].must.items():
        if key in hf and hf[key] != only:
            raise ConfigError(f"{key} must be {only!r} for the head of {name}; got {hf[key]!r}.")
    return "regression" if kind == "classification" and hf.get("problem_type") == "regression" else kind


def _read_head(reader: "_Reader", config: EncoderConfig, kind: Kind, hf: Mapping[str, Any]) -> Head:
    names, form = head_names(config, kind), FORMS[config.family]
    read = config.table_width if kind in LANGUAGE else config.width
    fields = {"reads": form.reads, "activation": form.activation, **HEADS[config.family].read(hf)}
    dense = reader.linear(names.dense, config.width, read) if names.dense else None
    norm = reader.norm(names.norm, read) if names.norm else None
    if kind not in LANGUAGE:
        return Head(out=reader.linear(names.out, read), dense=dense, norm=norm, kind=kind, **fields)
    kernel = _stored_decoder(reader, config, hf, names.out, read)
    # Where two biases are stored, transformers 5 adds the decoder's own.
    places = [f"{names.out}.bias", names.bias]
    bias = reader.bias(next((place for place in places if place in reader.found), ""), config.vocab)
    out = tied_output(bias) if kernel is None else Linear(kernel=kernel, bias=bias)
    return Head(out=out, dense=dense, norm=norm, kind=kind, **fields)


def _stored_decoder(
    reader: "_Reader", config: EncoderConfig, hf: Mapping[str, Any], out: str, read: int
) -> jax.Array | None:
    """The kernel of a language head; None where it is the word table.

    transformers 5 ties the two where the configuration says so, unless the file holds a decoder that differs.
    """
    tied, table = is_tied(hf), word_table(config.family)
    assert table is not None  # a family with a language head reads words
    if tied and f"{out}.weight" not in reader.found:
        return None
    shape = (config.vocab, read)
    if tied and np.array_equal(reader.array(f"{out}.weight", shape), reader.array(table, shape)):
        return None
    return reader.kernel(out, read, config.vocab)


class _Reader:
    """Reads the parts of a head by name; what is missing or of another shape is refused."""

    def __init__(self, found: Mapping[str, FileTensor], place: str, dtype: DTypeLike, finite: bool) -> None:
        self.found, self.place, self.dtype, self.finite = found, place, dtype, finite

    def array(self, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
        """A tensor of a shape in which None is any length."""
        if name not in self.found:
            raise CheckpointError(f"{self.place}: tensor {name!r} of the head is missing.")
        tensor = self.found[name]
        same_rank = len(tensor.shape) == len(shape)
        actual = tensor.shape if same_rank else (0,) * len(shape)
        check_tensor(tensor, tuple(a if s is None else s for a, s in zip(actual, shape, strict=True)))
        return read_tensor(tensor, finite=self.finite)

    def kernel(self, name: str, inputs: int, outputs: int | None = None) -> jax.Array:
        """The kernel of a linear map, stored output axis first."""
        return cast(f"{name}.weight", self.array(f"{name}.weight", (outputs, inputs)).T, self.dtype, finite=self.finite)

    def linear(self, name: str, inputs: int, outputs: int | None = None) -> Linear:
        """A linear map; its bias where there is one."""
        kernel = self.kernel(name, inputs, outputs)
        return Linear(kernel=kernel, bias=self.bias(f"{name}.bias", kernel.shape[1]))

    def norm(self, name: str, size: int) -> LayerNorm:
        """A norm; its shift where there is one."""
        scale = cast(f"{name}.weight", self.array(f"{name}.weight", (size,)), self.dtype, finite=self.finite)
        return LayerNorm(scale=scale, bias=self.bias(f"{name}.bias", size))

    def bias(self, name: str, size: int) -> jax.Array | None:
        """A vector, or None where the checkpoint has none."""
        return cast(name, self.array(name, (size,)), self.dtype, finite=self.finite) if name in self.found else None
