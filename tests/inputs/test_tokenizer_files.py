"""A tokenizer's own files decide: every layout gives the rows that transformers gives, or is refused by name."""

import json
import shutil

import numpy as np
import pytest
from support.layouts import (
    BERT,
    FROZEN,
    LAYOUTS,
    NAMED,
    NEXT,
    PAIRS,
    POSITIONS,
    ROBERTA,
    TEXTS,
    byte_pairs,
    directory,
    flags,
    made,
    model_config,
    ours,
    theirs,
    vocab_and_merges,
    vocab_txt,
    wordpiece,
    write_json,
    xlmr,
    xlmr_file,
)
from support.text import call_quietly

from jaxsmooth.errors import TextError
from jaxsmooth.inputs.tokenizer import Tokenizer

ANSWERS = json.loads(FROZEN.read_text(encoding="utf-8"))
ROWS = ("single", "pairs", "cut", "cut pairs", "limit")


def check(got: dict, expected: dict, family: str) -> None:
    """The same rows and limit; and the same padding and mask, where transformers has them."""
    for question in ROWS:
        assert got[question] == expected[question], question
    if expected["pad"] is not None:  # else the model's own
        assert got["pad"] == expected["pad"]
    if expected["mask"] is not None:  # else looked for by its usual names
        assert got["mask"] == expected["mask"]


@pytest.mark.compatibility(
    "tokenizer",
    "tokenizer.json lower-cases, tokenizer_config says BertTokenizer, do_lower_case false",
    "stays cased, as transformers has it",
    was=1,
)
@pytest.mark.compatibility(
    "tokenizer",
    "a cased tokenizer.json of a BERT without tokenizer_config",
    "lower-cased, as transformers has it",
    was=1,
)
@pytest.mark.compatibility(
    "tokenizer", "strip_accents or tokenize_chinese_chars beside tokenizer.json", "the setting decides", was=1
)
@pytest.mark.compatibility("tokenizer", "vocab.txt with CRLF line ends", "read", was=0)
@pytest.mark.compatibility(
    "tokenizer",
    "vocab.txt with blank lines, trailing blanks and a word twice",
    "the ids that transformers gives",
    was=1,
)
@pytest.mark.compatibility(
    "tokenizer", "vocab.txt beside added_tokens.json", "the added tokens are read whole, with their ids", was=1
)
@pytest.mark.compatibility(
    "tokenizer",
    "added_tokens_decoder with lstrip, rstrip, single_word, normalized",
    "each is looked for by its flags",
    was=1,
)
@pytest.mark.compatibility(
    "tokenizer",
    "additional_special_tokens, extra_special_tokens, image_token",
    "added as transformers adds them",
    was=1,
)
@pytest.mark.compatibility(
    "tokenizer",
    "BERT whose special tokens are named <s>, </s>, <pad> by its files",
    "rows begin and end with those",
    was=3,
)
@pytest.mark.compatibility("tokenizer", "split_special_tokens", "a special token in a text is split", was=1)
@pytest.mark.compatibility(
    "tokenizer", "truncation_side left, or a tokenizer.json that cuts on the left", "the beginning is cut", was=1
)
@pytest.mark.compatibility(
    "tokenizer", "model_max_length below the model's positions", "texts are cut there unless a length is given", was=1
)
@pytest.mark.compatibility(
    "tokenizer", "model_input_names without token_type_ids, or a class that has none", "no segments", was=1
)
@pytest.mark.compatibility(
    "tokenizer",
    "PreTrainedTokenizerFast, TokenizersBackend",
    "tokenizer.json as it is, nothing put around a text unless it says so",
    was=1,
)
@pytest.mark.compatibility("tokenizer", "add_prefix_space in tokenizer_config", "a space is put before the text", was=1)
@pytest.mark.compatibility(
    "tokenizer", "add_bos_token and add_eos_token beside vocab.json and merges.txt", "put around each text", was=1
)
@pytest.mark.compatibility(
    "tokenizer", "vocab.json and merges.txt: a space before <mask>", "kept, as transformers 5 does", was=1
)
@pytest.mark.compatibility(
    "tokenizer",
    "CamemBERT's or XLM-R's tokenizer.json with another normalizer than its class",
    "the class decides",
    was=1,
)
@pytest.mark.compatibility(
    "tokenizer", "XLM-R, CamemBERT with sentencepiece.bpe.model alone", "read, with fairseq's ids", was=3
)
@pytest.mark.compatibility(
    "tokenizer", "ALBERT with spiece.model alone, do_lower_case and keep_accents", "read, with its normalisation", was=3
)
@pytest.mark.compatibility("tokenizer", "RoBERTa with WordPiece (klue/roberta-base)", "read by its class", was=3)
@pytest.mark.compatibility("tokenizer", "ModernBERT with <bos>, <eos>, <pad> (mmBERT)", "tokenizer.json decides", was=3)
@pytest.mark.compatibility(
    "tokenizer",
    "BERT with XLM-R's tokenizer (multilingual-e5-small, multilingual MiniLM)",
    "read by its class, named in either config",
    was=3,
)
@pytest.mark.compatibility(
    "tokenizer",
    "every other crossing: BERT with byte pairs or HerBERT's, CamemBERT and ALBERT with WordPiece, MPNet with XLM-R's",
    "read by its class",
    was=3,
)
@pytest.mark.compatibility(
    "rule", "a pair that is cut", "the odd token goes to the longer text, to the second on a tie", was=1
)
@pytest.mark.parametrize("name", LAYOUTS)
def test_rows_are_those_of_transformers(name, tmp_path):
    family = made(name, tmp_path)
    check(ours(tmp_path, family), ANSWERS[name], family)


