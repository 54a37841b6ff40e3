"""Writes the three forms of a report into one folder."""

import dataclasses
from pathlib import Path

from ..results.diagnosis import Diagnosis
from .figures import write_figures
from ..files import write_aside
from .page import render_page
from .json import dumps, to_json


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
