"""Sentences from a text asset, from the package itself, from a file, or from a table's column."""

import contextlib
import importlib.resources
import itertools
import math
import os
import random
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import TextError, arguments_checked, did_you_mean, require_int
from ..paths import refuse_address
from .fetch import fetch
from .headers import refuse_table
from .lines import utf8_lines
from .registry import REGISTRY, Asset
from .tables import is_missing, is_table, read_table

TINY = "tiny"
"""Name of the sentences shipped in the package, and of the built-in model with random weights."""


STANDARD_INPUT = "-"
"""What standard input is called, as by other programs."""

COUNTED = 10**8
"""Bytes of the largest file whose sentences are counted before they are read."""

_LIKE_A_FILE = re.compile(r"[/\\]|\.[A-Za-z]\w{0,7}$|^~")


class MalformedRowWarning(UserWarning):
    """Rows of a corpus that do not have its columns, or of a table that have no text, were skipped."""


@arguments_checked
def read_texts(source: str | Path, limit: int | None = None, *, column: str = "text") -> list[str]:
    """Read sentences, in the order of the file.

    A file is UTF-8 with one sentence per line. A line ends at LF or CR LF and at nothing else (Unicode's other line
    breaks, such as U+2028, stay inside a sentence); a byte-order mark at the start is dropped; lines of white space
    alone are skipped; nothing else is changed. A table that is named as text is refused. Reading stops after
    `limit` sentences, so a limit on a huge file is cheap, and a fault after that point goes unseen. Of a table (see
    `tables.read_table`) one column is read; cells without text are skipped.

    Args:
      source: the name of a text asset (fetched if it is not in the cache), `tiny` for the sentences shipped in
        the package, a file, "-" for standard input (text, one sentence per line), or one sentence itself (see
        `is_sentence`). A name wins over a file of the same name; a `Path`, or `./tweets`, is a file.
      limit: at most so many sentences, at least 1; None for all.
      column: the one that holds the texts, where the source is a table.

    Returns:
      At least one sentence.

    Raises:
      TextError: a file that is missing, unreadable, not UTF-8, of another format or without text; a table without
        that column; a model's name; a bad limit.
      DataError: a table that cannot be read.
      AssetError: the asset cannot be fetched.

    >>> read_texts("tiny", limit=1)
    ['The lighthouse keeper counted seven ships before breakfast.']
    """
    return list(stream_texts(source, limit, column=column))


@arguments_checked
def stream_texts(source: str | Path, limit: int | None = None, *, column: str = "text") -> Iterator[str]:
    """As `read_texts`, one sentence at a time: a file of any length takes no memory.

    A wrong name, and a file without text, are refused at once; a fault further on when it is reached.

    >>> next(stream_texts("tiny"))
    'The lighthouse keeper counted seven ships before breakfast.'
    """
    return (text for _, text in numbered_texts(source, limit, column=column))


@arguments_checked
def count_texts(source: str | Path, limit: int | None = None, *, column: str = "text") -> int | None:
    """How many sentences `stream_texts` gives, for a display that says how many are left.

    Args:
      source: as of `read_texts`.
      limit: as of `read_texts`.
      column: as of `read_texts`.

    Returns:
      The number; None of what can be read only once, or would take long to count (without a limit, a file of more
      than `COUNTED` bytes).

    Raises:
      TextError: as `read_texts`, for a fault in any of the sentences.

    >>> count_texts("tiny", 5), count_texts("A film worth seeing.")
    (5, 1)
    """
    if source == STANDARD_INPUT:
        return None
    path = Path(source)
    if os.path.exists(path) and not (path.is_file() and (limit is not None or path.stat().st_size <= COUNTED)):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MalformedRowWarning)  # said when they are read
        return sum(1 for _ in numbered_texts(source, limit, column=column))


def is_sentence(source: str | Path) -> bool:
    """Whether what is named as data is a sentence itself: it has a space, and nothing in it is as in a file's name.

    That is: no slash, no "~" at its start, no ending such as .txt. A file of that very name comes first.

    Args:
      source: as of `read_texts`.

    >>> [is_sentence(text) for text in ("A film worth seeing.", "my reviews.txt", "my/two reviews", "Dull.")]
    [True, False, False, False]
    """
    return isinstance(source, str) and " " in source.strip() and not _LIKE_A_FILE.search(source)


@arguments_checked
def sample_texts(source: str | Path, limit: int | None, seed: int, *, column: str = "text") -> list[str]:
    """Sentences drawn at random from all of a source, each as likely as any other, in the order of the file.

    The whole source is read, and `limit` sentences are held at a time. Another seed draws others.

    Args:
      source: as of `read_texts`.
      limit: how many to draw; all where there are fewer.
      seed: at least 0.
      column: as of `read_texts`.

    Raises:
      TextError: as `read_texts`; no limit, or a bad seed.

    >>> len(sample_texts("tiny", 3, seed=0)), sample_texts("tiny", 3, seed=0) == sample_texts("tiny", 3, seed=0)
    (3, True)

    References: algorithm R of Vitter (1985), Random sampling with a reservoir.
    """
    if limit is None:
        raise TextError("a random sample needs a limit, how many texts to draw: --limit N; got None.")
    require_int("limit of a random sample", limit, 1, TextError)
    require_int("seed", seed, 0, TextError)
    draw = random.Random(seed)
    kept: list[tuple[int, str]] = []
    for place, (_, text) in enumerate(numbered_texts(source, column=column)):
        if len(kept) < limit:
            kept.append((place, text))
        elif (chosen := draw.randrange(place + 1)) < limit:
            kept[chosen] = (place, text)
    return [text for _, text in sorted(kept)]


