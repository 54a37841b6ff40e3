"""The charts of `attribution` and `baselines`, whose words need no drawing library."""

from typing import Any

import altair as alt
import numpy as np
from numpy.typing import NDArray

from ...results.diagnosis import Diagnosis
from ..charts import COLOURS, GREY, Series, layer_axis, layered, styled, unless_any, values
from .attribution import PART_NAMES
from .baselines import ACROSS, BEFORE, OWN

PART_COLOURS = ("#0072B2", "#56B4E9", "#D55E00", "#E69F00")


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


def baseline_chart(diagnosis: Diagnosis) -> alt.LayerChart:
    """The cosine of two tokens of a text, of two of different texts, and before training, over the hidden states."""
    lines = {Series(OWN, COLOURS["cosine"]): diagnosis.cosine_similarity.mean}
    if diagnosis.anisotropy is not None:
        lines[Series(ACROSS, COLOURS["L0"], "square")] = diagnosis.anisotropy
    if diagnosis.untrained is not None:
        lines[Series(BEFORE, "#555555", "triangle-up")] = diagnosis.untrained.cosine_similarity
    rows = [
        {"layer": k, "series": series.name, "value": float(value)}
        for series, line in lines.items()
        for k, value in enumerate(line)
    ]
    low = min((float(np.nanmin(line)) for line in lines.values() if np.isfinite(line).any()), default=0.0)
    scale = alt.Scale(domain=[min(-0.05, low - 0.05), 1.05], nice=False)
    style = styled(list(lines), columns=1)
    base = alt.Chart(values(rows)).encode(
        x=layer_axis(0, diagnosis.cosine_similarity.mean.size - 1),
        y=alt.Y("value:Q", scale=scale, title="mean cosine (1 = the same direction)"),
        color=style["color"],
    )
    tooltip = ["layer:Q", "series:N", alt.Tooltip("value:Q", format=",.3~r")]
    points = base.mark_point().encode(shape=style["shape"], tooltip=tooltip)
    return layered(base.mark_line(strokeWidth=2.5), points, *unless_any(list(lines.values())))
