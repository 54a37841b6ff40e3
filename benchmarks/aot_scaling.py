"""The cost of a step of BERT-base against the number of TPU v5e chips, by the compiler: weak and strong scaling.

    .cache/aot/bin/python benchmarks/aot_scaling.py       # the environment that `make aot` makes; some five minutes

Sentences of 128 tokens, bfloat16, `--compile-effort -1`; nothing is executed. Weak: 64 sentences a chip. Strong: 256
sentences together. Parameters are cut over four chips, and weakly scaled over all of them too. Writes
benchmarks/results/aot_scaling.json and .md after every row, and keeps the rows that are there.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax

from jaxsmooth.files import atomic_write
from jaxsmooth.training.accelerators import find_target
from jaxsmooth.training.aot import compile_ahead
from jaxsmooth.training.config import AotConfig

OUT = Path(__file__).parent / "results" / "aot_scaling.json"
TARGETS = {"fsdp=1": "1x1", "fsdp=4": "2x2", "data=4,fsdp=4": "4x4", "data=16,fsdp=4": "8x8"}
ALL = {"fsdp=16": "4x4", "fsdp=64": "8x8"}
RUNS = [("weak", mesh, shape) for mesh, shape in (TARGETS | ALL).items()]
RUNS += [("strong", mesh, shape) for mesh, shape in TARGETS.items()]


def main() -> None:
    jax.config.update("jax_enable_compilation_cache", False)
    rows = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    for kind, mesh, shape in RUNS:
        name = f"{kind}, {mesh}"
        if name not in rows:
            rows[name] = row(f"tpu-v5e:{shape}", mesh, kind == "weak")
            print(name, rows[name], flush=True)
        rows = {f"{k}, {m}": rows[f"{k}, {m}"] for k, m, _ in RUNS if f"{k}, {m}" in rows}  # in the table's order
        atomic_write(OUT, json.dumps(rows, indent=1) + "\n")
        atomic_write(OUT.with_suffix(".md"), markdown(rows))


def row(name: str, mesh: str, weak: bool) -> dict[str, Any]:
    """Of one step: what every chip computes, holds and passes on, and the bounds that follow."""
    target = find_target(name)
    sentences = 64 * len(target.devices) if weak else 256
    config = AotConfig(target=name, mesh=mesh, batch_size=sentences, length=128, compile_effort=-1.0)
    found, chip = compile_ahead(config), target.chip
    moved = sum(one.bytes for one in found.collectives)
    return {
        "sentences": sentences,
        "remat": found.remat,
        "memory": found.memory,
        "state": found.arguments,
        "gflop": found.model_flops / 1e9,
        "moved": {one.kind: one.bytes for one in found.collectives},
        "computing": found.model_flops / chip.flops,
        "collectives": moved / chip.links,
        "seconds": found.seconds,
        "bound": found.bound,
        "jax": jax.__version__,
        "config": {key: value for key, value in dataclasses.asdict(config).items() if key != "out"},
    }


def markdown(rows: dict[str, dict[str, Any]]) -> str:
    lines = [
        "# A step of BERT-base against the number of chips",
        "",
        "`.cache/aot/bin/python benchmarks/aot_scaling.py`: TPU v5e, 128 tokens, bfloat16 over float32",
        "masters, compiled ahead of time with `--compile-effort -1` and not executed. Numbers are of one",
        "chip, but for tokens/s, of all. *Computing* and *collectives* are lower bounds; where they do not overlap, a",
        "step takes their sum at least. `tokens/s at most` counts the largest bound alone. With all parameters over 16",
        "or 64 chips a chip's part of the width, 48 or 12, is below a tile's 128, and the compiler passes on more.",
        "Memory grows with the sentences of all chips because each draws the dropout masks of all and keeps its own",
        "(`rbg`): with `--prng threefry2x32` the fourth row needs 4.70 GiB.",
        "",
        "| scaling | mesh | sentences | remat | HBM, GiB | of it state | GFLOP | passed on, MB | computing, ms "
        "| collectives, ms | bound by | tokens/s at most |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, each in rows.items():
        kind, _, mesh = name.partition(", ")
        moved = sum(each["moved"].values()) / 1e6
        tokens = each["sentences"] * 128 / each["seconds"] / 1e6
        lines.append(
            f"| {kind} | {mesh} | {each['sentences']:,} | {each['remat']} | {each['memory'] / 2**30:.2f} "
            f"| {each['state'] / 2**30:.2f} | {each['gflop']:,.0f} | {moved:,.0f} | {1e3 * each['computing']:.2f} "
            f"| {1e3 * each['collectives']:.2f} | {each['bound']} | {tokens:.2f} million |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
