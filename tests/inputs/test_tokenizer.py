"""Strings to one batch: every rule of padding, cutting and refusing, and agreement with the library underneath."""

import itertools

import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.text import LIMIT, TEXT, TINY, arrays, call_quietly, config

from jaxsmooth.bert.config import EncoderConfig
from jaxsmooth.errors import TextError
from jaxsmooth.inputs.batching import BUCKETS, CHUNK
from jaxsmooth.inputs.tokenizer import TINY_VOCAB, Tokenizer, TruncationWarning
from jaxsmooth.inputs.vocabulary import tiny_wordpiece


def reference(texts, pairs, limit):
    """The library's own truncation, on a tokenizer of its own."""
    backend = tiny_wordpiece()
    backend.enable_truncation(limit, strategy="longest_first")
    return backend.encode_batch(texts if pairs is None else list(zip(texts, pairs, strict=True)))


def test_batch_of_two_sentences():
    batch = TINY(["Hi, Bob!", ""])
    assert batch.tokens.shape == (2, 16)
    assert batch.tokens.dtype == batch.segments.dtype == jnp.int32
    assert batch.mask.dtype == jnp.bool_
    assert TINY.strings(batch.tokens[0])[:9] == ["[CLS]", "h", "##i", ",", "b", "##o", "##b", "!", "[SEP]"]
    assert TINY.strings(batch.tokens[1])[:3] == ["[CLS]", "[SEP]", "[PAD]"]
    assert batch.mask.sum(axis=1).tolist() == [9, 2]
    assert not batch.segments.any()


def test_pairs_are_segment_one():
    batch = TINY(["ab", "a"], ["c", ""])
    assert TINY.strings(batch.tokens[0])[:6] == ["[CLS]", "a", "##b", "[SEP]", "c", "[SEP]"]
    assert batch.segments[0, :7].tolist() == [0, 0, 0, 0, 1, 1, 0]
    assert TINY.strings(batch.tokens[1])[:5] == ["[CLS]", "a", "[SEP]", "[SEP]", "[PAD]"]
    assert batch.segments[1, :5].tolist() == [0, 0, 0, 1, 0]


@given(rows=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4), paired=st.booleans())
def test_any_text_agrees_with_the_library(rows, paired):
    texts = [text for text, _ in rows]
    pairs = [pair for _, pair in rows] if paired else None
    tokens, segments, mask = arrays(call_quietly(TINY, texts, pairs))
    width = tokens.shape[1]
    assert width in TINY.buckets
    for row, expected in enumerate(reference(texts, pairs, LIMIT)):
        size = len(expected.ids)
        assert tokens[row].tolist() == expected.ids + [0] * (width - size)
        assert segments[row].tolist() == expected.type_ids + [0] * (width - size)
        assert mask[row].tolist() == [True] * size + [False] * (width - size)


@given(texts=st.lists(TEXT, min_size=1, max_size=3), spare=st.integers(0, LIMIT))
def test_more_padding_changes_only_the_padding(texts, spare):
    short = arrays(call_quietly(TINY, texts))
    width = short[0].shape[1]
    wide = arrays(call_quietly(TINY, texts, length=min(LIMIT, width + spare)))
    for ours, expected in zip(wide, short, strict=True):
        assert (ours[:, :width] == expected).all()
        assert not ours[:, width:].any()


@pytest.mark.parametrize(("letters", "bucket"), [(14, 16), (15, 32), (30, 32), (31, 48), (62, 64)])
def test_smallest_bucket_that_holds_all(letters, bucket):
    assert TINY(["a", "b" * letters]).tokens.shape == (2, bucket)


@pytest.mark.parametrize(
    ("max_length", "buckets"),
    [
        (512, (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)),
        (40, (16, 32, 40)),
        (8, (8,)),
        (8192, (*BUCKETS[:16], 6144, 8192)),
    ],
)
def test_buckets_are_capped_at_the_model(max_length, buckets):
    assert Tokenizer.tiny(config(max_length=max_length)).buckets == buckets


def test_cutting_is_said_once_with_count_and_limit():
    with pytest.warns(TruncationWarning, match="2 of 3 texts were cut to 64 tokens") as caught:
        batch = TINY(["a" * 63, "b", "c" * 99])
    assert len(caught) == 1
    assert TINY.strings(batch.tokens[0])[-2:] == ["##a", "[SEP]"]
    assert batch.mask.sum(axis=1).tolist() == [64, 3, 64]


