"""Cases for the certifier: structured, extremal and hostile data, and what Arb says of them.

All matrices are [TOKENS, WIDTH], so that nothing recompiles.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsmooth.linalg.intervals import Interval
from jaxsmooth.theory.certify.arb_calculus import ArbCalculus, ends
from jaxsmooth.theory.certify.float_calculus import FloatCalculus
from jaxsmooth.theory.theorems.quantities import HeadQuantities
from jaxsmooth.types import Attention, Linear
from support.matrices import FAMILIES, doubly_stochastic, orthonormal, stochastic, with_spectrum

TOKENS, WIDTH = 5, 4
REAL = np.ones(TOKENS, bool)
SCALES = {"float32": (-42, -36, -20, 0, 20, 36), "float64": (-315, -305, -150, 0, 150, 300)}


def tokens(rng: np.random.Generator, dtype: str) -> np.ndarray:
    """Hidden states: means up to 1e8 times the deviations, low rank, outliers, denormal and huge scales."""
    kind = rng.integers(6)
    x = rng.standard_normal((TOKENS, WIDTH))
    if kind == 1:
        x = x + 10 ** rng.uniform(2, 8) * rng.standard_normal(WIDTH)
    if kind == 2:
        x = np.outer(rng.standard_normal(TOKENS), rng.standard_normal(WIDTH))
    if kind == 3:
        x[rng.integers(TOKENS)] *= 10 ** rng.uniform(0, 12)
    if kind == 4:
        x = np.round(4 * x)
    if kind == 5:
        x = x * 10.0 ** rng.choice(SCALES[dtype])
    return x.astype(dtype)


def matrix(rng: np.random.Generator, dtype: str) -> np.ndarray:
    """Weights: prescribed spectra, equal singular values, nearly singular, orthogonal, zero."""
    kind = rng.integers(5)
    if kind == 0:
        w = with_spectrum(rng, 10 ** rng.uniform(-6, 0, WIDTH), WIDTH, WIDTH)
    elif kind == 1:
        w = orthonormal(rng, WIDTH, WIDTH)
    elif kind == 2:
        w = with_spectrum(rng, np.array([1.0, 1.0, 1e-9, 0.0]), WIDTH, WIDTH)
    elif kind == 3:
        w = np.outer(rng.standard_normal(WIDTH), rng.standard_normal(WIDTH))
    else:
        w = rng.standard_normal((WIDTH, WIDTH)) * (rng.uniform() > 0.1)
    return (w * 10 ** rng.uniform(-3, 3)).astype(dtype)


def attention(rng: np.random.Generator, dtype: str) -> np.ndarray:
    """Row-stochastic up to the rounding of the dtype."""
    names = list(FAMILIES)
    return FAMILIES[names[rng.integers(len(names))]](rng, TOKENS).astype(dtype)


def extremal_mixing(rng: np.random.Generator, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """(A, H) with d_M(A H) = ||J A|| d_M(H) but for the rounding of A and H themselves."""
    a = (stochastic, doubly_stochastic)[rng.integers(2)](rng, TOKENS).astype(dtype)
    centring = np.eye(TOKENS) - 1 / TOKENS
    _, _, v = np.linalg.svd(centring @ a.astype(np.float64) @ centring)
    h = np.outer(v[0], rng.standard_normal(WIDTH)) + rng.choice([0, 1, 1e4]) * rng.standard_normal(WIDTH)
    return a, h.astype(dtype)


def extremal_product(rng: np.random.Generator, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) with d_M(H W) = ||W|| d_M(H) but for rounding; exactly, where W is a power of two times a permutation."""
    if rng.uniform() < 0.5:
        w = np.eye(WIDTH)[rng.permutation(WIDTH)] * 2.0 ** rng.integers(-8, 8)
        return tokens(rng, dtype), w.astype(dtype)
    w = matrix(rng, dtype)
    u, _, _ = np.linalg.svd(w.astype(np.float64))
    return np.outer(rng.standard_normal(TOKENS), u[:, 0]).astype(dtype), w


def arb_ends(formula: Callable[..., Any], *arrays: np.ndarray) -> Interval:
    """What Arb says a formula of a calculus and arrays is worth."""
    low, high = ends(formula(ArbCalculus(TOKENS), *arrays))
    return Interval(np.float64(low), np.float64(high))


@functools.cache
def on_device(formula, dtype: str):
    """A formula of a calculus, batched and compiled."""

    def one(*arrays):
        return formula(FloatCalculus(jnp.asarray(REAL), jnp.dtype(dtype)), *arrays)

    return jax.jit(jax.vmap(one))


def on_host(formula, calculus, dtype: str, *arrays) -> Interval:
    with np.errstate(all="ignore"):
        return formula(calculus(REAL, np.dtype(dtype)), *arrays)


def one_head(calculus: Any, hidden: np.ndarray, attn: np.ndarray) -> HeadQuantities:
    """A head whose kernels are 1 x 1 identities, on given tokens of one feature and given attention."""
    one = np.ones((1, 1))
    side, bias = Linear(one, np.zeros(1)), Linear(one, np.zeros(1))
    weights = Attention(query=side, key=side, value=side, output=bias)
    tokens = len(hidden)
    c = calculus(tokens) if calculus is ArbCalculus else calculus(np.ones(tokens, bool), np.float64)
    norm = Interval(np.float64(1), np.float64(1))
    return HeadQuantities(c, weights, (norm, norm), hidden, attn)
