"""Every example in a docstring runs, with jax as users have it: float32, default promotion."""

import doctest
import importlib
import pkgutil

import jax
import pytest

import jaxsmooth

pytestmark = pytest.mark.usefixtures("compiled_quickly")

MODULES = sorted(module.name for module in pkgutil.walk_packages(jaxsmooth.__path__, "jaxsmooth."))


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    with jax.enable_x64(False):
        failures, _ = doctest.testmod(module)
    assert failures == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    found = [test for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples]
    assert len(found) > 30
