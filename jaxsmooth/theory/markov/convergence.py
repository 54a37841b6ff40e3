"""Attention applied again and again: the limit and rate that are observed, next to those that theory predicts."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int8

from ...errors import OptionError, is_number, require_int
from ...linalg.norms import safe_sqrt
from ...linalg.precision import at_least_float32, matmul
from ...linalg.reverse import forward_only
from ..consensus import real_pairs
from ..mixing import mixing_rate
from ..operators import keep_real
from .limits import chain_limit
from .second_eigenvalue import Modulus, subdominant
from .stochastic import birkhoff1957_contraction, ergodicity_coefficient
from .verdicts import (
    Chain,
    Held,
    away,
    bounded,
    decay,
    late_rate,
    limit_verdict,
    observe,
    observed_steps,
    predicted_steps,
    rate_verdict,
    rounding_of,
    verdict,
)


class Convergence(NamedTuple):
    """A^k H for one matrix: prediction, observation, and whether they agree.

    The three verdicts are the values of `Held`, int8. UNDECIDED is "not yet": more steps may confirm the prediction
    or refute it. Where `applicable` is False no prediction is made, the predicted numbers say nothing, and every
    verdict is NOT_APPLICABLE.

    Attributes:
      predicted_limit: lim A^k H from the closed classes, 1 pi^T H if there is one, [T D].
      observed_limit: A^K H after the last step K, [T D].
      limit_error: ||A^K H - limit|| over ||H - limit||, Frobenius; 0 where H is its own limit up to rounding.
      classes: number of closed classes.
      slem: |lambda_2| of A, 1 with several closed classes.
      predicted_rate: spectral radius of A - lim A^k, the rate in the end; the upper bound of `subdominant`.
      ergodicity: Dobrushin's tau(A).
      birkhoff: tanh(Delta / 4) of the logits; 1 without logits.
      mixing_rate: sqrt(lambda), the most by which ONE step stretches the distance to the subspace.
      observed_rate: per-step contraction of A^k H - limit, geometric mean over the last half of the steps.
      largest_growth: max over k of ||A^k H - limit|| over ||H - limit||: above 1 the distance first grows.
      predicted_steps: steps to `tolerance` if every step contracted by `predicted_rate`.
      observed_steps: first k from which on ||A^k H - limit|| <= tolerance ||H - limit||; K + 1 if not within K.
      transient: observed_steps - predicted_steps, the steps that the eigenvalue does not see.
      arrived: the last iterate is within the tolerance of the predicted limit.
      applicable: the hypotheses hold: entries at least 0, and rows whose sums are so near 1 that all K steps together
        move a sum by at most a tenth of the tolerance; for the symmetric normalisation a symmetric adjacency without
        an isolated token.
      limit: HELD if it arrived, or came nearer over the last half of the steps, by 1 in 100 at least and no slower
        per step than half of the predicted ln of the rate; within 1e-6 of a rate of 1, which a periodic class has,
        only arriving counts. FAILED if over the last half it came less near than every H does, by more than rounding:
        ||A^h H - limit|| <= ||(A - lim A^k)^h|| ||H - limit||.
      rate: HELD if the observed time scale, 1 / |ln rate|, is within a tenth of the predicted one, FAILED if it is not
        and did not change by a tenth between the third and the last quarter of the steps either, though the two rates
        lead apart by a quarter at least over the last half.
      steps: HELD if at most twice the predicted steps (and one) were needed, FAILED if so many were taken in vain, and
        rounding leaves less than the tolerance.
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
    applicable: Bool[Array, ""]
    limit: Int8[Array, ""]
    rate: Int8[Array, ""]
    steps: Int8[Array, ""]
    ergodicity_held: Bool[Array, ""]
    birkhoff_held: Bool[Array, ""]

    @property
    def limit_held(self) -> Array:
        """Truth values, in the shape of the verdict."""
        return jnp.asarray(self.limit == Held.HELD.value)

    @property
    def limit_failed(self) -> Array:
        """Truth values, in the shape of the verdict."""
        return jnp.asarray(self.limit == Held.FAILED.value)

    @property
    def rate_held(self) -> Array:
        """Truth values, in the shape of the verdict."""
        return jnp.asarray(self.rate == Held.HELD.value)

    @property
    def rate_failed(self) -> Array:
        """Truth values, in the shape of the verdict."""
        return jnp.asarray(self.rate == Held.FAILED.value)

    @property
    def steps_held(self) -> Array:
        """Truth values, in the shape of the verdict."""
        return jnp.asarray(self.steps == Held.HELD.value)

    @property
    def steps_failed(self) -> Array:
        """Truth values, in the shape of the verdict."""
        return jnp.asarray(self.steps == Held.FAILED.value)


