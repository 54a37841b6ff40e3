"""Comparisons that rounding cannot fool: a verdict on lhs <= rhs from enclosures of both sides."""

import enum
from typing import Any, NamedTuple

import numpy as np

from ..linalg.intervals import Interval, namespace


class Verdict(enum.IntEnum):
    """What is known of lhs <= rhs."""

    CONFIRMED = 0
    VIOLATED = 1
    UNDECIDED = 2
    NOT_APPLICABLE = 3


class Claim(NamedTuple):
    """A theorem on given data: lhs <= rhs, each known to lie in its interval, where `applicable`.

    In Arb's hands both sides are `arb` numbers.
    """

    lhs: Any
    rhs: Any
    applicable: Any = True


def compare(lhs: Interval, rhs: Interval, applicable: Any = True) -> Any:
    """CONFIRMED where every possible lhs is at most every possible rhs, VIOLATED where every one is larger.

    Args:
      lhs: encloses the left side, [...].
      rhs: encloses the right side, [...].
      applicable: False where the theorem's hypotheses do not hold, [...].

    Returns:
      The values of `Verdict`, int8, [...]. An end that is infinite or NaN decides nothing.

    >>> import numpy as np
    >>> one, two = (Interval.exact(np.float64(x)) for x in (1, 2))
    >>> wide = Interval(one.down, two.up)
    >>> [Verdict(int(compare(a, b))).name for a, b in ((one, two), (two, one), (wide, wide))]
    ['CONFIRMED', 'VIOLATED', 'UNDECIDED']
    """
    xp = namespace(lhs.down)
    sure = (lhs.up <= rhs.down) & xp.isfinite(lhs.up)
    false = (lhs.down > rhs.up) & xp.isfinite(rhs.up)
    found = xp.where(sure, Verdict.CONFIRMED.value, xp.where(false, Verdict.VIOLATED.value, Verdict.UNDECIDED.value))
    return xp.where(applicable, found, Verdict.NOT_APPLICABLE.value).astype(np.int8)