def test_nothing_is_said_when_nothing_is_cut():
    TINY(["a" * 62])  # a warning would be an error


def test_length_cuts_and_pads():
    assert TINY(["ab"], length=20).tokens.shape == (1, 20)
    with pytest.warns(TruncationWarning, match="1 of 1 texts were cut to 3 tokens"):
        batch = TINY(["abcd"], length=3)
    assert TINY.strings(batch.tokens[0]) == ["[CLS]", "a", "[SEP]"]


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [(9, 2, (5, 2)), (2, 9, (2, 5)), (9, 9, (3, 4)), (3, 9, (3, 4)), (4, 4, (3, 4)), (9, 0, (7, 0))],
)
def test_the_longer_of_a_pair_is_cut_first(first, second, kept):
    with pytest.warns(TruncationWarning):
        batch = TINY([" ".join("a" * first)], [" ".join("b" * second)], length=10)
    tokens = TINY.strings(batch.tokens[0])
    assert (tokens.count("a"), tokens.count("b"), tokens.count("[SEP]"), tokens[-1]) == (*kept, 2, "[SEP]")


@pytest.mark.parametrize("length", [0, -1, 1, 65, True])
def test_length_out_of_range(length):
    with pytest.raises(TextError, match=r"from 2 .* to 64"):
        TINY(["a"], length=length)


def test_pairs_need_room_for_three_special_tokens():
    with pytest.raises(TextError, match="from 3"):
        TINY(["a"], ["b"], length=2)


def test_model_without_room_for_special_tokens():
    with pytest.raises(TextError, match="to 1 "):
        Tokenizer.tiny(config(max_length=1))([""])


def test_plain_string_is_refused():
    with pytest.raises(TextError, match=r"list of strings.*Pass a list"):
        TINY("a sentence")
    with pytest.raises(TextError, match=r"pairs must be a list"):
        TINY(["a"], "b")
    with pytest.raises(TextError, match=r"list of strings"):
        TINY.batches("a sentence")


def test_no_text_is_refused():
    with pytest.raises(TextError, match="texts is empty"):
        TINY([])
    with pytest.raises(TextError, match="texts is empty"):
        list(TINY.batches([]))


def test_pairs_of_another_count():
    with pytest.raises(TextError, match="2 texts, 1 pairs"):
        TINY(["a", "b"], ["c"])


def test_items_that_are_not_strings_are_named_by_index():
    # Iterators, so that a type checker on the call cannot answer first.
    with pytest.raises(TextError, match=r"texts\[1\] must be a string; got int"):
        TINY(iter(["a", 3]))
    with pytest.raises(TextError, match=rf"texts\[{CHUNK + 1}\] must be a string; got NoneType"):
        list(TINY.batches(itertools.chain(["a"] * (CHUNK + 1), [None])))


def test_half_a_surrogate_pair_is_named_by_index():
    with pytest.raises(TextError, match=r"texts\[1\] holds half a surrogate pair at character 2"):
        TINY(["a", "ab\ud800"])


@pytest.mark.parametrize("ids", [[TINY_VOCAB], [-1], [2**40]])
def test_unknown_ids_have_no_string(ids):
    with pytest.raises(TextError, match="no token with id"):
        TINY.strings(ids)


def test_rows_are_those_of_a_batch_without_padding():
    tokenizer = Tokenizer.tiny(EncoderConfig(vocab=TINY_VOCAB, max_length=32))
    texts, pairs = ["ab c", "", "x" * 60], ["d", "e" * 60, "f" * 60]
    for seconds in (None, pairs):
        rows = tokenizer.rows(texts, seconds, length=24)
        with pytest.warns(TruncationWarning):
            batch = tokenizer(texts, seconds, length=24)
        for place, row in enumerate(rows):
            assert batch.tokens[place][batch.mask[place]].tolist() == row.ids
            assert batch.segments[place][batch.mask[place]].tolist() == row.segments
        assert [row.truncated for row in rows] == ([False, False, True] if seconds is None else [False, True, True])
    assert tokenizer.counts(texts) == [3, 0, 60]
    with pytest.raises(TextError, match="one length; got 3 texts, 1 pairs"):
        tokenizer.rows(texts, ["d"], length=24)
