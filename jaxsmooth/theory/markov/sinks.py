"""Attention sinks: how much of a head's attention one token receives, and what that leaves for the others.

Proofs are in docs/sinks.md.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ...linalg.norms import norm
from ...linalg.precision import at_least_float32, matmul
from ...meshes import on_any_mesh
from ..consensus import per_row
from ..mixing import is_row_stochastic
from ..statement import Statement
from .stochastic import ergodicity_coefficient


@at_least_float32
@on_any_mesh()
def sink_strength(attn: Float[Array, "*B T S"], mask: Bool[Array, "..."]) -> Float[Array, "*B"]:
    """The attention that the strongest key receives, averaged over queries: max_j (1/n) sum_i a_ij, over real tokens.

    Between 1/n, all keys alike, and 1, all queries reading one key. A head has a sink, after Gu et al. (2024), where it
    exceeds 0.3: `has_sink` decides that exactly. Compare it at equal n only, because of the 1/n.

    Args:
      attn: attention whose rows sum to 1 over real keys and vanish on padded keys, [..., T, S].
      mask: True on real tokens, [..., T]; broadcast over the axes of `attn` in front of T (heads).

    Returns:
      [...]; 0 without a real token.

    >>> import jax.numpy as jnp
    >>> sink_strength(jnp.array([[0.75, 0.25], [0.5, 0.5]]), jnp.ones(2, bool))
    Array(0.625, dtype=float32)

    References: Gu et al. (2024), arXiv 2410.10781; Xiao et al. (2023), arXiv 2309.17453.
    """
    return jnp.max(_received(attn, mask), axis=-1)


@at_least_float32
@on_any_mesh()
def first_token_attention(attn: Float[Array, "*B T S"], mask: Bool[Array, "..."]) -> Float[Array, "*B"]:
    """The attention that the first real token receives, averaged over queries; it is the usual sink.

    Arguments and answer as `sink_strength`.

    >>> import jax.numpy as jnp
    >>> first_token_attention(jnp.array([[0.5, 0.5], [0.0, 1.0]]), jnp.ones(2, bool))
    Array(0.25, dtype=float32)

    References: Barbero et al. (2025), arXiv 2504.02732; Xiao et al. (2023), arXiv 2309.17453.
    """
    real = per_row(mask, attn)
    first = real & (jnp.cumsum(real, axis=-1) == 1)
    received = _received(attn, mask)
    # The zero lets numbers of other keys that are not finite make NaN, as in every measure.
    return jnp.sum(jnp.where(first, received, 0), axis=-1) + 0 * jnp.sum(received, axis=-1)


@at_least_float32
def sink_ergodicity(attn: Float[Array, "*B T S"], mask: Bool[Array, "..."]) -> Statement:
    """tau(A) <= 1 - max_j min_i a_ij: what all queries give one key, no two of them can spend differently.

    Arguments as `sink_strength`.

    Returns:
      A `Statement` of shape [...], applicable where real rows are probabilities over real keys.

    >>> import jax.numpy as jnp
    >>> found = sink_ergodicity(jnp.array([[0.75, 0.25], [1.0, 0.0]]), jnp.ones(2, bool))
    >>> float(found.lhs), float(found.rhs)
    (0.25, 0.25)

    References: Doeblin's condition; compare Seneta (2006), chapter 4, on matrices with a positive column. Proof in
    docs/sinks.md.
    """
    real = per_row(mask, attn)
    shares = jnp.min(jnp.where(real[..., None], attn, 1), axis=-2)
    common = jnp.max(jnp.where(real, shares, 0), axis=-1)
    return Statement(ergodicity_coefficient(attn, mask), 1 - common, is_row_stochastic(attn, mask))


@at_least_float32
def sink_distance(attn: Float[Array, "*B T S"], hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]) -> Statement:
    """(1/n) sum_i |(A V)_i - v_j| <= (1 - s) max_k |v_k - v_j|, j the strongest key, s its strength.

    A head with a sink gives all tokens nearly one vector, which the distance to consensus does not see.

    Args:
      attn: A, rows summing to 1 over real keys, [..., T, S].
      hidden: V, any vectors, [..., T, D].
      mask: True on real tokens, [..., T].

    Returns:
      A `Statement` of shape [...], applicable where real rows are probabilities over real keys.

    >>> import jax.numpy as jnp
    >>> a, v = jnp.array([[1.0, 0.0], [0.5, 0.5]]), jnp.array([[1.0], [3.0]])
    >>> found = sink_distance(a, v, jnp.ones(2, bool))
    >>> float(found.lhs), float(found.rhs)
    (0.5, 0.5)

    References: docs/sinks.md.
    """
    strength, key, values, mixed = at_the_sink(attn, hidden, mask)
    at_sink = jnp.take_along_axis(values, key[..., None], axis=-2)
    far = jnp.max(_sizes(values - at_sink, mask), axis=-1)
    return Statement(mean_size(mixed - at_sink, mask), (1 - strength) * far, is_row_stochastic(attn, mask))


@at_least_float32
def sink_update(attn: Float[Array, "*B T S"], hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]) -> Statement:
    """(1/n) sum_i |(A V)_i| <= s |v_j| + (1 - s) max_(k != j) |v_k|, j the strongest key, s its strength.

    With v_j = 0 a head adds, on average, at most a share 1 - s of its largest value: the no-op that sinks are said to
    be for.

    Arguments and answer as `sink_distance`.

    >>> import jax.numpy as jnp
    >>> a, v = jnp.array([[1.0, 0.0], [0.5, 0.5]]), jnp.array([[0.0], [2.0]])
    >>> found = sink_update(a, v, jnp.ones(2, bool))
    >>> float(found.lhs), float(found.rhs)
    (0.5, 0.5)

    References: after Barbero et al. (2025), arXiv 2504.02732, and Gu et al. (2024), arXiv 2410.10781; proof in
    docs/sinks.md.
    """
    strength, key, values, mixed = at_the_sink(attn, hidden, mask)
    sizes = _sizes(values, mask)
    places = jnp.arange(mask.shape[-1]).reshape((1,) * (mask.ndim - 1) + (-1,))
    others = jnp.max(jnp.where(places == key, 0, sizes), axis=-1)
    at_sink = jnp.take_along_axis(sizes, key, axis=-1)[..., 0]
    bound = strength * at_sink + (1 - strength) * others
    return Statement(mean_size(mixed, mask), bound, is_row_stochastic(attn, mask))


@at_least_float32
def attention_dilution(
    attn: Float[Array, "*B T S"], logits: Float[Array, "*B T S"], mask: Bool[Array, "..."]
) -> Statement:
    """max a_ij <= 1 / (1 + (n - 1) e^-delta), delta the largest difference of two logits of one query.

    So no token keeps a fixed share s of the attention, as n grows, unless delta grows like log n: it takes
    delta >= log(n - 1) + log(s / (1 - s)). Attained by one key whose logit is delta above all others.

    Args:
      attn: softmax of `logits` over real keys, [..., T, S].
      logits: [..., T, S].
      mask: as in `sink_strength`.

    Returns:
      A `Statement` of shape [...], applicable where no query hides a real key (no causal mask) and real rows are
      probabilities over real keys.

    >>> import jax, jax.numpy as jnp
    >>> logits = jnp.array([[jnp.log(2.0), 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    >>> found = attention_dilution(jax.nn.softmax(logits), logits, jnp.ones(3, bool))
    >>> round(float(found.lhs), 4), round(float(found.rhs), 4)
    (0.5, 0.5)

    References: after Veličković et al. (2024), arXiv 2410.01104; that the scale log n is critical, Chen et al. (2025),
    arXiv 2510.05554. Proof in docs/sinks.md.
    """
    real = per_row(mask, attn)
    both = real[..., None] & real[..., None, :]
    most = jnp.max(jnp.where(both, logits, -jnp.inf), axis=-1)
    least = jnp.min(jnp.where(both, logits, jnp.inf), axis=-1)
    known = jnp.all(jnp.isfinite(logits) | ~both, axis=(-2, -1))
    delta = jnp.max(jnp.where(real & known[..., None], most - least, 0), axis=-1)
    others = jnp.maximum(jnp.sum(real, axis=-1) - 1, 0).astype(attn.dtype)
    largest = jnp.max(jnp.where(both, attn, 0), axis=(-2, -1))
    return Statement(largest, 1 / (1 + others * jnp.exp(-delta)), known & is_row_stochastic(attn, mask))


def _received(attn: Array, mask: Array) -> Array:
    """(1/n) sum_i a_ij of every real key j, [..., S]."""
    real = per_row(mask, attn)
    count = jnp.maximum(jnp.sum(real, axis=-1, keepdims=True), 1).astype(attn.dtype)
    both = real[..., None] & real[..., None, :]
    return jnp.sum(jnp.where(both, attn, 0), axis=-2) / count


def at_the_sink(attn: Array, hidden: Array, mask: Array) -> tuple[Array, Array, Array, Array]:
    """The strongest key's strength and place, [...] and [... 1]; V without padding, and A V."""
    received = _received(attn, mask)
    key = jnp.argmax(jnp.where(mask, received, -1), axis=-1, keepdims=True)
    values = jnp.where(mask[..., None], hidden, 0)
    mixed = matmul(jnp.where(mask[..., None], attn, 0), values)
    return jnp.take_along_axis(received, key, axis=-1)[..., 0], key, values, mixed


def _sizes(rows: Array, mask: Array) -> Array:
    return jnp.where(mask, norm(rows), 0)


def mean_size(rows: Array, mask: Array) -> Array:
    """The mean length of real rows, [...]."""
    count = jnp.maximum(jnp.sum(mask, axis=-1), 1).astype(rows.dtype)
    return jnp.sum(_sizes(rows, mask), axis=-1) / count
