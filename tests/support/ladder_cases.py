"""Blocks, drawn or of a model asset, with rates L2b, L3 and L4 next to 1: numpy's, and what `verify` says of them."""

import dataclasses
import functools

import jax
import numpy as np

import jaxsmooth
from jaxsmooth.studies.statements.hypotheses import HypothesisStage
from jaxsmooth.studies.verify_stages import HostStage
from jaxsmooth.theory import block_of
from jaxsmooth.theory.theorems.exact_block import Observation
from jaxsmooth.types import Block
from support.hypotheses import CONFIG, parameters
from support.matrices import FAMILIES
from support.reference import ACTIVATIONS, Array
from support.reference_ladder import Layer, largest_slope, norm, operator_norm, pair_matrix

RUNGS = ("L2b", "L3", "L4")
OTHER_NAMES = {"gelu_tanh": "gelu_new"}  # the reference's, which are Hugging Face's


class BlockLayer(Layer):
    """The reference's constants, of a block's arrays."""

    def __init__(self, block: Block, activation: str):
        width, heads, head_width = block.attn.value.kernel.shape
        self.value, self.output = (
            block.attn.value.kernel.reshape(width, -1),
            block.attn.output.kernel.reshape(-1, width),
        )
        cuts = [slice(h * head_width, (h + 1) * head_width) for h in range(heads)]
        self.heads = [self.value[:, cut] @ self.output[cut] for cut in cuts]
        self.w1, self.w2 = block.up.kernel, block.down.kernel
        gain = block.norm_attn.scale
        self.gain1, self.gain2 = float(np.abs(gain).max()), float(np.abs(block.norm_mlp.scale).max())
        self.slope = largest_slope(OTHER_NAMES.get(activation, activation))
        self.head_norms = [norm(m) for m in self.heads]
        self.concatenated = norm(self.value) * norm(self.output)
        self.stacked = norm(sum(m @ m.T for m in self.heads))
        self.norm1, self.norm2 = norm(self.w1), norm(self.w2)
        self.mlp = min(self._centred_mlp(gain), self.gain1 * (1.0 + self.slope * self.norm1 * self.norm2))


def drawn_block(rng: np.random.Generator) -> tuple[Block, str, float]:
    """Kernels and biases of random scales, gains of both signs and some nearly 0; activation and epsilon."""
    heads, head_width, wide = int(rng.integers(1, 4)), int(rng.integers(1, 4)), int(rng.integers(2, 9))
    width = int(rng.integers(3, 8))

    def scaled(*shape: int) -> Array:
        return 10 ** rng.uniform(-1.5, 0.5) * rng.standard_normal(shape)

    gains = [scaled(width) * np.where(rng.uniform(size=width) < 0.2, 1e-8, 1.0) for _ in range(2)]
    block = block_of(
        *(scaled(width, heads, head_width), scaled(heads, head_width, width), gains[0]),
        *(scaled(width, wide), scaled(wide, width), gains[1]),
        value_bias=scaled(heads, head_width),
        output_bias=scaled(width),
        bias_attn=scaled(width),
        up_bias=scaled(wide),
        down_bias=scaled(width),
        bias_mlp=scaled(width),
    )
    return block, str(rng.choice(["relu", "gelu", "gelu_tanh", "silu"])), float(rng.choice([0.0, 1e-12, 1e-5, 0.1]))


@functools.cache
def asset_block(model: str, layer: int) -> tuple[Block, str, float, BlockLayer]:
    """A trained block in float64, its activation and epsilon, and the reference's constants."""
    encoder, _ = jaxsmooth.load(model)
    block = jax.tree.map(lambda leaf: np.asarray(leaf[layer], np.float64), encoder.blocks)
    return block, encoder.config.activation, encoder.config.eps, BlockLayer(block, encoder.config.activation)


def observed(rng: np.random.Generator, block: Block, activation: str, eps: float) -> Observation:
    """What numpy's block makes of 2 to 5 random tokens, some next to consensus, under attention of any family."""
    count = int(rng.integers(2, 6))
    width, heads, _ = block.attn.value.kernel.shape
    x = 10 ** rng.uniform(-1, 1) * rng.standard_normal(width) * rng.integers(0, 2)
    x = x + 10 ** rng.uniform(-4, 1) * rng.standard_normal((count, width))
    attn = np.stack([FAMILIES[str(rng.choice(list(FAMILIES)))](rng, count) for _ in range(heads)])
    values = np.einsum("sd,dnh->nsh", x, block.attn.value.kernel) + block.attn.value.bias[:, None]
    mixed = np.einsum("nts,nsh,nhd->td", attn, values, block.attn.output.kernel) + block.attn.output.bias
    u = x + mixed
    normed = (u - u.mean(axis=1, keepdims=True)) / std_of(u, eps) * block.norm_attn.scale + block.norm_attn.bias
    before = normed @ block.up.kernel + block.up.bias
    active = ACTIVATIONS[OTHER_NAMES.get(activation, activation)](before)
    mlp = active @ block.down.kernel + block.down.bias
    return Observation(x, attn, mixed, u, normed, before, active, mlp, normed + mlp)


def std_of(rows: Array, eps: float) -> Array:
    return np.sqrt(rows.var(axis=1, keepdims=True) + eps)


def reference_rates(layer: Layer, seen: Observation, eps: float) -> dict[str, float]:
    """By dense or sparse linear algebra in float64."""
    s1, s2 = (std_of(rows, eps)[:, 0] for rows in (seen.pre_attn, seen.pre_mlp))
    pair, factor = pair_matrix(1 / (s1 * s2)), layer.mlp * layer.gain2
    spread = seen.pre_attn - seen.pre_attn.mean(axis=1, keepdims=True)
    apart = spread - spread.mean(axis=0)
    start = np.linalg.norm(seen.input - seen.input.mean(axis=0))
    return {
        "L2b": layer.attention_factor(seen.attn) * factor * np.sqrt(norm(pair)),
        "L3": factor * operator_norm(layer, seen.attn, pair),
        "L4": factor * np.sqrt(max(np.sum(apart * (pair @ apart)), 0.0)) / start,
    }


def with_rate(block: Block, rate: float, wanted: float) -> Block:
    """Every rung is of degree 1 in the gains of the second norm."""
    scale = block.norm_mlp.scale * (wanted / rate)
    return dataclasses.replace(block, norm_mlp=dataclasses.replace(block.norm_mlp, scale=scale))


def verdicts(block: Block, seen: Observation, activation: str, eps: float, names: tuple[str, ...]) -> dict[str, str]:
    """What `verify` decides on this one observation."""
    known = parameters(block, activation, eps)
    batch, count = Observation(*(rows[None, None] for rows in seen)), [len(seen.input)]
    stage = HypothesisStage(known, CONFIG, names)
    stage.check(batch, count, HostStage(known, stage.of_blocks)(batch, count), np.array([0]))
    return {check.hypothesis: check.verdict for check in stage.tally.checks()}