@at_least_float32
@forward_only
def converge(
    attn: Float[Array, "T S"],
    hidden: Float[Array, "T D"],
    mask: Bool[Array, " T"],
    *,
    logits: Float[Array, "T S"] | None = None,
    weight: Float[Array, " T"] | None = None,
    steps: int = 256,
    tolerance: float = 1e-3,
) -> Convergence:
    """Iterate attention and compare limit and rate with what theory predicts from the matrix alone.

    The eigenvalue is a rate in the end, not a bound of any finite number of steps; tau and Birkhoff's coefficient
    bound every step but may be 1. The fields say where they disagree with what was observed.

    It has no derivative in reverse (`jax.grad`), only forwards.

    Args:
      attn: attention whose rows sum to 1 over real keys and vanish on padded keys, [T S]; others are not `applicable`.
      hidden: H, [T D].
      mask: True on real tokens, [T].
      logits: the scores behind `attn`, -inf where a key is masked out, for Birkhoff's coefficient.
      weight: w > 0, [T], to iterate diag(w) A diag(1/w) in A's place, whose limit lies in span(w) where A's lies in
        span(1); with A = softmax of symmetric scores and w the roots of the sums that it divides by, that is the
        symmetric normalisation D^(-1/2) exp(S) D^(-1/2). Coefficients and rates are those of A.
      steps: K, at least 2.
      tolerance: relative distance to the limit that counts as having arrived.

    Returns:
      A `Convergence`; `jax.vmap` for several.

    Raises:
      OptionError: fewer than 2 steps, or a tolerance that is not positive.

    >>> import jax.numpy as jnp
    >>> found = converge(jnp.array([[0.75, 0.25], [0.25, 0.75]]), jnp.array([[1.0], [3.0]]), jnp.ones(2, bool))
    >>> found.predicted_limit.ravel(), round(float(found.observed_rate), 4), int(found.observed_steps)
    (Array([2., 2.], dtype=float32), 0.5, 10)
    >>> bool(found.limit_held), Held(int(found.rate)).name
    (True, 'HELD')
    """
    _require(steps, tolerance)
    birkhoff = None if logits is None else birkhoff1957_contraction(logits, mask)
    applicable = is_stochastic(attn, mask, _allowed_defect(attn, steps, tolerance))
    weight = jnp.ones_like(hidden[:, 0]) if weight is None else jnp.where(mask, weight, 1)
    applicable &= jnp.all((weight > 0) & jnp.isfinite(weight))
    return _compare(attn, weight, applicable, keep_real(hidden, mask), mask, birkhoff, steps, tolerance)


@at_least_float32
@forward_only
def converge_symmetric(
    adjacency: Float[Array, "T S"],
    hidden: Float[Array, "T D"],
    mask: Bool[Array, " T"],
    *,
    steps: int = 256,
    tolerance: float = 1e-3,
) -> Convergence:
    """`converge` for the symmetric normalisation B = D^(-1/2) A D^(-1/2) of a graph, whose subspace is D^(1/2) 1.

    B = D^(1/2) P D^(-1/2) with the walk P = D^(-1) A, so B^k H tends to D^(1/2) (lim P^k) D^(-1/2) H, which for a
    connected graph lies in span(D^(1/2) 1), at the rate of the second eigenvalue modulus, that of P. Dobrushin's tau
    of P bounds the spread of D^(-1/2) B^k H.

    It has no derivative in reverse (`jax.grad`), only forwards.

    Args:
      adjacency: A, symmetric and at least 0, [T S]; e.g. exp of symmetric scores.
      hidden: H, [T D].
      mask: True on real tokens, [T].
      steps: K, at least 2.
      tolerance: relative distance to the limit that counts as having arrived.

    Returns:
      A `Convergence`; `mixing_rate` is that of P, and `birkhoff` is 1.

    Raises:
      OptionError: fewer than 2 steps, or a tolerance that is not positive.

    >>> import jax.numpy as jnp
    >>> graph = jnp.array([[1.0, 1.0], [1.0, 3.0]])  # degrees 2 and 4
    >>> found = converge_symmetric(graph, jnp.array([[1.0], [0.0]]), jnp.ones(2, bool))
    >>> found.predicted_limit.ravel().round(4), round(float(found.predicted_rate), 4)  # 1/3 and sqrt(2)/3
    (Array([0.3333, 0.4714], dtype=float32), 0.25)

    References: Oono and Suzuki (2020), arXiv 1905.10947; Shi et al. (2022), arXiv 2202.08625, section 3.
    """
    _require(steps, tolerance)
    adjacency = jnp.where(real_pairs(mask), adjacency, 0)
    degrees = jnp.sum(adjacency, axis=-1)
    walk = adjacency / jnp.where(degrees > 0, degrees, 1)[:, None]
    weight = jnp.where(mask & (degrees > 0), safe_sqrt(degrees), 1)
    largest = jnp.max(jnp.abs(adjacency))
    symmetric = jnp.all(jnp.abs(adjacency - adjacency.T) <= _allowed_defect(adjacency, steps, tolerance) * largest)
    applicable = symmetric & jnp.all(adjacency >= 0) & jnp.all((degrees > 0) | ~mask)
    return _compare(walk, weight, applicable, keep_real(hidden, mask), mask, None, steps, tolerance)


