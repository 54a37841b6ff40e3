"""Results as tables in long form, one number a row, for pandas, polars, R or a parquet file."""

import functools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from .comparison import Comparison
from .convergence import HeadConvergence
from .diagnosis import Diagnosis
from .fate import MapConvergence
from .spread import HIDDEN_METRICS, Spread
from .verification import Verification

if TYPE_CHECKING:
    import pyarrow

Row = dict[str, Any]

WHOLE = ("contraction", "tokens", "change")
"""Quantities of a text, not of a layer."""


def to_table(result: Any) -> "pyarrow.Table":
    """Every number of a result, one a row, with what it is a number of.

    Args:
      result: what `diagnose`, `compare`, `converge` or `verify` returned.

    Returns:
      A table of pyarrow, whose `to_pandas()` is a data frame and which `pyarrow.parquet.write_table` writes. Columns:
      of spreads over sentences `quantity`, `layer` (0 the embedding), `head`, `mean`, `std`, `min`, `max`, `count`,
      after `remedy` or `operator` where there are several; of a map's fate `quantity`, `layer`, `sentence`, `value`,
      `fate`; of a verification one row per check. What has no value is null.

    Raises:
      DataError: not a result.

    >>> import jaxsmooth
    >>> found = jaxsmooth.diagnose(*jaxsmooth.load("tiny"), ["A film worth seeing.", "Dull."])
    >>> to_table(found).column_names
    ['quantity', 'layer', 'head', 'mean', 'std', 'min', 'max', 'count']
    """
    return _table(_rows(result))


def texts_table(diagnosis: Diagnosis) -> "pyarrow.Table":
    """The values of each text, where `diagnose(each_text=True)` kept them.

    Args:
      diagnosis: what `diagnose` returned.

    Returns:
      A table with columns `text` (its place in what was read), `quantity`, `layer` (null of a whole text), `value`.

    Raises:
      DataError: the values were not kept.

    >>> import jaxsmooth
    >>> found = jaxsmooth.diagnose(*jaxsmooth.load("tiny"), ["A film worth seeing.", "Dull."], each_text=True)
    >>> texts_table(found).to_pylist()[0]["text"]
    0
    """
    texts = diagnosis.texts
    if texts is None or not texts.values:
        raise DataError("the diagnosis holds no values of single texts. Ask for them: diagnose(..., each_text=True).")
    rows = [
        {"text": text, "quantity": name, "layer": _layer(name, place), "value": _number(values[place, k])}
        for name, values in texts.values.items()
        for place in range(len(values))
        for k, text in enumerate(texts.places.tolist())
    ]
    return _table(rows)


def _table(rows: Any) -> "pyarrow.Table":
    import pyarrow as pa  # 60 ms that nobody else should pay

    return pa.Table.from_pylist(list(rows))


@functools.singledispatch
def _rows(result: Any) -> Iterator[Row]:
    raise DataError(f"result must be what a study returned; got {type(result).__name__}.")


@_rows.register
def _(result: Diagnosis) -> Iterator[Row]:
    yield from _spread_rows({**_spreads(result), **result.rates})
    if result.fused is not None:
        yield from _fused_rows(result.fused.label, result.fused.measures)


@_rows.register
def _(result: Comparison) -> Iterator[Row]:
    for entry in result.entries:
        spreads = _spreads(entry)
        shares = spreads.pop("attribution")
        for place, part in enumerate(result.parts):
            column = functools.partial(np.take, indices=place, axis=1)
            spreads[f"attribution_{place + 1}_{part}"] = shares.map(column)
        fused = (row for label, measures in entry.fused.items() for row in _fused_rows(label, measures))
        for row in (*_spread_rows({**spreads, **entry.rates}), *fused):
            yield {"remedy": entry.label, **row}


@_rows.register
def _(result: HeadConvergence) -> Iterator[Row]:
    for operator, spreads in result.operators.items():
        for row in _spread_rows(spreads):
            yield {"operator": operator, **row}


@_rows.register
def _(result: MapConvergence) -> Iterator[Row]:
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
def _(result: Verification) -> Iterator[Row]:
    for check in result.checks:
        yield {**{name: value for name, value in vars(check).items() if name != "counts"}, **check.counts}


def _spreads(result: Any) -> dict[str, Spread]:
    return {name: value for name, value in vars(result).items() if isinstance(value, Spread)}


def _fused_rows(label: str, measures: Mapping[str, Spread]) -> Iterator[Row]:
    for row in _spread_rows(measures):
        yield {**row, "quantity": f"{row['quantity']} of {label}", "layer": None}


def _spread_rows(spreads: Mapping[str, Spread]) -> Iterator[Row]:
    for name, spread in spreads.items():
        for place in np.ndindex(spread.mean.shape):
            yield {
                "quantity": name,
                "layer": _layer(name, place[0]),
                "head": place[1] if len(place) > 1 else None,
                **{field: _number(getattr(spread, field)[place]) for field in ("mean", "std", "min", "max")},
                "count": int(spread.count[place]),
            }


def _layer(quantity: str, place: int) -> int | None:
    """Of hidden states the first value is the embedding's, layer 0."""
    return None if quantity in WHOLE else place + (quantity not in HIDDEN_METRICS)


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
