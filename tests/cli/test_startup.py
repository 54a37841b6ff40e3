"""What answers at once: help and the list of assets load neither jax nor anything that draws."""

import os
import subprocess
import sys

import pytest
from support import ROOT

HEAVY = (
    *("jax", "jaxlib", "flax", "optax", "orbax", "grain", "numpy", "scipy", "pandas", "pyarrow", "flint"),
    *("matplotlib", "altair", "plotly", "tokenizers", "safetensors", "yaml", "huggingface_hub", "wandb"),
)
PROGRAM = f"""
import sys
import jaxsmooth
assert not {{*{HEAVY}}} & sys.modules.keys()
from jaxsmooth.__main__ import main
try:
    main()
finally:
    print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["diagnose", "--help"], ["finetune", "--help"], ["assets", "list"]],
    ids=" ".join,
)
def test_help_and_lists_load_no_jax(arguments, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAXSMOOTH_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.stderr, done.returncode) == ("[]\n", 0)
    assert done.stdout
