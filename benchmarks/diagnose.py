"""Time and memory of `jaxsmooth.diagnose` against torch eager plus batched torch algebra.

    python benchmarks/diagnose.py            # 256 movie reviews, minilm-l6, 2 CPU cores: a few minutes

Needs the `parity` extra. Both sides start from strings and must agree to 1e-3 before anything is timed. Time:
rounds of both, interleaved in one warm process. Memory: growth of the peak resident set while the first run of
each (compilation included) goes on, in a process of its own. Results go to benchmarks/results/diagnose.json.
"""

import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

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
    solver: Literal["power", "lanczos"] = "lanczos"
    """How the peer computes L3: its fastest choice, or power iteration as most people would."""
    out: Path = HERE / "results" / "diagnose.json"
    """Where the results go."""
    child: Literal["none", "ours", "peer"] = "none"
    """Internal: measure the memory of one side and print it."""


def make_ours(args: Args) -> Callable[[], dict[str, dict]]:
    import jaxsmooth
    from jaxsmooth.assets.texts import read_texts

    model, tokenizer = jaxsmooth.load("minilm-l6")
    texts = read_texts("movie-reviews", args.limit)

    def run() -> dict[str, dict]:
        found = jaxsmooth.diagnose(model, tokenizer, texts)
        fields = {f.name: getattr(found, f.name) for f in dataclasses.fields(found)} | found.rates
        return {name: vars(spread) for name, spread in fields.items() if isinstance(spread, jaxsmooth.diagnosis.Spread)}

    return run


def make_peer(args: Args) -> Callable[[], dict[str, dict]]:
    from diagnose_torch import Peer

    from jaxsmooth.assets.fetch import fetch
    from jaxsmooth.assets.texts import read_texts

    peer = Peer(Path(fetch("minilm-l6")), args.batch_size, args.solver)
    texts = read_texts("movie-reviews", args.limit)
    return lambda: peer.diagnose(texts)


MAKERS = {"ours": make_ours, "peer": make_peer}


def disagreement(ours: dict[str, dict], peer: dict[str, dict]) -> dict[str, float]:
    """Largest relative difference of mean, min and max for every quantity that the peer computes."""
    return {
        name: max(float(np.max(np.abs(ours[name][k] - v) / np.abs(v))) for k, v in fields.items())
        for name, fields in peer.items()
    }


def peak_growth_mib(side: str, args: Args) -> float:
    """Growth of the peak resident set of one side, measured by a child process."""
    options = {"child": side, "limit": args.limit, "batch-size": args.batch_size, "solver": args.solver}
    command = [sys.executable, __file__, *(f"--{name}={value}" for name, value in options.items())]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.splitlines()[-1])


def measure_child(args: Args) -> None:
    run = MAKERS[args.child](args)
    # Linux: forget the peak that loading left, so that the growth is the run's own.
    Path("/proc/self/clear_refs").write_text("5")
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    run()
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / 2**20)


def time_both(args: Args) -> tuple[dict[str, float], dict[str, list[float]]]:
    runs = {side: make(args) for side, make in MAKERS.items()}
    warm = {side: run() for side, run in runs.items()}
    differences = disagreement(warm["ours"], warm["peer"])
    worst = max(differences, key=differences.__getitem__)
    if not differences[worst] <= AGREEMENT:
        raise SystemExit(f"the two sides disagree, so there is nothing to time: {differences}")
    seconds: dict[str, list[float]] = {side: [] for side in runs}
    for _ in range(args.rounds):
        for side, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[side].append(time.perf_counter() - start)
    return differences, seconds


def machine() -> dict[str, object]:
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return {"cpu": names[0] if names else platform.processor(), "cores": os.cpu_count(), "system": platform.platform()}


def main(args: Args) -> None:
    if args.child != "none":
        measure_child(args)
        return
    differences, seconds = time_both(args)
    memory = {side: peak_growth_mib(side, args) for side in MAKERS}
    medians = {side: statistics.median(times) for side, times in seconds.items()}
    packages = ("jaxsmooth", "jax", "jaxlib", "flax", "numpy", "torch", "transformers", "tokenizers")
    result = {
        "task": f"diagnose minilm-l6 on {args.limit} movie reviews, float32, from strings to per-layer numbers",
        "peer": f"torch eager, padded batches of {args.batch_size}, L3 by {args.solver}",
        "time_ratio": medians["peer"] / medians["ours"],
        "memory_ratio": memory["ours"] / memory["peer"],
        "seconds": {s: {"median": medians[s], "min": min(t), "max": max(t)} for s, t in seconds.items()},
        "peak_growth_mib": memory,
        "worst_relative_difference": max(differences.values()),
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
    print(f"time: peer {medians['peer']:.2f} s, ours {medians['ours']:.2f} s, ratio {result['time_ratio']:.2f}")
    print(f"memory: ours {memory['ours']:.0f} MiB, peer {memory['peer']:.0f} MiB, ratio {result['memory_ratio']:.2f}")


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
