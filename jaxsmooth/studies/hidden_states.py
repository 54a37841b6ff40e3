"""Metrics of hidden states: a layer's, or several layers' fused into one."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from .. import metrics
from ..bert.config import EncoderConfig
from ..bert.fusion import ConcatFusion, Fusion, GateFusion, Kind, WeightedFusion, fuse, init_fusion

GATES = ("gates_min", "gates", "gates_max")


def hidden_measures(hidden: Float[Array, "*L B T D"], mask: Bool[Array, "*L B T"]) -> dict[str, Float[Array, "*L B"]]:
    """The measures of `HIDDEN_METRICS`, of one hidden state or of several stacked.

    >>> from jaxsmooth.results.spread import HIDDEN_METRICS
    >>> found = hidden_measures(jnp.ones((1, 3, 2)), jnp.ones((1, 3), bool))
    >>> sorted(found) == sorted(HIDDEN_METRICS), float(found["relative_distance"][0])
    (True, 0.0)
    """
    values = metrics.singular_values(hidden, mask)
    return {
        "cosine_similarity": metrics.token_cosine_similarity(hidden, mask),
        "relative_distance": metrics.relative_distance(hidden, mask),
        "subspace_distance": metrics.subspace_distance(hidden, mask),
        "effective_rank": metrics.effective_rank_of(values),
        "stable_rank": metrics.stable_rank_of(values),
        "token_norm": metrics.token_norm(hidden, mask),
    }


def fused_measures(
    fusion: Fusion, hidden: Float[Array, "L B T D"], mask: Bool[Array, "B T"]
) -> dict[str, Float[Array, "..."]]:
    """The measures of a fused hidden state, as of any layer, and of its gates.

    Args:
      fusion: see `bert.fusion`.
      hidden: every block's output, [L B T D].
      mask: True on real tokens, [B T].

    Returns:
      The names of `HIDDEN_METRICS`, [B]; with gates also those of `GATES`: least, mean and largest gate over the real
      tokens of every fused layer, [K B].

    >>> from jaxsmooth.bert.fusion import MaxFusion
    >>> hidden = jnp.array([[[[1.0, 0.0], [0.0, 1.0]]], [[[0.0, 1.0], [1.0, 0.0]]]])
    >>> float(fused_measures(MaxFusion(layers=(0, 1)), hidden, jnp.ones((1, 2), bool))["relative_distance"][0])
    0.0
    """
    fused, gates = fuse(fusion, hidden)
    found = hidden_measures(fused, mask)
    if gates is None:
        return found
    real = jnp.broadcast_to(mask, gates.shape)
    return found | dict(zip(GATES, metrics.std_range(gates[..., None], real), strict=True))


def chosen_fusion(fusion: Kind | Fusion, config: EncoderConfig, dtype: DTypeLike) -> tuple[Fusion, str]:
    """A fusion, and what a report calls it; of a kind alone, the untrained one of all blocks.

    >>> import jax.numpy as jnp
    >>> config = EncoderConfig(vocab=100, width=48, layers=3, heads=4, mlp_width=96)
    >>> chosen_fusion("gate", config, jnp.dtype("float32"))[1]
    'sum of 3 layers with softmax gates, untrained: their mean'
    """
    if isinstance(fusion, str):
        made = init_fusion(fusion, config, jax.random.key(0), dtype=dtype)
        return made, _label(made) + _UNTRAINED[fusion]
    return fusion, _label(fusion)


_UNTRAINED: dict[Kind, str] = {
    **dict.fromkeys(("weights", "gate"), ", untrained: their mean"),
    "concat": ", untrained: near their mean",
    "max": "",
}


def _label(fusion: Fusion) -> str:
    count = len(fusion.layers)
    layers = f"{count} layers" if count > 1 else "one layer"
    if isinstance(fusion, GateFusion):
        return f"sum of {layers} with {fusion.normalisation} gates"
    if isinstance(fusion, WeightedFusion):
        return f"weighted sum of {layers}"
    return f"concatenation of {layers}, mapped" if isinstance(fusion, ConcatFusion) else f"maximum of {layers}"
