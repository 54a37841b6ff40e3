"""`verify`: every theorem on every layer, head and sentence of a real model, decided with rounding accounted for."""

import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..activations import ACTIVATIONS
from ..bert.attention import add_bias
from ..bert.block import attention_input
from ..bert.config import EncoderConfig
from ..bert.encoder import encode
from ..bert.params import Encoder
from ..errors import OptionError, arguments_checked, did_you_mean
from ..inputs.batching import EncodedBatch
from ..inputs.tokenizer import Tokenizer
from ..programs import kept
from ..results.each_text import HYPOTHESIS, THEOREM, Choice, TextKeeper
from ..results.verification import Verification
from ..theory.certify.catalogue import CATALOGUE, refusal
from ..theory.certify.enclosed_parameter_norms import enclosed_parameter_norms
from ..theory.statement import Verdict
from ..theory.theorems.exact_block import Architecture, Observation
from ..theory.theorems.registry import THEOREMS, Theorem, at_sites
from ..types import Batch, Block, BlockTrace, ImageBatch
from .finite import finite_rows, refuse_diverged, refuse_parameters
from .statements.hypotheses import ByHead, HypothesisStage, by_layer, chosen_hypotheses
from .stream import TextStream
from .summaries import model_summary, package_versions
from .verify_measured import MeasuredStage
from .verify_stages import WORTH_COMPILING, CompiledStage, Escalation, HostStage, Parameters, at_layer
from .verify_tally import BatchVerdicts, Tally


@arguments_checked
def verify(
    model: Encoder,
    tokenizer: Tokenizer | None,
    texts: Iterable[Any],
    *,
    name: str = "model",
    data: str = "texts",
    note: str = "",
    tokens_per_batch: int = 512,
    theorems: Sequence[str | Theorem] = (),
    hypotheses: Sequence[str] = (),
    each_text: Choice = False,
    progress: bool = False,
    programs: Path | None = None,
) -> Verification:
    """Check every theorem on every layer, head and sentence, so that no rounding error can decide a verdict.

    First what theorems assume of the model: each hypothesis HOLDS, FAILS or is UNDECIDED, see docs/hypotheses.md. The
    library's theorems themselves are proved; their verdicts check this implementation and its arithmetic, not the
    model. One of your own is evaluated, on these texts alone.

    Each inequality is evaluated with both sides enclosed, in float64: first by matrix products alone, compiled where
    there is much to do; where that leaves it open, with norms from a checked SVD; at last in Arb, to some 90 digits.
    The lemmas take each array that the model computed as exact input; the rates follow a block in exact arithmetic
    from its computed input and attention. exp, tanh and erf are taken to be within 32 units in the last place.

    Theorems about heads are checked in every family, on the attention's own input, except that those about scores
    need a model whose scores are by content alone. Those about blocks and their LayerNorms are about the post-LN
    block, and NOT_APPLICABLE where `EncoderConfig.is_plain` is false.

    Args:
      model: the encoder, float32 or float64; the mathematics is float64 in either case.
      tokenizer: its tokenizer; None for a vision encoder.
      texts: sentences, any iterable of strings; for a vision encoder images, each [C Y X].
      name: the model's name, for the report.
      data: the text's name, for the report.
      note: a warning to print with the model ("random weights").
      tokens_per_batch: size of a batch, padding included.
      theorems: names of those to check, see docs/theorems.md, and your own, made by `theory.own_theorem`; by default
        all of the library's that are certified. A violation of your own says that it is wrong.
      hypotheses: names of those to decide, see docs/hypotheses.md; by default all. Where only theorems are named, no
        hypothesis is decided, and the other way round.
      each_text: keep both sides and the verdict of every check of each text, and of every hypothesis the number that
        decides and the verdict: True in memory (of very many texts a random sample, see `results.each_text`), a number
        for at most so many, or a path that ends in .parquet to write them of all texts to that file as they come, the
        hypotheses' beside it, in NAME-hypotheses.parquet. `texts_table(found)` and `found.to_pandas(each_text=True)`
        give the checks, `found.each_hypothesis.table()` the hypotheses.
      progress: whether to show a progress bar on stderr.
      programs: folder of traced programs, which another process need not trace again (see `programs.kept`). With it two
        batches are computed at once on one device.

    Returns:
      A `Verification`.

    Raises:
      TextError: no text, or something that is not text.
      ShapeError: a tokenizer that does not fit the model.
      OptionError: a theorem or hypothesis of an unknown name, an `each_text` that is none of these, or a theorem that
        needs what a model on text does not provide.
      DivergedError: numbers that are not finite; names the first layer and array.

    >>> import jaxsmooth
    >>> model, tokenizer = jaxsmooth.load("tiny")
    >>> jaxsmooth.verify(model, tokenizer, ["A film worth seeing."]).violated
    False
    """
    own, asked = _own(theorems), chosen_hypotheses(hypotheses, everything=not theorems)
    named = [name for name in theorems if isinstance(name, str)]
    names = (*(_chosen(named) if named or not (own or hypotheses) else ()), *own)
    tally, keeper = Tally(names), TextKeeper(each_text if names else False, THEOREM)
    asked_keeper = TextKeeper(_beside(each_text) if asked else False, HYPOTHESIS)
    stream = TextStream(model, tokenizer, texts, "verifying", tokens_per_batch=tokens_per_batch, progress=progress)
    # An iterator of unknown length is assumed long.
    units = len(texts) * model.config.layers if isinstance(texts, Sized) else np.inf
    with stream, keeper, asked_keeper:
        checker = _Checker(stream.model, names, asked, compiled=units >= WORTH_COMPILING, own=own, programs=programs)
        for encoded, observed in stream.computed(checker.observe):
            found, decided = checker.check(encoded, observed, tally)
            _keep(keeper, _sides, found, encoded)
            _keep(asked_keeper, by_layer, decided, encoded)
    return Verification(
        model=model_summary(model, name, note),
        data=stream.summary(data),
        checks=tally.checks(),
        theorems=tally.theorems(lambda name: (THEOREMS | CATALOGUE | own)[name].source, own),
        stages=dict(tally.stages),
        versions=package_versions(),
        hypotheses=checker.hypotheses.tally.summaries(),
        hypothesis_checks=checker.hypotheses.tally.checks(),
        each=keeper.found(),
        each_hypothesis=asked_keeper.found(),
    )


