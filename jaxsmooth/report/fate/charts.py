"""The figures of `converge --map`: fates by layer, distances by step, basins, and the sweep over imposed stds."""

from typing import Any

import altair as alt
import numpy as np

from ...results.fate import FATES, MapConvergence, StdSweep
from ..charts import GREY, heading, layered, values
from .words import MEANING, place

FATE_COLOURS = {
    "consensus": "#D55E00",
    "clusters": "#0072B2",
    "cycle": "#CC79A7",
    "moving": "#BBBBBB",
    "diverged": "#000000",
}


def _colour() -> alt.Color:
    scale = alt.Scale(domain=list(FATES), range=[FATE_COLOURS[fate] for fate in FATES])
    return alt.Color("fate:N", scale=scale, legend=alt.Legend(orient="top", title=None, columns=3))


def fates_chart(found: MapConvergence) -> alt.Chart:
    """A bar for each map: the share of sentences of every fate."""
    rows = [
        {
            "map": place(found, one),
            "fate": fate,
            "order": order,
            "share": one.share(fate),
            "count": one.fate.count(fate),
        }
        for one in found.maps
        for order, fate in enumerate(FATES)
        if one.fate.count(fate)
    ]
    x = alt.X("map:N", sort=[place(found, one) for one in found.maps], axis=alt.Axis(labelAngle=0), title=None)
    y = alt.Y("share:Q", axis=alt.Axis(format="%"), title="share of sentences", scale=alt.Scale(domain=[0, 1]))
    bars = alt.Chart(values(rows)).mark_bar(size=34)
    bars = bars.encode(x=x, y=y, color=_colour(), order="order:Q", tooltip=["map:N", "fate:N", "count:Q"])
    words = [f"{fate}: {MEANING[fate]}" for fate in FATES if any(one.fate.count(fate) for one in found.maps)]
    title = heading(f"{found.model.name}: where do the tokens go?", found, f"{_map_words(found)}.", *words)
    return bars.properties(width=max(320, 62 * len(found.maps)), height=300, title=title)


def _map_words(found: MapConvergence) -> str:
    what = "all layers in turn" if found.map == "stack" else f"the map “{found.map}” of each layer"
    std = "" if found.std is None else f", with an imposed std of {found.std:g}"
    return f"Applied up to {found.steps} times, everything recomputed: {what}{std}"


def distances_chart(found: MapConvergence) -> alt.VConcatChart:
    """A line for each sentence: how far its tokens are from being equal, after each step."""
    floor = found.tolerance
    top = max([0, *(np.isfinite(one.distances).sum(axis=1).max() for one in found.maps)])
    x = alt.X("step:Q", title="times applied", scale=alt.Scale(domain=[0, int(top)], nice=False))
    exponents = list(range(0, int(np.floor(np.log10(floor))) - 1, -2))
    axis = alt.Axis(values=[10.0**e for e in exponents], format=".0e", title="d_M(X) / ‖X‖")
    y = alt.Y("distance:Q", scale=alt.Scale(type="log", domain=[floor / 3, 1.5], clamp=True, nice=False), axis=axis)
    rule = alt.Chart(values([{"y": floor}])).mark_rule(color=GREY, strokeDash=[5, 4]).encode(y="y:Q")
    charts = []
    for one in found.maps:
        data = values(
            [
                {"step": k, "distance": max(float(d), floor / 3), "sentence": s, "fate": one.fate[s]}
                for s, curve in enumerate(one.distances)
                for k, d in enumerate(curve)
                if np.isfinite(d)
            ]
        )
        lines = alt.Chart(data).mark_line(strokeWidth=1.3, opacity=0.8, clip=True)
        lines = lines.encode(x=x, y=y, color=_colour(), detail="sentence:N")
        charts.append(layered(rule, lines).properties(width=300, height=190, title=place(found, one)))
    rows = [alt.hconcat(*charts[k : k + 3]) for k in range(0, len(charts), 3)]
    notes = (
        "A line is a sentence. Below the dashed line its tokens count as equal: consensus.",
        f"{_map_words(found)}.",
    )
    return alt.vconcat(*rows).properties(
        title=heading(f"{found.model.name}: how far from equal tokens?", found, *notes)
    )


