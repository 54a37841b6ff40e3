"""The stages of `verify`: enclosures by products, compiled or on the host; then a checked SVD; at last Arb.

The two first stages evaluate the same formulas with the same proofs of rounding. Compiled, a block on a sentence costs
a fifth of the time, but the program must first be compiled, once for each bucket of lengths, which costs as much as the
host needs for a hundred of them.
"""

import functools
from pathlib import Path
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from ..linalg.intervals import Interval, quiet
from ..programs import kept
from ..theory.certify import compiled
from ..theory.certify.compiled import Statements
from ..theory.certify.float_calculus import FloatCalculus, HostCalculus
from ..theory.statement import Statement, Verdict
from ..theory.theorems.calculus import Calculus, M, N
from ..theory.theorems.exact_block import Architecture, ExactBlock, Mixing, Observation
from ..theory.theorems.parameters import EnclosedNorms, heads_of
from ..theory.theorems.quantities import HeadQuantities
from ..theory.theorems.registry import Theorem, text_of
from ..types import Block
from .verify_tally import BatchVerdicts

ROWS = 4  # sentences in one call of the compiled stage
SHORTEST = 32  # tokens that sentences are padded to at least
# Blocks times sentences from which on compiling is worth its time.
WORTH_COMPILING = 300

# Attempts of the later stages per run, of seconds each: a model on which thousands of checks are open has equality in
# them, and no method decides that.
HOST_ATTEMPTS = 200
ARB_ATTEMPTS = 24
ARB_TOKENS = 160

Tree = TypeVar("Tree")


class Parameters(NamedTuple):
    """What the stages need to know of a model: float64 numpy blocks, enclosures of their norms, and no arrays."""

    blocks: list[Block]
    norms: list[EnclosedNorms[Interval]]
    architecture: Architecture


class Evaluated(NamedTuple):
    """A batch after the first stage: sqrt(lambda) of every head, [L B N], and the statements, [L B] or [L B N]."""

    mixing: Interval
    statements: Statements

    def mixing_at(self, layer: int, row: int) -> Mixing:
        """Of one sentence in one layer, and the largest of the sentence over layers and heads."""
        ends = self.mixing.lower, self.mixing.upper
        return Mixing(Interval(*(end[layer, row] for end in ends)), Interval(*(np.max(end[:, row]) for end in ends)))


class HostStage:
    """Sentence by sentence, head by head, in numpy."""

    def __init__(self, parameters: Parameters, names: tuple[str | Theorem, ...]) -> None:
        """`names` are the theorems wanted, those of the user's own as themselves."""
        self.parameters, self.names = parameters, names

    def __call__(self, data: Observation, lengths: list[int]) -> Evaluated:
        """What was observed, [L B ...], zero on padding, and the sentences' numbers of tokens."""
        layers = range(len(self.parameters.blocks))
        sentences = [[crop(data, layer, row, tokens) for row, tokens in enumerate(lengths)] for layer in layers]
        by_head = [[self._heads(layer, own) for own in sentences[layer]] for layer in layers]
        found = Evaluated(*stacked([stacked(rows) for rows in by_head]))
        by_block = [
            [self._block(layer, own, found.mixing_at(layer, row)) for row, own in enumerate(sentences[layer])]
            for layer in layers
        ]
        return found._replace(statements=found.statements | stacked([stacked(rows) for rows in by_block]))

    @quiet
    def _heads(self, layer: int, own: Observation) -> tuple[Interval, Statements]:
        """sqrt(lambda) of every head, [N], and the theorems about each."""
        calculus, names = FloatCalculus(np.ones(len(own.input), bool), np.float64), heads_among(self.names)
        quantities = [_head(calculus, self.parameters, layer, own, head) for head in range(len(own.attn))]
        return stacked([(q.mixing, {one.name: one.statement(q) for one in map(text_of, names)}) for q in quantities])

    @quiet
    def _block(self, layer: int, own: Observation, mixing: Mixing) -> Statements:
        calculus = FloatCalculus(np.ones(len(own.input), bool), np.float64)
        q = _block(calculus, self.parameters, layer, own, mixing)
        return {one.name: one.statement(q) for one in map(text_of, blocks_among(self.names))}


class CompiledStage:
    """All layers, heads and a few sentences in two jitted programs, one pair for each bucket of lengths."""

    def __init__(
        self, parameters: Parameters, names: tuple[str | Theorem, ...], *, programs: Path | None = None
    ) -> None:
        """`names` are the theorems wanted, those of the user's own as themselves; `programs` holds traced programs."""
        structs, by_head, by_block = (Interval, Statement), heads_among(names), blocks_among(names)
        architecture = parameters.architecture
        self.of_heads = kept(compiled.head_statements, programs, structs=structs, names=by_head)
        self.of_blocks = by_block and kept(
            compiled.block_statements, programs, structs=structs, architecture=architecture, names=by_block
        )
        with jax.enable_x64(True):
            self.blocks, self.norms, self.heads = jax.tree.map(
                lambda leaf: jnp.asarray(leaf, np.float64),
                (
                    stacked(parameters.blocks),
                    stacked(parameters.norms),
                    stacked([heads_of(block.attn) for block in parameters.blocks]),
                ),
            )

    def __call__(self, data: Observation, lengths: list[int]) -> Evaluated:
        """What was observed, [L B ...], zero on padding, and the sentences' numbers of tokens."""
        parts = []
        for start in range(0, len(lengths), ROWS):
            rows = slice(start, min(start + ROWS, len(lengths)))
            parts.append(self._few(jax.tree.map(lambda leaf, rows=rows: leaf[:, rows], data), lengths[rows]))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *parts)

    def _few(self, data: Observation, lengths: list[int]) -> Evaluated:
        size = SHORTEST
        while size < max(lengths):
            size *= 2
        mask = np.arange(size) < np.array([*lengths, *[0] * (ROWS - len(lengths))])[:, None]
        padded = jax.tree.map(functools.partial(_resized, size=size), data)
        with jax.enable_x64(True):
            mixing, found = self.of_heads(self.heads, self.norms, padded, mask)
            if self.of_blocks:
                top = jax.tree.map(lambda end: jnp.broadcast_to(end.max(axis=(0, 2)), end.shape[:2]), mixing)
                found |= self.of_blocks(self.blocks, self.norms, padded, Mixing(mixing, top), mask)
        return jax.tree.map(lambda leaf: np.asarray(leaf)[:, : len(lengths)], Evaluated(mixing, found))


