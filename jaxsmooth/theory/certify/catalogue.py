"""The literature's statements that `verify --theorem NAME` reaches beyond the registry: measured, not certified.

They are functions of plain arrays. Their sides are computed in float64 and no rounding is enclosed; a verdict is given
where the sides differ by more than `MARGIN`, else UNDECIDED, as every equality is. Rows of attention are divided by
their sums in float64, as most hypotheses ask for rows that sum to 1. What a function needs is named by
its arguments; one that needs what a model on text does not provide is refused with a list of it.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from ...activations import LIPSCHITZ
from ...linalg.intervals import Interval, Namespace
from ...linalg.norms import unit_vectors
from ...linalg.precision import matmul
from ...linalg.rows import centre_features, masked_softmax
from ...types import Attention, Block
from ..block import apriori, invariant_subspaces, layernorm, lemmas
from ..consensus import real_tokens, subspace_distance
from ..literature import (
    axioms,
    cosine,
    fusion,
    initialisation,
    lipschitz,
    masked_attention,
    rank_collapse,
    remedies,
    separation,
    small_weights,
    token_particles,
)
from ..literature.collapse import causal_clustering, ranks, recall, switch, synchronisation
from ..markov import closed_classes, limits, sinks, stochastic
from ..statement import Statement
from ..theorems.calculus import ArrayLike
from ..theorems.exact_block import Architecture, Observation
from ..theorems.parameters import bias_of

MARGIN = 1e-9  # of the larger side: Lanczos in float64 stops at 1e-10
PROVIDED = {
    "head": ("hidden", "attn", "chain", "graph", "mask", "halves"),
    "scores": ("hidden", "attn", "logits", "mask"),
    "block": (
        *("hidden", "mixed", "pre_attn", "normed", "pre_activation", "activated", "mlp", "pre_mlp", "mask"),
        *("up", "scale_attn", "slope", "eps", "output", "recalled", "rate", "units", "flowed", "stepped"),
    ),
}
"""What is given to a function on one head, on one head with scores by content alone, and on one post-LN block.

`halves` are labels: 0 in the first half of a sentence, 1 in the second; to what works on the host alone. `recalled` is
the block's output with its input added, `rate` how it changed d_M; `units` are the directions of its tokens, `flowed`
where these are after the time `TIME` of attention alone of the sharpness `SHARPNESS`, `stepped` after one step of it
without residual.
"""
SHARPNESS, TIME, STEPS = 1.0, 1.0, 200  # of the flow, whose steps leave a relative error of 2e-10


@dataclasses.dataclass(frozen=True)
class Measured:
    """One statement of the catalogue.

    Attributes:
      text: the function; its docstring names the source.
      about: a key of `PROVIDED`, or None where a model on text does not provide what it needs.
      arguments: which quantity an argument takes; those left out take the one of their own name.
      constants: arguments that are no data.
      host: whether it works on numpy arrays of real tokens alone.
    """

    text: Callable[..., Statement]
    about: str | None = None
    arguments: Mapping[str, str] = dataclasses.field(default_factory=dict)
    constants: Mapping[str, object] = dataclasses.field(default_factory=dict)
    host: bool = False

    @property
    def needs(self) -> tuple[str, ...]:
        """The quantities, in the order of the arguments."""
        names = inspect.signature(self.text).parameters
        return tuple(self.arguments.get(name, name) for name in names if name not in self.constants)

    @property
    def says(self) -> str:
        """The inequality, for the documentation."""
        return (inspect.getdoc(self.text) or "").partition("\n")[0]

    @property
    def source(self) -> str:
        """Who proved it, and where."""
        _, _, references = (inspect.getdoc(self.text) or "").partition("References: ")
        return " ".join(references.split()).removesuffix(".") or "docs/theory.md"

    def statement(self, given: Mapping[str, ArrayLike]) -> Statement[Array]:
        """Evaluated on the quantities of its kind."""
        names = inspect.signature(self.text).parameters
        taken = {name: given[self.arguments.get(name, name)] for name in names if name not in self.constants}
        fixed = {name: jnp.asarray(x) if isinstance(x, float) else x for name, x in self.constants.items()}
        return _tightest(self.text(**taken, **fixed))


def _head(text: Callable[..., Statement], **constants: object) -> Measured:
    return Measured(text, "head", constants=constants)


NOT_PROVIDED: tuple[Callable[..., Statement], ...] = (
    *(apriori.weight_oscillation, apriori.apriori_mixing_rate, apriori.shi2022_rate_floor, apriori.tanh_collapse),
    *(cosine.cosine_bridge, fusion.fusion_concat, fusion.fusion_max, fusion.fusion_gate),
    *(lipschitz.castin2024_local_lipschitz, limits.reversible_contraction, rank_collapse.dong2021_one_layer),
    *(invariant_subspaces.invariant_linear, invariant_subspaces.invariant_sum),
    *(invariant_subspaces.invariant_mixing, invariant_subspaces.invariant_activation),
    *(masked_attention.wu2023_gat_collapse, stochastic.wolfowitz1963_products),
    *(small_weights.alman2025_one_layer, recall.labovich2026_fixed_state),
)
"""What these need is no part of a model's run on text, or too large to form for every head."""
WHY = {
    "alman2025_one_layer": "a post-LN stack is not its input plus a sum of layers, and a trained layer's Lipschitz "
    "constant is not known",
    "labovich2026_fixed_state": "a run has no fixed state; experiments/loops.py makes them",
}
"""Why in words, where the names of the arguments do not say it."""

