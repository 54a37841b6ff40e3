"""The subspace of consensus: M = {1 c^T}, all tokens equal, and the distance to it.

M is Definition 1 of Shi et al. (2022). Their e must be read as the UNIT vector 1/sqrt(n): with e = ones their
Lemma 1(4) is false, for instance for A = [[.9, .1], [.8, .2]] and H = (1, -1)^T.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..errors import ShapeError
from ..linalg.norms import binary_size, norm, quotient, safe_sqrt, within
from ..linalg.precision import at_least_float32, einsum
from ..linalg.rows import centre_features as centre_features
from ..meshes import on_any_mesh


@at_least_float32
def token_mean(hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]) -> Float[Array, "*B 1 D"]:
    """Mean over real tokens: the coordinates of the projection onto M.

    Args:
      hidden: token vectors, [..., T, D].
      mask: True on real tokens, [..., T].

    Returns:
      [..., 1, D]; zero where a sentence has no real token.

    >>> import jax.numpy as jnp
    >>> token_mean(jnp.array([[1.0], [3.0], [99.0]]), jnp.array([True, True, False]))
    Array([[2.]], dtype=float32)
    """
    count = jnp.sum(mask, axis=-1)[..., None, None].astype(hidden.dtype)
    return jnp.sum(real_tokens(hidden, mask), axis=-2, keepdims=True) / jnp.maximum(count, 1)


@at_least_float32
def centre_tokens(hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]) -> Float[Array, "*B T D"]:
    """J H: every real token minus the mean of the real tokens; zero on padding.

    Args:
      hidden: token vectors, [..., T, D].
      mask: True on real tokens, [..., T].

    Returns:
      [..., T, D].

    >>> import jax.numpy as jnp
    >>> centre_tokens(jnp.array([[1.0], [3.0], [99.0]]), jnp.array([True, True, False])).ravel()
    Array([-1.,  1.,  0.], dtype=float32)
    """
    return real_tokens(hidden - token_mean(hidden, mask), mask)


@at_least_float32
@on_any_mesh()
def subspace_distance(hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]) -> Float[Array, "*B"]:
    """d_M(H) = min over Y in M of ||H - Y||_F = ||J H||_F, over real tokens.

    Args:
      hidden: token vectors, [..., T, D].
      mask: True on real tokens, [..., T].

    Returns:
      [...], in the units of `hidden`.

    >>> import jax.numpy as jnp
    >>> subspace_distance(jnp.array([[2.0, 2.0], [-2.0, -2.0]]), jnp.array([True, True]))
    Array(4., dtype=float32)

    References: Shi et al. (2022), arXiv 2202.08625, Definition 1.
    """
    return norm(centre_tokens(hidden, mask), (-2, -1))


@at_least_float32
@on_any_mesh()
def relative_distance(hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]) -> Float[Array, "*B"]:
    """d_M(H) / ||H||_F, in [0, 1]: the share of the hidden state that distinguishes tokens.

    Args:
      hidden: token vectors, [..., T, D].
      mask: True on real tokens, [..., T].

    Returns:
      [...]; NaN where every real token is the zero vector.

    >>> import jax.numpy as jnp
    >>> relative_distance(jnp.array([[3.0], [-3.0]]), jnp.array([True, True]))
    Array(1., dtype=float32)
    """
    real = real_tokens(hidden, mask)
    scaled = real / binary_size(real, (-2, -1))
    return within(quotient(subspace_distance(scaled, mask), norm(scaled, (-2, -1))), 0, 1)


@at_least_float32
def symmetric_basis(degrees: Float[Array, "*B T"], mask: Bool[Array, "*B T"]) -> Float[Array, "*B T 1"]:
    """D^(1/2) 1: what the symmetric normalisation D^(-1/2) A D^(-1/2) of a graph leaves in place, as 1 for D^(-1) A.

    Args:
      degrees: row sums of the symmetric, non-negative adjacency A, [..., T].
      mask: True on real tokens, [..., T].

    Returns:
      [..., T, 1], zero on padding.

    >>> import jax.numpy as jnp
    >>> symmetric_basis(jnp.array([1.0, 4.0, 9.0]), jnp.array([True, True, False])).ravel()
    Array([1., 2., 0.], dtype=float32)

    References: Oono and Suzuki (2020), arXiv 1905.10947, for graph convolutions; Shi et al. (2022), section 3.
    """
    return jnp.where(mask, safe_sqrt(degrees), 0)[..., None]


@at_least_float32
def orthonormal_basis(patterns: Float[Array, "*B T K"], mask: Bool[Array, "*B T"]) -> Float[Array, "*B T K"]:
    """Orthonormal columns with the same span over real tokens, by Gram and Schmidt, twice.

    Args:
      patterns: K patterns over tokens, for example the absorption probabilities of K closed classes, [..., T, K].
      mask: True on real tokens, [..., T].

    Returns:
      [..., T, K]; a pattern that depends on the ones before it, up to rounding, becomes a column of zeros.

    >>> import jax.numpy as jnp
    >>> frame = orthonormal_basis(jnp.array([[3.0, 1.0], [4.0, 1.0]]), jnp.ones(2, bool))
    >>> [round(float(x), 4) for x in frame.ravel()]
    [0.6, 0.8, 0.8, -0.6]
    """
    patterns = real_tokens(patterns, mask)
    floor = 64 * jnp.finfo(patterns.dtype).eps
    columns: list[Array] = []
    # One column after another in Python: there are as many as closed classes, a handful.
    for k in range(patterns.shape[-1]):
        column = patterns[..., k]
        size = norm(column, keepdims=True)
        for _ in range(2):
            for known in columns:
                column = column - known * jnp.sum(known * column, axis=-1, keepdims=True)
        left = norm(column, keepdims=True)
        new = left > floor * size
        columns.append(jnp.where(new, column / jnp.where(new, left, 1), 0))
    return jnp.stack(columns, axis=-1)


@at_least_float32
def project_away(
    hidden: Float[Array, "*B T D"], patterns: Float[Array, "*B T K"], mask: Bool[Array, "*B T"]
) -> Float[Array, "*B T D"]:
    """(I - Pi) H: the part of H that is no combination of the K patterns over tokens; zero on padding.

    With the one pattern 1 it is `centre_tokens`.

    >>> import jax.numpy as jnp
    >>> project_away(jnp.array([[1.0], [3.0]]), jnp.ones((2, 1)), jnp.ones(2, bool)).ravel().round(4)
    Array([-1.,  1.], dtype=float32)
    """
    frame = orthonormal_basis(patterns, mask)
    left = real_tokens(hidden, mask)
    # Twice, as a remainder much smaller than `hidden` keeps only what rounding left of it.
    for _ in range(2):
        left = left - einsum("...tk,...sk,...sd->...td", frame, frame, left)
    return left


@at_least_float32
def span_distance(
    hidden: Float[Array, "*B T D"], patterns: Float[Array, "*B T K"], mask: Bool[Array, "*B T"]
) -> Float[Array, "*B"]:
    """Distance of H to the states whose features all are combinations of K patterns over tokens, ||(I - Pi) H||_F.

    Three subspaces of interest: 1 (consensus, where it is `subspace_distance`), D^(1/2) 1 (`symmetric_basis`), and
    ker(I - A), to which attention with several closed classes converges, with one pattern of absorption
    probabilities for each class. What remains of Shi et al.'s Lemma 1 is in `block.invariant_subspaces`.

    Args:
      hidden: token vectors, [..., T, D].
      patterns: K patterns over tokens, any basis, [..., T, K].
      mask: True on real tokens, [..., T].

    Returns:
      [...], in the units of `hidden`.

    >>> import jax.numpy as jnp
    >>> two_classes = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> span_distance(jnp.array([[3.0], [5.0], [9.0]]), two_classes, jnp.ones(3, bool)).round(4)
    Array(1.4142, dtype=float32)

    References: after Oono and Suzuki (2020), arXiv 1905.10947.
    """
    return norm(project_away(hidden, patterns, mask), (-2, -1))


@at_least_float32
def diameter(hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]) -> Float[Array, "*B"]:
    """D(X): the largest distance of two real tokens; at most sqrt(2) d_M(X).

    Args:
      hidden: token vectors, [..., T, D].
      mask: True on real tokens, [..., T].

    Returns:
      [...], in the units of `hidden`.

    >>> import jax.numpy as jnp
    >>> diameter(jnp.array([[0.0], [3.0], [99.0]]), jnp.array([True, True, False]))
    Array(3., dtype=float32)
    """

    def farthest(i: Array) -> Array:
        distances = norm(hidden - hidden[..., i, None, :])
        return jnp.max(jnp.where(mask & mask[..., i, None], distances, 0), axis=-1)

    return jnp.max(jax.lax.map(farthest, jnp.arange(hidden.shape[-2])), axis=0)


def real_tokens(hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]) -> Float[Array, "*B T D"]:
    """The hidden states with zero on padding, whatever stood there.

    Raises:
      ShapeError: a mask that is not one truth value for each token vector. Every function of hidden states asks here.
    """
    if hidden.ndim < 2 or mask.shape != hidden.shape[:-1] or mask.dtype != jnp.bool_:
        raise ShapeError(
            f"hidden states are token vectors [..., T, D], their mask is boolean [..., T]; got {hidden.shape} and "
            f"{mask.shape} of {mask.dtype}. Of several layers, [L, B, T, D], it may be "
            "[B, T]. Of an attention_mask of zeros and ones it is "
            "`attention_mask == 1`."
        )
    return jnp.where(mask[..., None], hidden, 0)


def real_pairs(mask: Bool[Array, "*B T"]) -> Bool[Array, "*B T T"]:
    """True where query and key are both real tokens."""
    return mask[..., :, None] & mask[..., None, :]


def per_row(mask: Bool[Array, "..."], attn: Float[Array, "*B T S"]) -> Bool[Array, "*B T"]:
    """The mask of real tokens repeated for every head: [..., T] against `attn`'s [..., N, T, S], [B T] against the
    [L B N T S] of stacked layers.

    Raises:
      ShapeError: a mask that is not boolean or does not fit. Every function of attention asks here.
    """
    if mask.ndim == 2 and attn.ndim == 5 and mask.shape[:1] == attn.shape[1:2]:
        # Of stacked layers, [L B N T S]: its rows are the sentences, also where there are as many layers.
        mask = jnp.broadcast_to(mask, (attn.shape[0], *mask.shape))
    heads = attn.ndim - 1 - mask.ndim
    fits = mask.ndim > 0 and mask.shape == (*attn.shape[: mask.ndim - 1], *attn.shape[-2:-1])
    if not fits or heads < 0 or (heads > 1 < mask.ndim) or mask.dtype != jnp.bool_:
        raise ShapeError(
            f"attention is [..., T, S], its mask boolean [..., T] or, where the axis in front of T is heads, without "
            f"that; got {attn.shape} and {mask.shape} of {mask.dtype}. Of stacked layers, [L, B, N, T, S], it "
            "may be [B, T]. Of an attention_mask of zeros and ones it is "
            "`attention_mask == 1`."
        )
    lead = (1,) * heads
    return jnp.broadcast_to(mask.reshape(*mask.shape[:-1], *lead, mask.shape[-1]), attn.shape[:-1])
