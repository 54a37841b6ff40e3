"""The forms of `verify`'s result: a page, verify.json and hypotheses.json, a figure; the answer in words and tables."""

import base64
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import vl_convert
from markupsafe import Markup
from rich.console import Console
from rich.text import Text

from ..errors import arguments_checked
from ..files import atomic_write, dumps_strict, strict
from ..results.verification import TRUTHS, VERDICTS, Verification
from .charts import SCALE, save, specification
from .format import digits
from .json import described, folder_for
from .sections import shell
from .sections.glossary import GLOSSARY, Column, legend
from .sections.verdict import QUESTION, layers_words, verdict_parts, verdict_words, verification_figure
from .sections.words import VERIFY
from .terminal import show, show_answer, show_table

_STYLES = {"CONFIRMED": "green", "VIOLATED": "bold red", "UNDECIDED": "yellow", "NOT_APPLICABLE": "dim"}
_TRUTH_STYLES = {"HOLDS": "green", "FAILS": "cyan", "UNDECIDED": "yellow", "NOT_APPLICABLE": "dim"}

PROVED = (
    "The library's theorems are proved, so no model can make one false: CONFIRMED says that this implementation and its"
    " arithmetic agree with the theorem, VIOLATED that one of them is wrong. It says nothing about the model."
)
OWN = (
    "A theorem of your own is evaluated, not proved: CONFIRMED says that it held for the numbers of these texts,"
    " VIOLATED that it is false."
)
ASKED = (
    "A theorem promises something only where its hypotheses hold. Whether they do is asked about the model, for each"
    " layer and sentence: proved (holds), disproved (fails), or left open by the arithmetic."
)

NO_NUMBER = "-"
"""Of what has no number; n/a is a verdict here."""

HYPOTHESIS_COLUMNS = (
    Column("hypothesis", "hypothesis"),
    Column("holds", "holds"),
    Column("fails", "fails"),
    Column("open", "open"),
    Column("n/a", "not-applicable"),
    Column("layers", "holding-layers"),
    Column("least", "least"),
    Column("largest", "largest"),
)
THEOREM_COLUMNS = (
    Column("theorem", "theorem"),
    Column("yes", "confirmed"),
    Column("no", "violated"),
    Column("open", "open"),
    Column("n/a", "not-applicable"),
    Column("rhs/lhs", "tightness"),
    Column("median", "tightness"),
    Column("max", "tightness"),
)


@arguments_checked
def write_verification(verification: Verification, out: Path) -> dict[str, Path]:
    """Write verify.html, verify.json, the figure verify.png, .svg and .pdf, and hypotheses.json, each atomically.

    verify.json has the keys `schema`, `model`, `data`, `answer`, `theorems` (one object per theorem), `stages`,
    `versions` and `checks`, a list with one object per theorem, layer and head. hypotheses.json has the keys `schema`,
    `model`, `data`, `hypotheses` (one object per hypothesis), `checks` (one per hypothesis, layer and head) and
    `versions`; it is written where hypotheses were asked for.

    Args:
      verification: what `jaxsmooth.verify` found.
      out: the folder, made if missing.

    Returns:
      "report" and "checks", where there is something to draw "figure", and where hypotheses were asked for "asked" ->
      the paths.

    Raises:
      OSError: the folder cannot be made or written to.
    """
    out = folder_for(verification, Verification, out)
    figure = verification_figure(verification)
    beside = [
        "verify.json",
        *(["verify.svg"] if figure else []),
        *(["hypotheses.json"] if verification.hypotheses else []),
    ]
    paths = {
        "report": atomic_write(out / "verify.html", verification_page(verification, beside=beside)),
        "checks": atomic_write(out / "verify.json", verification_json(verification)),
    }
    if figure is not None:
        paths["figure"] = save(figure, out / "verify")
    if verification.hypotheses:
        found = dumps_strict(hypotheses_json(verification), indent=2)
        paths["asked"] = atomic_write(out / "hypotheses.json", found + "\n")
    return paths


def verification_json(verification: Verification) -> str:
    """The content of verify.json: one line per check, as a model has thousands."""
    head = strict(
        {
            **described(verification),
            "answer": verdict_words(verification),
            "theorems": [dataclasses.asdict(row) for row in verification.theorems],
            "stages": dict(verification.stages),
            "versions": dict(verification.versions),
        }
    )
    lines = ",\n".join(dumps_strict(dataclasses.asdict(check)) for check in verification.checks)
    return f'{dumps_strict(head, indent=2).removesuffix("}").rstrip()},\n  "checks": [\n{lines}\n]\n}}\n'


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


