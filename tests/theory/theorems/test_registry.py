"""The registry of theorems: complete, documented, and of one mind with its documentation."""

from pathlib import Path

import pytest

from jaxsmooth.results.summaries import RATES
from jaxsmooth.theory.certify.table import table
from jaxsmooth.theory.theorems import RUNGS, THEOREMS
from jaxsmooth.theory.theorems.registry import theorem

DOCS = Path(__file__).parents[3] / "docs"


def test_the_table_in_the_documentation_is_up_to_date():
    """If this fails: python -m jaxsmooth.theory.certify.table docs/theorems.md"""
    assert (DOCS / "theorems.md").read_text(encoding="utf-8") == table()


def test_every_rung_of_diagnose_is_a_theorem_of_verify():
    # L5 is of observed arrays (theorem 3 of docs/rates.md) and has no enclosure.
    assert set(RUNGS) == set(RATES) - {"actual", "L5"}
    assert {entry.rung: name.rpartition("_")[2] for name, entry in THEOREMS.items() if entry.rung} == {
        rung: rung for rung in RUNGS
    }


def test_every_theorem_says_what_and_whose():
    for name, entry in THEOREMS.items():
        assert entry.name == name
        assert "<=" in entry.says or entry.rung, name
        assert entry.source


def test_a_name_is_given_once():
    with pytest.raises(ValueError, match="two theorems are called 'cubic_collapse'"):
        theorem("cubic_collapse", "nobody", needs="head")(lambda q: None)
