"""What is known text by text, and what that says of other texts of their kind."""

import dataclasses
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .brief import Brief

KEPT = 100_000
"""Texts whose values are kept; of more, a random sample of so many."""

EMBEDDED = 2048
"""Texts whose embeddings are kept, D numbers each; of more, a random sample of so many."""


@dataclasses.dataclass(frozen=True)
class TextStatement:
    """What the texts that were read say of all texts of their kind, about one number.

    Each limit holds with `TextStatements.confidence` by itself, if the texts are random draws of their kind.

    Attributes:
      quantity: "contraction", d_M of the last layer over that of the embedding output; "rate", the actual rate of a
        block; or "cosine_similarity" of a hidden state.
      layer: from 1, as everywhere; None for the whole network.
      texts: how many texts have a value.
      level: a value of interest, chosen beforehand.
      exceeding: how many texts are above it.
      share_at_most: at most this share of all such texts is above it.
      share_at_least: at least this share.
      most_below: `TextStatements.share` of all such texts is at most this; infinite where the texts are too few.
      most_above: the same share is at least this.
      next_below: the next such text is at most this, with a probability of the confidence.
      next_above: it is at least this.
    """

    quantity: str
    layer: int | None
    texts: int
    level: float
    exceeding: int
    share_at_most: float
    share_at_least: float
    most_below: float
    most_above: float
    next_below: float
    next_above: float


@dataclasses.dataclass(frozen=True)
class LengthTrend:
    """How one number goes with the number of tokens, over the texts that were read.

    Attributes:
      quantity: "contraction" of the whole network; "cosine_similarity" of the tokens of the last layer; or
        "embedding_similarity", the mean cosine of a text's embedding with those of the others.
      texts: how many texts have a value.
      shortest: the fewest tokens of such a text, special tokens included.
      longest: the most.
      spearman: Spearman's rank correlation with the number of tokens; NaN where one of them does not vary.
      p_value: the probability of one at least as far from 0 if the two had nothing to do with each other (Student's t).
      per_doubling: slope of the least-squares line against log2 of the number of tokens.
    """

    quantity: str
    texts: int
    shortest: int
    longest: int
    spearman: float
    p_value: float
    per_doubling: float


@dataclasses.dataclass(frozen=True)
class LengthGroup:
    """Texts of like length, and how alike their embeddings are.

    Attributes:
      texts: how many.
      shortest: the fewest tokens of such a text.
      longest: the most.
      similarity: mean cosine of the embeddings of two of them; NaN of a single one.
    """

    texts: int
    shortest: int
    longest: int
    similarity: float


@dataclasses.dataclass(frozen=True, repr=False)
class TextStatements(Brief):
    """All of them, and the values they rest on where those were asked for.

    Attributes:
      confidence: of every limit by itself.
      share: see `TextStatement.most_below`.
      read: how many texts were read.
      kept: how many of them, chosen at random, the statements rest on; all where they are at most `KEPT`.
      rows: one per quantity and layer, the whole network first.
      places: the kept texts' positions in what was read, [kept].
      values: quantity -> its values, layers on the first axis, [K kept]; empty unless asked for.
      lengths: how the whole network's contraction, the last layer's similarity and that of embeddings go with the
        number of tokens.
      groups: the texts by quarters of their numbers of tokens, shortest first.
    """

    confidence: float
    share: float
    read: int
    kept: int
    rows: tuple[TextStatement, ...]
    places: NDArray[np.int64]
    values: dict[str, NDArray[np.float64]]
    lengths: tuple[LengthTrend, ...] = ()
    groups: tuple[LengthGroup, ...] = ()


class KeptTexts:
    """Values text by text, of at most `limit` texts: a uniform random sample where there are more.

    Each text has a random number that its position and the seed determine; those with the smallest are kept. So the
    sample does not depend on batches.

    >>> kept = KeptTexts(limit=2)
    >>> for place in range(5):
    ...     kept.add({"rate": np.array([[float(place)]])}, np.array([place]))
    >>> places, values = kept.found()
    >>> len(places), bool((values["rate"][0] == places).all()), kept.read
    (2, True, 5)
    """

    def __init__(self, limit: int = KEPT, seed: int = 0) -> None:
        self.read, self._limit, self._seed = 0, limit, seed
        self._places: list[NDArray[np.int64]] = []
        self._values: dict[Hashable, list[NDArray[np.float64]]] = {}

    def add(self, measured: Mapping[Any, Any], places: NDArray[np.int64]) -> None:
        """Add a batch: name -> array [K B], the first of whose B texts stand at `places`."""
        self.read += len(places)
        self._places.append(np.asarray(places, np.int64))
        for name, array in measured.items():
            self._values.setdefault(name, []).append(np.asarray(array, np.float64)[:, : len(places)])
        if sum(map(len, self._places)) > 2 * self._limit:
            self._prune()

    def found(self) -> tuple[NDArray[np.int64], dict[Any, NDArray[np.float64]]]:
        """The kept texts' positions in ascending order, [n], and their values, [K n]."""
        self._prune()
        places = self._places[0] if self._places else np.empty(0, np.int64)
        order = np.argsort(places)
        return places[order], {name: parts[0][:, order] for name, parts in self._values.items()}

    def _prune(self) -> None:
        if not self._places:
            return
        places = np.concatenate(self._places)
        chosen = np.argsort(_scrambled(places, self._seed), kind="stable")[: self._limit]
        self._places = [places[chosen]]
        self._values = {name: [np.concatenate(parts, axis=1)[:, chosen]] for name, parts in self._values.items()}


def _scrambled(places: NDArray[np.int64], seed: int) -> NDArray[np.uint64]:
    """A random-looking number of each position: splitmix64 (Steele, Lea and Flood 2014)."""
    with np.errstate(over="ignore"):
        x = (places.astype(np.uint64) + np.uint64(seed + 1)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
