"""Progress: a bar in a terminal or a notebook, lines elsewhere, totals and time left where they can be told."""

import io
import sys
import time

import pytest
from rich.console import Console

from jaxsmooth import progress
from jaxsmooth.progress import ProgressBar


class Terminal(io.StringIO):
    """Standard error that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def fast(monkeypatch):
    """Lines come after a few hundredths of a second."""
    monkeypatch.setattr(progress, "FIRST", 0.03)
    monkeypatch.setattr(progress, "LONGEST", 0.06)


def wait_for(said, count: int) -> list[str]:
    deadline, lines = time.monotonic() + 10, []
    while len(lines) < count and time.monotonic() < deadline:
        time.sleep(0.01)
        lines += said().splitlines()
    return lines


def test_where_there_is_no_terminal_lines_say_it(fast, capsys):
    with ProgressBar("diagnosing", "sentences", total=1024) as bar:
        bar.advance(0)
        bar.compiling(64, 2, 10)
        (line, *_) = wait_for(lambda: capsys.readouterr().err, 1)
        words = "jaxsmooth: compiling for 64 tokens (2 of at most 10), once per machine: 0 of 1,024 sentences; "
        assert line.startswith(words)
        assert line.endswith(" s so far")  # a compile of minutes says that it goes on
        bar.note()
        bar.advance(320)
        lines = wait_for(lambda: capsys.readouterr().err, 2)
        assert lines[-1].startswith("jaxsmooth: diagnosing: 320 of 1,024 sentences, ")
        assert " left; " in lines[-1]
    time.sleep(0.1)
    assert capsys.readouterr().err == ""  # nothing after the end


def test_lines_grow_rare(monkeypatch):
    waits: list[float] = []

    class Clock:
        now = 0.0

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        Clock.now += seconds
        return Clock.now > 10 * 3600

    monkeypatch.setattr(progress.time, "monotonic", lambda: Clock.now)
    monkeypatch.setattr(progress, "say", lambda *_, **__: None)
    bar = ProgressBar("training", "steps", total=5)
    monkeypatch.setattr(bar._over, "wait", wait)
    bar._speak()
    assert len(waits) < 110  # in ten hours
    assert min(waits) == 10
    assert max(waits) == 600


def test_a_short_work_or_a_hidden_one_says_nothing(capsys):
    for shown in (True, False):
        with ProgressBar("reading", "sentences", shown=shown) as bar:
            bar.advance(3)
    assert capsys.readouterr() == ("", "")


def test_words_are_left_behind_where_anything_is_shown(monkeypatch, capsys):
    for shown in (True, False):
        with ProgressBar("reading", "sentences", shown=shown) as bar:
            bar.tell("half [of] it: 0.5")
        assert capsys.readouterr() == ("", "jaxsmooth: half [of] it: 0.5\n" if shown else "")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with ProgressBar("reading", "sentences") as bar:
        bar.tell("half [of] it: 0.5")
    assert "half [of] it: 0.5" in terminal.getvalue()


@pytest.mark.parametrize("total", [8, None])
def test_in_a_terminal_a_bar_with_total_and_time_left(total, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with ProgressBar("reading", "sentences", total=total, stays=True) as bar:
        bar.advance(2)
        bar._progress.refresh()
        time.sleep(0.02)
        bar.advance(2)
        bar.describe("reading on")
        bar._progress.refresh()
    shown = terminal.getvalue()
    assert f"4/{total or '?'}" in shown
    assert "reading on" in shown
    assert (" left" in shown) is (total is not None)


@pytest.mark.parametrize("widgets", [True, False])
def test_in_a_notebook_a_bar_if_it_can_show_one(widgets, fast, monkeypatch, capsys):
    monkeypatch.setattr(progress.PlainConsole, "__init__", lambda self, **_: Console.__init__(self, force_jupyter=True))
    monkeypatch.setattr(progress.importlib.util, "find_spec", lambda name: widgets or None)
    bar = ProgressBar("reading", "sentences", total=8)
    assert bar._progress.disable is not widgets
    assert (bar._speaker is None) is widgets
