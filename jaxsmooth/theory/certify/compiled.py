"""The first of the three stages of a certified comparison: matrix products alone, every unit of work in one jit.

A unit is one head, or one block, on one sentence. Units are mapped and never unrolled, so the size of the program, and
the time it takes to compile, do not depend on how many there are. All is float64: call within `jax.enable_x64(True)`.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from ...linalg.intervals import Interval
from ...types import Attention, Block
from ..statement import Statement
from ..theorems.exact_block import Architecture, ExactBlock, Mixing, Observation
from ..theorems.parameters import EnclosedNorms
from ..theorems.quantities import HeadQuantities
from ..theorems.registry import Theorem, text_of
from .float_calculus import FloatCalculus

Statements = dict[str, Statement[Interval]]


@functools.partial(jax.jit, static_argnames="names")
def head_statements(
    heads: Attention,
    norms: EnclosedNorms[Interval],
    data: Observation,
    mask: Bool[Array, "B T"],
    names: tuple[str | Theorem, ...],
) -> tuple[Interval, Statements]:
    """sqrt(lambda), and the theorems about a head, for every head of every layer on every sentence.

    Args:
      heads: every layer's, as of `heads_of`, [L N ...].
      norms: of every layer, [L] and [L N].
      data: what every block computed, [L B ...], zero on padding; the input and the attention are read.
      mask: True on real tokens, [B T].
      names: the theorems wanted; those of the user's own as themselves.

    Returns:
      sqrt(lambda), [L B N], and a `Statement` of that shape for every name.
    """

    def of_sentence(
        weights: Attention, known: tuple[Interval, Interval], sentence: tuple[Array, Array, Array]
    ) -> tuple[Interval, Statements]:
        hidden, attn, mask = sentence
        calculus = FloatCalculus(mask, jnp.float64)
        diameter = calculus.diameter(calculus.matrix(hidden))

        def of_head(head: tuple) -> tuple[Interval, Statements]:
            q = HeadQuantities(calculus, head[0], head[1], hidden, head[2])
            q.diameter = diameter
            return q.mixing, {one.name: one.statement(q) for one in map(text_of, names)}

        return jax.lax.map(of_head, (weights, known, attn))

    def of_layer(layer: tuple) -> tuple[Interval, Statements]:
        weights, known, hidden, attn = layer
        return jax.lax.map(functools.partial(of_sentence, weights, known), (hidden, attn, mask))

    return jax.lax.map(of_layer, (heads, (norms.heads, norms.scores), data.input, data.attn))


@functools.partial(jax.jit, static_argnames=("architecture", "names"))
def block_statements(
    blocks: Block,
    norms: EnclosedNorms[Interval],
    data: Observation,
    mixing: Mixing,
    mask: Bool[Array, "B T"],
    architecture: Architecture,
    names: tuple[str | Theorem, ...],
) -> Statements:
    """The theorems about a block, for every block on every sentence.

    Args:
      blocks: every layer's parameters, [L ...].
      norms: of every layer, [L] and [L N].
      data: what every block computed, [L B ...], zero on padding.
      mixing: [L B N] and [L B].
      mask: True on real tokens, [B T].
      architecture: of all blocks.
      names: the theorems wanted; those of the user's own as themselves.

    Returns:
      A `Statement`, [L B], for every name.
    """

    def of_sentence(block: Block, known: EnclosedNorms[Interval], sentence: tuple) -> Statements:
        own, mixing, mask = sentence
        q = ExactBlock(FloatCalculus(mask, jnp.float64), block, architecture, known, own, mixing)
        return {one.name: one.statement(q) for one in map(text_of, names)}

    def of_layer(layer: tuple) -> Statements:
        block, known, own, mixing = layer
        return jax.lax.map(functools.partial(of_sentence, block, known), (own, mixing, mask))

    return jax.lax.map(of_layer, (blocks, norms, data, mixing))
