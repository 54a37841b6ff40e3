"""What all charts share: colours that survive colour blindness, axes, bands, text from outside, and files.

A chart is described once, by Altair. Its PNG, SVG and PDF files and its place in the page are made from that
description.
"""

import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import altair as alt
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..results.shown import Shown
from ..results.spread import Spread
from .format import finite
from .shown.pictures import Illustrator, write_pictures
from .shown.style import COLOURS as COLOURS
from .shown.style import GREY as GREY
from .shown.style import SCALE as SCALE
from .shown.style import vega, with_letters

LINE = 170
"""Letters of a line of notes over a figure."""


class Series(NamedTuple):
    """One line of a chart: its name in the legend, its colour and the shape of its points."""

    name: str
    colour: str
    shape: str = "circle"


def specification(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """The Vega-Lite description of a chart in the style of the report.

    Not held against Vega-Lite's schema, which took most of the time of a report: tests/report does that.
    """
    return with_letters(chart.configure(**vega()).to_dict(validate=False))


def save(chart: alt.TopLevelMixin, stem: Path, *, meanwhile: Illustrator | None = None) -> Path:
    """Write a chart as `stem`.png, `stem`.svg and `stem`.pdf, each atomically.

    Args:
      chart: any Altair chart with its sizes set.
      stem: the path without a suffix.
      meanwhile: what draws it while this process goes on.

    Returns:
      The path of the PNG.

    Raises:
      OSError: the folder cannot be made or written to.
    """
    if meanwhile is None:
        return write_pictures(specification(chart), stem)
    meanwhile.draw(specification(chart), stem)
    return stem.with_suffix(".png")


def drawable(text: str, limit: int = 60) -> str:
    """Make text from outside safe to draw: control characters, which XML forbids, become a box; long text is cut.

    >>> drawable("café\\n漢")
    'café□漢'
    """
    safe = "".join("□" if unicodedata.category(c).startswith("C") else c for c in text)
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"


def heading(text: str, found: Shown, *notes: str) -> alt.Title:
    """The title of a figure; below it, in small letters, what was measured and what lines and bands mean.

    Model and text are in every figure, with what is odd about the weights: a picture travels without its report.
    """
    about = f"{found.model.label} on {found.data.sentences:,} sentences of {found.data.name}"
    lines = [line for note in notes for line in textwrap.wrap(note, LINE)]  # a longer line makes the picture wider
    return alt.Title(drawable(text, 120), subtitle=[drawable(about, 120), *lines], fontSize=18)


def layered(*charts: alt.Chart | alt.LayerChart) -> alt.LayerChart:
    """Charts over each other. `alt.layer` says that it may also give a facet, which has no layers."""
    made = alt.layer(*charts)
    assert isinstance(made, alt.LayerChart)
    return made


def values(rows: Sequence[Mapping[str, Any]]) -> alt.Data:
    """Data of a chart: one mapping a mark; NaN and infinity become null, which no mark is drawn for."""
    plain = [{key: _plain(value) for key, value in row.items()} for row in rows]
    return alt.Data(values=tuple(plain))  # a tuple, which the many copies that Altair makes of a chart share


def _plain(value: Any) -> Any:
    return (float(value) if np.isfinite(value) else None) if isinstance(value, float | np.floating) else value


def positive(numbers: ArrayLike) -> NDArray[np.float64]:
    """Replace by NaN what a log axis has no place for: 0 (an exact collapse) and infinity (an overflowed bound)."""
    array = np.asarray(numbers, np.float64)
    return np.where(np.isfinite(array) & (array > 0), array, np.nan)


def layer_axis(first: int, last: int, title: str | None = None) -> alt.X:
    """The horizontal axis of whole layers; 0 is the embedding output."""
    shown = np.arange(first, last + 1, max(1, round((last - first + 1) / 12))).tolist()
    title = title or ("layer (0 = embedding output)" if first == 0 else "layer")
    return alt.X(
        "layer:Q",
        scale=alt.Scale(domain=[first - 0.35, last + 0.35], nice=False, zero=False),
        axis=alt.Axis(values=shown, format="d", title=title, grid=False),
    )


def log_axis(title: str, numbers: Sequence[ArrayLike], *, include: Sequence[float] = ()) -> tuple[alt.Y, float]:
    """A logarithmic vertical axis with plain numbers.

    Args:
      title: what is measured, with its unit.
      numbers: everything that must be in sight.
      include: values that must be in sight too, whatever the numbers are.

    Returns:
      The axis, and the number at its foot.
    """
    known = finite(positive(np.concatenate([np.ravel(each) for each in numbers])))
    known = np.log10(np.array([*known, *include])) if known.size + len(include) else np.array([-1.0, 1.0])
    low, high = float(known.min()) - 0.1, float(known.max()) + 0.1
    decades, parts = _round_numbers(low, high, (1,)), _round_numbers(low, high, (1, 2, 5))
    ticks = next((found for found in (decades, parts) if len(found) > 2), _even_numbers(10**low, 10**high))
    plain = "format(datum.value, datum.value < 1e7 ? ',.12~g' : '.0e')"
    axis = alt.Axis(title=title, values=ticks, labelExpr=plain, grid=True)
    scale = alt.Scale(type="log", domain=[10**low, 10**high], nice=False)
    return alt.Y("value:Q", scale=scale, axis=axis), 10**low


def _round_numbers(low: float, high: float, leads: Sequence[int]) -> list[float]:
    """Those of these first digits from 10^low to 10^high; of many decades, some."""
    step = max(1, int(np.ceil((high - low) / 9)))
    powers = range(int(np.floor(low)) // step * step, int(np.ceil(high)) + 1, step)
    return [lead * 10.0**power for power in powers for lead in leads if low <= np.log10(lead * 10.0**power) <= high]


def _even_numbers(low: float, high: float) -> list[float]:
    """Three to nine multiples of one round step: over less than a decade logarithms are not far from straight."""
    least = (high - low) / 8
    power = 10.0 ** np.floor(np.log10(least))
    step = next(lead * power for lead in (1, 2, 5, 10) if lead * power >= least)
    return [step * k for k in range(int(np.ceil(low / step)), int(np.floor(high / step)) + 1)]


def styled(series: Sequence[Series], *, columns: int | alt.ExprRef = 2) -> dict[str, Any]:
    """Colour and shape of every series, with one legend for both above the chart; keywords of `encode`.

    Args:
      series: in the order of the legend.
      columns: of the legend.
    """
    names = [each.name for each in series]
    legend = alt.Legend(orient="top", direction="horizontal", columns=columns, title=None, symbolOpacity=1)
    colour = alt.Scale(domain=names, range=[each.colour for each in series])
    shape = alt.Scale(domain=names, range=[each.shape for each in series])
    return {
        "color": alt.Color("series:N", scale=colour, legend=legend),
        "shape": alt.Shape("series:N", scale=shape, legend=legend),
    }


def bands(
    spreads: Mapping[Series, Spread], first: int, y: alt.Y, *, columns: int | alt.ExprRef = 2, floor: float = -np.inf
) -> alt.LayerChart:
    """Mean, plus and minus one standard deviation (dark) and range (light) of every series over the layers.

    Args:
      spreads: series -> its spread, [K].
      first: the first layer.
      y: the vertical axis.
      columns: of the legend.
      floor: the foot of a logarithmic axis, where a band that reaches zero ends.
    """
    data = values([row for each, spread in spreads.items() for row in _band_rows(each.name, spread, first, floor)])
    last = first + next(iter(spreads.values())).mean.size - 1
    style = styled(list(spreads), columns=columns)
    tooltip = ["layer:Q", "series:N", *(alt.Tooltip(f"{k}:Q", format=",.3~r") for k in ("value", "std", "min", "max"))]
    base = alt.Chart(data).encode(x=layer_axis(first, last), y=y, color=style["color"])
    edges = base.transform_filter("isValid(datum.value)")
    light = edges.mark_area(opacity=0.10, clip=True).encode(y=alt.Y("low:Q"), y2="high:Q")
    dark = edges.mark_area(opacity=0.22, clip=True).encode(y=alt.Y("minus:Q"), y2="plus:Q")
    line = base.mark_line(strokeWidth=2.5)
    points = base.mark_point().encode(shape=style["shape"], tooltip=tooltip)
    return layered(light, dark, line, points, *unless_any([spread.mean for spread in spreads.values()]))


def _band_rows(name: str, spread: Spread, first: int, floor: float) -> list[dict[str, Any]]:
    mean = positive(spread.mean) if np.isfinite(floor) else spread.mean
    return [
        {
            "layer": first + k,
            "series": name,
            "value": mean[k],
            "std": spread.std[k],
            "min": spread.min[k],
            "max": spread.max[k],
            "low": max(spread.min[k], floor),
            "high": spread.max[k],
            "minus": max(mean[k] - spread.std[k], floor),
            "plus": mean[k] + spread.std[k],
        }
        for k in range(mean.size)
    ]


def unless_any(numbers: Sequence[ArrayLike]) -> list[alt.Chart]:
    """A layer that says in the middle of a chart that there is nothing to draw, if nothing of `numbers` is finite."""
    if any(np.isfinite(each).any() for each in numbers):
        return []
    return [alt.Chart(values([{}])).mark_text(text="no sentence gives a value", color=GREY, fontSize=13)]
