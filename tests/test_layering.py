"""Arrows point down only: which module may import which, read off the source without running it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import jaxsmooth

ROOT = Path(jaxsmooth.__file__).parent

# Room (a module, or a package with all its modules) -> the rooms it may import besides itself. A room may only
# name rooms above it in this table, so the table is the layering; a new module needs a row.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "types": set(),
    "diagnosis": set(),
    "verified": {"diagnosis"},
    "compared": {"diagnosis"},
    "tally": {"verified"},
    "theory": set(),
    "bert.families": {"errors"},
    "bert.config": {"errors", "bert.families"},
    "bert": {"errors", "types", "bert.config"},
    "metrics": {"errors", "theory"},
    "interventions": {"errors", "types", "theory", "bert", "bert.config"},
    "mitigations": {"errors", "types", "theory", "bert"},
    "vocabulary": {"errors", "bert.config"},
    "preparation": {"errors", "vocabulary"},
    "rows": {"errors", "types"},
    "text": {"errors", "types", "bert.config", "vocabulary", "preparation", "rows"},
    "assets": {"errors"},
    "formats": {"errors", "bert.config", "vocabulary"},
    "checkpoint_files": {"errors", "formats"},
    "checkpoint_names": {"bert.config"},
    "checkpoint": {
        *("errors", "bert", "bert.config", "assets", "formats", "text"),
        *("checkpoint_files", "checkpoint_names"),
    },
    "checkpoint_head_names": {"errors", "bert", "bert.config"},
    "checkpoint_heads": {
        *("errors", "bert", "bert.config", "bert.families", "text"),
        *("checkpoint_files", "checkpoint_names", "checkpoint", "checkpoint_head_names", "formats"),
    },
    "shards": {"rows"},
    "hidden": {"bert", "bert.config", "metrics"},
    "images": {"errors", "bert", "bert.config", "rows", "text", "shards"},
    "analysis": {
        *("errors", "types", "diagnosis", "theory", "bert", "bert.config"),
        *("metrics", "hidden", "rows", "text", "shards", "images"),
    },
    "reading": {"errors", "rows", "diagnosis", "bert", "text", "images", "analysis"},
    "convergence": {"errors", "types", "diagnosis", "theory", "bert", "text", "reading", "analysis"},
    "decision": {"tally", "theory"},
    "stages": {"theory"},
    "verification": {
        *("types", "verified", "tally", "theory", "bert", "bert.config"),
        *("rows", "text", "reading", "analysis", "decision", "stages"),
    },
    "comparison": {
        *("errors", "types", "diagnosis", "compared", "theory", "bert", "bert.config", "metrics"),
        *("interventions", "mitigations", "hidden", "text", "reading", "analysis"),
    },
    "training": {
        *("errors", "types", "theory", "bert", "bert.config", "metrics", "mitigations", "rows", "text", "assets"),
        *("checkpoint", "checkpoint_heads"),
    },
    "report": {"diagnosis", "verified", "compared"},
    "__init__": {
        *("errors", "types", "diagnosis", "verified", "theory", "bert", "bert.config"),
        *(
            "metrics",
            "text",
            "checkpoint",
            "checkpoint_heads",
            "analysis",
            "verification",
            "interventions",
            "mitigations",
            "comparison",
        ),
        "compared",
    },
    "commands": {"training"},
    "cli": {
        "commands",
        *("errors", "bert", "text", "assets", "checkpoint", "mitigations"),
        *("analysis", "convergence", "verification", "comparison", "training", "report"),
    },
}

# Third-party package -> the rooms that may import it. Those not listed are free to all.
OWNED: dict[str, set[str]] = {
    "matplotlib": {"report"},
    "plotly": {"report"},
    "jinja2": {"report"},
    "markupsafe": {"report"},
    "tyro": {"cli", "commands"},
    "rich": {"assets", "analysis", "training", "report", "cli"},
    "orbax": {"training"},
    "tensorboardX": {"training"},
    "safetensors": {"checkpoint", "checkpoint_files", "formats", "training"},
    "onnx": {"formats"},
    "huggingface_hub": {"checkpoint"},
    "tokenizers": {"vocabulary", "text"},
    "platformdirs": {"assets"},
    "filelock": {"assets"},
    "flint": {"theory"},
    "subprocess": {"assets"},
    "flax": {"types", "bert", "training"},
    "grain": {"training"},
    "pyarrow": {"training"},
    "datasets": {"training"},
    "optax": {"training"},
    "torch": set(),
    "transformers": set(),
    "scipy": set(),
}
ARRAYS = {"jax", "jaxlib", "numpy", "flax"}

# Not loaded by `import jaxsmooth`: each costs start-up time and only some commands need it.
HEAVY = (
    "matplotlib",
    "plotly",
    "jinja2",
    "tyro",
    "torch",
    "transformers",
    "huggingface_hub",
    "onnx",
    "scipy.stats",
    "pandas",
    "flint",
    "grain",
    "pyarrow",
)


def modules() -> list[str]:
    """Every module's dotted path below jaxsmooth; a package goes by its own name."""
    paths = [path.relative_to(ROOT).with_suffix("") for path in sorted(ROOT.rglob("*.py"))]
    return [
        ".".join(path.parent.parts if path.name == "__init__" and path.parent.parts else path.parts) for path in paths
    ]


