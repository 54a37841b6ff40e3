"""The three forms of `compare`'s result: compare.json, one figure, one table with the best remedy first."""

import dataclasses
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
from rich.console import Console
from rich.text import Text

from ..errors import arguments_checked
from ..files import atomic_write, dumps_strict, strict
from ..results.comparison import COMPARED_RATES, Comparison, Measured
from ..results.spread import Spread
from .charts import GREY, drawable, heading, layer_axis, layered, log_axis, positive, save, unless_any, values
from .format import at
from .json import described, folder_for
from .sections.drawn import stacked
from .sections.ranking import LAYERS, LEAST_IMPORTANT, RANKED, UNTRAINED, answer, order, ranked_rows, sentences
from .sections.trained import TRAINED, training_json, training_rows, training_words
from .terminal import show, show_answer, show_table

PALETTE = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C510A")
DASHES = ([1, 0], [5, 3], [2, 2])
SHAPES = ("circle", "square", "triangle-up")
SIDE = 320
STATES = {"cosine similarity of tokens": "cosine_similarity", "relative distance d_M / ‖H‖": "relative_distance"}


@arguments_checked
def write_comparison(found: Comparison, out: Path) -> dict[str, Path]:
    """Write compare.json and the figure compare.png, .svg and .pdf, each atomically.

    Args:
      found: what `compare` found.
      out: the folder, made if missing.

    Returns:
      "numbers" and "figure" -> their paths.

    Raises:
      OSError: the folder cannot be made or written to.
    """
    out = folder_for(found, Comparison, out)
    figure = save(comparison_figure(found), out / "compare")
    numbers = atomic_write(out / "compare.json", dumps_strict(comparison_json(found), indent=2) + "\n")
    return {"numbers": numbers, "figure": figure}


@arguments_checked
def comparison_json(found: Comparison) -> dict[str, Any]:
    """Turn the result into strict JSON: for every remedy and layer, each quantity's spread over sentences.

    Layer 0 is the embedding output. A quantity without a value in any sentence, such as a bound whose hypotheses the
    remedy breaks, has null and a count of 0. `ranking` has the remedies' labels, the most effective first; `effects`
    compares each with none text by text, `cost` says what it costs.
    """
    entries = [_entry(entry, found.parts) for entry in found.entries]
    trained = None if found.training is None else training_json(found.training)
    ranking = [found.entries[place].label for place in order(found)]
    answers = {"answer": answer(found), "ranking": ranking, "sentences": list(sentences(found))}
    more = {} if trained is None else {"training": trained}
    return strict({**described(found), **answers, **more, "remedies": entries, "versions": found.versions})


@arguments_checked
def print_comparison(found: Comparison, console: Console) -> None:
    """Print the answer, one table with the best remedy first, and a sentence on each remedy.

    Args:
      found: what `compare` found.
      console: where to print. In a narrow one the least important columns are left out.
    """
    model, data = found.model, found.data
    about = f"remedies applied to {model.label} on {data.label}, without training"
    show(console, Text(about, style="bold"))
    show(console, Text(answer(found), style="bold"))
    console.print()
    title = Text("the remedies, most effective first; cosine and d_M/‖H‖ of the last layer")
    show_table(console, title, RANKED, ranked_rows(found), LEAST_IMPORTANT)
    console.print()
    for line in sentences(found):
        show(console, Text(line))
    if found.training is not None:
        console.print()
        show_answer(console, "And accuracy?", training_words(found.training))
        title = Text(
            f"trained on {found.training.task}: {found.training.metric}, over {len(found.training.seeds)} seeds"
        )
        show_table(console, title, TRAINED, training_rows(found.training))
    show(console, Text(UNTRAINED if found.training is None else LAYERS, style="dim"))


