"""What `converge` found: plain numpy numbers, so that a report needs no model."""

import dataclasses

import numpy as np

from .brief import digits
from .each_text import TextValues
from .shown import Shown
from .spread import Spread
from .summaries import DataSummary, ModelSummary

CONVERGENCE = (
    "classes",
    "predicted_rate",
    "ergodicity",
    "birkhoff",
    "mixing_rate",
    "observed_rate",
    "largest_growth",
    "predicted_steps",
    "observed_steps",
    "transient",
    "limit_error",
    "arrived",
    "limit_held",
    "limit_failed",
    "rate_held",
    "rate_failed",
    "steps_held",
    "steps_failed",
    "ergodicity_held",
    "birkhoff_held",
)
"""What is known of each head's iteration; defined in `jaxsmooth.theory.Convergence`.

Means of `_held` and `_failed` are shares; what neither held nor failed is not decided by so many steps.
"""


@dataclasses.dataclass(frozen=True, repr=False)
class HeadConvergence(Shown):
    """Every head iterated as an operator: predicted against observed limit and rate.

    Attributes:
      model: which model.
      data: which text.
      window: tokens in the sliding window.
      steps: applications of each matrix.
      tolerance: relative distance to the limit that counts as having arrived.
      operators: for "full", "causal", "window" and "symmetric" (see `converge_heads`), name in `CONVERGENCE` -> spread
        over sentences, [L N]. A number of steps beyond `steps`, predicted or observed, is given as `steps` + 1; a
        sentence that did not arrive has no transient and is left out there.
      versions: package -> version, and the platform's name.
      each: the numbers of each text, by operator, where that was asked for.
    """

    model: ModelSummary
    data: DataSummary
    window: int
    steps: int
    tolerance: float
    operators: dict[str, dict[str, Spread]]
    versions: dict[str, str]
    each: TextValues | None = None

    def in_short(self) -> str:
        held = (f"{name} {digits(_share(spreads['limit_held']))}" for name, spreads in self.operators.items())
        return f"applied {self.steps} times; share of heads and sentences whose limit held: {', '.join(held)}"


def _share(held: Spread) -> float:
    total = int(held.count.sum())
    return float((np.where(held.count > 0, held.mean, 0) * held.count).sum()) / total if total else float("nan")
