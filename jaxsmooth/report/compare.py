"""The three forms of `compare`'s result: compare.json, one figure, a table per measure."""

import functools
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..files import write_numbers_and_figure
from ..results.comparison import COMPARED_RATES, Comparison, Measured
from ..results.spread import Spread
from .format import at, digits
from .json import described, dumps, strict
from .style import canvas, drawable, layer_axis, log_axis, note, positive, save, say_empty, title
from .terminal import plain_table, print_paths

PALETTE = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C510A")
PART_COLOURS = ("#0072B2", "#56B4E9", "#D55E00", "#E69F00")
STATES = {"cosine similarity of tokens": "cosine_similarity", "relative distance d_M / ‖H‖": "relative_distance"}
RATE_NAMES = {"actual": "actual rate of a block", "L4": "bound L4", "L1": "bound L1"}


def write_comparison(found: Comparison, out: Path) -> tuple[Path, Path]:
    """Writes compare.json and compare.png into a folder, each aside and renamed.

    Args:
      found: what `compare` found.
      out: the folder, made if missing.

    Returns:
      The two paths.

    Raises:
      OSError: the folder cannot be made or written to.
    """
    numbers = dumps(comparison_json(found))
    return write_numbers_and_figure(out, "compare", numbers, functools.partial(comparison_figure, found))


def comparison_json(found: Comparison) -> dict[str, Any]:
    """Turns the result into strict JSON: for every remedy and layer, each quantity's spread over sentences.

    Layer 0 is the embedding output. A quantity without a value in any sentence, such as a bound whose hypotheses the
    remedy breaks, has null and a count of 0.
    """
    entries = [_entry(entry, found.parts) for entry in found.entries]
    return strict({**described(found), "remedies": entries, "versions": found.versions})


def print_comparison(found: Comparison, paths: tuple[Path, Path], console: Console) -> None:
    """Prints one table per measure, remedies down and layers across, and where the files are."""
    model, data = found.model, found.data
    console.print(Text(f"{model.label} on {data.sentences:,} sentences of {data.name}, not trained", style="bold"))
    for heading, field in STATES.items():
        spreads = {entry.label: getattr(entry, field) for entry in found.entries}
        console.print(_table(heading, spreads, 0, console.width))
    for rate in COMPARED_RATES:
        spreads = {entry.label: entry.rates[rate] for entry in found.entries}
        console.print(_table(RATE_NAMES[rate], spreads, 1, console.width))
    console.print(_summary(found))
    for line in _remarks(found):
        console.print(Text(line))
    print_paths(console, dict(zip(("numbers", "figure"), paths, strict=True)))


def comparison_figure(found: Comparison, path: Path) -> Path:
    """Cosine, distance and rate by layer, a line per remedy; bounds; which part of a block does it."""
    with canvas(17.0, 10.4) as figure:
        grid = figure.subplots(2, 3)
        for axes, (heading, field) in zip(grid[0], STATES.items(), strict=False):
            _states(axes, found, field)
            title(axes, heading)
        _lines(grid[0, 2], {entry.label: entry.rates["actual"] for entry in found.entries}, 1)
        grid[0, 2].axhline(1, color="#555555", linewidth=1)
        title(grid[0, 2], "actual rate of a block (below 1: closer)")
        _bounds(grid[1, 0], found)
        _parts_by_layer(grid[1, 1], found)
        _parts_by_remedy(grid[1, 2], found)
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=min(5, len(labels)), fontsize=10)
        note(
            figure,
            found,
            "Not trained: what a remedy does to weights that never met it. Means over sentences. max, mean: all blocks "
            "fused.\nA bound is drawn where the remedy leaves its hypotheses alone. A remedy's own effect counts to "
            "the part it acts in; one on the block's output, to norm_mlp.",
        )
        return save(figure, path)


def _styles() -> Iterator[dict[str, Any]]:
    """Colours, then the same colours with other lines."""
    for line, marker in cycle((("-", "o"), ("--", "s"), (":", "^"))):
        for colour in PALETTE:
            yield {"color": colour, "linestyle": line, "marker": marker, "markersize": 4, "linewidth": 1.6}


def _lines(axes: Axes, spreads: dict[str, Spread], first: int) -> None:
    if not any(spread.count.any() for spread in spreads.values()):
        say_empty(axes)
    for (label, spread), style in zip(spreads.items(), _styles(), strict=False):
        layers = np.arange(first, first + spread.mean.size)
        axes.plot(layers, spread.mean, label=drawable(label, 40).replace("$", r"\$"), **style)
    layer_axis(axes, first, first + next(iter(spreads.values())).mean.size - 1)


