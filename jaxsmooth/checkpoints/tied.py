"""The word table and the decoder of a language head, which are one tensor unless a checkpoint says otherwise."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..bert.config import EncoderConfig
from ..bert.heads import LANGUAGE
from ..errors import ConfigError
from ..json_reading import loads
from .formats import Weights
from .head_names import HEADS
from .names import NAMES
from .wrappers import sort_names


def is_tied(hf: Mapping[str, Any]) -> bool:
    """Whether a `config.json` ties the two; transformers does where nothing is said.

    Raises:
      ConfigError: `tie_word_embeddings` is neither true nor false.

    >>> is_tied({})
    True
    """
    tied = hf.get("tie_word_embeddings", True)
    if not isinstance(tied, bool):
        raise ConfigError(f"tie_word_embeddings must be true or false; got {tied!r}.")
    return tied


def word_table(family: str) -> str | None:
    """The plain name of a family's word table; None for one that reads images.

    >>> word_table("gpt2")
    'wte.weight'
    """
    return next((entry.tensor for entry in NAMES[family].entries if entry.path == "embeddings.word"), None)


def with_word_table(weights: Weights, config: EncoderConfig, directory: Path) -> Weights:
    """The weights, and a word table that was stored under the name of the decoder it is tied to.

    A writer that stores a shared tensor once keeps the first of its names: "lm_head.decoder.weight" in RoBERTa.

    Args:
      weights: of a checkpoint.
      config: the encoder's.
      directory: whose `config.json` says whether the two are tied.

    Returns:
      The weights themselves where they hold the table, or no decoder, or one that is not tied.

    Raises:
      ConfigError: as `is_tied`.
    """
    table, names = word_table(config.family), sort_names((tensor.name for tensor in weights.tensors), config.family)
    outputs = {f"{head.out}.weight" for kind, head in HEADS[config.family].heads.items() if kind in LANGUAGE}
    decoder = next((tensor for tensor in weights.tensors if names.heads.get(tensor.name) in outputs), None)
    if table is None or decoder is None or table in names.own.values():
        return weights
    if not is_tied(loads((directory / "config.json").read_text(encoding="utf-8"))):
        return weights
    return weights._replace(tensors=(*weights.tensors, decoder._replace(name=table)))
