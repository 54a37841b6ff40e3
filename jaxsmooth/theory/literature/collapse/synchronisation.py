"""How fast tokens on a sphere that see each other become one, with rates free of their number.

The flow is `geshkovski2023_flow`. Proofs are in docs/causal.md.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ....errors import OptionError, require_int
from ....linalg.precision import at_least_float32
from ...block.lemmas import ROUNDING
from ...consensus import diameter
from ...statement import Statement
from ..token_particles import on_sphere


@at_least_float32
def chen2025_clustering(
    before: Float[Array, "*B T D"],
    after: Float[Array, "*B T D"],
    mask: Bool[Array, "*B T"],
    sharpness: Float[Array, ""] | float,
    time: Float[Array, ""] | float,
) -> Statement:
    """1 - g(t) <= n (1 - g) / ((n - 1)(1 - g) + (1 + (n - 1) g) e^(2 r t)), r = e^(-beta (1 - g)), g = min <x_i, x_j>.

    So from acute angles the distance to a point falls like e^(-2rt), with an r that does not know n: in the mean field
    too, n -> infinity at g > 0. Attained at all times by any simplex and beta = 0.

    Args:
      before: unit vectors at time 0, [..., T, D].
      after: the same at time t of `geshkovski2023_flow`, [..., T, D].
      mask: True on real tokens, [..., T].
      sharpness: beta.
      time: t.

    Returns:
      A `Statement`, [...]; applicable where beta and t are not negative, a token is real, and up to rounding all real
      ones have length 1 and no two are at an obtuse angle.

    >>> import jax.numpy as jnp
    >>> from jaxsmooth.theory import geshkovski2023_flow
    >>> after = geshkovski2023_flow(jnp.eye(3), jnp.ones(3, bool), 0.0, 1.0, 20)
    >>> found = chen2025_clustering(jnp.eye(3), after, jnp.ones(3, bool), 0.0, 1.0)
    >>> [round(float(side), 4) for side in found[:2]]
    [0.3195, 0.3195]

    References: after Chen, Lin, Polyanskiy and Rigollet (2025), arXiv 2504.14697, who prove exponential rates in the
    mean field from regular starts all over the sphere; this inequality is proved in docs/causal.md.
    """
    gap, later = (diameter(x, mask) ** 2 / 2 for x in (before, after))
    count = jnp.maximum(jnp.sum(mask, axis=-1), 1).astype(before.dtype)
    bound = _gap_after(gap, count, 2 * jnp.exp(-sharpness * jnp.minimum(gap, 1)) * time)
    acute = gap <= 1 + ROUNDING * before.shape[-1] * jnp.finfo(before.dtype).eps
    sound = on_sphere(before, mask) & on_sphere(after, mask) & (sharpness >= 0) & (time >= 0)
    return Statement(later, bound, sound & acute)


@at_least_float32
def rigollet2025_gap(
    gap: Float[Array, "*#B"],
    sharpness: Float[Array, "*#B"],
    tokens: Float[Array, "*#B"],
    time: Float[Array, "*#B"],
    steps: int = 400,
) -> Float[Array, "..."]:
    """1 - c at time t, of n tokens of one pairwise cosine c, under `geshkovski2023_flow`: they keep one cosine.

    With y = log((1 + (n - 1) c) / (1 - c)) it is the equation dy/dt = 2 n / (e^(beta (1 - c)) + n - 1), whose right
    side lies between its first value and 2: by Runge and Kutta's steps in y.

    Args:
      gap: 1 - c at time 0, in [0, n / (n - 1)], the ends of which stay.
      sharpness: beta >= 0.
      tokens: n, at least 2.
      time: t >= 0.
      steps: number of steps; the error is of the order of (time / steps)^4.

    Returns:
      [...]; NaN where an argument is out of its range.

    Raises:
      OptionError: fewer than one step.

    >>> import jax.numpy as jnp
    >>> start, beta, n = jnp.array(1.0), jnp.array([0.0, 8.0]), jnp.array(3.0)
    >>> rigollet2025_gap(start, beta, n, jnp.array(1.0)).round(4)
    Array([0.3195, 0.9993], dtype=float32)

    References: the equiangular model of Rigollet (2025), The mean-field dynamics of Transformers, arXiv 2512.01868;
    this form is derived in docs/causal.md.
    """
    require_int("steps", steps, 1, OptionError)
    width = time / steps

    def speed(y: Array) -> Array:
        return 2 * tokens / (jnp.exp(sharpness * _gap_of(y, tokens)) + tokens - 1)

    def step(_: Array, y: Array) -> Array:
        k1 = speed(y)
        k2 = speed(y + width / 2 * k1)
        k3 = speed(y + width / 2 * k2)
        k4 = speed(y + width * k3)
        return y + width / 6 * (k1 + 2 * k2 + 2 * k3 + k4)

    sound = _model(gap, sharpness, tokens, time)
    start = jnp.log(_rest(gap, tokens) / gap)
    start = jnp.broadcast_to(start, jnp.broadcast_shapes(*(jnp.shape(x) for x in (start, sharpness, time))))
    return jnp.where(sound, _gap_of(jax.lax.fori_loop(0, steps, step, start), tokens), jnp.nan)


@at_least_float32
def rigollet2025_range(
    gap: Float[Array, "*#B"], sharpness: Float[Array, "*#B"], tokens: Float[Array, "*#B"], time: Float[Array, "*#B"]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Between what 1 - c lies after t: the odds (1 + (n - 1) c) / (1 - c) grow like e^(st) at least, e^(2t) at most.

    s = 2 n / (e^(beta (1 - c)) + n - 1) at time 0. So in the end 1 - c falls like e^(-2t) whatever beta and n are, and
    what comes before takes at most about log n / s: more than log n only where beta (1 - c) > log n.

    Args:
      gap: 1 - c at time 0, in [0, n / (n - 1)].
      sharpness: beta >= 0.
      tokens: n, at least 2.
      time: t >= 0.

    Returns:
      The lower and the upper end, [...] each; equal for beta = 0, NaN where an argument is out of its range.

    >>> import jax.numpy as jnp
    >>> one = jnp.array(1.0)
    >>> [round(float(end), 4) for end in rigollet2025_range(one, 8 * one, 3 * one, one)]
    [0.3195, 0.9993]

    References: as of `rigollet2025_gap`.
    """
    sound = _model(gap, sharpness, tokens, time)
    stays = _rest(gap, tokens) == 0
    slow = 2 * tokens / (jnp.exp(sharpness * gap) + tokens - 1)
    ends = (jnp.where(stays, gap, _gap_after(gap, tokens, speed * time)) for speed in (2, slow))
    low, high = (jnp.where(sound, end, jnp.nan) for end in ends)
    return low, high


def _model(gap: Array, sharpness: Array, tokens: Array, time: Array) -> Array:
    """Whether there are n such tokens: of a smaller cosine than -1 / (n - 1) there are none."""
    return (gap >= 0) & (gap <= tokens / (tokens - 1)) & (sharpness >= 0) & (tokens >= 2) & (time >= 0)


def _rest(gap: Array, tokens: Array) -> Array:
    """1 + (n - 1) c, not below 0."""
    return jnp.maximum(tokens - (tokens - 1) * gap, 0)


def _gap_after(gap: Array, tokens: Array, growth: Array) -> Array:
    """1 - c once the odds have grown by e^growth."""
    shrunk = jnp.exp(-growth)
    return tokens * gap * shrunk / ((tokens - 1) * gap * shrunk + (tokens - (tokens - 1) * gap))


def _gap_of(y: Array, tokens: Array) -> Array:
    """1 - c of y."""
    return tokens / (tokens - 1 + jnp.exp(y))
