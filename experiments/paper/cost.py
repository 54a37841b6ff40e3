"""What a fusion costs: parameters, processor time of a training step, memory of the compiled step.

    python -m experiments.paper.cost               # every model and fusion of tables 2 and 3

Time: about two minutes of processor time on 2 CPU cores. Expect: weights, max and gate within a few per cent of none,
and a few hundred parameters at most; concat, a matrix for each layer, more of both. Shi et al. (2022) state no cost.

The steps of all fusions are compiled first and then run by turns, in another order in every round, so that a machine
that becomes busy slows all alike; the time is the process's, over all its threads. Writes results/paper/cost.json.
"""

import dataclasses
import datetime
import itertools
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from jaxsmooth.files import atomic_write, dumps_strict
from jaxsmooth.training.loop import open_stream
from jaxsmooth.training.run import describe, prepare
from jaxsmooth.training.sharding import place_batch
from jaxsmooth.training.step import compile_step

from .grid import machine
from .settings import MODELS, RESULTS, run_settings

FUSIONS = ("none", "weights", "concat", "max", "gate")


@dataclasses.dataclass(frozen=True)
class Args:
    """What to time."""

    models: tuple[str, ...] = MODELS
    """Models."""
    task: str = "movie-reviews"
    """Whose batches."""
    rounds: int = 12
    """Of one step of every fusion."""
    out: Path = RESULTS
    """Where the results go."""


def step_of(task: str, model: str, fusion: str) -> dict[str, Any]:
    """A compiled step with its state and batch, and what is known before it runs."""
    run = prepare(run_settings(task, model, 0, fusion=fusion))
    with open_stream(run) as stream:
        batch = place_batch(next(stream), run.mesh, rows=run.config.batch_size)
    state = run.first_state()
    compiled = compile_step(run.trainer).lower(state, batch).compile()
    plan = compiled.memory_analysis()
    return {
        "step": compiled, "state": state, "batch": batch, "parameters": describe(run)["parameters"],
        "bytes": plan.argument_size_in_bytes + plan.temp_size_in_bytes, "shape": batch.batch.mask.shape,
    }  # fmt: skip


def measured(args: Args, model: str) -> dict[str, dict[str, Any]]:
    """The cost of every fusion."""
    steps, seconds = {fusion: step_of(args.task, model, fusion) for fusion in FUSIONS}, {f: [] for f in FUSIONS}
    for number in range(args.rounds + 1):
        for fusion in itertools.islice(itertools.cycle(FUSIONS), number, number + len(FUSIONS)):
            one, started = steps[fusion], time.process_time()
            one["state"], _ = jax.block_until_ready(one["step"](one["state"], one["batch"]))
            if number:  # the first round warms up
                seconds[fusion].append(time.process_time() - started)
    return {
        fusion: {
            "parameters": one["parameters"],
            "bytes": one["bytes"],
            "shape": list(one["shape"]),
            "processor_seconds": [round(x, 5) for x in seconds[fusion]],
            "over_none": round(float(np.median(np.divide(seconds[fusion], seconds["none"]))), 4),
        }
        for fusion, one in steps.items()
    }


def main(args: Args) -> None:
    found = {model: measured(args, model) for model in args.models}
    about = {"command": "python -m experiments.paper.cost", "machine": machine(), "date": str(datetime.date.today())}
    atomic_write(args.out / "cost.json", dumps_strict({**about, "task": args.task, "models": found}, indent=1) + "\n")
    for model, fusions in found.items():
        for fusion, one in fusions.items():
            milliseconds = 1000 * np.median(one["processor_seconds"])
            print(f"{model} {fusion}: {one['parameters']:,} parameters, {one['bytes'] / 1e6:.0f} MB, "
                  f"{milliseconds:.0f} ms a step, {one['over_none']:.3f} of none")  # fmt: skip


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
