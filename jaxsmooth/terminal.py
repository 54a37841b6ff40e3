"""The one way to a terminal: text as text, whatever a file wrote into it, and in the terminal's own encoding.

Tokens, labels, names of files and models come from others. Written out as they are, an escape sequence among them
could move the cursor, rename the window or hide a line, a bidirectional override turn one round, rich's markup restyle
it.
"""

import errno
import io
import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

_SEQUENCES = re.compile(
    "\x1b\\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    "|\x9b[0-?]*[ -/]*[@-~]"  # the same in one character
    "|(?:\x1b[]PX^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\\\|\x9c)"  # OSC, DCS, ...: titles, links
    "|\x1b[ -/]*[0-~]"  # the short ones
)
# What is left of controls, other line breaks, and what turns text round or takes no room. The joiners stay, which
# emoji and Persian need.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
_SURROGATES = re.compile("[\ud800-\udfff]")


def printable(text: str, encoding: str = "utf-8") -> str:
    r"""Text without control sequences, as an encoding can write it.

    Args:
      text: any.
      encoding: the stream's; what it lacks becomes "?".

    Returns:
      The text; line feeds and tabs stay.

    >>> printable("a\x1b[2Jb\x1b]0;title\x07c\u202ed"), printable("√λ = 1", "ascii")
    ('abcd', '?? = 1')
    """
    clean = _SURROGATES.sub("\ufffd", _CONTROLS.sub("", _SEQUENCES.sub("", text)))
    return clean.encode(encoding, "replace").decode(encoding)


class Plain:
    """Something for rich to render, whose text any console writes as `printable` gives it."""

    def __init__(self, renderable: RenderableType) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        return _plain(console.render(self._renderable, options), console)


class PlainConsole(Console):
    """rich's console, which writes all text as `printable` gives it and takes no markup from it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, **options})

    @property
    def encoding(self) -> str:
        """The stream's; rich's own asks a stream it was given, and takes standard output for UTF-8 unasked."""
        return _encoding(self.file)

    def on_broken_pipe(self) -> None:
        """Nobody reads on; rich itself would end the process here."""
        raise BrokenPipeError(errno.EPIPE, "nobody reads what is written")

    def render_str(self, text: str, **options: Any) -> Text:
        """As in the base class; cleaned first, while a sequence is still in one piece."""
        return super().render_str(printable(text, self.encoding), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As in the base class; all that is written passes here, cells of tables too."""
        return _plain(super().render(renderable, options), self)


def say(text: object, *, stderr: bool = False) -> None:
    """`print`, of `printable` text.

    Args:
      text: what to write.
      stderr: where to.

    >>> say("a\\x1b[31mb")
    ab
    """
    stream = sys.stderr if stderr else sys.stdout
    print(printable(str(text), _encoding(stream)), file=stream)


def _plain(segments: Iterable[Segment], console: Console) -> Iterator[Segment]:
    encoding = _encoding(console.file)
    for segment in segments:
        yield segment if segment.control else Segment(printable(segment.text, encoding), segment.style)


def _encoding(stream: IO[str]) -> str:
    return (getattr(stream, "encoding", None) or "utf-8").lower()


def guard_process() -> None:
    """For the rest of the process: warnings and tracebacks pass through `say`, and no output fails for its encoding.

    To be called before jax is imported. XLA's own log is left out: its "Very slow compile? If you want to file a bug"
    is for those who build compilers, the progress says what is compiled, and what fails is raised. Who wants it sets
    TF_CPP_MIN_LOG_LEVEL.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    def show(
        message: Any, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
    ) -> None:
        say(warnings.formatwarning(message, category, filename, lineno, line).rstrip("\n"), stderr=True)

    warnings.showwarning = show
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    sys.excepthook = lambda *error: say("".join(traceback.format_exception(*error)).rstrip("\n"), stderr=True)
