"""The first line of a table: names of columns, separators; and a table that is named as text."""

import re
import warnings
from pathlib import Path

from ..errors import DataError, TextError

LIKE = {
    "text": "text sentence sentence1 text1 texta review reviewtext comment commenttext content body tweet message "
    "premise input",
    "pair": "pair text2 textb textpair pairtext sentence2 sentenceb hypothesis",
    "label": "label labels target sentiment class category gold goldlabel y stars rating topic emotion intent",
    "score": "score scores similarity",
}
"""What others call a role, as `bare` gives it: named in refusals, never taken for it."""

_KNOWN = frozenset((*" ".join(LIKE.values()).split(), "id", "idx", "index", "question", "context", "title"))


class TableAsTextWarning(UserWarning):
    """A text file begins as a table does; its lines are read whole."""


def bare(name: str) -> str:
    """A column's name small and without spaces, "-" and "_".

    Args:
      name: of the column.

    >>> bare("Review-Text")
    'reviewtext'
    """
    return "".join(part for part in name.casefold() if part.isalnum())


def refuse_separators(header: list[str], path: Path) -> None:
    """Refuse a header that another separator than its format's holds together, as a CSV of spreadsheets in Europe.

    Args:
      header: its cells.
      path: of the file.

    Raises:
      DataError: names the separator.
    """
    whole = header[0] if header else ""
    marks = ";|," if path.suffix.lower() == ".tsv" else ";|\t"
    mark = whole[4:] if whole.startswith("sep=") else next((mark for mark in marks if mark in whole), None)
    if len(header) == 1 and mark is not None:
        raise DataError(
            f"{path}: its first line is {whole!r:.80}. Are its cells separated by {mark!r}? Save it with commas as "
            ".csv, or with tabs as .tsv."
        )


def refuse_twins(header: list[str], path: Path) -> None:
    """Refuse two columns of one name. Without a name, as spreadsheets leave them at the end, none can be asked for.

    Args:
      header: the columns.
      path: of the file.

    Raises:
      DataError: names them.
    """
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise DataError(f"{path}: every column must have a name of its own; {twice} occur twice in {header}.")


def refuse_table(line: str, path: object) -> None:
    """Refuse a table that is named as text: its header and its cells would be read as sentences.

    Args:
      line: the first with text.
      path: of the file.

    Raises:
      TextError: the line is JSON, or names columns.
    """
    start = line.strip()
    if start in ("{", "[") or re.match(r'\[?\s*\{\s*"', start):
        raise TextError(f"{path} is JSON: give it a name that ends in .jsonl or .json. Expected one sentence per line.")
    names = re.split(r"[,;\t|]", start)
    if sum(bare(name) in _KNOWN for name in names) > 1 and all(len(name.split()) < 2 for name in names):
        raise TextError(
            f"{path} seems to be a table, of the columns {names}: give it a name that ends in .csv or .tsv. Expected "
            "one sentence per line."
        )
    if start.startswith("__label__"):
        raise TextError(f"{path} is in fastText's form, a label before each text. Expected the texts alone.")
    if "\t" in start:
        warnings.warn(
            f"{path}: the first line holds a tab, and is read whole. If it is a table, name its columns in a first "
            "line, and it .tsv.",
            TableAsTextWarning,
            stacklevel=5,
        )