def _keep(keeper: TextKeeper, sides: Callable[[Any], Any], found: Mapping[str, Any], encoded: EncodedBatch) -> None:
    if keeper:
        keeper.add({name: sides(layers) for name, layers in found.items()}, encoded.indices)


def _beside(each_text: Choice) -> Choice:
    """Where the hypotheses' values go: a file of their own, beside that of the theorems."""
    if not isinstance(each_text, (str, os.PathLike)):
        return each_text
    path = Path(each_text)
    return path.with_name(f"{path.stem}-hypotheses{path.suffix}")


def _own(theorems: Sequence[str | Theorem]) -> dict[str, Theorem]:
    """The user's own among the theorems asked for, by name."""
    if isinstance(theorems, str) or not isinstance(theorems, Sequence):
        raise OptionError(f"theorems must be a list of names and theorems of your own; got {theorems!r:.80}.")
    wrong = next((one for one in theorems if not isinstance(one, str | Theorem)), None)
    if wrong is not None:
        raise OptionError(
            f"a theorem must be a name, or a function with the decorator theory.own_theorem; got {wrong!r:.80}."
        )
    given = [part for one in theorems if isinstance(one, Theorem) for part in at_sites(one)]
    own = {one.name: one for one in given}
    if len(own) < len(given) or own.keys() & {*THEOREMS, *CATALOGUE}:
        raise OptionError(f"theorems need names of their own; got {', '.join(one.name for one in given)}.")
    return own


def _chosen(theorems: Sequence[str]) -> tuple[str, ...]:
    """In the order of the registry, then of the catalogue; all of the registry where none is named."""
    known = (*THEOREMS, *(name for name in CATALOGUE if name not in THEOREMS))
    for name in theorems:
        if name not in known:
            raise OptionError(f"there is no theorem {name!r}.{did_you_mean(name, known)} There are {', '.join(known)}.")
        if name not in THEOREMS and (reason := refusal(name)):
            raise OptionError(reason)
    return tuple(name for name in known if name in theorems) if theorems else tuple(THEOREMS)


