"""Charts of quantities per layer, the one picture that answers the question at a glance, and the files of figures."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np

from ..errors import arguments_checked
from ..results.diagnosis import Diagnosis, FusedLayers
from ..results.spread import Spread
from ..results.summaries import RATES
from .charts import (
    COLOURS,
    GREY,
    Series,
    bands,
    heading,
    layer_axis,
    layered,
    log_axis,
    positive,
    save,
    styled,
    unless_any,
)
from .charts import values as data_of
from .findings import median_ratio
from .format import digits, finite
from .headline import headline
from .heatmaps import cosine_maps, mixing_rates
from .sections.drawn import attribution_chart, baseline_chart
from .shown.pictures import Illustrator

RATE_LABELS = {
    "actual": "actual rate",
    "L5": "L5  this data, MLP and all",
    "L4": "L4  this data, attention",
    "L3": "L3  operator norm",
    "L2b": "L2b  weighted pairs",
    "L2": "L2  refined norms",
    "L1": "L1  theorem, per layer",
    "L0": "L0  theorem, global",
}

PRE_NORM_LABELS = {**RATE_LABELS, "L1": "L1  pre-LN blocks"}

_BANDS = "Line: mean over sentences; dark band: ± 1 standard deviation; light band: smallest to largest"
_SHAPES = {
    "actual": "circle",
    "L5": "triangle-left",
    "L4": "triangle-down",
    "L3": "diamond",
    "L2b": "square",
    "L2": "cross",
    "L1": "triangle-up",
    "L0": "triangle-right",
}
_CONTRACTION = "#DDF1E4"
_TIMES = "In brackets: how many times the actual rate a bound is, median over layers"
_IN_OVERVIEW = ("actual", "L5", "L4", "L3", "L1", "L0")


@arguments_checked
def write_figures(diagnosis: Diagnosis, folder: Path, *, meanwhile: Illustrator | None = None) -> dict[str, Path]:
    """Draw every figure of the report, as PNG, SVG and PDF.

    Args:
      diagnosis: what `jaxsmooth.diagnose` found.
      folder: where the files go; made if missing.
      meanwhile: what draws them while this process goes on, see `report.illustrator`.

    Returns:
      Name -> path of the PNG: overview, similarity, norms, ladder, mixing_rate, baselines, attribution and, if the
      diagnosis has an exemplar, exemplar_cosine.

    Raises:
      OSError: the folder cannot be written to.
    """
    makers: dict[str, Callable[[Diagnosis], alt.TopLevelMixin]] = {
        "overview": overview_figure,
        "similarity": similarity_figure,
        "norms": norms_figure,
        "ladder": ladder_figure,
        "mixing_rate": mixing_rate_figure,
        "baselines": baselines_figure,
    }
    if diagnosis.attribution is not None:
        makers["attribution"] = attribution_figure
    if diagnosis.exemplar is not None:
        makers["exemplar_cosine"] = exemplar_figure
    return {name: save(make(diagnosis), folder / name, meanwhile=meanwhile) for name, make in makers.items()}


def overview_figure(diagnosis: Diagnosis) -> alt.HConcatChart:
    """One wide picture: how similar the tokens become, and how far the theory's bounds are from that."""
    left = similarity_chart(diagnosis).properties(width=440, height=360, title="Do the tokens become the same?")
    half = (diagnosis.rates["actual"].mean.size + 1) // 2  # an arrow in each half, or they would lie on each other
    right = layered(
        ladder_chart(diagnosis, _IN_OVERVIEW),
        *_gap(diagnosis, "L1", slice(None, half), 0.8),
        *_gap(diagnosis, "L4", slice(half, None), 0.45),
    )
    right = right.properties(width=540, height=360, title="Does the theory explain it?")
    both = alt.hconcat(left, right, spacing=40).resolve_scale(color="independent", shape="independent")
    return both.properties(title=heading(headline(diagnosis).headline, diagnosis, f"{_BANDS}. {_TIMES}"))


def similarity_figure(diagnosis: Diagnosis) -> alt.LayerChart:
    """Cosine similarity and relative distance of the tokens, layer by layer."""
    title = heading(f"Similarity of the tokens in {diagnosis.model.name}", diagnosis, _BANDS)
    return similarity_chart(diagnosis).properties(width=640, height=380, title=title)


