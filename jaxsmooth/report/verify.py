"""verify.json, and what a terminal shows of a verification."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..files import atomic_write, dumps_strict
from ..results.verification import VERDICTS, Verification
from .terminal import plain_table, print_paths, show

_STYLES = {"CONFIRMED": "green", "VIOLATED": "bold red", "UNDECIDED": "yellow", "NOT_APPLICABLE": "dim"}


def write_verification(verification: Verification, out: Path) -> dict[str, Path]:
    """Write verify.json atomically: a list with one object per theorem, layer and head.

    Args:
      verification: what `jaxsmooth.verify` found.
      out: the folder, made if missing.

    Returns:
      "checks" -> the path.

    Raises:
      OSError: the folder cannot be made or written to.
    """
    # One line per check: a model has thousands.
    lines = ",\n".join(dumps_strict(dataclasses.asdict(check)) for check in verification.checks)
    return {"checks": atomic_write(Path(out) / "verify.json", f"[\n{lines}\n]\n")}


def print_verification(verification: Verification, paths: Mapping[str, Path], console: Console) -> None:
    """Print verdicts and tightness by theorem, the verdict on the whole, and the path of the file.

    Args:
      verification: what `jaxsmooth.verify` found.
      paths: what `write_verification` returned.
      console: where to print.
    """
    show(console, _table(verification))
    show(console, Text("yes CONFIRMED, no VIOLATED, open UNDECIDED, n/a NOT_APPLICABLE; rhs/lhs least", style="dim"))
    by_source: dict[str, list[str]] = {}
    for row in verification.theorems:
        by_source.setdefault(row.source, []).append(row.theorem)
    for source, names in by_source.items():
        show(console, Text(f"{source}: {', '.join(names)}", style="dim"))
    totals = {verdict: sum(row.counts[verdict] for row in verification.theorems) for verdict in VERDICTS}
    for check in verification.checks:
        if check.verdict == "VIOLATED":
            head = "" if check.head is None else f", head {check.head}"
            where = f"{check.theorem}, layer {check.layer}{head}, sentence {check.sentence}"
            show(console, Text(f"VIOLATED: {where}: {check.lhs} > {check.rhs}", style=_STYLES["VIOLATED"]))
    decided = ", ".join(f"{name} {count:,}" for name, count in verification.stages.items())
    show(console, Text(", ".join(f"{count:,} {verdict}" for verdict, count in totals.items()), style="bold"))
    show(console, Text(f"decided by: {decided}", style="dim"))
    print_paths(console, paths)


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
        table.add_row(Text(row.theorem), *counts, *tightness)
    return table
