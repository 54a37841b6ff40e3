"""Queries and keys of a head, which tokens may see each other, and the attention matrix by its definition."""

import numpy as np
import scipy.special

SIZE, HEAD, WIDTH = 23, 5, 3
# What a query may see: how far back, how far ahead.
REACHES = {"full": (None, None), "causal": (None, 0), "window": (3, 0), "band": (2, 4), "self": (0, 0)}
LENGTHS = {"whole": np.ones(SIZE, bool), "padded": np.arange(SIZE) < 15, "holes": np.arange(SIZE) % 3 != 0}


def head(seed: int = 0, scale: float = 3.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Queries, keys and hidden states of SIZE tokens."""
    rng = np.random.default_rng(seed)
    query, key = scale * rng.standard_normal((2, SIZE, HEAD))
    return query, key, rng.standard_normal((SIZE, WIDTH))


def attention_matrix(query, key, mask, behind, ahead) -> np.ndarray:
    """The attention matrix by the book, zero in the rows and columns of padding."""
    out = np.zeros((len(mask), len(mask)))
    for i in np.flatnonzero(mask):
        keys = [
            j for j in np.flatnonzero(mask) if (behind is None or j >= i - behind) and (ahead is None or j <= i + ahead)
        ]
        out[i, keys] = scipy.special.softmax(query[i] @ key[keys].T / np.sqrt(query.shape[1]))
    return out
