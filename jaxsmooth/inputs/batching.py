"""Rows of token ids to batches of few shapes."""

import dataclasses
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import jax
import numpy as np
from numpy.typing import NDArray

from ..errors import TextError
from ..types import Batch, ImageBatch

BUCKETS = (16, *(length << doublings for doublings in range(26) for length in (32, 48)))
"""Lengths that batches are padded to, 16, 32, 48, 64, 96, 128, 192, ..., up to the model's own longest, which is always
one as well. From 16 tokens on padding less than doubles a length, from 32 on it adds less than half; and a model of
twice the length has two programs more."""

PROGRAM = 8
"""What one more shape counts, in batches. Of minilm-l6 a batch takes about half a second on two cores, tracing a
program three or four, in every process, and compiling it some eighteen, once a machine; a second run in one process
pays for padding alone."""

CHUNK = 256
"""Sentences tokenised at once in a stream: enough to keep every core busy, few enough to hold in memory. Of a stream
that is no longer the shapes are chosen all at once."""


@dataclasses.dataclass(frozen=True)
class EncodedBatch:
    """One batch of a stream.

    Attributes:
      batch: tokens, segments and mask, [B T], or images; B and T depend on the bucket alone.
      indices: positions in the stream of the first len(indices) rows, int64. The rows after them repeat the
        last of these, so that every batch of a bucket has one shape; leave them out of every sum.
      truncated: how many of the sentences at `indices` were cut.
      texts: the sentences at `indices`; () for images.
    """

    batch: Batch | ImageBatch
    indices: NDArray[np.int64]
    truncated: int
    texts: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Row:
    """One tokenised text or pair, special tokens included, no padding.

    Attributes:
      ids: token ids, T of them.
      segments: 0 or, in the second text of a pair, 1; T of them.
      truncated: whether the text was cut.
      spans: for a row of `Tokenizer.windows`, the characters of the second text that each token covers, and
        (-1, -1) for every other token; else ().
    """

    ids: list[int]
    segments: list[int]
    truncated: bool
    spans: tuple[tuple[int, int], ...] = ()


_Entry = tuple[int, str, Row]  # where in the stream, the text, its tokens


def pad_rows(rows: list[Row], length: int, pad: int) -> Batch:
    """A batch of the rows, [B T], T = length, at least that of the longest; of numpy arrays."""
    tokens = np.full((len(rows), length), pad, np.int32)
    segments = np.zeros((len(rows), length), np.int32)
    mask = np.zeros((len(rows), length), np.bool_)
    for place, row in enumerate(rows):
        tokens[place, : len(row.ids)] = row.ids
        segments[place, : len(row.ids)] = row.segments
        mask[place, : len(row.ids)] = True
    return Batch(tokens=tokens, segments=segments, mask=mask)  # type: ignore[arg-type]  # numpy, until put on a device


def bucketed_batches(
    rows: Iterable[tuple[str, Row]], buckets: Sequence[int], pad: int, *, tokens_per_batch: int
) -> Iterator[EncodedBatch]:
    """Batches of rows of like length, each as soon as it is full, the unfinished ones at the end.

    What is left at the end, all of a short stream, is padded to as few lengths as `PROGRAM` makes worth while.

    Args:
      rows: a text and its row, in the order of the stream.
      buckets: the lengths that batches are padded to, ascending; the last holds the longest row.
      pad: id of padding.
      tokens_per_batch: size of a batch, padding included.

    Returns:
      An iterator of `EncodedBatch`; see `Tokenizer.batches`.
    """
    queues: dict[int, list[_Entry]] = {bucket: [] for bucket in buckets}
    used = set()
    stream = iter(rows)
    first = list(itertools.islice(stream, CHUNK + 1))
    is_long, stream = len(first) > CHUNK, itertools.chain(first, stream)
    del first  # or its texts would be held to the end
    for index, (text, row) in enumerate(stream):
        bucket = smallest_bucket([row], buckets)
        queues[bucket].append((index, text, row))
        if is_long and len(queues[bucket]) == row_count(bucket, tokens_per_batch):
            yield _encoded_batch(queues[bucket], bucket, pad, tokens_per_batch)
            queues[bucket] = []
            used.add(bucket)
    left = {bucket: len(queue) for bucket, queue in queues.items()}
    for bucket, shorter in chosen_buckets(left, used, tokens_per_batch):
        together = sorted((entry for each in shorter for entry in queues[each]), key=lambda entry: entry[0])
        rows_each = row_count(bucket, tokens_per_batch)
        for start in range(0, len(together), rows_each):
            yield _encoded_batch(together[start : start + rows_each], bucket, pad, tokens_per_batch)


