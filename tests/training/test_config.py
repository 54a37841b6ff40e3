"""Settings of a run: what is refused, and that they are read as they were saved."""

import dataclasses

import numpy as np
import pytest

from jaxsmooth.errors import ConfigError
from jaxsmooth.training.config import FinetuneConfig
from jaxsmooth.training.run import describe, prepare


@pytest.mark.compatibility(
    "long", "steps -1, 0 records a batch, a rate of NaN, -1e-5 or 1e30, 1e12 epochs", "refused at once, by name", was=0
)
@pytest.mark.compatibility("long", "a batch size of 8.5", "refused at once, by name", was=4)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 10, "accumulate": 4}, "accumulate must divide batch_size"),
        ({"learning_rate": float("nan")}, "learning_rate must be a finite number"),
        ({"hidden_dropout": 1.0}, "hidden_dropout must lie in"),
        ({"schedule": "square"}, "schedule must be one of"),
        ({"epochs": 0.0}, "epochs must be above 0"),
        ({"batch_size": 0}, "batch_size must lie in"),
        ({"fusion": "sum"}, "fusion must be one of"),
        ({"seed": True}, "seed must be a finite number"),
        ({"steps": -1}, r"steps must lie in \[0, 1e\+09\]"),
        ({"steps": 10**12}, r"steps must lie in \[0, 1e\+09\]"),
        ({"epochs": 1e12}, r"epochs must lie in \[0, 1e\+06\]"),
        ({"learning_rate": -1e-5}, "learning_rate must lie in"),
        ({"learning_rate": 1e30}, r"learning_rate must lie in \[0, 10\]"),
        ({"learning_rate": "fast"}, "learning_rate must be a finite number"),
        ({"remedy": 3}, "remedy must be text; got 3"),
        ({"batch_size": 8.5}, "batch_size must be a whole number; got 8.5"),
        ({"warmup": -0.1}, "warmup must lie in"),
        *(({"share_attention": text}, "must be two layers, as '7-12'") for text in ("7", "12-7", "3-3", "0-2", "a-b")),
        ({"exit_layer": -1}, "exit_layer must lie in"),
        *(
            ({"fusion": "gate", "fusion_layers": text}, "must be layers in ascending order, as '1,6'")
            for text in ("0,2", "2,1", "2,2", "1;2", "a", "1,")
        ),
        ({"fusion": "gate", "fusion_layers": (1, 6)}, r"fusion_layers must be text; got \(1, 6\)"),
        ({"share_attention": (7, 12)}, "share_attention must be text"),
        ({"fusion_layers": "1,2"}, "of a fusion; got '1,2' with fusion='none'"),
    ],
)
def test_configurations_that_contradict_themselves(settings, message):
    with pytest.raises(ConfigError, match=message):
        FinetuneConfig(**settings)


def test_layers_that_the_model_lacks_are_refused(task):
    """`tiny` has four layers."""
    config = FinetuneConfig(task=str(task), model="tiny", max_length=8, batch_size=8, steps=1, check=False)
    for settings, message in (
        ({"exit_layer": 5}, "exit_layer must be at most 4, the model's last; got 5"),
        ({"share_attention": "2-5"}, "share_attention must end at layer 4 or before; got '2-5'"),
        ({"share_attention": "2-4", "exit_layer": 3}, "share_attention must end at layer 3 or before"),
        ({"fusion": "gate", "fusion_layers": "2,5"}, "fusion_layers must end at layer 4 or before; got '2,5'"),
    ):
        with pytest.raises(ConfigError, match=message):
            prepare(dataclasses.replace(config, **settings))
    whole = prepare(config)
    cut = prepare(dataclasses.replace(config, exit_layer=3, share_attention="1-3"))
    assert cut.model.encoder.config.layers == 3
    one, other = (run.model.encoder.blocks.up.kernel for run in (cut, whole))
    np.testing.assert_array_equal(one, other[:3])
    attention = 8 * 64**2 + 4 * 8 * 64  # of one token and layer of width 64, in sentences of eight tokens
    spared = describe(prepare(dataclasses.replace(config, exit_layer=3)))["flops_per_step"]
    assert spared - describe(cut)["flops_per_step"] == 3 * 8 * 8 * attention


def test_a_configuration_is_read_as_it_was_saved(tmp_path):
    config = FinetuneConfig(task="x", ema=0.99, out=tmp_path / "run")
    config.save(tmp_path / "config.json")
    assert FinetuneConfig.read(tmp_path / "config.json") == config
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ConfigError, match="one JSON object"):
        FinetuneConfig.read(tmp_path / "config.json")
    with pytest.raises(ConfigError, match="cannot be read as a run's settings"):
        FinetuneConfig.read(tmp_path / "nothing.json")
