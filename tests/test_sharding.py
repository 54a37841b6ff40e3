"""The table of axes, and the same losses on one device, on eight simulated ones, and in several processes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers_training import PLAIN, make_trainer, small_model
from jax.sharding import AbstractMesh, PartitionSpec

from jaxsmooth.errors import ConfigError
from jaxsmooth.training.launch import join_processes
from jaxsmooth.training.sharding import AXES, LOGICAL, RULES, check_rules, make_mesh, spec, tree_shardings
from jaxsmooth.training.step import init_state

WORKER = Path(__file__).with_name("worker_sharded.py")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_workers(mesh: str, devices: int, processes: int = 1, timeout: float = 400) -> dict:
    """The worker's result on `devices` devices in all."""
    port = free_port() if processes > 1 else 0
    started = []
    for process in range(processes):
        options = {
            "mesh": mesh, "devices": devices // processes, "processes": processes, "process": process, "port": port
        }  # fmt: skip
        started.append(
            subprocess.Popen(
                [sys.executable, str(WORKER), json.dumps(options)],
                env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "0"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        outputs = [each.communicate(timeout=timeout) for each in started]
    finally:
        for each in started:
            each.kill()
    for each, (_, errors) in zip(started, outputs, strict=True):
        assert each.returncode == 0, errors[-3000:]
    return json.loads(outputs[0][0].strip().splitlines()[-1])


@pytest.fixture(scope="module")
def alone() -> dict:
    return run_workers("", 1)


def same(found: dict, alone: dict) -> None:
    """Equal up to the order of float32 sums."""
    np.testing.assert_allclose(found["losses"], alone["losses"], rtol=2e-6)
    np.testing.assert_allclose(found["norm"], alone["norm"], rtol=1e-6)
    assert len(set(alone["losses"])) > 1


def test_eight_devices_on_three_axes_give_the_losses_of_one(alone):
    found = run_workers("data=2,fsdp=2,tensor=2", 8)
    same(found, alone)
    assert found["cut"]["word"] == ["tensor", "fsdp"]


def test_two_processes_give_the_losses_of_one(alone):
    same(run_workers("data=2", 2, processes=2), alone)


@pytest.mark.scale
@pytest.mark.parametrize(
    "mesh", ["data=8", "fsdp=8", "fsdp=4,sequence=2", "data=2,tensor=2,sequence=2", "tensor=2,data=4"]
)
def test_eight_devices_on_other_meshes(mesh, alone):
    same(run_workers(mesh, 8), alone)


@pytest.mark.scale
@pytest.mark.parametrize(
    ("mesh", "devices", "processes"),
    [
        ("data=4", 4, 4),
        ("fsdp=4", 4, 4),
        ("data=2,fsdp=2", 4, 2),
        ("tensor=2,data=2", 4, 4),
        ("data=2,tensor=2,sequence=2", 8, 2),
    ],
)
def test_two_and_four_processes_on_other_meshes(mesh, devices, processes, alone):
    same(run_workers(mesh, devices, processes), alone)


def test_the_table_cuts_no_array_twice_over_one_axis():
    check_rules()
    with pytest.raises(ConfigError, match=r"'embed' and 'mlp' are both cut over mesh axis 'fsdp'"):
        check_rules({**RULES, "mlp": ("fsdp",)})
    with pytest.raises(ConfigError, match=r"hidden states: 'batch' and 'length' .* 'data'"):
        check_rules({**RULES, "length": ("data",)})
    with pytest.raises(ConfigError, match=r"rule for 'heads' names 'model'"):
        check_rules({**RULES, "heads": ("model",)})


def test_every_row_of_the_table_names_a_parameter():
    names = {
        ".".join(str(p).strip(".[]'") for p in path)
        for path, _ in jax.tree_util.tree_leaves_with_path(small_model("classification"))
    }
    names |= {"encoder.blocks.gate.kernel", "encoder.blocks.gate.bias", "head.dense.kernel"}  # of other families
    for row in LOGICAL:
        assert any(name == row or name.endswith(f".{row}") for name in names), row


def test_arrays_are_cut_where_they_divide_and_whole_elsewhere():
    mesh = AbstractMesh((1, 2, 4, 1), AXES)
    assert spec(("vocab", "embed"), (48, 16), mesh) == PartitionSpec("tensor", "fsdp")
    assert spec(("vocab", "embed"), (30522, 768), mesh) == PartitionSpec(None, "fsdp")  # 4 does not divide 30522
    assert spec(("batch", "length"), (8, 7), AbstractMesh((2, 2, 1, 2), AXES)) == PartitionSpec(("data", "fsdp"), None)


def test_moments_lie_where_their_parameters_lie():
    mesh = make_mesh("", jax.devices()[:1])
    model = small_model("classification", jnp.float32)
    trainer = make_trainer("classification", model)
    state = jax.eval_shape(lambda m: init_state(m, trainer.optimiser, PLAIN), model)
    names = {
        ".".join(str(part).strip(".[]'") for part in path): where.spec
        for path, where in jax.tree_util.tree_leaves_with_path(tree_shardings(state, mesh))
    }
    moments = [name for name in names if ".mu." in name]
    assert len(moments) == len(jax.tree.leaves(model))
    assert all(names[name] == names["model." + name.split(".mu.")[1]] for name in moments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data=2", "needs 2 devices; got 1"),
        ("data=0", "positive integer; got '0'"),
        ("data", "positive integer; got ''"),
        ("data=1,data=1", "given twice"),
        ("model=1", "mesh axes are data, fsdp, tensor, sequence; got 'model'"),
    ],
)
def test_bad_meshes(text, message):
    with pytest.raises(ConfigError, match=message):
        make_mesh(text, jax.devices()[:1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("", 2, 0), "need --coordinator"), (("localhost", 2, 0), "HOST:PORT"), (("localhost:1", 2, 2), r"0\.\.1; got 2")],
)
def test_bad_launches(arguments, message):
    with pytest.raises(ConfigError, match=message):
        join_processes(*arguments)
