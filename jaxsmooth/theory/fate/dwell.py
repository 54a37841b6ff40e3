"""How long tokens stay in so many clusters while a map is applied again and again: metastability, measured."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ...linalg.norms import norm
from ...linalg.precision import at_least_float32
from ..consensus import real_tokens
from .clusters import token_clusters
from .orbit import TokenMap

APART = 0.1
"""Tokens nearer to each other than this share of a token's length are one cluster, by default."""


@at_least_float32
def cluster_counts(
    apply: TokenMap,
    hidden: Float[Array, "B T D"],
    mask: Bool[Array, "B T"],
    *,
    steps: int = 200,
    separation: float = APART,
) -> Int[Array, "K B"]:
    """How many clusters the tokens form after 0, 1, ..., K applications of a map.

    Tokens are linked if their distance is at most `separation` times the root mean square length of a token of that
    state, and so are chains of links (`token_clusters`). Against that fixed share consensus is one cluster.

    Args:
      apply: the map, [B T D] -> [B T D]; what it does to padding is not read.
      hidden: where to start, [B T D].
      mask: True on real tokens, [B T].
      steps: K.
      separation: see above.

    Returns:
      [K+1 B]; 0 without a real token.

    >>> import jax.numpy as jnp
    >>> cluster_counts(lambda x: 2 + (x - 2) / 4, jnp.array([[[1.0], [3.0]]]), jnp.ones((1, 2), bool), steps=3).ravel()
    Array([2, 2, 1, 1], dtype=int32)

    References: that tokens stay in several clusters for long before they become one, Geshkovski et al. (2023), arXiv
    2312.10794; Bruno, Pasqualotto and Agazzi (2024), arXiv 2410.23228.
    """

    def count(state: Array) -> Array:
        real = jnp.maximum(jnp.sum(mask, axis=-1), 1).astype(state.dtype)
        length = norm(state, (-2, -1)) / jnp.sqrt(real)
        labels = token_clusters(state, mask, separation=separation, of=length)
        own = labels == jnp.arange(mask.shape[-1], dtype=labels.dtype)[None]  # a cluster is named by its first token
        return jnp.sum(own & mask, axis=-1, dtype=jnp.int32)

    def step(state: Array, _: None) -> tuple[Array, Array]:
        image = real_tokens(apply(state), mask).astype(state.dtype)
        return image, count(image)

    start = real_tokens(hidden, mask)
    _, counts = jax.lax.scan(step, start, None, length=steps)
    return jnp.concatenate([count(start)[None], counts])


@at_least_float32
def dwell_times(counts: Int[Array, "K B"], most: int) -> Int[Array, "B most"]:
    """The longest time without a break that tokens spent in k clusters, k = 1, ..., `most`.

    Args:
      counts: of every state, as `cluster_counts` gives them, [K B].
      most: the largest number of clusters of interest; more are not counted.

    Returns:
      [B most]: how many states in a row, at most, had k clusters.

    >>> import jax.numpy as jnp
    >>> dwell_times(jnp.array([[3], [2], [2], [3], [2], [1]], jnp.int32), 3)
    Array([[1, 2, 1]], dtype=int32)
    """
    kinds = jnp.arange(1, most + 1, dtype=counts.dtype)

    def step(carried: tuple[Array, Array], now: Array) -> tuple[tuple[Array, Array], None]:
        run, longest = carried
        run = jnp.where(now[:, None] == kinds[None], run + 1, 0)
        return (run, jnp.maximum(longest, run)), None

    nothing = jnp.zeros((counts.shape[1], most), jnp.int32)
    (_, longest), _ = jax.lax.scan(step, (nothing, nothing), counts)
    return longest
