"""Metrics that are asked for: the user's own, and those of the literature that no diagnosis has by itself."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool

from ...bert.encoder import encode
from ...bert.params import Encoder
from ...errors import OptionError, takes
from ...linalg.rows import widened
from ...results.spread import BLOCK_METRICS, HEAD_METRICS, HIDDEN_METRICS
from ...results.summaries import RATES
from ...types import Batch, BlockTrace

StateMetric = Callable[[Array, Array], Array]
"""(hidden states [B T D], mask [B T]) -> one number per sentence, [B]."""

OWN = "own/"
"""Before the names of the user's metrics among the measurements."""

RESERVED = (*HIDDEN_METRICS, *HEAD_METRICS, *BLOCK_METRICS, *RATES, "std_attn", "std_mlp")
"""Names of the library's own numbers."""


@dataclasses.dataclass(frozen=True)
class BlockMetric:
    """A metric of what one block computes, for `jaxsmooth.diagnose(..., metrics=...)`.

    A metric of one head is made a number of the block by the function itself, as a mean over heads or the largest.

    Attributes:
      text: (`BlockTrace` of one block, mask [B T]) -> one number per sentence, [B], of its real tokens alone. Half
        precision comes as float32.

    >>> import jaxsmooth
    >>> metric = BlockMetric(lambda trace, mask: trace.attn.max((1, 2, 3)))
    >>> model, tokenizer = jaxsmooth.load("tiny")
    >>> jaxsmooth.diagnose(model, tokenizer, ["Dull."], metrics={"largest": metric}).metrics["largest"].count
    array([0, 1, 1, 1, 1])
    """

    text: Callable[[BlockTrace, Array], Array]


Metric = StateMetric | BlockMetric


class OwnMetrics(NamedTuple):
    """Those that are asked for, as pytrees: of hidden states, and of blocks, which have no value at the embedding."""

    states: dict[str, Partial]
    blocks: dict[str, Partial]

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.states, *self.blocks)

    def of_block(self, trace: BlockTrace, mask: Bool[Array, "B T"]) -> dict[str, Array]:
        """Their measurements of one block, [B]."""
        return {OWN + name: metric(trace, mask) for name, metric in self.blocks.items()}


def own_metrics(given: Mapping[str, Metric], model: Encoder) -> OwnMetrics:
    """The metrics that are asked for, tried before any work: on made-up hidden states, or on made-up sentences.

    Args:
      given: name -> function or `BlockMetric`, see `diagnose`.
      model: the encoder.

    Raises:
      OptionError: a name that is taken, or a metric that fails, gives another shape, or depends on padding.

    >>> import jaxsmooth
    >>> model, _ = jaxsmooth.load("tiny")
    >>> own_metrics({"mine": lambda hidden, mask: hidden.mean((1, 2))}, model)
    Traceback (most recent call last):
    jaxsmooth.errors.OptionError: metric 'mine' depends on padding: it must read tokens where the mask is True alone, \
as in jnp.where(mask[..., None], hidden, 0).
    """
    if not isinstance(given, Mapping):
        raise OptionError(f"metrics must be name -> function, as {{'mine': function}}; got {type(given).__name__}.")
    for name, metric in given.items():
        if not isinstance(name, str) or not name.isidentifier() or name in RESERVED:
            raise OptionError(f"a metric needs a name of letters and digits that no other has; got {name!r}.")
        if not takes(metric.text if isinstance(metric, BlockMetric) else metric, 2):
            reads = "trace" if isinstance(metric, BlockMetric) else "hidden"
            raise OptionError(f"metric {name!r} must be a function ({reads}, mask) -> one number per sentence.")
    states = {name: metric for name, metric in given.items() if not isinstance(metric, BlockMetric)}
    blocks = {name: metric.text for name, metric in given.items() if isinstance(metric, BlockMetric)}
    for name, found in (_of_states(states, model) | _of_blocks(blocks, model)).items():
        _check(name, found)
    return OwnMetrics(*({name: Partial(metric) for name, metric in some.items()} for some in (states, blocks)))


MASK = ((True, True, False, True, False), (True, True, True, True, False))
"""Of the sentences on which a metric is tried."""


def _of_states(metrics: Mapping[str, StateMetric], model: Encoder) -> dict[str, list[Array]]:
    """What they give of made-up hidden states, for two kinds of padding."""
    mask = jnp.array(MASK)
    hidden = jax.random.normal(jax.random.key(0), (*mask.shape, model.config.width), jnp.float32)
    padded = [jnp.where(mask[..., None], hidden, filler) for filler in (0.0, 7.0)]
    return {name: [_called(name, jax.jit(one), states, mask) for states in padded] for name, one in metrics.items()}


def _of_blocks(metrics: Mapping[str, Callable[[BlockTrace, Array], Array]], model: Encoder) -> dict[str, list[Array]]:
    """The same of made-up sentences, block by block; what a vision encoder reads has no padding, and is not tried."""
    if model.config.is_vision or not metrics:
        return {}
    mask = jnp.array(MASK)

    @jax.jit
    def run(model: Encoder, batch: Batch) -> dict[str, Array]:
        def collect(narrow: BlockTrace) -> dict[str, Array]:
            trace = widened(narrow)
            return {name: _called(name, metric, trace, batch.mask) for name, metric in metrics.items()}

        return encode(model, batch, collect=collect)[1]

    found: dict[str, list[Array]] = {name: [] for name in metrics}
    for filler in (0, model.config.vocab - 1):
        tokens = jnp.where(mask, 1, filler)
        of_all = run(model, Batch(tokens=tokens, segments=jnp.zeros_like(tokens), mask=mask))
        for name, of_layers in of_all.items():
            found[name] += list(of_layers)
    return found


def _called(name: str, metric: Callable[[Any, Array], Array], read: Any, mask: Array) -> Array:
    try:
        return metric(read, mask)
    except Exception as error:  # whatever the user's function raises
        what = f"hidden states of shape {read.shape}" if isinstance(read, jax.Array) else "the trace of a block"
        raise OptionError(
            f"metric {name!r} fails on {what} and a mask of shape {mask.shape}: {type(error).__name__}: {error}"
        ) from error


def _check(name: str, found: list[Array]) -> None:
    """Of what a metric gave: first all for one kind of padding, then all for another."""
    shape = (len(MASK),)
    for one in found:
        if jnp.shape(one) != shape:
            raise OptionError(
                f"metric {name!r} must give one number per sentence, shape {shape}; got {jnp.shape(one)}."
            )
    half = len(found) // 2
    pairs = zip(found[:half], found[half:], strict=True)
    if not all(jnp.allclose(one, other, rtol=1e-3, atol=1e-6, equal_nan=True) for one, other in pairs):
        raise OptionError(
            f"metric {name!r} depends on padding: it must read tokens where the mask is True alone, as in "
            "jnp.where(mask[..., None], hidden, 0)."
        )
