"""Singular values to their own accuracy, and their derivatives where several are equal or zero."""

import functools

import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap
from jaxtyping import Array, Bool, Float

from .eigh import batched_eigh
from .norms import binary_size, norm, quotient, within
from .precision import at_least_float32, einsum

# Singular values above so many times sqrt(eps) of the largest lose nothing by the way of the Gram matrix.
RESOLVED = 4


@jax.custom_jvp
def row_singular_values(rows: Float[Array, "*B T D"]) -> Float[Array, "*B K"]:
    """Singular values of matrices of moderate size, largest first, K = min(T, D); zero from the number of rows on.

    The norms of U^T H, U the eigenvectors of the Gram matrix H H^T, are the fast way: an error of eps in U adds eps
    times the largest value to the others, squared. Where some are so small that this shows, all are found by LAPACK
    instead, of a matrix that has the same ones and its large numbers in front.

    The derivative of a value is u^T dH v. At equal values, where there is none, it is that of one choice of u and v; at
    zero it is 0. Second derivatives are not those of the values: u and v are held.

    Args:
      rows: [..., T, D]; zero rows count as none.

    Returns:
      [..., K].

    >>> import jax.numpy as jnp
    >>> row_singular_values(jnp.array([[3.0, 0.0, 0.0], [0.0, 4.0, 0.0]])).round(4)
    Array([4., 3.], dtype=float32)

    References: Higham (2000), QR factorization with complete pivoting and accurate computation of the SVD, for the
    order of rows and columns.
    """
    if 0 in rows.shape:
        return jnp.zeros((*rows.shape[:-2], min(rows.shape[-2:])), rows.dtype)
    flat = rows.reshape(-1, *rows.shape[-2:])
    values = norm(_from_gram(flat)[1])
    rank = jnp.minimum(jnp.sum(jnp.any(flat != 0, axis=-1), axis=-1), values.shape[-1])[:, None]
    least = jnp.take_along_axis(values, jnp.maximum(rank - 1, 0), axis=-1)[:, 0]
    lost = least < RESOLVED * jnp.sqrt(jnp.finfo(values.dtype).eps) * values[:, 0]
    one_by_one = functools.partial(jax.lax.map, lambda each: _decomposed_one(*each))
    values = jax.lax.platform_dependent((flat, values, lost), cpu=one_by_one, default=_decomposed)
    index = jnp.arange(values.shape[-1])[None]
    return jnp.where(index < rank, values, 0).reshape(*rows.shape[:-2], -1)


