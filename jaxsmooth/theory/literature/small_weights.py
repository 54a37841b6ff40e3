"""Small sub-layers: how far one turns a token, and when a deep network is hardly more than one layer.

Proofs are in docs/speed.md.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ...linalg.norms import norm, quotient, unit_vectors
from ...linalg.precision import at_least_float32
from ...linalg.rows import centre_features
from ..consensus import real_tokens
from ..statement import Statement


@at_least_float32
def token_turn(
    before: Float[Array, "*B T D"], after: Float[Array, "*B T D"], mask: Bool[Array, "*B T"], *, centred: bool = True
) -> Float[Array, "*B T"]:
    """The angle in radians between what a LayerNorm makes of a token before and after: C x and C x'.

    Args:
      before: [..., T, D].
      after: [..., T, D].
      mask: True on real tokens, [..., T].
      centred: False for RMSNorm, where C = I.

    Returns:
      [..., T], in [0, pi]; 0 on padding, and where C x or C x' is 0.

    >>> import jax.numpy as jnp
    >>> x, y = jnp.array([[1.0, -1.0, 0.0]]), jnp.array([[1.0, 0.0, -1.0]])
    >>> token_turn(x, y, jnp.ones(1, bool)).round(4)
    Array([1.0472], dtype=float32)

    References: the speed of a token in Karagodin et al. (2025), arXiv 2510.22026, is this per unit of depth.
    """
    one, other = (_unit(real_tokens(array, mask), centred) for array in (before, after))
    # Twice the angle of half of it: exact where the arc cosine of a product loses half of the digits.
    turn = 2 * jnp.atan2(norm(one - other), norm(one + other))
    known = jnp.any(one != 0, axis=-1) & jnp.any(other != 0, axis=-1)
    return jnp.where(known, turn, 0)


@at_least_float32
def update_turn(hidden: Float[Array, "*B T D"], update: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]) -> Statement:
    """Adding m turns a token by at most arcsin(s), s = |C m| / |C x| < 1: the speed limit of any sub-layer.

    Attained by an update at a right angle to C (x + m). For s >= 1 nothing is claimed: m = -2x turns x over.

    Args:
      hidden: X, the residual stream, [..., T, D].
      update: M, what a sub-layer adds, [..., T, D].
      mask: True on real tokens, [..., T].

    Returns:
      A `Statement` on every token, [..., T], applicable where the token is real and s < 1.

    >>> import jax.numpy as jnp
    >>> x, m = jnp.array([[0.0, 2.0, -2.0]]), jnp.array([[1.0, -1.0, 0.0]])
    >>> [round(float(side[0]), 4) for side in update_turn(x, m, jnp.ones(1, bool))[:2]]
    [0.5236, 0.5236]

    References: docs/speed.md.
    """
    moved, added = (norm(centre_features(real_tokens(array, mask))) for array in (hidden, update))
    ratio = quotient(added, moved, jnp.inf)
    small = mask & (ratio < 1)
    limit = jnp.arcsin(jnp.where(small, ratio, 0))
    return Statement(token_turn(hidden, hidden + update, mask), jnp.where(small, limit, jnp.pi), small)


@at_least_float32
def alman2025_one_layer(
    before: Float[Array, "*B T D"],
    after: Float[Array, "*B T D"],
    at_start: Float[Array, "*B L T D"],
    constants: Float[Array, " L"],
    mask: Bool[Array, "*B T"],
) -> Statement:
    """||X_L - X_0 - sum_l F_l(X_0)||_F <= sum_j ||F_j(X_0)||_F (prod_{i > j} (1 + K_i) - 1): layer collapse.

    X_{l+1} = X_l + F_l(X_l), F_l of Lipschitz constant K_l between the states: L residual layers differ from the ONE
    layer that has all their heads and units side by side by what is of second order in the weights. Equality for
    F_l(X) = K_l X.

    Args:
      before: X_0, [..., T, D].
      after: X_L, [..., T, D].
      at_start: F_l(X_0), what each layer adds to the first state, [..., L, T, D].
      constants: K_l in the Frobenius norm, [L]; of attention on tokens of norm at most R, `castin2024_bound`.
      mask: True on real tokens, [..., T].

    Returns:
      A `Statement` of shape [...], applicable where all K_l are at least 0; that they are Lipschitz constants is the
      caller's to know.

    >>> import jax.numpy as jnp
    >>> x, k = jnp.ones((1, 1)), jnp.array([0.5, 1.0])
    >>> found = alman2025_one_layer(x, 3 * x, k[:, None, None] * x[None], k, jnp.ones(1, bool))
    >>> float(found.lhs), float(found.rhs)
    (0.5, 0.5)

    References: the phenomenon after Alman and Song (2025), arXiv 2505.16284; this form and its constant are proved in
    docs/speed.md.
    """
    real = mask[..., None, :]
    added = real_tokens(at_start, jnp.broadcast_to(real, at_start.shape[:-1]))
    # Of the layers behind each: prod (1 + K) - 1, without the difference of two numbers next to 1.
    behind = jnp.cumsum(jnp.log1p(constants)[::-1])[::-1] - jnp.log1p(constants)
    growth = jnp.expm1(jnp.maximum(behind, 0))
    bound = jnp.sum(norm(added, (-2, -1)) * growth.reshape((1,) * (added.ndim - 3) + growth.shape), axis=-1)
    rest = real_tokens(after - before, mask) - jnp.sum(added, axis=-3)
    applicable = jnp.broadcast_to(jnp.all(constants >= 0), bound.shape)
    return Statement(norm(rest, (-2, -1)), bound, applicable)


def _unit(hidden: Array, centred: bool) -> Array:
    return unit_vectors(centre_features(hidden) if centred else hidden)