def comparison_figure(found: Comparison) -> alt.VConcatChart:
    """Cosine, distance and rate by layer, a line per remedy; bounds; which part of a block does it."""
    above = [_states(found, field).properties(title=title) for title, field in STATES.items()]
    above.append(_rates(found).properties(title="actual rate of a block (below 1: closer)"))
    below = [
        _bounds(found).properties(title="bounds of that rate: L4 (solid), L1 (dashed)"),
        _parts_by_layer(found).properties(title="without a remedy: which part of a block"),
        _parts_by_remedy(found).properties(title="the same, summed over layers, by remedy"),
    ]
    bars = alt.hconcat(*below).resolve_scale(color="independent", strokeDash="independent")
    title = heading(
        f"Remedies of over-smoothing in {found.model.name}, applied without training",
        found,
        "What a remedy does to weights that never met it. Means over sentences. max, mean: all blocks fused.",
        "A bound is drawn where the remedy leaves its hypotheses alone. A remedy's own effect counts to the part it "
        "acts in; one on the block's output, to the last LayerNorm. Dot: sum of the parts.",
    )
    fusions = alt.param(name="fusions", value=[name.split(" ")[0] for name in found.entries[0].fused])
    figure = alt.vconcat(alt.hconcat(*above), bars).resolve_scale(
        color="independent", strokeDash="independent", shape="independent"
    )
    return figure.add_params(fusions).properties(title=title)


