"""Time and memory of `jaxsmooth.diagnose` against torch eager plus batched torch algebra.

    python benchmarks/diagnose.py            # 256 movie reviews, minilm-l6, 2 CPU cores: a few minutes

Needs the `parity` extra. The peer comes twice: with L3 by batched power iteration, as most people would write it, and
by a hand-written batched Lanczos, the fastest that we could make of torch. All sides start from strings and must agree
to 1e-3 before anything is timed. Time: rounds of all, interleaved in one warm process. Memory: growth of the peak
resident set, each side in a process of its own; `first` over the first run, ours with what an earlier process has
traced and compiled, as commands keep it, `warm` over a later one. Results go to benchmarks/results/diagnose.json.

Nearly all of `first` is XLA's: 256 reviews make batches of two lengths, each with a program that takes 60 to 70 MiB
when jax 0.10.2 has loaded it and 150 while it does. `one` is the same for a single sentence, with one program.
"""

import dataclasses
import datetime
import functools
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from machine import machine

HERE = Path(__file__).parent
AGREEMENT = 1e-3


@dataclasses.dataclass(frozen=True)
class Args:
    """What to measure."""

    limit: int = 256
    """Number of movie reviews."""
    rounds: int = 3
    """Timed rounds of each side, after one warm-up."""
    batch_size: int = 32
    """Sentences in one batch of the peer."""
    out: Path = HERE / "results" / "diagnose.json"
    """Where the results go."""
    child: Literal["none", "ours", "one", "power", "lanczos"] = "none"
    """Internal: measure the memory of one side and print it."""


def make_ours(args: Args) -> Callable[[], dict[str, dict]]:
    import jaxsmooth
    from jaxsmooth.assets.texts import read_texts

    model, tokenizer = jaxsmooth.load("minilm-l6")
    texts = read_texts("movie-reviews", args.limit)

    def run(programs: Path | None = None) -> dict[str, dict]:
        found = jaxsmooth.diagnose(model, tokenizer, texts, programs=programs)
        fields = {f.name: getattr(found, f.name) for f in dataclasses.fields(found)} | found.rates
        return {
            name: vars(spread)
            for name, spread in fields.items()
            if isinstance(spread, jaxsmooth.results.diagnosis.Spread)
        }

    return run


def make_one(args: Args) -> Callable[[], dict[str, dict]]:
    return make_ours(dataclasses.replace(args, limit=1))


def make_peer(args: Args, solver: str) -> Callable[[], dict[str, dict]]:
    from diagnose_torch import Peer

    from jaxsmooth.assets.fetch import fetch
    from jaxsmooth.assets.texts import read_texts

    peer = Peer(Path(fetch("minilm-l6")), args.batch_size, solver)
    texts = read_texts("movie-reviews", args.limit)
    return lambda: peer.diagnose(texts)


MAKERS = {
    "ours": make_ours,
    "power": functools.partial(make_peer, solver="power"),
    "lanczos": functools.partial(make_peer, solver="lanczos"),
}
PEERS = ("power", "lanczos")


def disagreement(ours: dict[str, dict], peer: dict[str, dict]) -> dict[str, float]:
    """Largest relative difference of mean, min and max for every quantity that the peer computes."""
    return {
        name: max(float(np.max(np.abs(ours[name][k] - v) / np.abs(v))) for k, v in fields.items())
        for name, fields in peer.items()
    }


def peak_growth_mib(side: str, args: Args) -> dict[str, float]:
    """Growth of the peak resident set of one side in its first and second run, measured by a child process."""
    options = {"child": side, "limit": args.limit, "batch-size": args.batch_size}
    command = [sys.executable, __file__, *(f"--{name}={value}" for name, value in options.items())]
    for _ in range(1 if side in PEERS else 2):  # the first leaves its programs on disk
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure_child(args: Args) -> None:
    import jax

    from jaxsmooth.cli.jax_settings import keep_compiled_programs, traced_programs

    keep_compiled_programs(jax)
    run = (MAKERS | {"one": make_one})[args.child](args)
    ours, found = args.child not in PEERS, {}
    for turn in ("first", "warm"):
        if ours and turn == "warm":
            run()  # without what is on disk: a process that calls it again keeps its programs in memory
        # Linux: forget the peak so far, so that the growth is this run's own.
        Path("/proc/self/clear_refs").write_text("5")
        before = resident_kib("VmRSS")
        run(traced_programs()) if ours and turn == "first" else run()
        found[turn] = (resident_kib("VmHWM") - before) / 1024
    print(json.dumps(found))


def resident_kib(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def time_all(args: Args) -> tuple[dict[str, dict[str, float]], dict[str, list[float]]]:
    runs = {side: make(args) for side, make in MAKERS.items()}
    warm = {side: run() for side, run in runs.items()}
    differences = {peer: disagreement(warm["ours"], warm[peer]) for peer in PEERS}
    for peer, found in differences.items():
        if not max(found.values()) <= AGREEMENT:
            raise SystemExit(f"ours and the peer with {peer} disagree, so there is nothing to time: {found}")
    seconds: dict[str, list[float]] = {side: [] for side in runs}
    for _ in range(args.rounds):
        for side, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[side].append(time.perf_counter() - start)
    return differences, seconds


def main(args: Args) -> None:
    if args.child != "none":
        measure_child(args)
        return
    differences, seconds = time_all(args)
    memory = {side: peak_growth_mib(side, args) for side in (*MAKERS, "one")}
    medians = {side: statistics.median(times) for side, times in seconds.items()}
    packages = ("jaxsmooth", "jax", "jaxlib", "flax", "numpy", "torch", "transformers", "tokenizers")
    result = {
        "task": f"diagnose minilm-l6 on {args.limit} movie reviews, float32, from strings to per-layer numbers",
        "peers": f"torch eager, padded batches of {args.batch_size}; L3 by power iteration and by Lanczos",
        "time_ratio": {peer: medians[peer] / medians["ours"] for peer in PEERS},
        "memory_ratio": {
            peer: {turn: memory["ours"][turn] / memory[peer][turn] for turn in memory[peer]} for peer in PEERS
        },
        "seconds": {s: {"median": medians[s], "min": min(t), "max": max(t)} for s, t in seconds.items()},
        "peak_growth_mib": memory,
        "worst_relative_difference": {peer: max(found.values()) for peer, found in differences.items()},
        "relative_difference": differences,
        "versions": {name: importlib.metadata.version(name) for name in packages}
        | {"python": platform.python_version()},
        "machine": machine(),
        "command": " ".join(["python", "benchmarks/diagnose.py", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    aside = args.out.with_suffix(".part")
    aside.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    os.replace(aside, args.out)
    for peer in PEERS:
        print(f"{peer}: time ratio {result['time_ratio'][peer]:.2f}, memory ratio {result['memory_ratio'][peer]}")


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
