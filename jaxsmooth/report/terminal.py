"""What every command's output in a terminal shares: plain tables, and the paths of what was written."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import arguments_checked
from ..terminal import Plain
from .sections.glossary import WHERE, Column, legend


def plain_table() -> Table:
    """A table with a rule under its head and no other lines.

    The box adds a space of its own between columns: two in all, none at the edges, so that 80 hold many columns.
    """
    return Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)


def filled_table(columns: Sequence[Column], rows: Sequence[Sequence[str | Text]]) -> Table:
    """A plain table of these columns, the first of them left-aligned unless its cells are numbers."""
    table = plain_table()
    named = any(not str(row[0]).isdigit() for row in rows if str(row[0]))
    for place, column in enumerate(columns):
        table.add_column(column.heading, justify="left" if named and not place else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return table


def show_table(
    console: Console,
    title: Text,
    columns: Sequence[Column],
    rows: Sequence[Sequence[str | Text]],
    last: Sequence[str] = (),
) -> None:
    """Print a table that fits the console, and under it what its columns mean.

    Args:
      console: where to print.
      title: over the table.
      columns: its columns.
      rows: its cells, text as it is.
      last: headings of the columns that are left out where there is no room, the least important first.
    """
    kept = list(range(len(columns)))
    for heading in (None, *last):
        kept = [place for place in kept if columns[place].heading != heading]
        table = filled_table([columns[k] for k in kept], [[row[k] for k in kept] for row in rows])
        if console.measure(table, options=console.options.update(width=10_000)).maximum <= console.width:
            break
    show(console, title)  # not the table's: there it would be as narrow as the columns
    show(console, table)
    show(console, Text(f"{legend(columns[k] for k in kept)}\n{WHERE}", style="dim"))


def show(console: Console, found: Table | Text) -> None:
    """Prints what may hold names and words from files: as text, whatever is in it, on any console."""
    console.print(Plain(found))


def show_answer(console: Console, question: str, answer: str) -> None:
    """Prints a question, bold, and its answer behind it."""
    show(console, Text.assemble((question, "bold"), " ", answer))


def show_command(console: Console, question: str, command: str, why: str) -> None:
    """Prints a command on a line of its own, never wrapped, so that it can be copied, and behind it what it is for."""
    show_answer(console, question, f"{why[:1].upper()}{why[1:]}:")
    console.print(Plain(Text(f"  {command}")), soft_wrap=True)


@arguments_checked
def print_paths(console: Console, paths: Mapping[str, Path]) -> None:
    """Prints where the files are, never wrapped or cut, so that a path can be copied and parsed."""
    width = max([7, *map(len, paths)]) + 1
    for label, path in paths.items():
        console.print(Plain(Text.assemble(f"{label:{width}}", (str(path), "bold"))), soft_wrap=True)
