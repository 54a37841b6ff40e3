"""Checkpoints of an encoder with a task head: which tensors of which class of transformers hold it."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from .bert.config import EncoderConfig
from .bert.heads import POOLED, Head
from .bert.params import Encoder, LayerNorm, Linear
from .checkpoint import cast, check_dtype, find_directory, plain_name, read_encoder
from .checkpoint_files import by_plain_name, check_tensor, read_tensor
from .errors import CheckpointError, ConfigError
from .formats import Stored, open_weights
from .text import Tokenizer

KINDS = {
    "ForSequenceClassification": "classification",
    "ForTokenClassification": "tokens",
    "ForQuestionAnswering": "span",
    "ForMultipleChoice": "choice",
    "ForMaskedLM": "masked_lm",
    "ForPreTraining": "masked_lm",
}
"""How transformers' class of the whole model ends -> the kind of its head."""

# Pooled heads: (the dense layer over the first token where it is not the encoder's own pooler, the output).
_BERT = {"classification": ("", "classifier"), "choice": ("", "classifier")}
_ROBERTA = {**_BERT, "classification": ("classifier.dense", "classifier.out_proj")}
_DISTILBERT = dict.fromkeys(("classification", "choice"), ("pre_classifier", "classifier"))
_ELECTRA = {**_ROBERTA, "choice": ("sequence_summary.summary", "classifier")}
_POOLED: dict[str, dict[str, tuple[str, str]]] = {
    **dict.fromkeys(("bert", "albert"), _BERT),
    **dict.fromkeys(("roberta", "xlm-roberta", "camembert", "mpnet"), _ROBERTA),
    "distilbert": _DISTILBERT,
    "electra": _ELECTRA,
}

# Masked-LM heads: dense layer, norm, the bias of the output, and the output's own matrix where it is not tied.
_LM_HEAD = ("lm_head.dense", "lm_head.layer_norm", "lm_head.bias", "lm_head.decoder.weight")
_CLS = "cls.predictions."
_MASKED_LM: dict[str, tuple[str, str, str, str]] = {
    "bert": (f"{_CLS}transform.dense", f"{_CLS}transform.LayerNorm", f"{_CLS}bias", f"{_CLS}decoder.weight"),
    **dict.fromkeys(("roberta", "xlm-roberta", "camembert", "mpnet"), _LM_HEAD),
    "albert": ("predictions.dense", "predictions.LayerNorm", "predictions.bias", "predictions.decoder.weight"),
    "distilbert": ("vocab_transform", "vocab_layer_norm", "vocab_projector.bias", "vocab_projector.weight"),
    "electra": (
        *("generator_predictions.dense", "generator_predictions.LayerNorm"),
        *("generator_lm_head.bias", "generator_lm_head.weight"),
    ),
    "modernbert": ("head.dense", "head.norm", "decoder.bias", "decoder.weight"),
}
_ALWAYS_GELU = ("roberta", "xlm-roberta", "camembert", "mpnet", "electra")


def load_with_head(name: str | Path, *, dtype: DTypeLike = jnp.float32) -> tuple[Encoder, Head, Tokenizer | None]:
    """Load an encoder with the task head of its checkpoint, as `BertForSequenceClassification` and its like save it.

    Args:
      name: as for `load`; a directory in Hugging Face's format, whose `architectures` says what the head does.
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
    config = EncoderConfig.from_file(directory / "config.json")
    hf = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    kind = head_kind(config, hf)
    weights = open_weights(directory)
    model = read_encoder(weights, config, dtype=wanted)
    found = by_plain_name(weights.tensors, lambda tensor: plain_name(tensor, config.family, heads=True))
    reader = _Reader(found, weights.where, wanted)
    if kind == "masked_lm":
        head = _masked_lm(reader, config, tied=hf.get("tie_word_embeddings") is not False)
        return model, head, Tokenizer.from_dir(directory, config)
    if kind not in POOLED:
        out = reader.linear("qa_outputs" if kind == "span" else "classifier", config.width)
        return model, Head(out=out, kind=kind), Tokenizer.from_dir(directory, config)
    dense, output = _POOLED[config.family]["choice" if kind == "choice" else "classification"]
    if dense:
        model = dataclasses.replace(model, pooler=reader.linear(dense, config.width, config.width))
    if model.pooler is None:
        raise CheckpointError(f"{weights.where}: a head of kind {kind!r} reads the pooler, which is missing.")
    head = Head(out=reader.linear(output, config.width), kind=kind)
    return model, head, Tokenizer.from_dir(directory, config)


def head_kind(config: EncoderConfig, hf: Mapping[str, Any]) -> str:
    """What the head of a checkpoint does, one of `bert.heads.KINDS`, by `architectures` and `problem_type`.

    Raises:
      ConfigError: no such class, or one whose head is not known for the family.
    """
    names = hf.get("architectures")
    name = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""
    kind = next((kind for ending, kind in KINDS.items() if name.endswith(ending)), None)
    if kind is None:
        raise ConfigError(f"architectures must name a class that ends in one of {tuple(KINDS)}; got {names!r}.")
    known = kind in _POOLED.get(config.family, {}) or (kind in ("tokens", "span") and config.family in _POOLED)
    if not known and not (kind == "masked_lm" and config.family in _MASKED_LM):
        raise ConfigError(f"the head of {name} is not supported: family {config.family!r}, kind {kind!r}.")
    if kind == "masked_lm" and config.family in _ALWAYS_GELU and config.activation != "gelu":
        raise ConfigError(f"{name}'s head always uses gelu; got an encoder with {config.activation!r}.")
    return "regression" if kind == "classification" and hf.get("problem_type") == "regression" else kind


class _Reader:
    """Reads the parts of a head by name; what is missing or of another shape is refused."""

    def __init__(self, found: Mapping[str, Stored], place: str, dtype: DTypeLike) -> None:
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

    def linear(self, name: str, inputs: int, outputs: int | None = None) -> Linear:
        """A linear map, stored output axis first; its bias where there is one."""
        kernel = self.array(f"{name}.weight", (outputs, inputs))
        return Linear(kernel=cast(f"{name}.weight", kernel.T, self.dtype), bias=self.bias(f"{name}.bias", len(kernel)))

    def bias(self, name: str, size: int) -> jax.Array | None:
        """A vector, or None where the checkpoint has none."""
        return cast(name, self.array(name, (size,)), self.dtype) if name in self.found else None


def _masked_lm(reader: _Reader, config: EncoderConfig, *, tied: bool) -> Head:
    dense, norm, bias, decoder = _MASKED_LM[config.family]
    scale = cast(norm, reader.array(f"{norm}.weight", (config.table_width,)), reader.dtype)
    kernel = None
    if not tied:
        stored = reader.array(decoder, (config.vocab, config.table_width))
        kernel = cast(decoder, stored.T, reader.dtype)
    return Head(
        out=Linear(kernel=kernel, bias=reader.bias(bias, config.vocab)),  # type: ignore[arg-type]
        dense=reader.linear(dense, config.width, config.table_width),
        norm=LayerNorm(scale=scale, bias=reader.bias(f"{norm}.bias", config.table_width)),
        kind="masked_lm",
    )
