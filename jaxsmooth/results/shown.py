"""What every result of a study can do: show itself, draw itself, be kept in a file, become a table.

The one arrow of the package that points up is here: pictures and HTML are `report`'s, which knows `results`. It is
found by its name when a result is first drawn: to be computed, kept or read a result needs neither Altair nor a page.
"""

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ..errors import DataError
from .brief import Brief, one_line
from .summaries import DataSummary, ModelSummary

if TYPE_CHECKING:
    import pyarrow


class Shown(Brief):
    """A result of a study: `repr`, HTML, `plot`, `save`, `load`, tables.

    >>> import jaxsmooth
    >>> found = jaxsmooth.diagnose(*jaxsmooth.load("tiny"), ["A film worth seeing.", "Dull."], name="tiny")
    >>> print(repr(found).splitlines()[0])
    Diagnosis of tiny (random weights, not a trained model) on 2 sentences of texts: 26 tokens, float32
    >>> found.to_table().num_rows > 100
    True
    """

    model: ModelSummary
    data: DataSummary

    def in_short(self) -> str:
        """The numbers that matter most, in one line."""
        raise NotImplementedError

    def __repr__(self) -> str:
        model, data = self.model, self.data
        about = f"{type(self).__name__} of {model.label} on {data.label}"
        return f"{one_line(about)}: {data.tokens:,} tokens, {model.precision}\n{one_line(self.in_short())}"

    def _repr_html_(self) -> str:
        """What a notebook shows: the answer in words, a table, a figure."""
        return _report().html(self)

    def plot(self, kind: str | None = None, *, style: str = "house") -> Any:
        """Draw one figure.

        Args:
          kind: which, one of `kinds()`; the first of them unless given.
          style: "house" for the screen, as on the page; "paper" for the column of a two-column paper: 3.25 inches wide,
            no title (a caption says it), no letter below 7 points.

        Returns:
          A `jaxsmooth.report.Figure`: notebooks show it; `figure.save("ladder.pdf")` writes PNG, SVG or PDF;
          `figure.chart` is the Altair chart, for changes of your own.

        Raises:
          OptionError: a kind or style that does not exist; the message lists those that do.
        """
        return _report().plot(self, kind, style=style)

    def kinds(self) -> tuple[str, ...]:
        """What `plot` can draw of this result, the default first."""
        return _report().kinds(self)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Keep it in a file, to the bit; see `results.save_result`."""
        from .saved import save_result  # which knows every result

        return save_result(self, path)  # type: ignore[arg-type]  # whose every kind of result is a `Shown`

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """What `save` kept.

        Raises:
          DataError: not such a file, or one of another kind of result.
          StorageError: the file is not there or cannot be read.
        """
        from .saved import load_result

        found = load_result(path)
        if not isinstance(found, cls):
            raise DataError(
                f"{path} holds a {type(found).__name__}; expected a {cls.__name__}. `results.load_result` reads any."
            )
        return found

    def to_table(self, *, each_text: bool = False, quantiles: tuple[float, ...] = ()) -> "pyarrow.Table":
        """Every number, one a row, as a table of pyarrow; see `results.to_table` and `results.texts_table`.

        Args:
          each_text: the numbers of every text, where the study kept them, in the place of their spreads.
          quantiles: of the texts' values, as (0.05, 0.5, 0.95), where the study kept them: a column each.
        """
        from .tables import texts_table, to_table

        return texts_table(self) if each_text else to_table(self, quantiles=quantiles)

    def to_pandas(self, *, each_text: bool = False, quantiles: tuple[float, ...] = ()) -> Any:
        """The same as a data frame of pandas, in long form.

        Args:
          each_text: as of `to_table`.
          quantiles: as of `to_table`.

        Raises:
          DataError: pandas is not installed, or the texts' values were not kept.
        """
        return as_pandas(self.to_table(each_text=each_text, quantiles=quantiles))


def as_pandas(table: "pyarrow.Table") -> Any:
    """A data frame of a table.

    Raises:
      DataError: pandas is not installed.
    """
    try:
        import pandas  # type: ignore[import-untyped]  # noqa: F401  pyarrow's own message does not say what to install
    except ImportError as error:
        raise DataError(
            "to_pandas() needs pandas, which is not installed: `pip install pandas`, or jaxsmooth[pandas]. "
            "to_table() gives the same numbers as a table of pyarrow, without it."
        ) from error
    return table.to_pandas()


def _report() -> Any:
    return importlib.import_module("..report.shown.html", __package__)
