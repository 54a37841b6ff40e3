"""What it costs to follow the stack of a real encoder, next to encoding the same sentences as many times.

    python benchmarks/fate.py            # about a quarter of an hour on 2 free CPU cores

`follow` applies all blocks of minilm-l6 200 times to 64 sentences of 32 random tokens, watches distance, change and
returns of every sentence at every step, and keeps each one's state; `encode` without a trace, 200 times in a row from a
Python loop, does the forward passes alone. Both compiled before anything is timed, in one process, by turns, the first
by turns too; the tolerance of 0 decides no sentence before the end. Reported: median, least and largest over the rounds
of seconds and of the quotient of the two, by the clock and by the processor time of all threads. Target: at most 1.2.
Writes results/fate.json after every round.
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
from machine import processor

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
    """The two that are compared, compiled; each returns when its work is done."""
    model, _ = jaxsmooth.load(args.model)
    tokens = np.random.default_rng(0).integers(1000, 30000, (args.sentences, args.tokens)).astype(np.int32)
    batch = jax.device_put(jaxsmooth.Batch(tokens, 0 * tokens, np.ones_like(tokens, bool)))
    start = jaxsmooth.embed(model, batch)

    @jax.jit
    def run(model: Any, start: jax.Array) -> Any:
        apply = token_map(model, "stack", jnp.int32(0), batch.mask)
        return follow(apply, start, batch.mask, steps=args.steps, tolerance=0.0)

    def encodes(passes: int) -> None:
        for _ in range(passes):
            hidden, _ = jaxsmooth.encode(model, batch, collect=jaxsmooth.keep_nothing)
            hidden.block_until_ready()

    compiled = run.lower(model, start).compile()
    encodes(2)
    return {
        "encode": lambda: encodes(args.steps),
        "follow": lambda: jax.block_until_ready(compiled(model, start)),
    }


def timed(call: Callable[[], Any]) -> dict[str, float]:
    clock, processor = time.perf_counter(), time.process_time()
    call()
    return {"seconds": time.perf_counter() - clock, "processor": time.process_time() - processor}


def result(args: Args, rounds: list[dict[str, dict[str, float]]], load: float) -> dict[str, Any]:
    units = ("seconds", "processor")
    return {
        **{key: value for key, value in dataclasses.asdict(args).items() if key != "out"},
        "rounds": len(rounds),
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "load at the start": load,
        "versions": {"jax": jax.__version__},
        "median, least, largest": {
            name: {unit: _spread([each[name][unit] for each in rounds]) for unit in units} for name in rounds[0]
        },
        "follow over encode": {
            unit: _spread([each["follow"][unit] / each["encode"][unit] for each in rounds]) for unit in units
        },
    }


def main(args: Args) -> None:
    load, calls, rounds = os.getloadavg()[0], sides(args), []
    for place in range(args.rounds):
        order = list(calls) if place % 2 == 0 else list(calls)[::-1]
        taken = {name: timed(calls[name]) for name in order}
        rounds.append({name: taken[name] for name in calls})
        text = dumps_strict(result(args, rounds, load), indent=1)
        atomic_write(args.out, text + "\n")
        print(text, flush=True)


def _spread(numbers: list[float]) -> list[float]:
    return [statistics.median(numbers), min(numbers), max(numbers)]


if __name__ == "__main__":
    main(tyro.cli(Args))
