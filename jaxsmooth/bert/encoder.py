"""The forward pass: embed, then one `lax.scan` over the stacked blocks."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..errors import ShapeError
from ..types import Batch, BlockTrace, Edit, Edits, ImageBatch, Trace
from .attention import add_bias, attention_logits, attention_probs, join_heads, mix_tokens, project_heads
from .config import EncoderConfig
from .norm import layer_norm, token_std
from .params import Block, Embeddings, Encoder, LayerNorm
from .placement import PLACEMENT_FUNCTIONS
from .positions import position_ids, relative_bias, rotate, visible_tokens
from .matmul import halved_product

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


def embed(model: Encoder, batch: Batch | ImageBatch) -> Float[Array, "B T D"]:
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
    _check_arguments(model, batch, Edits(), keep_nothing)
    return _embed(model, batch)


def image_batch(config: EncoderConfig, pixels: Float[Array, "B C Y X"]) -> ImageBatch:
    """Images as a vision encoder reads them, every token real.

    Args:
      config: a vision encoder's.
      pixels: normalised as the model's preprocessor does, channels first, [B C Y X].

    Raises:
      ShapeError: images of another size or number of channels.
    """
    tokens = config.class_tokens + (config.image_size // config.patch_size) ** 2
    batch = ImageBatch(pixels=pixels, mask=jnp.ones((jnp.shape(pixels)[0], tokens), bool))
    check_batch(config, batch)
    return batch


def encode(
    model: Encoder,
    batch: Batch | ImageBatch,
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
    _check_arguments(model, batch, edits, collect)
    return _encode(model, batch, edits, collect=collect, remat=remat)


@jax.jit
def _embed(model: Encoder, batch: Batch | ImageBatch) -> Array:
    table, config = model.embeddings, model.config
    summed = embed_patches(table, batch.pixels) if isinstance(batch, ImageBatch) else embed_words(config, table, batch)
    if table.norm is not None:
        summed = normalise(config, table.norm, summed)
    if table.projection is not None:
        summed = add_bias(summed @ table.projection.kernel, table.projection.bias)
    return summed


def embed_words(config: EncoderConfig, table: Embeddings, batch: Batch) -> Float[Array, "B T E"]:
    """Word + position + segment embeddings, the latter two where there are tables of them."""
    summed = _rows(table.word, batch.tokens)
    if table.position is not None:
        summed = summed + _rows(table.position, position_ids(config, batch.mask))
    return summed if table.segment is None else summed + _rows(table.segment, batch.segments)


def _rows(table: Array, ids: Array) -> Array:
    """Rows of a table. An index outside it gives NaN, which is seen, where clamping is not."""
    wide = ids if ids.dtype.itemsize >= 4 else ids.astype(jnp.int32)
    # jnp.take counts negative indices from the end; beyond the end they give NaN like all others.
    return jnp.take(table, jnp.where(wide < 0, table.shape[0], wide), axis=0, mode="fill")


def embed_patches(table: Embeddings, pixels: Float[Array, "B C Y X"]) -> Float[Array, "B T D"]:
    """Class tokens and linearly mapped square patches, row by row, plus their positions.

    References: Dosovitskiy et al. (2021), arXiv 2010.11929.
    """
    b, c, y, x = pixels.shape
    side = math.isqrt(table.patch.kernel.shape[0] // c)
    cut = pixels.astype(table.patch.kernel.dtype).reshape(b, c, y // side, side, x // side, side)
    flat = cut.transpose(0, 2, 4, 1, 3, 5).reshape(b, (y // side) * (x // side), c * side**2)
    patches = add_bias(flat @ table.patch.kernel, table.patch.bias)
    classes = jnp.broadcast_to(table.classes[None], (b, *table.classes.shape))
    assert table.position is not None  # a vision encoder always has positions
    return jnp.concatenate([classes, patches], axis=1) + table.position[None]


@functools.partial(jax.jit, static_argnames=("collect", "remat"))
def _encode(
    model: Encoder, batch: Batch | ImageBatch, edits: Edits, *, collect: Callable, remat: Callable | bool
) -> tuple:
    config = model.config
    bias = relative_bias(model.relative, batch.mask.shape[1])
    # ALBERT's one block, without its layer axis, is used by every step instead of being scanned over.
    shared = jax.tree.map(lambda leaf: leaf[0], model.blocks) if config.shared_layers else None

    def step(hidden: Array, inputs: tuple[Array, Any]) -> tuple[Array, Any]:
        layer, block = inputs
        trace = run_block(config, layer, shared or block, hidden, batch.mask, edits, bias)
        return trace.hidden, collect(trace)

    if remat:
        step = jax.checkpoint(step, policy=remat if callable(remat) else None)
    layers = jnp.arange(config.layers, dtype=jnp.int32)
    embedded = apply_edit("embedded", edits.embedded, jnp.int32(-1), _embed(model, batch))
    hidden, collected = jax.lax.scan(step, embedded, (layers, None if config.shared_layers else model.blocks))
    return hidden if model.final_norm is None else normalise(config, model.final_norm, hidden), collected


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


def _check_arguments(model: Any, batch: Any, edits: Any, collect: Any) -> None:
    """Refuse what is not an encoder, a batch, edits or a function, before anything is computed."""
    for name, value, kind in (
        ("model", model, Encoder),
        ("batch", batch, (Batch, ImageBatch)),
        ("edits", edits, Edits),
    ):
        if not isinstance(value, kind):
            wanted = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
            hint = " Text becomes a batch by calling the tokenizer." if name == "batch" else ""
            raise ShapeError(f"{name} must be a {wanted}; got {type(value).__name__}.{hint}")
    if not callable(collect):
        raise ShapeError(f"collect must be a function of a BlockTrace; got {type(collect).__name__}.")
    check_batch(model.config, batch)


def check_images(config: EncoderConfig, batch: ImageBatch) -> None:
    """Refuse images of another size or number of channels.

    Raises:
      ShapeError: says what was expected, and what came.
    """
    side, shape = config.image_size, jnp.shape(batch.pixels)
    if len(shape) != 4 or shape[1:] != (config.channels, side, side):
        raise ShapeError(
            f"batch.pixels must have shape (B, {config.channels}, {side}, {side}); got {shape}. "
            "Are the channels last? Is the image resized as the model's preprocessor does?"
        )
    tokens = config.class_tokens + (side // config.patch_size) ** 2
    if jnp.shape(batch.mask) != (shape[0], tokens) or jnp.result_type(batch.mask) != jnp.bool_:
        raise ShapeError(
            f"batch.mask must be boolean, of shape ({shape[0]}, {tokens}); got {jnp.result_type(batch.mask)} of "
            f"shape {jnp.shape(batch.mask)}. `image_batch` makes it."
        )


def check_batch(config: EncoderConfig, batch: Batch | ImageBatch) -> None:
    """Refuse a batch whose arrays do not fit together or the model.

    Raises:
      ShapeError: says which array, what was expected, and what came.
    """
    if isinstance(batch, ImageBatch) != config.is_vision:
        wanted = "an ImageBatch of pixels" if config.is_vision else "a Batch of tokens"
        raise ShapeError(f"a {config.family} encoder reads {wanted}; got {type(batch).__name__}.")
    if isinstance(batch, ImageBatch):
        check_images(config, batch)
        return
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
