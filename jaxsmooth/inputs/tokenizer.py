"""Text to `Batch`: a thin layer over Hugging Face `tokenizers` that pads to few lengths and hides nothing."""

import copy
import functools
import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
import tokenizers
from jaxtyping import Array
from numpy.typing import NDArray

from ..bert.config import EncoderConfig
from ..errors import TextError, is_int, require_int
from ..files import spelled_out
from ..types import Batch
from .batching import (
    BUCKETS,
    EncodedBatch,
    Row,
    bucketed_batches,
    checked_strings,
    chunks,
    pad_rows,
    refuse_single_string,
    smallest_bucket,
)
from .encoding import RowEncoder
from .lower import lower_first
from .normalizer import Normalizer
from .tokenizer_class import CLASSES
from .tokenizer_files import TokenizerFiles, read_tokenizer_files, write_tokenizer_files
from .tokenizer_settings import TokenizerSettings
from .vocabulary import BERT_TOKENS, MASK_NAMES, Pieces, tiny_wordpiece, unigram
from .vocabulary import TINY_VOCAB as TINY_VOCAB

BERT_SETTINGS = TokenizerSettings(CLASSES["BertTokenizer"].tokens)

SPECIAL_NAMES = (*BERT_TOKENS, *MASK_NAMES, "<s>", "</s>", "<pad>", "<unk>")


class TruncationWarning(UserWarning):
    """Sentences were longer than the model, or the length asked for, allows, and were cut."""