def ladder_figure(diagnosis: Diagnosis) -> alt.LayerChart:
    """Actual contraction rate of every block against its upper bounds."""
    note = f"Line: mean over sentences; grey: smallest to largest sentence. {_TIMES}"
    title = heading(f"Contraction per layer of {diagnosis.model.name}", diagnosis, note)
    return ladder_chart(diagnosis, RATES).properties(width=700, height=380, title=title)


def norms_figure(diagnosis: Diagnosis) -> alt.HConcatChart:
    """LayerNorm standard deviations, and their product against the theorem's threshold."""
    left = norms_chart(diagnosis).properties(width=460, height=360, title="What the LayerNorms divide by")
    right = threshold_chart(diagnosis).properties(width=460, height=360, title="Is the product above the threshold?")
    both = alt.hconcat(left, right, spacing=40).resolve_scale(color="independent", shape="independent")
    name = f"LayerNorm standard deviations of {diagnosis.model.name}"
    return both.properties(title=heading(name, diagnosis, f"{_BANDS} (left: smallest to largest token)"))


def mixing_rate_figure(diagnosis: Diagnosis) -> alt.LayerChart:
    """Mixing rate of every head."""
    layers, heads = diagnosis.mixing_rate.mean.shape
    title = heading("Mixing rate √λ of every head (below 1: it only brings tokens together)", diagnosis)
    return mixing_rates(diagnosis).properties(width=max(360, 44 * heads), height=max(120, 30 * layers), title=title)


def attribution_figure(diagnosis: Diagnosis) -> alt.LayerChart:
    """What each part of every block does to the relative distance."""
    note = "Mean over sentences. Below 0: this part brings the tokens together. Dot: sum of the parts"
    title = heading(f"Which part of a block brings tokens together in {diagnosis.model.name}?", diagnosis, note)
    return attribution_chart(diagnosis).properties(width=640, height=380, title=title)


def baselines_figure(diagnosis: Diagnosis) -> alt.LayerChart:
    """The similarity of tokens beside that of tokens of different texts, and of the model before training."""
    notes = ["Means over texts"]
    if diagnosis.untrained is not None:
        notes.append(f"before training: weights drawn at random, {diagnosis.untrained.texts} of the texts")
    title = heading(f"Similarity in {diagnosis.model.name}, and what to compare it with", diagnosis, "; ".join(notes))
    return baseline_chart(diagnosis).properties(width=640, height=380, title=title)


def exemplar_figure(diagnosis: Diagnosis) -> alt.FacetChart:
    """Cosine similarity of every pair of tokens of one sentence, one small heat map per hidden state."""
    assert diagnosis.exemplar is not None
    title = heading(f"“{diagnosis.exemplar.text}”", diagnosis, "Cosine similarity of every pair of tokens")
    return cosine_maps(diagnosis.exemplar).properties(title=title)


def similarity_chart(diagnosis: Diagnosis) -> alt.LayerChart:
    """Cosine similarity and relative distance, over the hidden states."""
    spreads = {
        Series("cosine similarity of two tokens (1 = same)", COLOURS["cosine"]): diagnosis.cosine_similarity,
        Series("relative distance d_M/‖H‖ (0 = same)", COLOURS["distance"], "square"): diagnosis.relative_distance,
    }
    lowest = min(finite(diagnosis.cosine_similarity.min).tolist(), default=0.0)
    scale = alt.Scale(domain=[min(-0.05, lowest - 0.05), 1.05], nice=False)
    chart = bands(spreads, 0, alt.Y("value:Q", scale=scale, title="mean over sentences (no unit)"), columns=1)
    cosine = diagnosis.cosine_similarity.mean
    style: dict[str, Any] = {"color": COLOURS["cosine"], "fontSize": 14, "fontWeight": "bold"}
    ends: dict[int, dict[str, Any]] = {0: {"align": "left", "dy": 16}, cosine.size - 1: {"align": "right", "dy": -14}}
    marks = [
        alt.Chart(data_of([{"layer": k, "value": cosine[k], "text": digits(cosine[k])}]))
        .mark_text(**place, **style)
        .encode(x="layer:Q", y="value:Q", text="text:N")
        for k, place in ends.items()
    ]
    return layered(chart, *marks)


