"""The documents name files, tests and functions that exist."""

import ast
import re
import sys
import tomllib

import pytest
import yaml
from support import ROOT

from jaxsmooth import report

sys.path.append(str(ROOT / "docs" / "_site"))

from console import run

from executed import as_notebook, blocks
from links import broken

DOCS = ROOT / "docs"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
NAMES = [path.relative_to(ROOT).as_posix() for path in DOCUMENTS]
HOWTO = (
    *("load", "trace", "patch", "sweep-std", "iterate", "own-metric", "remedy", "own-theorem", "own-loop", "own-mesh"),
    *("per-text", "fusion", "figures", "saved-report"),
)
SOURCES = [path.relative_to(ROOT).as_posix() for top in ("jaxsmooth", "tests", "experiments", "benchmarks", "docs")
           for path in sorted((ROOT / top).rglob("*.py"))]  # fmt: skip


def exists(name: str) -> bool:
    return any(f"/{path}".endswith(f"/{name}") for path in SOURCES)


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_files_that_are_named_exist(document):
    text = document.read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w./-])([\w/]+\.py)\b", text))
    # setup.py of packages that assets come from; the file that a reader of the quick start writes
    assert {name for name in named if not exists(name)} <= {"setup.py", "first.py"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_tests_that_are_named_exist(document):
    missing = set()
    for file, name in re.findall(r"(test_\w+\.py)::(test_\w+)", document.read_text(encoding="utf-8")):
        paths = [ROOT / path for path in SOURCES if path.endswith(f"/{file}")]
        if not any(re.search(rf"^def {name}\(", path.read_text(encoding="utf-8"), re.MULTILINE) for path in paths):
            missing.add(f"{file}::{name}")
    assert missing == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_links_lead_somewhere(document):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text(encoding="utf-8"))
    assert {link for link in links if not (document.parent / link).exists()} == set()


@pytest.mark.parametrize("document", ["SECURITY.md", "CONTRIBUTING.md"])
def test_paths_of_tests_that_are_named_exist(document):
    named = set(re.findall(r"`(tests/[\w/.]+)`", (ROOT / document).read_text(encoding="utf-8")))
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_modules_of_the_report_that_examples_name_are_on_its_contents_page():
    """They are imported when they are asked for, and only what the contents page names can be."""
    pages = [path.read_text(encoding="utf-8") for kind in ("md", "ipynb") for path in DOCS.rglob(f"*.{kind}")]
    named = {pair for text in pages for pair in re.findall(r"\breport\.(\w+)\.(\w+)\(", text)}
    assert ("figures", "similarity_figure") in named
    for module, name in named:
        assert module in report.__all__, module
        assert callable(getattr(getattr(report, module), name))


def test_make_targets_that_are_named_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for document in DOCUMENTS:
        named = re.findall(r"`make ([a-z-]+(?: [a-z-]+)*)", document.read_text(encoding="utf-8"))
        assert {target for names in named for target in names.split()} <= targets, document.name


def test_short_experiments_leave_the_committed_results_alone():
    """Every command of `make experiments` says that its results go elsewhere, those with FEW by what that holds."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    few = re.search(r"^FEW := (.*)$", text, re.MULTILINE)[1]
    block = re.search(r"^experiments: install\n((?:\t.*\n)+)", text, re.MULTILINE)[1]
    commands = [line.replace("$(FEW)", few) for line in block.splitlines()]
    assert len(commands) > 20
    assert [line for line in commands if "--out $(SHORT)" not in line] == []


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


def tables_of_contents():
    """Page -> the pages that its toctrees name, all as paths below docs."""
    found = {}
    for path in DOCS.rglob("*.md"):
        named = re.findall(r"^```\{toctree\}\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        lines = [line for block in named for line in block.splitlines() if line and not line.startswith(":")]
        names = [re.sub(r".*<(.*)>", r"\1", line) for line in lines]
        found[path] = [(path.parent / name).resolve().relative_to(DOCS).as_posix() for name in names]
    return found


def test_every_page_is_in_the_navigation_once():
    named = [name for names in tables_of_contents().values() for name in names if "*" not in name]
    assert len(named) == len(set(named))
    pages = {
        path.relative_to(DOCS).with_suffix("").as_posix() for kind in ("*.md", "*.ipynb") for path in DOCS.rglob(kind)
    }
    assert {name for name in named if not name.startswith("api/")} == pages - {"index"}


def test_fourteen_how_to_pages_of_at_most_15_lines():
    listed = tables_of_contents()[DOCS / "howto" / "index.md"]
    assert tuple(name.removeprefix("howto/") for name in listed) == HOWTO
    assert len(HOWTO) == 14
    for name in listed:
        [(code, is_run)] = blocks(DOCS)[name]
        assert is_run, name
        assert sum(bool(line.strip()) for line in code.splitlines()) <= 15, name


def test_every_example_is_run_but_for_two():
    every = [(page, code, is_run) for page, found in blocks(DOCS).items() for code, is_run in found]
    assert len(every) > 40
    assert [page for page, _, is_run in every if not is_run] == ["assets", "training"]
    for page, code, _ in every:
        ast.parse(code, page)


def test_examples_become_cells_and_say_what_a_picture_shows():
    page = '# A\n\n```python alt="It falls."\nx = 1\n```\n\n```console\n$ ls\n```\n\n```yaml\na: 1\n```\n'
    made = as_notebook("howto/a", page)
    assert made.startswith("---\nfile_format: mystnb\n")
    assert made.count("```{code-cell} python") == 2
    assert '"alt": "It falls."' in made
    assert "run('$ ls\\n')" in made
    assert "```yaml" in made
    assert "run(" not in as_notebook("a", page)  # commands of other pages are shown, not run
    text = "<!-- not run: it takes a day -->\n```python\nx = 1\n```\n"
    assert as_notebook("a", text) == text


def test_a_command_that_fails_fails_the_page(capfd):
    run("$ echo one; echo two >&2\n")
    assert capfd.readouterr().out == "one\ntwo\n"
    with pytest.raises(RuntimeError, match="'\\$ exit 3' ended with status 3"):
        run("$ exit 3\n")


def test_broken_links_of_a_site_are_found(tmp_path):
    (tmp_path / "a.html").write_text('<h1 id="here"></h1><a href="b.html#there">b</a><a href="#here">a</a>')
    (tmp_path / "b.html").write_text(
        '<a href="a.html#gone">a</a><img src="no.png"><a href="https://example.org/x">x</a>'
    )
    assert broken(tmp_path) == ["a.html: b.html#there", "b.html: a.html#gone", "b.html: no.png"]


def test_the_extra_of_the_site_is_locked():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["docs"]]
    locked = (ROOT / "requirements-docs.lock").read_text(encoding="utf-8")
    pinned = set(re.findall(r"^([\w.-]+)==", locked, re.MULTILINE))
    names = {re.match(r"[\w.-]+", each)[0].lower().replace("_", "-") for each in wanted}
    assert {name for name in names if name not in pinned} == set()
    assert "--hash=sha256:" in locked
