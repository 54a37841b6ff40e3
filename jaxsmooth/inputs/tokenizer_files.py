"""A tokenizer's files: which of a Hugging Face directory are read, and what is written there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import tokenizers

from ..files import atomic_write
from .normalizer import FILE as NORMALIZER
from .normalizer import Normalizer
from .vocabulary import (
    BERT_TOKENS,
    FAMILY_TOKENS,
    MASK_NAMES,
    SpecialTokens,
    read_byte_pairs,
    read_tokenizer_json,
    read_vocab_txt,
)


class TokenizerFiles(NamedTuple):
    """A tokenizer as it was read.

    Attributes:
      backend: the tokenizer of the `tokenizers` library.
      source: names it in errors.
      special: the tokens it must have.
      normalize: what is done to every text first.
    """

    backend: tokenizers.Tokenizer
    source: str
    special: SpecialTokens
    normalize: Callable[[str], str] = str


def read_tokenizer_files(path: Path, family: str) -> TokenizerFiles | None:
    """Read the tokenizer of a directory, or None when it has none; see `Tokenizer.from_dir`.

    Raises:
      TextError: a file that is corrupt, not UTF-8, or lacks a special token.
    """
    files = ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt")
    whole, words, pairs, merges = (path / name for name in files)
    special = FAMILY_TOKENS.get(family, BERT_TOKENS)
    own = path / NORMALIZER
    if whole.exists() and own.exists():
        normalizer = Normalizer.read(own)
        return TokenizerFiles(read_tokenizer_json(whole), str(whole), normalizer.special, normalizer)
    if whole.exists():
        return TokenizerFiles(read_tokenizer_json(whole), str(whole), special)
    if words.exists() and special.first:
        return TokenizerFiles(read_vocab_txt(words, special), str(words), special)
    if pairs.exists() and merges.exists():
        return TokenizerFiles(read_byte_pairs(pairs, merges, special), str(pairs), special)
    return None


def write_tokenizer_files(files: TokenizerFiles, max_length: int, directory: Path) -> None:
    """Write `tokenizer.json`, `tokenizer_config.json` and what else `read_tokenizer_files` needs; see `Tokenizer.save`.

    Args:
      files: the tokenizer.
      max_length: the model's, for transformers.
      directory: made if it does not exist.
    """
    directory.mkdir(parents=True, exist_ok=True)
    named = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), files.special, strict=True))
    masks = [name for name in MASK_NAMES if files.backend.token_to_id(name) is not None]
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        **{key: token for key, token in named.items() if token},
        **({"mask_token": masks[0]} if masks else {}),
    }
    contents = {
        "tokenizer.json": files.backend.to_str(pretty=True),
        "tokenizer_config.json": json.dumps(settings, indent=2) + "\n",
    }
    for name, text in contents.items():
        atomic_write(directory / name, text)
    if isinstance(files.normalize, Normalizer):
        files.normalize.save(directory / NORMALIZER)
