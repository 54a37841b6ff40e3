"""The three forms of `converge`'s result: converge.json, one figure, a table."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, Colormap
from matplotlib.ticker import FuncFormatter
from rich.console import Console
from rich.text import Text

from ..files import write_numbers_and_figure
from ..results.convergence import HeadConvergence
from ..results.spread import Spread
from .format import at, digits, over_heads
from .json import described, dumps, strict
from .style import canvas, drawable, note, save, title
from .terminal import plain_table, print_paths

_COLUMNS = {
    "|λ₂|": "predicted_rate",
    "rate\nseen": "observed_rate",
    "τ": "ergodicity",
    "Birk-\nhoff": "birkhoff",
    "steps\nsaid": "predicted_steps",
    "steps\ntaken": "observed_steps",
    "limit\nheld%": "limit_held",
    "rate\nheld%": "rate_held",
    "steps\nheld%": "steps_held",
}


def write_convergence(found: HeadConvergence, out: Path) -> tuple[Path, Path]:
    """Writes converge.json and converge.png into a folder, each aside and renamed.

    Args:
      found: what `converge_heads` found.
      out: the folder, made if missing.

    Returns:
      The two paths.

    Raises:
      OSError: the folder cannot be made or written to.
    """
    numbers = dumps(convergence_json(found))
    return write_numbers_and_figure(out, "converge", numbers, functools.partial(convergence_figure, found))


def convergence_json(found: HeadConvergence) -> dict[str, Any]:
    """Turns the result into strict JSON: for every mask, layer and head, each quantity's spread over sentences.

    Layers count from 1, heads from 0. A quantity without a value in any sentence has null and a count of 0.
    """
    heads = found.model.heads
    masks = [
        {
            "mask": mask,
            "layers": [
                {"layer": layer + 1, "heads": [_head(spreads, layer, head) for head in range(heads)]}
                for layer in range(found.model.layers)
            ],
        }
        for mask, spreads in found.masks.items()
    ]
    plain = ("window", "steps", "tolerance", "versions")
    return strict({**described(found), **{key: getattr(found, key) for key in plain}, "masks": masks})


def print_convergence(found: HeadConvergence, paths: tuple[Path, Path], console: Console) -> None:
    """Prints a table, one row per mask and layer, and where the files are."""
    model, data = found.model, found.data
    heading = f"{model.name} on {data.sentences:,} sentences of {data.name}: attention iterated {found.steps} times"
    heading += f" ({model.note})" if model.note else ""
    table = plain_table(Text(heading, style="bold"))
    table.add_column("mask", no_wrap=True)
    for column in ("layer", *_COLUMNS):
        table.add_column(column, justify="right")
    for mask, spreads in found.masks.items():
        pooled = {name: over_heads(spreads[name]).mean for name in _COLUMNS.values()}
        for layer in range(model.layers):
            cells = [_cell(name, float(pooled[name][layer])) for name in _COLUMNS.values()]
            table.add_row(mask if layer == 0 else "", str(layer + 1), *cells)
        table.add_section()
    console.print(table)
    for line in _findings(found):
        console.print(Text(line))
    print_paths(console, dict(zip(("numbers", "figure"), paths, strict=True)))


def convergence_figure(found: HeadConvergence, path: Path) -> Path:
    """Every head a dot: predicted against observed rate above, predicted against observed steps below."""
    with canvas(13.0, 8.6) as figure:
        grid = figure.subplots(2, len(found.masks), squeeze=False)
        colours = _colours(found.model.layers)
        for column, (mask, spreads) in enumerate(found.masks.items()):
            _rates(grid[0, column], spreads, colours)
            words = f"window of {found.window}" if mask == "window" else mask
            title(grid[0, column], f"{words}: limit held in {_share(spreads['limit_held'])}")
            _steps(grid[1, column], spreads, colours, found)
        bar = figure.colorbar(ScalarMappable(*colours), ax=grid, label="layer", shrink=0.6)
        bar.set_ticks([layer + 0.5 for layer in range(found.model.layers)], labels=_layers(found))
        heading = figure.suptitle(
            drawable(f"{found.model.name}: does the second eigenvalue say how fast a head's attention mixes?", 110),
            fontsize=16,
            fontweight="bold",
        )
        heading.set_parse_math(False)
        note(
            figure,
            found,
            "A dot is a head, its mean over sentences. On the dashed line the eigenvalue is right; above it in the "
            "lower row, attention needed more steps than the eigenvalue promised.",
        )
        return save(figure, path)


Colours = tuple[BoundaryNorm, Colormap]


def _colours(layers: int) -> Colours:
    return BoundaryNorm(np.arange(layers + 1), 256), matplotlib.colormaps["viridis"]


def _layers(found: HeadConvergence) -> list[str]:
    return [str(layer) for layer in range(1, found.model.layers + 1)]


def _dots(axes: Axes, across: Spread, up: Spread, colours: Colours) -> None:
    norm, palette = colours
    layer = np.repeat(np.arange(across.mean.shape[0]), across.mean.shape[1]) + 0.5
    axes.scatter(across.mean.ravel(), up.mean.ravel(), c=layer, norm=norm, cmap=palette, s=28, alpha=0.85, linewidth=0)


def _rates(axes: Axes, spreads: dict[str, Spread], colours: Colours) -> None:
    axes.plot([0, 1], [0, 1], color="#555555", linestyle="--", linewidth=1)
    _dots(axes, spreads["predicted_rate"], spreads["observed_rate"], colours)
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("predicted rate |λ₂|")
    axes.set_ylabel("observed rate per step")


def _steps(axes: Axes, spreads: dict[str, Spread], colours: Colours, found: HeadConvergence) -> None:
    top = found.steps + 1
    axes.plot([1, top], [1, top], color="#555555", linestyle="--", linewidth=1)
    axes.axhline(top, color="#D55E00", linewidth=1)
    axes.text(1.1, top * 1.08, "iteration stopped", color="#D55E00", fontsize=9, va="bottom")
    _dots(axes, spreads["predicted_steps"], spreads["observed_steps"], colours)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(0.8, top * 1.6)
    axes.set_ylim(0.8, top * 1.6)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel(f"predicted steps to {found.tolerance:g}")
    axes.set_ylabel("observed steps")


def _head(spreads: dict[str, Spread], layer: int, head: int) -> dict[str, Any]:
    return {"head": head} | {name: at(spread, layer, head) for name, spread in spreads.items()}


def _cell(name: str, value: float) -> str:
    return digits(100 * value) if name.endswith("_held") else digits(value)


def _share(held: Spread) -> str:
    """The share of heads and sentences in which a prediction held, never rounded up to all of them."""
    total = int(held.count.sum())
    share = 100 * float((np.where(held.count > 0, held.mean, 0) * held.count).sum()) / max(total, 1)
    return f"{min(share, 99.9) if share < 100 else 100:.3g}%" if total else "no sentence"


def _findings(found: HeadConvergence) -> Iterator[str]:
    for mask, spreads in found.masks.items():
        longest = spreads["transient"].max
        worst = float(np.nanmax(longest)) if np.isfinite(longest).any() else float("nan")
        shares = {name: _share(spreads[name]) for name in spreads if spreads[name].count.any()}
        yield (
            f"{mask}: {shares['arrived']} of heads and sentences arrived; the limit held in {shares['limit_held']}, "
            f"the rate in {shares['rate_held']}, the number of steps in {shares['steps_held']}; tau bounded every "
            f"step in {shares['ergodicity_held']}; longest transient {digits(worst)} steps."
        )
