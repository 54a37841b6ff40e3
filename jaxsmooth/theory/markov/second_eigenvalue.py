"""The second eigenvalue of attention between two bounds that rounding cannot break: no eigenvalue solver is needed."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ...linalg.intervals import gamma, tiny
from ...linalg.norms import binary_size, norm
from ...linalg.precision import at_least_float32, matmul
from ...linalg.reverse import forward_only
from ..consensus import per_row, real_pairs
from .limits import ChainLimit, chain_limit, log_weights, over_batch

BRACKET_SQUARINGS = 30
NORM_SQUARINGS = 5  # the bound of a norm is then too large by a factor of n^(1/64) at most
ROUNDED = 16  # in units of the dtype's precision: what logarithms and exponentials may add to a bound


class Modulus(NamedTuple):
    """A spectral radius between two bounds, which hold for the exact numbers: rounding is allowed for in both.

    Attributes:
      lower: at most the spectral radius; 0 where nothing better is known.
      upper: at least the spectral radius. Far above it where the matrix is so far from normal that its dtype does not
        tell the eigenvalue.
      rounding: the share of `upper` that is the allowance for rounding, in [0, 1]; 0 where the eigenvalues were read
        off a matrix that is triangular in some order of its tokens.
    """

    lower: Float[Array, "*B"]
    upper: Float[Array, "*B"]
    rounding: Float[Array, "*B"]


@at_least_float32
@forward_only
def slem(attn: Float[Array, "*B T S"], mask: Bool[Array, "..."], *, squarings: int = BRACKET_SQUARINGS) -> Modulus:
    """Second-largest eigenvalue modulus |lambda_2| of A over real tokens, the rate of A^k in the end.

    1 if there are several closed classes, or a periodic one. Otherwise see `subdominant`, which this is.

    It has no derivative in reverse (`jax.grad`), only forwards.

    Args:
      attn: attention whose rows sum to 1 over real keys and vanish on padded keys, [..., T, S].
      mask: True on real tokens, [..., T]; broadcast over the axes of `attn` in front of T (heads).
      squarings: see `subdominant`.

    Returns:
      A `Modulus`, [...]; 0 of a single token and of none.

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
@forward_only
def subdominant(
    attn: Float[Array, "*B T S"], mask: Bool[Array, "..."], limit: ChainLimit, *, squarings: int = BRACKET_SQUARINGS
) -> Modulus:
    """Spectral radius of A - lim A^k: the rate at which A^k approaches its limit, however many closed classes.

    The eigenvalues of A are those of its blocks on tokens that reach each other, which the pattern of zeros tells; a
    block of one token has its diagonal entry, exactly. On a closed class 1 q^T is taken from A, q its law: for any q of
    sum 1 that replaces the eigenvalue 1 by 0 and no other, so errors of the law cost nothing. With the roots of its
    law as the basis, rounded to powers of two, a block of a reversible chain is next to symmetric. Of what is left, B,
    with m = 1, 2, 4, ..., by repeated squaring, rescaled by powers of two,

      max_m (|trace B^m| / count)^(1/m) <= rho(B) <= min_m ||B^m||^(1/m) (Gelfand),

    where the computed B^m is P with ||B^m - P||_F <= a, and a is carried along: the left side takes n^(1/2) a from the
    trace, the right side adds a to the norm. For a matrix far from normal a soon exceeds ||P||, and there it ends; its
    eigenvalue is then hardly a property of the numbers given. With m = 2^30 the right side exceeds rho by less than
    1e-6 of it even for a Jordan block of 64, rounding apart. The left one is weak where eigenvalues cancel in every
    trace. It has no derivative in reverse (`jax.grad`), only forwards, of one bound or the other.

    Args:
      attn: attention whose rows sum to 1 over real keys and vanish on padded keys, [..., T, S]. In closed classes
        diagonal entries are not read, see `chain_limit`. Entries too small to be normal numbers count as 0.
      mask: True on real tokens, [..., T]; broadcast over the axes of `attn` in front of T (heads).
      limit: `chain_limit(attn, mask)`.
      squarings: log2 of the highest power; in float32 more than 20 change little.

    Returns:
      A `Modulus`, [...]; 0 of a single token and of none. Of attention with negative or unknown (NaN) weights nothing
      is known: from 0 to infinity.

    >>> import jax.numpy as jnp
    >>> attn = jnp.array([[0.75, 0.25], [0.5, 0.5]])
    >>> round(float(subdominant(attn, jnp.ones(2, bool), chain_limit(attn, jnp.ones(2, bool))).upper), 4)
    0.25

    References: Gelfand (1941), Normierte Ringe; Higham (2002), Accuracy and Stability of Numerical Algorithms.
    """
    real = per_row(mask, attn)
    # The laws go along as a row more of the matrix.
    whole = jnp.concatenate(
        [jnp.where(real_pairs(real), attn, 0), jnp.sum(limit.laws, axis=-2, keepdims=True)], axis=-2
    )
    whole = jnp.where(jnp.abs(whole) < tiny(attn), 0, whole)
    return over_batch(lambda rows, real: _bracket(rows[:-1], rows[-1], real, squarings), whole, real)


