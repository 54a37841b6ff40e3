"""The losses of the tasks: sums over what has a label, and how many that is."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ...bert.norm import accumulation_dtype
from ..data.tasks import TrainBatch


def loss_sum(kind: str, logits: Float[Array, "..."], data: TrainBatch) -> Float[Array, ""]:
    """Summed loss of a batch, in at least float32: cross entropy, or squared error for regression.

    Filler rows, examples without a label and tokens that are not to be predicted count nothing. A span's loss
    is the mean of its two ends', as in BertForQuestionAnswering. Divide by `label_count`.

    Args:
      kind: the task's.
      logits: as `bert.heads.apply_head` gives them.
      data: labels and weights.

    Returns:
      The sum, float32 or float64.
    """
    wide = logits.astype(accumulation_dtype(logits.dtype))
    if kind == "span":
        ends = zip((data.labels.start, data.labels.end), jnp.moveaxis(wide, 2, 0), strict=True)
        first, last = (_cross_entropy(scores, labels, data.weights) for labels, scores in ends)
        return (first + last) / 2
    if kind == "regression":
        error = (wide[:, 0] - data.labels.astype(wide.dtype)) ** 2
        return (error * data.weights.astype(wide.dtype)).sum()
    return _cross_entropy(wide, _classes(kind, data), data.weights)


def label_count(kind: str, data: TrainBatch) -> Float[Array, ""]:
    """How many labels a batch has: rows, or tokens to be predicted.

    Args:
      kind: the task's.
      data: labels and weights.

    Returns:
      The number in float32, as the weights.
    """
    if kind in ("span", "regression"):
        return data.weights.sum()
    return _weights(_classes(kind, data), data.weights).sum()


def _classes(kind: str, data: TrainBatch) -> Array:
    return data.labels.tokens if kind == "masked_lm" else data.labels


def _cross_entropy(logits: Array, labels: Array, weights: Array) -> Array:
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))
    return (losses * _weights(labels, weights).astype(losses.dtype)).sum()


def _weights(labels: Array, weights: Array) -> Array:
    """The rows' weights at every label, 0 where the label is -1."""
    return jnp.where(labels >= 0, weights.reshape(-1, *[1] * (labels.ndim - 1)), jnp.zeros((), weights.dtype))
