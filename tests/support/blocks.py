"""Random encoders with everything a trained one may have, blocks built to attain the bounds, and their ladders."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from numpy.typing import NDArray

from jaxsmooth import Batch, Edits, Encoder, EncoderConfig, embed, encode, init_encoder, theory
from jaxsmooth.activations import ACTIVATIONS
from jaxsmooth.bert.norm import layer_norm, token_std
from jaxsmooth.linalg.lanczos import default_tolerance
from jaxsmooth.studies.measurements import model_norms
from jaxsmooth.types import Block, BlockTrace
from support.matrices import FAMILIES, lengths_mask

LENGTH = 6
SENTENCES = 6
SHAPE = {"vocab": 20, "width": 12, "layers": 2, "mlp_width": 10, "max_length": LENGTH}
CONFIGS = {
    "relu": EncoderConfig(**SHAPE, heads=1, activation="relu", eps=1e-12),
    "gelu": EncoderConfig(**SHAPE, heads=2, activation="gelu", eps=1e-12),
    "gelu_tanh": EncoderConfig(**SHAPE, heads=3, activation="gelu_tanh", eps=1e-5),
    "silu": EncoderConfig(**SHAPE, heads=4, activation="silu", eps=1e-1),
}
# L3 is a lower estimate within half of operator_rate's tolerance, ten times the default.
RTOL = 5 * default_tolerance(np.float64)
STEEPEST = {"relu": 1.0, "gelu": 2**0.5, "gelu_tanh": 1.4185040087908284, "silu": 2.3993572805154677}


@functools.cache
def _template(config: EncoderConfig) -> Encoder:
    return init_encoder(config, jax.random.key(0), dtype=jnp.float64, pooler=False)


def random_encoder(rng: np.random.Generator, config: EncoderConfig) -> tuple[Encoder, Batch]:
    """Kernels and biases of random scales; gains of both signs, some nearly zero; sentences of 1 to LENGTH tokens."""
    leaves, structure = jax.tree.flatten(_template(config))
    model = jax.tree.unflatten(
        structure, [jnp.asarray(10 ** rng.uniform(-1.5, 0.5) * rng.standard_normal(leaf.shape)) for leaf in leaves]
    )
    for norm in (model.blocks.norm_attn, model.blocks.norm_mlp):
        near_zero = rng.uniform(size=norm.scale.shape) < 0.2
        norm.scale = norm.scale * jnp.asarray(np.where(near_zero, 1e-8, 1.0))
    tokens = rng.integers(0, config.vocab, (SENTENCES, LENGTH), dtype=np.int32)
    mask = lengths_mask([1, LENGTH, *rng.integers(2, LENGTH + 1, SENTENCES - 2)], LENGTH)
    return model, Batch(tokens=jnp.asarray(tokens), segments=jnp.asarray(tokens % 2), mask=jnp.asarray(mask))


def imposed_attention(rng: np.random.Generator, config: EncoderConfig, batch: Batch) -> Edits:
    """In some heads of some sentences the model's attention gives way to one of the families."""
    lengths = np.asarray(batch.mask).sum(axis=1)
    names = list(FAMILIES)
    imposed = np.zeros((config.layers, SENTENCES, config.heads, LENGTH, LENGTH))
    for layer, b, h in np.ndindex(imposed.shape[:3]):
        n = lengths[b]
        imposed[layer, b, h, :n, :n] = FAMILIES[names[rng.integers(len(names))]](rng, n) if n > 1 else 1
    chosen = rng.uniform(size=(config.layers, SENTENCES, config.heads, 1, 1)) < 0.5
    return Edits(attn=Partial(_impose, jnp.asarray(imposed), jnp.asarray(chosen)))


def _impose(imposed: jax.Array, chosen: jax.Array, layer: jax.Array, attn: jax.Array) -> jax.Array:
    return jnp.where(chosen[layer], imposed[layer], attn)


