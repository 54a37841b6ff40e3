"""Self-attention in steps: projection to heads, logits, probabilities, mixing, output projection."""

import math

from jaxtyping import Array, Bool, Float

from ..linalg.precision import einsum
from ..linalg.rows import accumulation_dtype, masked_softmax
from ..types import Linear
from .matmul import token_matmul


def attention_logits(
    query: Float[Array, "B N T H"], key: Float[Array, "B N S H"], bias: Float[Array, "N T S"] | None = None
) -> Float[Array, "B N T S"]:
    """Scaled scores q_i . k_j / sqrt(H) of every head, plus a positional bias; nothing masked yet.

    Args:
      query: queries of every head, [B N T H].
      key: keys, [B N S H].
      bias: added to the scores of every sentence, [N T S] (MPNet's relative positions).

    Returns:
      [B N T S].

    >>> import jax.numpy as jnp
    >>> attention_logits(jnp.ones((1, 1, 1, 4)), jnp.ones((1, 1, 2, 4)))
    Array([[[[2., 2.]]]], dtype=float32)

    References: Vaswani et al. (2017), arXiv 1706.03762.
    """
    logits = einsum("bnth,bnsh->bnts", query, key) / math.sqrt(query.shape[-1])
    return logits if bias is None else logits + bias[None]


def attention_probs(
    logits: Float[Array, "B N T S"], mask: Bool[Array, "B S"], visible: Bool[Array, "T S"] | None = None
) -> Float[Array, "B N T S"]:
    """Row-wise softmax over real, visible keys: the normalised adjacency operator of the token graph.

    Padded keys get probability exactly 0, so every row is a distribution over real tokens, padded query rows
    included. A sentence without a single real token gets uniform rows rather than NaN. Computed in at least
    float32.

    Args:
      logits: [B N T S].
      mask: True on real tokens, [B S].
      visible: True where query t may see key s, [T S]: a causal mask or a window; None for all.

    Returns:
      [B N T S] in the dtype of `logits`.

    >>> import jax.numpy as jnp
    >>> attention_probs(jnp.zeros((1, 1, 1, 3)), jnp.array([[True, True, False]]))
    Array([[[[0.5, 0.5, 0. ]]]], dtype=float32)
    """
    wide = logits.astype(accumulation_dtype(logits.dtype))
    seen = mask[:, None, None, :] if visible is None else mask[:, None, None, :] & visible[None, None]
    return masked_softmax(wide, seen).astype(logits.dtype)


def mix_tokens(attn: Float[Array, "B N T S"], value: Float[Array, "B N S H"]) -> Float[Array, "B N T H"]:
    """Every head's values averaged over its neighbours, A_h V_h.

    Args:
      attn: attention probabilities, [B N T S].
      value: values, [B N S H].

    Returns:
      [B N T H], the context vectors, before the output projection.

    >>> import jax.numpy as jnp
    >>> mix_tokens(jnp.full((1, 1, 1, 2), 0.5), jnp.array([[[[1.0], [3.0]]]]))
    Array([[[[2.]]]], dtype=float32)
    """
    return einsum("bnts,bnsh->bnth", attn, value)


def join_heads(output: Linear, context: Float[Array, "B N T H"]) -> Float[Array, "B T D"]:
    """The output projection: sum over heads of context_h W_O^h, plus the bias.

    Args:
      output: kernel [N H D] and bias [D].
      context: [B N T H].

    Returns:
      [B T D].
    """
    n, h, d = output.kernel.shape
    flat = context.transpose(0, 2, 1, 3).reshape(context.shape[0], context.shape[2], n * h)
    return add_bias(token_matmul(flat, output.kernel.reshape(n * h, d)), output.bias)


def project_heads(linear: Linear, hidden: Float[Array, "B T D"]) -> Float[Array, "B N T H"]:
    """Queries, keys or values of every head.

    Args:
      linear: kernel [D N H] and bias [N H].
      hidden: [B T D].

    Returns:
      [B N T H].

    >>> import jax.numpy as jnp
    >>> project_heads(Linear(kernel=jnp.ones((6, 3, 2))), jnp.ones((1, 5, 6))).shape
    (1, 3, 5, 2)
    """
    # One flat matrix product and an explicit transpose: XLA's CPU backend runs the equivalent three-axis
    # einsum about 1.5 times slower.
    d, n, h = linear.kernel.shape
    flat = token_matmul(hidden, linear.kernel.reshape(d, n * h))
    flat = add_bias(flat, None if linear.bias is None else linear.bias.reshape(n * h))
    return flat.reshape(*hidden.shape[:2], n, h).transpose(0, 2, 1, 3)


def add_bias(flat: Float[Array, "B T K"], bias: Float[Array, " K"] | None) -> Float[Array, "B T K"]:
    """`flat + bias`, or `flat` for a map without a bias."""
    return flat if bias is None else flat + bias[None, None]