class _Power(NamedTuple):
    """What is known of B^m and of the bounds that it and the powers before it give."""

    matrix: Array  # P, B^m over a power of two as it was computed
    error: Array  # a, at least the Frobenius norm of what P is off by
    exponent: Array  # m
    log_scale: Array  # of that power of two, over m
    modulus: Modulus  # the bounds of the powers before it as logarithms
    lost: Array  # no later power gives a better bound: the one before it was lost in its error, or none is needed


def _bracket(attn: Array, law: Array, real: Array, squarings: int) -> Modulus:
    """The spectral radius of one matrix less its limit."""
    same, closed = _components(attn > 0, real)
    members = jnp.sum(same, axis=-1)
    alone = members <= 1
    start, error = _deflated(attn, law, same, closed & ~alone, real)
    start = jnp.where((closed & alone)[:, None], 0, start)
    # In every closed class one eigenvalue is 0.
    zeros = jnp.sum(jnp.where(closed, 1 / jnp.maximum(members, 1).astype(attn.dtype), 0))
    others = jnp.maximum(jnp.sum(real).astype(attn.dtype) - zeros, 1)
    zero = jnp.zeros((), attn.dtype)
    nothing = Modulus(zero - jnp.inf, zero + jnp.inf, zero + 1)
    # Where no two tokens reach each other the diagonal is all there is, and no power is taken.
    first, most = _Power(start, error, zero + 1, zero, nothing, jnp.all(alone)), 2.0**squarings
    last = jax.lax.while_loop(
        lambda power: (power.exponent <= most) & ~power.lost, lambda power: _squared(power, others), first
    )
    lower, upper, rounding = last.modulus
    slack = ROUNDED * jnp.finfo(attn.dtype).eps
    # A - lim A^k has no eigenvalue beyond the circle.
    bounds = Modulus(jnp.exp(lower) * (1 - slack), jnp.minimum(jnp.exp(upper) * (1 + slack), 1), rounding)
    diagonal = jnp.max(jnp.abs(jnp.diagonal(start)), initial=0)
    exact, unknown = Modulus(diagonal, diagonal, zero), Modulus(zero, zero + jnp.inf, zero + 1)
    found = jax.tree.map(lambda known, bound: jnp.where(jnp.all(alone), known, bound), exact, bounds)
    return jax.tree.map(lambda side, none: jnp.where(jnp.all(attn >= 0), side, none), found, unknown)


def _components(graph: Array, real: Array) -> tuple[Array, Array]:
    """Which tokens reach each other, [T T], real ones themselves, and which are in a closed class, [T]."""
    reach = graph | jnp.diag(real)
    for _ in range(math.ceil(math.log2(max(graph.shape[0], 2)))):
        steps = reach.astype(jnp.float32)
        reach = matmul(steps, steps) > 0
    same = reach & reach.T
    return same, real & jnp.all(same | ~reach, axis=-1)


