"""The three forms of `converge --map`'s result: fate.json, figures, a table with sentences."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from ...files import atomic_write, dumps_strict, strict
from ...results.fate import FATES, MapConvergence, MapFates, StdSweep
from ..charts import save
from ..format import digits
from ..json import described
from ..terminal import plain_table, show
from .charts import basin_chart, distances_chart, fates_chart, sweep_chart
from .words import answers, place


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
    out = Path(out)
    charts: dict[str, Any] = {"fates": fates_chart, "curves": distances_chart}
    if any(np.isfinite(one.numbers["basin_reached"]).any() for one in found.maps):
        charts["basin"] = basin_chart
    if found.sweeps:
        charts["std"] = sweep_chart
    figures = {name: save(chart(found), out / name) for name, chart in charts.items()}
    numbers = atomic_write(out / "fate.json", dumps_strict(fates_json(found), indent=1) + "\n")
    return {"numbers": numbers, **figures}


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


_COLUMNS = {
    "steps": "steps",
    "d_M/‖X‖\nat end": "distance",
    "rank\nof JX": "effective_rank",
    "rate near\nconsensus": "consensus_rate",
    "ρ(M)\nthere": "consensus_radius",
    "ρ at\nrest": "radius",
}


def print_fates(found: MapConvergence, console: Console) -> None:
    """Print a table, one row for each map with medians over sentences, then the answers in words."""
    model, data = found.model, found.data
    title = f"{model.label} on {data.sentences:,} sentences of {data.name}: the map “{found.map}”, {found.steps} steps"
    table = plain_table(Text(title, style="bold"))
    table.add_column("map", no_wrap=True)
    shown = [fate for fate in FATES if any(fate in one.fate for one in found.maps)]
    for column in (*shown, *_COLUMNS):
        table.add_column(column, justify="right")
    for one in found.maps:
        counts = [str(one.fate.count(fate)) for fate in shown]
        table.add_row(place(found, one), *counts, *(_median(one.numbers[name]) for name in _COLUMNS.values()))
    show(console, table)
    show(console, Text("Where do the tokens go?", style="bold"))
    for line in answers(found):
        show(console, Text(line))


def _median(numbers: np.ndarray) -> str:
    known = numbers[np.isfinite(numbers)]
    return digits(float(np.median(known))) if known.size else "–"
