"""The training step compiled for TPUs and an H100 that are not here: `make aot`. Nothing is executed."""

import json

import pytest

from jaxsmooth import cli
from jaxsmooth.errors import ConfigError
from jaxsmooth.training.aot import compile_ahead
from jaxsmooth.training.config import AotConfig

pytestmark = [pytest.mark.aot, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize(
    ("target", "slices", "size", "mesh"),
    [
        ("tpu-v5e:2x2", 1, "bert-base", "data=2,fsdp=2"),
        ("tpu-v4:2x2x1", 1, "bert-base", "fsdp=2,tensor=2"),
        ("tpu-v5p:2x2x1", 1, "bert-large", "fsdp=4"),
        ("tpu-v6e:2x4", 1, "bert-large", "data=2,fsdp=4"),
        ("tpu-v5e:2x2", 2, "bert-base", "data=2,fsdp=4"),
        ("gpu-h100:4", 1, "bert-base", "data=4"),
    ],
)
def test_compiles_for(target, slices, size, mesh):
    found = compile_ahead(AotConfig(target=target, slices=slices, model_size=size, mesh=mesh, batch_size=64))
    print(f"\n{target} x {slices}, {size}, {mesh}: {found}")
    assert 0 < found.arguments < found.memory <= found.available
    assert 0 < found.utilisation <= 1
    moved = {each.kind: each.bytes for each in found.collectives}
    # every gradient crosses the links at least once, in bfloat16 or float32
    parameters = {"bert-base": 109e6, "bert-large": 335e6}[size]
    assert sum(moved.values()) > 2 * parameters / (8 if "tensor" in mesh or "fsdp=4" in mesh else 4)
    assert ("all-gather" in moved) == ("fsdp" in mesh)


def test_a_state_cut_over_four_devices_needs_a_quarter():
    whole, cut = (
        compile_ahead(AotConfig(model_size="bert-base", mesh=mesh, batch_size=32)) for mesh in ("data=4", "fsdp=4")
    )
    assert 3.5 < whole.arguments / cut.arguments <= 4.1


def test_a_step_that_does_not_fit_is_refused(capsys):
    command = [
        "aot",
        "--target",
        "tpu-v5e:1x1",
        "--model-size",
        "bert-large",
        "--batch-size",
        "2048",
        "--length",
        "512",
    ]
    assert cli.main(command) == 1
    assert "does not fit on tpu-v5e:1x1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": "tpu-v9:2x2"}, "the chips are"),
        ({"target": "tpu-v5e"}, "chip and topology"),
        ({"target": "tpu-v5e:3x7"}, "there is no topology"),
        ({"mesh": "data=3"}, "needs 3 devices; got 4"),
        ({"length": 4096}, "length must be at most 512"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(ConfigError, match=message):
        compile_ahead(AotConfig(**settings))


def test_the_command_writes_its_numbers(tmp_path):
    assert cli.main(["aot", "--model-size", "tiny-bert-of-a-test", "--out", str(tmp_path / "a.json")]) == 1
    assert cli.main(["aot", "--batch-size", "32", "--out", str(tmp_path / "a.json")]) == 0
    assert json.loads((tmp_path / "a.json").read_text())["devices"] == 4
