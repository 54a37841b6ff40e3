"""What `compare` found: plain numpy numbers, so that a report needs no model."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

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


@dataclasses.dataclass(frozen=True)
class PairedEffect:
    """One number of each text with a remedy, less that of the same text without.

    Attributes:
      texts: how many texts have both.
      lower: in how many the remedy lowers it.
      higher: in how many it raises it.
      median: the median difference of these texts; NaN where there is none.
      at_least: with `confidence`, the median difference over all texts of their kind lies between this
      at_most: and this, if these are random draws of them; infinite where they are fewer than six.
      p_value: of the sign test, two-sided: how likely counts at least as uneven are if the remedy did nothing.
      confidence: of the interval, of each remedy by itself.
    """

    texts: int
    lower: int
    higher: int
    median: float
    at_least: float
    at_most: float
    p_value: float
    confidence: float


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a remedy costs in one forward pass of the first batch.

    Attributes:
      parameters: how many numbers it adds to the model.
      flops: its floating-point operations over those without it, as the compiler counts them before it optimises.
      counted: whether all of them are counted; what is called from a library (a decomposition of a matrix) is not.
    """

    parameters: int
    flops: float
    counted: bool


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
      effects: of the last layer's "cosine_similarity" and "relative_distance", text by text against none; empty for the
        model as it is.
      cost: what it costs; None for the model as it is.
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
    effects: dict[str, PairedEffect] = dataclasses.field(default_factory=dict)
    cost: Cost | None = None


@dataclasses.dataclass(frozen=True)
class TrainedRemedy:
    """The model trained on a task, with or without a remedy.

    Attributes:
      label: the remedy; "none" for the model as it is.
      scores: on the validation split, of the best step, one for each seed, [S].
      cosine: token cosine similarity of the last layer at that step, on a few validation sentences, [S].
    """

    label: str
    scores: NDArray[np.float64]
    cosine: NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Training:
    """The same model trained on a task without and with each remedy.

    Attributes:
      task: its name.
      metric: what `scores` are; more is better.
      seeds: of the runs: the head, the order of the data, dropout. Run k of every remedy has seed k.
      steps: optimiser steps of a run.
      runs: in the order of the comparison's entries.
    """

    task: str
    metric: str
    seeds: tuple[int, ...]
    steps: int
    runs: tuple[TrainedRemedy, ...]


@dataclasses.dataclass(frozen=True, repr=False)
class Comparison(Shown):
    """The same model and text with each remedy, without training.

    Attributes:
      model: which model.
      data: which text.
      parts: names of a block's parts; see `jaxsmooth.interventions.attribution`.
      entries: the model as it is first, then each remedy in the order asked for.
      versions: package -> version, and the device.
      training: the model trained without and with each remedy, where that was asked for.
      each: the numbers of each text, by remedy, where that was asked for.
    """

    model: ModelSummary
    data: DataSummary
    parts: tuple[str, ...]
    entries: tuple[Measured, ...]
    versions: dict[str, str]
    training: Training | None = None
    each: TextValues | None = None

    def in_short(self) -> str:
        last = (f"{entry.label} {digits(float(entry.cosine_similarity.mean[-1]))}" for entry in self.entries)
        return f"cosine similarity of the last layer: {', '.join(last)}"
