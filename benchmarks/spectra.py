"""Spectra of attention operators against numpy's SVD, and attention that is never formed against XLA's own GEMM.

    python benchmarks/spectra.py             # everything, float32, 2 CPU cores: about half an hour
    python benchmarks/spectra.py --tokens 2048 8192 --side 512 --rounds 2     # a try in a minute

Heads: the mixing rate sqrt(lambda) of many heads by Lanczos against numpy's batched SVD, and of one long head. Rounds
of both, and of torch's and scipy's routines (spectra_peers.py), are interleaved in one warm process; ours and numpy's
must agree to 1e-6 before anything is timed, whatever the arithmetic:
errors are against numpy's SVD in float64 of the float64 matrix, in float32 too, where numpy's times in both precisions
are given. A certified upper bound, by matrix products alone, is timed
with the many heads and must be within 1e-3 of the exact value and not below it. Matrix-free: softmax(Q K^T / sqrt d)
applied and transposed at growing length, with the rate of its multiplications against that of XLA's GEMMs of a square
matrix and of the shapes of its own blocks, measured in turn in the same process; memory is the growth of the peak
resident set over one build and one application of each kind, in a process of its own. Results go to
benchmarks/results/spectra.json and spectra.md.

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
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from machine import machine
from spectra_page import markdown
from spectra_peers import PEERS

from jaxsmooth.linalg.enclosed_norms import squared_norm
from jaxsmooth.theory import Blocked, Centred, Dense, blocked_attention, mixing_rate, operator_norm

HERE = Path(__file__).parent
AGREEMENT = 1e-6
CERTIFIED = 1e-3
LONG = 50_000  # tokens from which on fewer rounds are run: one application takes half a minute
VERSIONS = ("jaxsmooth", "jax", "jaxlib", "numpy", "torch", "scipy")
SUSTAINED = 1.5  # seconds of each GEMM next to every application


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
    block: int = 2048
    """Tokens in a block of it."""
    rounds: int = 5
    """Timed rounds of each side, after one warm-up."""
    parts: tuple[Literal["heads", "one_head", "matrix_free"], ...] = ("heads", "one_head", "matrix_free")
    """What to measure; parts measured before are kept."""
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
    return jax.vmap(lambda matrix: squared_norm(matrix).upper)(flat).reshape(attn.shape[:-2])


def compare(
    attn: np.ndarray, programs: dict[str, Callable[[jax.Array], jax.Array]], rounds: int
) -> dict[str, dict[str, Any]]:
    """What is asked for against numpy's SVD in both precisions: agreement first, then interleaved times."""
    exact = svd_rate(attn)
    result: dict[str, Any] = {}
    for name in ("float64", "float32"):
        typed = attn.astype(name)
        device = jnp.asarray(typed)
        runs = {side: jax.jit(program) for side, program in programs.items()}
        found = {side: np.asarray(run(device), np.float64) / exact - 1 for side, run in runs.items()}
        error = float(np.max(np.abs(found["ours"])))
        if not error <= AGREEMENT:
            raise SystemExit(f"ours and numpy's SVD differ by {error:.1e} in {name}, so there is nothing to time.")
        sides: dict[str, Callable[[], Any]] = {
            side: lambda run=run, d=device: run(d).block_until_ready() for side, run in runs.items()
        }
        peers: dict[str, Callable[[], Any]] = {"numpy": lambda t=typed: svd_rate(t)}
        reference = "numpy"
        if name != "float64":
            peers[reference := "numpy in float64"] = lambda: svd_rate(attn)
        stacked = typed.reshape(-1, *typed.shape[-2:])
        peers |= {peer: lambda run=run, t=stacked: run(t) for peer, run in PEERS.items()}
        seconds = interleaved(sides | peers, rounds)
        result[name] = {"relative_error": error, "times_faster": times_faster(seconds, "ours"), "seconds": seconds}
        result[name]["peers"] = {
            peer: {
                "relative_error": float(np.max(np.abs(run(stacked).reshape(exact.shape) / exact - 1))),
                "times_faster": times_faster(seconds, "ours", peer),
            }
            for peer, run in PEERS.items()
        }
        result[name]["times_faster_than_float64"] = times_faster(seconds, "ours", reference)
        if "certified" in found:
            result[name] |= check_certificate(name, found["certified"], seconds)
    return result


