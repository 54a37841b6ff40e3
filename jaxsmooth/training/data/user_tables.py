"""A user's own data: TSV, CSV, JSON lines or parquet, one example per row; the columns say which kind of task it is.

==============  ======================================================================
kind            columns
==============  ======================================================================
classification  `text`, maybe `pair`, and `label` (any strings or whole numbers)
regression      `text`, maybe `pair`, and `score` (numbers)
span            `question`, `context`, and `answer` with `start`, or lists `answers` and `starts`
choice          `prompt`, `choices` (a list) or `choice0`, `choice1`, ..., and `label` (which, from 0)
masked_lm       `text` alone
==============  ======================================================================

Other columns are ignored, except `id`. A file is split by hash; a folder holds `train`, and maybe `validation`
(or `dev`, `val`) and `test`, each in one of the formats of `table_files`.
"""

import math
from pathlib import Path
from typing import Any

from ...errors import DataError
from .splits import Parts, normalise, split_by_hash
from .table_files import SUFFIXES, Row, read_rows
from .tasks import Choice, Example, Kind, Question, Sentence, Split, Task

_STEMS: dict[str, Split] = {
    "train": "train",
    "validation": "validation",
    "dev": "validation",
    "val": "validation",
    "test": "test",
}
_METRICS: dict[Kind, str] = {
    "classification": "accuracy",
    "regression": "pearson",
    "span": "f1",
    "choice": "accuracy",
    "masked_lm": "log_likelihood",
}


def read_tables(path: Path) -> tuple[Task, Parts]:
    """Read a file or a folder of the user's.

    Args:
      path: the file or folder.

    Returns:
      The task that the columns describe, and the splits there are.

    Raises:
      DataError: no such file, another format, columns that describe no task, or a row that does not fit.
    """
    files = _files(path)
    tables = {split: list(read_rows(file)) for split, file in files.items()}
    first = next(iter(tables.values()))
    kind = _kind(first[0], path)
    # The classes are the training file's: one that it never shows cannot be learnt.
    classes = _classes(first, files["train"]) if kind == "classification" else ()
    examples: dict[Split, list[Example]] = {
        split: [_example(kind, row, classes, f"{files[split]}, row {n}") for n, row in enumerate(rows, start=1)]
        for split, rows in tables.items()
    }
    task = Task(
        name=path.stem,
        kind=kind,
        metric=_METRICS[kind],
        source=f"the user's file {path.name}",
        licence="the user's",
        classes=classes,
        choices=_choice_count(examples, path) if kind == "choice" else 1,
        unanswerable=any(isinstance(e, Question) and not e.answers for part in examples.values() for e in part),
        pairs="pair" in first[0],
    )
    if path.is_dir():
        return task, Parts(examples)
    only = examples["train"]
    return task, Parts(split_by_hash(only, [[_key(example)] for example in only]), ("split by a hash of the text",))


def _files(path: Path) -> dict[Split, Path]:
    if not path.is_dir():
        return {"train": path}
    found: dict[Split, Path] = {}
    for stem, split in _STEMS.items():
        for file in (path / f"{stem}{suffix}" for suffix in SUFFIXES):
            if file.is_file() and split in found:
                raise DataError(f"{path} holds both {found[split].name} and {file.name}; expected one for {split}.")
            if file.is_file():
                found[split] = file
    if "train" not in found:
        raise DataError(f"{path} must hold train.tsv, .csv, .jsonl or .parquet; it does not.")
    return found


def _kind(row: Row, path: Path) -> Kind:
    columns = set(row)
    if {"question", "context"} <= columns and ({"answer", "start"} <= columns or "answers" in columns):
        return "span"
    if "prompt" in columns and ({"choices", "label"} <= columns or {"choice0", "choice1", "label"} <= columns):
        return "choice"
    if "text" in columns and "label" in columns:
        return "classification"
    if "text" in columns and "score" in columns:
        return "regression"
    if "text" in columns:
        return "masked_lm"
    raise DataError(
        f"{path}: the columns {sorted(columns)} describe no task. Expected text with label or score, or question, "
        "context, answers and starts, or prompt, choices and label, or text alone."
    )