@arguments_checked
def numbered_texts(source: str | Path, limit: int | None = None, *, column: str = "text") -> Iterator[tuple[int, str]]:
    """As `stream_texts`, each sentence with the line of the file that it stands on.

    >>> [line for line, _ in numbered_texts("tiny", 2)]
    [1, 2]
    """
    require_int("limit", limit, 1, TextError, optional=True)
    if not isinstance(source, (str, Path)) or "\0" in str(source):
        raise TextError(f"source must be a string or a Path that can name a file; got {source!r:.80}.")
    if column != "text" and not is_table(Path(source)):
        raise TextError(f"{source} is no table, so it has no column {column!r}; it is read one sentence per line.")
    sentences = itertools.islice(_stream(source, column), limit)
    first = next(sentences, None)
    if first is None:
        raise TextError(f"{source} holds no text: every line is empty. Expected one sentence per line.")
    return itertools.chain([first], sentences)


@arguments_checked
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
        known = [asset.name for asset in REGISTRY.values() if asset.kind == "text"]
        raise TextError(
            f"there is no text asset {name!r}; the names are {', '.join(known)}.{did_you_mean(name, known)}"
        )
    if not 0 <= part < _parts(asset):
        raise TextError(f"{name} has {_parts(asset)} part(s); got part {part}.")
    path = fetch(name) / asset.files[part]
    rows = [row for _, row in _rows(path, *_ROWS[asset.rows])]
    if not rows:
        raise TextError(f"{path} holds no rows.")
    return rows


def _parts(asset: Asset) -> int:
    # The second file of a sentiment corpus is its description.
    return 2 if asset.rows == "topic text" else 1


# What `Asset.rows` says -> lines of header, and the columns' names.
_ROWS = {"id score text": (0, ("id", "score", "text")), "topic text": (3, ("topic", "text"))}


def _stream(source: str | Path, column: str) -> Iterator[tuple[int, str]]:
    if source == TINY:
        return _sentences(importlib.resources.files(__package__) / "tiny_sentences.txt")
    asset = REGISTRY.get(source) if isinstance(source, str) else None
    if asset is None:
        return _of_file(source, column)
    if asset.kind != "text":
        raise TextError(f"{source} is a {asset.kind}, not a text; the texts are {', '.join(_text_names())}.")
    path = fetch(asset.name) / asset.files[0]
    return ((number, row[-1]) for number, row in _rows(path, *_ROWS[asset.rows]))


def _of_file(source: str | Path, column: str) -> Iterator[tuple[int, str]]:
    path = Path(source)
    if source == STANDARD_INPUT:
        return _prose(_StandardInput())
    if not os.path.exists(path):  # unlike Path's own it also answers for a name that is too long
        if is_sentence(source):
            return iter([(1, str(source))])
        refuse_address(source, TextError)
        raise TextError(
            f"there is no file {path}, and no text of that name; the texts are {', '.join(_text_names())}."
            f"{did_you_mean(source, _text_names()) or _SENTENCE}"
        )
    if is_table(path) and path.is_file():
        return _cells(path, column)
    return _prose(path)


_SENTENCE = (
    " A sentence in quotes is taken as it is if it has a space, no slash and no ending such as .txt; - is standard "
    "input."
)


class _StandardInput:
    """Standard input in the place of a file; it stays open."""

    def open(self, mode: str) -> contextlib.nullcontext[Any]:
        return contextlib.nullcontext(sys.stdin.buffer)

    def __str__(self) -> str:
        return "standard input"


def _cells(path: Path, column: str) -> Iterator[tuple[int, str]]:
    """The texts of a table's column; rows without one are left out and counted."""
    left_out: list[int] = []
    for place, row in enumerate(read_table(path)):
        # In JSON lines a later row may lack a key that the first has: then its text is missing.
        if place == 0 and column not in row.cells:
            raise TextError(
                f"{path} has no column {column!r}; its columns are {list(row.cells)}. Name the one that holds the "
                "texts: --text-column NAME, or --columns text=NAME. Does the first line name the columns?"
            )
        cell = row.cells.get(column)
        if is_missing(cell):
            left_out.append(row.line)
        elif isinstance(cell, str):
            yield row.line, cell
        else:
            raise TextError(f"{row.where}: {column} must be a string; got {cell!r:.80}.")
    if left_out:
        message = f"{path}: skipped {len(left_out)} rows without a text in {column}, the first in line {left_out[0]}."
        warnings.warn(message, MalformedRowWarning, stacklevel=3)


def _prose(path: Any) -> Iterator[tuple[int, str]]:
    """The sentences of a file that is named as text."""
    for place, (number, line) in enumerate(_sentences(path)):
        if place == 0:
            refuse_table(line, path)
        yield number, line


def _sentences(path: Any) -> Iterator[tuple[int, str]]:
    for number, line in utf8_lines(path, TextError):
        if number == 1 and "\r" in line.strip("\r\n") and not line.endswith("\n"):
            raise TextError(f"{path}: its lines end in CR alone, as on old Macs. Make them LF: tr '\\r' '\\n'.")
        if line.strip():
            yield number, line.removesuffix("\n").removesuffix("\r")


def _rows(path: Path, header: int, names: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
    malformed = 0
    for number, line in itertools.islice(_sentences(path), header, None):
        row = line.split("\t", len(names) - 1)
        numeric = all(_is_number(value) for name, value in zip(names, row, strict=False) if name == "score")
        if len(row) == len(names) and numeric and row[-1].strip():
            yield number, tuple(row)
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


def _text_names() -> list[str]:
    return [TINY, *(asset.name for asset in REGISTRY.values() if asset.kind == "text")]
