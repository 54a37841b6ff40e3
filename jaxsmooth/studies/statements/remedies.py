"""What `compare` says of a remedy against none: a paired test over the texts, and what the remedy costs."""

import jax
import numpy as np
from jax.stages import Lowered
from numpy.typing import NDArray

from ...bert.encoder import encode
from ...bert.params import Encoder
from ...mitigations.own import OwnRemedy
from ...mitigations.parse import NamedRemedy
from ...results.comparison import Cost, PairedEffect
from ...theory.distribution_free import paired_difference
from ...types import Batch, BlockTrace, Edits, ImageBatch

CONFIDENCE = 0.95


def paired_effect(values: NDArray[np.float64], plain: NDArray[np.float64]) -> PairedEffect:
    """What a remedy changes of one number, text by text.

    Args:
      values: the number of each text with the remedy, [n]; NaN where it has none.
      plain: of the same texts without, [n].

    Returns:
      The median difference with its limits, and how many texts have less and how many more than without.

    >>> found = paired_effect(np.array([0.1, 0.2, np.nan]), np.array([0.3, 0.3, 0.3]))
    >>> found.texts, found.lower, round(found.median, 2), found.at_most
    (2, 2, -0.15, inf)
    """
    found = paired_difference(values, plain, CONFIDENCE)
    return PairedEffect(
        texts=found.texts,
        lower=found.lower,
        higher=found.higher,
        median=found.median,
        at_least=found.median_low,
        at_most=found.median_high,
        p_value=found.p_value,
        confidence=CONFIDENCE,
    )


def forward_pass(model: Encoder, batch: Batch | ImageBatch, remedy: NamedRemedy | OwnRemedy | None) -> Lowered:
    """The forward pass with a remedy, traced and not compiled."""

    def run(model: Encoder, batch: Batch | ImageBatch) -> jax.Array:
        edits = Edits() if remedy is None else remedy.edits(model, batch)
        return encode(model, batch, edits=edits, collect=_nothing)[0]

    return jax.jit(run).lower(model, batch)


def cost(plain: Lowered, own: Lowered, parameters: int) -> Cost:
    """What a remedy costs in one forward pass.

    The floating-point operations are those that the compiler counts before it optimises, each layer alike. What it
    calls from a library, such as a decomposition of a matrix, it does not count: `counted` is then False, and the true
    ratio larger.

    Args:
      plain: the forward pass without it.
      own: with it.
      parameters: how many numbers it adds to the model.
    """
    flops = [(one.cost_analysis() or {}).get("flops", np.nan) for one in (plain, own)]
    calls = [one.as_text().count("custom_call") for one in (plain, own)]
    return Cost(parameters=parameters, flops=float(flops[1] / flops[0]), counted=calls[1] <= calls[0])


def _nothing(trace: BlockTrace) -> None:
    return None
