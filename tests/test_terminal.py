"""What reaches a terminal: no control sequence and no markup from a file, and no character that it cannot show."""

import io
import os
import subprocess
import sys

import pytest
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text
from support import ROOT

from jaxsmooth.terminal import PlainConsole, printable, say

ATTACKS = {
    "a colour": ("a\x1b[31mb", "ab"),
    "cursor and erasure": ("a\x1b[2J\x1b[H\x1b[1;1Hb", "ab"),
    "a title, ended by BEL": ("a\x1b]0;mine\x07b", "ab"),
    "a link, ended by ST": ("a\x1b]8;;http://x\x1b\\b\x1b]8;;\x1b\\", "ab"),
    "a title without an end": ("a\x1b]0;mine", "a0;mine"),
    "one character of 8 bits": ("a\x9b31mb\x9d0;x\x9cc", "abc"),
    "a device's control string": ("a\x1bPq#0\x1b\\b", "ab"),
    "reset": ("a\x1bcb", "ab"),
    "nested": ("a\x1b\x1b[31m[31mb", "a[31mb"),
    "bell, backspace, return": ("a\x07\x08\rb", "ab"),
    "an override of direction": ("a\u202eb\u2066c\u200ed", "abcd"),
    "no width": ("a\u200bb\ufeffc\u2060d", "abcd"),
    "line breaks of Unicode": ("a\u2028b\x85c\x0bd", "abcd"),
    "half a surrogate pair": ("a\udc80b", "a\ufffdb"),
    "what stays": ("a\n\tb 👩\u200d💻 می\u200cخواهم √λ", "a\n\tb 👩\u200d💻 می\u200cخواهم √λ"),
}
MARKUP = "[bold]x[/bold] [/] [link=http://x]y :smile:"


def console(encoding: str = "utf-8", **options) -> tuple[PlainConsole, io.BytesIO]:
    written = io.BytesIO()
    return PlainConsole(file=io.TextIOWrapper(written, encoding=encoding), **options), written


def output(made: PlainConsole, written: io.BytesIO) -> str:
    made.file.flush()
    return written.getvalue().decode(made.encoding)


@pytest.mark.compatibility(
    "text", "escape sequences in labels, names and texts (ANSI, OSC)", "left out of what is printed", was=1
)
@pytest.mark.compatibility(
    "text", "overrides of direction, characters without width", "left out of what is printed", was=1
)
@pytest.mark.parametrize(("text", "expected"), ATTACKS.values(), ids=ATTACKS)
def test_control_sequences_are_left_out(text, expected, capsys):
    assert printable(text) == expected
    assert printable(printable(text)) == expected
    say(text)
    say(text, stderr=True)
    assert capsys.readouterr() == (expected + "\n", expected + "\n")


@pytest.mark.compatibility(
    "text", "escape sequences and rich's markup in a table's cells", "shown as they are spelled, or left out", was=2
)
@pytest.mark.parametrize("width", [1, 8, 80])
def test_tables_and_progress_take_no_commands_from_what_they_show(width):
    for show in (_table, _progress):
        made, written = console(width=width, force_terminal=False)
        show(made, "a\x1b[31m\x1b]0;t\x07\u202eb" + MARKUP)
        shown = output(made, written)
        assert not set(shown) & set("\x1b\x07\u202e")
        if width == 80:
            assert MARKUP in shown


def _table(made: PlainConsole, text: str) -> None:
    table = Table(title=Text(text))
    table.add_column(Text(text))
    table.add_row(text)
    made.print(table)
    made.print(text)


def _progress(made: PlainConsole, text: str) -> None:
    with Progress(TextColumn("{task.description}", markup=False), console=made) as bar:
        bar.add_task(text, total=1)


def test_our_own_styles_stay():
    made, written = console(force_terminal=True, color_system="standard", width=40)
    made.print(Text("a\x1b[31mb", style="green"))
    assert output(made, written) == "\x1b[32mab\x1b[0m\n"


@pytest.mark.compatibility(
    "text", "PYTHONIOENCODING=ascii, LC_ALL=C, a narrow terminal", "`?` for what cannot be written, lines of `-`", was=2
)
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_an_encoding_without_our_symbols(encoding):
    made, written = console(encoding, width=60)
    _table(made, "√λ 日本")
    _progress(made, "√λ 日本")
    assert "?? ??" in output(made, written)


def test_a_process_writes_to_an_ascii_pipe_and_its_warnings_are_text(tmp_path):
    """Warnings and tracebacks are Python's own to write; both name files."""
    program = (
        "import sys, warnings, jaxsmooth.cli.main as m\n"
        "from jaxsmooth.__main__ import main\n"
        "def run():\n"
        "    print('√λ')\n"
        "    warnings.warn('a\\x1b[31mb')\n"
        "    raise RuntimeError('c\\x1b]0;t\\x07d')\n"
        "m.main = run\n"
        "main()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, timeout=60)
    assert (done.stdout, done.returncode) == (b"??\n", 1)
    assert b"UserWarning: ab\n" in done.stderr
    assert b"RuntimeError: cd" in done.stderr
    assert b"\x1b" not in done.stderr


def test_the_compilers_own_alarm_does_not_reach_the_terminal():
    """Without the guard XLA says in ten lines that folding a constant took over a second: this one takes about four."""
    program = (
        "import sys\n"
        "from jaxsmooth.terminal import guard_process\n"
        "if 'guarded' in sys.argv: guard_process()\n"
        "import jax\n"
        "import jax.numpy as jnp\n"
        "summed = lambda: jax.lax.reduce_window(jnp.arange(3e4), 0.0, jax.lax.add, (150,), (1,), 'SAME')\n"
        "jax.jit(summed).lower().compile()\n"
    )
    kept = {name: value for name, value in os.environ.items() if name not in ("TF_CPP_MIN_LOG_LEVEL", "XLA_FLAGS")}
    said = {}
    for guarded in ("bare", "guarded"):
        environment = {**kept, "PYTHONPATH": str(ROOT), "JAX_ENABLE_COMPILATION_CACHE": "false"}
        command = [sys.executable, "-c", program, guarded]
        done = subprocess.run(command, env=environment, capture_output=True, timeout=300, check=True)
        said[guarded] = done.stderr
    assert b"slow_operation_alarm" in said["bare"]
    assert said["guarded"] == b""
