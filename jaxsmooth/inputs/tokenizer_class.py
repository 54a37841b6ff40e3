"""The classes of tokenizers that are read here: each makes its own normalisation and rows of a vocabulary.

As in transformers 5.24, a class takes the words from `tokenizer.json` and makes everything else anew by its own rule
and the settings of `tokenizer_config.json`; `tokenizer.json` decides alone where no class stands between.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, Unigram, WordPiece

from ..errors import TextError
from .declared import Declared
from .vocabulary import Vocabulary

Tokens = Mapping[str, str]
Ends = tuple[tuple[str, int], tuple[str, int]]


@dataclasses.dataclass(frozen=True)
class TokenizerClass:
    """How one class of transformers reads its files.

    Attributes:
      model: the algorithm its vocabulary is for.
      files: its vocabulary where there is no `tokenizer.json`.
      tokens: the named special tokens, where the files do not name others.
      ends: the names of the tokens before and after a text.
      build: makes the tokenizer, without special tokens and what stands around a text.
      around: makes what stands around a text, of the two ends and their ids; None where nothing does.
      segments: whether the second text of a pair is told apart in the model's input.
      extra: more special tokens, where the files do not name others.
    """

    model: str
    files: tuple[str, ...]
    tokens: Mapping[str, str | AddedToken]
    build: Callable[[Vocabulary, Declared, Tokens], tokenizers.Tokenizer]
    around: Callable[[Ends, Declared], Any] | None
    ends: tuple[str, str] = ("cls_token", "sep_token")
    segments: bool = False
    extra: tuple[str, ...] = ()


def class_name(declared: Declared, config: Mapping[str, Any], family: str) -> str:
    """The class by which transformers' AutoTokenizer reads a directory; "" where `tokenizer.json` decides alone.

    Args:
      declared: what the files beside the vocabulary say.
      config: the content of `config.json`, which may name the class too.
      family: the model's.

    Raises:
      TextError: a class that is not read here, or one that comes as code beside the files.
    """
    auto_map = declared.config.get("auto_map")
    code = auto_map.get("AutoTokenizer") if isinstance(auto_map, dict) else auto_map
    if code:
        raise TextError(
            f"{declared.source}: auto_map names code that comes with the model ({code}), and no such code is run here. "
            "Save the tokenizer as tokenizer.json, without auto_map."
        )
    beside = declared.config.get("tokenizer_class")
    if not beside and declared.config.get("word_tokenizer_type") not in (None, "basic"):
        beside = "BertJapaneseTokenizer"  # the only class with that setting, in files older than the name
    named = beside or config.get("tokenizer_class")
    own = OF_FAMILY.get(family, "BertTokenizer")
    if not own:  # ModernBERT: whatever is named, tokenizer.json decides
        return ""
    name = str(named or own).removesuffix("Fast")
    name = ALIASES.get(name, name)
    if name and name not in CLASSES:
        by = declared.source if beside else declared.source.with_name("config.json")
        raise TextError(
            f"{by}: tokenizer_class {named!r} is none of those read here ({', '.join(CLASSES)}); another class would "
            "give other tokens. If tokenizer.json says all of it, name PreTrainedTokenizerFast instead; to read the "
            "model alone, take the tokenizer's files out of the folder."
        )
    return name


def _wordpiece(vocabulary: Vocabulary, declared: Declared, tokens: Tokens) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(WordPiece(vocabulary.words, unk_token=tokens["unk_token"]))
    backend.normalizer = normalizers.BertNormalizer(
        lowercase=declared.flag("do_lower_case", True),
        strip_accents=declared.choice("strip_accents"),
        handle_chinese_chars=declared.flag("tokenize_chinese_chars", True),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    return backend


def _byte_level(vocabulary: Vocabulary, declared: Declared, tokens: Tokens) -> tokenizers.Tokenizer:
    model = BPE(vocabulary.words, vocabulary.merges, continuing_subword_prefix="", end_of_word_suffix="")
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=declared.flag("add_prefix_space", False))
    backend.decoder = decoders.ByteLevel()
    return backend


def _herbert(vocabulary: Vocabulary, declared: Declared, tokens: Tokens) -> tokenizers.Tokenizer:
    model = BPE(vocabulary.words, vocabulary.merges, unk_token=tokens["unk_token"], end_of_word_suffix="</w>")
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.BPEDecoder(suffix="</w>")
    return backend


def _pieces(vocabulary: Vocabulary, declared: Declared, unknown: int, before: list[Any]) -> tokenizers.Tokenizer:
    """Unigram over the words of a text, each with a mark for the space before it."""
    backend = tokenizers.Tokenizer(Unigram(vocabulary.words, unk_id=unknown, byte_fallback=False))
    steps = [*before, *([normalizers.Precompiled(vocabulary.charsmap)] if vocabulary.charsmap else ())]
    if steps:
        backend.normalizer = normalizers.Sequence(steps)
    scheme = "always" if declared.flag("add_prefix_space", True) else "never"
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme=scheme)]
    )
    backend.decoder = decoders.Metaspace(prepend_scheme=scheme)
    return backend


def _xlm_roberta(vocabulary: Vocabulary, declared: Declared, tokens: Tokens) -> tokenizers.Tokenizer:
    if vocabulary.added is not None:  # a SentencePiece file: fairseq put its own special tokens first
        first = [(tokens[name], 0.0) for name in ("bos_token", "pad_token", "eos_token", "unk_token")]
        pieces = [*first, *vocabulary.words[3:], (tokens["mask_token"], 0.0)]
        vocabulary = vocabulary._replace(words=pieces)
    return _pieces(vocabulary, declared, 3, [])


def _camembert(vocabulary: Vocabulary, declared: Declared, tokens: Tokens) -> tokenizers.Tokenizer:
    if vocabulary.added is not None:
        first = [("<s>NOTUSED", 0.0), (tokens["pad_token"], 0.0), ("</s>NOTUSED", 0.0), (tokens["unk_token"], 0.0)]
        pieces = [*first, ("<unk>NOTUSED", -100.0), *vocabulary.words[1:], (tokens["mask_token"], 0.0)]
        vocabulary = vocabulary._replace(words=pieces)
    places = [place for place, (piece, _) in enumerate(vocabulary.words) if piece == tokens["unk_token"]]
    return _pieces(vocabulary, declared, places[0] if places else 0, [])


def _albert(vocabulary: Vocabulary, declared: Declared, tokens: Tokens) -> tokenizers.Tokenizer:
    steps: list[Any] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    if not declared.flag("keep_accents", False):
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if declared.flag("do_lower_case", True):
        steps.append(normalizers.Lowercase())
    return _pieces(vocabulary, declared, 1, steps)


def _bert_rows(ends: Ends, declared: Declared) -> processors.TemplateProcessing:
    """First, text, last, pair, last; the pair is segment 1."""
    (first, _), (last, _) = ends
    single = [f"{first}:0", "$A:0", f"{last}:0"]
    pair = [*single, "$B:1", f"{last}:1"]
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=list(dict(ends).items()))


def _herbert_rows(ends: Ends, declared: Declared) -> processors.BertProcessing:
    """BERT's rows, with the ids that the class has for its ends whatever the vocabulary says."""
    (first, _), (last, _) = ends
    return processors.BertProcessing((last, 2), (first, 0))


