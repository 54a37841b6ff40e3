"""Axioms of an over-smoothing measure, after Rusch et al. (2023), as checks on given data."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ...linalg.precision import at_least_float32
from ..markov.stochastic import token_spread
from ..statement import Statement

Measure = Callable[[Array, Array], Array]


class Decay(NamedTuple):
    """mu(X_l) <= constant exp(-rate l), the definition of over-smoothing, fitted.

    Attributes:
      rate: least-squares slope of -ln mu over layers, [...].
      constant: the least constant with which the inequality holds in every layer at that rate, [...].
    """

    rate: Float[Array, "..."]
    constant: Float[Array, "..."]


@at_least_float32
def rusch2023_subadditivity(
    measure: Measure, left: Float[Array, "*B T D"], right: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]
) -> Statement:
    """Axiom 2: mu(X + Y) <= mu(X) + mu(Y).

    d_M, the root of the Dirichlet energy and the largest distance obey it; the energy itself, without the root, and
    MAD do not.

    Args:
      measure: mu, a function of (hidden, mask) such as `subspace_distance`.
      left: X, [..., T, D].
      right: Y, [..., T, D].
      mask: True on real tokens, [..., T].

    Returns:
      A `Statement`, [...]; applicable where both values of mu are finite.

    >>> import jax.numpy as jnp
    >>> from jaxsmooth.theory.consensus import subspace_distance
    >>> x = jnp.array([[1.0], [-1.0]])
    >>> found = rusch2023_subadditivity(subspace_distance, x, -x, jnp.ones(2, bool))
    >>> bool(found.lhs <= found.rhs)
    True

    References: after Rusch, Bronstein and Mishra (2023), arXiv 2303.10993.
    """
    total = measure(left, mask) + measure(right, mask)
    return Statement(lhs=measure(left + right, mask), rhs=total, applicable=jnp.isfinite(total))


@at_least_float32
def rusch2023_vanishes_at_consensus(
    measure: Measure, hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"], tolerance: float
) -> Bool[Array, "*B"]:
    """Axiom 1 on given data: mu(X) is zero if and only if all real rows are equal.

    Both sides are decided with one tolerance relative to the largest entry, so give data that is clearly one or the
    other. MAD fails: it is zero for rows u and 2 u.

    Args:
      measure: mu, a function of (hidden, mask), homogeneous of degree 0 or 1.
      hidden: X, [..., T, D].
      mask: True on real tokens, [..., T].
      tolerance: below it, relative to the largest modulus of X, a number is zero.

    Returns:
      [...], True where the equivalence holds.

    >>> import jax.numpy as jnp
    >>> from jaxsmooth.theory.consensus import subspace_distance
    >>> rows = jnp.array([[[1.0, 2.0], [1.0, 2.0]], [[1.0, 2.0], [2.0, 4.0]]])
    >>> rusch2023_vanishes_at_consensus(subspace_distance, rows, jnp.ones((2, 2), bool), 1e-5)
    Array([ True,  True], dtype=bool)

    References: after Rusch, Bronstein and Mishra (2023), arXiv 2303.10993.
    """
    unit = jnp.max(jnp.where(mask[..., None], jnp.abs(hidden), 0), axis=(-2, -1))
    unit = jnp.where(unit > 0, unit, 1)
    equal = jnp.max(token_spread(hidden, mask), axis=-1) <= tolerance * unit
    # Scaled to a largest entry of 1 first, so that the tolerance means the same for every degree of homogeneity.
    return equal == (measure(hidden / unit[..., None, None], mask) <= tolerance)


@at_least_float32
def rusch2023_decay(measures: Float[Array, " L *B"]) -> Decay:
    """Over-smoothing as Rusch et al. define it: the exponent with which a measure decays over layers.

    Args:
      measures: mu(X_l), positive, the layers first, [L, ...].

    Returns:
      A `Decay`; a rate at or below 0 is no over-smoothing, NaN of one layer or of measures that are not positive.

    >>> import jax.numpy as jnp
    >>> found = rusch2023_decay(2 * jnp.exp(-0.5 * jnp.arange(6.0)))
    >>> round(float(found.rate), 4), round(float(found.constant), 4)
    (0.5, 2.0)

    References: after Rusch, Bronstein and Mishra (2023), arXiv 2303.10993.
    """
    logs = jnp.log(measures)
    layers = jnp.arange(measures.shape[0], dtype=measures.dtype).reshape((-1,) + (1,) * (measures.ndim - 1))
    centred = layers - jnp.mean(layers)
    rate = -jnp.sum(centred * logs, axis=0) / jnp.sum(centred * centred)
    return Decay(rate=rate, constant=jnp.exp(jnp.max(logs + layers * rate[None], axis=0)))
