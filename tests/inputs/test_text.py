"""Strings to batches: every rule of padding, cutting and refusing, and agreement with the library underneath."""

import itertools
import json
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from jaxsmooth.assets import REGISTRY, asset_path, read_texts
from jaxsmooth.assets.cache import inspect
from jaxsmooth.bert.config import EncoderConfig
from jaxsmooth.checkpoints.config_json import config_from_file
from jaxsmooth.errors import TextError
from jaxsmooth.inputs.batching import BUCKETS, CHUNK
from jaxsmooth.inputs.tokenizer import TINY_VOCAB, Tokenizer, TruncationWarning
from jaxsmooth.inputs.vocabulary import Pieces, refusals, tiny_wordpiece

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "##c", "é", "e", "A", "中"]
VOCAB = {word: place for place, word in enumerate(WORDS)}


def config(vocab: int = TINY_VOCAB, max_length: int = 64) -> EncoderConfig:
    return EncoderConfig(vocab=vocab, width=8, layers=1, heads=1, mlp_width=8, max_length=max_length)


TINY = Tokenizer.tiny(config())
LIMIT = TINY.config.max_length
# Any Unicode text, lone surrogates left out, and often long enough to be cut.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.text("ab ,é", max_size=150)


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return tmp_path


def json_tokenizer(vocabulary: dict[str, int], **changes) -> str:
    backend = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    return json.dumps(json.loads(backend.to_str()) | changes)


def reference(texts, pairs, limit):
    """The library's own truncation, on a tokenizer of its own."""
    backend = tiny_wordpiece()
    backend.enable_truncation(limit, strategy="longest_first")
    return backend.encode_batch(texts if pairs is None else list(zip(texts, pairs, strict=True)))


def call_quietly(tokenizer, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)
        return tokenizer(*args, **kwargs)


def arrays(batch):
    return np.asarray(batch.tokens), np.asarray(batch.segments), np.asarray(batch.mask)


# One batch


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
    [(512, BUCKETS), (40, (16, 32, 40)), (8, (8,)), (1024, (*BUCKETS, 1024))],
)
def test_buckets_are_capped_at_the_model(max_length, buckets):
    assert Tokenizer.tiny(config(max_length=max_length)).buckets == buckets


# Cutting


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
    [(9, 2, (5, 2)), (2, 9, (2, 5)), (9, 9, (4, 3)), (3, 9, (3, 4)), (4, 4, (4, 3)), (9, 0, (7, 0))],
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


# Refusals


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


# Streams


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


# Vocabularies from files


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


def test_tokenizer_json_comes_first_and_its_cutting_and_padding_are_dropped(directory):
    truncation = {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    padding = {"strategy": {"Fixed": 9}, "direction": "Left", "pad_to_multiple_of": None}
    padding |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
    # Without a post-processor of its own it gets BERT's.
    text = json_tokenizer(VOCAB | {"z": 12}, truncation=truncation, padding=padding)
    (directory / "tokenizer.json").write_text(text, encoding="utf-8")
    tokenizer = Tokenizer.from_dir(directory, config(vocab=13))
    batch = tokenizer(["z a b a b a"])
    assert batch.tokens[0].tolist() == [2, 12, 5, 6, 5, 6, 5, 3] + [0] * 8
    assert batch.mask.sum() == 8


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt"])
@pytest.mark.parametrize("missing", ["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
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
    content = "\n".join(WORDS) if name == "vocab.txt" else json_tokenizer(VOCAB)
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert Tokenizer.from_dir(tmp_path, config(vocab=len(WORDS))) is not None
    with pytest.raises(TextError, match=rf"vocabulary of {len(WORDS) - 1}; the largest is {len(WORDS) - 1}"):
        Tokenizer.from_dir(tmp_path, config(vocab=len(WORDS) - 1))
    with pytest.raises(TextError, match="built-in tiny"):
        Tokenizer.tiny(config(vocab=TINY_VOCAB - 1))


def template(special_id: int, segment: int) -> dict:
    cls = {"SpecialToken": {"id": "[CLS]", "type_id": 0}}
    single = [cls, {"Sequence": {"id": "A", "type_id": 0}}]
    ids = {"[CLS]": {"id": "[CLS]", "ids": [special_id], "tokens": ["[CLS]"]}}
    pair = [*single, {"Sequence": {"id": "B", "type_id": segment}}]
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": ids}


@pytest.mark.parametrize(("special_id", "segment", "fault"), [(2**32 - 1, 1, "the largest is"), (2, 7, "segments")])
def test_post_processor_with_ids_of_its_own(tmp_path, special_id, segment, fault):
    text = json_tokenizer(VOCAB, post_processor=template(special_id, segment))
    (tmp_path / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(TextError, match=fault):
        Tokenizer.from_dir(tmp_path, config())


def test_post_processor_that_repeats_the_text_cannot_be_cut(tmp_path):
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


# Real files


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


def test_fingerprint_tells_vocabularies_apart():
    config = EncoderConfig(vocab=TINY_VOCAB, max_length=32)
    assert Tokenizer.tiny(config).fingerprint == Tokenizer.tiny(config).fingerprint
    pieces = Pieces(("<s>", "<pad>", "</s>", "<unk>", "a"), (0.0,) * 5, 0, 2, 1, 3, {})
    assert Tokenizer.from_pieces(pieces, config, "made up").fingerprint != Tokenizer.tiny(config).fingerprint
