"""The measurements over eight simulated devices are those of one, also where eight do not divide a batch's rows."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from support import ROOT

WORKER = ROOT / "tests" / "support" / "worker_devices.py"


def run(devices: int, *commands: str) -> dict:
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    flags = "--xla_backend_optimization_level=0"  # what runs a few times need not be optimised
    done = subprocess.run(
        [sys.executable, str(WORKER), str(devices), *commands],
        env={**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def same(found: dict, alone: dict) -> None:
    assert (found["devices"], alone["devices"]) == (8, 1)
    assert found["values"].keys() == alone["values"].keys()
    for name, values in alone["values"].items():
        np.testing.assert_allclose(found["values"][name], values, rtol=2e-5, atol=1e-6, err_msg=name)
    assert found["verdicts"] == alone["verdicts"]


def test_diagnose_over_eight_devices_is_that_of_one():
    found, alone = run(8, "diagnose"), run(1, "diagnose")
    same(found, alone)
    counts = alone["values"]["cosine_similarity/count"]
    assert counts == [7, 7, 7]  # fillers count for nothing
    assert max(alone["values"]["rates/L4/mean"]) > 0


@pytest.mark.scale
def test_verify_and_compare_over_eight_devices_are_those_of_one():
    found, alone = run(8, "verify", "compare"), run(1, "verify", "compare")
    same(found, alone)
    assert "CONFIRMED" in alone["verdicts"].values()
