"""Running counts of verdicts: memory grows with one number per check, for the median, and with nothing else."""

import collections
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..results.verification import VERDICTS, Check, TheoremSummary

SEVERITY = (2, 0, 1, 3)  # of the verdicts in order: the lowest is the worst


@dataclasses.dataclass
class Outcome:
    """One theorem in one layer on one batch: verdicts and enclosures, [B] or [B N], and who decided."""

    verdicts: NDArray[np.int8]
    lhs_down: NDArray[np.float64]
    lhs_up: NDArray[np.float64]
    rhs_down: NDArray[np.float64]
    rhs_up: NDArray[np.float64]
    stages: collections.Counter = dataclasses.field(default_factory=collections.Counter)

    def put(self, place: tuple[int, ...], verdict: int, lhs: Any, rhs: Any, stage: str) -> None:
        """What a later stage found at one place."""
        self.verdicts[place] = verdict
        self.lhs_down[place], self.lhs_up[place] = lhs.down, lhs.up
        self.rhs_down[place], self.rhs_up[place] = rhs.down, rhs.up
        if VERDICTS[verdict] != "UNDECIDED":
            self.stages[stage] += 1


class Tally:
    """Verdicts by theorem, layer and head; the worst sentence of each; tightness by theorem."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.stages: collections.Counter = collections.Counter(products=0, svd=0, arb=0)
        self._counts: dict[tuple, NDArray[np.int64]] = {}
        self._worst: dict[tuple, tuple] = {}
        self._ratios: dict[str, list[NDArray[np.float64]]] = collections.defaultdict(list)

    def add(self, theorem: str, layer: int, outcome: Outcome, indices: NDArray[np.int64]) -> None:
        """One batch; `indices` are the sentences' positions in the text."""
        decided = np.isin(outcome.verdicts, (VERDICTS.index("CONFIRMED"), VERDICTS.index("VIOLATED")))
        later = sum(outcome.stages.values())
        self.stages.update(outcome.stages)
        self.stages["products"] += int(decided.sum()) - later
        claimed = outcome.verdicts != VERDICTS.index("NOT_APPLICABLE")
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.where(claimed, outcome.rhs_down / outcome.lhs_up, np.nan)
        self._ratios[theorem].append(ratios[np.isfinite(ratios) & (ratios > 0)])
        columns = [None] if outcome.verdicts.ndim == 1 else range(outcome.verdicts.shape[1])
        for head in columns:
            self._add_column((theorem, layer, head), outcome, ratios, indices)

    def _add_column(self, key: tuple, outcome: Outcome, ratios: NDArray, indices: NDArray[np.int64]) -> None:
        at = slice(None) if key[2] is None else (slice(None), key[2])
        verdicts = outcome.verdicts[at]
        counts = self._counts.setdefault(key, np.zeros(len(VERDICTS), np.int64))
        counts += np.bincount(verdicts, minlength=len(VERDICTS))
        tightness = np.nan_to_num(ratios[at], nan=np.inf)
        severity = np.array(SEVERITY)[verdicts]
        row = int(np.lexsort((indices, tightness, severity))[0])
        violated = VERDICTS[verdicts[row]] == "VIOLATED"
        sides = (outcome.lhs_down, outcome.rhs_up) if violated else (outcome.lhs_up, outcome.rhs_down)
        lhs, rhs = (float(side[at][row]) for side in sides)
        rank = (int(severity[row]), float(tightness[row]), int(indices[row]))
        if key not in self._worst or rank < self._worst[key][0]:
            self._worst[key] = (rank, int(verdicts[row]), lhs, rhs)

    def checks(self) -> tuple[Check, ...]:
        """One per theorem, layer and head, in this order."""
        order = {name: place for place, name in enumerate(self.names)}
        return tuple(
            self._check(key) for key in sorted(self._worst, key=lambda key: (order[key[0]], key[1], key[2] or 0))
        )

    def _check(self, key: tuple) -> Check:
        (_, _, sentence), verdict, lhs, rhs = self._worst[key]
        claimed = VERDICTS[verdict] != "NOT_APPLICABLE"
        counts = dict(zip(VERDICTS, self._counts[key].tolist(), strict=True))
        theorem, layer, head = key
        if not claimed:
            return Check(theorem, layer, head, None, None, VERDICTS[verdict], None, counts)
        return Check(theorem, layer, head, lhs, rhs, VERDICTS[verdict], sentence, counts)

    def theorems(self, source: Callable[[str], str]) -> tuple[TheoremSummary, ...]:
        """One per theorem."""
        found = []
        for name in self.names:
            counts = sum((c for key, c in self._counts.items() if key[0] == name), np.zeros(len(VERDICTS), np.int64))
            ratios = np.concatenate(self._ratios[name]) if self._ratios[name] else np.empty(0)
            tightness = None
            if ratios.size:
                tightness = (float(ratios.min()), float(np.median(ratios)), float(ratios.max()))
            found.append(
                TheoremSummary(name, source(name), dict(zip(VERDICTS, counts.tolist(), strict=True)), tightness)
            )
        return tuple(found)
