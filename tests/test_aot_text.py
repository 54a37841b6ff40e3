"""What is read off a compiled program, and what needs no compiler to be refused."""

import pytest

from jaxsmooth.bert.config import EncoderConfig
from jaxsmooth.errors import ConfigError
from jaxsmooth.training.aot import SIZES, Collective, count_collectives
from jaxsmooth.training.devices import find_target
from jaxsmooth.training.flops import forward_flops, step_flops

PROGRAM = """
HloModule jit_step
%body.1 (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %ag = bf16[4,8]{1,0:T(8,128)(2,1)} all-gather(%x), dimensions={0}
  %cp = (bf16[2]{0}, bf16[2]{0}) collective-permute-start(%y)
  %done = bf16[2]{0} collective-permute-done(%cp)
}
ENTRY %main (p0: f32[4]) -> f32[4] {
  %loop = (s32[], f32[8]) while(%init), condition=%cond.1, body=%body.1, backend_config={"known_trip_count":{"n":"12"}}
  %ar = (f32[10]{0}, /*index=1*/f32[2,5]{1,0}) all-reduce(%a, %b), to_apply=%add
}
"""


def test_collectives_are_counted_with_their_loops():
    assert count_collectives(PROGRAM) == [
        Collective("all-gather", 12, 12 * 64),
        Collective("all-reduce", 1, 80),
        Collective("collective-permute", 12, 12 * 4),
    ]


def test_flops_are_those_of_the_products_written_out():
    config = EncoderConfig(vocab=50, width=8, layers=3, heads=2, mlp_width=20, max_length=16)
    rows, length = 5, 7
    projections = 4 * 2 * rows * length * 8 * 8
    mlp = 2 * 2 * rows * length * 8 * 20
    attention = 2 * 2 * rows * 2 * length * length * 4
    assert forward_flops(config, rows, length) == 3 * (projections + mlp + attention)
    assert step_flops(config, rows, length) == 3 * forward_flops(config, rows, length)


def test_the_sizes_have_berts_parameters():
    from jaxsmooth.bert.params import encoder_shapes

    def count(config):
        total = 0
        for shape in encoder_shapes(config).values():
            size = 1
            for axis in shape:
                size *= axis
            total += size
        return total

    assert {name: count(config) for name, config in SIZES.items()} == {"bert-base": 109482240, "bert-large": 335141888}


@pytest.mark.parametrize(
    ("name", "message"),
    [("tpu-v9:2x2", "the chips are"), ("gpu-h100", "chip and topology"), ("gpu-h100:x", "no topology")],
)
def test_targets_that_are_none(name, message):
    with pytest.raises(ConfigError, match=message):
        find_target(name)
