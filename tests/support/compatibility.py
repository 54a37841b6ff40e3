"""docs/compatibility.md, read off the tests: what users bring, what happens, and the test that shows it.

A row is a decorator of a test, its arguments literals:

    @pytest.mark.compatibility("tokenizer", "vocab.txt beside added_tokens.json", "both are read", was=1)

`was` is what happened before that test was written: a key of `SEVERITIES`.
"""

import ast
import collections
import sys
from pathlib import Path
from typing import NamedTuple

from . import ROOT

KINDS = {
    "tokenizer": "Tokenizers: the model's own files decide",
    "rule": "The same rule as the library it stands for",
    "loading": "Loading: read, or refused by the name of what is there",
    "self-check": "The self-check at load",
    "saving": "What is saved is what transformers reads",
    "table": "Tables of examples: nothing is guessed",
    "text": "Text files and the terminal",
    "measure": "Measures at low precision and at the edges",
    "precision": "Full float32 products",
    "size": "Sizes beyond BERT",
    "mesh": "Meshes",
    "long": "Long work",
}
SEVERITIES = {
    1: "silently wrong",
    2: "crash or NaN",
    3: "refused, though valid",
    4: "unclear message",
    0: "right already",
}


class Row(NamedTuple):
    """One row of the page."""

    kind: str
    habit: str
    outcome: str
    was: int
    test: str


def rows() -> list[Row]:
    """The rows of all tests, in the order of the files."""
    found = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            for mark in function.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.compatibility":
                    kind, habit, outcome = (ast.literal_eval(argument) for argument in mark.args)
                    (was,) = (ast.literal_eval(keyword.value) for keyword in mark.keywords if keyword.arg == "was")
                    if kind not in KINDS or was not in SEVERITIES:
                        raise ValueError(f"{path.name}::{function.name}: no such kind or severity: {kind}, {was}")
                    found.append(Row(kind, habit, outcome, was, f"{path.name}::{function.name}"))
    return found


def page() -> str:
    """The whole page, as Markdown."""
    found = rows()
    before = collections.Counter(row.was for row in found)
    parts = [_HEAD.format(total=len(found)), "| severity | before | after |\n|---|---|---|"]
    for was, words in SEVERITIES.items():
        parts.append(f"| {words} | {before[was]} | {0 if was else len(found)} |")
    for kind, title in KINDS.items():
        of_kind = [row for row in found if row.kind == kind]
        if of_kind:
            parts.append(f"\n## {title}\n\n| layout or habit | what happens | before | test |\n|---|---|---|---|")
            parts += [f"| {_cell(r.habit)} | {_cell(r.outcome)} | {SEVERITIES[r.was]} | `{r.test}` |" for r in of_kind]
    return "\n".join(parts) + "\n"


def _cell(text: str) -> str:
    """As it stands, in a table of Markdown: "<mask>" is no tag there, and a bar ends no cell."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("*", "\\*").replace("_", "\\_")


_HEAD = """# What users bring

Files, habits and accidents of ordinary use, what happens, and the test that shows it. This page is written from the
tests by `make compatibility`, which runs them first; "before" is what happened at commit 2f85bd4, tried there or, for
about a third of the rows, read off its code. What transformers, tokenizers and torch make of a file is taken as what it
means; where this library differs, the row says so. Rows of tests marked parity, scale or long are shown by `make
parity`, `make scale` and `make long`. "After" is what the tests assert, so it holds while they pass.

{total} rows, by severity:
"""

if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
