"""What `diagnose` measures of one batch, on the device."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import metrics
from ..bert.checks import check_arguments
from ..bert.config import EncoderConfig
from ..bert.encoder import embed, encode, keep_nothing
from ..bert.fusion import Fusion, fuse
from ..bert.params import Encoder
from ..errors import arguments_checked
from ..interventions.attribution import residual_states
from ..linalg.norms import norm, unit_vectors
from ..linalg.rows import widened
from ..results.summaries import RATES
from ..theory.block import ladder
from ..theory.block.parameter_norms import block_norms
from ..theory.block.traced_block import TracedBlock
from ..theory.consensus import subspace_distance, token_mean
from ..theory.literature.power_method import li2026_projection
from ..theory.mixing import equal_row_sums
from ..theory.rates.spectrum_rung import OutputSpectrum, output_spectrum, spectrum_rung
from ..theory.theorems import RUNGS
from ..theory.theorems.parameters import BlockNorms, bias_of
from ..types import SITES, Batch, Block, BlockTrace, Edits, ImageBatch
from .data_parallel import by_rows
from .finite import finite_rows
from .hidden_states import gate_range, measure_states
from .requested.own_metrics import OWN, OwnMetrics
from .stream import require_encoder
from .summaries import rungs

# The sites at which an edit leaves the hypotheses of a bound true. L4 and L5 take the residual sum before the first
# LayerNorm as given; the others also need that sum to be made of the attention and the values.
L4_SITES = {"embedded", "query", "key", "value", "attn_logits", "attn", "context", "mixed", "pre_attn"}
L1_SITES = {"embedded", "query", "key", "attn_logits", "attn"}

FUSED = "fused/"
EMBEDDING = "embedding"
DIRECTIONS = "directions"
ATTRIBUTION = "attribution"


@jax.jit
def model_norms(model: Encoder) -> BlockNorms:
    """The norms of every block's parameters that the bounds need, stacked over layers."""
    return jax.lax.map(lambda block: block_norms(block, model.config.activation), _every_block(model))


@jax.jit
def model_spectra(model: Encoder) -> OutputSpectrum:
    """What L5 needs of every block's parameters, stacked over layers."""
    return jax.lax.map(output_spectrum, _every_block(model))


def _every_block(model: Encoder) -> Block:
    blocks = widened(model.blocks)
    if not model.config.shared_layers:
        return blocks
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, model.config.layers, axis=0), blocks)


@by_rows
def measure_batch(
    model: Encoder,
    norms: BlockNorms,
    batch: Batch | ImageBatch,
    fusion: Fusion | None = None,
    spectra: OutputSpectrum | None = None,
    frames: Array | None = None,
    own: OwnMetrics = OwnMetrics({}, {}),
) -> dict[str, Array]:
    """Every per-sentence quantity of one batch: [L+1 B] of hidden states, [L B] of blocks, [L B N] of heads.

    Args:
      model: the encoder.
      norms: `model_norms(model)`.
      batch: tokens, segments and mask, [B T], or images.
      fusion: layers to fuse and measure besides.
      spectra: `model_spectra(model)`; without, L5 has no value.
      frames: principal directions of the blocks, [L 2 D]; without, the alignment with them has no value.
      own: the metrics that were asked for, from `own_metrics`.

    Returns:
      name -> array, the names of `Diagnosis` and `RATES`; `finite_rows` as `finite`; those asked for after `OWN`,
      [L+1 B]; the stds as `std_attn_min`, `std_attn`, `std_attn_max`; what is fused after "fused/", [1 B] and of gates
      [K B]; `EMBEDDING`, the direction of the mean token of the last hidden state, [D B]; `DIRECTIONS`, the mean of the
      tokens' directions in every hidden state, [(L+1)D B]; `ATTRIBUTION`, see `interventions.attribute`, [4L B].
    """

    def collect(narrow: BlockTrace) -> dict[str, Array]:
        trace = widened(narrow)
        known = jax.tree.map(lambda stacked: stacked[trace.layer], norms)
        attention = _attention_metrics(model.config, trace, known, batch.mask)
        alike = metrics.attention_similarity(trace.attn, trace.attn_before, batch.mask)
        attention["attention_similarity"] = jnp.where(trace.layer == 0, jnp.nan, alike)  # no block before the first
        attention["principal_alignment"] = _alignment(trace, frames, batch.mask)
        attention["L5"] = jnp.full_like(attention["L4"], jnp.nan)
        if spectra is not None and model.config.is_plain:
            known = jax.tree.map(lambda stacked: stacked[trace.layer], spectra)
            attention["L5"] = jnp.minimum(attention["L4"], _spectrum_rung(model.config, trace, known, batch.mask))
        kept = {"hidden": narrow.hidden, "finite": finite_rows(narrow, batch.mask)}
        kept[ATTRIBUTION] = _between(model.config, trace, batch.mask)
        return {**kept, **_std_metrics(trace, batch.mask), **attention, **own.of_block(trace, batch.mask)}

    # float32 products must be float32 products on every device: TPUs and GPUs round them to fewer bits unasked.
    with jax.default_matmul_precision("highest"):
        last, found = encode(model, batch, collect=collect, successive=True)
        states = widened(jnp.concatenate([embed(model, batch)[None], found.pop("hidden")]))
        everywhere = ladder.shi2022_rate(norms, model.config.activation, found["mixing_rate"], found["std_product"])
        found["L0"] = _where_known(found["actual"], everywhere)
        found |= {OWN + name: _from_first(found[OWN + name]) for name in own.blocks}
        found |= measure_states(states, batch.mask, own=own.states, directions=DIRECTIONS)
        if fusion is not None:
            fused, gates = fuse(fusion, states[1:])
            extra = measure_states(fused[None], batch.mask, own=own.states) | gate_range(gates, batch.mask)
            found |= {FUSED + key: value for key, value in extra.items()}
    if not model.config.is_plain:  # what does not apply; XLA then leaves it out
        for key in (*set(RATES) - {"actual", *rungs(model.config)}, "threshold"):
            found[key] = jnp.full_like(found[key], jnp.nan)
    found[EMBEDDING] = unit_vectors(token_mean(widened(last), batch.mask)[:, 0]).T
    found[DIRECTIONS] = found[DIRECTIONS].swapaxes(1, 2).reshape(-1, len(batch.mask))
    return found | {ATTRIBUTION: _changes(found["relative_distance"], found[ATTRIBUTION])}


