"""`diagnose`: stream sentences through a real encoder, measure every layer on the device, keep running sums."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..bert.fusion import Fusion, Kind
from ..bert.norm import accumulation_dtype
from ..bert.params import Encoder
from ..errors import arguments_checked
from ..inputs.batching import EncodedBatch
from ..inputs.tokenizer import Tokenizer
from ..interventions.attribution import PARTS
from ..programs import kept
from ..results.brief import digits
from ..results.comparison import attributions
from ..results.diagnosis import Diagnosis, FusedLayers
from ..results.each_text import Choice, TextKeeper
from ..results.spread import BLOCK_METRICS, HEAD_METRICS, HIDDEN_METRICS, RunningSpreads, Spread
from ..results.summaries import RATES
from ..results.texts import EMBEDDED, KeptTexts
from ..theory.literature.power_method import PrincipalSubspace
from ..theory.rates.spectrum_rung import OutputSpectrum
from ..theory.theorems.parameters import BlockNorms
from .every_input import known_for_every_input
from .exemplar import ExemplarChooser
from .finite import refuse_diverged
from .hidden_states import chosen_fusion
from .measurements import ATTRIBUTION, DIRECTIONS, EMBEDDING, FUSED, measure_batch, model_norms, model_spectra
from .requested.own_metrics import OWN, Metric, OwnMetrics, own_metrics
from .statements.baselines import Baselines
from .statements.texts import NEEDED, text_statements
from .stream import TextStream, require_encoder
from .summaries import model_summary, package_versions
from .weights import principal_subspaces, weight_spectra


@arguments_checked
def diagnose(
    model: Encoder,
    tokenizer: Tokenizer | None,
    texts: Iterable[Any],
    *,
    name: str = "model",
    data: str = "texts",
    note: str = "",
    tokens_per_batch: int = 512,
    fusion: Fusion | Kind | None = None,
    each_text: Choice = False,
    baseline: bool = True,
    metrics: Mapping[str, Metric] = MappingProxyType({}),
    progress: bool = False,
    programs: Path | None = None,
) -> Diagnosis:
    """Measure over-smoothing of a model on real text, layer by layer, and evaluate the theory on it.

    Sentences are read once, in batches of few shapes; each batch is reduced on the device to a few numbers per
    sentence and layer, which are added to running sums in float64. Memory does not grow with the number of
    sentences, and the numbers do not depend on their order, the batch size or the padding, beyond rounding.

    Where an encoder ends in one more norm, what is measured of the last layer is what enters it.

    Args:
      model: the encoder; its dtype is the precision of the measurement, float32 at least.
      tokenizer: its tokenizer; None for a vision encoder.
      texts: sentences, any iterable of strings; for a vision encoder images, each [C Y X].
      name: the model's name, for the report.
      data: the text's name, for the report.
      note: a warning to print with the model, beside the one in its config ("random weights", "4-bit weights").
      tokens_per_batch: size of a batch, padding included.
      fusion: layers to fuse and measure like a layer: a trained `bert.fusion`, or "concat", "max" or "gate" of all
        blocks, untrained.
      each_text: keep every text's numbers besides: True in memory (of very many texts a random sample, see
        `results.each_text`), a number for at most so many, or a path that ends in .parquet to write them of all texts
        to that file as they come. `texts_table(found)` and `found.to_pandas(each_text=True)` give them.
      baseline: whether to measure the same architecture with random weights besides, on the texts of the first batch.
        Which these are, and so this baseline alone, depends on the batches.
      metrics: of your own, name -> function of hidden states [B T D] and mask [B T] that gives a number per sentence,
        [B], of its real tokens alone. Measured of every hidden state, as the library's are, and of what is fused. A new
        function is a new compile. Or a `BlockMetric`, of what a block computes, which has no value at the embedding and
        of what is fused; `jaxsmooth.literature_metrics` has some by name.
      progress: whether to show a progress bar on stderr, if that is a terminal.
      programs: folder of traced programs, which another process need not trace again (see `programs.kept`). With it two
        batches are computed at once on one device.

    Returns:
      A `Diagnosis`.

    Raises:
      OptionError: a fusion or an `each_text` that does not exist, or a metric that fails, or gives another shape, or
        depends on padding.
      TextError: no text, or something that is not text.
      ShapeError: a tokenizer that does not fit the model.
      DivergedError: numbers that are not finite; names the first layer and array.

    >>> import jaxsmooth
    >>> model, tokenizer = jaxsmooth.load("tiny")
    >>> found = jaxsmooth.diagnose(model, tokenizer, ["A film worth seeing.", "Dull."])
    >>> found.cosine_similarity.mean.shape == (model.config.layers + 1,)
    True
    """
    require_encoder(model)
    own, principal = own_metrics(metrics, model), principal_subspaces(model)
    fused, label = (None, "") if fusion is None else _chosen(fusion, model)
    running, chooser, kept, embedded = RunningSpreads(), ExemplarChooser(), KeptTexts(), KeptTexts(EMBEDDED)
    stream = TextStream(model, tokenizer, texts, "diagnosing", tokens_per_batch=tokens_per_batch, progress=progress)
    with stream, TextKeeper(each_text) as keeper:
        baselines = Baselines(stream.model, twin=baseline, programs=programs)
        for encoded, measured in _measured(stream, fused, principal.frame, own, programs):
            baselines.see(encoded)
            refuse_diverged(stream.model, encoded, measured)
            _keep(kept, embedded, baselines, keeper, encoded, measured, own.names)
            running.add(measured, len(encoded.indices))
            chooser.offer(encoded)
        spreads = running.spreads()
        rest = _rest(stream, spreads, baselines, chooser, tokenizer, programs)
    return Diagnosis(
        data=stream.summary(data),
        **_fields(spreads, own.names),
        fused=None if fused is None else _fused_layers(fused, label, spreads, own.states),
        texts=text_statements(kept, each_text=bool(keeper), embedded=embedded, own=own.names),
        each=keeper.found(),
        **_of_model(model, name, note, principal),
        **rest,
    )


def _rest(
    stream: TextStream,
    spreads: dict[str, Spread],
    baselines: Baselines,
    chooser: ExemplarChooser,
    tokenizer: Tokenizer | None,
    programs: Path | None,
) -> dict[str, Any]:
    """The fields with programs of their own, which the first numbers do not wait for."""
    cosine = spreads["cosine_similarity"].mean.tolist()
    stream.tell(f"mean cosine of two tokens of a text, from the embedding output on: {' '.join(map(digits, cosine))}")
    baselines.measure()
    return {"exemplar": chooser.exemplar(stream.model, tokenizer, programs), **baselines.found(len(cosine))}


def _of_model(model: Encoder, name: str, note: str, principal: PrincipalSubspace) -> dict[str, Any]:
    """The fields that no text enters."""
    known = {"every_input": known_for_every_input(model), "versions": package_versions()}
    return {"model": model_summary(model, name, note), "weights": weight_spectra(model, principal), **known}


def _fields(spreads: dict[str, Spread], own: Iterable[str]) -> dict[str, Any]:
    """The fields of a `Diagnosis` that are spreads, and those that hold several."""
    blocks = len(spreads["actual"].mean)
    parts = {"parts": PARTS, "attribution": spreads[ATTRIBUTION].map(lambda field: field.reshape(blocks, -1))}
    several = {"rates": {key: spreads[key] for key in RATES}, "metrics": {key: spreads[OWN + key] for key in own}}
    metrics = {key: spreads[key] for key in (*HIDDEN_METRICS, *HEAD_METRICS, *BLOCK_METRICS)}
    return several | parts | metrics | {key: _token_spread(spreads, key) for key in ("std_attn", "std_mlp")}


def _chosen(fusion: Fusion | Kind, model: Encoder) -> tuple[Fusion, str]:
    return chosen_fusion(fusion, model.config, accumulation_dtype(jax.tree.leaves(model)[0].dtype))


def _keep(
    kept: KeptTexts,
    embedded: KeptTexts,
    baselines: Baselines,
    keeper: TextKeeper,
    encoded: EncodedBatch,
    measured: dict[str, Any],
    own: Iterable[str],
) -> None:
    """What is kept of every text, [K B]; directions, of which there is no spread, are taken out of the measurements."""
    baselines.add(measured.pop(DIRECTIONS), len(encoded.indices))
    tokens = {"tokens": np.asarray(encoded.batch.mask).sum(axis=1)[None]}
    kept.add({key: measured[key] for key in (*NEEDED, *(OWN + key for key in own))} | tokens, encoded.indices)
    embedded.add({EMBEDDING: measured.pop(EMBEDDING)} | tokens, encoded.indices)
    if keeper:
        keeper.add({"": _of_each_text(encoded, measured)}, encoded.indices)


def _of_each_text(encoded: EncodedBatch, measured: dict[str, Any]) -> dict[str, Any]:
    """Every measurement, [K B] or of heads [K B N], with the number of tokens and the whole network's contraction."""
    distance = np.asarray(measured["subspace_distance"], np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        contraction = np.where(distance[:1] > 0, distance[-1:] / distance[:1], np.nan)
    tokens = np.asarray(encoded.batch.mask).sum(axis=1)[None]
    kept = {name: array for name, array in measured.items() if name not in ("finite", ATTRIBUTION)}
    parts = np.asarray(measured[ATTRIBUTION]).reshape(-1, len(PARTS), tokens.shape[1])
    kept |= {name: parts[:, place] for place, name in enumerate(attributions(PARTS))}
    return {"tokens": tokens, "contraction": contraction, **kept}


def _fused_layers(fusion: Fusion, label: str, spreads: dict[str, Spread], metrics: Iterable[str]) -> FusedLayers:
    own = {key.removeprefix(FUSED): spread for key, spread in spreads.items() if key.startswith(FUSED)}
    return FusedLayers(
        label=label,
        layers=tuple(layer + 1 for layer in fusion.layers),
        measures={key: own[key] for key in HIDDEN_METRICS} | {key: own[OWN + key] for key in metrics},
        gates=_token_spread(own, "gates") if "gates" in own else None,
    )


def _measured(
    stream: TextStream, fusion: Fusion | None, frames: np.ndarray, own: OwnMetrics, programs: Path | None
) -> Iterator[tuple[EncodedBatch, dict[str, Array]]]:
    """Each batch with its measurements."""
    model = stream.model
    norms = kept(model_norms, programs, structs=(BlockNorms,))(model)
    spectra = kept(model_spectra, programs, structs=(OutputSpectrum,))(model) if model.config.is_plain else None
    measure, directions = kept(measure_batch, programs), jnp.asarray(frames)
    return stream.computed(lambda encoded: measure.start(model, norms, encoded.batch, fusion, spectra, directions, own))


def _token_spread(spreads: dict[str, Spread], key: str) -> Spread:
    """Mean and std over the sentences' token means; extrema over all tokens."""
    middle, low, high = spreads[key], spreads[f"{key}_min"], spreads[f"{key}_max"]
    return Spread(middle.mean, middle.std, low.min, high.max, middle.count)