class Escalation:
    """Second and third stage, with a budget of attempts per run."""

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self.host_left, self.arb_left = HOST_ATTEMPTS, ARB_ATTEMPTS

    def settle(
        self,
        theorem: str | Theorem,
        layer: int,
        found: BatchVerdicts,
        data: Observation,
        lengths: list[int],
        first: Evaluated,
    ) -> None:
        """Replace the verdicts that are UNDECIDED, and their enclosures, where a later stage does better."""
        for place in zip(*np.nonzero(found.verdicts == Verdict.UNDECIDED), strict=True):
            row, *heads = map(int, place)
            own, mixing = crop(data, layer, row, lengths[row]), first.mixing_at(layer, row)
            for stage in ("svd", "arb"):
                statement = self.attempt(stage, theorem, layer, own, mixing, *heads)
                if statement is None or found.update(place, statement, stage) != Verdict.UNDECIDED:
                    break

    def attempt(
        self, stage: str, theorem: str | Theorem, layer: int, own: Observation, mixing: Mixing, head: int | None = None
    ) -> Statement[Interval] | None:
        """One stage on one sentence; None where there is no attempt left or the sentence is too long for it."""
        tokens = len(own.input)
        if stage == "svd":
            if not self.host_left:
                return None
            self.host_left -= 1
            host = HostCalculus(np.ones(tokens, bool), np.float64)
            return self._evaluate(host, theorem, layer, own, mixing, head)
        if not self.arb_left or tokens > ARB_TOKENS:
            return None
        self.arb_left -= 1
        # Only now: most runs never need it.
        from ..theory.certify.arb_calculus import ArbCalculus, ends

        found = self._evaluate(ArbCalculus(tokens), theorem, layer, own, mixing, head)
        lhs, rhs = (Interval(*map(np.float64, ends(side))) for side in found[:2])
        return Statement(lhs, rhs, found.applicable)

    @quiet
    def _evaluate(
        self,
        calculus: Calculus[M, N],
        theorem: str | Theorem,
        layer: int,
        own: Observation,
        mixing: Mixing,
        head: int | None,
    ) -> Statement[N]:
        if head is None:
            return text_of(theorem).statement(_block(calculus, self.parameters, layer, own, mixing))
        return text_of(theorem).statement(_head(calculus, self.parameters, layer, own, head))


def at_layer(statement: Statement[Interval], layer: int) -> Statement[Interval]:
    """Of every sentence in one layer, [B] or [B N]."""
    return jax.tree.map(lambda leaf: leaf[layer], statement)


def crop(data: Observation, layer: int, row: int, tokens: int) -> Observation:
    """One layer of one sentence without its padding, in float64, from arrays [L B ...]."""

    def of(leaf: Float[np.ndarray, "L B ..."]) -> NDArray[np.float64]:
        own = np.asarray(leaf[layer, row], np.float64)
        return own[:, :tokens, :tokens] if own.ndim == 3 else own[:tokens]

    return jax.tree.map(of, data)


def heads_among(names: tuple[str | Theorem, ...]) -> tuple[str | Theorem, ...]:
    """The theorems that are about one head."""
    return tuple(name for name in names if text_of(name).of_head)


def blocks_among(names: tuple[str | Theorem, ...]) -> tuple[str | Theorem, ...]:
    """The theorems that are about a block."""
    return tuple(name for name in names if not text_of(name).of_head)


def _head(
    calculus: Calculus[M, N], parameters: Parameters, layer: int, own: Observation, head: int
) -> HeadQuantities[M, N]:
    norms = parameters.norms[layer]
    given = (heads_of(parameters.blocks[layer].attn), (norms.heads, norms.scores), own.attn)
    weights, known, attn = jax.tree.map(lambda leaf: leaf[head], given)
    return HeadQuantities(calculus, weights, known, own.input, attn)


def _block(
    calculus: Calculus[M, N], parameters: Parameters, layer: int, own: Observation, mixing: Mixing
) -> ExactBlock[M, N]:
    block, norms = parameters.blocks[layer], parameters.norms[layer]
    return ExactBlock(calculus, block, parameters.architecture, norms, own, mixing)


def stacked(trees: list[Tree]) -> Tree:
    """Trees of numpy arrays and numbers as one, on a new leading axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def _resized(leaf: Float[np.ndarray, "L B ..."], size: int) -> Float[np.ndarray, "L R ..."]:
    """[L ROWS ...] in float64, the token axes ([L B T D], of attention [L B N T S]) of `size`, zero where none were."""
    by_head = leaf.ndim == 5
    kept = leaf[..., :size, :size] if by_head else leaf[:, :, :size]
    shape = (leaf.shape[0], ROWS, *((leaf.shape[2], size, size) if by_head else (size, leaf.shape[3])))
    out = np.zeros(shape)
    out[tuple(map(slice, kept.shape))] = kept
    return out
