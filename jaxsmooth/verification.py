"""`verify`: every theorem on every layer, head and sentence of a real model, decided with rounding accounted for."""

import warnings
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from .analysis import model_summary, package_versions, progress_bar
from .bert.config import EncoderConfig
from .bert.encoder import ACTIVATION_FUNCTIONS, encode
from .bert.params import Block, Encoder
from .decision import Decider, crop
from .diagnosis import DataSummary
from .errors import TextError
from .tally import Outcome, Tally
from .text import EncodedBatch, Tokenizer, TruncationWarning
from .theory import theorems
from .theory.certify import Claim, compare
from .theory.enclosures import FloatCalculus, HostCalculus
from .theory.facts import (
    BlockFacts,
    BlockParameters,
    HeadWeights,
    KnownNorms,
    SentenceData,
    head_facts,
    known_norms,
)
from .theory.norms import squared_norm
from .theory.rounding import Ball, Interval, fuzzy, quiet
from .types import Batch, BlockTrace
from .verified import Verification


def verify(
    model: Encoder,
    tokenizer: Tokenizer,
    texts: Iterable[str],
    *,
    name: str = "model",
    data: str = "texts",
    note: str = "",
    tokens_per_batch: int = 512,
    progress: bool = False,
) -> Verification:
    """Check every theorem on every layer, head and sentence, so that no rounding error can decide a verdict.

    Each inequality is evaluated with both sides enclosed, in float64: first by matrix products alone; where that
    leaves it open, with norms from a checked SVD; at last in Arb, to some 90 digits. The lemmas take each
    array that the model computed as exact input; the rates follow a block in exact arithmetic from its computed
    input and attention. exp, tanh and erf are taken to be within 32 units in the last place.

    Args:
      model: the encoder, float32 or float64; the mathematics is float64 in either case.
      tokenizer: its tokenizer.
      texts: sentences; any iterable of strings.
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
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise TextError(f"texts must be a series of strings; got {type(texts).__name__}. Wrap one string in a list.")
    tally = Tally(theorems.NAMES)
    sentences = tokens = truncated = 0
    total = len(texts) if isinstance(texts, (list, tuple)) else None
    with progress_bar(progress) as bar:
        checker = _Checker(model)
        task = bar.add_task("verifying", total=total)
        for encoded in tokenizer.batches(texts, tokens_per_batch=tokens_per_batch):
            checker.check(encoded, tally)
            rows = len(encoded.indices)
            sentences, tokens = sentences + rows, tokens + int(np.asarray(encoded.batch.mask[:rows]).sum())
            truncated += encoded.truncated
            bar.advance(task, rows)
    if truncated:
        message = f"{truncated} of {sentences} texts were cut to {model.config.max_length} tokens."
        warnings.warn(message, TruncationWarning, stacklevel=2)
    return Verification(
        model=model_summary(model, name, note),
        data=DataSummary(data, sentences, tokens, truncated),
        checks=tally.checks(),
        theorems=tally.theorems(theorems.source),
        stages=dict(tally.stages),
        versions=package_versions(),
    )


class _Checker:
    """The three stages, with what they need to know of the model."""

    def __init__(self, model: Encoder) -> None:
        self.model = model
        stacked = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), model.blocks)
        blocks = [jax.tree.map(lambda leaf, k=k: leaf[k], stacked) for k in range(model.config.layers)]
        self.blocks = [block_parameters(model.config, block) for block in blocks]
        self.norms = parameter_norms(self.blocks)
        self.decider = Decider(self.blocks, self.norms)

    def check(self, encoded: EncodedBatch, tally: Tally) -> None:
        """All theorems on one batch."""
        seen = jax.tree.map(np.asarray, observe(self.model, encoded.batch))
        lengths = np.asarray(encoded.batch.mask.sum(axis=1))[: len(encoded.indices)].tolist()
        layers = range(len(self.blocks))
        # Layers, then sentences.
        data = [[crop(seen, layer, row, tokens) for row, tokens in enumerate(lengths)] for layer in layers]
        heads = [[self._heads(layer, own) for own in data[layer]] for layer in layers]
        largest = [_largest([heads[layer][row][0] for layer in layers]) for row in range(len(lengths))]
        for layer in layers:
            data[layer] = [
                own._replace(mixing=mixing, largest_mixing=top)
                for own, (mixing, _), top in zip(data[layer], heads[layer], largest, strict=True)
            ]
            found = [
                by_head | self._block(layer, own) for own, (_, by_head) in zip(data[layer], heads[layer], strict=True)
            ]
            for theorem in theorems.NAMES:
                outcome = _outcome([claims[theorem] for claims in found], lengths)
                self.decider.settle(theorem, layer, outcome, data[layer])
                tally.add(theorem, layer + 1, outcome, encoded.indices)

    @quiet
    def _heads(self, layer: int, own: SentenceData) -> tuple[Interval, dict[str, Claim]]:
        """sqrt(lambda) of every head, [N], and the theorems about each."""
        calculus = FloatCalculus(np.ones(len(own.input), bool), np.float64)
        facts = [head_facts(calculus, self.blocks[layer], self.norms[layer], own, h) for h in range(len(own.attn))]
        claims = [theorems.head_claims(head) for head in facts]
        joined = {
            name: Claim(_joined([c[name].lhs for c in claims]), _joined([c[name].rhs for c in claims]))
            for name in claims[0]
        }
        return _joined([head.mixing for head in facts]), joined

    @quiet
    def _block(self, layer: int, own: SentenceData) -> dict[str, Claim]:
        calculus = FloatCalculus(np.ones(len(own.input), bool), np.float64)
        return theorems.block_claims(BlockFacts(calculus, self.blocks[layer], self.norms[layer], own))


def _joined(intervals: list[Interval]) -> Interval:
    return Interval(np.array([x.down for x in intervals]), np.array([x.up for x in intervals]))


def _largest(mixing: list[Interval]) -> Interval:
    return Interval(np.max([x.down for x in mixing]), np.max([x.up for x in mixing]))


def _outcome(claims: list[Claim], lengths: list[int]) -> Outcome:
    """One theorem on every sentence of a batch; one token alone is in consensus, and no theorem speaks of it."""
    lhs, rhs = _joined([claim.lhs for claim in claims]), _joined([claim.rhs for claim in claims])
    enough = (np.array(lengths) > 1).reshape(-1, *(1,) * (lhs.down.ndim - 1))
    return Outcome(np.array(compare(lhs, rhs, enough)), lhs.down, lhs.up, rhs.down, rhs.up)


@jax.jit
def observe(model: Encoder, batch: Batch) -> SentenceData:
    """What every block computed, [L B ...], zero on padding; the enclosures are left out."""

    def collect(trace: BlockTrace) -> SentenceData:
        wide = trace.normed @ trace.block.up.kernel + trace.block.up.bias[None, None]
        activated = ACTIVATION_FUNCTIONS[model.config.activation](wide)
        mlp = activated @ trace.block.down.kernel + trace.block.down.bias[None, None]
        real = batch.mask[..., None]
        rows = (trace.input, trace.mixed, trace.pre_attn, trace.normed, wide, activated, mlp, trace.pre_mlp)
        hidden, mixed, pre_attn, normed, wide, activated, mlp, pre_mlp = (jnp.where(real, x, 0) for x in rows)
        attn = jnp.where(real[:, None], trace.attn, 0)
        return SentenceData(hidden, attn, mixed, pre_attn, normed, wide, activated, mlp, pre_mlp, None, None)

    with jax.default_matmul_precision("highest"):
        return encode(model, batch, collect=collect)[1]


def block_parameters(config: EncoderConfig, block: Block) -> BlockParameters:
    """One block's parameters as the theorems name them."""
    attn = block.attn
    query, key, value = (side.kernel.transpose(1, 0, 2) for side in (attn.query, attn.key, attn.value))
    biases = [np.asarray(side.bias)[:, None] for side in (attn.query, attn.key, attn.value)]
    return BlockParameters(
        heads=HeadWeights(query, biases[0], key, biases[1], value, biases[2], attn.output.kernel),
        output_bias=attn.output.bias,
        scale_attn=block.norm_attn.scale,
        bias_attn=block.norm_attn.bias,
        up=block.up.kernel,
        up_bias=block.up.bias,
        down=block.down.kernel,
        down_bias=block.down.bias,
        scale_mlp=block.norm_mlp.scale,
        bias_mlp=block.norm_mlp.bias,
        eps=config.eps,
        activation=config.activation,
    )


def parameter_norms(blocks: list[BlockParameters]) -> list[KnownNorms]:
    """Encloses the norms of every block's parameters."""
    calculus = HostCalculus(np.ones(1, bool), np.float64)

    def norm(matrix: Ball) -> Interval:
        return fuzzy(squared_norm(matrix.middle), matrix.radius)

    norms = [known_norms(block, norm, calculus) for block in blocks]
    largest = Interval(*(np.max([getattr(n.largest, end) for n in norms]) for end in ("down", "up")))
    return [known._replace(largest=largest) for known in norms]
