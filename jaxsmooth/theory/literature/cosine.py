"""From the distance to consensus to the cosine between tokens, and back.

The theory is stated in d_M, the figures of the field in CosSim, the mean cosine over distinct pairs of tokens. On
tokens of equal norm the two are one quantity; in general d_M bounds 1 - CosSim, not the other way round.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ...linalg.norms import binary_size, norm, quotient, unit_vectors, within
from ...linalg.precision import at_least_float32
from ..block.lemmas import ROUNDING
from ..consensus import real_tokens, subspace_distance
from ..statement import Statement


@at_least_float32
def cosine_distance(hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]) -> Float[Array, "*B"]:
    """1 - CosSim(H) = d_M(H / row norms)^2 / (n - 1), an identity; near consensus it loses no digits.

    Args:
      hidden: token vectors, none of them 0, [..., T, D].
      mask: True on real tokens, [..., T].

    Returns:
      [...], in [0, n / (n - 1)]; NaN for fewer than two real tokens.

    >>> import jax.numpy as jnp
    >>> cosine_distance(jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.ones(2, bool)).round(4)
    Array(1., dtype=float32)

    References: CosSim after Shi et al. (2022), arXiv 2202.08625; the identity in docs/theory.md.
    """
    return _of_pairs(_distance(hidden, mask), mask)


@at_least_float32
def cosine_distance_bound(hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]) -> Statement:
    """1 - CosSim(H) <= d_M(H)^2 / ((n - 1) r_1 r_2), r_1 and r_2 the two smallest token norms.

    The LayerNorm identity without centring, applied to the rows. The converse fails: H -> 0 has d_M -> 0 at any CosSim.

    Args:
      hidden: token vectors, [..., T, D].
      mask: True on real tokens, [..., T].

    Returns:
      A `Statement` of shape [...], applicable with two real tokens or more, none of them 0.

    >>> import jax.numpy as jnp
    >>> found = cosine_distance_bound(jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.ones(2, bool))
    >>> round(float(found.lhs), 4), round(float(found.rhs), 4)
    (1.0, 1.25)
    """
    real = real_tokens(hidden, mask)
    scaled = real / binary_size(real, (-2, -1))
    least = jnp.sort(jnp.where(mask, norm(scaled), jnp.inf), axis=-1)[..., :2]
    # Of one token the last is the first; of one real token it is infinite.
    product = _others(hidden, mask) * least[..., 0] * jnp.where(jnp.isfinite(least[..., -1]), least[..., -1], 1)
    rhs = _of_pairs(quotient(subspace_distance(scaled, mask) ** 2, product, jnp.inf), mask)
    return Statement(cosine_distance(hidden, mask), rhs, (least[..., 0] > 0) & (jnp.sum(mask, axis=-1) > 1))


@at_least_float32
def cosine_bridge(
    before: Float[Array, "*B T D"], after: Float[Array, "*B T D"], rate: Float[Array, "*B"], mask: Bool[Array, "*B T"]
) -> Statement:
    """1 - CosSim(H') <= v^2 (1 - CosSim(H)) where d_M(H') <= v d_M(H) and all tokens of both have one norm.

    Of tokens of norm r, d_M^2 = r^2 (n - 1)(1 - CosSim). LayerNorm without gain and shift makes them so, r = sqrt(d).

    Args:
      before: H, [..., T, D].
      after: H', [..., T, D].
      rate: v, a bound of d_M(H') / d_M(H), [...].
      mask: True on real tokens, [..., T].

    Returns:
      A `Statement` of shape [...], applicable where all token norms agree up to rounding, none is 0, there are two
      real tokens, and v is such a bound.

    >>> import jax.numpy as jnp
    >>> x, y = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([[0.6, 0.8], [0.8, 0.6]])
    >>> found = cosine_bridge(x, y, jnp.array(0.5), jnp.ones(2, bool))
    >>> bool(found.applicable), round(float(found.lhs), 4), round(float(found.rhs), 4)
    (True, 0.04, 0.25)
    """
    norms = norm(jnp.concatenate([before, after], axis=-2))
    real = jnp.concatenate([mask, mask], axis=-1)
    least = jnp.min(jnp.where(real, norms, jnp.inf), axis=-1)
    most = jnp.max(jnp.where(real, norms, 0), axis=-1)
    slack = 1 + ROUNDING * before.shape[-1] * jnp.finfo(before.dtype).eps
    stretched = subspace_distance(after, mask) <= rate * subspace_distance(before, mask) * slack
    alike = (least > 0) & (most <= slack * least) & (jnp.sum(mask, axis=-1) > 1)
    bound = _of_pairs(rate**2 * _distance(before, mask), mask)
    return Statement(cosine_distance(after, mask), bound, alike & stretched)


def _distance(hidden: Array, mask: Array) -> Array:
    """1 - CosSim, 0 where no pair of tokens is left."""
    others = _others(hidden, mask)
    found = subspace_distance(unit_vectors(real_tokens(hidden, mask)), mask) ** 2 / others
    return within(found, 0, (others + 1) / others)


def _others(hidden: Array, mask: Array) -> Array:
    """n - 1, at least 1."""
    return jnp.maximum(jnp.sum(mask, axis=-1) - 1, 1).astype(hidden.dtype)


def _of_pairs(found: Array, mask: Array) -> Array:
    """NaN where no pair of tokens is left."""
    return jnp.where(jnp.sum(mask, axis=-1) > 1, found, jnp.nan)
