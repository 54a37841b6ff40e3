"""What products alone left open: the same theorem on one sentence with sharper norms, at last in Arb."""

from typing import Any

import numpy as np

from .studies.verify_tally import Outcome
from .theory.certify import theorems
from .theory.certify.observations import BlockParameters, KnownNorms, SentenceData
from .theory.certify import Claim, Verdict, compare
from .theory.certify.float_calculus import HostCalculus
from .theory.certify.quantities import BlockFacts, head_facts
from .linalg.intervals import Interval, quiet

# Seconds each; a model on which thousands of checks are open has equality in them, and no method decides that.
HOST_ATTEMPTS = 200
ARB_ATTEMPTS = 24
ARB_TOKENS = 160


class Decider:
    """Second and third stage, with a budget of attempts per run."""

    def __init__(self, blocks: list[BlockParameters], norms: list[KnownNorms]) -> None:
        self.blocks, self.norms = blocks, norms
        self.host_left, self.arb_left = HOST_ATTEMPTS, ARB_ATTEMPTS

    def settle(self, theorem: str, layer: int, outcome: Outcome, sentences: list[SentenceData]) -> None:
        """Replaces the verdicts that are UNDECIDED, and their enclosures, where a later stage does better."""
        for place in zip(*np.nonzero(outcome.verdicts == Verdict.UNDECIDED), strict=True):
            for stage in ("svd", "arb"):
                head = int(place[1]) if len(place) > 1 else None
                found = self._attempt(stage, theorem, layer, sentences[place[0]], head)
                if found is None:
                    break
                verdict = int(compare(found.lhs, found.rhs, found.applicable))
                outcome.put(place, verdict, found.lhs, found.rhs, stage)
                if verdict != Verdict.UNDECIDED:
                    break

    def _attempt(self, stage: str, theorem: str, layer: int, own: SentenceData, head: int | None) -> Claim | None:
        tokens = len(own.input)
        if stage == "svd":
            if not self.host_left:
                return None
            self.host_left -= 1
            return self._evaluate(HostCalculus(np.ones(tokens, bool), np.float64), theorem, layer, own, head)
        if not self.arb_left or tokens > ARB_TOKENS:
            return None
        self.arb_left -= 1
        # Only now: most runs never need it.
        from .theory.certify.arb_calculus import ArbCalculus, ends

        claim = self._evaluate(ArbCalculus(tokens), theorem, layer, own, head)
        lhs, rhs = (Interval(*map(np.float64, ends(side))) for side in (claim.lhs, claim.rhs))
        return Claim(lhs, rhs, claim.applicable)

    @quiet
    def _evaluate(self, calculus: Any, theorem: str, layer: int, own: SentenceData, head: int | None) -> Claim:
        block, norms = self.blocks[layer], self.norms[layer]
        if head is None:
            return theorems.block_claims(BlockFacts(calculus, block, norms, own), theorem)[theorem]
        return theorems.head_claims(head_facts(calculus, block, norms, own, head), theorem)[theorem]


def crop(data: SentenceData, layer: int, row: int, tokens: int) -> SentenceData:
    """One layer of one sentence without its padding, in float64, from arrays [L B ...]."""

    def of(leaf: Any) -> Any:
        kept = np.asarray(leaf[layer, row], np.float64)
        return kept[:, :tokens, :tokens] if kept.ndim == 3 else kept[:tokens]

    return SentenceData(*(None if leaf is None else of(leaf) for leaf in data))
