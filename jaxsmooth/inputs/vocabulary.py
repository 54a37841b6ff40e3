"""Reading a model's vocabulary: `tokenizer.json`, `vocab.txt`, Unigram pieces, or the built-in one without a file.

What comes out is a tokenizer of the `tokenizers` library that neither cuts nor pads and fits its model; what
goes wrong, panics of the library's Rust code included, is a `TextError`.
"""

import contextlib
import json
import string
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import tokenizers
from tokenizers import processors
from tokenizers.models import BPE, Unigram, WordPiece
from tokenizers.normalizers import BertNormalizer, Replace
from tokenizers.pre_tokenizers import BertPreTokenizer, ByteLevel, Metaspace
from tokenizers.processors import BertProcessing, RobertaProcessing, TemplateProcessing

from ..bert.config import EncoderConfig
from ..errors import TextError


class SpecialTokens(NamedTuple):
    """The tokens that a vocabulary cannot do without: padding, unknown, and those around a text."""

    pad: str
    unknown: str
    first: str
    last: str


class Pieces(NamedTuple):
    """A Unigram vocabulary as SentencePiece learns it.

    Attributes:
      words: the pieces, their ids their places.
      scores: log-probability of each piece.
      first: id of the token before a text.
      last: id of the token after it.
      pad: id of padding.
      unknown: id of whatever no piece spells.
      replacements: code point -> the characters to put in its place, before anything else.
    """

    words: tuple[str, ...]
    scores: tuple[float, ...]
    first: int
    last: int
    pad: int
    unknown: int
    replacements: dict[int, str]

    @property
    def special(self) -> SpecialTokens:
        """The special tokens as strings."""
        return SpecialTokens(*(self.words[number] for number in (self.pad, self.unknown, self.first, self.last)))


BERT_TOKENS = SpecialTokens("[PAD]", "[UNK]", "[CLS]", "[SEP]")
ROBERTA_TOKENS = SpecialTokens("<pad>", "<unk>", "<s>", "</s>")
FAMILY_TOKENS = {
    **dict.fromkeys(("roberta", "xlm-roberta", "camembert"), ROBERTA_TOKENS),
    "albert": SpecialTokens("<pad>", "<unk>", "[CLS]", "[SEP]"),
    "mpnet": SpecialTokens("<pad>", "[UNK]", "<s>", "</s>"),
    # Byte-level: nothing is unknown. Without a padding token; the model's `pad_token` is put there and masked out.
    "gpt2": SpecialTokens("", "", "", ""),
}
"""The special tokens of a family's vocabularies, where they are not BERT's; "" for none."""
MASK_NAMES = ("[MASK]", "<mask>")
_SPECIAL = (*BERT_TOKENS, "[MASK]")

# Continuations of letters and digits only: the pre-tokenizer makes every punctuation mark a word of its own.
_TINY_TOKENS = (
    *_SPECIAL,
    *string.punctuation,
    *string.digits,
    *string.ascii_lowercase,
    *(f"##{char}" for char in string.digits + string.ascii_lowercase),
)
TINY_VOCAB = len(_TINY_TOKENS)
"""Vocabulary size of `tiny_wordpiece`."""


def read_tokenizer_json(path: Path) -> tokenizers.Tokenizer:
    """Read a `tokenizer.json`.

    Raises:
      TextError: not UTF-8, not JSON, or not a tokenizer.
    """
    with refusals(str(path)):
        return tokenizers.Tokenizer.from_str(_read(path))


def read_vocab_txt(path: Path, special: SpecialTokens = BERT_TOKENS) -> tokenizers.Tokenizer:
    """Read a `vocab.txt` (one token per line, its id the line's place) as BERT's WordPiece.

    `do_lower_case` (true if not given), `strip_accents` and `tokenize_chinese_chars` are taken from the
    `tokenizer_config.json` beside it, if there is one.

    Raises:
      TextError: not UTF-8, a special token missing, or an unreadable `tokenizer_config.json`.
    """
    lines = [line.removesuffix("\r") for line in _read(path).split("\n")]
    # Of a token listed twice the last place counts, as in Hugging Face's reader.
    vocabulary = {token: place for place, token in enumerate(lines[:-1] if lines[-1] == "" else lines)}
    require_special_tokens(vocabulary, str(path), special)
    normalizer = _bert_normalizer(path.with_name("tokenizer_config.json"))
    with refusals(str(path)):
        return _wordpiece(vocabulary, normalizer, special)


