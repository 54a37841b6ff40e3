"""The field's scores, gathered batch by batch: nothing but sums (or one number per example) is kept.

Every account has `update(outputs, batch)`, `result()`, and `get_state` and `add_state`, which bring the accounts
of several processes together. Rows of weight 0 and labels that are not told count for nothing. `outputs` are:

================  =====================================================================
classification    logits [B C]
choice            logits [B C]
regression        values [B]
span              pair of logits [B T], for the first and for the last token
masked_lm         pair of [B T]: the label's log-probability, and whether it is the likeliest token; see
                  `masked_lm_outputs`
================  =====================================================================

All sums are float64. Of every score that can choose a checkpoint, more is better.
"""

import abc
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import NDArray

from ...errors import DataError
from ..data.tasks import TrainBatch


class Scores(abc.ABC):
    """An account of a task's scores over one pass of a split."""

    @abc.abstractmethod
    def update(self, outputs: Any, batch: TrainBatch) -> None:
        """Count one batch.

        Args:
          outputs: what the head gave, see the table of this module; numpy or jax arrays.
          batch: the batch it was given.

        Raises:
          DataError: outputs of another shape, or NaN.
        """

    @abc.abstractmethod
    def result(self) -> dict[str, float]:
        """The scores by name. NaN is: not defined on what was counted.

        Raises:
          DataError: nothing was counted.
        """

    @abc.abstractmethod
    def get_state(self) -> dict[str, Any]:
        """What was counted, JSON-able."""

    @abc.abstractmethod
    def add_state(self, state: dict[str, Any]) -> None:
        """Count what another account of the same split counted."""


class ClassScores(Scores):
    """Accuracy, F1 and Matthews correlation from one confusion matrix."""

    def __init__(self, classes: int, positive: int | None = None) -> None:
        """An empty account.

        Args:
          classes: how many.
          positive: the class that F1 is of; None for the mean of F1 over the classes that occur.
        """
        self._positive = positive
        self._confusion = np.zeros((classes, classes))

    def update(self, outputs: Any, batch: TrainBatch) -> None:
        logits, labels, weights = np.asarray(outputs), np.asarray(batch.labels), np.asarray(batch.weights)
        classes = len(self._confusion)
        check_shape("logits", logits, (len(labels), classes))
        if labels.max(initial=-1) >= classes:
            raise DataError(f"labels must be below the number of classes, {classes}; got {labels.max()}.")
        told = labels >= 0
        check_numbers("logits", logits[told & (weights > 0)])
        np.add.at(self._confusion, (labels[told], logits.argmax(axis=1)[told]), weights[told].astype(np.float64))

    def result(self) -> dict[str, float]:
        if not self._confusion.sum():
            raise DataError("no example was counted; expected at least one with a label.")
        return {
            "accuracy": accuracy(self._confusion),
            "f1": f1(self._confusion, self._positive),
            "matthews": matthews(self._confusion),
        }

    def get_state(self) -> dict[str, Any]:
        return {"confusion": self._confusion.tolist()}

    def add_state(self, state: dict[str, Any]) -> None:
        self._confusion += np.asarray(state["confusion"], np.float64)


class ChoiceScores(ClassScores):
    """Accuracy of multiple choice. The place of the right choice means nothing, so there is no F1 of a place."""

    def result(self) -> dict[str, float]:
        return {"accuracy": super().result()["accuracy"]}


class NumberScores(Scores):
    """Pearson and Spearman correlation and the mean squared error. Keeps two numbers per example."""

    def __init__(self) -> None:
        """An empty account."""
        self._pairs: list[tuple[float, float]] = []

    def update(self, outputs: Any, batch: TrainBatch) -> None:
        values, labels = np.asarray(outputs, np.float64), np.asarray(batch.labels, np.float64)
        check_shape("values", values, labels.shape)
        counted = (np.asarray(batch.weights) > 0) & ~np.isnan(labels)
        check_numbers("values", values[counted])
        self._pairs += zip(values[counted].tolist(), labels[counted].tolist(), strict=True)

    def result(self) -> dict[str, float]:
        if not self._pairs:
            raise DataError("no example was counted; expected at least one with a label.")
        values, labels = np.array(self._pairs).T
        return {
            "pearson": pearson(values, labels),
            "spearman": pearson(_ranks(values), _ranks(labels)),
            "mse": float(np.mean((values - labels) ** 2)),
        }

    def get_state(self) -> dict[str, Any]:
        return {"pairs": [list(pair) for pair in self._pairs]}

    def add_state(self, state: dict[str, Any]) -> None:
        self._pairs += [(value, label) for value, label in state["pairs"]]


