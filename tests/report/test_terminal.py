"""The four commands' output in terminals that are narrow, know ASCII alone, and with names that are attacks."""

import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console
from support.report import rates, spread, synthetic

from jaxsmooth.report import print_comparison, print_convergence, print_diagnosis, print_paths, print_verification
from jaxsmooth.results.comparison import COMPARED_RATES, Comparison, Measured
from jaxsmooth.results.convergence import CONVERGENCE, HeadConvergence
from jaxsmooth.results.summaries import DataSummary
from jaxsmooth.results.verification import VERDICTS, Check, TheoremSummary, Verification
from jaxsmooth.terminal import PlainConsole

LAYERS, HEADS = 2, 3
NAME = "mine\x1b[2J[/][bold]√\x1b]8;;http://x\x07\u202e"
DIAGNOSIS = synthetic(LAYERS, HEADS, name=NAME)
MODEL = dataclasses.replace(DIAGNOSIS.model, note=NAME)
DATA = DataSummary(NAME, 4, 40, 0)


def measured(label: str) -> Measured:
    states, ladder = spread([0.1] * (LAYERS + 1)), rates(LAYERS)
    fused = {"max": {"cosine_similarity": spread([0.3]), "relative_distance": spread([0.3])}}
    kept = {rate: ladder[rate] for rate in COMPARED_RATES}
    return Measured(label, NAME, NAME, states, states, kept, spread([[0.1] * 4] * LAYERS), fused, spread([0.2]))


def verification() -> Verification:
    counts = dict.fromkeys(VERDICTS, 1)
    check = Check(NAME, 1, 0, 2.0, 1.0, "VIOLATED", 0, counts)
    return Verification(MODEL, DATA, (check,), (TheoremSummary(NAME, NAME, counts, (1.0, 2.0, 3.0)),), {NAME: 1}, {})


def convergence() -> HeadConvergence:
    one = dict.fromkeys(CONVERGENCE, spread([[0.5] * HEADS] * LAYERS))
    return HeadConvergence(MODEL, DATA, 4, 16, 1e-3, dict.fromkeys(("full", "causal", "window"), one), {})


PRINTED = {
    "diagnose": lambda console: print_diagnosis(dataclasses.replace(DIAGNOSIS, model=MODEL, data=DATA), console),
    "verify": lambda console: print_verification(verification(), console),
    "converge": lambda console: print_convergence(convergence(), console),
    "compare": lambda console: print_comparison(
        Comparison(MODEL, DATA, ("attn", "norm", "mlp", "norm"), (measured("none"), measured(NAME)), {}), console
    ),
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
    assert ("?" in shown) == (encoding == "ascii")
    assert "[/][bold]" in shown.splitlines()[-1]  # the path, which is never cut
