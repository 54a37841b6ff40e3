"""One row of a user's table, by role, to an example; what does not fit is refused with its line."""

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any

from ...assets.tables import Missing, Row, is_missing
from ...errors import DataError
from .labels import COLUMN_BY_COLUMN, label_name
from .tasks import Choice, Example, Kind, Question, Sentence


@dataclasses.dataclass(frozen=True, slots=True)
class Cells:
    """One row by role.

    Attributes:
      values: role -> cell; None where a JSON line lacks the key. Only roles whose column the table has.
      where: file and line, for errors.
      line: in the file.
      id: the row's own, else its number.
    """

    values: dict[str, Any]
    where: str
    line: int
    id: str

    @classmethod
    def of(cls, row: Row, columns: Mapping[str, str], number: int) -> "Cells":
        """The cells of a row.

        Args:
          row: as read.
          columns: role -> column.
          number: of the row, from 1.
        """
        values = {role: row.cells.get(column) for role, column in columns.items()}
        own = values.get("id")
        return cls(values, row.where, row.line, str(number if is_missing(own) else own))


def first_missing(kind: Kind, cells: Cells, missing: Missing, marks: Collection[str] = ()) -> str | None:
    """The first role that must have a value and has none.

    Args:
      kind: of the task. Of a span the answer may be missing: the question has none.
      cells: of the row.
      missing: how words such as NA are read.
      marks: what stands for a missing class, unless `missing` is "literal".
    """
    row = cells.values
    choices = [role for role in row if role.startswith("choice")]
    needed = {"span": ("question", "context"), "choice": ("prompt", *choices, "label")}.get(
        kind, ("text", "pair", "label", "score")
    )

    def lacks(role: str) -> bool:
        parts = row[role] if isinstance(row[role], list) and role == "choices" else [row[role]]
        marked = role == "label" and missing != "literal" and str(row[role]) in marks
        return marked or any(is_missing(part, missing) for part in parts)

    return next((role for role in needed if role in row and lacks(role)), None)


def make_example(kind: Kind, cells: Cells, classes: tuple[str, ...]) -> Example:
    """The example of a row.

    Args:
      kind: of the task.
      cells: of the row; without a target the example has no label.
      classes: of a classification.

    Raises:
      DataError: a cell that is not what it must be.
    """
    row = cells.values
    match kind:
        case "span":
            return _question(cells)
        case "choice":
            return _choice(cells)
    label: int | float | None = None
    if "label" in row:
        label = _class(cells, classes)
    elif "score" in row:
        label = _number(cells)
    pair = _text(cells, "pair") if "pair" in row else None
    return Sentence(_text(cells, "text"), pair=pair, label=label, id=cells.id, line=cells.line)


def _question(cells: Cells) -> Question:
    row, where = cells.values, cells.where
    context = _text(cells, "context")
    pairs = [] if not {"answer", "answers"} & row.keys() else _answers(row, where)
    for text, start in pairs:
        if start < 0 or context[start : start + len(text)] != text:
            raise DataError(f"{where}: the answer {text!r} is not at character {start} of the context.")
    texts, starts = tuple(text for text, _ in pairs), tuple(start for _, start in pairs)
    return Question(_text(cells, "question"), context, texts, starts, id=cells.id, line=cells.line)


def _answers(row: dict[str, Any], where: str) -> list[tuple[str, int]]:
    texts: Any
    starts: Any
    if "answers" in row:
        texts, starts = row["answers"], row.get("starts")
        if isinstance(texts, dict):  # as the `datasets` library has it: {"text": [...], "answer_start": [...]}
            texts, starts = texts.get("text"), texts.get("answer_start")
        elif texts == [] and starts is None:
            starts = []
    else:
        # pandas writes nan into both; nan alone may be a word of the context
        none = is_missing(row["answer"], "literal") or (is_missing(row["answer"]) and is_missing(row["start"]))
        texts, starts = ([], []) if none else ([row["answer"]], [row["start"]])
    if not isinstance(texts, list) or not isinstance(starts, list):
        raise DataError(
            f"{where}: expected as many answers as starts, two lists (empty without an answer); got {texts!r:.80}, "
            f"{starts!r:.80}. A cell of CSV or TSV is no list: use answer and start."
        )
    try:
        return [(_answer(text, where), _whole(start)) for text, start in zip(texts, starts, strict=True)]
    except (TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{where}: expected as many answers as starts, whole numbers; got {texts!r:.80}, {starts!r:.80}."
        ) from error


def _answer(value: object, where: str) -> str:
    text = _string(value, "an answer", where)
    if not text.strip():
        raise DataError(f"{where}: an answer is empty. A question without one has no answers: two empty lists.")
    return text


def _whole(value: Any) -> int:
    # pandas writes 4.0 for 4 where other rows have none
    number = math.nan if isinstance(value, bool) else float(value)
    if not number.is_integer():
        raise ValueError
    return int(number)


def _choice(cells: Cells) -> Choice:
    row, where = cells.values, cells.where
    choices = row.get("choices")
    if "choices" not in row:
        names = sorted((name for name in row if name[6:].isdecimal()), key=lambda name: int(name[6:]))
        choices = [row[name] for name in names]
    if not isinstance(choices, list) or len(choices) < 2:
        raise DataError(f"{where}: expected a list of at least two strings as choices; got {choices!r:.80}.")
    choices = [_string(text, "a choice", where) for text in choices]
    label = None
    if "label" in row:
        spelled = str(row["label"])
        if not spelled.isdecimal() or int(spelled) >= len(choices):
            raise DataError(f"{where}: label must be a whole number from 0 to {len(choices) - 1}; got {spelled!r}.")
        label = int(spelled)
    return Choice(_text(cells, "prompt"), tuple(choices), label, id=cells.id, line=cells.line)


def _text(cells: Cells, role: str) -> str:
    return _string(cells.values[role], role, cells.where)


def _string(value: object, name: str, where: str) -> str:
    if not isinstance(value, str):
        hint = COLUMN_BY_COLUMN if isinstance(value, dict) else ""
        raise DataError(f"{where}: {name} must be a string; got {value!r:.80}.{hint}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        # JSON can spell it, no tokenizer can read it: refused now, not in the middle of a run.
        raise DataError(
            f"{where}: {name} holds half a surrogate pair, so it is not valid Unicode: {value!r:.80}."
        ) from error
    return value


def _class(cells: Cells, classes: tuple[str, ...]) -> int:
    name = label_name(cells.values["label"], cells.where)
    if name not in classes:
        raise DataError(f"{cells.where}: the label {name!r} does not occur in the training file, which has {classes}.")
    return classes.index(name)


def _number(cells: Cells) -> float:
    value = cells.values["score"]
    try:
        # Python reads 1_0 as 10 and true as 1; nobody writes a score so.
        number = math.nan if isinstance(value, bool) or (isinstance(value, str) and "_" in value) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{cells.where}: score must be a finite number; got {value!r:.80}.")
    return number
