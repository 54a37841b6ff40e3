"""Writing checkpoints in Hugging Face's format, of an encoder alone and of one with its head."""

import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors.numpy

from ..bert.config import EncoderConfig
from ..bert.heads import FORMS, LANGUAGE, POOLED, Head, init_head
from ..bert.params import Encoder, encoder_shapes
from ..errors import ConfigError, ShapeError, arguments_checked
from ..files import replaced_together, require_room, spelled_out
from ..types import Linear, named_leaves
from .config_json import ANSWER_KEY, OWN_KEY, config_to_dict
from .families import FAMILIES
from .folders.card import model_card, put_card
from .head_names import HEADS, HeadNames, head_names
from .names import NAMES, OWN, Entry, entries_of
from .self_check import make_answer
from .tensors import WEIGHTS

FLOATS = ("float32", "bfloat16", "float16", "float64")
"""What is written, and read again."""


@arguments_checked
def save(model: Encoder, directory: str | Path) -> None:
    """Write `config.json` and `model.safetensors` as Hugging Face's BertModel does.

    Loading them again in the same dtype gives the same bits. Both are written whole before either takes its place:
    an interrupted save leaves the former model, and never weights beside another model's config. What the `config.json`
    said that the model was read with is in the new one again. It also holds an answer that `load` checks the model by.
    A model card, README.md, says what the files are, in place of no other than such a card.

    Args:
      model: the encoder.
      directory: made if it does not exist; "~" is the user's home.

    Raises:
      ShapeError: something else than an encoder, or one whose arrays are not those of its config.
      StorageError: the disk has no room.
    """
    if not isinstance(model, Encoder):
        raise ShapeError(f"model must be an Encoder; got {type(model).__name__}. `load` gives (model, tokenizer).")
    _write_directory(directory, model, dict(tensors_of(model)), config_to_dict(model.config))


@arguments_checked
def save_with_head(
    model: Encoder,
    head: Head,
    directory: str | Path,
    *,
    labels: Sequence[str] = (),
    keys: Mapping[str, Any] = {},
) -> None:
    """Write an encoder and its head as transformers' class of the family for it does; `load_with_head` gives both back.

    The same bits, in the same dtype. What the class has not, is not written: the pooler under a head that reads every
    token, the other heads of a model for pre-training.

    Args:
      model: the encoder.
      head: as `init_head` draws it for the encoder's configuration, or `load_with_head` reads it.
      directory: made if it does not exist. Written as by `save`.
      labels: names of the classes, in order; () keeps those that were read with the encoder, where there are as many
        as the head has outputs, and numbers the classes elsewhere.
      keys: further keys of `config.json`, in place of those that were read with the encoder.

    Raises:
      ConfigError: a head that no class of the family has, or labels of another number than the head's outputs.

    >>> import jax, tempfile
    >>> from jaxsmooth.bert.heads import init_head
    >>> from jaxsmooth import load, load_with_head
    >>> model, _ = load("tiny")
    >>> head = init_head(model.config, "classification", jax.random.key(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_with_head(model, head, folder, labels=["dull", "worth seeing"])
    ...     load_with_head(folder)[1].kind
    'classification'
    """
    config, names = model.config, head_names(model.config, head.kind)
    own_pooler = head.kind in POOLED and head.reads == "pooler"
    if own_pooler and model.pooler is None:
        raise ConfigError(f"a head of kind {head.kind!r} reads the pooler, which the encoder lacks: see `with_pooler`.")
    hf = _with_labels(config_to_dict(config), head, labels)
    hf = {**hf, **_settings(config, head, names, hf), **keys}
    _check_head(config, head, hf)
    encoder = model if own_pooler and not names.pooler else dataclasses.replace(model, pooler=None)
    prefix = NAMES[config.family].prefix
    tensors = {tensor if tensor.startswith(OWN) else prefix + tensor: array for tensor, array in tensors_of(encoder)}
    _write_directory(directory, model, tensors | dict(_tensors(model, head, names)), hf, head.kind)


def _write_directory(
    directory: str | Path,
    model: Encoder,
    tensors: Mapping[str, np.ndarray],
    config: Mapping[str, Any],
    kind: str | None = None,
) -> None:
    """Write `model.safetensors`, `config.json`, with dtype and known answer, and the card together."""
    answer = make_answer(model)
    # transformers casts every tensor to this dtype: of several, one that holds them all.
    kinds = {array.dtype for array in tensors.values()}
    dtype = kinds.pop() if len(kinds) == 1 else functools.reduce(np.promote_types, kinds, np.dtype(np.float32))
    settings = {**config, "dtype": str(dtype), **({ANSWER_KEY: answer} if answer else {})}
    require_room(directory, sum(array.nbytes for array in tensors.values()))
    with replaced_together(directory, "config.json") as new:
        safetensors.numpy.save_file(dict(tensors), new / WEIGHTS, metadata={"format": "pt"})
        (new / "config.json").write_bytes((json.dumps(settings, indent=2) + "\n").encode())
        there = Path(spelled_out(directory)).absolute()
        plain = OWN_KEY not in config and not any(name.startswith(OWN) for name in tensors)
        put_card(new, there, model_card(model, there.name, plain=plain, kind=kind))


