"""Directories of tokenizer files as users bring them, made by code: small vocabularies in every layout.

A layout is a function that writes into an empty folder; the table `LAYOUTS` has each with the family of its model.
`theirs` asks transformers for the rows of `TEXTS`, `ours` this library; `python -m support.layouts` freezes the former.
"""

import base64
import json
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, models, normalizers, pre_tokenizers, processors

from jaxsmooth.bert.config import EncoderConfig
from jaxsmooth.checkpoints.config_json import family_config
from jaxsmooth.errors import TextError
from jaxsmooth.inputs.sentencepiece import CONTROL, USER_DEFINED, model_message
from jaxsmooth.inputs.tokenizer import Tokenizer

from . import ROOT

FROZEN = ROOT / "tests" / "support" / "frozen" / "tokenizers.json"
ROWS = 600
"""Rows of the models' tables: more than any vocabulary here has."""
POSITIONS = 64
"""The models' longest text."""
LIMIT = 9
"""The length to which texts are also cut."""
TEXTS = [
    "Hello naïve World",
    "[E1] x [E2]x",
    "中文 abc",
    " two  spaces ",
    "a <mask> film [MASK] .",
    "",
    "it's [SEP] here </s> too <new>",
    "``Don''t'' ﬁne ① x",
    "a film worth seeing is a film of a film and a film of a film",
]
PAIRS = ["", "Hello", "a film of a film of a film", "x", "abc 中文", "a", "naïve", "dull", "a film is a film is a film"]

BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
LETTERS = [*"abcdefghijklmnopqrstuvwxyz.,'`\"HWDE中文ïéñ[]<>/12"]
PIECES = ["film", "hello", "Hello", "world", "World", "naive", "naïve", "##s", "is", "of", "two", "spaces", "seeing"]
WORDS = [*LETTERS, *PIECES, *(f"##{letter}" for letter in "abcdefghijklmnopqrtuvwxyzïéHWD")]
Layout = Callable[[Path], None]


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def vocab_txt(folder: Path, special: list[str] = BERT, *, end: str = "\n", more: tuple[str, ...] = ()) -> None:
    (folder / "vocab.txt").write_text(end.join([*special, *WORDS, *more]) + end, encoding="utf-8", newline="")


def wordpiece(special: list[str] = BERT, *, lowercase: bool = True, unknown: str = "[UNK]") -> tokenizers.Tokenizer:
    words = {word: place for place, word in enumerate([*special, *WORDS])}
    backend = tokenizers.Tokenizer(models.WordPiece(words, unk_token=unknown))
    backend.add_special_tokens(special)
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    first, last = ("[CLS]", "[SEP]") if "[CLS]" in words else (special[0], special[2])
    backend.post_processor = processors.BertProcessing((last, words[last]), (first, words[first]))
    return backend


MERGES = "f i,l m,fi lm,Ġ film,Ġ a,Ġ o,Ġo f,i s,Ġ is,l l,Ġ t,Ġt w,Ġtw o,H e,He ll,Hell o,Ã ¯,o r,n a"
MERGES = [tuple(pair.split(" ")) for pair in MERGES.split(",")]


def byte_pairs(special: list[str] = ROBERTA, *, mask_eats_space: bool = True) -> tokenizers.Tokenizer:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*special, *letters, *("".join(pair) for pair in MERGES)]
    backend = tokenizers.Tokenizer(models.BPE({word: place for place, word in enumerate(words)}, MERGES))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.add_special_tokens(special)
    if "<mask>" in special:
        backend.add_special_tokens([AddedToken("<mask>", lstrip=mask_eats_space)])
    if "<s>" in special:
        backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return backend


def vocab_and_merges(folder: Path, special: list[str] = ROBERTA) -> None:
    byte_pairs(special).model.save(str(folder))


