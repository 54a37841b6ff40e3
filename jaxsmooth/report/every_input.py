"""Whether the theorem's hypothesis can hold for any text at all, in words and numbers."""

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
    least = float(np.min((found.threshold / found.product)[own]))
    text = (
        f"Proved for every text of any length: in {_layers(own, every)} no token's product of standard deviations"
        f" exceeds the threshold. So the theorem's hypothesis holds for no text, and L1 is never below {digits(least)}"
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
        (str(layer), digits(low), digits(high), digits(threshold), "never" if never else "open")
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


def _layers(places: NDArray[np.intp], every: bool) -> str:
    return "every layer" if every else layer_list([int(place) + 1 for place in places])


def _range(diagnosis: Diagnosis) -> str:
    found = diagnosis.every_input
    assert found is not None
    left = np.flatnonzero(~found.never)
    worst = left[np.argmax((found.product / found.threshold)[left])]
    return (
        f"In layer {worst + 1} the largest product lies between {digits(float(found.product_found[worst]))} and"
        f" {digits(float(found.product[worst]))}, the threshold being at least {digits(float(found.threshold[worst]))}."
    )