def _roberta_rows(ends: Ends, declared: Declared) -> processors.RobertaProcessing:
    """First, text, last, last, pair, last; all of it segment 0."""
    first, last = ends
    trim, space = (
        declared.flag(name, default) for name, default in (("trim_offsets", True), ("add_prefix_space", False))
    )
    return processors.RobertaProcessing(last, first, trim_offsets=trim, add_prefix_space=space)


def _template_rows(ends: Ends, declared: Declared) -> processors.TemplateProcessing:
    """RoBERTa's rows, for pieces of SentencePiece."""
    (first, _), (last, _) = ends
    return processors.TemplateProcessing(
        single=[first, "$A", last], pair=[first, "$A", last, last, "$B", last], special_tokens=list(dict(ends).items())
    )


_BERT = {f"{name.lower()}_token": f"[{name}]" for name in ("UNK", "SEP", "PAD", "CLS", "MASK")}
_ROBERTA = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}
_ENDS = {"bos_token": "[CLS]", "eos_token": "[SEP]"}
_MPNET = {name: AddedToken(token) for name, token in (_ROBERTA | {"unk_token": "[UNK]"}).items()}
_UNUSED = ("<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED")
_TEXT, _PAIRS, _PIECES = ("vocab.txt",), ("vocab.json", "merges.txt"), ("sentencepiece.bpe.model",)

