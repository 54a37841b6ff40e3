"""SentencePiece's own files, against the sentencepiece package that writes them; and what is no such file."""

import contextlib

import pytest
from support.layouts import CHARSMAP, SCORED, albert_file, model_config, xlmr_file

from jaxsmooth.errors import TextError
from jaxsmooth.inputs.sentencepiece import read_sentencepiece
from jaxsmooth.inputs.tokenizer import Tokenizer

FILM = ["a film is a film", "hello world of films", "naïve film of the world", "two spaces in a film"] * 20


def test_pieces_scores_kinds_and_replacements(tmp_path):
    albert_file(tmp_path)
    found = read_sentencepiece(tmp_path / "spiece.model")
    assert found.pieces[5:] == [(piece, pytest.approx(score)) for piece, score in SCORED]
    assert found.added == [("<pad>", True), ("[CLS]", False), ("[SEP]", False), ("[MASK]", False)]
    assert found.charsmap == CHARSMAP


@pytest.mark.compatibility(
    "tokenizer", "a SentencePiece file that is cut short, empty, or something else", "refused by its name", was=4
)
@pytest.mark.parametrize("content", [b"", b"\x0a\xff", b"not protobuf", b"\x0a\x04\x0a\x02\xff\xfe"])
def test_what_is_no_model_is_refused(content, tmp_path):
    (tmp_path / "sentencepiece.bpe.model").write_bytes(content)
    with pytest.raises(
        TextError, match=r"sentencepiece\.bpe\.model is not a SentencePiece model: .* Is the file whole"
    ):
        Tokenizer.from_dir(tmp_path, model_config("xlm-roberta"))


def test_a_file_cut_anywhere_is_read_or_refused(tmp_path):
    xlmr_file(tmp_path)
    path = tmp_path / "sentencepiece.bpe.model"
    whole = path.read_bytes()
    for size in range(0, len(whole), 37):
        path.write_bytes(whole[:size])
        with contextlib.suppress(TextError):
            assert Tokenizer.from_dir(tmp_path, model_config("xlm-roberta")).rows(["a"], length=9)


@pytest.mark.parity
@pytest.mark.parametrize(("family", "name"), [("xlm-roberta", "sentencepiece.bpe.model"), ("albert", "spiece.model")])
def test_a_trained_model_gives_the_ids_of_transformers(family, name, tmp_path):
    """With SentencePiece's own normalisation, nmt_nfkc."""
    sentencepiece = pytest.importorskip("sentencepiece", reason="needs the parity extra")
    transformers = pytest.importorskip("transformers", reason="needs the parity extra")
    (tmp_path / "corpus.txt").write_text("\n".join(FILM), encoding="utf-8")
    special = {
        "user_defined_symbols": ["[CLS]", "[SEP]", "[MASK]"],
        "pad_id": 0,
        "unk_id": 1,
        "bos_id": -1,
        "eos_id": -1,
    }
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "corpus.txt"),
        model_prefix=str(tmp_path / "trained"),
        vocab_size=45,
        hard_vocab_limit=False,
        minloglevel=5,
        **(special if family == "albert" else {}),
    )
    (tmp_path / "trained.model").rename(tmp_path / name)
    (tmp_path / "config.json").write_text(f'{{"model_type": "{family}"}}')
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = [*FILM[:4], "Ｈello ﬁlms ①", "", " two  spaces\n", "naïve <mask> [MASK] </s>", "東京 film"]
    rows = Tokenizer.from_dir(tmp_path, model_config(family)).rows(texts, length=64)
    assert [row.ids for row in rows] == theirs(texts)["input_ids"]
