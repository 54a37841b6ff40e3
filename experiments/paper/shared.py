"""A model with one block in all places, as ALBERT has: minilm's first, so that the first layer is what it was."""

import dataclasses
from pathlib import Path

import jax.numpy as jnp

from jaxsmooth import Encoder, load
from jaxsmooth.checkpoints.save import save
from jaxsmooth.types import Linear

from ..sharing import sharing


def as_albert(model: Encoder) -> Encoder:
    """The first block in the place of all, in ALBERT's form.

    Only the first gets, at first, the inputs that it was trained on. ALBERT maps its embeddings to the width of the
    blocks by a matrix; here that is the identity, which may learn.
    """
    one, width = sharing(model, 1), model.config.width
    config = dataclasses.replace(one.config, family="albert", embedding_width=width, other_keys="")
    identity = Linear(kernel=jnp.eye(width, dtype=jnp.float32), bias=jnp.zeros(width, jnp.float32))
    embeddings = dataclasses.replace(one.embeddings, projection=identity)
    return dataclasses.replace(one, embeddings=embeddings, config=config)


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
        save(as_albert(model), path)
    return path
