"""Charts of heads and of tokens: mixing rates, sinks, cosine similarities of one sentence, its attention as a graph."""

from typing import Any

import altair as alt
import numpy as np
from numpy.typing import NDArray

from ..results.diagnosis import Diagnosis, Exemplar
from .charts import drawable, layered, unless_any, values
from .format import digits, finite

LABELLED_TOKENS = 40
"""Longer sentences get no token labels: they would overlap."""

LABELLED_HEADS = 24
"""Wider tables get colours only."""

LAYER, HEAD, TOKEN = "#layer", "#head", "#token"
"""The page's elements that choose a layer, a head from 1 or 0 for the mean of all, a token from 1 or 0 for all."""


def mixing_rates(diagnosis: Diagnosis) -> alt.LayerChart:
    """Mixing rate of every head, a layer x head heat map with its values."""
    rate = diagnosis.mixing_rate.mean
    # White is at 1, where attention neither shrinks nor stretches the distance from the mean.
    top = max([2.0, *finite(rate).tolist()])
    colours = alt.Scale(
        domain=[0, 0.5, 1, (1 + top) / 2, top], range=["#542788", "#998ec3", "#f7f7f7", "#f1a340", "#b35806"]
    )
    legend = alt.Legend(title="√λ", format=".1f", values=[0, 0.5, 1, 1.5, top])
    dark = f"datum.rate < 0.36 || datum.rate > {1 + 0.64 * (top - 1)}"
    return _of_heads(rate, "rate", "√λ", alt.Color("rate:Q", scale=colours, legend=legend), dark)


def sink_strengths(diagnosis: Diagnosis) -> alt.LayerChart:
    """The attention that every head's strongest key receives, a layer x head heat map with its values."""
    colours = alt.Scale(domain=[0, 0.5, 1], range=["#f7f7f7", "#5aae9a", "#003c30"])
    legend = alt.Legend(title="sink", format=".1f", values=[0, 0.5, 1])
    colour = alt.Color("strength:Q", scale=colours, legend=legend)
    return _of_heads(diagnosis.sink_strength.mean, "strength", "sink strength", colour, "datum.strength > 0.55")


def _of_heads(matrix: NDArray[np.float64], field: str, title: str, colour: alt.Color, dark: str) -> alt.LayerChart:
    """A number of every layer and head, [L N], in colours and, where there is room, in digits: white where `dark`."""
    rows = [
        {"layer": layer + 1, "head": head + 1, field: matrix[layer, head]}
        for layer, head in np.argwhere(np.isfinite(matrix)).tolist()
    ]
    axis: dict[str, Any] = {"domain": False, "ticks": False, "labelAngle": 0}
    layers, heads = (list(range(1, size + 1)) for size in matrix.shape)
    base = alt.Chart(values(rows)).encode(
        x=alt.X("head:O", scale=alt.Scale(domain=heads), axis=alt.Axis(title="head", **axis)),
        y=alt.Y("layer:O", scale=alt.Scale(domain=layers), axis=alt.Axis(title="layer", **axis)),
    )
    tooltip = ["layer:O", "head:O", alt.Tooltip(f"{field}:Q", title=title, format=".3f")]
    map_ = base.mark_rect(stroke="white").encode(color=colour, tooltip=tooltip)
    if len(heads) > LABELLED_HEADS:
        return layered(map_, *unless_any([matrix]))
    size = alt.expr(f"min(12, width / {len(heads)} / 2.6)")  # a narrow page has narrow cells
    text = base.mark_text(fontSize=size).encode(
        text=alt.Text(f"{field}:Q", format=".2f"), color=alt.condition(dark, alt.value("white"), alt.value("black"))
    )
    return layered(map_, text, *unless_any([matrix]))


def cosine_maps(exemplar: Exemplar) -> alt.FacetChart:
    """Cosine similarity of every pair of tokens, one small heat map per hidden state."""
    states = exemplar.cosine.shape[0]
    titles = alt.param(name="titles", value=[_state_title(exemplar, state) for state in range(states)])
    header = alt.Header(title=None, labelExpr="titles[datum.value]", labelFontSize=13, labelFontWeight="bold")
    cells = _cosine_map(exemplar, 210).properties(width=210, height=210)
    grid = cells.facet(alt.Facet("layer:O", header=header), columns=min(states, 4 if states <= 8 else 5))
    return grid.add_params(titles, _tokens(exemplar))


