"""Scores of a model on a split, and its predictions."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from ..bert.norm import accumulation_dtype
from .data.pipeline import make_stream
from .data.task_data import TaskData
from .data.tasks import TrainBatch
from .model import TaskModel
from .objectives.losses import label_count, loss_sum
from .objectives.scores import masked_lm_outputs
from .sharding import on_host, place_batch
from .step import Trainer


@functools.partial(jax.jit, static_argnums=0)
def _outputs(trainer: Trainer, model: TaskModel, data: TrainBatch) -> tuple[Any, jax.Array, jax.Array]:
    """What the scores read, the summed loss and the number of labels; in float32 at least."""
    kind, logits = trainer.task.kind, trainer.logits(model, data)
    logits = logits.astype(accumulation_dtype(logits.dtype))
    loss, count = loss_sum(kind, logits, data), label_count(kind, data)
    if kind == "masked_lm":
        return masked_lm_outputs(logits, data.labels), loss, count
    if kind == "span":
        return (logits[..., 0], logits[..., 1]), loss, count
    return (logits[:, 0] if kind == "regression" else logits), loss, count


def outputs(
    trainer: Trainer, model: TaskModel, data: TaskData, mesh: Mesh, *, batch_size: int
) -> Iterator[tuple[TrainBatch, Any, float, float]]:
    """Batches of a split in order, each with the model's outputs, summed loss and number of labels, on the host.

    Every process reads the whole split and gets all outputs.
    """
    with make_stream(data, batch_size=batch_size, shuffle=False, epochs=1) as stream:
        for batch in stream:
            found, loss, count = _outputs(trainer, model, place_batch(batch, mesh, rows=batch_size))
            yield batch, on_host(found), float(loss), float(count)


def evaluate(trainer: Trainer, model: TaskModel, data: TaskData, mesh: Mesh, *, batch_size: int) -> dict[str, float]:
    """The task's scores and the mean loss on a split, dropout off.

    Args:
      trainer: task and precision.
      model: the parameters, laid out over the mesh.
      data: the split.
      mesh: devices.
      batch_size: records in a batch; changes time and memory, not the scores beyond rounding.
    """
    scores, loss, count = data.scores(), 0.0, 0.0
    for batch, found, batch_loss, batch_count in outputs(trainer, model, data, mesh, batch_size=batch_size):
        scores.update(found, batch)
        loss, count = loss + batch_loss, count + batch_count
    return {**scores.result(), "loss": loss / max(count, 1)}
