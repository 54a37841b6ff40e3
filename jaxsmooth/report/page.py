"""One self-contained HTML page: no request leaves it, and text from outside stays text."""

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np
import vl_convert
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from ..results.diagnosis import Diagnosis, Exemplar
from ..results.summaries import RATES
from .every_input import every_input_rows, every_input_words
from .fate.words import answers
from .figures import RATE_LABELS, rate_labels
from .format import MISSING, digits, fused_words, rows_of
from .headline import Headline, headline
from .json import to_json
from .sections.plots import page_charts
from .sections.weights import weights_section
from .texts import texts_section
from .wording import KNOWS, attention_words, rank_words, sink_words

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


def render_page(diagnosis: Diagnosis, *, beside: Sequence[str] = ()) -> str:
    """Render the report as one HTML document.

    Args:
      diagnosis: what `jaxsmooth.diagnose` found.
      beside: files and folders in the page's folder that it links to, as "report.json" and "figures/".

    Returns:
      The document, of about 1 MB. It carries Vega, its charts and its styles, asks for no other file, and forbids the
      browser (by a content security policy) to load one or to run a script that was not put there by this function.
      It is light or dark as the reader's system is, and light on paper.
    """
    report, found = to_json(diagnosis), headline(diagnosis)
    charts = page_charts(diagnosis, _words_fit(diagnosis.exemplar))
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
        sentence=_sentence(diagnosis.exemplar) if "cosine" in charts.drawn else None,
        shown_heads=charts.heads,
        beside=beside,
        texts=texts_section(diagnosis.texts),
        charts=charts.drawn,
        css=Markup(_asset("page.css")),
        vega=Markup(vega),
        script=Markup(script),
        policy=_policy(vega, script),
    )


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
    if exemplar is None:
        return None
    return exemplar.text if len(exemplar.text) <= TEXT_LIMIT else exemplar.text[:TEXT_LIMIT] + "…"


def _words_fit(exemplar: Exemplar | None) -> bool:
    return exemplar is not None and sum(map(len, exemplar.tokens)) <= TEXT_LIMIT
