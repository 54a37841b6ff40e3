"""The three forms of `converge`'s result: converge.json, one figure, the answer in words and a table."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
from rich.console import Console
from rich.text import Text

from ..errors import arguments_checked
from ..files import atomic_write, dumps_strict, strict
from ..results.convergence import HeadConvergence
from ..results.spread import Spread
from .charts import GREY, heading, layered, save, values
from .format import at, digits, over_heads
from .json import described, folder_for
from .sections.glossary import Column
from .terminal import show, show_answer, show_table

_NUMBERS = (
    (Column("|λ₂|", "predicted-rate"), "predicted_rate"),
    (Column("rate\nseen", "observed_rate"), "observed_rate"),
    (Column("τ", "tau"), "ergodicity"),
    (Column("Birk-\nhoff", "birkhoff"), "birkhoff"),
    (Column("steps\nsaid", "steps-said"), "predicted_steps"),
    (Column("steps\ntaken", "steps-taken"), "observed_steps"),
    (Column("limit\nheld%", "limit-held"), "limit_held"),
    (Column("rate\nheld%", "rate-held"), "rate_held"),
    (Column("steps\nheld%", "steps-held"), "steps_held"),
)
COLUMNS = (Column("operator", "operator"), Column("layer", "layer"), *(column for column, _ in _NUMBERS))
LEAST_IMPORTANT = ("Birk-\nhoff", "τ", "steps\nheld%", "steps\nsaid", "steps\ntaken", "limit\nheld%")
"""What is left out where there is no room, in this order."""

WHERE = "Where do the tokens go when a head's attention is applied again and again?"
HOW_FAST = "Does the second eigenvalue say how fast?"


@arguments_checked
def write_convergence(found: HeadConvergence, out: Path) -> dict[str, Path]:
    """Write converge.json and the figure converge.png, .svg and .pdf, each atomically.

    Args:
      found: what `converge_heads` found.
      out: the folder, made if missing.

    Returns:
      "numbers" and "figure" -> their paths.

    Raises:
      OSError: the folder cannot be made or written to.
    """
    out = folder_for(found, HeadConvergence, out)
    figure = save(convergence_figure(found), out / "converge")
    numbers = atomic_write(out / "converge.json", dumps_strict(convergence_json(found), indent=2) + "\n")
    return {"numbers": numbers, "figure": figure}


@arguments_checked
def convergence_json(found: HeadConvergence) -> dict[str, Any]:
    """Turn the result into strict JSON: for every operator, layer and head, each quantity's spread over sentences.

    Layers count from 1, heads from 0. A quantity without a value in any sentence has null and a count of 0.
    """
    heads = found.model.heads
    operators = [
        {
            "operator": operator,
            "layers": [
                {"layer": layer + 1, "heads": [_head(spreads, layer, head) for head in range(heads)]}
                for layer in range(found.model.layers)
            ],
        }
        for operator, spreads in found.operators.items()
    ]
    plain = ("window", "steps", "tolerance", "versions")
    answers = {"where": where_words(found), "how_fast": speed_words(found)}
    return strict(
        {**described(found), "answers": answers, **{key: getattr(found, key) for key in plain}, "operators": operators}
    )


@arguments_checked
def print_convergence(found: HeadConvergence, console: Console) -> None:
    """Print the answers in words, and a table, one row per operator and layer."""
    model, data = found.model, found.data
    show_answer(console, WHERE, where_words(found))
    show_answer(console, HOW_FAST, speed_words(found))
    console.print()
    title = f"{model.name} on {data.label}: attention iterated {found.steps} times"
    title += f" ({model.note})" if model.note else ""
    rows = []
    for operator, spreads in found.operators.items():
        pooled = {name: over_heads(spreads[name]).mean for _, name in _NUMBERS}
        for layer in range(model.layers):
            cells = [_cell(name, float(pooled[name][layer])) for _, name in _NUMBERS]
            rows.append([operator if layer == 0 else "", str(layer + 1), *cells])
    show_table(console, Text(title, style="bold"), COLUMNS, rows, LEAST_IMPORTANT)
    console.print()
    show(console, Text("What held, failed and stayed open, by operator:", style="bold"))
    for line in _findings(found):
        show(console, Text(line))


def where_words(found: HeadConvergence) -> str:
    """The limit of the model's own attention, and whether it is the one that theory predicts."""
    spreads = found.operators.get("full")
    if spreads is None or not spreads["limit_held"].count.any():
        return "No sentence has tokens to iterate."
    most = float(np.nanmax(spreads["classes"].max))
    goal = "to one common vector: all tokens become equal" if most <= 1 else "in some heads to several groups of tokens"
    return (
        f"Under the model's own attention alone, {goal}. The limit is the one that theory predicts in"
        f" {_share(spreads['limit_held'])} of heads and sentences and another one in {_share(spreads['limit_failed'])};"
        f" {_share(spreads['arrived'])} arrived within {found.steps} steps."
    )


def speed_words(found: HeadConvergence) -> str:
    """Whether |lambda_2| predicts the observed rate and number of steps, for each operator."""
    known = {name: spreads for name, spreads in found.operators.items() if spreads["rate_held"].count.any()}
    if not known:
        return "Nothing was observed to compare it with."
    own = next(iter(known))
    held = _mean(known[own]["rate_held"])
    word = next(
        word for least, word in ((0.95, "It does"), (0.5, "Mostly"), (0.05, "In part"), (0, "Hardly")) if held >= least
    )
    listed = "; ".join(
        f"{_called(found, name)} the rate in {_share(spreads['rate_held'])} and the number of steps in"
        f" {_share(spreads['steps_held'])}"
        for name, spreads in known.items()
    )
    return (
        f"{word}, for the model's own attention. Of heads and sentences it predicts, for {listed}. The rest is wrong or"
        f" not decided by {found.steps} steps."
    )