_CHAIN = {"attn": "chain"}
_FLOW = {"before": "units", "after": "flowed"}
CATALOGUE: dict[str, Measured] = {
    entry.text.__name__: entry
    for entry in (
        _head(lemmas.shi2022_mixing),
        _head(lemmas.mixing_with_defect),
        _head(initialisation.ali2023_centring_keeps_distance),
        _head(remedies.guo2023_contranorm, strength=0.1),
        Measured(remedies.nguyen2023_neutreno_distance, "head", {"first_value": "hidden"}, {"strength": 0.6}),
        Measured(stochastic.dobrushin1956_spread, "head", _CHAIN),
        Measured(stochastic.weak_ergodicity_bound, "head", _CHAIN),
        Measured(masked_attention.wu2024_masked_attention, "head", _CHAIN),
        Measured(closed_classes.meyer1994_lower, "head", host=True),
        Measured(closed_classes.meyer1994_upper, "head", host=True),
        Measured(apriori.oscillation_ergodicity, "scores"),
        Measured(sinks.attention_dilution, "scores"),
        *(_head(text) for text in (sinks.sink_ergodicity, sinks.sink_distance, sinks.sink_update)),
        _head(causal_clustering.karagodin2024_first_token),
        _head(causal_clustering.karagodin2024_angle),
        *(_head(text) for text in (switch.ranmilo2026_output, switch.lampert2026_switch)),
        Measured(lemmas.shi2022_linear, "block", {"hidden": "normed", "weight": "up"}),
        Measured(
            lemmas.shi2022_activation,
            "block",
            {"before": "pre_activation", "after": "activated", "lipschitz": "slope"},
        ),
        Measured(lemmas.shi2022_sum, "block", {"other": "mixed"}, {"alpha": 1.0, "beta": 1.0}),
        Measured(
            layernorm.shi2022_layer_norm, "block", {"hidden": "pre_attn", "scale": "scale_attn"}, {"centred": True}
        ),
        Measured(small_weights.update_turn, "block", {"update": "mixed"}),
        Measured(cosine.cosine_distance_bound, "block"),
        Measured(separation.zhang2026_smoothing, "head", {"labels": "halves"}, host=True),
        *(
            Measured(text, "block", _FLOW, {"sharpness": SHARPNESS, "time": TIME})
            for text in (token_particles.geshkovski2023_clustering, synchronisation.chen2025_clustering)
        ),
        Measured(
            token_particles.geshkovski2023_discrete_step,
            "block",
            {"before": "units", "after": "stepped"},
            {"sharpness": SHARPNESS},
        ),
        Measured(recall.labovich2026_recall, "block", {"before": "hidden", "after": "recalled", "injected": "hidden"}),
        Measured(ranks.zhang2025_numerical_rank, "block"),
        Measured(ranks.zhang2025_effective_rank, "block"),
        Measured(ranks.zhang2025_rank_order, "block"),
        Measured(remedies.zhao2020_pair_norm, "block", constants={"scale": 1.0}),
        Measured(
            axioms.rusch2023_subadditivity,
            "block",
            {"left": "hidden", "right": "mixed"},
            {"measure": subspace_distance},
        ),
        *map(Measured, NOT_PROVIDED),
    )
}
"""By name. Those of `low_pass` and of `apriori` that the registry certifies are reached under their names there."""


def refusal(name: str) -> str | None:
    """Why a statement of the catalogue cannot be evaluated on a model's run; None if it can.

    >>> refusal("fusion_gate").partition(". ")[0]
    'fusion_gate needs hidden, gates, mask, which verify does not take from a model on text'
    """
    entry = CATALOGUE[name]
    if entry.about is not None:
        return None
    given = "; ".join(f"of one {about}: {', '.join(names)}" for about, names in PROVIDED.items())
    needs, why = ", ".join(entry.needs), f": {WHY[name]}" if name in WHY else ""
    return f"{name} needs {needs}, which verify does not take from a model on text{why}. It takes {given}."


