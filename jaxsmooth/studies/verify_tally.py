"""Running counts of verdicts: memory grows with one number per check, for the median, and with nothing else."""

import collections
import dataclasses
from collections.abc import Callable, Container

import numpy as np
from jaxtyping import Int8
from numpy.typing import NDArray

from ..linalg.intervals import Interval
from ..results.verification import VERDICTS, Check, TheoremSummary
from ..theory.statement import Statement, Verdict, decide

SEVERITY = (2, 0, 1, 3)  # of the verdicts in order: the lowest is the worst
Place = tuple[int, ...]
Key = tuple[str, int, int | None]


@dataclasses.dataclass
class BatchVerdicts:
    """One theorem in one layer on one batch: verdicts and enclosed sides, [B] or [B N], and which stages decided.

    `stages` counts what a stage after the first one decided.
    """

    verdicts: Int8[np.ndarray, " B *N"]
    lhs: Interval
    rhs: Interval
    stages: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    @staticmethod
    def of(statement: Statement[Interval], lengths: list[int]) -> "BatchVerdicts":
        """One token alone is in consensus: no theorem applies to it."""
        lhs, rhs = (Interval(np.array(side.lower), np.array(side.upper)) for side in statement[:2])
        several = (np.array(lengths) > 1).reshape(-1, *(1,) * (lhs.lower.ndim - 1))
        return BatchVerdicts(np.array(decide(lhs, rhs, several & np.asarray(statement.applicable))), lhs, rhs)

    @staticmethod
    def inapplicable(sentences: int) -> "BatchVerdicts":
        """Of a theorem that is not about such a model: no numbers for any sentence."""
        none = np.full(sentences, np.nan)
        verdicts = np.full(sentences, Verdict.NOT_APPLICABLE.value, np.int8)
        return BatchVerdicts(verdicts, Interval(none, none), Interval(none, none))

    def measured(self) -> "BatchVerdicts":
        """The same, decided by measurement: no later stage takes it up."""
        self.stages["measured"] = int(np.isin(self.verdicts, (Verdict.CONFIRMED, Verdict.VIOLATED)).sum())
        return self

    def update(self, place: Place, statement: Statement[Interval], stage: str) -> Verdict:
        """Put in what a later stage found at one place; returns its verdict."""
        verdict = Verdict(int(decide(*statement)))
        self.verdicts[place] = verdict
        for side, found in zip((self.lhs, self.rhs), statement[:2], strict=True):
            side.lower[place], side.upper[place] = found.lower, found.upper
        if verdict != Verdict.UNDECIDED:
            self.stages[stage] += 1
        return verdict


class Tally:
    """Verdicts by theorem, layer and head; the worst sentence of each; tightness by theorem."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.stages: collections.Counter[str] = collections.Counter(products=0, svd=0, arb=0)
        self._counts: dict[Key, NDArray[np.int64]] = {}
        self._worst: dict[Key, tuple[tuple[int, float, int], int, float, float]] = {}
        self._ratios: dict[str, list[NDArray[np.float64]]] = collections.defaultdict(list)

    def add(self, theorem: str, layer: int, found: BatchVerdicts, indices: NDArray[np.int64]) -> None:
        """Count one batch; `indices` are the sentences' positions in the text."""
        decided = np.isin(found.verdicts, (Verdict.CONFIRMED, Verdict.VIOLATED))
        self.stages.update(found.stages)
        self.stages["products"] += int(decided.sum()) - sum(found.stages.values())
        applicable = found.verdicts != Verdict.NOT_APPLICABLE
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.where(applicable, found.rhs.lower / found.lhs.upper, np.nan)
        self._ratios[theorem].append(ratios[np.isfinite(ratios) & (ratios > 0)])
        heads = [None] if found.verdicts.ndim == 1 else range(found.verdicts.shape[1])
        for head in heads:
            self._add_column((theorem, layer, head), found, ratios, indices)

    def _add_column(self, key: Key, found: BatchVerdicts, ratios: NDArray, indices: NDArray[np.int64]) -> None:
        at = slice(None) if key[2] is None else (slice(None), key[2])
        verdicts = found.verdicts[at]
        counts = self._counts.setdefault(key, np.zeros(len(VERDICTS), np.int64))
        counts += np.bincount(verdicts, minlength=len(VERDICTS))
        tightness = np.nan_to_num(ratios[at], nan=np.inf)
        severity = np.array(SEVERITY)[verdicts]
        row = int(np.lexsort((indices, tightness, severity))[0])
        violated = verdicts[row] == Verdict.VIOLATED
        sides = (found.lhs.lower, found.rhs.upper) if violated else (found.lhs.upper, found.rhs.lower)
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

    def _check(self, key: Key) -> Check:
        (_, _, sentence), verdict, lhs, rhs = self._worst[key]
        counts = dict(zip(VERDICTS, self._counts[key].tolist(), strict=True))
        theorem, layer, head = key
        if verdict == Verdict.NOT_APPLICABLE:
            return Check(theorem, layer, head, None, None, VERDICTS[verdict], None, counts)
        return Check(theorem, layer, head, lhs, rhs, VERDICTS[verdict], sentence, counts)

    def theorems(self, source: Callable[[str], str], own: Container[str] = ()) -> tuple[TheoremSummary, ...]:
        """One per theorem; `own` are the user's, which nobody has proved."""
        found = []
        for name in self.names:
            counts = sum((c for key, c in self._counts.items() if key[0] == name), np.zeros(len(VERDICTS), np.int64))
            ratios = np.concatenate(self._ratios[name]) if self._ratios[name] else np.empty(0)
            tightness = None
            if ratios.size:
                tightness = (float(ratios.min()), float(np.median(ratios)), float(ratios.max()))
            found.append(
                TheoremSummary(
                    *(name, source(name), dict(zip(VERDICTS, counts.tolist(), strict=True)), tightness, name not in own)
                )
            )
        return tuple(found)
