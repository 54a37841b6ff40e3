"""The cost of a step of BERT-base against the number of TPU v5e chips, by the compiler: weak and strong scaling.

    .cache/aot/bin/python benchmarks/aot_scaling.py       # the environment that `make aot` makes; some five minutes

Everything cut over `fsdp`, sentences of 128 tokens, bfloat16, `--compile-effort -1`; nothing is executed. Weak: 64
sentences a chip. Strong: 256 sentences together. Writes benchmarks/results/aot_scaling.json and .md after every row,
and keeps the rows that are there.
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
CHIPS = {1: "tpu-v5e:1x1", 4: "tpu-v5e:2x2", 16: "tpu-v5e:4x4", 64: "tpu-v5e:8x8"}
SENTENCES = {"weak": lambda chips: 64 * chips, "strong": lambda chips: 256}


def main() -> None:
    jax.config.update("jax_enable_compilation_cache", False)
    rows = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    for kind, sentences in SENTENCES.items():
        for chips, target in CHIPS.items():
            name = f"{kind}, {chips}"
            if name not in rows:
                rows[name] = row(target, chips, sentences(chips))
                print(name, rows[name], flush=True)
                atomic_write(OUT, json.dumps(rows, indent=1) + "\n")
                atomic_write(OUT.with_suffix(".md"), markdown(rows))


def row(target: str, chips: int, sentences: int) -> dict[str, Any]:
    """Of one step: what every chip computes, holds and passes on, and the bounds that follow."""
    config = AotConfig(target=target, mesh=f"fsdp={chips}", batch_size=sentences, length=128, compile_effort=-1.0)
    found, chip = compile_ahead(config), find_target(target).chip
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
        "`.cache/aot/bin/python benchmarks/aot_scaling.py`: TPU v5e, everything cut over `fsdp`, 128 tokens, bfloat16",
        "over float32 masters, compiled ahead of time with `--compile-effort -1` and not executed. Numbers are of one",
        "chip, but for tokens/s, of all. *Computing* and *collectives* are lower bounds; where they do not overlap, a",
        "step takes their sum at least. `tokens/s at most` counts the largest bound alone.",
        "",
        "| scaling | chips | sentences | remat | HBM, GiB | of it state | GFLOP | passed on, MB | computing, ms "
        "| collectives, ms | bound by | tokens/s at most |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, each in rows.items():
        kind, chips = name.split(", ")
        moved = sum(each["moved"].values()) / 1e6
        tokens = each["sentences"] * 128 / each["seconds"] / 1e6
        lines.append(
            f"| {kind} | {chips} | {each['sentences']:,} | {each['remat']} | {each['memory'] / 2**30:.2f} "
            f"| {each['state'] / 2**30:.2f} | {each['gflop']:,.0f} | {moved:,.0f} | {1e3 * each['computing']:.2f} "
            f"| {1e3 * each['collectives']:.2f} | {each['bound']} | {tokens:.2f} million |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
