"""An operator applied again and again."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ...linalg.norms import norm
from ...linalg.precision import at_least_float32
from ...linalg.reverse import forward_only
from ..operators import Operator, keep_real


class Settled(NamedTuple):
    """Where a tolerance stopped an iteration.

    Attributes:
      hidden: the last iterate, [T D].
      change: ||X_k - X_k-1||_F over ||X_0||_F at the end. It is not the distance to the limit, which may be larger
        by a factor of 1 / (1 - rate).
      steps: k.
    """

    hidden: Float[Array, "T D"]
    change: Float[Array, ""]
    steps: Int[Array, ""]


@at_least_float32
def iterate(
    operator: Operator, hidden: Float[Array, "T D"], steps: int, *, collect: Callable[[Array], Any] = lambda _: ()
) -> tuple[Float[Array, "T D"], Any]:
    """A^steps H, and what `collect` keeps of every iterate from A H on.

    Args:
      operator: one operator; `jax.vmap` for several.
      hidden: H, [T D].
      steps: how often to apply it.
      collect: maps an iterate to any pytree; stacked on a leading axis of length `steps`. Nothing by default.

    Returns:
      `(hidden, collected)`.

    >>> import jax.numpy as jnp
    >>> from jaxsmooth.theory import Dense
    >>> halve = Dense(jnp.diag(jnp.array([0.5, 0.5])), jnp.ones(2, bool))
    >>> last, sums = iterate(halve, jnp.ones((2, 1)), 3, collect=jnp.sum)
    >>> sums
    Array([1.  , 0.5 , 0.25], dtype=float32)
    """

    def step(hidden: Array, _: None) -> tuple[Array, Any]:
        after = operator.apply(hidden)
        return after, collect(after)

    return jax.lax.scan(step, keep_real(hidden, operator.mask), None, length=steps)


@at_least_float32
@forward_only
def iterate_until(
    operator: Operator, hidden: Float[Array, "T D"], *, tolerance: float, max_steps: int = 10_000
) -> Settled:
    """A^k H for the first k at which a step changes less than `tolerance` times ||H||_F.

    Under `jax.vmap` each of the batch stops for itself.

    It has no derivative in reverse (`jax.grad`), only forwards.

    Args:
      operator: one operator; `jax.vmap` for several.
      hidden: H, [T D].
      tolerance: largest change of the last step, relative to the start.
      max_steps: stop here in any case.

    Returns:
      A `Settled`.

    >>> import jax.numpy as jnp
    >>> from jaxsmooth.theory import Dense
    >>> halve = Dense(jnp.diag(jnp.array([0.5, 0.5])), jnp.ones(2, bool))
    >>> int(iterate_until(halve, jnp.ones((2, 1)), tolerance=0.1).steps)
    4
    """
    start = keep_real(hidden, operator.mask)
    size = length_of(start)

    def unsettled(state: Settled) -> Array:
        return (state.change > tolerance) & (state.steps < max_steps)

    def step(state: Settled) -> Settled:
        after = operator.apply(state.hidden)
        change = length_of(after - state.hidden) / jnp.where(size > 0, size, 1)
        return Settled(after, change, state.steps + 1)

    first = Settled(start, jnp.asarray(jnp.inf, start.dtype), jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(unsettled, step, first)


def length_of(hidden: Float[Array, "T D"]) -> Float[Array, ""]:
    """||H||_F."""
    return norm(hidden, (-2, -1))
