"""Scores and outputs of a model on a split."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from ..bert.norm import accumulation_dtype
from ..progress import ProgressBar
from .data.pipeline import make_stream
from .data.records import SpanRecords
from .data.task_data import TaskData
from .data.tasks import Question, TrainBatch
from .model import TaskModel
from .objectives.losses import label_count, loss_sum
from .objectives.scores import ChoiceScores, ClassScores, NumberScores, Scores, TokenScores, masked_lm_outputs
from .objectives.squad import SpanScores
from .sharding import on_host, place_batch
from .step import Trainer


def make_scores(data: TaskData) -> Scores:
    """The task's scores, empty, for one pass over a split.

    Args:
      data: the split.

    >>> import jaxsmooth
    >>> from jaxsmooth.training.data.tasks import Sentence, Task
    >>> _, tokenizer = jaxsmooth.load("tiny")
    >>> task = Task("demo", "regression", "pearson", source="made up", licence="none")
    >>> type(make_scores(TaskData(task, "test", [Sentence("a", label=0.5)], tokenizer, 16))).__name__
    'NumberScores'
    """
    task = data.task
    match task.kind:
        case "classification":
            return ClassScores(len(task.classes), task.positive)
        case "choice":
            return ChoiceScores(task.choices)
        case "regression":
            return NumberScores()
        case "masked_lm":
            return TokenScores(each_token=data.each_token)
        case "span":
            assert isinstance(data.records, SpanRecords)
            questions = [example for example in data.examples if isinstance(example, Question)]
            return SpanScores(questions, data.records, unanswerable=task.unanswerable)


@functools.partial(jax.jit, static_argnums=0)
def _outputs(trainer: Trainer, model: TaskModel, data: TrainBatch) -> tuple[Any, jax.Array, jax.Array]:
    """What the scores read, the summed loss and the number of labels; in float32 at least."""
    kind, logits = trainer.task.kind, trainer.logits(model, data)
    logits = logits.astype(accumulation_dtype(logits.dtype))
    loss, count = loss_sum(kind, logits, data), label_count(kind, data)
    if kind == "masked_lm":
        return masked_lm_outputs(logits, data.labels.tokens), loss, count
    if kind == "span":
        return (logits[..., 0], logits[..., 1]), loss, count
    return (logits[:, 0] if kind == "regression" else logits), loss, count


def outputs(
    trainer: Trainer, model: TaskModel, data: TaskData, mesh: Mesh, *, batch_size: int, doing: str = ""
) -> Iterator[tuple[TrainBatch, Any, float, float]]:
    """The model's outputs on a split, batch by batch, on the host and without dropout.

    Every process reads the whole split and gets all outputs.

    Args:
      trainer: task and precision.
      model: the parameters, laid out over the mesh.
      data: the split.
      mesh: devices.
      batch_size: records in a batch.
      doing: what to show on stderr as being done, with how far it is; "" shows nothing.

    Yields:
      A batch, what the scores read of it (see `objectives.scores`), its summed loss and its number of labels.
    """
    stream = make_stream(data, batch_size=batch_size, shuffle=False, epochs=1)
    with stream, ProgressBar(doing, "batches", total=stream.steps_per_epoch, shown=bool(doing)) as bar:
        for batch in stream:
            found, loss, count = _outputs(trainer, model, place_batch(batch, mesh, rows=batch_size))
            yield batch, on_host(found), float(loss), float(count)
            bar.advance()


def evaluate(
    trainer: Trainer, model: TaskModel, data: TaskData, mesh: Mesh, *, batch_size: int, progress: bool = False
) -> dict[str, float]:
    """The task's scores and the mean loss on a split, without dropout.

    Args:
      trainer: task and precision.
      model: the parameters, laid out over the mesh.
      data: the split.
      mesh: devices.
      batch_size: records in a batch; changes time and memory, not the scores beyond rounding.
      progress: whether to show on stderr how far it is.

    Returns:
      Numbers by name, "loss" among them.

    Raises:
      DataError: the outputs hold NaN, or no example has a label.
    """
    scores, loss, count = make_scores(data), 0.0, 0.0
    doing = "evaluating" if progress else ""
    for batch, found, batch_loss, batch_count in outputs(
        trainer, model, data, mesh, batch_size=batch_size, doing=doing
    ):
        scores.update(found, batch)
        loss, count = loss + batch_loss, count + batch_count
    return {**scores.result(), "loss": loss / max(count, 1)}
