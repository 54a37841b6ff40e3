"""The classes of a user's table: one type, no near twins, no numbers that are meant to be regressed on."""

import collections
import contextlib
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ...errors import DataError

COLUMN_BY_COLUMN = " Was the table written column by column? From pandas: to_json(orient='records', lines=True)."
# Of a table in which every row has a label of its own; below it may be chance.
_MANY = 20


class Labelled(NamedTuple):
    """A label as read, and the row it is from."""

    value: object
    where: str


def class_names(labels: Sequence[Labelled], path: Path) -> tuple[str, ...]:
    """The names of the classes, whole numbers in their order before all others.

    Args:
      labels: of all rows of the training file, none of them missing.
      path: of that file, for errors.

    Raises:
      DataError: a label that is no label, types that are mixed, numbers with a fraction, labels that differ in case or
        spaces alone, a single label, or a label of its own for every row.

    >>> class_names([Labelled("b", "row 1"), Labelled("a", "row 2"), Labelled("b", "row 3")], Path("a.csv"))
    ('a', 'b')
    """
    first: dict[str, Labelled] = {}
    types: dict[type, Labelled] = {}
    for each in labels:
        first.setdefault(label_name(each.value, each.where), each)
        types.setdefault(type(each.value), each)
    if len(types) > 1:
        seen = " and ".join(f"{each.value!r} ({each.where})" for each in types.values())
        raise DataError(f"labels must be all strings, all whole numbers or all booleans; got {seen}.")
    if all(_is_number(name) for name in first):
        for name, each in first.items():
            if not _is_whole(name):
                raise DataError(
                    f"{each.where}: the labels are numbers, and {name!r} is not whole. To regress on them, name the "
                    "column score (--columns text=NAME,score=NAME); classes are words or whole numbers. pandas writes "
                    "whole numbers so where cells are missing: astype('Int64') before saving."
                )
    _refuse_twins(first)
    if len(first) < 2:
        raise DataError(f"{path}: expected at least two labels; got {sorted(first)}.")
    if len(first) == len(labels) >= _MANY:
        raise DataError(f"{path}: no two of its {len(labels)} rows share a label. Is {next(iter(first))!r} a class?")
    return tuple(sorted(first, key=lambda name: (not _is_whole(name), int(name) if _is_whole(name) else 0, name)))


def missing_marks(labels: Iterable[object]) -> frozenset[str]:
    """What stands for a class that is missing: "-" beside words (SNLI), -1 beside 0, 1, 2 ... (`datasets`).

    A mark that the labels make a class of is none: "-" beside "+", and -1 beside 0 and 1 alone or beside -2.

    Args:
      labels: of the training file.

    >>> sorted(missing_marks(["entailment", "neutral", "-"])), missing_marks(["+", "-"])
    (['-', '--', '-1', '?'], frozenset())
    >>> missing_marks([0, 1, 2, -1]), missing_marks([-1, 0, 1])
    (frozenset({'-1'}), frozenset())
    """
    names = {str(label) for label in labels if isinstance(label, str | int)}
    words = names - _NO_CLASS
    if words and all(any(part.isalpha() for part in name) for name in words):
        return _NO_CLASS | {"-1"}
    numbers = names - {"-1"}
    counted = numbers == {str(number) for number in range(len(numbers))}
    return frozenset({"-1"} if counted and (len(numbers) > 2 or "-1" not in names) else ())


_NO_CLASS = frozenset(("-", "--", "?"))


def label_name(value: object, where: str) -> str:
    """The name of a class.

    Args:
      value: a string, a whole number or a boolean.
      where: file and line, for errors.

    Raises:
      DataError: another type.
    """
    if isinstance(value, str | int):
        return str(value)
    if isinstance(value, float):
        raise DataError(
            f"{where}: label must be a string or a whole number; got {value!r}. To regress on numbers, name the column "
            "score (--columns text=NAME,score=NAME). pandas makes such numbers of a column with missing cells: "
            "astype('Int64') before saving."
        )
    hints: dict[type, str] = {
        list: " An example has one label here; several are not supported.",
        dict: COLUMN_BY_COLUMN,
    }
    hint = hints.get(type(value), "")
    raise DataError(f"{where}: label must be a string or a whole number; got {value!r:.80}.{hint}")


def _refuse_twins(first: dict[str, Labelled]) -> None:
    """Labels that a person would take for one, such as "pos" and "Pos "."""
    folded: dict[str, list[str]] = collections.defaultdict(list)
    for name in first:
        bare = unicodedata.normalize("NFKC", name).casefold().strip()
        with contextlib.suppress(ValueError):
            bare = str(int(bare))
        folded[bare].append(name)
    for names in folded.values():
        if len(names) > 1:
            where = " and ".join(f"{name!r} ({first[name].where})" for name in names)
            raise DataError(
                f"labels that differ in case, spaces or zeros alone would be classes of their own: {where}."
            )


def _is_whole(name: str) -> bool:
    return name.strip().lstrip("+-").isdecimal()


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True
