"""The log of a run: one JSON line per record, the same numbers for TensorBoard, wandb or a callback, a progress bar."""

import contextlib
import dataclasses
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from ..errors import ConfigError
from ..files import atomic_write, dumps_strict, storage_fault
from ..json_reading import loads
from ..progress import ProgressBar

METRICS, EVENTS = "metrics.jsonl", "events"
FLUSH_SECONDS = 10

Log = Callable[[int, Mapping[str, float]], None]
"""Takes a step and numbers by name, as "train/loss"; a number of each layer k is called "name/k"."""


class Recorder:
    """Records of one run. Use as a context manager.

    A record is a step and numbers with names such as "train/loss". Resuming at a step drops the records after it, so
    the file reads as that of an uninterrupted run.
    """

    def __init__(
        self,
        folder: Path,
        *,
        step: int,
        steps: int,
        progress: bool,
        writes: bool = True,
        logger: str = "tensorboard",
        log: Log | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """Open the files.

        Args:
          folder: of the run.
          step: the last step already done.
          steps: of the whole run.
          progress: whether to show a progress bar on stderr.
          writes: False on all processes but the first.
          logger: "tensorboard", "wandb" or "none".
          log: takes every record as well.
          config: the run's settings, for wandb.

        Raises:
          ConfigError: wandb is not installed.
        """
        self.writes, self.folder = writes, folder
        self.logs: list[Events | Wandb] = []
        if writes:
            _drop_after(folder / METRICS, step)
            if logger == "tensorboard":
                self.logs.append(Events(folder / EVENTS, step=step))
            elif logger == "wandb":
                self.logs.append(Wandb(folder, config or {}))
            self.file = (folder / METRICS).open("a", encoding="utf-8")
        self.log = log
        self.bar = ProgressBar("training", "steps", total=steps, done=step, shown=progress and writes, stays=True)

    def __enter__(self) -> "Recorder":
        self.bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.__exit__(kind, error, trace)
        for file in (self.file, *self.logs) if self.writes else ():
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
        self.bar.reach(step)
        if shown:
            self.bar.describe(f"training, {shown}")
        if not self.writes:
            return
        try:
            self.file.write(dumps_strict({"step": step, **numbers}) + "\n")
            self.file.flush()
            flat = _flat(numbers)
            for log in (*self.logs, *([self.log] if self.log else ())):
                log(step, flat)
        except OSError as fault:
            raise storage_fault(fault, self.folder) or fault from fault


def _flat(numbers: Mapping[str, float | list[float]]) -> dict[str, float]:
    """Every number by a name of its own.

    >>> _flat({"loss": 0.5, "cosine": [0.1, 0.2]})
    {'loss': 0.5, 'cosine/0': 0.1, 'cosine/1': 0.2}
    """
    found: dict[str, float] = {}
    for name, value in numbers.items():
        found |= {f"{name}/{k}": one for k, one in enumerate(value)} if isinstance(value, list) else {name: value}
    return found


class Wandb:
    """The same run of Weights & Biases over all resumptions, by the id that is kept in the run's folder."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        """Begin, or go on with, the run that is called as its folder.

        Args:
          folder: of the run.
          config: its settings.

        Raises:
          ConfigError: wandb is not installed.
        """
        try:
            import wandb
        except ImportError as error:
            raise ConfigError("logger=wandb needs wandb: pip install 'jaxsmooth[wandb]'.") from error
        path = folder / "wandb-id"
        if not path.exists():
            atomic_write(path, secrets.token_hex(8))
        self.run = wandb.init(
            id=path.read_text(encoding="utf-8"), name=folder.name, dir=str(folder), resume="allow", config=dict(config)
        )

    def __call__(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write a record."""
        self.run.log(dict(numbers), step=step)

    def close(self) -> None:
        """End."""
        self.run.finish()


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

    def __call__(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write scalars; bring them to disk, unless that was done a moment ago: it waits for the disk."""
        for name, value in numbers.items():
            self.writer.write_event(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))
        if time.monotonic() - self.flushed > FLUSH_SECONDS:
            self.writer.flush()
            self.flushed = time.monotonic()

    def close(self) -> None:
        """Bring what was written to disk, and end."""
        self.writer.close()


def read_records(folder: str | Path) -> list[dict[str, Any]]:
    """The records of a run so far, half-written and damaged lines left out.

    Args:
      folder: of the run.

    Returns:
      A dict per record, with "step" and the numbers that were logged.

    Raises:
      OSError: the folder holds no records.
    """
    return [record for line in _lines(Path(folder) / METRICS) if (record := _parsed(line)) is not None]


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