def _from_first(of_blocks: Array) -> Array:
    """Numbers of blocks, [L B], as those of hidden states, [L+1 B]: the embedding has none."""
    return jnp.concatenate([jnp.full_like(of_blocks[:1], jnp.nan), of_blocks])


def _between(config: EncoderConfig, trace: BlockTrace, mask: Array) -> Array:
    """Relative distances between the parts of a block, [3 B]; those at its ends are of hidden states."""
    return jnp.stack([metrics.relative_distance(state, mask) for state in residual_states(trace, config)[1:-1]])


def _changes(states: Array, between: Array) -> Array:
    """Of relative distances [L+1 B], and of those within blocks [L 3 B], the changes of their logarithm, [4L B]."""
    path = jnp.log(jnp.concatenate([states[:-1, None], between, states[1:, None]], axis=1))
    changes = jnp.diff(path, axis=1).reshape(-1, states.shape[1])
    return jnp.where(jnp.isfinite(changes), changes, jnp.nan)  # that of a consensus is infinite


@arguments_checked
def rates(
    model: Encoder, batch: Batch | ImageBatch | Mapping[str, Any], *, edits: Edits = Edits()
) -> dict[str, Float[Array, "L B"]]:
    """The ladder of a batch: of every block and sentence the rate at which d_M shrinks, and every bound of it.

    actual <= L5 <= L4 <= L3 <= L2b <= L2 <= L1 <= L0, see `theory.rates` and docs/theory.md. One compiled program, in
    the model's precision, float32 at least; padding takes no part. All of it can be differentiated, forwards and in
    reverse, with respect to the model's parameters, the edits' arrays and, of images, the pixels: the derivative of a
    singular value is u^T dA v at its singular vectors, which are held. Where a largest one is repeated it has none, and
    that of the vectors found is given; second derivatives are not those of the rates. L3 is a lower estimate.

    Args:
      model: the encoder.
      batch: tokens, segments and mask, [B T], or images, or what `encode` takes besides.
      edits: functions that replace intermediate values, see `Edits`. A bound whose hypotheses they break is NaN.

    Returns:
      Name of `RATES` -> [L B]. NaN of a sentence that is at consensus already, as one of one token is; of the bounds,
      too, where they are not proved for such blocks (`jaxsmooth.diagnose(...).model.departures`). Their derivatives are
      zero or finite, so `jnp.nanmean` of them has one.

    Raises:
      ShapeError: as `encode`.

    >>> import jax, jaxsmooth
    >>> model, tokenizer = jaxsmooth.load("tiny")
    >>> batch = tokenizer(["A film worth seeing.", "Dull."])
    >>> found = jaxsmooth.rates(model, batch)
    >>> found["L1"].shape == (model.config.layers, 2), bool((found["actual"] <= found["L4"] * 1.001).all())
    (True, True)

    References: Shi et al. (2022), arXiv 2202.08625, Theorem 2, which is L0 and L1.
    """
    require_encoder(model)
    found = _ladder(model, check_arguments(model, batch, edits, keep_nothing), edits)
    return {name: found[name] for name in RATES}  # a compiled function sorts the names of what it returns


