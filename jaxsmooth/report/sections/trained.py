"""Accuracy beside similarity: the model trained without and with each remedy."""

from typing import Any

import numpy as np

from ...results.comparison import TrainedRemedy, Training
from ..format import digits
from .glossary import Column

TRAINED = (
    Column("remedy", "remedy"),
    Column("score", "accuracy"),
    Column("std", "seed-std"),
    Column("better in", "better-in"),
    Column("cosine\ntrained", "trained-cosine"),
)
"""The columns of the table of trained remedies."""

ENOUGH = 6
"""Seeds from which on the sign test can reach 5 %."""


def training_json(found: Training) -> dict[str, Any]:
    """For compare.json: every score and cosine, by remedy and seed."""
    runs = [{"label": run.label, "scores": run.scores.tolist(), "cosine": run.cosine.tolist()} for run in found.runs]
    return {
        **{key: getattr(found, key) for key in ("task", "metric", "steps")},
        "seeds": list(found.seeds),
        "runs": runs,
    }


def _mean(run: TrainedRemedy) -> float:
    return float(np.mean(run.scores))


def _better(run: TrainedRemedy, none: TrainedRemedy) -> int:
    return int(np.sum(run.scores > none.scores))


def training_rows(found: Training) -> list[tuple[str, ...]]:
    """The cells of the table, the best score first."""
    none, seeds = found.runs[0], len(found.seeds)
    return [
        (
            run.label,
            digits(_mean(run)),
            digits(float(np.std(run.scores))),
            "" if run is none else f"{_better(run, none)} of {seeds}",
            digits(float(np.mean(run.cosine))),
        )
        for run in sorted(found.runs, key=lambda run: -_mean(run) if np.isfinite(_mean(run)) else np.inf)
    ]


def training_words(found: Training) -> str:
    """Whether a remedy made the trained model better, and how far that is to be believed."""
    none, *others = found.runs
    seeds = len(found.seeds)
    text = (
        f"Trained on {found.task} for {found.steps:,} steps with {seeds} seeds, the model without a remedy has"
        f" {found.metric} {digits(_mean(none))} on the validation split (cosine of the last layer"
        f" {digits(float(np.mean(none.cosine)))})."
    )
    if not others:
        return text
    best = max(others, key=_mean)
    better = _better(best, none)
    text += (
        f" The best remedy is {best.label} with {digits(_mean(best))}, better than none in {better} of {seeds} seeds."
    )
    if seeds < ENOUGH:
        return f"{text} So few seeds cannot tell it from chance: that takes {ENOUGH} at least."
    return text
