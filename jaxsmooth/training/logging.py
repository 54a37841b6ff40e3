"""The log of a run: one JSON line per record, the same numbers as TensorBoard events, a progress bar."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from ..files import atomic_write, dumps_strict, storage_fault
from ..json_reading import loads
from ..terminal import PlainConsole

METRICS, EVENTS = "metrics.jsonl", "events"
FLUSH_SECONDS = 10


class Recorder:
    """Records of one run. Use as a context manager.

    A record is a step and numbers with names such as "train/loss". Resuming at a step drops the records after it, so
    the file reads as that of an uninterrupted run.
    """

    def __init__(self, folder: Path, *, step: int, steps: int, progress: bool, writes: bool = True) -> None:
        """Open the files.

        Args:
          folder: of the run.
          step: the last step already done.
          steps: of the whole run.
          progress: whether to show a progress bar on stderr.
          writes: False on all processes but the first.
        """
        self.writes, self.folder = writes, folder
        if writes:
            _drop_after(folder / METRICS, step)
            self.file = (folder / METRICS).open("a", encoding="utf-8")
            self.events = Events(folder / EVENTS, step=step)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=PlainConsole(stderr=True), disable=not (progress and writes))
        self.line = self.bar.add_task("training", total=steps, completed=step)

    def __enter__(self) -> "Recorder":
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()
        for file in (self.file, self.events) if self.writes else ():
            try:
                file.close()
            except OSError as fault:
                if error is None:  # else that is what went wrong first
                    raise storage_fault(fault, self.folder) or fault from fault

    def add(self, step: int, numbers: Mapping[str, float | list[float]], *, shown: str = "") -> None:
        """Write a record.

        Args:
          step: how many steps were done.
          numbers: by name; a list (one number per layer) becomes one curve per layer in TensorBoard. What is not
            finite, as a correlation with a constant, is null in JSON.
          shown: text beside the progress bar; "" leaves it as it is.
        """
        self.bar.update(self.line, completed=step, description=shown or None)
        if not self.writes:
            return
        try:
            self.file.write(dumps_strict({"step": step, **numbers}) + "\n")
            self.file.flush()
            for name, value in numbers.items():
                parts = enumerate(value) if isinstance(value, list) else ((None, value),)
                for k, one in parts:
                    self.events.add(name if k is None else f"{name}/{k}", one, step)
            self.events.flush()
        except OSError as fault:
            raise storage_fault(fault, self.folder) or fault from fault


class Events:
    """TensorBoard's file of scalars, written by the caller's own thread, so that a full disk is the caller's error."""

    def __init__(self, folder: Path, *, step: int) -> None:
        """Begin a file; TensorBoard drops what other files of the folder say of later steps.

        Args:
          folder: made if it does not exist.
          step: the last step already done.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.writer, self.flushed = EventsWriter(str(folder / "events"), f".{step}"), time.monotonic()
        start = SessionLog(status=SessionLog.START)
        self.writer.write_event(Event(wall_time=time.time(), step=step + 1, session_log=start))

    def add(self, name: str, value: float, step: int) -> None:
        """Write one scalar."""
        self.writer.write_event(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))

    def flush(self) -> None:
        """Bring what was written to disk, unless that was done a moment ago: it waits for the disk."""
        if time.monotonic() - self.flushed > FLUSH_SECONDS:
            self.writer.flush()
            self.flushed = time.monotonic()

    def close(self) -> None:
        """Bring what was written to disk, and end."""
        self.writer.close()


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The records of a run so far, half-written and damaged lines left out.

    Args:
      folder: of the run.

    Returns:
      A dict per record, with "step" and the numbers that were logged.

    Raises:
      OSError: the folder holds no records.
    """
    return [record for line in _lines(folder / METRICS) if (record := _parsed(line)) is not None]


def _drop_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = [line for line in _lines(path) if (_parsed(line) or {"step": step + 1})["step"] <= step]
    atomic_write(path, "".join(f"{line}\n" for line in kept))


def _lines(path: Path) -> list[str]:
    # A loss of power may leave any bytes at the end.
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        record = loads(line)
    except ValueError:  # a process was killed while writing it
        return None
    return record if isinstance(record, dict) and isinstance(record.get("step"), int) else None


@dataclasses.dataclass
class Meter:
    """Tokens and model FLOPs per second since the last reading.

    Attributes:
      peak: FLOP/s of all devices together, which utilisation is measured against; 0 where it is not known.
      tokens: counted since then.
      flops: likewise.
      steps: likewise.
      since: when that was, by `time.perf_counter`, pauses left out.
    """

    peak: float
    tokens: int = 0
    flops: float = 0.0
    steps: int = 0
    since: float = dataclasses.field(default_factory=time.perf_counter)

    def add(self, tokens: int, flops: float) -> None:
        """Count a step.

        Args:
          tokens: real ones.
          flops: of the model, recomputation left out.
        """
        self.tokens, self.flops, self.steps = self.tokens + tokens, self.flops + flops, self.steps + 1

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time spent inside out of the rates: evaluations and the writing of checkpoints."""
        start = time.perf_counter()
        yield
        self.since += time.perf_counter() - start

    def read(self) -> dict[str, float]:
        """Rates since the last reading; start over.

        Returns:
          "tokens_per_second", "steps_per_second", and "mfu" (model FLOP utilisation) where the peak is known.
        """
        seconds = max(time.perf_counter() - self.since, 1e-9)
        rates = {"tokens_per_second": self.tokens / seconds, "steps_per_second": self.steps / seconds}
        if self.peak:
            rates["mfu"] = self.flops / seconds / self.peak
        self.tokens, self.flops, self.steps, self.since = 0, 0.0, 0, time.perf_counter()
        return rates
