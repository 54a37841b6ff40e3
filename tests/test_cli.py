"""The command line: exit statuses, what is printed where, and that nothing half-written stays behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from jaxsmooth import analysis, cli, report
from jaxsmooth.assets import REGISTRY
from jaxsmooth.errors import AssetError

# One bucket of 16 tokens: one program to compile per precision.
LINES = ["Dull.", "", "a film worth", "   ", "so be it", "b"]


@pytest.fixture(autouse=True)
def _untouched_jax():
    """The command sets jax up for its own process; here that must not reach the next test."""
    with jax.enable_x64(True):
        yield
        jax.config.update("jax_enable_x64", True)


@pytest.fixture
def text(tmp_path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return path


def diagnose(text: Path, out: Path, *more: str) -> int:
    return cli.main(["diagnose", "tiny", "--data", str(text), "--out", str(out), "--tokens-per-batch", "64", *more])


def refusal(capfd) -> str:
    """The one line on stderr; nothing else was printed."""
    out, err = capfd.readouterr()
    assert out == ""
    (line,) = err.strip().splitlines()
    assert line.startswith("jaxsmooth: ")
    return line.removeprefix("jaxsmooth: ")


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> dict[str, Path]:
    """The same command in both precisions."""
    folder = tmp_path_factory.mktemp("reports")
    text = folder / "text.txt"
    text.write_text("\n".join(LINES), encoding="utf-8")
    for name in ("float32", "float64"):
        with jax.enable_x64(True):
            assert diagnose(text, folder / name, "--precision", name) == 0
            jax.config.update("jax_enable_x64", True)
    return {name: folder / name for name in ("float32", "float64")}


def test_diagnose_writes_a_whole_report(reports):
    out = reports["float32"]
    assert {"report.html", "report.json", "figures"} == {path.name for path in out.iterdir()}
    figures = list((out / "figures").iterdir())
    assert figures
    assert all(path.suffix == ".png" and path.read_bytes().startswith(b"\x89PNG") for path in figures)
    assert (out / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>")
    content = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert [layer["layer"] for layer in content["layers"]] == [0, 1, 2, 3, 4]
    assert content["data"]["sentences"] == 4  # empty lines are none
    assert content["model"]["name"] == "tiny"
    assert "random weights" in content["model"]["note"]


def numbers(tree, path=()):
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from numbers(value, (*path, key))
    elif isinstance(tree, list):
        for key, value in enumerate(tree):
            yield from numbers(value, (*path, key))
    elif isinstance(tree, float) and path[-1] != "std":
        yield path, tree


def test_float64_differs_from_float32_in_rounding_only(reports):
    single, double = (json.loads((reports[name] / "report.json").read_text()) for name in ("float32", "float64"))
    assert (single["model"]["precision"], double["model"]["precision"]) == ("float32", "float64")
    ours, theirs = dict(numbers(single["layers"])), dict(numbers(double["layers"]))
    assert set(ours) == set(theirs)
    assert len(ours) > 200
    wrong = {path: (ours[path], theirs[path]) for path in ours if abs(ours[path] / theirs[path] - 1) > 1e-3}
    assert not wrong
    assert ours != theirs


def test_the_summary_names_the_report(text, tmp_path, capfd):
    assert diagnose(text, tmp_path / "out") == 0
    out, _ = capfd.readouterr()
    assert str(tmp_path / "out" / "report.html") in out.replace("\n", "")


def test_a_second_run_replaces_the_first(text, tmp_path, reports):
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.json").write_text("old")
    (out / "mine.txt").write_text("mine")
    assert diagnose(text, out, "--limit", "4") == 0
    ours, first = (json.loads((folder / "report.json").read_text()) for folder in (out, reports["float32"]))
    assert ours["layers"] == first["layers"]
    assert (out / "mine.txt").read_text() == "mine"


REFUSED = {
    "no such file": (["diagnose", "tiny", "--data", "no/such/file.txt"], "there is no file no/such/file.txt.*the texts are"),
    "no such model": (["diagnose", "no-such-model", "--data", "tiny"], "'no-such-model' is no directory here"),
    "a text as model": (["diagnose", "movie-reviews", "--data", "tiny"], "text asset, not a model"),
    "a model as text": (["diagnose", "tiny", "--data", "minilm-l6"], "minilm-l6 is a model, not a text"),
    "limit": (["diagnose", "tiny", "--data", "tiny", "--limit", "0"], "limit must be a whole number of at least 1"),
    "batch": (["diagnose", "tiny", "--data", "tiny", "--tokens-per-batch", "0"], "tokens_per_batch must be"),
    "no such asset": (["assets", "path", "nothing"], "there is no asset 'nothing'; the names are minilm-l6"),
    "clear nothing": (["assets", "clear", "nothing"], "there is no asset 'nothing'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_is_one_line_and_status_1(case, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(analysis, "model_norms", lambda model: pytest.fail("refused too late"))
    if case == "batch":
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
    arguments, message = REFUSED[case]
    assert cli.main(arguments) == 1
    pytest.importorskip("re")
    line = refusal(capfd)
    assert __import__("re").search(message, line), line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "holds no text"), (b"\n \n\n", "holds no text"), (b"good\n\xff\xfe\n", "line 2: byte 5 .* not valid UTF-8")],
    ids=["empty", "blank", "latin"],
)
def test_a_file_without_text_is_refused(content, message, text, tmp_path, capfd):
    import re

    text.write_bytes(content)
    assert diagnose(text, tmp_path / "out") == 1
    assert re.search(message, refusal(capfd))
    assert not (tmp_path / "out").exists()
