"""Which family a model is of where its config.json does not say: by the class it names, else by its tensors."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..errors import ConfigError
from .families import FAMILIES
from .wrappers import families_of, has_own_prefix

_CLASSES = r"(Model|PreTrainedModel|LMHeadModel|DoubleHeadsModel|For[A-Z]\w*)"


SAME = {"dpr": "bert"}
"""Families whose encoder is that of another one, in a module of its own."""


def with_model_type(hf: Mapping[str, Any], names: Callable[[], Iterable[str]] = tuple) -> Mapping[str, Any]:
    """A `config.json` with the `model_type` of its encoder, filled in where it has none and something else tells.

    Args:
      hf: the JSON object.
      names: gives the names of the tensors, where they are to be had.

    Returns:
      The object, or one with a `model_type`.

    Raises:
      ConfigError: the tensors are those of no family, or of several.

    >>> with_model_type({"architectures": ["BertModel"]})["model_type"]
    'bert'
    """
    if hf.get("model_type") is not None:
        own = next((own for name, own in SAME.items() if hf["model_type"] == name), None)
        return {**hf, "model_type": own} if own else hf
    family = family_of_class(hf)
    if family is None:
        there = list(names())
        family = family_of_tensors(hf, there) if there else None
    return hf if family is None else {**hf, "model_type": family}


def family_of_class(hf: Mapping[str, Any]) -> str | None:
    """The family that `architectures` names; None for none, or a class that is no family's.

    >>> family_of_class({"architectures": ["XLMRobertaForMaskedLM"]}), family_of_class({"architectures": ["MyNet"]})
    ('xlm-roberta', None)
    """
    classes = hf.get("architectures")
    name = classes[0] if isinstance(classes, list) and classes else None
    if not isinstance(name, str):
        return None
    stems = {family: row.architecture.removesuffix("Model") for family, row in FAMILIES.items()}
    return next((family for family, stem in stems.items() if re.fullmatch(stem + _CLASSES, name)), None)


def family_of_tensors(hf: Mapping[str, Any], names: Sequence[str]) -> str:
    """The family whose tensors these are.

    BERT, ELECTRA and the RoBERTas share the names of a bare encoder. RoBERTa's configurations say that the padding
    token is 1, ELECTRA's have an embedding_size; what says neither is BERT's.

    Args:
      hf: the content of config.json.
      names: of the tensors, as they are stored.

    Raises:
      ConfigError: no family's, or those of several; the message names them.

    >>> family_of_tensors({}, ["distilbert.transformer.layer.0.ffn.lin1.weight"])
    'distilbert'
    """
    found = families_of(names)
    if not found:
        raise ConfigError(
            f"config.json has no model_type, its architectures ({hf.get('architectures')!r}) name no family, and the "
            f"tensors, as {names[:2]!r}, are those of none of {tuple(FAMILIES)}."
        )
    bare = not has_own_prefix(names, found[0])
    if found[0] == "bert" and bare and hf.get("pad_token_id") in (None, 0) and "embedding_size" not in hf:
        return "bert"
    # RoBERTa, XLM-R and CamemBERT are one encoder; behind its own prefix it is no other.
    if len(found) > 1 and (bare or found[0] != "roberta"):
        raise ConfigError(
            f'config.json has no model_type, and the tensors may be of {", ".join(found)}: add "model_type" to it.'
        )
    return found[0]