SCORED = [("▁", -2.0), *((letter, -5.0 - k / 100) for k, letter in enumerate(LETTERS)), ("①", -9.0), ("fi", -4.0)]
SCORED += [(f"▁{word}", -1.5 - k / 10) for k, word in enumerate(PIECES) if not word.startswith("##")]
# A compiled table of replacements: the ligature ﬁ becomes fi, ① becomes 1, a full-width Ａ becomes A.
CHARSMAP = zlib.decompress(
    base64.b64decode(
        "eNod02WQlgUQAOB3PnCGAQaJoVHpkA4TBA6QBpUGaZAQkO46UrpTQDg6jpLuNEilu46UjqPz+diZZ3Zn9sf+2N0gbhAEI+IEMWVDwdiB"
        "oWDWR0E4IqPjhYJ+HwSBdmSIKHUCjfjcmxAKEsofkogkJCYZSUnO5thQkFJOQWpSkZY0hEek4xM+JgPpyURGspCZbGQlB9nJyafkJhd5"
        "yUN+8lGQAnxGIb7gc77iSwrzNd9QhGIUJYLilKQE31KKMpSmHGWpQHkqUZHvqMwPfE9VqlCdatSkBrWpxY/UoR51aUB9GtGQJjTmJ5rS"
        "nGa0pAWt+Jk2tKYtv9CednSkA53pRFe60J1u9KQHvelFX/rQL7xwBtCfQQzkVwYzlCEMZxgjwyfDaEYxljGMZxwTmcBkJjGVKUzjN2Yw"
        "nZn8ThSzmMNs5jGXBcxnEQtZwmKWEs1ylrGSFaziD9awmnWsZQPr2cRGtoTvk21sZQfb2cVO/mQ3f/MXe/iHfezlAPv5l4Mc4j+OcJhj"
        "HOUExznFSc5wmnOc5QLnucRFLhPDVa5wnWv8zw1ucZM73A7/IXd5wH0e8ZDHxPKUJzznGS95wWte8ZY37/8nImjWMngH0iqKpg=="
    )
)


def pieces_file(path: Path, special: list[tuple[str, int]], *, algorithm: int = 1) -> None:
    """A SentencePiece model; of a special piece its type."""
    model = model_message()()
    for piece, kind in special:
        model.pieces.add(piece=piece, score=0.0, type=kind)
    for piece, score in SCORED:
        model.pieces.add(piece=piece, score=score)
    model.trainer_spec.model_type = algorithm
    model.normalizer_spec.precompiled_charsmap = CHARSMAP
    path.write_bytes(model.SerializeToString())


def xlmr_file(folder: Path, name: str = "sentencepiece.bpe.model", *, algorithm: int = 1) -> None:
    pieces_file(folder / name, [("<unk>", 2), ("<s>", CONTROL), ("</s>", CONTROL)], algorithm=algorithm)


