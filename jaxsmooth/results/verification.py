"""What `verify` found: plain Python numbers, so that a report needs no model and no accelerator."""

import dataclasses

from .each_text import TRUTHS as TRUTHS
from .each_text import VERDICTS as VERDICTS
from .each_text import TextValues
from .shown import Shown
from .summaries import DataSummary, ModelSummary


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
      proved: whether it is a theorem of the library; one of the user's own is evaluated only.
    """

    theorem: str
    source: str
    counts: dict[str, int]
    tightness: tuple[float, float, float] | None
    proved: bool = True


@dataclasses.dataclass(frozen=True)
class HypothesisCheck:
    """One hypothesis at one layer (and head): for how many sentences it holds, and the numbers that decided.

    Attributes:
      hypothesis: its name.
      layer: 1 for the first block, or None for the whole stack.
      head: counted from 0, or None where it is not about one head.
      verdict: HOLDS where it holds for every sentence it is asked of, FAILS where it fails for one, UNDECIDED where it
        fails for none and is open for one.
      least: the least end of the enclosures of the number it is about, over sentences; None where there is none.
      largest: the largest end.
      sentence: position of the first sentence with that verdict in the text, or None.
      counts: verdict -> number of sentences.
    """

    hypothesis: str
    layer: int | None
    head: int | None
    verdict: str
    least: float | None
    largest: float | None
    sentence: int | None
    counts: dict[str, int]


@dataclasses.dataclass(frozen=True)
class HypothesisSummary:
    """One hypothesis over all layers, heads and sentences.

    Attributes:
      hypothesis: its name.
      asks: the question in words.
      shown: what number `least` and `largest` are, or "".
      limit: what that number must satisfy.
      source: whose theorem asks for it.
      counts: verdict -> number of checks.
      least: as in `HypothesisCheck`.
      largest: as in `HypothesisCheck`.
      holds_in: the layers in which it holds for every sentence (and head) it is asked of.
    """

    hypothesis: str
    asks: str
    shown: str
    limit: str
    source: str
    counts: dict[str, int]
    least: float | None
    largest: float | None
    holds_in: tuple[int, ...]


@dataclasses.dataclass(frozen=True, repr=False)
class Verification(Shown):
    """Every theorem on every layer, head and sentence, and what the theorems assume of the model.

    The library's theorems are proved: CONFIRMED says that this implementation and its arithmetic agree with them, and
    nothing about the model, which cannot make them false. What is asked about the model are the hypotheses. A theorem
    of the user's own is evaluated, not proved.

    Attributes:
      model: which model.
      data: which text.
      checks: one per theorem, layer and head.
      theorems: one per theorem.
      stages: how many checks each method decided: "products" on the device, "svd" and "arb" on the host.
      versions: package -> version, and the platform's name.
      hypotheses: one per hypothesis.
      hypothesis_checks: one per hypothesis, layer and head.
      each: both sides and the verdict of every check of each text, by theorem, where that was asked for.
      each_hypothesis: the number that decides and the verdict of each text, by hypothesis, likewise.
    """

    model: ModelSummary
    data: DataSummary
    checks: tuple[Check, ...]
    theorems: tuple[TheoremSummary, ...]
    stages: dict[str, int]
    versions: dict[str, str]
    hypotheses: tuple[HypothesisSummary, ...] = ()
    hypothesis_checks: tuple[HypothesisCheck, ...] = ()
    each: TextValues | None = None
    each_hypothesis: TextValues | None = None

    def in_short(self) -> str:
        totals = {verdict: sum(row.counts[verdict] for row in self.theorems) for verdict in VERDICTS}
        checks = ", ".join(f"{count:,} {verdict}" for verdict, count in totals.items() if count) or "nothing checked"
        asked = [f"{row.hypothesis} in {len(row.holds_in)}" for row in self.hypotheses if row.holds_in]
        holds = f"; layers in which hypotheses hold: {', '.join(asked) or 'none'}" if self.hypotheses else ""
        return f"{len(self.theorems)} theorems: {checks}{holds}"

    @property
    def violated(self) -> bool:
        """Whether any theorem is contradicted."""
        return any(check.verdict == "VIOLATED" for check in self.checks)
