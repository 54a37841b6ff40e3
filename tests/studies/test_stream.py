"""One pass over texts: what is counted, said and refused."""

import warnings

import pytest

import jaxsmooth
from jaxsmooth.errors import TextError
from jaxsmooth.inputs.tokenizer import TruncationWarning
from jaxsmooth.studies.stream import Reading

MODEL, TOKENIZER = jaxsmooth.load("tiny")
TEXTS = ["so be it", "a " * 200, "no", "b " * 300]


def whole_pass(texts, *, stop=False):
    with Reading(MODEL, TOKENIZER, texts, "reading", tokens_per_batch=256) as reading:
        for encoded in reading:
            assert len(encoded.indices)
            if stop:
                raise KeyboardInterrupt
    return reading


def test_sentences_and_real_tokens_are_counted_and_cuts_are_said_to_the_caller_of_the_pass():
    with pytest.warns(TruncationWarning, match="2 of 4 texts were cut to 128 tokens") as caught:
        found = whole_pass(TEXTS).summary("letters")
    assert caught[0].filename == __file__
    lengths = [int(TOKENIZER([text]).mask.sum()) for text in TEXTS[::2]]
    assert (found.name, found.sentences, found.truncated) == ("letters", 4, 2)
    assert found.tokens == sum(lengths) + 2 * MODEL.config.max_length


def test_a_pass_that_fails_says_nothing_else():
    with warnings.catch_warnings(record=True) as caught, pytest.raises(KeyboardInterrupt):
        whole_pass(TEXTS[::-1], stop=True)
    assert not caught


@pytest.mark.parametrize("texts", ["one string", 5, None])
def test_what_is_no_series_is_refused_before_anything_is_read(texts):
    with pytest.raises(TextError, match="texts must be a series of strings; got"):
        Reading(MODEL, TOKENIZER, texts, "reading", tokens_per_batch=64)
