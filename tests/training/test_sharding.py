"""The table of axes, and the same losses on one device, on eight simulated ones, and in several processes."""

import dataclasses
import json
import subprocess
import sys
import types
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec
from support import ROOT
from support.training import PLAIN, free_port, make_trainer, small_model, to_arrays

from jaxsmooth.errors import ConfigError
from jaxsmooth.training.checkpointing import Checkpoints
from jaxsmooth.training.sharding import (
    AXES,
    LOGICAL,
    RULES,
    check_rules,
    join_processes,
    make_mesh,
    spec,
    tree_shardings,
    unrolled,
)
from jaxsmooth.training.step import init_state
from jaxsmooth.types import named_leaves


def run_workers(runs: list, devices: int, processes: int = 1, folder: str = "", timeout: float = 1500) -> list[dict]:
    """The worker's results on `devices` devices in all."""
    port = free_port() if processes > 1 else 0
    shared = {"runs": runs, "devices": devices // processes, "processes": processes, "port": port, "folder": folder}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "support.worker_sharded", json.dumps({**shared, "process": process})],
            cwd=ROOT / "tests",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(processes)
    ]
    try:
        outputs = [each.communicate(timeout=timeout) for each in started]
    finally:
        for each in started:
            each.kill()
    for each, (_, errors) in zip(started, outputs, strict=True):
        assert each.returncode == 0, errors[-3000:]
    return json.loads(outputs[0][0].strip().splitlines()[-1])


def test_one_cpu_alone_goes_through_the_blocks_one_after_the_other():
    for platforms, alone in ((["cpu"], True), (["cpu", "cpu"], False), (["tpu"], False), (["gpu"], False)):
        devices = np.array([types.SimpleNamespace(platform=name) for name in platforms])
        assert unrolled(types.SimpleNamespace(size=len(devices), devices=devices)) == alone


STAGES = ["data=2,fsdp=2,tensor=2", "", "fsdp=4,sequence=2"]


@pytest.fixture(scope="module")
def eight(tmp_path_factory) -> tuple[list[dict], Path]:
    """On eight devices: a run on one of them, then one run in stages, on eight, on one, and on eight cut otherwise."""
    folder = tmp_path_factory.mktemp("stages") / "checkpoints"
    runs = [["", 1], *([mesh, 8 if mesh else 1] for mesh in STAGES)]
    return run_workers(runs, 8, folder=str(folder)), folder


@pytest.fixture(scope="module")
def alone(eight) -> dict:
    return eight[0][0]


def same(found: dict, alone: dict) -> None:
    """Equal up to the order of float32 sums."""
    np.testing.assert_allclose(found["losses"], alone["losses"], rtol=2e-6)
    np.testing.assert_allclose(found["norm"], alone["norm"], rtol=1e-6)
    assert len(set(alone["losses"])) > 1


@pytest.mark.scale
def test_a_run_restored_onto_other_meshes_gives_the_losses_of_one_device(eight, alone):
    stages = eight[0][1:]
    together = {"losses": [loss for stage in stages for loss in stage["losses"]], "norm": stages[-1]["norm"]}
    same(together, alone)
    assert [stage["word"] for stage in stages] == [["tensor", "fsdp"], [], [None, "fsdp"]]


@pytest.mark.scale
def test_a_process_with_one_device_restores_what_eight_have_saved(eight):
    model = small_model("classification", jnp.float32)
    trainer = make_trainer("classification", model, dataclasses.replace(PLAIN, layer_decay=0.9))
    state = jax.eval_shape(lambda m: init_state(m, trainer.optimiser, PLAIN), model)
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), state)
    with Checkpoints(eight[1]) as checkpoints:
        assert sorted(checkpoints.manager.all_steps()) == [2, 4, 6]
        with warnings.catch_warnings(action="error"):
            found = checkpoints.restore(like, step=6).state  # its bits are compared with their fingerprints
    norm = sum((value.astype(np.float64) ** 2).sum() for value in to_arrays(found.model).values())
    np.testing.assert_allclose(norm, eight[0][-1]["norm"], rtol=1e-12)
    assert int(found.step) == 6


@pytest.mark.scale
def test_two_processes_give_the_losses_of_one(alone):
    same(run_workers([["data=2", 2]], 2, processes=2)[0], alone)


@pytest.mark.scale
def test_eight_devices_on_other_meshes(alone):
    meshes = ["data=8", "fsdp=8", "data=2,tensor=2,sequence=2", "tensor=2,data=4"]
    for found in run_workers([[mesh, 8] for mesh in meshes], 8):
        same(found, alone)


@pytest.mark.scale
def test_the_generator_of_accelerators_draws_the_same_on_every_mesh_and_on_resumption(tmp_path):
    rbg = {"prng": "rbg"}
    runs = [["", 1, rbg], *([mesh, 8 if mesh else 1, rbg] for mesh in STAGES)]
    alone, *stages = run_workers(runs, 8, folder=str(tmp_path / "checkpoints"))
    same({"losses": [loss for stage in stages for loss in stage["losses"]], "norm": stages[-1]["norm"]}, alone)


@pytest.mark.scale
def test_a_kernel_over_meshes_gives_the_losses_of_explicit_attention():
    undropped = {"attention_dropout": 0.0}
    meshes = [["", 1], ["data=2,fsdp=2,tensor=2", 8], ["data=4,fsdp=2", 8]]
    alone, *found = run_workers(
        [["", 1, undropped], *([*mesh, {**undropped, "kernel": "splash"}] for mesh in meshes)], 8
    )
    for one in found:
        same(one, alone)


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
    same(run_workers([[mesh, devices]], devices, processes)[0], alone)


def test_the_table_cuts_no_array_twice_over_one_axis():
    check_rules()
    with pytest.raises(ConfigError, match=r"'embed' and 'mlp' are both cut over mesh axis 'fsdp'"):
        check_rules({**RULES, "mlp": ("fsdp",)})
    with pytest.raises(ConfigError, match=r"hidden states: 'batch' and 'length' .* 'data'"):
        check_rules({**RULES, "length": ("data",)})
    with pytest.raises(ConfigError, match=r"rule for 'heads' names 'model'"):
        check_rules({**RULES, "heads": ("model",)})


def test_every_row_of_the_table_names_a_parameter():
    names = set(named_leaves(small_model("classification")))
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
    names = {name: where.spec for name, where in named_leaves(tree_shardings(state, mesh)).items()}
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
