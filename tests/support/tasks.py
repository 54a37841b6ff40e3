"""Small made-up tasks for the tests of the input pipeline."""

import random

import jax
import numpy as np

from jaxsmooth.bert.config import EncoderConfig
from jaxsmooth.inputs.tokenizer import TINY_VOCAB, Tokenizer
from jaxsmooth.training.data.task_data import TaskData
from jaxsmooth.training.data.tasks import Choice, Example, Kind, MaskedLabels, Question, Sentence, Task, TrainBatch
from jaxsmooth.types import Batch

CONFIG = EncoderConfig(vocab=TINY_VOCAB, width=12, layers=1, heads=3, mlp_width=20, max_length=64)
TOKENIZER = Tokenizer.tiny(CONFIG)
TWO = ("no", "yes")


def make_task(kind: Kind = "classification", **more) -> Task:
    classes = TWO if kind == "classification" else ()
    fields = {"name": f"made-up {kind}", "metric": "accuracy", "source": "made up", "licence": "none"}
    return Task(**(fields | {"kind": kind, "classes": classes} | more))


def words(rng: random.Random, most: int) -> str:
    return " ".join("".join(rng.choices("abcdefgh", k=rng.randint(1, 4))) for _ in range(rng.randint(1, most)))


def make_examples(kind: Kind, count: int, seed: int = 0) -> list[Example]:
    rng = random.Random(seed)
    if kind == "span":
        made = []
        for number in range(count):
            context = f"{words(rng, 30)} key{number} {words(rng, 10)}"
            start = context.index(f"key{number}")
            made.append(Question(f"where is {number}?", context, (f"key{number}",), (start,), id=f"q{number}"))
        return made
    if kind == "choice":
        return [
            Choice(words(rng, 4), tuple(words(rng, 5) for _ in range(3)), rng.randrange(3), id=str(n))
            for n in range(count)
        ]
    labels = {"classification": lambda: rng.randrange(2), "regression": rng.random, "masked_lm": lambda: None}
    return [Sentence(f"{words(rng, 14)} {number}", label=labels[kind](), id=str(number)) for number in range(count)]


def make_data(kind: Kind = "classification", count: int = 37, max_length: int = 48, seed: int = 0, **more) -> TaskData:
    task = make_task(kind, choices=3 if kind == "choice" else 1)
    return TaskData(task, "train", make_examples(kind, count, seed), TOKENIZER, max_length, **more)


def leaves(batch: TrainBatch) -> list[np.ndarray]:
    """Every array of a batch, in a fixed order."""
    labels = batch.labels
    parts = jax.tree.leaves(labels)
    return [batch.batch.tokens, batch.batch.segments, batch.batch.mask, *parts, batch.weights, batch.indices]


def same(first: TrainBatch, second: TrainBatch) -> bool:
    pairs = list(zip(leaves(first), leaves(second), strict=True))
    return all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") and a.dtype == b.dtype for a, b in pairs)


def fake_batch(labels, weights=None, length: int = 3) -> TrainBatch:
    """A batch for scores alone, which look at labels and weights; [B K] are tokens that a masked LM is asked for."""
    labels = np.asarray(labels)
    asked = MaskedLabels(np.zeros(labels.shape, np.int32), labels) if labels.ndim == 2 else labels
    count = len(labels)
    shape = (count, length)
    return TrainBatch(
        batch=Batch(tokens=np.zeros(shape, np.int32), segments=np.zeros(shape, np.int32), mask=np.ones(shape, bool)),
        labels=asked,
        weights=np.ones(count, np.float32) if weights is None else np.asarray(weights, np.float32),
        indices=np.arange(count, dtype=np.int32),
    )
