"""A user's own data: CSV, TSV, JSON or parquet, one example per row; the columns say which kind of task it is.

==============  ======================================================================
kind            columns
==============  ======================================================================
classification  `text`, maybe `pair`, and `label` (any strings, whole numbers or booleans)
regression      `text`, maybe `pair`, and `score` (numbers)
span            `question`, `context`, and `answer` with `start`, or lists `answers` and `starts`
choice          `prompt`, `choices` (a list) or `choice0`, `choice1`, ..., and `label` (which, from 0)
masked_lm       `text` alone
==============  ======================================================================

Other names are mapped to these ("text=review,label=stars"). Columns that are none of these are not read, but nothing is
guessed from them: a text beside columns that are no label is refused. A file is split by hash; a folder holds `train`,
and maybe `validation` (or `valid`, `dev`, `val`) and `test`, each in one of the formats of `assets.tables`.
"""

import warnings
from pathlib import Path

from ...assets.tables import SUFFIXES, Missing, Row, is_missing, parse_columns, read_table
from ...assets.texts import MalformedRowWarning
from ...errors import DataError
from .columns import Roles, roles_like, roles_of, roles_to_read
from .labels import Labelled, class_names, missing_marks
from .splits import Parts, normalise, split_by_hash
from .tasks import Choice, Example, Kind, Question, Sentence, Split, Task
from .user_rows import Cells, first_missing, make_example

_STEMS: dict[str, Split] = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
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


def read_tables(path: Path, columns: str = "", missing: Missing = "refuse") -> tuple[Task, Parts]:
    """Read a file or a folder of the user's.

    Args:
      path: the file or folder.
      columns: role=column, several between commas; "" reads the names as they are.
      missing: "refuse" a row with a missing cell, "skip" it, or take words such as NA for what they say ("literal").

    Returns:
      The task that the columns describe, and the splits there are. A test file may lack the labels, also as -1s.

    Raises:
      DataError: no such file, another format, columns that describe no task, or a row that does not fit.
    """
    files = _files(path)
    tables = {split: list(read_table(file)) for split, file in files.items()}
    first = roles_of(_names(tables["train"]), parse_columns(columns), files["train"])
    notes: list[str] = []
    cells: dict[Split, list[Cells]] = {}
    marks = _marks(first, tables["train"])
    for split, rows in tables.items():
        roles = first.columns
        if split != "train":
            roles = roles_like(first, _names(rows), files[split], targets=split != "test" or first.kind == "span")
        if split == "test":
            roles = _without_targets(roles, rows, marks)
        cells[split] = _whole(rows, Roles(first.kind, roles), missing, files[split], notes, marks)
    # The classes are the training file's: one that it never shows cannot be learnt.
    labelled = [Labelled(each.values["label"], each.where) for each in cells["train"] if first.kind == "classification"]
    classes = class_names(labelled, files["train"]) if labelled else ()
    examples = {split: [make_example(first.kind, each, classes) for each in part] for split, part in cells.items()}
    task = Task(
        name=path.stem,
        kind=first.kind,
        metric=_METRICS[first.kind],
        source=f"the user's file {path.name}",
        licence="the user's",
        classes=classes,
        choices=_choice_count(examples, path) if first.kind == "choice" else 1,
        unanswerable=any(isinstance(e, Question) and not e.answers for part in examples.values() for e in part),
        pairs="pair" in first.columns,
    )
    if path.is_dir():
        return task, Parts(examples, tuple(notes))
    only = examples["train"]
    sides = split_by_hash(only, [[_key(example)] for example in only])
    return task, Parts(sides, ("split by a hash of the text", *notes))


def read_unlabelled(path: Path, task: Task, columns: str = "", missing: Missing = "refuse") -> list[Example]:
    """The rows of a table for a trained model to predict on, in the order of the file.

    Args:
      path: the file.
      task: the model's.
      columns: as for `read_tables`.
      missing: as for `read_tables`.

    Returns:
      Examples without labels.

    Raises:
      DataError: as `read_tables`; or choices in another number than the model's.
    """
    rows = list(read_table(path))
    mapping = parse_columns(columns)
    roles = roles_to_read(task.kind, pairs=task.pairs, names=_names(rows), mapping=mapping, path=path)
    cells = _whole(rows, roles, missing, path, [], frozenset())
    examples = [make_example(task.kind, each, ()) for each in cells]
    if task.kind == "choice" and _choice_count({"test": examples}, path) != task.choices:
        raise DataError(f"{path}: expected {task.choices} choices in every row, as the model was trained on.")
    return examples


