"""One pass over texts or images: in batches over all devices, counted, with a progress bar."""

import collections
import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, TypeVar

import jax
import numpy as np

from ..bert.params import Encoder
from ..errors import ShapeError, TextError
from ..heap import release_freed
from ..inputs.batches import encoded_batches
from ..inputs.batching import EncodedBatch
from ..inputs.tokenizer import Tokenizer, TruncationWarning
from ..linalg.eigh import one_lapack_thread
from ..progress import ProgressBar
from ..results.summaries import DataSummary
from .data_parallel import over_devices, placement

AT_ONCE = 2
"""Batches that are computed at the same time, where programs are kept (see `programs.Kept.start`)."""

Found = TypeVar("Found")


def require_encoder(model: object) -> None:
    """Refuse what is no encoder.

    Raises:
      ShapeError: says what came.
    """
    if not isinstance(model, Encoder):
        raise ShapeError(f"model must be an Encoder; got {type(model).__name__}. `load` gives (model, tokenizer).")


class TextStream:
    """Batches of an encoder's input; leaving its `with` block warns of texts that were cut.

    Its `model` is the encoder, placed as the batches are (see `data_parallel`); the `with` block works with that.

    Args:
      model: the encoder.
      tokenizer: its tokenizer; a vision encoder has none.
      texts: sentences, any iterable of strings; for a vision encoder images, each [C Y X].
      doing: what is being done, for the progress bar.
      tokens_per_batch: size of a batch, padding included, over all devices.
      progress: whether to show on stderr how far it is (`progress.ProgressBar`); how much is left too, of `texts` that
        have a length.

    Raises:
      ShapeError: no encoder.
      TextError: one string instead of several, or what is no series; while reading also as `encoded_batches`.

    >>> import jaxsmooth
    >>> model, tokenizer = jaxsmooth.load("tiny")
    >>> with TextStream(model, tokenizer, ["A film.", "Dull."], "reading", tokens_per_batch=64) as stream:
    ...     shapes = [encoded.batch.mask.shape for encoded in stream]
    >>> shapes, stream.summary("two texts").sentences
    ([(4, 16)], 2)
    """

    def __init__(
        self,
        model: Encoder,
        tokenizer: Tokenizer | None,
        texts: Iterable[Any],
        doing: str,
        *,
        tokens_per_batch: int,
        progress: bool = False,
    ) -> None:
        if isinstance(texts, str) or not isinstance(texts, Iterable):
            raise TextError(
                f"texts must be a series of strings; got {type(texts).__name__}. Wrap one string in a list."
            )
        require_encoder(model)
        self._max_length = tokenizer.max_length if isinstance(tokenizer, Tokenizer) else model.config.max_length
        batches = encoded_batches(model.config, tokenizer, texts, tokens_per_batch=tokens_per_batch)
        self.model, rows, self._mesh = placement(model)
        self._batches = over_devices(batches, rows)
        known = len(texts) if isinstance(texts, Sized) else None
        self._bar = ProgressBar(doing, "images" if model.config.is_vision else "sentences", total=known, shown=progress)
        self._most = len(tokenizer.buckets) if isinstance(tokenizer, Tokenizer) else 1
        self._sentences = self._tokens = self._truncated = 0

    def __enter__(self) -> "TextStream":
        with contextlib.ExitStack() as entered:
            entered.enter_context(one_lapack_thread())
            if self._mesh is not None:
                entered.enter_context(jax.set_mesh(self._mesh))
            entered.enter_context(self._bar)
            self._exit = entered.pop_all()
        return self

    def __iter__(self) -> Iterator[EncodedBatch]:
        for encoded, new in self._read():
            if new:
                release_freed()  # a large program is about to be loaded
            yield encoded
            self._count(encoded)

    def computed(self, start: Callable[[EncodedBatch], Callable[[], Found]]) -> Iterator[tuple[EncodedBatch, Found]]:
        """Each batch with what is computed of it, in order; two batches are computed at once, on a thread each.

        XLA's CPU client computes what one thread asks for one after the other, and a program of many small steps does
        not keep two cores busy. Results of at most three batches are in memory.

        Args:
          start: gives what is to be called on another thread, see `programs.Kept.start`.
        """
        waiting: collections.deque[tuple[EncodedBatch, Future[Found]]] = collections.deque()
        pool = ThreadPoolExecutor(AT_ONCE)
        try:
            for encoded, new in self._read():
                if new:
                    wait(found for _, found in waiting)  # loading a program and computing both take memory
                    release_freed()
                waiting.append((encoded, pool.submit(_ready, start(encoded))))
                if len(waiting) > AT_ONCE:
                    yield from self._next(waiting)
            while waiting:
                yield from self._next(waiting)
        finally:
            pool.shutdown(cancel_futures=True)

    def _next(
        self, waiting: "collections.deque[tuple[EncodedBatch, Future[Found]]]"
    ) -> Iterator[tuple[EncodedBatch, Found]]:
        encoded, found = waiting.popleft()
        yield encoded, found.result()
        self._count(encoded)

    def _read(self) -> Iterator[tuple[EncodedBatch, bool]]:
        """Batches, and whether one is the first of its length."""
        lengths: set[int] = set()
        for encoded in self._batches:
            length = encoded.batch.mask.shape[-1]
            new = length not in lengths
            if new:
                lengths.add(length)
                self._bar.compiling(length, len(lengths), self._most)
            yield encoded, new
            self._bar.note()

    def _count(self, encoded: EncodedBatch) -> None:
        rows = len(encoded.indices)
        self._sentences, self._truncated = self._sentences + rows, self._truncated + encoded.truncated
        # Sliced on the host: on a device it would wait for what is being computed there.
        self._tokens += int(np.asarray(encoded.batch.mask)[:rows].sum())
        self._bar.advance(rows)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._exit.close()
        if self._truncated and error is None:
            message = f"{self._truncated} of {self._sentences} texts were cut to {self._max_length} tokens."
            warnings.warn(message, TruncationWarning, stacklevel=4)  # at the caller of the study, which is wrapped

    def tell(self, words: str) -> None:
        """Leave a line of words behind on stderr, where progress is shown."""
        self._bar.tell(words)

    def summary(self, name: str) -> DataSummary:
        """What was read so far, for a report."""
        return DataSummary(name, self._sentences, self._tokens, self._truncated)


def _ready(compute: Callable[[], Found]) -> Found:
    found: Found = jax.block_until_ready(compute())
    return found
