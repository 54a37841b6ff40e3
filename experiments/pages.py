"""What pages of docs/ quote of results: the blocks between `<!-- results: NAME -->` and `<!-- end -->`.

    python -m experiments.pages                 # after any experiment whose numbers a page quotes

Time: seconds. Expect: the blocks are written anew from experiments/results, all else stays. A test compares every block
with the results.
"""

import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from jaxsmooth.files import atomic_write

from . import keeping, quoted
from .paper import claims

DOCS = keeping.RESULTS.parents[1] / "docs"
Maker = Callable[[Path], str]
PAGES: dict[str, dict[str, Maker]] = {
    "paper.md": {name: functools.partial(claims.claims_table, chosen) for name, chosen in claims.TABLES.items()},
    "texts.md": {"texts": quoted.texts},
    "sinks.md": {"sinks": quoted.sinks, "sinks-models": quoted.sinks_models, "silent-heads": quoted.silent_heads},
    "hypotheses.md": {
        "hypotheses": quoted.hypotheses,
        "fixed-states": quoted.fixed_states,
        "verdicts": quoted.verdicts,
    },
    "speed.md": {"updates": quoted.updates, "turned": quoted.turned},
    "separation.md": {"separation": quoted.separation},
    "initialisation.md": {"temperature": quoted.temperature},
    "causal.md": {"loops": quoted.loops, "heads": quoted.clusters},
    "looped.md": {"recall": quoted.recall, "recall-models": quoted.recall_models},
    "ranks.md": {"ranks": quoted.ranks},
    "catalogue.md": {"measures": quoted.measures, "recent": quoted.recent},
}
"""Page -> its blocks, each with what makes it of the folder of results."""


def filled(page: str, makers: Mapping[str, Maker], results: Path) -> str:
    """The page with its blocks written anew.

    Raises:
      ValueError: a marker of a block that there is none of, or a block without its marker.
    """
    missing = set(makers) ^ set(re.findall(r"<!-- results: ([\w-]+) -->", page))
    if missing:
        raise ValueError(f"the page must have one marker for each of {', '.join(makers)}; wrong: {sorted(missing)}.")
    for name, make in makers.items():
        start, _, rest = page.partition(f"<!-- results: {name} -->\n")
        after = rest.partition("<!-- end -->")[2]
        page = f"{start}<!-- results: {name} -->\n\n{make(results)}\n\n<!-- end -->{after}"
    return page


if __name__ == "__main__":
    for name, makers in PAGES.items():
        path = DOCS / name
        atomic_write(path, filled(path.read_text(encoding="utf-8"), makers, keeping.RESULTS))
        print(path)
