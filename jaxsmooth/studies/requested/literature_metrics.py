"""Measures of the literature of 2024 to 2026 for `diagnose`, by name: none is measured unless it is asked for."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ... import metrics
from ...errors import OptionError, arguments_checked, did_you_mean
from ...linalg.norms import unit_vectors
from ...theory.literature.collapse.metastable import bruno2024_degree
from ...theory.literature.collapse.random_energy import (
    giorlandino2025_exponents,
    giorlandino2025_participation,
    giorlandino2025_temperature,
)
from ...theory.literature.separation import class_separation
from ...theory.literature.small_weights import token_turn
from ...theory.literature.token_particles import smallest_cosine
from ...types import BlockTrace
from .own_metrics import BlockMetric, Metric

LARGEST_DEGREE = 8
"""Degrees of clusters above it are counted as it."""


class Measure(NamedTuple):
    """One measure, what it says, and whose it is."""

    metric: Metric
    says: str
    source: str


@arguments_checked
def literature_metrics(*names: str) -> dict[str, Metric]:
    """Measures of the literature for `diagnose(..., metrics=...)`, by name; `LITERATURE_METRICS` says what each is.

    Those of attention are means over a layer's heads where nothing else is said, and have no value at the embedding.
    Nothing has a value for a sentence of one token.

    Args:
      names: which; all without any.

    Raises:
      OptionError: a name that is none of them.

    >>> import jaxsmooth
    >>> model, tokenizer = jaxsmooth.load("tiny")
    >>> chosen = jaxsmooth.literature_metrics("temperature", "smallest_cosine")
    >>> found = jaxsmooth.diagnose(model, tokenizer, ["A film worth seeing.", "Dull."], metrics=chosen)
    >>> found.metrics["temperature"].mean.shape == (model.config.layers + 1,)
    True
    """
    if unknown := [name for name in names if name not in LITERATURE_METRICS]:
        known = ", ".join(LITERATURE_METRICS)
        hint = did_you_mean(unknown[0], LITERATURE_METRICS)
        raise OptionError(f"there is no metric {unknown[0]!r} of the literature; there are {known}.{hint}")
    return {name: LITERATURE_METRICS[name].metric for name in names or LITERATURE_METRICS}


def _several(mask: Bool[Array, "B T"]) -> Bool[Array, " B"]:
    return jnp.sum(mask, axis=-1) > 1


def _of_heads(measure: Callable[[BlockTrace, Array], Array]) -> BlockMetric:
    """A number of every head, [B N], as its mean."""
    return _of_block(lambda trace, mask: jnp.mean(measure(trace, mask), axis=-1))


def _of_block(measure: Callable[[BlockTrace, Array], Array]) -> BlockMetric:
    return BlockMetric(lambda trace, mask: jnp.where(_several(mask), measure(trace, mask), jnp.nan))


def _of_states(measure: Callable[[Array, Array], Array]) -> Metric:
    return lambda hidden, mask: jnp.where(_several(mask), measure(hidden, mask), jnp.nan)


def _temperature(trace: BlockTrace, mask: Array) -> tuple[Array, Array]:
    """beta and the sum of squares of every head, [B N]; a key whose probability is 0 is out of sight."""
    return giorlandino2025_temperature(jnp.where(trace.attn_probs > 0, trace.attn_logits, -jnp.inf), mask)


def _count(mask: Array, like: Array, least: int = 1) -> Float[Array, " B"]:
    """n, in the dtype of another array."""
    return jnp.maximum(jnp.sum(mask, axis=-1), least).astype(like.dtype)


def _log_count(mask: Array, like: Array) -> Float[Array, "B 1"]:
    return jnp.log(_count(mask, like, 2))[:, None]


def _squares_exponent(trace: BlockTrace, mask: Array) -> Array:
    squares = _temperature(trace, mask)[1]
    return -jnp.log(squares) / _log_count(mask, squares)


def _entropy_exponent(trace: BlockTrace, mask: Array) -> Array:
    entropy = metrics.attention_entropy(trace.attn_probs, mask)
    return entropy / _log_count(mask, entropy)


def _degree(trace: BlockTrace, mask: Array) -> Array:
    """`bruno2024_degree` of keys and queries of a head's width whose products have the std that the scores have."""
    width = trace.query.shape[-1]
    beta = _temperature(trace, mask)[0]
    sharpness = beta * jnp.sqrt(_log_count(mask, beta) * width)
    return sum(((sharpness > least).astype(beta.dtype) for least in degree_thresholds(width)), jnp.ones_like(beta))


@functools.cache
def degree_thresholds(dimension: int) -> tuple[float, ...]:
    """The sharpness from which on `bruno2024_degree` exceeds 1, 2, ..., up to `LARGEST_DEGREE`.

    >>> [round(least, 2) for least in degree_thresholds(2)[:2]]
    [1.04, 2.86]
    """
    found, low = [], 0.0
    for degree in range(1, LARGEST_DEGREE):
        high = max(2 * low, 1.0)
        while bruno2024_degree(high, dimension) <= degree:
            low, high = high, 2 * high
        while high - low > 1e-3 * high:
            middle = (low + high) / 2
            low, high = (middle, high) if bruno2024_degree(middle, dimension) <= degree else (low, middle)
        found.append(high)
    return tuple(found)


