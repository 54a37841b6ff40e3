"""The training step of BERT-base and BERT-large compiled for accelerators that are not here; a table of what they need.

    make aot-table      # in the environment that has the compilers; half an hour on 2 cores

Nothing is executed. Results go to benchmarks/results/aot.json and aot.md after every target; one that is there is not
compiled again.
"""

import dataclasses
import datetime
import importlib.metadata
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import tyro
from machine import machine

from jaxsmooth.errors import ConfigError
from jaxsmooth.training.aot import compile_ahead
from jaxsmooth.training.config import AotConfig

HERE = Path(__file__).parent
RUNS = tuple(
    AotConfig(target=target, slices=slices, model_size=size, mesh=mesh, batch_size=batch, length=128)
    for size, batch in (("bert-base", 256), ("bert-large", 128))
    for target, slices, mesh in (
        ("tpu-v5e:2x2", 1, "fsdp=4"),
        ("tpu-v4:2x2x1", 1, "fsdp=2,tensor=2"),
        ("tpu-v5p:2x2x1", 1, "data=2,fsdp=2"),
        ("tpu-v6e:2x2", 1, "fsdp=4"),
        ("tpu-v5e:2x2", 2, "data=2,fsdp=4"),
        ("gpu-h100:8", 1, "data=8"),
    )
)
LONG = AotConfig(target="tpu-v5e:1x1", model_size="modernbert-base", batch_size=1, length=8192, attention_dropout=0.0)
# Must be refused: 512 tokens of 512 sentences on one chip.
TOO_LARGE = AotConfig(target="tpu-v5e:1x1", model_size="bert-large", batch_size=512, length=512)


@dataclasses.dataclass(frozen=True)
class Args:
    """What to compile."""

    only: str = ""
    """Only targets whose name holds this."""
    one: str = ""
    """Compile these settings here (JSON), and print what came out: a compiler that crashes ends its process alone."""
    out: Path = HERE / "results" / "aot.json"
    """Where the results go."""


def main(args: Args) -> None:
    before = json.loads(args.out.read_text(encoding="utf-8"))["runs"] if args.out.exists() else {}
    # those without, of older versions or of a compiler that crashed, are compiled anew
    rows = {name: row for name, row in before.items() if row.get("processor_seconds") is not None}
    for config in (*RUNS, LONG, TOO_LARGE):
        name = f"{config.model_size} {config.target} x{config.slices} {config.mesh} {config.batch_size}x{config.length}"
        if name in rows or args.only not in name:
            continue
        settings = {key: value for key, value in dataclasses.asdict(config).items() if key != "out"}
        rows[name] = {"config": settings, **alone(config)}
        if "memory" in rows[name]:
            quick = alone(dataclasses.replace(config, compile_effort=-1.0))
            rows[name]["quick"] = {key: quick.get(key) for key in ("memory", "seconds_to_compile", "processor_seconds")}
        print(f"{name}: {rows[name].get('refused', rows[name]['processor_seconds'])}", flush=True)
        write(args.out, rows)


def alone(config: AotConfig) -> dict[str, Any]:
    """`compiled` in a process of its own."""
    settings = json.dumps(dataclasses.asdict(config) | {"out": None})
    done = subprocess.run([sys.executable, __file__, "--one", settings], capture_output=True, text=True)
    if -done.returncode in (signal.SIGSEGV, signal.SIGABRT):
        return {"refused": f"the compiler crashed ({signal.Signals(-done.returncode).name})", "processor_seconds": None}
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def compiled(config: AotConfig) -> dict[str, Any]:
    """What the compiler says, and how long it took."""
    jax.config.update("jax_enable_compilation_cache", False)  # compiling is what is timed
    start, processor = time.perf_counter(), time.process_time()
    try:
        found: dict[str, Any] = dataclasses.asdict(compile_ahead(config))
    except ConfigError as error:
        found = {"refused": str(error)}
    took = {"seconds_to_compile": time.perf_counter() - start, "processor_seconds": time.process_time() - processor}
    return found | {key: round(value, 1) for key, value in took.items()}


def write(path: Path, rows: dict[str, Any]) -> None:
    versions = {name: importlib.metadata.version(name) for name in ("jax", "libtpu", "jax-cuda13-plugin")}
    result = {
        "command": "make aot-table",
        "date": str(datetime.date.today()),
        "versions": versions,
        "machine": machine(),
        "runs": rows,
    }
    for target, text in ((path, json.dumps(result, indent=2) + "\n"), (path.with_suffix(".md"), markdown(result))):
        aside = target.with_name(f".{target.name}.aside")
        aside.write_text(text, encoding="utf-8")
        aside.replace(target)


def markdown(result: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [
        "# The training step, compiled ahead of time",
        "",
        f"`{result['command']}`, {result['date']}; {versions}.",
        "Compiled by the production compilers, not executed. bfloat16 over float32 masters, sentences of 128 tokens",
        "(of modernbert-base 8,192, without dropout of attention), nothing recomputed. Numbers are per",
        "device, but for tokens/s, which are of all devices together.",
        "`ms at least`, `tokens/s at most` and `MFU at most` are bounds, not predictions: no step takes less time, or",
        "has a higher model FLOP utilisation (MFU), see `jaxsmooth.training.aot.AotReport`.",
        "What is sent goes to another slice. Of a loop out of which the compiler took a turn one turn too many is",
        "counted.",
        "Compile times are processor time, Python's part included; `quick` is with `--compile-effort -1`.",
        f"Compiled on {result['machine']['cpu']}.",
        "",
        "| model | target | mesh | sentences | HBM, GiB | of it state | GFLOP | collectives: number, MB | ms at least "
        "| by | tokens/s at most | MFU at most | compiled in | quick | HBM then |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["runs"].values():
        config = row["config"]
        target = config["target"] + (f", {config['slices']} slices" if config["slices"] > 1 else "")
        head = f"| {config['model_size']} | {target} | {config['mesh'] or 'one device'} | {config['batch_size']} |"
        if "refused" in row:
            lines.append(f"{head} refused: {row['refused'].split('. ')[0]} |" + " |" * 10)
            continue
        moved = ", ".join(f"{c['kind']} {c['count']} x, {c['bytes'] / 1e6:,.0f}" for c in row["collectives"])
        gib = f"{row['memory'] / 2**30:.2f} of {row['available'] / 2**30:.0f} | {row['arguments'] / 2**30:.2f}"
        tokens = config["batch_size"] * config["length"] / row["seconds"]
        bound = f"{1e3 * row['seconds']:.2f} | {row['bound']} | {tokens / 1e6:.2f} million | {row['utilisation']:.0%}"
        quick = row["quick"]
        known = (
            "crashed |"
            if quick["memory"] is None
            else f"{quick['processor_seconds']:.0f} s | {quick['memory'] / 2**30:.2f}"
        )
        took = f"{row['processor_seconds']:.0f} s | {known}"
        lines.append(f"{head} {gib} | {row['model_flops'] / 1e9:,.0f} | {moved} | {bound} | {took} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    args = tyro.cli(Args)
    if args.one:
        print(json.dumps(compiled(AotConfig(**json.loads(args.one)))))
    else:
        main(args)
