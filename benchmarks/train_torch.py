"""The torch side of the training comparisons: BertForSequenceClassification, AdamW, the same batches; and as ONNX."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from transformers import BertForSequenceClassification, get_linear_schedule_with_warmup

from jaxsmooth.training.config import FinetuneConfig
from jaxsmooth.training.data.tasks import TrainBatch
from jaxsmooth.training.model import TaskModel


@dataclasses.dataclass
class TorchRun:
    """A classifier with its optimiser and schedule, as Hugging Face's examples set them up."""

    model: Any
    optimiser: Any
    schedule: Any
    clip: float

    def step(self, data: TrainBatch) -> float:
        """One step on a numpy batch without filler rows; returns the loss."""
        real = np.asarray(data.weights) > 0
        loss = self.model(**inputs(data, real), labels=torch.tensor(np.asarray(data.labels)[real]).long()).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimiser.step()
        self.schedule.step()
        self.optimiser.zero_grad()
        return loss.item()


def inputs(data: TrainBatch, rows: Any = slice(None)) -> dict[str, torch.Tensor]:
    names = {"input_ids": "tokens", "token_type_ids": "segments", "attention_mask": "mask"}
    return {theirs: torch.tensor(np.asarray(getattr(data.batch, mine))[rows]).long() for theirs, mine in names.items()}


def onnx_session(model: Any, data: TrainBatch, threads: int) -> onnxruntime.InferenceSession:
    """The forward pass without dropout, as torch exports it, in ONNX Runtime with all its optimisations."""
    given = inputs(data)
    model.eval()
    exported = torch.onnx.export(model, (), kwargs=given, input_names=list(given), dynamo=True, verbose=False)
    model.train()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    graph = exported.model_proto.SerializeToString()
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def torch_run(
    directory: Path, ours: TaskModel, config: FinetuneConfig, steps: int, attention: str = "eager"
) -> TorchRun:
    """The same model with the same initial head, the same settings."""
    model = BertForSequenceClassification.from_pretrained(
        directory,
        num_labels=ours.head.out.kernel.shape[1],
        attn_implementation=attention,
        hidden_dropout_prob=config.hidden_dropout,
        attention_probs_dropout_prob=config.attention_dropout,
        classifier_dropout=config.head_dropout,
        dtype=torch.float32,
    ).train()
    with torch.no_grad():
        model.classifier.weight.copy_(torch.tensor(np.asarray(ours.head.out.kernel).T))
        model.classifier.bias.copy_(torch.tensor(np.asarray(ours.head.out.bias)))
    plain = [p for name, p in model.named_parameters() if name.endswith("bias") or "LayerNorm" in name]
    chosen = {id(p) for p in plain}
    heavy = [p for p in model.parameters() if id(p) not in chosen]
    groups = [{"params": heavy, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(
        groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), eps=config.adam_eps
    )
    schedule = get_linear_schedule_with_warmup(optimiser, round(config.warmup * steps), steps)
    return TorchRun(model, optimiser, schedule, config.clip)
