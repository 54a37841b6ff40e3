"""Rank instead of distance: what the one says of the other, with constants that are attained.

Proofs are in docs/ranks.md.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ....linalg.norms import binary_size, norm, quotient, safe_sqrt
from ....linalg.precision import at_least_float32
from ....linalg.singular import effective_rank_of, row_singular_values, stable_rank_of
from ...consensus import real_tokens, relative_distance
from ...statement import Statement


@at_least_float32
def zhang2025_numerical_rank(hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]) -> Statement:
    """1 - 1/r <= (d_M(H) / ||H||)^2, r = ||H||_F^2 / ||H||_2^2: near consensus the numerical rank is near 1.

    Attained where the tokens' mean is the largest singular part of H. The converse is false: tokens c_i y with
    different factors c_i have r = 1 and d_M / ||H|| anywhere up to 1. And the energy d_M(H)^2 without its quotient
    says nothing of rank: it changes with the unit, r does not.

    Args:
      hidden: H, [..., T, D].
      mask: True on real tokens, [..., T].

    Returns:
      A `Statement`, [...], applicable where a real token differs from 0.

    >>> import jax.numpy as jnp
    >>> found = zhang2025_numerical_rank(jnp.array([[2.0, 1.0], [2.0, -1.0]]), jnp.ones(2, bool))
    >>> round(float(found.lhs), 4), round(float(found.rhs), 4)
    (0.2, 0.2)

    References: the measure after Zhang, Deidda, Higham and Tudisco (2025), arXiv 2502.04591; the inequality is proved
    in docs/ranks.md.
    """
    values = _singular_values(hidden, mask)
    tail = quotient(norm(values[..., 1:]), norm(values), 0) ** 2
    return Statement(tail, _share(hidden, mask), _nonzero(hidden, mask))


@at_least_float32
def zhang2025_effective_rank(hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]) -> Statement:
    """erank(H) <= p^-p (q / (K - 1))^-q, q = 1 - p, 1/p = 1 + ((K - 1) d^2 / (1 - d^2))^(1/2), d = d_M(H) / ||H||.

    K = min(n, D), and d^2 / (1 - d^2) counts as K - 1 where it is more. Near consensus the right side is about
    1 - (K - 1)^(1/2) d ln d: it comes to 1 more slowly than the numerical rank does. Attained where the tokens' mean is
    the largest singular part and all others are equal.

    Args:
      hidden: H, [..., T, D].
      mask: True on real tokens, [..., T].

    Returns:
      A `Statement`, [...], applicable where a real token differs from 0.

    >>> import jax.numpy as jnp
    >>> found = zhang2025_effective_rank(jnp.array([[2.0, 1.0], [2.0, -1.0]]), jnp.ones(2, bool))
    >>> round(float(found.lhs), 4), round(float(found.rhs), 4)
    (1.8899, 1.8899)

    References: the measure after Roy and Vetterli (2007) and Zhang et al. (2025), arXiv 2502.04591; the inequality is
    proved in docs/ranks.md.
    """
    share = jnp.minimum(_share(hidden, mask), 1)
    others = jnp.minimum(jnp.sum(mask, axis=-1), hidden.shape[-1]).astype(hidden.dtype) - 1
    others = jnp.maximum(others, 0)
    spread = jnp.minimum(quotient(share, 1 - share, jnp.inf), others)
    tail = safe_sqrt(others * spread)
    first, rest = 1 / (1 + tail), tail / (1 + tail)
    # The slope at consensus is infinite; a share of 1, which adds 0, gives it none.
    parts = jax.scipy.special.entr(first) + jax.scipy.special.entr(jnp.where(rest == 0, 1, rest))
    entropy = parts + rest * jnp.log(jnp.maximum(others, 1))
    return Statement(effective_rank_of(_singular_values(hidden, mask)), jnp.exp(entropy), _nonzero(hidden, mask))


@at_least_float32
def zhang2025_rank_order(hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]) -> Statement:
    """||H||_F^2 / ||H||_2^2 <= erank(H): the effective rank is never below the numerical one, nor above the rank.

    Attained by equal singular values.

    Args:
      hidden: H, [..., T, D].
      mask: True on real tokens, [..., T].

    Returns:
      A `Statement`, [...], applicable where a real token differs from 0.

    >>> import jax.numpy as jnp
    >>> found = zhang2025_rank_order(jnp.array([[2.0, 0.0], [0.0, 1.0]]), jnp.ones(2, bool))
    >>> round(float(found.lhs), 4), round(float(found.rhs), 4)
    (1.25, 1.8899)

    References: the measures after Zhang et al. (2025), arXiv 2502.04591; proved in docs/ranks.md.
    """
    values = _singular_values(hidden, mask)
    return Statement(stable_rank_of(values), effective_rank_of(values), _nonzero(hidden, mask))


def _singular_values(hidden: Array, mask: Array) -> Array:
    real = real_tokens(hidden, mask)
    return row_singular_values(real / binary_size(real, (-2, -1)))


def _share(hidden: Array, mask: Array) -> Array:
    """(d_M(H) / ||H||)^2; 0 of H = 0."""
    return jnp.where(_nonzero(hidden, mask), relative_distance(hidden, mask), 0) ** 2


def _nonzero(hidden: Array, mask: Array) -> Array:
    return jnp.any(real_tokens(hidden, mask) != 0, axis=(-2, -1))
