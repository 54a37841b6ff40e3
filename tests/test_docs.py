"""The documents name files, tests and functions that exist."""

import re
import tomllib

import pytest
import yaml
from support import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
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


@pytest.mark.parametrize("document", ["SECURITY.md", "CONTRIBUTING.md"])
def test_paths_of_tests_that_are_named_exist(document):
    named = set(re.findall(r"`(tests/[\w/.]+)`", (ROOT / document).read_text(encoding="utf-8")))
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_make_targets_that_are_named_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for document in DOCUMENTS:
        named = re.findall(r"`make ([a-z-]+(?: [a-z-]+)*)", document.read_text(encoding="utf-8"))
        assert {target for names in named for target in names.split()} <= targets, document.name


def test_the_citation_is_of_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_forms_and_hooks_are_yaml():
    files = [ROOT / ".pre-commit-config.yaml", *(ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")]
    assert len(files) == 3
    hooks, *forms = (yaml.safe_load(file.read_text(encoding="utf-8")) for file in files)
    assert [hook["id"] for hook in hooks["repos"][0]["hooks"]] == ["ruff-format", "ruff", "mypy"]
    assert all({"name", "description", "body"} <= set(form) for form in forms)
