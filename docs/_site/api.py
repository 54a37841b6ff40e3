"""The reference: a page for every package, an entry for every public name, from the docstrings.

Public is what the contents page of the library and its packages' `__init__.py` export by `from .x import y as y`, and
what a module of `training` or `results` defines under a name without an underscore. Docstrings are written for the eye;
what reStructuredText would take for markup in them is escaped here.
"""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jaxsmooth


class Name(NamedTuple):
    """A public name: where it is found, what it is, and the module that defines it."""

    module: str
    name: str
    value: Any
    origin: str

    @property
    def path(self) -> str:
        return f"{self.module}.{self.name}"


class Page(NamedTuple):
    """A page of the reference: the modules whose names it lists; of `theory`, only those that come from some rooms."""

    file: str
    title: str
    modules: tuple[str, ...]
    text: str
    rooms: tuple[str, ...] = ()


def _below(package: str, *folders: str) -> tuple[str, ...]:
    """The modules of a package and of some folders in it."""
    root = Path(jaxsmooth.__file__).parent.parent
    tops = [root / package.replace(".", "/"), *(root / package.replace(".", "/") / folder for folder in folders)]
    files = [path for top in tops for path in sorted(top.glob("*.py")) if path.name != "__init__.py"]
    return tuple(".".join(path.relative_to(root).with_suffix("").parts) for path in files)


THEORY = {
    "ground": ("The subspace, operators, norms", ("", "linalg", "activations")),
    "block": ("One Transformer block", ("block",)),
    "markov": ("Attention as a stochastic matrix", ("markov",)),
    "rates": ("Rates for whole sets of inputs", ("rates",)),
    "fate": ("Where tokens go", ("fate", "basin")),
    "hypotheses": ("What theorems assume", ("hypotheses", "every_input", "theorems")),
    "literature": ("The literature, one function a statement", ("literature",)),
}

PAGES = (
    Page("jaxsmooth", "jaxsmooth", ("jaxsmooth",), "What `import jaxsmooth` gives."),
    Page("metrics", "jaxsmooth.metrics", ("jaxsmooth.metrics",), "Measures of over-smoothing, real tokens only."),
    *(
        Page(f"theory-{key}", f"jaxsmooth.theory: {title[0].lower()}{title[1:]}", ("jaxsmooth.theory",), "", rooms)
        for key, (title, rooms) in THEORY.items()
    ),
    Page("interventions", "jaxsmooth.interventions", ("jaxsmooth.interventions",), "Replace, scale, patch, attribute."),
    Page(
        "mitigations",
        "jaxsmooth.mitigations",
        ("jaxsmooth.mitigations", "jaxsmooth.mitigations.remedies"),
        "Published remedies: formulas on arrays, and under the same names in `remedies` as edits of a run.",
    ),
    Page(
        "bert",
        "jaxsmooth.bert",
        ("jaxsmooth.bert.fusion", "jaxsmooth.bert.heads", "jaxsmooth.bert.kernels", "jaxsmooth.types"),
        "Fusion of layers (also `jaxsmooth.fusion`), heads, kernels of attention, and the structs that pass between "
        "packages.",
    ),
    Page(
        "results",
        "jaxsmooth.results",
        ("jaxsmooth.results", *_below("jaxsmooth.results")),
        "What the studies return, kept in a file or turned into a table.",
    ),
    Page("report", "jaxsmooth.report", ("jaxsmooth.report",), "Results as pages, JSON, figures and tables."),
    Page(
        "training",
        "jaxsmooth.training",
        _below("jaxsmooth.training", "data", "objectives", "guards"),
        "Fine-tuning: tasks, data, the step, the loop, checkpoints.",
    ),
    Page(
        "files",
        "jaxsmooth.assets, jaxsmooth.errors",
        ("jaxsmooth.assets", "jaxsmooth.errors"),
        "Pinned models and texts; the exceptions.",
    ),
)


def source(module: ModuleType) -> Path:
    path = Path(inspect.getfile(module))
    stub = path.with_suffix(".pyi")  # the contents page of what is imported when it is asked for
    return stub if stub.exists() else path


