"""What callers have in the place of a `Batch`: arrays of other libraries, and the mappings that transformers makes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import ShapeError
from ..linalg.precision import as_array
from ..types import Batch, ImageBatch
from .config import EncoderConfig

FIELDS = {"input_ids": "tokens", "token_type_ids": "segments", "attention_mask": "mask", "pixel_values": "pixels"}
"""Keys of a `BatchEncoding` or `BatchFeature` of transformers -> our fields."""


def as_batch(config: EncoderConfig, given: Any) -> Any:
    """A batch of arrays, where what came can be read as one; anything else as it came.

    A mapping is read as transformers' models read it: without attention_mask every token is real, without
    token_type_ids all are of segment 0.

    Args:
      config: the encoder's.
      given: a `Batch` or `ImageBatch` of arrays, lists, or tensors on the CPU; a mapping with the keys of `FIELDS`.

    Returns:
      A `Batch` or `ImageBatch`, not yet checked.

    Raises:
      ShapeError: a field that is no array of numbers, a key that is not known, or an attention_mask of other numbers
        than 0 and 1.

    >>> as_batch(EncoderConfig(), {"input_ids": [[5, 6, 0]], "attention_mask": [[1, 1, 0]]}).mask.tolist()
    [[True, True, False]]
    """
    if isinstance(given, Mapping):
        return _from_mapping(config, given)
    if not isinstance(given, Batch | ImageBatch):
        return given
    fields = {field.name: getattr(given, field.name) for field in dataclasses.fields(given)}
    arrays: dict[str, Any] = {
        name: value if value is None else as_array(f"batch.{name}", value) for name, value in fields.items()
    }
    return given if all(arrays[name] is fields[name] for name in fields) else type(given)(**arrays)


def _from_mapping(config: EncoderConfig, given: Mapping[str, Any]) -> Batch | ImageBatch:
    ids = "pixel_values" if config.is_vision else "input_ids"
    given = {key: value for key, value in given.items() if value is not None}
    unknown = sorted(str(key) for key in given if key not in FIELDS)
    if unknown or ids not in given:
        raise ShapeError(
            f"a mapping must have {ids}, and of other keys only {', '.join(sorted(set(FIELDS) - {ids}))}; got "
            f"{', '.join(sorted(map(str, given))) or 'none'}. Are positions or embeddings given by hand? An edit of "
            "`embedded` can put them in."
        )
    arrays = {key: as_array(key, value) for key, value in given.items()}
    if config.is_vision:
        tokens = config.class_tokens + (config.image_size // config.patch_size) ** 2
        return ImageBatch(pixels=arrays[ids], mask=jnp.ones((*np.shape(arrays[ids])[:1], tokens), bool))
    mask = arrays.get("attention_mask")
    mask = np.ones(np.shape(arrays[ids]), bool) if mask is None else _truths(mask)
    # numpy's arrays are as good as jax's, which the annotation names
    return Batch(tokens=arrays[ids], segments=arrays.get("token_type_ids"), mask=mask)  # type: ignore[arg-type]


def _truths(mask: Any) -> Any:
    """An attention_mask of zeros and ones as truth values."""
    if not isinstance(mask, jax.core.Tracer) and not np.isin(np.asarray(mask), (0, 1)).all():
        raise ShapeError(
            f"attention_mask must hold zeros and ones; got {np.asarray(mask).min()} to {np.asarray(mask).max()}. Is it "
            "the additive mask of a model's inside?"
        )
    return mask != 0
