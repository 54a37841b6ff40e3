"""`compare`: the per-layer numbers of one real model and text with each of several remedies, without training."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.stages import Lowered
from jaxtyping import Array, Float

from .. import metrics
from ..bert.config import EncoderConfig
from ..bert.encoder import embed, encode
from ..bert.fusion import Kind, fuse
from ..bert.params import Encoder
from ..errors import OptionError, arguments_checked
from ..inputs.batching import EncodedBatch
from ..inputs.tokenizer import Tokenizer
from ..interventions.attribution import PARTS, attribute
from ..linalg.rows import widened
from ..mitigations.own import Own, OwnRemedy, chosen_remedies
from ..mitigations.parse import NamedRemedy
from ..programs import kept
from ..results.comparison import (
    COMPARED_RATES,
    Comparison,
    Cost,
    Measured,
    PairedEffect,
    TrainedRemedy,
    Training,
    attributions,
)
from ..results.each_text import Choice, TextKeeper
from ..results.spread import RunningSpreads
from ..results.texts import KeptTexts
from ..theory.block import ladder
from ..theory.mixing import equal_row_sums
from ..theory.theorems.parameters import BlockNorms
from ..types import SITES, Batch, BlockTrace, Edits, ImageBatch
from .finite import finite_rows, refuse_diverged
from .hidden_states import chosen_fusion, measure_states
from .measurements import L1_SITES, L4_SITES, model_norms
from .statements.remedies import cost, forward_pass, paired_effect
from .stream import TextStream, require_encoder
from .summaries import model_summary, package_versions

FUSIONS: dict[str, Kind] = {"max": "max", "mean (softmax gate, untrained)": "gate"}
MEASURES = ("cosine_similarity", "relative_distance")


@arguments_checked
def compare(
    model: Encoder,
    tokenizer: Tokenizer | None,
    texts: Iterable[Any],
    remedies: str | Mapping[str, Own] | Iterable[str | NamedRemedy],
    *,
    name: str = "model",
    data: str = "texts",
    note: str = "",
    tokens_per_batch: int = 512,
    each_text: Choice = False,
    progress: bool = False,
    programs: Path | None = None,
) -> Comparison:
    """Measure the same model and text as they are and with each remedy.

    Args:
      model: the encoder; its dtype is the precision of the measurement.
      tokenizer: its tokenizer; None for a vision encoder.
      texts: sentences, any iterable of strings; for a vision encoder images, each [C Y X].
      remedies: a list such as "contranorm,attnscale:0.3", see `mitigations.parse_remedies`, or what that returns; or
        name -> remedy of your own: `Edits`, a function (model, batch) -> `Edits`, or one by name as above.
      name: the model's name, for the report.
      data: the text's name, for the report.
      note: a warning to print with the model.
      tokens_per_batch: size of a batch, padding included.
      each_text: keep every text's numbers besides: True in memory (of very many texts a random sample, see
        `results.each_text`), a number for at most so many, or a path that ends in .parquet to write them of all texts
        to that file as they come. `texts_table(found)` and `found.to_pandas(each_text=True)` give them.
      progress: whether to show a progress bar on stderr.
      programs: folder of traced programs, which another process need not trace again (see `programs.kept`).

    Returns:
      A `Comparison`, whose first entry is the model without a remedy. Of more than `results.texts.KEPT` texts the
      paired tests take a random sample of so many.

    Raises:
      OptionError: an `each_text` or a remedy that does not exist, is none, or has a parameter out of range.
      ShapeError: edits that do not fit the model.
      TextError: no text, or something that is not text.
      DivergedError: numbers that are not finite; names the remedy, the first layer and the array.

    >>> import jaxsmooth
    >>> from jaxsmooth.studies.compare import compare
    >>> model, tokenizer = jaxsmooth.load("tiny")
    >>> found = compare(model, tokenizer, ["A film worth seeing."], "contranorm")
    >>> [entry.label for entry in found.entries]
    ['none', 'contranorm']
    """
    require_encoder(model)
    chosen = chosen_remedies(remedies)
    stream = TextStream(model, tokenizer, texts, "comparing", tokens_per_batch=tokens_per_batch, progress=progress)
    keeper = TextKeeper(each_text, "remedy")
    with stream, keeper:
        model = stream.model
        runs = [_Run(None, model, programs), *(_Run(remedy, remedy.change(model), programs) for remedy in chosen)]
        for encoded in stream:
            plain = None
            for run in runs:
                plain = run.measure(encoded, plain)
            if keeper:
                keeper.add({run.label: run.of_each_text() for run in runs}, encoded.indices)
    return Comparison(
        model=model_summary(model, name, note),
        data=stream.summary(data),
        parts=PARTS,
        entries=tuple(run.measured(runs[0]) for run in runs),
        versions=package_versions(),
        each=keeper.found(),
    )


def with_training(
    comparison: Comparison, task: str, metric: str, made: Mapping[str, Sequence[Mapping[str, float]]]
) -> Comparison:
    """A comparison beside what the same remedies give when the model is trained with them.

    Args:
      comparison: what `compare` found.
      task: name of the task.
      metric: its score; more is better.
      made: label of each entry, in their order, -> for each seed, from 0, the run's "score", the last layer's "cosine"
        and its "steps"; the same number of seeds of each.

    Returns:
      The comparison with its `training`.

    Raises:
      OptionError: other labels than the entries', or not as many seeds of each.

    >>> import jaxsmooth
    >>> found = compare(*jaxsmooth.load("tiny"), ["A film worth seeing."], "contranorm")
    >>> run = {"score": 0.9, "cosine": 0.4, "steps": 10}
    >>> with_training(found, "mine", "accuracy", {"none": [run], "contranorm": [run]}).training.seeds
    (0,)
    """
    labels, counts = [entry.label for entry in comparison.entries], {len(runs) for runs in made.values()}
    if list(made) != labels or len(counts) != 1 or 0 in counts:
        raise OptionError(f"made must have runs of {', '.join(labels)}, as many of each; got {', '.join(made)}.")
    runs = tuple(
        TrainedRemedy(label, *(np.array([run[key] for run in own], np.float64) for key in ("score", "cosine")))
        for label, own in made.items()
    )
    steps = int(next(iter(made.values()))[0]["steps"])
    training = Training(task, metric, tuple(range(counts.pop())), steps, runs)
    return dataclasses.replace(comparison, training=training)


class _Run:
    """The model with one remedy: its compiled program and the running spreads of its numbers."""

    def __init__(self, remedy: NamedRemedy | OwnRemedy | None, model: Encoder, programs: Path | None) -> None:
        self.remedy, self.model = remedy, model
        self.norms = kept(model_norms, programs, structs=(BlockNorms,))(model) if model.config.is_plain else None
        self.running, self.kept = RunningSpreads(finite=True), KeptTexts()
        self.first: Lowered | None = None

        # One program per remedy and batch shape; the remedy is structure, the weights are arguments. A function of this
        # run's own: its programs go with it.
        @functools.partial(jax.jit, static_argnames="remedy")
        @functools.wraps(measure_remedy)
        def measured(*arrays: Any, remedy: NamedRemedy | OwnRemedy | None) -> Any:
            return measure_remedy(*arrays, remedy=remedy)

        self.program = kept(measured, programs, remedy=remedy)

    def measure(self, encoded: EncodedBatch, plain: Array | None) -> Array:
        """Add a batch; return the last hidden states of the model without a remedy."""
        hidden, measured = self.program(self.model, self.norms, encoded.batch, plain)
        remedy, model, batch = self.remedy, self.model, encoded.batch
        if remedy is None:
            refuse_diverged(model, encoded, measured)
        else:
            refuse_diverged(model, encoded, measured, lambda: remedy.edits(model, batch), remedy.label)
        self.running.add(measured, len(encoded.indices))
        self.kept.add({key: np.asarray(measured[key])[-1:] for key in MEASURES}, encoded.indices)
        self.first = self.first or forward_pass(model, batch, remedy)
        self.latest = measured
        return hidden if plain is None else plain

    @property
    def label(self) -> str:
        """The remedy as it was asked for; "none" for the model as it is."""
        return "none" if self.remedy is None else self.remedy.label

    def of_each_text(self) -> dict[str, Array]:
        """The latest batch, a measurement a name, [K B]; a part of a block has a name of its own."""
        found = {name: array for name, array in self.latest.items() if name not in ("finite", "attribution")}
        parts = self.latest["attribution"].reshape(-1, len(PARTS), self.latest["attribution"].shape[-1])
        return found | {name: parts[:, place] for place, name in enumerate(attributions(PARTS))}

    def measured(self, none: "_Run") -> Measured:
        """The spreads of all batches so far, and what differs from the run without a remedy."""
        spreads = self.running.spreads()
        fused = {fusion: {key: spreads[f"{fusion}/{key}"] for key in MEASURES} for fusion in FUSIONS}
        layers = len(spreads["actual"].mean)
        return Measured(
            label=self.label,
            description="the model as it is" if self.remedy is None else self.remedy.description,
            warning=warning(self.model.config, self.remedy),
            cosine_similarity=spreads["cosine_similarity"],
            relative_distance=spreads["relative_distance"],
            rates={key: spreads[key] for key in COMPARED_RATES},
            attribution=spreads["attribution"].map(lambda field: field.reshape(layers, -1)),
            fused=fused,
            change=spreads["change"],
            effects={} if self is none else self._effects(none),
            cost=self._cost(none),
        )

    def _effects(self, none: "_Run") -> dict[str, PairedEffect]:
        (_, own), (_, plain) = self.kept.found(), none.kept.found()
        return {key: paired_effect(own[key][0], plain[key][0]) for key in MEASURES}

    def _cost(self, none: "_Run") -> Cost | None:
        if self is none or self.first is None or none.first is None:
            return None
        return cost(none.first, self.first, _size(self.model) - _size(none.model))


def _size(model: Encoder) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(model))


def warning(config: EncoderConfig, remedy: NamedRemedy | OwnRemedy | None) -> str:
    """What to know before reading a remedy's numbers on this encoder; empty if nothing."""
    if config.causal and remedy is not None and remedy.mixes:
        return "lets tokens see later ones, in a causal model"
    return ""


