"""What K steps of an iteration show of the limit and the rate that were predicted for it."""

import enum
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ...linalg.precision import matmul
from ..consensus import real_pairs
from ..operators import Dense
from .iteration import iterate, length_of
from .second_eigenvalue import Modulus
from .stochastic import token_spread


class Held(enum.IntEnum):
    """What an iteration of finitely many steps says of a prediction about its end."""

    HELD = 0
    FAILED = 1
    UNDECIDED = 2
    NOT_APPLICABLE = 3


class Chain(NamedTuple):
    """What is iterated: a matrix similar to a stochastic one by a diagonal, which for attention is 1."""

    matrix: Array
    limit: Array
    mask: Array
    weight: Array  # the diagonal: spreads are those of iterates over it
    classes: Array
    applicable: Array
    defect: Array | float = 0.0  # how far sums of rows of the stochastic matrix are from 1, at most

    def drift(self, start: Array) -> Array:
        """What one product may change by rounding, and by rows that do not sum to 1, in units of ||H||."""
        eps = jnp.finfo(start.dtype).eps
        return jnp.asarray(self.defect, start.dtype) + jnp.sum(self.mask).astype(start.dtype) * eps


def verdict(held: Array, failed: Array) -> Array:
    """The value of `Held`; what has neither held nor failed is undecided."""
    return jnp.where(held, Held.HELD.value, jnp.where(failed, Held.FAILED.value, Held.UNDECIDED.value))


def predicted_steps(rate: Array, tolerance: float) -> Array:
    """How many factors `rate` make `tolerance`, rounded up."""
    return jnp.where(rate < 1, jnp.ceil(jnp.log(tolerance) / jnp.log(jnp.clip(rate, 1e-30, 1))), jnp.inf)


def observed_steps(ratios: Array, tolerance: float) -> Array:
    """The first step, counted from 1, from which on no ratio is above `tolerance`."""
    return jnp.max(jnp.where(ratios > tolerance, jnp.arange(1, ratios.shape[0] + 1), 0)) + 1


def observe(chain: Chain, start: Array, limit: Array, steps: int) -> tuple[Array, Array, Array]:
    """The last iterate; of every iterate the distance to the limit over that of the start, and the largest spread."""
    mask = chain.mask
    observed, (distances, spreads) = iterate(
        Dense(chain.matrix, mask),
        start,
        steps,
        collect=lambda x: (length_of(x - limit), jnp.max(token_spread(x / chain.weight[:, None], mask))),
    )
    # A start that is its own limit has arrived: every ratio is 0.
    apart, before = away(start, limit, mask), length_of(start - limit)
    return observed, jnp.where(apart, distances / jnp.where(apart, before, 1), 0), spreads


def away(start: Array, limit: Array, mask: Array) -> Array:
    """Whether H is not its own limit up to rounding, of which the product that gives the limit makes n eps ||H||.

    What is less is rounding itself, and follows no prediction.
    """
    rounding = jnp.sum(mask).astype(start.dtype) * jnp.finfo(start.dtype).eps * length_of(start)
    return length_of(start - limit) > rounding


def rounding_of(chain: Chain, start: Array, limit: Array, steps: int) -> Array:
    """What all products together may add to a ratio: of ||H||, whose mean may be far longer than H - limit."""
    before = length_of(start - limit)
    return 4 * steps * chain.drift(start) * length_of(start) / jnp.where(before > 0, before, 1)


