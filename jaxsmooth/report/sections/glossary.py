"""The glossary: what every word and column of the output means. The terminal, the pages and docs/glossary.md read it.

python -m jaxsmooth.report.sections.glossary docs/glossary.md
"""

from collections.abc import Iterable
from typing import NamedTuple

from .words import ENTRIES, Entry

GLOSSARY = {entry.name: entry for entry in ENTRIES}
"""By name, in the order of the page."""

WHERE = "What a word means: jaxsmooth glossary WORD, or docs/glossary.md."


class Column(NamedTuple):
    """A column of a table.

    Attributes:
      heading: as it stands over the column, with line breaks.
      term: its entry in `GLOSSARY`.
    """

    heading: str
    term: str


def legend(columns: Iterable[Column]) -> str:
    """What the columns mean, a line for each; columns of one entry together.

    >>> legend([Column("rate\\nseen", "observed_rate")])
    'rate seen: factor per step by which the distance to the limit shrank in the end'
    """
    headings: dict[str, list[str]] = {}
    for column in columns:
        headings.setdefault(column.term, []).append(" ".join(column.heading.replace("-\n", "").split()))
    return "\n".join(f"{', '.join(named)}: {GLOSSARY[term].short}" for term, named in headings.items())


def find(word: str) -> list[Entry]:
    """The entries that a word may mean: of that name or title, else those whose name or title has it in them.

    >>> [entry.name for entry in find("ANISOTROPY")], find("nonsense")
    (['anisotropy'], [])
    """
    wanted = word.casefold().strip()
    named = [entry for entry in ENTRIES if wanted in (entry.name, *_titles(entry))]
    return named or [entry for entry in ENTRIES if wanted in " ".join((entry.name, *_titles(entry)))]


def _titles(entry: Entry) -> list[str]:
    return [part.strip() for part in entry.title.casefold().split(",")]


def in_words(entry: Entry) -> str:
    """An entry as plain text."""
    return f"{entry.title}: {entry.meaning} Unit: {entry.unit}. Range: {entry.range}. Source: {entry.source}."
