"""`compare --finetune`: the model trained on a task without and with each remedy, over seeds."""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..files import atomic_write, dumps_strict
from ..json_reading import loads
from ..training.config import FinetuneConfig
from .commands import Compare

if TYPE_CHECKING:
    from ..mitigations.parse import NamedRemedy

FOUND = "trained.json"
"""In the folder of a run that is over: its settings, score and similarity."""
NEVER = 10**9


def check(command: Compare, remedies: "Sequence[NamedRemedy]") -> None:
    """Refuse what no training could begin with, before any work.

    Raises:
      ConfigError: a remedy that cannot be trained with, settings out of range, or a precision other than float32.
      DataError: no such task.
    """
    from ..training.data.catalogue import read_task

    random = [one.label for one in remedies if one.random]
    if random:
        raise ConfigError(f"{random[0]} draws one mask for all steps, so it cannot be trained with: leave it out.")
    if command.precision != "float32":
        raise ConfigError(f"--finetune trains in float32; got --precision {command.precision}.")
    if command.seeds < 1:
        raise ConfigError(f"--seeds must be at least 1; got {command.seeds}.")
    for one in ("", *(one.label for one in remedies)):
        _settings(command, one, 0)
    read_task(command.finetune)


def with_training(found: Any, command: Compare) -> Any:
    """The comparison with what training gives; a run that was finished before is not made again."""
    from ..studies import compare
    from ..training.data.catalogue import read_task

    metric = read_task(command.finetune)[0].metric
    made = {
        entry.label: [
            _trained(_settings(command, "" if entry.label == "none" else entry.label, seed), metric)
            for seed in range(command.seeds)
        ]
        for entry in found.entries
    }
    return compare.with_training(found, command.finetune, metric, made)


def _settings(command: Compare, remedy: str, seed: int) -> FinetuneConfig:
    """The settings of one run. Its checkpoints are needed by nobody once it is over."""
    name = re.sub(r"[^\w.+-]+", "_", remedy) or "none"
    return FinetuneConfig(
        task=command.finetune,
        model=command.model,
        out=command.out / "trained" / f"{name}-seed{seed}",
        remedy=remedy,
        seed=seed,
        epochs=command.epochs,
        steps=command.steps,
        learning_rate=command.learning_rate,
        logger="none",
        keep=1,
        checkpoint_every=NEVER,
        check=command.check,
    )


def _trained(config: FinetuneConfig, metric: str) -> dict[str, float]:
    """Score, similarity and number of steps of one run; NaN where a number is not defined."""
    settings = {key: value for key, value in config.to_dict().items() if key != "out"}
    before = _finished(config.out / FOUND, settings)
    if before is not None:
        return before
    from ..training import logging, loop

    outcome = loop.finetune(config, progress=True)
    records = {
        record["step"]: record for record in logging.read_records(config.out) if "probe/cosine_similarity" in record
    }
    cosine = records[outcome.best_step]["probe/cosine_similarity"][-1] if outcome.best_step in records else float("nan")
    found = {"score": outcome.scores[metric], "cosine": float(cosine), "steps": float(outcome.steps)}
    plain = {key: value if value == value else None for key, value in found.items()}
    atomic_write(config.out / FOUND, dumps_strict({"settings": settings, "found": plain}, indent=2) + "\n")
    for folder in ("checkpoints", "best"):
        shutil.rmtree(config.out / folder, ignore_errors=True)
    return found


def _finished(path: Path, settings: dict[str, Any]) -> dict[str, float] | None:
    """What a run of these settings found before, or None."""
    try:
        content = loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.get("settings") != json.loads(dumps_strict(settings)):
        return None
    return {key: float("nan") if value is None else float(value) for key, value in content["found"].items()}
