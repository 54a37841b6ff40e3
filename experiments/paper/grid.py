"""Fine-tuning runs by the hundred: those whose results are missing, one after the other, each kept when it ends.

An interrupted run goes on from its own folder when the same command is given again; a run's folder is deleted once its
entry is written. Long grids go over several sittings with `--minutes`, and in parts with `--only` and `--seeds`; two
programs may fill one file of results as long as their parts differ.
"""

import dataclasses
import datetime
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jaxsmooth.cli.main import set_up_jax
from jaxsmooth.inputs.tokenizer import Tokenizer
from jaxsmooth.terminal import PlainConsole
from jaxsmooth.training.config import RESUMABLE, FinetuneConfig
from jaxsmooth.training.data.task_data import TaskData
from jaxsmooth.training.evaluate import evaluate
from jaxsmooth.training.logging import read_records
from jaxsmooth.training.loop import finetune
from jaxsmooth.training.predict import load_run
from jaxsmooth.training.run import describe, read_split

from .measures import fixed_sentences, smoothness
from .reading import Scores
from .settings import KNOWN, RATES, RESULTS, RUNS
from .store import Store

SENTENCES = 64
"""Fixed validation sentences that smoothness is measured on."""


@dataclasses.dataclass(frozen=True)
class GridArgs:
    """Which part of a grid to run."""

    only: tuple[str, ...] = ()
    """Only these tasks; none named, all."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of head, order of the data and dropout."""
    minutes: float = 0.0
    """Start no further run after so many minutes; 0 for no limit."""
    draw: bool = False
    """Only tables and figures, of what the results hold."""
    runs: Path = RUNS
    """Folder of the runs that are not finished."""
    out: Path = RESULTS
    """Where the results go."""

    def tasks(self, known: Sequence[str]) -> tuple[str, ...]:
        """Those of the known tasks that were asked for.

        Raises:
          SystemExit: another one was.
        """
        strange = sorted(set(self.only) - set(known))
        if strange:
            raise SystemExit(f"--only must name tasks of this grid, {', '.join(known)}; got {', '.join(strange)}.")
        return tuple(task for task in known if not self.only or task in self.only)


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a grid.

    Attributes:
      task, model, variant: as the tables call them.
      config: its settings; `out` is the grid's to choose.
      note: what tells runs apart that differ in none of these.
    """

    task: str
    model: str
    variant: str
    config: FinetuneConfig
    note: str = ""

    @property
    def key(self) -> str:
        name = f"{self.task}, {self.model}, {self.variant}, seed {self.config.seed}"
        return f"{name}, {self.note}" if self.note else name

    @property
    def settings(self) -> dict[str, Any]:
        """What differs from `finetune`'s defaults and changes results."""
        usual = FinetuneConfig().to_dict()
        return {k: v for k, v in self.config.to_dict().items() if v != usual[k] and k not in RESUMABLE}


def fill(cells: Iterable[Cell], store: Store, args: GridArgs, run: Callable[[Cell, Path], dict[str, Any]]) -> int:
    """Run what the results lack.

    Args:
      cells: the grid, in the order in which to run it.
      store: its results.
      args: where unfinished runs are kept, and for how long to start new ones.
      run: makes the entry of a cell, in a folder of its own.

    Returns:
      How many cells are still without an entry.
    """
    set_up_jax()
    wanted = [cell for cell in cells if not _taken(cell, store)]
    began = time.monotonic()
    with _bar(len(wanted)) as bar:
        line = bar.add_task("", total=len(wanted))
        for number, cell in enumerate(wanted):
            if args.minutes and time.monotonic() - began > 60 * args.minutes:
                bar.console.print(f"{args.minutes:g} minutes are over; the same command goes on from here.")
                return len(wanted) - number
            bar.update(line, description=cell.key)
            folder = args.runs / store.path.stem / re.sub(r"[^\w.-]+", "-", cell.key)
            entry = {"task": cell.task, "model": cell.model, "variant": cell.variant, **run(cell, folder)}
            store.add(cell.key, entry | {"settings": cell.settings})
            shutil.rmtree(folder, ignore_errors=True)
            bar.update(line, completed=number + 1)
            left = (time.monotonic() - began) / (number + 1) * (len(wanted) - number - 1)
            bar.console.print(f"{number + 1} of {len(wanted)}: {cell.key}: {_scores(entry)}; about {_time(left)} left")
    return 0


