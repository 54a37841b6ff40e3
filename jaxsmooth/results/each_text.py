"""Every number of every text: kept in memory, of a bounded random sample, or written to a file, of all texts."""

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError, OptionError
from ..files import spelled_out, storage_fault
from .brief import Brief
from .spread import layer_of
from .texts import KEPT, KeptTexts

if TYPE_CHECKING:
    import pyarrow

Choice = bool | int | str | os.PathLike[str]
"""Of a study's `each_text`: False; True, in memory; a number, in memory and of at most so many texts; a path that ends
in .parquet, in that file."""

MEMORY = 2**28
"""Bytes that the values of the texts may take with `each_text=True`: of more texts, a random sample that fits."""

ROWS = 2**20
"""Rows of a table that are written at once."""

VERDICTS = ("CONFIRMED", "VIOLATED", "UNDECIDED", "NOT_APPLICABLE")
"""lhs <= rhs is proved for these numbers; disproved; undecided by every method; not claimed by the theorem."""

TRUTHS = ("HOLDS", "FAILS", "UNDECIDED", "NOT_APPLICABLE")
"""A hypothesis is proved for these numbers; disproved; neither; not asked of such a model or sentence."""

THEOREM, HYPOTHESIS = "theorem", "hypothesis"
"""The axes of a verification."""

SIDES = {THEOREM: (("lhs", "rhs"), VERDICTS), HYPOTHESIS: (("least", "largest"), TRUTHS)}
"""Those axes, whose rows have two numbers and a verdict in the place of a quantity and a value."""

Arrays = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, repr=False)
class TextValues(Brief):
    """The values of each text.

    Attributes:
      axis: what `values` is by: "remedy", "operator", "theorem", "hypothesis", or "" for nothing, with the one key "".
      read: how many texts were read.
      places: the kept texts' positions in what was read, ascending, [n].
      values: by `axis`, then by quantity: [K n] of K layers, or of heads [K N n]; NaN where a text has no value. Of a
        theorem `lhs` and `rhs`, rounded against the verdict as in `Check`, and `verdict`, a place in `VERDICTS`. Of a
        hypothesis `least` and `largest`, the ends of the enclosure of the number that it is about, and `verdict`, a
        place in `TRUTHS`; of the whole stack of layers under its name and "/stack".
      file: where the values are instead, of all texts, if the study was asked to write them; else "".
    """

    axis: str
    read: int
    places: NDArray[np.int64]
    values: dict[str, dict[str, NDArray[np.float64]]]
    file: str = ""

    @property
    def positions(self) -> NDArray[np.int64]:
        """Which texts `of` gives the values of, [n]: all that were read, of a file."""
        return np.arange(self.read) if self.file else self.places

    @property
    def groups(self) -> tuple[str, ...]:
        """The remedies, operators or theorems there are; ("",) where there is one of each number."""
        if not self.file:
            return tuple(self.values)
        return tuple(_read(self.file, columns=[self.axis])[self.axis].unique().to_pylist()) if self.axis else ("",)

    def quantities(self, group: str = "") -> tuple[str, ...]:
        """The names of what was kept."""
        if not self.file:
            return tuple(self.values.get(group, {}))
        filters = [(self.axis, "=", group)] if self.axis else None
        if self.axis in SIDES:
            return (*SIDES[self.axis][0], "verdict")
        return tuple(_read(self.file, filters, ["quantity"])["quantity"].unique().to_pylist())

    def of(self, quantity: str, group: str = "") -> NDArray[np.float64]:
        """One quantity's values, [K n] or [K N n], texts in the order of `positions`.

        Args:
          quantity: as in the table.
          group: which remedy, operator or theorem.

        Raises:
          DataError: there is no such quantity or group, or the file is gone.
        """
        found = self._of_file(quantity, group) if self.file else self.values.get(group, {}).get(quantity)
        if found is None:
            known = {key: sorted(own) for key, own in self.values.items()}
            where = f" of {group!r}" if group else ""
            raise DataError(f"no values of {quantity!r}{where} were kept; there are {known or self.file}.")
        return found

    def quantiles(
        self, quantity: str, shares: Sequence[float] = (0.05, 0.25, 0.5, 0.75, 0.95), group: str = ""
    ) -> NDArray[np.float64]:
        """Quantiles over the texts that have a value, [Q K] or [Q K N]; NaN where none has.

        Of a random sample of the texts where not all were kept. Between two values they are interpolated linearly.
        """
        return nan_quantiles(self.of(quantity, group), shares)

    def table(self) -> "pyarrow.Table":
        """The table in long form: `axis`, text, quantity, layer, head, value; as `SIDES` of theorems and hypotheses."""
        return _read(self.file) if self.file else long_table(self.axis, self.values, self.places)

    def _of_file(self, quantity: str, group: str) -> NDArray[np.float64] | None:
        wide = self.axis in SIDES
        asked = [] if wide else [("quantity", "=", quantity)]
        rows = _read(self.file, [*asked, *([(self.axis, "=", group)] if self.axis else [])])
        column = quantity if wide else "value"
        if not rows.num_rows or column not in rows.column_names:
            return None
        layer, head, text = (
            np.nan_to_num(rows[name].to_numpy(zero_copy_only=False).astype(np.float64), nan=-1)
            for name in ("layer", "head", "text")
        )
        found = rows[column]
        if wide and column == "verdict":
            values = np.array([SIDES[self.axis][1].index(name) for name in found.to_pylist()], np.float64)
        else:
            values = found.to_numpy(zero_copy_only=False).astype(np.float64)
        sizes = [len(np.unique(axis)) for axis in (layer, head, text)]
        shaped = values[np.lexsort((text, head, layer))].reshape(sizes)
        return shaped if np.any(head >= 0) else shaped[:, 0]


