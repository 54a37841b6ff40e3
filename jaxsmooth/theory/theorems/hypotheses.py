"""What the ladder of rates asks of a block: a rate below 1, and stds over the theorem's threshold.

Each is registered as its negation, an inequality of the quantities of one block on one sentence.
"""

from ..statement import Statement
from .calculus import M, N
from .quantities import BlockQuantities
from .registry import OURS, RUNGS, SHI, hypothesis

ABOVE_THRESHOLD = "stds_above_threshold"
"""sigma_1 sigma_2 > (1 + L ||W_1|| ||W_2||)(1 + sum_h sqrt(lambda_h) ||W_h||) G_1 G_2: the same as L1 < 1."""

RATE_BELOW_1 = "rate_below_1_"
"""The beginning of the names of "v < 1", one for each rung of the ladder."""


@hypothesis(ABOVE_THRESHOLD, f"{SHI}, Theorem 2, with gains and slope")
def stds_not_above(q: BlockQuantities[M, N]) -> Statement[N]:
    """sigma_1 sigma_2 <= threshold."""
    return Statement(q.least_stds, RUNGS["L1"](q).undivided)


def _rate_not_below_1(rung: str) -> None:
    @hypothesis(f"{RATE_BELOW_1}{rung}", SHI if rung == "L0" else OURS)
    def text(q: BlockQuantities[M, N]) -> Statement[N]:
        """1 <= v."""
        return Statement(q.one, RUNGS[rung](q).value(q))


for _rung in RUNGS:
    _rate_not_below_1(_rung)
