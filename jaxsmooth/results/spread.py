"""Mean, deviation and extrema over sentences, merged batch by batch."""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

HIDDEN_METRICS = (
    "cosine_similarity",
    "relative_distance",
    "subspace_distance",
    "effective_rank",
    "stable_rank",
    "token_norm",
)
"""What is measured of every hidden state, the embedding output included; each is defined in `jaxsmooth.metrics`."""


@dataclasses.dataclass(frozen=True)
class Spread:
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

    @classmethod
    def over_sentences(cls, values: NDArray[np.float64]) -> "Spread":
        """The spread of values over axis 1, the sentences; what is not finite is left out.

        >>> Spread.over_sentences(np.array([[1.0, 3.0, np.inf]])).mean
        array([2.])
        """
        real = np.isfinite(values)
        count = real.sum(axis=1)
        known = np.where(real, values, 0)
        mean = known.sum(axis=1) / np.maximum(count, 1)
        squares = (np.where(real, values - mean[:, None], 0) ** 2).sum(axis=1)
        low, high = np.where(real, values, np.inf).min(axis=1), np.where(real, values, -np.inf).max(axis=1)
        std = np.sqrt(squares / np.maximum(count, 1))
        mean, std, low, high = (np.where(count > 0, part, np.nan) for part in (mean, std, low, high))
        return cls(mean, std, low, high, count)


class _Running:
    """Count, mean, squared deviation and extrema over sentences (axis 1), merged batch by batch in float64.

    Chan, Golub and LeVeque (1983): merging (mean, deviation) pairs loses no digits to cancellation.
    """

    def __init__(self) -> None:
        self.count: NDArray | int = 0
        self.mean: NDArray | float = 0.0
        self.squares: NDArray | float = 0.0
        self.min: NDArray | float = np.inf
        self.max: NDArray | float = -np.inf

    def add(self, values: NDArray[np.float64]) -> None:
        real = ~np.isnan(values)
        count = real.sum(axis=1)
        known = np.where(real, values, 0)
        some = np.maximum(count, 1)
        mean = known.sum(axis=1) / some
        squares = (np.where(real, values - mean[:, None], 0) ** 2).sum(axis=1)
        total = np.maximum(self.count + count, 1)
        step = mean - self.mean
        self.squares = self.squares + squares + step**2 * self.count * count / total
        self.mean = self.mean + step * count / total
        self.count = self.count + count
        self.min = np.minimum(self.min, np.where(real, values, np.inf).min(axis=1))
        self.max = np.maximum(self.max, np.where(real, values, -np.inf).max(axis=1))

    def spread(self) -> Spread:
        count = np.asarray(self.count, np.int64)
        none = count == 0

        def known(values: Any) -> NDArray[np.float64]:
            return np.where(none, np.nan, values)

        std = np.sqrt(self.squares / np.maximum(count, 1))
        return Spread(known(self.mean), known(std), known(self.min), known(self.max), count)
