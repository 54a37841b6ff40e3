"""What the long experiments share: results kept entry by entry, tables in Markdown, rank correlations and intervals."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress
from scipy.stats import rankdata

from jaxsmooth.files import atomic_write, dumps_strict, strict
from jaxsmooth.terminal import PlainConsole

RESULTS = Path(__file__).parent / "results"


def kept(
    path: Path, work: Mapping[str, Callable[[], Mapping[str, Any]]], *, doing: str, again: bool = False
) -> dict[str, dict[str, Any]]:
    """The entries of a JSON file; those that it lacks are computed, and written as soon as they are there.

    So a run that was interrupted goes on where it was, and one that is complete computes nothing.

    Args:
      path: the file. Entries in it that are not asked for stay.
      work: of every entry its name, which says all that its numbers depend on, and what computes it.
      doing: what the progress bar says.
      again: whether to compute those that are there, too.

    Returns:
      Name -> entry, in the order of `work`, each with its `seconds` and `processor_seconds`.
    """
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    console = PlainConsole(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        for name in bar.track([name for name in work if again or name not in known], description=doing):
            clock, processor = time.perf_counter(), time.process_time()
            found = work[name]()
            spent = {"seconds": time.perf_counter() - clock, "processor_seconds": time.process_time() - processor}
            known[name] = strict({**found, **{key: round(value, 1) for key, value in spent.items()}})
            atomic_write(path, dumps_strict(known) + "\n")
    return {name: known[name] for name in work}


def write(folder: Path, name: str, found: Mapping[str, Any], page: str) -> None:
    """An experiment's result as JSON, and its page."""
    atomic_write(folder / f"{name}.json", dumps_strict(found, indent=1) + "\n")
    atomic_write(folder / f"{name}.md", page.strip() + "\n")


def rounded(values: Any, digits: int = 4) -> Any:
    """Nested lists of an array's numbers with so many significant digits.

    >>> rounded([[1.23456789]], 3)
    [[1.23]]
    """
    if np.ndim(values):
        return [rounded(value, digits) for value in values]
    return float(f"{float(values):.{digits}g}")


def numbers(values: Any) -> NDArray[np.float64]:
    """An array of what `rounded` gave and JSON kept; null is NaN.

    >>> numbers([[1.0, None]]).tolist()
    [[1.0, nan]]
    """
    return np.array(values, dtype=np.float64)  # numpy makes NaN of None


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; a "|" in a cell is escaped.

    >>> print(table(["layer", "cosine"], [["1", "0.2"]]))
    | layer | cosine |
    | --- | --- |
    | 1 | 0.2 |
    """
    lines = [[cell.replace("|", "\\|") for cell in line] for line in (head, ["---"] * len(head), *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def mean_and_error(values: NDArray, axis: int = -1) -> tuple[NDArray, NDArray]:
    """Mean and standard error of the mean, NaN left out; the error of one value is NaN.

    >>> [round(float(x), 4) for x in mean_and_error(np.array([1.0, 2.0, 3.0, np.nan]))]
    [2.0, 0.5774]
    """
    known = np.isfinite(values)
    count = known.sum(axis=axis)
    mean = np.where(known, values, 0).sum(axis=axis) / np.maximum(count, 1)
    squares = np.where(known, values - np.expand_dims(mean, axis), 0) ** 2
    error = np.sqrt(squares.sum(axis=axis) / np.maximum(count * (count - 1), 1))
    return np.where(count, mean, np.nan), np.where(count > 1, error, np.nan)


def rank_correlation(x: NDArray, y: NDArray) -> NDArray:
    """Spearman's rank correlation along the last axis, ties by their mean rank; NaN where one does not vary.

    >>> rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 8.0, 27.0])).round(12)
    np.float64(1.0)
    """
    a, b = (rankdata(side, axis=-1) for side in (x, y))
    a, b = (side - side.mean(axis=-1, keepdims=True) for side in (a, b))
    size = np.sqrt((a * a).sum(axis=-1) * (b * b).sum(axis=-1))
    return np.where(size > 0, (a * b).sum(axis=-1) / np.where(size > 0, size, 1), np.nan)


def partial_rank_correlation(x: NDArray, y: NDArray, given: NDArray) -> NDArray:
    """The rank correlation that is left when what both have in common with a third is taken out; NaN if nothing is.

    >>> length = np.array([1.0, 2.0, 3.0, 4.0])
    >>> partial_rank_correlation(length + [0, 2, 0, 0], length + [0, 0, 2, 0], length).round(3)
    np.float64(-0.408)
    """
    both, one, other = rank_correlation(x, y), rank_correlation(x, given), rank_correlation(y, given)
    left = np.sqrt(np.maximum((1 - one**2) * (1 - other**2), 0))
    found = np.where(left > 1e-9, (both - one * other) / np.where(left > 1e-9, left, 1), np.nan)
    return np.where(np.isnan(one) | np.isnan(other), both, found)  # a third that does not vary explains nothing


def bootstrap(
    statistic: Callable[[NDArray], NDArray], count: int, *, draws: int = 1000, seed: int = 0
) -> tuple[NDArray, NDArray]:
    """A 95% percentile interval of a statistic over cases, drawn anew with replacement.

    Args:
      statistic: of places of cases, [draws count], its value in every draw, [draws ...].
      count: how many cases there are.
      draws: how many times they are drawn.
      seed: of the draws; two statistics with one seed see the same draws (paired).

    Returns:
      The interval's ends, [...].
    """
    places = np.random.default_rng(seed).integers(0, count, (draws, count))
    return interval(statistic(places))


def interval(drawn: NDArray) -> tuple[NDArray, NDArray]:
    """The middle 95% of what was drawn, [draws ...], NaN left out; NaN where nothing is."""
    some = np.isfinite(drawn).any(axis=0)
    ends = np.nanpercentile(np.where(some, drawn, 0), [2.5, 97.5], axis=0)
    return np.where(some, ends[0], np.nan), np.where(some, ends[1], np.nan)


def spelled(value: float, low: float, high: float, form: str = ".2f") -> str:
    """A number with its interval, "?" for what is not known.

    >>> spelled(0.5, 0.4, 0.61)
    '0.50 [0.40, 0.61]'
    """
    shown = [format(x, form) if np.isfinite(x) else "?" for x in (value, low, high)]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]"
