"""Whether a refactoring changed the speed: forward pass, training step and diagnosis at two revisions, in turn.

    python benchmarks/old_and_new.py --parent HEAD~1                 # 2 busy CPU cores: 12 minutes for 3 rounds
    python benchmarks/old_and_new.py --parent HEAD~1 --one-thread    # on a busy machine: one thread of each side
    python benchmarks/old_and_new.py --parent HEAD~1 --checkout DIR  # a checkout of the parent itself: the noise

The parent is a temporary git worktree, the other side the checkout that this file is in. Each has a process of its own
that stays alive, warmed before anything is timed; rounds go over all quantities, and in each the two sides work one
after the other, the other one first in every second round. MiniLM on 32 rows of 64 tokens: `encode` with the default
trace, and the training step of `finetune` with dropout, clipping and AdamW; `diagnose` on 64 movie reviews, or more.

Reported are median, least and largest of each round's new / old, of wall time and of the processor time of all
threads: above 1 the new side is slower. Beside it: how many programs two equal calls of `encode` compile or load, and
whether the sides' hidden states and first losses are the same bits. Results go to
benchmarks/results/old_and_new.json.
"""

import contextlib
import dataclasses
import datetime
import hashlib
import importlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from same_numbers import check_package, environment, git, revision_of, setting, worktree

HERE = Path(__file__).resolve().parent
ROWS, LENGTH = 32, 64
QUANTITIES = ("encode", "training step", "diagnose")
CLOCKS = ("wall", "processor")
COMPILED = "/jax/core/compile/backend_compile_duration"
ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


@dataclasses.dataclass(frozen=True)
class Args:
    """What to measure."""

    parent: str = ""
    """The revision before the refactoring."""
    checkout: Path = HERE.parent
    """The checkout after it, uncommitted changes included."""
    rounds: int = 15
    """Timed rounds."""
    seconds: float = 0.5
    """Least time of one measurement; a short call is repeated."""
    reviews: int = 64
    """Movie reviews that are diagnosed."""
    one_thread: bool = False
    """Keep each side to one thread, and both to the same core."""
    out: Path = HERE / "results" / "old_and_new.json"
    """Where the results go."""
    worker: bool = False
    """Internal: be one of the sides, driven over stdin and stdout."""


def find(name: str) -> Any:
    """A class or function of the package by its name alone, wherever this revision keeps it."""
    import jaxsmooth

    root = Path(jaxsmooth.__file__).parent
    defined = re.compile(rf"^(?:class|def) {name}\b", re.MULTILINE)
    homes = [path for path in sorted(root.rglob("*.py")) if defined.search(path.read_text(encoding="utf-8"))]
    if len(homes) != 1:
        raise SystemExit(f"{name!r} must be defined in one file of {root}; it is in {[str(home) for home in homes]}.")
    parts = homes[0].relative_to(root).with_suffix("").parts
    return getattr(importlib.import_module(".".join(("jaxsmooth", *parts))), name)


def make_batch() -> Any:
    """Random tokens, the same in every call."""
    import jaxsmooth

    shape = (ROWS, LENGTH)
    tokens = np.random.default_rng(0).integers(1000, 30000, shape).astype(np.int32)
    return jaxsmooth.Batch(tokens, np.zeros(shape, np.int32), np.ones(shape, bool))


def make_step(encoder: Any) -> Callable[[], Any]:
    """A training step of a classifier, which returns what it reports."""
    import jax

    task = find("Task")("benchmark", "classification", "accuracy", "random tokens", "none", classes=("a", "b"))
    config = find("FinetuneConfig")()
    model = find("init_task_model")(encoder, task, jax.random.key(0))
    labels = np.random.default_rng(1).integers(0, 2, ROWS).astype(np.int32)
    data = find("TrainBatch")(make_batch(), labels, np.ones(ROWS, np.float32), np.arange(ROWS, dtype=np.int32))
    optimiser, rate = find("make_optimiser")(config, model, 1000), find("learning_rate")(config, 1000)
    # as `finetune` makes it on one CPU, where it can
    unroll = {"unroll": True} if any(field.name == "unroll" for field in dataclasses.fields(find("Trainer"))) else {}
    trainer = find("Trainer")(task, config, optimiser, rate, **unroll)
    step = find("compile_step")(trainer)
    # a step overwrites its state, whose arrays are the encoder's own
    state = [find("init_state")(jax.tree.map(jax.numpy.copy, model), optimiser, config)]

    def run() -> Any:
        state[0], metrics = step(state[0], data)
        return jax.block_until_ready((state[0], metrics))[1]

    return run


