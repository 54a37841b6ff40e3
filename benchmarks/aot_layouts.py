"""The collectives of a step as this library lays arrays out, and as MaxText would: BERT-base compiled ahead of time.

    .cache/aot/bin/python benchmarks/aot_layouts.py       # the environment that `make aot` makes; a minute or two

MaxText (MaxText/configs/base.yml, `logical_axis_rules`) cuts parameters over the axes data, fsdp and tensor as we do,
and in addition the width of hidden states over `tensor` (`activation_embed`). Without a `tensor` axis the two are
the same. Compiled for TPU v5e:2x2 with `--compile-effort -1`; nothing is executed. Writes
benchmarks/results/aot_layouts.json.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax

from jaxsmooth.files import atomic_write
from jaxsmooth.training import sharding
from jaxsmooth.training.aot import compile_ahead
from jaxsmooth.training.config import AotConfig

OUT = Path(__file__).parent / "results" / "aot_layouts.json"
STEP = AotConfig(target="tpu-v5e:2x2", mesh="fsdp=2,tensor=2", batch_size=256, length=128, compile_effort=-1.0)
LAYOUTS: dict[str, dict[str, tuple[str, ...]]] = {"ours": {}, "MaxText's": {"width": ("tensor",)}}


def main() -> None:
    jax.config.update("jax_platforms", "cpu")
    rules, rows = dict(sharding.RULES), {}
    for name, more in LAYOUTS.items():
        sharding.RULES.clear()  # type: ignore[attr-defined]
        sharding.RULES.update(rules | more)  # type: ignore[attr-defined]
        rows[name] = row(dataclasses.asdict(compile_ahead(STEP)))
        print(name, rows[name], flush=True)
    settings = {key: value for key, value in dataclasses.asdict(STEP).items() if key != "out"}
    atomic_write(OUT, json.dumps({"config": settings, "jax": jax.__version__, "layouts": rows}, indent=1) + "\n")


def row(report: dict[str, Any]) -> dict[str, Any]:
    """Memory in GiB, and of every kind of collective how many there are and MB of their results, on one device."""
    moved = {one["kind"]: [one["count"], round(one["bytes"] / 1e6, 1)] for one in report["collectives"]}
    total = round(sum(one["bytes"] for one in report["collectives"]) / 1e6, 1)
    return {"memory": round(report["memory"] / 2**30, 2), "collectives": moved, "moved": total}


if __name__ == "__main__":
    main()