def _waiting(trace: BlockTrace, mask: Array) -> Array:
    """Whether a token's score with itself exceeds its mean score with the others by more than log n, by head."""
    logits, real = trace.attn_logits, mask[:, None]
    count = _count(mask, logits, 2)[:, None]
    own = jnp.sum(jnp.where(real, jnp.diagonal(logits, axis1=-2, axis2=-1), 0), axis=-1)
    whole = jnp.sum(jnp.where(real[..., None] & real[..., None, :], logits, 0), axis=(-2, -1))
    lead = own / count - (whole - own) / (count * (count - 1))
    return (lead > _log_count(mask, logits)).astype(logits.dtype)


def _halves(hidden: Array, mask: Array) -> Array:
    """Fisher's ratio where the classes are the first and the second half of a sentence."""
    place = jnp.cumsum(mask, axis=-1)
    return class_separation(hidden, (2 * place > place[..., -1:]).astype(jnp.int32), mask)


def _turn(before: Array, after: Array, mask: Array) -> Array:
    """Mean over tokens, in degrees."""
    turns = token_turn(before, after, mask)
    return jnp.degrees(jnp.sum(turns, axis=-1) / _count(mask, turns))


def _angle_exponent(trace: BlockTrace, mask: Array) -> Array:
    apart = [1 - metrics.token_cosine_similarity(hidden, mask) for hidden in (trace.input, trace.hidden)]
    return jnp.where(apart[0] > 0, jnp.log(apart[1]) - jnp.log(jnp.where(apart[0] > 0, apart[0], 1)), jnp.nan)


_GIORLANDINO = "Giorlandino and Goldt (2025), arXiv 2505.24333"
_KARAGODIN = "Karagodin et al. (2025), arXiv 2510.22026"
LITERATURE_METRICS: dict[str, Measure] = {
    "temperature": Measure(
        _of_heads(lambda trace, mask: _temperature(trace, mask)[0]),
        "std of a query's scores over (log n)^(1/2); above 2^(1/2) a few keys would take all of normal scores",
        _GIORLANDINO,
    ),
    "hottest_head": Measure(
        _of_block(lambda trace, mask: jnp.max(_temperature(trace, mask)[0], axis=-1)),
        "the largest temperature of a head",
        _GIORLANDINO,
    ),
    "participation": Measure(
        _of_heads(lambda trace, mask: _temperature(trace, mask)[1]),
        "sum of squares of a query's attention: 1 over the number of keys it reads",
        _GIORLANDINO,
    ),
    "participation_limit": Measure(
        _of_heads(lambda trace, mask: giorlandino2025_participation(_temperature(trace, mask)[0])),
        "its limit for many normal scores of that temperature",
        _GIORLANDINO,
    ),
    "participation_exponent": Measure(
        _of_heads(_squares_exponent),
        "power of n with which the number of keys read grows: -log of it over log n",
        _GIORLANDINO,
    ),
    "participation_exponent_limit": Measure(
        _of_heads(lambda trace, mask: giorlandino2025_exponents(_temperature(trace, mask)[0])[0]),
        "its limit for many normal scores of that temperature",
        _GIORLANDINO,
    ),
    "entropy_exponent": Measure(
        _of_heads(_entropy_exponent), "entropy of a query's attention over log n", _GIORLANDINO
    ),
    "entropy_exponent_limit": Measure(
        _of_heads(lambda trace, mask: giorlandino2025_exponents(_temperature(trace, mask)[0])[1]),
        "its limit for many normal scores of that temperature",
        _GIORLANDINO,
    ),
    "cluster_degree": Measure(
        _of_heads(_degree),
        f"degree of the clusters that scores as sharp would make first, {LARGEST_DEGREE} at most",
        "Bruno, Pasqualotto and Agazzi (2024), arXiv 2410.23228",
    ),
    "waiting_heads": Measure(
        _of_heads(_waiting),
        "share of heads whose scores of tokens with themselves lead by more than log n",
        "Rigollet (2025), arXiv 2512.01868",
    ),
    "smallest_cosine": Measure(
        _of_states(lambda hidden, mask: smallest_cosine(unit_vectors(hidden), mask)),
        "of two tokens; at 0 or above they cluster exponentially under attention alone",
        "Chen et al. (2025), arXiv 2504.14697",
    ),
    "cone_tangent": Measure(
        _of_states(metrics.frequency_ratio), "tangent of the angle between tokens and their mean", _KARAGODIN
    ),
    "turn_attn": Measure(
        _of_block(lambda trace, mask: _turn(trace.input, trace.pre_attn, mask)),
        "degrees by which attention with its residual turns a token, mean over tokens",
        _KARAGODIN,
    ),
    "turn_block": Measure(
        _of_block(lambda trace, mask: _turn(trace.input, trace.hidden, mask)),
        "degrees by which a whole block turns a token, mean over tokens",
        _KARAGODIN,
    ),
    "angle_exponent": Measure(
        _of_block(_angle_exponent),
        "logarithm of the factor by which a block changes 1 - cosine similarity",
        "Cowsik et al. (2024), arXiv 2403.02579",
    ),
    "separation_of_halves": Measure(
        _of_states(_halves),
        "Fisher's ratio of scatters, between the first and second half of a sentence over within",
        "Zhang and Papyan (2026), arXiv 2602.09297",
    ),
}
"""By the name that `literature_metrics` and `jaxsmooth diagnose --metric` know."""
