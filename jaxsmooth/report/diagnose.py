"""The three forms of `diagnose`'s result: a page, report.json and figures; a table and the answer in words."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..files import atomic_write, dumps_strict
from ..results.diagnosis import Diagnosis
from .fate.words import fate_of
from .fate.write import write_fates
from .figures import write_figures
from .format import FUSED_ROW, digits, fused_words, rows_of
from .headline import headline
from .json import to_json
from .page import render_page
from .terminal import plain_table, show
from .texts import ASSUMED, texts_csv, texts_words


def write_diagnosis(diagnosis: Diagnosis, out: Path) -> dict[str, Path]:
    """Write report.html, report.json and the figures, as PNG, SVG and PDF, each atomically; a fate into a folder fate.

    Args:
      diagnosis: what `jaxsmooth.diagnose` found.
      out: the folder, made if missing. A second run replaces the files of the first.

    Returns:
      "report", "numbers" and "figures" -> the page, report.json and the folder of the figures; where they were asked
      for "fate" -> fate/fate.json and "values" -> texts.csv, the values of each text.

    Raises:
      OSError: the folder cannot be made or written to.
    """
    out = Path(out)
    figures = out / "figures"
    write_figures(diagnosis, figures)
    if diagnosis.exemplar is None:
        # Left by an earlier run into the same folder, it would show another run's sentence.
        for stale in figures.glob("exemplar_cosine.*"):
            stale.unlink()
    asked = {}
    if diagnosis.fate is not None:
        asked["fate"] = write_fates(diagnosis.fate, out / "fate")["numbers"]
    if diagnosis.texts is not None and diagnosis.texts.values:
        asked["values"] = atomic_write(out / "texts.csv", texts_csv(diagnosis.texts))
    beside = ["report.json", *(path.relative_to(out).as_posix() for path in asked.values()), "figures/"]
    return {
        "report": atomic_write(out / "report.html", render_page(diagnosis, beside=beside)),
        "numbers": atomic_write(out / "report.json", dumps_strict(to_json(diagnosis), indent=2) + "\n"),
        "figures": figures,
        **asked,
    }


_COLUMNS = {
    "cosine": ("cosine_similarity",),
    "d_M/‖H‖": ("relative_distance",),
    "actual": ("rates", "actual"),
    "L5": ("rates", "L5"),
    "L4": ("rates", "L4"),
    "L1": ("rates", "L1"),
    "std\nattn\nmin": ("std_attn_min",),
    "std\nMLP\nmin": ("std_mlp_min",),
    "√λ\nmax": ("mixing_rate_max",),
    "L0": ("rates", "L0"),
}
"""Heading -> where the number is in report.json; from the most to the least important."""


_ORDER = ("cosine", "d_M/‖H‖", "std\nattn\nmin", "std\nMLP\nmin", "√λ\nmax", "actual", "L5", "L4", "L1", "L0")


def print_diagnosis(diagnosis: Diagnosis, console: Console) -> None:
    """Print the numbers per layer and the answer in words.

    Args:
      diagnosis: what `jaxsmooth.diagnose` found.
      console: where to print. In a narrow one the least important columns are left out.
    """
    found = headline(diagnosis)
    show(console, _fitting_table(diagnosis, console))
    show(console, Text("Layer 0 is the embedding output; a rate below 1 brings tokens closer.", style="dim"))
    if diagnosis.fused is not None:
        show(console, Text(f"{FUSED_ROW.capitalize()}: {fused_words(diagnosis.fused)}.", style="dim"))
    console.print()
    show(console, Text(found.headline, style="bold"))
    for sentence in (found.smoothing, found.where, found.explanation):
        show(console, Text(sentence))
    if diagnosis.texts is not None:
        show(console, Text(f"Other texts: {texts_words(diagnosis.texts)} {ASSUMED}"))
    if diagnosis.fate is not None:
        for one in diagnosis.fate.maps:
            show(console, Text(fate_of(diagnosis.fate, one)))


def _fitting_table(diagnosis: Diagnosis, console: Console) -> Table:
    report = to_json(diagnosis)
    layers = rows_of(report)
    own = {name: ("metrics", name) for name in diagnosis.metrics}
    columns = own | _COLUMNS  # what was asked for is the last to be left out
    for kept in range(len(columns), 0, -1):
        chosen = dict(list(columns.items())[:kept])
        table = _table(diagnosis, layers, {name: chosen[name] for name in (*_ORDER, *own) if name in chosen})
        if console.measure(table, options=console.options.update(width=10_000)).maximum <= console.width:
            break
    return table


def _table(diagnosis: Diagnosis, layers: list[dict[str, Any]], columns: dict[str, tuple[str, ...]]) -> Table:
    model, data = diagnosis.model, diagnosis.data
    title = Text(f"{model.label} on {data.sentences:,} sentences of {data.name}", style="bold")
    table = plain_table(title)
    table.pad_edge = False
    table.add_column("layer", justify="right", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for layer in layers:
        table.add_row(str(layer["layer"]), *(_cell(layer, path) for path in columns.values()))
    return table


def _cell(layer: dict[str, Any], path: tuple[str, ...]) -> Text:
    if path[0] not in layer:
        return Text("")
    value: Any = layer
    for key in path:
        value = value[key]
    contracts = path[0] == "rates" and value is not None and value < 1
    return Text(digits(value), style="green" if contracts else "")
