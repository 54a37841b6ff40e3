"""What the tests of checkpoints share: comparing models, and changing a checkpoint on disk."""

import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import load_file, save_file

import jaxsmooth
from jaxsmooth.checkpoints.tensors import INDEX, WEIGHTS

QUERY = "encoder.layer.1.attention.self.query.weight"
Tensors = dict[str, np.ndarray]


def assert_same_bits(ours: jaxsmooth.Encoder, theirs: jaxsmooth.Encoder) -> None:
    assert ours.config == theirs.config
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def rewrite(folder: Path, change: Callable[[Tensors], Tensors | None]) -> None:
    """Replace the weights by `change(weights)`, or by the weights as it changed them."""
    tensors = load_file(folder / WEIGHTS)
    changed = change(tensors)
    save_file(tensors if changed is None else changed, folder / WEIGHTS)


def shard(folder: Path, count: int = 3) -> list[str]:
    """Split the weights into shards with an index, as transformers does; returns the shards' names."""
    tensors = load_file(folder / WEIGHTS)
    shards = [f"model-{k + 1:05}-of-{count:05}.safetensors" for k in range(count)]
    for k, name in enumerate(shards):
        save_file({key: tensors[key] for key in sorted(tensors)[k::count]}, folder / name)
    weight_map = {key: shards[place % count] for place, key in enumerate(sorted(tensors))}
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": weight_map}))
    (folder / WEIGHTS).unlink()
    return shards


def set_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
