"""verify.json, and what a terminal shows of a verification."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..files import write_aside
from ..results.verification import VERDICTS, Verification
from .terminal import plain_table, print_paths

_STYLES = {"CONFIRMED": "green", "VIOLATED": "bold red", "UNDECIDED": "yellow", "NOT_APPLICABLE": "dim"}


def write_verification(verification: Verification, out: Path) -> Path:
    """Writes verify.json: a list with one object per theorem, layer and head.

    Args:
      verification: what `jaxsmooth.verify` found.
      out: folder to write into, made if missing. The file is written aside and renamed.

    Returns:
      The path.

    Raises:
      OSError: the folder cannot be made or written to.
    """
    rows = [_strict(dataclasses.asdict(check)) for check in verification.checks]
    # One line per check: a model has thousands.
    lines = ",\n".join(json.dumps(row, allow_nan=False, ensure_ascii=False) for row in rows)
    return write_aside(Path(out) / "verify.json", f"[\n{lines}\n]\n")


def print_verification(verification: Verification, path: Path, console: Console) -> None:
    """Prints verdicts and tightness by theorem, the verdict on the whole, and the path of the file.

    Args:
      verification: what `jaxsmooth.verify` found.
      path: what `write_verification` returned.
      console: where to print.
    """
    console.print(_table(verification))
    console.print(Text("yes CONFIRMED, no VIOLATED, open UNDECIDED, n/a NOT_APPLICABLE; rhs/lhs least", style="dim"))
    by_source: dict[str, list[str]] = {}
    for row in verification.theorems:
        by_source.setdefault(row.source, []).append(row.theorem)
    for source, names in by_source.items():
        console.print(Text(f"{source}: {', '.join(names)}", style="dim"))
    totals = {verdict: sum(row.counts[verdict] for row in verification.theorems) for verdict in VERDICTS}
    for check in verification.checks:
        if check.verdict == "VIOLATED":
            head = "" if check.head is None else f", head {check.head}"
            where = f"{check.theorem}, layer {check.layer}{head}, sentence {check.sentence}"
            console.print(Text(f"VIOLATED: {where}: {check.lhs} > {check.rhs}", style=_STYLES["VIOLATED"]))
    decided = ", ".join(f"{name} {count:,}" for name, count in verification.stages.items())
    console.print(Text(", ".join(f"{count:,} {verdict}" for verdict, count in totals.items()), style="bold"))
    console.print(Text(f"decided by: {decided}", style="dim"))
    print_paths(console, {"checks": path})


def _table(verification: Verification) -> Table:
    model, data = verification.model, verification.data
    title = Text(f"{model.name} on {data.sentences:,} sentences of {data.name}", style="bold")
    if model.note:
        title.append(f" ({model.note})")
    table = plain_table(title)
    table.add_column("theorem", no_wrap=True)
    for name in ("yes", "no", "open", "n/a", "rhs/lhs", "median", "max"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in verification.theorems:
        counts = (Text(f"{row.counts[v]:,}", style=_STYLES[v] if row.counts[v] else "") for v in VERDICTS)
        tightness = ("-",) * 3 if row.tightness is None else (f"{value:.3g}" for value in row.tightness)
        table.add_row(row.theorem, *counts, *tightness)
    return table


def _strict(row: dict[str, Any]) -> dict[str, Any]:
    """No NaN and no infinity in JSON."""
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}