@pytest.mark.compatibility(
    "saving",
    "tokenizer_config of an export lacks model_input_names, truncation side, limit",
    "all there; transformers gives the same rows",
    was=1,
)
@pytest.mark.compatibility("saving", "other keys of tokenizer_config.json", "kept; saving again changes nothing", was=1)
@pytest.mark.parametrize("name", LAYOUTS)
def test_what_is_saved_gives_the_same_rows_and_is_a_fixed_point(name, tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    family = made(name, tmp_path / "one")
    settings = tmp_path / "one" / "tokenizer_config.json"
    before = json.loads(settings.read_text(encoding="utf-8")) if settings.exists() else {}
    write_json(settings, before | {"prayer": ["kept"]})
    config = model_config(family)
    write_json(tmp_path / "two" / "special_tokens_map.json", {"cls_token": "of another tokenizer"})
    (tmp_path / "two" / "preparation.json").write_text("of another tokenizer")
    for source, target in (("one", "two"), ("two", "three")):
        Tokenizer.from_dir(tmp_path / source, config).save(tmp_path / target)
    check(ours(tmp_path / "three", family), ANSWERS[name], family)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "two" / file).read_bytes() == (tmp_path / "three" / file).read_bytes()
    saved = json.loads((tmp_path / "two" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert saved["prayer"] == ["kept"]
    segments = any("|" in row for row in ANSWERS[name]["pairs"])
    assert "token_type_ids" in saved["model_input_names"] or not segments
    assert saved["model_max_length"] == ANSWERS[name]["limit"]


REFUSED = {
    "MeCab": (
        "bert",
        directory(config={"tokenizer_class": "BertJapaneseTokenizer", "do_lower_case": False}, more=vocab_txt),
        r"tokenizer_config\.json: tokenizer_class 'BertJapaneseTokenizer' is none of those read here",
    ),
    "MeCab, by its settings": (
        "bert",
        directory(config={"word_tokenizer_type": "mecab"}, more=vocab_txt),
        "'BertJapaneseTokenizer' is none of those",
    ),
    "MeCab, named in config.json": (
        "bert",
        directory(
            more=lambda folder: (
                vocab_txt(folder),
                write_json(folder / "config.json", {"model_type": "bert", "tokenizer_class": "BertJapaneseTokenizer"}),
            )
        ),
        r"[/\\]config\.json: tokenizer_class 'BertJapaneseTokenizer'",
    ),
    **{
        name: (
            "roberta",
            directory(byte_pairs, config={"tokenizer_class": name}),
            f"tokenizer_class '{name}' is none of those read here",
        )
        for name in ("BertweetTokenizer", "PhobertTokenizer", "DebertaV2TokenizerFast", "KoBertTokenizer")
    },
    "a class without files": ("bert", directory(config={"tokenizer_class": "CanineTokenizer"}), "'CanineTokenizer'"),
    "code": (
        "bert",
        directory(wordpiece, config={"auto_map": {"AutoTokenizer": ["tokenization.MyTokenizer", None]}}),
        r"auto_map names code that comes with the model \(\['tokenization\.MyTokenizer', None\]\)",
    ),
    "vocab.json without merges.txt": (
        "roberta",
        directory(more=lambda folder: (vocab_and_merges(folder), (folder / "merges.txt").unlink())),
        r"holds vocab\.json, but RobertaTokenizer reads tokenizer\.json or vocab\.json with merges\.txt",
    ),
    "SentencePiece under a BERT": (
        "bert",
        directory(more=xlmr_file),
        r"holds sentencepiece\.bpe\.model, but BertTokenizer reads tokenizer\.json or vocab\.txt",
    ),
    "vocab.txt under a RoBERTa": ("roberta", directory(more=vocab_txt), r"holds vocab\.txt, but RobertaTokenizer"),
    "vocab.txt under a ModernBERT": ("modernbert", directory(more=vocab_txt), r"here only tokenizer\.json is read"),
    "PhoBERT's files": (
        "roberta",
        directory(more=lambda folder: (folder / "bpe.codes").write_text("a b 1\n")),
        r"holds bpe\.codes, but",
    ),
    "SentencePiece's BPE": (
        "xlm-roberta",
        directory(more=lambda folder: xlmr_file(folder, algorithm=2)),
        "must be a Unigram model; it splits text by BPE",
    ),
    "a pointer in place of a file": (
        "bert",
        directory(
            more=lambda folder: (folder / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\n")
        ),
        r"tokenizer\.json is a Git LFS pointer, not the file itself",
    ),
    "a word twice and added tokens": (
        "bert",
        directory(added={"[E1]": NEXT + 1}, more=lambda folder: vocab_txt(folder, more=("film",))),
        rf"the added token '\[E1\]' must have the id {NEXT + 1}, .*; the next free id is {NEXT}",
    ),
    "a gap before an added token": ("bert", directory(added={"[E1]": NEXT + 5}, more=vocab_txt), "must have the id"),
    "another vocabulary than the class's": (
        "bert",
        directory(more=lambda folder: vocab_txt(folder, ROBERTA)),
        r"vocab\.txt: the vocabulary must have \[CLS\], \[SEP\], \[UNK\]; it lacks",
    ),
    "a token that is none": ("bert", directory(wordpiece, config={"cls_token": {"content": 3}}), "must be a token"),
    "a list that is none": (
        "bert",
        directory(wordpiece, config={"additional_special_tokens": "[E1]"}),
        "additional_special_tokens must be a list of tokens|extra_special_tokens must be a list of tokens",
    ),
    "an id that is none": ("bert", directory(added={"[E1]": "x"}, more=vocab_txt), r"added_tokens\.json: the id of"),
    "a side that is none": (
        "bert",
        directory(wordpiece, config={"truncation_side": "up"}),
        "must be 'right' or 'left'",
    ),
    "a limit that is none": (
        "bert",
        directory(wordpiece, config={"model_max_length": "512"}),
        "must be a number of at",
    ),
    "inputs that are none": (
        "bert",
        directory(wordpiece, config={"model_input_names": "ids"}),
        "must be a list of names",
    ),
    "a special map that is no JSON": (
        "bert",
        directory(wordpiece, more=lambda folder: (folder / "special_tokens_map.json").write_text("{")),
        r"special_tokens_map\.json is not readable JSON",
    ),
}


@pytest.mark.compatibility(
    "tokenizer",
    "vocab.txt with tokenizer_class BertJapaneseTokenizer (MeCab), in either config",
    "refused by the class's name",
    was=1,
)
@pytest.mark.compatibility(
    "tokenizer", "BertweetTokenizer, PhobertTokenizer, a class nobody knows", "refused by the class's name", was=1
)
@pytest.mark.compatibility(
    "tokenizer", "tokenizer_config.json alone with CanineTokenizer", "refused by the class's name", was=4
)
@pytest.mark.compatibility(
    "tokenizer", "auto_map: code that comes with the tokenizer", "refused; no such code is run", was=1
)
@pytest.mark.compatibility(
    "tokenizer",
    "vocab.json without merges.txt, bpe.codes, vocabularies that the class does not read",
    "refused, naming the files and what the class reads",
    was=4,
)
@pytest.mark.compatibility("tokenizer", "SentencePiece's BPE where the class reads Unigram", "refused", was=4)
@pytest.mark.compatibility("tokenizer", "a Git LFS pointer in place of a tokenizer's file", "named as such", was=4)
@pytest.mark.compatibility(
    "tokenizer", "an added token whose id is not the next free one", "refused, naming token and both ids", was=1
)
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_is_refused_by_name(name, tmp_path):
    family, write, message = REFUSED[name]
    write(tmp_path)
    with pytest.raises(TextError, match=message) as caught:
        Tokenizer.from_dir(tmp_path, model_config(family))
    assert str(caught.value).startswith(str(tmp_path))


def test_nothing_is_read_where_there_is_nothing(tmp_path):
    """Weights alone, or settings without a vocabulary of a class that needs one."""
    assert Tokenizer.from_dir(tmp_path, model_config("bert")) is None
    write_json(tmp_path / "tokenizer_config.json", {"do_lower_case": True})
    assert Tokenizer.from_dir(tmp_path, model_config("bert")) is None


@pytest.mark.compatibility(
    "tokenizer", "a class that is not read in config.json, and no vocabulary", "no tokenizer", was=0
)
def test_a_class_without_a_vocabulary_is_no_tokenizer(tmp_path):
    write_json(tmp_path / "config.json", {"model_type": "bert", "tokenizer_class": "BertJapaneseTokenizer"})
    assert Tokenizer.from_dir(tmp_path, model_config("bert")) is None


@pytest.mark.compatibility("tokenizer", "a vocab.txt in UTF-16", "refused, named, with the way to convert it", was=4)
def test_a_vocabulary_in_utf_16_is_named(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n", encoding="utf-16")
    with pytest.raises(TextError, match=r"vocab\.txt: .* It is UTF-16: save it as UTF-8"):
        Tokenizer.from_dir(tmp_path, model_config("bert"))


@pytest.mark.compatibility("tokenizer", "tokenizer files with a byte order mark", "read without it", was=3)
@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer.json", "merges.txt"])
def test_a_byte_order_mark_is_passed_over(name, tmp_path):
    family = {"merges.txt": "roberta"}.get(name, "bert")
    layout = {"vocab.txt": "bert, vocab.txt alone", "tokenizer.json": "bert, no limit"}.get(name, "roberta, two files")
    made(layout, tmp_path)
    for file in {name, "tokenizer_config.json"} & {path.name for path in tmp_path.iterdir()}:
        (tmp_path / file).write_bytes(b"\xef\xbb\xbf" + (tmp_path / file).read_bytes())
    check(ours(tmp_path, family), ANSWERS[layout], family)


@pytest.mark.compatibility(
    "tokenizer",
    "no class named, and a tokenizer.json that the family's class cannot hold",
    "tokenizer.json decides (transformers 5 makes single letters of it, or fails)",
    was=3,
)
@pytest.mark.parametrize(("family", "backend"), [("roberta", wordpiece), ("bert", xlmr), ("xlm-roberta", byte_pairs)])
def test_a_tokenizer_json_that_its_class_cannot_hold_decides_alone(family, backend, tmp_path):
    directory(backend)(tmp_path)
    rows = Tokenizer.from_dir(tmp_path, model_config(family)).rows(TEXTS, length=POSITIONS)
    assert [row.ids for row in rows] == [backend().encode(text).ids for text in TEXTS]


@pytest.mark.compatibility(
    "tokenizer", "special_tokens_map.json whose additional tokens are objects", "read (transformers 5 fails)", was=1
)
def test_additional_tokens_may_be_objects(tmp_path):
    directory(special={"additional_special_tokens": [flags("[E1]"), "[E2]"]}, more=vocab_txt)(tmp_path)
    tokenizer = Tokenizer.from_dir(tmp_path, model_config("bert"))
    assert tokenizer.rows(["[E1] x [E2]"], length=9)[0].ids == [2, NEXT, 28, NEXT + 1, 3]
    assert {NEXT, NEXT + 1} <= tokenizer.special_ids


@pytest.mark.compatibility(
    "tokenizer",
    "a vocabulary larger than the model's table",
    "read; a text that uses a missing row is refused, naming text, token and id",
    was=3,
)
def test_ids_are_checked_text_by_text(tmp_path):
    directory(added={"[E1]": NEXT}, more=vocab_txt)(tmp_path)
    config = model_config("bert")
    tokenizer = Tokenizer.from_dir(tmp_path, type(config)(vocab=NEXT, max_length=POSITIONS))
    assert tokenizer.rows(["a film"], length=9)[0].ids == [2, 5, 52, 3]
    for call in (
        lambda texts: tokenizer(texts),
        lambda texts: list(tokenizer.batches(texts)),
        lambda texts: tokenizer.rows(["a"] * 2, texts, length=9),
        lambda texts: tokenizer.windows(["a"] * 2, texts, [(0, 1)] * 2, most=3),
    ):
        with pytest.raises(
            TextError, match=rf"\[1\] has the token '\[e1\]', whose id {NEXT} is not below .* of {NEXT}"
        ):
            call(["film", "[E1]"])
    with pytest.raises(TextError, match=r"the ids around a text must lie below the model's vocabulary of 3"):
        Tokenizer.from_dir(tmp_path, type(config)(vocab=3, max_length=POSITIONS))


def test_a_mask_or_padding_beyond_the_table_is_not_used(tmp_path):
    """transformers gives a missing token the next id, for which a model has no row."""
    directory(more=lambda folder: vocab_txt(folder, BERT[1:4]))(tmp_path)
    words = NEXT - 2
    config = model_config("bert")
    tokenizer = Tokenizer.from_dir(tmp_path, type(config)(vocab=words, max_length=POSITIONS, pad_token=7))
    assert tokenizer.pad_id == 7
    with pytest.raises(TextError, match="has no mask token"):
        tokenizer.mask_id  # noqa: B018
    roomy = Tokenizer.from_dir(tmp_path, type(config)(vocab=words + 9, max_length=POSITIONS))
    assert (roomy.pad_id, roomy.mask_id) == (words, words + 1)


@pytest.mark.compatibility(
    "saving",
    "an export of the first version, without model_input_names",
    "read with segments, as it was trained",
    was=0,
)
def test_an_export_of_the_first_version_keeps_its_segments(tmp_path):
    directory(wordpiece, config={"tokenizer_class": "PreTrainedTokenizerFast"} | NAMED)(tmp_path)
    ends = [Tokenizer.from_dir(tmp_path, model_config("bert")).rows(["a"], ["a"], length=9)[0].segments]
    (tmp_path / "finetune.json").write_text("{}")
    ends += [Tokenizer.from_dir(tmp_path, model_config("bert")).rows(["a"], ["a"], length=9)[0].segments]
    assert ends == [[0, 0, 0, 0, 0], [0, 0, 0, 1, 1]]


def test_padding_is_on_the_right_whatever_the_files_say(tmp_path):
    """On the left it would move BERT's positions with the other texts of a batch; docs/tokenizers.md says so."""
    directory(wordpiece, config={"padding_side": "left"} | NAMED)(tmp_path)
    tokenizer = Tokenizer.from_dir(tmp_path, model_config("bert"))
    assert tokenizer(["a"]).mask[0].tolist() == [True] * 3 + [False] * 13
    tokenizer.save(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())["padding_side"] == "right"


def test_a_shorter_limit_is_warned_of_and_may_be_exceeded(tmp_path):
    directory(wordpiece, config={"model_max_length": 4})(tmp_path)
    tokenizer = Tokenizer.from_dir(tmp_path, model_config("bert"))
    assert tokenizer.max_length == 4
    with pytest.warns(UserWarning, match="1 of 1 texts were cut to 4 tokens"):
        assert tokenizer(["a a a a a"]).mask.sum() == 4
    assert tokenizer(["a a a a a"], length=9).mask.sum() == 7
    assert next(tokenizer.batches(["a a a a a"])).truncated == 1


@pytest.mark.parity
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_frozen_rows_are_those_of_transformers_today(name, tmp_path):
    pytest.importorskip("transformers", reason="needs the parity extra")
    assert theirs(tmp_path, made(name, tmp_path)) == ANSWERS[name]


@pytest.mark.parity
@pytest.mark.parametrize("name", LAYOUTS)
def test_transformers_reads_what_is_saved(name, tmp_path):
    """The same rows, padded batches and special tokens from the saved files as from the first ones."""
    transformers = pytest.importorskip("transformers", reason="needs the parity extra")
    family = made(name, tmp_path)
    config, saved = model_config(family), tmp_path / "saved"
    tokenizer = Tokenizer.from_dir(tmp_path, config)
    tokenizer.save(saved)
    shutil.copy(tmp_path / "config.json", saved)
    check(ours(tmp_path, family), theirs(saved, family), family)
    first, second = (transformers.AutoTokenizer.from_pretrained(folder) for folder in (tmp_path, saved))
    assert second.special_tokens_map == first.special_tokens_map
    assert set(second.all_special_tokens) == set(first.all_special_tokens)
    assert second.model_max_length == tokenizer.max_length
    assert second.truncation_side == first.truncation_side
    if second.pad_token is None:
        return
    batch = call_quietly(tokenizer, TEXTS, PAIRS)
    found = second(TEXTS, PAIRS, padding=True, truncation=True)
    width = len(found["input_ids"][0])
    assert np.array_equal(batch.mask[:, :width], found["attention_mask"])
    assert not batch.mask[:, width:].any()
    assert np.array_equal(batch.tokens[:, :width], found["input_ids"])
    assert np.array_equal(batch.segments[:, :width], found.get("token_type_ids", np.zeros_like(found["input_ids"])))


@pytest.mark.parity
@pytest.mark.parametrize("name", LAYOUTS)
def test_any_text_gives_the_rows_of_transformers(name, tmp_path):
    transformers = pytest.importorskip("transformers", reason="needs the parity extra")
    family = made(name, tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    tokenizer = Tokenizer.from_dir(tmp_path, model_config(family))
    texts = random_texts(200)
    pairs = texts[::-1]
    for length in (9, 20, POSITIONS):
        for seconds in (None, pairs):
            found = theirs(texts, seconds, truncation=True, max_length=length)
            assert [row.ids for row in tokenizer.rows(texts, seconds, length=length)] == found["input_ids"]


def random_texts(count: int) -> list[str]:
    """Strings of letters, words, special tokens and any characters of Unicode, surrogates left out."""
    random = np.random.default_rng(0)
    known = ["film", "Hello", " ", "  ", "naïve", "a", "s", "[E1]", "<mask>", "[SEP]", "</s>", "<new>", "中", ".", "'"]
    texts = []
    for _ in range(count):
        odd = [chr(code) for code in random.integers(1, 0x3000, 6)] + [chr(int(random.integers(0xE000, 0x1FFFF)))]
        texts.append("".join(random.choice(known + odd, int(random.integers(0, 30)))))
    return texts
