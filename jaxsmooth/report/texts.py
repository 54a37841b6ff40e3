"""What a diagnosis says of other texts of the same kind: in words, in a table, in report.json, in texts.csv."""

import csv
import dataclasses
import io
import math
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from ..results.texts import LengthTrend, TextStatement, TextStatements
from .format import digits

MEANING = {
    "contraction": "end farther from consensus than the embedding left them",
    "rate": "move away from consensus",
    "cosine_similarity": "have a mean cosine similarity above",
}
ASSUMED = (
    "This holds if the texts are random draws of their kind, and of nothing else. The first lines of a file are that"
    " only if the file was shuffled; --sample SEED draws --limit of its lines at random."
)
COLUMNS = {
    "texts": "how many have a value",
    "above": "how many are above the level",
    "at least": "at least this share of all such texts is above the level",
    "at most": "at most this share is",
    "95 % above": "95 % of all such texts are at least this",
    "95 % below": "95 % of them are at most this",
    "next above": "the next text is at least this with probability 95 %",
    "next below": "the next text is at most this with probability 95 %",
}
_LISTS = (("statements", "rows"), ("lengths", "lengths"), ("length_groups", "groups"))
LIKELY = 0.01
"""Probability under chance below which a trend is called one. A convention."""
_SECTION = """<section aria-labelledby="texts-title">
<h2 id="texts-title">What this says of other texts</h2>
<p>{{ words }} {{ assumed }}</p>
{% if lengths %}
<p>{{ lengths }}</p>
{% endif %}
<div class="scroll" role="region" aria-label="Table of what holds for other texts" tabindex="0">
<table><caption>Each limit holds with confidence {{ confidence }} by itself, not all of them at once; ∞ or -∞ where the
texts are too few.
{% for name, meaning in columns %}{{ name }}: {{ meaning }}{{ "." if loop.last else "; " }}{% endfor %}</caption>
<thead><tr><th>quantity</th><th>level</th>{% for name, meaning in columns %}<th>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>{% for label, level, cells in rows %}<tr><th>{{ label }}</th><td>{{ level }}</td>
{% for cell in cells %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table>
</div>
</section>
"""


def texts_json(found: TextStatements) -> dict[str, Any]:
    """The key `texts` of report.json."""
    fields = {key: getattr(found, key) for key in ("confidence", "share", "read", "kept")}
    rows = {name: [dataclasses.asdict(row) for row in getattr(found, of)] for name, of in _LISTS}
    return {**fields, "assumption": ASSUMED, **rows}


def texts_words(found: TextStatements) -> str:
    """The whole network's contraction, in two sentences."""
    row = found.rows[0]
    if not row.texts:
        return "No text has a distance that could contract, so nothing is said of other texts."
    first = f"{_counted(row, MEANING[row.quantity], found.confidence)}."
    if not row.most_below < math.inf:
        return f"{first} The texts are too few to bound how far the others go."
    return (
        f"{first} For {100 * found.share:.0f} % of such texts the last layer's distance is at most"
        f" {digits(_outwards(row.most_below))} times the embedding output's, with the same confidence; the next text's"
        f" is at most {digits(_outwards(row.next_below))} times with probability {100 * found.confidence:.0f} %."
    )


_TRENDS = {
    "cosine_similarity": "the last layer's cosine similarity",
    "embedding_similarity": "the mean cosine of a text's embedding, the mean of its last tokens, with the others'",
}


def length_words(found: TextStatements) -> str:
    """How similarity goes with the number of tokens, of tokens and of embeddings; empty where the texts cannot say."""
    known = [trend for trend in found.lengths if trend.quantity in _TRENDS and not math.isnan(trend.spearman)]
    words = " ".join(_trend_words(trend) for trend in known)
    ends = [group for group in (found.groups[:1] + found.groups[-1:]) if not math.isnan(group.similarity)]
    if not known or known[-1].quantity != "embedding_similarity" or len(found.groups) < 2 or len(ends) < 2:
        return words
    short, long = (f"{digits(group.similarity)} ({group.shortest:,} to {group.longest:,} tokens)" for group in ends)
    return f"{words} Two of the shortest texts have {short}, two of the longest {long}."