def norms_chart(diagnosis: Diagnosis, *, columns: int | alt.ExprRef = 2) -> alt.LayerChart:
    """What the two LayerNorms of every block divide a token by."""
    spreads = {
        Series("attention LayerNorm", COLOURS["std_attn"]): diagnosis.std_attn,
        Series("MLP LayerNorm", COLOURS["std_mlp"], "square"): diagnosis.std_mlp,
    }
    edges = [edge for spread in spreads.values() for edge in (spread.mean, spread.min, spread.max)]
    y, floor = log_axis("std of a token's features (log scale)", edges)
    return bands(spreads, 1, y, columns=columns, floor=floor)


def threshold_chart(diagnosis: Diagnosis, *, columns: int | alt.ExprRef = 2) -> alt.LayerChart:
    """The product of every block's two smallest LayerNorm standard deviations against the theorem's threshold."""
    spreads = {
        Series("threshold of the theorem (L1)", COLOURS["threshold"], "triangle-up"): diagnosis.threshold,
        Series("product of the smallest stds", COLOURS["std_product"]): diagnosis.std_product,
    }
    edges = [edge for spread in spreads.values() for edge in (spread.mean, spread.min, spread.max)]
    y, floor = log_axis("product of two stds (log scale)", edges)
    return bands(spreads, 1, y, columns=columns, floor=floor)


def attention_chart(diagnosis: Diagnosis) -> alt.LayerChart:
    """How alike the attention of every block is to that of the block before."""
    name = Series("cosine with the layer before, heads averaged", COLOURS["attention"])
    y = alt.Y("value:Q", scale=alt.Scale(domain=[-0.02, 1.02], nice=False), title="cosine (1 = the same graph)")
    return bands({name: diagnosis.attention_similarity}, 1, y, columns=1)


def principal_chart(diagnosis: Diagnosis) -> alt.LayerChart:
    """How far the tokens that a block hands out lie along the principal direction of its own W_V W_O, and by chance."""
    name = Series("tokens that the layer hands out", COLOURS["attention"])
    spreads = {name: diagnosis.principal_alignment}
    if diagnosis.weights is not None:
        same, one = diagnosis.weights.chance, np.ones(diagnosis.weights.chance.shape, np.int64)
        spreads[Series("tokens in random directions", COLOURS["threshold"], "square")] = Spread(
            same, 0 * same, same, same, one
        )
    highest = max((1.1 * edge for spread in spreads.values() for edge in finite(spread.max).tolist()), default=1.0)
    scale = alt.Scale(domain=[0, min(1.0, highest)], nice=False)
    return bands(spreads, 1, alt.Y("value:Q", scale=scale, title="share of a token's length"), columns=1)


def importance_chart(fused: FusedLayers) -> alt.LayerChart:
    """How much every fused layer counts: mean over tokens, and the range over all tokens of all sentences."""
    assert fused.gates is not None
    columns = zip(fused.layers, fused.gates.mean, fused.gates.min, fused.gates.max, strict=True)
    rows = [{"layer": layer, "mean": mean, "low": low, "high": high} for layer, mean, low, high in columns]
    base = alt.Chart(data_of(rows)).encode(x=alt.X("layer:O", axis=alt.Axis(title="layer", labelAngle=0)))
    tooltip = ["layer:O", *(alt.Tooltip(f"{key}:Q", format=".3f") for key in ("mean", "low", "high"))]
    y = alt.Y("mean:Q", title="gate (bar: mean; line: all tokens)")
    bars = base.mark_bar(color=COLOURS["attention"], width=alt.RelativeBandSize(0.6)).encode(y=y, tooltip=tooltip)
    ranges = base.mark_rule(color="black").encode(y="low:Q", y2="high:Q")
    return layered(bars, ranges, *unless_any([fused.gates.mean]))


