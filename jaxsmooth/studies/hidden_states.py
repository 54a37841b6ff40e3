"""Metrics of hidden states: a layer's, or several layers' fused into one."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from .. import metrics
from ..bert.config import EncoderConfig
from ..bert.fusion import ConcatFusion, Fusion, GateFusion, Kind, WeightedFusion, init_fusion
from ..linalg.norms import unit_vectors
from ..results.spread import HIDDEN_METRICS
from ..theory.consensus import real_tokens, token_mean
from .requested.own_metrics import OWN

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


def measure_states(
    states: Float[Array, "K B T D"],
    mask: Bool[Array, "B T"],
    names: Sequence[str] = HIDDEN_METRICS,
    own: Mapping[str, Partial] | None = None,
    directions: str = "",
) -> dict[str, Float[Array, "K B *D"]]:
    """The measures of several hidden states in one loop: singular values are a large program, which stands in it once.

    Args:
      states: [K B T D].
      mask: True on real tokens, [B T].
      names: which measures.
      own: metrics of the user's own besides, whose names get `OWN` before them.
      directions: name under which to hand back the mean of the tokens' directions too, [K B D]; "" not to.
    """
    added = {OWN + name: metric for name, metric in (own or {}).items()}

    def measures(hidden: Array) -> dict[str, Array]:
        found = hidden_measures(hidden, mask)
        # As the cosine similarity computes it, so that the compiler does it once.
        mean = {directions: token_mean(unit_vectors(real_tokens(hidden, mask)), mask)[:, 0]} if directions else {}
        return (
            mean
            | {name: found[name] for name in names}
            | {name: metric(jnp.where(mask[..., None], hidden, 0), mask) for name, metric in added.items()}
        )

    return jax.lax.map(measures, states)


def gate_range(gates: Float[Array, "K B T"] | None, mask: Bool[Array, "B T"]) -> dict[str, Float[Array, "K B"]]:
    """Least, mean and largest gate over the real tokens of every fused layer; nothing of a fusion without gates.

    >>> gate, mask = jnp.array([[[0.5, 0.0, 1.0]]]), jnp.array([[True, True, False]])
    >>> [float(value[0, 0]) for value in gate_range(gate, mask).values()]
    [0.0, 0.25, 0.5]
    """
    if gates is None:
        return {}
    real = jnp.broadcast_to(mask, gates.shape)
    return dict(zip(GATES, metrics.std_range(gates[..., None], real), strict=True))


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
