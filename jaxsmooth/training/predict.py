"""A finished run, read back: evaluated on a split, or applied to new text."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ..assets import numbered_texts
from ..assets.tables import Missing, is_table
from ..bert.params import Encoder
from ..errors import CheckpointError, ConfigError, TextError, arguments_checked
from ..files import atomic_write, dumps_strict
from ..inputs.tokenizer import Tokenizer
from ..mitigations.own import Own
from .checkpointing import Checkpoints
from .config import FinetuneConfig
from .data.catalogue import Entry
from .data.task_data import TaskData
from .data.tasks import SPLITS, Choice, Example, Question, Sentence, Task
from .data.user_tables import read_unlabelled
from .evaluate import evaluate as scores_of
from .evaluate import outputs
from .export import is_export, load_export
from .loop import averaged
from .model import TaskModel
from .objectives.squad import best_span
from .run import Run, build_model, find_remedy, make_trainer, prepare, read_split, run_folder
from .sharding import make_mesh, place_tree
from .step import Trainer


@dataclasses.dataclass(frozen=True)
class Trained:
    """Trained parameters and what it takes to apply them.

    Attributes:
      config: the run's settings.
      task: kind and names of classes.
      tokenizer: the model's.
      model: the parameters, laid out over the mesh.
      trainer: the functions.
      mesh: devices.
      step: whose parameters they are.
    """

    config: FinetuneConfig
    task: Task
    tokenizer: Tokenizer
    model: TaskModel
    trainer: Trainer
    mesh: Mesh
    step: int


def load_trained(
    folder: Path,
    *,
    step: int | None = None,
    remedies: Mapping[str, Own] = MappingProxyType({}),
    tasks: Mapping[str, Entry] = MappingProxyType({}),
) -> Trained:
    """The best parameters of a run, from its folder or from an exported one; laid out over all local devices.

    Args:
      folder: of a run, or a best/ that one has exported, wherever it was moved to.
      step: another checkpoint's step, of a run.
      remedies: the user's own, as for `finetune`.
      tasks: likewise.

    Returns:
      Parameters, task, tokenizer and functions.

    Raises:
      ConfigError: no such folder, or a step of an exported model.
      CheckpointError: the run has no checkpoint, or a file is damaged.
    """
    if not is_export(folder):
        run, model, chosen = load_run(folder, step=step, remedies=remedies, tasks=tasks)
        return Trained(run.config, run.train.task, run.tokenizer, model, run.trainer, run.mesh, chosen)
    if step is not None:
        raise ConfigError(f"{folder} holds the parameters of one step only; name the run's folder for step {step}.")

    def shapes(encoder: Encoder, task: Task, config: FinetuneConfig) -> TaskModel:
        return jax.eval_shape(lambda: build_model(config, encoder, task, None))

    found, mesh = load_export(folder, shapes), make_mesh()
    # the remedy's change of the weights is in the weights
    trainer = make_trainer(found.config, found.task, found.model, 1, find_remedy(found.config.remedy, remedies), mesh)
    model = place_tree(found.model, mesh)
    return Trained(found.config, found.task, found.tokenizer, model, trainer, mesh, found.step)


def load_run(
    folder: Path,
    *,
    step: int | None = None,
    remedies: Mapping[str, Own] = MappingProxyType({}),
    tasks: Mapping[str, Entry] = MappingProxyType({}),
) -> tuple[Run, TaskModel, int]:
    """A run from its folder, with the parameters of its best checkpoint, laid out over all local devices.

    Args:
      folder: of the run.
      step: another checkpoint's step.
      remedies: the user's own, as for `finetune`.
      tasks: likewise.

    Returns:
      The run, the parameters (averaged if the run keeps an average) and the step they are of.

    Raises:
      ConfigError: no run's folder.
      CheckpointError: the run has no checkpoint, or a damaged one.
    """
    config = FinetuneConfig.read(folder / "config.json")
    here = dataclasses.replace(config, mesh="")  # the run's own mesh may need more devices than are here
    run = prepare(here, remedies=remedies, tasks=tasks)
    where = run_folder(config)[1] if config.out == folder else folder / "checkpoints"
    if not where.is_dir():
        raise CheckpointError(f"{folder} has no checkpoint yet: wait until the run has saved its first.")
    with Checkpoints(where, writes=False) as checkpoints:  # the run may still be writing
        shapes = run.shapes()
        restored = checkpoints.restore_best(shapes) if step is None else checkpoints.restore(shapes, step=step)
    if restored is None:
        raise CheckpointError(f"{folder} has no checkpoint yet: wait until the run has saved its first.")
    return run, averaged(restored.state), restored.step


@arguments_checked
def evaluate(
    folder: str | Path,
    split: str = "test",
    *,
    step: int | None = None,
    limit: int | None = None,
    each_token: bool = False,
    progress: bool = False,
    remedies: Mapping[str, Own] = MappingProxyType({}),
    tasks: Mapping[str, Entry] = MappingProxyType({}),
) -> dict[str, Any]:
    """Scores of a run's best parameters on a split.

    Args:
      folder: of the run, or the best/ that it exported, wherever that was moved to.
      split: "train", "validation" or "test".
      step: another checkpoint than the best.
      limit: the size of a fixed sample of the split, 0 for all of it; None for the run's own limit, so that the
        validation split gives the scores that the run has recorded.
      each_token: of a masked LM, mask every token in turn: the pseudo-perplexity.
      progress: whether to show on stderr how far it is.
      remedies: of your own, as they were given to `finetune`.
      tasks: likewise.

    Returns:
      "task", "split", "records", "step" and "scores" by name.

    Raises:
      DataError: no such split, or `each_token` for another kind of task.
      ConfigError: no folder of a run.
      CheckpointError: the run has no checkpoint, or a file is damaged.

    >>> import jaxsmooth
    >>> jaxsmooth.evaluate("runs/none")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    jaxsmooth.errors.ConfigError: runs/none/config.json cannot be read as a run's settings: ...
    """
    found = load_trained(Path(folder), step=step, remedies=remedies, tasks=tasks)
    settings = found.config if limit is None else dataclasses.replace(found.config, limit=limit)
    data = read_split(settings, found.tokenizer, split, each_token=each_token, tasks=tasks)
    scores = scores_of(
        found.trainer, found.model, data, found.mesh, batch_size=found.config.batch_size, progress=progress
    )
    return {"task": data.task.name, "split": split, "records": len(data), "step": found.step, "scores": scores}


@arguments_checked
def predict(
    folder: str | Path,
    source: str | Path | Sequence[str],
    *,
    columns: str = "",
    missing: Missing | None = None,
    progress: bool = False,
    remedies: Mapping[str, Own] = MappingProxyType({}),
    tasks: Mapping[str, Entry] = MappingProxyType({}),
) -> list[dict[str, Any]]:
    """Predictions of a run's best parameters, one JSON-able dict per record, in the order of the records.

    Args:
      folder: of the run, or the best/ that it exported, wherever that was moved to.
      source: texts to classify or score; or a split ("train", "validation", "test"), all of it whatever the run's
        limit; a table with the task's texts (see `user_tables`; it need not have labels); or what `read_texts` reads.
      columns: of a table, which column is which; "" for the run's own.
      missing: of a table, what becomes of rows with a missing cell; None for the run's own.
      progress: whether to show on stderr how far it is.
      remedies: of your own, as they were given to `finetune`.
      tasks: likewise.

    Returns:
      "record" (the place of the example, from 0) and "line" (of the file, from 1; of parquet and a JSON list the number
      of the row; null where the example is from no such file); what was read: "text" and maybe "pair", "question"
      and "context", or "prompt" and "choices"; and "label" with "probabilities", "value" (regression), or "answer" with
      "score" (span). "id" where the example has one.

    Raises:
      ConfigError: the task is a masked LM, or plain text is given for a task that needs more than a sentence.
      DataError: a table that lacks what the task reads.
      TextError: no text, or what is no text.
      CheckpointError: the run has no checkpoint, or a file is damaged.

    >>> import jaxsmooth
    >>> jaxsmooth.predict("runs/none", ["A film worth seeing."])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    jaxsmooth.errors.ConfigError: runs/none/config.json cannot be read as a run's settings: ...
    """
    run = load_trained(Path(folder), remedies=remedies, tasks=tasks)
    data = _data_of(run, source, columns, missing, tasks)
    found: dict[int, dict[str, Any]] = {}
    owners = data.records.owners if run.task.kind == "span" else None
    size, doing = run.config.batch_size, "predicting" if progress else ""
    for batch, logits, _, _ in outputs(run.trainer, run.model, data, run.mesh, batch_size=size, doing=doing):
        for place in np.flatnonzero(np.asarray(batch.weights) > 0):
            index = int(np.asarray(batch.indices)[place])
            record = index if owners is None else int(owners[index])
            prediction = _prediction(data, index, _row(logits, int(place)))
            # Of the windows of one long context the most confident wins.
            if record not in found or (prediction["score"] or -np.inf) > (found[record]["score"] or -np.inf):
                found[record] = {"record": record, **_read(data.examples[record]), **prediction}
    return [found[index] for index in sorted(found)]


def _data_of(
    run: Trained,
    source: str | Path | Sequence[str],
    columns: str,
    missing: Missing | None,
    tasks: Mapping[str, Entry],
) -> TaskData:
    """The split, the table or the texts that `predict` is asked for."""
    task = run.task
    if task.kind == "masked_lm":
        raise ConfigError("a masked LM has no predictions to write; `evaluate` reports its perplexity.")
    if isinstance(source, str) and source in SPLITS:
        return read_split(dataclasses.replace(run.config, limit=0), run.tokenizer, source, tasks=tasks)
    if isinstance(source, str | Path) and is_table(Path(source)):
        rows = read_unlabelled(Path(source), task, columns or run.config.columns, missing or run.config.missing)
        return TaskData(task, "test", rows, run.tokenizer, run.config.max_length)
    if columns or missing:
        raise ConfigError(f"{source} is no table, so it has no columns and no cells; got {columns or missing!r}.")
    if task.pairs or task.kind not in ("classification", "regression"):
        raise ConfigError(
            f"{task.name} needs more than one sentence; predict on a table or a split: {', '.join(SPLITS)}."
        )
    if isinstance(source, str | Path):
        texts = [Sentence(text, line=line) for line, text in numbered_texts(source)]
    else:
        texts = [Sentence(text) for text in _checked_texts(source)]
    return TaskData(task, "test", texts, run.tokenizer, run.config.max_length)


def _checked_texts(texts: Sequence[str]) -> list[str]:
    found = list(texts) if isinstance(texts, Iterable) else []
    if not found or not all(isinstance(text, str) for text in found):
        raise TextError(f"source must be texts, a file or a split; got {texts!r:.80}.")
    return found


def _read(example: Example) -> dict[str, Any]:
    """Where the example is from, and what was read of it, so that predictions can be joined to the file's lines."""
    own: dict[str, Any] = {"line": example.line or None, **({"id": example.id} if example.id else {})}
    match example:
        case Question():
            return {**own, "question": example.question, "context": example.context}
        case Choice():
            return {**own, "prompt": example.prompt, "choices": list(example.choices)}
        case Sentence():
            return {**own, "text": example.text, **({} if example.pair is None else {"pair": example.pair})}


