"""A map of token vectors applied again and again: consensus, a fixed state of clusters, a cycle, or none of these yet.

The map is any function of a batch of sentences, [B T D] -> [B T D], that treats each sentence by itself: one
Transformer block, a whole encoder, attention alone. Everything here runs on the device, in one loop that ends when
every sentence is decided.
"""

import enum
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int8

from ...errors import OptionError, ShapeError, is_number, require_int
from ...linalg.norms import norm, quotient
from ...linalg.precision import at_least_float32
from ...linalg.reverse import forward_only
from ..consensus import centre_tokens, real_tokens, relative_distance, token_mean

TokenMap = Callable[[Array], Array]

LONGEST_PERIOD = 16
"""Cycles of more steps are not looked for."""


class Fate(enum.IntEnum):
    """Where the tokens of a sentence go.

    CONSENSUS: all become equal, as a share of the state: a mean that grows for ever is that too, and `Orbit.growth`
    tells. CLUSTERS: a state in which they are not comes to rest, k groups of equal tokens. CYCLE: through several
    states, again and again. MOVING: none of this within the steps taken. DIVERGED: beyond the finite numbers. Equal,
    at rest and again are so within the tolerance: a map that moves tokens by less in a step is at rest.
    """

    CONSENSUS = 0
    CLUSTERS = 1
    CYCLE = 2
    MOVING = 3
    DIVERGED = 4


class Orbit(NamedTuple):
    """What became of each sentence of a batch.

    Attributes:
      final: the state at which its fate was decided, else the last one; of a diverged sentence the last finite one,
        [B T D].
      fate: the values of `Fate`, [B].
      period: 1 for a fixed state, p for a cycle of p steps, else 0, [B].
      steps: after how many steps it was decided; all of them where it was not, [B].
      distances: d_M(X_k) / ||X_k|| of every state from the first, NaN after the decision, [K+1 B].
      change: ||X_k - X_(k-1)|| / ||X_k|| at the last step taken, [B].
      late_change: the same where the last step was taken over where it was first below the square root of the
        tolerance, as a rate per step, NaN where that never was: how fast it came to rest, [B].
      growth: ln ||X_k|| - ln ||X_0||, [B].
      move: X_k - X_(k-1) of the last step taken: near a state of rest along what comes to rest last, [B T D].
    """

    final: Float[Array, "B T D"]
    fate: Int8[Array, " B"]
    period: Int[Array, " B"]
    steps: Int[Array, " B"]
    distances: Float[Array, "K B"]
    change: Float[Array, " B"]
    late_change: Float[Array, " B"]
    growth: Float[Array, " B"]
    move: Float[Array, "B T D"]


class _State(NamedTuple):
    step: Array
    hidden: Array
    anchor: Array  # the state of the last step that is a multiple of the longest period
    fate: Array
    period: Array
    taken: Array
    distances: Array
    change: Array
    calm: Array  # ln of the first change below sqrt(tolerance), and its step; NaN before
    calm_step: Array
    move: Array


def default_tolerance(dtype: jnp.dtype) -> float:
    """Relative size below which a distance or a change counts as none: 1e-9 in float64, 1e-5 in float32.

    >>> import jax.numpy as jnp
    >>> default_tolerance(jnp.dtype(jnp.float32))
    1e-05
    """
    return 1e-9 if jnp.finfo(dtype).bits > 32 else 1e-5


