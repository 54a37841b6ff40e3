"""The rows of CSV, TSV, JSON and parquet files.

The text formats are read by the standard library. Of pyarrow's readers, the one for CSV takes a quote that is never
closed for the rest of the file, and the one for JSON refuses columns of mixed types and makes dates of strings.
"""

import csv
import math
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..errors import DataError, arguments_checked
from ..files import format_name
from ..json_reading import loads
from ..paths import refuse_address
from .headers import refuse_separators, refuse_twins
from .lines import refuse_other_formats, utf8_lines

Missing = Literal["refuse", "skip", "literal"]

# What pandas, and through it `datasets`, takes for a missing cell.
_MISSING_WORDS = {"nan", "NaN", "-nan", "-NaN", "NA", "N/A", "n/a", "<NA>", "null", "NULL", "None"}
_MISSING_WORDS |= {"#NA", "#N/A", "#N/A N/A", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"}


class Row(NamedTuple):
    """One row.

    Attributes:
      cells: column -> cell: strings in TSV and CSV, else what the file holds.
      line: the line of the file on which the row begins; in parquet and in a JSON list the number of the row.
      where: file and line, for errors.
    """

    cells: dict[str, Any]
    line: int
    where: str


def is_table(path: Path) -> bool:
    """Whether the name is that of a table.

    >>> is_table(Path("reviews.CSV")), is_table(Path("reviews.txt"))
    (True, False)
    """
    return path.suffix.lower() in _READERS


def read_table(path: Path) -> Iterator[Row]:
    """The rows of one file, in the format that its suffix names.

    Args:
      path: a .csv, .tsv (with a header, without quoting), .jsonl or .json (one object per line, or a list of objects)
        or .parquet file; text is UTF-8.

    Yields:
      The rows, in the order of the file; empty lines are none.

    Raises:
      DataError: missing, unreadable, of an unknown suffix, without rows, or a row that is malformed.
    """
    if not os.path.exists(path):  # unlike Path's own it also answers for a name that is too long
        refuse_address(path, DataError)
        raise DataError(f"there is no file {path}.")
    if not is_table(path):
        _refuse_by_name(path)
    empty = True
    for row in _READERS[path.suffix.lower()](path):
        empty = False
        yield row
    if empty:
        raise DataError(f"{path} holds no rows; expected at least one.")


def tsv_cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The cells of a tab-separated file without quoting; LF or CR LF, a byte-order mark and empty lines dropped.

    Args:
      path: the file.

    Yields:
      The number and the cells of each line, the header's first.

    Raises:
      DataError: missing, or not UTF-8.
    """
    for number, raw in utf8_lines(path, DataError):
        line = raw.rstrip("\r\n")
        if line:
            yield number, line.split("\t")


def is_missing(cell: object, missing: Missing = "refuse") -> bool:
    """Whether a cell holds nothing: null, NaN, white space, or a word that pandas reads so (NA, nan, None, null ...).

    Args:
      cell: any.
      missing: "literal" takes the words for what they say.

    >>> [is_missing(cell) for cell in (None, float("nan"), " ", "NA", "no", 0)]
    [True, True, True, True, False, False]
    >>> is_missing("NA", "literal"), is_missing("", "literal")
    (False, True)
    """
    if isinstance(cell, str):
        bare = cell.strip()
        return not bare or (missing != "literal" and bare in _MISSING_WORDS)
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


@arguments_checked
def parse_columns(text: str) -> dict[str, str]:
    """What `--columns` says: role -> column.

    Args:
      text: as "text=review,label=stars"; "" for nothing.

    Raises:
      DataError: another form, or a role named twice.

    >>> parse_columns("text=review,label=star rating")
    {'text': 'review', 'label': 'star rating'}
    """
    found: dict[str, str] = {}
    for part in text.split(",") if text else ():
        role, equals, column = part.partition("=")
        if not equals or not role.strip() or role.strip() in found:
            raise DataError(f"columns must be as text=review,label=stars, each role once; got {text!r}.")
        found[role.strip()] = column
    return found


def _refuse_by_name(path: Path) -> None:
    if path.is_file():
        with path.open("rb") as file:
            refuse_other_formats(path, file, DataError)
    raise DataError(f"{path} must end in one of {', '.join(SUFFIXES)}; got {path.suffix or 'no suffix'!r}.")


def _tsv(path: Path) -> Iterator[Row]:
    quoted = own = 0
    for row in _under_header(path, tsv_cells(path), "A tab inside a cell? A TSV has no quoting: save it as CSV."):
        for cell in row.cells.values():
            # pandas and spreadsheets quote cells that hold a quote, also in a TSV.
            inside = cell[1:-1] if cell[:1] == cell[-1:] == '"' else ""
            if '""' in inside and '"' not in inside.replace('""', ""):
                raise DataError(f"{row.where}: {cell!r:.80} seems to be quoted. A TSV has no quoting: save it as CSV.")
            quoted += "," in inside and '"' not in inside
            own += ("," in cell) != bool(inside)
        yield row
    if quoted and not own:  # and those that hold a comma; else the quotes are the text's own
        raise DataError(f"{path}: every cell with a comma is in quotes. A TSV has no quoting: save it as CSV.")


def _csv(path: Path) -> Iterator[Row]:
    return _under_header(path, _csv_cells(path), "Is a comma inside a text not in quotes?")


def _csv_cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    # A text may be longer than the 131,072 characters that the module allows; it has no limit of one reader's own.
    csv.field_size_limit(2**31 - 1)
    # A lone CR ends a line too, as spreadsheets on old Macs wrote it; inside quotes it stays what it is.
    lines = (part for _, line in utf8_lines(path, DataError) for part in re.split("(?<=\r)(?!\n)", line) if part)
    reader = csv.reader(lines, strict=True)
    begin = 1
    try:
        for cells in reader:
            if cells:
                yield begin, cells
            begin = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, line {begin}: not CSV: {error}. Is a quote not closed, or not doubled?") from error


def _under_header(path: Path, lines: Iterator[tuple[int, list[str]]], cause: str) -> Iterator[Row]:
    """Rows of cells that have the names of the first."""
    _, header = next(lines, (1, []))
    refuse_separators(header, path)
    refuse_twins(header, path)
    for number, cells in lines:
        where = f"{path}, line {number}"
        if len(cells) != len(header):
            raise DataError(
                f"{where}: expected {len(header)} cells, for the columns {header}; got {len(cells)}. {cause}"
            )
        yield Row(dict(zip(header, cells, strict=True)), number, where)


def _json(path: Path) -> Iterator[Row]:
    """One object per line, a list of objects, or one object that is SQuAD's; which, the beginning says."""
    lines = utf8_lines(path, DataError)
    first: list[tuple[int, str]] = []
    for number, line in lines:
        first.append((number, line))
        if line.strip():
            break
    if first and _WHOLE.match(first[-1][1]):
        # Not lines: parsed whole, so that a list written over several lines is read as well.
        whole = _parsed("".join(line for _, line in [*first, *lines]), path, 1)
        items = _questions(whole, path) if isinstance(whole, dict) else whole
        numbered = ((number, f"{path}, row {number}", item) for number, item in enumerate(items, start=1))
    else:
        full = ((number, line.strip()) for part in (first, lines) for number, line in part if line.strip())
        numbered = ((number, f"{path}, line {number}", _parsed(line, path, number)) for number, line in full)
    for number, where, item in numbered:
        if not isinstance(item, dict):
            raise DataError(f"{where}: expected a JSON object; got {type(item).__name__}.")
        yield Row(item, number, where)


# A list, an object over several lines, or one in SQuAD's form.
_WHOLE = re.compile(r'\s*(\[|\{\s*$|\{\s*("version"\s*:\s*"[^"]*"\s*,\s*)?"data"\s*:\s*\[)')


def _questions(whole: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """The rows of SQuAD's nested form: data, paragraphs, qas."""
    try:
        return [
            {
                "id": item.get("id"),
                "question": item["question"],
                "context": paragraph["context"],
                "answers": {
                    name: [] if item.get("is_impossible") else [answer[name] for answer in item.get("answers", [])]
                    for name in ("text", "answer_start")
                },
            }
            for article in whole["data"]
            for paragraph in article["paragraphs"]
            for item in paragraph["qas"]
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is one JSON object, of {list(whole)[:8]}; expected one object per line, one list of objects, or "
            "SQuAD's data, paragraphs and qas. From pandas: to_json(orient='records', lines=True)."
        ) from error


def _parsed(text: str, path: Path, number: int) -> Any:
    try:
        return loads(text, object_pairs_hook=_unique)
    except ValueError as error:
        line = number + getattr(error, "lineno", 1) - 1
        raise DataError(
            f"{path}, line {line}: not JSON: {error}. Expected one object per line, or one list of objects."
        ) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError(f"a key occurs twice in {[key for key, _ in pairs]}")
    return found


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as file:
            names = file.schema_arrow.names
            refuse_twins(names, path)
            for batch in file.iter_batches():
                for cells in zip(*map(_pylist, batch.columns), strict=True):
                    number += 1
                    yield Row(dict(zip(names, cells, strict=True)), number, f"{path}, row {number}")
    except DataError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        with path.open("rb") as begin:
            start = begin.read(1024)
        what = f"is {format_name(start) or 'not a parquet file'}"
        if start[:4] == b"PAR1":
            what = f"cannot be read{f' after row {number}' * bool(number)}"
        raise DataError(f"{path} {what}: {str(error).rstrip('.')}. Was it copied or downloaded whole?") from error


def _pylist(column: Any) -> list[Any]:
    """A column's values; times as text, for Python may lack their nanoseconds and zones, and they disturb nobody."""
    import pyarrow

    kind = column.type
    if pyarrow.types.is_nested(kind) and "[ns" in str(kind):
        return [None] * len(column)
    if pyarrow.types.is_timestamp(kind) or pyarrow.types.is_time64(kind) or pyarrow.types.is_duration(kind):
        bare = column.view(pyarrow.timestamp(kind.unit)) if pyarrow.types.is_timestamp(kind) else column
        return bare.cast(pyarrow.string()).to_pylist()
    return column.to_pylist()


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _json,
    ".ndjson": _json,
    ".json": _json,
    ".parquet": _parquet,
}
SUFFIXES = tuple(_READERS)
