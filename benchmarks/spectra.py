"""Spectra of attention operators against numpy's SVD, and attention that is never formed against XLA's own GEMM.

    python benchmarks/spectra.py             # everything, float32, 2 CPU cores: about half an hour
    python benchmarks/spectra.py --tokens 2048 8192 --side 512 --rounds 2     # a try in a minute

Heads: the mixing rate sqrt(lambda) of many heads by Lanczos against numpy's batched SVD, and of one long head. Rounds
of both are interleaved in one warm process and must agree to 1e-6 before anything is timed (in float64, both sides;
the float32 time is given beside it with its own error). A certified upper bound, by matrix products alone, is timed
with them; it must be within 1e-3 of the exact value and not below it. Matrix-free: softmax(Q K^T / sqrt d) applied and
transposed at growing length, with the rate of its multiplications against that of XLA's GEMMs of a square matrix and of
the shapes of its own blocks, measured in turn in the same process; memory is the growth of the peak resident set over
one build and one application of each kind, in a process of its own. Results go to benchmarks/results/spectra.json and
spectra.md.

numpy's SVD should run on its BLAS's own choice of kernels: leave OPENBLAS_CORETYPE and the like unset. On a machine
that is not idle its threads wait for each other, which costs it a factor of ten: then set OPENBLAS_NUM_THREADS=1.
"""

import dataclasses
import datetime
import importlib.metadata
import itertools
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jaxsmooth.theory import Blocked, Centred, Dense, blocked_attention, mixing_rate, operator_norm
from jaxsmooth.theory.norms import squared_norm

HERE = Path(__file__).parent
AGREEMENT = 1e-6
CERTIFIED = 1e-3
LONG = 50_000  # tokens from which on fewer rounds are run: one application takes half a minute


@dataclasses.dataclass(frozen=True)
class Args:
    """What to measure."""

    heads: int = 144
    """Heads in the batch."""
    length: int = 128
    """Tokens of each."""
    side: int = 2048
    """Tokens of the one long head."""
    tokens: tuple[int, ...] = (8192, 16384, 32768, 65536, 131072)
    """Lengths of the attention that is never formed."""
    width: int = 64
    """Its head width."""
    block: int = 1024
    """Tokens in a block of it."""
    rounds: int = 5
    """Timed rounds of each side, after one warm-up."""
    out: Path = HERE / "results" / "spectra.json"
    """Where the results go."""
    child: int = 0
    """Internal: measure the memory at this length and print it."""


def attention(rng: np.random.Generator, heads: int, length: int) -> np.ndarray:
    """Softmax of Gaussian scores, logits of standard deviation 2."""
    logits = 2 * rng.standard_normal((heads, length, length))
    weight = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weight / weight.sum(axis=-1, keepdims=True)


def svd_rate(attn: np.ndarray) -> np.ndarray:
    """sqrt(lambda) = ||J A|| by numpy's SVD."""
    return np.linalg.svd(attn - attn.mean(axis=-2, keepdims=True), compute_uv=False)[..., 0]


def interleaved(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, dict[str, float]]:
    """Median, least and largest seconds of each side, in turn, and the least of processor time over all threads."""
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    processor: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, run in sides.items():
            start, used = time.perf_counter(), time.process_time()
            run()
            seconds[side].append(time.perf_counter() - start)
            processor[side].append(time.process_time() - used)
    return {
        side: {"median": statistics.median(t), "min": min(t), "max": max(t), "processor": min(processor[side])}
        for side, t in seconds.items()
    }


def certified(attn: jax.Array) -> jax.Array:
    """A proved upper bound of ||J A||, [...]."""
    centred = attn - jnp.mean(attn, axis=-2, keepdims=True)
    flat = centred.reshape(-1, *attn.shape[-2:])
    return jax.vmap(lambda matrix: squared_norm(matrix).up)(flat).reshape(attn.shape[:-2])


def compare(attn: np.ndarray, ours: Callable[[jax.Array], jax.Array], rounds: int) -> dict[str, Any]:
    """Ours against numpy's SVD in both precisions: agreement first, then interleaved times."""
    exact = svd_rate(attn)
    result: dict[str, Any] = {}
    for name in ("float64", "float32"):
        typed = attn.astype(name)
        device = jnp.asarray(typed)
        runs = {"ours": jax.jit(ours), "certified": jax.jit(certified)}
        found = {side: np.asarray(run(device), np.float64) / exact - 1 for side, run in runs.items()}
        error, excess = float(np.max(np.abs(found["ours"]))), found["certified"]
        if not error <= AGREEMENT * (1 if name == "float64" else 10):
            raise SystemExit(f"ours and numpy's SVD differ by {error:.1e} in {name}, so there is nothing to time.")
        # Forming J A rounds by itself; what is certified is the norm of the matrix that came out.
        if not -10 * np.finfo(name).eps <= excess.min() <= excess.max() <= CERTIFIED:
            raise SystemExit(f"the certified bound in {name} is off by {excess.min():.1e} to {excess.max():.1e}.")
        sides: dict[str, Callable[[], Any]] = {
            side: lambda run=run, d=device: run(d).block_until_ready() for side, run in runs.items()
        }
        seconds = interleaved(sides | {"numpy": lambda t=typed: svd_rate(t)}, rounds)
        result[name] = {
            "times_faster": times_faster(seconds, "ours"),
            "times_faster_certified": times_faster(seconds, "certified"),
            "relative_error": error,
            "certified_excess": float(excess.max()),
            "seconds": seconds,
        }
    return result


