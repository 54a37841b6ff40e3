"""Chips that there are, and FLOPs against the products written out."""

import pytest

from jaxsmooth.bert.config import EncoderConfig
from jaxsmooth.errors import ConfigError
from jaxsmooth.training.accelerators import find_target, forward_flops, step_flops


def test_flops_are_those_of_the_products_written_out():
    config = EncoderConfig(vocab=50, width=8, layers=3, heads=2, mlp_width=20, max_length=16)
    rows, length = 5, 7
    projections = 4 * 2 * rows * length * 8 * 8
    mlp = 2 * 2 * rows * length * 8 * 20
    attention = 2 * 2 * rows * 2 * length * length * 4
    assert forward_flops(config, rows, length) == 3 * (projections + mlp + attention)
    assert step_flops(config, rows, length) == 3 * forward_flops(config, rows, length)


@pytest.mark.parametrize(
    ("name", "message"),
    [("tpu-v9:2x2", "the chips are"), ("gpu-h100", "chip and topology"), ("gpu-h100:x", "no topology")],
)
def test_unknown_targets_are_refused(name, message):
    with pytest.raises(ConfigError, match=message):
        find_target(name)