def nan_quantiles(values: NDArray[np.float64], shares: Sequence[float]) -> NDArray[np.float64]:
    """Quantiles along the last axis, NaN left out.

    Raises:
      OptionError: a share that is not from 0 to 1.

    >>> nan_quantiles(np.array([[1.0, np.nan, 3.0], [np.nan, np.nan, np.nan]]), (0.5,))
    array([[ 2., nan]])
    """
    if any(not 0 <= share <= 1 for share in shares):
        raise OptionError(f"quantiles must be from 0 to 1, as in 0.95; got {tuple(shares)}.")
    ordered = np.sort(values, axis=-1)  # NaN last
    count = np.sum(~np.isnan(values), axis=-1)
    found = []
    for share in shares:
        place = share * np.maximum(count - 1, 0)
        low = np.floor(place).astype(np.int64)
        high = np.minimum(low + 1, np.maximum(count - 1, 0))
        below, above = (np.take_along_axis(ordered, at[..., None], -1)[..., 0] for at in (low, high))
        # Not below + part * (above - below): infinite values have no difference.
        part = place - low
        with np.errstate(invalid="ignore"):
            between = np.where(part == 0, below, (1 - part) * below + part * above)
        found.append(np.where(count > 0, between, np.nan))
    return np.array(found).reshape(len(shares), *values.shape[:-1])


