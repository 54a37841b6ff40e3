"""One block of a model in the place of all, as ALBERT has one for all: for experiments on shared weights."""

import dataclasses

import jax

from jaxsmooth import Encoder


def sharing(model: Encoder, block: int, layers: int | None = None) -> Encoder:
    """The model with one of its blocks in the place of every one.

    Args:
      model: the encoder.
      block: which, counting from 1.
      layers: how many times it is applied; None for as many as the model has.
    """
    one = jax.tree.map(lambda leaf: leaf[block - 1 : block], model.blocks)
    config = dataclasses.replace(model.config, shared_layers=True, layers=layers or model.config.layers)
    return dataclasses.replace(model, blocks=one, config=config)
