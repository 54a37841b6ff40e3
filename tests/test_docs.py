"""The documents name files, tests and functions that exist."""

import re

import pytest
from support import ROOT

DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
SOURCES = [path.relative_to(ROOT).as_posix() for top in ("jaxsmooth", "tests", "experiments", "benchmarks")
           for path in sorted((ROOT / top).rglob("*.py"))]  # fmt: skip


def exists(name: str) -> bool:
    return any(f"/{path}".endswith(f"/{name}") for path in SOURCES)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_exist(document):
    text = document.read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w./-])([\w/]+\.py)\b", text))
    assert {name for name in named if not exists(name)} <= {"setup.py"}  # of packages that assets come from


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_tests_that_are_named_exist(document):
    missing = set()
    for file, name in re.findall(r"(test_\w+\.py)::(test_\w+)", document.read_text(encoding="utf-8")):
        paths = [ROOT / path for path in SOURCES if path.endswith(f"/{file}")]
        if not any(re.search(rf"^def {name}\(", path.read_text(encoding="utf-8"), re.MULTILINE) for path in paths):
            missing.add(f"{file}::{name}")
    assert missing == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text(encoding="utf-8"))
    assert {link for link in links if not (document.parent / link).exists()} == set()