@at_least_float32
@forward_only
def follow(
    apply: TokenMap,
    hidden: Float[Array, "B T D"],
    mask: Bool[Array, "B T"],
    *,
    steps: int = 200,
    tolerance: float | None = None,
) -> Orbit:
    """Apply a map until the fate of every sentence is decided, `steps` times at most.

    A sentence is decided by the first of: a number that is not finite; d_M(X) <= tolerance ||X|| (consensus);
    a state that equals an earlier one up to tolerance ||X||. If that is the one before, it has come to rest; a cycle
    must moreover move by more than sqrt(tolerance) ||X|| a step, or else it is a state that comes to rest in swings. A
    decided sentence is not followed further, so its answer does not depend on the others of the batch.

    Rest is a finding about the steps that were taken: a state that moves by less than the tolerance a step may yet
    leave. Whether small deviations from it grow, `krylov_radius` says.

    It has no derivative in reverse (`jax.grad`), only forwards.

    Args:
      apply: the map, [B T D] -> [B T D]; what it does to padding is not read.
      hidden: where to start, [B T D].
      mask: True on real tokens, [B T].
      steps: K, the most steps.
      tolerance: see above; `default_tolerance` of the dtype unless given.

    Returns:
      An `Orbit`.

    Raises:
      ShapeError: tokens that are not [B T D], or a mask that is not [B T].
      OptionError: steps below 0, or a tolerance that is not a number of at least 0.

    >>> import jax.numpy as jnp
    >>> start, real = jnp.array([[[1.0], [3.0]]]), jnp.ones((1, 2), bool)
    >>> halve, turn = (lambda x: 2 + (x - 2) / 2), (lambda x: x[:, ::-1])
    >>> [Fate(int(follow(f, start, real).fate[0])).name for f in (halve, turn, lambda x: x)]
    ['CONSENSUS', 'CYCLE', 'CLUSTERS']
    """
    require_sentences(hidden, mask, steps, tolerance)
    tolerance = default_tolerance(hidden.dtype) if tolerance is None else tolerance
    start = real_tokens(hidden, mask)
    last = jax.lax.while_loop(
        lambda state: (state.step < steps) & jnp.any(state.fate == Fate.MOVING),
        lambda state: _step(apply, mask, tolerance, state),
        _first(start, mask, tolerance, steps),
    )
    took = jnp.maximum(last.taken - last.calm_step, 0).astype(start.dtype)
    late = jnp.exp(quotient(_log(last.change) - last.calm, took))
    growth = jnp.log(norm(last.hidden, (-2, -1))) - jnp.log(norm(start, (-2, -1)))
    return Orbit(
        *(last.hidden, last.fate, last.period, last.taken, last.distances, last.change),
        *(late, growth.astype(start.dtype), last.move),
    )


def require_sentences(hidden: Array, mask: Array, steps: int, tolerance: float | None, least: int = 0) -> None:
    """Refuse what no map of sentences can be followed from.

    Args:
      hidden: should be [B T D].
      mask: should be [B T].
      steps: should be a whole number of at least `least`.
      tolerance: should be None or a number of at least 0.
      least: see `steps`.

    Raises:
      ShapeError: other shapes.
      OptionError: other numbers.

    >>> import jax.numpy as jnp
    >>> require_sentences(jnp.ones((2, 1)), jnp.ones(2, bool), 9, None)
    Traceback (most recent call last):
    jaxsmooth.errors.ShapeError: hidden must be [B T D] and mask [B T], one sentence or more; got (2, 1) and (2,).
    """
    if hidden.ndim != 3 or mask.shape != hidden.shape[:2]:
        raise ShapeError(
            f"hidden must be [B T D] and mask [B T], one sentence or more; got {hidden.shape} and {mask.shape}."
        )
    require_int("steps", steps, least, OptionError)
    if tolerance is not None and not (is_number(tolerance) and 0 <= tolerance < math.inf):
        raise OptionError(f"tolerance must be a number of at least 0, or None; got {tolerance!r}.")


def _first(start: Array, mask: Array, tolerance: float, steps: int) -> _State:
    batch = start.shape[0]
    distance = share_apart(start, mask)
    consensus, finite = distance <= tolerance, jnp.all(jnp.isfinite(start), axis=(1, 2))
    fate = jnp.where(finite, jnp.where(consensus, Fate.CONSENSUS.value, Fate.MOVING.value), Fate.DIVERGED.value)
    nothing = jnp.zeros(batch, jnp.int32)
    unknown = jnp.full(batch, jnp.nan, start.dtype)
    distances = jnp.full((steps + 1, batch), jnp.nan, start.dtype).at[0].set(distance)
    return _State(
        *(jnp.int32(0), start, start, fate.astype(jnp.int8), nothing, nothing, distances),
        *(unknown, unknown, nothing, jnp.zeros_like(start)),
    )


def _step(apply: TokenMap, mask: Array, tolerance: float, state: _State) -> _State:
    moving = state.fate == Fate.MOVING
    step = state.step + 1
    image = jnp.where(mask[..., None], apply(state.hidden), 0).astype(state.hidden.dtype)
    size = norm(image, (-2, -1))
    # Where the norm overflows nothing can be said of shares of it, finite as the entries may be.
    finite = jnp.isfinite(size)
    hidden = jnp.where((moving & finite)[:, None, None], image, state.hidden)
    distance = share_apart(hidden, mask)
    move = hidden - state.hidden
    change = quotient(norm(move, (-2, -1)), size, 0)
    returned = quotient(norm(hidden - state.anchor, (-2, -1)), size, 0) <= tolerance
    period = (step - 1) % LONGEST_PERIOD + 1  # steps since the anchor
    rest = returned & (period == 1)
    cycle = returned & (period > 1) & (change > tolerance**0.5)
    found = jnp.where(cycle, Fate.CYCLE.value, state.fate)
    found = jnp.where(rest, Fate.CLUSTERS.value, found)
    found = jnp.where(distance <= tolerance, Fate.CONSENSUS.value, found)
    found = jnp.where(finite, found, Fate.DIVERGED.value).astype(jnp.int8)
    calm = moving & jnp.isnan(state.calm) & (change <= tolerance**0.5)
    anchor = jnp.where(step % LONGEST_PERIOD == 0, hidden, state.anchor)
    still = (found == Fate.CLUSTERS) | (found == Fate.CYCLE)
    return _State(
        step=step,
        hidden=hidden,
        anchor=anchor,
        fate=jnp.where(moving, found, state.fate),
        period=jnp.where(moving & still, period, state.period),
        taken=jnp.where(moving, step, state.taken),
        distances=state.distances.at[step].set(jnp.where(moving & finite, distance, jnp.nan)),
        change=jnp.where(moving, change, state.change),
        calm=jnp.where(calm, _log(change), state.calm),
        calm_step=jnp.where(calm, step, state.calm_step),
        move=jnp.where(moving[:, None, None], move, state.move),
    )


