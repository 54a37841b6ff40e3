"""The glossary as a page of the documentation.

python -m jaxsmooth.report.sections.glossary_page docs/glossary.md
"""

import sys
import textwrap
from pathlib import Path

from ...files import atomic_write
from .words import BLOCKS, COMPARE, CONVERGE, STATES, VERIFY, Entry

_HEAD = """# Glossary

Every word and every column of the output of `diagnose`, `compare`, `converge` and `verify`: what it means, its unit,
its range, its source. In a terminal `jaxsmooth glossary` prints the words, `jaxsmooth glossary WORD` what one means; a
page links each word to its place in the page's own list. This page is written by
`python -m jaxsmooth.report.sections.glossary_page docs/glossary.md` from the same entries.

"No unit" is a pure number. A sentence is one text, special tokens ([CLS], [SEP]) included. Where a table gives one
number a layer, it is the mean over sentences unless its column says least (min) or largest (max).
"""
_GROUPS = {
    "Hidden states": STATES,
    "Blocks, heads and bounds": BLOCKS,
    "Remedies (`compare`)": COMPARE,
    "Iteration (`converge`)": CONVERGE,
    "Theorems and hypotheses (`verify`)": VERIFY,
}


def markdown() -> str:
    """The content of docs/glossary.md."""
    parts = [_HEAD]
    for title, entries in _GROUPS.items():
        parts += [f"## {title}\n", *map(_paragraph, entries)]
    return "\n".join(parts)


def _paragraph(entry: Entry) -> str:
    about = f"Unit: {entry.unit}. Range: {entry.range}. Source: {entry.source}."
    whole = f'<a id="{entry.name}"></a>**{entry.title}**: {entry.meaning} *{about}*'
    return textwrap.fill(whole, 120, break_long_words=False, break_on_hyphens=False) + "\n"


if __name__ == "__main__":
    atomic_write(Path(sys.argv[1]), markdown())
