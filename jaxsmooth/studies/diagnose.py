"""`diagnose`: stream sentences through a real encoder, measure every layer on the device, keep running sums."""

import importlib.metadata
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .. import metrics
from ..bert.config import EncoderConfig
from ..bert.encoder import embed, encode, keep_trace
from ..bert.fusion import Fusion, Kind
from ..bert.norm import accumulation_dtype
from ..bert.params import Block, Encoder
from ..results.diagnosis import RATES, DataSummary, Diagnosis, Exemplar, FusedLayers, ModelSummary, Spread
from ..errors import ShapeError, TextError
from .hidden_states import GATES, HIDDEN, chosen_fusion, fused_measures, hidden_measures
from ..inputs.batches import encoded_batches
from ..inputs.batching import EncodedBatch
from .data_parallel import by_rows
from ..inputs.tokenizer import Tokenizer, TruncationWarning
from ..theory.block import ladder
from ..theory.block.parameter_norms import BlockNorms, BlockWeights, block_norms
from ..types import Batch, BlockTrace, ImageBatch

FUSED = "fused/"
EXEMPLAR_TOKENS = 24  # the longest sentence that a token-by-token picture shows legibly


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
    progress: bool = False,
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
      progress: whether to show a progress bar on stderr, if that is a terminal.

    Returns:
      A `Diagnosis`.

    Raises:
      OptionError: a fusion that does not exist.
      TextError: no text, or something that is not text.
      ShapeError: a tokenizer that does not fit the model.

    >>> import jaxsmooth
    >>> model, tokenizer = jaxsmooth.load("tiny")
    >>> found = jaxsmooth.diagnose(model, tokenizer, ["A film worth seeing.", "Dull."])
    >>> found.cosine_similarity.mean.shape == (model.config.layers + 1,)
    True
    """
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise TextError(f"texts must be a series of strings; got {type(texts).__name__}. Wrap one string in a list.")
    if not isinstance(model, Encoder):
        raise ShapeError(f"model must be an Encoder; got {type(model).__name__}. `load` gives (model, tokenizer).")
    dtype = accumulation_dtype(jax.tree.leaves(model)[0].dtype)
    fused, label = (None, "") if fusion is None else chosen_fusion(fusion, model.config, dtype)
    norms = model_norms(model)
    running: dict[str, _Running] = {}
    chosen = _Chooser()
    sentences = tokens = truncated = 0
    seen: dict[int, str] = {}
    config = model.config
    read = texts if config.is_vision else _remember(texts, seen)
    total = len(texts) if isinstance(texts, (list, tuple)) else None
    with progress_bar(progress) as bar:
        task = bar.add_task("diagnosing", total=total)
        for encoded, measured in _measured(
            model, norms, encoded_batches(config, tokenizer, read, tokens_per_batch=tokens_per_batch), fused
        ):
            rows = len(encoded.indices)
            for key, values in measured.items():
                running.setdefault(key, _Running()).add(np.asarray(values, np.float64)[:, :rows])
            lengths = np.asarray(encoded.batch.mask[:rows].sum(axis=1))
            chosen.offer(encoded, lengths, seen)
            sentences, tokens, truncated = sentences + rows, tokens + int(lengths.sum()), truncated + encoded.truncated
            bar.advance(task, rows)
    if truncated:
        message = f"{truncated} of {sentences} texts were cut to {model.config.max_length} tokens."
        warnings.warn(message, TruncationWarning, stacklevel=2)
    spreads = {key: sums.spread() for key, sums in running.items()}
    return Diagnosis(
        model=model_summary(model, name, note),
        data=DataSummary(data, sentences, tokens, truncated),
        **{key: spreads[key] for key in (*HIDDEN, "std_product", "threshold")},
        **{key: spreads[key] for key in ("mixing_rate", "ergodicity_coefficient", "attention_entropy")},
        **{key: _token_spread(spreads, key) for key in ("std_attn", "std_mlp")},
        rates={key: spreads[key] for key in RATES},
        exemplar=chosen.exemplar(model, tokenizer),
        versions=package_versions(),
        fused=None if fused is None else _fused_layers(fused, label, spreads),
    )


def _fused_layers(fusion: Fusion, label: str, spreads: dict[str, Spread]) -> FusedLayers:
    own = {key.removeprefix(FUSED): spread for key, spread in spreads.items() if key.startswith(FUSED)}
    return FusedLayers(
        label=label,
        layers=tuple(layer + 1 for layer in fusion.layers),
        measures={key: own[key] for key in HIDDEN},
        gates=_token_spread(own, "gates") if "gates" in own else None,
    )


@jax.jit
def model_norms(model: Encoder) -> BlockNorms:
    """The norms of every block's parameters that the bounds need, stacked over layers."""
    weights = block_weights(_widened(model.blocks))
    if model.config.shared_layers:
        weights = jax.tree.map(lambda leaf: jnp.repeat(leaf, model.config.layers, axis=0), weights)
    return jax.lax.map(lambda block: block_norms(block, model.config.activation), weights)


