"""The log of a run: rates, and what a loss of power leaves of it."""

import pytest

from jaxsmooth.training.logging import METRICS, Meter, Recorder, read_records


def test_the_meter_does_not_count_what_is_done_in_a_pause(monkeypatch):
    clock = iter([2.0, 9.0, 10.0, 10.0])
    monkeypatch.setattr("jaxsmooth.training.logging.time.perf_counter", lambda: next(clock))
    meter = Meter(peak=100.0, since=0.0)
    meter.add(60, 150.0)
    with meter.paused():
        pass
    assert meter.read() == {"tokens_per_second": 20.0, "steps_per_second": 1 / 3, "mfu": 0.5}


@pytest.mark.compatibility("long", "metrics.jsonl that ends in damaged bytes", "resumed without them", was=2)
def test_damaged_lines_are_dropped(tmp_path):
    (tmp_path / METRICS).write_bytes(b'{"step": 1, "a": 2}\n3\n{"a": 1}\n{"step": 2, "a"\n\xff\x00\n{"step": 9}\n')
    assert [each["step"] for each in read_records(tmp_path)] == [1, 9]
    with Recorder(tmp_path, step=1, steps=2, progress=False) as recorder:
        recorder.add(2, {"a": 3.0})
    assert (tmp_path / METRICS).read_text() == '{"step": 1, "a": 2}\n{"step": 2, "a": 3.0}\n'
