"""Where the block operator stretches most: near the inputs in which one token differs from the others.

A trained head often lets most tokens attend to one, [CLS] say; what that token carries then reaches all of
them at once. Inputs X = e_s b^T, one token s and features b, are therefore a good place to start the search for
the operator's largest singular value, and restricted to b in a few features they cost next to nothing.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...linalg.lanczos import start_vector
from ...linalg.precision import einsum, matmul
from ...types import Block
from ..consensus import centre_features

FEATURES = 32  # directions of features tried for every token
SHARPNESS = 8  # power of a token's own stretch, relative to the best, with which it enters a start
NOISE = 0.3  # norm of the random part: what no single token shows, the starts still hold
ROUNDS = 8  # of simultaneous iteration for the two best directions of a token; rough ones will do


def source_token_starts(
    block: Block,
    attn: Float[Array, "B N T S"],
    weighted: Float[Array, "B N T S"],
    diagonal: Float[Array, "B S"],
) -> Float[Array, "B 2 S D"]:
    """Two starting vectors for the largest eigenvalue of T* T, T(X) = L^(1/2) (X + sum_h A_h X W_h) C.

    For X = e_s b^T, ||T(X)||^2 is a quadratic form in b: l_ss ||C b||^2 + 2 sum_h (L A_h)_ss <C b, C W_h^T b> +
    sum_hg (A_h^T L A_g)_ss <C W_h^T b, C W_g^T b>. Its two largest eigenvectors over b in `leading_features` are
    found for every s; each start sums one of them over s, tokens that stretch more counting far more, plus noise.

    Args:
      block: the parameters.
      attn: A_h, [B N T S].
      weighted: L A_h, L zero on padding, [B N T S].
      diagonal: of L, [B S].

    Returns:
      [B 2 S D], neither normalised nor centred.
    """
    features = leading_features(block)
    forms = _token_forms(block, attn, weighted, diagonal, features)

    def iterate(_: Array, pair: Array) -> Array:
        best, second = jnp.moveaxis(einsum("bsij,bpsj->bpsi", forms, _unit_rows(pair)), 1, 0)
        unit = _unit_rows(best)
        return jnp.stack([best, second - jnp.sum(second * unit, axis=-1, keepdims=True) * unit], axis=1)

    pair = start_vector((2, features.shape[1]), forms.dtype)[None, :, None]
    pair = jnp.broadcast_to(pair, (forms.shape[0], 2, *forms.shape[1:-1]))
    found = jax.lax.fori_loop(0, ROUNDS, iterate, pair)
    stretch = jnp.linalg.norm(found, axis=-1, keepdims=True)
    share = stretch / jnp.maximum(jnp.max(stretch, axis=2, keepdims=True), jnp.finfo(stretch.dtype).tiny)
    chosen = matmul(share**SHARPNESS * _unit_rows(found), features.T)
    noise = start_vector((1, *chosen.shape[1:]), chosen.dtype)
    return chosen + NOISE * noise / jnp.linalg.norm(noise)


def _token_forms(block: Block, attn: Array, weighted: Array, diagonal: Array, features: Array) -> Array:
    """The quadratic form of every token in the given features, [B S M M]."""
    shape = (*diagonal.shape, *features.shape[1:], *features.shape[1:])
    inside = einsum("dm,dnh->nmh", features, block.attn.value.kernel)
    heads = einsum("nmh,nhd->nmd", inside, centre_features(block.attn.output.kernel))
    own = centre_features(features.T)
    pairs = einsum("nid,gjd->ngij", heads, heads).reshape(-1, shape[2] * shape[3])
    cross = einsum("id,njd->nij", own, heads)
    cross = (cross + cross.mT).reshape(-1, shape[2] * shape[3])
    by_pair = einsum("bnts,bgts->bsng", attn, weighted).reshape(*diagonal.shape, -1)
    alone = diagonal[..., None] * matmul(own, own.T).reshape(1, 1, -1)
    return (matmul(by_pair, pairs) + matmul(einsum("bnss->bsn", weighted), cross) + alone).reshape(shape)


def leading_features(block: Block, count: int = FEATURES) -> Float[Array, "D M"]:
    """Orthonormal features that the heads together carry furthest: near the top eigenvectors of sum_h W_h C W_h^T.

    Args:
      block: the parameters.
      count: how many; at most D.

    Returns:
      [D min(count, D)].
    """
    output = centre_features(block.attn.output.kernel)
    inner = einsum("nhd,ngd->nhg", output, output)
    start = start_vector(
        (block.attn.value.kernel.shape[0], min(count, block.attn.value.kernel.shape[0])), block.attn.value.kernel.dtype
    )

    def iterate(_: Array, features: Array) -> Array:
        heads = einsum("dnh,dm->nhm", block.attn.value.kernel, jnp.linalg.qr(features)[0])
        return einsum("dnh,nhg,ngm->dm", block.attn.value.kernel, inner, heads)

    return jnp.linalg.qr(jax.lax.fori_loop(0, 3, iterate, start))[0]


def _unit_rows(rows: Array) -> Array:
    norms = jnp.linalg.norm(rows, axis=-1, keepdims=True)
    return rows / jnp.where(norms > 0, norms, 1)
