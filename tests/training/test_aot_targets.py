"""The training step compiled for TPUs and an H100 that are not here: `make aot`. Nothing is executed."""

import dataclasses
import json
import subprocess
import sys

import pytest

from jaxsmooth.bert.config import EncoderConfig
from jaxsmooth.checkpoints.config_json import config_to_dict
from jaxsmooth.cli.main import main
from jaxsmooth.errors import ConfigError
from jaxsmooth.training import sharding
from jaxsmooth.training.accelerators import find_target
from jaxsmooth.training.aot import compile_ahead
from jaxsmooth.training.config import AotConfig

pytestmark = [pytest.mark.aot, pytest.mark.filterwarnings("ignore")]


SMALL = EncoderConfig(vocab=1024, width=256, layers=2, heads=4, mlp_width=512, max_length=128)
"""Compiles in some twenty seconds; benchmarks/aot.py has BERT-base and BERT-large."""
PARAMETERS = 1024 * 256 + 130 * 256 + 2 * (4 * 256**2 + 2 * 256 * 512) + 256**2  # tables, two blocks, pooler


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("small")
    (folder / "config.json").write_text(json.dumps(config_to_dict(SMALL)), encoding="utf-8")
    return str(folder)


def compiled(size, **settings):
    return compile_ahead(AotConfig(model_size=size, **{"batch_size": 64, "length": 64, **settings}))


@pytest.mark.parametrize(
    ("target", "slices", "mesh"),
    [
        ("tpu-v4:2x2x1", 1, "fsdp=2,tensor=2"),
        ("tpu-v5e:2x2", 2, "data=2,fsdp=4"),
        ("tpu-v5p:2x2x1", 1, "data=4"),
        ("tpu-v6e:2x2", 1, "data=2,fsdp=2"),
        ("gpu-h100:4", 1, "data=2,fsdp=2"),
    ],
)
def test_compiles_for(target, slices, mesh, small):
    found = compiled(small, target=target, slices=slices, mesh=mesh)
    print(f"\n{target} x {slices}, {mesh}: {found}")
    assert found.devices == 4 * slices
    assert 0 < found.arguments < found.memory <= found.available
    assert 0 < found.utilisation <= 1
    assert found.seconds >= found.model_flops / find_target(target, slices).chip.flops
    moved = {each.kind: each.bytes for each in found.collectives}
    # every gradient crosses the links at least once, in bfloat16 at least, where it is not cut as its parameter is
    cut = {"fsdp=2,tensor=2": 4, "data=2,fsdp=4": 4, "data=4": 1, "data=2,fsdp=2": 2}[mesh]
    assert sum(moved.values()) >= 2 * PARAMETERS / cut
    if "fsdp" in mesh:  # parameters are brought together where they are used
        assert moved["all-gather"] >= 2 * PARAMETERS / cut


def test_a_state_cut_over_four_devices_needs_a_quarter(tmp_path):
    """A quarter of this width fills a TPU's tiles of 128; a quarter of the other model's would be padded to them."""
    config = dataclasses.replace(SMALL, width=512, heads=8, layers=1)
    (tmp_path / "config.json").write_text(json.dumps(config_to_dict(config)), encoding="utf-8")
    whole, cut = (compiled(str(tmp_path), mesh=mesh) for mesh in ("data=4", "fsdp=4"))
    assert 3.5 < whole.arguments / cut.arguments <= 4.1


def test_a_compiler_that_tries_less_plans_the_same_products_in_more_memory(small):
    """What --compile-effort -1 is for, seconds of compiling, is in benchmarks/results/aot.md."""
    most, least = (compiled(small, mesh="fsdp=4", compile_effort=effort) for effort in (0, -1))
    assert least.flops == pytest.approx(most.flops, rel=0.01)
    assert least.memory > most.memory


def test_bert_base_with_dropout_of_attention_for_v6e():
    """libtpu's stack overflowed in this step's products; it takes a process with it. A small model shows nothing."""
    words = ["aot", "bert-base", "--target", "tpu-v6e:1x1", "--batch-size", "64", "--compile-effort", "-1"]
    done = subprocess.run([sys.executable, "-m", "jaxsmooth", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_step_that_does_not_fit_is_refused(capsys, small):
    settings = {"target": "tpu-v5e:1x1", "batch-size": 65536, "length": 128}
    assert main(["aot", small, *(part for name, value in settings.items() for part in (f"--{name}", str(value)))]) == 1
    error = capsys.readouterr().err
    assert "does not fit on tpu-v5e:1x1: it needs" in error
    assert "--batch-size" in error


def test_a_table_that_cuts_an_array_twice_over_one_axis_is_refused(monkeypatch, small):
    monkeypatch.setitem(sharding.RULES, "mlp", ("fsdp",))
    with pytest.raises(ConfigError, match="'embed' and 'mlp' are both cut over mesh axis 'fsdp'"):
        compiled(small, mesh="fsdp=4")


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


def test_the_command_writes_its_numbers(tmp_path, small):
    assert main(["aot", "tiny-bert-of-a-test", "--out", str(tmp_path / "a.json")]) == 1
    assert main(["aot", small, "--batch-size", "32", "--length", "64", "--out", str(tmp_path / "a.json")]) == 0
    assert json.loads((tmp_path / "a.json").read_text())["devices"] == 4
