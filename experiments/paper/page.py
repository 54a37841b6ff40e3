"""The tables of claims in docs/paper.md, from the results that are there; the text around them is written by hand.

    python -m experiments.paper.page            # after any experiment of paper/ or neighbours/

Time: seconds. Expect: the tables between the markers `<!-- claims: NAME -->` and `<!-- end -->` are written anew, all
else stays. A test compares them with the results.
"""

import re
from pathlib import Path

from jaxsmooth.files import atomic_write

from .. import keeping
from .claims import NEIGHBOURS, OBJECTIONS, PAPER, Claim, judged

PAGE = keeping.RESULTS.parents[1] / "docs" / "paper.md"
TABLES = {"paper": PAPER, "objections": OBJECTIONS, "neighbours": NEIGHBOURS}


def claims_table(claims: tuple[Claim, ...], results: Path) -> str:
    """Verdicts first."""
    rows = []
    for claim, verdict in judged(claims, results):
        source = f"`{claim.experiment}`" if claim.experiment else "–"
        rows.append(
            [f"**{verdict.word}**", claim.says, claim.where, claim.number, verdict.measured, claim.rule, source]
        )
    return keeping.table(["verdict", "claim", "where", "paper's number", "measured", "rule", "experiment"], rows)


def filled(page: str, results: Path) -> str:
    """The page with its tables written anew.

    Raises:
      ValueError: a marker of a table that there is none of, or a table without its marker.
    """
    missing = set(TABLES) ^ set(re.findall(r"<!-- claims: (\w+) -->", page))
    if missing:
        raise ValueError(f"the page must have one marker for each of {', '.join(TABLES)}; wrong: {sorted(missing)}.")
    for name, claims in TABLES.items():
        start, _, rest = page.partition(f"<!-- claims: {name} -->\n")
        after = rest.partition("<!-- end -->")[2]
        page = f"{start}<!-- claims: {name} -->\n\n{claims_table(claims, results)}\n\n<!-- end -->{after}"
    return page


if __name__ == "__main__":
    atomic_write(PAGE, filled(PAGE.read_text(encoding="utf-8"), keeping.RESULTS))
    for claims in TABLES.values():
        for claim, verdict in judged(claims, keeping.RESULTS):
            print(f"{verdict.word:18} {claim.says}: {verdict.measured}")
