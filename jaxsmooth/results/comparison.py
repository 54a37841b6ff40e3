"""What `compare` found: plain numpy numbers, so that a report needs no model."""

import dataclasses

from .brief import Brief, digits
from .each_text import TextValues
from .shown import Shown
from .spread import Spread
from .summaries import DataSummary, ModelSummary

COMPARED_RATES = ("actual", "L4", "L1")
"""The contraction of a block and two of its upper bounds; definitions in `jaxsmooth.theory.block.ladder`."""


def attributions(parts: tuple[str, ...]) -> tuple[str, ...]:
    """What tables call the parts of a block, in their order: two of them are norms.

    >>> attributions(("attn", "norm"))
    ('attribution_1_attn', 'attribution_2_norm')
    """
    return tuple(f"attribution_{place + 1}_{part}" for place, part in enumerate(parts))


@dataclasses.dataclass(frozen=True, repr=False)
class Measured(Brief):
    """One model, with or without a remedy, layer by layer.

    Attributes:
      label: the remedy as it was asked for; "none" for the model as it is.
      description: every method with all its parameters.
      warning: what to know before reading the numbers; empty if nothing.
      cosine_similarity: token cosine similarity of the hidden states, [L+1].
      relative_distance: d_M(H) / ||H||_F, [L+1].
      rates: for each name in `COMPARED_RATES`, the contraction of a block or an upper bound of it, [L]; a bound whose
        hypotheses the remedy breaks has a count of 0.
      attribution: change of ln(d_M / ||H||_F) over each part of a block, [L 4].
      fused: name of a fusion of all blocks' outputs -> name of a measure -> its spread, [1].
      change: ||H - H_none||_F / ||H_none||_F of the last hidden state over real tokens, [1].
    """

    label: str
    description: str
    warning: str
    cosine_similarity: Spread
    relative_distance: Spread
    rates: dict[str, Spread]
    attribution: Spread
    fused: dict[str, dict[str, Spread]]
    change: Spread


@dataclasses.dataclass(frozen=True, repr=False)
class Comparison(Shown):
    """The same model and text with each remedy, without training.

    Attributes:
      model: which model.
      data: which text.
      parts: names of a block's parts; see `jaxsmooth.interventions.attribution`.
      entries: the model as it is first, then each remedy in the order asked for.
      versions: package -> version, and the device.
      each: the numbers of each text, by remedy, where that was asked for.
    """

    model: ModelSummary
    data: DataSummary
    parts: tuple[str, ...]
    entries: tuple[Measured, ...]
    versions: dict[str, str]
    each: TextValues | None = None

    def in_short(self) -> str:
        last = (f"{entry.label} {digits(float(entry.cosine_similarity.mean[-1]))}" for entry in self.entries)
        return f"cosine similarity of the last layer: {', '.join(last)}"
