"""Arrows point down only: which module may import which, read off the source without running it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import jaxsmooth

ROOT = Path(jaxsmooth.__file__).parent

THEORY_GROUND = ("consensus", "statement", "operators", "mixing")
THEORY = {
    *("theory", *(f"theory.{name}" for name in (*THEORY_GROUND, "blocked_attention"))),
    *(f"theory.{name}" for name in ("theorems", "markov", "block", "certify", "rates", "basin", "literature")),
    *(
        f"theory.{name}"
        for name in ("every_input", "equal_tokens", "fate", "hypotheses", "distribution_free", "power_law")
    ),
}

# Room (a module, or a package with all its modules) -> the rooms it may import besides itself. A room may only
# name rooms above it in this table, so the table is the layering; a new package needs a row.
GROUND = {
    "errors",
    "types",
    "activations",
    "meshes",
    "paths",
    "files",
    "json_reading",
    "terminal",
    "progress",
    "heap",
    "programs",
    "linalg",
}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "types": {"errors"},
    "activations": set(),
    "meshes": set(),
    "paths": {"errors"},
    "files": {"errors", "paths"},
    "json_reading": set(),
    "terminal": set(),
    "progress": {"terminal"},
    "heap": set(),
    "programs": {"files", "heap"},
    "linalg": {"errors", "activations"},
    "results": {"errors", "files"},
    "theory.consensus": {"errors", "meshes", "linalg"},
    "theory.statement": {"linalg"},
    "theory.operators": {"linalg", "theory.consensus"},
    "theory.blocked_attention": {"linalg", "theory.operators"},
    "theory.mixing": {"meshes", "linalg", "theory.consensus", "theory.operators"},
    "theory.theorems": {"errors", "types", "activations", "linalg", "theory.statement"},
    "theory.equal_tokens": {"types", "activations", "linalg", "theory.theorems"},
    "theory.markov": {
        *("errors", "meshes", "linalg"),
        *(f"theory.{name}" for name in ("consensus", "statement", "operators", "mixing")),
    },
    "theory.block": {
        *("types", "activations", "meshes", "linalg"),
        *(f"theory.{name}" for name in (*THEORY_GROUND, "theorems", "markov")),
    },
    "theory.literature": {
        *("errors", "types", "activations", "linalg"),
        *(f"theory.{name}" for name in (*THEORY_GROUND, "markov", "block")),
    },
    "theory.certify": {
        *("types", "activations", "linalg", "theory.consensus", "theory.statement"),
        *(f"theory.{name}" for name in ("theorems", "markov", "block", "literature")),
    },
    "theory.rates": {
        *("errors", "types", "activations", "linalg"),
        *(f"theory.{name}" for name in (*THEORY_GROUND, "theorems", "block", "certify")),
    },
    "theory.every_input": {"errors", "types", "activations", "linalg", "theory.theorems"},
    "theory.basin": {"errors", "types", "linalg", "theory.theorems", "theory.equal_tokens", "theory.certify"},
    "theory.fate": {"errors", "linalg", "theory.consensus"},
    "theory.hypotheses": {
        *("errors", "types", "activations", "linalg"),
        *(f"theory.{name}" for name in (*THEORY_GROUND, "theorems", "equal_tokens", "certify", "rates")),
    },
    "theory.distribution_free": {"errors"},
    "theory.power_law": {"errors"},
    "theory": {
        *("activations", "linalg", "types"),
        *(f"theory.{name}" for name in (*THEORY_GROUND, "blocked_attention", "theorems", "markov", "block")),
        *("theory.certify", "theory.rates", "theory.basin", "theory.every_input", "theory.fate", "theory.literature"),
        *("theory.hypotheses", "theory.distribution_free", "theory.power_law"),
    },
    "bert": {"errors", "types", "activations", "meshes", "linalg"},
    "assets": {"errors", "json_reading", "paths", "files", "terminal"},
    "metrics": {"errors", "meshes", "linalg", *THEORY},
    "inputs": {"errors", "json_reading", "types", "files", "bert"},
    "mitigations": {"errors", "types", "linalg", *THEORY, "bert"},
    "interventions": {"errors", "types", *THEORY, "bert"},
    "report": {"errors", "files", "terminal", "results"},
    "checkpoints": {"errors", "json_reading", "types", "files", "bert", "assets", "inputs"},
    "studies": {
        *(*GROUND, "results", *THEORY, "bert", "metrics"),
        *("inputs", "mitigations", "interventions"),
    },
    "training.data": {"errors", "json_reading", "paths", "files", "types", "inputs", "assets"},
    "training.objectives": {"errors", "types", "bert", "inputs", "training.data"},
    "training": {
        *("paths", "progress"),
        *("errors", "types", "files", "terminal", *THEORY, "bert", "metrics", "mitigations", "inputs", "assets"),
        *("json_reading", "checkpoints", "training.data", "training.objectives"),
    },
    "cli": {
        *("paths", "json_reading", "heap"),
        *("errors", "files", "terminal", "bert", "inputs", "assets", "mitigations", "report", "checkpoints", "studies"),
        *("training", "training.data", "training.objectives"),
    },
    "__main__": {"terminal", "cli"},
    "__init__": set(),
}

# Third-party package -> the rooms that may import it. Those not listed are free to all.
OWNED: dict[str, set[str]] = {
    "altair": {"report"},
    "vl_convert": {"report"},
    "matplotlib": set(),
    "jinja2": {"report"},
    "markupsafe": {"report"},
    "tyro": {"cli"},
    "rich": {"terminal", "progress", "assets", "studies", "training", "report", "cli"},
    "orbax": {"training"},
    "tensorboardX": {"training"},
    "safetensors": {"results", "checkpoints", "training"},
    "onnx": {"checkpoints"},
    "huggingface_hub": {"checkpoints"},
    "tokenizers": {"inputs"},
    "platformdirs": {"assets"},
    "filelock": {"assets", "training"},
    "flint": {"theory"},
    "subprocess": {"assets", "report"},
    "flax": {"types", "bert", "training"},
    "grain": {"training"},
    "pyarrow": {"results", "assets"},
    "datasets": {"training"},
    "optax": {"training"},
    "torch": set(),
    "transformers": set(),
    "scipy": {"checkpoints", "linalg", "training", "theory"},
    "threadpoolctl": {"linalg"},
    "lazy_loader": {"__init__", "report"},
}
ARRAYS = {"jax", "jaxlib", "numpy", "flax"}

# Not loaded by `import jaxsmooth`: each costs start-up time and only some commands need it.
HEAVY = (
    "altair",
    "vl_convert",
    "matplotlib",
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
    foreign = {name for name in outer if name in OWNED and room.split(".")[0] not in OWNED[name]}
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
    assert not any(ALLOWED[room] & {"bert", "inputs", "checkpoints"} for room in THEORY)
    assert not {*THEORY, "metrics"} & ALLOWED["bert"]


@pytest.mark.parametrize(
    "module", [m for m in modules() if room_of(m).split(".")[0] in {"report", "assets", "errors", "results", "files"}]
)
def test_rooms_without_jax(module):
    path = source_of(module)
    names = imports(path.read_text(encoding="utf-8"), module, is_package=path.name == "__init__.py")
    assert not {name.split(".")[0] for name in names} & (ARRAYS - {"numpy"})


@pytest.mark.parametrize(
    ("module", "source", "caught"),
    [
        ("theory.block.ladder", "from ...bert.params import Encoder", {"bert"}),
        ("theory.block.ladder", "from ... import bert", {"bert"}),
        ("theory.block.ladder", "from ..literature.cosine import x", {"theory.literature"}),
        ("theory.markov.limits", "from ..block import lemmas", {"theory.block"}),
        ("linalg.lanczos", "from ..theory.consensus import centre_tokens", {"theory.consensus"}),
        ("training.data.tasks", "from ..objectives import scores", {"training.objectives"}),
        ("training.data.tasks", "from ..config import FinetuneConfig", {"training"}),
        ("bert.encoder", "import jaxsmooth.theory.block.ladder as b", {"theory.block"}),
        ("bert.encoder", "def f():\n    from jaxsmooth import metrics", {"metrics"}),
        ("bert.config", "from ..checkpoints import families", {"checkpoints"}),
        ("metrics", "from .studies.diagnose import diagnose", {"studies"}),
        ("report.page", "from ..studies.diagnose import diagnose", {"studies"}),
        ("studies.diagnose", "from ..report import write_diagnosis", {"report"}),
        ("studies.diagnose", "import matplotlib.pyplot as plt", {"matplotlib"}),
        ("checkpoints.encoder", "import torch\nfrom transformers import BertModel", {"torch", "transformers"}),
        ("bert.encoder", "import optax", {"optax"}),
        ("inputs.tokenizer", "from jaxsmooth import load", {"__init__"}),
        ("report.page", "import jinja2\nfrom .format import digits\nfrom jaxsmooth.report import page", set()),
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
