"""Checkpoints of an encoder with a task head, in the form of BertForSequenceClassification and its like."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from ..bert.config import EncoderConfig
from ..bert.heads import FORMS, LANGUAGE, POOLED, Head, Kind, init_head, tied_output
from ..bert.params import Encoder
from ..errors import CheckpointError, ConfigError
from ..inputs.tokenizer import Tokenizer
from ..types import LayerNorm, Linear, named_leaves
from .config_json import config_to_dict
from .encoder import cast, check_dtype, find_directory, read_encoder, tensors_of, write_directory
from .families import FAMILIES
from .folders import read_config, read_tokenizer
from .formats import FileTensor, open_weights
from .head_names import HEADS, HeadNames
from .names import NAMES, OWN
from .tensors import by_plain_name, check_tensor, read_tensor
from .tied import is_tied, with_word_table, word_table
from .wrappers import sort_names


def load_with_head(name: str | Path, *, dtype: DTypeLike = jnp.float32) -> tuple[Encoder, Head, Tokenizer | None]:
    """Load an encoder with the task head of its checkpoint, as `BertForSequenceClassification` and its like save it.

    Args:
      name: as for `load`; a directory in Hugging Face's format, whose `architectures` names the head's class.
      dtype: dtype of every parameter.

    Returns:
      `(model, head, tokenizer)`, for `bert.heads.apply_head`. Where a family keeps the dense layer over the first
      token in its head (RoBERTa, MPNet, ELECTRA, DistilBERT), it is the model's `pooler`.

    Raises:
      CheckpointError: as `load`; also a head that is missing or mis-shaped.
      ConfigError: an unusable `config.json`, or a class whose head is not known for the family.
    """
    wanted = check_dtype(dtype)
    directory = find_directory(name)
    config = read_config(directory)
    hf = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    kind = head_kind(config, hf)
    names = _names(config, kind)
    weights = with_word_table(open_weights(directory), config, directory)
    model = read_encoder(weights, config, dtype=wanted)
    sorted_names = sort_names((tensor.name for tensor in weights.tensors), config.family)
    found = by_plain_name(weights.tensors, {**sorted_names.own, **sorted_names.heads}.get)
    reader = _Reader(found, weights.where, wanted)
    if names.pooler:
        model = dataclasses.replace(model, pooler=reader.linear(names.pooler, config.width, config.width))
    head = _read_head(reader, config, kind, hf)
    if kind in POOLED and head.reads == "pooler" and model.pooler is None:
        raise CheckpointError(f"{weights.where}: a head of kind {kind!r} reads the pooler, which is missing.")
    return model, head, read_tokenizer(directory, config)


def save_with_head(model: Encoder, head: Head, directory: str | Path, *, labels: Sequence[str] = ()) -> None:
    """Write an encoder and its head as transformers' class of the family for it does; `load_with_head` gives both back.

    The same bits, in the same dtype. What the class has not, is not written: the pooler under a head that reads every
    token, the other heads of a model for pre-training.

    Args:
      model: the encoder.
      head: as `init_head` draws it for the encoder's configuration, or `load_with_head` reads it.
      directory: made if it does not exist. Written as by `save`.
      labels: names of the classes, in order; () numbers them.

    Raises:
      ConfigError: a head that no class of the family has, or labels of another number than the head's outputs.

    >>> import jax, tempfile
    >>> from jaxsmooth.bert.heads import init_head
    >>> from jaxsmooth.checkpoints.encoder import load
    >>> model, _ = load("tiny")
    >>> head = init_head(model.config, "classification", jax.random.key(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_with_head(model, head, folder, labels=["dull", "worth seeing"])
    ...     load_with_head(folder)[1].kind
    'classification'
    """
    config, names = model.config, _names(model.config, head.kind)
    own_pooler = head.kind in POOLED and head.reads == "pooler"
    if own_pooler and model.pooler is None:
        raise ConfigError(f"a head of kind {head.kind!r} reads the pooler, which the encoder lacks: see `with_pooler`.")
    hf = {**config_to_dict(config), **_settings(config, head, names), **_labels(head, labels)}
    _check_head(config, head, hf)
    encoder = model if own_pooler and not names.pooler else dataclasses.replace(model, pooler=None)
    prefix = NAMES[config.family].prefix
    tensors = {tensor if tensor.startswith(OWN) else prefix + tensor: array for tensor, array in tensors_of(encoder)}
    write_directory(directory, tensors | dict(_tensors(model, head, names)), hf)


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


def _names(config: EncoderConfig, kind: Kind) -> HeadNames:
    heads = HEADS[config.family].heads
    stored: Kind = "classification" if kind == "regression" else kind
    if stored not in heads:
        raise ConfigError(
            f"no class of the family {config.family!r} has a head of kind {kind!r}; its kinds are {tuple(heads)}."
        )
    return heads[stored]


def _read_head(reader: "_Reader", config: EncoderConfig, kind: Kind, hf: Mapping[str, Any]) -> Head:
    names, form = _names(config, kind), FORMS[config.family]
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

    def __init__(self, found: Mapping[str, FileTensor], place: str, dtype: DTypeLike) -> None:
        self.found, self.place, self.dtype = found, place, dtype

    def array(self, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
        """A tensor of a shape in which None is any length."""
        if name not in self.found:
            raise CheckpointError(f"{self.place}: tensor {name!r} of the head is missing.")
        tensor = self.found[name]
        same_rank = len(tensor.shape) == len(shape)
        actual = tensor.shape if same_rank else (0,) * len(shape)
        check_tensor(tensor, tuple(a if s is None else s for a, s in zip(actual, shape, strict=True)))
        return read_tensor(tensor)

    def kernel(self, name: str, inputs: int, outputs: int | None = None) -> jax.Array:
        """The kernel of a linear map, stored output axis first."""
        return cast(f"{name}.weight", self.array(f"{name}.weight", (outputs, inputs)).T, self.dtype)

    def linear(self, name: str, inputs: int, outputs: int | None = None) -> Linear:
        """A linear map; its bias where there is one."""
        kernel = self.kernel(name, inputs, outputs)
        return Linear(kernel=kernel, bias=self.bias(f"{name}.bias", kernel.shape[1]))

    def norm(self, name: str, size: int) -> LayerNorm:
        """A norm; its shift where there is one."""
        scale = cast(f"{name}.weight", self.array(f"{name}.weight", (size,)), self.dtype)
        return LayerNorm(scale=scale, bias=self.bias(f"{name}.bias", size))

    def bias(self, name: str, size: int) -> jax.Array | None:
        """A vector, or None where the checkpoint has none."""
        return cast(name, self.array(name, (size,)), self.dtype) if name in self.found else None


def _settings(config: EncoderConfig, head: Head, names: HeadNames) -> dict[str, Any]:
    """The keys of `config.json` that describe a head."""
    stem = FAMILIES[config.family].architecture.removesuffix("Model")
    keys = {"architectures": [stem + names.classes[0]], **HEADS[config.family].write(head)}
    if head.kind in LANGUAGE:
        keys["tie_word_embeddings"] = head.out.kernel is None
    if head.kind == "regression":
        keys["problem_type"] = "regression"
    return keys


def _labels(head: Head, labels: Sequence[str]) -> dict[str, Any]:
    """The names of the outputs, by which transformers knows their number."""
    if head.kind not in ("classification", "regression", "tokens"):
        if labels:
            raise ConfigError(f"a head of kind {head.kind!r} has no labels; got {list(labels)!r}.")
        return {}
    count = head.out.kernel.shape[1]
    names = list(labels) or [f"LABEL_{k}" for k in range(count)]
    if len(names) != count or len(set(names)) != count:
        raise ConfigError(f"labels must be {count} different names, one per output of the head; got {names!r}.")
    return {"id2label": dict(enumerate(names)), "label2id": {name: k for k, name in enumerate(names)}}


def _check_head(config: EncoderConfig, head: Head, hf: Mapping[str, Any]) -> None:
    """Refuse a head of another form than what `load_with_head`, and transformers, would make of the files."""
    form = FORMS[config.family]
    wanted = {"reads": form.reads, "activation": form.activation, **HEADS[config.family].read(hf)}
    got = {name: getattr(head, name) for name in wanted}
    if got != wanted:
        raise ConfigError(f"a head of kind {head.kind!r} in the family {config.family!r} has {wanted}; got {got}.")
    free = {"dense.bias", "out.bias"} if head.kind in LANGUAGE else {"dense.bias"}
    free = free if form.free_biases else set()
    expected, found = _shapes(config, head)
    for path in sorted((expected.keys() | found.keys()) - free):
        if expected.get(path) != found.get(path):
            raise ConfigError(
                f"{path} of a head of kind {head.kind!r} in the family {config.family!r} must have shape "
                f"{expected.get(path)}; got {found.get(path)}. Was the head made for another encoder?"
            )


def _shapes(config: EncoderConfig, head: Head) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Shapes of the arrays of the family's head of that kind, and of this one."""
    tied = head.out.kernel is None
    labels = 1 if tied else head.out.kernel.shape[-1]
    drawn = jax.eval_shape(lambda: init_head(config, head.kind, jax.random.key(0), labels=labels, tied=tied))

    def shapes(tree: Head) -> dict[str, tuple[int, ...]]:
        return {path: leaf.shape for path, leaf in named_leaves(tree).items()}

    return shapes(drawn), shapes(head)


def _tensors(model: Encoder, head: Head, names: HeadNames) -> Iterator[tuple[str, np.ndarray]]:
    """The head's arrays under transformers' names."""
    if names.pooler and model.pooler is not None:
        yield from _linear(names.pooler, model.pooler)
    if head.dense is not None:
        yield from _linear(names.dense, head.dense)
    if head.norm is not None:
        yield f"{names.norm}.weight", np.asarray(head.norm.scale)
        if head.norm.bias is not None:
            yield f"{names.norm}.bias", np.asarray(head.norm.bias)
    tied = head.out.kernel is None
    if names.bias and head.out.bias is not None:
        yield names.bias, np.asarray(head.out.bias)
    if not tied:
        yield f"{names.out}.weight", np.ascontiguousarray(np.asarray(head.out.kernel).T)
    if head.out.bias is not None and not (names.bias and tied):  # an untied decoder of BERT's has a second one
        yield f"{names.out}.bias", np.asarray(head.out.bias)


def _linear(name: str, linear: Linear) -> Iterator[tuple[str, np.ndarray]]:
    yield f"{name}.weight", np.ascontiguousarray(np.asarray(linear.kernel).T)
    if linear.bias is not None:
        yield f"{name}.bias", np.asarray(linear.bias)
