"""Limits of Markov chains: closed classes, stationary laws and absorption probabilities of iterated attention.

A row-stochastic A splits its tokens into closed classes, which attend only within themselves, and transient tokens.
If no class is periodic, A^k tends to sum_c h_c pi_c^T over the closed classes c: pi_c is the stationary law of the
class and h_c(i) the probability that a walk from token i ends in it. Everything here is computed by elimination without
a subtraction, so that entries as small as 1e-30 keep their digits, and without LAPACK, so that it compiles for every
device.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ...linalg.norms import quotient
from ...linalg.precision import at_least_float32, matmul
from ..consensus import per_row, real_pairs, subspace_distance
from ..mixing import is_row_stochastic
from ..statement import Statement

Result = TypeVar("Result")


class ChainLimit(NamedTuple):
    """lim A^k in factors. Each closed class is named by one of its tokens, its root.

    Attributes:
      absorption: h: the probability that a walk from token i ends in the class of root r, [..., T, T]; zero in
        columns of tokens that are no roots.
      laws: pi: the stationary law of the class of root r, [..., T, T]; zero in rows of tokens that are no roots.
      roots: True on roots, [..., T].
    """

    absorption: Float[Array, "*B T T"]
    laws: Float[Array, "*B T T"]
    roots: Bool[Array, "*B T"]

    @property
    def matrix(self) -> Float[Array, "*B T T"]:
        """The Cesaro limit of A^k, which is its limit when no class is periodic; zero on padding."""
        return matmul(self.absorption, self.laws)

    @property
    def classes(self) -> Int[Array, "*B"]:
        """Number of closed classes, the dimension of ker(I - A)."""
        return jnp.sum(self.roots, axis=-1)


@at_least_float32
def chain_limit(attn: Float[Array, "*B T S"], mask: Bool[Array, "..."]) -> ChainLimit:
    """The limit of A^k, or of its means if a class is periodic: sum_c h_c pi_c^T over the closed classes.

    Tokens are eliminated one by one, as in the algorithm of Grassmann, Taksar and Heyman, which never subtracts. A
    token that attends to none of the remaining ones is the root of a closed class and is not eliminated; so the
    classes are counted exactly for the pattern of zeros that A has. The diagonal is not read: it is taken to be what
    makes the row sum to 1.

    Args:
      attn: attention whose rows sum to 1 over real keys and vanish on padded keys, [..., T, S].
      mask: True on real tokens, [..., T]; broadcast over the axes of `attn` in front of T (heads).

    Returns:
      A `ChainLimit`.

    >>> import jax.numpy as jnp
    >>> walk = jnp.array([[1.0, 0.0, 0.0], [0.5, 0.0, 0.5], [0.0, 0.0, 1.0]])
    >>> chain_limit(walk, jnp.ones(3, bool)).matrix
    Array([[1. , 0. , 0. ],
           [0.5, 0. , 0.5],
           [0. , 0. , 1. ]], dtype=float32)

    References: Grassmann, Taksar and Heyman (1985), Regenerative analysis and steady state distributions for Markov
    chains; O'Cinneide (1993), for its entrywise accuracy; Kemeny and Snell (1976), chapters 3 and 4.
    """
    real = per_row(mask, attn)
    return over_batch(_one_limit, attn, real)


@at_least_float32
def stationary_law(attn: Float[Array, "*B T S"], mask: Bool[Array, "..."]) -> Float[Array, "*B T"]:
    """pi with pi^T A = pi^T, sum 1: what every token's attention tends to. Zero on padding and transient tokens.

    Args:
      attn: attention whose rows sum to 1 over real keys and vanish on padded keys, [..., T, S].
      mask: True on real tokens, [..., T]; broadcast over the axes of `attn` in front of T (heads).

    Returns:
      [..., T]; NaN where several closed classes leave it undetermined.

    >>> import jax.numpy as jnp
    >>> stationary_law(jnp.array([[0.5, 0.5], [0.25, 0.75]]), jnp.ones(2, bool)).round(4)
    Array([0.3333, 0.6667], dtype=float32)
    """
    limit = chain_limit(attn, mask)
    return jnp.where(limit.classes[..., None] == 1, jnp.sum(limit.laws, axis=-2), jnp.nan)


@at_least_float32
def detailed_balance_defect(attn: Float[Array, "*B T S"], mask: Bool[Array, "..."]) -> Float[Array, "*B"]:
    """max_ij |pi_i A_ij - pi_j A_ji| over the largest flow pi_i A_ij, i != j: 0 exactly for reversible attention.

    Symmetric scores (Q = K) make attention reversible, A = D^-1 S with pi proportional to D 1; then its spectrum is
    real, and if S is positive semidefinite, as exp of a Gram matrix is, it is not negative.

    Args:
      attn: attention whose rows sum to 1 over real keys and vanish on padded keys, [..., T, S].
      mask: True on real tokens, [..., T]; broadcast over the axes of `attn` in front of T (heads).

    Returns:
      [...], in [0, 1]; 0 if no token attends to another, NaN where several closed classes leave pi undetermined.

    >>> import jax.numpy as jnp
    >>> cycle = jnp.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    >>> detailed_balance_defect(cycle, jnp.ones(3, bool))
    Array(1., dtype=float32)

    References: Kelly (1979), Reversibility and Stochastic Networks, chapter 1.
    """
    law, real = stationary_law(attn, mask), per_row(mask, attn)
    known = jnp.logical_not(jnp.isnan(law))
    flow = jnp.where(known, law, 0)[..., :, None] * attn
    diagonal = jnp.eye(attn.shape[-1], dtype=bool).reshape((1,) * (attn.ndim - 2) + attn.shape[-2:])
    flow = jnp.where(real_pairs(real) & ~diagonal, flow, 0)
    largest = jnp.max(flow, axis=(-2, -1))
    difference = jnp.max(jnp.abs(flow - jnp.swapaxes(flow, -2, -1)), axis=(-2, -1))
    return jnp.where(jnp.all(known | ~real, axis=-1), quotient(difference, largest, 0), jnp.nan)


@at_least_float32
def reversible_contraction(
    attn: Float[Array, "T S"],
    hidden: Float[Array, "T D"],
    mask: Bool[Array, " T"],
    second: Float[Array, ""],
    steps: int,
) -> Statement:
    """d_M(A^k H) <= sqrt(pi_max / pi_min) |lambda_2|^k d_M(H) for reversible A: no transient beyond the constant.

    Proof: diag(pi)^(1/2) A diag(pi)^(-1/2) is symmetric with the spectrum of A, so ||A^k H - 1 pi^T H|| contracts
    by |lambda_2| each step in the norm weighted by pi, which lies between sqrt(pi_min) and sqrt(pi_max) times the
    Frobenius norm; and no matrix with equal rows is nearer to A^k H than the mean, nor in the weighted norm to H
    than 1 pi^T H.

    Args:
      attn: attention whose rows sum to 1 over real keys and vanish on padded keys, [T S].
      hidden: H, [T D].
      mask: True on real tokens, [T].
      second: |lambda_2|, see `slem`.
      steps: k.

    Returns:
      A `Statement`; applicable when A is irreducible and reversible to rounding, its rows sum to 1, and |lambda_2| is
      no less than 0.

    >>> import jax.numpy as jnp
    >>> attn = jnp.array([[0.75, 0.25], [0.25, 0.75]])
    >>> found = reversible_contraction(attn, jnp.array([[1.0], [-1.0]]), jnp.ones(2, bool), jnp.array(0.5), 2)
    >>> [round(float(side), 4) for side in (found.lhs, found.rhs)], bool(found.applicable)
    ([0.3536, 0.3536], True)

    References: Diaconis and Stroock (1991), Geometric bounds for eigenvalues of Markov chains, section 1.
    """
    law = stationary_law(attn, mask)
    least, most = jnp.min(jnp.where(mask, law, jnp.inf)), jnp.max(jnp.where(mask, law, 0))
    real = jnp.where(mask[:, None], hidden, 0)
    after = jax.lax.fori_loop(0, steps, lambda _, x: matmul(attn, x), real)
    rounding = 32 * attn.shape[-1] * jnp.finfo(attn.dtype).eps
    applicable = (least > 0) & (detailed_balance_defect(attn, mask) <= rounding) & jnp.any(mask)
    applicable = applicable & is_row_stochastic(attn, mask) & (second >= 0)
    bound = jnp.sqrt(most / least) * second**steps * subspace_distance(real, mask)
    return Statement(subspace_distance(after, mask), bound, applicable)


def over_batch(
    function: Callable[[Array, Array], Result], attn: Float[Array, "*B rows S"], real: Bool[Array, "*B S"]
) -> Result:
    """`function(matrix, mask)` of every matrix, for any leading axes.

    >>> import jax.numpy as jnp
    >>> over_batch(lambda matrix, real: matrix[0, 0], jnp.ones((2, 3, 4, 4)), jnp.ones((2, 3, 4), bool)).shape
    (2, 3)
    """
    leading = attn.shape[:-2]
    found = jax.vmap(function)(attn.reshape(-1, *attn.shape[-2:]), real.reshape(-1, real.shape[-1]))
    return jax.tree.map(lambda leaf: leaf.reshape(*leading, *leaf.shape[1:]), found)


def log_weights(attn: Float[Array, "T S"], real: Bool[Array, " T"]) -> Float[Array, " T"]:
    """log of what a token weighs in the law of its closed class, over its root's weight: it does not underflow.

    Args:
      attn: one matrix, as for `chain_limit`.
      real: True on real tokens.

    Returns:
      [T]; -inf on transient tokens, 0 on padding.

    >>> import jax.numpy as jnp
    >>> log_weights(jnp.array([[0.0, 1.0], [0.25, 0.75]]), jnp.ones(2, bool)).round(4)
    Array([0.    , 1.3863], dtype=float32)
    """
    reduced, roots = _eliminate(jnp.where(real_pairs(real), attn, 0), real)

    def substitute(k: Array, logs: Array) -> Array:
        known = _remaining(k, real, roots)
        row, column = jnp.where(known, reduced[k], 0), jnp.where(known, reduced[:, k], 0)
        seen = (column > 0) & jnp.isfinite(logs)
        top = jnp.max(jnp.where(seen, logs, -jnp.inf))
        size = jnp.sum(jnp.where(seen, column * jnp.exp(logs - jnp.where(jnp.isfinite(top), top, 0)), 0))
        weight = top + jnp.log(jnp.where(size > 0, size, 1)) - jnp.log(jnp.where(jnp.sum(row) > 0, jnp.sum(row), 1))
        return logs.at[k].set(jnp.where(real[k] & ~roots[k], weight, logs[k]))

    start = jnp.where(roots | ~real, 0, -jnp.inf).astype(attn.dtype)
    return jax.lax.fori_loop(0, attn.shape[-1], substitute, start)


def _one_limit(attn: Array, real: Array) -> ChainLimit:
    size = attn.shape[-1]
    reduced, roots = _eliminate(jnp.where(real_pairs(real), attn, 0), real)
    free, index = real & ~roots, jnp.arange(size)
    # Row k: a walk from k, and how much flows into k, seen on the tokens that remain when k is eliminated.
    known = jax.vmap(lambda k: _remaining(k, real, roots))(index)
    rows, columns = jnp.where(known, reduced, 0), jnp.where(known, reduced.T, 0)
    out = jnp.sum(rows, axis=-1)
    share = jnp.where(free, 1 / jnp.where(free, out, 1), 0)

    def absorb(k: Array, absorption: Array) -> Array:
        return absorption.at[k].set(jnp.where(free[k], share[k] * matmul(rows[k], absorption), absorption[k]))

    absorption = jax.lax.fori_loop(0, size, absorb, jnp.where(roots[:, None], jnp.eye(size, dtype=attn.dtype), 0))
    # A token is in one closed class at most, so one vector holds all laws, beside a root that each token's walks reach.
    homes = jnp.where(roots, index, jnp.argmax(absorption, axis=1))

    def weigh(k: Array, weights: Array) -> Array:
        mine = homes == homes[k]
        flow = jnp.sum(jnp.where(mine, weights * columns[k], 0))
        weights = weights.at[k].set(jnp.where(free[k], share[k] * flow, weights[k]))
        # A token that is hardly ever left can weigh 1e30 times its root: rescaled, nothing overflows.
        return jnp.where(mine, weights / jnp.maximum(weights[k], 1), weights)

    weights = jax.lax.fori_loop(0, size, weigh, roots.astype(attn.dtype))
    laws = jnp.where(roots[:, None] & (homes[None] == index[:, None]), weights[None], 0)
    total = jnp.sum(laws, axis=1, keepdims=True)
    return ChainLimit(absorption, laws / jnp.where(total > 0, total, 1), roots)


def _eliminate(attn: Array, real: Array) -> tuple[Array, Array]:
    """Eliminate the tokens from last to first: the walk observed on the remaining ones, detours added to its entries.

    Returns the matrix, in which row and column k are those at the moment when k was eliminated, and the roots.
    """
    size = attn.shape[-1]

    def step(i: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        matrix, roots = state
        k = size - 1 - i
        known = _remaining(k, real, roots)
        row = jnp.where(known, matrix[k], 0)
        out = jnp.sum(row)
        gone = real[k] & (out > 0)
        share = jnp.where(gone, row / jnp.where(gone, out, 1), 0)
        detour = jnp.where(known, matrix[:, k], 0)[:, None] * share[None, :]
        return matrix + detour, roots.at[k].set(real[k] & ~gone)

    return jax.lax.fori_loop(0, size, step, (attn, jnp.zeros_like(real)))


def _remaining(k: Array, real: Array, roots: Array) -> Array:
    """The tokens that remain when k is eliminated: those before it, and the roots found so far."""
    index = jnp.arange(real.shape[0])
    return (real & (index < k)) | (roots & (index > k))
