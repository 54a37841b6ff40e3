"""Results as tables in long form, one number a row, for pandas, polars, R or a parquet file."""

import functools
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, arguments_checked
from ..files import atomic_write
from .comparison import Comparison, attributions
from .convergence import HeadConvergence
from .diagnosis import Diagnosis
from .each_text import Choice, TextValues, checked, long_table, nan_quantiles
from .fate import MapConvergence
from .spread import Spread, layer_of
from .verification import Verification

if TYPE_CHECKING:
    import pyarrow

Row = dict[str, Any]
Shares = tuple[float, ...]

ASK = "Ask for them: diagnose(..., each_text=True), and compare, converge and verify likewise."
FIELDS = ("mean", "std", "standard_error", "min", "max")


@arguments_checked
def to_table(result: Any, *, quantiles: Shares = ()) -> "pyarrow.Table":
    """Every number of a result, one a row, with what it is a number of.

    Args:
      result: what `diagnose`, `compare`, `converge` or `verify` returned.
      quantiles: of the texts' values, from 0 to 1, a column each (0.05 makes `q0.05`); of a verification those of
        rhs / lhs. The study must have kept them: `each_text=True`.

    Returns:
      A table of pyarrow, whose `to_pandas()` is a data frame and which `pyarrow.parquet.write_table` writes. Columns:
      of spreads over sentences `quantity`, `layer` (0 the embedding), `head`, `mean`, `std`, `standard_error` (of the
      mean), `min`, `max`, `count`, after `remedy` or `operator` where there are several; of a map's fate `quantity`,
      `layer`, `sentence`, `value`, `fate`; of a verification one row per check. What has no value is null.

    Raises:
      DataError: not a result, or quantiles of one whose texts' values were not kept.
      OptionError: a quantile that is not from 0 to 1.

    >>> import jaxsmooth
    >>> found = jaxsmooth.diagnose(*jaxsmooth.load("tiny"), ["A film worth seeing.", "Dull."])
    >>> to_table(found).column_names
    ['quantity', 'layer', 'head', 'mean', 'std', 'standard_error', 'min', 'max', 'count']
    """
    if quantiles and getattr(result, "each", None) is None:
        raise DataError(f"quantiles are of the values of each text, which the result does not hold. {ASK}")
    return rows_table(_rows(result, quantiles))


@arguments_checked
def texts_table(result: Any) -> "pyarrow.Table":
    """The numbers of each text, where the study kept them: every quantity, layer and head.

    Args:
      result: what `diagnose`, `compare`, `converge` or `verify` returned with `each_text=True`, or with a path; of
        `converge` on a map of the model always.

    Returns:
      A table with columns `text` (its place in what was read), `quantity`, `layer` (null of a whole text), `head` (null
      but of heads), `value`, after `remedy` or `operator` where there are several; of a verification `theorem`, `text`,
      `layer`, `head`, `lhs`, `rhs`, `verdict`; the hypotheses' are `result.each_hypothesis.table()`, which is returned
      where no theorem was asked for.

    Raises:
      DataError: the values were not kept, or the file that they were written to cannot be read.

    >>> import jaxsmooth
    >>> found = jaxsmooth.diagnose(*jaxsmooth.load("tiny"), ["A film worth seeing.", "Dull."], each_text=True)
    >>> texts_table(found).to_pylist()[0]["text"]
    0
    """
    if isinstance(result, MapConvergence):
        return to_table(result).rename_columns(["quantity", "layer", "text", "value", "fate"])
    each = getattr(result, "each", None) or getattr(result, "each_hypothesis", None)
    if each is not None:
        table: pyarrow.Table = each.table()
        return table
    texts = getattr(result, "texts", None)
    if texts is None or not texts.values:
        raise DataError(f"the result holds no values of single texts. {ASK}")
    return long_table("", {"": texts.values}, texts.places)


def write_texts(result: Any, choice: Choice) -> None:
    """Write `texts_table` of a result that has every text anyway, where a study was asked to (`each_text` is a path).

    Raises:
      OptionError: no such choice.
      StorageError: no room on the disk.
    """
    if isinstance(checked(choice), (str, os.PathLike)):
        import pyarrow.parquet as pq

        atomic_write(Path(choice), lambda path: pq.write_table(texts_table(result), path))  # type: ignore[arg-type]


def rows_table(rows: Iterable[Row]) -> "pyarrow.Table":
    """A table of mappings, whose keys are the columns.

    >>> rows_table([{"layer": 1, "value": None}, {"layer": 2, "value": 0.5}]).num_rows
    2
    """
    import pyarrow as pa  # 60 ms that nobody else should pay

    return pa.Table.from_pylist(list(rows))


