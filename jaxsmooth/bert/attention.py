"""Self-attention in three steps, each of which can be read and replaced: logits, probabilities, mixing."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .norm import accumulation_dtype
from .params import Attention, Linear


def attention_logits(attn: Attention, hidden: Float[Array, "B T D"]) -> Float[Array, "B N T S"]:
    """Scaled scores q_i . k_j / sqrt(H) of every head, padding not yet masked.

    Args:
      attn: the attention parameters of one block.
      hidden: token vectors, [B T D].

    Returns:
      [B N T S].
    """
    query, key = project_heads(attn.query, hidden), project_heads(attn.key, hidden)
    return jnp.einsum("bnth,bnsh->bnts", query, key) / math.sqrt(query.shape[-1])


def attention_probs(logits: Float[Array, "B N T S"], mask: Bool[Array, "B S"]) -> Float[Array, "B N T S"]:
    """Row-wise softmax over real keys: the normalised adjacency operator of the token graph.

    Padded keys get probability exactly 0, so every row is a distribution over real tokens, padded query rows
    included. A sentence without a single real token gets uniform rows rather than NaN. Computed in at least
    float32.

    Args:
      logits: [B N T S].
      mask: True on real tokens, [B S].

    Returns:
      [B N T S] in the dtype of `logits`.

    >>> import jax.numpy as jnp
    >>> attention_probs(jnp.zeros((1, 1, 1, 3)), jnp.array([[True, True, False]]))
    Array([[[[0.5, 0.5, 0. ]]]], dtype=float32)
    """
    wide = logits.astype(accumulation_dtype(logits.dtype))
    # The lowest finite number, not -inf: exp still gives exactly 0 beside any real key, and a sentence of
    # padding alone stays finite. torch transformers does the same.
    wide = jnp.where(mask[:, None, None, :], wide, jnp.finfo(wide.dtype).min)
    return jax.nn.softmax(wide, axis=-1).astype(logits.dtype)


def mix_tokens(attn: Attention, probs: Float[Array, "B N T S"], hidden: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    """Sum over heads of A_h X W_h + b, where W_h is head h's value kernel times its output kernel.

    Args:
      attn: the attention parameters of one block.
      probs: attention probabilities, [B N T S].
      hidden: token vectors, [B T D].

    Returns:
      [B T D], the sub-layer's output before the residual is added.
    """
    mixed = jnp.einsum("bnts,bnsh->btnh", probs, project_heads(attn.value, hidden))
    n, h, d = attn.output.kernel.shape
    return mixed.reshape(*mixed.shape[:2], n * h) @ attn.output.kernel.reshape(n * h, d) + attn.output.bias[None, None]


def project_heads(linear: Linear, hidden: Float[Array, "B T D"]) -> Float[Array, "B N T H"]:
    """Queries, keys or values of every head, [B N T H]."""
    # One flat matrix product and an explicit transpose: XLA's CPU backend runs the equivalent three-axis
    # einsum about 1.5 times slower.
    d, n, h = linear.kernel.shape
    flat = hidden @ linear.kernel.reshape(d, n * h) + linear.bias.reshape(1, 1, n * h)
    return flat.reshape(*hidden.shape[:2], n, h).transpose(0, 2, 1, 3)
