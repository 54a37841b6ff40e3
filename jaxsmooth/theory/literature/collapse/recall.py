"""A map with recall, X <- F(X) + U: what is put in at every step keeps tokens apart. Proofs are in docs/looped.md."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ....linalg.precision import at_least_float32
from ...block.lemmas import ROUNDING
from ...consensus import subspace_distance
from ...statement import Statement


@at_least_float32
def labovich2026_recall(
    before: Float[Array, "*B T D"],
    after: Float[Array, "*B T D"],
    injected: Float[Array, "*B T D"],
    mask: Bool[Array, "*B T"],
    rate: Float[Array, "..."] | float,
) -> Statement:
    """d_M(U) <= d_M(X') + v d_M(X) for X' = F(X) + U, v any bound of d_M(F(X)) / d_M(X).

    No two states in a row collapse: of any two one has at least d_M(U) / (1 + v), and so has a fixed state (`before`
    for `after`), however strongly F contracts and whether the loop converges or not. F = -v attains it. A norm around
    the sum can undo it: rows u and 2u become equal.

    Args:
      before: X, [..., T, D].
      after: X', [..., T, D].
      injected: U, [..., T, D].
      mask: True on real tokens, [..., T].
      rate: v, of this X: what happened, or a rung of `theory.theorems` for a block, [...].

    Returns:
      A `Statement` of shape [...], applicable where d_M(X' - U) <= v d_M(X) up to rounding.

    >>> import jax.numpy as jnp
    >>> u, x = jnp.array([[3.0], [-3.0]]), jnp.array([[2.0], [-2.0]])
    >>> found = labovich2026_recall(x, u - x / 2, u, jnp.ones(2, bool), 0.5)
    >>> bool(found.applicable), bool(abs(found.lhs - found.rhs) < 1e-6)
    (True, True)

    References: [here]; loops with and without recall after Labovich (2026), arXiv 2604.15259. Proof in docs/looped.md.
    """
    moved, left = subspace_distance(after, mask), subspace_distance(injected, mask)
    start = subspace_distance(before, mask)
    return Statement(left, moved + rate * start, _mapped(start, after, injected, mask, rate))


@at_least_float32
def labovich2026_fixed_state(
    hidden: Float[Array, "*B T D"],
    injected: Float[Array, "*B T D"],
    mask: Bool[Array, "*B T"],
    rate: Float[Array, "..."] | float,
) -> Statement:
    """d_M(X) <= d_M(U) / (1 - v) at X = F(X) + U, v < 1 a bound of d_M(F(X)) / d_M(X).

    Without recall, U = 0, the fixed state is consensus: what the founding theorem is about. With it, tokens end between
    d_M(U) / (1 + v) and d_M(U) / (1 - v) apart. F = v attains it.

    Args:
      hidden: X, [..., T, D].
      injected: U, [..., T, D].
      mask: True on real tokens, [..., T].
      rate: v, of this X, [...].

    Returns:
      A `Statement` of shape [...], applicable where 0 <= v < 1 and d_M(X - U) <= v d_M(X) up to rounding.

    >>> import jax.numpy as jnp
    >>> found = labovich2026_fixed_state(jnp.array([[2.0], [-2.0]]), jnp.array([[1.0], [-1.0]]), jnp.ones(2, bool), 0.5)
    >>> bool(found.applicable), bool(found.lhs == found.rhs)
    (True, True)

    References: [here]; loops with and without recall after Labovich (2026), arXiv 2604.15259. Proof in docs/looped.md.
    """
    size, left = subspace_distance(hidden, mask), subspace_distance(injected, mask)
    below = (rate >= 0) & (rate < 1)
    room = 1 - jnp.where(below, rate, 0)
    return Statement(size, left / room, below & _mapped(size, hidden, injected, mask, rate))


def _mapped(start: Array, after: Array, injected: Array, mask: Array, rate: Array | float) -> Array:
    """Whether F(X) = X' - U is as near to consensus as the rate says, up to the rounding of the difference."""
    image = subspace_distance(after - injected, mask)
    size = subspace_distance(after, mask) + subspace_distance(injected, mask)
    return image <= rate * start + ROUNDING * jnp.finfo(start.dtype).eps * size