class _Checker:
    """The three stages, with what they need to know of the model."""

    def __init__(
        self,
        model: Encoder,
        names: tuple[str, ...],
        asked: tuple[str, ...] = (),
        *,
        compiled: bool = False,
        own: Mapping[str, Theorem] = MappingProxyType({}),
        programs: Path | None = None,
    ) -> None:
        """`names` are the theorems wanted, `asked` the hypotheses; `compiled`: the first stage is worth compiling.

        `own` are the user's theorems by name, `programs` is the folder of traced programs.
        """
        refuse_parameters(model)
        self.model, self.names, self.own = model, names, own
        blocks = host_blocks(model)
        architecture = Architecture(model.config.eps, model.config.activation)
        self.parameters = Parameters(blocks, enclosed_parameter_norms(blocks), architecture)
        self.escalation = Escalation(self.parameters)
        self.applicable = applicable(model.config, own)
        stage = functools.partial(CompiledStage, programs=programs) if compiled else HostStage
        self.observation = kept(_observe, programs, structs=(Observation,))
        wanted = tuple(name for name in names if name in self.applicable)
        self.hypotheses = HypothesisStage(self.parameters, model.config, asked)
        certified = tuple(own.get(name, name) for name in wanted if name in own or name in THEOREMS)
        self.stage = stage(self.parameters, (*certified, *self.hypotheses.of_blocks))
        self.measured = MeasuredStage(
            self.parameters, tuple(name for name in wanted if name not in THEOREMS and name not in own)
        )

    def observe(self, encoded: EncodedBatch) -> Callable[[], tuple[Observation, Array]]:
        """What the model does on a batch, to be computed on another thread."""
        return self.observation.start(self.model, encoded.batch)

    def check(
        self, encoded: EncodedBatch, observed: tuple[Observation, Array], tally: Tally
    ) -> tuple[dict[str, list[BatchVerdicts]], dict[str, list[ByHead]]]:
        """All theorems and hypotheses on one batch; returns what was found, by name, of every layer."""
        seen, finite = jax.tree.map(np.asarray, observed)
        refuse_diverged(self.model, encoded, {"finite": finite})
        lengths = np.asarray(encoded.batch.mask.sum(axis=1))[: len(encoded.indices)].tolist()
        first = self.stage(seen, lengths)
        measured = self.measured(seen, lengths)
        decided = self.hypotheses.check(seen, lengths, first, encoded.indices)
        every: dict[str, list[BatchVerdicts]] = {theorem: [] for theorem in self.names}
        for layer in range(len(self.parameters.blocks)):
            for theorem in self.names:
                if theorem not in self.applicable:
                    found = BatchVerdicts.inapplicable(len(lengths))
                elif theorem in measured:
                    found = BatchVerdicts.of(at_layer(measured[theorem], layer), lengths).measured()
                else:
                    found = BatchVerdicts.of(at_layer(first.statements[theorem], layer), lengths)
                    self.escalation.settle(self.own.get(theorem, theorem), layer, found, seen, lengths, first)
                tally.add(theorem, layer + 1, found, encoded.indices)
                every[theorem].append(found)
        return every, decided


def _sides(layers: list[BatchVerdicts]) -> dict[str, np.ndarray]:
    """Both sides, rounded against the verdict as in a `Check`, and the verdict; [L B] or, of heads, [L B N]."""
    sides: dict[str, list[np.ndarray]] = {"lhs": [], "rhs": [], "verdict": []}
    for own in layers:
        violated, none = own.verdicts == Verdict.VIOLATED, own.verdicts == Verdict.NOT_APPLICABLE
        lhs, rhs = np.where(violated, own.lhs.lower, own.lhs.upper), np.where(violated, own.rhs.upper, own.rhs.lower)
        sides["lhs"].append(np.where(none, np.nan, lhs))
        sides["rhs"].append(np.where(none, np.nan, rhs))
        sides["verdict"].append(own.verdicts)
    return {name: np.stack(parts) for name, parts in sides.items()}


def applicable(config: EncoderConfig, own: Mapping[str, Theorem] = MappingProxyType({})) -> frozenset[str]:
    """The theorems that are about such an encoder; `own` are the user's."""
    needs = {"head": True, "scores": config.has_plain_scores, "block": config.is_plain, "norm": config.is_plain}
    measured = (name for name, entry in CATALOGUE.items() if entry.about and needs[entry.about])
    return frozenset((*(name for name, theorem in (THEOREMS | {**own}).items() if needs[theorem.needs]), *measured))


def observe(model: Encoder, batch: Batch | ImageBatch) -> Observation:
    """What every block computed, [L B ...], zero on padding."""
    return _observe(model, batch)[0]


@jax.jit
def _observe(model: Encoder, batch: Batch | ImageBatch) -> tuple[Observation, Array]:
    """The same, and `finite_rows`, [L B]."""

    def collect(trace: BlockTrace) -> tuple[Observation, Array]:
        wide = add_bias(trace.normed @ trace.block.up.kernel, trace.block.up.bias)
        activated = ACTIVATIONS[model.config.activation].function(wide)
        real = batch.mask[..., None]
        attended = attention_input(model.config, trace)
        rows = (attended, trace.mixed, trace.pre_attn, trace.normed, wide, activated, trace.mlp, trace.pre_mlp)
        hidden, *others = (jnp.where(real, x, 0) for x in rows)
        seen = Observation(hidden, jnp.where(real[:, None], trace.attn, 0), *others)
        return seen, finite_rows(trace, batch.mask)

    with jax.default_matmul_precision("highest"):
        return encode(model, batch, collect=collect)[1]


def host_blocks(model: Encoder) -> list[Block]:
    """The parameters of every layer, numpy arrays in float64."""
    stacked = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), model.blocks)
    stored = 1 if model.config.shared_layers else model.config.layers
    blocks = [jax.tree.map(lambda leaf, k=k: leaf[k], stacked) for k in range(stored)]
    return blocks * (model.config.layers // stored)
