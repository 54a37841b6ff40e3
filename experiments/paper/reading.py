"""A grid's entries as numbers: scores by seed, paired differences, and Markdown."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .settings import TASKS, TaskSettings
from .verdicts import Paired, holm, paired, written


@dataclasses.dataclass(frozen=True)
class Scores:
    """What a grid found.

    Each run has one score: the mean over splits at the last step. Where nothing was chosen by them, the splits are the
    task's, of the substitutes validation and test: together they are more texts. Where runs of a variant differ in
    their learning rate, the validation split chooses (see `rate`), and the splits must not hold it.

    Attributes:
      entries: of the grid's runs.
      tasks: which the grid is about, in the tables' order.
      splits: which count; the task's if none is named.
    """

    entries: Mapping[str, Mapping[str, Any]]
    tasks: Mapping[str, TaskSettings] = dataclasses.field(default_factory=lambda: TASKS)
    splits: tuple[str, ...] = ()

    def by_seed(self, task: str, model: str, variant: str, score: str = "") -> dict[int, float]:
        """The score of every seed that has one; the task's own if none is named."""
        name = score or self.tasks[task].score
        found = {}
        for entry in self.chosen(task, model, variant):
            values = [entry[split][name] for split in self.splits or self.tasks[task].splits]
            if None not in values:
                found[entry["seed"]] = float(np.mean(values))
        return dict(sorted(found.items()))

    def chosen(self, task: str, model: str, variant: str) -> list[Mapping[str, Any]]:
        """Entries of a variant at its chosen learning rate, by seed."""
        rate = self.rate(task, model, variant)
        return [entry for entry in self._every(task, model, variant) if _rate(entry) == rate]

    def rate(self, task: str, model: str, variant: str) -> float | None:
        """The learning rate whose run of the first seed has the best validation score; None for `finetune`'s own."""
        scored = self.rates(task, model, variant)
        return max(scored, key=scored.__getitem__, default=None)

    def rates(self, task: str, model: str, variant: str) -> dict[float | None, float]:
        """Every learning rate that the first seed was run at -> its validation score."""
        every = self._every(task, model, variant)
        return {
            _rate(entry): entry["validation"][self.tasks[task].score]
            for entry in every
            if entry["seed"] == every[0]["seed"]
        }

    def _every(self, task: str, model: str, variant: str) -> list[Mapping[str, Any]]:
        wanted = {"task": task, "model": model, "variant": variant}
        found = [e for e in self.entries.values() if all(e[name] == value for name, value in wanted.items())]
        return sorted(found, key=lambda entry: entry["seed"])

    def differences(self, task: str, model: str, variant: str, base: str) -> dict[int, float]:
        """Variant less base, of the seeds that both have."""
        ours, theirs = self.by_seed(task, model, variant), self.by_seed(task, model, base)
        return {seed: ours[seed] - theirs[seed] for seed in ours if seed in theirs}

    def pooled(self, places: Iterable[tuple[str, str]], variant: str, base: str) -> list[float]:
        """Each seed's difference averaged over (task, model) pairs; of the seeds that are there in all of them."""
        parts = [self.differences(task, model, variant, base) for task, model in places]
        seeds = sorted(set.intersection(*map(set, parts))) if parts else []
        return [float(np.mean([part[seed] for part in parts])) for seed in seeds]

    def have(self, tasks: Iterable[str], model: str) -> list[str]:
        """The tasks of which there is any entry of a model."""
        there = {(entry["task"], entry["model"]) for entry in self.entries.values()}
        return [task for task in tasks if (task, model) in there]


def _rate(entry: Mapping[str, Any]) -> float | None:
    return entry.get("settings", {}).get("learning_rate")


def each_by_itself(differences: Mapping[str, Sequence[float]]) -> dict[str, tuple[Paired, float, str]]:
    """Of claims that are asked together, each one's mean with interval, p after Holm, verdict; empty ones left out."""
    found = {name: paired(values) for name, values in differences.items() if len(values)}
    corrected = holm([one.p for one in found.values()])
    return {name: (one, p, one.verdict_by(p)) for (name, one), p in zip(found.items(), corrected, strict=True)}


def mean_and_std(values: Sequence[float], scale: float = 100.0) -> str:
    """In points.

    >>> mean_and_std([0.5, 0.7])
    '60.0 ± 14.1'
    """
    if not len(values):
        return "–"
    spread = f" ± {scale * np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{scale * np.mean(values):.1f}{spread}"


def claim(name: str, found: Paired) -> list[str]:
    """A row of a table of claims."""
    effect = "–" if np.isnan(found.effect) else f"{found.effect:+.2f}"
    p = "–" if np.isnan(found.p) else f"{found.p:.2g}"
    return [name, str(found.count), written(found), p, effect, found.verdict]


CLAIMS = ["claim", "seeds", "difference [95%], points", "p", "effect", "verdict"]


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table.

    >>> print(markdown(["a", "b"], [["1", "2"]]))
    | a | b |
    | --- | --- |
    | 1 | 2 |
    """
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def machines(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """Where and when the entries were made, and how long they took."""
    places = sorted({entry["machine"] for entry in entries.values()})
    days = sorted({entry["date"] for entry in entries.values()})
    spent = [e["processor_seconds"] for e in entries.values() if e.get("processor_seconds") and "taken_from" not in e]
    if not entries:
        return "No run yet."
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return (
        f"{len(entries)} runs on {'; '.join(places)}, {when}; {sum(spent) / 3600:.2f} hours of processor time "
        f"({np.mean(spent) if spent else 0:.0f} s a run)."
    )