def _trend_words(trend: LengthTrend) -> str:
    what = f"Over {trend.texts:,} texts of {trend.shortest:,} to {trend.longest:,} tokens, {_TRENDS[trend.quantity]}"
    chance = f"Spearman's rank correlation {trend.spearman:.2f}, p = {trend.p_value:.1g}"
    if not trend.p_value < LIKELY:
        return f"{what} shows no clear trend with the number of tokens ({chance})."
    goes = "rises" if trend.spearman > 0 else "falls"
    step = digits(abs(trend.per_doubling))
    return f"{what} {goes} with the number of tokens ({chance}): by {step} for twice as many."


def _counted(row: TextStatement, does: str, confidence: float) -> str:
    few = 2 * row.exceeding <= row.texts
    share = f"at most {_percent(row.share_at_most)}" if few else f"at least {_percent(row.share_at_least, up=False)}"
    many = f"{row.exceeding:,} of the" if 0 < row.exceeding < row.texts else "All" if row.exceeding else "None of the"
    return f"{many} {row.texts:,} texts {does}, so with confidence {100 * confidence:.0f} % {share} of such texts do"


def _percent(share: float, *, up: bool = True) -> str:
    """Rounded to the safe side."""
    # Of a share next to 1 what is missing is what counts.
    size = min(share, 1 - share) or 1.0
    places = max(1 - math.floor(math.log10(100 * size)), 0)
    scaled = 100 * share * 10**places
    return f"{(math.ceil(scaled - 1e-9) if up else math.floor(scaled + 1e-9)) / 10**places:.{places}f} %"


def _outwards(value: float, *, up: bool = True) -> float:
    """Rounded up to three digits, or down."""
    if value == 0 or not math.isfinite(value):
        return value
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - 2)
    return (math.ceil(value / unit - 1e-9) if up else math.floor(value / unit + 1e-9)) * unit


def texts_section(found: TextStatements | None) -> Markup:
    """The section of the page; empty where there is none."""
    if found is None:
        return Markup("")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(_SECTION).render(
        words=texts_words(found),
        assumed=ASSUMED,
        lengths=length_words(found),
        confidence=found.confidence,
        columns=COLUMNS.items(),
        rows=[(_label(row), f"{row.level:g}", _cells(row)) for row in found.rows],
    )
    return Markup(page)


def _label(row: TextStatement) -> str:
    if row.layer is None:
        return "contraction of the whole network"
    return f"{'actual rate' if row.quantity == 'rate' else 'cosine similarity'}, layer {row.layer}"


def _cells(row: TextStatement) -> list[str]:
    shares = _percent(row.share_at_least, up=False), _percent(row.share_at_most)
    limits = (
        digits(_outwards(value, up=up))
        for value, up in (
            *((row.most_above, False), (row.most_below, True)),
            *((row.next_above, False), (row.next_below, True)),
        )
    )
    return [f"{row.texts:,}", f"{row.exceeding:,}", *shares, *limits]


def texts_csv(found: TextStatements) -> str:
    """One line a text: its position in what was read, and every value; empty where a text has none."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    first = {"rate": 1, "cosine_similarity": 0}  # the number of the first layer
    names = [
        f"{name}_{first.get(name, 0) + place}" if name in first or name.startswith("own/") else name
        for name, values in found.values.items()
        for place in range(len(values))
    ]
    writer.writerow(["text", *names])
    columns = [column for values in found.values.values() for column in values]
    for place, text in enumerate(found.places.tolist()):
        own = (float(column[place]) for column in columns)
        writer.writerow([text, *("" if math.isnan(value) else repr(value) for value in own)])
    return out.getvalue()
