"""Other stochastic matrices in attention's place, and Lemma 1 as printed: part (b) of criticisms.py."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial
from numpy.typing import NDArray

import jaxsmooth
from jaxsmooth import Batch, Edits, Encoder, Tokenizer

from . import bounds, observed

ROWS = ("own", "random", "one token", "uniform", "permuted")


def rows_edit(kind: str, batch: Batch, seed: int = 0) -> Edits:
    """Attention's rows replaced in every layer and head by what `kind`, one of `ROWS`, says; all are stochastic."""
    return Edits(attn=Partial(_rows, jnp.int32(ROWS.index(kind)), batch.mask, jax.random.key(seed)))


def _rows(kind: Array, mask: Array, key: Array, layer: Array, attn: Array) -> Array:
    return jax.lax.switch(kind, _KINDS, mask, key, layer, attn)  # one program for all kinds


def _own(mask: Array, key: Array, layer: Array, attn: Array) -> Array:
    return attn


def _random(mask: Array, key: Array, layer: Array, attn: Array) -> Array:
    drawn = jax.random.exponential(jax.random.fold_in(key, layer), attn.shape, attn.dtype)
    drawn = jnp.where(mask[:, None, None], drawn, 0)
    return drawn / drawn.sum(axis=-1, keepdims=True)


def _one_token(mask: Array, key: Array, layer: Array, attn: Array) -> Array:
    return jax.nn.one_hot(_random(mask, key, layer, attn).argmax(axis=-1), attn.shape[-1], dtype=attn.dtype)


def _uniform(mask: Array, key: Array, layer: Array, attn: Array) -> Array:
    real = jnp.broadcast_to(mask[:, None, None], attn.shape).astype(attn.dtype)
    return real / real.sum(axis=-1, keepdims=True)


def _permuted(mask: Array, key: Array, layer: Array, attn: Array) -> Array:
    drawn = jax.random.uniform(jax.random.fold_in(key, layer), mask.shape)
    order = jnp.argsort(jnp.where(mask, drawn, 2.0), axis=-1)  # real keys among themselves; padding is on the right
    return jnp.take_along_axis(attn, order[:, None, None], axis=-1)


_KINDS = (_own, _random, _one_token, _uniform, _permuted)
"""In the order of `ROWS`."""


def replaced(model: str, count: int) -> dict[str, Any]:
    """(b) of one model: medians over texts and layers, and how often a bound is below the actual rate."""
    encoder, tokenizer = observed.loaded(model)
    texts = observed.short_reviews(tokenizer, count)
    result: dict[str, Any] = {}
    for kind in ROWS:
        found = bounds.bounds(encoder, tokenizer, texts, functools.partial(rows_edit, kind))
        actual = found["actual"]
        broken = sum(int(np.sum(actual > found[name] * (1 + 1e-3))) for name in bounds.BOUNDS)
        result[kind] = {
            **{name: float(np.median(found[name])) for name in ("actual", "v", *bounds.BOUNDS)},
            "least_v": float(found["v"].min()),
            "cosine": np.mean(found["cosine"], axis=1).tolist(),
            "comparisons": len(bounds.BOUNDS) * actual.size,
            "broken": broken,
        }
    return {"rows": result, "lemma": printed_lemma(encoder, tokenizer, texts[:4])}


def printed_lemma(encoder: Encoder, tokenizer: Tokenizer, texts: list[str]) -> dict[str, int]:
    """Lemma 1's last item, which is about every H, on the model's own attention: as printed, and with e of norm 1."""
    batch = tokenizer(texts)
    attn = np.moveaxis(np.asarray(jaxsmooth.encode(encoder, batch)[1].attn, np.float64), 1, 0)  # [B L N T S]
    counts = {"heads": 0, "printed_broken": 0, "normalised_broken": 0}
    for heads, real in zip(attn, np.asarray(batch.mask), strict=True):
        n = int(real.sum())
        for head in heads[..., :n, :n].reshape(-1, n, n):
            for name, broken in breaks(head).items():
                counts[f"{name}_broken"] += broken
            counts["heads"] += 1
    return counts


def breaks(attn: NDArray) -> dict[str, bool]:
    """Whether d_M(AH) <= sqrt(lambda) d_M(H) fails for the one column H that A stretches most, with either e.

    Args:
      attn: A, [n n], rows of one sum.
    """
    n = len(attn)
    forms = {"printed": np.ones((n, n)), "normalised": np.ones((n, n)) / n}  # e e' of either e
    found = {name: np.linalg.eigh(attn.T @ (np.eye(n) - form) @ attn) for name, form in forms.items()}
    h = found["normalised"].eigenvectors[:, -1]
    after, before = (np.linalg.norm(side - side.mean()) for side in (attn @ h, h))
    largest = {name: max(float(each.eigenvalues[-1]), 0.0) for name, each in found.items()}
    return {name: bool(after > np.sqrt(value) * before * (1 + 1e-6) + 1e-12) for name, value in largest.items()}
