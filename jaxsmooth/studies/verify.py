"""`verify`: every theorem on every layer, head and sentence of a real model, decided with rounding accounted for."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ..activations import ACTIVATIONS
from ..bert.attention import add_bias
from ..bert.block import attention_input
from ..bert.config import EncoderConfig
from ..bert.encoder import encode
from ..bert.params import Encoder
from ..inputs.batching import EncodedBatch
from ..inputs.tokenizer import Tokenizer
from ..linalg.enclosed_norms import squared_norm
from ..linalg.intervals import Ball, Interval, fuzzy
from ..results.verification import Verification
from ..theory.certify import theorems
from ..theory.certify.float_calculus import HostCalculus
from ..theory.certify.observations import BlockParameters, HeadWeights, KnownNorms, SentenceData, known_norms
from ..theory.statement import Claim, Verdict, compare
from ..types import Batch, Block, BlockTrace, ImageBatch
from .stream import TextStream
from .summaries import model_summary, package_versions
from .verify_stages import WORTH_COMPILING, CompiledStage, Decider, HostStage, crop
from .verify_tally import Outcome, Tally


def verify(
    model: Encoder,
    tokenizer: Tokenizer | None,
    texts: Iterable[Any],
    *,
    name: str = "model",
    data: str = "texts",
    note: str = "",
    tokens_per_batch: int = 512,
    progress: bool = False,
) -> Verification:
    """Check every theorem on every layer, head and sentence, so that no rounding error can decide a verdict.

    Each inequality is evaluated with both sides enclosed, in float64: first by matrix products alone, compiled where
    there is much to do; where that leaves it open, with norms from a checked SVD; at last in Arb, to some 90 digits.
    The lemmas take each array that the model computed as exact input; the rates follow a block in exact arithmetic
    from its computed input and attention. exp, tanh and erf are taken to be within 32 units in the last place.

    What is said of heads is checked in every family, on the attention's own input, except that theorems on
    scores speak only of a model whose scores are by content alone. What is said of blocks and of their LayerNorms
    speaks of the post-LN block, and is NOT_APPLICABLE where `EncoderConfig.is_plain` is false.

    Args:
      model: the encoder, float32 or float64; the mathematics is float64 in either case.
      tokenizer: its tokenizer; None for a vision encoder.
      texts: sentences, any iterable of strings; for a vision encoder images, each [C Y X].
      name: the model's name, for the report.
      data: the text's name, for the report.
      note: a warning to print with the model ("random weights").
      tokens_per_batch: size of a batch, padding included.
      progress: whether to show a progress bar on stderr.

    Returns:
      A `Verification`.

    Raises:
      TextError: no text, or something that is not text.
      ShapeError: a tokenizer that does not fit the model.

    >>> import jaxsmooth
    >>> model, tokenizer = jaxsmooth.load("tiny")
    >>> jaxsmooth.verify(model, tokenizer, ["A film worth seeing."]).violated
    False
    """
    tally = Tally(theorems.NAMES)
    total = len(texts) if isinstance(texts, (list, tuple)) else None
    # Of texts that cannot be counted beforehand, many are taken to be coming.
    units = np.inf if total is None else total * model.config.layers
    stream = TextStream(model, tokenizer, texts, "verifying", tokens_per_batch=tokens_per_batch, progress=progress)
    with stream:
        checker = _Checker(model, compiled=units >= WORTH_COMPILING)
        for encoded in stream:
            checker.check(encoded, tally)
    return Verification(
        model=model_summary(model, name, note),
        data=stream.summary(data),
        checks=tally.checks(),
        theorems=tally.theorems(theorems.source),
        stages=dict(tally.stages),
        versions=package_versions(),
    )


class _Checker:
    """The three stages, with what they need to know of the model."""

    def __init__(self, model: Encoder, *, compiled: bool = False) -> None:
        """`compiled`: whether the first stage is worth compiling."""
        self.model = model
        stacked = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), model.blocks)
        stored = 1 if model.config.shared_layers else model.config.layers
        blocks = [jax.tree.map(lambda leaf, k=k: leaf[k], stacked) for k in range(stored)]
        blocks = blocks * (model.config.layers // stored)
        self.blocks = [block_parameters(model.config, block) for block in blocks]
        self.norms = parameter_norms(self.blocks)
        self.decider = Decider(self.blocks, self.norms)
        self.applicable = applicable(model.config)
        heads = tuple(name for name in theorems.HEAD_NAMES if name in self.applicable)
        stage = CompiledStage if compiled else HostStage
        self.stage = stage(self.blocks, self.norms, heads, plain=model.config.is_plain)

    def check(self, encoded: EncodedBatch, tally: Tally) -> None:
        """All theorems on one batch."""
        seen = jax.tree.map(np.asarray, observe(self.model, encoded.batch))
        lengths = np.asarray(encoded.batch.mask.sum(axis=1))[: len(encoded.indices)].tolist()
        layers = range(len(self.blocks))
        data, claims = self.stage([[crop(seen, k, row, tokens) for row, tokens in enumerate(lengths)] for k in layers])
        for layer in layers:
            for theorem in theorems.NAMES:
                if theorem not in self.applicable:
                    tally.add(theorem, layer + 1, _no_outcome(len(lengths)), encoded.indices)
                    continue
                outcome = _outcome(claims[layer][theorem], lengths)
                self.decider.settle(theorem, layer, outcome, data[layer])
                tally.add(theorem, layer + 1, outcome, encoded.indices)


def applicable(config: EncoderConfig) -> frozenset[str]:
    """The theorems that speak of such an encoder."""
    names = frozenset(theorems.NAMES if config.is_plain else theorems.HEAD_NAMES)
    return names if config.has_plain_scores else names - set(theorems.SCORE_THEOREMS)


def _outcome(claim: Claim, lengths: list[int]) -> Outcome:
    """One theorem on every sentence of a batch; one token alone is in consensus, and no theorem speaks of it."""
    lhs, rhs = claim.lhs, claim.rhs
    enough = (np.array(lengths) > 1).reshape(-1, *(1,) * (lhs.down.ndim - 1))
    return Outcome(np.array(compare(lhs, rhs, enough)), lhs.down, lhs.up, rhs.down, rhs.up)


def _no_outcome(sentences: int) -> Outcome:
    """A theorem that does not speak of the model: no numbers for any sentence."""
    none = np.full(sentences, np.nan)
    return Outcome(np.full(sentences, Verdict.NOT_APPLICABLE.value, np.int8), none, none, none, none)


@jax.jit
def observe(model: Encoder, batch: Batch | ImageBatch) -> SentenceData:
    """What every block computed, [L B ...], zero on padding; the enclosures are left out."""

    def collect(trace: BlockTrace) -> SentenceData:
        wide = add_bias(trace.normed @ trace.block.up.kernel, trace.block.up.bias)
        activated = ACTIVATIONS[model.config.activation].function(wide)
        real = batch.mask[..., None]
        attended = attention_input(model.config, trace)
        rows = (attended, trace.mixed, trace.pre_attn, trace.normed, wide, activated, trace.mlp, trace.pre_mlp)
        hidden, mixed, pre_attn, normed, wide, activated, mlp, pre_mlp = (jnp.where(real, x, 0) for x in rows)
        attn = jnp.where(real[:, None], trace.attn, 0)
        return SentenceData(hidden, attn, mixed, pre_attn, normed, wide, activated, mlp, pre_mlp, None, None)

    with jax.default_matmul_precision("highest"):
        return encode(model, batch, collect=collect)[1]


def block_parameters(config: EncoderConfig, block: Block) -> BlockParameters:
    """One block's parameters as the theorems name them; a bias that the model lacks is zero."""
    attn = block.attn
    query, key, value = (side.kernel.transpose(1, 0, 2) for side in (attn.query, attn.key, attn.value))
    sides = (attn.query, attn.key, attn.value)
    biases = [_or_zero(side.bias, np.shape(side.kernel)[1:])[:, None] for side in sides]
    width = block.norm_attn.scale.shape
    return BlockParameters(
        heads=HeadWeights(query, biases[0], key, biases[1], value, biases[2], attn.output.kernel),
        output_bias=_or_zero(attn.output.bias, width),
        scale_attn=block.norm_attn.scale,
        bias_attn=_or_zero(block.norm_attn.bias, width),
        up=block.up.kernel,
        up_bias=_or_zero(block.up.bias, block.up.kernel.shape[1:]),
        down=block.down.kernel,
        down_bias=_or_zero(block.down.bias, width),
        scale_mlp=block.norm_mlp.scale,
        bias_mlp=_or_zero(block.norm_mlp.bias, width),
        eps=config.eps,
        activation=config.activation,
    )


def _or_zero(bias: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    return np.zeros(shape) if bias is None else np.asarray(bias)


def parameter_norms(blocks: list[BlockParameters]) -> list[KnownNorms]:
    """Encloses the norms of every block's parameters."""
    calculus = HostCalculus(np.ones(1, bool), np.float64)

    def norm(matrix: Ball) -> Interval:
        return fuzzy(squared_norm(matrix.middle), matrix.radius)

    norms = [known_norms(block, norm, calculus) for block in blocks]
    largest = Interval(*(np.max([getattr(n.largest, end) for n in norms]) for end in ("down", "up")))
    return [known._replace(largest=largest) for known in norms]
