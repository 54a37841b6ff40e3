"""What a theorem says about given data: an inequality, and whether its hypotheses hold there."""

import enum
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float

from ..linalg.intervals import Interval, namespace


class Statement(NamedTuple):
    """lhs <= rhs wherever `applicable`; nothing is claimed elsewhere.

    The two sides are computed in floating point, so a comparison of them is a measurement, not a proof.

    Attributes:
      lhs: the bounded quantity.
      rhs: its bound, same shape.
      applicable: True where the hypotheses of the theorem hold, same shape.
    """

    lhs: Float[Array, "..."]
    rhs: Float[Array, "..."]
    applicable: Bool[Array, "..."]


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
