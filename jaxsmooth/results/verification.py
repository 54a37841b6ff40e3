"""What `verify` found: plain Python numbers, so that a report needs no model and no accelerator."""

import dataclasses

from .summaries import DataSummary, ModelSummary

VERDICTS = ("CONFIRMED", "VIOLATED", "UNDECIDED", "NOT_APPLICABLE")
"""lhs <= rhs is proved for these numbers; disproved; undecided by every method; not claimed by the theorem."""


@dataclasses.dataclass(frozen=True)
class Check:
    """One theorem at one layer (and head): the worst sentence, and how many sentences had which verdict.

    Attributes:
      theorem: its name.
      layer: 1 for the first block, as in a diagnosis.
      head: counted from 0, or None where the theorem is about the whole block.
      lhs: the bounded side in the worst sentence, rounded against the verdict: CONFIRMED means that even this
        upper end is at most `rhs`. None where nothing was applicable.
      rhs: its bound, rounded the other way.
      verdict: one of `VERDICTS`: VIOLATED before UNDECIDED before CONFIRMED, NOT_APPLICABLE when nothing applies.
      sentence: position of the worst sentence in the text, or None.
      counts: verdict -> number of sentences.
    """

    theorem: str
    layer: int
    head: int | None
    lhs: float | None
    rhs: float | None
    verdict: str
    sentence: int | None
    counts: dict[str, int]


@dataclasses.dataclass(frozen=True)
class TheoremSummary:
    """One theorem over all layers, heads and sentences.

    Attributes:
      theorem: its name.
      source: who proved it, and where.
      counts: verdict -> number of checks.
      tightness: least, median and largest rhs / lhs where both are positive, or None.
    """

    theorem: str
    source: str
    counts: dict[str, int]
    tightness: tuple[float, float, float] | None


@dataclasses.dataclass(frozen=True)
class Verification:
    """Every theorem on every layer, head and sentence.

    Attributes:
      model: which model.
      data: which text.
      checks: one per theorem, layer and head.
      theorems: one per theorem.
      stages: how many checks each method decided: "products" on the device, "svd" and "arb" on the host.
      versions: package -> version, and the platform's name.
    """

    model: ModelSummary
    data: DataSummary
    checks: tuple[Check, ...]
    theorems: tuple[TheoremSummary, ...]
    stages: dict[str, int]
    versions: dict[str, str]

    @property
    def violated(self) -> bool:
        """Whether any theorem is contradicted."""
        return any(check.verdict == "VIOLATED" for check in self.checks)