def run_and_measure(
    model: Encoder, batch: Batch, edits: Edits, *, near_consensus: bool = False
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.float64]]:
    """Every rung of every layer, [L B], and the hidden states, [L+1 B T D].

    `near_consensus` gives the tokens embeddings that differ by 1e-6 only.
    """
    if near_consensus:
        table = model.embeddings
        spread = dataclasses.replace(table, word=1e-6 * table.word + 1, position=0 * table.position)
        spread.segment = 0 * table.segment
        spread.norm = dataclasses.replace(table.norm, scale=1e-6 * table.norm.scale)
        model = dataclasses.replace(model, embeddings=spread)
    rungs, hidden = _measure(model, batch, edits)
    return {name: np.asarray(value) for name, value in rungs.items()}, np.asarray(hidden)


@jax.jit
def _measure(model: Encoder, batch: Batch, edits: Edits) -> tuple[dict[str, jax.Array], jax.Array]:
    norms = model_norms(model)

    def collect(trace: BlockTrace) -> tuple[dict[str, jax.Array], jax.Array, jax.Array, jax.Array]:
        own = jax.tree.map(lambda stacked: stacked[trace.layer], norms)
        rates = theory.mixing_rate(trace.attn, batch.mask)
        state = theory.BlockState(
            trace.input, trace.attn, trace.pre_attn, trace.std_attn, trace.std_mlp, batch.mask, rates
        )
        rungs = own_rungs(trace.block, own, state)
        rungs["actual"] = theory.actual_rate(trace.input, trace.hidden, batch.mask)
        return rungs, trace.hidden, rates, theory.std_product(state)

    _, (rungs, hidden, rates, products) = encode(model, batch, edits=edits, collect=collect)
    rungs["L0"] = theory.shi2022_rate(norms, model.config.activation, rates, products)
    return rungs, jnp.concatenate([embed(model, batch)[None], hidden])


def own_rungs(weights: Block, norms: theory.BlockNorms, state: theory.BlockState) -> dict[str, jax.Array]:
    """The rungs that need one layer only."""
    return {
        "L4": theory.data_rate(norms, state),
        "L3": theory.operator_rate(weights, norms, state)[0],
        "L2b": theory.pairwise_rate(norms, state),
        "L2": theory.refined_rate(norms, state),
        "L1": theory.block_rate(norms, state),
    }


@functools.cache
def ladder(activation: str) -> Callable[[Block, theory.BlockState, jax.Array], dict[str, jax.Array]]:
    """All rungs of one block by itself, jitted: (weights, state, output) -> rungs."""

    def measure(weights: Block, state: theory.BlockState, after: jax.Array) -> dict[str, jax.Array]:
        norms = theory.block_norms(weights, activation)
        stacked = jax.tree.map(lambda leaf: leaf[None], norms)
        product = theory.std_product(state)[None]
        return {
            "actual": theory.actual_rate(state.input, after, state.mask),
            **own_rungs(weights, norms, state),
            "L0": theory.shi2022_rate(stacked, activation, state.mixing_rate[None], product)[0],
        }

    return jax.jit(measure)


# One compiled program each, for states of `random_state`'s shape.
EVERY = {
    "rate": jax.jit(theory.mixing_rate),
    "norms": jax.jit(functools.partial(theory.block_norms, activation="gelu")),
    "stretch": jax.jit(theory.attention_stretch),
    "product": jax.jit(theory.std_product),
    "actual": jax.jit(lambda state, after: theory.actual_rate(state.input, after, state.mask)),
    "L4": jax.jit(theory.data_rate),
    "L3": jax.jit(theory.operator_rate),
    "L2b": jax.jit(theory.pairwise_rate),
    "L2": jax.jit(theory.refined_rate),
}


