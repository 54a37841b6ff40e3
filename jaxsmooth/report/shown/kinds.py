"""What `plot` can draw of each result: name of a kind -> its chart, the first the default."""

import functools
from collections.abc import Callable
from typing import Any

import altair as alt
import numpy as np

from ...errors import OptionError, arguments_checked, did_you_mean
from ...results.comparison import Comparison
from ...results.convergence import HeadConvergence
from ...results.diagnosis import Diagnosis
from ...results.each_text import nan_quantiles
from ...results.fate import MapConvergence
from ...results.spread import Spread
from ...results.verification import VERDICTS, Verification
from .. import compare, converge, figures, heatmaps
from ..charts import COLOURS, GREY, heading, layer_axis, layered, log_axis, positive, unless_any, values
from ..fate import charts as fates
from . import style as look
from .figure import Figure, figure

Kinds = dict[str, Callable[[], alt.TopLevelMixin]]

WIDTH, HEIGHT = 640, 380
_VERDICT_COLOURS = {"CONFIRMED": "#009E73", "VIOLATED": "#D55E00", "UNDECIDED": "#E69F00", "NOT_APPLICABLE": "#CCCCCC"}


def kinds(result: Any) -> tuple[str, ...]:
    """The names of what can be drawn of a result, the default first."""
    return tuple(_kinds(result))


@arguments_checked
def plot(result: Any, kind: str | None = None, *, style: str = "house") -> Figure:
    """Draw one figure of a result; see `Diagnosis.plot`.

    Args:
      result: what `diagnose`, `compare`, `converge` or `verify` returned.
      kind: which, one of `kinds(result)`.
      style: "house" or "paper".

    Raises:
      OptionError: a result, kind or style that does not exist.
    """
    look.checked(style)
    known = _kinds(result)
    kind = next(iter(known)) if kind is None else kind
    if kind not in known:
        near = did_you_mean(kind, known) if isinstance(kind, str) else ""
        raise OptionError(
            f"there is no figure {kind!r} of a {type(result).__name__}; there are {', '.join(known)}.{near}"
        )
    return figure(kind, known[kind](), style)


@functools.singledispatch
def _kinds(result: Any) -> Kinds:
    raise OptionError(f"result must be what a study returned; got {type(result).__name__}.")


@_kinds.register
def _(result: Diagnosis) -> Kinds:
    def titled(words: str, chart: Callable[[Diagnosis], alt.LayerChart]) -> Callable[[], alt.LayerChart]:
        title = heading(words, result)
        return lambda: chart(result).properties(width=WIDTH, height=HEIGHT, title=title)

    heads = result.model.heads, result.model.layers
    found: Kinds = {
        "overview": lambda: figures.overview_figure(result),
        "similarity": lambda: figures.similarity_figure(result),
        "ladder": lambda: figures.ladder_figure(result),
        "norms": lambda: figures.norms_figure(result),
        "threshold": titled("Is the product of stds above the threshold?", figures.threshold_chart),
        "mixing_rate": lambda: figures.mixing_rate_figure(result),
        "sink_strength": lambda: heatmaps.sink_strengths(result).properties(
            width=max(360, 44 * heads[0]),
            height=max(120, 30 * heads[1]),
            title=heading("Attention that each head's strongest key receives", result),
        ),
        "attention_similarity": titled("How alike is a layer's attention to the one before?", figures.attention_chart),
        "principal_alignment": titled("How far do tokens lie along W_V W_O's direction?", figures.principal_chart),
    }
    if result.exemplar is not None:
        found["exemplar_cosine"] = lambda: figures.exemplar_figure(result)
    if result.each is not None:
        found["texts"] = lambda: texts_figure(result)
    return found


@_kinds.register
def _(result: Comparison) -> Kinds:
    def lines(words: str, spreads: list[Spread], first: int) -> Callable[[], alt.LayerChart]:
        x, title = layer_axis(first, result.model.layers), heading(words, result, "Means over sentences")
        chart = functools.partial(compare._lines, result, spreads, x, first=first, legend=True)
        return lambda: chart().properties(width=WIDTH, height=HEIGHT, title=title)

    entries = result.entries
    return {
        "overview": lambda: compare.comparison_figure(result),
        "cosine_similarity": lines("Cosine similarity of tokens", [each.cosine_similarity for each in entries], 0),
        "relative_distance": lines("Relative distance d_M / ‖H‖", [each.relative_distance for each in entries], 0),
        "rates": lines("Actual rate of a block (below 1: closer)", [each.rates["actual"] for each in entries], 1),
    }


@_kinds.register
def _(result: HeadConvergence) -> Kinds:
    return {"overview": lambda: converge.convergence_figure(result)}


@_kinds.register
def _(result: MapConvergence) -> Kinds:
    found: Kinds = {"fates": lambda: fates.fates_chart(result), "curves": lambda: fates.distances_chart(result)}
    if any(np.isfinite(one.numbers["basin_reached"]).any() for one in result.maps if "basin_reached" in one.numbers):
        found["basin"] = lambda: fates.basin_chart(result)
    if result.sweeps:
        found["std"] = lambda: fates.sweep_chart(result)
    return found