def block_weights(block: Block) -> BlockWeights:
    """A block's parameters as the theory names them."""
    return BlockWeights(
        value=block.attn.value.kernel,
        output=block.attn.output.kernel,
        scale_attn=block.norm_attn.scale,
        up=block.up.kernel,
        down=block.down.kernel,
        scale_mlp=block.norm_mlp.scale,
    )


@by_rows
def measure(
    model: Encoder, norms: BlockNorms, batch: Batch | ImageBatch, fusion: Fusion | None = None
) -> dict[str, Array]:
    """Every per-sentence quantity of one batch: [L+1 B] of hidden states, [L B] of blocks, [L B N] of heads.

    Args:
      model: the encoder.
      norms: `model_norms(model)`.
      batch: tokens, segments and mask, [B T], or images.
      fusion: layers to fuse and measure besides.

    Returns:
      name -> array, the names of `Diagnosis` and `RATES`; the stds as `std_attn_min`, `std_attn`, `std_attn_max`; what
      is fused after "fused/", [1 B] and of gates [K B].
    """

    def collect(narrow: BlockTrace) -> dict[str, Array]:
        trace = _widened(narrow)
        own = jax.tree.map(lambda stacked: stacked[trace.layer], norms)
        hidden = hidden_measures(trace.hidden, batch.mask)
        stacked = {} if fusion is None else {"stacked": trace.hidden}
        attention = _attention_metrics(model.config, trace, own, batch.mask)
        return {**stacked, **hidden, **_std_metrics(trace, batch.mask), **attention}

    # float32 products must be float32 products on every device: TPUs and GPUs round them to fewer bits unasked.
    with jax.default_matmul_precision("highest"):
        _, found = encode(model, batch, collect=collect)
        stacked = found.pop("stacked", None)
        first = hidden_measures(_widened(embed(model, batch)), batch.mask)
        everywhere = ladder.shi2022_rate(norms, model.config.activation, found["mixing_rate"], found["std_product"])
        found["L0"] = _where_known(found["actual"], everywhere)
    if not model.config.is_plain:  # XLA leaves out the sums of what does not speak of the blocks
        for key in (*set(RATES) - {"actual", *rungs(model.config)}, "threshold"):
            found[key] = jnp.full_like(found[key], jnp.nan)
    for key, value in first.items():
        found[key] = jnp.concatenate([value[None], found[key]])
    if fusion is not None:
        with jax.default_matmul_precision("highest"):
            fused = fused_measures(fusion, stacked, batch.mask)
        found |= {FUSED + key: value if key in GATES else value[None] for key, value in fused.items()}
    return found


def _std_metrics(trace: BlockTrace, mask: Array) -> dict[str, Array]:
    found = {}
    for key in ("std_attn", "std_mlp"):
        found[f"{key}_min"], found[key], found[f"{key}_max"] = metrics.std_range(getattr(trace, key), mask)
    return found


