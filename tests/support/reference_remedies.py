"""Independent float64 remedies in numpy: one unpadded sentence (or one head) at a time, from the definitions.

It imports nothing of jaxsmooth and must stay so.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def softmax_rows(x: Array) -> Array:
    weights = np.exp(x - x.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def uniform(n: int) -> Array:
    return np.full((n, n), 1 / n)


def attn_scale(a: Array, w: float) -> Array:
    low = uniform(len(a))
    return low + (1 + w) * (a - low)


def centred(a: Array, c: float = 1.0) -> Array:
    return a - c * uniform(len(a))


def gfsa(a: Array, wk: float, w0: float = 0.0, w1: float = 1.0, order: int = 3) -> Array:
    return w0 * np.eye(len(a)) + w1 * a + wk * (a + (order - 1) * (np.linalg.matrix_power(a, 2) - a))


def temp_scale(scores: Array, tau: float) -> Array:
    return scores * (1 / tau)


def length_scale(scores: Array, reference: float) -> Array:
    n = len(scores)
    return scores * np.log2(n) / np.log2(reference) if n > 1 else scores


def graph_normalised(scores: Array) -> Array:
    """D^(-1/2) A D^(-1/2), A the exponentials of the scores' symmetric part."""
    a = np.exp((scores + scores.T) / 2)
    root = np.sqrt(a.sum(axis=1))
    return a / np.outer(root, root)


def contranorm(x: Array, s, *, form="bert", dual=False, temperature=1.0, unit=False) -> Array:
    normed = np.array([row / np.linalg.norm(row) for row in x])
    cosines = np.array([[p @ q for q in normed] for p in normed]) / temperature
    similar = softmax_rows(cosines)
    if dual:
        similar = similar + softmax_rows(cosines.T).T
    y = normed if unit else x
    away = similar @ y * s
    return y - away if form == "vit" else y * (1 + np.asarray(s)) - away


def feat_scale(y: Array, low, high, factor: int = 1) -> Array:
    dc = uniform(len(y)) @ y
    return dc * (1 + factor * np.asarray(low)) + (y - dc) * (1 + factor * np.asarray(high))


def neutreno(context: Array, value: Array, first: Array, lam: float) -> Array:
    return context + lam * (first - value)


def pair_norm(x: Array, s: float = 1.0, *, each_token: bool = False) -> Array:
    centred_rows = x - x.mean(axis=0)
    if each_token:
        return np.array([s * row / np.linalg.norm(row) for row in centred_rows])
    return s * centred_rows / np.sqrt(np.mean([row @ row for row in centred_rows]))


def initial_residual(x: Array, first: Array, a: float) -> Array:
    return (1 - a) * x + a * first


def soft_decay(x: Array, a: float = -0.2, *, keep_largest: bool = True) -> Array:
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    new = -np.log(1 - a * (s + a) + 1e-7) / a
    if keep_largest:
        new = new * (s[0] / new[0])
    return u @ np.diag(new) @ vt


def definite(w: Array, sign: int) -> Array:
    """The nearest semidefinite matrix of a square matrix."""
    values, vectors = np.linalg.eigh((w + w.T) / 2)
    kept = np.maximum(values, 0) if sign > 0 else np.minimum(values, 0)
    return vectors @ np.diag(kept) @ vectors.T
