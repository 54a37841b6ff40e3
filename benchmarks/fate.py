"""What it costs to follow the stack of a real encoder, next to encoding the same sentences as many times.

    python benchmarks/fate.py            # about 4 minutes on 2 free CPU cores

`follow` applies all blocks of minilm-l6 200 times to 64 sentences of 32 random tokens, watches distance, change and
returns of every sentence at every step, and keeps each one's state; `encode` without a trace, 200 times in a row from a
Python loop, does the forward passes alone. Both compiled and warmed, in one process, by turns; the tolerance of 0
decides no sentence before the end. Reported: median, least and largest over the rounds of seconds and of the quotient
of the two, by the clock and by the processor time of all threads, and the same for a run that may stop early. Target:
at most 1.2. Writes results/fate.json.
"""

import dataclasses
import datetime
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import jaxsmooth
from jaxsmooth.files import atomic_write, dumps_strict
from jaxsmooth.studies.fate.maps import token_map
from jaxsmooth.theory import follow


@dataclasses.dataclass(frozen=True)
class Args:
    """What to measure."""

    model: str = "minilm-l6"
    """Model asset, directory or hub id."""
    sentences: int = 64
    """Rows of the batch."""
    tokens: int = 32
    """Tokens of each row."""
    steps: int = 200
    """Times the stack is applied."""
    rounds: int = 3
    """Timed rounds."""
    out: Path = Path(__file__).parent / "results" / "fate.json"
    """Where the results go."""


def sides(args: Args) -> dict[str, Callable[[], Any]]:
    """The two that are compared, and the run that may stop early; each returns when its work is done."""
    model, _ = jaxsmooth.load(args.model)
    tokens = np.random.default_rng(0).integers(1000, 30000, (args.sentences, args.tokens)).astype(np.int32)
    batch = jax.device_put(jaxsmooth.Batch(tokens, 0 * tokens, np.ones_like(tokens, bool)))
    start = jaxsmooth.embed(model, batch)

    @jax.jit(static_argnames="tolerance")
    def run(model: Any, start: jax.Array, tolerance: float | None) -> Any:
        return follow(
            token_map(model, "stack", jnp.int32(0), batch.mask),
            start,
            batch.mask,
            steps=args.steps,
            tolerance=tolerance,
        )

    def encodes() -> None:
        for _ in range(args.steps):
            hidden, _ = jaxsmooth.encode(model, batch, collect=jaxsmooth.keep_nothing)
            hidden.block_until_ready()

    return {
        "encode": encodes,
        "follow": lambda: jax.block_until_ready(run(model, start, 0.0)),
        "follow, early stop": lambda: jax.block_until_ready(run(model, start, None)),
    }


def timed(call: Callable[[], Any]) -> dict[str, float]:
    clock, processor = time.perf_counter(), time.process_time()
    call()
    return {"seconds": time.perf_counter() - clock, "processor": time.process_time() - processor}


def main(args: Args) -> None:
    calls = sides(args)
    warm = dataclasses.replace(args, steps=2)
    for call in sides(warm).values():
        call()
    jax.block_until_ready(calls["follow, early stop"]())
    calls["follow"]()
    rounds = [{name: timed(call) for name, call in calls.items()} for _ in range(args.rounds)]
    measured = {
        name: {unit: _spread([each[name][unit] for each in rounds]) for unit in ("seconds", "processor")}
        for name in calls
    }
    quotients = {
        name: {
            unit: _spread([each[name][unit] / each["encode"][unit] for each in rounds])
            for unit in ("seconds", "processor")
        }
        for name in calls
        if name != "encode"
    }
    result = {
        **{key: value for key, value in dataclasses.asdict(args).items() if key != "out"},
        "date": datetime.date.today().isoformat(),
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "versions": {"jax": jax.__version__},
        "median, least, largest": measured,
        "over encode": quotients,
    }
    atomic_write(args.out, dumps_strict(result, indent=1) + "\n")
    print(dumps_strict(result, indent=1))


def _spread(numbers: list[float]) -> list[float]:
    return [statistics.median(numbers), min(numbers), max(numbers)]


if __name__ == "__main__":
    main(tyro.cli(Args))
