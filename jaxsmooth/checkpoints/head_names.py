"""Which tensors of which class of transformers hold a task head: one table of names per family."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..bert.config import EncoderConfig
from ..bert.heads import Head, Kind
from ..errors import ConfigError
from .config_json import ACTIVATION_NAMES


class HeadNames(NamedTuple):
    """One head of one family; a linear map or a norm is named by the prefix of its `.weight` and `.bias`.

    Attributes:
      classes: endings of the names of the classes that have this head; the first is the one that is written.
      out: the output.
      bias: the tensor of the output's bias, where it is not the output's own.
      dense, norm: the dense layer and the norm before the output; "" for none.
      pooler: the dense layer over the first token, where it is the head's and not the encoder's.
      must: keys of `config.json` that hold one value only, where they are there at all.
    """

    classes: tuple[str, ...]
    out: str
    bias: str = ""
    dense: str = ""
    norm: str = ""
    pooler: str = ""
    must: Mapping[str, Any] = {}


def _read_nothing(hf: Mapping[str, Any]) -> dict[str, str]:
    return {}


def _write_nothing(head: Head) -> dict[str, Any]:
    return {}


class HeadFamily(NamedTuple):
    """The heads of one family, by kind (a regression is stored as a classification).

    Attributes:
      heads: kind -> names.
      read: config.json -> fields of `Head` that it decides, where they are not always the family's.
      write: head -> the keys of `config.json` that hold them.
      usual: what these keys are where they are absent.
      refused: endings of the names of classes whose heads are not supported, and why not.
    """

    heads: Mapping[Kind, HeadNames]
    read: Callable[[Mapping[str, Any]], dict[str, str]] = _read_nothing
    write: Callable[[Head], dict[str, Any]] = _write_nothing
    usual: Mapping[str, Any] = {}
    refused: Mapping[str, str] = {}


POOLING = {"cls": "first", "mean": "mean"}
"""ModernBERT's names of what a head reads -> `Head.reads`."""


_MODERNBERT_USUAL = {
    "classifier_pooling": "cls",
    "classifier_activation": "gelu",
    "classifier_bias": False,
    "decoder_bias": True,
}


def _read_modernbert(hf: Mapping[str, Any]) -> dict[str, str]:
    pooling, activation = hf.get("classifier_pooling", "cls"), hf.get("classifier_activation", "gelu")
    for key, value, known in (
        ("classifier_pooling", pooling, POOLING),
        ("classifier_activation", activation, ACTIVATION_NAMES),
    ):
        if not isinstance(value, str) or value not in known:
            raise ConfigError(f"{key} must be one of {tuple(known)}; got {value!r}.")
    return {"reads": POOLING[pooling], "activation": ACTIVATION_NAMES[activation]}


def _write_modernbert(head: Head) -> dict[str, Any]:
    return {
        "classifier_pooling": {ours: theirs for theirs, ours in POOLING.items()}.get(head.reads, "cls"),
        "classifier_activation": next(
            (name for name, ours in ACTIVATION_NAMES.items() if ours == head.activation), "gelu"
        ),
        "classifier_bias": head.dense is not None and head.dense.bias is not None,
        "decoder_bias": head.out.bias is not None,
    }


_SEQUENCE, _TOKENS, _SPAN = "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"
_CHOICE, _MASKED_LM = "ForMultipleChoice", "ForMaskedLM"
_PRETRAINED = (_MASKED_LM, "ForPreTraining")

