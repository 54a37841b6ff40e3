"""Text to `Batch`: a thin layer over Hugging Face `tokenizers` that pads to few lengths and hides nothing."""

import functools
import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tokenizers
from jaxtyping import Array
from numpy.typing import NDArray

from ..bert.config import EncoderConfig
from ..errors import TextError
from ..types import Batch
from .batching import (
    BUCKETS,
    EncodedBatch,
    Row,
    checked_strings,
    chunks,
    pad_rows,
    refuse_single_string,
    row_count,
    share_room,
)
from .normalizer import FILE as PREPARATION
from .normalizer import Preparation
from .vocabulary import (
    BERT_TOKENS,
    FAMILY_TOKENS,
    Pieces,
    SpecialTokens,
    fit_to_model,
    read_byte_pairs,
    read_tokenizer_json,
    read_vocab_txt,
    refusals,
    tiny_wordpiece,
    unigram,
)
from .vocabulary import TINY_VOCAB as TINY_VOCAB

MASK_NAMES = ("[MASK]", "<mask>")
SPECIAL_NAMES = (*BERT_TOKENS, *MASK_NAMES, "<s>", "</s>", "<pad>", "<unk>")


class TruncationWarning(UserWarning):
    """Sentences were cut because the model, or the asked-for length, has no room for them."""


