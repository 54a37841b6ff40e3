"""Two results on the same texts, or remedies against none, compared text by text."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ...errors import DataError, arguments_checked
from ...results.comparison import Comparison
from ...results.each_text import TextValues
from ...results.spread import layer_of
from ...results.tables import ASK, rows_table
from ...theory.distribution_free import paired_difference

PLAIN = "none"
"""The model as it is, among the remedies of a comparison."""


@arguments_checked
def paired(first: Any, second: Any = None, *, confidence: float = 0.95) -> Any:
    """Every number of two results compared text by text: mean and median of the differences, shares, a sign test.

    Args:
      first: what `diagnose`, `compare` or `converge` returned with `each_text=True` (or a path).
      second: another such result, on the same texts in the same order: differences are the first's less its. Without
        it `first` is a `Comparison`, and differences are each remedy's less those of the model as it is.
      confidence: of each interval by itself. Where many are looked at, some miss by chance: to have m of them at once
        ask for 1 - 0.05 / m (Bonferroni).

    Returns:
      A table of pyarrow, one row a quantity, layer and head, after `remedy` or `operator` where there are several, with
      the fields of `theory.PairedDifference`; `.to_pandas()` makes a data frame of it.

    Raises:
      DataError: values of texts that were not kept, or of other texts, or of another kind of result.
      OptionError: a confidence out of range.

    >>> import jaxsmooth
    >>> model, tokenizer = jaxsmooth.load("tiny")
    >>> texts = ["A film worth seeing.", "Dull.", "A bore from start to end."]
    >>> one, two = (jaxsmooth.diagnose(model, tokenizer, texts, each_text=True) for _ in range(2))
    >>> set(paired(one, two)["mean"].to_pylist()) <= {0.0, None}
    True

    References: see `theory.paired_difference`.
    """
    one = _each(first)
    if second is None:
        if not isinstance(first, Comparison):
            raise DataError(
                f"one result alone must be a Comparison; got {type(first).__name__}. Give the other as well."
            )
        groups = [(entry.label, entry.label, PLAIN) for entry in first.entries[1:]]
        return rows_table(_rows(one, one, groups, confidence))
    other = _each(second)
    if type(first) is not type(second) or one.axis != other.axis:
        raise DataError(f"results must be of one kind; got {type(first).__name__} and {type(second).__name__}.")
    if one.read != other.read or not np.array_equal(one.positions, other.positions):
        held = (f"{len(each.positions):,} of {each.read:,}" for each in (one, other))
        raise DataError(
            f"the two results must hold the same texts in the same order; one holds {', the other '.join(held)}."
        )
    shared = [(group, group, group) for group in one.groups if group in other.groups]
    return rows_table(_rows(one, other, shared, confidence))


def _each(result: Any) -> TextValues:
    each = getattr(result, "each", None)
    if not isinstance(each, TextValues) or each.axis == "theorem":
        raise DataError(f"a {type(result).__name__} holds no numbers of each text to be compared. {ASK}")
    return each


def _rows(
    one: TextValues, other: TextValues, groups: list[tuple[str, str, str]], confidence: float
) -> Iterator[dict[str, Any]]:
    """`groups`: what a row is called, and whose values are compared."""
    for name, first, second in groups:
        for quantity in one.quantities(first):
            if quantity not in other.quantities(second):
                continue
            values, against = one.of(quantity, first), other.of(quantity, second)
            if values.shape != against.shape:
                continue  # models of different depth
            for place in np.ndindex(values.shape[:-1]):
                own = {one.axis: name} if one.axis else {}
                head = place[1] if len(place) > 1 else None
                found = paired_difference(values[place], against[place], confidence)
                where = {"quantity": quantity, "layer": layer_of(quantity, place[0]), "head": head}
                yield {**own, **where, **_plain(found._asdict())}


def _plain(numbers: dict[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and np.isnan(value) else value for name, value in numbers.items()}