CLASSES: dict[str, TokenizerClass] = {
    "BertTokenizer": TokenizerClass("WordPiece", _TEXT, _BERT, _wordpiece, _bert_rows, segments=True),
    "DistilBertTokenizer": TokenizerClass("WordPiece", _TEXT, _BERT, _wordpiece, _bert_rows),
    "MPNetTokenizer": TokenizerClass(
        "WordPiece",
        _TEXT,
        _MPNET | {"mask_token": AddedToken("<mask>", lstrip=True)},
        _wordpiece,
        lambda ends, declared: processors.RobertaProcessing(ends[1], ends[0], add_prefix_space=False),
    ),
    "RobertaTokenizer": TokenizerClass("BPE", _PAIRS, _ROBERTA, _byte_level, _roberta_rows),
    "GPT2Tokenizer": TokenizerClass(
        "BPE", _PAIRS, dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>"), _byte_level, None
    ),
    "HerbertTokenizer": TokenizerClass(
        "BPE",
        _PAIRS,
        {name: token for name, token in _ROBERTA.items() if name not in ("bos_token", "eos_token")},
        _herbert,
        _herbert_rows,
    ),
    "XLMRobertaTokenizer": TokenizerClass(
        "Unigram", _PIECES, _ROBERTA, _xlm_roberta, _template_rows, ends=("bos_token", "eos_token")
    ),
    "CamembertTokenizer": TokenizerClass(
        "Unigram",
        _PIECES,
        _ROBERTA | {"mask_token": AddedToken("<mask>", lstrip=True, special=True)},
        _camembert,
        _template_rows,
        ends=("bos_token", "eos_token"),
        extra=_UNUSED,
    ),
    "AlbertTokenizer": TokenizerClass(
        "Unigram",
        ("spiece.model",),
        _BERT | _ENDS | {"unk_token": "<unk>", "pad_token": "<pad>"},
        _albert,
        _bert_rows,
    ),
}
ALIASES = {
    **dict.fromkeys(("ElectraTokenizer", "MobileBertTokenizer", "SqueezeBertTokenizer"), "BertTokenizer"),
    **dict.fromkeys(("LxmertTokenizer", "LayoutLMTokenizer", "ConvBertTokenizer"), "BertTokenizer"),
    **dict.fromkeys(("DPRQuestionEncoderTokenizer", "DPRContextEncoderTokenizer"), "BertTokenizer"),
    **dict.fromkeys(("BartTokenizer", "LongformerTokenizer", "LEDTokenizer", "MvpTokenizer"), "RobertaTokenizer"),
    **dict.fromkeys(("PreTrainedTokenizer", "TokenizersBackend"), ""),
}
"""Names, less an ending "Fast", of classes of transformers that are one of these or do as it does; "" has no rules."""
OF_FAMILY = {
    "albert": "AlbertTokenizer",
    "camembert": "CamembertTokenizer",
    "gpt2": "GPT2Tokenizer",
    "modernbert": "",
    "mpnet": "MPNetTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
}
"""The class of a family whose files name none, where it is not BERT's."""
