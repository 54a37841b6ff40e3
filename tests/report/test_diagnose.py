"""The files of a diagnosis, and what a terminal shows of it."""

import io

import pytest
from rich.console import Console
from support.report import blank, synthetic

from jaxsmooth.report import print_diagnosis, print_paths, write_diagnosis


def test_the_folder_holds_the_report_and_nothing_else(tmp_path):
    out = tmp_path / "new" / "out"
    write_diagnosis(synthetic(1, 1), out)
    paths = write_diagnosis(blank(), out)
    assert paths == {"report": out / "report.html", "numbers": out / "report.json", "figures": out / "figures"}
    names = sorted(str(path.relative_to(out)) for path in out.rglob("*"))
    figures = ("attribution", "baselines", "ladder", "mixing_rate", "norms", "overview", "similarity")
    pictures = [f"figures/{name}.{suffix}" for name in figures for suffix in ("pdf", "png", "svg")]
    assert names == ["figures", *pictures, "report.html", "report.json"]


def test_a_failed_write_leaves_the_old_report(tmp_path, monkeypatch):
    paths = write_diagnosis(synthetic(1, 1), tmp_path)
    before = paths["numbers"].read_bytes()

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="disk full"):
        write_diagnosis(blank(), tmp_path)
    assert paths["numbers"].read_bytes() == before
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def shown(diagnosis, tmp_path, width):
    stream = io.StringIO()
    out = tmp_path / ("long" * 20)
    paths = {"report": out / "report.html", "numbers": out / "report.json", "figures": out / "figures"}
    console = Console(file=stream, width=width)
    print_diagnosis(diagnosis, console)
    print_paths(console, paths)
    return stream.getvalue(), paths


@pytest.mark.parametrize("width", [30, 80, 200])
def test_paths_are_whole_whatever_the_width(tmp_path, width):
    text, paths = shown(synthetic(name="[red]x[/red] [/bold]"), tmp_path, width)
    assert [line.split(maxsplit=1)[1] for line in text.splitlines()[-3:]] == [str(path) for path in paths.values()]
    assert "…" not in text
    assert "0.440" in text


def test_eighty_columns_hold_every_column(tmp_path):
    text, _ = shown(synthetic(), tmp_path, 80)
    assert "120,000" in text
    assert "over-smooths moderately" in text.replace("\n", " ")


def test_every_answer_stands_behind_its_question(tmp_path):
    """No paragraph begins with the answer to a question that is not there."""
    text, _ = shown(synthetic(), tmp_path, 200)
    for question in ("How alike", "Compared with what?", "Where?", "Why?", "Does the theory explain it?", "What next?"):
        assert any(line.startswith(question) for line in text.splitlines()), question
    assert not any(line.startswith(("No.", "Yes.", "In part.", "Hardly.")) for line in text.splitlines())
    assert "has 0.8 or more" in text.replace("\n", " ")  # three digits are for what was measured


def test_undefined_values(tmp_path):
    assert "n/a" in shown(blank(), tmp_path, 80)[0]
