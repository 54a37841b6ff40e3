"""Vocabularies from files: what is read, what fits a model, and what is refused."""

import json

import numpy as np
import pytest
import tokenizers
from support.text import config

from jaxsmooth.assets import REGISTRY, asset_path, read_texts
from jaxsmooth.assets.cache import inspect
from jaxsmooth.bert.config import EncoderConfig
from jaxsmooth.checkpoints.config_json import config_from_file
from jaxsmooth.errors import TextError
from jaxsmooth.inputs.tokenizer import TINY_VOCAB, Tokenizer
from jaxsmooth.inputs.vocabulary import Pieces, refusals

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "##c", "é", "e", "A", "中"]
VOCAB = {word: place for place, word in enumerate(WORDS)}


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return tmp_path


def json_alone(path) -> None:
    """Let tokenizer.json decide alone, without BERT's class between."""
    (path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')


def json_tokenizer(vocabulary: dict[str, int], **changes) -> str:
    backend = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    return json.dumps(json.loads(backend.to_str()) | changes)


def test_directory_without_tokenizer(tmp_path):
    assert Tokenizer.from_dir(tmp_path, config()) is None


def test_vocab_txt_lower_cases_by_default(directory):
    tokenizer = Tokenizer.from_dir(directory, config(vocab=len(WORDS)))
    assert tokenizer.strings(tokenizer(["BC é 中 A?"], length=8).tokens[0]) == [
        *("[CLS]", "b", "##c", "e", "中", "a", "[UNK]", "[SEP]")
    ]


def test_vocab_txt_follows_tokenizer_config(directory):
    settings_file = {"do_lower_case": False, "strip_accents": False, "tokenize_chinese_chars": None}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings_file))
    tokenizer = Tokenizer.from_dir(directory, config(vocab=len(WORDS)))
    assert tokenizer.strings(tokenizer(["A é"], length=4).tokens[0]) == ["[CLS]", "A", "é", "[SEP]"]


def test_vocab_txt_with_crlf_and_repeated_tokens(directory):
    (directory / "vocab.txt").write_bytes("\r\n".join([*WORDS, "a"]).encode())
    tokenizer = Tokenizer.from_dir(directory, config(vocab=len(WORDS) + 1))
    assert tokenizer(["a"], length=3).tokens.tolist() == [[2, len(WORDS), 3]]


@pytest.mark.parametrize("content", ["{", "[]", '{"do_lower_case": "yes"}', "[" * 100_000])
def test_bad_tokenizer_config(directory, content):
    (directory / "tokenizer_config.json").write_text(content)
    with pytest.raises(TextError, match=r"tokenizer_config\.json"):
        Tokenizer.from_dir(directory, config(vocab=len(WORDS)))