def is_stochastic(attn: Array, mask: Array, defect: float | Array) -> Array:
    """Whether entries are at least 0 and every real row sums to 1, up to `defect`; NaN does not."""
    real = real_pairs(mask)
    sums = jnp.sum(jnp.where(real, attn, 0), axis=-1)
    return jnp.all((attn >= 0) | ~real) & jnp.all((jnp.abs(sums - 1) <= defect) | ~mask)


def _require(steps: int, tolerance: float) -> None:
    require_int("steps", steps, 2, OptionError)
    if not (is_number(tolerance) and 0 < tolerance < math.inf):
        raise OptionError(f"tolerance must be a positive number; got {tolerance!r}.")


def _allowed_defect(matrix: Array, steps: int, tolerance: float) -> float:
    """What K steps turn into a tenth of the tolerance, but no less than the rounding of one sum."""
    return max(4 * matrix.shape[-1] * float(jnp.finfo(matrix.dtype).eps), 0.1 * tolerance / steps)


def _compare(
    walk: Array,
    weight: Array,
    applicable: Array,
    start: Array,
    mask: Array,
    birkhoff: Array | None,
    steps: int,
    tolerance: float,
) -> Convergence:
    """Prediction against observation for diag(w) P diag(1/w), P the stochastic matrix `walk`."""
    limit = chain_limit(walk, mask)
    matrix, end = (weight[:, None] * part / weight[None] for part in (walk, limit.matrix))
    sums = jnp.sum(jnp.where(real_pairs(mask), walk, 0), axis=-1)
    defect = jnp.max(jnp.where(mask, jnp.abs(sums - 1), 0), initial=0)
    chain = Chain(matrix, end, mask, weight, limit.classes, applicable, defect)
    modulus = subdominant(walk, mask, limit)
    tau = ergodicity_coefficient(walk, mask)
    birkhoff = jnp.ones_like(tau) if birkhoff is None else birkhoff
    return Convergence(
        classes=chain.classes,
        slem=jnp.where(chain.classes > 1, 1, modulus.upper),
        predicted_rate=modulus.upper,
        ergodicity=tau,
        birkhoff=birkhoff,
        mixing_rate=mixing_rate(walk, mask),
        applicable=applicable,
        **_observed(chain, modulus, start, (tau, birkhoff), steps, tolerance),
    )


def _observed(
    chain: Chain, modulus: Modulus, start: Array, bounds: tuple[Array, Array], steps: int, tolerance: float
) -> dict[str, Array]:
    """The fields of a `Convergence` that take the iteration itself; `bounds` are tau and Birkhoff's coefficient."""
    predicted, rate = matmul(chain.limit, start), modulus.upper
    observed, ratios, spreads = observe(chain, start, predicted, steps)
    logs, apart = decay(chain, start - predicted, steps), away(start, predicted, chain.mask)
    promised, needed = predicted_steps(rate, tolerance), observed_steps(ratios, tolerance)
    taken, arrived = needed.astype(promised.dtype), ratios[-1] <= tolerance
    added = rounding_of(chain, start, predicted, steps)
    verdicts = {
        "limit": limit_verdict(chain, ratios, rate, arrived, steps, added),
        "rate": rate_verdict(logs, modulus, apart, steps, chain.matrix.shape[-1]),
        "steps": verdict(arrived & (taken <= 2 * promised + 1), (taken > 2 * promised + 1) & (added <= tolerance)),
    }
    refused, spread = Held.NOT_APPLICABLE.value, start / chain.weight[:, None]
    tau, birkhoff = (bounded(spreads, bound, spread, chain) for bound in bounds)
    return {
        "predicted_limit": predicted,
        "observed_limit": observed,
        "limit_error": ratios[-1],
        "observed_rate": late_rate(logs, steps // 2),
        "largest_growth": jnp.maximum(jnp.exp(jnp.max(logs)), 1),
        "predicted_steps": promised,
        "observed_steps": needed,
        "transient": taken - promised,
        "arrived": arrived,
        **{name: jnp.where(chain.applicable, each, refused).astype(jnp.int8) for name, each in verdicts.items()},
        "ergodicity_held": tau,
        "birkhoff_held": birkhoff,
    }
