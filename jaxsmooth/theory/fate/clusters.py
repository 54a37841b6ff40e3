"""Groups of equal tokens in a state."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ...linalg.norms import norm
from ...linalg.precision import at_least_float32
from ..consensus import real_pairs

SEPARATION = 0.01
"""Tokens nearer to each other than this share of the largest distance of two are one cluster."""


@at_least_float32
def token_clusters(
    hidden: Float[Array, "B T D"],
    mask: Bool[Array, "B T"],
    *,
    separation: float = SEPARATION,
    of: Float[Array, " B"] | None = None,
) -> Int[Array, "B T"]:
    """Which tokens have become one: the cluster of every token, named by its first token.

    Tokens are linked if their distance is at most `separation` times a length, by default the largest distance of two
    tokens of the sentence, and so are chains of links.

    Args:
      hidden: [B T D].
      mask: True on real tokens, [B T].
      separation: see above.
      of: the length, [B].

    Returns:
      [B T], -1 on padding.

    >>> import jax.numpy as jnp
    >>> token_clusters(jnp.array([[[0.0], [9.0], [0.0], [9.01], [5.0]]]), jnp.ones((1, 5), bool)).tolist()
    [[0, 1, 0, 1, 4]]
    """
    tokens = jnp.arange(hidden.shape[1], dtype=jnp.int32)
    rows = jax.lax.map(lambda i: norm(hidden - jax.lax.dynamic_index_in_dim(hidden, i, 1)), tokens)
    distances = jnp.where(real_pairs(mask), jnp.moveaxis(rows, 0, -1), jnp.inf)
    length = jnp.max(jnp.where(jnp.isfinite(distances), distances, 0), axis=(1, 2)) if of is None else of
    linked = distances <= separation * length[:, None, None]

    def spread(_: Array, labels: Array) -> Array:
        # The smallest name among the linked, and then that of its own: a chain of T links takes few rounds.
        least = jnp.min(jnp.where(linked, labels[:, None, :], hidden.shape[1]), axis=-1)
        least = jnp.minimum(labels, least)
        return jnp.take_along_axis(least, least, axis=1)

    first = jnp.broadcast_to(tokens[None], mask.shape)
    labels = jax.lax.fori_loop(0, hidden.shape[1], spread, first)
    return jnp.where(mask, labels, -1)
