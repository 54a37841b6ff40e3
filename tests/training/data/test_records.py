"""Examples to rows and labels: masking, choices, missing labels, what is cut."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tasks import CONFIG, TOKENIZER, make_data, make_examples, make_task
from tokenizers import Tokenizer as Backend
from tokenizers.models import WordPiece
from tokenizers.processors import BertProcessing

from jaxsmooth.errors import DataError, TextError
from jaxsmooth.inputs.tokenizer import Tokenizer
from jaxsmooth.inputs.vocabulary import tiny_wordpiece
from jaxsmooth.training.data.records import make_records
from jaxsmooth.training.data.task_data import TaskData
from jaxsmooth.training.data.tasks import Choice, Sentence


def ids_of(text: str, pair: str | None = None) -> list[int]:
    return TOKENIZER.rows([text], None if pair is None else [pair], length=48)[0].ids


@given(seed=st.integers(0, 10**9), epoch=st.integers(0, 100))
def test_masking_hides_and_asks_for_the_same_places(seed, epoch):
    data = make_data("masked_lm", count=6)
    originals = TOKENIZER.rows([example.text for example in data.examples], length=48)
    for record, original in zip(data.records.make(range(6), seed, epoch), originals, strict=True):
        (row,) = record.rows
        asked = [place for place, label in enumerate(record.label) if label != -1]
        ordinary = [place for place, number in enumerate(original.ids) if number not in TOKENIZER.special_ids]
        assert len(asked) == max(1, round(0.15 * len(ordinary)))
        assert set(asked) <= set(ordinary)
        for place, (now, before) in enumerate(zip(row.ids, original.ids, strict=True)):
            assert record.label[place] in (-1, before)
            assert now == before or place in asked


def test_masking_shares():
    """80% masked, 10% random, 10% kept; bounds are five standard errors of the binomial law."""
    task, text = make_task("masked_lm"), " ".join("abcdefgh"[k % 8] for k in range(40))
    data = TaskData(task, "train", [Sentence(text)] * 400, TOKENIZER, 48)
    masked = kept = total = 0
    places = np.zeros(42)
    for record in data.records.make(range(400), 1, 0):
        for place, label in enumerate(record.label):
            if label != -1:
                now = record.rows[0].ids[place]
                total, masked, kept = total + 1, masked + (now == TOKENIZER.mask_id), kept + (now == label)
                places[place] += 1
    assert total == 400 * 6
    # A random token may be the mask or the old one by chance, hence the vocabulary's share.
    chance = 0.1 / CONFIG.vocab
    for count, share in ((masked, 0.8 + chance), (kept, 0.1 + chance)):
        assert abs(count / total - share) < 5 * math.sqrt(share * (1 - share) / total)
    expected = total / 40
    assert np.abs(places[1:41] - expected).max() < 5 * math.sqrt(expected)


def test_a_text_without_words_is_not_masked():
    data = TaskData(make_task("masked_lm"), "train", [Sentence("")], TOKENIZER, 48)
    (record,) = data.records.make([0], 0, 0)
    assert record.label == [-1, -1]
    assert record.rows[0].ids == ids_of("")


def test_each_token_in_turn():
    data = TaskData(make_task("masked_lm"), "train", [Sentence("ab"), Sentence("c!")], TOKENIZER, 48, each_token=True)
    assert data.records.owners.tolist() == [0, 0, 1, 1]
    for number, record in enumerate(data.records.make(range(4), 0, 0)):
        original = ids_of("ab" if number < 2 else "c!")
        place = 1 + number % 2
        assert record.label == [original[k] if k == place else -1 for k in range(4)]
        assert record.rows[0].ids == [TOKENIZER.mask_id if k == place else original[k] for k in range(4)]


def test_choices_are_pairs_with_the_prompt():
    example = Choice("ab", ("c", "d e", "f"), 2)
    data = TaskData(make_task("choice", choices=3), "train", [example], TOKENIZER, 48)
    (record,) = data.records.make([0], 0, 0)
    assert [row.ids for row in record.rows] == [ids_of("ab", text) for text in example.choices]
    assert [max(row.segments) for row in record.rows] == [1, 1, 1]
    assert record.label == 2


def test_pairs_have_segments():
    data = TaskData(make_task(), "train", [Sentence("ab", pair="c", label=1)], TOKENIZER, 48)
    (record,) = data.records.make([0], 0, 0)
    assert record.rows[0].ids == ids_of("ab", "c")
    assert record.rows[0].segments == [0, 0, 0, 0, 1, 1]


def test_missing_labels():
    for kind, expected in (("classification", -1), ("regression", math.nan)):
        data = TaskData(make_task(kind), "test", [Sentence("a")], TOKENIZER, 48)
        (record,) = data.records.make([0], 0, 0)
        assert record.label == pytest.approx(expected, nan_ok=True)


def test_long_texts_are_cut_and_counted():
    data = TaskData(make_task(), "train", [Sentence("a " * 100, label=0), Sentence("b", label=1)], TOKENIZER, 20)
    assert [record.length for record in data.records.make([0, 1], 0, 0)] == [20, 3]
    assert data.truncated() == 1


@given(st.permutations(range(8)))
def test_a_record_does_not_depend_on_its_company(order):
    for kind in ("classification", "masked_lm"):
        records = make_data(kind, count=8).records
        alone = [records.make([index], 5, 2)[0] for index in order]
        assert records.make(order, 5, 2) == alone


def test_refusals():
    with pytest.raises(DataError, match="has no examples"):
        make_records(make_task(), [], TOKENIZER, 48)
    with pytest.raises(DataError, match="each_token is for masked LM only"):
        make_records(make_task(), make_examples("classification", 2), TOKENIZER, 48, each_token=True)
    with pytest.raises(TextError, match="length must be a whole number"):
        make_records(make_task(), make_examples("classification", 2), TOKENIZER, 1000).make([0], 0, 0)


def test_a_vocabulary_without_a_mask_is_refused():
    names = {name: k for k, name in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"])}
    backend = Backend(WordPiece(names, unk_token="[UNK]"))
    backend.post_processor = BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer = Tokenizer(backend, dataclasses.replace(CONFIG, vocab=5), "made up")
    with pytest.raises(TextError, match="made up has no mask token"):
        make_records(make_task("masked_lm"), [Sentence("a")], tokenizer, 16)


def test_a_tokenizer_that_rewrites_cannot_point():
    tokenizer = Tokenizer(tiny_wordpiece(), CONFIG, "made up", normalize=lambda text: "query: " + text)
    with pytest.raises(TextError, match="cannot point at answers"):
        tokenizer.windows(["a"], ["b"], [(0, 1)], most=4)
