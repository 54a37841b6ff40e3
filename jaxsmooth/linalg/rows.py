"""Softmax, standardisation and scaling of the rows of a matrix: what attention and LayerNorm are made of."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from .norms import binary_size, quotient, safe_sqrt

ROUNDING_OF_ROWS = 2.0**-7
"""By how much rows that sum to 1 may miss it where they are kept in bfloat16, of 8 bits; twice that, to be safe."""


def masked_softmax(logits: Float[Array, "*B S"], allowed: Bool[Array, "*#B S"]) -> Float[Array, "*B S"]:
    """Softmax of every row over its allowed columns; the others get exactly 0.

    Args:
      logits: [..., S].
      allowed: True on the columns that count, [..., S]; broadcast over the other axes, of which it has as many.

    Returns:
      [..., S]; a row without an allowed column is uniform over all of them, not NaN.

    >>> import jax.numpy as jnp
    >>> masked_softmax(jnp.zeros((1, 3)), jnp.array([[True, True, False]]))
    Array([[0.5, 0.5, 0. ]], dtype=float32)
    """
    # The lowest finite number, not -inf: exp still gives exactly 0 beside any allowed column, and a row without one
    # stays finite. torch transformers does the same.
    return _softmax(jnp.where(allowed, logits, jnp.finfo(logits.dtype).min))


@jax.custom_jvp
def _softmax(logits: Array) -> Array:
    return jax.nn.softmax(logits, axis=-1)


@_softmax.defjvp
def _softmax_tangent(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """Of which a backward pass keeps the probabilities alone."""
    probs = _softmax(*primals)
    moved = probs * tangents[0]
    return probs, moved - probs * moved.sum(axis=-1, keepdims=True)


def centre_features(matrix: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """H C: every row minus its own mean, which is what LayerNorm does first.

    >>> import jax.numpy as jnp
    >>> centre_features(jnp.array([1.0, 3.0]))
    Array([-1.,  1.], dtype=float32)
    """
    return matrix - jnp.mean(matrix, axis=-1, keepdims=True)


def row_std(centred: Float[Array, "*B D"], eps: float = 0.0) -> Float[Array, "*B 1"]:
    """sqrt(||u||^2 / d + eps) of every row u: the standard deviation of a centred row, the root mean square of any.

    >>> import jax.numpy as jnp
    >>> row_std(jnp.array([[3.0, 4.0, 0.0, 0.0]]))
    Array([[2.5]], dtype=float32)
    """
    root = jnp.sqrt if isinstance(eps, float) and eps > 0 else safe_sqrt
    return root(jnp.mean(centred**2, axis=-1, keepdims=True) + eps)


def wide_row_std(centred: Float[Array, "*B D"], root: Float[Array, "..."]) -> Float[Array, "*B 1"]:
    """sqrt(||u||^2 / d + root^2) of every row u, `row_std` whose squares neither overflow nor vanish.

    >>> import jax.numpy as jnp
    >>> wide_row_std(jnp.array([[3e30, 4e30, 0.0, 0.0]]), jnp.float32(0)) / 1e30
    Array([[2.5]], dtype=float32)
    """
    both = jnp.maximum(jnp.max(jnp.abs(centred), axis=-1, keepdims=True), root)
    size = binary_size(both, -1)
    return size * safe_sqrt(jnp.mean((centred / size) ** 2, axis=-1, keepdims=True) + (root / size) ** 2)


def scaled_softmax(
    logits: Float[Array, "*B S"], size: Float[Array, "..."], allowed: Bool[Array, "*#B S"]
) -> Float[Array, "*B S"]:
    """`masked_softmax` of logits times size^2, which may overflow.

    >>> import jax.numpy as jnp
    >>> scaled_softmax(jnp.array([[1.0, 2.0]]), jnp.float32(1e30), jnp.ones((1, 2), bool))
    Array([[0., 1.]], dtype=float32)
    """
    low = jnp.finfo(logits.dtype).min
    below = logits - jnp.max(jnp.where(allowed, logits, low), axis=-1, keepdims=True)
    for _ in range(2):
        below = jnp.maximum(below * size, -1e4)  # exp of it is 0 already
    return masked_softmax(below, allowed)


def standardise_rows(matrix: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """LayerNorm with unit gain, no shift and epsilon 0: every row gets mean 0 and norm sqrt(D).

    Args:
      matrix: [..., D].

    Returns:
      [..., D]; zero rows where all entries of a row are equal.

    >>> import jax.numpy as jnp
    >>> standardise_rows(jnp.array([[1.0, 3.0]]))
    Array([[-1.,  1.]], dtype=float32)
    """
    centred = centre_features(matrix)
    scaled = centred / binary_size(centred, -1)
    return quotient(scaled, row_std(scaled), 0)


def reciprocal(size: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """1 / size, and 0 where the size is 0: what to scale by when only zeros have size 0.

    >>> import jax.numpy as jnp
    >>> reciprocal(jnp.array([4.0, 0.0]))
    Array([0.25, 0.  ], dtype=float32)
    """
    return jnp.where(size > 0, 1 / jnp.where(size > 0, size, 1), 0)


def accumulation_dtype(dtype: DTypeLike) -> DTypeLike:
    """What sums over `dtype` are kept in: float64 for float64, else float32 (also for bfloat16)."""
    return jnp.float64 if dtype == jnp.float64 else jnp.float32


def widened(tree: Any) -> Any:
    """Every bfloat16 and float16 array of a pytree as float32: a model kept in either is measured in float32.

    >>> import jax.numpy as jnp
    >>> widened({"x": jnp.ones(1, jnp.bfloat16)})["x"].dtype
    dtype('float32')
    """
    return jax.tree.map(lambda x: x.astype(accumulation_dtype(x.dtype)) if x.dtype.itemsize == 2 else x, tree)
