"""The second eigenvalue of attention, bracketed by powers of the matrix: no eigenvalue solver is needed."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ...linalg.gelfand import Power, first_power, squared
from ...linalg.precision import at_least_float32
from ..consensus import per_row, real_pairs
from .limits import ChainLimit, chain_limit, over_batch

BRACKET_SQUARINGS = 30


class Modulus(NamedTuple):
    """A spectral radius between two bounds.

    Attributes:
      lower: at most the spectral radius, up to rounding; 0 where nothing better is known.
      upper: at least the spectral radius, up to rounding.
      rounding: first-order estimate of how much rounding may have changed either, relative; it assumes an eigenvalue
        that is well conditioned. 0 where the eigenvalues were read off a triangular matrix.
    """

    lower: Float[Array, "*B"]
    upper: Float[Array, "*B"]
    rounding: Float[Array, "*B"]


@at_least_float32
def slem(attn: Float[Array, "*B T S"], mask: Bool[Array, "..."], *, squarings: int = BRACKET_SQUARINGS) -> Modulus:
    """Second-largest eigenvalue modulus |lambda_2| of A over real tokens, the rate of A^k in the end.

    1 if there are several closed classes, or a periodic one. Otherwise see `subdominant`, which this is.

    Args:
      attn: attention whose rows sum to 1 over real keys and vanish on padded keys, [..., T, S].
      mask: True on real tokens, [..., T]; broadcast over the axes of `attn` in front of T (heads).
      squarings: see `subdominant`.

    Returns:
      A `Modulus`, [...].

    >>> import jax.numpy as jnp
    >>> found = slem(jnp.array([[0.75, 0.25], [0.5, 0.5]]), jnp.ones(2, bool))
    >>> [round(float(side), 4) for side in (found.lower, found.upper)]
    [0.25, 0.25]
    """
    limit = chain_limit(attn, mask)
    found = subdominant(attn, mask, limit, squarings=squarings)
    several = limit.classes > 1
    return Modulus(*(jnp.where(several, known, side) for side, known in zip(found, (1, 1, 0), strict=True)))


@at_least_float32
def subdominant(
    attn: Float[Array, "*B T S"], mask: Bool[Array, "..."], limit: ChainLimit, *, squarings: int = BRACKET_SQUARINGS
) -> Modulus:
    """Spectral radius of A - lim A^k: the rate at which A^k approaches its limit, however many closed classes.

    B = A - L has B^m = A^m - L. With m = 1, 2, 4, ..., by repeated squaring, rescaled so that nothing overflows,

      max_m (|trace B^m| / (n - 1))^(1/m) <= rho(B) <= min_m ||B^m||_F^(1/m) (Gelfand),

    in exact arithmetic. With m = 2^30 the right side exceeds rho by less than 1e-6 of it even for a Jordan block of
    64. The left one is weak where eigenvalues cancel in every trace. Both are subject to rounding: for a matrix far
    from normal the spectrum itself is, and no algorithm in floating point finds it (numpy's eigenvalues of J A for a
    window of 2 over 64 tokens say 0.785 instead of 0.5). Triangular attention, that is causal masks and windows, is
    the case that matters, and there the diagonal is returned.

    Args:
      attn: attention whose rows sum to 1 over real keys and vanish on padded keys, [..., T, S].
      mask: True on real tokens, [..., T]; broadcast over the axes of `attn` in front of T (heads).
      limit: `chain_limit(attn, mask)`.
      squarings: log2 of the highest power; in float32 more than 20 change little.

    Returns:
      A `Modulus`, [...].

    >>> import jax.numpy as jnp
    >>> attn = jnp.array([[0.75, 0.25], [0.5, 0.5]])
    >>> round(float(subdominant(attn, jnp.ones(2, bool), chain_limit(attn, jnp.ones(2, bool))).upper), 4)
    0.25

    References: Gelfand (1941), Normierte Ringe; Higham (2002), Accuracy and Stability of Numerical Algorithms.
    """
    real = per_row(mask, attn)
    deflated = jnp.where(real_pairs(real), attn - limit.matrix, 0)
    count = jnp.sum(real, axis=-1)

    def one(matrix: Array, real: Array) -> Modulus:
        return _bracket(matrix, jnp.sum(real), squarings)

    return jax.tree.map(lambda side: jnp.where(count > 1, side, 0), over_batch(one, deflated, real))


class _Bounds(NamedTuple):
    power: Power
    lower: Array  # logs of the best bounds so far
    upper: Array
    rounding: Array


def _bracket(matrix: Array, count: Array, squarings: int) -> Modulus:
    """The spectral radius of one matrix over `count` real tokens."""
    others = jnp.maximum(count - 1, 1).astype(matrix.dtype)
    zero = jnp.zeros((), matrix.dtype)
    start = _tighten(_Bounds(first_power(matrix), zero - jnp.inf, zero + jnp.inf, zero), others)
    end = jax.lax.fori_loop(0, squarings, lambda _, bounds: _tighten(_square(bounds), others), start)
    # The eigenvalues of a triangular matrix are its diagonal.
    triangular = jnp.all(jnp.triu(matrix, 1) == 0)
    exact = jnp.max(jnp.abs(jnp.diagonal(matrix)))
    return Modulus(
        lower=jnp.where(triangular, exact, jnp.exp(end.lower)),
        upper=jnp.where(triangular, exact, jnp.exp(end.upper)),
        rounding=jnp.where(triangular, 0, end.rounding),
    )


def _square(bounds: _Bounds) -> _Bounds:
    power = squared(bounds.power)
    # Higham (2002), section 3.5: a product of two matrices of norm 1 is off by at most n eps in this norm.
    error = power.matrix.shape[0] * jnp.finfo(power.matrix.dtype).eps / (power.last_norm * power.exponent)
    return bounds._replace(power=power, rounding=bounds.rounding + error)


def _tighten(bounds: _Bounds, others: Array) -> _Bounds:
    """Better bounds, if the power gives them. A trace lost in the rounding of the entries gives none."""
    matrix, exponent, log_root, _ = bounds.power
    trace = jnp.abs(jnp.trace(matrix)) - matrix.shape[0] * jnp.finfo(matrix.dtype).eps
    below = jnp.where(trace > 0, jnp.log(jnp.where(trace > 0, trace, 1) / others) / exponent + log_root, -jnp.inf)
    return bounds._replace(lower=jnp.maximum(bounds.lower, below), upper=jnp.minimum(bounds.upper, log_root))