@_kinds.register
def _(result: Verification) -> Kinds:
    return {"tightness": lambda: tightness_figure(result), "verdicts": lambda: verdicts_figure(result)}


def texts_figure(diagnosis: Diagnosis) -> alt.LayerChart:
    """The actual rate of every block over the texts: median, the middle half and nine tenths of them."""
    assert diagnosis.each is not None
    low, quarter, median, most, high = nan_quantiles(diagnosis.each.of("actual"), (0.05, 0.25, 0.5, 0.75, 0.95))
    rows = [
        {"layer": k + 1, "low": low[k], "quarter": quarter[k], "value": median[k], "most": most[k], "high": high[k]}
        for k in range(len(median))
    ]
    y, _ = log_axis("d_M after the block / d_M before it (log scale)", [low, high], include=(0.5, 2.0))
    base = alt.Chart(values(rows)).encode(x=layer_axis(1, len(median)), y=y)
    one = alt.Chart(values([{"one": 1}])).mark_rule(color=GREY, strokeDash=[5, 3]).encode(y="one:Q")
    wide = base.mark_area(color=COLOURS["cosine"], opacity=0.14, clip=True).encode(y=alt.Y("low:Q"), y2="high:Q")
    half = base.mark_area(color=COLOURS["cosine"], opacity=0.28, clip=True).encode(y=alt.Y("quarter:Q"), y2="most:Q")
    line = base.mark_line(color=COLOURS["cosine"], strokeWidth=2.5)
    points = base.mark_point(color=COLOURS["cosine"])
    words = "Line: median text; dark: the middle half of the texts; light: nine tenths of them"
    title = heading(f"Contraction per layer of {diagnosis.model.name}, text by text", diagnosis, words)
    chart = layered(wide, half, one, line, points, *unless_any([median]))
    return chart.properties(width=WIDTH, height=HEIGHT, title=title)


def tightness_figure(found: Verification) -> alt.LayerChart:
    """How far above its left side each theorem's right side is: least, median and largest quotient."""
    rows = [
        {"theorem": row.theorem, "low": low, "middle": middle, "high": high}
        for row in found.theorems
        if row.tightness is not None
        for low, middle, high in [positive(row.tightness).tolist()]
    ]
    numbers = [[row[key] for row in rows] for key in ("low", "middle", "high")]
    y, _ = log_axis("", numbers, include=(1.0, 2.0))
    x = alt.X("low:Q", scale=y["scale"], axis=alt.Axis(title="rhs / lhs (log scale; 1 = attained)", format="~g"))
    names = [row["theorem"] for row in rows]
    side = alt.Y("theorem:N", sort=None, scale=alt.Scale(domain=names), title=None, axis=alt.Axis(labelLimit=260))
    base = alt.Chart(values(rows)).encode(y=side)
    ranges = base.mark_rule(color=COLOURS["cosine"], strokeWidth=2).encode(x=x, x2="high:Q")
    tooltip = ["theorem:N", *(alt.Tooltip(f"{key}:Q", format=",.4~r") for key in ("low", "middle", "high"))]
    points = base.mark_point(color=COLOURS["cosine"]).encode(x=alt.X("middle:Q", scale=y["scale"]), tooltip=tooltip)
    one = alt.Chart(values([{"one": 1}])).mark_rule(color=GREY, strokeDash=[5, 3])
    words = "Dot: median over sentences, layers and heads; line: smallest to largest. Nothing may be left of 1."
    title = heading(f"How tight are the theorems on {found.model.name}?", found, words)
    chart = layered(ranges, points, one.encode(x=alt.X("one:Q", scale=y["scale"])), *unless_any(numbers))
    return chart.properties(width=480, height=max(120, 18 * len(rows)), title=title)


def verdicts_figure(found: Verification) -> alt.Chart:
    """The share of checks of every verdict, by theorem."""
    rows = [
        {"theorem": row.theorem, "verdict": verdict, "order": order, "checks": row.counts[verdict]}
        for row in found.theorems
        for order, verdict in enumerate(VERDICTS)
        if row.counts[verdict]
    ]
    legend = alt.Legend(orient="top", title=None, columns=2)
    scale = alt.Scale(domain=list(VERDICTS), range=[_VERDICT_COLOURS[verdict] for verdict in VERDICTS])
    names = [row.theorem for row in found.theorems]
    bars = alt.Chart(values(rows)).mark_bar()
    bars = bars.encode(
        x=alt.X("checks:Q", stack="normalize", axis=alt.Axis(format="%", title="share of checks")),
        y=alt.Y("theorem:N", sort=None, scale=alt.Scale(domain=names), title=None, axis=alt.Axis(labelLimit=260)),
        color=alt.Color("verdict:N", scale=scale, legend=legend),
        order="order:Q",
        tooltip=["theorem:N", "verdict:N", "checks:Q"],
    )
    title = heading(f"Verdicts of the theorems on {found.model.name}", found)
    return bars.properties(width=480, height=max(120, 18 * len(names)), title=title)
