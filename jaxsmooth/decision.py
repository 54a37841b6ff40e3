"""What the device left open: the same theorem on one sentence, on the host with sharper norms, at last in Arb."""

from typing import Any

import numpy as np

from .tally import Outcome
from .theory import theorems
from .theory.certify import Claim, Verdict, compare
from .theory.enclosures import HostCalculus
from .theory.facts import BlockFacts, BlockParameters, HeadFacts, HeadWeights, KnownNorms, SentenceData
from .theory.rounding import Interval, quiet

# Seconds each; a model on which thousands of checks are open has equality in them, and no method decides that.
HOST_ATTEMPTS = 200
ARB_ATTEMPTS = 24
ARB_TOKENS = 160


class Decider:
    """Second and third stage, with a budget of attempts per run."""

    def __init__(self, blocks: list[BlockParameters], norms: list[KnownNorms]) -> None:
        self.blocks, self.norms = blocks, norms
        self.host_left, self.arb_left = HOST_ATTEMPTS, ARB_ATTEMPTS

    def settle(self, theorem: str, layer: int, outcome: Outcome, data: SentenceData, lengths: np.ndarray) -> None:
        """Replaces the verdicts that are UNDECIDED, and their enclosures, where a later stage does better."""
        for place in zip(*np.nonzero(outcome.verdicts == Verdict.UNDECIDED), strict=True):
            for stage in ("svd", "arb"):
                found = self._attempt(stage, theorem, layer, data, int(lengths[place[0]]), place)
                if found is None:
                    break
                verdict = int(compare(found.lhs, found.rhs, found.applicable))
                outcome.put(place, verdict, found.lhs, found.rhs, stage)
                if verdict != Verdict.UNDECIDED:
                    break

    def _attempt(
        self, stage: str, theorem: str, layer: int, data: SentenceData, tokens: int, place: tuple[int, ...]
    ) -> Claim | None:
        own = _crop(data, place[0], tokens)
        head = place[1] if len(place) > 1 else None
        if stage == "svd":
            if not self.host_left:
                return None
            self.host_left -= 1
            calculus: Any = HostCalculus(np.ones(tokens, bool), np.float64)
            return self._evaluate(calculus, theorem, layer, own, head)
        if not self.arb_left or tokens > ARB_TOKENS:
            return None
        self.arb_left -= 1
        from .theory.arb import ArbCalculus, ends

        claim = self._evaluate(ArbCalculus(tokens), theorem, layer, own, head)
        sides = (Interval(*map(np.float64, ends(side))) for side in (claim.lhs, claim.rhs))
        return Claim(*sides, claim.applicable)

    @quiet
    def _evaluate(self, calculus: Any, theorem: str, layer: int, own: SentenceData, head: int | None) -> Claim:
        block, norms = self.blocks[layer], self.norms[layer]
        if head is None:
            return theorems.block_claims(BlockFacts(calculus, block, norms, own), theorem)[theorem]
        weights = HeadWeights(*(leaf[head] for leaf in block.heads))
        known = tuple(Interval(norm.down[head], norm.up[head]) for norm in (norms.heads, norms.scores))
        facts = HeadFacts(calculus, weights, known, own.input, own.attn[head])
        return theorems.head_claims(facts, theorem)[theorem]


def _crop(data: SentenceData, row: int, tokens: int) -> SentenceData:
    """One sentence without its padding, in float64."""

    def of(leaf: Any) -> Any:
        if isinstance(leaf, Interval):
            return Interval(leaf.down[row], leaf.up[row])
        kept = np.asarray(leaf[row], np.float64)
        return kept[:, :tokens, :tokens] if kept.ndim == 3 else kept[:tokens]

    return SentenceData(*map(of, data))
