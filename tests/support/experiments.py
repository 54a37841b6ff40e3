"""Experiments are programs, not a package: each is loaded from its file."""

import importlib.util
import sys
from types import ModuleType

from support import ROOT

FOLDER = ROOT / "experiments"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"experiment_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their own module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
