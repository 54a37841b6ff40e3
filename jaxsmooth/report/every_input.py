"""Whether the theorem's hypothesis can hold for any text at all, in words and numbers."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..results.diagnosis import Diagnosis
from .format import digits, layer_list


def every_input_words(diagnosis: Diagnosis) -> str:
    """The strongest sentence that is proved about this model for every text, whatever its length.

    Args:
      diagnosis: what `jaxsmooth.diagnose` found.

    Returns:
      One to three sentences.
    """
    model, found = diagnosis.model, diagnosis.every_input
    if model.departures:
        if model.rungs:
            return "For every text: blocks of this kind add and do not divide, so their bound is never below 1."
        return "For every text: the theorem is not proved for blocks like this model's."
    if found is None:
        return (
            "Whether some other text could fulfil it is not known for these weights;"
            " jaxsmooth.theory.hypothesis_for_every_input(model) finds out."
        )
    own, published = np.flatnonzero(found.never), np.flatnonzero(found.never_as_published)
    if not len(own):
        return f"For every text: it is open whether one fulfils it. {_range(diagnosis)}"
    every = len(own) == len(found.never)
    least = at_least(float(np.min((found.threshold / found.product)[own])))
    text = (
        f"Proved for every text of any length: in {_layers(own, every)} no token's product of standard deviations"
        f" exceeds the threshold. So the theorem's hypothesis holds for no text, and L1 is never below {least}"
        " there."
    )
    if not every:
        text += f" In the other layers it is open. {_range(diagnosis)}"
    if len(published):
        text += (
            f" The hypothesis with one constant for the whole model, as published and as L0, fails for every text in"
            f" {_layers(published, len(published) == len(found.never))}."
        )
    return text


def every_input_rows(diagnosis: Diagnosis) -> list[tuple[str, ...]]:
    """Layer, largest product found, certified bound, threshold, answer; empty where nothing is stored."""
    found = diagnosis.every_input
    if found is None:
        return []
    columns = (found.product_found, found.product, found.threshold, found.never)
    return [
        (str(layer), digits(low), at_most(high), at_least(threshold), "never" if never else "open")
        for layer, (low, high, threshold, never) in enumerate(zip(*columns, strict=True), start=1)
    ]


def every_input_json(diagnosis: Diagnosis) -> dict[str, Any] | None:
    """The same for report.json."""
    found = diagnosis.every_input
    if found is None:
        return None
    return {
        "product": found.product.tolist(),
        "product_found": found.product_found.tolist(),
        "threshold": found.threshold.tolist(),
        "threshold_model": found.threshold_model.tolist(),
        "threshold_paper": found.threshold_paper.tolist(),
        "never": found.never.tolist(),
        "never_as_published": found.never_as_published.tolist(),
    }


def at_most(bound: float) -> str:
    """An upper bound in three digits that are one too.

    >>> at_most(47.312), at_least(1.1499)
    ('47.4', '1.14')
    """
    return digits(_rounded(bound, math.ceil))


def at_least(bound: float) -> str:
    """A lower bound in three digits that are one too."""
    return digits(_rounded(bound, math.floor))


def _rounded(bound: float, whole: Callable[[float], int]) -> float:
    if not math.isfinite(bound) or bound <= 0:
        return bound
    unit = 10.0 ** (math.floor(math.log10(bound)) - 2)
    # Without the nudge 85.0 / 0.1, which is a little more or less than 850, would lose or gain a digit.
    return whole(bound / unit * (1 + (1e-12 if whole is math.floor else -1e-12))) * unit


def _layers(places: NDArray[np.intp], every: bool) -> str:
    return "every layer" if every else layer_list([int(place) + 1 for place in places])


def _range(diagnosis: Diagnosis) -> str:
    found = diagnosis.every_input
    assert found is not None
    left = np.flatnonzero(~found.never)
    worst = left[np.argmax((found.product / found.threshold)[left])]
    found_low, bound, threshold = (float(side[worst]) for side in (found.product_found, found.product, found.threshold))
    return (
        f"In layer {worst + 1} the largest product lies between {digits(found_low)} and {at_most(bound)},"
        f" the threshold being at least {at_least(threshold)}."
    )