def room_of(module: str) -> str:
    """The most specific row of the table that covers a module."""
    parts = module.split(".")
    prefixes = [".".join(parts[:k]) for k in range(len(parts), 0, -1)]
    found = next((prefix for prefix in prefixes if prefix in ALLOWED), None)
    assert found is not None, f"jaxsmooth/{module} has no row in the layering table: add one, or move it into a room"
    return found


def source_of(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imports(source: str, module: str, *, is_package: bool) -> Iterator[str]:
    """Absolute dotted names that a source imports, at any depth; `from a import b` gives a.b."""
    package = ["jaxsmooth", *module.split(".")] if module != "__init__" else ["jaxsmooth"]
    package = package if is_package else package[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{stem}.{alias.name}" for alias in node.names)


def rooms_imported(source: str, module: str, *, is_package: bool) -> set[str]:
    """The rooms of jaxsmooth that a source imports, its own left out."""
    inner = {name for name in imports(source, module, is_package=is_package) if name.split(".")[0] == "jaxsmooth"}
    known = set(modules())
    rooms = set()
    for name in inner:
        path = name.removeprefix("jaxsmooth").strip(".")
        while path and path not in known:
            path = path.rpartition(".")[0]
        rooms.add(room_of(path or "__init__"))
    return rooms - {room_of(module)}


def violations(source: str, module: str, *, is_package: bool = False) -> set[str]:
    """What a source imports though the tables forbid it."""
    room = room_of(module)
    outer = {name.split(".")[0] for name in imports(source, module, is_package=is_package)}
    foreign = {name for name in outer if name in OWNED and room not in OWNED[name]}
    return (rooms_imported(source, module, is_package=is_package) - ALLOWED[room]) | foreign


@pytest.mark.parametrize("module", modules())
def test_arrows_point_down(module):
    path = source_of(module)
    assert violations(path.read_text(encoding="utf-8"), module, is_package=path.name == "__init__.py") == set()


def test_the_table_has_an_order_and_no_dead_rows():
    rooms = list(ALLOWED)
    for place, room in enumerate(rooms):
        assert ALLOWED[room] <= set(rooms[:place]), f"{room} may import a room below it"
    assert {room_of(module) for module in modules()} == set(rooms)


def test_theory_and_bert_never_meet():
    assert not ALLOWED["theory"]
    assert not {"theory", "metrics"} & (ALLOWED["bert"] | ALLOWED["bert.config"])


@pytest.mark.parametrize(
    "module",
    [m for m in modules() if room_of(m) in {"report", "assets", "errors", "diagnosis", "verified", "compared"}],
)
def test_rooms_without_jax(module):
    path = source_of(module)
    names = imports(path.read_text(encoding="utf-8"), module, is_package=path.name == "__init__.py")
    assert not {name.split(".")[0] for name in names} & (ARRAYS - {"numpy"})


@pytest.mark.parametrize(
    ("module", "source", "caught"),
    [
        ("theory.bounds", "from ..bert.params import Block", {"bert"}),
        ("theory.bounds", "from .. import bert", {"bert"}),
        ("bert.encoder", "import jaxsmooth.theory.block.ladder as b", {"theory"}),
        ("bert.encoder", "def f():\n    from jaxsmooth import metrics", {"metrics"}),
        ("bert.config", "from ..types import Batch", {"types"}),
        ("metrics", "from .analysis import diagnose", {"analysis"}),
        ("report.page", "from ..analysis import diagnose", {"analysis"}),
        ("analysis", "from .report import write_report", {"report"}),
        ("analysis", "import matplotlib.pyplot as plt", {"matplotlib"}),
        ("checkpoint", "import torch\nfrom transformers import BertModel", {"torch", "transformers"}),
        ("bert.encoder", "import optax", {"optax"}),
        ("text", "from jaxsmooth import load", {"__init__"}),
        ("report.page", "import jinja2\nfrom .numbers import digits\nfrom jaxsmooth.report import page", set()),
    ],
)
def test_the_rules_catch_what_they_should(module, source, caught):
    assert violations(source, module) == caught


def test_a_module_without_a_row_is_refused():
    with pytest.raises(AssertionError, match="no row in the layering table"):
        room_of("surprise.party")


def test_importing_jaxsmooth_is_light():
    code = f"import sys, jaxsmooth; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("[]", "", 0)