def public(name: str) -> Iterator[Name]:
    """The public names of a module in the order of its source."""
    module = importlib.import_module(name)
    package = name.split(".") if hasattr(module, "__path__") else name.split(".")[:-1]
    for node in ast.parse(source(module).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            origin = ".".join([*base, *([node.module] if node.module else [])])
            names = [(alias.name, origin) for alias in node.names if alias.asname == alias.name]
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names = [(node.name, name)]
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            names = [(node.targets[0].id, name)]
        else:
            continue
        for each, origin in names:
            value = getattr(module, each, None)
            if not each.startswith("_") and not inspect.ismodule(value):
                yield Name(name, each, value, origin)


def reflected(name: str) -> set[str]:
    """What a reader finds in a module: functions and classes of the library without an underscore that it defines, or
    that it, a package, hands on."""
    module = importlib.import_module(name)
    names = dir(module) if source(module).suffix == ".pyi" else vars(module)
    found = set()
    for each in names:
        value = getattr(module, each)
        home = getattr(value, "__module__", "") or ""
        own = home == name or (hasattr(module, "__path__") and home.startswith("jaxsmooth"))
        if own and not each.startswith("_") and callable(value) and not inspect.ismodule(value):
            found.add(each)
    return found


def room(name: Name) -> str:
    parts = name.origin.split(".")
    if parts[1] != "theory":
        return parts[1]
    return parts[2] if len(parts) > 3 else ""


def listed(page: Page) -> list[Name]:
    names = [name for module in page.modules for name in public(module)]
    rooms = {page.rooms[0]} | set(page.rooms[1:]) if page.rooms else set()
    return [name for name in names if not page.rooms or room(name) in rooms]


def documented(name: Name) -> str:
    """The text below a constant or a type's name in the module that defines it."""
    body = ast.parse(source(importlib.import_module(name.origin)).read_text(encoding="utf-8")).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name.name:
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                return inspect.cleandoc(str(after.value.value))
            return f"``{ast.unparse(node.value)}``" if len(ast.unparse(node.value)) < 200 else ""
    return ""


def entry(name: Name, seen: dict[int, str]) -> list[str]:
    """The reStructuredText of a name; one that stands elsewhere is named there."""
    earlier = seen.get(id(name.value))
    if earlier is not None and (inspect.isclass(name.value) or callable(name.value)):
        return [f".. py:data:: {name.path}", "   :no-typesetting:", "", f"``{name.path}`` is :py:obj:`{earlier}`.", ""]
    seen[id(name.value)] = name.path
    if inspect.isclass(name.value):
        return [f".. autoclass:: {name.path}", "   :members:", "   :show-inheritance:", ""]
    if callable(name.value) and getattr(name.value, "__name__", "") == name.name:
        return [f".. autofunction:: {name.path}", ""]
    lines = list(escaped(documented(name).splitlines()))
    return [f".. py:data:: {name.path}", "", *(f"   {line}" for line in lines), ""]


def write(folder: Path) -> None:
    """Write the pages of the reference, those whose text has changed."""
    folder.mkdir(exist_ok=True)
    seen: dict[int, str] = {}
    for page in PAGES:
        lines = [page.title, "=" * len(page.title), "", *escaped([page.text]), ""]
        module = ""
        for name in listed(page):
            if name.module != module and len(page.modules) > 1:
                module = name.module
                lines += [module, "-" * len(module), ""]
                first = (inspect.getdoc(importlib.import_module(module)) or "").split("\n\n")[0]
                lines += [*escaped(first.splitlines()), ""]
            lines += entry(name, seen)
        path, text = folder / f"{page.file}.rst", "\n".join(lines)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def missing(documented_names: set[str]) -> list[str]:
    """Public names that the reference lacks, found by looking into the modules as they are at run time."""
    modules = {module for page in PAGES for module in page.modules}
    return sorted(
        f"{module}.{name}"
        for module in modules
        for name in reflected(module)
        if f"{module}.{name}" not in documented_names
    )


CODE = re.compile(r"(``.+?``|`[^`]+`)")
BULLET = re.compile(r"\s*[*-] ")
SECTION = re.compile(r"[A-Z]\w+:$")


def escaped(lines: list[str]) -> Iterator[str]:
    """Lines of a docstring, with nothing that reStructuredText would take for markup but code, lists and tables.

    A paragraph that is indented, outside a section such as "Args:", is formulas: its lines stay lines.
    """
    example = literal = formula = section = False
    before = "."
    for line in lines:
        bare, indented = line.strip(), line.startswith(" ")
        section = bool(SECTION.match(line)) or (section and (not bare or indented))
        example = bool(bare) and (example or bare.startswith(">>>"))
        literal = literal and (not bare or indented)
        new = indented and not before and not section and not BULLET.match(line)
        formula = bool(bare) and indented and (formula or new)
        before = bare
        if example or literal or bare.startswith(("====", "----")):
            yield line
            continue
        literal = bare.endswith("::")
        mark = BULLET.match(line)
        head = mark.group() if mark else "  | " if formula else ""
        rest = line[len(head) :] if mark else bare if formula else line
        yield head + "".join(_code(piece) if CODE.fullmatch(piece) else _escaped(piece) for piece in CODE.split(rest))


def _code(piece: str) -> str:
    return f"``{piece.strip('`')}``"


def _escaped(piece: str) -> str:
    piece = piece.replace("\\", "\\\\").replace("*", r"\*").replace("|", r"\|").replace("`", r"\`")
    return re.sub(r"_(?!\w)", r"\\_", piece)


def escape_docstring(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """For autodoc, before napoleon reads the sections."""
    lines[:] = list(escaped(list(lines)))
