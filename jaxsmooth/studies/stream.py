"""One pass over texts or images: in batches, counted, with a bar that shows how far it is."""

import warnings
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..bert.params import Encoder
from ..errors import TextError
from ..inputs.batches import encoded_batches
from ..inputs.batching import EncodedBatch
from ..inputs.tokenizer import Tokenizer, TruncationWarning
from ..results.summaries import DataSummary


class Reading:
    """Batches of what an encoder reads; leaving its `with` block warns of texts that were cut.

    Args:
      model: the encoder that reads.
      tokenizer: its tokenizer; a vision encoder has none.
      texts: sentences, any iterable of strings; for a vision encoder images, each [C Y X].
      doing: what the bar says is being done.
      tokens_per_batch: size of a batch, padding included.
      progress: whether to show the bar on stderr.

    Raises:
      TextError: one string instead of several, or what is no series; while reading also as `encoded_batches`.

    >>> import jaxsmooth
    >>> model, tokenizer = jaxsmooth.load("tiny")
    >>> with Reading(model, tokenizer, ["A film.", "Dull."], "reading", tokens_per_batch=64) as reading:
    ...     shapes = [encoded.batch.mask.shape for encoded in reading]
    >>> shapes, reading.summary("two texts").sentences
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
        self._most = model.config.max_length
        self._batches = encoded_batches(model.config, tokenizer, texts, tokens_per_batch=tokens_per_batch)
        self._bar = progress_bar(progress)
        self._task = self._bar.add_task(doing, total=len(texts) if isinstance(texts, (list, tuple)) else None)
        self.sentences = self.tokens = self.truncated = 0

    def __enter__(self) -> "Reading":
        self._bar.start()
        return self

    def __iter__(self) -> Iterator[EncodedBatch]:
        for encoded in self._batches:
            yield encoded
            rows = len(encoded.indices)
            self.sentences, self.truncated = self.sentences + rows, self.truncated + encoded.truncated
            self.tokens += int(np.asarray(encoded.batch.mask[:rows]).sum())
            self._bar.advance(self._task, rows)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()
        if self.truncated and error is None:
            message = f"{self.truncated} of {self.sentences} texts were cut to {self._most} tokens."
            warnings.warn(message, TruncationWarning, stacklevel=3)  # where the caller of the whole pass is

    def summary(self, name: str) -> DataSummary:
        """What a report says of the data."""
        return DataSummary(name, self.sentences, self.tokens, self.truncated)


def progress_bar(shown: bool) -> Progress:
    """A bar on stderr that counts sentences and leaves nothing behind."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("sentences"),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    return Progress(*columns, console=console, disable=not (shown and console.is_terminal), transient=True)
