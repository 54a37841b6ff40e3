"""What a notebook shows of a result: the answer in words, a table, a figure. Readable on light and dark ground."""

import base64
import functools
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment

from ...results.comparison import Comparison
from ...results.convergence import HeadConvergence
from ...results.diagnosis import Diagnosis
from ...results.fate import FATES, MapConvergence
from ...results.shown import Shown
from ...results.verification import VERDICTS, Verification
from ..converge import speed_words, where_words
from ..fate.words import answers, place
from ..format import digits, over_heads
from ..headline import headline
from ..sections.ranking import answer
from ..sections.verdict import verdict_parts
from .kinds import kinds as kinds
from .kinds import plot as plot

MOST_ROWS = 40

_PAGE = """<div class="jaxsmooth" style="max-width:64em;font-family:inherit;line-height:1.4">
<p style="margin:.2em 0;opacity:.75">{{ about }}</p>
{% for line in lines %}
<p style="margin:.2em 0{{ ';font-weight:600;font-size:1.1em' if loop.first else '' }}">{{ line }}</p>
{% endfor %}
{% if rows %}
<div style="overflow-x:auto"><table style="{{ table }}">
<thead><tr>{% for name in head %}<th scope="col" style="{{ cell }};border-bottom:1px solid rgba(127,127,127,.6)">
{{- name }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in rows %}<tr><th scope="row" style="{{ cell }};font-weight:normal">{{ row[0] }}</th>
{%- for value in row[1:] %}<td style="{{ cell }}">{{ value }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% if more %}<p style="margin:.2em 0;opacity:.75">{{ more }} more rows: to_table() has them all.</p>{% endif %}
{% endif %}
<p style="margin:.4em 0"><img alt="{{ alt }}" width="{{ width }}" style="max-width:100%;background:white"
 src="data:image/png;base64,
{{- figure }}"></p>
<p style="margin:.2em 0;opacity:.75">.plot(kind) draws {{ kinds }}; .to_pandas() has every number.</p>
</div>
"""
_TABLE = "border-collapse:collapse;font-variant-numeric:tabular-nums;margin:.4em 0;background:transparent;color:inherit"
_CELL = "text-align:right;padding:.15em .7em;background:transparent;color:inherit;border:none;white-space:nowrap"


class View(NamedTuple):
    """The words and the table of a result.

    Attributes:
      lines: the answer first.
      head: names of the columns.
      rows: cells, the first of them the row's name.
    """

    lines: list[str]
    head: list[str]
    rows: list[list[str]]


def html(result: Shown) -> str:
    """A fragment of HTML: what comes from outside is escaped, and the figure is an image, which runs no script."""
    view, drawn = _view(result), plot(result)
    model, data = result.model, result.data
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_PAGE).render(
        about=f"{type(result).__name__} of {model.label} on {data.label}",
        lines=view.lines,
        head=view.head,
        rows=view.rows[:MOST_ROWS],
        more=max(0, len(view.rows) - MOST_ROWS),
        table=_TABLE,
        cell=_CELL,
        alt=" ".join(view.lines),
        figure=base64.b64encode(drawn.png()).decode(),
        width=round(drawn.size[0]),
        kinds=", ".join(result.kinds()),
    )


@functools.singledispatch
def _view(result: Any) -> View:
    raise TypeError(f"no view of a {type(result).__name__}")


@_view.register
def _(result: Diagnosis) -> View:
    found = headline(result)
    head = [
        "layer",
        "cosine",
        "d_M/‖H‖",
        "actual",
        *(name for name in ("L5", "L4", "L1", "L0") if name in result.rates),
    ]
    rates = [result.rates[name].mean for name in head[3:]]
    rows = []
    for layer, (cosine, distance) in enumerate(
        zip(result.cosine_similarity.mean, result.relative_distance.mean, strict=True)
    ):
        numbers = [cosine, distance, *(rate[layer - 1] for rate in rates if layer)]
        rows.append([str(layer), *(digits(float(x)) for x in numbers), *[""] * (len(head) - 1 - len(numbers))])
    return View([found.headline, found.smoothing, found.explanation], head, rows)


@_view.register
def _(result: Comparison) -> View:
    head = ["remedy", "cosine, last layer", "d_M/‖H‖, last layer", "actual rate, mean", "‖ΔH‖/‖H‖"]
    rows = []
    for entry in result.entries:
        ends = entry.cosine_similarity.mean[-1], entry.relative_distance.mean[-1]
        numbers = (*ends, _mean(entry.rates["actual"].mean), entry.change.mean[0])
        rows.append([entry.label, *(digits(float(x)) for x in numbers)])
    return View([answer(result)], head, rows)


@_view.register
def _(result: HeadConvergence) -> View:
    shown = {"|λ₂|": "predicted_rate", "rate seen": "observed_rate", "steps said": "predicted_steps"}
    shown |= {"steps taken": "observed_steps", "limit held": "limit_held", "rate held": "rate_held"}
    rows = [
        [operator, *(digits(_mean(over_heads(spreads[name]).mean)) for name in shown.values())]
        for operator, spreads in result.operators.items()
    ]
    return View([where_words(result), speed_words(result)], ["operator", *shown], rows)


@_view.register
def _(result: MapConvergence) -> View:
    shown = [fate for fate in FATES if any(fate in one.fate for one in result.maps)]
    rows = [[place(result, one), *(str(one.fate.count(fate)) for fate in shown)] for one in result.maps]
    return View(list(answers(result)), ["map", *shown], rows)


@_view.register
def _(result: Verification) -> View:
    rows = [
        [
            row.theorem,
            *(f"{row.counts[verdict]:,}" for verdict in VERDICTS),
            *([""] * 3 if row.tightness is None else map(digits, row.tightness)),
        ]
        for row in result.theorems
    ]
    head = ["theorem", *VERDICTS, "rhs/lhs least", "median", "largest"]
    return View(list(verdict_parts(result)), head, rows)


def _mean(numbers: Any) -> float:
    known = np.asarray(numbers, np.float64)
    known = known[np.isfinite(known)]
    return float(known.mean()) if known.size else float("nan")
