"""What `diagnose` spends its time on when all is compiled, on one core and on all: the forward pass, L3, the rest.

    python benchmarks/diagnose_parts.py          # some minutes, most of them compiling; nothing else running

256 film reviews, minilm-l6, the batches that `diagnose` makes. Timed by turns: the encoder alone, every measurement,
and all but L3, which XLA then leaves out. Then how many products of one token with one matrix L3's search takes and the
rate at which this machine multiplies matrices of their shape: the time below which no program that applies the operator
as often can come. Each number of cores is a process of its own, for XLA sets up its threads once. Writes
results/diagnose_parts.json.
"""

import dataclasses
import datetime
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tyro
from jaxtyping import Array
from machine import machine

import jaxsmooth
from jaxsmooth import Encoder
from jaxsmooth.assets.texts import read_texts
from jaxsmooth.files import atomic_write, dumps_strict
from jaxsmooth.inputs.batches import encoded_batches
from jaxsmooth.studies.measurements import measure_batch, model_norms, model_spectra
from jaxsmooth.theory.block.attention_operator import squared_operator_norm
from jaxsmooth.types import Batch, BlockTrace

HERE = Path(__file__).parent
ROWS = 256
"""Vectors that the search multiplies at once (`attention_operator.TOKENS_AT_ONCE`, two for each token)."""


@dataclasses.dataclass(frozen=True)
class Args:
    """What to time."""

    rounds: int = 3
    """Of each part."""
    cores: int = 0
    """Measure here, on so many, and print the numbers."""
    out: Path = HERE / "results" / "diagnose_parts.json"
    """Where the results go."""


def measure(rounds: int) -> dict[str, Any]:
    """Seconds of each part, and what bounds L3's."""
    model, tokenizer = jaxsmooth.load("minilm-l6")
    texts = read_texts("movie-reviews", 256)
    batches = [one.batch for one in encoded_batches(model.config, tokenizer, texts, tokens_per_batch=512)]
    norms, spectra = model_norms(model), model_spectra(model)

    def everything(batch: Batch) -> dict[str, Array]:
        return measure_batch(model, norms, batch, None, spectra)

    parts: dict[str, Callable[[Batch], Any]] = {
        "encoder": lambda batch: jaxsmooth.encode(model, batch)[0],
        "all": everything,
        "all but L3": lambda batch: {name: value for name, value in everything(batch).items() if name != "L3"},
    }
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    compiled = {name: jax.jit(part) for name, part in parts.items()}
    for turn in range(rounds + 1):  # the first compiles
        for name, part in compiled.items():
            start = time.perf_counter()
            for batch in batches:
                jax.block_until_ready(part(batch))
            if turn:
                seconds[name].append(round(time.perf_counter() - start, 3))
    # Of one token one application multiplies its 384 numbers with four matrices of 384 x 384.
    applied = sum(int(steps(model, batch).sum()) * batch.mask.shape[1] for batch in batches)
    operations, rate = applied * 4 * 2 * model.config.width**2, products(model.config.width)
    return {
        "seconds": seconds,
        "tokens": {
            "real": int(sum(batch.mask.sum() for batch in batches)),
            "padded": sum(b.mask.size for b in batches),
        },
        "gflop_of_l3": round(operations / 1e9, 1),
        "gflop_per_second": round(rate / 1e9, 1),
        "least_seconds_of_l3": round(operations / rate, 2),
    }


@jax.jit
def steps(model: Encoder, batch: Batch) -> Array:
    """Applications of the block operator that each layer and text takes, [L B]."""

    def collect(trace: BlockTrace) -> Array:
        precision = jnp.where(batch.mask[..., None], 1 / (trace.std_attn * trace.std_mlp), 0)
        return squared_operator_norm(trace.block, trace.attn, precision, batch.mask).steps

    return jaxsmooth.encode(model, batch, collect=collect)[1]


def products(width: int) -> float:
    """Operations a second of four products, one after the other, of `ROWS` vectors with a square matrix."""
    vectors, matrix = jnp.ones((ROWS, width)), jnp.eye(width)
    four = jax.jit(lambda vectors: (((vectors @ matrix) @ matrix) @ matrix) @ matrix)
    rates = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(500):
            found = four(vectors)
        found.block_until_ready()
        rates.append(500 * 4 * 2 * ROWS * width**2 / (time.perf_counter() - start))
    return statistics.median(rates)


def main(args: Args) -> None:
    available = sorted(os.sched_getaffinity(0))
    if args.cores:
        os.sched_setaffinity(0, available[: args.cores])  # before XLA counts them
        print(json.dumps(measure(args.rounds)))
        return
    found: dict[str, Any] = {"date": datetime.date.today().isoformat(), "machine": machine()}
    for cores in sorted({1, len(available)}):
        command = [sys.executable, __file__, "--cores", str(cores), "--rounds", str(args.rounds)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[str(cores)] = json.loads(done.stdout.splitlines()[-1])
        print(cores, found[str(cores)])
    atomic_write(args.out, dumps_strict(found, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Args))
