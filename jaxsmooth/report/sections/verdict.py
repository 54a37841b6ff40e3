"""Does the theory hold here, and which hypotheses fail? The answer in words, and the charts behind it."""

from collections.abc import Sequence

import altair as alt

from ...results.verification import HypothesisCheck, HypothesisSummary, TheoremSummary, Verification
from ..charts import GREY, drawable, heading, layered
from ..charts import values as data_of
from ..format import layer_list

QUESTION = "Does the theory hold here, and which hypotheses fail?"
STATES = {
    "holds": "#009E73",
    "in part": "#F0E442",
    "fails": "#D55E00",
    "open": "#BBBBBB",
}
"""What is known of a hypothesis in a layer -> its colour."""

MARKS = {"confirmed in every check": "#0072B2", "open in some": "#8C8C8C", "violated": "#D55E00"}
"""What is known of a theorem -> its colour."""


def verdict_words(found: Verification) -> str:
    """The answer to `QUESTION`."""
    return " ".join(verdict_parts(found))


def verdict_parts(found: Verification) -> tuple[str, ...]:
    """The answer in parts: of the theorems, of their hypotheses, of the user's own theorems; what was not asked is left
    out."""
    proved = [row for row in found.theorems if row.proved]
    parts = (_proved(proved), _hypotheses(found.hypotheses), *(_own(row) for row in found.theorems if not row.proved))
    return tuple(part for part in parts if part) or ("Nothing was asked.",)


def _proved(rows: Sequence[TheoremSummary]) -> str:
    """Whether the library's theorems agree with the numbers."""
    if not rows:
        return ""
    yes, no, left = (sum(row.counts[v] for row in rows) for v in ("CONFIRMED", "VIOLATED", "UNDECIDED"))
    if no:
        names = ", ".join(row.theorem for row in rows if row.counts["VIOLATED"])
        checks = f"{no:,} checks contradict" if no > 1 else "one check contradicts"
        return (
            f"No: {checks} a proved theorem ({names}). A model cannot do that, so the implementation or"
            " its arithmetic is wrong: please report it."
        )
    if not yes:
        return "None of the theorems could be decided for this model and these texts."
    rest = f"; {left:,} stay open, as an exact equality does" if left else ""
    count = f"all {len(rows)} theorems" if len(rows) > 1 else f"the theorem {rows[0].theorem}"
    return f"The theory holds: none of {yes + left:,} checks of {count} is violated{rest}."


def state_of(row: HypothesisSummary | HypothesisCheck) -> str | None:
    """A word of `STATES`; None where it is not asked."""
    yes, no, left = (row.counts[v] for v in ("HOLDS", "FAILS", "UNDECIDED"))
    if not yes + no + left:
        return None
    if not no + left:
        return "holds"
    if not yes + left:
        return "fails"
    return "in part" if yes else "open"


_NOTHING = "so theorems that assume {} promise nothing here"


def _hypotheses(rows: Sequence[HypothesisSummary]) -> str:
    """Which of the hypotheses hold and fail, and what a failure means."""
    if not rows:
        return ""
    by_state: dict[str, list[str]] = {}
    for row in rows:
        by_state.setdefault(state_of(row) or "not asked", []).append(_named(row))
    says = {  # of one, of several
        "fails": (f"fails everywhere, {_NOTHING.format('it')}", f"fail everywhere, {_NOTHING.format('them')}"),
        "in part": ("holds only in part", "hold only in part"),
        "open": ("is open", "are open"),
        "holds": ("holds everywhere", "hold everywhere"),
        "not asked": ("is not asked of such a model", "are not asked of such a model"),
    }
    listed = (
        f"{_joined(by_state[state])} {words[len(by_state[state]) > 1]}"
        for state, words in says.items()
        if state in by_state
    )
    return f"Of the hypotheses: {'; '.join(listed)}."


def _named(row: HypothesisSummary) -> str:
    if state_of(row) != "in part":
        return row.hypothesis
    asked = sum(row.counts[v] for v in ("HOLDS", "FAILS", "UNDECIDED"))
    left = f", {row.counts['UNDECIDED']:,} open" if row.counts["UNDECIDED"] else ""
    return f"{row.hypothesis} ({row.counts['HOLDS']:,} of {asked:,} checks{left})"


def _joined(names: Sequence[str]) -> str:
    """Names with "and" before the last."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _own(row: TheoremSummary) -> str:
    """What is known of a theorem of the user's own: nothing of it is proved."""
    yes, no, left = (row.counts[v] for v in ("CONFIRMED", "VIOLATED", "UNDECIDED"))
    if no:
        return f"Your own {row.theorem} is false: violated in {no:,} of {yes + no + left:,} checks."
    if not yes + left:
        return f"Your own {row.theorem} does not apply to this model and these texts."
    rest = f" and is open in {left:,}" if left else ""
    return (
        f"Your own {row.theorem} held in {yes:,} of {yes + left:,} checks{rest}: it was evaluated on these texts, which"
        " does not prove it."
    )


