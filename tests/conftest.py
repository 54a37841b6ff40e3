"""Strict numerics for every test: shapes checked against annotations, no silent promotion, float64 allowed."""

import gc
import os
import tempfile
from pathlib import Path

# One cache of compiled programs for the whole run and all its processes, kept between runs on one machine.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / "jaxsmooth-test-xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Between small decompositions its threads spin, on the cores of the other tests (see linalg.eigh.one_lapack_thread).
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Commands that tests start, some fifty, find the package compiled to bytecode.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# What is run once or twice here costs more to compile than to run: XLA's optimisations are off, and its older code
# generator compiles faster. `make long`, where programs run for long, tests what users run.
if os.environ.get("JAXSMOOTH_TEST_PROFILE") != "long":
    os.environ["XLA_FLAGS"] = f"--xla_cpu_use_fusion_emitters=false {os.environ.get('XLA_FLAGS', '')}"
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import jax
import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

# The modules of pytree structs (types, bert.params, training.data.tasks) stay out: tree utilities build those
# structs around non-arrays. So does linalg.intervals, whose many small calls on the host made its checks an eighth of
# the time of 28 test files. Everything else is checked on every call of every test.
LINALG = Path(__file__).parents[1] / "jaxsmooth" / "linalg"
CHECKED = [
    *(f"jaxsmooth.bert.{name}" for name in ("attention", "block", "checks", "encoder", "matmul", "norm")),
    *(f"jaxsmooth.{name}" for name in ("theory", "metrics", "mitigations", "interventions")),
    *(f"jaxsmooth.linalg.{path.stem}" for path in LINALG.glob("[!_]*.py") if path.stem != "intervals"),
    *(f"jaxsmooth.studies.{name}" for name in ("diagnose", "measurements", "hidden_states", "compare")),
    "jaxsmooth.inputs.tokenizer",
    "jaxsmooth.checkpoints.encoder",
    "jaxsmooth.checkpoints.save",
    *(f"jaxsmooth.training.data.{name}" for name in ("records", "task_data", "splits", "batches", "pipeline")),
    *(f"jaxsmooth.training.data.{name}" for name in ("benchmarks", "official_files", "hub", "corpora", "catalogue")),
    *(f"jaxsmooth.training.data.{name}" for name in ("columns", "labels", "user_rows", "user_tables")),
    "jaxsmooth.assets.tables",
    "jaxsmooth.training.objectives",
    *(f"jaxsmooth.training.{name}" for name in ("dropout", "optimiser", "accelerators")),
]
install_import_hook(CHECKED, "beartype.beartype")

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

settings.register_profile(
    "default", deadline=None, max_examples=50, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("long", deadline=None, max_examples=5000, suppress_health_check=list(HealthCheck))
settings.load_profile(os.environ.get("JAXSMOOTH_TEST_PROFILE", "default"))


# Tracing makes millions of small objects that live on; collections as often as by default take a twentieth of the time.
gc.set_threshold(200_000, 50, 100)

TESTS = Path(__file__).parent
SLOWEST = [
    TESTS / f"{name}.py"
    for name in (
        *("studies/test_diagnose", "cli/test_cli", "test_doctests", "report/test_page", "theory/markov/test_iteration"),
        *("studies/test_families_diagnosis", "report/test_page_browser", "theory/basin/test_basin"),
        *("studies/test_verify", "studies/test_compare", "report/test_figures", "studies/test_fate"),
        *("test_extending", "training/test_loop", "studies/test_converge", "theory/block/test_apriori"),
    )
]
"""Files of more than forty seconds, a third of the whole."""


def pytest_collection_modifyitems(items):
    """The slowest files first, in the order that `make test` has xdist keep: no core waits for one at the end."""
    items.sort(key=lambda item: SLOWEST.index(item.path) if item.path in SLOWEST else len(SLOWEST))


@pytest.fixture(autouse=True)
def kept_heap(monkeypatch):
    """How often a command that trains had freed memory kept, which it may for its own process, not for this one."""
    calls: list[None] = []
    monkeypatch.setattr("jaxsmooth.cli.runs.keep_freed", lambda: calls.append(None))
    return calls


@pytest.fixture(autouse=True, scope="module")
def _nothing_reaches_the_next_file():
    """A command sets jax's precision for its own process; and programs kept for no later use fill gigabytes."""
    yield
    jax.config.update("jax_enable_x64", True)
    jax.clear_caches()


@pytest.fixture(scope="module")
def optimised():
    """For files whose programs need XLA's optimisations."""
    off = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", off)


@pytest.fixture
def traces(monkeypatch) -> list[int]:
    """Grows by one for every block that `encode` traces: only when it is compiled anew."""
    from jaxsmooth.bert import encoder  # late: importing it imports jaxsmooth, which the hook above must see first

    counted: list[int] = []
    original = encoder.run_block
    monkeypatch.setattr(encoder, "run_block", lambda *arguments: counted.append(1) or original(*arguments))
    return counted


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty asset cache of this test's own; the user's is out of reach."""
    monkeypatch.setenv("JAXSMOOTH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def shop(cache, tmp_path, monkeypatch):
    """A tiny distribution, registered, and a pip that "downloads" it into that cache."""
    from support.assets import Shop  # late: importing it imports jaxsmooth, which the hook above must see first

    folder = tmp_path / "shop"
    folder.mkdir()
    return Shop(folder, monkeypatch)