def fill_at_rates(
    cells: Iterable[Cell], store: Store, args: GridArgs, run: Callable[[Cell, Path], dict[str, Any]]
) -> None:
    """`fill`, each variant at its own of `RATES`: the first seed is run at all, and its validation score chooses."""
    every, first = list(cells), args.seeds[0]
    if fill(at_rates([cell for cell in every if cell.config.seed == first], {}, first), store, args, run) == 0:
        fill(at_rates(every, store.entries(), first), store, args, run)


def at_rates(cells: Iterable[Cell], known: Mapping[str, Mapping[str, Any]], first: int) -> Iterator[Cell]:
    """Cells with their learning rates.

    Args:
      cells: the grid.
      known: the entries that are there.
      first: the seed that is run at every rate.
    """
    scores = Scores(known)
    for cell in cells:
        chosen = RATES if cell.config.seed == first else [scores.rate(cell.task, cell.model, cell.variant)]
        for rate in chosen:
            config = dataclasses.replace(cell.config, learning_rate=rate)
            yield dataclasses.replace(cell, config=config, note="" if rate == RATES[0] else f"rate {rate:g}")


def _taken(cell: Cell, store: Store) -> bool:
    """Whether there is an entry; another grid's is copied."""
    entry = store.entry(cell.key, cell.settings)
    if entry is not None and "taken_from" in entry and cell.key not in store.entries():
        store.add(cell.key, entry | {"task": cell.task, "model": cell.model, "variant": cell.variant})
    return entry is not None


def _bar(total: int) -> Progress:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=PlainConsole(stderr=True), speed_estimate_period=3600)


def _scores(entry: dict[str, Any]) -> str:
    own = KNOWN.get(entry["task"])
    name, splits = (own.score, own.splits) if own else ("accuracy", ("validation", "test"))
    found = [f"{split} {entry[split][name]:.3f}" for split in splits if split in entry]
    return f"{name} {', '.join(found)}; {entry.get('processor_seconds') or 0:.0f} s of processor time"


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{seconds / 60:.0f} min"


def train(cell: Cell, folder: Path) -> dict[str, Any]:
    """Fine-tune, and measure the last step's parameters.

    Args:
      cell: the run.
      folder: its own; what is in it is gone on with.

    Returns:
      Scores, "before" and "after" (see `measures.smoothness`), number of parameters, time, and on what machine.
    """
    config, resumed = dataclasses.replace(cell.config, out=folder), (folder / "config.json").exists()
    processor, wall = time.process_time(), time.perf_counter()
    outcome = finetune(config)
    spent = {"processor_seconds": time.process_time() - processor, "seconds": time.perf_counter() - wall}
    run, model, _ = load_run(folder, step=outcome.steps)
    at_end = {"validation": outcome.scores} if outcome.best_step == outcome.steps else {}
    scores = {
        name: at_end.get(name)
        or evaluate(run.trainer, model, _split(config, run.tokenizer, name), run.mesh, batch_size=config.batch_size)
        for name in (KNOWN[cell.task].splits if cell.task in KNOWN else ("validation", "test"))
    }
    batch = fixed_sentences(run.validation, SENTENCES)
    return {
        "seed": config.seed,
        "steps": outcome.steps,
        **scores,
        "loss": [(r["step"], r["train/loss"]) for r in read_records(folder) if "train/loss" in r],
        "before": smoothness(run.trainer, run.model, batch),
        "after": smoothness(run.trainer, model, batch),
        "parameters": describe(run)["parameters"],
        # of a resumed run only the last part's time would be known
        **{name: None if resumed else round(value, 1) for name, value in spent.items()},
        "load": round(os.getloadavg()[0], 1),
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
    }


def _split(config: FinetuneConfig, tokenizer: Tokenizer, name: str) -> TaskData:
    """A split by name; MNLI's second dev set is the one of a task of its own."""
    if name == "mismatched":
        config, name = dataclasses.replace(config, task=f"{config.task}-mm"), "validation"
    return read_split(config, tokenizer, name)


def machine() -> str:
    """The processor by the name that Linux gives it, its threads, and jax's version."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} threads, jax {jax.__version__}"
