"""One glossary: every column and every tile has its entry, every word leads to it, and the page in docs is its text."""

import dataclasses
import io
import re

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table
from support import ROOT
from support.report import comparison, convergence, synthetic, verification

from jaxsmooth import report
from jaxsmooth.cli.main import main
from jaxsmooth.report import converge, diagnose, page, verify
from jaxsmooth.report.fate import write as fate
from jaxsmooth.report.sections import ranking
from jaxsmooth.report.sections.glossary import GLOSSARY, find, in_words, legend
from jaxsmooth.report.sections.glossary_page import markdown
from jaxsmooth.results.fate import MapConvergence, MapFates
from jaxsmooth.results.verification import TRUTHS, HypothesisSummary

DIAGNOSIS = dataclasses.replace(synthetic(), metrics={"mine": synthetic().cosine_similarity})
MODEL, DATA = DIAGNOSIS.model, DIAGNOSIS.data
NUMBERS = ("steps", "distance", "effective_rank", "consensus_rate", "consensus_radius", "radius", "row_change")
FATES = MapFates(
    1,
    ("consensus", "moving"),
    (((0, 1),), ((0,), (1,))),
    {name: np.array([0.5, 0.1]) for name in (*NUMBERS, "basin_reached", "basin_missed")},
    np.ones((2, 3)),
)
MAPS = MapConvergence(MODEL, DATA, "layer", 9, 1e-5, None, (("a", "b"), ("c", "d")), (FATES,), (), {})
HYPOTHESIS = HypothesisSummary(
    "rooted", "is there a root?", "radius", ">= 0", "me", dict.fromkeys(TRUTHS, 1), 0, 1, (1,)
)
PRINTED = {
    "diagnose": lambda console: report.print_diagnosis(DIAGNOSIS, console),
    "compare": lambda console: report.print_comparison(comparison(MODEL, DATA), console),
    "converge": lambda console: report.print_convergence(convergence(MODEL, DATA), console),
    "fate": lambda console: report.print_fates(MAPS, console),
    "verify": lambda console: report.print_verification(
        dataclasses.replace(verification(MODEL, DATA), hypotheses=(HYPOTHESIS,)), console
    ),
}
COLUMNS = {
    "diagnose": [column for column, _ in diagnose.COLUMNS],
    "compare": ranking.RANKED,
    "converge": converge.COLUMNS,
    "fate": fate.COLUMNS,
    "verify": (*verify.HYPOTHESIS_COLUMNS, *verify.THEOREM_COLUMNS),
    "page": [column for column, _ in page.TABLE],
}


@pytest.mark.parametrize("table", COLUMNS)
def test_every_column_has_its_entry(table):
    assert {column.term for column in COLUMNS[table]} <= GLOSSARY.keys()


@pytest.mark.parametrize("command", PRINTED)
def test_a_terminal_shows_no_other_columns_and_says_what_they_mean(command, monkeypatch):
    shown, add = [], Table.add_column

    def watched(self, heading, **rest):
        shown.append(heading)
        add(self, heading, **rest)

    monkeypatch.setattr(Table, "add_column", watched)
    out = io.StringIO()
    PRINTED[command](Console(file=out, width=200))
    known = {column.heading: column for column in COLUMNS[command]}
    assert shown
    assert set(shown) - {"mine"} <= known.keys()
    said = " ".join(out.getvalue().split())
    for heading in set(shown) - {"mine"}:
        assert legend([known[heading]]).partition(": ")[2] in said, heading


def test_every_tile_has_its_entry():
    tiles = page.tiles(report.headline(DIAGNOSIS))
    assert len(tiles) == 8
    assert {tile.term for tile in tiles} <= GLOSSARY.keys()


@pytest.mark.parametrize(
    "render",
    [lambda: report.render_page(DIAGNOSIS), lambda: verify.verification_page(verification(MODEL, DATA))],
    ids=["diagnose", "verify"],
)
def test_every_link_of_a_page_leads_to_its_word(render):
    document = render()
    links = set(re.findall(r'href="#([^"]+)"', document))
    assert len(links) >= 5
    assert links <= set(re.findall(r'id="(term-[^"]+)"', document))


def test_the_page_in_docs_is_the_glossary():
    written = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    assert written == markdown(), "python -m jaxsmooth.report.sections.glossary_page docs/glossary.md"


def test_entries_are_whole_and_their_sources_exist():
    titles = [
        part for entry in GLOSSARY.values() for part in {one.strip().casefold() for one in entry.title.split(",")}
    ]
    twice = {title for title in titles if titles.count(title) > 1}
    assert twice <= {"consensus", "steps"}  # a state and a fate; found both
    for entry in GLOSSARY.values():
        assert all(entry), entry.name
        assert entry.meaning.endswith("."), entry.name
        for document in re.findall(r"docs/[\w-]+\.md", entry.source):
            assert (ROOT / document).exists(), document


def test_words_are_found_as_they_stand_in_the_output(capfd):
    for word in ("d_M", "√λ", "anisotropy", "sigma1*sigma2", "rung", "spread", "rate", "τ", "L2b"):
        assert find(word), word
    assert [entry.name for entry in find("rate")] == ["rate"]
    assert main(["glossary", "threshold"]) == 0
    assert capfd.readouterr().out.replace("\n", " ").split() == in_words(GLOSSARY["threshold"]).split()
    assert main(["glossary"]) == 0
    assert "Anisotropy" in capfd.readouterr().out
    assert main(["glossary", "treshold"]) == 1
    assert "Did you mean 'Threshold'" in capfd.readouterr().err
