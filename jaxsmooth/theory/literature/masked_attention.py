"""Collapse under masks, non-linearities and LayerNorm: what is proved to collapse, and explicit cases that do not.

Proofs are in docs/catalogue.md.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ...errors import arguments_checked
from ...linalg.norms import binary_size
from ...linalg.precision import at_least_float32, einsum, matmul
from ...linalg.rows import scaled_softmax, standardise_rows
from ..consensus import diameter, real_pairs, real_tokens
from ..markov.stochastic import ergodicity_coefficient, token_spread
from ..mixing import is_row_stochastic
from ..statement import Statement

# math, not jnp: a constant of the module must not depend on the precision jax had when it was imported.
_PLANE = ((1 / math.sqrt(2), -1 / math.sqrt(2), 0.0), (1 / math.sqrt(6), 1 / math.sqrt(6), -2 / math.sqrt(6)))


class FixedPoint(NamedTuple):
    """A state that attention with LayerNorm returns to itself.

    Attributes:
      hidden: X, two tokens of three features, [T D].
      value: W_V, [D D].
      attn: its attention, softmax(X X^T / sqrt 3), [T S].
    """

    hidden: Float[Array, "T D"]
    value: Float[Array, "D D"]
    attn: Float[Array, "T S"]


@at_least_float32
def wu2024_radius(graph: Bool[Array, "*B T S"], mask: Bool[Array, "*B T"]) -> Int[Array, "*B"]:
    """Radius of an attention mask: the fewest layers after which some token has reached every token.

    Args:
      graph: True where query t may attend to key s, [..., T, S].
      mask: True on real tokens, [..., T].

    Returns:
      [...]; 0 for a single token, -1 where no token reaches all others (the graph has no root).

    >>> import jax.numpy as jnp
    >>> window = jnp.array([[True, False, False], [True, True, False], [False, True, True]])
    >>> wu2024_radius(window, jnp.ones(3, bool))
    Array(2, dtype=int32)

    References: after Wu et al. (2024), arXiv 2405.18781.
    """
    real = real_pairs(mask)
    step = (graph & real).astype(jnp.float32)
    eye = jnp.broadcast_to(jnp.eye(graph.shape[-1], dtype=bool), graph.shape)

    def grow(distance: Int[Array, ""], state: tuple[Array, Array]) -> tuple[Array, Array]:
        reached, radius = state
        rooted = jnp.any(jnp.all(reached | ~mask[..., :, None], axis=-2) & mask, axis=-1)
        radius = jnp.where((radius < 0) & rooted, distance.astype(jnp.int32), radius)
        return reached | (matmul(step, reached.astype(jnp.float32)) > 0), radius

    never = jnp.full(mask.shape[:-1], -1, jnp.int32)
    return jax.lax.fori_loop(0, graph.shape[-1], grow, (eye & real, never))[1]


@at_least_float32
def wu2024_collapse_rate(
    least_weight: Float[Array, "*B"], radius: Int[Array, "*B"], depth: Int[Array, ""] | int
) -> Float[Array, "*B"]:
    """(1 - eps^r)^floor(t / r): how far masked attention has collapsed after t layers, at least.

    eps is the least attention weight that the mask allows, r the radius of the mask. Local masks have larger radii:
    they collapse later, but collapse.

    Args:
      least_weight: eps, [...].
      radius: r, [...]; 0 counts as 1.
      depth: t.

    Returns:
      [...]; 1, which promises nothing, where r is negative: the mask has no root.

    >>> import jax.numpy as jnp
    >>> wu2024_collapse_rate(jnp.array([0.5, 0.5]), jnp.array([1, 2]), 4)
    Array([0.0625, 0.5625], dtype=float32)

    References: after Wu et al. (2024), arXiv 2405.18781, with the constant made explicit.
    """
    least = jnp.maximum(radius, 1)
    whole = (depth // least).astype(least_weight.dtype)
    return jnp.where(radius < 0, 1, (1 - least_weight ** least.astype(least_weight.dtype)) ** whole)


@at_least_float32
def wu2024_masked_attention(
    attn: Float[Array, "L *B T S"],
    hidden: Float[Array, "*B T D"],
    graph: Bool[Array, "*B T S"],
    mask: Bool[Array, "*B T"],
) -> Statement:
    """Masked attention collapses: D(A_L ... A_1 X) <= (1 - eps^r)^floor(L / r) D(X), D the largest distance of tokens.

    eps is the least entry of any A_l on the edges of the mask, r its radius.

    Args:
      attn: A_l of every layer, rows of sum 1, [L, ..., T, S].
      hidden: X, [..., T, D].
      graph: True where a query may attend to a key, in every layer, [..., T, S].
      mask: True on real tokens, [..., T].

    Returns:
      A `Statement`, [...]; applicable where the graph has a root, every real token attends to itself, and weights
      are not negative and sum to 1 in every layer; weights off the graph do no harm.

    >>> import jax.numpy as jnp
    >>> attn = jnp.array([[[1.0, 0.0], [0.25, 0.75]]])
    >>> found = wu2024_masked_attention(attn, jnp.array([[0.0], [1.0]]), attn[0] > 0, jnp.ones(2, bool))
    >>> [float(side) for side in found[:2]]
    [0.75, 0.75]

    References: after Wu et al. (2024), arXiv 2405.18781; proof in docs/catalogue.md.
    """
    real = real_pairs(mask)
    radius = wu2024_radius(graph, mask)
    edges = jnp.broadcast_to((graph & real)[None], attn.shape)
    least = jnp.min(jnp.where(edges, attn, jnp.inf), axis=(0, -2, -1))
    after = jax.lax.scan(lambda x, a: (matmul(jnp.where(real, a, 0), x), None), hidden, attn)[0]
    rate = wu2024_collapse_rate(least, radius, attn.shape[0])
    loops = jnp.all(jnp.diagonal(graph, axis1=-2, axis2=-1) | ~mask, axis=-1)
    stochastic = jnp.all(is_row_stochastic(attn, jnp.broadcast_to(mask[None], attn.shape[:-1])), axis=0)
    return Statement(
        lhs=diameter(after, mask),
        rhs=rate * diameter(hidden, mask),
        applicable=(radius >= 0) & loops & stochastic,
    )


@at_least_float32
def wu2023_gat_collapse(
    before: Float[Array, "*B T D"],
    after: Float[Array, "*B T E"],
    attn: Float[Array, "*B T S"],
    weight: Float[Array, "*B D E"],
    mask: Bool[Array, "*B T"],
) -> Statement:
    """One graph-attention layer contracts: max_k osc_k(phi(A X W)) <= tau(A) max_k sum_j |W_jk| max_k osc_k(X).

    osc_k is the range of feature k over real tokens and phi any activation with slopes in [0, 1] (ReLU, tanh). Over
    layers the factors multiply, to C q^t. A ratio phi(x) / x in [0, 1], without the bound on slopes, does not suffice
    for a single layer.

    Args:
      before: X, [..., T, D].
      after: phi(A X W), [..., T, E].
      attn: A, rows of sum 1, zero on padded keys, [..., T, S].
      weight: W, [..., D, E].
      mask: True on real tokens, [..., T].

    Returns:
      A `Statement`, [...]; the slope of phi is not checked, applicable where a token is real and the weights of real
      tokens are not negative and sum to 1.

    >>> import jax, jax.numpy as jnp
    >>> x, attn = jnp.array([[2.0], [0.0]]), jnp.array([[0.75, 0.25], [0.25, 0.75]])
    >>> found = wu2023_gat_collapse(x, jax.nn.relu(attn @ x), attn, jnp.ones((1, 1)), jnp.ones(2, bool))
    >>> [float(side) for side in found[:2]]
    [1.0, 1.0]

    References: after Wu et al. (2023), arXiv 2305.16102, with the constants made explicit; proof in docs/catalogue.md.
    """
    norm = jnp.max(jnp.sum(jnp.abs(weight), axis=-2), axis=-1)
    return Statement(
        lhs=jnp.max(token_spread(after, mask), axis=-1),
        rhs=ergodicity_coefficient(attn, mask) * norm * jnp.max(token_spread(before, mask), axis=-1),
        applicable=jnp.any(mask, axis=-1) & is_row_stochastic(attn, mask),
    )


@at_least_float32
def wu2024_layer(
    hidden: Float[Array, "*B T D"],
    mask: Bool[Array, "*B T"],
    query_key: Float[Array, "D D"],
    value: Float[Array, "D D"],
) -> Float[Array, "*B T D"]:
    """LN(softmax(X W_QK X^T / sqrt D) X W_V): attention with LayerNorm, no residual, no MLP, no gain.

    Args:
      hidden: X, [..., T, D].
      mask: True on real tokens, [..., T].
      query_key: W_Q W_K^T, [D, D].
      value: W_V, [D, D].

    Returns:
      [..., T, D].

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[1.0, 0.0, -1.0], [1.0, 0.0, -1.0]])
    >>> wu2024_layer(x, jnp.ones(2, bool), jnp.eye(3), jnp.eye(3)).round(4)[0]
    Array([ 1.2247,  0.    , -1.2247], dtype=float32)

    References: after Wu et al. (2024), arXiv 2405.18781.
    """
    real = real_tokens(hidden, mask)
    size = binary_size(real, (-2, -1))  # LN forgets it, and the logits are of its square
    scaled = real / size
    # The product as it comes: a quotient by sqrt D that a program computes twice, rounded in two ways, is no softmax.
    logits = einsum("...td,de,...se->...ts", scaled, query_key, scaled)
    attn = scaled_softmax(logits, size / hidden.shape[-1] ** 0.25, mask[..., None, :])
    return standardise_rows(matmul(matmul(attn, scaled), value))


@arguments_checked
def wu2024_equilibrium() -> FixedPoint:
    """Two orthogonal tokens that attention with LayerNorm leaves unchanged: rank 2, cosine 0. Unstable.

    f_1 = (1, -1, 0)/sqrt 2, f_2 = (1, 1, -2)/sqrt 6, X = sqrt 3 [f_1 f_2]^T, W_QK = I, A = [[a, 1-a], [1-a, a]] with
    a = e^sqrt3 / (1 + e^sqrt3), W_V = F A^{-1} F^T: then LN(A X W_V) = X.

    Returns:
      A `FixedPoint` in jax's default precision.

    >>> import jax.numpy as jnp
    >>> x, value, _ = wu2024_equilibrium()
    >>> bool(jnp.allclose(wu2024_layer(x, jnp.ones(2, bool), jnp.eye(3), value), x, atol=1e-5))
    True

    References: constructed here, docs/catalogue.md; that such cases exist is Wu et al. (2024), arXiv 2405.18781.
    """
    frame = jnp.array(_PLANE).T
    a = jax.nn.sigmoid(jnp.sqrt(jnp.array(3.0)))
    attn = jnp.array([[a, 1 - a], [1 - a, a]])
    inverse = jnp.array([[a, a - 1], [a - 1, a]]) / (2 * a - 1)
    return FixedPoint(hidden=math.sqrt(3) * frame.T, value=matmul(matmul(frame, inverse), frame.T), attn=attn)


@arguments_checked
def wu2024_antipodal() -> FixedPoint:
    """Two opposite tokens, as far apart as LayerNorm allows, that ATTRACT their neighbourhood. W_QK = I.

    X = sqrt 3 (f_1, -f_1), W_V = f_1 f_1^T + f_2 f_2^T / 2; in the plane of f_1 and f_2 a perturbation common to both
    tokens shrinks by 1 / (2 tanh sqrt 3) = .532 per layer, an opposite one by 1/2.

    Returns:
      A `FixedPoint` in jax's default precision.

    >>> import jax.numpy as jnp
    >>> x, value, _ = wu2024_antipodal()
    >>> bool(jnp.allclose(wu2024_layer(x, jnp.ones(2, bool), jnp.eye(3), value), x, atol=1e-5))
    True

    References: constructed here, docs/catalogue.md; that such cases exist is Wu et al. (2024), arXiv 2405.18781.
    """
    first, second = jnp.array(_PLANE)
    a = jax.nn.sigmoid(2 * jnp.sqrt(jnp.array(3.0)))
    value = jnp.outer(first, first) + 0.5 * jnp.outer(second, second)
    return FixedPoint(
        hidden=math.sqrt(3) * jnp.stack([first, -first]), value=value, attn=jnp.array([[a, 1 - a], [1 - a, a]])
    )