def _called(found: HeadConvergence, operator: str) -> str:
    return f"a window of {found.window}" if operator == "window" else f"{operator} attention"


def _mean(held: Spread) -> float:
    return float((np.where(held.count > 0, held.mean, 0) * held.count).sum() / max(int(held.count.sum()), 1))


def convergence_figure(found: HeadConvergence) -> alt.VConcatChart:
    """Every head a dot: predicted against observed rate above, predicted against observed steps below."""
    rates, steps = [], []
    for operator, spreads in found.operators.items():
        words = f"window of {found.window}" if operator == "window" else operator
        data = values(_dots(spreads))
        title = f"{words}: limit held in {_share(spreads['limit_held'])}"
        rates.append(_rates(data, found).properties(width=300, height=240, title=title))
        steps.append(_steps(data, found).properties(width=300, height=240))
    return alt.vconcat(alt.hconcat(*rates), alt.hconcat(*steps)).properties(
        title=heading(
            f"{found.model.name}: does the second eigenvalue say how fast a head's attention mixes?",
            found,
            speed_words(found),
            "A dot is a head, its mean over sentences. On the dashed line the eigenvalue is right;",
            "above it in the lower row, attention needed more steps than the eigenvalue promised.",
        )
    )


_PLOTTED = ("predicted_rate", "observed_rate", "predicted_steps", "observed_steps")


def _dots(spreads: dict[str, Spread]) -> list[dict[str, Any]]:
    shape = spreads[_PLOTTED[0]].mean.shape
    return [
        {"layer": layer + 1, "head": head + 1, **{name: spreads[name].mean[layer, head] for name in _PLOTTED}}
        for layer, head in np.ndindex(shape)
    ]


def _scatter(data: alt.Data, found: HeadConvergence, x: alt.X, y: alt.Y, names: tuple[str, str]) -> alt.Chart:
    last = found.model.layers
    ticks = sorted({1, *range(1, last + 1, max(1, round(last / 6))), last})
    legend = alt.Legend(title="layer", format="d", values=ticks)
    colour = alt.Color("layer:Q", scale=alt.Scale(scheme="viridis", domain=[1, max(2, last)]), legend=legend)
    tooltip = ["layer:Q", "head:Q", *(alt.Tooltip(f"{name}:Q", format=".3~r") for name in names)]
    return alt.Chart(data).mark_point(opacity=0.85, size=40).encode(x=x, y=y, color=colour, tooltip=tooltip)


def _diagonal(low: float, high: float) -> alt.Chart:
    ends = values([{"x": low, "y": low}, {"x": high, "y": high}])
    return alt.Chart(ends).mark_line(color=GREY, strokeDash=[5, 4], strokeWidth=1).encode(x="x:Q", y="y:Q")


def _rates(data: alt.Data, found: HeadConvergence) -> alt.LayerChart:
    scale = alt.Scale(domain=[-0.03, 1.03], nice=False)
    x = alt.X("predicted_rate:Q", scale=scale, title="predicted rate |λ2|")
    y = alt.Y("observed_rate:Q", scale=scale, title="observed rate per step")
    return layered(_diagonal(0, 1), _scatter(data, found, x, y, _PLOTTED[:2]))


def _steps(data: alt.Data, found: HeadConvergence) -> alt.LayerChart:
    top = found.steps + 1
    scale = alt.Scale(type="log", domain=[0.8, top * 1.6], nice=False)
    axis: dict[str, Any] = {"values": [10**power for power in range(int(np.log10(top)) + 1)], "format": ",d"}
    x = alt.X("predicted_steps:Q", scale=scale, axis=alt.Axis(title=f"predicted steps to {found.tolerance:g}", **axis))
    y = alt.Y("observed_steps:Q", scale=scale, axis=alt.Axis(title="observed steps", **axis))
    stop = alt.Chart(values([{"y": top}])).encode(y="y:Q")
    words = stop.mark_text(text="iteration stopped", color="#D55E00", align="left", dy=-8).encode(x=alt.value(6))
    line = stop.mark_rule(color="#D55E00")
    return layered(_diagonal(1, top), line, words, _scatter(data, found, x, y, _PLOTTED[2:]))


def _head(spreads: dict[str, Spread], layer: int, head: int) -> dict[str, Any]:
    return {"head": head} | {name: at(spread, layer, head) for name, spread in spreads.items()}


def _cell(name: str, value: float) -> str:
    return digits(100 * value) if name.endswith("_held") else digits(value)


def _share(held: Spread) -> str:
    """The share of heads and sentences in which a prediction held, never rounded up to all of them."""
    total = int(held.count.sum())
    share = 100 * _mean(held)
    return f"{min(share, 99.9) if share < 100 else 100:.3g}%" if total else "no sentence"


def _findings(found: HeadConvergence) -> Iterator[str]:
    for operator, spreads in found.operators.items():
        longest = spreads["transient"].max
        worst = float(np.nanmax(longest)) if np.isfinite(longest).any() else float("nan")
        shares = {name: _share(spreads[name]) for name in spreads if spreads[name].count.any()}
        limit, rate, steps = (
            f"{shares[f'{name}_held']} (failed in {shares[f'{name}_failed']})" for name in ("limit", "rate", "steps")
        )
        yield (
            f"{operator}: {shares['arrived']} of heads and sentences arrived; the limit held in {limit}, "
            f"the rate in {rate}, the number of steps in {steps}; the rest is not decided by {found.steps} steps; "
            f"τ bounded every step in {shares['ergodicity_held']}; longest transient {digits(worst)} steps."
        )
