"""Whether a refactoring changed a number: every command at two revisions, and what they wrote compared bit by bit.

    python benchmarks/same_numbers.py --parent HEAD~1                         # everything
    python benchmarks/same_numbers.py --parent HEAD~1 --only "finetune"       # some of the commands
    python benchmarks/same_numbers.py --parent HEAD~1 --parent-outputs DIR    # keep the parent's outputs for next time

The parent is a temporary git worktree, the other side the checkout that this file is in. Both run with this
interpreter and the same compilation cache: diagnose, converge, compare and verify of minilm-l6 on movie reviews and of
the tiny model, in float32 and float64, and 20 steps of finetune in float32 and bfloat16. Compared is every value of
every JSON file, every array of an exported model, and the fingerprint that a checkpoint keeps of the bits of every
array of its state. What cannot be the same twice (`VOLATILE`) is left out; a difference that is meant is named, with
its reason, in `EXPECTED` or by `--expected PATTERN REASON`. Any other makes the exit status 1.

A side took about 20 minutes on 2 CPU cores that other programs used too, and 50 where most had to be compiled.

Bits depend on the processor, the number of its cores and the versions of jax and numpy: outputs that are kept are used
again only where these, the revision and the command are the same. Results go to benchmarks/results/same_numbers.json.
"""

import contextlib
import dataclasses
import datetime
import fnmatch
import functools
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import tyro
from machine import processor
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent

VOLATILE: dict[str, str] = {
    "*/versions/*": "versions of the installed packages",
    "*/speed/*": "tokens and steps per second of a training run",
}
"""Leaves that are never compared: pattern -> why."""

EXPECTED: dict[str, str] = {}
"""Differences that are meant: pattern of a leaf's path, as `finetune-minilm-l6-float32/best/*` -> reason."""

# Names without the suffix .json, as orbax gives them.
JSON_FILES = ("*.json", "checkpoints/*/extra/metadata", "checkpoints/*/metrics/metrics")
# Hashes of an array's bits: that they differ says something, by how much does not.
HASHES = {"*/fingerprints/*": "of every array of a checkpoint"}
MISSING = "missing"
SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Args:
    """What to compare."""

    parent: str
    """The revision before the refactoring."""
    checkout: Path = HERE.parent
    """The checkout after it, uncommitted changes included."""
    out: Path = HERE / "results" / "same_numbers.json"
    """Where the results go."""
    only: str = ""
    """Only commands whose name, as "verify tiny float64", holds this."""
    parent_outputs: Path | None = None
    """Folder that keeps the parent's outputs; those already there are not made again."""
    outputs: Path | None = None
    """The same for the checkout."""
    expected: dict[str, str] = dataclasses.field(default_factory=dict)
    """Differences that are meant: pattern of a leaf's path and reason, in turn."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One command line, without its folder."""

    command: str
    model: str
    precision: str
    options: tuple[str, ...]

    @property
    def name(self) -> str:
        """What `--only` looks in."""
        return f"{self.command} {self.model} {self.precision}"

    @property
    def slug(self) -> str:
        """Its folder, with which the paths of its leaves begin."""
        return self.name.replace(" ", "-")

    @property
    def arguments(self) -> list[str]:
        """The command line. Its folder is relative, so that no output holds a path."""
        return [self.command, *self.options, "--precision", self.precision, "--out", "files"]


def make_jobs() -> list[Job]:
    """Every command that is run, the cheap first."""
    studies = (("diagnose", "8"), ("converge", "8"), ("compare", "8"), ("verify", "2"))
    models = (("minilm-l6", "movie-reviews"), ("tiny", "tiny"))
    training = "--task movie-reviews --seed 0 --steps 20 --batch-size 8 --max-length 32 --limit 64"
    records = "--eval-every 10 --checkpoint-every 10 --keep 2 --log-every 1 --probe 4"
    return [
        Job("finetune", "minilm-l6", precision, tuple(f"{training} {records}".split()))
        for precision in ("float32", "bfloat16")
    ] + [
        Job(command, model, precision, (model, "--data", data, "--limit", limit))
        for precision in ("float32", "float64")
        for model, data in models
        for command, limit in studies
    ]


