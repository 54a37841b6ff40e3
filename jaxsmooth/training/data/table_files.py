"""The rows of TSV, CSV, JSON lines and parquet files.

The text formats are read by the standard library. Of pyarrow's readers, the one for CSV takes a quote that is never
closed for the rest of the file, and the one for JSON refuses columns of mixed types and makes dates of strings.
"""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ...errors import DataError

Row = dict[str, Any]


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of one file as dictionaries, in the format that its suffix names.

    Args:
      path: a .tsv (with a header, without quoting), .csv, .jsonl or .parquet file; text is UTF-8.

    Yields:
      Column -> cell: strings in TSV and CSV, else what the file holds.

    Raises:
      DataError: missing, unreadable, of an unknown suffix, without rows, or a row that is malformed.
    """
    if path.suffix not in _READERS:
        raise DataError(f"{path} must end in one of {', '.join(SUFFIXES)}; got {path.suffix or 'no suffix'!r}.")
    if not path.is_file():
        raise DataError(f"there is no file {path}.")
    empty = True
    for row in _READERS[path.suffix](path):
        empty = False
        yield row
    if empty:
        raise DataError(f"{path} holds no rows; expected at least one.")


def tsv_cells(path: Path) -> Iterator[list[str]]:
    """The cells of a tab-separated file without quoting; LF or CR LF, a byte-order mark and empty lines dropped.

    Args:
      path: the file.

    Yields:
      The cells of each line, the header's first.

    Raises:
      DataError: missing, or not UTF-8.
    """
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                if line:
                    yield line.split("\t")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, line {number}: not UTF-8. Was it saved as Latin-1?") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


def _tsv(path: Path) -> Iterator[Row]:
    rows = tsv_cells(path)
    header = next(rows, [])
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise DataError(f"{path}, line {number}: expected {len(header)} columns, {header}; got {len(row)}.")
        yield dict(zip(header, row, strict=True))


def _csv(path: Path) -> Iterator[Row]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            for row in reader:
                if None in row or None in row.values():
                    raise DataError(f"{path}, line {reader.line_num}: expected the columns {reader.fieldnames}.")
                yield row
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV file in UTF-8: {error}.") from error


def _jsonl(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}, line {number}: not JSON in UTF-8: {error}. Expected one object.") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number}: expected a JSON object; got {type(row).__name__}.")
            yield row


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a parquet file: {error}") from error


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".tsv": _tsv,
    ".csv": _csv,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}
SUFFIXES = tuple(_READERS)
