"""Batches for training: shuffled, of few lengths, the same on every machine, resumable to the exact record.

Batch i of a stream is a pure function of the data, the seed and i. So the whole state is one number, every
process of a run can work out the same batch and keep its own rows of it, and threads may work ahead without
changing anything. Records are shuffled, taken in pools of some batches, and sorted by length inside a pool, so
that a batch holds rows of like length and is padded to one of few lengths; then the pool's batches are shuffled.
Tokenisation happens pool by pool in grain's prefetch threads.
"""

import dataclasses
import functools
import hashlib
import math
import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import grain
import numpy as np
from grain.experimental import index_shuffle
from numpy.typing import NDArray

from ..errors import DataError
from ..text import Row, Tokenizer
from ..types import Batch
from .records import Record, Records, SpanRecords, make_records
from .scores import ChoiceScores, ClassScores, NumberScores, Scores, TokenScores
from .spans import SpanScores
from .tasks import Example, Question, SpanLabels, Split, Task, TrainBatch

POOL = 16
"""Batches that are sorted by length together."""

STATE_VERSION = 1
_POOLS_KEPT = 3  # the one that is read, and what the prefetch threads reach ahead


@dataclasses.dataclass(frozen=True)
class TaskData:
    """One split of a task, ready for one tokenizer.

    Attributes:
      task: what is to be learnt.
      split: which part of the data this is.
      examples: as read.
      tokenizer: the model's.
      max_length: most tokens of a row; longer texts are cut (a long context gives several rows).
      each_token: for a masked LM, whether every token is masked in turn (pseudo-perplexity).
      notes: what was left out of the data, and why.
    """

    task: Task
    split: Split
    examples: Sequence[Example]
    tokenizer: Tokenizer
    max_length: int
    each_token: bool = False
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Records: the examples, or for long contexts and `each_token` more."""
        return len(self.records)

    @functools.cached_property
    def records(self) -> Records:
        """The records, made on demand."""
        return make_records(self.task, self.examples, self.tokenizer, self.max_length, each_token=self.each_token)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Names what the records are made from: examples, tokenizer and length."""
        digest = hashlib.sha256(f"{self.tokenizer.fingerprint} {self.max_length} {self.each_token}".encode())
        for example in self.examples:
            digest.update(repr(example).encode())
        return digest.hexdigest()

    def scores(self) -> Scores:
        """An empty account of the task's scores, for one pass over this split."""
        task = self.task
        match task.kind:
            case "classification":
                return ClassScores(len(task.classes), task.positive)
            case "choice":
                return ChoiceScores(task.choices)
            case "regression":
                return NumberScores()
            case "masked_lm":
                return TokenScores(each_token=self.each_token)
            case "span":
                assert isinstance(self.records, SpanRecords)
                questions = [example for example in self.examples if isinstance(example, Question)]
                return SpanScores(questions, self.records, unanswerable=task.unanswerable)

    def truncated(self) -> int:
        """How many records do not hold their whole text. Tokenises everything."""
        starts = range(0, len(self), 1024)
        parts = (self.records.make(range(s, min(s + 1024, len(self))), 0, 0) for s in starts)
        return sum(any(row.truncated for row in record.rows) for part in parts for record in part)


def make_stream(
    data: TaskData,
    *,
    batch_size: int,
    seed: int = 0,
    shuffle: bool = True,
    epochs: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
    pool: int = POOL,
    fixed_length: bool = False,
    threads: int = 1,
    prefetch: int = POOL,
) -> "TaskStream":
    """An endless (or `epochs` long) stream of batches.

    Every epoch sees every record once; its last batch is filled up with rows of weight 0. Batches have
    `batch_size` records and one of the tokenizer's bucket lengths, so few shapes occur.

    Args:
      data: the records.
      batch_size: records of a batch, over all processes.
      seed: of the order and of the masking.
      shuffle: whether to shuffle; without, records of a pool still come sorted by length, and the masking of
        every epoch is the same.
      epochs: how often to go through the data; None for ever.
      process_index: which rows are this process's.
      process_count: how many processes share a batch. All see the same lengths at the same step.
      pool: batches sorted by length together; 1 leaves the order alone.
      fixed_length: pad every batch to `data.max_length`, for one shape.
      threads: that work ahead; 0 makes each batch when it is asked for.
      prefetch: batches to work ahead.

    Returns:
      An iterator of `TrainBatch` of numpy leaves, of which this process has batch_size / process_count records.

    Raises:
      DataError: numbers out of range, or a batch that the processes cannot share evenly.

    >>> from jaxsmooth import EncoderConfig, Tokenizer
    >>> from jaxsmooth.training.tasks import Sentence, Task
    >>> from jaxsmooth.text import TINY_VOCAB
    >>> task = Task("demo", "classification", "accuracy", source="made up", licence="none", classes=("no", "yes"))
    >>> texts = [Sentence("yes", label=1), Sentence("no", label=0), Sentence("oh yes", label=1)]
    >>> data = TaskData(task, "train", texts, Tokenizer.tiny(EncoderConfig(vocab=TINY_VOCAB, max_length=32)), 32)
    >>> with make_stream(data, batch_size=2, shuffle=False, epochs=1) as stream:
    ...     [(b.batch.tokens.shape, b.indices.tolist(), b.weights.tolist()) for b in stream]
    [((2, 16), [1, 0], [1.0, 1.0]), ((2, 16), [2, 2], [1.0, 0.0])]
    """
    _check_whole("batch_size", batch_size, 1)
    _check_whole("seed", seed, 0)
    _check_whole("pool", pool, 1)
    _check_whole("process_count", process_count, 1)
    _check_whole("process_index", process_index, 0)
    if epochs is not None:
        _check_whole("epochs", epochs, 1)
    if process_index >= process_count or batch_size % process_count:
        raise DataError(
            f"batch_size must be a multiple of process_count, and process_index below it; got batch_size="
            f"{batch_size}, process_index={process_index}, process_count={process_count}."
        )
    share = batch_size // process_count
    rows = slice(process_index * share, (process_index + 1) * share)
    batches = _Batches(data, batch_size, seed, shuffle, epochs, pool, fixed_length, rows)
    return TaskStream(batches, threads=threads, prefetch=prefetch)