def chosen_buckets(
    rows: Mapping[int, int], used: Collection[int], tokens_per_batch: int
) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """Of the lengths those that rows are padded to: the fewest batches, each new length counted as `PROGRAM` more.

    Args:
      rows: length -> number of rows that need it, lengths ascending.
      used: lengths that have their program already.
      tokens_per_batch: size of a batch.

    Returns:
      Each chosen length with those whose rows it takes.

    >>> chosen_buckets({16: 3, 64: 5, 128: 1}, (), 512), chosen_buckets({16: 3, 64: 5, 128: 0}, (16, 64), 512)
    (((128, (16, 64, 128)),), ((64, (16, 64)),))
    """
    # best[k]: cost and choice for the first k lengths, the k-th being the longest chosen.
    lengths = [length for length in rows if rows[length] or length in used]
    best: list[tuple[int, tuple[tuple[int, tuple[int, ...]], ...]]] = [(0, ())]
    for k, length in enumerate(lengths, 1):
        options = []
        for start, (cost, before) in enumerate(best):
            taken = tuple(shorter for shorter in lengths[start:k] if rows[shorter])
            batches = -(-sum(rows[shorter] for shorter in taken) // row_count(length, tokens_per_batch))
            program = PROGRAM * (bool(taken) and length not in used)
            options.append((cost + batches + program, (*before, (length, taken)) if taken else before))
        best.append(min(options))
    needed = max((k for k, length in enumerate(lengths, 1) if rows[length]), default=0)
    return min(best[needed:])[1]


def _encoded_batch(queue: list[_Entry], bucket: int, pad: int, tokens_per_batch: int) -> EncodedBatch:
    rows = [row for _, _, row in queue]
    # A real sentence as filler, not padding: no quantity of it is 0/0.
    fillers = row_count(bucket, tokens_per_batch) - len(rows)
    return EncodedBatch(
        batch=jax.device_put(pad_rows(rows + fillers * rows[-1:], bucket, pad)),
        indices=np.array([index for index, _, _ in queue], np.int64),
        truncated=sum(row.truncated for row in rows),
        texts=tuple(text for _, text, _ in queue),
    )


def smallest_bucket(rows: list[Row], buckets: Sequence[int]) -> int:
    """The first of the ascending lengths that holds every row."""
    longest = max(len(row.ids) for row in rows)
    return next(bucket for bucket in buckets if longest <= bucket)


def row_count(bucket: int, tokens_per_batch: int) -> int:
    """Rows of a batch of this length: at least one, and more than eight in whole eights, which split evenly."""
    rows = max(1, tokens_per_batch // bucket)
    return rows if rows < 8 else rows - rows % 8


def split_limit(lengths: list[int], limit: int) -> list[int]:
    """How many of `limit` tokens each text keeps, by the rule "longest first" of Hugging Face's fast tokenizers.

    The longer text is cut to what the shorter leaves, and where that is less than half, both are cut to a half; an odd
    token goes to the longer, and where both are of one length to the second.

    Args:
      lengths: tokens of the one text, or of the two.
      limit: most tokens in all, special tokens left out.

    >>> split_limit([300, 400], 509), split_limit([400, 300], 509), split_limit([7, 7], 9), split_limit([2, 9], 8)
    ([254, 255], [255, 254], [4, 5], [2, 6])
    """
    if sum(lengths) <= limit:
        return lengths
    if len(lengths) == 1:
        return [limit]
    first, second = lengths
    shorter = min(first, second, limit // 2)
    return [limit - shorter, shorter] if first > second else [shorter, limit - shorter]


def chunks(texts: Iterable[object]) -> Iterator[list[object]]:
    """The stream in lists of `CHUNK`, the last one shorter."""
    chunk: list[object] = []
    for text in texts:
        chunk.append(text)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def refuse_single_string(name: str, texts: object) -> None:
    """TextError for what is one string, or no series at all; `name` is what the caller calls it."""
    if isinstance(texts, (str, bytes)) or not isinstance(texts, Iterable):
        raise TextError(f"{name} must be a list of strings; got one {type(texts).__name__}. Pass a list: [text].")


def checked_strings(name: str, texts: Iterable[object], start: int = 0) -> list[str]:
    """The texts, if all are valid Unicode strings; else a TextError that counts from `start`."""
    refuse_single_string(name, texts)
    checked: list[str] = []
    for index, text in enumerate(texts, start):
        if not isinstance(text, str):
            raise TextError(f"{name}[{index}] must be a string; got {type(text).__name__}.")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise TextError(
                f"{name}[{index}] holds half a surrogate pair at character {error.start}: it is not valid Unicode. "
                "Was it read with errors='surrogateescape'?"
            ) from error
        checked.append(text)
    return checked
