"""Streams of sentences: every text once, in few shapes, read no further than needed."""

import itertools

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from support.text import LIMIT, TEXT, TINY, arrays, call_quietly, config

import jaxsmooth
from jaxsmooth.assets import read_texts
from jaxsmooth.errors import TextError
from jaxsmooth.inputs.batching import CHUNK, PROGRAM, Row, chosen_buckets, row_count, smallest_bucket, split_limit
from jaxsmooth.inputs.tokenizer import TINY_VOCAB, Tokenizer
from jaxsmooth.inputs.tokenizer_settings import TokenizerSettings
from jaxsmooth.inputs.vocabulary import tiny_wordpiece


@given(texts=st.lists(TEXT, min_size=1, max_size=60), tokens_per_batch=st.sampled_from([1, 16, 64, 200]))
def test_stream_covers_every_text_once_and_says_the_same(texts, tokens_per_batch):
    items = list(TINY.batches(iter(texts), tokens_per_batch=tokens_per_batch))
    places = np.concatenate([item.indices for item in items])
    assert sorted(places.tolist()) == list(range(len(texts)))
    assert places.dtype == np.int64
    for item in items:
        rows, width = item.batch.tokens.shape
        assert width in TINY.buckets
        assert rows <= max(1, tokens_per_batch // width) < rows + 8
        assert rows < 8 or rows % 8 == 0
        assert 1 <= len(item.indices) <= rows
        alone = call_quietly(TINY, [texts[index] for index in item.indices], length=width)
        real = len(item.indices)
        for ours, expected in zip(arrays(item.batch), arrays(alone), strict=True):
            assert (ours[:real] == expected).all()
            assert (ours[real:] == expected[-1]).all()
    cut = sum(len(tiny_wordpiece().encode(text).ids) > LIMIT for text in texts)
    assert sum(item.truncated for item in items) == cut


def test_stream_is_deterministic():
    texts = [text * (1 + place % 3) for place, text in enumerate(read_texts("tiny") * 20)]
    runs = [[item.indices.tolist() for item in TINY.batches(texts)] for _ in range(2)]
    assert runs[0] == runs[1]


def test_stream_compiles_few_shapes():
    texts = ["a" * (place % 90) for place in range(700)]
    assert len({item.batch.tokens.shape for item in TINY.batches(texts)}) == len(TINY.buckets) == 4


def test_few_texts_share_a_shape():
    tokenizer = Tokenizer.tiny(jaxsmooth.EncoderConfig(vocab=TINY_VOCAB, max_length=128))
    items = tokenizer.batches(["a" * length for length in (4, 30, 60, 14, 90)], tokens_per_batch=512)
    assert {item.batch.tokens.shape: item.indices.tolist() for item in items} == {(5, 96): [0, 1, 2, 3, 4]}


@given(
    rows=st.lists(st.integers(0, 300), min_size=1, max_size=7),
    used=st.sets(st.integers(0, 6)),
    tokens_per_batch=st.sampled_from([16, 512, 4096]),
)
def test_no_other_choice_of_lengths_costs_less(rows, used, tokens_per_batch):
    lengths = (16, 32, 48, 64, 96, 128, 192)[: len(rows)]
    needed = dict(zip(lengths, rows, strict=True))
    known = {lengths[place] for place in used if place < len(lengths)}

    def cost(chosen):
        homes = {length: min((each for each in chosen if each >= length), default=None) for length in lengths}
        if any(needed[length] and homes[length] is None for length in lengths):
            return np.inf
        taken = {each: sum(needed[length] for length in lengths if homes[length] == each) for each in chosen}
        return sum(
            -(-count // row_count(each, tokens_per_batch)) + PROGRAM * (each not in known)
            for each, count in taken.items()
            if count
        )

    found = chosen_buckets(needed, known, tokens_per_batch)
    assert sorted(length for _, taken in found for length in taken) == [length for length in lengths if needed[length]]
    assert all(length <= home for home, taken in found for length in taken)
    subsets = itertools.chain.from_iterable(itertools.combinations(lengths, n) for n in range(len(lengths) + 1))
    assert cost([home for home, _ in found]) == min(map(cost, subsets))


def test_a_length_in_use_keeps_its_rows():
    """A stream longer than a chunk fills batches of 16 rows of 32: the last rows stay there, one of 16 goes there."""
    items = list(TINY.batches(["a" * 28] * (CHUNK + 2) + ["a"], tokens_per_batch=512))
    assert {item.batch.tokens.shape for item in items} == {(16, 32)}
    assert items[-1].indices.tolist() == [CHUNK, CHUNK + 1, CHUNK + 2]


def test_stream_reads_no_further_than_it_must():
    read = 0

    def endless():
        nonlocal read
        for read in itertools.count(1):
            yield "a" * (read % 60)

    stream = TINY.batches(endless(), tokens_per_batch=256)
    assert read == 0
    emitted = sum(len(next(stream).indices) for _ in range(200))
    # What is held back: one chunk, and less than one batch per bucket.
    assert read - emitted <= CHUNK + sum(256 // bucket for bucket in TINY.buckets)


@pytest.mark.parametrize("tokens_per_batch", [0, -1, True])
def test_bad_batch_size_is_refused_at_once(tokens_per_batch):
    with pytest.raises(TextError, match="tokens_per_batch"):
        TINY.batches(["a"], tokens_per_batch=tokens_per_batch)


@pytest.mark.compatibility(
    "rule",
    "a pair that is cut, at any lengths and limit, on either side",
    "each text keeps what the tokenizers library leaves of it: 300 and 400 to 512 become 254 and 255",
    was=1,
)
@given(
    lengths=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    limit=st.integers(3, 50),
    side=st.sampled_from(["right", "left"]),
)
def test_pairs_are_cut_as_the_library_cuts_them(lengths, limit, side):
    words = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2} | {f"w{number}": 3 + number for number in range(80)}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    backend.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    first, second = (" ".join(f"w{40 * k + number}" for number in range(n)) for k, n in enumerate(lengths))
    settings = TokenizerSettings({}, cut_left=side == "left")
    ours = Tokenizer(backend, config(vocab=90), "words", settings=settings).rows([first], [second], length=limit)[0]
    alone = Tokenizer(backend, config(vocab=90), "words", settings=settings).rows([first], length=limit)[0]
    backend.enable_truncation(limit, strategy="longest_first", direction=side)
    assert (ours.ids, ours.segments) == ((cut := backend.encode(first, second)).ids, cut.type_ids)
    assert ours.truncated == (sum(lengths) + 3 > limit)
    assert alone.ids == backend.encode(first).ids


@pytest.mark.parametrize(("lengths", "kept"), [((300, 400), [254, 255]), ((400, 300), [255, 254]), ((7, 7), [7, 7])])
def test_the_odd_token_of_a_pair_goes_to_the_longer_text(lengths, kept):
    assert split_limit(list(lengths), 509) == kept


@pytest.mark.compatibility(
    "size", "a text of 520 tokens in a model of 8,192 positions", "padded to 768, not to 8192", was=2
)
@pytest.mark.parametrize("longest", [16, 40, 128, 197, 510, 512, 514, 1024, 4096, 8192, 8194, 32768, 131072])
def test_padding_less_than_doubles_any_length_in_few_shapes(longest):
    tokenizer = Tokenizer.tiny(jaxsmooth.EncoderConfig(vocab=TINY_VOCAB, max_length=longest))
    buckets = tokenizer.buckets
    lengths = np.arange(1, min(longest, 8192) + 1)
    padded = np.array([smallest_bucket([Row([0] * length, [0] * length, False)], buckets) for length in lengths])
    assert (padded >= lengths).all()
    above = lengths > buckets[0]
    assert (padded[above] < 2 * lengths[above]).all()
    assert (padded[lengths > 32] < 1.5 * lengths[lengths > 32]).all()
    assert (padded[lengths <= buckets[0]] <= 16).all()
    assert len(buckets) <= 2 * max(1, np.log2(longest / 8))
    for tokens_per_batch in (1, 100, 512, 4096, 16384):
        rows = np.array([row_count(bucket, tokens_per_batch) for bucket in buckets])
        full = np.minimum(np.array(buckets), 2**31) * rows
        assert (full[rows > 1] <= tokens_per_batch).all()
        assert (rows[np.array(buckets) > tokens_per_batch] == 1).all()
