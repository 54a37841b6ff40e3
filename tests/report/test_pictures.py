"""Pictures that another process draws: the same files, whatever becomes of that process, and nothing left behind."""

import contextlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.report import synthetic

from jaxsmooth.report import illustrator, write_diagnosis
from jaxsmooth.report.shown.pictures import write_pictures

CHART = {
    "mark": "point",
    "data": {"values": [{"a": 1, "b": 2}]},
    "encoding": {"x": {"field": "a"}, "y": {"field": "b"}},
}
FILES = ["one.pdf", "one.png", "one.svg"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_report_is_the_same_whoever_draws_it(tmp_path):
    """Every file of the report, times and running numbers in PDF and SVG aside."""
    write_diagnosis(synthetic(3, 2), tmp_path / "here")
    with illustrator() as meanwhile:
        written = write_diagnosis(synthetic(3, 2), tmp_path / "there", meanwhile=meanwhile)
        assert meanwhile._process.wait() == 0  # the other process drew them
    assert written["figures"] == tmp_path / "there/figures"
    here = {path.relative_to(tmp_path / "here"): path for path in (tmp_path / "here").rglob("*.*")}
    there = {path.relative_to(tmp_path / "there"): path for path in (tmp_path / "there").rglob("*.*")}
    assert here.keys() == there.keys()
    assert len(here) >= 2 + 3 * 7
    for name, path in here.items():
        if name.suffix not in (".pdf", ".svg"):  # an SVG numbers its parts on from the drawing before
            assert path.read_bytes() == there[name].read_bytes(), name


@pytest.mark.parametrize("when", ["before", "between"])
def test_a_process_that_dies_costs_no_picture(tmp_path, when):
    with illustrator() as meanwhile:
        if when == "before":
            meanwhile._process.kill()
            meanwhile._process.wait()
        meanwhile.draw(CHART, tmp_path / "one")
        meanwhile._process.kill()
        meanwhile.draw(CHART, tmp_path / "two")
        meanwhile.finish()
    assert names(tmp_path) == [*FILES, *(name.replace("one", "two") for name in FILES)]


def test_what_is_in_the_way_is_raised_here(tmp_path):
    """A folder that cannot be made: the other process's fault is this one's error."""
    (tmp_path / "taken").write_text("a file")
    with illustrator() as meanwhile:
        meanwhile.draw(CHART, tmp_path / "taken" / "one")
        with pytest.raises(OSError, match="taken"):
            meanwhile.finish()
        assert meanwhile._process.returncode == 1


def test_pictures_that_nobody_wants_are_not_waited_for(tmp_path):
    """Nor is one left half-written, or the process, or its folder."""
    with contextlib.suppress(KeyboardInterrupt), illustrator() as meanwhile:
        folder = meanwhile._folder
        for name in "abcdefgh":
            meanwhile.draw(CHART, tmp_path / name)
        raise KeyboardInterrupt
    assert meanwhile._process.returncode not in (None, 0)
    assert not folder.exists()
    assert not [name for name in names(tmp_path) if name.startswith(".")]


def test_a_folder_of_the_users_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with illustrator() as meanwhile:
        meanwhile.draw(CHART, Path("~/drawn/one"))
    assert names(tmp_path / "drawn") == FILES


def test_no_room_for_a_description(tmp_path):
    with illustrator() as meanwhile:
        shutil.rmtree(meanwhile._folder)
        meanwhile._folder.write_text("a file")
        meanwhile.draw(CHART, tmp_path / "one")
    assert names(tmp_path) == FILES


def test_a_second_report_of_the_same_process(tmp_path):
    with illustrator() as meanwhile:
        for name in ("first", "second"):
            meanwhile.draw(CHART, tmp_path / name / "one")
            meanwhile.finish()
            assert names(tmp_path / name) == FILES


def test_another_copy_of_the_library_draws_nothing(tmp_path):
    words = [sys.executable, "-P", "-m", "jaxsmooth.report.shown.pictures", str(tmp_path / "pictures.py")]
    assert subprocess.run(words, input="", text=True, capture_output=True, timeout=60).returncode == 1


def test_no_process_can_be_started(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", None)
    with illustrator() as meanwhile:
        assert meanwhile is None
        write_diagnosis(synthetic(2, 2), tmp_path, meanwhile=meanwhile)
    assert (tmp_path / "figures/ladder.pdf").exists()


def test_a_file_that_lies_about_is_no_library(tmp_path, monkeypatch):
    """In the folder that the user stands in, by the name of a module that the other process needs."""
    (tmp_path / "vl_convert.py").write_text("raise SystemExit(1)")
    monkeypatch.chdir(tmp_path)
    with illustrator() as meanwhile:
        meanwhile.draw(CHART, Path("drawn/one"))
        meanwhile.finish()
        assert meanwhile._process.returncode == 0
    assert names(tmp_path / "drawn") == FILES


def test_it_ends_when_the_first_process_is_killed(tmp_path):
    code = """
import sys, time
from jaxsmooth.report import illustrator
with illustrator() as meanwhile:
    print(meanwhile._process.pid, flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        second = int(first.stdout.readline())
        first.kill()
    until = time.monotonic() + 60
    while Path(f"/proc/{second}/stat").exists() and " Z " not in Path(f"/proc/{second}/stat").read_text():
        assert time.monotonic() < until, "it is still there"
        time.sleep(0.05)


def test_here_as_there(tmp_path):
    assert write_pictures(CHART, tmp_path / "one") == tmp_path / "one.png"
    assert names(tmp_path) == FILES
