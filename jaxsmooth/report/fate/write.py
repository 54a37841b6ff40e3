"""The three forms of `converge --map`'s result: fate.json, figures, a table with sentences."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from ...errors import arguments_checked
from ...files import atomic_write, dumps_strict, strict
from ...results.fate import FATES, MapConvergence, MapFates, StdSweep
from ..charts import save
from ..format import digits
from ..json import described, folder_for
from ..sections.glossary import Column
from ..terminal import show, show_answer, show_table
from .charts import basin_chart, distances_chart, fates_chart, sweep_chart
from .words import answers, place, whole_answer


@arguments_checked
def write_fates(found: MapConvergence, out: Path) -> dict[str, Path]:
    """Write fate.json and the figures fates, curves and, where they were asked for, basin and std, each atomically.

    Args:
      found: what `converge_map` found.
      out: the folder, made if missing.

    Returns:
      "numbers" and the figures' names -> their paths.

    Raises:
      OSError: the folder cannot be made or written to.
    """
    out = folder_for(found, MapConvergence, out)
    charts: dict[str, Any] = {"fates": fates_chart, "curves": distances_chart}
    if any(np.isfinite(one.numbers["basin_reached"]).any() for one in found.maps):
        charts["basin"] = basin_chart
    if found.sweeps:
        charts["std"] = sweep_chart
    figures = {name: save(chart(found), out / name) for name, chart in charts.items()}
    numbers = atomic_write(out / "fate.json", dumps_strict(fates_json(found), indent=1) + "\n")
    return {"numbers": numbers, **figures}


@arguments_checked
def fates_json(found: MapConvergence) -> dict[str, Any]:
    """Turn the result into strict JSON: of every map each sentence's fate, numbers, clusters and distances.

    What has no value is null, as is a `basin_missed` beyond the largest s that was tried. `distances` end with the
    decision. Layers count from 1; the stack is layer 0.
    """
    plain = ("map", "steps", "tolerance", "std", "versions")
    return strict(
        {
            **described(found),
            **{key: getattr(found, key) for key in plain},
            "answer": whole_answer(found),
            "tokens": [list(tokens) for tokens in found.tokens],
            "maps": [_one(one) for one in found.maps],
            "sweeps": [_sweep(sweep) for sweep in found.sweeps],
        }
    )


def _one(one: MapFates) -> dict[str, Any]:
    sentences = [
        {
            "fate": fate,
            **{name: float(numbers[k]) for name, numbers in one.numbers.items()},
            "clusters": [list(group) for group in one.clusters[k]],
            "distances": [float(d) for d in one.distances[k] if np.isfinite(d)],
        }
        for k, fate in enumerate(one.fate)
    ]
    return {"layer": one.layer, "shares": {fate: one.share(fate) for fate in FATES}, "sentences": sentences}


def _sweep(sweep: StdSweep) -> dict[str, Any]:
    points = [
        {"std": float(std), "shares": {fate: row.count(fate) / len(row) for fate in FATES}, "rates": rates.tolist()}
        for std, row, rates in zip(sweep.stds, sweep.fate, sweep.rate, strict=True)
    ]
    thresholds = {"paper_threshold": sweep.paper_threshold, "layer_threshold": sweep.layer_threshold}
    return {"layer": sweep.layer, **thresholds, "points": points}


_NUMBERS = (
    (Column("steps", "fate-steps"), "steps"),
    (Column("d_M/‖X‖\nat end", "end-distance"), "distance"),
    (Column("rank\nof JX", "end-rank"), "effective_rank"),
    (Column("rate near\nconsensus", "consensus-rate"), "consensus_rate"),
    (Column("ρ(M)\nthere", "rho"), "consensus_radius"),
    (Column("ρ at\nrest", "rest-rho"), "radius"),
)
COLUMNS = (Column("map", "map"), *(Column(fate, "fate") for fate in FATES), *(column for column, _ in _NUMBERS))
LEAST_IMPORTANT = ("ρ at\nrest", "rank\nof JX", "rate near\nconsensus", "d_M/‖X‖\nat end", "ρ(M)\nthere")
"""What is left out where there is no room, in this order."""


@arguments_checked
def print_fates(found: MapConvergence, console: Console) -> None:
    """Print the answer in words, a table, one row for each map with medians over sentences, then each map's answer."""
    model, data = found.model, found.data
    title = f"{model.label} on {data.label}: the map “{found.map}”, {found.steps} steps"
    show_answer(console, "Where do the tokens go?", whole_answer(found))
    console.print()
    shown = [fate for fate in FATES if any(fate in one.fate for one in found.maps)]
    columns = [column for column in COLUMNS if column.term != "fate" or column.heading in shown]
    rows = [
        [
            place(found, one),
            *(str(one.fate.count(fate)) for fate in shown),
            *(_median(one.numbers[name]) for _, name in _NUMBERS),
        ]
        for one in found.maps
    ]
    show_table(console, Text(title, style="bold"), columns, rows, LEAST_IMPORTANT)
    console.print()
    for line in answers(found):
        show(console, Text(line))


def _median(numbers: np.ndarray) -> str:
    known = numbers[np.isfinite(numbers)]
    return digits(float(np.median(known))) if known.size else "–"
