"""Settings of a run: what is refused, and that they are read as they were saved."""

import pytest

from jaxsmooth.errors import ConfigError
from jaxsmooth.training.config import FinetuneConfig


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
    ],
)
def test_configurations_that_contradict_themselves(settings, message):
    with pytest.raises(ConfigError, match=message):
        FinetuneConfig(**settings)


def test_a_configuration_is_read_as_it_was_saved(tmp_path):
    config = FinetuneConfig(task="x", ema=0.99, out=tmp_path / "run")
    config.save(tmp_path / "config.json")
    assert FinetuneConfig.read(tmp_path / "config.json") == config
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ConfigError, match="one JSON object"):
        FinetuneConfig.read(tmp_path / "config.json")
    with pytest.raises(ConfigError, match="no saved run"):
        FinetuneConfig.read(tmp_path / "nothing.json")