def test_tokenizer_json_comes_first_without_its_cutting_and_padding(directory):
    truncation = {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    padding = {"strategy": {"Fixed": 9}, "direction": "Left", "pad_to_multiple_of": None}
    padding |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
    # BERT's class puts its own tokens around a text.
    text = json_tokenizer(VOCAB | {"z": 12}, truncation=truncation, padding=padding)
    (directory / "tokenizer.json").write_text(text, encoding="utf-8")
    tokenizer = Tokenizer.from_dir(directory, config(vocab=13))
    batch = tokenizer(["z a b a b a"])
    assert batch.tokens[0].tolist() == [2, 12, 5, 6, 5, 6, 5, 3] + [0] * 8
    assert batch.mask.sum() == 8


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt"])
@pytest.mark.parametrize("missing", ["[UNK]", "[CLS]", "[SEP]"])
def test_missing_special_token_is_named(tmp_path, name, missing):
    words = [word for word in WORDS if word != missing]
    vocabulary = {word: place for place, word in enumerate(words)}
    content = "\n".join(words) if name == "vocab.txt" else json_tokenizer(vocabulary)
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(TextError) as caught:
        Tokenizer.from_dir(tmp_path, config())
    assert str(caught.value).startswith(str(tmp_path / name))
    assert str(caught.value).endswith(f"lacks {missing}.")


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt"])
def test_vocabulary_larger_than_the_model(tmp_path, name):
    """Only a text that uses what the model lacks is refused."""
    content = "\n".join(WORDS) if name == "vocab.txt" else json_tokenizer(VOCAB)
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert Tokenizer.from_dir(tmp_path, config(vocab=len(WORDS)))(["中"]).mask.sum() == 3
    tokenizer = Tokenizer.from_dir(tmp_path, config(vocab=len(WORDS) - 1))
    assert tokenizer(["a"]).mask.sum() == 3
    with pytest.raises(TextError, match=r"texts\[0\] has the token '中', whose id 11 is not below the .* of 11"):
        tokenizer(["中"])
    with pytest.raises(TextError, match="built-in tiny"):
        Tokenizer.tiny(config(vocab=TINY_VOCAB - 1))


def template(special_id: int, segment: int) -> dict:
    cls = {"SpecialToken": {"id": "[CLS]", "type_id": 0}}
    single = [cls, {"Sequence": {"id": "A", "type_id": 0}}]
    ids = {"[CLS]": {"id": "[CLS]", "ids": [special_id], "tokens": ["[CLS]"]}}
    pair = [*single, {"Sequence": {"id": "B", "type_id": segment}}]
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": ids}


@pytest.mark.parametrize(("special_id", "segment", "fault"), [(2**32 - 1, 1, "ids around a text"), (2, 7, "segments")])
def test_post_processor_with_ids_of_its_own(tmp_path, special_id, segment, fault):
    json_alone(tmp_path)
    text = json_tokenizer(VOCAB, post_processor=template(special_id, segment))
    (tmp_path / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(TextError, match=fault):
        Tokenizer.from_dir(tmp_path, config())


def test_post_processor_that_repeats_the_text_cannot_be_cut(tmp_path):
    json_alone(tmp_path)
    processor = template(2, 1)
    processor["single"] *= 2
    (tmp_path / "tokenizer.json").write_text(json_tokenizer(VOCAB, post_processor=processor), encoding="utf-8")
    tokenizer = Tokenizer.from_dir(tmp_path, config())
    with pytest.raises(TextError, match="cannot cut"):
        list(tokenizer.batches(["a " * 100]))


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"{}", b'{"model": 1}', b"[" * 100_000, b"\0" * 100])
def test_corrupt_files_are_refused_by_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TextError) as caught:
        Tokenizer.from_dir(tmp_path, config())
    assert str(caught.value).startswith(str(tmp_path / name))


def test_folder_where_a_file_should_be(tmp_path):
    (tmp_path / "tokenizer.json").mkdir()
    with pytest.raises(TextError, match="cannot be read"):
        Tokenizer.from_dir(tmp_path, config())


def test_panics_become_errors_and_interrupts_do_not():
    panic = type("PanicException", (BaseException,), {})  # what the library's Rust binding raises
    with pytest.raises(TextError, match="some file"), refusals("some file"):
        raise panic("index out of bounds")
    with pytest.raises(KeyboardInterrupt), refusals("some file"):
        raise KeyboardInterrupt


@pytest.fixture
def minilm():
    if inspect(REGISTRY["minilm-l6"])[0] != "cached":
        pytest.skip("needs minilm-l6 in the cache: jaxsmooth assets fetch minilm-l6")
    return asset_path("minilm-l6")


def test_minilm_known_ids(minilm):
    tokenizer = Tokenizer.from_dir(minilm, config_from_file(minilm / "config.json"))
    assert tokenizer(["Hello, World!"], length=8).tokens.tolist() == [[101, 7592, 1010, 2088, 999, 102, 0, 0]]
    # Its tokenizer.json cuts at 128; the model has 512 positions.
    assert tokenizer(["film " * 300]).mask.sum() == 302


def test_minilm_both_files_agree(minilm, tmp_path):
    for name in ("vocab.txt", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((minilm / name).read_bytes())
    encoder = config_from_file(minilm / "config.json")
    texts = [*read_texts("tiny"), "Ünïcödé 中文 [SEP] don't\u200b \U0001f600 ﬁne\tand\x00 odd" * 3]
    one, other = (Tokenizer.from_dir(folder, encoder)(texts) for folder in (minilm, tmp_path))
    assert (np.asarray(one.tokens) == np.asarray(other.tokens)).all()


def test_fingerprint_tells_vocabularies_apart():
    config = EncoderConfig(vocab=TINY_VOCAB, max_length=32)
    assert Tokenizer.tiny(config).fingerprint == Tokenizer.tiny(config).fingerprint
    pieces = Pieces(("<s>", "<pad>", "</s>", "<unk>", "a"), (0.0,) * 5, 0, 2, 1, 3, {})
    assert Tokenizer.from_pieces(pieces, config, "made up").fingerprint != Tokenizer.tiny(config).fingerprint