class TaskStream:
    """An iterator of `TrainBatch` with a position that can be told and set. A context manager: `close` ends threads.

    Attributes:
      steps_per_epoch: batches that hold every record once.
    """

    def __init__(self, batches: "_Batches", *, threads: int, prefetch: int) -> None:
        """See `make_stream`."""
        self._batches = batches
        self.steps_per_epoch = batches.steps
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch if threads else 0)
        self._iterator = iter(grain.MapDataset.source(batches).to_iter_dataset(options))

    def __iter__(self) -> "TaskStream":
        return self

    def __next__(self) -> TrainBatch:
        return next(self._iterator)

    def __enter__(self) -> "TaskStream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads that work ahead. The stream gives no more batches."""
        self._iterator.close()

    def get_state(self) -> dict[str, Any]:
        """Where the stream stands: what the next batch depends on. JSON-able, and the same in every process."""
        return {"version": STATE_VERSION, "next": self._iterator.get_state()["next_index"], **self._batches.identity}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on as the stream did whose state this is, on any number of processes.

        Args:
          state: of a stream over the same data with the same order; how many epochs it had does not matter.

        Raises:
          DataError: another stream's state, or none.
        """
        expected = {"version": STATE_VERSION, **self._batches.identity}
        if not isinstance(state, dict) or not isinstance(state.get("next"), int):
            raise DataError(f"a stream's state must be what get_state gave; got {state!r}.")
        other = {name: (value, state.get(name)) for name, value in expected.items() if state.get(name) != value}
        if other:
            told = "; ".join(f"{name} is {mine!r} here and {theirs!r} there" for name, (mine, theirs) in other.items())
            raise DataError(f"the state belongs to another stream: {told}. Were data or settings changed in between?")
        if not 0 <= state["next"] <= len(self._batches):
            raise DataError(f"the state is at batch {state['next']}, of a stream of {len(self._batches)}.")
        self._iterator.set_state({"next_index": state["next"]})


class _Batches:
    """Random access to the batches of a stream: what grain reads."""

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
        positions = range(first, min(first + self._pool * self._size, self._count))
        indices = [self._order("records", epoch, 0, position, self._count) for position in positions]
        made = self._data.records.make(indices, self._seed, epoch if self._shuffle else 0)
        pairs = list(zip(indices, made, strict=True))
        if self._pool > 1:
            pairs.sort(key=lambda pair: pair[1].length)  # stable: ties keep the shuffled order
        batches = [pairs[start : start + self._size] for start in range(0, len(pairs), self._size)]
        count = len(batches)
        return [batches[self._order("batches", epoch, pool, place, count)] for place in range(count)]

    def _order(self, what: str, epoch: int, pool: int, place: int, count: int) -> int:
        if not self._shuffle or count == 1:
            return place
        return index_shuffle(place, max_index=count - 1, seed=_seed32(what, self._seed, epoch, pool), rounds=4)


@functools.lru_cache(maxsize=64)
def _seed32(what: str, seed: int, epoch: int, pool: int) -> int:
    # Hashed: grain's own shuffle adds the epoch to the seed, so that seeds 0 and 1 would share most of their orders.
    return int.from_bytes(hashlib.sha256(f"{what} {seed} {epoch} {pool}".encode()).digest()[:4], "big")


def _assemble(
    data: TaskData, chosen: list[tuple[int, Record]], weights: NDArray[np.float32], length: int
) -> TrainBatch:
    records = [record for _, record in chosen]
    leaves: Any = TrainBatch  # numpy leaves until the caller puts them on devices
    return leaves(
        batch=_pad([row for record in records for row in record.rows], length, data.tokenizer.pad_id),
        labels=_labels(data.task, records, length),
        weights=weights,
        indices=np.array([index for index, _ in chosen], np.int32),
    )


def _pad(rows: list[Row], length: int, pad: int) -> Batch:
    tokens = np.full((len(rows), length), pad, np.int32)
    segments = np.zeros((len(rows), length), np.int32)
    mask = np.zeros((len(rows), length), np.bool_)
    for place, row in enumerate(rows):
        tokens[place, : len(row.ids)] = row.ids
        segments[place, : len(row.ids)] = row.segments
        mask[place, : len(row.ids)] = True
    return Batch(tokens=tokens, segments=segments, mask=mask)  # type: ignore[arg-type]  # numpy until put on a device


def _labels(task: Task, records: list[Record], length: int) -> Any:
    labels: list[Any] = [record.label for record in records]
    match task.kind:
        case "regression":
            return np.array(labels, np.float32)
        case "span":
            start, end = np.array(labels, np.int32).T
            return SpanLabels(start=start, end=end)
        case "masked_lm":
            return np.array([ids + [-1] * (length - len(ids)) for ids in labels], np.int32)
        case _:
            return np.array(labels, np.int32)


def _buckets(data: TaskData) -> tuple[int, ...]:
    return tuple(sorted({min(bucket, data.max_length) for bucket in data.tokenizer.buckets}))


def _check_whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise DataError(f"{name} must be a whole number of at least {least}; got {value!r}.")
