"""What is kept of a trained model: how smooth its layers are on fixed sentences, and how much each layer counts."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxsmooth.bert.encoder import embed, encode
from jaxsmooth.bert.fusion import fuse
from jaxsmooth.metrics import std_range
from jaxsmooth.studies.hidden_states import measure_states
from jaxsmooth.training.data.pipeline import make_stream
from jaxsmooth.training.data.task_data import TaskData
from jaxsmooth.training.model import TaskModel
from jaxsmooth.training.step import Trainer
from jaxsmooth.types import Batch, BlockTrace

NAMES = ("cosine_similarity", "relative_distance", "effective_rank")


def fixed_sentences(data: TaskData, count: int) -> Batch:
    """The first rows of a split, at most `count`, as one batch; each answer of a choice, with its prompt, is a row."""
    size = max(1, min(count // data.task.choices, len(data)))
    with make_stream(data, batch_size=size, shuffle=False, pool=1) as stream:
        return next(stream).batch


def smoothness(trainer: Trainer, model: TaskModel, batch: Batch) -> dict[str, Any]:
    """Means over sentences, of every layer; and the stds' product at the last layer, of every sentence.

    Args:
      trainer: whose remedy and shared attention act; dropout does not.
      model: the parameters.
      batch: the sentences.

    Returns:
      Each of `NAMES`, [L+1], the embedding first; "std_product", [L], sigma_1 sigma_2 of Shi et al. (2022), theorem 2:
      the least std over tokens at the one LayerNorm times that at the other; "std_product_texts" [B] at the last
      layer; of a fused output "fused", each of `NAMES` as one number, and where layers have weights "importance" [L].
    """
    found = jax.tree.map(np.asarray, _measured(trainer, model, batch))
    products = found.pop("std_product")
    named = {name: _short(found[name].mean(axis=1)) for name in NAMES}
    named |= {"std_product": _short(products.mean(axis=1)), "std_product_texts": _short(products[-1])}
    if "fused" in found:
        named["fused"] = {name: _short(values.mean(axis=1))[0] for name, values in found["fused"].items()}
    if "importance" in found:
        named["importance"] = _short(found["importance"])
    return named


@functools.partial(jax.jit, static_argnums=0)
def _measured(trainer: Trainer, model: TaskModel, batch: Batch) -> dict[str, Any]:
    def collect(trace: BlockTrace) -> tuple[Array, Array]:
        return trace.hidden, std_range(trace.std_attn, batch.mask)[0] * std_range(trace.std_mlp, batch.mask)[0]

    with jax.default_matmul_precision("highest"):
        edits = trainer.edits(model.encoder, batch)
        _, (hidden, products) = encode(model.encoder, batch, edits=edits, collect=collect)
        states = jnp.concatenate([embed(model.encoder, batch)[None], hidden])
        found: dict[str, Any] = {**measure_states(states, batch.mask, NAMES), "std_product": products}
        if model.fusion is None:
            return found
        fused, weights = fuse(model.fusion, hidden)
        found["fused"] = measure_states(fused[None], batch.mask, NAMES)
        if weights is not None:
            found["importance"] = jnp.mean(weights, axis=(1, 2), where=batch.mask[None])
    return found


def _short(values: np.ndarray) -> list[float]:
    """Five digits: more would be noise, and the files long."""
    return [float(f"{value:.5g}") for value in values]
