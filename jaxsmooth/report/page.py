"""One self-contained HTML page: no request leaves it, and text from outside stays text."""

import base64
import hashlib
from importlib.resources import files
from typing import Any

import altair as alt
import numpy as np
import vl_convert
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from ..results.diagnosis import Diagnosis, Exemplar
from ..results.summaries import RATES
from .charts import specification
from .every_input import every_input_rows, every_input_words
from .fate.charts import fates_chart
from .fate.words import answers
from .figures import (
    RATE_LABELS,
    attention_chart,
    importance_chart,
    ladder_chart,
    norms_chart,
    principal_chart,
    rate_labels,
    similarity_chart,
    threshold_chart,
)
from .format import MISSING, digits, fused_words, rows_of
from .headline import Headline, headline
from .heatmaps import attention_graph, cosine_of_layer, mixing_rates, sink_strengths
from .json import to_json
from .sections.weights import weights_section
from .texts import texts_section
from .wording import KNOWS, attention_words, rank_words, sink_words

EXEMPLAR_LIMIT = 600_000
"""Numbers of one sentence, cosines and attention, that the page holds: about 10 bytes each."""

TEXT_LIMIT = 2_000
"""Characters of the exemplar that are printed: one enormous word is still one unknown token."""

TABLE = (
    ("cosine", "mean cosine similarity of two tokens", ("cosine_similarity",)),
    ("d_M/‖H‖", "relative distance of the tokens from their mean", ("relative_distance",)),
    ("d_M", "distance of the tokens from their mean", ("subspace_distance",)),
    ("rank, num.", "numerical (stable) rank of the tokens", ("stable_rank",)),
    ("rank, eff.", "effective rank of the tokens", ("effective_rank",)),
    ("std attn, min", "smallest std at the attention LayerNorm", ("std_attn_min",)),
    ("std MLP, min", "smallest std at the MLP LayerNorm", ("std_mlp_min",)),
    ("√λ, max", "largest mixing rate of a head", ("mixing_rate_max",)),
    *((name, RATE_LABELS[name], ("rates", name)) for name in RATES),
)
"""Columns of the table: heading, what it is, where in a layer of report.json it stands."""


def render_page(diagnosis: Diagnosis) -> str:
    """Render the report as one HTML document.

    Args:
      diagnosis: what `jaxsmooth.diagnose` found.

    Returns:
      The document. It carries Vega, its charts and its styles, asks for no other file, and forbids the browser
      (by a content security policy) to load one or to run a script that was not put there by this function.
    """
    report, found = to_json(diagnosis), headline(diagnosis)
    own = [(name, f"{name}, a metric of the user's own", ("metrics", name)) for name in diagnosis.metrics]
    table = (*TABLE[:2], *own, *TABLE[2:])
    # Its stub asks for a snippet; without one the bundle gives `vegaEmbed` to the page.
    vega = _script(vl_convert.javascript_bundle())  # type: ignore[call-arg]
    script = _script(_asset("page.js"))
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["symbols"] = _symbols
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment.from_string(_asset("page.html")).render(
        diagnosis=diagnosis,
        headline=found,
        tiles=_tiles(found),
        columns=[(heading, rate_labels(diagnosis).get(heading, meaning)) for heading, meaning, _ in table],
        rows=[(layer["layer"], [_cell(layer, path) for *_, path in table]) for layer in rows_of(report)],
        every_input=every_input_words(diagnosis),
        every_input_rows=every_input_rows(diagnosis),
        fused=None if diagnosis.fused is None else fused_words(diagnosis.fused),
        fate=None if diagnosis.fate is None else list(answers(diagnosis.fate)),
        knows=[] if diagnosis.model.departures else [(rung, KNOWS[rung]) for rung in diagnosis.model.rungs],
        sinks=sink_words(diagnosis),
        alike=attention_words(diagnosis),
        weights=weights_section(diagnosis),
        ranks=rank_words(diagnosis),
        alt=_alternatives(diagnosis, found),
        sentence=_sentence(diagnosis.exemplar),
        texts=texts_section(diagnosis.texts),
        charts={name: specification(chart) for name, chart in _charts(diagnosis).items()},
        css=Markup(_asset("page.css")),
        vega=Markup(vega),
        script=Markup(script),
        policy=_policy(vega, script),
    )


