"""Where the block operator stretches most: near the inputs in which one token differs from the others.

A trained head often lets most tokens attend to one, [CLS] say; what that token carries then reaches all of
them at once. Inputs X = e_s b^T, one token s and features b, are therefore a good place to start the search for
the operator's largest singular value, and restricted to b in a few features they cost next to nothing.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .spectrum import start_vector
from .subspace import centre_features
from .weights import BlockWeights

FEATURES = 32  # directions of features tried for every token
SHARPNESS = 8  # power of a token's own stretch, relative to the best, with which it enters the start
NOISE = 0.1  # norm of the random part: whatever the tokens miss, the start does not


def source_token_starts(
    weights: BlockWeights,
    attn: Float[Array, "B N T S"],
    weighted: Float[Array, "B N T S"],
    diagonal: Float[Array, "B S"],
) -> Float[Array, "B 2 S D"]:
    """Two starting vectors for the largest eigenvalue of T* T, T(X) = L^(1/2) (X + sum_h A_h X W_h) C.

    For X = e_s b^T, ||T(X)||^2 is a quadratic form in b: l_ss ||C b||^2 + 2 sum_h (L A_h)_ss <C b, C W_h^T b> +
    sum_hg (A_h^T L A_g)_ss <C W_h^T b, C W_g^T b>. Its largest eigenvector over b in `leading_features`, found for
    every s, is summed over s, the tokens that stretch more counting far more, and a little noise is added.

    Args:
      weights: the block's parameters.
      attn: A_h, [B N T S].
      weighted: L A_h, L zero on padding, [B N T S].
      diagonal: of L, [B S].

    Returns:
      [B 2 S D], neither normalised nor centred.
    """
    features = leading_features(weights)
    count = features.shape[1]
    heads = jnp.einsum("dm,dnh->mnh", features, weights.value)
    heads = jnp.einsum("mnh,nhd->nmd", heads, centre_features(weights.output))
    own = centre_features(features.T)
    pairs = jnp.einsum("nid,gjd->ngij", heads, heads)
    form = jnp.einsum("bnts,bgts->bsng", attn, weighted).reshape(*diagonal.shape, -1) @ pairs.reshape(-1, count**2)
    cross = jnp.einsum("id,njd->nij", own, heads)
    cross = jnp.einsum("bnss->bsn", weighted) @ (cross + cross.mT).reshape(-1, count**2)
    form = form + cross + diagonal[..., None] * (own @ own.T).reshape(1, 1, -1)
    form = form.reshape(*diagonal.shape, count, count)
    starts = start_vector((2, 1, 1, count), form.dtype)
    best = second = None
    pair = [jnp.broadcast_to(start, form.shape[:-1]) for start in starts]
    for _ in range(8):
        best, second = (jnp.einsum("bsij,bsj->bsi", form, _unit_rows(vector)) for vector in pair)
        second = second - jnp.sum(second * _unit_rows(best), axis=-1, keepdims=True) * _unit_rows(best)
        pair = [best, second]
    found = jnp.stack(pair, axis=1)
    stretch = jnp.linalg.norm(found, axis=-1, keepdims=True)
    share = stretch / jnp.maximum(jnp.max(stretch, axis=2, keepdims=True), jnp.finfo(stretch.dtype).tiny)
    chosen = share**SHARPNESS * _unit_rows(found) @ features.T
    noise = start_vector((1, *chosen.shape[1:]), chosen.dtype)
    return chosen + NOISE * noise / jnp.linalg.norm(noise)


def leading_features(weights: BlockWeights, count: int = FEATURES) -> Float[Array, "D M"]:
    """Orthonormal features that the heads together carry furthest: near the top eigenvectors of sum_h W_h C W_h^T.

    Args:
      weights: the block's parameters.
      count: how many; at most D.

    Returns:
      [D min(count, D)].
    """
    output = centre_features(weights.output)
    inner = jnp.einsum("nhd,ngd->nhg", output, output)
    start = start_vector((weights.value.shape[0], min(count, weights.value.shape[0])), weights.value.dtype)

    def iterate(_: int, features: Array) -> Array:
        heads = jnp.einsum("dnh,dm->nhm", weights.value, jnp.linalg.qr(features)[0])
        return jnp.einsum("dnh,nhg,ngm->dm", weights.value, inner, heads)

    return jnp.linalg.qr(jax.lax.fori_loop(0, 3, iterate, start))[0]


def _unit_rows(rows: Array) -> Array:
    norms = jnp.linalg.norm(rows, axis=-1, keepdims=True)
    return rows / jnp.where(norms > 0, norms, 1)
