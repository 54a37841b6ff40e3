"""What a run writes while it goes: one JSON line per record, the same numbers as TensorBoard events, a live line."""

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboardX import SummaryWriter

METRICS, EVENTS = "metrics.jsonl", "events"


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
          progress: whether to show a live line.
          writes: False on all processes but the first.
        """
        self.writes = writes
        if writes:
            _drop_after(folder / METRICS, step)
            self.file = (folder / METRICS).open("a", encoding="utf-8")
            self.events = SummaryWriter(str(folder / EVENTS), purge_step=step + 1)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=Console(stderr=True), disable=not (progress and writes))
        self.line = self.bar.add_task("training", total=steps, completed=step)

    def __enter__(self) -> "Recorder":
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()
        if self.writes:
            self.file.close()
            self.events.close()

    def add(self, step: int, numbers: Mapping[str, float | list[float]], *, shown: str = "") -> None:
        """Write a record; a list (one number per layer) becomes one curve per layer in TensorBoard."""
        self.bar.update(self.line, completed=step, description=shown or None)
        if not self.writes:
            return
        self.file.write(json.dumps({"step": step, **{name: known(value) for name, value in numbers.items()}}) + "\n")
        self.file.flush()
        for name, value in numbers.items():
            parts = {f"{name}/{k}": one for k, one in enumerate(value)} if isinstance(value, list) else {name: value}
            for each, one in parts.items():
                self.events.add_scalar(each, one, step)


def known(value: Any) -> Any:
    """For JSON, which has no NaN: None in the place of what is not finite, as of a correlation with a constant."""
    if isinstance(value, Mapping):
        return {name: known(one) for name, one in value.items()}
    if isinstance(value, list):
        return [known(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The records of a run so far, a half-written last line left out."""
    lines = (folder / METRICS).read_text(encoding="utf-8").splitlines()
    return [record for line in lines if (record := _parsed(line)) is not None]


def _drop_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = [
        line
        for line in path.read_text(encoding="utf-8").splitlines()
        if (_parsed(line) or {"step": step + 1})["step"] <= step
    ]
    aside = path.with_name(f".{path.name}.aside")
    aside.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    aside.replace(path)


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except ValueError:  # a process was killed while writing it
        return None


@dataclasses.dataclass
class Meter:
    """Tokens and model FLOPs per second since the last reading.

    Attributes:
      peak: FLOP/s of all devices together, which utilisation is of; 0 where it is not known.
    """

    peak: float
    tokens: int = 0
    flops: float = 0.0
    steps: int = 0
    since: float = dataclasses.field(default_factory=time.perf_counter)

    def add(self, tokens: int, flops: float) -> None:
        """Count a step."""
        self.tokens, self.flops, self.steps = self.tokens + tokens, self.flops + flops, self.steps + 1

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What is done inside takes no time: evaluations and the writing of checkpoints."""
        start = time.perf_counter()
        yield
        self.since += time.perf_counter() - start

    def read(self) -> dict[str, float]:
        """Rates since the last reading; starts over."""
        seconds = max(time.perf_counter() - self.since, 1e-9)
        rates = {"tokens_per_second": self.tokens / seconds, "steps_per_second": self.steps / seconds}
        if self.peak:
            rates["mfu"] = self.flops / seconds / self.peak
        self.tokens, self.flops, self.steps, self.since = 0, 0.0, 0, time.perf_counter()
        return rates
