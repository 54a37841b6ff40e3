"""Shared by the training tests: tiny tasks with made-up texts, one step's batch, arrays by name, runs as processes."""

import dataclasses
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxsmooth
from jaxsmooth.bert.fusion import init_fusion
from jaxsmooth.bert.params import Encoder
from jaxsmooth.training.config import FinetuneConfig
from jaxsmooth.training.data.batches import masked_labels
from jaxsmooth.training.data.tasks import SpanLabels, Task, TrainBatch
from jaxsmooth.training.model import TaskModel, init_task_model
from jaxsmooth.training.optimiser import learning_rate, make_optimiser
from jaxsmooth.training.step import Trainer
from jaxsmooth.types import map_named, named_leaves

SMALL = jaxsmooth.EncoderConfig(vocab=48, width=16, layers=2, heads=2, mlp_width=32, max_length=16)
PLAIN = FinetuneConfig(model="tiny", hidden_dropout=0.0, attention_dropout=0.0, head_dropout=0.0, learning_rate=1e-3)
QUICK = {"xla_backend_optimization_level": 0}
"""Compiler options for programs that run a few times: compiled in half the time, and not much slower at this size."""
TASKS = {
    "classification": Task("c", "classification", "accuracy", "test", "none", classes=("a", "b", "c")),
    "regression": Task("r", "regression", "pearson", "test", "none"),
    "span": Task("s", "span", "f1", "test", "none"),
    "choice": Task("h", "choice", "accuracy", "test", "none", choices=2),
    "masked_lm": Task("m", "masked_lm", "log_likelihood", "test", "none"),
}


def drawn(shapes: Any, seed: int = 0) -> Any:
    """Arrays of these shapes, gains near 1 and all else near 0, biases too: every parameter matters.

    By numpy: jax would compile a program for every shape.
    """
    rng = np.random.default_rng(seed)

    def draw(name: str, leaf: Any) -> jax.Array:
        middle = 1.0 if name.endswith("scale") else 0.0
        return jnp.asarray((middle + 0.1 * rng.normal(size=leaf.shape)).astype(leaf.dtype))

    return map_named(draw, shapes)


def small_encoder(dtype: Any = jnp.float64) -> Encoder:
    return drawn(jax.eval_shape(lambda: jaxsmooth.init_encoder(SMALL, jax.random.key(0), dtype=dtype)))


def small_model(kind: str, dtype: Any = jnp.float64, *, fusion: str = "") -> TaskModel:
    def init() -> TaskModel:
        encoder = jaxsmooth.init_encoder(SMALL, jax.random.key(0), dtype=dtype)
        fused = init_fusion(fusion, SMALL, jax.random.key(0), dtype=dtype) if fusion else None
        return init_task_model(encoder, TASKS[kind], jax.random.key(0), fusion=fused)

    return drawn(jax.eval_shape(init))


def small_batch(kind: str, rows: int = 4, length: int = 8, *, seed: int = 0, dtype: Any = np.float64) -> TrainBatch:
    """Random tokens, sentences of different lengths, labels of the kind; the last record is filler."""
    rng = np.random.default_rng(seed)
    sentences = rows * TASKS[kind].choices
    mask = np.arange(length)[None] < rng.integers(4, length, sentences)[:, None]
    tokens = np.where(mask, rng.integers(1, SMALL.vocab, mask.shape), 0).astype(np.int32)
    labels: Any = {
        "classification": lambda: rng.integers(0, 3, rows).astype(np.int32),
        "regression": lambda: rng.normal(size=rows).astype(dtype),
        "span": lambda: SpanLabels(np.arange(rows, dtype=np.int32) % 3, np.arange(rows, dtype=np.int32) % 3 + 1),
        "choice": lambda: rng.integers(0, 2, rows).astype(np.int32),
        "masked_lm": lambda: masked_labels(np.where(mask & (rng.random(mask.shape) < 0.5), tokens, -1).tolist(), 8),
    }[kind]()
    weights = np.array([1.0] * (rows - 1) + [0.0], np.float32)
    batch = jaxsmooth.Batch(tokens, np.zeros_like(tokens), mask)
    return jax.tree.map(jnp.asarray, TrainBatch(batch, labels, weights, np.arange(rows, dtype=np.int32)))


def make_trainer(kind: str, model: TaskModel, config: FinetuneConfig = PLAIN, steps: int = 50, **more: Any) -> Trainer:
    return Trainer(TASKS[kind], config, make_optimiser(config, model, steps), learning_rate(config, steps), **more)


def compiled(function: Callable) -> Callable:
    """The function compiled: op by op it would take ten times as long."""
    return jax.jit(function, compiler_options=QUICK)


def padded(data: TrainBatch, by: int) -> TrainBatch:
    """The same batch, padded further; padding holds tokens that would matter if they were looked at."""

    def widen(leaf: Any, fill: int) -> Any:
        return jnp.pad(leaf, ((0, 0), (0, by)), constant_values=fill)

    batch = jaxsmooth.Batch(widen(data.batch.tokens, 7), widen(data.batch.segments, 1), widen(data.batch.mask, 0))
    return dataclasses.replace(data, batch=batch)


def to_arrays(tree: Any) -> dict[str, np.ndarray]:
    """Every array by its dotted name, on the host."""
    return {name: np.asarray(leaf) for name, leaf in named_leaves(tree).items()}


def write_task(folder: Path, records: int = 48) -> Path:
    """A folder of TSV files that two words decide."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ("the", "a", "film", "is", "so", "it")
    for number, split in enumerate(("train", "validation", "test")):
        rng = np.random.default_rng(number)
        lines = ["text\tlabel"]
        for k in range(records):
            label = k % 2
            middle = " ".join(rng.choice(words, rng.integers(2, 6)))
            lines.append(f"{middle} {('dull', 'worth')[label]} {k}\t{('no', 'yes')[label]}")
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def flags(source: Path, folder: Path, **settings: Any) -> list[str]:
    """The command line of a small run."""
    chosen = {
        "task": source, "model": "tiny", "out": folder, "steps": 24, "batch-size": 8, "max-length": 16,
        "learning-rate": 3e-3, "eval-every": 12, "checkpoint-every": 3, "log-every": 2, "probe": 4, **settings,
    }  # fmt: skip
    return [
        "finetune",
        str(chosen.pop("model")),
        *(part for name, value in chosen.items() for part in (f"--{name}", str(value))),
    ]


class FakeWandb:
    """What a run asks of wandb."""

    def __init__(self):
        self.heard: dict[int, dict[str, float]] = {}
        self.settings: list[dict[str, Any]] = []
        self.finished = 0

    def init(self, **settings: Any) -> "FakeWandb":
        assert settings["resume"] == "allow"
        self.settings.append(settings)
        return self

    def log(self, numbers: dict[str, float], step: int) -> None:
        self.heard.setdefault(step, {}).update(numbers)

    def finish(self) -> None:
        self.finished += 1


def start(arguments: list[str], **options: Any) -> subprocess.Popen:
    """`jaxsmooth` with these arguments as a process of its own."""
    environment = {**os.environ, **options.pop("env", {})}
    command = [sys.executable, "-m", "jaxsmooth", *arguments]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def finish(process: subprocess.Popen, timeout: float = 300) -> str:
    """Its output, once it has ended well."""
    output, _ = process.communicate(timeout=timeout)
    assert process.returncode == 0, output[-3000:]
    return output
