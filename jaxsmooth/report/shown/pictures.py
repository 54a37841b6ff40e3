"""The three files of a chart, drawn here or, meanwhile, by a process of its own.

vl-convert keeps Python's lock while it draws, so a thread would not draw meanwhile.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import vl_convert

from ...errors import arguments_checked
from ...files import atomic_write, dumps_strict, spelled_out
from .style import SCALE


def write_pictures(specification: dict[str, Any], stem: Path) -> Path:
    """Draw a Vega-Lite description as `stem`.png, `stem`.svg and `stem`.pdf, each atomically.

    Returns:
      The path of the PNG.

    Raises:
      OSError: the folder cannot be made or written to.
    """
    svg = vl_convert.vegalite_to_svg(specification)
    atomic_write(stem.with_suffix(".svg"), svg)
    atomic_write(stem.with_suffix(".pdf"), vl_convert.svg_to_pdf(svg))
    return atomic_write(stem.with_suffix(".png"), vl_convert.svg_to_png(svg, scale=SCALE))


class Illustrator:
    """What draws meanwhile; `illustrator` makes one."""

    def __init__(self, process: "subprocess.Popen[str]", folder: Path) -> None:
        """`folder` is where descriptions lie until they are drawn: a pipe would be full after the first."""
        self._process, self._folder = process, folder
        self._charts: list[tuple[dict[str, Any], Path]] = []
        self._lost = False

    def draw(self, specification: dict[str, Any], stem: Path) -> None:
        """Have `write_pictures` called, by and by, at the latest by `finish`."""
        stem = Path(spelled_out(stem)).absolute()
        self._charts.append((specification, stem))
        file = self._folder / f"{len(self._charts)}.json"
        with self._losing():
            atomic_write(file, dumps_strict(specification))
            self._say(json.dumps([str(file), str(stem)]))

    def finish(self) -> None:
        """Wait until all is drawn; what comes later is drawn by the next `finish`, here.

        Raises:
          OSError: a folder cannot be made or written to. Where the process failed all is drawn again, here.
        """
        with self._losing():
            self._say("")
        charts, self._charts = self._charts, []
        if self._process.wait() or self._lost:
            for specification, stem in charts:
                write_pictures(specification, stem)

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        print(line, file=self._process.stdin, flush=True)

    @contextlib.contextmanager
    def _losing(self) -> Iterator[None]:
        """No room for a description, or a process that has ended: `finish` draws."""
        try:
            yield
        except OSError:
            self._lost = True

    def end(self) -> None:
        """End the process, which leaves no half-written file."""
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
        with contextlib.suppress(OSError):
            self._process.communicate()


@arguments_checked
@contextlib.contextmanager
def illustrator() -> Iterator[Illustrator | None]:
    """A process that draws while this one goes on, started at once: its first picture would take a second more.

    It is for `write_diagnosis` and `write_figures`. None where no process can be started, which they take as well.

    >>> chart = {"mark": "point", "data": {"values": [{"a": 1}]}, "encoding": {"x": {"field": "a"}}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with illustrator() as meanwhile:
    ...         meanwhile.draw(chart, Path(folder) / "one")
    ...     sorted(path.name for path in Path(folder).iterdir())
    ['one.pdf', 'one.png', 'one.svg']
    """
    with contextlib.ExitStack() as stack:
        meanwhile = _started(stack)
        yield meanwhile
        if meanwhile is not None:  # after an error nobody wants the pictures
            meanwhile.finish()


def _started(stack: contextlib.ExitStack) -> Illustrator | None:
    # -P: a file of the folder that the user stands in must not be taken for a library.
    words, quiet = [sys.executable or "", "-P", "-m", __name__, __file__], subprocess.DEVNULL
    try:
        folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, text=True, encoding="utf-8"
        )
    except OSError:
        return None
    meanwhile = Illustrator(process, Path(folder))
    stack.callback(meanwhile.end)
    return meanwhile


def _draw_what_comes(caller: str) -> None:
    """The other process: draws until it is told that nothing more comes, or the first one has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the first process, which ends this one
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if caller != __file__:
        sys.exit("another copy of the library")
    first = os.getppid()
    vl_convert.vegalite_to_svg({"mark": "point", "data": {"values": [{}]}})  # the second drawing is quick
    for line in sys.stdin:
        if os.getppid() != first:
            sys.exit(1)
        if not line.strip():
            return
        file, stem = json.loads(line)
        write_pictures(json.loads(Path(file).read_text(encoding="utf-8")), Path(stem))


if __name__ == "__main__":
    _draw_what_comes(sys.argv[1])
