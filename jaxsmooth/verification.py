"""`verify`: every theorem on every layer, head and sentence of a real model, decided with rounding accounted for."""

import warnings
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .analysis import model_summary, progress_bar, versions_in_use
from .bert.config import EncoderConfig
from .bert.encoder import ACTIVATION_FUNCTIONS, encode
from .bert.params import Block, Encoder
from .decision import Decider
from .diagnosis import DataSummary
from .errors import PrecisionError, TextError
from .tally import Outcome, Tally
from .text import EncodedBatch, Tokenizer, TruncationWarning
from .theory import theorems
from .theory.certify import Claim, compare
from .theory.enclosures import BatchCalculus, Batched, FloatCalculus, HostCalculus
from .theory.facts import BlockFacts, BlockParameters, HeadFacts, HeadWeights, KnownNorms, SentenceData, known_norms
from .theory.norms import squared_norm
from .theory.rounding import Ball, Interval, faithful_products, fuzzy
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

    Each inequality is evaluated with both sides enclosed: first on the device, by matrix products alone; where
    that leaves it open, on the host with sharper norms; at last in Arb, to some 90 digits. The lemmas take each
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
      PrecisionError: a device that multiplies float64 matrices with fewer digits.

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
    with jax.enable_x64(True), progress_bar(progress) as bar:
        if not faithful_products("float64"):
            raise PrecisionError("this device does not multiply float64 matrices exactly enough; use the CPU.")
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
        versions=versions_in_use(),
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
        mask = encoded.batch.mask
        seen = observe(self.model, encoded.batch)
        mixing = jax.tree.map(np.asarray, mixing_rates(seen.attn, mask))
        largest = Interval(*(np.max(end, axis=(0, 2)) for end in (mixing.down, mixing.up)))
        lengths = np.asarray(mask.sum(axis=1))
        for layer, (block, norms) in enumerate(zip(self.blocks, self.norms, strict=True)):
            data = jax.tree.map(lambda leaf, k=layer: leaf[k], seen._replace(mixing=mixing, largest_mixing=None))
            data = data._replace(largest_mixing=largest)
            found = claims(block, norms, data, mask)
            arrays = jax.tree.map(np.asarray, data)
            for theorem, claim in found.items():
                outcome = self._decide(theorem, layer, claim, arrays, lengths, len(encoded.indices))
                tally.add(theorem, layer + 1, outcome, encoded.indices)

    def _decide(
        self, theorem: str, layer: int, claim: Claim, data: SentenceData, lengths: np.ndarray, rows: int
    ) -> Outcome:
        enough = (lengths[:rows] > 1).reshape(rows, *(1,) * (claim.lhs.down.ndim - 1))
        ends = [np.array(end[:rows]) for side in (claim.lhs, claim.rhs) for end in (side.down, side.up)]
        lhs, rhs = Interval(*ends[:2]), Interval(*ends[2:])
        verdicts = compare(lhs, rhs, claim.applicable[:rows] & enough)
        outcome = Outcome(verdicts, lhs.down, lhs.up, rhs.down, rhs.up)
        self.decider.settle(theorem, layer, outcome, data, lengths)
        return outcome


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


@jax.jit
def mixing_rates(attn: Array, mask: Array) -> Interval:
    """Encloses sqrt(lambda) of every head, [L B N]."""

    def of_head(head: Array, real: Array) -> Interval:
        calculus = FloatCalculus(real, jnp.float64)
        return calculus.norm(calculus.centre_tokens(calculus.matrix(head)))

    by_head = jax.vmap(of_head, in_axes=(0, None))
    return jax.lax.map(lambda layer: jax.vmap(by_head)(layer, mask), attn)


def claims(block: BlockParameters, norms: KnownNorms, data: SentenceData, mask: Array) -> dict[str, Claim]:
    """Both sides of every theorem in one block: [B] of the block, [B N] of its heads."""
    enclosed = data._replace(mixing=Batched(data.mixing), largest_mixing=Batched(data.largest_mixing))
    found = theorems.block_claims(BlockFacts(BatchCalculus(mask), block, norms, enclosed))
    sentences, heads = data.attn.shape[:2]

    def every_head(own: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.repeat(leaf, heads, axis=0), own)

    def every_sentence(shared: Any) -> Any:
        return jax.tree.map(lambda leaf: np.tile(leaf, (sentences,) + (1,) * (leaf.ndim - 1)), shared)

    known = tuple(Batched(every_sentence(norm)) for norm in (norms.heads, norms.scores))
    attn, mixing = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), (data.attn, data.mixing))
    calculus = BatchCalculus(every_head(mask))
    weights = every_sentence(block.heads)
    facts = HeadFacts(calculus, weights, known, every_head(data.input), attn, Batched(mixing))
    by_head = {name: _reshaped(claim, (sentences, heads)) for name, claim in theorems.head_claims(facts).items()}
    return by_head | {name: _reshaped(claim, (sentences,)) for name, claim in found.items()}


def _reshaped(claim: Claim, shape: tuple[int, ...]) -> Claim:
    sides = (Interval(*(np.reshape(end, shape) for end in (s.value.down, s.value.up))) for s in claim[:2])
    return Claim(*sides, np.full(shape, claim.applicable))


def block_parameters(config: EncoderConfig, block: Block) -> BlockParameters:
    """One block's parameters as the theorems name them."""
    attn = block.attn
    projections = [
        part
        for side in (attn.query, attn.key, attn.value)
        for part in (side.kernel.transpose(1, 0, 2), side.bias[:, None])
    ]
    return BlockParameters(
        heads=HeadWeights(*projections, attn.output.kernel),
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


_norm_of = jax.jit(squared_norm)


def parameter_norms(blocks: list[BlockParameters]) -> list[KnownNorms]:
    """Encloses the norms of every block's parameters."""
    calculus = HostCalculus(np.ones(1, bool), np.float64)

    def norm(matrix: Ball) -> Interval:
        found = _norm_of(jnp.asarray(matrix.middle))
        return fuzzy(Interval(np.asarray(found.down), np.asarray(found.up)), matrix.radius)

    norms = [known_norms(block, norm, calculus) for block in blocks]
    largest = Interval(*(np.max([getattr(n.largest, end) for n in norms]) for end in ("down", "up")))
    return [known._replace(largest=largest) for known in norms]