@functools.singledispatch
def _rows(result: Any, quantiles: Shares) -> Iterator[Row]:
    raise DataError(f"result must be what a study returned; got {type(result).__name__}.")


@_rows.register
def _(result: Diagnosis, quantiles: Shares) -> Iterator[Row]:
    own = {f"own/{name}": spread for name, spread in result.metrics.items()}
    spreads = _by_part(_spreads(result), result.parts)
    yield from _spread_rows({**spreads, **result.rates, **own}, quantiles, result.each)
    if result.fused is not None:
        yield from _fused_rows(result.fused.label, result.fused.measures, quantiles)


@_rows.register
def _(result: Comparison, quantiles: Shares) -> Iterator[Row]:
    for entry in result.entries:
        spreads = _by_part(_spreads(entry), result.parts)
        fused = (row for label, of in entry.fused.items() for row in _fused_rows(label, of, quantiles))
        own = _spread_rows({**spreads, **entry.rates}, quantiles, result.each, entry.label)
        for row in (*own, *fused):
            yield {"remedy": entry.label, **row}


def _by_part(spreads: dict[str, Spread], parts: tuple[str, ...]) -> dict[str, Spread]:
    """The attribution's columns, one for each part of a block, under names of their own."""
    shares = spreads.pop("attribution", None)
    if shares is None:
        return spreads
    columns = (functools.partial(np.take, indices=place, axis=1) for place in range(len(parts)))
    return spreads | {name: shares.map(column) for name, column in zip(attributions(parts), columns, strict=True)}


@_rows.register
def _(result: HeadConvergence, quantiles: Shares) -> Iterator[Row]:
    for operator, spreads in result.operators.items():
        for row in _spread_rows(spreads, quantiles, result.each, operator):
            yield {"operator": operator, **row}


@_rows.register
def _(result: MapConvergence, quantiles: Shares) -> Iterator[Row]:
    for one in result.maps:
        for name, values in one.numbers.items():
            for sentence, value in enumerate(values.tolist()):
                yield {
                    "quantity": name,
                    "layer": one.layer,
                    "sentence": sentence,
                    "value": _number(value),
                    "fate": one.fate[sentence],
                }


@_rows.register
def _(result: Verification, quantiles: Shares) -> Iterator[Row]:
    found: dict[str, NDArray[np.float64]] = {}
    for check in result.checks:
        row = {**{name: value for name, value in vars(check).items() if name != "counts"}, **check.counts}
        if quantiles and result.each is not None:
            if check.theorem not in found:
                found[check.theorem] = nan_quantiles(_tightness(result.each, check.theorem), quantiles)
            place = (check.layer - 1, *(() if check.head is None else (check.head,)))
            row |= _shares(quantiles, found[check.theorem], place)
        yield row


def _tightness(each: TextValues, theorem: str) -> NDArray[np.float64]:
    lhs, rhs = each.of("lhs", theorem), each.of("rhs", theorem)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(lhs > 0, rhs / lhs, np.nan)


def _spreads(result: Any) -> dict[str, Spread]:
    return {name: value for name, value in vars(result).items() if isinstance(value, Spread)}


def _fused_rows(label: str, measures: Mapping[str, Spread], quantiles: Shares) -> Iterator[Row]:
    for row in _spread_rows(measures, ()):
        none = {f"q{share:g}": None for share in quantiles}
        yield {**row, "quantity": f"{row['quantity']} of {label}", "layer": None, **none}


def _spread_rows(
    spreads: Mapping[str, Spread], quantiles: Shares, each: TextValues | None = None, group: str = ""
) -> Iterator[Row]:
    for name, spread in spreads.items():
        found = nan_quantiles(each.of(name, group), quantiles) if quantiles and each is not None else None
        for place in np.ndindex(spread.mean.shape):
            yield {
                "quantity": name,
                "layer": layer_of(name, place[0]),
                "head": place[1] if len(place) > 1 else None,
                **{field: _number(getattr(spread, field)[place]) for field in FIELDS},
                "count": int(spread.count[place]),
                **({} if found is None else _shares(quantiles, found, place)),
            }


def _shares(quantiles: Shares, found: NDArray[np.float64], place: tuple[int, ...]) -> Row:
    return {f"q{share:g}": _number(found[(k, *place)]) for k, share in enumerate(quantiles)}


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
