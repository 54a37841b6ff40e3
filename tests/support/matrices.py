"""Random matrices with a prescribed property, in numpy, all of one shape so that nothing recompiles.

Row-stochastic families take `(rng, size)` and return [size size]; `attention_batch` stacks one of each, padded.
"""

from collections.abc import Callable

import numpy as np
import scipy.special
from numpy.typing import NDArray

Array = NDArray[np.float64]

TOKENS = 6  # real tokens of the full-length cases
PADDED = 8  # length every batch is padded to
WIDTH = 5
GARBAGE = 1e6  # what stands on padding: finite, and far too large to hide in a tolerance


def orthonormal(rng: np.random.Generator, rows: int, columns: int) -> Array:
    """Orthonormal columns, uniformly distributed up to signs."""
    return np.linalg.qr(rng.standard_normal((rows, columns)))[0]


def with_spectrum(rng: np.random.Generator, values: Array, rows: int, columns: int) -> Array:
    """A matrix with these singular values."""
    count = len(values)
    return orthonormal(rng, rows, count) * values @ orthonormal(rng, columns, count).T


def symmetric(rng: np.random.Generator, eigenvalues: Array) -> Array:
    """A symmetric matrix with these eigenvalues, symmetric to the last bit."""
    frame = orthonormal(rng, len(eigenvalues), len(eigenvalues))
    matrix = frame * eigenvalues @ frame.T
    return (matrix + matrix.T) / 2


def stochastic(rng: np.random.Generator, size: int) -> Array:
    """Softmax of Gaussian logits, from nearly uniform to nearly one-hot rows."""
    return scipy.special.softmax(10 ** rng.uniform(-2, 2) * rng.standard_normal((size, size)), axis=1)


def doubly_stochastic(rng: np.random.Generator, size: int) -> Array:
    """A convex combination of permutations (Birkhoff)."""
    weights = rng.dirichlet(np.ones(4))
    return sum(w * np.eye(size)[rng.permutation(size)] for w in weights)


def causal(rng: np.random.Generator, size: int) -> Array:
    """Softmax over the past: row i attends to tokens 0..i."""
    logits = np.where(np.tri(size, dtype=bool), 3 * rng.standard_normal((size, size)), -np.inf)
    return scipy.special.softmax(logits, axis=1)


def uniform_causal(size: int) -> Array:
    """The causal mask alone, equal logits (Cesaro means)."""
    return np.tri(size) / np.arange(1, size + 1)[:, None]


def closed_classes(rng: np.random.Generator, size: int) -> Array:
    """Two groups that attend only within themselves, and one transient token that attends everywhere."""
    group = np.arange(size) % 2
    allowed = group[:, None] == group[None]
    allowed[:, -1] = False
    allowed[-1] = True
    return scipy.special.softmax(np.where(allowed, rng.standard_normal((size, size)), -np.inf), axis=1)


def one_hot_rows(rng: np.random.Generator, size: int) -> Array:
    """Every token copies one token: the extreme points of the row-stochastic matrices."""
    return np.eye(size)[rng.integers(0, size, size)]


def two_camps(size: int) -> Array:
    """Half the tokens copy token 0, the others token 1: attains the largest lambda there is."""
    return np.eye(size)[np.where(np.arange(size) < size // 2, 0, 1)]


FAMILIES: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "stochastic": stochastic,
    "doubly stochastic": doubly_stochastic,
    "causal": causal,
    "uniform causal": lambda rng, size: uniform_causal(size),
    "closed classes": closed_classes,
    "one-hot rows": one_hot_rows,
    "two camps": lambda rng, size: two_camps(size),
}


def window(width: int, size: int) -> Array:
    """Equal weights on the last `width` tokens."""
    band = np.tril(np.ones((size, size))) - np.tril(np.ones((size, size)), -width)
    return band / band.sum(axis=1, keepdims=True)


def structured(rng: np.random.Generator, cases: int) -> Array:
    """As many of each family, all of TOKENS tokens."""
    makers = list(FAMILIES.values())
    return np.stack([makers[k % len(makers)](rng, TOKENS) for k in range(cases)])


def pad_attention(rng: np.random.Generator, attn: Array, size: int = PADDED) -> Array:
    """Padded keys get exactly 0; padded query rows hold some distribution over real keys, as the encoder's do."""
    real = len(attn)
    out = np.zeros((size, size))
    out[:real, :real] = attn
    out[real:, :real] = rng.dirichlet(np.ones(real), size - real)
    return out


def padded_on_both_sides(attn: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Matrices of TOKENS tokens with one token of padding in front and one behind: ([K PADDED PADDED], mask)."""
    wide = np.zeros((len(attn), PADDED, PADDED))
    wide[:, 1 : TOKENS + 1, 1 : TOKENS + 1] = attn
    wide[:, 0] = wide[:, -1] = GARBAGE
    mask = np.zeros((len(attn), PADDED), bool)
    mask[:, 1 : TOKENS + 1] = True
    return wide, mask


def pad_tokens(rng: np.random.Generator, hidden: Array, size: int = PADDED) -> Array:
    """Huge values on padding."""
    return np.concatenate([hidden, GARBAGE * rng.standard_normal((size - len(hidden), hidden.shape[1]))])


def attention_batch(rng: np.random.Generator) -> tuple[Array, NDArray[np.bool_]]:
    """One of each family at a random length, and each at full length: ([K PADDED PADDED], mask [K PADDED])."""
    lengths = [*rng.integers(2, PADDED + 1, len(FAMILIES)), *[TOKENS] * len(FAMILIES)]
    matrices = [make(rng, n) for make, n in zip([*FAMILIES.values()] * 2, lengths, strict=True)]
    return np.stack([pad_attention(rng, a) for a in matrices]), lengths_mask(lengths)


def token_batch(rng: np.random.Generator, cases: int) -> tuple[Array, NDArray[np.bool_]]:
    """Hidden states of random lengths, scales and common offsets: ([cases PADDED WIDTH], mask)."""
    lengths = rng.integers(2, PADDED + 1, cases)
    tokens = [
        10 ** rng.uniform(-3, 3)
        * (rng.standard_normal((n, WIDTH)) + rng.choice([0, 1, 100]) * rng.standard_normal(WIDTH))
        for n in lengths
    ]
    return np.stack([pad_tokens(rng, x) for x in tokens]), lengths_mask(lengths)


def lengths_mask(lengths: object, size: int = PADDED) -> NDArray[np.bool_]:
    return np.arange(size) < np.asarray(lengths)[:, None]


def normalised(x: Array, eps: float, centred: bool = True) -> tuple[Array, Array]:
    """LayerNorm without gain and bias, or RMSNorm, and the standard deviations, [... 1]."""
    u = x - x.mean(axis=-1, keepdims=True) if centred else x
    std = np.sqrt((u * u).mean(axis=-1, keepdims=True) + eps)
    return u / std, std


def centring(size: int) -> Array:
    """J = I - 11^T / n."""
    return np.eye(size) - 1 / size