@row_singular_values.defjvp
def _tangent(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (rows,), (change,) = primals, tangents
    values = row_singular_values(rows)
    if 0 in rows.shape:
        return values, values
    left, images = _from_gram(jax.lax.stop_gradient(rows))
    right = quotient(images, norm(images, keepdims=True), 0)
    return values, jnp.where(values > 0, einsum("...tk,...td,...kd->...k", left, change, right), 0)


def largest_singular_pair(matrix: Float[Array, "*B T D"]) -> tuple[Float[Array, "*B T"], Float[Array, "*B D"]]:
    """Unit singular vectors u and v of the largest value, which has the derivative u^T dH v; v is 0 for a zero matrix.

    >>> import jax.numpy as jnp
    >>> [abs(side).tolist() for side in largest_singular_pair(jnp.array([[0.0, 2.0], [1.0, 0.0]]))]
    [[1.0, 0.0], [0.0, 1.0]]
    """
    matrix = jax.lax.stop_gradient(matrix)
    left, images = _from_gram(matrix / binary_size(matrix, (-2, -1)))
    return left[..., 0], quotient(images[..., 0, :], norm(images[..., 0, :], keepdims=True), 0)


@at_least_float32
def effective_rank_of(values: Float[Array, "*B K"]) -> Float[Array, "*B"]:
    """exp(-sum_k p_k ln p_k) of singular values, p their shares of their sum: from 1 (rank one) to the rank.

    >>> effective_rank_of(jnp.array([2.0, 2.0, 0.0])).round(4)
    Array(2., dtype=float32)

    References: Roy and Vetterli (2007), The effective rank: a measure of effective dimensionality.
    """
    values = values / binary_size(values, -1)
    share = quotient(values, jnp.sum(values, axis=-1, keepdims=True))
    # -p ln p has an infinite slope at 0, where the rank has none: a share of 1, which adds 0, replaces it.
    rank = jnp.exp(jnp.sum(jax.scipy.special.entr(jnp.where(share == 0, 1, share)), axis=-1))
    return within(rank, 1, _rank(values))


@at_least_float32
def stable_rank_of(values: Float[Array, "*B K"]) -> Float[Array, "*B"]:
    """sum_k s_k^2 / s_1^2 of singular values, largest first: from 1 to the rank.

    >>> stable_rank_of(jnp.array([2.0, 1.0]))
    Array(1.25, dtype=float32)

    References: Rudelson and Vershynin (2007), Sampling from large matrices.
    """
    values = values / binary_size(values, -1)
    rank = jnp.sum(quotient(values, values[..., :1]) ** 2, axis=-1)
    return within(rank, 1, _rank(values))


def _rank(values: Array) -> Array:
    return jnp.maximum(jnp.sum(values > 0, axis=-1), 1).astype(values.dtype)


def _from_gram(rows: Array) -> tuple[Array, Array]:
    """K left singular vectors in columns, that of the largest value first, and their images U^T H."""
    wide = rows.mT if rows.shape[-2] > rows.shape[-1] else rows
    vectors = batched_eigh(einsum("...td,...sd->...ts", wide, wide))[1]
    images = einsum("...tk,...td->...kd", vectors, wide)
    size = norm(images, keepdims=True)
    order = jnp.argsort(-size, axis=-2)
    images = jnp.take_along_axis(images, order, axis=-2)
    vectors = jnp.take_along_axis(vectors, order.mT, axis=-1)
    if rows is wide:
        return vectors, images
    # Of the transpose: its right vectors are the left ones here.
    size = jnp.take_along_axis(size, order, axis=-2)
    return quotient(images, size, 0).mT, vectors.mT * size


def _decomposed(each: tuple[Array, Array, Array]) -> Array:
    """LAPACK's values in the place of those that are lost, [N K]."""
    rows, values, lost = each
    exact = lambda: jnp.where(lost[:, None], _graded_values(rows, values.shape[-1]), values)  # noqa: E731
    return jax.lax.cond(jnp.any(lost), exact, lambda: values)


@sequential_vmap
def _decomposed_one(rows: Array, values: Array, lost: Bool[Array, ""]) -> Array:
    return jax.lax.cond(lost, lambda: _graded_values(rows, values.shape[-1]), lambda: values)


def _graded_values(rows: Array, count: int) -> Array:
    """By an SVD of the mean row and of what is left of every row, which have H's Gram matrix of features.

    Differences from one row are exact where rows are alike, so that a row common to all, however large, costs the
    others nothing; rows that are not alike stay as they are. With large rows and columns in front, small singular
    values keep their own digits.
    """
    real = jnp.any(rows != 0, axis=-1, keepdims=True)
    number = jnp.maximum(jnp.sum(real, axis=-2, keepdims=True), 1).astype(rows.dtype)
    first = jnp.take_along_axis(rows, jnp.argmax(real, axis=-2, keepdims=True), axis=-2)
    apart = jnp.where(real, rows - first, 0)
    offset = jnp.sum(apart, axis=-2, keepdims=True) / number
    rest = jnp.where(real, apart - offset, 0)
    alike = 4 * jnp.sum(rest**2, axis=(-2, -1), keepdims=True) < jnp.sum(rows**2, axis=(-2, -1), keepdims=True)
    common = jnp.where(alike, jnp.sqrt(number) * (first + offset), 0)
    parts = jnp.concatenate([common, jnp.where(alike, rest, rows)], axis=-2)
    for axis in (-1, -2):
        order = jnp.argsort(-norm(parts, axis, keepdims=True), axis=-3 - axis)
        parts = jnp.take_along_axis(parts, order, axis=-3 - axis)
    return jnp.linalg.svd(parts, compute_uv=False)[..., :count]
