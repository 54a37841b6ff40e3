"""Tokenizers of the families that are not BERT's: byte-level BPE, other special tokens, a model without padding."""

import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from jaxsmooth.bert.config import EncoderConfig
from jaxsmooth.checkpoints.config_json import family_config
from jaxsmooth.errors import TextError
from jaxsmooth.inputs.tokenizer import Tokenizer

CORPUS = ["a film worth seeing", "it's dull, dull; naïve 東京", "<s> is no token here"] * 3
SIZES = {"vocab": 400, "max_length": 40}
TEXTS = ["A film worth seeing.", "dull", "naïve 東京 🎬", "a <mask> film"]


def byte_pairs(folder: Path, special: list[str]) -> tokenizers.Tokenizer:
    """Train a byte-level BPE; write `vocab.json` and `merges.txt`."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    backend.decoder = decoders.ByteLevel()
    backend.model.save(str(folder))
    return backend


@pytest.fixture
def roberta(tmp_path) -> Path:
    byte_pairs(tmp_path, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    return tmp_path


@pytest.fixture
def gpt2(tmp_path) -> Path:
    byte_pairs(tmp_path, ["<|endoftext|>"])
    return tmp_path


def test_roberta_puts_its_own_tokens_around_texts_and_pairs(roberta):
    tokenizer = Tokenizer.from_dir(roberta, family_config("roberta", **SIZES))
    batch = tokenizer(["dull"], ["it"], length=12)
    tokens = tokenizer.strings(batch.tokens[0])
    assert tokens[0] == "<s>"
    assert "".join(tokens[1:]).replace("<pad>", "") == "dull</s></s>it</s>"
    assert tokens[-1] == "<pad>" == tokenizer.strings([1])[0]
    assert not np.asarray(batch.segments).any()
    assert int(batch.mask.sum()) == sum(token != "<pad>" for token in tokens)
    assert "<mask>" in tokenizer.strings(tokenizer(["a <mask> film"]).tokens[0])
    assert tokenizer.buckets[-1] == 40


def test_gpt2_adds_nothing_and_pads_with_what_is_masked_out(gpt2):
    tokenizer = Tokenizer.from_dir(gpt2, family_config("gpt2", **SIZES))
    batch = tokenizer(["dull film"], length=16)
    length = int(batch.mask.sum())
    backend = tokenizers.decoders.ByteLevel()
    assert backend.decode(tokenizer.strings(batch.tokens[0, :length])) == "dull film"
    assert batch.tokens[0, length:].tolist() == [0] * (16 - length)
    assert tokenizer.strings(tokenizer(["<|endoftext|>"]).tokens[0, :1]) == ["<|endoftext|>"]


@pytest.mark.parametrize("family", ["roberta", "gpt2"])
def test_tokenizer_json_and_the_two_files_agree(family, request, tmp_path):
    folder = request.getfixturevalue(family)
    config = family_config(family, **SIZES)
    two = Tokenizer.from_dir(folder, config)
    backend = tokenizers.Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    if family == "roberta":
        backend.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
        backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    (folder / "one").mkdir()
    backend.save(str(folder / "one" / "tokenizer.json"))
    one = Tokenizer.from_dir(folder / "one", config)
    for ours, theirs in zip(one(TEXTS).tokens, two(TEXTS).tokens, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_mpnet_reads_its_vocabulary_with_its_own_special_tokens(tmp_path):
    words = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>", "a", "film", "##s"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    tokenizer = Tokenizer.from_dir(tmp_path, family_config("mpnet", **SIZES))
    assert tokenizer.strings(tokenizer(["A films <mask>"]).tokens[0, :6]) == [
        "<s>",
        "a",
        "film",
        "##s",
        "<mask>",
        "</s>",
    ]
    with pytest.raises(TextError, match=r"must have \[CLS\], \[SEP\], \[UNK\]; it lacks \[CLS\], \[SEP\]"):
        Tokenizer.from_dir(tmp_path, EncoderConfig(**SIZES))


@pytest.mark.parametrize(
    ("name", "content"),
    [("vocab.json", b"{"), ("vocab.json", b"[]"), ("merges.txt", b"\xff"), ("merges.txt", b"no such pair of tokens\n")],
)
def test_damaged_files_are_refused(name, content, roberta):
    (roberta / name).write_bytes(content)
    with pytest.raises(TextError, match=r"vocab\.json|merges\.txt"):
        Tokenizer.from_dir(roberta, family_config("roberta", **SIZES))


def test_a_vocabulary_without_the_familys_tokens_is_refused(gpt2):
    with pytest.raises(TextError, match="lacks <s>, </s>"):
        Tokenizer.from_dir(gpt2, family_config("roberta", **SIZES))
    content = json.loads((gpt2 / "vocab.json").read_text())
    assert "<s>" not in content


@pytest.mark.parity
@pytest.mark.parametrize("family", ["roberta", "gpt2"])
def test_ids_are_those_of_transformers(family, request):
    transformers = pytest.importorskip("transformers", reason="needs the parity extra")
    folder = request.getfixturevalue(family)
    theirs = {"roberta": "RobertaTokenizerFast", "gpt2": "GPT2TokenizerFast"}[family]
    reference = getattr(transformers, theirs)(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))
    # Made from the two files, transformers 5.24 keeps the space before <mask>, which RoBERTa's own files take off.
    batch = Tokenizer.from_dir(folder, family_config(family, **SIZES))(TEXTS)
    for row, text in enumerate(TEXTS):
        ids = reference(text)["input_ids"]
        assert batch.tokens[row, : int(batch.mask[row].sum())].tolist() == ids