@dataclasses.dataclass(frozen=True)
class Side:
    """One of the two revisions: its outputs, and a checkout that is made once something has to be run."""

    revision: str
    outputs: Path
    checkout: Callable[[], Path]


@dataclasses.dataclass(frozen=True)
class Done:
    """What a command left: the folder of its files, its exit status and its time."""

    files: Path
    status: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Row:
    """One command compared. `sizeless` differences have no magnitude: of a text, a shape, a hash, a missing leaf."""

    command: str
    precision: str
    compared: int
    left_out: int
    different: int
    expected: int
    sizeless: int
    largest_relative_difference: float
    first: list[str]
    seconds: dict[str, float]


def git(checkout: Path, *arguments: str) -> str:
    """What a git command prints."""
    command = ["git", "-C", str(checkout), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


@contextlib.contextmanager
def worktree(repository: Path, revision: str) -> Iterator[Path]:
    """A checkout of a revision, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="same_numbers-") as folder:
        path = Path(folder).resolve() / "checkout"
        git(repository, "worktree", "add", "--quiet", "--detach", str(path), revision)
        try:
            yield path
        finally:
            git(repository, "worktree", "remove", "--force", str(path))


def revision_of(checkout: Path) -> str:
    """The commit, and where the package differs from it a hash of the package."""
    package = ("--", "jaxsmooth", "jaxsmooth_command.py")
    head = git(checkout, "rev-parse", "HEAD")
    if not git(checkout, "status", "--porcelain", *package):
        return head
    mark = hashlib.sha256()
    for name in git(checkout, "ls-files", "--cached", "--others", "--exclude-standard", *package).splitlines():
        if (checkout / name).is_file():
            mark.update(name.encode() + b"\0" + (checkout / name).read_bytes() + b"\0")
    return f"{head}+{mark.hexdigest()[:16]}"


@functools.cache
def setting() -> dict[str, Any]:
    """What bits depend on besides the revision and the command."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "numpy", "optax")}
    flags = {name: os.environ.get(name, "") for name in ("XLA_FLAGS", "JAX_PLATFORMS")}
    return {"processor": processor(), "cores": cores, "python": platform.python_version(), **versions, **flags}


def environment(checkout: Path) -> dict[str, str]:
    """This process's, with the package of a checkout before the installed one."""
    return {**os.environ, "PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"}


def check_package(checkout: Path) -> None:
    """Stop if another package than the checkout's would be imported."""
    code = "import importlib.util as u; print(u.find_spec('jaxsmooth').origin)"
    command = [sys.executable, "-c", code]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            command, env=environment(checkout), cwd=folder, check=True, stdout=subprocess.PIPE, text=True
        )
    if Path(done.stdout.strip()).resolve() != (checkout / "jaxsmooth" / "__init__.py").resolve():
        raise SystemExit(f"python would import {done.stdout.strip()}, not the package in {checkout}.")


def run_job(job: Job, side: Side) -> Done:
    """Run a command, unless its outputs of the same revision, command line and setting are there."""
    folder = side.outputs / job.slug
    record, wanted = folder / "done.json", {"revision": side.revision, "arguments": job.arguments, **setting()}
    told = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    if any(told.get(name) != value for name, value in wanted.items()):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        start = time.perf_counter()
        status = start_command(job, side.checkout(), folder)
        told = {**wanted, "status": status, "seconds": round(time.perf_counter() - start, 1)}
        record.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    done = Done(folder / "files", told["status"], told["seconds"])
    check_done(job, done)
    return done


