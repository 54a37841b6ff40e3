"""Attention and LayerNorm as the catalogue's theorems have them: no gains, no biases, padding left out."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def masked_softmax(logits: Float[Array, "*B T S"], mask: Bool[Array, "*B S"]) -> Float[Array, "*B T S"]:
    """Row-wise softmax over real keys; padded keys get exactly 0.

    Args:
      logits: [..., T, S].
      mask: True on real tokens, [..., S].

    Returns:
      [..., T, S]; uniform rows where a sentence has no real token.

    >>> import jax.numpy as jnp
    >>> masked_softmax(jnp.zeros((1, 3)), jnp.array([True, True, False]))
    Array([[0.5, 0.5, 0. ]], dtype=float32)
    """
    # The lowest finite number, not -inf: a sentence of padding alone stays finite.
    return jax.nn.softmax(jnp.where(mask[..., None, :], logits, jnp.finfo(logits.dtype).min), axis=-1)


def plain_layer_norm(hidden: Float[Array, "*B T D"]) -> Float[Array, "*B T D"]:
    """LayerNorm with unit gain, no shift and epsilon 0: every row gets mean 0 and norm sqrt(D).

    Args:
      hidden: token vectors, [..., T, D].

    Returns:
      [..., T, D]; zero rows where all features of a token are equal.

    >>> import jax.numpy as jnp
    >>> plain_layer_norm(jnp.array([[1.0, 3.0]]))
    Array([[-1.,  1.]], dtype=float32)
    """
    centred = hidden - jnp.mean(hidden, axis=-1, keepdims=True)
    std = jnp.sqrt(jnp.mean(centred * centred, axis=-1, keepdims=True))
    return jnp.where(std > 0, centred / jnp.where(std > 0, std, 1), 0)


def uniform_attention(attn: Float[Array, "*B T S"], mask: Bool[Array, "*B S"]) -> Float[Array, "*B T S"]:
    """1 1^T / n over real keys, of the shape of `attn`: the projection onto consensus.

    >>> import jax.numpy as jnp
    >>> uniform_attention(jnp.zeros((1, 3)), jnp.array([True, True, False]))
    Array([[0.5, 0.5, 0. ]], dtype=float32)
    """
    weight = mask.astype(attn.dtype)
    share = weight / jnp.maximum(jnp.sum(weight, axis=-1, keepdims=True), 1)
    return jnp.broadcast_to(share[..., None, :], attn.shape)


def rows_sum_to_one(attn: Float[Array, "*B T S"], mask: Bool[Array, "*B T"]) -> Bool[Array, "*B"]:
    """Whether every real row sums to 1 over real keys, up to the rounding of a softmax.

    >>> import jax.numpy as jnp
    >>> rows_sum_to_one(jnp.array([[[0.5, 0.5], [1.0, 0.0]], [[0.5, 0.5], [0.9, 0.0]]]), jnp.ones((2, 2), bool))
    Array([ True, False], dtype=bool)
    """
    sums = jnp.sum(jnp.where(mask[..., None, :], attn, 0), axis=-1)
    close = jnp.abs(sums - 1) <= 4 * attn.shape[-1] * jnp.finfo(attn.dtype).eps
    return jnp.all(jnp.where(mask, close, True), axis=-1)