def rungs(config: EncoderConfig) -> tuple[str, ...]:
    """The bounds of `RATES` that speak of an encoder's blocks; in a pre-LN encoder L1 is the rate of its own blocks.

    >>> rungs(EncoderConfig.of("gpt2")), rungs(EncoderConfig.of("modernbert"))
    (('L1',), ())
    """
    return RATES[1:] if config.is_plain else ("L1",) if config.is_pre_norm else ()


def _attention_metrics(config: EncoderConfig, trace: BlockTrace, norms: BlockNorms, mask: Array) -> dict[str, Array]:
    mixing = metrics.mixing_rate(trace.attn, mask)
    state = ladder.BlockState(trace.input, trace.attn, trace.pre_attn, trace.std_attn, trace.std_mlp, mask, mixing)
    weights = block_weights(trace.block)
    actual = ladder.actual_rate(trace.input, trace.hidden, mask)
    rungs = {
        "L1": ladder.pre_norm_rate(norms, state, config.activation)
        if config.is_pre_norm
        else ladder.block_rate(norms, state),
        "L2": ladder.refined_rate(norms, state),
        "L2b": ladder.pairwise_rate(norms, state),
        "L3": ladder.operator_rate(weights, norms, state)[0],
        "L4": ladder.data_rate(norms, state),
    }
    return {
        "mixing_rate": mixing,
        "ergodicity_coefficient": metrics.ergodicity_coefficient(trace.attn, mask),
        "attention_entropy": metrics.attention_entropy(trace.attn, mask),
        "std_product": ladder.std_product(state),
        "threshold": ladder.contraction_threshold(norms, state),
        "actual": actual,
        **{key: _where_known(actual, rung) for key, rung in rungs.items()},
    }


def _where_known(actual: Array, rung: Array) -> Array:
    """The rung where there was a distance to stretch; from consensus, as of one token, all rates are undefined."""
    return jnp.where(jnp.isnan(actual), jnp.nan, rung)


def _widened(tree: Any) -> Any:
    """bfloat16 arrays as float32: a bfloat16 model is measured in float32."""
    return jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x, tree)


def _measured(
    model: Encoder, norms: BlockNorms, batches: Iterable[EncodedBatch], fusion: Fusion | None
) -> Iterator[tuple[EncodedBatch, dict[str, Array]]]:
    """Each batch with its measurements, one batch behind: the device computes while the host tokenises."""
    waiting = None
    for encoded in batches:
        started = (encoded, measure(model, norms, encoded.batch, fusion))
        if waiting is not None:
            yield waiting
        waiting = started
    if waiting is not None:
        yield waiting


class _Running:
    """Count, mean, squared deviation and extrema over sentences (axis 1), merged batch by batch in float64.

    Chan, Golub and LeVeque (1983): merging (mean, deviation) pairs loses no digits to cancellation.
    """

    def __init__(self) -> None:
        self.count: NDArray | int = 0
        self.mean: NDArray | float = 0.0
        self.squares: NDArray | float = 0.0
        self.min: NDArray | float = np.inf
        self.max: NDArray | float = -np.inf

    def add(self, values: NDArray[np.float64]) -> None:
        real = ~np.isnan(values)
        count = real.sum(axis=1)
        known = np.where(real, values, 0)
        some = np.maximum(count, 1)
        mean = known.sum(axis=1) / some
        squares = (np.where(real, values - mean[:, None], 0) ** 2).sum(axis=1)
        total = np.maximum(self.count + count, 1)
        step = mean - self.mean
        self.squares = self.squares + squares + step**2 * self.count * count / total
        self.mean = self.mean + step * count / total
        self.count = self.count + count
        self.min = np.minimum(self.min, np.where(real, values, np.inf).min(axis=1))
        self.max = np.maximum(self.max, np.where(real, values, -np.inf).max(axis=1))

    def spread(self) -> Spread:
        count = np.asarray(self.count, np.int64)
        none = count == 0

        def known(values: Any) -> NDArray[np.float64]:
            return np.where(none, np.nan, values)

        std = np.sqrt(self.squares / np.maximum(count, 1))
        return Spread(known(self.mean), known(std), known(self.min), known(self.max), count)


