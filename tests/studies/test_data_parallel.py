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
    done = subprocess.run(
        [sys.executable, str(WORKER), str(devices), *commands],
        env={**os.environ, "PYTHONPATH": path},
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


# A sum over features, heads or a shared axis is taken in parts, device by device: the order of additions differs, which
# in float64 is less than this share of the largest number of a result.
ROUNDING = 1e-10
KINDS = [
    f"{types}-{context}-{how}"
    for types in ("Explicit", "Auto")
    for context in ("set", "free")
    for how in ("tensor", "whole")
]


def refuse_large(differences: dict[str, float], count: int) -> None:
    assert len(differences) >= count
    assert {name: value for name, value in differences.items() if not value <= ROUNDING} == {}


@pytest.fixture(scope="module")
def alone() -> dict:
    return run(1, "diagnose")


@pytest.mark.compatibility(
    "mesh", "encode, embed, heads: jax.make_mesh's Explicit axes, set", "the numbers of one device", was=2
)
@pytest.mark.compatibility("mesh", "metrics on arrays of Explicit axes", "the numbers of one device", was=2)
@pytest.mark.compatibility("mesh", "a gradient of encode on Explicit axes", "the numbers of one device", was=2)
@pytest.mark.compatibility(
    "mesh", "diagnose of a model cut over a mesh (tensor parallel)", "rows over the other axes", was=2
)
@pytest.mark.scale
def test_one_kind_of_mesh_gives_the_numbers_of_one_device(alone):
    found = run(8, "diagnose-on-mesh", "meshes:Explicit-set-tensor:bert")
    same(found, alone)
    refuse_large(found["differences"], 20)


@pytest.mark.scale
@pytest.mark.compatibility(
    "mesh", "Explicit or Auto axes, set or not, every family", "the numbers of one device", was=2
)
@pytest.mark.parametrize("family", ["bert", "roberta", "mpnet", "albert", "distilbert", "modernbert", "gpt2", "vit"])
def test_every_kind_of_mesh_gives_the_numbers_of_one_device(family):
    refuse_large(run(8, f"meshes:{','.join(KINDS)}:{family}")["differences"], 20 * len(KINDS))


@pytest.mark.scale
@pytest.mark.compatibility("mesh", "verify and compare of a model cut over a mesh", "the numbers of one device", was=2)
def test_verify_and_compare_on_a_mesh_are_those_of_one_device():
    same(run(8, "verify-on-mesh", "compare-on-mesh"), run(1, "verify", "compare"))


def test_diagnose_over_eight_devices_is_that_of_one(alone):
    found = run(8, "diagnose")
    same(found, alone)
    counts = alone["values"]["cosine_similarity/count"]
    assert counts == [7, 7, 7]  # fillers count for nothing
    assert max(alone["values"]["rates/L4/mean"]) > 0


@pytest.mark.scale
def test_verify_and_compare_over_eight_devices_are_those_of_one():
    found, alone = run(8, "verify", "compare"), run(1, "verify", "compare")
    same(found, alone)
    assert "CONFIRMED" in alone["verdicts"].values()
