"""Bounds that were computed before, found again by the weights they are about."""

import dataclasses
import functools
import hashlib
import json
from importlib.resources import files
from typing import Any

import numpy as np

from ...errors import arguments_checked
from ...types import named_leaves
from .hypothesis import LayerForEveryInput

PARTS = ("blocks.attn.value", "blocks.attn.output", "blocks.norm_attn", "blocks.up", "blocks.down", "blocks.norm_mlp")
EMBEDDING = ("embeddings.norm", "embeddings.projection")


def weights_digest(model: Any) -> str:
    """SHA-256 of all that bounds over every input depend on: some weights, as float32, the activation, eps.

    Args:
      model: an encoder.

    Returns:
      64 hexadecimal digits.

    >>> import jaxsmooth
    >>> len(weights_digest(jaxsmooth.load("tiny")[0]))
    64
    """
    config = model.config
    digest = hashlib.sha256(f"{config.activation} {config.eps!r} {config.layers}".encode())
    for name, leaf in sorted(named_leaves(model).items()):
        if name.startswith((*PARTS, *EMBEDDING)):
            array = np.ascontiguousarray(np.asarray(leaf).astype("<f4"))
            digest.update(f" {name} {array.shape} ".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


@arguments_checked
def stored_for_every_input(model: Any) -> tuple[LayerForEveryInput, ...] | None:
    """What `hypothesis_for_every_input` found for these weights, if they are among those it was run on.

    Args:
      model: an encoder; its weights must be those of the asset to the last bit of float32.

    Returns:
      One `LayerForEveryInput` for each layer, or None.

    >>> import jaxsmooth
    >>> stored_for_every_input(jaxsmooth.load("tiny")[0]) is None
    True
    """
    if not model.config.is_plain or not model.config.embedding_norm:
        return None
    layers = _table().get(weights_digest(model))
    return None if layers is None else tuple(LayerForEveryInput(**layer) for layer in layers)


def as_stored(layers: tuple[LayerForEveryInput, ...]) -> list[dict[str, Any]]:
    """For stored.json, which `experiments/every_input.py` writes."""
    return [dataclasses.asdict(layer) for layer in layers]


@functools.cache
def _table() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(files("jaxsmooth.theory.every_input").joinpath("stored.json").read_text("utf-8"))
    return found