def times_faster(seconds: dict[str, dict[str, float]], side: str) -> dict[str, float]:
    """Ratios of numpy to a side; that of processor time hardly depends on what else the machine does."""
    return {key: seconds["numpy"][key] / seconds[side][key] for key in ("median", "processor")}


def bench_heads(args: Args) -> dict[str, Any]:
    attn = attention(np.random.default_rng(0), args.heads, args.length)
    mask = jnp.ones((args.heads, args.length), bool)
    # A residual of 1e-4 of the eigenvalue makes an error of about its square over the gap.
    return compare(attn, lambda a: mixing_rate(a, mask, tolerance=1e-4), args.rounds)


def bench_one(args: Args) -> dict[str, Any]:
    attn = attention(np.random.default_rng(1), 1, args.side)[0]
    mask = jnp.ones(args.side, bool)
    return compare(attn, lambda a: operator_norm(Centred(Dense(a, mask)), tolerance=1e-4).value, args.rounds)


def make_operator(args: Args, tokens: int) -> tuple[Blocked, jax.Array]:
    rng = np.random.default_rng(2)
    query, key, hidden = (jnp.asarray(rng.standard_normal((tokens, args.width), np.float32)) for _ in range(3))
    build = jax.jit(lambda q, k: blocked_attention(q, k, jnp.ones(tokens, bool), block=args.block))
    return build(query, key), hidden


def gemm_rates(args: Args) -> dict[str, Callable[[], tuple[float, float]]]:
    """XLA's own products, seconds and operations: a large square one, and those of a block of attention alone."""
    rng = np.random.default_rng(3)
    square = jnp.asarray(rng.standard_normal((2048, 2048), np.float32))
    rows = jnp.asarray(rng.standard_normal((args.block, args.width), np.float32))
    count = 64

    @jax.jit
    def blocks(rows: jax.Array) -> jax.Array:
        # Both products of a block and nothing between them; each depends on the last, so none is left out.
        return jax.lax.fori_loop(0, count, lambda _, x: (x @ rows.T) @ rows * 1e-6 + rows, rows)

    multiply = jax.jit(lambda a: a @ a)

    def timed(run: Callable[[], jax.Array], operations: float) -> Callable[[], tuple[float, float]]:
        run().block_until_ready()

        def once() -> tuple[float, float]:
            start = time.perf_counter()
            run().block_until_ready()
            return time.perf_counter() - start, operations

        return once

    return {
        "square": timed(lambda: multiply(square), 2.0 * 2048**3),
        "blocks": timed(lambda: blocks(rows), 4.0 * args.block**2 * args.width * count),
    }


def bench_free(args: Args, tokens: int) -> dict[str, Any]:
    """Rates in GFLOP/s, interleaved with the GEMMs'; an application is two products of n^2 d."""
    operator, hidden = make_operator(args, tokens)
    gemms = gemm_rates(args)
    forward = jax.jit(lambda op, x: op.apply(x))
    backward = jax.jit(lambda op, x: op.transpose_apply(x))
    operations = 4.0 * tokens**2 * args.width
    sides = {
        "apply": lambda: forward(operator, hidden).block_until_ready(),
        "transpose_apply": lambda: backward(operator, hidden).block_until_ready(),
    }
    for run in sides.values():
        run()
    rates: dict[str, list[float]] = {name: [] for name in (*sides, *gemms)}
    for _ in range(args.rounds if tokens < LONG else min(args.rounds, 2)):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            rates[name].append(operations / (time.perf_counter() - start) / 1e9)
            for other, gemm in gemms.items():
                # As long as a good fraction of a second, before and after every application.
                spent = [gemm() for _ in range(8)]
                rates[other].append(sum(part[1] for part in spent) / sum(part[0] for part in spent) / 1e9)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "tokens": tokens,
        "gflops": {name: {"median": medians[name], "min": min(v), "max": max(v)} for name, v in rates.items()},
        "seconds": {name: operations / medians[name] / 1e9 for name in sides},
        "share_of_gemm": {name: {other: medians[name] / medians[other] for other in gemms} for name in sides},
        "peak_growth_mib": peak_growth_mib(args, tokens),
        "the_matrix_mib": tokens**2 * 4 / 2**20,
    }


def peak_growth_mib(args: Args, tokens: int) -> float:
    options = {"child": tokens, "width": args.width, "block": args.block}
    command = [sys.executable, __file__, *(f"--{name}={value}" for name, value in options.items())]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.splitlines()[-1])


