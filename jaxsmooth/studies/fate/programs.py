"""What runs on the device: a map followed, its end examined, its basin searched, its norms' std swept."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ... import metrics
from ...bert.encoder import encode
from ...bert.params import Encoder
from ...linalg.norms import norm, quotient
from ...linalg.singular import row_singular_values
from ...theory import mixing_rate
from ...theory.consensus import centre_tokens, real_tokens, token_mean
from ...theory.fate.clusters import token_clusters
from ...theory.fate.orbit import Fate, Orbit, TokenMap, consensus_basin, follow
from ...theory.fate.stability import Approach, Krylov, approach_consensus, jacobian_krylov
from ...types import Batch, BlockTrace, ImageBatch
from ..finite import finite_rows
from .maps import token_map

APPROACH_STEPS = 100
"""How long a sentence is followed next to consensus: its common token comes to rest meanwhile, in most cases."""


@jax.jit
def starts(model: Encoder, batch: Batch | ImageBatch) -> dict[str, Array]:
    """What enters each block in the model's own run, [L B T D], and the mixing rates of its heads, [L B N]."""

    def collect(trace: BlockTrace) -> dict[str, Array]:
        mixing = mixing_rate(trace.attn, batch.mask) if model.config.is_plain else jnp.zeros(())
        return {"input": trace.input, "mixing": mixing, "finite": finite_rows(trace, batch.mask)}

    return encode(model, batch, collect=collect)[1]


@jax.jit(static_argnames=("kind", "steps", "tolerance"))
def fates(
    model: Encoder,
    start: Array,
    mask: Array,
    layer: Array,
    std: Array | None,
    *,
    kind: str,
    steps: int,
    tolerance: float,
) -> dict[str, Array]:
    """The fate of each sentence and numbers of `results.fate.MapFates`; and the states at which to look at Jacobians.

    Those are `final`, with the last `move`, and `equal`, the consensus near by, with the `deviation` left of it.
    """
    apply = token_map(model, kind, layer, mask, std)
    orbit, near = _followed(apply, start, mask, steps, tolerance, APPROACH_STEPS)
    found = _ranks(orbit, mask, tolerance) | {
        "fate": orbit.fate,
        "steps": orbit.steps,
        "period": orbit.period,
        "distances": orbit.distances,
        "change": orbit.change,
        "growth": orbit.growth,
        "rest_rate": orbit.late_change,
        "clusters": token_clusters(orbit.final, mask),
        "consensus_rate": near.rate,
        "row_change": near.row_change,
    }
    equal = jnp.where(mask[..., None], near.row[:, None], 0)
    return found | {"final": orbit.final, "move": orbit.move, "equal": equal, "deviation": near.deviation}


@jax.jit(static_argnames=("kind",))
def jacobians(
    model: Encoder,
    state: Array,
    mask: Array,
    layer: Array,
    std: Array | None,
    period: Array,
    centred: Array,
    start: Array,
    *,
    kind: str,
) -> Krylov:
    """`jacobian_krylov` of a map."""
    apply = token_map(model, kind, layer, mask, std)
    return jacobian_krylov(apply, state, mask, period=period, centred=centred, start=start)


def _followed(
    apply: TokenMap, start: Array, mask: Array, steps: int, tolerance: float, approach: int
) -> tuple[Orbit, Approach]:
    """From the start, and then next to the consensus of the last state."""
    orbit = follow(apply, start, mask, steps=steps, tolerance=tolerance)
    # With the deviation of the first state, as what is left of it in the end may be rounding, made as long as the mean,
    # beside which it may be nothing.
    mean, deviation = token_mean(orbit.final, mask), centre_tokens(start, mask)
    size = norm(real_tokens(jnp.broadcast_to(mean, start.shape), mask), (-2, -1), keepdims=True)
    scaled = deviation * quotient(size, norm(deviation, (-2, -1), keepdims=True), 0)
    near = mean + jnp.where(size == 0, deviation, scaled)
    return orbit, approach_consensus(apply, near, mask, steps=approach, size=tolerance**0.5)


def _ranks(orbit: Orbit, mask: Array, tolerance: float) -> dict[str, Array]:
    """Of the tokens less their mean; at consensus what is left of them is rounding."""
    values = row_singular_values(centre_tokens(orbit.final, mask))
    apart = orbit.fate != Fate.CONSENSUS
    count = jnp.sum(values > tolerance**0.5 * values[:, :1], axis=-1)
    return {
        "rank": jnp.where(apart, count, 0),
        "effective_rank": jnp.where(apart, metrics.effective_rank_of(values), jnp.nan),
    }


@jax.jit(static_argnames=("kind", "steps", "tolerance", "halvings"))
def basins(
    model: Encoder,
    start: Array,
    mask: Array,
    layer: Array,
    std: Array | None,
    *,
    kind: str,
    steps: int,
    tolerance: float,
    halvings: int,
) -> tuple[Array, Array]:
    """`consensus_basin` of a map."""
    apply = token_map(model, kind, layer, mask, std)
    return consensus_basin(apply, start, mask, steps=steps, tolerance=tolerance, halvings=halvings)


@jax.jit(static_argnames=("kind", "steps", "tolerance"))
def swept(
    model: Encoder, start: Array, mask: Array, layer: Array, stds: Array, *, kind: str, steps: int, tolerance: float
) -> tuple[Array, Array]:
    """Fate, and rate next to consensus, with each std imposed, [M B]."""

    def one(std: Array) -> tuple[Array, Array]:
        apply = token_map(model, kind, layer, mask, std)
        orbit, near = _followed(apply, start, mask, steps, tolerance, APPROACH_STEPS // 2)
        return orbit.fate, near.rate

    return jax.vmap(one)(stds)
