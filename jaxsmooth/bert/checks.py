"""Checks of what `encode` and `embed` are given; each raises before anything is computed."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import ShapeError, takes
from ..types import Batch, Edits, HeadNumbers, ImageBatch, LayerNumbers
from .as_batch import as_batch
from .config import EncoderConfig
from .params import Encoder


def check_arguments(model: Any, batch: Any, edits: Any, collect: Any) -> Batch | ImageBatch:
    """Refuse what is not an encoder, a batch that fits it, edits or a function.

    Args:
      model, batch, edits, collect: as given to `encode`, of any type.

    Returns:
      The batch, of arrays.

    Raises:
      ShapeError: an argument of another type, or as `check_batch`.
    """
    if not isinstance(model, Encoder):
        raise ShapeError(f"model must be an Encoder; got {type(model).__name__}.")
    batch = as_batch(model.config, batch)
    if not isinstance(batch, Batch | ImageBatch):
        raise ShapeError(
            f"batch must be a Batch or ImageBatch; got {type(batch).__name__}. "
            "Text becomes a batch by calling the tokenizer; ids alone do with Batch(tokens=ids, mask=ids != pad)."
        )
    if not takes(collect, 1):
        raise ShapeError(f"collect must be a function of one BlockTrace; got {type(collect).__name__}.")
    check_batch(model.config, batch)
    check_edits(model.config, edits)
    return batch


def check_edits(config: EncoderConfig, edits: Any) -> None:
    """Refuse what is no `Edits`, and edits at layers or heads that the encoder does not have.

    Layers and heads are seen where `interventions` named them, and where they are not traced.

    Args:
      config: the encoder's.
      edits: as given to `encode`, of any type.

    Raises:
      ShapeError: says what was expected, and what came.

    >>> from jaxsmooth.interventions import scale
    >>> check_edits(EncoderConfig(layers=4), scale("mlp", 0.0, layers=9))
    Traceback (most recent call last):
        ...
    jaxsmooth.errors.ShapeError: an edit acts at layer 9, and the model has layers 0..3. Layers count from 0.
    """
    if not isinstance(edits, Edits):
        raise ShapeError(
            f"edits must be an Edits; got {type(edits).__name__}. A remedy becomes Edits by remedy(model, batch)."
        )
    check_shared(config, edits)
    for named in jax.tree.leaves(edits, is_leaf=lambda node: isinstance(node, LayerNumbers)):
        if not isinstance(named, LayerNumbers) or isinstance(named.numbers, jax.core.Tracer):
            continue
        what, count = ("head", config.heads) if isinstance(named, HeadNumbers) else ("layer", config.layers)
        last = int(np.max(np.asarray(named.numbers), initial=-1))
        if last >= count:
            raise ShapeError(
                f"an edit acts at {what} {last}, and the model has {what}s 0..{count - 1}. "
                f"{what.capitalize()}s count from 0."
            )


def check_shared(config: EncoderConfig, edits: Edits) -> None:
    """Refuse attention that is shared by blocks which are not there.

    Args:
      config: the encoder's.
      edits: see `Edits`.

    Raises:
      ShapeError: not two numbers of blocks, in ascending order.

    >>> check_shared(EncoderConfig(layers=3), Edits(shared_attn=(1, 3)))
    Traceback (most recent call last):
        ...
    jaxsmooth.errors.ShapeError: shared_attn must be (first, last) with 0 <= first < last <= 2; got (1, 3).
    """
    shared = edits.shared_attn
    if shared is None:
        return
    whole = isinstance(shared, tuple) and len(shared) == 2 and all(type(block) is int for block in shared)
    if not whole or not 0 <= shared[0] < shared[1] < config.layers:
        raise ShapeError(
            f"shared_attn must be (first, last) with 0 <= first < last <= {config.layers - 1}; got {shared}."
        )


def check_batch(config: EncoderConfig, batch: Batch | ImageBatch) -> None:
    """Refuse a batch whose arrays do not fit together or the model.

    Args:
      config: the encoder's.
      batch: tokens, segments and mask, [B T], or images.

    Raises:
      ShapeError: says which array, what was expected, and what came.

    >>> batch = Batch(tokens=jnp.zeros(3, int), segments=jnp.zeros(3, int), mask=jnp.ones(3, bool))
    >>> check_batch(EncoderConfig(), batch)
    Traceback (most recent call last):
        ...
    jaxsmooth.errors.ShapeError: batch.tokens must have axes (B, T); got shape (3,). Did you drop the batch axis?
    """
    if isinstance(batch, ImageBatch) != config.is_vision:
        wanted = "an ImageBatch of pixels" if config.is_vision else "a Batch of tokens"
        raise ShapeError(f"a {config.family} encoder reads {wanted}; got {type(batch).__name__}.")
    if isinstance(batch, ImageBatch):
        check_images(config, batch)
    else:
        check_shapes(config, batch)
        check_ids("tokens", batch.tokens, config.vocab)
        if batch.segments is not None:
            check_ids("segments", batch.segments, config.segments)


def check_images(config: EncoderConfig, batch: ImageBatch) -> None:
    """Refuse images of another size or number of channels.

    Args:
      config: a vision encoder's.
      batch: pixels [B C Y X] and mask [B T].

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