def start_command(job: Job, checkout: Path, folder: Path) -> int:
    """Run a command in a folder; what it prints goes to the file `log` there."""
    module = "jaxsmooth" if (checkout / "jaxsmooth" / "__main__.py").exists() else "jaxsmooth_command"
    command = [sys.executable, "-m", module, *job.arguments]
    with (folder / "log").open("w", encoding="utf-8") as log:
        done = subprocess.run(command, env=environment(checkout), cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    return done.returncode


def read_leaves(done: Done) -> dict[str, Any]:
    """Every JSON value and every array of a command's files by its path, and the exit status."""
    found: dict[str, Any] = {"exit status": done.status}
    for path in sorted(done.files.rglob("*")):
        name = path.relative_to(done.files).as_posix()
        if path.is_file():
            found.update(leaves(read_tree(path, name), name))
    return found


def read_tree(path: Path, name: str) -> Any:
    """What a file holds: nothing where it is neither JSON nor weights."""
    if path.suffix == ".safetensors":
        return safetensors.numpy.load_file(path)
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if any(fnmatch.fnmatchcase(name, pattern) for pattern in JSON_FILES):
        return json.loads(path.read_text(encoding="utf-8"))
    return {}


def leaves(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The leaves of nested dicts and lists, each with its path."""
    if not isinstance(tree, dict | list):
        yield path, tree
        return
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield from leaves(value, f"{path}/{key}")


def difference(parent: Any, new: Any) -> float | None:
    """None for the same bits, else the relative difference; infinite where the two are not numbers of one shape.

    Of two arrays it is the largest difference over the largest magnitude.
    """
    if isinstance(parent, np.ndarray) and isinstance(new, np.ndarray):
        if parent.dtype == new.dtype and parent.shape == new.shape and parent.tobytes() == new.tobytes():
            return None
        if parent.shape != new.shape:
            return math.inf
    elif repr(parent) == repr(new):  # of floats it tells every bit, and 1 from 1.0
        return None
    elif not (is_number(parent) and is_number(new)):
        return math.inf
    a, b = np.asarray(parent, np.float64), np.asarray(new, np.float64)
    gap, *sizes = (float(np.max(np.abs(value), initial=0)) for value in (a - b, a, b))
    found = gap / max(sizes) if any(sizes) else 0.0
    return found if math.isfinite(found) else math.inf


def is_number(leaf: Any) -> bool:
    """Whether a JSON value is a number."""
    return isinstance(leaf, int | float) and not isinstance(leaf, bool)


def matches(path: str, patterns: dict[str, str]) -> bool:
    """Whether a path is one that a pattern names."""
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def compare_job(job: Job, parent: Done, new: Done, expected: dict[str, str]) -> Row:
    """Compare what the two revisions wrote."""
    old, now = read_leaves(parent), read_leaves(new)
    paths = [path for path in dict.fromkeys((*old, *now)) if not matches(f"{job.slug}/{path}", VOLATILE)]
    gaps = {path: difference(old.get(path, MISSING), now.get(path, MISSING)) for path in paths}
    found = {path: math.inf if matches(path, HASHES) else gap for path, gap in gaps.items() if gap is not None}
    meant = [path for path in found if matches(f"{job.slug}/{path}", expected)]
    rest = [path for path in found if path not in set(meant)]
    return Row(
        command=f"{job.command} {job.model}",
        precision=job.precision,
        compared=len(paths),
        left_out=len({*old, *now}) - len(paths),
        different=len(rest),
        expected=len(meant),
        sizeless=sum(math.isinf(gap) for gap in found.values()),
        largest_relative_difference=max((gap for gap in found.values() if math.isfinite(gap)), default=0.0),
        first=[described(path, old.get(path, MISSING), now.get(path, MISSING), found[path]) for path in rest[:SHOWN]],
        seconds={"parent": parent.seconds, "new": new.seconds},
    )


def described(path: str, parent: Any, new: Any, gap: float) -> str:
    """A differing leaf in one line."""
    both = " -> ".join(
        f"array {leaf.dtype} {leaf.shape}" if isinstance(leaf, np.ndarray) else f"{leaf!r:.60}"
        for leaf in (parent, new)
    )
    return f"{path}: {both}" + (f" (relative {gap:.2g})" if math.isfinite(gap) else "")


def check_done(job: Job, done: Done) -> None:
    """Stop if a command could not do its work: then there is nothing to compare."""
    violated = job.command == "verify" and done.status == 1 and any(done.files.glob("*.json"))
    if done.status and not violated:
        lines = done.files.with_name("log").read_text(encoding="utf-8").splitlines()
        raise SystemExit("\n".join([f"{job.name!r} in {done.files.parent} ended with {done.status}:", *lines[-5:]]))


def make_table(rows: list[Row]) -> Table:
    """One row for each command."""
    table = Table("command", "precision", "leaves", "differ", "meant", "relative", "sizeless")
    for row in rows:
        largest = f"{row.largest_relative_difference:.2g}" if row.different + row.expected else ""
        counts = (f"{row.compared:,}", f"{row.different:,}", f"{row.expected:,}")
        table.add_row(row.command, row.precision, *counts, largest, f"{row.sizeless:,}" if largest else "")
    return table


def print_rows(rows: list[Row], console: Console) -> None:
    """The table, and below it the first leaves of each command that differ."""
    console.print(make_table(rows))
    for row in (row for row in rows if row.first):
        console.print(
            f"{row.command} {row.precision}:", *row.first, sep="\n  ", markup=False, highlight=False, soft_wrap=True
        )


def write(args: Args, sides: dict[str, Side], rows: list[Row], expected: dict[str, str]) -> None:
    """The results as JSON, aside and then renamed."""
    result = {
        "command": " ".join(["python", "benchmarks/same_numbers.py", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "revisions": {name: side.revision for name, side in sides.items()},
        "setting": setting(),
        "left_out": VOLATILE,
        "expected": expected,
        "compared": sum(row.compared for row in rows),
        "different": sum(row.different for row in rows),
        "commands": [dataclasses.asdict(row) for row in rows],
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    aside = args.out.with_suffix(".part")
    aside.write_text(json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    aside.replace(args.out)


def open_sides(args: Args, stack: contextlib.ExitStack) -> dict[str, Side]:
    """Both revisions; the parent's worktree is made once something of it has to be run."""
    checkout = args.checkout.resolve()
    revision = git(checkout, "rev-parse", f"{args.parent}^{{commit}}")

    @functools.cache
    def parent_checkout() -> Path:
        path = stack.enter_context(worktree(checkout, revision))
        check_package(path)
        return path

    @functools.cache
    def new_checkout() -> Path:
        check_package(checkout)
        return checkout

    folders = [
        (folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))).resolve()
        for folder in (args.parent_outputs, args.outputs)
    ]
    return {
        "parent": Side(revision, folders[0], parent_checkout),
        "new": Side(revision_of(checkout), folders[1], new_checkout),
    }


def main(args: Args) -> int:
    """Run, compare, print and write; 1 if a number differs that should not."""
    jobs = [job for job in make_jobs() if args.only in job.name]
    if not jobs:
        raise SystemExit(f"no command holds {args.only!r}; there are: {', '.join(job.name for job in make_jobs())}.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the worktree is removed then too
    expected, rows, console = EXPECTED | args.expected, [], Console()
    with contextlib.ExitStack() as stack:
        sides = open_sides(args, stack)
        for job in jobs:
            parent, new = (run_job(job, side) for side in sides.values())
            row = compare_job(job, parent, new, expected)
            console.print(f"{job.name}: {row.different} of {row.compared} differ, {row.seconds}", highlight=False)
            rows.append(row)
        if revision_of(args.checkout.resolve()) != sides["new"].revision:
            raise SystemExit(f"the package in {args.checkout} was changed meanwhile: what was compared is unknown.")
    write(args, sides, rows, expected)
    print_rows(rows, console)
    return int(any(row.different for row in rows))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args, description=__doc__)))
