"""What `encode` and `embed` refuse, and why."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import ShapeError
from ..types import Batch, Edits, ImageBatch
from .config import EncoderConfig
from .params import Encoder


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