class TokenScores(Scores):
    """How well masked tokens are told: exp of the mean negative log-likelihood, and accuracy.

    When every token is masked once and alone, that exponential is the pseudo-perplexity of Salazar et al. (2020)
    and goes by that name; with many tokens masked at once it is a different, larger number.
    """

    def __init__(self, *, each_token: bool) -> None:
        """An empty account, for data where each token is masked alone or not."""
        self._name = "pseudo_perplexity" if each_token else "masked_perplexity"
        self._sums = np.zeros(3)  # tokens, their log-likelihood, those told right

    def update(self, outputs: Any, batch: TrainBatch) -> None:
        log_probs, right = (np.asarray(part) for part in outputs)
        labels = np.asarray(batch.labels)
        check_shape("log-probabilities", log_probs, labels.shape)
        check_shape("right", right, labels.shape)
        counted = (labels >= 0) & (np.asarray(batch.weights) > 0)[:, None]
        check_numbers("log-probabilities", log_probs[counted])
        self._sums += [counted.sum(), log_probs[counted].sum(dtype=np.float64), right[counted].sum()]

    def result(self) -> dict[str, float]:
        count, log_likelihood, right = self._sums.tolist()
        if not count:
            raise DataError("no token was counted; expected at least one that is masked.")
        mean = log_likelihood / count
        # exp(709) is the largest; a model that diverged is still to be reported.
        perplexity = math.exp(-mean) if -mean < 709 else math.inf
        return {self._name: perplexity, "log_likelihood": mean, "accuracy": right / count}

    def get_state(self) -> dict[str, Any]:
        return {"sums": self._sums.tolist()}

    def add_state(self, state: dict[str, Any]) -> None:
        self._sums += np.asarray(state["sums"], np.float64)


def masked_lm_outputs(
    logits: Float[Array, "B T V"], labels: Int[Array, "B T"]
) -> tuple[Float[Array, "B T"], Bool[Array, "B T"]]:
    """What `TokenScores` counts, worked out on the device, so that no vocabulary-wide array leaves it.

    Args:
      logits: the head's.
      labels: the tokens that were there, -1 where nothing is asked.

    Returns:
      The labels' log-probabilities in float32 or better (0 where nothing is asked), and whether each label is the
      likeliest token.
    """
    wide = logits.astype(jnp.float32) if jnp.finfo(logits.dtype).bits < 32 else logits
    asked = labels >= 0
    chosen = jnp.take_along_axis(wide, jnp.where(asked, labels, 0)[..., None], axis=-1)[..., 0]
    log_probs = chosen - jax.nn.logsumexp(wide, axis=-1)
    return jnp.where(asked, log_probs, 0.0), asked & (jnp.argmax(wide, axis=-1).astype(labels.dtype) == labels)


def accuracy(confusion: NDArray[np.float64]) -> float:
    """Share of the examples on the diagonal; rows are labels, columns predictions.

    >>> accuracy(np.array([[3.0, 1.0], [0.0, 4.0]]))
    0.875
    """
    return float(np.trace(confusion) / confusion.sum())


def f1(confusion: NDArray[np.float64], positive: int | None = None) -> float:
    """F1 of one class, or the plain mean over all classes that occur as label or prediction.

    F1 = 2 TP / (2 TP + FP + FN); 0 for a class that is never told right, NaN for one that does not occur.

    >>> round(f1(np.array([[3.0, 1.0], [0.0, 4.0]]), positive=1), 4)
    0.8889
    """
    hits, totals = np.diag(confusion), confusion.sum(axis=0) + confusion.sum(axis=1)
    if positive is not None:
        return float(2 * hits[positive] / totals[positive]) if totals[positive] else math.nan
    occurring = totals > 0
    return float(np.mean(2 * hits[occurring] / totals[occurring]))


def matthews(confusion: NDArray[np.float64]) -> float:
    """Matthews correlation, for more than two classes as Gorodkin (2004) has it; 0 where it is 0/0.

    >>> matthews(np.array([[2.0, 0.0], [0.0, 2.0]]))
    1.0
    """
    labels, predictions, total = confusion.sum(axis=1), confusion.sum(axis=0), confusion.sum()
    covariance = np.trace(confusion) * total - labels @ predictions
    spread = math.sqrt((total**2 - predictions @ predictions) * (total**2 - labels @ labels))
    return float(covariance / spread) if spread else 0.0


def pearson(values: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    """Pearson correlation; NaN where one side does not vary.

    >>> round(pearson(np.array([1.0, 2.0, 4.0]), np.array([2.0, 4.0, 8.0])), 12)
    1.0
    """
    a, b = values - values.mean(), labels - labels.mean()
    spread = math.sqrt(float(a @ a)) * math.sqrt(float(b @ b))
    return float(a @ b) / spread if spread else math.nan


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2.0)[inverse]


def check_shape(name: str, got: NDArray, expected: tuple[int, ...]) -> None:
    """Raises DataError unless an array has the shape."""
    if got.shape != expected:
        raise DataError(f"{name} must have shape {expected}; got {got.shape}. Are they those of this batch?")


def check_numbers(name: str, values: NDArray) -> None:
    """Raises DataError where a value is NaN: the likeliest of NaNs would be the first, and be counted as a guess."""
    if np.isnan(values).any():
        raise DataError(f"{name} hold NaN, so there is nothing to score. Did the training diverge?")