def verification_page(verification: Verification, *, beside: Sequence[str] = ()) -> str:
    """One self-contained HTML document: the answer, the figure, the tables, and what their words mean.

    Args:
      verification: what `jaxsmooth.verify` found.
      beside: files in the page's folder that it links to.
    """
    figure, picture = verification_figure(verification), None
    if figure is not None:
        # As pixels: the letters of a drawing would be those of the reader's fonts, of another width.
        drawn = vl_convert.vegalite_to_png(specification(figure), scale=SCALE)
        picture = "data:image/png;base64," + base64.b64encode(drawn).decode()
    return shell.template("verify.html").render(
        found=verification,
        question=QUESTION,
        answers=verdict_parts(verification),
        said=said(verification),
        asked=ASKED if verification.hypotheses else "",
        picture=picture,
        hypotheses=hypothesis_rows(verification),
        hypothesis_columns=HYPOTHESIS_COLUMNS,
        theorems=theorem_rows(verification),
        theorem_columns=THEOREM_COLUMNS,
        glossary=GLOSSARY,
        defined=VERIFY,
        beside=beside,
        violations=list(violations(verification)),
        css=Markup(shell.asset("page.css")),
        policy=shell.policy(),
    )


@arguments_checked
def print_verification(verification: Verification, console: Console) -> None:
    """Print the answer, then what holds of the model, then verdicts and tightness by theorem, and the whole.

    Args:
      verification: what `jaxsmooth.verify` found.
      console: where to print.
    """
    show_answer(console, QUESTION, verdict_words(verification))
    console.print()
    if verification.hypotheses:
        _print_hypotheses(verification, console)
    if verification.theorems:
        _print_theorems(verification, console)


def said(verification: Verification) -> str:
    """What the verdicts say, of the library's theorems and of the user's own."""
    rows = verification.theorems
    return " ".join(
        words
        for words, wanted in ((PROVED, any(row.proved for row in rows)), (OWN, any(not row.proved for row in rows)))
        if wanted
    )


def _print_hypotheses(verification: Verification, console: Console) -> None:
    """The questions in words, then how often each is answered with yes."""
    show(console, Text(ASKED))
    for row in verification.hypotheses:
        show(console, Text.assemble((row.hypothesis, "bold"), f" ({f'{row.shown} {row.limit}'.strip()}): {row.asks}"))
    console.print()
    show_table(
        console, _title("asked of ", verification), HYPOTHESIS_COLUMNS, hypothesis_rows(verification), ("n/a", "open")
    )
    console.print()


def hypothesis_rows(verification: Verification) -> list[list[Text]]:
    """The cells of the table of hypotheses."""
    rows = []
    for row in verification.hypotheses:
        counts = (Text(f"{row.counts[v]:,}", style=_TRUTH_STYLES[v] if row.counts[v] else "") for v in TRUTHS)
        ends = (Text(NO_NUMBER if end is None else digits(end)) for end in (row.least, row.largest))
        rows.append([Text(row.hypothesis), *counts, Text(layers_words(row, verification.model.layers)), *ends])
    return rows


def _print_theorems(verification: Verification, console: Console) -> None:
    show(console, Text(said(verification)))
    console.print()
    show_table(console, _title("", verification), THEOREM_COLUMNS, theorem_rows(verification), ("max", "median", "n/a"))
    by_source: dict[str, list[str]] = {}
    for row in verification.theorems:
        by_source.setdefault(row.source, []).append(row.theorem)
    show(console, Text("Where each is from:", style="dim"))
    for source, names in by_source.items():
        show(console, Text(f"{source}: {', '.join(names)}", style="dim"))
    totals = {verdict: sum(row.counts[verdict] for row in verification.theorems) for verdict in VERDICTS}
    for line in violations(verification):
        show(console, Text(line, style=_STYLES["VIOLATED"]))
    decided = ", ".join(f"{name} {count:,}" for name, count in verification.stages.items())
    show(console, Text(", ".join(f"{count:,} {verdict}" for verdict, count in totals.items()), style="bold"))
    show(
        console,
        Text(f"decided by: {decided} ({legend([Column('methods', 'stages')]).partition(': ')[2]})", style="dim"),
    )


def violations(verification: Verification) -> list[str]:
    """A line for every check that is violated."""
    found = []
    for check in verification.checks:
        if check.verdict == "VIOLATED":
            head = "" if check.head is None else f", head {check.head}"
            where = f"{check.theorem}, layer {check.layer}{head}, sentence {check.sentence}"
            found.append(f"VIOLATED: {where}: {check.lhs} > {check.rhs}")
    return found


def theorem_rows(verification: Verification) -> list[list[Text]]:
    """The cells of the table of theorems."""
    rows = []
    for row in verification.theorems:
        counts = (Text(f"{row.counts[v]:,}", style=_STYLES[v] if row.counts[v] else "") for v in VERDICTS)
        tightness = (NO_NUMBER,) * 3 if row.tightness is None else (digits(value) for value in row.tightness)
        rows.append([Text(row.theorem), *counts, *map(Text, tightness)])
    return rows


def _title(before: str, verification: Verification) -> Text:
    model, data = verification.model, verification.data
    return Text(f"{before}{model.label} on {data.label}", style="bold")
