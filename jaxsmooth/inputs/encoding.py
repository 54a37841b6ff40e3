"""Texts to rows of token ids, one text or a pair or a window of a pair at a time, cut to a length."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import tokenizers

from ..bert.config import EncoderConfig
from ..errors import TextError
from .batching import Row, split_limit
from .tokenizer_files import TokenizerFiles
from .vocabulary import refusals


class RowEncoder:
    """Turns texts into rows for a model, with special tokens, no padding and no arrays.

    Attributes:
      backend: the tokenizer of the `tokenizers` library; it neither cuts nor pads.
      normalize: what is done to every text first.
      source: names the tokenizer in errors.
      segments: whether the second text of a pair is segment 1; a model of one segment is not told.
    """

    def __init__(self, files: TokenizerFiles, config: EncoderConfig) -> None:
        """Fit a tokenizer to a model.

        Args:
          files: the tokenizer; what its backend cuts, pads and splits by itself is set in place.
          config: the model.

        Raises:
          TextError: what stands around a text lies outside the model's table, or has segments other than 0 and 1.
        """
        self.backend, self.source, settings, self.normalize = files
        self.segments = settings.segments and config.segments > 1
        self._side = "left" if settings.cut_left else "right"
        self._vocab = config.vocab
        with refusals(self.source):
            # MiniLM's tokenizer.json silently cuts at 128 and pads to 128.
            self.backend.no_truncation()
            self.backend.no_padding()
            self.backend.encode_special_tokens = settings.split_special
            largest = max(self.backend.get_vocab(with_added_tokens=True).values(), default=0)
            probes = (self.backend.encode("a"), self.backend.encode("a", "a"))
        for probe in probes:
            self._check_ends(probe)
        # A model's table may be shorter than the vocabulary: only texts that use what is missing are refused.
        self._longer = largest >= self._vocab

    def rows(self, firsts: list[str], seconds: list[str] | None, limit: int, start: int = 0) -> list[Row]:
        """One row per text, or per pair, of at most `limit` tokens; of a pair the longer text is cut first.

        Args:
          firsts: the texts.
          seconds: as many that follow them, or None.
          limit: most tokens of a row.
          start: the place of the first text in its stream, for errors.
        """
        firsts = [self.normalize(text) for text in firsts]
        seconds = None if seconds is None else [self.normalize(text) for text in seconds]
        inputs: Any = firsts if seconds is None else list(zip(firsts, seconds, strict=True))
        with refusals(self.source):
            encodings = self.backend.encode_batch(inputs)
        rows = [
            self._row(e, truncated=False) if len(e.ids) <= limit else self._cut(text, limit)
            for text, e in zip(inputs, encodings, strict=True)
        ]
        self._check_ids(rows, "texts", start)
        return rows

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
            rows.append(dataclasses.replace(self._row(whole, truncated=False), spans=spans))
        self._check_ids(rows, "questions", 0)
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
                encoding.truncate(keep, direction=self._side)
            whole = self.backend.post_process(encodings[0], encodings[1] if len(parts) == 2 else None)
        if len(whole.ids) > limit:
            raise TextError(f"{self.source}: its post-processor does more than add special tokens; cannot cut a text.")
        return self._row(whole, truncated=True)

    def _row(self, encoding: tokenizers.Encoding, *, truncated: bool) -> Row:
        segments = encoding.type_ids if self.segments else [0] * len(encoding.ids)
        return Row(encoding.ids, segments, truncated)

    def _check_ids(self, rows: list[Row], name: str, start: int) -> None:
        """Refuse a text with a token that the model's table has no row for; rows are counted from `start`."""
        for place, row in enumerate(rows if self._longer else (), start):
            number = max(row.ids, default=0)
            if number >= self._vocab:
                raise TextError(
                    f"{name}[{place}] has the token {self.backend.id_to_token(number)!r}, whose id {number} is not "
                    f"below the model's vocabulary of {self._vocab}. Does {self.source} belong to another model, or "
                    "were tokens added to it without rows in the model's table?"
                )

    def _check_ends(self, probe: tokenizers.Encoding) -> None:
        """Refuse what stands around every text when the model has no row for it."""
        ends = [number for number, special in zip(probe.ids, probe.special_tokens_mask, strict=True) if special]
        if max(ends, default=0) >= self._vocab:
            raise TextError(
                f"{self.source}: the ids around a text must lie below the model's vocabulary of {self._vocab}; got "
                f"{ends}. Does the tokenizer belong to another model?"
            )
        if max(probe.type_ids, default=0) > 1:
            raise TextError(
                f"{self.source}: segments must be 0 and 1; its post-processor gives {probe.type_ids}. Is the file "
                "corrupt?"
            )
