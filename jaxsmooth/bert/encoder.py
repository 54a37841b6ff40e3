"""The forward pass: embed, then one `lax.scan` over the stacked blocks."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..errors import ShapeError
from ..types import Batch, BlockTrace, Edit, Edits, Trace
from .attention import attention_logits, attention_probs, mix_tokens
from .config import EncoderConfig
from .norm import layer_norm, token_std
from .params import Block, Encoder

ACTIVATION_FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}


def keep_trace(trace: BlockTrace) -> Trace:
    """The default `collect`: hidden states, attention and both LayerNorm stds of every block."""
    return Trace(hidden=trace.hidden, attn=trace.attn, std_attn=trace.std_attn, std_mlp=trace.std_mlp)


def keep_nothing(trace: BlockTrace) -> tuple[()]:
    """A `collect` that keeps no layer: the plain forward pass."""
    return ()


def embed(model: Encoder, batch: Batch) -> Float[Array, "B T D"]:
    """LayerNorm of word + position + segment embeddings (Hugging Face: `hidden_states[0]`).

    Args:
      model: the encoder.
      batch: tokens, segments and mask, [B T].

    Returns:
      [B T D].

    Raises:
      ShapeError: arrays that do not fit together or the model, or a token outside the vocabulary.

    >>> import jax, jaxsmooth
    >>> model, tokenizer = jaxsmooth.load("tiny")
    >>> jaxsmooth.embed(model, tokenizer(["Dull."])).shape[-1] == model.config.width
    True
    """
    check_batch(model.config, batch)
    return _embed(model, batch)


def encode(
    model: Encoder,
    batch: Batch,
    *,
    edits: Edits = Edits(),
    collect: Callable[[BlockTrace], Any] = keep_trace,
    remat: Callable[..., bool] | bool = False,
) -> tuple[Float[Array, "B T D"], Any]:
    """Run the encoder; return the last hidden states and what `collect` kept of every block.

    Args:
      model: the encoder.
      batch: tokens, segments and mask, [B T].
      edits: functions that replace intermediate values, see `Edits`.
      collect: maps each block's `BlockTrace` to any pytree; the results are stacked on a leading axis L.
        Like a plain-function edit it is compile-time structure, so pass the same function to compile once.
      remat: True recomputes each block in the backward pass; a policy of `jax.checkpoint_policies`
        chooses what to save instead.

    Returns:
      `(hidden, collected)`: [B T D], and `collect`'s pytree with a leading axis L (a `Trace` by default).

    Raises:
      ShapeError: arrays that do not fit together or the model, a token outside the vocabulary, or an edit
        that changes a shape.

    >>> import jax, jaxsmooth
    >>> model, tokenizer = jaxsmooth.load("tiny")
    >>> hidden, trace = jaxsmooth.encode(model, tokenizer(["A film worth seeing.", "Dull."]))
    >>> trace.attn.shape[:3] == (model.config.layers, 2, model.config.heads)
    True
    """
    check_batch(model.config, batch)
    return _encode(model, batch, edits, collect=collect, remat=remat)


@jax.jit
def _embed(model: Encoder, batch: Batch) -> Array:
    table = model.embeddings
    positions = jnp.arange(batch.tokens.shape[1])
    summed = _rows(table.word, batch.tokens) + table.position[positions][None]
    if model.config.segments:
        summed = summed + _rows(table.segment, batch.segments)
    return layer_norm(summed, table.norm.scale, table.norm.bias, token_std(summed, model.config.eps))


def _rows(table: Array, ids: Array) -> Array:
    """Rows of a table. An index outside it gives NaN, which is seen, where clamping is not."""
    wide = ids if ids.dtype.itemsize >= 4 else ids.astype(jnp.int32)
    # jnp.take counts negative indices from the end; beyond the end they give NaN like all others.
    return jnp.take(table, jnp.where(wide < 0, table.shape[0], wide), axis=0, mode="fill")


@functools.partial(jax.jit, static_argnames=("collect", "remat"))
def _encode(model: Encoder, batch: Batch, edits: Edits, *, collect: Callable, remat: Callable | bool) -> tuple:
    def step(hidden: Array, inputs: tuple[Array, Block]) -> tuple[Array, Any]:
        trace = run_block(model.config, *inputs, hidden, batch.mask, edits)
        return trace.hidden, collect(trace)

    if remat:
        step = jax.checkpoint(step, policy=remat if callable(remat) else None)
    layers = jnp.arange(model.config.layers, dtype=jnp.int32)
    return jax.lax.scan(step, _embed(model, batch), (layers, model.blocks))


def run_block(
    config: EncoderConfig,
    layer: Int[Array, ""],
    block: Block,
    hidden: Float[Array, "B T D"],
    mask: Bool[Array, "B T"],
    edits: Edits,
) -> BlockTrace:
    """One post-LN block, every intermediate value returned: LN(MLP(LN(Attn(X)))), residuals inside.

    Args:
      config: eps and activation.
      layer: the block's index, handed to the edits.
      block: the block's parameters, without a layer axis.
      hidden: input, [B T D].
      mask: True on real tokens, [B T].
      edits: see `Edits`.

    Returns:
      The `BlockTrace`; its `hidden` is the block's output.
    """

    def edit(site: str, value: Array) -> Array:
        return apply_edit(site, getattr(edits, site), layer, value)

    logits = edit("attn_logits", attention_logits(block.attn, hidden))
    attn = edit("attn", attention_probs(logits, mask))
    mixed = edit("mixed", mix_tokens(block.attn, attn, hidden))
    pre_attn = hidden + mixed
    std_attn = edit("std_attn", token_std(pre_attn, config.eps))
    normed = layer_norm(pre_attn, edit("scale_attn", block.norm_attn.scale), block.norm_attn.bias, std_attn)

    activation = ACTIVATION_FUNCTIONS[config.activation]
    wide = activation(normed @ block.up.kernel + block.up.bias[None, None])
    pre_mlp = normed + wide @ block.down.kernel + block.down.bias[None, None]
    std_mlp = edit("std_mlp", token_std(pre_mlp, config.eps))
    output = layer_norm(pre_mlp, edit("scale_mlp", block.norm_mlp.scale), block.norm_mlp.bias, std_mlp)
    return BlockTrace(
        layer=layer,
        block=block,
        input=hidden,
        attn_logits=logits,
        attn=attn,
        mixed=mixed,
        pre_attn=pre_attn,
        std_attn=std_attn,
        normed=normed,
        pre_mlp=pre_mlp,
        std_mlp=std_mlp,
        hidden=edit("hidden", output),
    )


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


def check_batch(config: EncoderConfig, batch: Batch) -> None:
    """Refuse a batch whose arrays do not fit together or the model.

    Raises:
      ShapeError: says which array, what was expected, and what came.
    """
    shape = jnp.shape(batch.tokens)
    if len(shape) != 2:
        raise ShapeError(f"batch.tokens must have axes (B, T); got shape {shape}. Did you drop the batch axis?")
    for name in ("segments", "mask"):
        other = jnp.shape(getattr(batch, name))
        if other != shape:
            raise ShapeError(f"batch.{name} must have the shape of batch.tokens, {shape}; got {other}.")
    if jnp.result_type(batch.mask) != jnp.bool_:
        raise ShapeError(f"batch.mask must be boolean, True on real tokens; got {jnp.result_type(batch.mask)}.")
    if shape[1] > config.max_length:
        raise ShapeError(f"the model has {config.max_length} positions; got sentences of {shape[1]} tokens.")
    for name, most in (("tokens", config.vocab), ("segments", config.segments)):
        ids = getattr(batch, name)
        if not jnp.issubdtype(jnp.result_type(ids), jnp.integer):
            raise ShapeError(f"batch.{name} must hold integers; got {jnp.result_type(ids)}.")
        # Under an outer trace the values are unknown; there, an id outside its table gives NaN.
        if not most or isinstance(ids, jax.core.Tracer) or not ids.size:
            continue
        values = np.asarray(ids)
        least, largest = int(values.min()), int(values.max())
        if not 0 <= least <= largest < most:
            raise ShapeError(
                f"batch.{name} must lie in 0..{most - 1}; got {least}..{largest}. "
                "Was the text tokenised with another model's vocabulary?"
            )
