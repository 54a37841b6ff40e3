"""Mixing of tokens by attention: how much it stretches the distance to consensus, and when that is a valid bound.

The mixing rate sqrt(lambda) = ||(I - e e^T) A|| bounds what A does to the distance to consensus if the rows of A have
one sum; `mixing_rate` takes it of matrices, `operator_norm` of attention that is never formed.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..linalg.batched_lanczos import largest_eigenvalues_of_batch
from ..linalg.lanczos import by_portions, default_tolerance, largest_eigenvalue, start_vector
from ..linalg.norms import binary_size, norm, quotient, safe_sqrt
from ..linalg.precision import at_least_float32, einsum
from ..linalg.rows import accumulation_dtype, reciprocal
from ..linalg.singular import largest_singular_pair
from ..meshes import on_any_mesh
from .consensus import centre_tokens, per_row
from .operators import Operator

FURTHER_ROUNDINGS = 16  # of every entry after the softmax: what edits of attention may add


@at_least_float32
@on_any_mesh()
def mixing_rate(
    attn: Float[Array, "*B T S"], mask: Bool[Array, "..."], *, tolerance: float | None = None
) -> Float[Array, "*B"]:
    """sqrt(lambda) = ||J A||_2 over real tokens: the most by which mixing with A can stretch d_M.

    It is the constant of Shi et al.'s Lemma 1(4), d_M(A H) <= sqrt(lambda) d_M(H), attained. Row-stochastic
    attention alone does not make it less than 1: its supremum over n tokens is sqrt(n / 2) for even n.

    Args:
      attn: attention whose rows sum to 1 over real keys and vanish on padded keys, [..., T, S].
      mask: True on real tokens, [..., T]; broadcast over the axes of `attn` in front of T (heads).
      tolerance: relative residual at which Lanczos stops; by default 1e-4 in float32, 1e-10 in float64.

    Returns:
      [...]; a lower estimate, usually far closer than the tolerance, less close when the largest eigenvalues are so
      near each other that the step limit ends the search. Its derivative is u^T dA v, of the singular vectors of J A,
      which are held: second derivatives are not those of the rate.

    >>> import jax.numpy as jnp
    >>> real = jnp.array([True, True])
    >>> [round(float(mixing_rate(jnp.array(a), real)), 4) for a in ([[0.5, 0.5], [0.5, 0.5]], [[1.0, 0.0], [0.0, 1.0]])]
    [0.0, 1.0]

    References: Shi et al. (2022), arXiv 2202.08625, Lemma 1 and Theorem 2.
    """
    tolerance = default_tolerance(attn.dtype) if tolerance is None else tolerance
    return _rates(tolerance, attn, per_row(mask, attn))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _rates(tolerance: float, attn: Array, real: Array) -> Array:
    shape = attn.shape[-2:]
    start = start_vector(shape[:1], attn.dtype)

    def apply(heads: tuple[Array, Array], v: Array) -> Array:
        # J A A^T J has the same largest eigenvalue as A^T J A, and vanishes on padded tokens.
        matrices, scale = heads
        return einsum("nts,ns->nt", matrices, einsum("nts,nt->ns", matrices, v) * scale) * scale

    def rates(heads: tuple[Array, Array]) -> Array:
        centred = centre_tokens(*heads)
        size = norm(centred, (1, 2))
        value = largest_eigenvalues_of_batch(apply, (centred, reciprocal(size)[:, None]), start, tolerance=tolerance)
        return size * jnp.sqrt(jnp.maximum(value, 0))

    flat = attn.reshape(-1, *shape), real.reshape(-1, shape[0])
    return by_portions(rates, flat).reshape(attn.shape[:-2])


@_rates.defjvp
def _rates_tangent(tolerance: float, primals: tuple[Array, Array], tangents: tuple[Array, Any]) -> tuple[Array, Array]:
    """u^T dA v: u, like J A, is zero on padding and in the direction of 1."""
    left, right = largest_singular_pair(centre_tokens(*primals))
    return _rates(tolerance, *primals), einsum("...t,...ts,...s->...", left, tangents[0], right)


def equal_row_sums(
    attn: Float[Array, "*B T S"], mask: Bool[Array, "..."], *, edited_from: float = 0.0
) -> Bool[Array, "*B"]:
    """Whether the rows of real tokens have one sum, up to rounding, and weight exactly 0 on padded keys.

    This is what Shi et al.'s Lemma 1(4) asks of a matrix. Sums count as equal that differ by at most
    (2 S eps_s + 16 eps) times the largest sum of moduli of a row; eps = 2 u is the spacing of the dtype at 1, eps_s
    that of the sums, which are taken in float32 at least. The rounding errors of two softmax rows of S keys never
    differ by more. Proof, for one precision: the numerators of a row are the very numbers that its denominator adds
    up, so errors of the exponential cancel in the sum. Adding up the denominator, in any order, is off by at most
    S - 1 roundings of the total; dividing by it and storing the quotient round each entry twice; adding up the row
    here takes S - 1 more. Together the computed sum is 1 + t with |t| <= gamma_2S, gamma_k = k u / (1 - k u), and two
    of them differ by 2 gamma_2S, about 2 S eps. The 16 eps are for storing in a narrower dtype, and for edits, which
    round every entry a few times more.

    Args:
      attn: attention of any sign, [..., T, S].
      mask: True on real tokens, [..., T]; broadcast over the axes of `attn` in front of T (heads).
      edited_from: sum of a row's moduli before an edit, 1 for attention: an edit that takes most of a row away, as
        centred attention does, leaves the rounding of what it was taken from.

    Returns:
      [...].

    >>> import jax.numpy as jnp
    >>> equal_row_sums(jnp.array([[[0.5, 0.5], [2.0, -1.0]], [[0.5, 0.5], [1.0, 1.0]]]), jnp.ones((2, 2), bool))
    Array([ True, False], dtype=bool)

    References: Higham (2002), Accuracy and Stability of Numerical Algorithms, lemma 3.1 and section 4.2.
    """
    real = per_row(mask, attn)
    sums, allowance = _row_sums(attn, real, edited_from)
    difference = jnp.max(jnp.where(real, sums, -jnp.inf), axis=-1) - jnp.min(jnp.where(real, sums, jnp.inf), axis=-1)
    leak = jnp.any((attn != 0) & real[..., :, None] & ~real[..., None, :], axis=(-2, -1))
    return (difference <= allowance) & ~leak


def rows_sum_to_one(attn: Float[Array, "*B T S"], mask: Bool[Array, "..."]) -> Bool[Array, "*B"]:
    """Whether the rows of real tokens have the sum 1, up to the rounding that `equal_row_sums` allows.

    >>> import jax.numpy as jnp
    >>> rows_sum_to_one(jnp.array([[[0.5, 0.5], [1.0, 0.0]], [[0.5, 0.5], [0.9, 0.0]]]), jnp.ones((2, 2), bool))
    Array([ True, False], dtype=bool)
    """
    real = per_row(mask, attn)
    sums, allowance = _row_sums(attn, real, 1.0)
    near_one = jnp.all((jnp.abs(sums - 1) <= allowance[..., None]) | ~real, axis=-1)
    return near_one & equal_row_sums(attn, mask)


def is_row_stochastic(attn: Float[Array, "*B T S"], mask: Bool[Array, "..."]) -> Bool[Array, "*B"]:
    """Whether the rows of real tokens sum to 1, up to that rounding, and no weight of theirs is negative.

    >>> import jax.numpy as jnp
    >>> is_row_stochastic(jnp.array([[[0.5, 0.5], [1.0, 0.0]], [[0.5, 0.5], [2.0, -1.0]]]), jnp.ones((2, 2), bool))
    Array([ True, False], dtype=bool)
    """
    real = per_row(mask, attn)
    return rows_sum_to_one(attn, mask) & jnp.all((attn >= 0) | ~real[..., None], axis=(-2, -1))


class SingularValue(NamedTuple):
    """A computed singular value, never larger than the norm of the operator beyond rounding.

    Attributes:
      value: a LOWER estimate of the largest singular value, the operator's norm.
      residual: ||A^T u - value v|| of its unit vectors v and u = A v / value; some singular value lies within it.
      steps: applications of the operator and of its transpose, each.
    """

    value: Float[Array, ""]
    residual: Float[Array, ""]
    steps: Int[Array, ""]


@at_least_float32
def operator_norm(
    operator: Operator, *, width: int = 1, tolerance: float | None = None, max_steps: int = 600
) -> SingularValue:
    """Largest singular value of an operator that is only applied: Lanczos on A^T A, fully reorthogonalised.

    Of `Centred(A)` it is the mixing rate sqrt(lambda) of an attention matrix that is never formed. In exact
    arithmetic the same as Golub and Kahan's bidiagonalisation of A; only small singular values suffer from A^T A.

    Args:
      operator: one operator; `jax.vmap` for several.
      width: features of the hidden states it acts on; 1 for what acts on every feature alike.
      tolerance: residual of the eigenpair of A^T A, relative, at which to stop; by default 1e-4 in float32, 1e-10
        in float64.
      max_steps: at most about this many applications.

    Returns:
      A `SingularValue`.

    >>> import jax.numpy as jnp
    >>> from jaxsmooth.theory import Dense
    >>> found = operator_norm(Dense(jnp.array([[3.0, 0.0], [0.0, -4.0]]), jnp.ones(2, bool)))
    >>> round(float(found.value), 4)
    4.0

    References: Golub and Kahan (1965), Calculating the singular values and pseudo-inverse of a matrix.
    """
    dtype = operator_dtype(operator)
    tolerance = default_tolerance(dtype) if tolerance is None else tolerance
    start = jnp.where(operator.mask[:, None], start_vector((operator.size, width), dtype), 0)
    # A^T A of a small A vanishes, of a large one overflows: Lanczos has A^T A / size, and size is next to ||A||.
    size = binary_size(operator.apply(start))[0, 0]
    found = largest_eigenvalue(
        lambda v: operator.transpose_apply(operator.apply(v) / size), start, tolerance=tolerance, max_steps=max_steps
    )
    root = safe_sqrt(size) * safe_sqrt(jnp.maximum(found.value, 0))
    residual = quotient(found.residual, root, 0) * size
    return SingularValue(root, jnp.where(root > 0, residual, found.residual), found.steps)


def operator_dtype(operator: Operator) -> jnp.dtype:
    """The floating-point type that an operator computes in."""
    return next(leaf.dtype for leaf in jax.tree.leaves(operator) if jnp.issubdtype(leaf.dtype, jnp.floating))


def _row_sums(attn: Array, real: Array, least: float) -> tuple[Array, Array]:
    """The sum of every row over real keys, [..., T], and by how much two may differ, [...], of moduli of `least` on."""
    wide = jnp.where(real[..., None, :], attn, 0).astype(accumulation_dtype(attn.dtype))
    size = jnp.max(jnp.where(real, jnp.sum(jnp.abs(wide), axis=-1), 0), axis=-1)
    unit = FURTHER_ROUNDINGS * jnp.finfo(attn.dtype).eps + 2 * attn.shape[-1] * jnp.finfo(wide.dtype).eps
    return jnp.sum(wide, axis=-1), unit * jnp.maximum(size, least)
