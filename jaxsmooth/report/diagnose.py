"""Writes the three forms of a report into one folder."""

import dataclasses
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..files import write_aside
from ..results.diagnosis import Diagnosis
from .figures import write_figures
from .format import FUSED_ROW, digits, fused_words, rows_of
from .json import dumps, to_json
from .page import render_page
from .terminal import plain_table, print_paths
from .verdict import verdict


@dataclasses.dataclass(frozen=True)
class ReportPaths:
    """Where a report is.

    Attributes:
      html: the page, report.html.
      json: the numbers, report.json.
      figures_dir: the folder of the figures.
      figures: name -> PNG file.
    """

    html: Path
    json: Path
    figures_dir: Path
    figures: dict[str, Path]


def write_report(diagnosis: Diagnosis, out: Path) -> ReportPaths:
    """Writes report.html, report.json and figures/*.png.

    Args:
      diagnosis: what `jaxsmooth.diagnose` found.
      out: folder to write into, made if missing. Every file is written aside and renamed, so an interrupted run
        leaves no half-written file, and a second run replaces the first.

    Returns:
      The paths.

    Raises:
      OSError: the folder cannot be made or written to.
    """
    out = Path(out)
    figures = out / "figures"
    drawn = write_figures(diagnosis, figures)
    if diagnosis.exemplar is None:
        # Left by an earlier run into the same folder, it would show another run's sentence.
        (figures / "exemplar_cosine.png").unlink(missing_ok=True)
    return ReportPaths(
        html=write_aside(out / "report.html", render_page(diagnosis)),
        json=write_aside(out / "report.json", dumps(to_json(diagnosis))),
        figures_dir=figures,
        figures=drawn,
    )


_COLUMNS = {
    "cosine": ("cosine_similarity",),
    "d_M/‖H‖": ("relative_distance",),
    "actual": ("rates", "actual"),
    "L4": ("rates", "L4"),
    "L1": ("rates", "L1"),
    "L3": ("rates", "L3"),
    "std\nattn\nmin": ("std_attn_min",),
    "std\nMLP\nmin": ("std_mlp_min",),
    "√λ\nmax": ("mixing_rate_max",),
    "L0": ("rates", "L0"),
}
"""Heading -> where the number stands in report.json; from the most to the least important."""


_ORDER = ("cosine", "d_M/‖H‖", "std\nattn\nmin", "std\nMLP\nmin", "√λ\nmax", "actual", "L4", "L3", "L1", "L0")


def print_summary(diagnosis: Diagnosis, paths: ReportPaths, console: Console) -> None:
    """Prints the numbers per layer, the verdict and the paths of the report.

    Args:
      diagnosis: what `jaxsmooth.diagnose` found.
      paths: what `write_report` returned.
      console: where to print. In a narrow one the least important columns are left out; paths are never wrapped
        or cut, so that they can be copied and parsed.
    """
    found = verdict(diagnosis)
    console.print(_fitting_table(diagnosis, console))
    console.print(Text("Layer 0 is the embedding output; a rate below 1 brings tokens closer.", style="dim"))
    if diagnosis.fused is not None:
        console.print(Text(f"{FUSED_ROW.capitalize()}: {fused_words(diagnosis.fused)}.", style="dim"))
    console.print()
    console.print(Text(found.headline, style="bold"))
    for sentence in (found.smoothing, found.where, found.explanation):
        console.print(Text(sentence))
    console.print()
    print_paths(console, {"report": paths.html, "numbers": paths.json, "figures": paths.figures_dir})


def _fitting_table(diagnosis: Diagnosis, console: Console) -> Table:
    report = to_json(diagnosis)
    layers = rows_of(report)
    for kept in range(len(_COLUMNS), 0, -1):
        names = set(list(_COLUMNS)[:kept])
        table = _table(diagnosis, layers, [name for name in _ORDER if name in names])
        if console.measure(table, options=console.options.update(width=10_000)).maximum <= console.width:
            break
    return table


def _table(diagnosis: Diagnosis, layers: list[dict[str, Any]], names: list[str]) -> Table:
    model, data = diagnosis.model, diagnosis.data
    title = Text(f"{model.label} on {data.sentences:,} sentences of {data.name}", style="bold")
    table = plain_table(title)
    table.pad_edge = False
    table.add_column("layer", justify="right", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for layer in layers:
        table.add_row(str(layer["layer"]), *(_cell(layer, _COLUMNS[name]) for name in names))
    return table


def _cell(layer: dict[str, Any], path: tuple[str, ...]) -> Text:
    if path[0] not in layer:
        return Text("")
    value: Any = layer
    for key in path:
        value = value[key]
    contracts = path[0] == "rates" and value is not None and value < 1
    return Text(digits(value), style="green" if contracts else "")
