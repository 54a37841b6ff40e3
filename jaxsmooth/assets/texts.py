"""Sentences from a text asset, from the package itself, or from a file."""

import importlib.resources
import itertools
import math
import warnings
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from pathlib import Path

from ..errors import TextError, require_int
from .fetch import fetch
from .registry import REGISTRY, Asset

TINY = "tiny"
"""Name of the sentences shipped in the package, and of the built-in model with random weights."""


class MalformedRowWarning(UserWarning):
    """Rows of a corpus that do not have its columns were skipped."""


def read_texts(source: str | Path, limit: int | None = None) -> list[str]:
    """Read sentences, in the order of the file.

    A file is UTF-8 with one sentence per line. A line ends at LF or CR LF and at nothing else (Unicode's other
    line breaks, such as U+2028, stay inside a sentence); a byte-order mark at the start is dropped; lines of
    white space alone are skipped; nothing else is changed. Reading stops after `limit` sentences, so a limit
    on a huge file is cheap, and a fault after that point goes unseen.

    Args:
      source: the name of a text asset (fetched if it is not in the cache), `tiny` for the sentences shipped in
        the package, or a file. A name wins over a file of the same name; a `Path`, or `./tweets`, is a file.
      limit: at most so many sentences, at least 1; None for all.

    Returns:
      At least one sentence.

    Raises:
      TextError: a file that is missing, unreadable, not UTF-8 or without text; a model's name; a bad limit.
      AssetError: the asset cannot be fetched.

    >>> read_texts("tiny", limit=1)
    ['The lighthouse keeper counted seven ships before breakfast.']
    """
    return list(stream_texts(source, limit))


def stream_texts(source: str | Path, limit: int | None = None) -> Iterator[str]:
    """As `read_texts`, one sentence at a time: a file of any length takes no memory.

    A wrong name, and a file without text, are refused at once; a fault further on when it is reached.

    >>> next(stream_texts("tiny"))
    'The lighthouse keeper counted seven ships before breakfast.'
    """
    require_int("limit", limit, 1, TextError, optional=True)
    if not isinstance(source, (str, Path)) or "\0" in str(source):
        raise TextError(f"source must be a string or a Path that can name a file; got {source!r:.80}.")
    sentences = itertools.islice(_stream(source), limit)
    first = next(sentences, None)
    if first is None:
        raise TextError(f"{source} holds no text: every line is empty. Expected one sentence per line.")
    return itertools.chain([first], sentences)


def read_rows(name: str, part: int = 0) -> list[tuple[str, ...]]:
    """Read the rows of a text asset: (id, score, text) or (topic, text), in the order of the file.

    Args:
      name: a text asset, fetched if it is not in the cache.
      part: which of its files: 0 is the corpus or its training part, 1 the held-out part of a topic corpus.

    Returns:
      A tuple of strings per row; a score is a finite number.

    Raises:
      TextError: a name or part that does not exist, or no rows.
      AssetError: the asset cannot be fetched.
    """
    asset = REGISTRY.get(name)
    if asset is None or asset.kind != "text":
        known = ", ".join(asset.name for asset in REGISTRY.values() if asset.kind == "text")
        raise TextError(f"there is no text asset {name!r}; the names are {known}.")
    if not 0 <= part < _parts(asset):
        raise TextError(f"{name} has {_parts(asset)} part(s); got part {part}.")
    path = fetch(name) / asset.files[part]
    rows = list(_rows(path, *_ROWS[asset.rows]))
    if not rows:
        raise TextError(f"{path} holds no rows.")
    return rows


def _parts(asset: Asset) -> int:
    # The second file of a sentiment corpus is its description.
    return 2 if asset.rows == "topic text" else 1


# What `Asset.rows` says -> lines of header, and the columns' names.
_ROWS = {"id score text": (0, ("id", "score", "text")), "topic text": (3, ("topic", "text"))}


def _stream(source: str | Path) -> Iterator[str]:
    if source == TINY:
        return _sentences(importlib.resources.files(__package__) / "tiny_sentences.txt")
    asset = REGISTRY.get(source) if isinstance(source, str) else None
    if asset is None:
        return _sentences(Path(source))
    if asset.kind != "text":
        raise TextError(f"{source} is a {asset.kind}, not a text; the texts are {_text_names()}.")
    path = fetch(asset.name) / asset.files[0]
    return (row[-1] for row in _rows(path, *_ROWS[asset.rows]))


def _sentences(path: Path | Traversable) -> Iterator[str]:
    return (line for line in _lines(path) if line.strip())


def _rows(path: Path, header: int, names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    malformed = 0
    for line in itertools.islice(_sentences(path), header, None):
        row = line.split("\t", len(names) - 1)
        numeric = all(_is_number(value) for name, value in zip(names, row, strict=False) if name == "score")
        if len(row) == len(names) and numeric and row[-1].strip():
            yield tuple(row)
        else:
            malformed += 1
    if malformed:
        message = f"{path}: skipped {malformed} rows that are not `{' TAB '.join(names)}`."
        warnings.warn(message, MalformedRowWarning, stacklevel=3)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _lines(path: Path | Traversable) -> Iterator[str]:
    offset = 0
    try:
        # Binary: text mode would also end lines at a lone CR, and lose the byte offset of a fault.
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                yield _decode(raw, path, number, offset)
                offset += len(raw)
    except FileNotFoundError as error:
        raise TextError(f"there is no file {path}, and no text of that name; the texts are {_text_names()}.") from error
    except OSError as error:
        raise TextError(f"{path} cannot be read: {error.strerror}. Expected a text file.") from error


def _decode(raw: bytes, path: Path | Traversable, number: int, offset: int) -> str:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TextError(
            f"{path}, line {number}: byte {offset + error.start} (0x{raw[error.start]:02x}) is not valid UTF-8. "
            "Was the file saved as Latin-1 or UTF-16? Save it as UTF-8."
        ) from error
    if number == 1:
        text = text.removeprefix("\ufeff")
    return text.removesuffix("\n").removesuffix("\r")


def _text_names() -> str:
    return ", ".join([TINY, *(asset.name for asset in REGISTRY.values() if asset.kind == "text")])
