"""Small random encoders and batches for tests that need no trained weights."""

import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

import jaxsmooth
from jaxsmooth.bert.config import EncoderConfig
from jaxsmooth.bert.params import Encoder, blank_encoder
from jaxsmooth.types import Batch, map_named

CONFIG = EncoderConfig(vocab=30, width=12, layers=3, heads=3, mlp_width=20, max_length=12)


def random_model(config: EncoderConfig = CONFIG, *, dtype=jnp.float64, seed: int = 0, pooler: bool = True) -> Encoder:
    """Every array far from its initial value: no bias is zero and no gain is one, so none can be forgotten."""
    random = np.random.default_rng(seed)

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        centre = 1.0 if str(path[-1]).endswith("scale") else 0.0
        # device_put: jnp.asarray of numbers on the host is a program for every shape
        return jax.device_put(np.asarray(centre + 0.4 * random.standard_normal(leaf.shape), dtype))

    return jax.tree_util.tree_map_with_path(draw, blank_encoder(config, pooler))


MLP = ("blocks.up.kernel", "blocks.down.kernel")


def with_factor(model: Encoder, names: tuple[str, ...] | str, layer: int, factor: float) -> Encoder:
    """The encoder with some parameters of one layer, counted from 0, multiplied."""
    names = (names,) if isinstance(names, str) else names
    return map_named(lambda own, leaf: leaf.at[layer].multiply(factor) if own in names else leaf, model)


def random_batch(lengths: tuple[int, ...] = (7, 3), length: int = 8, *, config=CONFIG, seed: int = 0) -> Batch:
    """Random tokens and segments everywhere, under the padding too; real tokens first."""
    random = np.random.default_rng(seed)
    shape = (len(lengths), length)
    tokens = random.integers(0, config.vocab, shape).astype(np.int32)
    segments = random.integers(0, config.segments, shape).astype(np.int32)
    mask = np.arange(length)[None] < np.asarray(lengths)[:, None]
    return Batch(*map(jax.device_put, (tokens, segments, mask)))


def hugging_face(model: Encoder) -> tuple[dict[str, np.ndarray], dict]:
    """The model as (tensors by Hugging Face's names, config.json), for tests/reference.py."""
    with tempfile.TemporaryDirectory() as folder:
        jaxsmooth.save(model, folder)
        return load_file(Path(folder) / "model.safetensors"), jaxsmooth.config_to_dict(model.config)
