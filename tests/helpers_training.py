"""What the training tests share: tiny tasks with made-up texts, one step's batch, arrays by name."""

from typing import Any

import jax
import numpy as np


def to_arrays(tree: Any) -> dict[str, np.ndarray]:
    """Every array by its dotted name, on the host."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path).strip("."): np.asarray(leaf) for path, leaf in leaves}