def read_byte_pairs(vocabulary: Path, merges: Path, special: SpecialTokens) -> tokenizers.Tokenizer:
    """Read `vocab.json` and `merges.txt` as GPT-2's byte-level BPE, with RoBERTa's special tokens if there are any.

    Raises:
      TextError: an unreadable file, or a special token missing.
    """
    _read_object(vocabulary)
    _read(merges)
    with refusals(f"{vocabulary} and {merges.name}"):
        backend = tokenizers.Tokenizer(BPE.from_file(str(vocabulary), str(merges)))
        backend.pre_tokenizer = ByteLevel(add_prefix_space=False)
        known = backend.get_vocab()
        require_special_tokens(known, str(vocabulary), special)
        if not special.first:
            backend.add_special_tokens([token for token in ("<|endoftext|>",) if token in known])
            backend.post_processor = processors.ByteLevel(trim_offsets=False)
            return backend
        backend.add_special_tokens(list(special))
        if "<mask>" in known:
            backend.add_special_tokens([tokenizers.AddedToken("<mask>", lstrip=True)])
        backend.post_processor = _around(special, known)
    return backend


def tiny_wordpiece() -> tokenizers.Tokenizer:
    """A WordPiece of single characters: printable ASCII, lower case, everything else [UNK].

    >>> tiny_wordpiece().encode("So?").tokens
    ['[CLS]', 's', '##o', '?', '[SEP]']
    """
    return _wordpiece({token: place for place, token in enumerate(_TINY_TOKENS)}, BertNormalizer(lowercase=True))


def unigram(pieces: Pieces, source: str) -> tokenizers.Tokenizer:
    """SentencePiece's Unigram over a given vocabulary: the most probable split of the text into pieces.

    Runs of spaces count as one, a space is "▁", and one is put before the text; a text goes between the first
    and the last token, a pair with two last tokens in the middle (as XLM-RoBERTa does) and no segments. The
    `replacements` are not part of it: they are a `str.translate` table.

    Args:
      pieces: the vocabulary.
      source: names it in errors.

    Raises:
      TextError: the tokenizers library refuses it.

    >>> words = ("<s>", "<pad>", "</s>", "<unk>", "▁", "▁so", "me", "▁some")
    >>> pieces = Pieces(words, (0.0, 0.0, 0.0, 0.0, -3.0, -3.0, -3.0, -5.0), 0, 2, 1, 3, {})
    >>> unigram(pieces, "an example").encode("some  so").tokens
    ['<s>', '▁some', '▁so', '</s>']
    """
    with refusals(source):
        backend = tokenizers.Tokenizer(Unigram(list(zip(pieces.words, pieces.scores, strict=True)), pieces.unknown))
        backend.normalizer = Replace(tokenizers.Regex(" {2,}"), " ")
        backend.pre_tokenizer = Metaspace(prepend_scheme="always", split=False)
        ends = {"first": pieces.first, "last": pieces.last}
        backend.post_processor = TemplateProcessing(
            single=["first", "$A", "last"],
            pair=["first", "$A", "last", "last", "$B:0", "last"],
            special_tokens=[{"id": k, "ids": [v], "tokens": [pieces.words[v]]} for k, v in ends.items()],
        )
    return backend