def measure_remedy(
    model: Encoder,
    norms: BlockNorms | None,
    batch: Batch | ImageBatch,
    plain: Float[Array, "B T D"] | None,
    *,
    remedy: NamedRemedy | OwnRemedy | None,
) -> tuple[Float[Array, "B T D"], dict[str, Array]]:
    """Every per-sentence quantity of one batch under one remedy; for use inside a `jax.jit`.

    Args:
      model: the encoder, its weights as the remedy wants them.
      norms: `measurements.model_norms` of it; None for blocks that the bounds do not cover.
      batch: tokens, segments and mask, [B T].
      plain: last hidden states without a remedy; None if this is the run without.
      remedy: which, or None.

    Returns:
      The last hidden states, and name -> array: [L+1 B] of hidden states, [L B] of blocks, [4L B] of parts, [1 B] of
      fusions and of the change.
    """
    edits = Edits() if remedy is None else remedy.edits(model, batch)

    def collect(narrow: BlockTrace) -> dict[str, Array]:
        trace = widened(narrow)
        return {
            "hidden": trace.hidden,
            "finite": finite_rows(narrow, batch.mask),
            "attribution": attribute(trace, batch.mask, model.config),
            **_rates(trace, norms, batch.mask, edits),
        }

    with jax.default_matmul_precision("highest"):
        last, found = encode(model, batch, edits=edits, collect=collect)
        stacked = found.pop("hidden")
        first = embed(model, batch) if edits.embedded is None else edits.embedded(jnp.int32(-1), embed(model, batch))
        states = jnp.concatenate([widened(first)[None], stacked])
        fusions = [chosen_fusion(kind, model.config, stacked.dtype)[0] for kind in FUSIONS.values()]
        fused = jnp.stack([fuse(fusion, stacked)[0] for fusion in fusions])
        for key, values in measure_states(jnp.concatenate([states, fused]), batch.mask, MEASURES).items():
            found[key] = values[: len(states)]
            found |= {f"{name}/{key}": value[None] for name, value in zip(FUSIONS, values[len(states) :], strict=True)}
    found["attribution"] = found["attribution"].reshape(-1, batch.mask.shape[0])
    found["change"] = _change(last, last if plain is None else plain, batch.mask)[None]
    return last, found


