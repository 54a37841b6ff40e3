"""One block of the encoder."""

import dataclasses
import functools
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..activations import ACTIVATION_FUNCTIONS
from ..errors import ShapeError
from ..types import Block, BlockTrace, Edit, Edits, LayerNorm
from .attention import add_bias, attention_logits, attention_probs, join_heads, mix_tokens, project_heads
from .config import EncoderConfig
from .matmul import halved_product
from .norm import layer_norm, token_std
from .placement import PLACEMENT_FUNCTIONS
from .positions import rotate, visible_tokens


def normalise(config: EncoderConfig, norm: LayerNorm, hidden: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    """The encoder's kind of norm, nothing edited: of the embedding, or after the last block."""
    std = token_std(hidden, config.eps, norm=config.norm)
    return layer_norm(hidden, norm.scale, norm.bias, std, norm=config.norm)


def run_block(
    config: EncoderConfig,
    layer: Int[Array, ""],
    block: Block,
    hidden: Float[Array, "B T D"],
    mask: Bool[Array, "B T"],
    edits: Edits,
    bias: Float[Array, "N T S"] | None = None,
) -> BlockTrace:
    """One block, every intermediate value returned. BERT's is post-LN: LN(MLP(LN(Attn(X)))), residuals inside.

    Args:
      config: which variant of a block this is, eps and activation.
      layer: the block's index, handed to the edits.
      block: the block's parameters, without a layer axis.
      hidden: input, [B T D].
      mask: True on real tokens, [B T].
      edits: see `Edits`.
      bias: positional bias of the attention logits, [N T S].

    Returns:
      The `BlockTrace`; its `hidden` is the block's output.
    """
    kept: dict[str, Array] = {}

    def keep(site: str, value: Array) -> Array:
        kept[site] = apply_edit(site, getattr(edits, site), layer, value)
        return kept[site]

    def attend(x: Array) -> Array:
        query = keep("query", rotate(config, layer, project_heads(block.attn.query, x)))
        key = keep("key", rotate(config, layer, project_heads(block.attn.key, x)))
        value = keep("value", project_heads(block.attn.value, x))
        logits = keep("attn_logits", attention_logits(query, key, bias))
        attn = keep("attn", attention_probs(logits, mask, visible_tokens(config, layer, mask.shape[1])))
        return keep("mixed", join_heads(block.attn.output, keep("context", mix_tokens(attn, value))))

    def transform(x: Array) -> Array:
        wide = feed_forward(config, block, keep("normed", x))
        return keep("mlp", add_bias(wide @ block.down.kernel, block.down.bias))

    def norm(part: str, x: Array) -> Array:
        own = getattr(block, f"norm_{part}")
        std = keep(f"std_{part}", token_std(x, config.eps, norm=config.norm))
        normed = layer_norm(x, keep(f"scale_{part}", own.scale), own.bias, std, norm=config.norm)
        return normed if config.first_norm or part == "mlp" else jnp.where(layer == 0, x, normed)

    def add(part: str, stream: Array, branch: Array) -> Array:
        return keep(f"pre_{part}", scaled(stream, config.skip_scale) + scaled(branch, config.branch_scale))

    def wrapped(part: str, sublayer: Callable[[Array], Array], stream: Array) -> Array:
        place = PLACEMENT_FUNCTIONS[config.placement]
        out_norm = functools.partial(normalise, config, getattr(block, f"norm_{part}_out"))
        return place(stream, sublayer, functools.partial(norm, part), out_norm, functools.partial(add, part))

    keep("hidden", wrapped("mlp", transform, wrapped("attn", attend, hidden)))
    traced = {field.name for field in dataclasses.fields(BlockTrace)} & kept.keys()
    return BlockTrace(layer=layer, block=block, input=hidden, **{site: kept[site] for site in traced})


def feed_forward(config: EncoderConfig, block: Block, x: Float[Array, "B T D"]) -> Float[Array, "B T F"]:
    """The MLP's wide layer: f(x W_up), times x W_gate in a gated MLP."""
    wide = ACTIVATION_FUNCTIONS[config.activation](add_bias(halved_product(x, block.up.kernel), block.up.bias))
    return wide if block.gate is None else wide * add_bias(halved_product(x, block.gate.kernel), block.gate.bias)


def attention_input(config: EncoderConfig, trace: BlockTrace) -> Float[Array, "B T D"]:
    """What a block's queries, keys and values are maps of: its input, normed in a pre-LN block."""
    if config.placement == "post":
        return trace.input
    norm = trace.block.norm_attn
    normed = layer_norm(trace.input, norm.scale, norm.bias, trace.std_attn, norm=config.norm)
    return normed if config.first_norm else jnp.where(trace.layer == 0, trace.input, normed)


def scaled(x: Array, factor: float) -> Array:
    """`factor * x`; BERT's factor of 1 costs nothing."""
    return x if factor == 1 else x * jnp.asarray(factor, x.dtype)


def apply_edit(site: str, edit: Edit | None, layer: Array, value: Array) -> Array:
    """`edit(layer, value)`, held to the value's shape and dtype; the value itself when there is no edit."""
    if edit is None:
        return value
    edited = jnp.asarray(edit(layer, value))
    if edited.shape != value.shape:
        raise ShapeError(
            f"the edit of {site!r} must return shape {value.shape}; got {edited.shape}. Did it drop an axis?"
        )
    return edited.astype(value.dtype)