def _styles(found: Comparison, *, legend: bool) -> dict[str, Any]:
    """Colour, dashes and shape of every remedy: the palette, then the same colours with other dashes and shapes."""
    names = _names(found)
    rounds = [k // len(PALETTE) % 3 for k in range(len(names))]
    shown = alt.Legend(orient="top", columns=5, title=None, symbolStrokeWidth=0) if legend else None

    def scale(choices: list[Any]) -> alt.Scale:
        return alt.Scale(domain=names, range=choices)

    return {
        "color": alt.Color(
            "remedy:N", scale=scale([PALETTE[k % len(PALETTE)] for k in range(len(names))]), legend=shown
        ),
        "strokeDash": alt.StrokeDash("remedy:N", scale=scale([DASHES[k] for k in rounds]), legend=None),
        "shape": alt.Shape("remedy:N", scale=scale([SHAPES[k] for k in rounds]), legend=shown),
    }


def _names(found: Comparison) -> list[str]:
    return [drawable(entry.label, 40) for entry in found.entries]


def _lines(found: Comparison, spreads: list[Spread], x: alt.X, *, first: int, legend: bool = False) -> alt.LayerChart:
    """The mean of every remedy over layers."""
    rows = [
        {"remedy": name, "layer": first + k, "value": value}
        for name, spread in zip(_names(found), spreads, strict=True)
        for k, value in enumerate(spread.mean.tolist())
    ]
    style = _styles(found, legend=legend)
    base = alt.Chart(values(rows)).encode(x=x, y=_y(), color=style["color"])
    line = base.mark_line(strokeWidth=1.6).encode(strokeDash=style["strokeDash"])
    points = base.mark_point(size=25).encode(shape=style["shape"], tooltip=["remedy:N", "layer:Q", "value:Q"])
    return layered(line, points, *unless_any([spread.mean for spread in spreads])).properties(width=SIDE, height=SIDE)


def _y() -> alt.Y:
    return alt.Y("value:Q", title=None, scale=alt.Scale(zero=False))


def _states(found: Comparison, field: str) -> alt.LayerChart:
    """A measure of the hidden states by layer, and beside them that of all layers fused."""
    layers, fusions = found.model.layers, list(found.entries[0].fused)
    gap = max(1.0, layers / 8)  # room for two words, however many layers there are
    places = [layers + gap * (1 + k) for k in range(len(fusions))]
    rows = [
        {"remedy": name, "layer": place, "value": entry.fused[fusion][field].mean.item()}
        for name, entry in zip(_names(found), found.entries, strict=True)
        for place, fusion in zip(places, fusions, strict=True)
    ]
    shown = [*range(0, layers + 1, max(1, round(layers / 6))), *places]
    words = f"datum.value > {layers} ? fusions[round((datum.value - {layers}) / {gap}) - 1] : format(datum.value, 'd')"
    axis = alt.Axis(values=shown, title="layer (0 = embedding output)", grid=False, labelExpr=words, labelOverlap=False)
    x = alt.X("layer:Q", axis=axis, scale=alt.Scale(domain=[-0.35, places[-1] + gap / 2], nice=False))
    spreads = [getattr(entry, field) for entry in found.entries]
    lines = _lines(found, spreads, x, first=0, legend=field == "cosine_similarity")
    style = _styles(found, legend=False)
    fused = alt.Chart(values(rows)).mark_point(shape="diamond", filled=False).encode(x=x, y=_y(), color=style["color"])
    border = alt.Chart(values([{"layer": layers + gap / 2}])).mark_rule(color="#BBBBBB").encode(x=x)
    return layered(lines, fused, border)


def _rates(found: Comparison) -> alt.LayerChart:
    one = alt.Chart(values([{"value": 1}])).mark_rule(color=GREY).encode(y="value:Q")
    x = layer_axis(1, found.model.layers)
    return layered(one, _lines(found, [entry.rates["actual"] for entry in found.entries], x, first=1))


def _bounds(found: Comparison) -> alt.LayerChart:
    rows = [
        {"remedy": name, "layer": k + 1, "value": value, "bound": rate, "line": f"{name} {rate}"}
        for name, entry in zip(_names(found), found.entries, strict=True)
        for rate in ("L4", "L1")
        for k, value in enumerate(positive(entry.rates[rate].mean).tolist())
    ]
    known = np.array([row["value"] for row in rows])
    x, y = layer_axis(1, found.model.layers), _y()
    # Within a factor of three a logarithmic axis has no number to show.
    if np.isfinite(known).any() and np.nanmax(known) > 3 * np.nanmin(known):
        y, _ = log_axis("", [known])
    dash = alt.StrokeDash("bound:N", scale=alt.Scale(domain=["L4", "L1"], range=[[1, 0], [5, 3]]), legend=None)
    base = alt.Chart(values(rows)).encode(x=x, y=y, color=_styles(found, legend=False)["color"], detail="line:N")
    layers = (base.mark_line(strokeWidth=1.6).encode(strokeDash=dash), base.mark_point(size=25), *unless_any([known]))
    return layered(*layers).properties(width=SIDE, height=SIDE)


def _parts_by_layer(found: Comparison) -> alt.LayerChart:
    parts = found.entries[0].attribution.mean
    layers = list(range(1, len(parts) + 1))
    x = alt.X("place:O", title="layer", axis=alt.Axis(labelAngle=0, values=layers[:: max(1, round(len(layers) / 12))]))
    chart = stacked(layers, parts, found.parts, x, "change of ln(d_M / ‖H‖)", legend=True)
    return chart.properties(width=SIDE, height=SIDE)


def _parts_by_remedy(found: Comparison) -> alt.LayerChart:
    sums = np.array([entry.attribution.mean.sum(axis=0) for entry in found.entries])
    x = alt.X("place:N", title=None, sort=None, axis=alt.Axis(labelAngle=-45, labelLimit=140, labelOverlap=False))
    return stacked(_names(found), sums, found.parts, x, None, legend=False).properties(width=SIDE, height=SIDE)


def _entry(entry: Measured, parts: tuple[str, ...]) -> dict[str, Any]:
    blocks = entry.rates["actual"].mean.size
    layers: list[dict[str, Any]] = []
    for state in range(blocks + 1):
        one: dict[str, Any] = {"layer": state, **{field: at(getattr(entry, field), state) for field in STATES.values()}}
        if state:
            one["rates"] = {rate: at(entry.rates[rate], state - 1) for rate in COMPARED_RATES}
            one["attribution"] = {part: at(entry.attribution, state - 1, k) for k, part in enumerate(parts)}
        layers.append(one)
    fused = {name: {key: at(spread, 0) for key, spread in measures.items()} for name, measures in entry.fused.items()}
    plain = {key: getattr(entry, key) for key in ("label", "description", "warning")}
    against = {
        "effects": {key: dataclasses.asdict(effect) for key, effect in entry.effects.items()},
        "cost": None if entry.cost is None else dataclasses.asdict(entry.cost),
    }
    return {**plain, "layers": layers, "fused": fused, "change": at(entry.change, 0), **against}