def _token_spread(spreads: dict[str, Spread], key: str) -> Spread:
    """Mean and std over the sentences' token means; extrema over all tokens."""
    middle, low, high = spreads[key], spreads[f"{key}_min"], spreads[f"{key}_max"]
    return Spread(middle.mean, middle.std, low.min, high.max, middle.count)


class _Chooser:
    """The longest sentence of at most EXEMPLAR_TOKENS tokens, the first in the alphabet among equals."""

    def __init__(self) -> None:
        self.best: tuple[int, str] | None = None
        self.tokens: NDArray | None = None

    def offer(self, encoded: EncodedBatch, lengths: NDArray, texts: dict[int, str]) -> None:
        if not isinstance(encoded.batch, Batch):  # an image has no tokens to spell out
            return
        for row, (index, length) in enumerate(zip(encoded.indices.tolist(), lengths.tolist(), strict=True)):
            text = texts.pop(index)
            rank = (-length, text)
            if length <= EXEMPLAR_TOKENS and (self.best is None or rank < self.best):
                self.best, self.tokens = rank, np.asarray(encoded.batch.tokens[row, :length])

    def exemplar(self, model: Encoder, tokenizer: Tokenizer | None) -> Exemplar | None:
        if self.best is None or self.tokens is None or tokenizer is None:
            return None
        text, length = self.best[1], -self.best[0]
        tokens = np.full((1, EXEMPLAR_TOKENS), model.config.pad_token, np.int32)
        tokens[0, :length] = self.tokens
        tokens = tokens[:, : model.config.max_length]
        mask = np.arange(tokens.shape[1])[None] < length
        batch = Batch(tokens=jnp.asarray(tokens), segments=jnp.zeros_like(tokens), mask=jnp.asarray(mask))
        cosine, attn = _token_maps(model, batch)
        return Exemplar(
            text=text,
            tokens=tuple(tokenizer.strings(self.tokens)),
            cosine=np.asarray(cosine[:, 0, :length, :length], np.float32),
            attn=np.asarray(attn[:, 0, :, :length, :length], np.float32),
        )


@jax.jit
def _token_maps(model: Encoder, batch: Batch) -> tuple[Array, Array]:
    _, trace = encode(model, batch, collect=keep_trace)
    hidden = jnp.concatenate([embed(model, batch)[None], trace.hidden])
    return metrics.cosine_matrix(hidden, jnp.broadcast_to(batch.mask[None], hidden.shape[:-1])), trace.attn


def _remember(texts: Iterable[str], seen: dict[int, str]) -> Iterator[str]:
    """The same texts; `seen` holds those on their way through a batch, for whoever takes them out again."""
    for index, text in enumerate(texts):
        seen[index] = text
        yield text


def progress_bar(shown: bool) -> Progress:
    """A bar on stderr that counts sentences and leaves nothing behind."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("sentences"),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    return Progress(*columns, console=console, disable=not (shown and console.is_terminal), transient=True)


def model_summary(model: Encoder, name: str, note: str) -> ModelSummary:
    """What a report says of a model."""
    leaves = jax.tree.leaves(model)
    config = model.config
    return ModelSummary(
        name=name,
        family=config.family,
        layers=config.layers,
        heads=config.heads,
        width=config.width,
        mlp_width=config.mlp_width,
        activation=config.activation,
        parameters=sum(leaf.size for leaf in leaves),
        precision=str(leaves[0].dtype),
        note="; ".join(filter(None, (config.note, note))),
        departures=config.departures,
        rungs=rungs(config),
    )


def package_versions() -> dict[str, str]:
    """Versions of what the numbers depend on, and the device."""
    packages = ("jaxsmooth", "jax", "jaxlib", "flax", "numpy", "tokenizers")
    found = {package: importlib.metadata.version(package) for package in packages}
    return {**found, "device": jax.devices()[0].device_kind}
