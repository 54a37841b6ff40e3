"""Metrics of hidden states: a layer's, or several layers' fused into one."""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from .. import metrics
from ..bert.config import EncoderConfig
from ..bert.fusion import ConcatFusion, Fusion, GateFusion, Kind, WeightedFusion, init_fusion
from ..errors import OptionError, takes
from ..linalg.norms import unit_vectors
from ..results.spread import BLOCK_METRICS, HEAD_METRICS, HIDDEN_METRICS
from ..results.summaries import RATES
from ..theory.consensus import real_tokens, token_mean

Metric = Callable[[Array, Array], Array]
"""(hidden states [B T D], mask [B T]) -> one number per sentence, [B]."""

OWN = "own/"
"""Before the names of the user's metrics among the measurements."""

RESERVED = (*HIDDEN_METRICS, *HEAD_METRICS, *BLOCK_METRICS, *RATES, "std_attn", "std_mlp")
"""Names of the library's own numbers."""

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


def own_metrics(given: Mapping[str, Metric], width: int) -> dict[str, Partial]:
    """The user's metrics, tried on made-up hidden states before any work.

    Args:
      given: name -> function, see `diagnose`.
      width: D of the model's hidden states.

    Returns:
      The same, as pytrees.

    Raises:
      OptionError: a name that is taken, or a metric that fails, gives another shape, or depends on padding.

    >>> own_metrics({"mine": lambda hidden, mask: hidden.mean((1, 2))}, 8)
    Traceback (most recent call last):
    jaxsmooth.errors.OptionError: metric 'mine' depends on padding: it must read tokens where the mask is True alone, \
as in jnp.where(mask[..., None], hidden, 0).
    """
    if not isinstance(given, Mapping):
        raise OptionError(f"metrics must be name -> function, as {{'mine': function}}; got {type(given).__name__}.")
    mask = jnp.array([[True, True, False, True, False], [True] * 4 + [False]])
    hidden = jax.random.normal(jax.random.key(0), (*mask.shape, width), jnp.float32)
    for name, metric in given.items():
        if not isinstance(name, str) or not name.isidentifier() or name in RESERVED:
            raise OptionError(f"a metric needs a name of letters and digits that no other has; got {name!r}.")
        if not takes(metric, 2):
            raise OptionError(f"metric {name!r} must be a function (hidden, mask) -> one number per sentence.")
        padded = [jnp.where(mask[..., None], hidden, filler) for filler in (0.0, 7.0)]
        try:
            one, other = (jax.jit(metric)(states, mask) for states in padded)
        except Exception as error:  # whatever the user's function raises
            raise OptionError(
                f"metric {name!r} fails on hidden states of shape {hidden.shape} and a mask of shape {mask.shape}: "
                f"{type(error).__name__}: {error}"
            ) from error
        if jnp.shape(one) != mask.shape[:1]:
            raise OptionError(
                f"metric {name!r} must give one number per sentence, shape {mask.shape[:1]}; got {jnp.shape(one)}."
            )
        if not jnp.allclose(one, other, rtol=1e-3, atol=1e-6, equal_nan=True):
            raise OptionError(
                f"metric {name!r} depends on padding: it must read tokens where the mask is True alone, as in "
                "jnp.where(mask[..., None], hidden, 0)."
            )
    return {name: Partial(metric) for name, metric in given.items()}


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