def _files(path: Path) -> dict[Split, Path]:
    if not path.is_dir():
        return {"train": path}
    found: dict[Split, Path] = {}
    for file in sorted(path.iterdir()):
        # the hub calls the only part of a split train-00000-of-00001
        split = _STEMS.get(file.stem.lower().removesuffix("-00000-of-00001"))
        if split is None or file.suffix.lower() not in SUFFIXES or not file.is_file():
            continue
        if split in found:
            raise DataError(f"{path} holds both {found[split].name} and {file.name}; expected one for {split}.")
        found[split] = file
    if "train" not in found:
        held = ", ".join(sorted(file.name for file in path.iterdir())[:8]) or "nothing"
        raise DataError(f"{path} must hold train, as .csv, .tsv, .jsonl, .json or .parquet; it holds {held}.")
    return {split: found[split] for split in ("train", "validation", "test") if split in found}


def _names(rows: list[Row]) -> list[str]:
    """The columns of all rows, in the order in which they come up: in JSON lines a row may have others."""
    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row.cells))
    return list(names)


def _marks(first: Roles, rows: list[Row]) -> frozenset[str]:
    """What stands for a missing label in a table, as `datasets` writes test sets of benchmarks."""
    targets = [
        row.cells.get(first.columns[role]) for role in ("label", "score") if role in first.columns for row in rows
    ]
    if first.kind == "classification":
        return missing_marks(targets)
    negative = any(isinstance(target, str | int | float) and str(target).startswith("-") for target in targets)
    return frozenset() if negative else frozenset(("-1", "-1.0"))


def _without_targets(roles: dict[str, str], rows: list[Row], marks: frozenset[str]) -> dict[str, str]:
    """The roles of a test file without the target, where no row has one."""
    for role in ("label", "score"):
        cells = [row.cells.get(roles[role]) for row in rows] if role in roles else []
        if cells and all(is_missing(cell) or str(cell) in marks for cell in cells):
            return {other: column for other, column in roles.items() if other != role}
    return roles


def _whole(
    rows: list[Row], roles: Roles, missing: Missing, path: Path, notes: list[str], marks: frozenset[str]
) -> list[Cells]:
    """The rows by role; those with a missing cell are refused, or left out and counted."""
    kept, left_out = [], []
    for number, row in enumerate(rows, start=1):
        cells = Cells.of(row, roles.columns, number)
        role = first_missing(roles.kind, cells, missing, marks)
        if role is None:
            kept.append(cells)
        elif missing != "skip":
            raise DataError(
                f"{row.where}: {role} is missing; got {cells.values.get(role)!r}. Fill it in, or leave such rows out: "
                "--missing skip. If NA, null, -1 or the like is meant as such: --missing literal."
            )
        else:
            left_out.append(row.line)
    if not kept:
        raise DataError(f"{path}: no row is whole; of {len(rows)} each lacks a text or what is to be learnt.")
    if left_out:
        notes.append(f"left out: {len(left_out)} rows of {path} with a missing cell, the first in line {left_out[0]}")
        warnings.warn(f"{notes[-1]}.", MalformedRowWarning, stacklevel=3)
    return kept


def _choice_count(examples: dict[Split, list[Example]], path: Path) -> int:
    counts = {len(e.choices) for part in examples.values() for e in part if isinstance(e, Choice)}
    if len(counts) > 1:
        raise DataError(f"{path}: every example must have the same number of choices; got {sorted(counts)}.")
    return counts.pop()


def _key(example: Example) -> str:
    match example:
        case Sentence():
            return normalise(example.text)
        case Question():
            return normalise(example.context)
        case Choice():
            return normalise(example.prompt)