def limit_verdict(
    chain: Chain, ratios: Array, rate: Array, arrived: Array, steps: int, added: Array | float = 0.0
) -> Array:
    """Of A^k H -> limit, `added` being `rounding_of` the start; see `Convergence.limit`."""
    half = steps - steps // 2
    middle, end = ratios[steps // 2 - 1], ratios[-1]
    shrunk = jnp.where(middle > 0, end / jnp.where(middle > 0, middle, 1), 0)
    nearer = (rate < 1 - 1e-6) & (shrunk < 0.99) & (_log(shrunk) / half <= 0.5 * _log(rate))
    # Rounding of a late iterate is not that of the first: each of the K products adds its own.
    rounding = 4 * steps * jnp.sum(chain.mask).astype(ratios.dtype) * jnp.finfo(ratios.dtype).eps
    promised = length_of(_matrix_power(jnp.where(real_pairs(chain.mask), chain.matrix - chain.limit, 0), half))
    return verdict(arrived | nearer, end > promised * middle * (1 + rounding) + rounding + added)


def _matrix_power(matrix: Array, exponent: int) -> Array:
    """By squaring; entries stay below the largest power's, and what underflows is 0."""
    power = None
    while exponent:
        if exponent % 2:
            power = matrix if power is None else matmul(power, matrix)
        exponent //= 2
        matrix = matmul(matrix, matrix) if exponent else matrix
    assert power is not None  # the exponent is at least 1
    return power


def rate_verdict(logs: Array, modulus: Modulus, apart: Array, steps: int, tokens: int) -> Array:
    """Of the predicted time scale; see `Convergence.rate`. A start at its limit shows no rate."""
    quarter = steps - max(steps // 4, 1)
    late, last, third = late_rate(logs, steps // 2), late_rate(logs, quarter), late_rate(logs[:quarter], steps // 2)
    predicted, observed = _log(modulus.upper), _log(late)
    # Of a rate that is rounding, as that of uniform attention is, the time scale says nothing: both are 0.
    none = 8 * tokens * jnp.finfo(logs.dtype).eps
    agree = _near(predicted, observed) | (jnp.maximum(modulus.upper, late) <= none)
    settled = _near(_log(last), _log(third)) & (-jnp.log1p(-modulus.rounding) <= 0.1 * jnp.abs(predicted))
    # So many steps that the share of what decays at the predicted rate, however small, has changed by a quarter.
    settled &= (steps - steps // 2) * jnp.abs(predicted - observed) >= math.log(1.25)
    return jnp.where(apart, verdict(agree, settled), Held.UNDECIDED.value)


def _near(one: Array, other: Array) -> Array:
    """Two logs of rates within a tenth of the larger; two rates of 1 are equal, up to rounding."""
    larger = jnp.maximum(jnp.abs(one), jnp.abs(other))
    return jnp.abs(one - other) <= 0.1 * larger + 64 * jnp.finfo(larger.dtype).eps


def _log(rate: Array) -> Array:
    """ln, with a floor that stands for 0."""
    return jnp.log(jnp.maximum(rate, jnp.finfo(rate.dtype).tiny))


def decay(chain: Chain, deviation: Array, steps: int) -> Array:
    """ln ||A^k (H - L H)|| over ||H - L H|| of every step; -inf from where it vanishes.

    Rescaled after every step, so that the rate can be read far below the rounding error of A^k H; what rounding
    adds along the limit's space, where nothing decays, is projected out again.
    """
    # (I - L) A, in which the limit's space is projected out. Padded rows may hold anything.
    matrix = jnp.where(real_pairs(chain.mask), chain.matrix, 0)
    rest = matrix - matmul(chain.limit, matrix)

    def step(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        unit, log_size = state
        after = matmul(rest, unit)
        length = length_of(after)
        real = length > 0
        log_size = jnp.where(real, log_size + jnp.log(jnp.where(real, length, 1)), -jnp.inf)
        return (after / jnp.where(real, length, 1), log_size), log_size

    length = length_of(deviation)
    unit = deviation / jnp.where(length > 0, length, 1)
    return jax.lax.scan(step, (unit, jnp.zeros((), unit.dtype)), None, length=steps)[1]


def late_rate(logs: Array, first: int) -> Array:
    """Geometric mean of the contraction per step after step `first`; 0 where the end vanishes."""
    alive = jnp.isfinite(logs[-1])
    before = logs[first - 1] if first else jnp.zeros((), logs.dtype)
    span = jnp.where(alive, logs[-1], 0) - jnp.where(alive, before, 0)
    return jnp.where(alive, jnp.exp(span / max(logs.shape[0] - first, 1)), 0)


def bounded(spreads: Array, factor: Array, start: Array, chain: Chain) -> Array:
    """Whether the k-th spread is at most factor^k of the first, up to the rounding of k products and of the factor.

    A factor that is off by e allows for k e more after k steps. A product adds twice its drift to the spread, which
    later ones shrink by the factor: equal tokens, whose spread is 0, come apart by that much.
    """
    scale, spread = jnp.max(jnp.abs(start)), jnp.max(token_spread(start, chain.mask))
    k = jnp.arange(1, spreads.shape[0] + 1).astype(spreads.dtype)
    eps = jnp.finfo(spreads.dtype).eps
    drift = 2 * chain.drift(start) * jnp.cumsum(factor ** (k - 1))
    return jnp.all(spreads <= factor**k * spread + (16 * eps + drift) * scale + 4 * eps * k * spread)
