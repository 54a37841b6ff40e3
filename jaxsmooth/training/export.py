"""A trained model as a Hugging Face directory: encoder and head under the names of its BertFor... class."""

import dataclasses
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from ..bert.heads import POOLED
from ..checkpoint import save
from .model import TaskModel
from .tasks import Task

# kind -> the class, and where its head's arrays go: field of `Head`, tensor, whether torch stores it transposed.
HEADS: dict[str, tuple[str, tuple[tuple[str, str, bool], ...]]] = {
    **{
        kind: (
            architecture,
            (("out.kernel", f"{tensor}.weight", True), ("out.bias", f"{tensor}.bias", False)),
        )
        for kind, architecture, tensor in (
            ("classification", "BertForSequenceClassification", "classifier"),
            ("regression", "BertForSequenceClassification", "classifier"),
            ("choice", "BertForMultipleChoice", "classifier"),
            ("span", "BertForQuestionAnswering", "qa_outputs"),
        )
    },
    "masked_lm": (
        "BertForMaskedLM",
        (
            ("dense.kernel", "cls.predictions.transform.dense.weight", True),
            ("dense.bias", "cls.predictions.transform.dense.bias", False),
            ("norm.scale", "cls.predictions.transform.LayerNorm.weight", False),
            ("norm.bias", "cls.predictions.transform.LayerNorm.bias", False),
            ("out.bias", "cls.predictions.bias", False),
        ),
    ),
}


def export_model(model: TaskModel, task: Task, directory: Path) -> Path:
    """Write the model so that transformers' class for the task loads it.

    A model of another family than BERT, or one that fuses its layers, has no such class: its encoder alone is
    written, and the head stays in the run's checkpoints.

    Args:
      model: arrays on the host.
      task: kind and names of classes.
      directory: made if it does not exist.
    """
    encoder = model.encoder if task.kind in POOLED else dataclasses.replace(model.encoder, pooler=None)
    save(encoder, directory)  # classes that read tokens have no pooler
    if model.encoder.config.family != "bert" or model.fusion is not None:
        return directory
    architecture, entries = HEADS[task.kind]
    weights, config = directory / "model.safetensors", directory / "config.json"
    tensors = {f"bert.{name}": value for name, value in safetensors.numpy.load_file(weights).items()}
    tensors |= {tensor: _stored(model.head, path, transposed) for path, tensor, transposed in entries}
    settings = {**json.loads(config.read_text(encoding="utf-8")), "architectures": [architecture], **_labels(task)}
    with tempfile.TemporaryDirectory(dir=directory) as aside:
        safetensors.numpy.save_file(tensors, Path(aside) / weights.name, metadata={"format": "pt"})
        (Path(aside) / config.name).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        for path in (weights, config):
            os.replace(Path(aside) / path.name, path)
    return directory


def _stored(head: Any, path: str, transposed: bool) -> np.ndarray:
    value = head
    for name in path.split("."):
        value = getattr(value, name)
    return np.ascontiguousarray(np.asarray(value).T if transposed else np.asarray(value))


def _labels(task: Task) -> dict[str, Any]:
    if task.kind == "classification":
        names = {str(k): name for k, name in enumerate(task.classes)}
        return {"id2label": names, "label2id": {name: int(k) for k, name in names.items()}}
    if task.kind == "regression":
        return {"id2label": {"0": "value"}, "label2id": {"value": 0}, "problem_type": "regression"}
    return {}
