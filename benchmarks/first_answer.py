"""How long until the first answer: `jaxsmooth diagnose tiny --data tiny` in a process of its own, cold and warm.

    python benchmarks/first_answer.py                          # this checkout, one cold and two warm runs
    python benchmarks/first_answer.py --parent HEAD~1          # and a revision before it, the two by turns
    python benchmarks/first_answer.py --command "verify tiny --data tiny"   # another command
    python benchmarks/first_answer.py --profile --parent HEAD~1    # what a warm run's time goes to, of each side

Cold: nothing traced or compiled is on disk. Warm: a run before has left there what it traced and compiled. Of each run:
processor time of all threads until the first line of the answer is printed and until the end, the same by the clock,
peak memory, programs on disk afterwards, and their bytes. Processor time counts, as the clock does not where other
programs run; the line "load" says whether they did. Results go to benchmarks/results/first_answer.json; with
--profile, the functions of largest time of their own and with what they call to first_answer_here.txt and, of the
revision before, first_answer_parent.txt beside it.
"""

import contextlib
import dataclasses
import datetime
import io
import json
import os
import pstats
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import tyro
from same_numbers import environment, git, revision_of, setting, worktree

from jaxsmooth.files import atomic_write, dumps_strict

HERE = Path(__file__).resolve().parent
TICK = os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass(frozen=True)
class Args:
    """What to measure."""

    command: str = "diagnose tiny --data tiny"
    """Of `jaxsmooth`."""
    parent: str = ""
    """A revision to compare with."""
    warm: int = 2
    """Warm runs of each side."""
    cold: int = 1
    """Cold runs of each side."""
    profile: bool = False
    """Profile a warm run of each side instead."""
    results: Path = HERE / "results"
    """Where the results go; those of other commands and processors stay."""


def run(command: str, checkout: Path, cache: Path) -> dict[str, float]:
    """One run in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        # revisions of November 2026 and before had no __main__
        there = (checkout / "jaxsmooth/__main__.py").exists()
        start = ["-m", "jaxsmooth"] if there else ["-c", "from jaxsmooth.cli import main; main()"]
        words = [sys.executable, "-u", *start, *command.split(), "--out", f"{folder}/out"]
        own = {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2"}
        known = {**environment(checkout), **own}
        known.pop("PYTHONDONTWRITEBYTECODE")  # a user's package is compiled to bytecode
        clock = time.perf_counter()
        process = subprocess.Popen(
            words, cwd=folder, env=known, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )
        assert process.stdout is not None
        process.stdout.read(1)
        first = time.perf_counter() - clock, _processor(process.pid)
        while process.stdout.read(1 << 16):
            pass
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(words)}: status {process.returncode}")
    programs = [path for path in cache.rglob("*") if path.is_file() and not path.name.endswith("-atime")]
    return {
        "first_processor": round(first[1], 2),
        "processor": round(used.ru_utime + used.ru_stime, 2),
        "first_clock": round(first[0], 2),
        "clock": round(time.perf_counter() - clock, 2),
        "peak_mib": round(used.ru_maxrss / 2**10),
        "programs": len(programs),
        "bytes": sum(path.stat().st_size for path in programs),
        "load": round(os.getloadavg()[0], 1),
    }


def _processor(pid: int) -> float:
    """Seconds that a process has used so far; its name, in brackets, may hold spaces."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def by_turns(args: Args, sides: dict[str, Path]) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Cold and warm runs of every side, one after the other, in an order that turns around."""
    found: dict[str, dict[str, list[dict[str, float]]]] = {name: {"cold": [], "warm": []} for name in sides}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(args.cold + args.warm):
            kind = "cold" if turn < args.cold else "warm"
            for name in [*sides][:: 1 if turn % 2 == 0 else -1]:
                # The last cold run's programs are those of the warm ones.
                cache = Path(folder) / name / str(min(turn, args.cold - 1))
                one = run(args.command, sides[name], cache)
                found[name][kind].append(one)
                print(f"{name:6} {kind}: {json.dumps(one)}", flush=True)
    return found


PROFILED = """
import contextlib, cProfile, io, sys, time

def command():
    try:
        from jaxsmooth.cli.main import main
    except ImportError:  # revisions of November 2026 and before
        from jaxsmooth.cli import main
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main()

counted, (out, *words) = cProfile.Profile(time.process_time), sys.argv[1:]
sys.argv = ["jaxsmooth", *words]
counted.runcall(command)
counted.dump_stats(out)
"""


def profile(args: Args, checkout: Path) -> str:
    """A warm run by processor time, imports included: the parts of the library, and the functions of most time."""
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        run(args.command, checkout, cache)
        own = {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2"}
        words = [sys.executable, "-c", PROFILED, f"{folder}/profile", *args.command.split(), "--out", f"{folder}/out"]
        known = {**environment(checkout), **own}
        subprocess.run(words, check=True, cwd=folder, env=known, stderr=subprocess.DEVNULL)
        text = io.StringIO()
        found = pstats.Stats(f"{folder}/profile", stream=text).strip_dirs()
    for order in ("tottime", "cumtime"):
        found.sort_stats(order).print_stats(40)
    return "\n".join(line.replace(f"{folder}/profile", "").rstrip() for line in text.getvalue().splitlines()) + "\n"


def main(args: Args) -> None:
    with contextlib.ExitStack() as stack:
        sides = {"here": HERE.parent}
        if args.parent:
            sides["parent"] = stack.enter_context(worktree(HERE.parent, git(HERE.parent, "rev-parse", args.parent)))
        if args.profile:
            for name, path in sides.items():
                head = f"python benchmarks/first_answer.py --profile, {name}, {revision_of(path)}, {setting()}\n"
                atomic_write(args.results / f"first_answer_{name}.txt", head + profile(args, path))
            return
        found: dict[str, Any] = {
            "sides": by_turns(args, sides),
            "revisions": {name: revision_of(path) for name, path in sides.items()},
        }
    out = args.results / "first_answer.json"
    known = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    where = setting()
    known[f"{args.command}, {where['processor']}"] = found | {
        "date": datetime.date.today().isoformat(),
        "setting": where,
    }
    atomic_write(out, dumps_strict(known, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Args))
