"""What lies in a model's folder besides its weights: its configuration and its tokenizer."""

import os
import warnings
from pathlib import Path

from ...assets import cache_dir
from ...bert.config import EncoderConfig
from ...errors import ConfigError, TextError
from ...inputs.tokenizer import Tokenizer
from ..config_json import config_from_file
from ..formats import elsewhere, open_weights, refuse_unfit
from ..tensors import CheckpointWarning
from .sentence import Sentence, read_sentence

_ARCHITECTURES = ("bert_", "albert_", "roberta_", "electra_", "discriminator_", "generator_")
"""How other libraries begin the name of what is config.json here."""
_WHOLE = "tokenizer.json"
_BESIDE = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_IN_PARTS = ("vocab.txt", "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model")


def read_config(directory: Path) -> EncoderConfig:
    """The configuration of a model's folder.

    Args:
      directory: the folder.

    Returns:
      An `EncoderConfig`; of a file without `model_type` by its `architectures`, else by the tensors' names.

    Raises:
      ConfigError: a file that is missing, unreadable or unusable.
    """
    path = directory / "config.json"
    if not os.path.lexists(path):
        others = sorted(file.name for file in directory.glob("*_config.json") if file.name.startswith(_ARCHITECTURES))
        hint = f" If {others[0]} is the model's, give it that name." if others else elsewhere(directory)
        raise ConfigError(f"{path} does not exist; a Hugging Face model directory holds a config.json.{hint}")
    refuse_unfit(path, ConfigError)
    if (directory / "adapter_config.json").exists():
        message = (
            f"{directory}: an adapter lies beside the weights, and is not applied. Merge it once (merge_and_unload())."
        )
        warnings.warn(message, CheckpointWarning, stacklevel=4)  # at the caller of `load`, which is wrapped
    return config_from_file(path, names=lambda: [tensor.name for tensor in open_weights(directory).tensors])


def read_tokenizer(directory: Path, config: EncoderConfig) -> Tokenizer | None:
    """The tokenizer of a model's folder, cutting and lower-casing as sentence-transformers' settings say.

    Args:
      directory: the folder.
      config: the model's.

    Returns:
      The tokenizer; None where there is none.

    Raises:
      TextError: an unusable vocabulary.
      ConfigError: unusable settings of sentence-transformers.
    """
    files = (_WHOLE, *_BESIDE) if os.path.lexists(directory / _WHOLE) else (*_IN_PARTS, *_BESIDE)
    for path in (directory / name for name in files):
        if os.path.lexists(path) and not config.is_vision:
            refuse_unfit(path, TextError)
    # Of the assets every position is used, as their documentation says.
    asset = directory.absolute().is_relative_to(cache_dir() / "assets")
    sentence = Sentence() if asset else read_sentence(directory)
    if sentence.default_prompt is not None:
        prompt = sentence.prompts.get(sentence.default_prompt, "")
        message = (
            f"{directory}: sentence-transformers puts the prompt {sentence.default_prompt!r} ({prompt!r}) before every "
            "text of this model; the tokenizer does not."
        )
        warnings.warn(message, CheckpointWarning, stacklevel=4)  # at the caller of `load`, which is wrapped
    tokenizer = Tokenizer.from_dir(directory, config)
    return tokenizer and tokenizer.adapted(max_length=sentence.max_length, lower_case=sentence.lower_case)