def check_certificate(precision: str, excess: np.ndarray, seconds: dict[str, dict[str, float]]) -> dict[str, Any]:
    """By how much the certified bounds exceed the norms, which must be little, and how long they take."""
    # Forming J A rounds by itself; what is certified is the norm of the matrix that came out.
    if not -10 * np.finfo(precision).eps <= excess.min() <= excess.max() <= CERTIFIED:
        raise SystemExit(f"the certified bound in {precision} is off by {excess.min():.1e} to {excess.max():.1e}.")
    return {"certified_excess": float(excess.max()), "times_faster_certified": times_faster(seconds, "certified")}


def times_faster(seconds: dict[str, dict[str, float]], side: str, peer: str = "numpy") -> dict[str, float]:
    """Ratios of numpy to a side; that of processor time hardly depends on what else the machine does."""
    return {key: seconds[peer][key] / seconds[side][key] for key in ("median", "processor")}


def bench_heads(args: Args) -> dict[str, Any]:
    attn = attention(np.random.default_rng(0), args.heads, args.length)
    mask = jnp.ones((args.heads, args.length), bool)
    with jax.enable_x64(True):
        # A residual of 1e-4 of the eigenvalue makes an error of about its square over the gap.
        programs = {"ours": lambda a: mixing_rate(a, mask, tolerance=1e-4), "certified": certified}
        return {"heads": args.heads, "tokens": args.length, **compare(attn, programs, args.rounds)}


def bench_one(args: Args) -> dict[str, Any]:
    attn = attention(np.random.default_rng(1), 1, args.side)[0]
    mask = jnp.ones(args.side, bool)
    with jax.enable_x64(True):

        def ours(a: jax.Array) -> jax.Array:
            return operator_norm(Centred(Dense(a, mask)), tolerance=1e-4).value

        return {"heads": 1, "tokens": args.side, **compare(attn, {"ours": ours}, args.rounds)}


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
    for _ in range(args.rounds if tokens < LONG else min(args.rounds, 3)):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            rates[name].append(operations / (time.perf_counter() - start) / 1e9)
            for other, gemm in gemms.items():
                # Before and after every application, and long enough for the processor to leave its short-lived pace.
                spent = [gemm()]
                while sum(part[0] for part in spent) < SUSTAINED:
                    spent.append(gemm())
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


def bench_lengths(args: Args) -> dict[str, Any]:
    lengths = [bench_free(args, tokens) for tokens in args.tokens]
    return {"width": args.width, "block": args.block, "lengths": lengths, "exponents": exponents(lengths)}


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


PARTS = {"heads": bench_heads, "one_head": bench_one, "matrix_free": bench_lengths}


def main(args: Args) -> None:
    if args.child:
        measure_child(args)
        return
    result = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {}
    for part in args.parts:
        result[part] = PARTS[part](args) | {
            "command": " ".join(["python", "benchmarks/spectra.py", *sys.argv[1:]]),
            "blas_threads": os.environ.get("OPENBLAS_NUM_THREADS", "not set"),
            "versions": {name: importlib.metadata.version(name) for name in VERSIONS},
            "machine": machine(),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        }
        # After every part: a long one that fails does not take the others with it.
        write(args.out, json.dumps(result, indent=2) + "\n")
        write(args.out.with_suffix(".md"), markdown(result))
    print(markdown(result))


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    aside.write_text(content, encoding="utf-8")
    os.replace(aside, path)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
