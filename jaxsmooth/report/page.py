"""One self-contained HTML page: no request leaves it, and text from outside stays text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from ..errors import arguments_checked
from ..results.diagnosis import Diagnosis, Exemplar
from ..results.summaries import RATES
from .every_input import every_input_rows, every_input_words
from .fate.words import answers
from .findings import median_ratio
from .format import MISSING, digits, fused_words, rows_of
from .headline import Headline, headline
from .json import to_json
from .sections import shell
from .sections.attribution import PART_NAMES, signed
from .sections.glossary import GLOSSARY, Column
from .sections.plots import page_charts
from .sections.weights import weights_section
from .sections.words import BLOCKS, STATES
from .texts import texts_section
from .wording import KNOWS, attention_words, rank_words, sink_words

TEXT_LIMIT = 2_000
"""Characters of the exemplar that are printed: one enormous word is still one unknown token."""

TABLE = (
    (Column("cosine", "cosine"), ("cosine_similarity",)),
    (Column("d_M/‖H‖", "relative-distance"), ("relative_distance",)),
    (Column("d_M", "distance"), ("subspace_distance",)),
    (Column("rank, num.", "numerical-rank"), ("stable_rank",)),
    (Column("rank, eff.", "effective-rank"), ("effective_rank",)),
    (Column("std attn, min", "std"), ("std_attn_min",)),
    (Column("std MLP, min", "std"), ("std_mlp_min",)),
    (Column("√λ, max", "mixing-rate"), ("mixing_rate_max",)),
    *((Column(name, "rate" if name == "actual" else name), ("rates", name)) for name in RATES),
)
"""Columns of the table, and where in a layer of report.json each stands."""


class Tile(NamedTuple):
    """A number at the head of the page.

    Attributes:
      number: as text.
      meaning: what it is.
      term: its entry in the glossary.
    """

    number: str
    meaning: str
    term: str


@arguments_checked
def render_page(diagnosis: Diagnosis, *, beside: Sequence[str] = (), kept: Path | None = None) -> str:
    """Render the report as one HTML document.

    Args:
      diagnosis: what `jaxsmooth.diagnose` found.
      beside: files and folders in the page's folder that it links to, as "report.json" and "figures/".
      kept: folder where the script that draws, the same in every page, is kept for the next.

    Returns:
      The document, of about 1 MB. It carries Vega, its charts and its styles, asks for no other file, and forbids the
      browser (by a content security policy) to load one or to run a script that was not put there by this function.
      It is light or dark as the reader's system is, and light on paper.
    """
    report, answer = to_json(diagnosis), headline(diagnosis)
    charts = page_charts(diagnosis, _words_fit(diagnosis.exemplar))
    own = [(Column(name, ""), ("metrics", name)) for name in diagnosis.metrics]
    table = (*TABLE[:2], *own, *TABLE[2:])
    vega = shell.vega(kept)
    script = shell.script(shell.asset("page.js"))
    return shell.template("page.html").render(
        found=diagnosis,
        headline=answer,
        tiles=tiles(answer),
        glossary=GLOSSARY,
        defined=(*STATES, *BLOCKS),
        columns=[column for column, _ in table],
        rows=[(layer["layer"], [_cell(layer, path) for _, path in table]) for layer in rows_of(report)],
        every_input=every_input_words(diagnosis),
        every_input_rows=every_input_rows(diagnosis),
        fused=None if diagnosis.fused is None else fused_words(diagnosis.fused),
        fate=None if diagnosis.fate is None else list(answers(diagnosis.fate)),
        knows=[] if diagnosis.model.departures else [(rung, KNOWS[rung]) for rung in diagnosis.model.rungs],
        sinks=sink_words(diagnosis),
        alike=attention_words(diagnosis),
        weights=weights_section(diagnosis),
        ranks=rank_words(diagnosis),
        alt=_alternatives(diagnosis, answer),
        sentence=_sentence(diagnosis.exemplar) if "cosine" in charts.drawn else None,
        shown_heads=charts.heads,
        beside=beside,
        texts=texts_section(diagnosis.texts),
        charts=charts.drawn,
        css=Markup(shell.asset("page.css")),
        vega=Markup(vega),
        script=Markup(script),
        policy=shell.policy(vega, script),
    )


def _cell(layer: dict[str, Any], path: tuple[str, ...]) -> str:
    # The embedding output has no block: its cells stay empty, unlike those of a quantity that is undefined.
    if path[0] not in layer:
        return ""
    value: Any = layer
    for key in path:
        value = value[key]
    return digits(value)


def tiles(found: Headline) -> list[Tile]:
    """The numbers at the head of the page."""
    numbers = found.findings
    arrow = "{} → {}".format
    made = [
        Tile(
            arrow(digits(numbers.cosine_first), digits(numbers.cosine_last)),
            "cosine of two tokens, embedding → last layer",
            "cosine",
        ),
        Tile(digits(numbers.cosine_across), "cosine of tokens of different texts, last layer", "anisotropy"),
        Tile(digits(numbers.cosine_untrained), "cosine in the last layer before training", "random-initialisation"),
        Tile(
            arrow(digits(numbers.relative_first), digits(numbers.relative_last)),
            "relative distance d_M/‖H‖",
            "relative-distance",
        ),
        *_part_tile(numbers.attribution),
        Tile(f"{digits(numbers.rate_lowest)} to {digits(numbers.rate_highest)}", "actual rate of a layer", "rate"),
        Tile(
            f"{digits(numbers.tightest_over_actual)} ×",
            f"tightest bound ({numbers.tightest or MISSING}) over actual rate, median layer",
            "bound-over-actual",
        ),
        Tile(f"{digits(numbers.L1_over_actual)} ×", "the theorem (L1) over actual rate, median layer", "L1"),
    ]
    unknown = {"random-initialisation": numbers.cosine_untrained, "anisotropy": numbers.cosine_across}
    return [tile for tile in made if not np.isnan(unknown.get(tile.term, 0.0))]


def _part_tile(parts: dict[str, float]) -> list[Tile]:
    """What brings tokens together most, where something does."""
    worst = min(parts, key=lambda part: parts[part], default=None)
    if worst is None or parts[worst] >= 0:
        return []
    meaning = f"change of ln(d_M/‖H‖) by {PART_NAMES.get(worst, worst)}, which brings tokens together most"
    return [Tile(signed(parts[worst]), meaning, "attribution")]


def _alternatives(diagnosis: Diagnosis, found: Headline) -> dict[str, str]:
    numbers = found.findings
    actual = diagnosis.rates["actual"].mean
    times = ", ".join(f"{name} {digits(median_ratio(diagnosis.rates[name].mean, actual))}" for name in RATES[1:])
    heads, sinks = diagnosis.mixing_rate.mean, diagnosis.sink_strength.mean
    return {
        "similarity": f"Line chart over layers: cosine similarity goes from {digits(numbers.cosine_first)} to"
        f" {digits(numbers.cosine_last)}, relative distance from {digits(numbers.relative_first)} to"
        f" {digits(numbers.relative_last)}.",
        "baseline": "Line chart over layers, cosine of two tokens; in the last layer of one text"
        f" {digits(numbers.cosine_last)}, of different texts {digits(numbers.cosine_across)}, before training"
        f" {digits(numbers.cosine_untrained)}.",
        "attribution": "Bar chart over layers: what the parts of a block do to the relative distance; in words below.",
        "ladder": "Line chart over layers, logarithmic: actual contraction rate and its bounds; times the actual rate,"
        f" median layer: {times}.",
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
