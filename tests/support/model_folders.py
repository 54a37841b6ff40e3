"""Folders as users bring them: a small model's tensors under other names, in other files, beside other things."""

import functools
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from jaxsmooth.checkpoints.config_json import config_to_dict, family_config
from jaxsmooth.checkpoints.save import tensors_of
from support.models import random_model

SIZES = {"vocab": 9, "width": 6, "layers": 2, "heads": 1, "mlp_width": 5, "max_length": 8, "pad_token": 0}
VISION = {"width": 6, "layers": 2, "heads": 1, "mlp_width": 5, "image_size": 4, "patch_size": 2, "max_length": 5}


@functools.cache
def small(family: str = "bert"):
    """A small random model of a family, without a pooler."""
    sizes = VISION | {"max_length": 6} if family == "deit" else VISION if family == "vit" else dict(SIZES)
    if family in ("roberta", "xlm-roberta", "camembert", "mpnet"):
        sizes |= {"pad_token": 1}
    if family in ("albert", "electra"):
        sizes |= {"embedding_width": 4}
    return random_model(family_config(family, **sizes), dtype=jnp.float32, pooler=False)


def tensors(family: str = "bert") -> dict[str, np.ndarray]:
    """Its tensors, under the names of the bare encoder."""
    return dict(tensors_of(small(family)))


def config(family: str = "bert", **changes: object) -> dict:
    """Its config.json; a change to None takes the key away."""
    hf = config_to_dict(small(family).config) | changes
    return {key: value for key, value in hf.items() if value is not None}


def folder(path: Path, weights: dict[str, np.ndarray] | None, hf: dict | None, **files: str | bytes) -> Path:
    """A model's folder of these tensors and this configuration; other files by name, "__" standing for a dot."""
    path.mkdir(parents=True, exist_ok=True)
    if weights is not None:
        save_file({name: np.ascontiguousarray(array) for name, array in weights.items()}, path / "model.safetensors")
    if hf is not None:
        (path / "config.json").write_text(json.dumps(hf))
    for name, content in files.items():
        target = path / name.replace("__", ".")
        target.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def prefixed(weights: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {prefix + name: array for name, array in weights.items()}