def tensors_of(model: Encoder) -> Iterator[tuple[str, np.ndarray]]:
    """Every array of an encoder, or several side by side, under the names of the bare encoder of its family.

    Raises:
      ShapeError: arrays that are not those of the encoder's configuration.
    """
    leaves = {path: np.asarray(leaf) for path, leaf in named_leaves(model).items()}
    _check_arrays(leaves, model)
    sharing: dict[str, list[tuple[Entry, np.ndarray]]] = {}
    for entry in entries_of(model.config, list(leaves)):
        whole = leaves[entry.path] if entry.is_stacked else leaves[entry.path][None]
        for name, member in zip(entry.names(model.config), whole, strict=True):
            if name is not None:
                sharing.setdefault(name, []).append((entry, member.reshape(entry.flat_shape(leaves[entry.path].shape))))
    for name, parts in sharing.items():
        entry = parts[0][0]
        yield name, _put(parts, entry.stored_shape(leaves[entry.path].shape, model.config))


def _check_arrays(leaves: Mapping[str, np.ndarray], model: Encoder) -> None:
    """Refuse what `load` would, before it is written."""
    shapes = encoder_shapes(model.config, pooler=model.pooler is not None)
    for path in sorted(shapes.keys() | leaves.keys()):
        found = leaves[path].shape if path in leaves else None
        if found != shapes.get(path):
            raise ShapeError(
                f"{path} must have shape {shapes.get(path)} by the model's config; got {found}. Was the model edited? "
                "dataclasses.replace its config too (layers, vocab, ...)."
            )
        if leaves[path].dtype.name not in FLOATS:
            raise ShapeError(f"{path} must be one of {FLOATS} to be saved; got {leaves[path].dtype}.")


def _put(sharing: list[tuple[Entry, np.ndarray]], shape: tuple[int, ...]) -> np.ndarray:
    """The tensor of stored shape that holds these members side by side; `_taken` inverts it."""
    entry = sharing[0][0]
    flat = np.concatenate([member for _, member in sharing], axis=-1) if entry.parts > 1 else sharing[0][1]
    return np.ascontiguousarray(flat.T if entry.transposed else flat).reshape(shape)


def _settings(config: EncoderConfig, head: Head, names: HeadNames, hf: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of `config.json` that describe a head, where it does not say so already."""
    stem, family = FAMILIES[config.family].architecture.removesuffix("Model"), HEADS[config.family]
    keys = {key: value for key, value in family.write(head).items() if hf.get(key, family.usual[key]) != value}
    tied = head.out.kernel is None
    if head.kind in LANGUAGE and (hf.get("tie_word_embeddings") is not False) != tied:
        keys["tie_word_embeddings"] = tied
    return {"architectures": [stem + names.classes[0]], **keys}


def _with_labels(hf: Mapping[str, Any], head: Head, labels: Sequence[str]) -> dict[str, Any]:
    """`config.json` with the names of the outputs, by which transformers knows their number, and with their meaning."""
    labelled = head.kind in ("classification", "regression", "tokens")
    if labels and not labelled:
        raise ConfigError(f"a head of kind {head.kind!r} has no labels; got {list(labels)!r}.")
    hf = {**hf, "problem_type": _problem_type(hf.get("problem_type"), head)}
    if hf["problem_type"] is None:
        del hf["problem_type"]
    if not labelled and head.kind != "span":
        return hf
    count = head.out.kernel.shape[1]
    if not labels and _outputs(hf) == count:
        return hf
    hf = {key: value for key, value in hf.items() if key not in ("id2label", "label2id", "num_labels", "_num_labels")}
    if not labelled:  # two numbers, transformers' default
        return hf
    names = list(labels) or [f"LABEL_{k}" for k in range(count)]
    if len(names) != count or len(set(names)) != count:
        raise ConfigError(f"labels must be {count} different names, one per output of the head; got {names!r}.")
    return {**hf, "id2label": dict(enumerate(names)), "label2id": {name: k for k, name in enumerate(names)}}


def _problem_type(read: Any, head: Head) -> Any:
    """What `problem_type` is beside this head: what was read, unless the head contradicts it."""
    if head.kind == "regression":
        return "regression"
    single = head.kind not in LANGUAGE and head.out.kernel.shape[1] == 1
    # transformers refuses a configuration of one class that is one of several
    contradicted = (head.kind == "classification" and read == "regression") or (
        single and read == "single_label_classification"
    )
    return None if contradicted else read


def _outputs(hf: Mapping[str, Any]) -> int | None:
    """How many outputs transformers gives a classifier by a `config.json`; None where the names are not from 0 on."""
    names, counted = hf.get("id2label"), hf.get("num_labels")
    if names is None:
        return 2 if counted is None else counted
    numbered = isinstance(names, Mapping) and {str(k) for k in names} == {str(k) for k in range(len(names))}
    return len(names) if numbered else None


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
