"""Attention with independent normal scores as a random energy model: when one key takes a share that stays.

Proofs are in docs/initialisation.md.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ....linalg.norms import safe_sqrt
from ....linalg.precision import at_least_float32
from ...consensus import per_row

CRITICAL = 2**0.5
"""Of beta: the largest of n standard normal numbers is about (2 log n)^(1/2)."""


@at_least_float32
def giorlandino2025_temperature(
    logits: Float[Array, "*B T S"], mask: Bool[Array, "..."]
) -> tuple[Float[Array, "*B"], Float[Array, "*B"]]:
    """beta = std / (log n)^(1/2) of a query's n scores, and the sum of squares of their softmax; means over queries.

    The std is that over the keys, each query's mean taken off, as the softmax does; of independent normal scores
    of n keys it is the std of the law up to a factor 1 - 1/n of its square. The sum of squares is 1/n of equal
    attention and 1 of attention to one key: its inverse counts the keys that are read.

    Args:
      logits: scores before the softmax, [..., T, S]; minus infinity hides a key from a query.
      mask: True on real tokens, [..., T]; broadcast over the axes of `logits` in front of T (heads).

    Returns:
      beta and the sum of squares, [...] each: over the queries that see two keys or more, 0 and 0 without one.

    >>> import jax.numpy as jnp
    >>> logits = jnp.array([[1.0, -1.0], [0.0, 0.0]])
    >>> [round(float(x), 4) for x in giorlandino2025_temperature(logits, jnp.ones(2, bool))]
    [0.6006, 0.645]

    References: after Giorlandino and Goldt (2025), arXiv 2505.24333, whose scores are those of random weights.
    """
    real = per_row(mask, logits)
    seen = real[..., None] & real[..., None, :] & (logits > -jnp.inf)
    count = jnp.sum(seen, axis=-1).astype(logits.dtype)
    asked = count > 1
    most = jnp.max(jnp.where(seen, logits, -jnp.inf), axis=-1, keepdims=True)
    below = jnp.where(seen, logits - jnp.where(asked[..., None], most, 0), 0)
    several = jnp.where(asked, count, 2)
    mean = jnp.sum(below, axis=-1, keepdims=True) / several[..., None]
    square = jnp.sum(jnp.where(seen, (below - mean) ** 2, 0), axis=-1) / several
    weights = jnp.where(seen, jnp.exp(below), 0)
    squares = jnp.sum(weights * weights, axis=-1) / jnp.where(asked, jnp.sum(weights, axis=-1) ** 2, 1)
    queries = jnp.maximum(jnp.sum(asked, axis=-1), 1).astype(logits.dtype)
    beta = safe_sqrt(square / jnp.log(several))
    temperature, participation = (jnp.sum(jnp.where(asked, x, 0), axis=-1) / queries for x in (beta, squares))
    return temperature, participation


@at_least_float32
def giorlandino2025_participation(beta: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """Limit of E sum_j a_j^2 for scores N(0, beta^2 log n), n -> infinity: max(0, 1 - 2^(1/2) / beta).

    Below beta = 2^(1/2) no key keeps a share, however many there are; above it a few keys take all, which ones is
    random. A limit and no bound, to which finite n come like log log n / log n.

    Args:
      beta: std of the scores over (log n)^(1/2), at least 0, [...].

    Returns:
      [...], in [0, 1]; NaN of a negative beta and of NaN.

    >>> import jax.numpy as jnp
    >>> giorlandino2025_participation(jnp.array([1.0, 2.0])).round(4)
    Array([0.    , 0.2929], dtype=float32)

    References: Derrida (1981), Random-energy model; after Giorlandino and Goldt (2025), arXiv 2505.24333, who read
    attention with random weights as one. docs/initialisation.md says what is proved.
    """
    return jnp.where(beta >= 0, 1 - CRITICAL / jnp.maximum(beta, CRITICAL), jnp.nan)


@at_least_float32
def giorlandino2025_exponents(beta: Float[Array, "*B"]) -> tuple[Float[Array, "*B"], Float[Array, "*B"]]:
    """Limits of -log(sum_j a_j^2) / log n and of the entropy of a over log n, for scores N(0, beta^2 log n).

    The first is 1 - beta^2 up to beta = 2^(-1/2), where a typical key decides, then (2^(1/2) - beta)^2, where the
    largest does; the second 1 - beta^2 / 2. Both are 0 from 2^(1/2) on.

    Args:
      beta: std of the scores over (log n)^(1/2), at least 0, [...].

    Returns:
      [...] each, in [0, 1]; NaN of a negative beta and of NaN.

    >>> import jax.numpy as jnp
    >>> [[round(float(y), 4) for y in x] for x in giorlandino2025_exponents(jnp.array([0.0, 1.0, 2.0]))]
    [[1.0, 0.1716, 0.0], [1.0, 0.5, 0.0]]

    References: as of `giorlandino2025_participation`.
    """
    below = jnp.where(beta >= 0, jnp.minimum(beta, CRITICAL), jnp.nan)
    squares = jnp.where(below < CRITICAL / 2, 1 - below * below, (CRITICAL - below) ** 2)
    return squares, jnp.maximum(1 - below * below / 2, 0)
