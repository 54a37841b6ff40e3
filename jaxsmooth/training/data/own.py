"""Checks of a task that the user has defined: what the library's own readers promise."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, get_args

from ...errors import DataError, is_int
from .splits import Parts
from .tasks import SPLITS, Choice, Example, Kind, Question, Sentence, Task

METRICS: dict[Kind, tuple[str, ...]] = {
    "classification": ("accuracy", "f1", "matthews"),
    "regression": ("pearson", "spearman"),
    "span": ("exact_match", "f1"),
    "choice": ("accuracy",),
    "masked_lm": ("log_likelihood", "accuracy"),
}
"""The scores of each kind that choose a best checkpoint: of them the highest is the best."""

_EXAMPLES: dict[Kind, type] = {
    **dict.fromkeys(("classification", "regression", "masked_lm"), Sentence),
    "span": Question,
    "choice": Choice,
}


def check_own(name: str, task: Task, parts: Parts) -> tuple[Task, Parts]:
    """A task and its data, or a refusal.

    Args:
      name: as the user calls it.
      task: what it is.
      parts: its examples by split.

    Returns:
      The task under that name, and the examples as lists.

    Raises:
      DataError: says what is wrong with which example.

    >>> task = Task("", "classification", "accuracy", source="made up", licence="none", classes=("dull", "fine"))
    >>> check_own("moods", task, Parts({"train": [Sentence("So dull.", label=2)]}))
    Traceback (most recent call last):
    jaxsmooth.errors.DataError: moods, example 0 of train: the label must be a class from 0 to 1, or None; got 2.
    """
    if not isinstance(task, Task) or task.kind not in get_args(Kind):
        raise DataError(f"{name}: expected a Task of kind {', '.join(get_args(Kind))}; got {task!r}.")
    if task.metric not in METRICS[task.kind]:
        known = ", ".join(METRICS[task.kind])
        raise DataError(f"{name}: the metric of a {task.kind} must be one of {known}; got {task.metric!r}.")
    if task.kind == "classification" and len(task.classes) < 2:
        raise DataError(f"{name}: a classification needs two classes at least; got {task.classes!r}.")
    if not isinstance(parts.splits, Mapping) or not parts.splits or set(parts.splits) - set(SPLITS):
        raise DataError(
            f"{name}: the reader must return Parts of examples by split, some of {', '.join(SPLITS)}; got "
            f"{parts.splits!r:.120}."
        )
    splits = {split: list(examples) for split, examples in parts.splits.items()}
    for split, examples in splits.items():
        for place, example in enumerate(examples):
            if wrong := _wrong(task, example):
                raise DataError(f"{name}, example {place} of {split}: {wrong}.")
    return dataclasses.replace(task, name=name), Parts(splits, parts.notes)


def _wrong(task: Task, example: Example) -> str:
    """What an example has wrong; "" for nothing."""
    wanted = _EXAMPLES[task.kind]
    if not isinstance(example, wanted):
        return f"a {task.kind} has examples of class {wanted.__name__}; got {type(example).__name__}"
    if isinstance(example, Question):
        return _wrong_answer(example)
    if isinstance(example, Choice):
        if len(example.choices) != task.choices:
            return f"the task has {task.choices} choices; got {len(example.choices)}"
        return _wrong_class(example.label, task.choices, (example.prompt, *example.choices))
    if (example.pair is not None) != task.pairs:
        return f"the task says pairs={task.pairs}; got pair={example.pair!r:.40}"
    texts = (example.text, *(() if example.pair is None else (example.pair,)))
    if task.kind != "regression":
        return _wrong_class(example.label, len(task.classes), texts)
    number = isinstance(example.label, int | float) and math.isfinite(example.label)
    return _wrong_text(texts) or ("" if example.label is None or number else _got("a finite number", example.label))


def _wrong_answer(example: Question) -> str:
    found = _wrong_text((example.question, example.context, *example.answers))
    if found or len(example.starts) != len(example.answers):
        return found or "every answer needs the place where it starts"
    for answer, start in zip(example.answers, example.starts, strict=True):
        if example.context[start : start + len(answer)] != answer:
            return f"the context has no {answer!r:.40} at {start}"
    return ""


def _wrong_class(label: Any, classes: int, texts: tuple[str, ...]) -> str:
    if label is None or is_int(label, 0, classes - 1):
        return _wrong_text(texts)
    return _got(f"a class from 0 to {classes - 1}", label) if classes else _got("left out", label)


def _wrong_text(texts: tuple[str, ...]) -> str:
    wrong = next((text for text in texts if not isinstance(text, str)), None)
    return "" if wrong is None else f"texts must be strings; got {type(wrong).__name__}"


def _got(wanted: str, label: Any) -> str:
    return f"the label must be {wanted}, or None; got {label!r}"
