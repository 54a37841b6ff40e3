"""`converge`: attention iterated as it is, head by head, or one of the model's own maps with everything recomputed."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..bert.encoder import encode
from ..bert.params import Encoder
from ..bert.positions import visible_tokens
from ..errors import TextError, arguments_checked, is_number, require_int
from ..inputs.tokenizer import Tokenizer
from ..programs import kept
from ..results.convergence import CONVERGENCE, HeadConvergence
from ..results.each_text import Choice, TextKeeper, checked
from ..results.fate import MapConvergence
from ..results.spread import RunningSpreads, Spread
from ..results.tables import write_texts
from ..theory import allowed_pairs, masked_attention
from ..theory import converge as converge_operator
from ..types import Batch, BlockTrace, ImageBatch
from .fate.study import converge_map
from .finite import finite_rows, refuse_diverged
from .stream import TextStream
from .summaries import model_summary, package_versions

OPERATORS = ("full", "causal", "window", "symmetric")


@arguments_checked
def converge(
    model: Encoder,
    tokenizer: Tokenizer | None,
    texts: Iterable[Any],
    *,
    map: str = "frozen",
    layer: int | None = None,
    window: int = 4,
    steps: int | None = None,
    tolerance: float | None = None,
    std: float | Sequence[float] | None = None,
    basin: int = 0,
    each_text: Choice = False,
    **options: Any,
) -> HeadConvergence | MapConvergence:
    """Where do the tokens go when attention, a layer or the whole stack is applied again and again?

    Args:
      model: the encoder; its dtype is the precision.
      tokenizer: its tokenizer; None for a vision encoder.
      texts: sentences, any iterable of strings; for a vision encoder images, each [C Y X].
      map: "frozen" for every head's attention matrix as it is in the model's run, see `converge_heads`; "attention",
        "attention-values", "layer" or "stack" for the real map, see `converge_map`.
      layer: of a real map: which block, from 1; all unless given.
      window: of the frozen map: tokens in the sliding window.
      steps: the most applications; 256 of a frozen matrix, 200 of a real map unless given.
      tolerance: relative distance that counts as none; 1e-3 for a frozen matrix, 1e-9 (in float32 1e-5) for a real map
        unless given.
      std: of the maps layer and stack: imposed on both norms; several for a sweep.
      basin: of a real map: halvings of the interval in which the basin of consensus ends; 0 to leave it out.
      each_text: of the frozen map: see `converge_heads`. A `MapConvergence` holds every sentence's numbers anyway, and
        they are written where a path is asked for.
      **options: `name`, `data`, `note`, `tokens_per_batch`, `progress` and `programs` of both.

    Returns:
      A `HeadConvergence` of the frozen map, else a `MapConvergence`.

    Raises:
      TextError, OptionError, DivergedError: as the two studies.

    >>> import jaxsmooth
    >>> model, tokenizer = jaxsmooth.load("tiny")
    >>> jaxsmooth.converge(model, tokenizer, ["Dull."], map="attention", layer=1, steps=20).maps[0].fate
    ('consensus',)
    """
    if map != "frozen":
        checked(each_text)  # before the work, not after it
        own: dict[str, Any] = {"layer": layer, "tolerance": tolerance, "std": std, "basin": basin}
        own["steps"] = 200 if steps is None else steps
        found = converge_map(model, tokenizer, texts, map=map, **own, **options)
        write_texts(found, each_text)
        return found
    if layer is not None or std is not None or basin:
        raise TextError(
            "layer, std and basin do not go with map=frozen, which takes the attention of every layer as it is. "
            "Choose another map, such as layer."
        )
    frozen: dict[str, Any] = {"window": window, "steps": 256 if steps is None else steps}
    frozen["tolerance"] = 1e-3 if tolerance is None else tolerance
    return converge_heads(model, tokenizer, texts, **frozen, each_text=each_text, **options)


@arguments_checked
def converge_heads(
    model: Encoder,
    tokenizer: Tokenizer | None,
    texts: Iterable[Any],
    *,
    name: str = "model",
    data: str = "texts",
    note: str = "",
    window: int = 4,
    steps: int = 256,
    tolerance: float = 1e-3,
    tokens_per_batch: int = 512,
    each_text: Choice = False,
    progress: bool = False,
    programs: Path | None = None,
) -> HeadConvergence:
    """Iterate the attention of every layer, head and sentence on the head's own values, as four operators.

    The scores are the model's. "full" is its own attention A; "causal" and "window" are the softmax of the same scores
    over the past and over the last `window` tokens, always among the tokens that the model itself lets a token see.
    "symmetric" is the graph convolution D^(-1/2) E D^(-1/2), E the exp of the scores' symmetric part, whose subspace is
    span(D^(1/2) 1) in place of the equal tokens. What is iterated is A^k V, V the values the head would mix.

    Args:
      model: the encoder; its dtype is the precision of the measurement.
      tokenizer: its tokenizer; None for a vision encoder.
      texts: sentences, any iterable of strings; for a vision encoder images, each [C Y X].
      name: the model's name, for the report.
      data: the text's name, for the report.
      note: a warning to print with the model.
      window: tokens in the sliding window, the query included.
      steps: how often each matrix is applied.
      tolerance: relative distance to the limit that counts as having arrived.
      tokens_per_batch: size of a batch, padding included.
      each_text: keep every text's numbers besides: True in memory (of very many texts a random sample, see
        `results.each_text`), a number for at most so many, or a path that ends in .parquet to write them of all texts
        to that file as they come. `texts_table(found)` and `found.to_pandas(each_text=True)` give them.
      progress: whether to show a progress bar on stderr.
      programs: folder of traced programs, which another process need not trace again (see `programs.kept`). With it two
        batches are computed at once on one device.

    Returns:
      A `HeadConvergence`.

    Raises:
      TextError: no text, something that is not text, or a number out of range.
      OptionError: an `each_text` that is none of these.
      DivergedError: numbers that are not finite; names the first layer and array.

    >>> import jaxsmooth
    >>> from jaxsmooth.studies.converge import converge_heads
    >>> model, tokenizer = jaxsmooth.load("tiny")
    >>> found = converge_heads(model, tokenizer, ["Dull."], steps=64)
    >>> found.operators["causal"]["limit_held"].mean.shape == (model.config.layers, model.config.heads)
    True
    """
    require_int("window", window, 1, TextError)
    require_int("steps", steps, 2, TextError)
    if not (is_number(tolerance) and 0 < tolerance < np.inf):
        raise TextError(f"tolerance must be a finite number above 0; got {tolerance!r}.")
    stream = TextStream(model, tokenizer, texts, "iterating", tokens_per_batch=tokens_per_batch, progress=progress)
    running, iterate = RunningSpreads(finite=True), kept(iterate_heads, programs, steps=steps, tolerance=tolerance)
    with stream, TextKeeper(each_text, "operator") as keeper:
        for encoded, measured in stream.computed(lambda e: iterate.start(stream.model, e.batch, jnp.int32(window))):
            refuse_diverged(stream.model, encoded, measured)
            by_sentence = {key: np.moveaxis(np.asarray(values), 2, 1) for key, values in measured.items()}
            running.add(by_sentence, len(encoded.indices))
            keeper.add({name: _at_operator(by_sentence, k) for k, name in enumerate(OPERATORS)}, encoded.indices)
    spreads = running.spreads()
    return HeadConvergence(
        model=model_summary(model, name, note),
        data=stream.summary(data),
        window=window,
        steps=steps,
        tolerance=tolerance,
        operators={name: _of_operator(spreads, k) for k, name in enumerate(OPERATORS)},
        versions=package_versions(),
        each=keeper.found(),
    )


@jax.jit(static_argnames=("steps", "tolerance"))
def iterate_heads(
    model: Encoder, batch: Batch | ImageBatch, window: Array, *, steps: int, tolerance: float
) -> dict[str, Array]:
    """The numbers of `theory.Convergence` for every layer, operator, sentence and head, [L M B N].

    Args:
      model: the encoder.
      batch: tokens, segments and mask, [B T].
      window: tokens in the sliding window, the query included.
      steps: how often each matrix is applied.
      tolerance: relative distance to the limit that counts as having arrived.

    Returns:
      name -> array, the names of `CONVERGENCE`; predicted and observed steps are at most `steps` + 1, and the
      transient is NaN where the iteration ended before it arrived.
    """
    all_of_them, none = jnp.int32(batch.mask.shape[1]), 0 * window
    behind = jnp.stack([all_of_them, all_of_them, window - 1, all_of_them])
    ahead = jnp.stack([all_of_them, none, none, all_of_them])
    kinds = behind, ahead, jnp.arange(len(OPERATORS)) == OPERATORS.index("symmetric")

    def one(logits: Array, values: Array, mask: Array, visible: Array | None, kind: tuple) -> dict[str, Array]:
        behind, ahead, symmetric = kind
        allowed = allowed_pairs(mask, behind=behind, ahead=ahead)
        allowed = allowed if visible is None else allowed & visible
        # One program for all: the symmetric normalisation is a softmax too, looked at through weights.
        both, either = _symmetric_part(logits, allowed)
        logits, allowed = jnp.where(symmetric, both, logits), jnp.where(symmetric, either, allowed)
        seen = jnp.where(allowed, logits, -jnp.inf)
        attn, weight = masked_attention(logits, allowed), jnp.where(symmetric, _root_degrees(seen, mask), 1)
        result = converge_operator(attn, values, mask, logits=seen, weight=weight, steps=steps, tolerance=tolerance)
        kept = {key: getattr(result, key).astype(logits.dtype) for key in CONVERGENCE}
        transient = jnp.where(result.arrived, result.transient, jnp.nan)
        return kept | {"transient": transient, "predicted_steps": jnp.minimum(result.predicted_steps, steps + 1)}

    heads = jax.vmap(one, in_axes=(0, 0, None, None, None))
    sentences = jax.vmap(heads, in_axes=(0, 0, 0, None, None))

    def collect(trace: BlockTrace) -> dict[str, Array]:
        visible = visible_tokens(model.config, trace.layer, batch.mask.shape[1])
        found = jax.lax.map(lambda kind: sentences(trace.attn_logits, trace.value, batch.mask, visible, kind), kinds)
        return found | {"finite": finite_rows(trace, batch.mask)}

    with jax.default_matmul_precision("highest"):
        return encode(model, batch, collect=collect)[1]


def _symmetric_part(logits: Array, allowed: Array) -> tuple[Array, Array]:
    """Each pair's mean score over the directions in which the model looks, and the pairs with such a direction."""
    seen, counted = jnp.where(allowed, logits, 0), allowed.astype(logits.dtype)
    return (seen + seen.T) / jnp.maximum(counted + counted.T, 1), allowed | allowed.T


def _root_degrees(logits: Array, mask: Array) -> Array:
    """D^(1/2) of exp(logits) over its largest entry, 1 on padding."""
    logs = jax.nn.logsumexp(jnp.where(mask[:, None], logits, 0), axis=-1)
    return jnp.where(mask, jnp.exp((logs - jnp.max(logs, where=mask, initial=-jnp.inf)) / 2), 1)


def _at_operator(by_sentence: dict[str, np.ndarray], place: int) -> dict[str, np.ndarray]:
    """The numbers of one of the operators, [L B N], of those of all, [L B M N]."""
    return {key: by_sentence[key][:, :, place] for key in CONVERGENCE}


def _of_operator(spreads: dict[str, Spread], place: int) -> dict[str, Spread]:
    """The spreads of one of the operators, [L N], of those of all, [L M N]."""
    return {key: spreads[key].map(lambda field: field[:, place]) for key in CONVERGENCE}