def _charts(diagnosis: Diagnosis) -> dict[str, alt.TopLevelMixin]:
    """Element of the page -> its chart, as wide as the element."""
    layers = diagnosis.mixing_rate.mean.shape[0]
    # Read once: Vega does not make room for a legend that grows with a signal.
    columns = alt.expr("windowSize()[0] < 640 ? 1 : 3")
    charts: dict[str, alt.TopLevelMixin] = {
        "similarity": similarity_chart(diagnosis).properties(width="container", height=320),
        "ladder": ladder_chart(diagnosis, RATES, columns=columns).properties(width="container", height=380),
        "threshold": threshold_chart(diagnosis, columns=1).properties(width="container", height=320),
        "norms": norms_chart(diagnosis, columns=1).properties(width="container", height=320),
        "mixing": mixing_rates(diagnosis).properties(width="container", height=max(120, 30 * layers)),
        "sinks": sink_strengths(diagnosis).properties(width="container", height=max(120, 30 * layers)),
    }
    if np.isfinite(diagnosis.principal_alignment.mean).any():
        charts["principal"] = principal_chart(diagnosis).properties(width="container", height=280)
    if diagnosis.mixing_rate.mean.shape[0] > 1:
        charts["alike"] = attention_chart(diagnosis).properties(width="container", height=280)
    if diagnosis.fused is not None and diagnosis.fused.gates is not None:
        charts["importance"] = importance_chart(diagnosis.fused).properties(width="container", height=280)
    if diagnosis.fate is not None:
        charts["fate"] = fates_chart(diagnosis.fate).properties(width="container", title="")
    if diagnosis.exemplar is not None and _fits(diagnosis.exemplar):
        charts["cosine"] = cosine_of_layer(diagnosis.exemplar).properties(width="container", height="container")
        charts["graph"] = attention_graph(diagnosis.exemplar).properties(width="container")
    return charts


def _asset(name: str) -> str:
    return files("jaxsmooth.report").joinpath(name).read_text(encoding="utf-8")


def _script(source: str) -> str:
    # The browser hashes what it parsed, and parsing turns every line ending into a plain newline.
    return source.replace("\r\n", "\n").replace("\r", "\n")


def _policy(*scripts: str) -> str:
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    # Vega writes style sheets and style attributes as it draws. Its expressions are interpreted, not evaluated.
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:"


def _symbols(text: str) -> Markup:
    return escape(text).replace("d_M", Markup("d<sub>M</sub>"))


def _cell(layer: dict[str, Any], path: tuple[str, ...]) -> str:
    # The embedding output has no block: its cells stay empty, unlike those of a quantity that is undefined.
    if path[0] not in layer:
        return ""
    value: Any = layer
    for key in path:
        value = value[key]
    return digits(value)


def _tiles(found: Headline) -> list[tuple[str, str]]:
    numbers = found.findings
    arrow = "{} → {}".format
    return [
        (arrow(digits(numbers.cosine_first), digits(numbers.cosine_last)), "cosine similarity, embedding → last layer"),
        (arrow(digits(numbers.relative_first), digits(numbers.relative_last)), "relative distance d_M/‖H‖"),
        (f"{digits(numbers.rate_lowest)} to {digits(numbers.rate_highest)}", "actual contraction rate of a layer"),
        (
            f"{digits(numbers.tightest_over_actual)} ×",
            f"tightest bound ({numbers.tightest or MISSING}) over actual, median layer",
        ),
        (f"{digits(numbers.L1_over_actual)} ×", "the theorem (L1) over actual, median layer"),
    ]


def _alternatives(diagnosis: Diagnosis, found: Headline) -> dict[str, str]:
    numbers = found.findings
    medians = ", ".join(f"{name} {digits(float(np.median(diagnosis.rates[name].mean)))}" for name in RATES)
    heads, sinks = diagnosis.mixing_rate.mean, diagnosis.sink_strength.mean
    return {
        "similarity": f"Line chart over layers: cosine similarity goes from {digits(numbers.cosine_first)} to"
        f" {digits(numbers.cosine_last)}, relative distance from {digits(numbers.relative_first)} to"
        f" {digits(numbers.relative_last)}.",
        "ladder": f"Line chart over layers, logarithmic: actual contraction rate and its bounds; medians: {medians}.",
        "threshold": "Line chart over layers, logarithmic: product of the smallest LayerNorm standard deviations and"
        f" the theorem's threshold, {digits(numbers.threshold_over_product)} times the product in the median layer.",
        "norms": "Line chart over layers, logarithmic: standard deviations at the attention and the MLP LayerNorm;"
        f" means from {_span(diagnosis.std_attn.mean)} and from {_span(diagnosis.std_mlp.mean)}.",
        "mixing": f"Heat map of {heads.shape[0]} layers by {heads.shape[1]} heads: mixing rates from {_span(heads)}.",
        "sinks": f"Heat map of {heads.shape[0]} layers by {heads.shape[1]} heads: sink strengths from {_span(sinks)}.",
        "alike": "Line chart over layers: cosine of a layer's attention with that of the layer before, from"
        f" {_span(diagnosis.attention_similarity.mean[1:])}.",
        "principal": "Line chart over layers: share of a token's length along the layer's principal direction, from"
        f" {_span(diagnosis.principal_alignment.mean)}.",
    }


def _span(values: np.ndarray) -> str:
    return f"{digits(float(values.min(initial=np.inf)))} to {digits(float(values.max(initial=-np.inf)))}"


def _sentence(exemplar: Exemplar | None) -> str | None:
    if exemplar is None or not _fits(exemplar):
        return None
    return exemplar.text if len(exemplar.text) <= TEXT_LIMIT else exemplar.text[:TEXT_LIMIT] + "…"


def _fits(exemplar: Exemplar) -> bool:
    return exemplar.cosine.size + exemplar.attn.size <= EXEMPLAR_LIMIT and sum(map(len, exemplar.tokens)) <= TEXT_LIMIT
