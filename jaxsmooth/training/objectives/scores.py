"""The field's scores, accumulated batch by batch: nothing but sums (or one number per example) is kept.

Each has `update(outputs, batch)`, `result()`, and `get_state` and `add_state`, which add up what several processes
counted. Rows of weight 0 and missing labels count for nothing. `outputs` are:

================  =====================================================================
classification    logits [B C]
choice            logits [B C]
regression        values [B]
span              pair of logits [B T], for the first and for the last token
masked_lm         pair of [B K]: the label's log-probability, and whether it is the likeliest token; see
                  `masked_lm_outputs`
================  =====================================================================

All sums are float64. Of every score that can choose a checkpoint, more is better.
"""

import abc
import math
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import NDArray

from ...errors import DataError, NotFiniteError
from ..data.tasks import TrainBatch


class Scores(abc.ABC):
    """A task's scores over one pass of a split."""

    @abc.abstractmethod
    def update(self, outputs: Any, batch: TrainBatch) -> None:
        """Count one batch.

        Args:
          outputs: of the head, see the table of this module; numpy or jax arrays.
          batch: its input.

        Raises:
          DataError: outputs of another shape, or NaN.
        """

    @abc.abstractmethod
    def result(self) -> dict[str, float]:
        """The scores by name; NaN where one is not defined on what was counted.

        Raises:
          DataError: nothing was counted.
        """

    @abc.abstractmethod
    def get_state(self) -> dict[str, Any]:
        """What was counted, JSON-able."""

    @abc.abstractmethod
    def add_state(self, state: dict[str, Any]) -> None:
        """Count what others have counted of the same split.

        Args:
          state: from their `get_state`.
        """


class ClassScores(Scores):
    """Accuracy, F1 and Matthews correlation from one confusion matrix."""

    def __init__(self, classes: int, positive: int | None = None) -> None:
        """Count from nothing.

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
        labelled = labels >= 0
        check_numbers("logits", logits[labelled & (weights > 0)])
        places = labels[labelled], logits.argmax(axis=1)[labelled]
        np.add.at(self._confusion, places, weights[labelled].astype(np.float64))

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
    """Accuracy of multiple choice. Which place the right choice has means nothing, so there is no F1."""

    def result(self) -> dict[str, float]:
        return {"accuracy": super().result()["accuracy"]}


class NumberScores(Scores):
    """Pearson and Spearman correlation and the mean squared error. Keeps two numbers per example."""

    def __init__(self) -> None:
        """Count from nothing."""
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
            **correlations(values, labels),
            "mse": float(np.mean((values - labels) ** 2)),
        }

    def get_state(self) -> dict[str, Any]:
        return {"pairs": [list(pair) for pair in self._pairs]}

    def add_state(self, state: dict[str, Any]) -> None:
        self._pairs += [(value, label) for value, label in state["pairs"]]


class TokenScores(Scores):
    """How well masked tokens are predicted: exp of the mean negative log-likelihood, and accuracy.

    When every token is masked once and alone, that exponential is the pseudo-perplexity of Salazar et al. (2020)
    and goes by that name; with many tokens masked at once it is a different, larger number.
    """

    def __init__(self, *, each_token: bool) -> None:
        """Count from nothing.

        Args:
          each_token: whether each token is masked alone.
        """
        self._name = "pseudo_perplexity" if each_token else "masked_perplexity"
        self._sums = np.zeros(3)  # tokens, their log-likelihood, those predicted right

    def update(self, outputs: Any, batch: TrainBatch) -> None:
        log_probs, right = (np.asarray(part) for part in outputs)
        labels = np.asarray(batch.labels.tokens)
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
    logits: Float[Array, "B K V"], labels: Int[Array, "B K"]
) -> tuple[Float[Array, "B K"], Bool[Array, "B K"]]:
    """What `TokenScores` counts, computed on the device, so that no vocabulary-wide array leaves it.

    Args:
      logits: the head's.
      labels: the original tokens, -1 where nothing is to be predicted.

    Returns:
      The labels' log-probabilities in float32 or better (0 where there is no label), and whether each label is the
      likeliest token.
    """
    wide = logits.astype(jnp.float32) if jnp.finfo(logits.dtype).bits < 32 else logits
    asked = labels >= 0
    chosen = jnp.take_along_axis(wide, jnp.where(asked, labels, 0)[..., None], axis=-1)[..., 0]
    log_probs = chosen - jax.nn.logsumexp(wide, axis=-1)
    return jnp.where(asked, log_probs, 0.0), asked & (jnp.argmax(wide, axis=-1).astype(labels.dtype) == labels)


def accuracy(confusion: NDArray[np.float64]) -> float:
    """Share of the examples on the diagonal.

    Args:
      confusion: how often each label (row) got each prediction (column).

    >>> accuracy(np.array([[3.0, 1.0], [0.0, 4.0]]))
    0.875
    """
    return float(np.trace(confusion) / confusion.sum())


def f1(confusion: NDArray[np.float64], positive: int | None = None) -> float:
    """F1 of one class, or the plain mean over all classes that occur as label or prediction.

    F1 = 2 TP / (2 TP + FP + FN); 0 for a class that is never predicted right, NaN for one that does not occur.

    Args:
      confusion: as for `accuracy`.
      positive: the class; None for the mean.

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

    Args:
      confusion: as for `accuracy`.

    >>> matthews(np.array([[2.0, 0.0], [0.0, 2.0]]))
    1.0
    """
    labels, predictions, total = confusion.sum(axis=1), confusion.sum(axis=0), confusion.sum()
    covariance = np.trace(confusion) * total - labels @ predictions
    spread = math.sqrt((total**2 - predictions @ predictions) * (total**2 - labels @ labels))
    return float(covariance / spread) if spread else 0.0


def correlations(values: Float[NDArray, " N"], labels: Float[NDArray, " N"]) -> dict[str, float]:
    """Pearson and Spearman correlation; NaN where one side does not vary.

    Args:
      values: predictions.
      labels: what they should be.

    Returns:
      "pearson" and "spearman"; of equal values Spearman's ranks are their mean.

    >>> correlations(np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0]))["spearman"]
    1.0
    """
    if len(values) < 2:  # scipy refuses them
        return {"pearson": math.nan, "spearman": math.nan}
    import scipy.stats  # slow to import, and only regressions need it

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)
        pearson, spearman = scipy.stats.pearsonr(values, labels), scipy.stats.spearmanr(values, labels)
    return {"pearson": float(pearson.statistic), "spearman": float(spearman.statistic)}


def check_shape(name: str, got: NDArray, expected: tuple[int, ...]) -> None:
    """Refuse outputs of another shape.

    Args:
      name: of the outputs, for the message.
      got: the outputs.
      expected: the shape.

    Raises:
      DataError: they have another one.
    """
    if got.shape != expected:
        raise DataError(f"{name} must have shape {expected}; got {got.shape}. Are they those of this batch?")


def check_numbers(name: str, values: NDArray) -> None:
    """Refuse NaN: the largest of NaNs would be the first, and be counted as a prediction.

    Args:
      name: of the outputs, for the message.
      values: the outputs.

    Raises:
      NotFiniteError: a value is NaN.
    """
    if np.isnan(values).any():
        raise NotFiniteError(f"{name} hold NaN, so there is nothing to score. Did the training diverge?")
