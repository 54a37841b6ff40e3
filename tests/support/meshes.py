"""Public functions on meshes of eight devices against the same on one device, in float64; runs in worker_devices.py."""

import contextlib
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxsmooth
from jaxsmooth import metrics
from jaxsmooth.bert.heads import apply_head, init_head
from jaxsmooth.bert.params import Encoder
from jaxsmooth.training.sharding import LOGICAL
from jaxsmooth.types import Edits, map_named

from .models import random_batch, random_model

TEXT = {"vocab": 30, "width": 16, "layers": 2, "heads": 4, "mlp_width": 32, "max_length": 16, "pad_token": 0}
IMAGE = {"image_size": 12, "patch_size": 4, "width": 16, "layers": 2, "heads": 4, "mlp_width": 32}
LENGTHS = (7, 3, 5, 8, 2, 8, 1, 4)
EDITS = Edits(
    attn=lambda layer, attn: jnp.where(layer == 1, 0.5 * attn + 0.5 / attn.shape[-1], attn),
    hidden=lambda layer, hidden: hidden + hidden.mean(axis=1, keepdims=True),
)
OF_TOKENS = ("token_cosine_similarity", "cosine_matrix", "dirichlet_energy", "mean_average_distance", "singular_values")
OF_TOKENS += (
    "singular_value_profile",
    "effective_rank",
    "stable_rank",
    "frequency_ratio",
    "dong_residual",
    "token_norm",
)
OF_TOKENS += ("subspace_distance", "relative_distance")
OF_ATTENTION = ("mixing_rate", "ergodicity_coefficient", "attention_entropy", "sink_strength", "first_token_attention")


def laid_out(model: Any, mesh: jax.sharding.Mesh, *, tensor: bool) -> Any:
    """A copy on the mesh: whole on every device, or heads and MLP cut over `tensor` as training's table says."""

    def put(name: str, leaf: jax.Array) -> jax.Array:
        parts = name.split(".")
        axes = next((LOGICAL[key] for key in (".".join(parts[-k:]) for k in (3, 2)) if key in LOGICAL), ())
        cut = ["tensor" if tensor and axis in ("heads", "mlp") else None for axis in axes]
        return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*cut)))

    return map_named(put, model)


def rows_cut(tree: Any, mesh: jax.sharding.Mesh) -> Any:
    return jax.tree.map(lambda leaf: jax.device_put(leaf, NamedSharding(mesh, PartitionSpec("data"))), tree)


def small(family: str) -> tuple[Encoder, Any]:
    """A random model and eight sentences or images."""
    vision = family in ("vit", "deit")
    config = jaxsmooth.family_config(family, **(IMAGE if vision else TEXT))
    model = random_model(config, pooler=False)
    if vision:
        pixels = np.random.default_rng(0).standard_normal((8, 3, 12, 12))
        return model, jaxsmooth.image_batch(config, jnp.asarray(pixels))
    return model, random_batch(LENGTHS, config=dataclasses.replace(config, segments=max(1, config.segments)))


def loss(model: Encoder, batch: Any) -> jax.Array:
    return jnp.mean(jnp.sin(jaxsmooth.encode(model, batch, edits=EDITS)[0]))


def results(model: Encoder, batch: Any) -> dict[str, Any]:
    """What the public functions give, by name."""
    head = init_head(model.config, "tokens", jax.random.key(0), labels=3, dtype=jnp.float64)
    hidden, trace = jaxsmooth.encode(model, batch)
    return {
        "embed": jaxsmooth.embed(model, batch),
        "encode": (hidden, trace),
        "encode under jit, edited": jax.jit(lambda m, b: jaxsmooth.encode(m, b, edits=EDITS))(model, batch),
        "gradient": jax.jit(jax.grad(loss))(model, batch),
        "head": apply_head(head, model, hidden, batch.mask),
    }


def measures(hidden: jax.Array, attn: jax.Array, mask: jax.Array) -> dict[str, Any]:
    """Every metric, each compiled once, as a caller's jit would."""

    def every(hidden: jax.Array, attn: jax.Array, mask: jax.Array) -> dict[str, Any]:
        found = {name: getattr(metrics, name)(hidden, mask) for name in OF_TOKENS}
        return found | {name: getattr(metrics, name)(attn, mask) for name in OF_ATTENTION}

    eager = {f"{name}, not compiled": getattr(metrics, name)(attn, mask) for name in OF_ATTENTION[1:]}
    return jax.jit(every)(hidden, attn, mask) | eager


def difference(found: Any, alone: Any) -> float:
    """The largest difference over the largest number; infinite where one has NaN and the other not."""
    worst, size = 0.0, 0.0
    for ours, expected in zip(jax.tree.leaves(found), jax.tree.leaves(alone), strict=True):
        ours, expected = np.asarray(ours, float), np.asarray(expected, float)
        if (np.isnan(ours) != np.isnan(expected)).any():
            return float("inf")
        worst = max(worst, np.nan_to_num(np.abs(ours - expected)).max())
        size = max(size, np.nan_to_num(np.abs(expected)).max())
    return float(worst / size)


def differences(family: str, kinds: list[str]) -> dict[str, float]:
    """Of every result and metric on each kind of mesh ("Explicit set tensor" and so on) from that on one device."""
    model, batch = small(family)
    alone = results(model, batch)
    hidden, attn = alone["encode"][1].hidden[-1], alone["encode"][1].attn[-1]
    alone_measures = measures(hidden, attn, batch.mask)
    found = {}
    for kind in kinds:
        types, context, how = kind.split()
        mesh = jax.make_mesh((4, 2), ("data", "tensor"), axis_types=(getattr(AxisType, types),) * 2)
        there = laid_out(model, mesh, tensor=how == "tensor"), rows_cut(batch, mesh)
        cut = rows_cut((hidden, attn, batch.mask), mesh)
        with jax.set_mesh(mesh) if context == "set" else contextlib.nullcontext():
            ours = results(*there) | measures(*cut)
        where = ours["encode"][0].sharding
        assert where.mesh.axis_types == mesh.axis_types, where
        assert where.spec[0] == "data", where
        for name, value in ours.items():
            found[f"{family}, {kind}: {name}"] = difference(value, (alone | alone_measures)[name])
    return found
