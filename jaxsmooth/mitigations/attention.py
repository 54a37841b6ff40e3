"""Remedies that change the attention matrix: what each makes of A, or of the scores that A comes from, on arrays.

J0 = 1 1^T / n is uniform attention over the n real tokens. All keep padded keys at zero, and all but dropout give the
rows of real tokens equal sums, which is what Shi et al.'s Lemma 1(4) needs.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ..errors import arguments_checked
from ..linalg.precision import einsum
from ..theory.operators import uniform_attention

Strength = Float[Array, ""] | Float[Array, " N"] | float
"""One number for all heads, or one per head."""


@arguments_checked
def attn_scale(
    attn: Float[Array, "*B N T S"], mask: Bool[Array, "*B S"], strength: Strength
) -> Float[Array, "*B N T S"]:
    """AttnScale, A' = J0 + (1 + w)(A - J0): what attention passes of the differences between tokens, times 1 + w.

    `theory.wang2022_attn_scale` is the same for one head; J A' = (1 + w) J A exactly, so sqrt(lambda) grows by |1 + w|.

    Args:
      attn: rows over real keys, [..., N, T, S].
      mask: True on real tokens, [..., S].
      strength: w of every head, [] or [N]; learned from 0 in the paper, and 0 changes nothing.

    Returns:
      [..., N, T, S]; rows keep their sums, entries may be negative. Under a causal mask it breaks causality.

    >>> import jax.numpy as jnp
    >>> attn_scale(jnp.array([[[0.75, 0.25], [0.5, 0.5]]]), jnp.ones(2, bool), 1.0)
    Array([[[1. , 0. ],
            [0.5, 0.5]]], dtype=float32)

    References: after Wang et al. (2022), arXiv 2203.05962.
    """
    uniform = _uniform(attn, mask)
    return uniform + (1 + per_head(strength, attn)) * (attn - uniform)


@arguments_checked
def centred_attention(
    attn: Float[Array, "*B N T S"], mask: Bool[Array, "*B S"], strength: Strength = 1.0
) -> Float[Array, "*B N T S"]:
    """A - c J0: attention without (c = 1) the eigenvalue 1 of consensus; rows sum to 1 - c.

    `theory.ali2023_centring_keeps_distance`: with fixed A and no residual d_M stays exactly what it was. Only the mean
    goes, so relative measures change and absolute ones do not.

    Args:
      attn: rows over real keys, [..., N, T, S].
      mask: True on real tokens, [..., S].
      strength: c of every head, [] or [N].

    Returns:
      [..., N, T, S]. Under a causal mask it breaks causality.

    >>> import jax.numpy as jnp
    >>> centred_attention(jnp.array([[[0.75, 0.25], [0.5, 0.5]]]), jnp.ones(2, bool))
    Array([[[ 0.25, -0.25],
            [ 0.  ,  0.  ]]], dtype=float32)

    References: after Ali et al. (2023), arXiv 2306.01610.
    """
    return attn - per_head(strength, attn) * _uniform(attn, mask)


@arguments_checked
def graph_filter(
    attn: Float[Array, "*B N T S"],
    mask: Bool[Array, "*B S"],
    power: Strength,
    *,
    identity: Strength = 0.0,
    linear: Strength = 1.0,
    order: Int[Array, ""] | int = 3,
) -> Float[Array, "*B N T S"]:
    """GFSA, w0 I + w1 A + wK [A + (K - 1)(A^2 - A)]: a polynomial filter whose last term approximates A^K.

    The bracket is A^K to first order in the step from A to A^2. An eigenvalue x of A becomes
    w0 + w1 x + wK (x + (K - 1)(x^2 - x)); `theory.choi2024_filter_response` is that curve.

    Args:
      attn: rows over real keys, [..., N, T, S].
      mask: True on real tokens, [..., S].
      power: wK of every head, [] or [N]; learned from 0 in the paper.
      identity: w0.
      linear: w1; 1 in the paper at initialisation.
      order: K.

    Returns:
      [..., N, T, S]; rows of real tokens sum to w0 + w1 + wK. A causal A stays causal.

    >>> import jax.numpy as jnp
    >>> graph_filter(jnp.array([[[0.0, 1.0], [1.0, 0.0]]]), jnp.ones(2, bool), 1.0, linear=0.0, order=2)
    Array([[[1., 0.],
            [0., 1.]]], dtype=float32)

    References: after Choi et al. (2024), GFSA, arXiv 2312.04234.
    """
    w0, w1, wk = (per_head(w, attn) for w in (identity, linear, power))
    steps = jnp.asarray(order - 1).astype(attn.dtype)
    eye = jnp.broadcast_to(jnp.eye(attn.shape[-2], attn.shape[-1], dtype=attn.dtype), attn.shape)
    eye = jnp.where(mask[..., None, None, :], eye, 0)
    squared = einsum("...ij,...jk->...ik", attn, attn)
    return w0 * eye + w1 * attn + wk * (attn + steps * (squared - attn))


@arguments_checked
def temp_scale(logits: Float[Array, "*B N T S"], temperature: Strength) -> Float[Array, "*B N T S"]:
    """TempScale, scores over a temperature: below 1 attention is sharper, and passes more of what differs.

    The entropy of every row falls with the temperature. With it every bound by the scores' range holds for scores
    1 / temperature as large: `theory.oscillation_ergodicity`, `theory.attention_dilution`.

    Args:
      logits: scores before the softmax, [..., N, T, S].
      temperature: tau > 0 of every head, [] or [N]; 1 changes nothing.

    Returns:
      [..., N, T, S]. Nothing is learned, and a causal model stays causal.

    >>> import jax.numpy as jnp
    >>> temp_scale(jnp.array([[[1.0, -2.0]]]), 0.5)
    Array([[[ 2., -4.]]], dtype=float32)

    References: Zhou et al. (2024), arXiv 2410.24200; one temperature for all layers, as in their released code.
    """
    return logits / per_head(temperature, logits)


@arguments_checked
def length_scale(
    logits: Float[Array, "*B N T S"], mask: Bool[Array, "*B S"], reference: Float[Array, ""] | Int[Array, ""] | float
) -> Float[Array, "*B N T S"]:
    """Scores times log n / log n0, n the number of real tokens: a temperature that falls with the length.

    With scores of one range no key keeps a share of the attention as n grows (`theory.attention_dilution`); with scores
    that grow like log n it can.

    Args:
      logits: scores before the softmax, [..., N, T, S].
      mask: True on real tokens, [..., S].
      reference: n0 > 1, the length at which nothing changes.

    Returns:
      [..., N, T, S]; a sentence of one token is left as it is. Every token's scores depend on how many there are.

    >>> import jax.numpy as jnp
    >>> length_scale(jnp.array([[[1.0, -2.0]] * 2]), jnp.ones(2, bool), 4.0)[0, 0]
    Array([ 0.5, -1. ], dtype=float32)

    References: after Nakanishi (2025), Scalable-Softmax, arXiv 2501.19399, who learns the factor s of s log n; here it
    is 1 / log n0.
    """
    count = jnp.sum(mask, axis=-1).astype(logits.dtype)
    factor = jnp.log(jnp.maximum(count, 2)) / jnp.log(jnp.asarray(reference).astype(logits.dtype))
    return logits * jnp.where(count > 1, factor, 1)[..., None, None, None]


@arguments_checked
def symmetric_scores(logits: Float[Array, "*B N T T"]) -> Float[Array, "*B N T T"]:
    """(S + S^T) / 2: scores whose exponentials are a symmetric affinity, the weights of an undirected graph.

    Where W_Q = W_K and there is no bias, scores are symmetric already and nothing changes.

    Args:
      logits: S before the softmax, [..., N, T, T].

    Returns:
      [..., N, T, T].

    >>> import jax.numpy as jnp
    >>> symmetric_scores(jnp.array([[[0.0, 2.0], [4.0, 1.0]]]))
    Array([[[0., 3.],
            [3., 1.]]], dtype=float32)

    References: after Shi et al. (2022), arXiv 2202.08625, section 3.
    """
    return (logits + jnp.swapaxes(logits, -1, -2)) / 2


@arguments_checked
def symmetric_attention(attn: Float[Array, "*B N T T"]) -> Float[Array, "*B N T T"]:
    """D^(-1/2) A D^(-1/2) from the softmax P = D^(-1) A of symmetric scores: the square root of P_ij P_ji.

    P_ij P_ji = A_ij^2 / (d_i d_j), whatever factor A has. It keeps D^(1/2) 1 in place (`theory.symmetric_basis` of the
    degrees that `theory.shi2022_affinity` has), not equal tokens.

    Args:
      attn: rows over real keys, [..., N, T, T]; of `symmetric_scores`, or the result is no graph's.

    Returns:
      [..., N, T, T], symmetric; rows and columns of padding are zero, as padded keys have no weight.

    >>> import jax.numpy as jnp
    >>> symmetric_attention(jnp.array([[[0.5, 0.5], [0.125, 0.875]]]))
    Array([[[0.5  , 0.25 ],
            [0.25 , 0.875]]], dtype=float32)

    References: Kipf and Welling (2017), arXiv 1609.02907; Shi et al. (2022), arXiv 2202.08625, section 3.
    """
    squared = attn * jnp.swapaxes(attn, -1, -2)
    return jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1)), 0)  # its slope at 0 is no number


@arguments_checked
def attention_dropout(
    attn: Float[Array, "*B N T S"], key: PRNGKeyArray, rate: Float[Array, ""] | float
) -> Float[Array, "*B N T S"]:
    """Every attention weight is zeroed with probability `rate`, the others are divided by 1 - rate.

    Rows no longer sum to 1, nor to equal values: Shi et al.'s Lemma 1(4) does not hold, and neither do the bounds that
    rest on it (L0 to L3). The draw of a weight depends on the sentence's, head's, query's and key's place alone, so
    padding a batch further changes nothing.

    Args:
      attn: attention probabilities, [..., N, T, S].
      key: a `jax.random.key`; fold the layer into it.
      rate: probability of zero, at least 0 and below 1.

    Returns:
      [..., N, T, S], in expectation `attn`.

    >>> import jax
    >>> attention_dropout(jnp.ones((1, 1, 2)), jax.random.key(1), 0.5)
    Array([[[2., 0.]]], dtype=float32)

    References: Srivastava et al. (2014); on attention weights, Vaswani et al. (2017), arXiv 1706.03762.
    """
    lead = attn.shape[:-2]
    rows = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(math.prod(lead)))
    drawn = jax.vmap(lambda row: _uniforms(row, *attn.shape[-2:]))(rows).reshape(attn.shape)
    kept = jnp.asarray(1 - rate).astype(attn.dtype)
    return jnp.where(drawn < 1 - jnp.asarray(rate, drawn.dtype), attn / kept, 0)


def per_head(strength: Strength, attn: Float[Array, "*B N T S"]) -> Float[Array, "..."]:
    """A strength in the dtype of `attn`, shaped to multiply it without rank promotion.

    >>> import jax.numpy as jnp
    >>> per_head(jnp.ones(3), jnp.ones((2, 3, 5, 5))).shape
    (1, 3, 1, 1)
    """
    cast = jnp.asarray(strength).astype(attn.dtype)
    return cast.reshape((1,) * (attn.ndim - 3) + (-1, 1, 1)) if cast.ndim else cast


def _uniform(attn: Array, mask: Array) -> Array:
    shared = jnp.broadcast_to(mask[..., None, :], (*attn.shape[:-2], attn.shape[-1]))
    return uniform_attention(attn, shared)


def _uniforms(key: Array, queries: int, keys: int) -> Array:
    """[T S] numbers in [0, 1), each from a key of its own place: the same in a longer padding."""

    def one(t: Array, s: Array) -> Array:
        return jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, t), s))

    return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(jnp.arange(queries), jnp.arange(keys))
