"""Batch i of a stream as a pure function of the data, the seed and i: which records, in which order, how long.

Records are shuffled, taken in pools of some batches, and sorted by length inside a pool, so that a batch holds rows
of like length and is padded to one of few lengths; then the pool's batches are shuffled. A pool is tokenised when
its first batch is asked for.
"""

import functools
import hashlib
import math
import sys
import threading
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...inputs.batching import pad_rows
from .records import Record, most_masked
from .task_data import TaskData
from .tasks import NO_CLASS, MaskedLabels, SpanLabels, Task, TrainBatch

_POOLS_KEPT = 3  # the one that is read, and what the prefetch threads reach ahead


class Batches:
    """Random access to the batches of a stream: what grain reads. The arguments are those of `make_stream`.

    Attributes:
      steps: batches that hold every record once.
      identity: what the batches depend on, JSON-able.
    """

    def __init__(
        self,
        data: TaskData,
        batch_size: int,
        seed: int,
        shuffle: bool,
        epochs: int | None,
        pool: int,
        fixed_length: bool,
        rows: slice,
    ) -> None:
        self._data, self._rows, self._seed, self._shuffle = data, rows, seed, shuffle
        self._size, self._pool = batch_size, pool
        self._count = len(data)
        self.steps = math.ceil(self._count / batch_size)
        self._length = self.steps * epochs if epochs else sys.maxsize // self.steps * self.steps
        self._buckets = (data.max_length,) if fixed_length else _buckets(data)
        self._cache: OrderedDict[tuple[int, int], list[list[tuple[int, Record]]]] = OrderedDict()
        self._lock = threading.Lock()
        self.identity: dict[str, Any] = {
            "task": data.task.name,
            "split": data.split,
            "data": data.fingerprint,
            "records": self._count,
            "batch_size": batch_size,
            "seed": seed,
            "shuffle": shuffle,
            "pool": pool,
        }

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> TrainBatch:
        epoch, step = divmod(index, self.steps)
        pool, place = divmod(step, self._pool)
        with self._lock:  # one thread makes a pool, the others wait for it
            batches = self._cached(epoch, pool)
        chosen = batches[place]
        # The length is the whole batch's, not this process's share: all processes run one program.
        longest = max(record.length for _, record in chosen)
        length = next(bucket for bucket in self._buckets if longest <= bucket)
        weights = np.array([1.0] * len(chosen) + [0.0] * (self._size - len(chosen)), np.float32)
        filled = chosen + [chosen[-1]] * (self._size - len(chosen))
        return _assemble(self._data, filled[self._rows], weights[self._rows], length)

    def _cached(self, epoch: int, pool: int) -> list[list[tuple[int, Record]]]:
        if (epoch, pool) not in self._cache:
            self._cache[epoch, pool] = self._make_pool(epoch, pool)
            while len(self._cache) > _POOLS_KEPT:
                self._cache.popitem(last=False)
        self._cache.move_to_end((epoch, pool))
        return self._cache[epoch, pool]

    def _make_pool(self, epoch: int, pool: int) -> list[list[tuple[int, Record]]]:
        first = pool * self._pool * self._size
        last = min(first + self._pool * self._size, self._count)
        indices = self._order("records", epoch, 0, self._count)[first:last].tolist()
        made = self._data.records.make(indices, self._seed, epoch if self._shuffle else 0)
        pairs = list(zip(indices, made, strict=True))
        if self._pool > 1:
            pairs.sort(key=lambda pair: pair[1].length)  # stable: ties keep the shuffled order
        batches = [pairs[start : start + self._size] for start in range(0, len(pairs), self._size)]
        return [batches[place] for place in self._order("batches", epoch, pool, len(batches))]

    def _order(self, what: str, epoch: int, pool: int, count: int) -> NDArray[np.int64]:
        return _permutation(what, self._seed, epoch, pool, count) if self._shuffle else np.arange(count)


@functools.lru_cache(maxsize=4)
def _permutation(what: str, seed: int, epoch: int, pool: int, count: int) -> NDArray[np.int64]:
    # Of the raw bits, which numpy promises never to change, as it does not for `permutation`. (grain's index_shuffle
    # takes milliseconds per index where there are few, and its shuffle adds epoch to seed: seeds would share orders.)
    key = hashlib.sha256(f"{what} {seed} {epoch} {pool}".encode()).digest()[:16]
    bits = np.random.Philox(key=int.from_bytes(key, "big")).random_raw(count)
    return np.argsort(bits, kind="stable")


def _assemble(
    data: TaskData, chosen: list[tuple[int, Record]], weights: NDArray[np.float32], length: int
) -> TrainBatch:
    records = [record for _, record in chosen]
    leaves: Any = TrainBatch  # numpy leaves until the caller puts them on devices
    return leaves(
        batch=pad_rows([row for record in records for row in record.rows], length, data.tokenizer.pad_id),
        labels=_labels(data.task, records, length),
        weights=weights,
        indices=np.array([index for index, _ in chosen], np.int32),
    )


def _labels(task: Task, records: list[Record], length: int) -> Any:
    labels: list[Any] = [record.label for record in records]
    match task.kind:
        case "regression":
            return np.array(labels, np.float32)
        case "span":
            start, end = np.array(labels, np.int32).T
            return SpanLabels(start=start, end=end)
        case "masked_lm":
            return masked_labels(labels, most_masked(length))
        case _:
            return np.array(labels, np.int32)


def masked_labels(labels: list[list[int]], most: int) -> MaskedLabels:
    """Of a token or -1 at every place, the places with one.

    Args:
      labels: of each row; no row has more than `most` tokens.
      most: K.

    >>> labels = masked_labels([[-1, 7, -1, 5], [-1]], 2)
    >>> labels.places.tolist(), labels.tokens.tolist()
    ([[1, 3], [0, 0]], [[7, 5], [-1, -1]])
    """
    places, tokens = np.zeros((len(labels), most), np.int32), np.full((len(labels), most), NO_CLASS, np.int32)
    for row, ids in enumerate(labels):
        asked = [place for place, token in enumerate(ids) if token != NO_CLASS]
        places[row, : len(asked)] = asked
        tokens[row, : len(asked)] = [ids[place] for place in asked]
    made: Any = MaskedLabels  # numpy leaves, as those of the batch
    return made(places=places, tokens=tokens)


def _buckets(data: TaskData) -> tuple[int, ...]:
    return tuple(sorted({min(bucket, data.max_length) for bucket in data.tokenizer.buckets}))
