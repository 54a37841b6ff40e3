"""The four commands' output in terminals that are narrow, know ASCII alone, and with names that are attacks."""

import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console
from support.report import comparison, convergence, synthetic, verification

from jaxsmooth.report import print_comparison, print_convergence, print_diagnosis, print_paths, print_verification
from jaxsmooth.results.summaries import DataSummary
from jaxsmooth.terminal import PlainConsole

LAYERS, HEADS = 2, 3
NAME = "mine\x1b[2J[/][bold]√\x1b]8;;http://x\x07\u202e"
DIAGNOSIS = synthetic(LAYERS, HEADS, name=NAME)
MODEL = dataclasses.replace(DIAGNOSIS.model, note=NAME)
DATA = DataSummary(NAME, 4, 40, 0)


PRINTED = {
    "diagnose": lambda console: print_diagnosis(dataclasses.replace(DIAGNOSIS, model=MODEL, data=DATA), console),
    "verify": lambda console: print_verification(verification(MODEL, DATA), console),
    "converge": lambda console: print_convergence(convergence(MODEL, DATA), console),
    "compare": lambda console: print_comparison(comparison(MODEL, DATA), console),
}


@pytest.mark.compatibility(
    "text", "names of models, texts and files that hold escape sequences or markup", "printed without them", was=1
)
@pytest.mark.compatibility(
    "text", "the commands' tables under PYTHONIOENCODING=ascii, at any width", "`?` for `√`, lines of `-`", was=2
)
@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
@pytest.mark.parametrize("width", [1, 20, 80])
@pytest.mark.parametrize("make", [Console, PlainConsole])
@pytest.mark.parametrize("command", PRINTED)
def test_every_command_prints_anywhere(command, make, width, encoding):
    written = io.BytesIO()
    console = make(file=io.TextIOWrapper(written, encoding=encoding), width=width)
    PRINTED[command](console)
    print_paths(console, {"numbers": Path(f"out-{NAME}/a.json")})
    console.file.flush()
    shown = written.getvalue().decode(encoding)
    assert not set(shown) & set("\x1b\x07\u202e")
    assert ("√" in shown) == (encoding == "utf-8")  # in the name; else it is written as "?"
    assert "[/][bold]" in shown.splitlines()[-1]  # the path, which is never cut
