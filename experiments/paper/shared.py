"""A model with one block in all places, as ALBERT has: minilm's first, so that the first layer is what it was."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp

from jaxsmooth import Encoder, load
from jaxsmooth.checkpoints.save import save
from jaxsmooth.types import Linear

BLOCK = 0
"""Which block stands in all places. Only the first gets, at first, the inputs that it was trained on."""


def sharing(model: Encoder, block: int = BLOCK) -> Encoder:
    """One of the model's blocks in the place of all, in ALBERT's form.

    ALBERT maps its embeddings to the width of the blocks by a matrix; here that is the identity, which may learn.
    """
    one = jax.tree.map(lambda leaf: leaf[block : block + 1], model.blocks)
    width = model.config.width
    config = dataclasses.replace(
        model.config, family="albert", shared_layers=True, embedding_width=width, other_keys=""
    )
    identity = Linear(kernel=jnp.eye(width, dtype=jnp.float32), bias=jnp.zeros(width, jnp.float32))
    embeddings = dataclasses.replace(model.embeddings, projection=identity)
    return dataclasses.replace(model, blocks=one, embeddings=embeddings, config=config)


def shared_model(name: str, folder: Path) -> Path:
    """The folder of the model that shares a block of another, made where it is not there yet.

    Args:
      name: of the model whose blocks it is.
      folder: where such models are kept.
    """
    path = folder / f"{name}-shared"
    if not (path / "config.json").exists():
        model, tokenizer = load(name)
        assert tokenizer is not None
        tokenizer.save(path)
        save(sharing(model), path)
    return path
