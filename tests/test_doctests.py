"""Every example in a docstring runs, with jax as users have it: float32, default promotion."""

import doctest
import importlib
import pkgutil

import jax
import pytest

import jaxsmooth

MODULES = sorted(module.name for module in pkgutil.walk_packages(jaxsmooth.__path__, "jaxsmooth."))
DEAR = {
    *(f"jaxsmooth.studies.{name}" for name in ("diagnose", "converge", "verify", "compare", "fate.study")),
    *("jaxsmooth.studies.measurements", "jaxsmooth.studies.statements.paired", "jaxsmooth.results.shown"),
    *(f"jaxsmooth.studies.requested.{name}" for name in ("own_metrics", "literature_metrics")),
    "jaxsmooth.theory.markov.convergence",
}
"""Each compiles a large program; other tests run these functions every time."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name in DEAR else name for name in MODULES]
)
def test_examples(name):
    module = importlib.import_module(name)
    with jax.enable_x64(False):
        failures, _ = doctest.testmod(module)
    assert failures == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    found = [test for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples]
    assert len(found) > 30
