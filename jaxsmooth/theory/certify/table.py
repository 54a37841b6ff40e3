"""The documentation's table of theorems, read off the registry and the catalogue.

Run `python -m jaxsmooth.theory.certify.table docs/theorems.md` to write it anew; a test compares the two.
"""

import sys
from pathlib import Path

from ..theorems.registry import THEOREMS
from .catalogue import CATALOGUE, WHY

Rows = list[tuple[str, ...]]
ABOUT = {
    "head": "one head",
    "scores": "one head whose scores are by content alone",
    "block": "one post-LN block",
    "norm": "a LayerNorm of a post-LN block",
}
HEAD = """# The theorems

Made by `python -m jaxsmooth.theory.certify.table docs/theorems.md`; do not edit. `jaxsmooth verify` checks those of
the first table on every layer, head and sentence, rounding accounted for ([Certified comparisons](certify.md));
`--theorem NAME`, which may be given several times, picks some. The rungs of `diagnose` are the rates of this table,
by the same text.

A new theorem is one function with a decorator in `jaxsmooth/theory/theorems/`, and a test.
"""
MEASURED = """
## Measured on request

`verify --theorem NAME` evaluates these statements of the literature ([Catalogue](catalogue.md)) in float64, with a
margin of 1e-9 of the larger side in which a verdict is UNDECIDED. They are measured, not certified.
"""
REFUSED = """
## Not evaluated on a model

These need quantities that `verify` does not take from a model on text. `--theorem NAME` says so.
"""


def table() -> str:
    """docs/theorems.md."""
    certified: Rows = [
        (theorem.name, theorem.rung or "", ABOUT[theorem.needs], theorem.says, theorem.source)
        for theorem in THEOREMS.values()
    ]
    measured: Rows = [
        (name, ABOUT[entry.about], entry.says, entry.source) for name, entry in CATALOGUE.items() if entry.about
    ]
    refused: Rows = [
        (name, ", ".join(entry.needs) + (f": {WHY[name]}" if name in WHY else ""), entry.source)
        for name, entry in CATALOGUE.items()
        if not entry.about
    ]
    parts = (
        (HEAD, ("theorem", "rung", "about", "says", "source"), certified),
        (MEASURED, ("statement", "about", "says", "source"), measured),
        (REFUSED, ("statement", "needs", "source"), refused),
    )
    return "".join(f"{text}\n{_rows(columns, rows)}" for text, columns, rows in parts)


def _rows(columns: tuple[str, ...], rows: Rows) -> str:
    lines = [columns, ("---",) * len(columns), *((f"`{name}`", *map(_cell, rest)) for name, *rest in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(table(), encoding="utf-8")