def _deflated(attn: Array, law: Array, same: Array, closed: Array, real: Array) -> tuple[Array, Array]:
    """B, and at least the Frobenius norm of its error: the blocks of A, less 1 q^T on closed classes, in their bases.

    There the diagonal is what makes rows sum to 1, and q is what makes the law sum to 1.
    """
    eps, count = jnp.finfo(attn.dtype).eps, attn.shape[0]
    one = jnp.eye(count, dtype=bool)
    rest = jnp.sum(jnp.where(one, 0, attn), axis=-1)
    block = jnp.where(same, jnp.where(one & closed[:, None], 1 - rest[:, None], attn), 0)
    mean = jnp.where(same & closed[:, None], law[None], 0)
    # By powers of two nothing is rounded: the root of every block's own law, over the largest of the block.
    heights = log_weights(jnp.where(same, attn, 0), real) / math.log(4)
    heights = heights - jnp.max(jnp.where(same, heights, -jnp.inf), axis=-1)
    powers = jnp.where(jnp.isfinite(heights), jnp.round(heights), 0).astype(jnp.int32)
    block, mean = (jnp.ldexp(x, powers[:, None] - powers[None]) for x in (block, mean))
    # The sums of n numbers, the diagonal and the law; a law that is off is mended at its largest entry.
    off = jnp.where(closed, jnp.abs(jnp.sum(jnp.where(same, law, 0), axis=-1) - 1) + count * eps, 0)
    sums = jnp.where(closed, count * eps * (1 + rest), 0) + 2 * off
    rounded = 4 * eps * (_frobenius(block) + _frobenius(mean)) + 2 * count * count * tiny(attn)
    return block - mean, rounded + norm(sums)


def _squared(power: _Power, others: Array) -> _Power:
    """B^(2 m), and the bounds that B^m gives: the error of P P is P E + E P + E E, and that of the product."""
    matrix, error, exponent, log_scale, *_ = power
    count = matrix.shape[0]
    size, product, square = _size(matrix), matmul(matrix, matrix), _frobenius(matrix) ** 2
    rounded = 1.01 * gamma(count, product) * square + 2 * count * count * tiny(product)
    scale = binary_size(product)[0, 0]
    return _Power(
        matrix=product / scale,
        error=(1.01 * error * (2 * size + error) + rounded) / scale,
        exponent=2 * exponent,
        log_scale=log_scale + jnp.log(scale) / (2 * exponent),
        modulus=_tightened(power, size, others),
        lost=error >= size,
    )


def _size(matrix: Array) -> Array:
    """At least ||P||: ||P||^2 = ||P P^T||, again and again, each P P^T made one of Frobenius norm 1; then that."""
    rounding = 1.01 * gamma(matrix.shape[0], matrix)
    sizes = []
    for _ in range(NORM_SQUARINGS):
        sizes.append(_frobenius(matrix))
        unit = matrix / jnp.where(sizes[-1] > 0, sizes[-1], 1)
        matrix = matmul(unit, unit.T)
    found = _frobenius(matrix)
    for size in reversed(sizes):
        found = size * jnp.sqrt(found + 2 * rounding)
    return found


def _frobenius(matrix: Array) -> Array:
    """Not less, up to the rounding of the last operation: row by row, so that few terms are added."""
    return norm(norm(matrix)) * (1 + 2 * gamma(matrix.shape[0], matrix))


def _tightened(power: _Power, size: Array, others: Array) -> Modulus:
    """Better bounds, if the power of norm at most `size` gives them."""
    matrix, error, exponent, log_scale, (lower, upper, rounding), _ = power
    count = matrix.shape[0]
    above = log_scale + jnp.log(size + error) / exponent
    lost = math.sqrt(count) * (error + gamma(count, matrix) * norm(jnp.diagonal(matrix)))
    trace = (jnp.abs(jnp.trace(matrix)) - lost) / others
    below = jnp.where(trace > 0, log_scale + jnp.log(jnp.where(trace > 0, trace, 1)) / exponent, -jnp.inf)
    share = -jnp.expm1(jnp.log(size / (size + error)) / exponent)
    better = above < upper
    return Modulus(jnp.maximum(lower, below), jnp.where(better, above, upper), jnp.where(better, share, rounding))
