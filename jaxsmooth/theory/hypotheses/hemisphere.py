"""Do all tokens lie in one open half-space through the origin? Decided by certificates, host only.

There is a w with w . x_i > 0 for every token, or weights of at least 0, not all 0, with sum_i p_i x_i = 0, and never
both (Gordan). Either is found in floating point; w is then proved by enclosed products, p in rational arithmetic.
"""

from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import arguments_checked
from ...linalg.intervals import Ball, quiet
from .finite_matrix import finite_matrix

LARGEST_SUPPORT = 32  # tokens of an exact combination: rational elimination grows fast


class Hemisphere(NamedTuple):
    """What is proved of tokens and an open half-space.

    Attributes:
      holds: True, False, or None where neither is proved.
      direction: w where it holds, [D].
      support: positions of the tokens of a vanishing combination where it fails.
    """

    holds: bool | None
    direction: NDArray[np.float64] | None = None
    support: tuple[int, ...] = ()


@arguments_checked
@quiet
def open_hemisphere(hidden: NDArray[np.float64]) -> Hemisphere:
    """Whether w . x_i > 0 for some w and every token.

    Tokens on a sphere under attention alone then come together (Geshkovski et al. 2023, lemma on hemispheres). Fewer
    tokens than features lie in one unless they are linearly dependent.

    Args:
      hidden: real tokens only, exact as given, [T D], numpy.

    Returns:
      A `Hemisphere`; of no token it holds.

    Raises:
      ShapeError: no matrix, or numbers that are not finite.

    >>> open_hemisphere(np.array([[1.0, 0.0], [0.0, 1.0], [-0.5, 1.0]])).holds
    True
    >>> open_hemisphere(np.array([[1.0, 0.0], [-1.0, 1.0], [-1.0, -1.0]])).support
    (0, 1, 2)

    References: Gordan (1873); Geshkovski et al. (2023), arXiv 2312.10794.
    """
    tokens = finite_matrix("hidden", hidden)
    if not len(tokens):
        return Hemisphere(True, np.zeros(tokens.shape[1]))
    zeros = np.flatnonzero(~np.any(tokens, axis=1))
    if zeros.size:
        return Hemisphere(False, support=(int(zeros[0]),))
    # Powers of two, so that the scaled tokens are the tokens, but for sizes beyond the arithmetic's.
    scaled = np.ldexp(tokens, -np.frexp(np.max(np.abs(tokens), axis=1))[1][:, None])
    units = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    for direction in (units.mean(axis=0), np.linalg.lstsq(units, np.ones(len(units)), rcond=None)[0]):
        if _proves(direction, scaled):
            return Hemisphere(True, direction)
    direction, weights = _search(units)
    if _proves(direction, scaled):
        return Hemisphere(True, direction)
    support = _vanishing(tokens, weights)
    return Hemisphere(False, support=support) if support else Hemisphere(None)


def _proves(direction: NDArray[np.float64], tokens: NDArray[np.float64]) -> bool:
    found = Ball.exact(tokens) @ Ball.exact(np.asarray(direction)[:, None])
    return bool(np.all(found.mid - found.rad > 0))


def _search(units: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The w of |w_k| <= 1 with the largest min_i w . x_i, and the weights of the dual program."""
    from scipy.optimize import linprog  # only now: most sentences never need it

    count, width = units.shape
    found = linprog(
        np.eye(width + 1)[-1] * -1.0,
        A_ub=np.hstack([-units, np.ones((count, 1))]),
        b_ub=np.zeros(count),
        bounds=[(-1, 1)] * width + [(None, 1)],
        method="highs",
    )
    if found.x is None:
        return np.zeros(width), np.zeros(count)
    return found.x[:width], np.abs(found.ineqlin.marginals)


def _vanishing(tokens: NDArray[np.float64], weights: NDArray[np.float64]) -> tuple[int, ...]:
    """Tokens some positive combination of which is exactly zero, among those with weight; none if not proved."""
    support = np.flatnonzero(weights > 1e-9 * np.max(weights, initial=0))
    if not 0 < support.size <= LARGEST_SUPPORT:
        return ()
    from flint import fmpq, fmpq_mat

    def exact(value: float) -> fmpq:
        return fmpq(*Fraction(value).as_integer_ratio())

    columns = tokens[support].T
    columns = columns[np.any(columns, axis=1)]
    echelon, rank = fmpq_mat([[exact(x) for x in row] for row in columns.tolist()]).rref()
    if rank != support.size - 1:
        return ()
    # One free column: its weight is 1, the others follow, and all must be positive.
    rows = echelon.tolist()[:rank]
    pivots = [next(place for place, entry in enumerate(row) if entry != 0) for row in rows]
    (free,) = set(range(support.size)) - set(pivots)
    return tuple(map(int, support)) if all(row[free] < 0 for row in rows) else ()
