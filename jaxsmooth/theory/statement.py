"""What a theorem says about given data: an inequality, and whether its hypotheses hold there."""

from typing import NamedTuple

from jaxtyping import Array, Bool, Float


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