def make_side(reviews: int) -> dict[str, Callable[[], Any]]:
    """One function for each quantity; each returns when its work is done."""
    import jax

    import jaxsmooth

    model, tokenizer = jaxsmooth.load("minilm-l6")
    texts = find("read_texts")("movie-reviews", reviews)
    return {
        "encode": lambda: jax.block_until_ready(jaxsmooth.encode(model, make_batch())),
        "training step": make_step(model),
        "diagnose": lambda: jaxsmooth.diagnose(model, tokenizer, texts),
    }


@contextlib.contextmanager
def count_programs() -> Iterator[list[str]]:
    """The list grows by one for every program that is compiled, or loaded from the cache."""
    import jax

    counted: list[str] = []

    def listen(event: str, duration: float, **kwargs: Any) -> None:
        if event == COMPILED and open_still:
            counted.append(event)

    open_still = True
    jax.monitoring.register_event_duration_secs_listener(listen)
    yield counted
    open_still = False


def warm_up(side: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    """Run everything until it is compiled; what that told."""
    programs, marks = [], {}
    for _ in range(2):
        with count_programs() as counted:
            hidden, _ = side["encode"]()
        programs.append(len(counted))
    marks["hidden states"] = hashlib.sha256(np.asarray(hidden).tobytes()).hexdigest()
    marks["first loss"] = float(side["training step"]().loss).hex()
    side["diagnose"]()
    return {
        "programs": programs,
        "marks": marks,
        "seconds": {name: measure(run, 2)["wall"] for name, run in side.items()},
    }


def measure(run: Callable[[], Any], repeat: int) -> dict[str, float]:
    """Seconds of a call by both clocks."""
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(repeat):
        run()
    return {"wall": (time.perf_counter() - wall) / repeat, "processor": (time.process_time() - processor) / repeat}


def work(reviews: int, answers: TextIO) -> None:
    """Be a side: warm up, then answer every line of stdin, which names a quantity, with its time."""
    side = make_side(reviews)
    print(json.dumps(warm_up(side)), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(measure(side[asked["quantity"]], asked["repeat"])), file=answers, flush=True)


class Worker:
    """A process that runs one checkout's package."""

    def __init__(self, checkout: Path, args: Args) -> None:
        """Start it; `read` then waits until it is warm."""
        check_package(checkout)
        own = {"XLA_FLAGS": ONE_THREAD, "OMP_NUM_THREADS": "1"} if args.one_thread else {}
        command = [sys.executable, str(HERE / Path(__file__).name), "--worker"]
        command += ["--reviews", str(args.reviews), *(["--one-thread"] if args.one_thread else [])]
        self.process = subprocess.Popen(
            command, env=environment(checkout) | own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.communicate()  # closes its stdin, at whose end it stops

    def read(self) -> dict[str, Any]:
        """Its next answer."""
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            raise SystemExit("a worker stopped; what it said is above.")
        return json.loads(line)

    def ask(self, quantity: str, repeat: int) -> dict[str, float]:
        """Let it work; seconds of a call."""
        assert self.process.stdin is not None
        print(json.dumps({"quantity": quantity, "repeat": repeat}), file=self.process.stdin, flush=True)
        return self.read()


Times = dict[str, list[dict[str, dict[str, float]]]]
"""Quantity -> for each round, side -> clock -> seconds."""


def drive(workers: dict[str, Worker], warm: dict[str, dict[str, Any]], args: Args) -> Times:
    """All rounds."""
    longest = {name: max(told["seconds"][name] for told in warm.values()) for name in QUANTITIES}
    repeats = {name: max(1, round(args.seconds / seconds)) for name, seconds in longest.items()}
    times: Times = {name: [] for name in QUANTITIES}
    for number in range(args.rounds):
        for name in QUANTITIES:
            order = list(workers) if number % 2 == 0 else list(workers)[::-1]
            times[name].append({side: workers[side].ask(name, repeats[name]) for side in order})
    return times


def summary(values: list[float]) -> dict[str, float]:
    """Median, least and largest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summarise(rounds: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Times and ratios of one quantity, by both clocks."""
    ratios = {clock: [each["new"][clock] / each["old"][clock] for each in rounds] for clock in CLOCKS}
    seconds = {
        clock: {side: summary([each[side][clock] for each in rounds]) for side in ("old", "new")} for clock in CLOCKS
    }
    return {
        "new_over_old": {clock: summary(values) for clock, values in ratios.items()},
        "ratios": ratios,
        "seconds": seconds,
    }


def make_table(found: dict[str, dict[str, Any]]) -> Table:
    """One row for each quantity: median (least .. largest) of the ratios, median seconds."""
    table = Table("new / old", *(f"{clock} time" for clock in CLOCKS), "old, s", "new, s")
    for name, entry in found.items():
        ratios = (entry["new_over_old"][clock] for clock in CLOCKS)
        cells = [f"{each['median']:.3f} ({each['min']:.3f} .. {each['max']:.3f})" for each in ratios]
        table.add_row(name, *cells, *(f"{entry['seconds']['wall'][side]['median']:.3f}" for side in ("old", "new")))
    return table


def write(args: Args, result: dict[str, Any]) -> None:
    """The results as JSON, aside and then renamed."""
    args.out.parent.mkdir(parents=True, exist_ok=True)
    aside = args.out.with_suffix(".part")
    aside.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    aside.replace(args.out)


def main(args: Args) -> None:
    """Start both sides, drive them in turn, print and write."""
    if not args.parent:
        raise SystemExit("--parent REV is needed: the revision before the refactoring.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the worktree is removed then too
    checkout, console = args.checkout.resolve(), Console()
    revisions = {"old": git(checkout, "rev-parse", f"{args.parent}^{{commit}}"), "new": revision_of(checkout)}
    with contextlib.ExitStack() as stack:
        checkouts = {"old": stack.enter_context(worktree(checkout, revisions["old"])), "new": checkout}
        workers, warm = {}, {}
        for side, path in checkouts.items():  # one after the other, so that neither compiles what the other does
            workers[side] = stack.enter_context(Worker(path, args))
            warm[side] = workers[side].read()
            console.print(f"{side} is warm, seconds of a call: {warm[side]['seconds']}", highlight=False)
        times = drive(workers, warm, args)
    found = {name: summarise(rounds) for name, rounds in times.items()}
    programs = {side: told["programs"] for side, told in warm.items()}
    same = {name: warm["old"]["marks"][name] == warm["new"]["marks"][name] for name in warm["old"]["marks"]}
    told = {"quantities": found, "programs_of_two_equal_encodes": programs, "same_bits": same}
    options = {name: getattr(args, name) for name in ("rounds", "seconds", "reviews", "one_thread")}
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    head = {"command": " ".join(["python", "benchmarks/old_and_new.py", *sys.argv[1:]]), "date": date}
    machine = {"setting": setting(), "load": os.getloadavg()[0], "options": options}
    write(args, {**head, "revisions": revisions, **machine, **told})
    console.print(make_table(found))
    console.print(f"programs of two equal calls of encode: {programs}; same bits: {same}", highlight=False)


if __name__ == "__main__":
    chosen = tyro.cli(Args, description=__doc__)
    if chosen.worker:
        if chosen.one_thread and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        own_stdout = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # whatever a library prints goes to stderr: stdout is for answers
        work(chosen.reviews, own_stdout)
    else:
        main(chosen)
