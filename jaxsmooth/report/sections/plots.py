"""The plots of the page: as wide as their places, answering to a pointer anywhere, within the page's size."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import altair as alt
import numpy as np

from ...results.diagnosis import Diagnosis, Exemplar
from ...results.spread import Spread
from ...results.summaries import RATES
from ..charts import GREY, layered, specification, values
from ..fate.charts import fates_chart
from ..figures import (
    attention_chart,
    importance_chart,
    ladder_chart,
    norms_chart,
    principal_chart,
    rate_labels,
    similarity_chart,
    threshold_chart,
)
from ..format import MISSING, digits
from ..heatmaps import attention_graph, cosine_of_layer, edge_count, mixing_rates, sink_strengths
from .drawn import attribution_chart, baseline_chart

TOKEN_NUMBERS = 40_000
"""Cosines and edges that the plots of one sentence may have, about 18 bytes each, in a page of two million bytes: Vega
takes 900,000 of them, the rest of 24 layers of 16 heads 210,000."""


class Plots(NamedTuple):
    """What the page draws.

    Attributes:
      drawn: element of the page -> Vega-Lite description.
      heads: how many heads the attention graph shows one by one; 0 where only their mean fits.
    """

    drawn: dict[str, dict[str, Any]]
    heads: int


def page_charts(diagnosis: Diagnosis, tokens: bool) -> Plots:
    """The plots of a diagnosis; with `tokens` those of one sentence too, if they fit."""
    drawn = {name: specification(chart) for name, chart in {**_of_layers(diagnosis), **_of_heads(diagnosis)}.items()}
    if diagnosis.exemplar is None or not tokens:
        return Plots(drawn, 0)
    for heads in (diagnosis.exemplar.attn.shape[1], 0):
        if diagnosis.exemplar.cosine.size + edge_count(diagnosis.exemplar, heads) <= TOKEN_NUMBERS:
            of_tokens = _of_tokens(diagnosis.exemplar, heads)
            return Plots({**drawn, **{name: specification(chart) for name, chart in of_tokens.items()}}, heads)
    return Plots(drawn, 0)


def _of_layers(diagnosis: Diagnosis) -> dict[str, alt.TopLevelMixin]:
    # Read once: Vega does not make room for a legend that grows with a signal.
    columns = alt.expr("windowSize()[0] < 640 ? 1 : 3")
    labels = rate_labels(diagnosis)
    states = {"cosine similarity": diagnosis.cosine_similarity, "relative distance": diagnosis.relative_distance}
    rates = {labels[name]: diagnosis.rates[name] for name in RATES}
    products = {"threshold": diagnosis.threshold, "product of the smallest stds": diagnosis.std_product}
    stds = {"std, attention LayerNorm": diagnosis.std_attn, "std, MLP LayerNorm": diagnosis.std_mlp}
    made = {
        "similarity": _pointable(similarity_chart(diagnosis), states, 0).properties(height=320),
        "ladder": _pointable(ladder_chart(diagnosis, RATES, columns=columns), rates).properties(height=380),
        "threshold": _pointable(threshold_chart(diagnosis, columns=1), products).properties(height=320),
        "norms": _pointable(norms_chart(diagnosis, columns=1), stds).properties(height=320),
    }
    if np.isfinite(diagnosis.principal_alignment.mean).any():
        along = {"share of length": diagnosis.principal_alignment}
        made["principal"] = _pointable(principal_chart(diagnosis), along).properties(height=280)
    if diagnosis.mixing_rate.mean.shape[0] > 1:
        same = {"cosine with the layer before": diagnosis.attention_similarity}
        made["alike"] = _pointable(attention_chart(diagnosis), same).properties(height=280)
    made["baseline"] = baseline_chart(diagnosis).properties(height=300)
    if diagnosis.attribution is not None and np.isfinite(diagnosis.attribution.mean).any():
        made["attribution"] = attribution_chart(diagnosis).properties(height=300)
    return {name: chart.properties(width="container") for name, chart in made.items()}


def _of_heads(diagnosis: Diagnosis) -> dict[str, alt.TopLevelMixin]:
    height = max(120, 30 * diagnosis.mixing_rate.mean.shape[0])
    charts: dict[str, alt.TopLevelMixin] = {
        "mixing": mixing_rates(diagnosis).properties(width="container", height=height),
        "sinks": sink_strengths(diagnosis).properties(width="container", height=height),
    }
    if diagnosis.fused is not None and diagnosis.fused.gates is not None:
        charts["importance"] = importance_chart(diagnosis.fused).properties(width="container", height=280)
    if diagnosis.fate is not None:
        charts["fate"] = fates_chart(diagnosis.fate).properties(width="container", title="")
    return charts


def _of_tokens(exemplar: Exemplar, heads: int) -> dict[str, alt.TopLevelMixin]:
    return {
        "cosine": cosine_of_layer(exemplar).properties(width="container", height="container"),
        "graph": attention_graph(exemplar, heads).properties(width="container"),
    }


def _pointable(chart: alt.LayerChart, spreads: Mapping[str, Spread], first: int = 1) -> alt.LayerChart:
    """The chart with a line at the layer nearest to the pointer, and the numbers of that layer beside it."""
    size = next(iter(spreads.values())).mean.size
    rows = [
        {"layer": first + k, **{name: _numbers(spread, k) for name, spread in spreads.items()}} for k in range(size)
    ]
    pointed = alt.selection_point(
        "pointed", fields=["layer"], nearest=True, on="pointerover", clear="pointerout", empty=False
    )
    shown = alt.condition(pointed, alt.value(0.7), alt.value(0))
    # A list of fields would show "undefined" for words: Vega-Lite looks for them in the wrong place.
    line = alt.Chart(values(rows)).mark_rule(color=GREY, tooltip=alt.TooltipContent("data"))
    return layered(chart, line.encode(x="layer:Q", opacity=shown).add_params(pointed))


def _numbers(spread: Spread, k: int) -> str:
    mean, std, low, high = (digits(float(each[k])) for each in (spread.mean, spread.std, spread.min, spread.max))
    return mean if mean == MISSING else f"{mean} ± {std} ({low} to {high})"
