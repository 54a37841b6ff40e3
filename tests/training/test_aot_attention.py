"""Kernels of attention in the programs of TPUs and an H100 that are not here: `make aot`. Nothing is executed."""

import json
from collections.abc import Iterator

import jax
import pytest

from jaxsmooth.bert.config import EncoderConfig
from jaxsmooth.checkpoints.config_json import config_to_dict
from jaxsmooth.training.aot import AotReport, compile_ahead
from jaxsmooth.training.config import AotConfig

pytestmark = [pytest.mark.aot, pytest.mark.filterwarnings("ignore")]

SMALL = EncoderConfig(vocab=1024, width=256, layers=2, heads=4, mlp_width=512, max_length=512)


@pytest.fixture(autouse=True)
def _single() -> Iterator[None]:
    """With 64-bit integers splash attention does not compile."""
    with jax.enable_x64(False):
        yield


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("small")
    (folder / "config.json").write_text(json.dumps(config_to_dict(SMALL)), encoding="utf-8")
    return str(folder)


def compiled(size: str, target: str, **settings) -> AotReport:
    given = {"batch_size": 16, "length": 512, "attention_dropout": 0.0, "remat": "none", **settings}
    found = compile_ahead(AotConfig(model_size=size, target=target, **given))
    print(f"\n{target} {given}: {found.kernels} kernels, {found.temporaries} bytes of temporaries, {found.flops} FLOPs")
    return found


@pytest.mark.parametrize(
    ("target", "mesh", "kernels"),
    [
        # forward, and backward by queries and by keys
        ("tpu-v5e:2x2", "fsdp=2,tensor=2", 3),
        ("tpu-v6e:2x2", "data=4", 3),
        ("gpu-h100:4", "data=2,fsdp=2", 2),
    ],
)
def test_the_step_leaves_attention_to_a_kernel(target, mesh, kernels, small):
    """And keeps less for the backward pass: the probabilities alone are 2 x 4 x 4 x 512 x 512 numbers a device."""
    fused, explicit = (compiled(small, target, mesh=mesh, attention=how) for how in ("auto", "explicit"))
    assert (fused.kernels, explicit.kernels) == (kernels, 0)
    scattered = sum(each.bytes for each in fused.collectives if each.kind == "reduce-scatter")
    kernels_of_blocks = 2 * (4 * 256**2 + 2 * 256 * 512)
    cut = {"fsdp=2,tensor=2": 4, "data=2,fsdp=2": 2}.get(mesh)
    assert cut is None or scattered >= 2 * kernels_of_blocks / cut  # every gradient of theirs, in bfloat16
    assert explicit.temporaries - fused.temporaries > 2 * 4 * 2 * 512 * 512 * 2


def test_dropped_attention_is_explicit(small):
    assert compiled(small, "tpu-v5e:1x1", attention_dropout=0.1, batch_size=4).kernels == 0


def test_modernbert_reads_8192_tokens_on_one_v5e_chip():
    """In 16 GB; explicit, one layer's logits alone would take 12 x 8192 x 8192 x 4 bytes, 3.2 GB."""
    settings = {"batch_size": 1, "length": 8192}
    read = compiled("modernbert-base", "tpu-v5e:1x1", inference=True, **settings)
    assert read.kernels == 2  # of a global and of a local layer
    assert read.memory < 2**30