_BERT: dict[Kind, HeadNames] = {
    "classification": HeadNames((_SEQUENCE,), "classifier"),
    "tokens": HeadNames((_TOKENS,), "classifier"),
    "span": HeadNames((_SPAN,), "qa_outputs"),
    "choice": HeadNames((_CHOICE,), "classifier"),
}
_CLS = "cls.predictions."
_CLS_LM = HeadNames(
    (*_PRETRAINED, "AntiBERTy"),
    f"{_CLS}decoder",
    f"{_CLS}bias",
    dense=f"{_CLS}transform.dense",
    norm=f"{_CLS}transform.LayerNorm",
)
_ALBERT_LM = HeadNames(
    _PRETRAINED, "predictions.decoder", "predictions.bias", dense="predictions.dense", norm="predictions.LayerNorm"
)
_ROBERTA: dict[Kind, HeadNames] = {
    **_BERT,
    "classification": HeadNames((_SEQUENCE,), "classifier.out_proj", pooler="classifier.dense"),
    "masked_lm": HeadNames(
        (_MASKED_LM,), "lm_head.decoder", "lm_head.bias", dense="lm_head.dense", norm="lm_head.layer_norm"
    ),
}
_DISTILBERT: dict[Kind, HeadNames] = {
    **_BERT,
    "classification": HeadNames((_SEQUENCE,), "classifier", pooler="pre_classifier"),
    "choice": HeadNames((_CHOICE,), "classifier", pooler="pre_classifier"),
    "masked_lm": HeadNames((_MASKED_LM,), "vocab_projector", dense="vocab_transform", norm="vocab_layer_norm"),
}
_ELECTRA: dict[Kind, HeadNames] = {
    **_ROBERTA,
    "choice": HeadNames(
        (_CHOICE,),
        "classifier",
        pooler="sequence_summary.summary",
        must={"summary_type": "first", "summary_use_proj": True, "summary_activation": "gelu"},
    ),
    "masked_lm": HeadNames(
        (_MASKED_LM,),
        "generator_lm_head",
        dense="generator_predictions.dense",
        norm="generator_predictions.LayerNorm",
    ),
}
_MODERNBERT_ENDINGS: dict[Kind, str] = {
    "classification": _SEQUENCE,
    "tokens": _TOKENS,
    "span": _SPAN,
    "choice": _CHOICE,
    "masked_lm": _MASKED_LM,
}
_MODERNBERT = {
    kind: HeadNames((ending,), "decoder" if kind == "masked_lm" else "classifier", dense="head.dense", norm="head.norm")
    for kind, ending in _MODERNBERT_ENDINGS.items()
}
_GPT2: dict[Kind, HeadNames] = {
    "classification": HeadNames((_SEQUENCE,), "score"),
    "tokens": HeadNames((_TOKENS,), "classifier"),
    "span": HeadNames((_SPAN,), "qa_outputs"),
    "choice": HeadNames(
        ("DoubleHeadsModel",),
        "multiple_choice_head.summary",
        must={
            "summary_type": "cls_index",
            "summary_use_proj": True,
            "summary_proj_to_labels": True,
            "summary_activation": None,
        },
    ),
    "causal_lm": HeadNames(("LMHeadModel",), "lm_head"),
}
_VISION = HeadFamily({"classification": HeadNames(("ForImageClassification",), "classifier")})

HEADS: dict[str, HeadFamily] = {
    "bert": HeadFamily({**_BERT, "masked_lm": _CLS_LM}),
    **dict.fromkeys(("roberta", "xlm-roberta", "camembert", "mpnet"), HeadFamily(_ROBERTA)),
    "albert": HeadFamily({**_BERT, "masked_lm": _ALBERT_LM}),
    "distilbert": HeadFamily(_DISTILBERT),
    "electra": HeadFamily(_ELECTRA),
    "modernbert": HeadFamily(_MODERNBERT, _read_modernbert, _write_modernbert, usual=_MODERNBERT_USUAL),
    "vit": _VISION,
    "deit": _VISION._replace(
        refused={"ForImageClassificationWithTeacher": "it averages two classifiers, and a head here has one output"}
    ),
    "gpt2": HeadFamily(_GPT2),
}
"""The heads of every family of `checkpoints.families`."""


def head_names(config: EncoderConfig, kind: Kind) -> HeadNames:
    """The names of a kind of head in the family of an encoder.

    Raises:
      ConfigError: no class of the family has such a head.
    """
    heads = HEADS[config.family].heads
    stored: Kind = "classification" if kind == "regression" else kind
    if stored not in heads:
        raise ConfigError(
            f"no class of the family {config.family!r} has a head of kind {kind!r}; its kinds are {tuple(heads)}."
        )
    return heads[stored]
