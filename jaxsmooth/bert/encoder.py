"""The forward pass: embed, then one `lax.scan` over the stacked blocks."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..errors import ShapeError, arguments_checked
from ..linalg.precision import matmul
from ..meshes import on_any_mesh
from ..types import Batch, Block, BlockTrace, Edits, ImageBatch, Trace
from .attention import add_bias
from .block import apply_edit, normalise, run_block
from .checks import check_arguments, check_batch
from .config import EncoderConfig
from .kernels import PROBABILITIES, Kernel, find_kernel, make_attend, sites_read, why_explicit
from .params import Embeddings, Encoder
from .positions import position_ids, relative_bias


@arguments_checked
def keep_trace(trace: BlockTrace) -> Trace:
    """The default `collect` of `encode`: hidden states, attention and both LayerNorm stds of every block.

    Args:
      trace: of one block.

    Returns:
      A `Trace` of one block; `encode` stacks them on a leading axis L.
    """
    return Trace(hidden=trace.hidden, attn=trace.attn, std_attn=trace.std_attn, std_mlp=trace.std_mlp)


@arguments_checked
def keep_nothing(trace: BlockTrace) -> tuple[()]:
    """A `collect` that keeps no layer: the plain forward pass.

    >>> import jaxsmooth
    >>> model, tokenizer = jaxsmooth.load("tiny")
    >>> jaxsmooth.encode(model, tokenizer(["Dull."]), collect=keep_nothing)[1]
    ()
    """
    return ()


@arguments_checked
def embed(model: Encoder, batch: Batch | ImageBatch | Mapping[str, Any]) -> Float[Array, "B T D"]:
    """LayerNorm of word + position + segment embeddings (Hugging Face: `hidden_states[0]`); the first block's input.

    Args:
      model: the encoder.
      batch: tokens, segments and mask, [B T], or images; or what transformers makes (see `as_batch`).

    Returns:
      [B T D].

    Raises:
      ShapeError: arrays that do not fit together or the model, or a token outside the vocabulary.

    >>> import jax, jaxsmooth
    >>> model, tokenizer = jaxsmooth.load("tiny")
    >>> jaxsmooth.embed(model, tokenizer(["Dull."])).shape[-1] == model.config.width
    True

    References: Devlin et al. (2019), BERT, arXiv 1810.04805.
    """
    return _embed(model, check_arguments(model, batch, Edits(), keep_nothing))


@arguments_checked
def image_batch(config: EncoderConfig, pixels: Float[Array, "B C Y X"]) -> ImageBatch:
    """Images as a vision encoder reads them, every token real.

    Args:
      config: a vision encoder's.
      pixels: normalised as the model's preprocessor does, channels first, [B C Y X].

    Returns:
      An `ImageBatch`; its mask, [B T], has a token for every class token and patch.

    Raises:
      ShapeError: images of another size or number of channels.

    >>> import jaxsmooth
    >>> config = jaxsmooth.family_config("vit", image_size=32, patch_size=16)
    >>> image_batch(config, jnp.zeros((2, 3, 32, 32))).mask.shape
    (2, 5)
    """
    tokens = config.class_tokens + (config.image_size // config.patch_size) ** 2
    batch = ImageBatch(pixels=pixels, mask=jnp.ones((jnp.shape(pixels)[0], tokens), bool))
    check_batch(config, batch)
    return batch


@arguments_checked
def encode(
    model: Encoder,
    batch: Batch | ImageBatch | Mapping[str, Any],
    *,
    edits: Edits = Edits(),
    collect: Callable[[BlockTrace], Any] = keep_trace,
    remat: Callable[..., bool] | bool = False,
    successive: bool = False,
    attention: Literal["explicit", "auto", "fused"] | Kernel = "explicit",
    place: Callable[[Block], Block] | None = None,
    unroll: bool = False,
) -> tuple[Float[Array, "B T D"], Any]:
    """Run the encoder; return the last hidden states and what `collect` returns for every block.

    Args:
      model: the encoder.
      batch: tokens, segments and mask, [B T], or images; or what a tokenizer or image processor of transformers
        returns: a mapping with input_ids, attention_mask and token_type_ids, or pixel_values.
      edits: functions that replace intermediate values, see `Edits`.
      collect: maps each block's `BlockTrace` to any pytree; the results are stacked on a leading axis L.
        Like a plain-function edit it is compile-time structure, so pass the same function to compile once.
      remat: True recomputes each block in the backward pass; a policy of `jax.checkpoint_policies`
        chooses what to save instead.
      successive: hand `collect` the attention of the block before as well, `trace.attn_before`.
      attention: "explicit" computes the probabilities, as the theory needs them; "auto" leaves attention to a kernel of
        the accelerator where no edit and nothing that `collect` reads needs them, and is "explicit" on a CPU; "fused"
        asks for the kernel; a `Kernel` names it (docs/attention.md). Results differ by rounding, and at padded tokens.
      place: says on which devices one block's parameters lie, by `jax.lax.with_sharding_constraint` of each. Asked
        inside the loop over blocks, it holds for every block's gradient as well, where it is made.
      unroll: write the blocks out one after the other, not as a loop: the same but for rounding, by a program several
        times as long. A CPU's gradient is quicker for it: nothing is copied into what a loop keeps for the way back.

    Returns:
      `(hidden, collected)`: [B T D], and `collect`'s pytree with a leading axis L (a `Trace` by default).

    Raises:
      ShapeError: arrays that do not fit together or the model, a token outside the vocabulary, an edit
        that changes a shape, attention shared by blocks that are not there, or "fused" attention where no kernel can
        compute it.

    >>> import jax, jaxsmooth
    >>> model, tokenizer = jaxsmooth.load("tiny")
    >>> hidden, trace = jaxsmooth.encode(model, tokenizer(["A film worth seeing.", "Dull."]))
    >>> trace.attn.shape[:3] == (model.config.layers, 2, model.config.heads)
    True

    References: Devlin et al. (2019), BERT, arXiv 1810.04805.
    """
    options: dict[str, Any] = {"collect": collect, "remat": remat, "successive": successive}
    options |= {"kernel": find_kernel(attention), "place": place, "unroll": unroll}
    return _encode(model, check_arguments(model, batch, edits, collect), edits, **options)


@on_any_mesh(lambda model, batch: batch.mask)
@jax.jit
def _embed(model: Encoder, batch: Batch | ImageBatch) -> Array:
    table, config = model.embeddings, model.config
    summed = embed_patches(table, batch.pixels) if isinstance(batch, ImageBatch) else embed_words(config, table, batch)
    summed = normalise(config, table.norm, summed)
    if table.projection is not None:
        summed = add_bias(matmul(summed, table.projection.kernel), table.projection.bias)
    return summed


def embed_words(config: EncoderConfig, table: Embeddings, batch: Batch) -> Float[Array, "B T E"]:
    """Word + position + segment embeddings, the latter two where there are tables of them.

    Args:
      config: the encoder's.
      table: its embedding tables.
      batch: tokens, segments and mask, [B T].

    Returns:
      [B T E]; NaN for an id outside its table.
    """
    summed = _rows(table.word, batch.tokens)
    if table.position is not None:
        summed = summed + _rows(table.position, position_ids(config, batch.tokens))
    if table.segment is None:
        return summed
    segments = jnp.zeros_like(batch.tokens) if batch.segments is None else batch.segments
    return summed + _rows(table.segment, segments)


def _rows(table: Array, ids: Array) -> Array:
    """Rows of a table. An index outside it gives NaN, which is noticed, where clamping is not."""
    wide = ids if ids.dtype.itemsize >= 4 else ids.astype(jnp.int32)
    # jnp.take counts negative indices from the end; beyond the end they give NaN like all others.
    return jnp.take(table, jnp.where(wide < 0, table.shape[0], wide), axis=0, mode="fill")


def embed_patches(table: Embeddings, pixels: Float[Array, "B C Y X"]) -> Float[Array, "B T D"]:
    """Class tokens and linearly mapped square patches, row by row, plus their positions.

    Args:
      table: a vision encoder's embedding tables.
      pixels: channels first, [B C Y X].

    Returns:
      [B T D].

    References: Dosovitskiy et al. (2021), arXiv 2010.11929.
    """
    b, c, y, x = pixels.shape
    side = math.isqrt(table.patch.kernel.shape[0] // c)
    cut = pixels.astype(table.patch.kernel.dtype).reshape(b, c, y // side, side, x // side, side)
    flat = cut.transpose(0, 2, 4, 1, 3, 5).reshape(b, (y // side) * (x // side), c * side**2)
    patches = add_bias(matmul(flat, table.patch.kernel), table.patch.bias)
    classes = jnp.broadcast_to(table.classes[None], (b, *table.classes.shape))
    assert table.position is not None  # a vision encoder always has positions
    return jnp.concatenate([classes, patches], axis=1) + table.position[None]


@on_any_mesh(lambda model, batch, *rest, **options: batch.mask, lead=(0, 1))
@functools.partial(jax.jit, static_argnames=("collect", "remat", "successive", "kernel", "place", "unroll"))
def _encode(
    model: Encoder,
    batch: Batch | ImageBatch,
    edits: Edits,
    *,
    collect: Callable,
    remat: Callable | bool,
    successive: bool,
    kernel: Kernel | None,
    place: Callable[[Block], Block] | None,
    unroll: bool,
) -> tuple:
    config = model.config
    bias = relative_bias(model.relative, batch.mask.shape[1])
    # ALBERT's one block, without its layer axis, is used by every step instead of being scanned over.
    shared = jax.tree.map(lambda leaf: leaf[0], model.blocks) if config.shared_layers else None
    layers = jnp.arange(config.layers, dtype=jnp.int32)
    embedded = apply_edit("embedded", edits.embedded, jnp.int32(-1), _embed(model, batch))

    def run(layer: Array, block: Any, hidden: Array, probs: Array | None = None, attend: Any = None) -> BlockTrace:
        block = place(shared or block) if place else shared or block
        return run_block(config, layer, block, hidden, batch.mask, edits, bias, probs, attend)

    attend = None
    if kernel is not None:
        first = jax.tree.map(lambda leaf: leaf[0], model.blocks)
        trace = jax.eval_shape(run, layers[0], first, embedded)
        if not _needs_explicit(kernel, config, edits, collect, trace, successive):
            attend = make_attend(kernel, config, batch.mask)

    def step(probs: Array | None, carry: tuple, inputs: tuple[Array, Any]) -> tuple[tuple, tuple]:
        (hidden, before), (layer, block) = carry, inputs
        trace = run(layer, block, hidden, probs, attend)
        handed = trace if before is None else dataclasses.replace(trace, attn_before=before)
        return (trace.hidden, None if before is None else trace.attn), (collect(handed), trace.attn_probs)

    if remat:
        step = jax.checkpoint(step, policy=remat if callable(remat) else None)
    start = (embedded, _no_attention(config, embedded, batch.mask) if successive else None)
    blocks = (layers, None if config.shared_layers else model.blocks)
    (hidden, _), collected = _through_blocks(step, start, blocks, edits.shared_attn, unroll)
    return normalise(config, model.final_norm, hidden), collected


def _needs_explicit(
    kernel: Kernel, config: EncoderConfig, edits: Edits, collect: Callable, trace: BlockTrace, successive: bool
) -> bool:
    """Whether somebody reads or edits attention, or the kernel cannot compute it.

    Raises:
      ShapeError: so it is, and the kernel is required.
    """
    reason = why_explicit(kernel, config, edits, trace.query.dtype)
    if not reason:
        read = set(PROBABILITIES) if successive else sites_read(collect, trace) & set(PROBABILITIES)
        reason = f"what is collected is made of {', '.join(sorted(read))}" if read else ""
    if reason and kernel.required:
        raise ShapeError(f"attention cannot be fused: {reason}. attention='auto' computes it explicitly then.")
    return bool(reason)


def _no_attention(config: EncoderConfig, hidden: Array, mask: Array) -> Array:
    """Zeros [B N T T], made of the mask so that on a mesh they are cut as it is."""
    shape = (mask.shape[0], config.heads, mask.shape[1], mask.shape[1])
    return jnp.broadcast_to((mask & False)[:, None, None, :], shape).astype(hidden.dtype)


def _through_blocks(step: Callable, carry: tuple, blocks: tuple, shared: tuple[int, int] | None, unroll: bool) -> tuple:
    """All blocks in turn: `step(probs, carry, block) -> carry, (collected, probs)`, probs of the block that shares."""

    def several(carry: tuple, blocks: tuple, probs: Array | None = None) -> tuple:
        def one(carry: tuple, block: tuple) -> tuple:
            carry, (kept, _) = step(probs, carry, block)
            return carry, kept

        return jax.lax.scan(one, carry, blocks, unroll=unroll)

    if shared is None:
        return several(carry, blocks)
    first, last = shared
    before, own, sharing, after = (
        jax.tree.map(lambda leaf, part=part: leaf[part], blocks)
        for part in (slice(first), first, slice(first + 1, last + 1), slice(last + 1, None))
    )
    carry, kept_before = several(carry, before)
    carry, (kept, probs) = step(None, carry, own)
    carry, kept_sharing = several(carry, sharing, probs)
    carry, kept_after = several(carry, after)
    parts = (kept_before, jax.tree.map(lambda leaf: leaf[None], kept), kept_sharing, kept_after)
    return carry, jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
