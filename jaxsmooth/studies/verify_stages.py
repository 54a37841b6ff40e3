"""The first stage of `verify` on a batch: compiled for long runs, sentence by sentence in numpy for short ones.

Both evaluate the same formulas with the same proofs of rounding. Compiled, a block on a sentence costs a fifth of the
time, but the program must first be compiled, once for each bucket of lengths, which costs as much as the host needs
for a hundred of them.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..linalg.intervals import Interval, quiet
from ..theory.certify import compiled, theorems
from ..theory.certify.float_calculus import FloatCalculus, HostCalculus
from ..theory.certify.observations import BlockParameters, KnownNorms, SentenceData
from ..theory.certify.quantities import BlockFacts, head_facts
from ..theory.statement import Claim, Verdict, compare
from .verify_tally import Outcome

ROWS = 4
SHORTEST = 32
# Blocks times sentences from which on compiling is worth its time.
WORTH_COMPILING = 300


class Claims(NamedTuple):
    """What is claimed of a batch.

    Attributes:
      data: the sentences by layer, `mixing` and `largest_mixing` filled in.
      claims: by layer and name, sides [B] or [B N].
    """

    data: list[list[SentenceData]]
    claims: list[dict[str, Claim]]


class HostStage:
    """Sentence by sentence, head by head, in numpy."""

    def __init__(
        self, blocks: list[BlockParameters], norms: list[KnownNorms], heads: tuple[str, ...], *, plain: bool
    ) -> None:
        """`heads` names the theorems on heads; those on blocks are asked for where the model is `plain`."""
        self.blocks, self.norms, self.names, self.plain = blocks, norms, heads, plain

    def __call__(self, data: list[list[SentenceData]]) -> Claims:
        """Sentences by layer, without padding."""
        found = [[self._heads(layer, own) for own in sentences] for layer, sentences in enumerate(data)]
        mixing = [[mixing for mixing, _ in layer] for layer in found]
        data = with_mixing(data, mixing)
        claims = []
        for layer, sentences in enumerate(data):
            each = [
                by_head | self._block(layer, own) for own, (_, by_head) in zip(sentences, found[layer], strict=True)
            ]
            claims.append({name: _stacked([own[name] for own in each]) for name in each[0]})
        return Claims(data, claims)

    @quiet
    def _heads(self, layer: int, own: SentenceData) -> tuple[Interval, dict[str, Claim]]:
        """sqrt(lambda) of every head, [N], and the theorems about each."""
        calculus = FloatCalculus(np.ones(len(own.input), bool), np.float64)
        facts = [head_facts(calculus, self.blocks[layer], self.norms[layer], own, h) for h in range(len(own.attn))]
        claims = [{name: theorems.head_claims(head, name)[name] for name in self.names} for head in facts]
        joined = {name: _stacked([own[name] for own in claims]) for name in self.names}
        return _joined([head.mixing for head in facts]), joined

    @quiet
    def _block(self, layer: int, own: SentenceData) -> dict[str, Claim]:
        if not self.plain:
            return {}
        calculus = FloatCalculus(np.ones(len(own.input), bool), np.float64)
        return theorems.block_claims(BlockFacts(calculus, self.blocks[layer], self.norms[layer], own))


class CompiledStage:
    """All layers, heads and a few sentences in two jitted programs, one pair for each bucket of lengths."""

    def __init__(
        self, blocks: list[BlockParameters], norms: list[KnownNorms], heads: tuple[str, ...], *, plain: bool
    ) -> None:
        self.names, self.plain = heads, plain
        self.eps, self.activation = blocks[0].eps, blocks[0].activation
        arrays = [[getattr(block, name) for name in compiled.BlockArrays._fields] for block in blocks]
        with jax.enable_x64(True):
            fields, self.norms = (
                jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves), np.float64), *trees)
                for trees in (arrays, norms)
            )
        self.blocks = compiled.BlockArrays(*fields)

    def __call__(self, data: list[list[SentenceData]]) -> Claims:
        """Sentences by layer, without padding."""
        parts = [self._few([layer[start : start + ROWS] for layer in data]) for start in range(0, len(data[0]), ROWS)]
        data = [[own for part in parts for own in part.data[layer]] for layer in range(len(data))]
        claims = [
            {name: _chained([part.claims[layer][name] for part in parts]) for name in parts[0].claims[layer]}
            for layer in range(len(data))
        ]
        return Claims(data, claims)

    def _few(self, data: list[list[SentenceData]]) -> Claims:
        lengths = [len(own.input) for own in data[0]]
        size = SHORTEST
        while size < max(lengths):
            size *= 2
        mask = np.arange(size) < np.array([*lengths, *[0] * (ROWS - len(lengths))])[:, None]
        padded = SentenceData(*(_padded(leaves, size) for leaves in zip(*map(_columns, data), strict=True)))
        with jax.enable_x64(True):
            mixing, by_head = compiled.head_claims(self.blocks.heads, self.norms, padded, mask, names=self.names)
            by_block = {}
            if self.plain:
                top = Interval(*(end.max(axis=(0, 2)) for end in (mixing.down, mixing.up)))
                top = jax.tree.map(lambda end: jnp.broadcast_to(end, mixing.down.shape[:2]), top)
                padded = padded._replace(mixing=mixing, largest_mixing=top)
                by_block = compiled.block_claims(
                    self.blocks, self.norms, padded, mask, eps=self.eps, activation=self.activation
                )
        mixing, found = jax.tree.map(np.asarray, (mixing, by_head | by_block))
        layers, rows = range(len(data)), range(len(lengths))
        each = [[Interval(mixing.down[k, row], mixing.up[k, row]) for row in rows] for k in layers]
        claims = [{name: _at(claim, k, len(lengths)) for name, claim in found.items()} for k in layers]
        return Claims(with_mixing(data, each), claims)


def with_mixing(data: list[list[SentenceData]], mixing: list[list[Interval]]) -> list[list[SentenceData]]:
    """Each sentence with its sqrt(lambda), by layer and sentence, and the largest over layers and heads."""
    largest = [
        Interval(*(np.max([getattr(layer[row], end) for layer in mixing]) for end in ("down", "up")))
        for row in range(len(mixing[0]))
    ]
    return [
        [own._replace(mixing=m, largest_mixing=top) for own, m, top in zip(layer, by_layer, largest, strict=True)]
        for layer, by_layer in zip(data, mixing, strict=True)
    ]


def _columns(layer: list[SentenceData]) -> list[list[Any]]:
    """Field by field, the sentences of one layer."""
    return [list(column) for column in zip(*layer, strict=True)]


def _padded(layers: tuple[list[Any], ...], size: int) -> Any:
    """One field of every layer and sentence, [L ROWS ...], its token axes filled up with zeros to `size`."""
    first = layers[0][0]
    if first is None:
        return None
    # [T ...] or, of attention, [N T S].
    shape = (size, *first.shape[1:]) if first.ndim == 2 else (first.shape[0], size, size)
    out = np.zeros((len(layers), ROWS, *shape))
    for place, layer in enumerate(layers):
        for row, array in enumerate(layer):
            out[place, row][tuple(slice(n) for n in array.shape)] = array
    return out


def _at(claim: Claim, layer: int, rows: int) -> Claim:
    lhs, rhs = (Interval(side.down[layer, :rows], side.up[layer, :rows]) for side in (claim.lhs, claim.rhs))
    return Claim(lhs, rhs)


def _joined(intervals: list[Interval]) -> Interval:
    return Interval(np.array([x.down for x in intervals]), np.array([x.up for x in intervals]))


def _stacked(claims: list[Claim]) -> Claim:
    return Claim(_joined([claim.lhs for claim in claims]), _joined([claim.rhs for claim in claims]))


def _chained(claims: list[Claim]) -> Claim:
    sides = ([getattr(claim, side) for claim in claims] for side in ("lhs", "rhs"))
    return Claim(*(Interval(*(np.concatenate([getattr(x, end) for x in s]) for end in ("down", "up"))) for s in sides))


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
        from ..theory.certify.arb_calculus import ArbCalculus, ends

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
