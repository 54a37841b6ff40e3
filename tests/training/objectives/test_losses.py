"""Losses against their definitions in numpy; what padding, fillers and missing labels may not do."""

import dataclasses

import numpy as np
import pytest
from support.training import TASKS, compiled, make_trainer, padded, small_batch, small_model

from jaxsmooth.training.model import task_logits
from jaxsmooth.training.objectives.losses import label_count, loss_sum

WORST = 1e-12


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def numpy_loss(kind, logits, data):
    """Mean loss from its definition, record by record."""
    real = [k for k, weight in enumerate(np.asarray(data.weights)) if weight]
    if kind == "regression":
        return np.mean([(logits[k, 0] - float(data.labels[k])) ** 2 for k in real])
    if kind == "span":
        ends = ((data.labels.start, 0), (data.labels.end, 1))
        return np.mean([-log_softmax(logits[k, :, place])[int(labels[k])] for labels, place in ends for k in real])
    if kind == "masked_lm":
        labels = np.asarray(data.labels.tokens)
        asked = [(k, t) for k in real for t in range(labels.shape[1]) if labels[k, t] >= 0]
        return np.mean([-log_softmax(logits[k, t])[labels[k, t]] for k, t in asked])
    return np.mean([-log_softmax(logits[k])[int(data.labels[k])] for k in real])


@pytest.mark.parametrize("kind", TASKS)
def test_losses_and_what_padding_may_not_do(kind):
    model, data = small_model(kind), small_batch(kind)
    trainer = make_trainer(kind, model)
    loss_of = compiled(lambda model, data: (trainer.loss(model, data), trainer.logits(model, data)))
    loss, logits = float(loss_of(model, data)[0]), loss_of(model, data)[1]
    assert abs(loss - numpy_loss(kind, np.asarray(logits), data)) < WORST
    assert abs(float(loss_of(model, padded(data, 5))[0]) - loss) < WORST
    # the filler row counts for nothing, whatever it holds
    rows = TASKS[kind].choices
    tokens = data.batch.tokens.at[-rows:].set(5)
    other = dataclasses.replace(data, batch=dataclasses.replace(data.batch, tokens=tokens))
    assert float(loss_of(model, other)[0]) == loss


def test_a_missing_class_counts_nothing():
    model, data = small_model("classification"), small_batch("classification")
    missing = dataclasses.replace(data, labels=data.labels.at[0].set(-1))
    logits = task_logits(model, data.batch)
    without = dataclasses.replace(data, weights=data.weights.at[0].set(0.0))
    assert float(label_count("classification", missing)) == 2
    assert float(loss_sum("classification", logits, missing)) == float(loss_sum("classification", logits, without))
