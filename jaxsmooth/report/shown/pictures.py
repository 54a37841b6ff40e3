"""The three files of a chart, drawn here or, meanwhile, by a process of its own.

vl-convert keeps Python's lock while it draws, so a thread would not draw meanwhile.
"""

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import vl_convert

from ...errors import arguments_checked
from ...files import atomic_write, dumps_strict
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

    def draw(self, specification: dict[str, Any], stem: Path) -> None:
        """Have `write_pictures` called, by and by."""
        self._charts.append((specification, stem))
        file = atomic_write(self._folder / f"{len(self._charts)}.json", dumps_strict(specification))
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `finish` sees that the process has ended
            print(json.dumps([str(file), str(stem.absolute())]), file=self._process.stdin, flush=True)

    def finish(self) -> None:
        """Wait until all is drawn.

        Raises:
          OSError: a folder cannot be made or written to. Where the process failed all is drawn again, here.
        """
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()
        if self._process.returncode:
            for specification, stem in self._charts:
                write_pictures(specification, stem)


@arguments_checked
@contextlib.contextmanager
def illustrator() -> Iterator[Illustrator | None]:
    """A process that draws while this one goes on, started at once: its first picture would take a second more.

    It is for `write_diagnosis` and `write_figures`. None where no process can be started, which they take as well.

    >>> chart = {"mark": "point", "data": {"values": [{"a": 1}]}, "encoding": {"x": {"field": "a"}}}
    >>> with tempfile.TemporaryDirectory() as folder, illustrator() as meanwhile:
    ...     meanwhile.draw(chart, Path(folder) / "one")
    ...     meanwhile.finish()
    ...     sorted(path.name for path in Path(folder).iterdir())
    ['one.pdf', 'one.png', 'one.svg']
    """
    # -P: a file of the folder that the user stands in must not be taken for a library.
    words, quiet = [sys.executable or "", "-P", "-m", __name__], subprocess.DEVNULL
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, text=True, encoding="utf-8"
            )
        except OSError:
            yield None
            return
        try:
            yield Illustrator(process, Path(folder))
        finally:
            process.kill()  # where `finish` was not called, nobody wants the pictures
            with contextlib.suppress(BrokenPipeError):
                process.communicate()


def _draw_what_comes() -> None:
    """The other process: draws until nothing more can come, as when the first one has died."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the first process, which ends this one
    vl_convert.vegalite_to_svg({"mark": "point", "data": {"values": [{}]}})  # the second drawing is quick
    for line in sys.stdin:
        file, stem = json.loads(line)
        write_pictures(json.loads(Path(file).read_text(encoding="utf-8")), Path(stem))


if __name__ == "__main__":
    _draw_what_comes()
