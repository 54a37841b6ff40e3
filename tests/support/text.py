"""A tiny tokenizer, any text for it, and its batches as numpy arrays."""

import warnings

import numpy as np
from hypothesis import strategies as st

from jaxsmooth.bert.config import EncoderConfig
from jaxsmooth.inputs.tokenizer import TINY_VOCAB, Tokenizer, TruncationWarning


def config(vocab: int = TINY_VOCAB, max_length: int = 64) -> EncoderConfig:
    return EncoderConfig(vocab=vocab, width=8, layers=1, heads=1, mlp_width=8, max_length=max_length)


TINY = Tokenizer.tiny(config())
LIMIT = TINY.config.max_length
# Any Unicode text, lone surrogates left out, and often long enough to be cut.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.text("ab ,é", max_size=150)


def call_quietly(tokenizer, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)
        return tokenizer(*args, **kwargs)


def arrays(batch):
    return np.asarray(batch.tokens), np.asarray(batch.segments), np.asarray(batch.mask)
