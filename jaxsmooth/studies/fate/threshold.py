"""How large an imposed std must be for the founding theorem to promise a contraction of one step."""

from collections.abc import Iterable

import jax
import numpy as np
from numpy.typing import NDArray

from ...bert.params import Encoder
from ...theory import block_norms


def std_thresholds(model: Encoder, mixing: NDArray | None, layers: Iterable[int]) -> tuple[float, float]:
    """The least std, imposed on both norms, with which v < 1, in the paper's form and in the per-layer form.

    v = (1 + s^2)(1 + sqrt(lambda) N s) / std^2, after Shi et al. (2022), Theorem 2, with the largest norm s of a weight
    W_h, W_1, W_2 and the largest sqrt(lambda) of a head; and L1, (1 + L ||W_1|| ||W_2||)(1 + sum_h sqrt(lambda_h)
    ||W_h||) G_1 G_2 / std^2, for every block of the map (`theory.contraction_threshold`).

    Args:
      model: the encoder.
      mixing: sqrt(lambda) of every layer and head, the largest of all sentences, [L N]; None where the blocks are not
        the theorem's.
      layers: the blocks of the map, from 0.

    Returns:
      `(paper, own)`, square roots of what std^2 must exceed; NaN where the blocks are not the theorem's.
    """
    if mixing is None or not model.config.is_plain:
        return float("nan"), float("nan")
    which = list(layers)
    stored = [0 if model.config.shared_layers else layer for layer in which]
    norms = jax.vmap(lambda block: block_norms(block, model.config.activation))(model.blocks)
    each = {key: np.asarray(getattr(norms, key), np.float64)[stored] for key in norms._fields}
    largest = max(each["heads"].max(), each["up"].max(), each["down"].max())
    rates, heads = mixing[which].astype(np.float64), model.config.heads
    paper = (1 + largest**2) * (1 + rates.max() * heads * largest)
    gains = each["gain_attn"] * each["gain_mlp"]
    own = each["mlp_lipschitz"] * (1 + (rates * each["heads"]).sum(axis=1)) * gains
    return float(np.sqrt(paper)), float(np.sqrt(own.max()))
