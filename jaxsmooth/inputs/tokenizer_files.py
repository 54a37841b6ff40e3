"""A tokenizer's files: which of a Hugging Face directory are read, and what is written there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers

from ..errors import TextError
from ..files import atomic_write
from .declared import ADDED, CONFIG, SPECIAL, Declared, read_declared
from .normalizer import FILE as NORMALIZER
from .normalizer import Normalizer
from .text_files import read_object_if_there, read_text
from .tokenizer_build import add_tokens, between, build
from .tokenizer_class import CLASSES, TokenizerClass, class_name
from .tokenizer_settings import TokenizerSettings, settings_of
from .vocabulary import Vocabulary, json_vocabulary, read_byte_pairs, read_pieces, read_vocab_txt, refusals

WHOLE, SENTENCEPIECE = "tokenizer.json", "tokenizer.model"
TOKENIZER_FILES = (WHOLE, CONFIG, SPECIAL, ADDED, NORMALIZER, "vocab.txt", "vocab.json", "merges.txt", "*.model")
"""Every file that is read here, for whoever fetches a model's directory."""
EXPORT = "finetune.json"
"""Beside a tokenizer that `training.export` wrote."""
_VOCABULARIES = (
    *("tokenizer*.json", "*vocab.txt", "*vocab.json", "*vocab.bpe", "*merges.txt", "*.model", "*.tiktoken"),
    *("bpe.codes", "dict.txt", "tekken.json"),
)


class TokenizerFiles(NamedTuple):
    """A tokenizer as it was read.

    Attributes:
      backend: the tokenizer of the `tokenizers` library.
      source: names it in errors.
      settings: its special tokens, limit and sides.
      normalize: what is done to every text first.
    """

    backend: tokenizers.Tokenizer
    source: str
    settings: TokenizerSettings
    normalize: Callable[[str], str] = str


def read_tokenizer_files(path: Path, family: str) -> TokenizerFiles | None:
    """Read the tokenizer of a directory, or None when it has none; see `Tokenizer.from_dir`.

    Raises:
      TextError: a file that is corrupt or not UTF-8, a class that is not read here, a vocabulary that the class does
        not read, or one that lacks what stands around a text.
    """
    there = sorted({file.name for pattern in _VOCABULARIES for file in path.glob(pattern)} - {CONFIG})
    if not there and not (path / CONFIG).exists():
        return None  # whatever class config.json names
    whole = read_object_if_there(path / WHOLE)
    declared = read_declared(path, whole)
    name = class_name(declared, read_object_if_there(path / "config.json"), family)
    kind = CLASSES.get(name)
    if (path / WHOLE).exists():
        return _read_whole(whole, declared, kind, path)
    if not there:
        return None
    found = None if kind is None else _read_parts(path, kind)
    if found is None or kind is None:
        wanted = f"{name} reads {WHOLE} or {' with '.join(kind.files)}" if kind else f"here only {WHOLE} is read"
        raise TextError(
            f"{path} holds {', '.join(there)}, but {wanted}. Is a file missing, or should tokenizer_class in {CONFIG} "
            "name another class?"
        )
    vocabulary, file = found
    return _of_class(kind, vocabulary, declared, whole, str(file))


def write_tokenizer_files(files: TokenizerFiles, max_length: int, directory: Path, *, segments: bool) -> None:
    """Write `tokenizer.json`, `tokenizer_config.json` and what else `read_tokenizer_files` needs; see `Tokenizer.save`.

    Args:
      files: the tokenizer.
      max_length: where a text is cut unless another length is asked for.
      directory: made if it does not exist.
      segments: whether the model is told the second text of a pair by its segment.
    """
    directory.mkdir(parents=True, exist_ok=True)
    added = files.backend.get_added_tokens_decoder()
    config = files.settings.to_config(max_length, segments=segments)
    # With this list transformers reads neither special_tokens_map.json nor added_tokens.json, of which old ones of
    # another tokenizer may lie here.
    config["added_tokens_decoder"] = {str(number): token.__getstate__() for number, token in added.items()}
    contents = {
        WHOLE: files.backend.to_str(pretty=True),
        CONFIG: json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n",
    }
    for name, text in contents.items():
        atomic_write(directory / name, text)
    if isinstance(files.normalize, Normalizer):
        files.normalize.save(directory / NORMALIZER)
    else:
        (directory / NORMALIZER).unlink(missing_ok=True)


def _of_class(
    kind: TokenizerClass, vocabulary: Vocabulary, declared: Declared, whole: dict[str, Any], source: str
) -> TokenizerFiles:
    if vocabulary.added is not None:
        declared = declared._replace(additional=[*vocabulary.added])
    settings = settings_of(declared, whole, tokens=kind.tokens, extra=kind.extra, segments=kind.segments)
    return TokenizerFiles(build(kind, vocabulary, declared, settings, source), source, settings)


def _read_whole(whole: dict[str, Any], declared: Declared, kind: TokenizerClass | None, path: Path) -> TokenizerFiles:
    source = path / WHOLE
    vocabulary = json_vocabulary(whole, source)
    with refusals(str(source)):
        backend = tokenizers.Tokenizer.from_str(read_text(source))
    normalize = Normalizer.read(path / NORMALIZER) if (path / NORMALIZER).exists() else str
    if kind is not None and kind.model == vocabulary.model:
        return _of_class(kind, vocabulary._replace(rows=backend.post_processor), declared, whole, str(source))
    # No class stands between; or one that cannot hold this vocabulary, a WordPiece beside a RoBERTa, say, of which
    # transformers makes a tokenizer of single letters, and nobody wants that.
    padding = whole.get("padding")
    tokens = {"pad_token": padding["pad_token"]} if isinstance(padding, dict) and "pad_token" in padding else {}
    # Exports of this library's first version were trained with segments, and do not say so.
    segments = (path / EXPORT).exists() if kind is None else kind.segments
    settings = settings_of(declared, whole, tokens=tokens, segments=segments)
    add_tokens(backend, declared, settings, str(source))
    backend.post_processor = backend.post_processor or between(backend, [], [])
    return TokenizerFiles(backend, str(source), settings, normalize)


def _read_parts(path: Path, kind: TokenizerClass) -> tuple[Vocabulary, Path] | None:
    """The vocabulary of a directory without `tokenizer.json`, by the files that the class has, and its file."""
    files = [path / name for name in kind.files]
    if kind.model == "Unigram" and not files[0].exists():
        files = [path / SENTENCEPIECE]
    if not all(file.exists() for file in files):
        return None
    if kind.model == "WordPiece":
        return read_vocab_txt(files[0]), files[0]
    if kind.model == "BPE":
        return read_byte_pairs(files[0], files[1]), files[0]
    return read_pieces(files[0]), files[0]