def _row(logits: Any, place: int) -> Any:
    return jax.tree.map(lambda x: x[place], logits)


def _prediction(data: TaskData, index: int, logits: Any) -> dict[str, Any]:
    task = data.task
    if task.kind == "regression":
        return {"value": float(logits)}
    if task.kind == "span":
        starts, ends = (np.asarray(part, np.float64) for part in logits)
        owner = data.examples[int(data.records.owners[index])]
        assert isinstance(owner, Question)
        span = best_span(starts, ends, data.records.make([index], 0, 0)[0].rows[0])
        return {"answer": owner.context[span[0] : span[1]] if span else "", "score": span and span[2]}
    wide = np.exp(np.asarray(logits, np.float64) - np.max(logits))
    shares = (wide / wide.sum()).tolist()
    best = int(np.argmax(shares))
    names = task.classes or tuple(str(k) for k in range(len(shares)))
    return {"label": names[best], "probabilities": dict(zip(names, shares, strict=True))}


def write_predictions(
    folder: Path,
    source: str,
    path: Path,
    *,
    columns: str = "",
    missing: Missing | None = None,
    progress: bool = False,
) -> int:
    """Write `predict` as JSON lines.

    Args:
      folder: of the run, or an exported one.
      source: as for `predict`.
      path: the file; missing folders are made, and it appears whole or not at all.
      columns: as for `predict`.
      missing: as for `predict`.
      progress: as for `predict`.

    Returns:
      How many predictions there are.

    Raises:
      ConfigError: as `predict`.
      DataError: as `predict`.
    """
    found = predict(folder, source, columns=columns, missing=missing, progress=progress)
    lines = [dumps_strict(each) + "\n" for each in found]
    atomic_write(path, "".join(lines))
    return len(lines)