def verification_figure(found: Verification) -> alt.VConcatChart | None:
    """Where hypotheses hold, and how tight the theorems are; None where nothing was asked."""
    charts: list[alt.LayerChart] = []
    notes = ""
    if found.hypothesis_checks:
        notes = "A hypothesis holds in a layer where it does for every sentence and head. "
        charts.append(hypotheses_chart(found).properties(title="Where do the hypotheses hold?"))
    if any(row.tightness for row in found.theorems):
        charts.append(tightness_chart(found).properties(title="How tight are the theorems?"))
        notes += "Of a theorem: least to largest bound over what it bounds, a dot at the median."
    if not charts:
        return None
    title = heading(f"Theorems and hypotheses on {found.model.name}", found, notes.strip())
    return alt.vconcat(*charts, spacing=36).resolve_scale(color="independent").properties(title=title)


def hypotheses_chart(found: Verification) -> alt.LayerChart:
    """A cell for every hypothesis and layer: it holds, fails, or neither for all of its sentences."""
    rows = [
        {"hypothesis": drawable(name, 60), "layer": layer, "state": state}
        for (name, layer), state in _by_layer(found.hypothesis_checks).items()
        if state is not None
    ]
    names = [drawable(row.hypothesis, 60) for row in found.hypotheses]
    layers = [*map(str, range(1, found.model.layers + 1)), "stack"]
    shown = [layer for layer in layers if any(row["layer"] == layer for row in rows)]
    scale = alt.Scale(domain=list(STATES), range=list(STATES.values()))
    base = alt.Chart(data_of(rows)).encode(
        x=alt.X("layer:O", sort=shown, title="layer", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("hypothesis:N", sort=names, title=None, axis=alt.Axis(labelLimit=300)),
    )
    colour = alt.Color("state:N", scale=scale, legend=alt.Legend(orient="top", title=None))
    cells = base.mark_rect(stroke="white", strokeWidth=2).encode(
        color=colour, tooltip=["hypothesis:N", "layer:O", "state:N"]
    )
    # The word as well as the colour, for whoever cannot tell colours apart.
    words = base.mark_text(fontSize=10).encode(text=alt.Text("state:N"), color=alt.value("black"))
    return layered(cells, words).properties(width=max(360, 52 * len(shown)), height=26 * len(names))


def _by_layer(checks: Sequence[HypothesisCheck]) -> dict[tuple[str, str], str | None]:
    """(hypothesis, layer) -> what is known there, heads taken together."""
    found: dict[tuple[str, str], set[str]] = {}
    for check in checks:
        layer = "stack" if check.layer is None else str(check.layer)
        states = found.setdefault((check.hypothesis, layer), set())
        state = state_of(check)
        if state is not None:
            states.add(state)
    return {
        key: (next(iter(states)) if len(states) == 1 else "in part" if states else None)
        for key, states in found.items()
    }


def tightness_chart(found: Verification) -> alt.LayerChart:
    """Of every theorem that was decided somewhere, the least, median and largest bound over what it bounds."""
    rows = [
        {
            "theorem": drawable(row.theorem, 60),
            "low": row.tightness[0],
            "median": row.tightness[1],
            "high": row.tightness[2],
            "state": _mark(row),
        }
        for row in found.theorems
        if row.tightness is not None
    ]
    names = [drawable(row.theorem, 60) for row in found.theorems if row.tightness is not None]
    axis = alt.Axis(title="right side over left side (log scale; 1: equality)", format=",~g", grid=True)
    x = alt.X("low:Q", scale=alt.Scale(type="log"), axis=axis)
    y = alt.Y("theorem:N", sort=names, title=None, axis=alt.Axis(labelLimit=360))
    colour = alt.Color(
        "state:N",
        scale=alt.Scale(domain=list(MARKS), range=list(MARKS.values())),
        legend=alt.Legend(orient="top", title=None),
    )
    base = alt.Chart(data_of(rows)).encode(y=y)
    lines = base.mark_rule(strokeWidth=2).encode(x=x, x2="high:Q", color=colour)
    points = base.mark_point(size=40).encode(
        x="median:Q", color=colour, tooltip=["theorem:N", "low:Q", "median:Q", "high:Q"]
    )
    one = alt.Chart(data_of([{"low": 1}])).mark_rule(color=GREY, strokeDash=[5, 3]).encode(x="low:Q")
    return layered(one, lines, points).properties(width=520, height=max(40, 16 * len(names)))


def _mark(row: TheoremSummary) -> str:
    confirmed, left, violated = MARKS
    return violated if row.counts["VIOLATED"] else left if row.counts["UNDECIDED"] else confirmed


def layers_words(row: HypothesisSummary, layers: int) -> str:
    """The layers in which a hypothesis holds, in few letters."""
    if len(row.holds_in) == layers:
        return "all"
    return layer_list(row.holds_in).removeprefix("layers ").removeprefix("layer ") if row.holds_in else "none"