class Tokenizer:
    """Turns strings into batches for one encoder: special tokens added, padded to few lengths.

    Make one with `from_dir`, `from_pieces` or `tiny`. Calling it never changes it, so threads may share it. Text
    that spells a special token ("[SEP]") becomes that token, as in Hugging Face's tokenizers.

    Attributes:
      config: the encoder it feeds.
      max_length: where a text is cut unless another length is asked for: at the model's positions, or before them where
        the tokenizer's files say so.
      buckets: the lengths that batches are padded to, ascending.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        config: EncoderConfig,
        source: str,
        *,
        settings: TokenizerSettings = BERT_SETTINGS,
        normalize: Callable[[str], str] = str,
    ) -> None:
        """Wrap a tokenizer of the `tokenizers` library.

        Args:
          backend: the tokenizer; its cutting and padding are turned off in place.
          config: the encoder it is for.
          source: names it in errors.
          settings: its special tokens, limit and sides.
          normalize: what is done to every text first.

        Raises:
          TextError: what stands around a text does not fit the model.
        """
        self._files = TokenizerFiles(backend, source, settings, normalize)
        self._encoder = RowEncoder(self._files, config)
        self.config = config
        self.max_length = min(config.max_length, settings.max_length or config.max_length)
        self.buckets = tuple(sorted({min(bucket, config.max_length) for bucket in (*BUCKETS, config.max_length)}))
        self._backend = backend
        self._source = source

    @classmethod
    def from_dir(cls, path: str | Path, config: EncoderConfig) -> "Tokenizer | None":
        """Read the tokenizer of a Hugging Face model directory, as transformers' AutoTokenizer does.

        The class that `tokenizer_config.json` or `config.json` names, or else that of the family, decides what is done
        with the vocabulary of `tokenizer.json`, `vocab.txt`, `vocab.json` with `merges.txt`, or the SentencePiece file;
        `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json` say which tokens are special or
        added, which case, accents and side are kept, and where a text is cut. docs/tokenizers.md has the whole rule.

        Args:
          path: the directory.
          config: the model it is for.

        Returns:
          The tokenizer, or None when the directory has no such files, or the model reads images.

        Raises:
          TextError: a file that is corrupt or not UTF-8, a class of tokenizers that is not read here, a vocabulary that
            the class does not read, or one that lacks what stands around a text.
        """
        files = None if config.is_vision else read_tokenizer_files(Path(path), config.family)
        if files is None:
            return None
        return cls(files.backend, config, files.source, settings=files.settings, normalize=files.normalize)

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
        if len(pieces.words) > config.vocab:
            raise TextError(
                f"{source}: token ids must lie below the model's vocabulary of {config.vocab}; the largest is "
                f"{len(pieces.words) - 1}. Is the file whole?"
            )
        normalizer = Normalizer(pieces.special, prefix, pieces.replacements)
        names = ("pad_token", "unk_token", "cls_token", "sep_token")
        settings = TokenizerSettings(dict(zip(names, pieces.special, strict=True)), segments=False)
        return cls(unigram(pieces, source), config, source, settings=settings, normalize=normalizer)

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
        source = "the built-in tiny tokenizer"
        if config.vocab < TINY_VOCAB:
            raise TextError(f"{source} needs a model with a vocabulary of at least {TINY_VOCAB}; got {config.vocab}.")
        return cls(tiny_wordpiece(), config, source)

    def save(self, directory: str | Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, each whole or not at all; `from_dir` reads them back.

        transformers reads them as a `PreTrainedTokenizerFast` that gives the same rows; what else
        `tokenizer_config.json` said when it was read is kept. The prefix and replacements of `from_pieces` go to a
        file of our own beside them, which transformers does not know.

        Args:
          directory: made if it does not exist; "~" is the user's home.

        >>> import tempfile
        >>> config = EncoderConfig(vocab=TINY_VOCAB, max_length=64)
        >>> tokenizer = Tokenizer.tiny(config)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     tokenizer.save(folder)
        ...     Tokenizer.from_dir(folder, config).fingerprint == tokenizer.fingerprint
        True
        """
        write_tokenizer_files(
            self._files, self.max_length, Path(spelled_out(directory)), segments=self._encoder.segments
        )

    def __call__(self, texts: Iterable[str], pairs: Iterable[str] | None = None, *, length: int | None = None) -> Batch:
        """Tokenise sentences into one batch: [CLS] text [SEP], or [CLS] text [SEP] pair [SEP], or as the class does.

        An empty string is a sentence without words. What does not fit is cut, special tokens kept; of a pair
        the longer text is cut first. Cutting gives one `TruncationWarning`. Padding is always on the right.

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
        limit = self.max_length if length is None else length
        rows = self.rows(texts, pairs, length=limit)
        if not rows:
            raise TextError("texts is empty; expected at least one string.")
        truncated = sum(row.truncated for row in rows)
        if truncated:
            message = f"{truncated} of {len(rows)} texts were cut to {limit} tokens, special tokens included."
            warnings.warn(message, TruncationWarning, stacklevel=2)
        return jax.device_put(pad_rows(rows, length or smallest_bucket(rows, self.buckets), self.pad_id))

    def batches(self, texts: Iterable[str], *, tokens_per_batch: int = 512) -> Iterator[EncodedBatch]:
        """Tokenise a stream of sentences into batches of few shapes, sentences of like length together.

        Every batch of bucket T has tokens_per_batch // T rows, the last ones too, so at most len(buckets)
        shapes ever occur; at least one row, and more than eight in whole eights, which split evenly. A bucket that
        never fills a batch has its rows padded to a longer one in use, at most four times as long. The stream
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
        [((16, 32), [0, 1, 2])]
        """
        refuse_single_string("texts", texts)
        require_int("tokens_per_batch", tokens_per_batch, 1, TextError)
        self._check_length(self.max_length, pair=False)
        return bucketed_batches(self._stream(texts), self.buckets, self.pad_id, tokens_per_batch=tokens_per_batch)

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
        return self._encoder.rows(firsts, seconds, length)

    def counts(self, texts: Iterable[str]) -> list[int]:
        """How many tokens each text has, special tokens left out.

        Raises:
          TextError: as calling does.
        """
        encodings = self._encoder.without_special_tokens(checked_strings("texts", texts))
        return [len(encoding.ids) for encoding in encodings]

    def windows(
        self, questions: Iterable[str], contexts: Iterable[str], ranges: Iterable[tuple[int, int]], *, most: int
    ) -> list[Row]:
        """Rows of a question and a window of its context, each token with the characters it covers.

        Args:
          questions: strings, cut to `most` tokens.
          contexts: as many strings.
          ranges: of each row, the first token of the context that it holds and the one after the last.
          most: most tokens of a question.

        Returns:
          One `Row` per question, with `spans`; the caller sees to it that it is not too long.

        Raises:
          TextError: as calling does; or a tokenizer that changes characters beforehand, so that spans are unknown.
        """
        return self._encoder.windows(
            checked_strings("questions", questions), checked_strings("contexts", contexts), ranges, most
        )

    def adapted(self, *, max_length: int | None, lower_case: bool) -> "Tokenizer":
        """The tokenizer with settings that lie outside its own files; this one is not to be used afterwards.

        Args:
          max_length: where a text is cut unless another length is asked for; None for where it is cut now.
          lower_case: whether to lower-case texts before everything else.

        Returns:
          A `Tokenizer`.

        >>> tokenizer = Tokenizer.tiny(EncoderConfig(vocab=TINY_VOCAB, max_length=64))
        >>> tokenizer.adapted(max_length=32, lower_case=True).max_length
        32
        """
        other = copy.copy(self)
        if max_length is not None:
            other.max_length = min(max_length, self.config.max_length)
        if lower_case:
            lower_first(other._backend)
        return other

    @property
    def special_count(self) -> int:
        """Special tokens that a pair gets."""
        return self._encoder.special_count(pair=True)

    @property
    def pad_id(self) -> int:
        """Id of padding: the tokenizer's, or the model's where the tokenizer has none that the model knows."""
        number = self._named("pad_token")
        return self.config.pad_token if number is None else number

    @functools.cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of the special tokens: what no masked LM is asked for."""
        added = self._backend.get_added_tokens_decoder()
        names = (*SPECIAL_NAMES, *map(str, self._files.settings.tokens.values()))
        return frozenset(number for number, token in added.items() if token.special) | {
            number for name in names if (number := self._backend.token_to_id(name)) is not None
        }

    @functools.cached_property
    def mask_id(self) -> int:
        """Id of the mask token: the one that the files name, or else [MASK] or <mask>.

        Raises:
          TextError: the vocabulary has none, or the model has no row for it.
        """
        if (named := self._named("mask_token")) is not None:
            return named
        for name in MASK_NAMES:
            if (number := self._backend.token_to_id(name)) is not None and number < self.config.vocab:
                return number
        raise TextError(f"{self._source} has no mask token ({' or '.join(MASK_NAMES)}): it is of no use for masked LM.")

    @functools.cached_property
    def fingerprint(self) -> str:
        """Names the vocabulary and its rules: sha256 of the tokenizer as JSON."""
        settings = self._files.settings
        # What the JSON cannot say; nothing where it is as usual, so that old fingerprints still hold.
        unusual = [name for name in ("cut_left", "split_special") if getattr(settings, name)]
        return hashlib.sha256("".join([self._backend.to_str(), *unusual]).encode()).hexdigest()

    def _named(self, name: str) -> int | None:
        """Id of a named special token, where the model has a row for it."""
        token = self._files.settings.string(name)
        number = None if token is None else self._backend.token_to_id(token)
        return number if number is not None and number < self.config.vocab else None

    def _stream(self, texts: Iterable[str]) -> Iterator[tuple[str, Row]]:
        start = 0
        for chunk in chunks(texts):
            checked = checked_strings("texts", chunk, start)
            yield from zip(checked, self._encoder.rows(checked, None, self.max_length, start), strict=True)
            start += len(checked)
        if not start:
            raise TextError("texts is empty; expected at least one string.")

    def _check_length(self, length: int, *, pair: bool) -> None:
        least = max(1, self._encoder.special_count(pair=pair))
        if not is_int(length, least, self.config.max_length):
            raise TextError(
                f"length must be a whole number from {least} (room for the special tokens) to "
                f"{self.config.max_length} (the model's positions); got {length!r}."
            )