def cosine_of_layer(exemplar: Exemplar) -> alt.Chart:
    """The heat map of the layer that the page's reader chooses."""
    layer = _layer(exemplar)
    chart = _cosine_map(exemplar, 300).transform_filter("datum.layer == toNumber(layer)")
    titles = alt.param(name="titles", value=[_state_title(exemplar, k) for k in range(exemplar.cosine.shape[0])])
    title = alt.Title(alt.expr("titles[toNumber(layer)]"), fontSize=13)
    return chart.add_params(layer, titles, _tokens(exemplar)).properties(title=title)


def attention_graph(exemplar: Exemplar, heads: int) -> alt.LayerChart:
    """Which token reads which, in the layer and head that the page's reader chooses; pointing singles a token out.

    Args:
      exemplar: the sentence.
      heads: how many heads can be chosen one by one.
    """
    size = len(exemplar.tokens)
    reader, source = _pointed_at("reader", "i"), _pointed_at("source", "j")
    axis = alt.Scale(domain=[size - 0.4, -0.6], nice=False, zero=False)
    across: dict[str, Any] = {"scale": alt.Scale(domain=[-0.65, 1.65], nice=False, zero=False), "axis": None}
    shown = "datum.layer == toNumber(layer) && datum.head == toNumber(head)"
    edges = alt.Chart(_edges(exemplar, heads)).transform_filter(shown).transform_flatten(["j", "value"])
    edges = edges.transform_calculate(left="0.02", right="0.98", reads="tokens[datum.i]", read="tokens[datum.j]")
    strength = alt.Opacity("value:Q", scale=alt.Scale(domain=[0, 0.75], range=[0.12, 1], clamp=True), legend=None)
    lines = edges.mark_rule(color="#0072b2", strokeCap="round").encode(
        x=alt.X("left:Q", **across),
        x2="right:Q",
        y=alt.Y("i:Q", scale=axis, axis=None),
        y2="j:Q",
        strokeWidth=alt.StrokeWidth("value:Q", scale=alt.Scale(domain=[0, 1], range=[0.5, 7.5]), legend=None),
        opacity=alt.condition(reader & source & alt.PredicateComposition(_CHOSEN), strength, alt.value(0.03)),
        tooltip=["reads:N", "read:N", alt.Tooltip("value:Q", title="attention", format=".3f")],
        order=alt.Order("value:Q"),  # thick edges over thin ones
    )
    labels = [_labels(exemplar, side, params) for side, params in (("i", reader), ("j", source))]
    return (
        layered(lines, *labels)
        .add_params(_layer(exemplar), _head(), _token(), _tokens(exemplar))
        .properties(title=alt.Title(alt.expr(_GRAPH_TITLE), fontSize=13), height=22 * size + 20)
    )


_CHOSEN = "toNumber(token) == 0 || datum.i == toNumber(token) - 1 || datum.j == toNumber(token) - 1"

_GRAPH_TITLE = (
    "toNumber(layer) == 0 ? 'The embedding output has no attention' : 'layer ' + layer + "
    "(toNumber(head) == 0 ? ', mean of all heads' : ', head ' + head)"
)


def _pointed_at(name: str, field: str) -> alt.Parameter:
    """The token of the labels on one side that the pointer is at; without the mark's name, any mark would do."""
    return alt.selection_point(name, fields=[field], on=f"@labels_{field}_marks:pointerover", clear="pointerout")


def _labels(exemplar: Exemplar, side: str, selection: alt.Parameter) -> alt.Chart:
    rows = [
        {side: k, "place": float(side == "j"), "token": drawable(t, 14), "whole": t}
        for k, t in enumerate(exemplar.tokens)
    ]
    chart = alt.Chart(values(rows)).mark_text(align="right" if side == "i" else "left", fontSize=13)
    bold = alt.condition(selection, alt.value(1), alt.value(0.4))
    return (
        chart.encode(x="place:Q", y=f"{side}:Q", text="token:N", tooltip="whole:N", opacity=bold)
        .add_params(selection)
        .properties(name=f"labels_{side}")
    )


