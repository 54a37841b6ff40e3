"""The log of a run: rates."""

from jaxsmooth.training.logging import Meter


def test_the_meter_does_not_count_what_is_done_in_a_pause(monkeypatch):
    clock = iter([2.0, 9.0, 10.0, 10.0])
    monkeypatch.setattr("jaxsmooth.training.logging.time.perf_counter", lambda: next(clock))
    meter = Meter(peak=100.0, since=0.0)
    meter.add(60, 150.0)
    with meter.paused():
        pass
    assert meter.read() == {"tokens_per_second": 20.0, "steps_per_second": 1 / 3, "mfu": 0.5}