def _rates(trace: BlockTrace, norms: BlockNorms | None, mask: Array, edits: Edits) -> dict[str, Array]:
    """The actual rate, and the bounds where what the edits touch leaves their hypotheses alone."""
    actual = ladder.actual_rate(trace.input, trace.hidden, mask)
    unknown = jnp.full_like(actual, jnp.nan)
    edited = {site for site in SITES if getattr(edits, site) is not None}
    if norms is None or not edited <= L4_SITES:
        return {"actual": actual, "L4": unknown, "L1": unknown}
    own = jax.tree.map(lambda stacked: stacked[trace.layer], norms)
    plain = edited <= L1_SITES
    mixing = metrics.mixing_rate(trace.attn, mask) if plain else jnp.zeros((*mask.shape[:1], trace.attn.shape[1]))
    state = ladder.BlockState(trace.input, trace.attn, trace.pre_attn, trace.std_attn, trace.std_mlp, mask, mixing)
    known = ~jnp.isnan(actual)
    l4 = jnp.where(known, ladder.data_rate(own, state), jnp.nan)
    if not plain:
        return {"actual": actual, "L4": l4, "L1": unknown}
    known &= jnp.all(equal_row_sums(trace.attn, mask, edited_from=1.0), axis=-1)
    return {"actual": actual, "L4": l4, "L1": jnp.where(known, ladder.block_rate(own, state), jnp.nan)}


def _change(hidden: Array, plain: Array, mask: Array) -> Array:
    real = mask[..., None]
    wide = [jnp.where(real, widened(x), 0) for x in (hidden - plain, plain)]
    away, size = (jnp.sqrt(jnp.sum(x * x, axis=(-2, -1))) for x in wide)
    return away / size