def _layer(exemplar: Exemplar) -> alt.Parameter:
    return alt.param(name="layer", value=exemplar.cosine.shape[0] - 1, bind=alt.BindDirect(LAYER, event="input"))


def _head() -> alt.Parameter:
    return alt.param(name="head", value=0, bind=alt.BindDirect(HEAD, event="change"))


def _token() -> alt.Parameter:
    return alt.param(name="token", value=0, bind=alt.BindDirect(TOKEN, event="change"))


def _tokens(exemplar: Exemplar) -> alt.Parameter:
    # Axes count tokens, because a sentence may have a token twice; labels are read from this list.
    return alt.param(name="tokens", value=[drawable(token, 12) for token in exemplar.tokens])


def _cosine_map(exemplar: Exemplar, side: int) -> alt.Chart:
    size = len(exemplar.tokens)
    style: dict[str, Any] = {"title": None, "ticks": False, "domain": False, "labelOverlap": False}
    style |= {
        "labels": size <= LABELLED_TOKENS,
        "labelExpr": "tokens[datum.value]",
        "labelFontSize": min(12, side // size),
    }
    lowest = min(0.0, float(np.nanmin(exemplar.cosine, initial=0.0)))
    legend = alt.Legend(title="cosine", format=".1f", gradientLength=150)
    colour = alt.Color("value:Q", scale=alt.Scale(scheme="cividis", domain=[lowest, 1]), legend=legend)
    pair = ["first:N", "second:N", alt.Tooltip("value:Q", title="cosine", format=".3f")]
    rows = [{"layer": k, **_row(exemplar.cosine[k], i)} for k, i in np.ndindex(exemplar.cosine.shape[:-1])]
    chart = alt.Chart(values(rows)).mark_rect().transform_flatten(["j", "value"])
    chart = chart.transform_calculate(first="tokens[datum.i]", second="tokens[datum.j]")
    across, down = (alt.Axis(labelAngle=angle, **style) for angle in (-90, 0))
    return chart.encode(x=alt.X("j:O", axis=across), y=alt.Y("i:O", axis=down), color=colour, tooltip=pair)


def edge_count(exemplar: Exemplar, single: int) -> int:
    """How many edges the graph has in all layers, with so many heads one by one."""
    heads, least = _heads(exemplar, single)
    return int((heads >= least).sum())


def _heads(exemplar: Exemplar, single: int) -> tuple[NDArray[np.float64], float]:
    """Attention of the mean of all heads and of the first ones, [L 1+N T T], and the least that is drawn.

    Weaker edges than an even share would only blacken the picture; the margin keeps exactly even attention visible
    after rounding.
    """
    mean = exemplar.attn.mean(axis=1, keepdims=True, dtype=np.float64)
    return np.concatenate([mean, exemplar.attn[:, :single]], axis=1), 0.99 / len(exemplar.tokens)


def _edges(exemplar: Exemplar, single: int) -> alt.Data:
    """One datum for every layer from 1, head (0 is the mean of all) and token i that reads: what it reads, j."""
    heads, least = _heads(exemplar, single)
    return values(
        [
            {"layer": layer + 1, "head": head, **_row(heads[layer, head], i, least)}
            for layer, head, i in np.ndindex(heads.shape[:-1])
        ]
    )


def _row(matrix: NDArray, i: int, least: float = -np.inf) -> dict[str, Any]:
    """Row i of a matrix as two lists, columns j and entries `value`, of the entries that are at least `least`."""
    kept = np.flatnonzero(matrix[i] >= least)
    return {"i": i, "j": kept.tolist(), "value": [float(f"{entry:.5g}") for entry in matrix[i, kept].tolist()]}


def _state_title(exemplar: Exemplar, state: int) -> str:
    name = "embedding output" if state == 0 else f"layer {state}"
    matrix = exemplar.cosine[state].astype(np.float64)
    pairs = matrix[~np.eye(matrix.shape[0], dtype=bool)]
    return f"{name}: mean {digits(float(pairs.mean()))}" if pairs.size else name