def _log(change: Array) -> Array:
    """ln, with a floor that stands for 0."""
    return jnp.log(jnp.maximum(change, jnp.finfo(change.dtype).tiny))


def share_apart(hidden: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, " B"]:
    """d_M(X) / ||X||, and 0 for X = 0, where all tokens are equal too.

    >>> import jax.numpy as jnp
    >>> share_apart(jnp.array([[[3.0], [-3.0]], [[0.0], [0.0]]]), jnp.ones((2, 2), bool))
    Array([1., 0.], dtype=float32)
    """
    nothing = jnp.all(real_tokens(hidden, mask) == 0, axis=(1, 2))
    return jnp.where(nothing, 0, relative_distance(hidden, mask))


@at_least_float32
def towards_mean(
    hidden: Float[Array, "B T D"], scale: Float[Array, " B"], mask: Bool[Array, "B T"]
) -> Float[Array, "B T D"]:
    """mean + scale (X - mean): the sentence with its tokens drawn together, or apart.

    >>> import jax.numpy as jnp
    >>> towards_mean(jnp.array([[[1.0], [3.0]]]), jnp.array([0.5]), jnp.ones((1, 2), bool)).ravel()
    Array([1.5, 2.5], dtype=float32)
    """
    moved = token_mean(hidden, mask) + scale[:, None, None] * centre_tokens(hidden, mask)
    return real_tokens(moved, mask)


@at_least_float32
def consensus_basin(
    apply: TokenMap,
    hidden: Float[Array, "B T D"],
    mask: Bool[Array, "B T"],
    *,
    steps: int = 200,
    tolerance: float | None = None,
    halvings: int = 8,
    largest: float = 4.0,
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """How far from consensus a sentence may start and still reach it, along mean + s (X - mean).

    Bisection between an s that reaches consensus within the steps, at first 0, and one that does not. It finds one
    boundary; that every smaller s reaches consensus as well is not checked.

    Both ends are numbers of the bisection, so their derivatives are 0.

    Args:
      apply: the map.
      hidden: X, [B T D].
      mask: True on real tokens, [B T].
      steps: the most steps for each s.
      tolerance: see `follow`.
      halvings: how often the interval is halved, at least, once its ends are known.
      largest: the largest s that is tried, where s = 1 reaches consensus.

    Returns:
      `(reached, missed)`, [B] each: the largest s seen to reach consensus, the smallest not to; `missed` is infinite
      where `largest` reaches it.

    Raises:
      ShapeError, OptionError: as `follow`; or halvings below 0.

    >>> import jax.numpy as jnp
    >>> cubic = lambda x: x**3  # of +-x, to 0 for x < 1
    >>> start = jnp.array([[[2.0], [-2.0]]])
    >>> reached, missed = consensus_basin(cubic, start, jnp.ones((1, 2), bool))
    >>> 0.49 < reached[0] < 0.5 <= missed[0] < 0.51
    Array(True, dtype=bool)
    """

    require_int("halvings", halvings, 0, OptionError)

    def reaches(scale: Array) -> Array:
        orbit = follow(apply, towards_mean(hidden, scale, mask), mask, steps=steps, tolerance=tolerance)
        return orbit.fate == Fate.CONSENSUS

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        further = jnp.where(low < 1, 1, largest)  # until some s misses: first 1, then the largest
        middle = jnp.where(jnp.isinf(high), further, (low + high) / 2)
        inside = reaches(middle)
        return jnp.where(inside, middle, low), jnp.where(inside, high, middle)

    nothing = jnp.zeros(hidden.shape[0], hidden.dtype)
    return jax.lax.fori_loop(0, halvings + 2, halve, (nothing, nothing + jnp.inf))