def aligned_block(
    activation: str, *, mixing: float = 0.7, mlp: float = 1.0, gains: dict[str, float] | None = None
) -> tuple[Block, theory.BlockState, jax.Array]:
    """A block in which no inequality of the proof loses anything: (weights, state, output).

    Tokens are +v and -v with v the same for all; W_V = W_O = I, W_1 = W_2 = sqrt(mlp) I, and the first gain is so
    small that the MLP works where its slope is largest.
    """
    size, width = 6, 8
    gain = gains or {"scale_attn": 1e-4, "scale_mlp": 1.0}
    pattern = np.array([1.0, 1, 1, -1, -1, -1])
    attn = jnp.asarray((1 + mixing * np.outer(pattern, pattern)) / size)[None, None]
    eye, ones = jnp.eye(width), jnp.ones(width)
    weights = theory.block_of(
        value=eye[:, None] * float(mixing > 0),
        output=eye[None],
        scale_attn=gain["scale_attn"] * ones,
        up=mlp**0.5 * eye,
        down=mlp**0.5 * eye,
        scale_mlp=gain["scale_mlp"] * ones,
    )
    direction = np.random.default_rng(0).choice([-1.0, 1.0], (1, 1, width // 2))
    hidden = jnp.asarray(pattern[None, :, None] * np.concatenate([direction, -direction], axis=2))
    pre_attn = hidden + attn[:, 0] @ hidden * float(mixing > 0)
    std_attn = token_std(pre_attn, 0.0)
    normed = layer_norm(pre_attn, weights.norm_attn.scale, 0 * ones, std_attn)
    phi = ACTIVATIONS[activation].function
    steepest = jnp.asarray(STEEPEST[activation])
    pre_mlp = normed + (phi(mlp**0.5 * normed + steepest) - phi(steepest)) * mlp**0.5
    std_mlp = token_std(pre_mlp, 0.0)
    mask = jnp.ones((1, size), bool)
    state = theory.BlockState(hidden, attn, pre_attn, std_attn, std_mlp, mask, theory.mixing_rate(attn, mask))
    return weights, state, layer_norm(pre_mlp, weights.norm_mlp.scale, 0 * ones, std_mlp)


def random_state(rng: np.random.Generator) -> tuple[Block, theory.BlockState]:
    """Weights, and a state whose attention and stds are given freely, as the bounds take them."""
    width, heads = 6, 2
    scale = 10 ** rng.uniform(-1, 1, 4)
    weights = theory.block_of(
        value=jnp.asarray(scale[0] * rng.standard_normal((width, heads, width))),
        output=jnp.asarray(scale[1] * rng.standard_normal((heads, width, width))),
        scale_attn=jnp.asarray(rng.standard_normal(width)),
        up=jnp.asarray(scale[2] * rng.standard_normal((width, width))),
        down=jnp.asarray(scale[3] * rng.standard_normal((width, width))),
        scale_mlp=jnp.asarray(rng.standard_normal(width)),
    )
    lengths = [2, LENGTH, *rng.integers(2, LENGTH + 1, 2)]
    attn = np.zeros((4, heads, LENGTH, LENGTH))
    names = list(FAMILIES)
    for b, h in np.ndindex(4, heads):
        n = lengths[b]
        attn[b, h, :n, :n] = FAMILIES[names[rng.integers(len(names))]](rng, n)
    mask = jnp.asarray(lengths_mask(lengths, LENGTH))
    hidden = rng.standard_normal((4, LENGTH, width))
    mixed = np.einsum("bnts,bsd,dnh,nhe->bte", attn, hidden, weights.attn.value.kernel, weights.attn.output.kernel)
    stds = [jnp.asarray(rng.uniform(0.1, 2, (4, LENGTH, 1))) for _ in range(2)]
    rates = EVERY["rate"](jnp.asarray(attn), mask)
    return weights, theory.BlockState(
        jnp.asarray(hidden), jnp.asarray(attn), jnp.asarray(hidden + mixed), *stds, mask, rates
    )
