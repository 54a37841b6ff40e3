"""verify.json and hypotheses.json, and what a terminal shows of a verification: hypotheses first, then theorems."""

import dataclasses
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..files import atomic_write, dumps_strict, strict
from ..results.verification import TRUTHS, VERDICTS, HypothesisSummary, Verification
from .format import MISSING, digits, layer_list
from .json import described
from .terminal import plain_table, show

_STYLES = {"CONFIRMED": "green", "VIOLATED": "bold red", "UNDECIDED": "yellow", "NOT_APPLICABLE": "dim"}
_TRUTH_STYLES = {"HOLDS": "green", "FAILS": "cyan", "UNDECIDED": "yellow", "NOT_APPLICABLE": "dim"}

PROVED = (
    "The theorems are proved, so no model can make one false: CONFIRMED says that this implementation and its"
    " arithmetic agree with the theorem, VIOLATED that one of them is wrong. It says nothing about the model."
)
ASKED = (
    "A theorem promises something only where its hypotheses hold. Whether they do is asked about the model, for each"
    " layer and sentence: proved (holds), disproved (fails), or left open by the arithmetic."
)


def write_verification(verification: Verification, out: Path) -> dict[str, Path]:
    """Write verify.json, a list with one object per theorem, layer and head, and hypotheses.json, each atomically.

    hypotheses.json has the keys `schema`, `model`, `data`, `hypotheses` (one object per hypothesis), `checks` (one per
    hypothesis, layer and head) and `versions`; it is written where hypotheses were asked for.

    Args:
      verification: what `jaxsmooth.verify` found.
      out: the folder, made if missing.

    Returns:
      "checks" and, where hypotheses were asked for, "asked" -> the paths.

    Raises:
      OSError: the folder cannot be made or written to.
    """
    # One line per check: a model has thousands.
    lines = ",\n".join(dumps_strict(dataclasses.asdict(check)) for check in verification.checks)
    paths = {"checks": atomic_write(Path(out) / "verify.json", f"[\n{lines}\n]\n")}
    if verification.hypotheses:
        found = dumps_strict(hypotheses_json(verification), indent=2)
        paths["asked"] = atomic_write(Path(out) / "hypotheses.json", found + "\n")
    return paths


def hypotheses_json(verification: Verification) -> dict[str, Any]:
    """The content of hypotheses.json."""
    return strict(
        {
            **described(verification),
            "hypotheses": [dataclasses.asdict(row) for row in verification.hypotheses],
            "checks": [dataclasses.asdict(check) for check in verification.hypothesis_checks],
            "versions": dict(verification.versions),
        }
    )


def print_verification(verification: Verification, console: Console) -> None:
    """Print what holds of the model, then verdicts and tightness by theorem, and the whole.

    Args:
      verification: what `jaxsmooth.verify` found.
      console: where to print.
    """
    if verification.hypotheses:
        _print_hypotheses(verification, console)
    if verification.theorems:
        _print_theorems(verification, console)


def _print_hypotheses(verification: Verification, console: Console) -> None:
    """The questions in words, then how often each is answered with yes."""
    show(console, Text(ASKED))
    for row in verification.hypotheses:
        show(console, Text.assemble((row.hypothesis, "bold"), f" ({f'{row.shown} {row.limit}'.strip()}): {row.asks}"))
    console.print()
    show(console, _hypotheses_table(verification))
    legend = (
        "checks (sentence, layer, head) where it holds, fails, is open, is not asked (n/a); the layers in which it"
        " holds for every sentence; least and largest value of the number in brackets above, rounded outwards"
    )
    show(console, Text(legend, style="dim"))
    console.print()


def _hypotheses_table(verification: Verification) -> Table:
    table = plain_table(_title("asked of ", verification))
    table.add_column("hypothesis", no_wrap=True)
    for name in ("holds", "fails", "open", "n/a", "layers", "least", "largest"):
        table.add_column(name, justify="right", no_wrap=name != "layers")
    for row in verification.hypotheses:
        counts = (Text(f"{row.counts[v]:,}", style=_TRUTH_STYLES[v] if row.counts[v] else "") for v in TRUTHS)
        ends = (MISSING if end is None else digits(end) for end in (row.least, row.largest))
        table.add_row(Text(row.hypothesis), *counts, _layers(row, verification.model.layers), *ends)
    return table


def _layers(row: HypothesisSummary, layers: int) -> str:
    if len(row.holds_in) == layers:
        return "all"
    return layer_list(row.holds_in).removeprefix("layers ").removeprefix("layer ") if row.holds_in else "none"


def _print_theorems(verification: Verification, console: Console) -> None:
    show(console, Text(PROVED))
    console.print()
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


def _table(verification: Verification) -> Table:
    table = plain_table(_title("", verification))
    table.add_column("theorem", no_wrap=True)
    for name in ("yes", "no", "open", "n/a", "rhs/lhs", "median", "max"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in verification.theorems:
        counts = (Text(f"{row.counts[v]:,}", style=_STYLES[v] if row.counts[v] else "") for v in VERDICTS)
        tightness = ("-",) * 3 if row.tightness is None else (f"{value:.3g}" for value in row.tightness)
        table.add_row(Text(row.theorem), *counts, *tightness)
    return table


def _title(before: str, verification: Verification) -> Text:
    model, data = verification.model, verification.data
    return Text(f"{before}{model.label} on {data.sentences:,} sentences of {data.name}", style="bold")
