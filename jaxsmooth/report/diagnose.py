"""The three forms of `diagnose`'s result: a page, report.json and figures; the answer in words and a table."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from ..errors import arguments_checked
from ..files import atomic_write, dumps_strict
from ..results.diagnosis import Diagnosis
from .fate.words import fate_of, whole_answer
from .format import FUSED_ROW, digits, fused_words, rows_of
from .headline import headline
from .json import folder_for, to_json
from .sections.glossary import Column
from .terminal import show, show_answer, show_command, show_table
from .texts import ASSUMED, texts_csv, texts_words

if TYPE_CHECKING:
    from .shown.pictures import Illustrator


@arguments_checked
def write_diagnosis(
    diagnosis: Diagnosis, out: Path, *, kept: Path | None = None, meanwhile: "Illustrator | None" = None
) -> dict[str, Path]:
    """Write report.html, report.json and the figures, as PNG, SVG and PDF, each atomically; a fate into a folder fate.

    Args:
      diagnosis: what `jaxsmooth.diagnose` found.
      out: the folder, made if missing. A second run replaces the files of the first.
      kept: folder where the script that draws the page's charts is kept for the next page.
      meanwhile: what draws the figures while the page is made, see `report.illustrator`.

    Returns:
      "report", "numbers" and "figures" -> the page, report.json and the folder of the figures; where they were asked
      for "fate" -> fate/fate.json and "values" -> texts.csv, the values of each text.

    Raises:
      OSError: the folder cannot be made or written to.
    """
    # Only now: what draws takes half a second to import, and the answer in words is shown before.
    from .fate.write import write_fates
    from .figures import write_figures
    from .page import render_page

    out = folder_for(diagnosis, Diagnosis, out)
    figures = out / "figures"
    write_figures(diagnosis, figures, meanwhile=meanwhile)
    if diagnosis.exemplar is None:
        # Left by an earlier run into the same folder, it would show another run's sentence.
        for stale in figures.glob("exemplar_cosine.*"):
            stale.unlink()
    more = {}
    if diagnosis.fate is not None:
        more["fate"] = write_fates(diagnosis.fate, out / "fate")["numbers"]
    if diagnosis.texts is not None and diagnosis.texts.values:
        more["values"] = atomic_write(out / "texts.csv", texts_csv(diagnosis.texts))
    beside = ["report.json", *(path.relative_to(out).as_posix() for path in more.values()), "figures/"]
    written = {
        "report": atomic_write(out / "report.html", render_page(diagnosis, beside=beside, kept=kept)),
        "numbers": atomic_write(out / "report.json", dumps_strict(to_json(diagnosis), indent=2) + "\n"),
    }
    if meanwhile is not None:
        meanwhile.finish()
    return {**written, "figures": figures, **more}


COLUMNS = (
    (Column("layer", "layer"), ("layer",)),
    (Column("cosine", "cosine"), ("cosine_similarity",)),
    (Column("d_M/‖H‖", "relative-distance"), ("relative_distance",)),
    (Column("std\nattn\nmin", "std"), ("std_attn_min",)),
    (Column("std\nMLP\nmin", "std"), ("std_mlp_min",)),
    (Column("√λ\nmax", "mixing-rate"), ("mixing_rate_max",)),
    (Column("actual", "rate"), ("rates", "actual")),
    (Column("L5", "L5"), ("rates", "L5")),
    (Column("L4", "L4"), ("rates", "L4")),
    (Column("L1", "L1"), ("rates", "L1")),
    (Column("L0", "L0"), ("rates", "L0")),
)
"""Columns of the table, and where in a layer of report.json each stands."""

LEAST_IMPORTANT = ("L0", "√λ\nmax", "std\nMLP\nmin", "std\nattn\nmin", "L1", "L4", "L5", "actual", "d_M/‖H‖", "cosine")
"""What is left out where there is no room, in this order."""


@arguments_checked
def print_diagnosis(diagnosis: Diagnosis, console: Console) -> None:
    """Print the answer, the numbers per layer, and the questions with their answers.

    Args:
      diagnosis: what `jaxsmooth.diagnose` found.
      console: where to print. In a narrow one the least important columns are left out.
    """
    found = headline(diagnosis)
    show(console, Text(found.headline, style="bold"))
    console.print()
    _show_layers(diagnosis, console)
    if diagnosis.fused is not None:
        show(console, Text(f"{FUSED_ROW.capitalize()}: {fused_words(diagnosis.fused)}.", style="dim"))
    console.print()
    for question, answer in found.answers:
        if answer:
            show_answer(console, question, answer)
    if diagnosis.texts is not None:
        show_answer(console, "And other texts?", f"{texts_words(diagnosis.texts)} {ASSUMED}")
    if diagnosis.fate is not None:
        show_answer(console, "Where do the tokens go?", whole_answer(diagnosis.fate))
        for one in diagnosis.fate.maps:
            show(console, Text(fate_of(diagnosis.fate, one)))
    show_command(console, "What next?", found.next_command, found.next_why)


def _show_layers(diagnosis: Diagnosis, console: Console) -> None:
    own = [(Column(name, "own-metric"), ("metrics", name)) for name in diagnosis.metrics]
    columns = (*COLUMNS, *own)  # what was asked for is never left out
    rows = [[_cell(layer, path) for _, path in columns] for layer in rows_of(to_json(diagnosis))]
    model, data = diagnosis.model, diagnosis.data
    title = Text(f"{model.label} on {data.label}", style="bold")
    show_table(console, title, [column for column, _ in columns], rows, LEAST_IMPORTANT)


def _cell(layer: dict[str, Any], path: tuple[str, ...]) -> Text:
    if path[0] not in layer:
        return Text("")
    value: Any = layer
    for key in path:
        value = value[key]
    if path[0] == "layer":
        return Text(str(value))
    contracts = path[0] == "rates" and value is not None and value < 1
    return Text(digits(value), style="green" if contracts else "")
