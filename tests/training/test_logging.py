"""The log of a run: rates, and what a loss of power leaves of it."""

import sys

import pytest
from support.training import FakeWandb

from jaxsmooth.errors import ConfigError
from jaxsmooth.training.logging import EVENTS, METRICS, Meter, Recorder, read_records


def test_the_meter_does_not_count_what_is_done_in_a_pause(monkeypatch):
    clock = iter([2.0, 9.0, 10.0, 10.0])
    monkeypatch.setattr("jaxsmooth.training.logging.time.perf_counter", lambda: next(clock))
    meter = Meter(peak=100.0, since=0.0)
    meter.add(60, 150.0)
    with meter.paused():
        pass
    assert meter.read() == {"tokens_per_second": 20.0, "steps_per_second": 1 / 3, "mfu": 0.5}


def test_the_loggers(tmp_path, monkeypatch):
    """TensorBoard unless another is named; what is not installed is asked for."""
    for logger in ("tensorboard", "none"):
        (tmp_path / logger).mkdir()
        with Recorder(tmp_path / logger, step=0, steps=1, progress=False, logger=logger) as recorder:
            recorder.add(1, {"a": 3.0})
        assert (tmp_path / logger / METRICS).read_text() == '{"step": 1, "a": 3.0}\n'
        assert (tmp_path / logger / EVENTS).exists() is (logger == "tensorboard")
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for step in (1, 2):
        with Recorder(tmp_path, step=step - 1, steps=2, progress=False, logger="wandb") as recorder:
            recorder.add(step, {"a": 3.0, "b": [1.0, 2.0]})
    assert wandb.heard == {step: {"a": 3.0, "b/0": 1.0, "b/1": 2.0} for step in (1, 2)}
    first, second = wandb.settings
    assert first["id"] == second["id"]  # of one run, over all resumptions
    assert wandb.finished == 2
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"needs wandb: pip install 'jaxsmooth\[wandb\]'"):
        Recorder(tmp_path, step=0, steps=1, progress=False, logger="wandb")


@pytest.mark.compatibility("long", "metrics.jsonl that ends in damaged bytes", "resumed without them", was=2)
def test_damaged_lines_are_dropped(tmp_path):
    (tmp_path / METRICS).write_bytes(b'{"step": 1, "a": 2}\n3\n{"a": 1}\n{"step": 2, "a"\n\xff\x00\n{"step": 9}\n')
    assert [each["step"] for each in read_records(tmp_path)] == [1, 9]
    with Recorder(tmp_path, step=1, steps=2, progress=False) as recorder:
        recorder.add(2, {"a": 3.0})
    assert (tmp_path / METRICS).read_text() == '{"step": 1, "a": 2}\n{"step": 2, "a": 3.0}\n'
