"""Closed classes and periods of a Markov chain, and how sensitive its stationary law is. On the host, in numpy."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float
from numpy.typing import NDArray

from ...errors import ShapeError, arguments_checked
from ..statement import Statement


class Classes(NamedTuple):
    """How attention falls into classes of tokens that can reach each other.

    Attributes:
      closed: the closed classes, each an ascending array of token positions, in the order of their first token.
      periods: the period of each closed class; 1 is aperiodic.
      transient: tokens in no closed class, ascending.
    """

    closed: tuple[NDArray[np.int64], ...]
    periods: tuple[int, ...]
    transient: NDArray[np.int64]

    @property
    def kind(self) -> str:
        """Of the chain: "irreducible" (one class, all tokens), "unichain" (one closed class and transient tokens),
        "absorbing" (all closed classes are single tokens, more than one of them), or "reducible"."""
        if len(self.closed) == 1:
            return "unichain" if self.transient.size else "irreducible"
        return "absorbing" if all(len(members) == 1 for members in self.closed) else "reducible"

    @property
    def converges(self) -> bool:
        """Whether lim A^k exists: no closed class is periodic."""
        return all(period == 1 for period in self.periods)

    @property
    def ergodic(self) -> bool:
        """Whether A^k tends to 1 pi^T: one closed class, aperiodic (Wolfowitz's SIA)."""
        return len(self.closed) == 1 and self.converges


@arguments_checked
def closed_classes(attn: Float[Array, "T S"] | NDArray, mask: Bool[Array, " T"] | NDArray) -> Classes:
    """The closed classes of A, their periods, and the transient tokens, from its pattern of zeros.

    Args:
      attn: attention, [T S]; a token attends to another where the entry is positive.
      mask: True on real tokens, [T].

    Returns:
      A `Classes` in positions of the padded sentence.

    >>> import numpy as np
    >>> found = closed_classes(np.array([[1.0, 0.0, 0.0], [0.5, 0.0, 0.5], [0.0, 0.0, 1.0]]), np.ones(3, bool))
    >>> [members.tolist() for members in found.closed], found.transient.tolist(), found.kind
    ([[0], [2]], [1], 'absorbing')

    References: Kemeny and Snell (1976), Finite Markov Chains, section 2.4; Denardo (1977), for the period.
    """
    where = np.flatnonzero(np.asarray(mask))
    graph = np.asarray(attn)[np.ix_(where, where)] > 0
    reach = _reachable(graph)
    together = reach & reach.T
    # A class is closed when whatever it reaches reaches it.
    is_closed = (~reach | together).all(axis=1)
    firsts = [i for i in np.flatnonzero(is_closed) if together[i].argmax() == i]
    members = [np.flatnonzero(together[i]) for i in firsts]
    return Classes(
        closed=tuple(where[group] for group in members),
        periods=tuple(_period(graph[np.ix_(group, group)]) for group in members),
        transient=where[~is_closed],
    )


@arguments_checked
def group_inverse(attn: NDArray, mask: NDArray) -> NDArray[np.float64]:
    """(I - A)^# = (I - A + 1 pi^T)^-1 - 1 pi^T over real tokens, [n n]: the derivative of pi with respect to A.

    Args:
      attn: attention with one closed class, [T S].
      mask: True on real tokens, [T].

    Raises:
      ShapeError: several closed classes, or no token: pi is not determined.

    References: Meyer (1975), The role of the group generalized inverse in the theory of finite Markov chains.
    """
    if (count := len(closed_classes(attn, mask).closed)) != 1:
        raise ShapeError(
            f"the group inverse takes attention with one closed class; this has {count}, see closed_classes."
        )
    regular, law = _regularised(attn, mask)
    return np.linalg.inv(regular) - law[None, :]


@arguments_checked
def meyer1994_lower(attn: NDArray, mask: NDArray) -> Statement:
    """1 / (n min_j>=2 |1 - lambda_j|) <= max |(I - A)^#_ij|: an eigenvalue near 1 makes pi sensitive.

    Args:
      attn: attention whose rows sum to 1 over real keys, [T S].
      mask: True on real tokens, [T].

    Returns:
      A `Statement`; applicable when A is irreducible with rows that sum to 1 and has at least two tokens, else its
      sides are NaN.

    >>> import numpy as np
    >>> found = meyer1994_lower(np.array([[0.5, 0.5], [0.5, 0.5]]), np.ones(2, bool))
    >>> [round(float(side), 4) for side in (found.lhs, found.rhs)]
    [0.5, 0.5]

    References: after Meyer (1994), Sensitivity of the stationary distribution of a Markov chain.
    """
    if not _irreducible(attn, mask):
        return _numbers(np.nan, np.nan, False)
    regular, law = _regularised(attn, mask)
    count = len(law)
    gaps = np.sort(np.abs(np.linalg.eigvals(regular - law[None, :])))[1:]
    least = gaps.min(initial=np.inf)
    sensitivity = np.abs(np.linalg.inv(regular) - law[None, :]).max()
    return _numbers(1 / (count * least), sensitivity, True)


@arguments_checked
def meyer1994_upper(attn: NDArray, mask: NDArray) -> Statement:
    """max |(I - A)^#_ij| < 2 (n - 1) / prod_j>=2 (1 - lambda_j): eigenvalues away from 1 make pi insensitive.

    The product is the determinant of I - A + 1 pi^T, so no eigenvalue is computed.

    Args:
      attn: attention whose rows sum to 1 over real keys, [T S].
      mask: True on real tokens, [T].

    Returns:
      A `Statement`; applicable when A is irreducible with rows that sum to 1 and has at least two tokens, else its
      sides are NaN.

    >>> import numpy as np
    >>> found = meyer1994_upper(np.array([[0.5, 0.5], [0.5, 0.5]]), np.ones(2, bool))
    >>> [round(float(side), 4) for side in (found.lhs, found.rhs)]
    [0.5, 2.0]

    References: after Meyer (1994), Sensitivity of the stationary distribution of a Markov chain.
    """
    if not _irreducible(attn, mask):
        return _numbers(np.nan, np.nan, False)
    regular, law = _regularised(attn, mask)
    sensitivity = np.abs(np.linalg.inv(regular) - law[None, :]).max()
    return _numbers(sensitivity, 2 * (len(law) - 1) / np.linalg.det(regular), True)


def _irreducible(attn: NDArray, mask: NDArray) -> bool:
    """Of at least two tokens, with rows that sum to 1 up to the rounding of their dtype."""
    where = np.flatnonzero(np.asarray(mask))
    weights = np.asarray(attn)[where]
    eps = np.finfo(weights.dtype if weights.dtype.kind == "f" else np.float64).eps
    near = np.abs(weights[:, where].sum(axis=1, dtype=np.float64) - 1) <= (2 * len(where) + 16) * eps
    stochastic = bool(near.all() and (weights >= 0).all() and not np.delete(weights, where, axis=1).any())
    return stochastic and len(where) > 1 and closed_classes(attn, mask).kind == "irreducible"


def _numbers(lhs: float, rhs: float, applicable: bool) -> Statement:
    return Statement(np.asarray(lhs), np.asarray(rhs), np.asarray(applicable))


def _regularised(attn: NDArray, mask: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """I - A + 1 pi^T over real tokens, and pi."""
    where = np.flatnonzero(np.asarray(mask))
    matrix = np.asarray(attn, np.float64)[np.ix_(where, where)]
    count = len(where)
    # pi^T (I - A + 1 u^T) = u^T for the uniform law u: one solve, regular for a single closed class.
    uniform = np.full(count, 1 / count)
    law = np.linalg.solve((np.eye(count) - matrix + uniform[None, :]).T, uniform)
    return np.eye(count) - matrix + law[None, :], law


def _reachable(graph: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Reflexive transitive closure, by squaring: paths twice as long each time."""
    reach = graph | np.eye(len(graph), dtype=bool)
    while True:
        further = reach.astype(np.float32) @ reach.astype(np.float32) > 0
        if (further == reach).all():
            return reach
        reach = further


def _period(graph: NDArray[np.bool_]) -> int:
    """Greatest common divisor of the lengths of all cycles of a strongly connected graph."""
    depth = np.full(len(graph), -1)
    depth[0], level, front = 0, 0, np.zeros(len(graph), bool)
    front[0] = True
    while front.any():
        level += 1
        front = graph[front].any(axis=0) & (depth < 0)
        depth[front] = level
    starts, ends = np.nonzero(graph)
    return math.gcd(*(depth[starts] + 1 - depth[ends]).tolist())
