"""Texts to rows of token ids, one text or a pair or a window of a pair at a time, cut to a length."""

from collections.abc import Callable, Iterable
from typing import Any

import tokenizers

from ..errors import TextError
from .batching import Row, split_limit
from .vocabulary import refusals


class RowEncoder:
    """Turns texts into rows, with special tokens, no padding and no arrays.

    Attributes:
      backend: a tokenizer of the `tokenizers` library that neither cuts nor pads.
      normalize: what is done to every text first.
      source: names the tokenizer in errors.
    """

    def __init__(self, backend: tokenizers.Tokenizer, normalize: Callable[[str], str], source: str) -> None:
        self.backend, self.normalize, self.source = backend, normalize, source

    def rows(self, firsts: list[str], seconds: list[str] | None, limit: int) -> list[Row]:
        """One row per text, or per pair, of at most `limit` tokens; of a pair the longer text is cut first."""
        firsts = [self.normalize(text) for text in firsts]
        seconds = None if seconds is None else [self.normalize(text) for text in seconds]
        inputs: Any = firsts if seconds is None else list(zip(firsts, seconds, strict=True))
        with refusals(self.source):
            encodings = self.backend.encode_batch(inputs)
        return [
            Row(e.ids, e.type_ids, truncated=False) if len(e.ids) <= limit else self._cut(text, limit)
            for text, e in zip(inputs, encodings, strict=True)
        ]

    def without_special_tokens(self, texts: list[str]) -> list[tokenizers.Encoding]:
        """One encoding per text, special tokens left out, nothing cut."""
        with refusals(self.source):
            return self.backend.encode_batch([self.normalize(text) for text in texts], add_special_tokens=False)

    def windows(
        self, questions: list[str], contexts: list[str], ranges: Iterable[tuple[int, int]], most: int
    ) -> list[Row]:
        """Rows of a question and a window of its context; see `Tokenizer.windows`."""
        if self.normalize is not str:
            raise TextError(f"{self.source} rewrites characters before it reads them, so it cannot point at answers.")
        asked, read = (self.without_special_tokens(texts) for texts in (questions, contexts))
        rows = []
        for question, context, (first, last) in zip(asked, read, ranges, strict=True):
            question.truncate(most)
            context.truncate(last)
            context.truncate(last - first, direction="left")
            with refusals(self.source):
                whole = self.backend.post_process(question, context)
            second = [number == 1 for number in whole.sequence_ids]
            spans = tuple(o if inside else (-1, -1) for o, inside in zip(whole.offsets, second, strict=True))
            rows.append(Row(whole.ids, whole.type_ids, truncated=False, spans=spans))
        return rows

    def special_count(self, *, pair: bool) -> int:
        """Special tokens that a text, or a pair, gets."""
        return self.backend.num_special_tokens_to_add(pair)

    def _cut(self, text: str | tuple[str, str], limit: int) -> Row:
        # By hand: the library's own truncation is a setting of the shared tokenizer, not of one call.
        parts = (text,) if isinstance(text, str) else text
        with refusals(self.source):
            encodings = [self.backend.encode(part, add_special_tokens=False) for part in parts]
            most = limit - self.special_count(pair=len(parts) == 2)
            for encoding, keep in zip(encodings, split_limit([len(e.ids) for e in encodings], most), strict=True):
                encoding.truncate(keep)
            whole = self.backend.post_process(encodings[0], encodings[1] if len(parts) == 2 else None)
        if len(whole.ids) > limit:
            raise TextError(f"{self.source}: its post-processor does more than add special tokens; cannot cut a text.")
        return Row(whole.ids, whole.type_ids, truncated=True)