@jax.jit
def _ladder(model: Encoder, batch: Batch | ImageBatch, edits: Edits) -> dict[str, Array]:
    config, norms = model.config, model_norms(model)
    spectra = model_spectra(model) if config.is_plain else None
    edited = {site for site in SITES if getattr(edits, site) is not None}

    def collect(narrow: BlockTrace) -> dict[str, Array]:
        trace = widened(narrow)
        own = jax.tree.map(lambda stacked: stacked[trace.layer], norms)
        found = _attention_metrics(config, trace, own, batch.mask)
        if spectra is not None:
            known = jax.tree.map(lambda stacked: stacked[trace.layer], spectra)
            found["L5"] = jnp.minimum(found["L4"], _spectrum_rung(config, trace, known, batch.mask))
        sums = equal_row_sums(trace.attn, batch.mask, edited_from=1.0)
        found["equal_sums"] = jnp.all(sums, axis=-1) if "attn" in edited else jnp.ones(len(batch.mask), bool)
        return {key: found[key] for key in (*RATES, "mixing_rate", "std_product", "equal_sums") if key in found}

    with jax.default_matmul_precision("highest"):
        _, found = encode(model, batch, edits=edits, collect=collect)
        everywhere = ladder.shi2022_rate(norms, config.activation, found["mixing_rate"], found["std_product"])
    found["L0"] = _where_known(found["actual"], everywhere)
    applies = {"actual", *(rungs(config) if edited <= L4_SITES else ())}
    if not edited <= L1_SITES:
        applies &= {"actual", "L5", "L4"}
    nothing = jnp.full_like(found["actual"], jnp.nan)
    kept = {key: found[key] if key in applies else nothing for key in RATES}
    return kept | {
        key: jnp.where(found["equal_sums"], kept[key], jnp.nan) for key in RATES if key not in ("actual", "L5", "L4")
    }


def _std_metrics(trace: BlockTrace, mask: Array) -> dict[str, Array]:
    found = {}
    for key in ("std_attn", "std_mlp"):
        found[f"{key}_min"], found[key], found[f"{key}_max"] = metrics.std_range(getattr(trace, key), mask)
    return found


def _attention_metrics(config: EncoderConfig, trace: BlockTrace, norms: BlockNorms, mask: Array) -> dict[str, Array]:
    mixing = metrics.mixing_rate(trace.attn, mask)
    state = ladder.BlockState(trace.input, trace.attn, trace.pre_attn, trace.std_attn, trace.std_mlp, mask, mixing)
    q = TracedBlock(norms, state, trace.block)
    found = {rung: text(q).value(q) for rung, text in RUNGS.items() if rung != "L0"}  # L0 needs all layers
    if config.is_pre_norm:
        found["L1"] = ladder.pre_norm_block_rate(norms, state, config.activation)
    actual = ladder.actual_rate(trace.input, trace.hidden, mask)
    return {
        "mixing_rate": mixing,
        "ergodicity_coefficient": metrics.ergodicity_coefficient(trace.attn, mask),
        "attention_entropy": metrics.attention_entropy(trace.attn, mask),
        "sink_strength": metrics.sink_strength(trace.attn, mask),
        "first_token_attention": metrics.first_token_attention(trace.attn, mask),
        "std_product": ladder.std_product(state),
        "threshold": ladder.contraction_threshold(norms, state),
        "actual": actual,
        **{key: _where_known(actual, rung) for key, rung in found.items()},
    }


def _alignment(trace: BlockTrace, frames: Array | None, mask: Array) -> Array:
    if frames is None:
        return jnp.full(mask.shape[:1], jnp.nan, trace.hidden.dtype)
    own = frames[trace.layer].astype(trace.hidden.dtype)
    return li2026_projection(trace.hidden, mask, jnp.broadcast_to(own, (len(mask), *own.shape)))


def _spectrum_rung(config: EncoderConfig, trace: BlockTrace, known: OutputSpectrum, mask: Array) -> Array:
    less_shift = trace.hidden - bias_of(trace.block.norm_mlp)[None, None]
    lengths = norm(less_shift)
    distance = subspace_distance(trace.input, mask)
    return spectrum_rung(trace.block, known, distance, trace.normed, trace.std_mlp, lengths, mask, config.activation)


def _where_known(actual: Array, rung: Array) -> Array:
    """The rung where there was a distance to stretch; from consensus, as of one token, all rates are undefined."""
    return jnp.where(jnp.isnan(actual), jnp.nan, rung)
