"""Mean, deviation and extrema over sentences, merged batch by batch."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .brief import Brief

HIDDEN_METRICS = (
    "cosine_similarity",
    "relative_distance",
    "subspace_distance",
    "effective_rank",
    "stable_rank",
    "token_norm",
)
"""Metrics of one hidden state: the fields of a `Diagnosis` with one value per layer, embedding output included."""

HEAD_METRICS = (
    "mixing_rate",
    "ergodicity_coefficient",
    "attention_entropy",
    "sink_strength",
    "first_token_attention",
)
"""Metrics of one head's attention: the fields with one value per layer and head."""

BLOCK_METRICS = ("std_product", "threshold", "attention_similarity", "principal_alignment")
"""Metrics of one block: the fields with one value per layer."""


WHOLE = ("contraction", "tokens", "change")
"""Quantities of a text, not of a layer."""


def layer_of(quantity: str, place: int) -> int | None:
    """Which layer the number at a place of a quantity is of: of hidden states the first is the embedding's, layer 0.

    None of what is no layer's: a number of the whole text, or of layers fused, whose name has the fusion before a "/".
    Metrics of the user's own, "own/..." in a table, are of hidden states.

    >>> layer_of("cosine_similarity", 0), layer_of("L1", 0), layer_of("tokens", 0), layer_of("own/longest", 2)
    (0, 1, None, 2)
    """
    if quantity.startswith("own/"):
        return place
    return None if quantity in WHOLE or "/" in quantity else place + (quantity not in HIDDEN_METRICS)


@dataclasses.dataclass(frozen=True, repr=False)
class Spread(Brief):
    """How a per-sentence quantity is distributed over the sentences, for every layer (and head) at once.

    Attributes:
      mean: mean over sentences, [K] or [K N], float64.
      std: standard deviation over sentences (divisor: the count), same shape.
      min: smallest value, same shape.
      max: largest value, same shape.
      count: how many sentences have a value, same shape; a quantity that is 0/0 for a sentence (the cosine
        similarity of its one token) leaves that sentence out. With count 0 the other fields are NaN.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    min: NDArray[np.float64]
    max: NDArray[np.float64]
    count: NDArray[np.int64]

    @property
    def standard_error(self) -> NDArray[np.float64]:
        """Of the mean, over all texts of the kind that the sentences are random draws of, same shape.

        std / sqrt(count - 1), the std with its divisor `count`; NaN for fewer than two sentences.

        >>> running = RunningSpread()
        >>> running.add(np.array([[1.0, 2.0, 3.0, 4.0]]))
        >>> running.spread().standard_error.round(4)
        array([0.6455])
        """
        return np.where(self.count > 1, self.std / np.sqrt(np.maximum(self.count - 1, 1)), np.nan)

    def map(self, function: Callable[[NDArray], NDArray]) -> "Spread":
        """The spread of some of the quantities, or of all in another shape.

        >>> running = RunningSpread()
        >>> running.add(np.array([[1.0, 3.0], [2.0, 2.0]]))
        >>> running.spread().map(lambda field: field[:1]).mean
        array([2.])
        """
        return Spread(*(function(getattr(self, field.name)) for field in dataclasses.fields(self)))


class RunningSpread:
    """Count, mean, squared deviation and extrema over sentences, merged batch by batch in float64.

    Chan, Golub and LeVeque (1983): merging (mean, deviation) pairs loses no digits to cancellation.

    >>> running = RunningSpread()
    >>> running.add(np.array([[1.0, np.nan]]))
    >>> running.add(np.array([[3.0]]))
    >>> spread = running.spread()
    >>> spread.mean, spread.std, spread.count
    (array([2.]), array([1.]), array([2]))
    """

    def __init__(self) -> None:
        self._count: NDArray | int = 0
        self._mean: NDArray | float = 0.0
        self._squares: NDArray | float = 0.0
        self._min: NDArray | float = np.inf
        self._max: NDArray | float = -np.inf

    def add(self, values: NDArray[np.float64]) -> None:
        """Add a batch, [K B ...], sentences on axis 1; NaN is no value."""
        real = ~np.isnan(values)
        count = real.sum(axis=1)
        known = np.where(real, values, 0)
        mean = known.sum(axis=1) / np.maximum(count, 1)
        squares = (np.where(real, values - mean[:, None], 0) ** 2).sum(axis=1)
        total = np.maximum(self._count + count, 1)
        step = mean - self._mean
        self._squares = self._squares + squares + step**2 * self._count * count / total
        self._mean = self._mean + step * count / total
        self._count = self._count + count
        self._min = np.minimum(self._min, np.where(real, values, np.inf).min(axis=1))
        self._max = np.maximum(self._max, np.where(real, values, -np.inf).max(axis=1))

    def spread(self) -> Spread:
        """The spread of all batches so far, [K ...]."""
        count = np.asarray(self._count, np.int64)
        std = np.sqrt(self._squares / np.maximum(count, 1))
        fields = (self._mean, std, self._min, self._max)
        mean, std, low, high = (np.where(count == 0, np.nan, field) for field in fields)
        return Spread(mean, std, low, high, count)


class RunningSpreads:
    """The running spread of each of several quantities."""

    def __init__(self, *, finite: bool = False) -> None:
        """`finite`: whether a sentence whose value is infinite is left out, as one without a value is."""
        self._finite = finite
        self._running: dict[str, RunningSpread] = {}

    def add(self, measured: Mapping[str, Any], rows: int) -> None:
        """Add a batch: name -> array [K B ...], of which the first `rows` of the B sentences count."""
        for name, array in measured.items():
            values = np.asarray(array, np.float64)[:, :rows]
            known = np.where(np.isinf(values), np.nan, values) if self._finite else values
            self._running.setdefault(name, RunningSpread()).add(known)

    def spreads(self) -> dict[str, Spread]:
        """Name -> spread of all batches so far."""
        return {name: running.spread() for name, running in self._running.items()}
