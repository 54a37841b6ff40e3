"""An operator applied again and again: the limit and rate that are observed, next to those that theory predicts."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ...linalg.norms import norm
from ...linalg.precision import at_least_float32, matmul
from ..mixing import mixing_rate
from ..operators import Dense, Operator, keep_real
from .limits import ChainLimit, chain_limit
from .second_eigenvalue import subdominant
from .stochastic import birkhoff1957_contraction, ergodicity_coefficient, token_spread


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


class Convergence(NamedTuple):
    """A^k H for one attention matrix: prediction, observation, and whether they agree.

    Attributes:
      predicted_limit: lim A^k H from the closed classes, 1 pi^T H if there is one, [T D].
      observed_limit: A^K H after the last step K, [T D].
      limit_error: ||A^K H - limit|| over ||H - limit||, Frobenius.
      classes: number of closed classes.
      slem: |lambda_2| of A, 1 with several closed classes.
      predicted_rate: spectral radius of A - lim A^k, the rate in the end; the upper bound of `subdominant`.
      ergodicity: Dobrushin's tau(A).
      birkhoff: tanh(Delta / 4) of the logits; 1 without logits.
      mixing_rate: sqrt(lambda), the most by which ONE step stretches d_M.
      observed_rate: per-step contraction of A^k H - limit, geometric mean over the last half of the steps.
      largest_growth: max over k of ||A^k H - limit|| over ||H - limit||: above 1 the distance first grows.
      predicted_steps: steps to `tolerance` if every step contracted by `predicted_rate`.
      observed_steps: first k from which on ||A^k H - limit|| <= tolerance ||H - limit||; K + 1 if not within K.
      transient: observed_steps - predicted_steps, the steps that the eigenvalue does not see.
      arrived: the last iterate is within the tolerance of the predicted limit.
      limit_held: it arrived, or over the last half of the steps it came nearer, by 1 in 100 at least and no slower
        per step than the predicted rate and 0.01. A rate of 1, which a periodic class has, predicts no limit: there
        and within 1e-6 of it, only arriving counts.
      rate_held: the observed rate is within 0.01 of the predicted one.
      steps_held: at most twice the predicted steps (and one) were needed.
      ergodicity_held: osc(A^k H) <= tau^k osc(H) at every step.
      birkhoff_held: the same with tanh(Delta / 4).
    """

    predicted_limit: Float[Array, "T D"]
    observed_limit: Float[Array, "T D"]
    limit_error: Float[Array, ""]
    classes: Int[Array, ""]
    slem: Float[Array, ""]
    predicted_rate: Float[Array, ""]
    ergodicity: Float[Array, ""]
    birkhoff: Float[Array, ""]
    mixing_rate: Float[Array, ""]
    observed_rate: Float[Array, ""]
    largest_growth: Float[Array, ""]
    predicted_steps: Float[Array, ""]
    observed_steps: Int[Array, ""]
    transient: Float[Array, ""]
    arrived: Bool[Array, ""]
    limit_held: Bool[Array, ""]
    rate_held: Bool[Array, ""]
    steps_held: Bool[Array, ""]
    ergodicity_held: Bool[Array, ""]
    birkhoff_held: Bool[Array, ""]


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
def iterate_until(
    operator: Operator, hidden: Float[Array, "T D"], *, tolerance: float, max_steps: int = 10_000
) -> Settled:
    """A^k H for the first k at which a step changes less than `tolerance` times ||H||_F.

    Under `jax.vmap` each of the batch stops for itself.

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
    size = _length(start)

    def unsettled(state: Settled) -> Array:
        return (state.change > tolerance) & (state.steps < max_steps)

    def step(state: Settled) -> Settled:
        after = operator.apply(state.hidden)
        change = _length(after - state.hidden) / jnp.where(size > 0, size, 1)
        return Settled(after, change, state.steps + 1)

    first = Settled(start, jnp.asarray(jnp.inf, start.dtype), jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(unsettled, step, first)


@at_least_float32
def converge(
    attn: Float[Array, "T S"],
    hidden: Float[Array, "T D"],
    mask: Bool[Array, "T"],
    *,
    logits: Float[Array, "T S"] | None = None,
    steps: int = 256,
    tolerance: float = 1e-3,
) -> Convergence:
    """Iterate attention and compare limit and rate with what theory predicts from the matrix alone.

    The eigenvalue is a rate in the end, not a bound of any finite number of steps; tau and Birkhoff's coefficient
    bound every step but may be 1. The fields say where they disagree with what was observed.

    Args:
      attn: attention whose rows sum to 1 over real keys and vanish on padded keys, [T S].
      hidden: H, [T D].
      mask: True on real tokens, [T].
      logits: the scores behind `attn`, -inf where a key is masked out, for Birkhoff's coefficient.
      steps: K, at least 2.
      tolerance: relative distance to the limit that counts as having arrived.

    Returns:
      A `Convergence`; `jax.vmap` for several.

    >>> import jax.numpy as jnp
    >>> found = converge(jnp.array([[0.75, 0.25], [0.25, 0.75]]), jnp.array([[1.0], [3.0]]), jnp.ones(2, bool))
    >>> found.predicted_limit.ravel(), round(float(found.observed_rate), 4), int(found.observed_steps)
    (Array([2., 2.], dtype=float32), 0.5, 10)
    """
    start, limit = keep_real(hidden, mask), chain_limit(attn, mask)
    predicted = matmul(limit.matrix, start)
    observed, ratios, spreads = _observe(attn, start, predicted, mask, steps)
    rate = subdominant(attn, mask, limit).upper
    observed_rate, growth = _decay(attn, limit, start - predicted, mask, steps)
    promised, needed = _predicted_steps(rate, tolerance), _observed_steps(ratios, tolerance)
    taken, arrived = needed.astype(promised.dtype), ratios[-1] <= tolerance
    tau = ergodicity_coefficient(attn, mask)
    birkhoff = jnp.ones_like(tau) if logits is None else birkhoff1957_contraction(logits, mask)
    return Convergence(
        predicted_limit=predicted,
        observed_limit=observed,
        limit_error=ratios[-1],
        classes=limit.classes,
        slem=jnp.where(limit.classes > 1, 1, rate),
        predicted_rate=rate,
        ergodicity=tau,
        birkhoff=birkhoff,
        mixing_rate=mixing_rate(attn, mask),
        observed_rate=observed_rate,
        largest_growth=growth,
        predicted_steps=promised,
        observed_steps=needed,
        transient=taken - promised,
        arrived=arrived,
        limit_held=arrived | _approached(ratios, rate),
        rate_held=jnp.abs(observed_rate - rate) <= 0.01,
        steps_held=taken <= 2 * promised + 1,
        ergodicity_held=_bounded(spreads, tau, start, mask),
        birkhoff_held=_bounded(spreads, birkhoff, start, mask),
    )


def _predicted_steps(rate: Array, tolerance: float) -> Array:
    """How many factors `rate` make `tolerance`, rounded up."""
    return jnp.where(rate < 1, jnp.ceil(jnp.log(tolerance) / jnp.log(jnp.clip(rate, 1e-30, 1))), jnp.inf)


def _observed_steps(ratios: Array, tolerance: float) -> Array:
    """The first step, counted from 1, from which on no ratio is above `tolerance`."""
    return jnp.max(jnp.where(ratios > tolerance, jnp.arange(1, ratios.shape[0] + 1), 0)) + 1


def _observe(attn: Array, start: Array, limit: Array, mask: Array, steps: int) -> tuple[Array, Array, Array]:
    """The last iterate; of every iterate the distance to the limit over that of the start, and the largest spread."""
    observed, (distances, spreads) = iterate(
        Dense(attn, mask),
        start,
        steps,
        collect=lambda x: (_length(x - limit), jnp.max(token_spread(x, mask))),
    )
    before = _length(start - limit)
    # A start that is its own limit has arrived: every ratio is 0.
    return observed, jnp.where(before > 0, distances / jnp.where(before > 0, before, 1), 0), spreads


def _approached(ratios: Array, rate: Array) -> Array:
    """Whether the last half of the steps came nearer to the limit, at the predicted rate or faster."""
    steps = ratios.shape[0]
    middle = ratios[steps // 2 - 1]
    late_rate = jnp.where(middle > 0, ratios[-1] / jnp.where(middle > 0, middle, 1), 0) ** (1 / (steps - steps // 2))
    return (rate < 1 - 1e-6) & (ratios[-1] < 0.99 * middle) & (late_rate <= rate + 0.01)


def _decay(attn: Array, limit: ChainLimit, deviation: Array, mask: Array, steps: int) -> tuple[Array, Array]:
    """Rate over the last half of the steps, and the largest growth, of A^k (H - L H).

    Rescaled after every step, so that the rate can be read far below the rounding error of A^k H; what rounding
    adds along the limit's space, where nothing decays, is projected out again.
    """

    def step(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        unit, log_size = state
        after = keep_real(matmul(attn, unit), mask)
        after = after - matmul(limit.matrix, after)
        length = _length(after)
        real = length > 0
        log_size = jnp.where(real, log_size + jnp.log(jnp.where(real, length, 1)), -jnp.inf)
        return (after / jnp.where(real, length, 1), log_size), log_size

    length = _length(deviation)
    unit = deviation / jnp.where(length > 0, length, 1)
    _, logs = jax.lax.scan(step, (unit, jnp.zeros((), attn.dtype)), None, length=steps)
    half = steps // 2
    alive = jnp.isfinite(logs[-1])
    rate = jnp.exp((jnp.where(alive, logs[-1], 0) - jnp.where(alive, logs[half - 1], 0)) / (steps - half))
    return jnp.where(alive, rate, 0), jnp.maximum(jnp.exp(jnp.max(logs)), 1)


def _length(hidden: Array) -> Array:
    return norm(hidden, (-2, -1))


def _bounded(spreads: Array, factor: Array, start: Array, mask: Array) -> Array:
    """Whether the k-th spread is at most factor^k of the first, up to the rounding of k products and of the factor.

    A factor that is off by e allows for k e more after k steps.
    """
    scale, spread = jnp.max(jnp.abs(start)), jnp.max(token_spread(start, mask))
    k = jnp.arange(1, spreads.shape[0] + 1).astype(spreads.dtype)
    eps = jnp.finfo(spreads.dtype).eps
    return jnp.all(spreads <= factor**k * spread + 16 * eps * scale * (1 + jnp.log2(k)) + 4 * eps * k * spread)
