"""Batches of an encoder's input: sentences through its tokenizer, or images for a vision encoder."""

from collections.abc import Iterable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..bert.config import EncoderConfig
from ..bert.encoder import image_batch
from ..errors import ShapeError, TextError
from .batching import EncodedBatch
from .tokenizer import Tokenizer


def encoded_batches(
    config: EncoderConfig, tokenizer: Tokenizer | None, inputs: Iterable[Any], *, tokens_per_batch: int
) -> Iterator[EncodedBatch]:
    """A stream of sentences, or of images for a vision encoder, in batches of few shapes.

    Args:
      config: the encoder's.
      tokenizer: its tokenizer; a vision encoder has none.
      inputs: strings; or images, each [C Y X], normalised as the model's preprocessor does.
      tokens_per_batch: size of a batch, padding included.

    Raises:
      TextError: no input, or something that is not text.
      ShapeError: an image of another size.
    """
    if config.is_vision:
        return _image_batches(config, inputs, max(1, tokens_per_batch // config.position_rows))
    if not isinstance(tokenizer, Tokenizer):
        raise TextError(
            f"tokenizer must be a Tokenizer; got {type(tokenizer).__name__}. `load` finds none beside weights without "
            "its files."
        )
    return tokenizer.batches(inputs, tokens_per_batch=tokens_per_batch)


def _image_batches(config: EncoderConfig, images: Iterable[Any], rows: int) -> Iterator[EncodedBatch]:
    expected = (config.channels, config.image_size, config.image_size)
    waiting: list[tuple[int, np.ndarray]] = []
    index = -1
    for index, image in enumerate(images):
        pixels = np.asarray(image)
        if pixels.shape != expected or not np.issubdtype(pixels.dtype, np.floating):
            raise ShapeError(
                f"images[{index}] must be floating-point, of shape {expected}; got {pixels.dtype} of shape "
                f"{pixels.shape}. Are the channels last? Is the image resized as the model's preprocessor does?"
            )
        waiting.append((index, pixels))
        if len(waiting) == rows:
            yield _batch(config, waiting, rows)
            waiting = []
    if index < 0:
        raise TextError("there is no image; expected at least one.")
    if waiting:
        yield _batch(config, waiting, rows)


def _batch(config: EncoderConfig, waiting: list[tuple[int, np.ndarray]], rows: int) -> EncodedBatch:
    """One batch; a short one is filled up with its last image, which `indices` leaves out."""
    pixels = np.stack([image for _, image in waiting] + (rows - len(waiting)) * [waiting[-1][1]])
    indices = np.array([index for index, _ in waiting], np.int64)
    return EncodedBatch(image_batch(config, jnp.asarray(pixels)), indices, truncated=0)
