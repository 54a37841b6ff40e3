"""Row-stochastic matrices: how far apart two rows can be."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def ergodicity_coefficient(attn: Float[Array, "*B T S"], mask: Bool[Array, "..."]) -> Float[Array, "*B"]:
    """Dobrushin's coefficient tau(A) = 1/2 max_{i,k} sum_j |A_ij - A_kj| over real rows, in [0, 1].

    The spread of any vector shrinks at least by it, max(Ax) - min(Ax) <= tau(A) (max x - min x), it bounds
    the second eigenvalue, and sqrt(lambda) <= sqrt(n / 2) tau(A).

    Args:
      attn: attention whose rows sum to 1 over real keys and vanish on padded keys, [..., T, S].
      mask: True on real tokens, [..., T]; broadcast over the axes of `attn` in front of T (heads).

    Returns:
      [...].

    >>> import jax.numpy as jnp
    >>> ergodicity_coefficient(jnp.array([[0.75, 0.25], [0.5, 0.5]]), jnp.array([True, True]))
    Array(0.25, dtype=float32)

    References: Dobrushin (1956); Seneta (2006), Non-negative Matrices and Markov Chains, section 3.1.
    """
    real = per_row(mask, attn)

    # One row against all others at a time: memory stays that of `attn`, not n times as much.
    def farthest(i: Array) -> Array:
        apart = jnp.sum(jnp.abs(attn - attn[..., i, None, :]), axis=-1)
        return jnp.max(jnp.where(real & real[..., i, None], apart, 0), axis=-1)

    return 0.5 * jnp.max(jax.lax.map(farthest, jnp.arange(attn.shape[-2])), axis=0)


def per_row(mask: Bool[Array, "..."], attn: Float[Array, "*B T S"]) -> Bool[Array, "*B T"]:
    """The mask of real tokens repeated for every head: [..., T] against `attn`'s [..., N, T, S]."""
    heads = (1,) * (attn.ndim - 1 - mask.ndim)
    return jnp.broadcast_to(mask.reshape(*mask.shape[:-1], *heads, mask.shape[-1]), attn.shape[:-1])