class Tokenizer:
    """Turns strings into batches for one encoder: special tokens added, padded to few lengths.

    Make one with `from_dir`, `from_pieces` or `tiny`. Calling it never changes it, so threads may share it. Text
    that spells a special token ("[SEP]") becomes that token, as in Hugging Face's tokenizers.

    Attributes:
      config: the encoder it feeds.
      buckets: the lengths that batches are padded to, ascending.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        config: EncoderConfig,
        source: str,
        *,
        special: SpecialTokens = BERT_TOKENS,
        prepare: Callable[[str], str] = str,
    ) -> None:
        """Wrap a tokenizer of the `tokenizers` library.

        Args:
          backend: the tokenizer; its cutting and padding are turned off in place.
          config: the encoder it is for.
          source: names it in errors.
          special: the tokens it must have.
          prepare: what is done to every text first.

        Raises:
          TextError: a token of `special` is missing, or the vocabulary exceeds the model's.
        """
        fit_to_model(backend, config, source, special)
        self.config = config
        self.buckets = tuple(sorted({min(bucket, config.max_length) for bucket in (*BUCKETS, config.max_length)}))
        self._backend = backend
        self._source = source
        self._special = special
        self._pad = backend.token_to_id(special.pad) if special.pad else config.pad_token
        self._prepare = prepare

    @classmethod
    def from_dir(cls, path: str | Path, config: EncoderConfig) -> "Tokenizer | None":
        """Read the tokenizer of a Hugging Face model directory.

        Args:
          path: the directory: `tokenizer.json` if it is there, with what `save` puts beside it, else `vocab.txt`
            (WordPiece, with `do_lower_case`, `strip_accents` and `tokenize_chinese_chars` of `tokenizer_config.json`
            if there; lower case by default), else `vocab.json` with `merges.txt` (byte-level BPE).
          config: the model it is for.

        Returns:
          The tokenizer, or None when the directory has none of these, or the model reads images.

        Raises:
          TextError: a file that is corrupt, not UTF-8, lacks a special token, or does not fit the model.
        """
        if config.is_vision:
            return None
        files = ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt")
        whole, words, pairs, merges = (Path(path) / name for name in files)
        special = FAMILY_TOKENS.get(config.family, BERT_TOKENS)
        own = Path(path) / PREPARATION
        if whole.exists() and own.exists():
            prepare = Preparation.read(own)
            return cls(read_tokenizer_json(whole), config, str(whole), special=prepare.special, prepare=prepare)
        if whole.exists():
            return cls(read_tokenizer_json(whole), config, str(whole), special=special)
        if words.exists() and special.first:
            return cls(read_vocab_txt(words, special), config, str(words), special=special)
        if pairs.exists() and merges.exists():
            return cls(read_byte_pairs(pairs, merges, special), config, str(pairs), special=special)
        return None

    @classmethod
    def from_pieces(cls, pieces: Pieces, config: EncoderConfig, source: str, *, prefix: str = "") -> "Tokenizer":
        """A SentencePiece Unigram tokenizer.

        Args:
          pieces: the vocabulary.
          config: the model it is for.
          source: names it in errors.
          prefix: put before every text, for models that were trained so.

        Raises:
          TextError: a vocabulary that the tokenizers library refuses, or larger than the model's.
        """
        prepare = Preparation(pieces.special, prefix, pieces.replacements)
        return cls(unigram(pieces, source), config, source, special=pieces.special, prepare=prepare)

    @classmethod
    def tiny(cls, config: EncoderConfig) -> "Tokenizer":
        """A built-in tokenizer without any file, for models with random weights: one token per character.

        Text is lower-cased and stripped of accents; a word with a character outside printable ASCII is [UNK].

        Args:
          config: a model with a vocabulary of at least `TINY_VOCAB`.

        Raises:
          TextError: a smaller vocabulary.

        >>> tokenizer = Tokenizer.tiny(EncoderConfig(vocab=TINY_VOCAB, max_length=64))
        >>> tokenizer.strings(tokenizer(["So be it."], length=12).tokens[0])
        ['[CLS]', 's', '##o', 'b', '##e', 'i', '##t', '.', '[SEP]', '[PAD]', '[PAD]', '[PAD]']
        """
        return cls(tiny_wordpiece(), config, "the built-in tiny tokenizer")

    def save(self, directory: str | Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, each aside and then renamed; `from_dir` reads them back.

        transformers reads them as a `PreTrainedTokenizerFast`. A SentencePiece vocabulary's prefix and replacements go
        to a file of our own beside them, which transformers does not know.

        Args:
          directory: made if it does not exist.

        >>> import tempfile
        >>> config = EncoderConfig(vocab=TINY_VOCAB, max_length=64)
        >>> tokenizer = Tokenizer.tiny(config)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     tokenizer.save(folder)
        ...     Tokenizer.from_dir(folder, config).fingerprint == tokenizer.fingerprint
        True
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        named = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), self._special, strict=True))
        masks = [name for name in MASK_NAMES if self._backend.token_to_id(name) is not None]
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": self.config.max_length,
            **{key: token for key, token in named.items() if token},
            **({"mask_token": masks[0]} if masks else {}),
        }
        files = {
            "tokenizer.json": self._backend.to_str(pretty=True),
            "tokenizer_config.json": json.dumps(settings, indent=2) + "\n",
        }
        for name, text in files.items():
            aside = directory / f".{name}.aside"
            aside.write_text(text, encoding="utf-8")
            aside.replace(directory / name)
        if isinstance(self._prepare, Preparation):
            self._prepare.save(directory / PREPARATION)

    def __call__(self, texts: Iterable[str], pairs: Iterable[str] | None = None, *, length: int | None = None) -> Batch:
        """Tokenise sentences into one batch: [CLS] text [SEP], or [CLS] text [SEP] pair [SEP].

        An empty string is a sentence without words. What does not fit is cut, special tokens kept; of a pair
        the longer text is cut first. Cutting gives one `TruncationWarning`.

        Args:
          texts: B strings, B >= 1.
          pairs: B strings that follow them as segment 1, or None.
          length: pad (or cut) to exactly this many tokens; None for the smallest bucket that holds all.

        Returns:
          `Batch` of int32, int32 and bool jax arrays, [B T].

        Raises:
          TextError: a plain string or another thing that is not a series of strings, none at all, a string
            that is not valid Unicode, pairs of another count, or a length out of range.

        >>> tokenizer = Tokenizer.tiny(EncoderConfig(vocab=TINY_VOCAB, max_length=64))
        >>> batch = tokenizer(["Dull.", ""])
        >>> batch.tokens.shape, batch.mask.sum(axis=1).tolist()
        ((2, 16), [7, 2])
        """
        firsts = checked_strings("texts", texts)
        seconds = None if pairs is None else checked_strings("pairs", pairs)
        if not firsts:
            raise TextError("texts is empty; expected at least one string.")
        if seconds is not None and len(seconds) != len(firsts):
            raise TextError(f"texts and pairs must have one length; got {len(firsts)} texts, {len(seconds)} pairs.")
        limit = self.config.max_length if length is None else length
        self._check_length(limit, pair=seconds is not None)
        rows = self._encode(firsts, seconds, limit)
        truncated = sum(row.truncated for row in rows)
        if truncated:
            message = f"{truncated} of {len(rows)} texts were cut to {limit} tokens, special tokens included."
            warnings.warn(message, TruncationWarning, stacklevel=2)
        return jax.device_put(pad_rows(rows, length or self._bucket(rows), self.pad_id))

    def batches(self, texts: Iterable[str], *, tokens_per_batch: int = 512) -> Iterator[EncodedBatch]:
        """Tokenise a stream of sentences into batches of few shapes, sentences of like length together.

        Every batch of bucket T has tokens_per_batch // T rows, the last ones too, so at most len(buckets)
        shapes ever occur; at least one row, and more than eight in whole eights, which split evenly. The stream
        is read in chunks and memory does not grow with its length. Batches come in a fixed order that depends
        on the texts alone. What was cut is counted in the batch, without a warning.

        Args:
          texts: strings; any iterable, read once.
          tokens_per_batch: size of a batch, padding included.

        Returns:
          An iterator of `EncodedBatch`; every position of the stream is in exactly one `indices`.

        Raises:
          TextError: as calling does; what is wrong with a text comes when the iterator reaches it.

        >>> tokenizer = Tokenizer.tiny(EncoderConfig(vocab=TINY_VOCAB, max_length=64))
        >>> [(b.batch.tokens.shape, b.indices.tolist()) for b in tokenizer.batches(["b" * 20, "a", "c"])]
        [((32, 16), [1, 2]), ((16, 32), [0])]
        """
        refuse_single_string("texts", texts)
        if isinstance(tokens_per_batch, bool) or not isinstance(tokens_per_batch, int) or tokens_per_batch < 1:
            raise TextError(f"tokens_per_batch must be a whole number of at least 1; got {tokens_per_batch!r}.")
        self._check_length(self.config.max_length, pair=False)
        return self._stream(texts, tokens_per_batch)

    def strings(self, ids: Sequence[int] | NDArray | Array) -> list[str]:
        """The tokens of a row of ids, as the vocabulary spells them.

        Args:
          ids: token ids, [T]; ints, or a numpy or jax vector.

        Returns:
          T strings.

        Raises:
          TextError: an id that the vocabulary does not have.
        """
        tokens = []
        if isinstance(ids, (str, bytes)) or (np.asarray(ids).dtype.kind not in "iu" and np.size(ids)):
            raise TextError(f"ids must be a row of whole numbers; got {ids!r:.80}.")
        for number in np.asarray(ids, np.int64).ravel().tolist():
            token = self._backend.id_to_token(number) if 0 <= number < 2**32 else None
            if token is None:
                raise TextError(f"{self._source} has no token with id {number}. Are the ids another tokenizer's?")
            tokens.append(token)
        return tokens

    def rows(self, texts: Iterable[str], pairs: Iterable[str] | None = None, *, length: int) -> list[Row]:
        """Tokenise as calling does, without padding and without arrays.

        Args:
          texts: strings.
          pairs: as many strings that follow them as segment 1, or None.
          length: most tokens of a row.

        Returns:
          One `Row` per text.

        Raises:
          TextError: as calling does.
        """
        firsts = checked_strings("texts", texts)
        seconds = None if pairs is None else checked_strings("pairs", pairs)
        if seconds is not None and len(seconds) != len(firsts):
            raise TextError(f"texts and pairs must have one length; got {len(firsts)} texts, {len(seconds)} pairs.")
        self._check_length(length, pair=seconds is not None)
        return self._encode(firsts, seconds, length)

    def counts(self, texts: Iterable[str]) -> list[int]:
        """How many tokens each text has, special tokens left out.

        Raises:
          TextError: as calling does.
        """
        return [len(encoding.ids) for encoding in self._plain(checked_strings("texts", texts))]

    def windows(
        self, questions: Iterable[str], contexts: Iterable[str], ranges: Iterable[tuple[int, int]], *, most: int
    ) -> list[Row]:
        """Rows of a question and a window of its context, each token with the characters it stands for.

        Args:
          questions: strings, cut to `most` tokens.
          contexts: as many strings.
          ranges: of each row, the first token of the context that it holds and the one after the last.
          most: most tokens of a question.

        Returns:
          One `Row` per question, with `spans`; the caller sees to it that it is not too long.

        Raises:
          TextError: as calling does; or a tokenizer that changes characters beforehand, so that none can be told.
        """
        if self._prepare is not str:
            raise TextError(f"{self._source} rewrites characters before it reads them, so it cannot point at answers.")
        asked = self._plain(checked_strings("questions", questions))
        rows = []
        for question, context, (first, last) in zip(
            asked, self._plain(checked_strings("contexts", contexts)), ranges, strict=True
        ):
            question.truncate(most)
            context.truncate(last)
            context.truncate(last - first, direction="left")
            with refusals(self._source):
                whole = self._backend.post_process(question, context)
            second = [number == 1 for number in whole.sequence_ids]
            spans = tuple(o if inside else (-1, -1) for o, inside in zip(whole.offsets, second, strict=True))
            rows.append(Row(whole.ids, whole.type_ids, truncated=False, spans=spans))
        return rows

    @property
    def special_count(self) -> int:
        """Special tokens that a pair gets."""
        return self._backend.num_special_tokens_to_add(True)

    @property
    def pad_id(self) -> int:
        """Id of padding."""
        assert self._pad is not None  # `fit_to_model` refuses a vocabulary without it
        return self._pad

    @functools.cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of the special tokens: what no masked LM is asked for."""
        added = self._backend.get_added_tokens_decoder()
        return frozenset(number for number, token in added.items() if token.special) | {
            number for name in SPECIAL_NAMES if (number := self._backend.token_to_id(name)) is not None
        }

    @functools.cached_property
    def mask_id(self) -> int:
        """Id of the mask token.

        Raises:
          TextError: the vocabulary has none.
        """
        for name in MASK_NAMES:
            if (number := self._backend.token_to_id(name)) is not None:
                return number
        raise TextError(f"{self._source} has no mask token ({' or '.join(MASK_NAMES)}): it is of no use for masked LM.")

    @functools.cached_property
    def fingerprint(self) -> str:
        """Names the vocabulary and its rules: sha256 of the tokenizer as JSON."""
        return hashlib.sha256(self._backend.to_str().encode()).hexdigest()

    def _plain(self, texts: list[str]) -> list[tokenizers.Encoding]:
        with refusals(self._source):
            return self._backend.encode_batch([self._prepare(text) for text in texts], add_special_tokens=False)

    def _stream(self, texts: Iterable[str], tokens_per_batch: int) -> Iterator[EncodedBatch]:
        waiting: dict[int, list[tuple[int, Row]]] = {bucket: [] for bucket in self.buckets}
        start = 0
        for chunk in chunks(texts):
            rows = self._encode(checked_strings("texts", chunk, start), None, self.config.max_length)
            for index, row in enumerate(rows, start):
                bucket = self._bucket([row])
                waiting[bucket].append((index, row))
                if len(waiting[bucket]) == row_count(bucket, tokens_per_batch):
                    yield self._encoded_batch(waiting[bucket], bucket, tokens_per_batch)
                    waiting[bucket] = []
            start += len(rows)
        if not start:
            raise TextError("texts is empty; expected at least one string.")
        for bucket, queue in waiting.items():
            if queue:
                yield self._encoded_batch(queue, bucket, tokens_per_batch)

    def _encoded_batch(self, queue: list[tuple[int, Row]], bucket: int, tokens_per_batch: int) -> EncodedBatch:
        rows = [row for _, row in queue]
        # A real sentence as filler, not padding: no quantity of it is 0/0.
        fillers = row_count(bucket, tokens_per_batch) - len(rows)
        return EncodedBatch(
            batch=jax.device_put(pad_rows(rows + fillers * rows[-1:], bucket, self.pad_id)),
            indices=np.array([index for index, _ in queue], np.int64),
            truncated=sum(row.truncated for row in rows),
        )

    def _encode(self, firsts: list[str], seconds: list[str] | None, limit: int) -> list[Row]:
        firsts = [self._prepare(text) for text in firsts]
        seconds = None if seconds is None else [self._prepare(text) for text in seconds]
        inputs: Any = firsts if seconds is None else list(zip(firsts, seconds, strict=True))
        with refusals(self._source):
            encodings = self._backend.encode_batch(inputs)
        return [
            Row(e.ids, e.type_ids, truncated=False) if len(e.ids) <= limit else self._cut(text, limit)
            for text, e in zip(inputs, encodings, strict=True)
        ]

    def _cut(self, text: str | tuple[str, str], limit: int) -> Row:
        # By hand: the library's own truncation is a setting of the shared tokenizer, not of one call.
        parts = (text,) if isinstance(text, str) else text
        with refusals(self._source):
            encodings = [self._backend.encode(part, add_special_tokens=False) for part in parts]
            room = limit - self._backend.num_special_tokens_to_add(len(parts) == 2)
            for encoding, keep in zip(encodings, share_room([len(e.ids) for e in encodings], room), strict=True):
                encoding.truncate(keep)
            whole = self._backend.post_process(encodings[0], encodings[1] if len(parts) == 2 else None)
        if len(whole.ids) > limit:
            raise TextError(f"{self._source}: its post-processor does more than add special tokens; cannot cut a text.")
        return Row(whole.ids, whole.type_ids, truncated=True)

    def _check_length(self, length: int, *, pair: bool) -> None:
        least = self._backend.num_special_tokens_to_add(pair)
        whole = isinstance(length, int) and not isinstance(length, bool)
        if not whole or not least <= length <= self.config.max_length or length < 1:
            raise TextError(
                f"length must be a whole number from {max(1, least)} (room for the special tokens) to "
                f"{self.config.max_length} (the model's positions); got {length!r}."
            )

    def _bucket(self, rows: list[Row]) -> int:
        longest = max(len(row.ids) for row in rows)
        return next(bucket for bucket in self.buckets if longest <= bucket)