class TextKeeper:
    """Takes the values of a stream of texts, batch by batch, as a `Choice` says; a context manager, for the file.

    >>> with TextKeeper(True) as keeper:
    ...     keeper.add({"": {"rate": np.array([[0.5, 0.7, 9.0]])}}, np.array([0, 1]))  # the third row is a filler
    >>> keeper.found().of("rate")
    array([[0.5, 0.7]])
    """

    def __init__(self, choice: Choice, axis: str = "") -> None:
        self._choice, self._axis = checked(choice), axis
        self._kept: KeptTexts | None = None
        self._shapes: dict[tuple[str, str], tuple[int, ...]] = {}
        self._file = (
            _Spill(Path(spelled_out(Path(choice))).absolute()) if isinstance(choice, (str, os.PathLike)) else None
        )
        self._read = 0

    def __bool__(self) -> bool:
        """Whether anything is to be kept."""
        return self._choice is not False

    def __enter__(self) -> "TextKeeper":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close(whole=error is None)

    def add(self, measured: Mapping[str, Arrays], places: NDArray[np.int64]) -> None:
        """Add a batch: by the axis, then by quantity, [K B] or [K B N]; the first of its B texts stand at `places`."""
        if not self:
            return
        self._read += len(places)
        arrays = {
            group: {name: np.moveaxis(np.asarray(array)[:, : len(places)], 1, -1) for name, array in of.items()}
            for group, of in measured.items()
        }
        if self._file is not None:
            self._file.write(long_table(self._axis, arrays, places))
            return
        flat = {(group, name): array for group, of in arrays.items() for name, array in of.items()}
        self._shapes = {key: array.shape[:-1] for key, array in flat.items()}
        if self._kept is None:
            self._kept = KeptTexts(self._limit())
        self._kept.add({key: array.reshape(-1, len(places)) for key, array in flat.items()}, places)

    def found(self) -> TextValues | None:
        """What was kept; None where nothing was asked for. After the `with` block, if it goes to a file."""
        if not self:
            return None
        if self._file is not None:
            return TextValues(self._axis, self._read, np.empty(0, np.int64), {}, str(self._file.path))
        places, flat = (np.empty(0, np.int64), {}) if self._kept is None else self._kept.found()
        values: dict[str, dict[str, NDArray[np.float64]]] = {}
        for (group, name), array in flat.items():
            values.setdefault(group, {})[name] = array.reshape(*self._shapes[group, name], -1)
        return TextValues(self._axis, self._read, places, values)

    def _limit(self) -> int:
        if self._choice is not True:
            assert isinstance(self._choice, (int, np.integer))  # a path has a file
            return int(self._choice)
        numbers = sum(math.prod(shape) for shape in self._shapes.values())
        return min(KEPT, max(1, MEMORY // (8 * max(1, numbers))))


class _Spill:
    """A parquet file that grows by row groups, and takes its place when it is whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._part = path.with_name(f".{path.name}.part")
        self._writer: Any = None
        self._waiting: list[Any] = []

    def write(self, table: "pyarrow.Table") -> None:
        self._waiting.append(table)
        if sum(each.num_rows for each in self._waiting) >= ROWS:
            self._flush()

    def close(self, *, whole: bool) -> None:
        with self._room():
            if whole:
                self._flush()
            if self._writer is not None:
                self._writer.close()
                if whole:
                    self._part.replace(self.path)
            self._part.unlink(missing_ok=True)

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._waiting:
            return
        with self._room():
            table = pa.concat_tables(self._waiting).unify_dictionaries()
            self._waiting = []
            if self._writer is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._writer = pq.ParquetWriter(self._part, table.schema, compression="zstd")
            self._writer.write_table(table)

    @contextlib.contextmanager
    def _room(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise storage_fault(error, self.path) or error from error


def long_table(axis: str, values: Mapping[str, Arrays], places: ArrayLike) -> "pyarrow.Table":
    """Values in long form, one a row, made column by column.

    Args:
      axis: as of `TextValues`.
      values: by the axis, then by quantity, [K n] or [K N n].
      places: the texts' positions, [n].

    >>> long_table("", {"": {"rate": np.array([[0.5], [np.nan]])}}, [7]).to_pylist()[1]
    {'text': 7, 'quantity': 'rate', 'layer': 2, 'head': None, 'value': None}
    """
    import pyarrow as pa

    names = [(group, name) for group, of in values.items() for name in of]
    sides, verdicts = SIDES.get(axis, ((), ()))
    if sides:
        names = [(group, sides[0]) for group in values]
    arrays = [np.asarray(values[group][name], np.float64) for group, name in names]
    sizes = [array.size for array in arrays]
    columns: dict[str, Any] = {axis: _words([group for group, _ in names], sizes)} if axis else {}
    columns["text"] = pa.array(_joined([np.broadcast_to(np.asarray(places, np.int64), a.shape) for a in arrays], int))
    if not sides:
        columns["quantity"] = _words([name for _, name in names], sizes)
    named = [group if sides else name for group, name in names]
    columns["layer"] = _numbers([_layers(name, array) for name, array in zip(named, arrays, strict=True)])
    columns["head"] = _numbers([_heads(array) for array in arrays])
    if not sides:
        columns["value"] = pa.array(_joined(arrays), from_pandas=True)
        return pa.table(columns)
    for side in sides:
        columns[side] = pa.array(
            _joined([np.asarray(of[side], np.float64) for of in values.values()]), from_pandas=True
        )
    codes = _joined([np.asarray(of["verdict"], np.int32) for of in values.values()], np.int32)
    columns["verdict"] = pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), list(verdicts))
    return pa.table(columns)


def _joined(arrays: list[NDArray], dtype: Any = np.float64) -> NDArray:
    return np.concatenate([array.ravel() for array in arrays]) if arrays else np.empty(0, dtype)


def _words(names: list[str], sizes: list[int]) -> Any:
    import pyarrow as pa

    distinct = list(dict.fromkeys(names))
    codes = np.repeat(np.array([distinct.index(name) for name in names], np.int32), sizes)
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(distinct, pa.string()))


def _numbers(arrays: list[NDArray]) -> Any:
    import pyarrow as pa

    whole = _joined(arrays, np.int32)
    return pa.array(whole.astype(np.int32), mask=whole < 0)


def _layers(quantity: str, array: NDArray) -> NDArray:
    layers = [layer_of(quantity, place) for place in range(array.shape[0])]
    known = np.array([-1 if layer is None else layer for layer in layers])
    return np.broadcast_to(known.reshape(-1, *(1,) * (array.ndim - 1)), array.shape)


def _heads(array: NDArray) -> NDArray:
    if array.ndim == 2:
        return np.full(array.shape, -1)
    return np.broadcast_to(np.arange(array.shape[1])[None, :, None], array.shape)


def _read(file: str, filters: Any = None, columns: list[str] | None = None) -> "pyarrow.Table":
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(file, columns=columns, filters=filters or None)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(
            f"the texts' values were written to {file}, which cannot be read: {error}. Was it moved?"
        ) from error


def checked(choice: Choice) -> Choice:
    """The choice, if it is one.

    Raises:
      OptionError: says what one is.

    >>> checked(True), checked("texts.parquet")
    (True, 'texts.parquet')
    """
    if isinstance(choice, (str, os.PathLike)):
        if Path(choice).suffix != ".parquet":
            raise OptionError(
                f"each_text must be a path that ends in .parquet, a number of texts, or True; got {choice!s}."
            )
    elif not isinstance(choice, (bool, np.bool_)) and (not isinstance(choice, (int, np.integer)) or choice < 1):
        raise OptionError(
            f"each_text must be True, a number of texts of at least 1, or a .parquet path; got {choice!r}."
        )
    return bool(choice) if isinstance(choice, np.bool_) else choice
