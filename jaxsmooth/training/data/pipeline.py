"""Batches for training: shuffled, of few lengths, the same on every machine, resumable to the exact record.

Batch i of a stream is a pure function of the data, the seed and i (see `batches`). So the whole state is one number,
every process of a run can work out the same batch and keep its own rows of it, and grain's prefetch threads, which
tokenise, may work ahead without changing anything.
"""

from typing import Any

import grain

from ...errors import DataError, require_int
from .batches import Batches
from .task_data import TaskData
from .tasks import TrainBatch

POOL = 16
"""Batches that are sorted by length together."""

STATE_VERSION = 1


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
    >>> from jaxsmooth.training.data.tasks import Sentence, Task
    >>> from jaxsmooth.inputs.tokenizer import TINY_VOCAB
    >>> task = Task("demo", "classification", "accuracy", source="made up", licence="none", classes=("no", "yes"))
    >>> texts = [Sentence("yes", label=1), Sentence("no", label=0), Sentence("oh yes", label=1)]
    >>> data = TaskData(task, "train", texts, Tokenizer.tiny(EncoderConfig(vocab=TINY_VOCAB, max_length=32)), 32)
    >>> with make_stream(data, batch_size=2, shuffle=False, epochs=1) as stream:
    ...     [(b.batch.tokens.shape, b.indices.tolist(), b.weights.tolist()) for b in stream]
    [((2, 16), [1, 0], [1.0, 1.0]), ((2, 16), [2, 2], [1.0, 0.0])]
    """
    require_int("batch_size", batch_size, 1, DataError)
    require_int("seed", seed, 0, DataError)
    require_int("pool", pool, 1, DataError)
    require_int("process_count", process_count, 1, DataError)
    require_int("process_index", process_index, 0, DataError)
    if epochs is not None:
        require_int("epochs", epochs, 1, DataError)
    if process_index >= process_count or batch_size % process_count:
        raise DataError(
            f"batch_size must be a multiple of process_count, and process_index below it; got batch_size="
            f"{batch_size}, process_index={process_index}, process_count={process_count}."
        )
    share = batch_size // process_count
    rows = slice(process_index * share, (process_index + 1) * share)
    batches = Batches(data, batch_size, seed, shuffle, epochs, pool, fixed_length, rows)
    return TaskStream(batches, threads=threads, prefetch=prefetch)


class TaskStream:
    """An iterator of `TrainBatch` with a position that can be told and set. A context manager: `close` ends threads.

    Attributes:
      steps_per_epoch: batches that hold every record once.
    """

    def __init__(self, batches: Batches, *, threads: int, prefetch: int) -> None:
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
