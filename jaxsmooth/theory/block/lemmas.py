"""Lemma 1 of Shi et al. (2022) in the generality in which it is true, and what bounds its constant sqrt(lambda).

A linear map, an activation, a sum and a mixing with attention each change the distance to consensus by a known
factor at most. Proofs are in docs/theory.md. All functions run over real tokens only.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ...linalg.norms import safe_sqrt
from ...linalg.precision import at_least_float32
from ..consensus import per_row, subspace_distance
from ..markov.stochastic import ergodicity_coefficient
from ..mixing import equal_row_sums, mixing_rate
from ..statement import Statement
from ..theorems.lemmas import linear, mixed, stretched, summed
from .plain_calculus import PlainCalculus

ROUNDING = 16  # in units of the dtype's precision: what a hypothesis may be off by and still count as met


@at_least_float32
def shi2022_linear(hidden: Float[Array, "*B T D"], weight: Float[Array, "D E"], mask: Bool[Array, "*B T"]) -> Statement:
    """Lemma 1(1): d_M(H W) <= ||W|| d_M(H), for a matrix W of any shape.

    J (H W) = (J H) W. Attained when all deviations from the mean point along the first singular vector of W.

    Args:
      hidden: H, [..., T, D].
      weight: W, [D, E].
      mask: True on real tokens, [..., T].

    Returns:
      A `Statement` of shape [...], always applicable.

    >>> import jax.numpy as jnp
    >>> found = shi2022_linear(jnp.array([[1.0, 0.0], [-1.0, 0.0]]), jnp.diag(jnp.array([2.0, 3.0])), jnp.ones(2, bool))
    >>> round(float(found.lhs), 4), round(float(found.rhs), 4)
    (2.8284, 4.2426)

    References: after Shi et al. (2022), arXiv 2202.08625, Lemma 1.
    """
    c = PlainCalculus(mask, jnp.result_type(hidden))
    return _always(linear(c, hidden, weight, c.norm(weight)))


@at_least_float32
def shi2022_activation(
    before: Float[Array, "*B T D"], after: Float[Array, "*B T D"], lipschitz: float, mask: Bool[Array, "*B T"]
) -> Statement:
    """Lemma 1(2): d_M(phi(H)) <= L d_M(H) for every elementwise phi of Lipschitz constant L.

    d_M^2 is a sum over pairs of tokens, d_M(H)^2 = (1/n) sum_{i<j} ||h_i - h_j||^2. The paper has ReLU, L = 1;
    with L = 1 it is false for GELU, see `activations.SLOPES` for the exact constants.

    Args:
      before: H, [..., T, D].
      after: phi(H), [..., T, D].
      lipschitz: L, the largest absolute slope of phi.
      mask: True on real tokens, [..., T].

    Returns:
      A `Statement` of shape [...], applicable where no feature of no two tokens is stretched by more than L.

    >>> import jax.numpy as jnp
    >>> h = jnp.array([[1.0, -2.0], [-1.0, 2.0]])
    >>> found = shi2022_activation(h, jnp.maximum(h, 0), 1.0, jnp.ones(2, bool))
    >>> bool(found.applicable), round(float(found.lhs), 4), round(float(found.rhs), 4)
    (True, 1.5811, 3.1623)

    References: after Shi et al. (2022), arXiv 2202.08625, Lemma 1.
    """
    c = PlainCalculus(mask, jnp.result_type(before))
    found = stretched(c, after, c.number(lipschitz), c.distance(before))
    return found._replace(applicable=stretched_at_most(before, after, lipschitz, mask))


@at_least_float32
def shi2022_sum(
    hidden: Float[Array, "*B T D"],
    other: Float[Array, "*B T D"],
    alpha: Float[Array, ""],
    beta: Float[Array, ""],
    mask: Bool[Array, "*B T"],
) -> Statement:
    """Lemma 1(3): d_M(alpha H + beta B) <= |alpha| d_M(H) + |beta| d_M(B), for factors of any sign.

    d_M is a seminorm. Attained when alpha J H and beta J B are positive multiples of each other.

    Args:
      hidden: H, [..., T, D].
      other: B, [..., T, D].
      alpha: factor of H.
      beta: factor of B.
      mask: True on real tokens, [..., T].

    Returns:
      A `Statement` of shape [...], always applicable.

    >>> import jax.numpy as jnp
    >>> h = jnp.array([[1.0], [-1.0]])
    >>> found = shi2022_sum(h, -h, jnp.array(1.0), jnp.array(-2.0), jnp.ones(2, bool))
    >>> round(float(found.lhs), 4) == round(float(found.rhs), 4)
    True

    References: after Shi et al. (2022), arXiv 2202.08625, Lemma 1.
    """
    c = PlainCalculus(mask, jnp.result_type(hidden))
    one, two = jnp.abs(alpha) * c.distance(hidden), jnp.abs(beta) * c.distance(other)
    return _always(summed(c, alpha * hidden + beta * other, one, two))


@at_least_float32
def shi2022_mixing(
    attn: Float[Array, "*B T S"], hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]
) -> Statement:
    """Lemma 1(4): d_M(A H) <= sqrt(lambda) d_M(H), with sqrt(lambda) = ||J A||, if all rows of A have the same sum.

    Then J A = J A J, so the mean of the tokens plays no part. Attained by the first singular vector of J A. The
    entries may have any sign. False for rows of different sums (queries set to zero, dropout, sinks), for which
    see `mixing_with_defect`; false also for lambda taken with e = (1, .., 1) instead of e = 1 / sqrt(n).

    Args:
      attn: A, vanishing on padded keys, [..., T, S].
      hidden: H, [..., T, D].
      mask: True on real tokens, [..., T].

    Returns:
      A `Statement` of shape [...], applicable where the sums of the real rows agree up to rounding and padded keys
      have weight 0.

    >>> import jax.numpy as jnp
    >>> found = shi2022_mixing(jnp.array([[0.9, 0.1], [0.8, 0.2]]), jnp.array([[1.0], [-1.0]]), jnp.ones(2, bool))
    >>> round(float(found.lhs), 4), round(float(found.rhs), 4)
    (0.1414, 0.1414)

    References: after Shi et al. (2022), arXiv 2202.08625, Lemma 1.
    """
    c = PlainCalculus(mask, jnp.result_type(hidden))
    after = c.matmul(attn, hidden * mask[..., None].astype(hidden.dtype))
    found = stretched(c, after, mixing_rate(attn, mask), c.distance(hidden))
    return found._replace(applicable=equal_row_sums(attn, mask))


@at_least_float32
def mixing_with_defect(
    attn: Float[Array, "*B T S"], hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]
) -> Statement:
    """Lemma 1(4) for any matrix: d_M(A H) <= ||J A|| d_M(H) + ||J A 1|| ||h||, h the mean of the real tokens.

    J A H = J A J H + (J A 1) h^T. The second term is what rows of different sums make of consensus; for float
    softmax rows it is a few units of rounding, yet decides comparisons when tokens share a large mean.

    Args:
      attn: A, any real matrix; columns of padded keys are not used, [..., T, S].
      hidden: H, [..., T, D].
      mask: True on real tokens, [..., T].

    Returns:
      A `Statement` of shape [...], always applicable.

    >>> import jax.numpy as jnp
    >>> found = mixing_with_defect(jnp.diag(jnp.array([1.0, 0.0])), jnp.ones((2, 1)), jnp.ones(2, bool))
    >>> round(float(found.lhs), 4), round(float(found.rhs), 4)
    (0.7071, 0.7071)
    """
    real = mask[..., None].astype(hidden.dtype)
    c = PlainCalculus(mask, jnp.result_type(hidden))
    defect, mean_size = c.distance(c.matmul(attn, real)), c.frobenius(c.mean_row(hidden))
    after = c.matmul(attn, hidden * real)
    return _always(mixed(c, after, mixing_rate(attn, mask), c.distance(hidden), defect, mean_size))


@at_least_float32
def largest_mixing_rate(tokens: Int[Array, "*B"]) -> Float[Array, "*B"]:
    """The supremum of sqrt(lambda) over row-stochastic matrices: sqrt(n / 2), or sqrt((n^2 - 1) / (2 n)) for odd n.

    ||J A x||^2 is convex in A, so largest when every row copies one token: then it is n times a variance, at most
    n (max x - min x)^2 / 4 <= n / 2, which half the tokens copying one token and half another attains. Mixing with
    attention alone can therefore move tokens apart; sqrt(lambda) < 1 is a property of the data.

    Args:
      tokens: n, the number of real tokens, [...].

    Returns:
      [...].

    >>> import jax.numpy as jnp
    >>> [round(float(x), 4) for x in largest_mixing_rate(jnp.array([2, 3, 64]))]
    [1.0, 1.1547, 5.6569]
    """
    n = tokens.astype(jnp.result_type(float))
    return jnp.sqrt(jnp.where(tokens % 2 == 0, n * n, n * n - 1) / (2 * n))


@at_least_float32
def mixing_rate_by_columns(attn: Float[Array, "*B T S"], mask: Bool[Array, "..."]) -> Float[Array, "*B"]:
    """sqrt(lambda) <= sqrt(largest column sum), for row-stochastic A: ||A||^2 <= ||A||_1 ||A||_inf.

    >>> import jax.numpy as jnp
    >>> mixing_rate_by_columns(jnp.array([[1.0, 0.0], [1.0, 0.0]]), jnp.ones(2, bool)).round(4)
    Array(1.4142, dtype=float32)
    """
    real = per_row(mask, attn)
    return safe_sqrt(jnp.max(jnp.sum(jnp.where(real[..., None], attn, 0), axis=-2), axis=-1))


@at_least_float32
def mixing_rate_by_ergodicity(attn: Float[Array, "*B T S"], mask: Bool[Array, "..."]) -> Float[Array, "*B"]:
    """sqrt(lambda) <= sqrt(n / 2) tau(A), for row-stochastic A; with equality for n = 2.

    ||J A x||^2 <= n (max Ax - min Ax)^2 / 4 <= n tau^2 (max x - min x)^2 / 4 <= (n / 2) tau^2 ||x||^2.

    >>> import jax.numpy as jnp
    >>> mixing_rate_by_ergodicity(jnp.array([[0.75, 0.25], [0.5, 0.5]]), jnp.ones(2, bool)).round(4)
    Array(0.25, dtype=float32)
    """
    count = jnp.sum(per_row(mask, attn), axis=-1).astype(attn.dtype)
    return jnp.sqrt(count / 2) * ergodicity_coefficient(attn, mask)


@at_least_float32
def mixing_rate_by_entries(attn: Float[Array, "*B T S"], mask: Bool[Array, "..."]) -> Float[Array, "*B"]:
    """sqrt(lambda) <= ||J A||_F: the root of the sum of all squared singular values bounds the largest.

    >>> import jax.numpy as jnp
    >>> mixing_rate_by_entries(jnp.eye(3), jnp.ones(3, bool)).round(4)
    Array(1.4142, dtype=float32)
    """
    real = per_row(mask, attn)
    return subspace_distance(attn * real[..., None, :].astype(attn.dtype), real)


def stretched_at_most(
    before: Float[Array, "*B T D"], after: Float[Array, "*B T D"], lipschitz: float, mask: Bool[Array, "*B T"]
) -> Bool[Array, "*B"]:
    """Whether |after_ik - after_jk| <= L |before_ik - before_jk| for all real tokens i, j, up to rounding.

    >>> import jax.numpy as jnp
    >>> h = jnp.array([[0.0], [1.0]])
    >>> bool(stretched_at_most(h, 2 * h, 1.0, jnp.ones(2, bool)))
    False
    """
    last = jnp.finfo(before.dtype).max
    order = jnp.argsort(jnp.where(mask[..., None], before, last), axis=-2)
    # Neighbours in the order of the arguments are enough: the others follow by adding up.
    x, y = (jnp.take_along_axis(h, order, axis=-2) for h in (before, after))
    real = jnp.take_along_axis(jnp.broadcast_to(mask[..., None], x.shape), order, axis=-2)
    size = jnp.abs(x[..., 1:, :]) + jnp.abs(x[..., :-1, :]) + jnp.abs(y[..., 1:, :]) + jnp.abs(y[..., :-1, :])
    slack = ROUNDING * jnp.finfo(before.dtype).eps * size
    fine = jnp.abs(jnp.diff(y, axis=-2)) <= lipschitz * jnp.diff(x, axis=-2) + slack
    return jnp.all(fine | ~real[..., 1:, :], axis=(-2, -1))


def _always(found: Statement[Array]) -> Statement[Array]:
    return found._replace(applicable=jnp.ones(found.lhs.shape, bool))