def basin_chart(found: MapConvergence) -> alt.LayerChart:
    """A dot for each sentence: how far from consensus it may start and still reach it."""
    order = [place(found, one) for one in found.maps]
    rows: list[dict[str, Any]] = [
        {"map": place(found, one), "s": max(float(reached), 1e-3), "shape": "beyond" if np.isinf(missed) else "edge"}
        for one in found.maps
        for reached, missed in zip(one.numbers["basin_reached"], one.numbers["basin_missed"], strict=True)
        if np.isfinite(reached)
    ]
    x = alt.X("map:N", sort=order, axis=alt.Axis(labelAngle=0), title=None)
    axis = alt.Axis(
        values=[0.001, 0.01, 0.1, 0.25, 0.5, 1, 2, 4], format="~g", title="largest s that reaches consensus"
    )
    y = alt.Y("s:Q", scale=alt.Scale(type="log", domain=[9e-4, 6], nice=False), axis=axis)
    shape = alt.Shape(
        "shape:N", scale=alt.Scale(domain=["edge", "beyond"], range=["circle", "triangle-up"]), legend=None
    )
    dots = alt.Chart(values(rows)).mark_point(opacity=0.7, size=70, color="#D55E00").encode(x=x, y=y, shape=shape)
    one = alt.Chart(values([{"y": 1}])).mark_rule(color=GREY, strokeDash=[5, 4]).encode(y="y:Q")
    notes = (
        "A dot is a sentence X, started at mean + s (X − mean); dashed: the sentence itself, s = 1.",
        "Triangles: it still reached consensus at the largest s tried. At the foot: 0.001 or less.",
    )
    title = heading(f"{found.model.name}: how near must tokens be to become equal?", found, *notes)
    return layered(one, dots).properties(width=max(320, 62 * len(order)), height=300, title=title)


def sweep_chart(found: MapConvergence) -> alt.VConcatChart:
    """The share that reaches consensus against the imposed std, with the theorem's thresholds."""
    charts = [_swept(found, sweep) for sweep in found.sweeps]
    rows = [alt.hconcat(*charts[k : k + 3]) for k in range(0, len(charts), 3)]
    notes = (
        "Both LayerNorms divide by this number, whatever their input. Orange: sentences that reach consensus.",
        "Black: from where the theorem's bound of one step, with attention as in the model's own run, is below 1;",
        "solid in the paper's form, dashed with the layer's own constants.",
    )
    title = heading(f"{found.model.name}: does a large LayerNorm std make tokens equal?", found, *notes)
    return alt.vconcat(*rows).properties(title=title)


def _swept(found: MapConvergence, sweep: StdSweep) -> alt.LayerChart:
    known = [float(x) for x in (*sweep.stds, sweep.paper_threshold, sweep.layer_threshold) if np.isfinite(x)]
    domain = [min(known) / 1.2, max(known) * 1.2]
    x = alt.X("std:Q", title="imposed std", scale=alt.Scale(type="log", domain=domain, nice=False))
    rows = [
        {"std": float(std), "fate": fate, "share": row.count(fate) / len(row)}
        for std, row in zip(sweep.stds, sweep.fate, strict=True)
        for fate in FATES
        if any(fate in each for each in sweep.fate)
    ]
    y = alt.Y("share:Q", axis=alt.Axis(format="%"), title="share of sentences", scale=alt.Scale(domain=[0, 1]))
    base = alt.Chart(values(rows)).encode(x=x, y=y, color=_colour())
    lines = [
        alt.Chart(values([{"std": float(at)}])).mark_rule(color="black", strokeDash=dash).encode(x=x)
        for at, dash in ((sweep.paper_threshold, [1, 0]), (sweep.layer_threshold, [5, 4]))
        if np.isfinite(at)
    ]
    parts = (base.mark_line(strokeWidth=2), base.mark_point(), *lines)
    return layered(*parts).properties(width=300, height=190, title=place(found, sweep))
