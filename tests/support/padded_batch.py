"""A small batch of hidden states and attention of three lengths, with garbage on padding."""

import numpy as np

from support.matrices import GARBAGE, stochastic

LENGTHS, LONGEST, WIDTH, HEADS = (7, 4, 2), 8, 5, 3
MASK = np.arange(LONGEST)[None] < np.asarray(LENGTHS)[:, None]
_RANDOM = np.random.default_rng(0)
X = np.where(MASK[..., None], _RANDOM.standard_normal((3, LONGEST, WIDTH)) + 0.5, GARBAGE)
FIRST, VALUE = _RANDOM.standard_normal((2, 3, LONGEST, WIDTH))
PER_CHANNEL, PER_HEAD = _RANDOM.uniform(0.1, 0.9, WIDTH), _RANDOM.uniform(-0.5, 0.9, HEADS)


def attention(seed: int = 1) -> np.ndarray:
    """[B N T S] of every sharpness; nothing on padded keys, something on padded queries."""
    random = np.random.default_rng(seed)
    attn = np.zeros((3, HEADS, LONGEST, LONGEST))
    attn[..., 0] = 1
    for b, n in enumerate(LENGTHS):
        for h in range(HEADS):
            attn[b, h, :n, :n] = stochastic(random, n)
    return attn


A = attention()
