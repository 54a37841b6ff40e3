"""What a theorem says about given data: an inequality, and whether its hypotheses hold there."""

import enum
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Array, Bool, Int8

from ..linalg.intervals import Interval, namespace

Side = TypeVar("Side")
Truth = Bool[Array, "..."] | Bool[np.ndarray, "..."] | np.bool_ | bool


if TYPE_CHECKING:

    class Statement(NamedTuple, Generic[Side]):
        lhs: Side
        rhs: Side
        applicable: Truth = True

else:
    # The same without a parameter: beartype, which checks annotations in the tests, reads no generic NamedTuple.
    class Statement(NamedTuple):
        """lhs <= rhs wherever `applicable`; nothing is claimed elsewhere.

        Sides that are arrays are computed in floating point: a comparison of them is a measurement and no proof. An
        `Interval` and Arb's numbers enclose the exact values; `decide` compares them with rounding accounted for.

        Attributes:
          lhs: the bounded quantity, [...].
          rhs: its bound, same shape.
          applicable: True where the hypotheses of the theorem hold, same shape.
        """

        lhs: Any
        rhs: Any
        applicable: Any = True


class Verdict(enum.IntEnum):
    """What is known of lhs <= rhs."""

    CONFIRMED = 0
    VIOLATED = 1
    UNDECIDED = 2
    NOT_APPLICABLE = 3


def decide(lhs: Interval, rhs: Interval, applicable: Truth = True) -> Int8[Array, "..."] | Int8[np.ndarray, "..."]:
    """CONFIRMED where every possible lhs is at most every possible rhs, VIOLATED where every one is larger.

    Args:
      lhs: encloses the left side, [...].
      rhs: encloses the right side, [...].
      applicable: False where the theorem's hypotheses do not hold, [...].

    Returns:
      The values of `Verdict`, int8, [...]. An end that is infinite or NaN decides nothing.

    >>> import numpy as np
    >>> one, two = (Interval.exact(np.float64(x)) for x in (1, 2))
    >>> wide = Interval(one.lower, two.upper)
    >>> [Verdict(int(decide(a, b))).name for a, b in ((one, two), (two, one), (wide, wide))]
    ['CONFIRMED', 'VIOLATED', 'UNDECIDED']
    """
    xp = namespace(lhs.lower)
    true = (lhs.upper <= rhs.lower) & xp.isfinite(lhs.upper)
    false = (lhs.lower > rhs.upper) & xp.isfinite(rhs.upper)
    found = xp.where(true, Verdict.CONFIRMED.value, xp.where(false, Verdict.VIOLATED.value, Verdict.UNDECIDED.value))
    return xp.where(applicable, found, Verdict.NOT_APPLICABLE.value).astype(np.int8)