def check_shapes(config: EncoderConfig, batch: Batch) -> None:
    """Refuse tokens, segments and a mask of different shapes, a mask of numbers, or too long sentences.

    Args:
      config: the encoder's.
      batch: tokens, segments and mask, [B T].

    Raises:
      ShapeError: says which array, what was expected, and what came.
    """
    shape = jnp.shape(batch.tokens)
    if len(shape) != 2:
        raise ShapeError(f"batch.tokens must have axes (B, T); got shape {shape}. Did you drop the batch axis?")
    if batch.mask is None:
        raise ShapeError(
            f"batch.mask must have the shape of batch.tokens, {shape}; got None. Where nothing is padded it is "
            "jnp.ones(tokens.shape, bool)."
        )
    for name, array in (("segments", batch.segments), ("mask", batch.mask)):
        if array is not None and jnp.shape(array) != shape:
            raise ShapeError(f"batch.{name} must have the shape of batch.tokens, {shape}; got {jnp.shape(array)}.")
    if jnp.result_type(batch.mask) != jnp.bool_:
        raise ShapeError(
            f"batch.mask must be boolean, True on real tokens; got {jnp.result_type(batch.mask)}. Of an "
            "attention_mask of zeros and ones it is `attention_mask == 1`."
        )
    if shape[1] > config.max_length:
        raise ShapeError(
            f"the model has {config.max_length} positions; got sentences of {shape[1]} tokens. Did the tokenizer cut "
            "none, or to another model's length?"
        )


def check_ids(name: str, ids: Any, rows: int) -> None:
    """Refuse ids that are not integers, or for which a table has no row.

    Args:
      name: the field of `Batch`.
      ids: [B T].
      rows: of the table; 0 for no table, which any ids fit.

    Raises:
      ShapeError: says what was expected, and what came.
    """
    if not jnp.issubdtype(jnp.result_type(ids), jnp.integer):
        raise ShapeError(
            f"batch.{name} must hold integers; got {jnp.result_type(ids)}. Are they embeddings, or was a table "
            "read with gaps?"
        )
    # Under an outer trace the values are unknown; there, an id outside its table gives NaN.
    if not rows or isinstance(ids, jax.core.Tracer) or not np.size(ids):
        return
    if isinstance(ids, jax.Array) and not ids.is_fully_addressable:  # other processes hold the rest, and check that
        return
    values = np.asarray(ids)
    least, largest = int(values.min()), int(values.max())
    if not 0 <= least <= largest < rows:
        raise ShapeError(
            f"batch.{name} must lie in 0..{rows - 1}; got {least}..{largest}. "
            "Was the text tokenised with another model's vocabulary?"
        )
