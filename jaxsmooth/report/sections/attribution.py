"""Which part of a block brings its tokens together: the chart, the words, the numbers of report.json."""

from typing import Any

import altair as alt
import numpy as np
from numpy.typing import NDArray

from ...results.diagnosis import Diagnosis
from ..charts import GREY, layered, unless_any, values
from ..format import digits

PART_COLOURS = ("#0072B2", "#56B4E9", "#D55E00", "#E69F00")
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


def attribution_chart(diagnosis: Diagnosis) -> alt.LayerChart:
    """What each part of every block does to the relative distance."""
    assert diagnosis.attribution is not None
    numbers = diagnosis.attribution.mean
    layers = list(range(1, len(numbers) + 1))
    x = alt.X("place:O", title="layer", axis=alt.Axis(labelAngle=0, values=layers[:: max(1, round(len(layers) / 12))]))
    return stacked(layers, numbers, diagnosis.parts, x, "change of ln(d_M/‖H‖)", legend=True)


def stacked(
    places: list[Any],
    numbers: NDArray[np.float64],
    parts: tuple[str, ...],
    x: alt.X,
    title: str | None,
    *,
    legend: bool,
) -> alt.LayerChart:
    """Bars stacked upwards where positive and downwards where negative, and a dot at their sum."""
    names = [PART_NAMES.get(part, part).removeprefix("the ") for part in parts]
    rows = [
        {"place": place, "part": part, "value": value, "rank": rank}
        for place, row in zip(places, numbers.tolist(), strict=True)
        for rank, (part, value) in enumerate(zip(names, row, strict=True))
    ]
    shown = alt.Legend(orient="top", columns=2, title=None) if legend else None
    colour = alt.Color("part:N", scale=alt.Scale(domain=names, range=list(PART_COLOURS)), legend=shown)
    bars = alt.Chart(values(rows)).mark_bar(width={"band": 0.7})
    bars = bars.encode(x=x, y=alt.Y("value:Q", title=title), color=colour, order="rank:Q")
    sums = [{"place": place, "sum": value} for place, value in zip(places, numbers.sum(axis=1).tolist(), strict=True)]
    dots = (
        alt.Chart(values(sums)).mark_point(color="black", size=35).encode(x=x, y="sum:Q", tooltip=["place:N", "sum:Q"])
    )
    zero = alt.Chart(values([{"zero": 0}])).mark_rule(color=GREY).encode(y="zero:Q")
    return layered(bars, zero, dots, *unless_any([numbers]))
