"""Which part of a block brings its tokens together: the words."""

import numpy as np

from ...results.diagnosis import Diagnosis
from ..format import digits

PART_NAMES = {
    "attention": "attention",
    "norm_attn": "the LayerNorm after attention",
    "mlp": "the MLP",
    "norm_mlp": "the LayerNorm after the MLP",
}
"""What the parts are called in sentences."""


def totals(diagnosis: Diagnosis) -> dict[str, float]:
    """Part -> its change of ln(d_M/‖H‖), mean over sentences, added up over layers; empty where nothing is known."""
    if diagnosis.attribution is None:
        return {}
    sums = diagnosis.attribution.mean.sum(axis=0)
    return dict(zip(diagnosis.parts, sums.tolist(), strict=True)) if np.isfinite(sums).all() else {}


def signed(value: float) -> str:
    """A change with its sign.

    >>> signed(0.6), signed(-0.284)
    ('+0.600', '−0.284')
    """
    return ("−" if value < 0 else "+") + digits(abs(value))


def attribution_words(diagnosis: Diagnosis) -> str:
    """Why tokens become alike: what each part of the blocks does to their relative distance, and where most."""
    found = totals(diagnosis)
    if not found:
        return "No sentence has tokens that differ in every layer, so nothing is said of the parts of a block."
    whole = sum(found.values())
    listed = ", ".join(f"{PART_NAMES.get(part, part)} {signed(value)}" for part, value in found.items())
    together = min(found, key=lambda part: found[part])
    apart = max(found, key=lambda part: found[part])
    text = (
        f"From the embedding output to the last layer ln(d_M/‖H‖) changes by {signed(whole)}, the relative distance"
        f" by a factor of {digits(float(np.exp(whole)))}. Of this, exactly: {listed} (negative: tokens come together)."
    )
    if found[together] < 0:
        text += (
            f" What brings tokens together most is {PART_NAMES.get(together, together)}{_where(diagnosis, together)}"
        )
        text += f"; {PART_NAMES.get(apart, apart)} drives them apart." if found[apart] > 0 else "."
    return text


def _where(diagnosis: Diagnosis, part: str) -> str:
    assert diagnosis.attribution is not None
    column = diagnosis.attribution.mean[:, diagnosis.parts.index(part)]
    layer = int(np.argmin(column))
    return f", most of all in layer {layer + 1} ({signed(float(column[layer]))})" if len(column) > 1 else ""
