"""The shape of the house: short functions, small folders, no circle of imports."""

import ast
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

import jaxsmooth

ROOT = Path(jaxsmooth.__file__).parent
FUNCTION_LINES = 40
FOLDER_FILES = 16
FILES = sorted(ROOT.rglob("*.py"))


def code_lines(node: ast.AST, lines: list[str]) -> int:
    """Lines of a function that are neither blank, comment nor docstring, its decorators left out."""
    doc = set()
    for inner in ast.walk(node):
        first = inner.body[0] if isinstance(inner, (ast.FunctionDef, ast.ClassDef)) else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            doc |= set(range(first.lineno, first.end_lineno + 1))
    kept = (k for k in range(node.lineno, node.end_lineno + 1) if k not in doc)
    return sum(bool(line) and not line.startswith("#") for line in (lines[k - 1].strip() for k in kept))


def imported(path: Path, known: set[str]) -> Iterator[str]:
    """The known modules that a file imports when it is loaded, as dotted paths below jaxsmooth."""
    package = list(path.relative_to(ROOT).parts[:-1])
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
            for alias in node.names:
                whole = ".".join([*base, alias.name])
                yield whole if whole in known else ".".join(base)


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def circles(arrows: dict[str, set[str]]) -> list[set[str]]:
    """The sets of modules that import each other in a circle."""
    reach = {name: set(targets) for name, targets in arrows.items()}
    for middle, start in itertools.product(reach, reach):
        if middle in reach[start]:
            reach[start] |= reach[middle]
    return [{name, *(t for t in reach[name] if name in reach.get(t, ()))} for name in reach if name in reach[name]]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_are_short(path):
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines()
    found = {
        node.name: code_lines(node, lines)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    assert {name: count for name, count in found.items() if count > FUNCTION_LINES} == {}


@pytest.mark.parametrize("folder", sorted({path.parent for path in FILES}), ids=lambda path: path.name)
def test_folders_are_small(folder):
    assert len([path for path in folder.glob("*.py") if path.name != "__init__.py"]) <= FOLDER_FILES


def test_no_circle_of_modules():
    known = {module_of(path) for path in FILES}
    arrows = {module_of(path): set(imported(path, known)) - {module_of(path)} for path in FILES}
    assert circles(arrows) == []


def test_a_circle_is_seen():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == 3 * [{"a", "b", "c"}]