def measure_child(args: Args) -> None:
    # What jax itself takes at its first product is not the operator's.
    jnp.ones((8, 8)).sum().block_until_ready()
    Path("/proc/self/clear_refs").write_text("5")
    before = resident_kib("VmRSS")
    operator, hidden = make_operator(args, args.child)
    jax.jit(lambda op, x: op.transpose_apply(op.apply(x)))(operator, hidden).block_until_ready()
    print((resident_kib("VmHWM") - before) / 1024)


def resident_kib(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def exponents(found: list[dict[str, Any]]) -> list[float]:
    """log2 of the growth of time over that of length, between neighbouring lengths: 2 is n^2."""
    pairs = itertools.pairwise(found)
    return [
        math.log(b["seconds"]["apply"] / a["seconds"]["apply"]) / math.log(b["tokens"] / a["tokens"]) for a, b in pairs
    ]


def machine() -> dict[str, object]:
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return {"cpu": names[0] if names else platform.processor(), "cores": os.cpu_count(), "system": platform.platform()}


def main(args: Args) -> None:
    if args.child:
        measure_child(args)
        return
    free = [bench_free(args, tokens) for tokens in args.tokens]
    # After the float32 part: a process-wide switch.
    jax.config.update("jax_enable_x64", True)
    packages = ("jaxsmooth", "jax", "jaxlib", "numpy")
    result = {
        "task": "mixing rates against numpy's SVD; attention never formed against XLA's GEMM",
        "heads": {"heads": args.heads, "tokens": args.length, **bench_heads(args)},
        "one_head": {"tokens": args.side, **bench_one(args)},
        "matrix_free": {"width": args.width, "block": args.block, "lengths": free, "exponents": exponents(free)},
        "versions": {name: importlib.metadata.version(name) for name in packages}
        | {"python": platform.python_version()},
        "machine": machine(),
        "command": " ".join(["python", "benchmarks/spectra.py", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    text = markdown(result)
    for path, content in ((args.out, json.dumps(result, indent=2) + "\n"), (args.out.with_suffix(".md"), text)):
        aside = path.with_suffix(".part")
        aside.write_text(content, encoding="utf-8")
        os.replace(aside, path)
    print(text)


def markdown(result: dict[str, Any]) -> str:
    """The same for reading."""
    rows = []
    for part in ("heads", "one_head"):
        size = f"{result[part].get('heads', 1)} x {result[part]['tokens']} tokens"
        for precision in ("float64", "float32"):
            found = result[part][precision]
            times = " | ".join(spread(found["seconds"][side]) for side in ("numpy", "ours", "certified"))
            faster = f"{ratios(found['times_faster'])} | {found['relative_error']:.1e}"
            bound = f"{ratios(found['times_faster_certified'])} | {found['certified_excess']:.1e}"
            rows.append(f"| {size} | {precision} | {times} | {faster} | {bound} |")
    free = []
    for row in result["matrix_free"]["lengths"]:
        shares = [
            row["share_of_gemm"][way][gemm] for way in ("apply", "transpose_apply") for gemm in ("square", "blocks")
        ]
        cells = [f"{row['seconds'][way]:.3g}" for way in ("apply", "transpose_apply")] + [f"{x:.2f}" for x in shares]
        memory = f"{row['peak_growth_mib']:.0f} | {row['the_matrix_mib']:,.0f}"
        free.append(f"| {row['tokens']} | {' | '.join(cells)} | {memory} |")
    exponents = ", ".join(f"{value:.2f}" for value in result["matrix_free"]["exponents"])
    machine = result["machine"]
    return f"""# Spectra and matrix-free attention

`{result["command"]}`, {machine["cpu"]}, {machine["cores"]} cores, shared with other work; {result["date"]}.
Seconds are medians [least, largest] of interleaved rounds in one process; "times faster" is numpy's time over ours,
by medians (by least processor time). OPENBLAS_NUM_THREADS={os.environ.get("OPENBLAS_NUM_THREADS", "unset")}.

sqrt(lambda) = ||JA||: numpy's SVD, our Lanczos estimate, and our certified upper bound (products alone).

| heads | precision | numpy | ours | certified | times faster | error | certified: times faster | excess |
|---|---|---|---|---|---|---|---|---|
{chr(10).join(rows)}

softmax(QK^T / sqrt d) never formed, float32, d = {result["matrix_free"]["width"]}: seconds, and the rate of its
multiplications over that of XLA's GEMM of a 2048 x 2048 matrix (square) and of the shapes of its own blocks.

| tokens | apply, s | transpose, s | apply / square | / blocks | transpose / square | / blocks | MiB | A itself, MiB |
|---|---|---|---|---|---|---|---|---|
{chr(10).join(free)}

Growth of the time of one application between neighbouring lengths, as a power of n: {exponents}.
"""


def ratios(faster: dict[str, float]) -> str:
    return f"{faster['median']:.3g} ({faster['processor']:.3g})"


def spread(seconds: dict[str, float]) -> str:
    return f"{seconds['median']:.3g} [{seconds['min']:.3g}, {seconds['max']:.3g}]"


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
