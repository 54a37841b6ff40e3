"""One self-contained HTML page: no request leaves it, and text from outside stays text."""

import base64
import hashlib
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from ..results.diagnosis import Diagnosis, Exemplar
from ..results.summaries import RATES
from .figures import RATE_LABELS, rate_labels
from .format import digits, fused_words, rows_of
from .json import to_json
from .style import COLOURS
from .verdict import Verdict, verdict

EXEMPLAR_LIMIT = 4_000_000
"""Bytes that one sentence may add to the page; with Plotly's 5 MB the page stays below 10 MB."""

TEXT_LIMIT = 2_000
"""Characters of the exemplar that are printed: one enormous word is still one unknown token."""

STEPS = 65_534
"""Quantisation of cosine and attention in the page: 16 bits, with 65535 meaning "no value"."""

TABLE = (
    ("cosine", "mean cosine similarity of two tokens", ("cosine_similarity",)),
    ("d_M/‖H‖", "relative distance of the tokens from their mean", ("relative_distance",)),
    ("d_M", "distance of the tokens from their mean", ("subspace_distance",)),
    ("std attn, min", "smallest std at the attention LayerNorm", ("std_attn_min",)),
    ("std MLP, min", "smallest std at the MLP LayerNorm", ("std_mlp_min",)),
    ("√λ, max", "largest mixing rate of a head", ("mixing_rate_max",)),
    *((name, RATE_LABELS[name], ("rates", name)) for name in RATES),
)
"""Columns of the table: heading, what it is, where in a layer of report.json it stands."""


def render_page(diagnosis: Diagnosis) -> str:
    """Renders the report as one HTML document.

    Args:
      diagnosis: what `jaxsmooth.diagnose` found.

    Returns:
      The document. It carries Plotly, its data and its styles, asks for no other file, and forbids the browser
      (by a content security policy) to load one or to run a script that was not put there by this function.
    """
    report = to_json(diagnosis)
    found = verdict(diagnosis)
    plotly, charts = _script(get_plotlyjs()), _script(_asset("page.js"))
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["symbols"] = _symbols
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment.from_string(_asset("page.html")).render(
        diagnosis=diagnosis,
        verdict=found,
        tiles=_tiles(found),
        columns=[(heading, rate_labels(diagnosis).get(heading, meaning)) for heading, meaning, _ in TABLE],
        rows=[(layer["layer"], [_cell(layer, path) for *_, path in TABLE]) for layer in rows_of(report)],
        fused=None if diagnosis.fused is None else fused_words(diagnosis.fused),
        alt=_alternatives(diagnosis, found),
        sentence=_sentence(diagnosis.exemplar),
        payload={**_payload(report, diagnosis.exemplar), "labels": rate_labels(diagnosis)},
        css=Markup(_asset("page.css")),
        plotly=Markup(plotly),
        charts=Markup(charts),
        policy=_policy(plotly, charts),
    )


def _asset(name: str) -> str:
    return files("jaxsmooth.report").joinpath(name).read_text(encoding="utf-8")


def _script(source: str) -> str:
    # The browser hashes what it parsed, and parsing turns every line ending into a plain newline.
    return source.replace("\r\n", "\n").replace("\r", "\n")


def _policy(*scripts: str) -> str:
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    # Plotly writes style sheets and style attributes as it draws, and saves images through blobs.
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:"


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


def _tiles(found: Verdict) -> list[tuple[str, str]]:
    numbers = found.findings
    arrow = "{} → {}".format
    return [
        (arrow(digits(numbers.cosine_first), digits(numbers.cosine_last)), "cosine similarity, embedding → last layer"),
        (arrow(digits(numbers.relative_first), digits(numbers.relative_last)), "relative distance d_M/‖H‖"),
        (f"{digits(numbers.rate_lowest)} to {digits(numbers.rate_highest)}", "actual contraction rate of a layer"),
        (f"{digits(numbers.L4_over_actual)} ×", "tightest bound (L4) over actual, median layer"),
        (f"{digits(numbers.L1_over_actual)} ×", "the theorem (L1) over actual, median layer"),
    ]


def _alternatives(diagnosis: Diagnosis, found: Verdict) -> dict[str, str]:
    numbers = found.findings
    medians = ", ".join(f"{name} {digits(float(np.median(diagnosis.rates[name].mean)))}" for name in RATES)
    heads = diagnosis.mixing_rate.mean
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
    }


def _span(values: np.ndarray) -> str:
    return f"{digits(float(values.min()))} to {digits(float(values.max()))}"


def _sentence(exemplar: Exemplar | None) -> str | None:
    if exemplar is None or not _fits(exemplar):
        return None
    return exemplar.text if len(exemplar.text) <= TEXT_LIMIT else exemplar.text[:TEXT_LIMIT] + "…"


def _fits(exemplar: Exemplar) -> bool:
    packed = (exemplar.cosine.size + exemplar.attn.size) * 2 * 4 // 3
    return packed + sum(len(token.encode()) for token in exemplar.tokens) <= EXEMPLAR_LIMIT


def _payload(report: dict[str, Any], exemplar: Exemplar | None) -> dict[str, Any]:
    shown = None
    if exemplar is not None and _fits(exemplar):
        shown = {
            "tokens": list(exemplar.tokens),
            "heads": exemplar.attn.shape[1],
            "cosine": _pack(exemplar.cosine, -1.0, 1.0),
            "attn": _pack(exemplar.attn, 0.0, 1.0),
        }
    return {"layers": report["layers"], "colours": COLOURS, "exemplar": shown}


def _pack(values: np.ndarray, low: float, high: float) -> str:
    share = (values.astype(np.float64) - low) / (high - low)
    steps = np.where(np.isfinite(share), np.rint(np.clip(np.nan_to_num(share), 0, 1) * STEPS), STEPS + 1)
    return base64.b64encode(steps.astype("<u2").tobytes()).decode("ascii")