def xlmr(special: list[str] = ROBERTA[:4]) -> tokenizers.Tokenizer:
    words = [*((token, 0.0) for token in special), *SCORED, ("<mask>", 0.0)]
    backend = tokenizers.Tokenizer(models.Unigram(words, unk_id=3))
    table = normalizers.Precompiled(CHARSMAP)
    backend.normalizer = normalizers.Sequence([table, normalizers.Replace(tokenizers.Regex(" {2,}"), " ")])
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.add_special_tokens([*special, AddedToken("<mask>", lstrip=True)])
    backend.post_processor = processors.TemplateProcessing(
        single=["<s>", "$A", "</s>"],
        pair=["<s>", "$A", "</s>", "</s>", "$B", "</s>"],
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return backend


def changed(backend: tokenizers.Tokenizer, **values: Any) -> dict[str, Any]:
    """A tokenizer as JSON, some of its parts replaced."""
    return json.loads(backend.to_str()) | values


def directory(tokenizer: Any = None, *, config: Any = None, special: Any = None, added: Any = None, more: Any = None):
    """A layout of JSON files; `more` writes what else there is."""

    def write(folder: Path) -> None:
        if tokenizer is not None:
            made = tokenizer()
            write_json(folder / "tokenizer.json", made if isinstance(made, dict) else json.loads(made.to_str()))
        files = {"tokenizer_config.json": config, "special_tokens_map.json": special, "added_tokens.json": added}
        for name, content in files.items():
            if content is not None:
                write_json(folder / name, content)
        if more is not None:
            more(folder)

    return write


NEXT = len(BERT) + len(WORDS)
"""The id after the last of `vocab_txt`."""


def flags(content: str, **values: Any) -> dict[str, Any]:
    state = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": True}
    return {"content": content} | state | values


CUT = {"truncation": {"max_length": 7, "strategy": "LongestFirst", "stride": 0, "direction": "Left"}}
PAD = {"strategy": {"Fixed": 9}, "direction": "Left", "pad_to_multiple_of": None}
PAD = {"padding": PAD | {"pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}}
NAMED = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}

LAYOUTS: dict[str, tuple[str, Layout]] = {
    # case, accents, Chinese characters: the config and the class decide, not tokenizer.json
    "bert, lower-casing json, cased config": (
        "bert",
        directory(wordpiece, config={"tokenizer_class": "BertTokenizer", "do_lower_case": False}),
    ),
    "bert, cased json, no config": ("bert", directory(lambda: wordpiece(lowercase=False))),
    "bert, lower case with accents": (
        "bert",
        directory(wordpiece, config={"do_lower_case": True, "strip_accents": False}),
    ),
    "bert, cased without accents": (
        "bert",
        directory(wordpiece, config={"do_lower_case": False, "strip_accents": True}),
    ),
    "bert, Chinese characters joined": ("bert", directory(wordpiece, config={"tokenize_chinese_chars": False})),
    "bert, vocab.txt alone": ("bert", directory(more=vocab_txt)),
    "bert, vocab.txt, cased": ("bert", directory(config={"do_lower_case": False}, more=vocab_txt)),
    "bert, vocab.txt with CRLF": ("bert", directory(more=lambda folder: vocab_txt(folder, end="\r\n"))),
    "bert, vocab.txt with a word twice and blank lines": (
        "bert",
        directory(more=lambda folder: vocab_txt(folder, more=("film", "", " ", "x\u3000", "zz"))),
    ),
    "bert, json of old form": ("bert", directory(lambda: old_json(wordpiece()))),
    # added tokens
    "bert, vocab.txt and added_tokens.json": (
        "bert",
        directory(added={"[E1]": NEXT, "[E2]": NEXT + 1}, more=vocab_txt),
    ),
    "bert, added_tokens.json and a special map": (
        "bert",
        directory(
            added={"[E1]": NEXT, "[E2]": NEXT + 1},
            special={"additional_special_tokens": ["[E1]", "[E2]"], "mask_token": flags("[MASK]", lstrip=True)},
            more=vocab_txt,
        ),
    ),
    "bert, added_tokens_decoder": (
        "bert",
        directory(
            config={
                "added_tokens_decoder": {
                    str(NEXT): flags("[E1]", rstrip=True, special=False),
                    str(NEXT + 1): flags("[E2]", single_word=True, special=False),
                    str(NEXT + 2): flags("<NEW>", normalized=True, special=False),
                    "3": flags("[SEP]"),
                }
            },
            special={"cls_token": "[SEP]"},  # passed over
            more=vocab_txt,
        ),
    ),
    "bert, json with added tokens": ("bert", directory(lambda: with_added(wordpiece()))),
    "bert, additional_special_tokens": (
        "bert",
        directory(wordpiece, config={"additional_special_tokens": ["[E1]", "<new>"]}),
    ),
    "bert, extra_special_tokens and a token with a name of its own": (
        "bert",
        directory(wordpiece, config={"extra_special_tokens": {"image_token": "[E1]"}, "audio_token": "[E2]"}),
    ),
    "bert, special tokens of other names": (
        "bert",
        directory(
            lambda: wordpiece(ROBERTA, unknown="<unk>"),
            config={"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"},
            special={"mask_token": flags("<mask>", lstrip=True)},
        ),
    ),
    "bert, special tokens as objects": (
        "bert",
        directory(
            config={k: flags(v) | {"__type": "AddedToken"} for k, v in NAMED.items()} | {"model_max_length": 6},
            more=vocab_txt,
        ),
    ),
    "bert, vocab.txt without a mask": ("bert", directory(more=lambda folder: vocab_txt(folder, BERT[:4]))),
    "bert, special tokens split": ("bert", directory(wordpiece, config={"split_special_tokens": True})),
    # limits and sides
    "bert, cut on the left": ("bert", directory(wordpiece, config={"truncation_side": "left"})),
    "bert, json that cuts on the left and pads": ("bert", directory(lambda: changed(wordpiece(), **CUT, **PAD))),
    "bert, a shorter model_max_length": ("bert", directory(wordpiece, config={"model_max_length": 5})),
    "bert, no limit": ("bert", directory(wordpiece, config={"model_max_length": 1e30})),
    "bert, inputs without segments": (
        "bert",
        directory(wordpiece, config={"model_input_names": ["input_ids", "attention_mask"]}),
    ),
    # classes
    "bert, PreTrainedTokenizerFast": (
        "bert",
        directory(lambda: wordpiece(lowercase=False), config={"tokenizer_class": "PreTrainedTokenizerFast"} | NAMED),
    ),
    "bert, PreTrainedTokenizerFast that pads in json": (
        "bert",
        directory(lambda: changed(wordpiece(), **PAD), config={"tokenizer_class": "PreTrainedTokenizerFast"}),
    ),
    "bert, TokenizersBackend with segments, nothing around": (
        "bert",
        directory(
            lambda: changed(wordpiece(), post_processor=None),
            config={
                "tokenizer_class": "TokenizersBackend",
                "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
            }
            | NAMED,
        ),
    ),
    "bert, DistilBertTokenizer": ("bert", directory(wordpiece, config={"tokenizer_class": "DistilBertTokenizerFast"})),
    "bert, DPRQuestionEncoderTokenizer": (
        "bert",
        directory(wordpiece, config={"tokenizer_class": "DPRQuestionEncoderTokenizerFast"}),
    ),
    "bert, ConvBertTokenizer": (
        "bert",
        directory(config={"tokenizer_class": "ConvBertTokenizer", "do_lower_case": False}, more=vocab_txt),
    ),
    "electra": ("electra", directory(wordpiece, config={"tokenizer_class": "ElectraTokenizerFast"})),
    "distilbert": ("distilbert", directory(wordpiece, config={"tokenizer_class": "DistilBertTokenizer"})),
    "distilbert, vocab.txt alone": ("distilbert", directory(more=vocab_txt)),
    "mpnet": ("mpnet", directory(more=lambda folder: vocab_txt(folder, [*ROBERTA, "[UNK]"]))),
    "mpnet, json": (
        "mpnet",
        directory(lambda: wordpiece([*ROBERTA, "[UNK]"]), config={"tokenizer_class": "MPNetTokenizer"}),
    ),
    "roberta": ("roberta", directory(byte_pairs, config={"tokenizer_class": "RobertaTokenizer"})),
    "roberta, two files": ("roberta", directory(more=vocab_and_merges)),
    "roberta, a space before": ("roberta", directory(byte_pairs, config={"add_prefix_space": True})),
    "roberta, two files, a space before": (
        "roberta",
        directory(config={"add_prefix_space": True, "tokenizer_class": "BartTokenizer"}, more=vocab_and_merges),
    ),
    "roberta, special map": (
        "roberta",
        directory(special={"mask_token": flags("<mask>", lstrip=True), "bos_token": "<s>"}, more=vocab_and_merges),
    ),
    "gpt2": ("gpt2", directory(lambda: byte_pairs(["<|endoftext|>"]))),
    "gpt2, two files": ("gpt2", directory(more=lambda folder: vocab_and_merges(folder, ["<|endoftext|>"]))),
    "gpt2, two files, begun and ended": (
        "gpt2",
        directory(
            config={"add_bos_token": True, "add_eos_token": True, "pad_token": "<|endoftext|>", "padding_side": "left"},
            more=lambda folder: vocab_and_merges(folder, ["<|endoftext|>"]),
        ),
    ),
    "xlm-roberta": ("xlm-roberta", directory(xlmr, config={"tokenizer_class": "XLMRobertaTokenizer"})),
    "xlm-roberta, sentencepiece alone": ("xlm-roberta", directory(more=xlmr_file)),
    "xlm-roberta, sentencepiece, no space before": (
        "xlm-roberta",
        directory(config={"add_prefix_space": False, "model_max_length": 8}, more=xlmr_file),
    ),
    "xlm-roberta, tokenizer.model": (
        "xlm-roberta",
        directory(more=lambda folder: xlmr_file(folder, "tokenizer.model")),
    ),
    "camembert, sentencepiece alone": (
        "camembert",
        directory(
            more=lambda folder: pieces_file(
                folder / "sentencepiece.bpe.model", [("<unk>", 2), ("<s>", CONTROL), ("</s>", CONTROL)]
            )
        ),
    ),
    "camembert, json": ("camembert", directory(lambda: camembert(), config={"tokenizer_class": "CamembertTokenizer"})),
    "albert, sentencepiece alone": ("albert", directory(more=lambda folder: albert_file(folder))),
    "albert, sentencepiece, cased with accents": (
        "albert",
        directory(
            config={"do_lower_case": False, "keep_accents": True, "tokenizer_class": "AlbertTokenizer"},
            more=lambda folder: albert_file(folder),
        ),
    ),
    # every crossing of model and tokenizer
    "roberta with WordPiece (klue/roberta-base)": (
        "roberta",
        directory(wordpiece, config={"tokenizer_class": "BertTokenizer", "do_lower_case": False} | NAMED),
    ),
    "roberta with ALBERT's (nlp-waseda/roberta-base-japanese)": (
        "roberta",
        directory(config={"tokenizer_class": "AlbertTokenizer"}, more=lambda folder: albert_file(folder)),
    ),
    "bert with XLM-R's (multilingual-e5-small)": (
        "bert",
        directory(xlmr, config={"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": 512}),
    ),
    "bert with XLM-R's, named in config.json (multilingual MiniLM)": (
        "bert",
        directory(more=lambda folder: (xlmr_file(folder), named_in_config(folder, "XLMRobertaTokenizer"))),
    ),
    "bert with byte pairs": ("bert", directory(byte_pairs, config={"tokenizer_class": "RobertaTokenizerFast"})),
    "bert with HerBERT's": (
        "bert",
        directory(config={"tokenizer_class": "HerbertTokenizerFast"}, more=lambda folder: herbert(folder)),
    ),
    "modernbert with <bos> and <eos> (mmBERT)": (
        "modernbert",
        directory(
            lambda: wordpiece(["<bos>", "<pad>", "<eos>", "[UNK]", "<mask>"]),
            config={
                "tokenizer_class": "GemmaTokenizerFast",
                "bos_token": "<bos>",
                "eos_token": "<eos>",
                "pad_token": "<pad>",
                "unk_token": "[UNK]",
                "mask_token": flags("<mask>", lstrip=True) | {"__type": "AddedToken"},
                "cls_token": "<bos>",
                "sep_token": "<eos>",
            },
        ),
    ),
    "modernbert": ("modernbert", directory(wordpiece, config={"tokenizer_class": "PreTrainedTokenizerFast"} | NAMED)),
    "camembert with WordPiece": ("camembert", directory(wordpiece, config={"tokenizer_class": "BertTokenizer"})),
    "mpnet with XLM-R's": ("mpnet", directory(xlmr, config={"tokenizer_class": "XLMRobertaTokenizerFast"})),
    "gpt2 with WordPiece": ("gpt2", directory(wordpiece, config={"tokenizer_class": "BertTokenizer"})),
    "albert with BERT's (voidful/albert_chinese)": (
        "albert",
        directory(config={"tokenizer_class": "BertTokenizer"}, more=vocab_txt),
    ),
    "xlm-roberta with byte pairs": (
        "xlm-roberta",
        directory(byte_pairs, config={"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>"}),
    ),
}


def named_in_config(folder: Path, name: str) -> None:
    write_json(folder / "config.json", {"model_type": "bert", "tokenizer_class": name})


def old_json(backend: tokenizers.Tokenizer) -> dict[str, Any]:
    """A file of the time when models had no type."""
    whole = json.loads(backend.to_str())
    whole["model"] = {key: value for key, value in whole["model"].items() if key != "type"}
    return whole


def with_added(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    backend.add_tokens(["[E1]", AddedToken("[E2]", lstrip=True, rstrip=True), AddedToken("<new>", single_word=True)])
    return backend


def camembert() -> tokenizers.Tokenizer:
    words = [("<s>NOTUSED", 0.0), ("<pad>", 0.0), ("</s>NOTUSED", 0.0), ("<unk>", 0.0), ("<unk>NOTUSED", -100.0)]
    words += [("<s>", 0.0), ("</s>", 0.0), *SCORED, ("<mask>", 0.0)]
    backend = tokenizers.Tokenizer(models.Unigram(words, unk_id=3))
    backend.add_special_tokens(["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<s>", "</s>", "<mask>"])
    backend.post_processor = processors.RobertaProcessing(("</s>", 6), ("<s>", 5))
    return backend


def albert_file(folder: Path) -> None:
    special = [("<pad>", CONTROL), ("<unk>", 2), *((token, USER_DEFINED) for token in ("[CLS]", "[SEP]", "[MASK]"))]
    pieces_file(folder / "spiece.model", special)


def herbert(folder: Path) -> None:
    merges = [("f", "i"), ("l", "m</w>"), ("fi", "lm</w>"), ("o", "f</w>"), ("i", "s</w>")]
    words = [*ROBERTA, *LETTERS, *(f"{letter}</w>" for letter in LETTERS), *("".join(pair) for pair in merges)]
    backend = models.BPE({word: place for place, word in enumerate(words)}, merges, end_of_word_suffix="</w>")
    backend.save(str(folder))


def made(name: str, folder: Path) -> str:
    """Write a layout, with a `config.json` that names the family, which it gives."""
    family, write = LAYOUTS[name]
    write(folder)
    if not (folder / "config.json").exists():
        write_json(folder / "config.json", {"model_type": family})
    return family


def model_config(family: str) -> EncoderConfig:
    """The configuration of a small model of the family, with room for every layout's words."""
    return family_config(family, vocab=ROWS, max_length=POSITIONS, pad_token=0)


def row(ids: list[int], segments: list[int]) -> str:
    """A row as one line: its ids, and where the second segment is, from which token to which."""
    ones = [place for place, segment in enumerate(segments) if segment]
    return " ".join(map(str, ids)) + (f" | {ones[0]}-{ones[-1]}" if ones else "")


def asked(rows: Callable[..., list[str]]) -> dict[str, list[str]]:
    """The four questions: single texts and pairs, whole and cut."""
    return {
        "single": rows(TEXTS, None, None),
        "pairs": rows(TEXTS, PAIRS, None),
        "cut": rows(TEXTS, None, LIMIT),
        "cut pairs": rows(TEXTS, PAIRS, LIMIT),
    }


def theirs(folder: Path, family: str) -> dict[str, Any]:
    """What transformers makes of a directory; without segments where the model has one, or none."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    told = model_config(family).segments > 1

    def rows(texts: list[str], pairs: list[str] | None, limit: int | None) -> list[str]:
        found = tokenizer(texts, pairs, truncation=limit is not None, max_length=limit)
        segments = found.get("token_type_ids") if told else None
        return [row(ids, segments[place] if segments else []) for place, ids in enumerate(found["input_ids"])]

    limit = min(tokenizer.model_max_length, POSITIONS)
    return asked(rows) | {"limit": limit, "pad": tokenizer.pad_token_id, "mask": tokenizer.mask_token_id}


def ours(folder: Path, family: str) -> dict[str, Any]:
    """What this library makes of it."""
    tokenizer = Tokenizer.from_dir(folder, model_config(family))

    def rows(texts: list[str], pairs: list[str] | None, limit: int | None) -> list[str]:
        found = tokenizer.rows(texts, pairs, length=limit or POSITIONS)
        return [row(each.ids, each.segments) for each in found]

    try:
        mask = tokenizer.mask_id
    except TextError:
        mask = None
    return asked(rows) | {"limit": tokenizer.max_length, "pad": tokenizer.pad_id, "mask": mask}


def frozen() -> dict[str, Any]:
    """transformers' answers for every layout, now."""
    found = {}
    for name in LAYOUTS:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = theirs(Path(folder), made(name, Path(folder)))
    return found


if __name__ == "__main__":
    lines = [f"{json.dumps(name)}: {json.dumps(answer)}" for name, answer in frozen().items()]
    FROZEN.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
