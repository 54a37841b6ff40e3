"""The first of the three stages of a certified comparison: matrix products alone, every unit of work in one jit.

A unit is one head, or one block, on one sentence. Units are mapped and never unrolled, so the size of the program, and
the time it takes to compile, do not depend on how many there are. All is float64: call within `jax.enable_x64(True)`.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from ...linalg.intervals import Interval
from ..statement import Claim
from . import theorems
from .float_calculus import FloatCalculus
from .observations import BlockParameters, HeadWeights, KnownNorms, SentenceData
from .quantities import BlockFacts, HeadFacts


class BlockArrays(NamedTuple):
    """The arrays of `BlockParameters`, of every layer on a leading axis L; eps and activation are not arrays."""

    heads: HeadWeights
    output_bias: Any
    scale_attn: Any
    bias_attn: Any
    up: Any
    up_bias: Any
    down: Any
    down_bias: Any
    scale_mlp: Any
    bias_mlp: Any


@functools.partial(jax.jit, static_argnames="names")
def head_claims(
    heads: HeadWeights, norms: KnownNorms, data: SentenceData, mask: Bool[Array, "B T"], names: tuple[str, ...]
) -> tuple[Interval, dict[str, Claim]]:
    """sqrt(lambda), and the theorems about a head, for every head of every layer on every sentence.

    Args:
      heads: every layer's, [L N ...].
      norms: of every layer, [L] and [L N].
      data: what every block computed, [L B ...], zero on padding; the input and the attention are read.
      mask: True on real tokens, [B T].
      names: the theorems wanted.

    Returns:
      sqrt(lambda), [L B N], and a `Claim` of that shape for every name.
    """

    def of_sentence(weights: HeadWeights, known: tuple[Interval, Interval], sentence: tuple) -> Any:
        hidden, attn, mask = sentence
        calculus = FloatCalculus(mask, jnp.float64)
        diameter = calculus.diameter(calculus.matrix(hidden))

        def of_head(head: tuple) -> Any:
            facts = HeadFacts(calculus, head[0], head[1], hidden, head[2])
            facts.diameter = diameter
            return facts.mixing, {name: theorems.head_claims(facts, name)[name] for name in names}

        return jax.lax.map(of_head, (weights, known, attn))

    def of_layer(layer: tuple) -> Any:
        weights, known, hidden, attn = layer
        return jax.lax.map(functools.partial(of_sentence, weights, known), (hidden, attn, mask))

    return jax.lax.map(of_layer, (heads, (norms.heads, norms.scores), data.input, data.attn))


@functools.partial(jax.jit, static_argnames=("eps", "activation"))
def block_claims(
    blocks: BlockArrays,
    norms: KnownNorms,
    data: SentenceData,
    mask: Bool[Array, "B T"],
    eps: float,
    activation: str,
) -> dict[str, Claim]:
    """The theorems about a block, for every block on every sentence.

    Args:
      blocks: every layer's parameters, [L ...].
      norms: of every layer, [L] and [L N].
      data: what every block computed, [L B ...], zero on padding, with `mixing` [L B N] and `largest_mixing` [L B].
      mask: True on real tokens, [B T].
      eps: of the LayerNorms.
      activation: its name.

    Returns:
      A `Claim`, [L B], for every theorem.
    """

    def of_sentence(block: BlockParameters, known: KnownNorms, sentence: tuple) -> dict[str, Claim]:
        own, mask = sentence
        return theorems.block_claims(BlockFacts(FloatCalculus(mask, jnp.float64), block, known, own))

    def of_layer(layer: tuple) -> dict[str, Claim]:
        arrays, known, own = layer
        block = BlockParameters(**arrays._asdict(), eps=eps, activation=activation)
        return jax.lax.map(functools.partial(of_sentence, block, known), (own, mask))

    return jax.lax.map(of_layer, (blocks, norms, data))
