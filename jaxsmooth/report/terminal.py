"""What every command's output in a terminal shares: plain tables, and the paths of what was written."""

from collections.abc import Mapping
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..terminal import Plain


def plain_table(title: Text) -> Table:
    """A table with a rule under its head and no other lines.

    The box adds a space of its own between columns: two in all, none at the edges, so that 80 hold many columns.
    """
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)


def show(console: Console, found: Table | Text) -> None:
    """Prints what may hold names and words from files: as text, whatever is in it, on any console."""
    console.print(Plain(found))


def print_paths(console: Console, paths: Mapping[str, Path]) -> None:
    """Prints where the files are, never wrapped or cut, so that a path can be copied and parsed."""
    for label, path in paths.items():
        console.print(Plain(Text.assemble(f"{label:8}", (str(path), "bold"))), soft_wrap=True)