def _states(axes: Axes, found: Comparison, field: str) -> None:
    _lines(axes, {entry.label: getattr(entry, field) for entry in found.entries}, 0)
    layers, fusions = found.model.layers, list(found.entries[0].fused)
    gap = max(1.0, layers / 8)  # room for two words, however many layers stand beside them
    places = [layers + gap * (1 + k) for k in range(len(fusions))]
    for entry, style in zip(found.entries, _styles(), strict=False):
        for place, fusion in zip(places, fusions, strict=True):
            mean = entry.fused[fusion][field].mean
            axes.plot([place], mean, **{**style, "marker": "D", "fillstyle": "none", "linestyle": ""})
    axes.axvline(layers + gap / 2, color="#BBBBBB", linewidth=1)
    shown = range(0, layers + 1, max(1, round(layers / 6)))
    axes.set_xlim(-0.35, places[-1] + gap / 2)
    axes.set_xticks([*shown, *places], [*map(str, shown), *(name.split(" ")[0] for name in fusions)])


def _bounds(axes: Axes, found: Comparison) -> None:
    drawn = []
    for entry, style in zip(found.entries, _styles(), strict=False):
        for rate, line in (("L4", "-"), ("L1", "--")):
            mean = positive(entry.rates[rate].mean)
            if np.isfinite(mean).any():
                axes.plot(np.arange(1, mean.size + 1), mean, **{**style, "linestyle": line})
                drawn.append(mean)
    layer_axis(axes, 1, found.model.layers)
    title(axes, "bounds of that rate: L4 (solid), L1 (dashed)")
    known = np.concatenate([np.array([np.nan]), *drawn])
    # Within a factor of three a logarithmic axis has no number to show.
    if not np.isfinite(known).any() or np.nanmax(known) > 3 * np.nanmin(known):
        log_axis(axes, drawn)


def _parts_by_layer(axes: Axes, found: Comparison) -> None:
    parts = found.entries[0].attribution.mean
    _stacked(axes, np.arange(1, len(parts) + 1), parts, found.parts)
    axes.plot(np.arange(1, len(parts) + 1), parts.sum(axis=1), color="#000000", marker="o", markersize=4, label="sum")
    layer_axis(axes, 1, len(parts))
    axes.set_ylabel("change of ln(d_M / ‖H‖)")
    axes.legend(fontsize=9)
    title(axes, "without a remedy: which part of a block")


def _parts_by_remedy(axes: Axes, found: Comparison) -> None:
    sums = np.array([entry.attribution.mean.sum(axis=0) for entry in found.entries])
    places = np.arange(len(sums))
    _stacked(axes, places, sums, found.parts)
    axes.plot(places, sums.sum(axis=1), color="#000000", marker="o", markersize=4, linestyle="", label="sum")
    axes.set_xticks(places, [drawable(entry.label, 24).replace("$", r"\$") for entry in found.entries], rotation=35)
    for label in axes.get_xticklabels():
        label.set_horizontalalignment("right")
    title(axes, "the same, summed over layers, by remedy")


def _stacked(axes: Axes, places: np.ndarray, values: np.ndarray, names: tuple[str, ...]) -> None:
    """Bars stacked upwards where positive and downwards where negative."""
    values = np.where(np.isfinite(values), values, 0)
    above, below = np.zeros(len(values)), np.zeros(len(values))
    for k, (name, colour) in enumerate(zip(names, PART_COLOURS, strict=True)):
        part = values[:, k]
        axes.bar(places, part, bottom=np.where(part >= 0, above, below), color=colour, width=0.6, label=name)
        above, below = above + np.maximum(part, 0), below + np.minimum(part, 0)
    axes.axhline(0, color="#555555", linewidth=1)


def _table(heading: str, spreads: dict[str, Spread], first: int, width: int) -> Table:
    table = plain_table(Text(heading))
    table.add_column("layer", no_wrap=True)
    size = next(iter(spreads.values())).mean.size
    room = max(2, (width - max(map(len, (*spreads, "layer"))) - 2) // 8)
    shown = np.unique(np.linspace(0, size - 1, min(size, room)).round().astype(int))
    for layer in shown:
        table.add_column(str(layer + first), justify="right", no_wrap=True)
    for label, spread in spreads.items():
        table.add_row(Text(label), *(digits(float(spread.mean[layer])) for layer in shown))
    return table


def _summary(found: Comparison) -> Table:
    table = plain_table(Text("over the whole encoder: change of ln(d_M / ‖H‖) by part, and of the output"))
    table.add_column("remedy", no_wrap=True)
    for column in (*found.parts, "sum", "‖ΔH‖/‖H‖"):
        table.add_column(column, justify="right", no_wrap=True)
    for entry in found.entries:
        sums = entry.attribution.mean.sum(axis=0)
        numbers = (*sums, sums.sum(), entry.change.mean[0])
        table.add_row(Text(entry.label), *(digits(float(number)) for number in numbers))
    return table


def _remarks(found: Comparison) -> Iterator[str]:
    for entry in found.entries[1:]:
        warning = f" It {entry.warning}." if entry.warning else ""
        lost = [rate for rate in ("L4", "L1") if not entry.rates[rate].count.any()]
        missing = f" It breaks the hypotheses of {' and '.join(lost)}." if lost else ""
        yield f"{entry.label}: {entry.description}.{warning}{missing}"


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
    return {**plain, "layers": layers, "fused": fused, "change": at(entry.change, 0)}