@functools.partial(jax.jit, static_argnames=("names", "architecture"))
def measure(
    blocks: Block,
    heads: Attention,
    data: Observation,
    mask: Bool[Array, "B T"],
    architecture: Architecture,
    names: tuple[str, ...],
) -> dict[str, Statement[Array]]:
    """The named statements for every layer and sentence: [L B], on heads [L B N]; call within `enable_x64`.

    Args:
      blocks: every layer's parameters, [L ...].
      heads: as of `heads_of`, [L N ...].
      data: what every block computed, [L B ...], zero on padding.
      mask: True on real tokens, [B T].
      architecture: of all blocks.
      names: keys of `CATALOGUE`, none of which works on the host.
    """
    chosen = {name: CATALOGUE[name] for name in names}

    def of_sentence(block: Block, heads: Attention, sentence: tuple) -> dict[str, Statement[Array]]:
        own, mask = sentence
        given = _of_block(block, own, mask, architecture)
        if any({"flowed", "stepped"} & set(entry.needs) for entry in chosen.values()):
            given |= _on_sphere(own.input, mask)
        found = {name: entry.statement(given) for name, entry in chosen.items() if entry.about == "block"}

        def of_head(head: tuple) -> dict[str, Statement[Array]]:
            weights, attn = head
            given = _of_head(weights, attn, own.input, mask)
            return {name: entry.statement(given) for name, entry in chosen.items() if entry.about != "block"}

        return found | jax.lax.map(of_head, (heads, own.attn))

    def of_layer(layer: tuple) -> dict[str, Statement[Array]]:
        block, heads, own = layer
        return jax.lax.map(functools.partial(of_sentence, block, heads), (own, mask))

    return jax.lax.map(of_layer, (blocks, heads, data))


def _of_block(block: Block, own: Observation, mask: Array, architecture: Architecture) -> dict[str, ArrayLike]:
    extra = {"up": block.up.kernel, "scale_attn": block.norm_attn.scale, "eps": architecture.eps}
    centred = centre_features(jnp.asarray(own.pre_mlp))
    std = jnp.sqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + architecture.eps)
    output = real_tokens(centred / std * block.norm_mlp.scale[None] + bias_of(block.norm_mlp)[None], mask)
    rate = subspace_distance(output, mask) / subspace_distance(jnp.asarray(own.input), mask)
    extra |= {"output": output, "recalled": output + own.input, "rate": rate}
    slope = LIPSCHITZ[architecture.activation]
    return {**own._asdict(), **extra, "hidden": own.input, "slope": slope, "mask": mask}


def _on_sphere(hidden: Array, mask: Array) -> dict[str, ArrayLike]:
    """The tokens' directions, and what attention by them alone makes of these."""
    units = unit_vectors(real_tokens(hidden, mask))
    flowed = token_particles.geshkovski2023_flow(units, mask, SHARPNESS, TIME, STEPS)
    weights = masked_softmax(SHARPNESS * matmul(units, units.mT), mask[None])
    stepped = real_tokens(unit_vectors(matmul(weights, units)), mask)
    return {"units": units, "flowed": flowed, "stepped": stepped}


def _of_head(weights: Attention, attn: Array, hidden: Array, mask: Array) -> dict[str, ArrayLike]:
    attn = _row_stochastic(attn, jnp)
    query, key = (matmul(hidden, side.kernel) + bias_of(side) for side in (weights.query, weights.key))
    logits = matmul(query, key.mT) / weights.query.kernel.shape[-1] ** 0.5
    graph = attn > 0
    return {"hidden": hidden, "attn": attn, "chain": attn[None], "graph": graph, "logits": logits, "mask": mask}


def on_host(name: str, attn: ArrayLike, hidden: ArrayLike) -> Statement[Array]:
    """A statement that works on the host, on one head's attention and the tokens that enter it, without padding."""
    places = np.arange(1, len(attn) + 1)
    given = {"attn": _row_stochastic(attn, np), "hidden": hidden, "mask": places > 0}
    return CATALOGUE[name].statement({**given, "halves": (2 * places > len(attn)).astype(int)})


def _row_stochastic(attn: ArrayLike, xp: Namespace) -> ArrayLike:
    """Rows over their sums: a float32 softmax is too far from 1 for a hypothesis that is tested in float64."""
    sums = attn.sum(axis=-1, keepdims=True)
    return attn / xp.where(sums > 0, sums, 1)


def _tightest(statement: Statement[Array]) -> Statement[Array]:
    """Of a statement on several features, the one whose sides are nearest to a violation."""
    lhs, rhs, applicable = (jnp.ravel(jnp.asarray(part)) for part in statement)
    place = jnp.argmax(jnp.where(applicable, lhs - rhs, -jnp.inf))
    return Statement(lhs[place], rhs[place], applicable[place])


def with_margin(statement: Statement[Array]) -> Statement[Interval]:
    """The sides with `MARGIN` around them, for `decide`: what is closer is left open."""
    lhs, rhs = (np.asarray(side, np.float64) for side in statement[:2])
    pad = MARGIN * np.maximum(np.abs(lhs), np.abs(rhs))
    return Statement(Interval(lhs - pad, lhs + pad), Interval(rhs - pad, rhs + pad), np.asarray(statement.applicable))
