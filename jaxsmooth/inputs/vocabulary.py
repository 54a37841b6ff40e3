"""Vocabularies: the words of a file, Unigram pieces, or the built-in one without a file.

What goes wrong inside the tokenizers library, panics of its Rust code included, is a `TextError`.
"""

import base64
import contextlib
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers
from tokenizers import AddedToken
from tokenizers.models import Unigram, WordPiece
from tokenizers.normalizers import BertNormalizer, Replace
from tokenizers.pre_tokenizers import BertPreTokenizer, Metaspace
from tokenizers.processors import BertProcessing, TemplateProcessing

from ..errors import TextError, is_int
from .sentencepiece import read_sentencepiece
from .text_files import read_object, read_text


class SpecialTokens(NamedTuple):
    """Padding, unknown, and the tokens around a text."""

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


class Vocabulary(NamedTuple):
    """What a file of a vocabulary holds.

    Attributes:
      model: "WordPiece", "BPE", "Unigram" or another name that the tokenizers library gives.
      words: word -> id; of a Unigram model, each piece and its log-probability.
      merges: of BPE, the pairs that are joined, first things first.
      charsmap: SentencePiece's compiled table of replacements; b"" for none.
      added: tokens of a SentencePiece file that stand for themselves in a text; None for another file.
      whole: whether it is of a `tokenizer.json`.
      rows: what that puts around a text.
    """

    model: str
    words: Any
    merges: list[tuple[str, str]] = []  # noqa: RUF012  never changed
    charsmap: bytes = b""
    added: list[AddedToken] | None = None
    whole: bool = False
    rows: Any = None


BERT_TOKENS = SpecialTokens("[PAD]", "[UNK]", "[CLS]", "[SEP]")
MASK_NAMES = ("[MASK]", "<mask>")

# Continuations of letters and digits only: the pre-tokenizer makes every punctuation mark a word of its own.
_TINY_TOKENS = (
    *(*BERT_TOKENS, "[MASK]"),
    *string.punctuation,
    *string.digits,
    *string.ascii_lowercase,
    *(f"##{char}" for char in string.digits + string.ascii_lowercase),
)
TINY_VOCAB = len(_TINY_TOKENS)
"""Vocabulary size of `tiny_wordpiece`."""
# What Rust takes for white space at the end of a line; Python's own list has four control characters more.
_BLANK = "\t\n\x0b\x0c\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"


def json_vocabulary(whole: dict[str, Any], path: Path) -> Vocabulary:
    """The vocabulary in a `tokenizer.json`.

    Args:
      whole: its content.
      path: the file, for errors.

    Raises:
      TextError: it has none.
    """
    model = whole.get("model")
    words = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(model, dict) or not isinstance(words, (dict, list)):
        raise TextError(f"{path} is not a tokenizer: it has no model with a vocab. Is the file whole?")
    # Old files do not name their model.
    guess = "Unigram" if isinstance(words, list) else "BPE" if "merges" in model else "WordPiece"
    merges = [tuple(m.split(" ") if isinstance(m, str) else m) for m in model.get("merges") or ()]
    pieces = [tuple(piece) for piece in words] if isinstance(words, list) else words
    return Vocabulary(model.get("type") or guess, pieces, merges, _charsmap(whole.get("normalizer")), whole=True)


def read_vocab_txt(path: Path) -> Vocabulary:
    """Read a `vocab.txt`: one token per line, its id the line's place; of a token listed twice the last place counts.

    Raises:
      TextError: it cannot be read, or is not UTF-8.
    """
    lines = read_text(path).split("\n")
    lines = lines[:-1] if lines[-1] == "" else lines
    return Vocabulary("WordPiece", {line.rstrip(_BLANK): place for place, line in enumerate(lines)})


def read_byte_pairs(words: Path, merges: Path) -> Vocabulary:
    """Read `vocab.json` and `merges.txt`.

    Raises:
      TextError: a file that cannot be read, or holds something else.
    """
    vocabulary = read_object(words)
    wrong = [word for word, number in vocabulary.items() if not is_int(number, 0)]
    if wrong:
        raise TextError(f"{words}: the id of {wrong[0]!r} must be a whole number; got {vocabulary[wrong[0]]!r:.80}.")
    lines = [line.removesuffix("\r") for line in read_text(merges).split("\n")]
    pairs = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    bad = next((pair for pair in pairs if len(pair) != 2), None)
    if bad is not None:
        raise TextError(f"{merges}: a line must hold two pieces and a space; got {' '.join(bad)!r:.80}.")
    return Vocabulary("BPE", vocabulary, pairs)  # type: ignore[arg-type]  # pairs, as was seen


def read_pieces(path: Path) -> Vocabulary:
    """Read a SentencePiece model file.

    Raises:
      TextError: not such a file, or not a Unigram model.
    """
    found = read_sentencepiece(path)
    added = [AddedToken(t, normalized=False, special=special) for t, special in found.added]
    return Vocabulary("Unigram", found.pieces, [], found.charsmap, added)


def tiny_wordpiece() -> tokenizers.Tokenizer:
    """A WordPiece of single characters: printable ASCII, lower case, everything else [UNK].

    >>> tiny_wordpiece().encode("So?").tokens
    ['[CLS]', 's', '##o', '?', '[SEP]']
    """
    vocabulary = {token: place for place, token in enumerate(_TINY_TOKENS)}
    backend = tokenizers.Tokenizer(WordPiece(vocabulary, unk_token=BERT_TOKENS.unknown))
    backend.add_special_tokens([*BERT_TOKENS, "[MASK]"])
    backend.normalizer = BertNormalizer(lowercase=True)
    backend.pre_tokenizer = BertPreTokenizer()
    last, first = ((token, vocabulary[token]) for token in (BERT_TOKENS.last, BERT_TOKENS.first))
    backend.post_processor = BertProcessing(last, first)
    return backend


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


def _charsmap(normalizer: Any) -> bytes:
    """SentencePiece's table among the normalizers of a `tokenizer.json`; the first, as transformers takes it."""
    steps = normalizer.get("normalizers") or [normalizer] if isinstance(normalizer, dict) else []
    tables = [step.get("precompiled_charsmap") for step in steps if isinstance(step, dict)]
    return base64.b64decode(next((table for table in tables if isinstance(table, str)), ""))
