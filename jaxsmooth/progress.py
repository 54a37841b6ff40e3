"""How far the work is, on stderr: a bar in a terminal or a notebook, elsewhere a line now and then."""

import importlib.util
import threading
import time
from types import TracebackType

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from .terminal import PlainConsole, say

FIRST, LONGEST = 10.0, 600.0
"""Seconds before the first line, and the most between two; in between a tenth of the time so far."""


class ProgressBar:
    """The work of one loop. Use as a context manager.

    In a terminal, and in a notebook that has ipywidgets, a bar with the time taken and the time left. Anywhere else,
    where a bar would fill a log, one line after ten seconds and then ever more rarely.

    Args:
      doing: what is being done, as "diagnosing".
      unit: of what is counted, as "sentences".
      total: how many there are; None where that is not known.
      done: how many were done before.
      shown: whether anything is shown at all.
      stays: whether the bar is left behind when the work is done.

    >>> with ProgressBar("reading", "sentences", total=4, shown=False) as bar:
    ...     bar.advance(2)
    ...     print(bar.line())
    reading: 2 of 4 sentences
    """

    def __init__(
        self, doing: str, unit: str, *, total: int | None = None, done: int = 0, shown: bool = True, stays: bool = False
    ) -> None:
        console = PlainConsole(stderr=True)
        notebook = console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None
        drawn = shown and (console.is_terminal or notebook)
        columns: list[ProgressColumn] = [
            TextColumn("{task.description}", markup=False),
            BarColumn(20),
            MofNCompleteColumn(),
            TextColumn(unit, markup=False),
            TimeElapsedColumn(),
            _Left(),
        ]
        self._progress = Progress(
            *columns, console=console, disable=not drawn, transient=not stays, speed_estimate_period=300
        )
        self._task = self._progress.add_task(doing, total=total, completed=done)
        self._doing, self._unit, self._note = doing, unit, ""
        self._over = threading.Event()
        self._speaker = threading.Thread(target=self._speak, daemon=True) if shown and not drawn else None

    def __enter__(self) -> "ProgressBar":
        self._progress.start()
        if self._speaker is not None:
            self._speaker.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        if self._speaker is not None and self._speaker.is_alive():
            self._speaker.join()
        self._progress.stop()

    def advance(self, count: int = 1) -> None:
        """Count so many more as done."""
        self._progress.advance(self._task, count)

    def reach(self, done: int) -> None:
        """So many are done in all."""
        self._progress.update(self._task, completed=done)

    def describe(self, doing: str) -> None:
        """Say in other words what is being done."""
        self._doing = doing
        self._progress.update(self._task, description=self._words())

    def note(self, words: str = "") -> None:
        """Say what takes time just now, as compiling; "" once that is over."""
        self._note = words
        self._progress.update(self._task, description=self._words())

    def compiling(self, length: int, number: int, most: int) -> None:
        """Note that a program is compiled for sentences of another length.

        Args:
          length: tokens.
          number: how many lengths there were so far, this one included.
          most: how many there can be.
        """
        self.note(f"compiling for {length} tokens ({number} of at most {most}), once per machine")

    def tell(self, words: str) -> None:
        """Leave a line of words behind, above the bar."""
        if not self._progress.disable:
            self._progress.console.print(words, markup=False, highlight=False)
        elif self._speaker is not None:
            say(f"jaxsmooth: {words}", stderr=True)

    def line(self) -> str:
        """What the bar shows, in words."""
        task = self._progress.tasks[self._task]
        total = "" if task.total is None else f" of {task.total:,.0f}"
        left = f", {_left(task)}" if _left(task) else ""
        return f"{self._words()}: {task.completed:,.0f}{total} {self._unit}{left}"

    def _words(self) -> str:
        return self._note or self._doing

    def _speak(self) -> None:
        begun, wait = time.monotonic(), FIRST
        while not self._over.wait(wait):
            taken = time.monotonic() - begun
            say(f"jaxsmooth: {self.line()}; {duration(taken)} so far", stderr=True)
            wait = min(max(FIRST, taken / 10), LONGEST)


class _Left(ProgressColumn):
    """The time left; nothing where it cannot be told."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        return Text(_left(task), style="progress.remaining")


def _left(task: Task) -> str:
    seconds = task.time_remaining
    return "" if seconds is None or task.finished else f"{duration(seconds)} left"


def duration(seconds: float) -> str:
    """A time in words, to two digits or so.

    Args:
      seconds: how long.

    >>> [duration(seconds) for seconds in (4.2, 100, 4000, 200_000)]
    ['4 s', '2 min', '67 min', '56 h']
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.0f} h"