def fit_to_model(
    backend: tokenizers.Tokenizer, config: EncoderConfig, source: str, special: SpecialTokens = BERT_TOKENS
) -> None:
    """Turn off the cutting and padding that a file may bring, and hold every id to the model's tables.

    Args:
      backend: changed in place. One without a post-processor gets BERT's, [CLS] text [SEP] pair [SEP],
        unless there are no such tokens.
      config: the model.
      source: names the tokenizer in errors.
      special: the tokens it must have.

    Raises:
      TextError: a special token is missing, or an id or segment lies outside the model's table.
    """
    with refusals(source):
        # MiniLM's tokenizer.json silently cuts at 128 and pads to 128.
        backend.no_truncation()
        backend.no_padding()
        vocabulary = backend.get_vocab(with_added_tokens=True)
        require_special_tokens(vocabulary, source, special)
        if backend.post_processor is None and special.first:
            backend.post_processor = _around(special, vocabulary)
        # A post-processor inserts ids of its own, which need not be in the vocabulary.
        probes = (backend.encode("a"), backend.encode("a", "a"))
    largest = max(*vocabulary.values(), *(number for probe in probes for number in probe.ids))
    if largest >= config.vocab:
        raise TextError(
            f"{source}: token ids must lie below the model's vocabulary of {config.vocab}; the largest is {largest}. "
            "Does the tokenizer belong to another model?"
        )
    if any(segment > 1 for probe in probes for segment in probe.type_ids):
        raise TextError(f"{source}: segments must be 0 and 1; its post-processor gives others. Is the file corrupt?")


def require_special_tokens(vocabulary: dict[str, int], source: str, special: SpecialTokens = BERT_TOKENS) -> None:
    """Refuse a vocabulary without [PAD], [UNK], [CLS] or [SEP], or what takes their place.

    Raises:
      TextError: names the ones that are missing.
    """
    missing = [token for token in special if token and token not in vocabulary]
    if missing:
        raise TextError(
            f"{source}: the vocabulary must have {', '.join(filter(None, special))}; it lacks {', '.join(missing)}."
        )


@contextlib.contextmanager
def refusals(source: str) -> Iterator[None]:
    """Turn whatever the tokenizers library throws into a `TextError` that names `source`."""
    try:
        yield
    except (TextError, MemoryError):
        raise
    except BaseException as error:
        # The library raises bare `Exception`. A panic of its Rust code is a BaseException of a class that cannot
        # be imported; other BaseExceptions (Ctrl-C) are not about the file.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise TextError(f"{source}: the tokenizers library refused it: {error}. Is the file whole?") from error


def _wordpiece(
    vocabulary: dict[str, int], normalizer: BertNormalizer, special: SpecialTokens = BERT_TOKENS
) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(WordPiece(vocabulary, unk_token=special.unknown))
    backend.add_special_tokens([token for token in (*special, "[MASK]") if token in vocabulary])
    if "<mask>" in vocabulary:
        backend.add_special_tokens([tokenizers.AddedToken("<mask>", lstrip=True)])
    backend.normalizer = normalizer
    backend.pre_tokenizer = BertPreTokenizer()
    backend.post_processor = _around(special, vocabulary)
    return backend


def _around(special: SpecialTokens, vocabulary: dict[str, int]) -> BertProcessing | RobertaProcessing:
    """[CLS] text [SEP] pair [SEP] with two segments, as BERT; or <s> text </s></s> pair </s> with one, as RoBERTa."""
    last, first = ((token, vocabulary[token]) for token in (special.last, special.first))
    if special.first == "<s>":
        return RobertaProcessing(last, first, trim_offsets=True, add_prefix_space=False)
    return BertProcessing(last, first)


def _bert_normalizer(settings_file: Path) -> BertNormalizer:
    settings = _read_object(settings_file) if settings_file.exists() else {}
    for name in ("do_lower_case", "strip_accents", "tokenize_chinese_chars"):
        if not isinstance(settings.get(name), (bool, type(None))):
            raise TextError(f"{settings_file}: {name} must be true, false or null; got {settings[name]!r}.")
    return BertNormalizer(
        lowercase=settings.get("do_lower_case") is not False,
        strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=settings.get("tokenize_chinese_chars") is not False,
    )


def _read_object(path: Path) -> dict:
    text = _read(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TextError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(content, dict):
        raise TextError(f"{path} must hold one JSON object; got {type(content).__name__}.")
    return content


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise TextError(f"{path}: byte {error.start} is not valid UTF-8. Is the file corrupt?") from error
    except OSError as error:
        raise TextError(f"{path} cannot be read: {error.strerror}.") from error