def ladder_chart(diagnosis: Diagnosis, names: Sequence[str], *, columns: int | alt.ExprRef = 3) -> alt.LayerChart:
    """The actual rate of every block, its range over sentences, and the bounds of `names`, on a log axis."""
    means = {name: positive(diagnosis.rates[name].mean) for name in names}
    labels = {name: _rate_label(diagnosis, name) for name in names}
    layers = means["actual"].size
    y, low = log_axis("d_M after the block / d_M before it (log scale)", list(means.values()), include=(0.25, 3.0))
    rows = [
        {"layer": k + 1, "series": labels[name], "value": mean[k], "width": 4 if name == "actual" else 2}
        for name, mean in reversed(means.items())
        for k in range(layers)
    ]
    style = styled([Series(labels[name], COLOURS[name], _SHAPES[name]) for name in names], columns=columns)
    base = alt.Chart(data_of(rows)).encode(x=layer_axis(1, layers), y=y, color=style["color"])
    line = base.mark_line().encode(strokeWidth=alt.StrokeWidth("width:Q", scale=None), detail="series:N")
    tooltip = ["layer:Q", "series:N", alt.Tooltip("value:Q", format=",.3~r")]
    points = base.mark_point().encode(shape=style["shape"], tooltip=tooltip)
    rates = layered(line, points)
    return layered(*_contraction(low), _actual_range(diagnosis, low), rates, *unless_any(list(means.values())))


def _actual_range(diagnosis: Diagnosis, low: float) -> alt.Chart:
    actual = diagnosis.rates["actual"]
    rows = [
        {"layer": k + 1, "low": max(float(actual.min[k]), low), "high": actual.max[k]}
        for k in np.flatnonzero(np.isfinite(positive(actual.mean)))
    ]
    area = alt.Chart(data_of(rows)).mark_area(color=COLOURS["actual"], opacity=0.13, clip=True)
    return area.encode(x="layer:Q", y="low:Q", y2="high:Q")


def _contraction(low: float) -> list[alt.Chart]:
    """The green region below 1, its edge, and what it means."""
    empty = alt.Chart(data_of([{}]))
    region = empty.mark_rect(color=_CONTRACTION).encode(y=alt.datum(low, type="quantitative"), y2=alt.datum(1))
    edge = empty.mark_rule(color="#3B7A57", strokeDash=[5, 3]).encode(y=alt.datum(1, type="quantitative"))
    words = empty.mark_text(text="below 1: tokens come closer to their mean", align="left", dy=-8, color="#2E6B4A")
    return [region, edge, words.encode(x=alt.value(6), y=alt.value("height"))]


def _gap(diagnosis: Diagnosis, name: str, among: slice, height: float) -> list[alt.Chart]:
    """An arrow that says how many times the actual rate a bound is in the median layer; it stands at the layer that is
    nearest to that among some."""
    actual, bound = (positive(diagnosis.rates[key].mean) for key in ("actual", name))
    median = median_ratio(diagnosis.rates[name].mean, diagnosis.rates["actual"].mean)
    ratios = (bound / actual)[among]
    # One layer has no room for two arrows, and a bound within a factor of two needs none.
    if actual.size == 1 or not 2 <= median < np.inf or not np.isfinite(ratios).any():
        return []
    block = (among.start or 0) + int(np.nanargmin(np.abs(np.log(ratios / median))))
    bottom, top = float(actual[block]), float(bound[block])
    base = alt.Chart(data_of([{"layer": block + 1, "value": bottom, "top": top}])).encode(x="layer:Q", y="value:Q")
    words = {"layer": block + 1, "value": bottom * (top / bottom) ** height, "text": f"{digits(median)} × actual"}
    text = alt.Chart(data_of([words])).encode(x="layer:Q", y="value:Q", text="text:N")
    style: dict[str, Any] = {"align": "left", "dx": 6, "fontSize": 13, "fontWeight": "bold"}
    return [
        base.mark_rule(color=GREY).encode(y2="top:Q"),
        base.mark_point(shape="triangle-down", color=GREY, yOffset=-8, size=40),
        base.mark_point(shape="triangle-up", color=GREY, yOffset=8, size=40).encode(y="top:Q"),
        text.mark_text(stroke="white", strokeWidth=4, **style),  # a halo, or lines would strike the number out
        text.mark_text(color=COLOURS[name], **style),
    ]


def rate_labels(diagnosis: Diagnosis) -> dict[str, str]:
    """What the rates are called; L1 of a model that departs from the theorem's blocks is not the theorem's."""
    return PRE_NORM_LABELS if diagnosis.model.departures else RATE_LABELS


def _rate_label(diagnosis: Diagnosis, name: str) -> str:
    label = rate_labels(diagnosis)[name]
    ratio = median_ratio(diagnosis.rates[name].mean, diagnosis.rates["actual"].mean)
    return label if name == "actual" or np.isnan(ratio) else f"{label}  (× {digits(ratio)})"