def _classes(rows: list[Row], path: Path) -> tuple[str, ...]:
    names = {str(row.get("label")) for row in rows}
    if len(names) < 2:
        raise DataError(f"{path}: expected at least two labels; got {sorted(names)}.")
    return tuple(sorted(names, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name)))


def _example(kind: Kind, row: Row, classes: tuple[str, ...], where: str) -> Example:
    number = str(row.get("id", where.rpartition(" ")[2]))
    match kind:
        case "span":
            return _question(row, where, number)
        case "choice":
            return _choice(row, where, number)
        case "masked_lm":
            return Sentence(_text(row, "text", where), id=number)
    pair = _text(row, "pair", where) if "pair" in row else None
    label = _class(row, classes, where) if kind == "classification" else _number(row, where)
    return Sentence(_text(row, "text", where), pair=pair, label=label, id=number)


def _question(row: Row, where: str, number: str) -> Question:
    given = row["answers"] if "answers" in row else [row["answer"]] if row["answer"] else []
    starts: Any = row.get("starts", [row["start"]] if given and "start" in row else [])
    texts: Any = given
    if isinstance(given, dict):  # as the `datasets` library has it: {"text": [...], "answer_start": [...]}
        texts, starts = given.get("text"), given.get("answer_start")
    context = _text(row, "context", where)
    try:
        pairs = [(str(text), int(start)) for text, start in zip(texts, starts, strict=True)]
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{where}: expected as many answers as starts, whole numbers; got {texts!r}, {starts!r}."
        ) from error
    for text, start in pairs:
        if start < 0 or context[start : start + len(text)] != text:
            raise DataError(f"{where}: the answer {text!r} is not at character {start} of the context.")
    return Question(
        _text(row, "question", where), context, tuple(t for t, _ in pairs), tuple(s for _, s in pairs), id=number
    )


def _choice(row: Row, where: str, number: str) -> Choice:
    choices = row.get("choices")
    if choices is None:
        names = sorted(
            (name for name in row if name.startswith("choice") and name[6:].isdecimal()), key=lambda n: int(n[6:])
        )
        choices = [row[name] for name in names]
    if not isinstance(choices, list) or len(choices) < 2:
        raise DataError(f"{where}: expected a list of at least two strings as choices; got {choices!r}.")
    choices = [_string(text, "a choice", where) for text in choices]
    label = str(row.get("label"))
    if not label.isdecimal() or int(label) >= len(choices):
        raise DataError(f"{where}: label must be a whole number from 0 to {len(choices) - 1}; got {label!r}.")
    return Choice(_text(row, "prompt", where), tuple(choices), int(label), id=number)


def _choice_count(examples: dict[Split, list[Example]], path: Path) -> int:
    counts = {len(e.choices) for part in examples.values() for e in part if isinstance(e, Choice)}
    if len(counts) > 1:
        raise DataError(f"{path}: every example must have the same number of choices; got {sorted(counts)}.")
    return counts.pop()


def _text(row: Row, name: str, where: str) -> str:
    return _string(row.get(name), name, where)


def _string(value: object, name: str, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{where}: {name} must be a string; got {value!r}.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        # JSON can spell it, no tokenizer can read it: refused now, not in the middle of a run.
        raise DataError(
            f"{where}: {name} holds half a surrogate pair, so it is not valid Unicode: {value!r}."
        ) from error
    return value


def _class(row: Row, classes: tuple[str, ...], where: str) -> int:
    name = str(row.get("label"))
    if name not in classes:
        raise DataError(f"{where}: the label {name!r} does not occur in the training file, which has {classes}.")
    return classes.index(name)


def _number(row: Row, where: str) -> float:
    try:
        value = float(row.get("score", ""))
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where}: score must be a finite number; got {row.get('score')!r}.")
    return value


def _key(example: Example) -> str:
    match example:
        case Sentence():
            return normalise(example.text)
        case Question():
            return normalise(example.context)
        case Choice():
            return normalise(example.prompt)
