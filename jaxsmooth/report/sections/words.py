"""The entries of the glossary, as report/glossary.toml has them."""

import tomllib
from importlib.resources import files
from typing import NamedTuple


class Entry(NamedTuple):
    """One word.

    Attributes:
      name: its anchor on a page.
      title: the word, with its symbol and other spellings between commas.
      short: a phrase for the legend under a table.
      meaning: one to three sentences.
      unit: of its values.
      range: of its values.
      source: who defined it, or where it is explained.
    """

    name: str
    title: str
    short: str
    meaning: str
    unit: str
    range: str
    source: str


def _read() -> dict[str, tuple[Entry, ...]]:
    text = files("jaxsmooth.report").joinpath("glossary.toml").read_text(encoding="utf-8")
    return {
        group: tuple(Entry(**{key: " ".join(words.split()) for key, words in entry.items()}) for entry in entries)
        for group, entries in tomllib.loads(text).items()
    }


_GROUPS = _read()
STATES, BLOCKS, COMPARE, CONVERGE, VERIFY = (
    _GROUPS[name] for name in ("states", "blocks", "compare", "converge", "verify")
)
ENTRIES = tuple(entry for group in _GROUPS.values() for entry in group)
