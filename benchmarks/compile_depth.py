"""Compile time against depth for every family, and a BERT's forward pass against torch eager.

    python benchmarks/compile_depth.py          # 2 CPU cores: about five minutes

Compile time: `encode` with the default trace, traced and compiled anew (no cache on disk) for tiny models of 2, 12 and
24 layers; one `lax.scan` over stacked blocks makes it flat. Rounds go over all families and depths in turn. All times
are CPU seconds of this process, which other processes disturb least; `wall_seconds` of the forward pass beside them.
torch's threads spend CPU time while they wait for each other: on a busy machine its times say little.

Forward pass: a BERT of MiniLM's size with random weights, last hidden state only, against transformers' BertModel
with eager attention and with its default fused attention, rounds interleaved in one process. `--other DIR` names a
checkout of another revision of this repository, whose encoder is then a further side: its package is imported under
the name of this one, in turn with it, and both run compiled programs of their own, whose floating-point operations,
bytes and instructions, as XLA counts them, are compared too.

Results go to benchmarks/results/compile_depth.json. torch and transformers (the `parity` extra) are needed.
"""

import dataclasses
import datetime
import importlib
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from machine import processor

HERE = Path(__file__).parent
DEPTHS = (2, 12, 24)
SHAPE = (8, 64)  # sentences, tokens
TINY = {"width": 16, "heads": 2, "mlp_width": 24}
TEXT = {"vocab": 32, "max_length": 40, "pad_token": 0}
OWN = {"albert": {"embedding_width": 8}, "electra": {"embedding_width": 8}, "modernbert": {"window": 4}}
PIXELS = {"image_size": 16, "patch_size": 4, "max_length": 18}


@dataclasses.dataclass(frozen=True)
class Args:
    """What to measure."""

    rounds: int = 2
    """Rounds of compiling every family at every depth."""
    forwards: int = 30
    """Timed forward passes of each side."""
    other: Path | None = None
    """A checkout of another revision, for a forward pass of its encoder."""
    out: Path = HERE / "results" / "compile_depth.json"
    """Where the results go."""


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def tiny_model(family: str, layers: int) -> tuple[Any, Any]:
    """A random model of a family and a batch for it."""
    import jaxsmooth

    vision = family in ("vit", "deit")
    fields = {**TINY, "layers": layers, **(PIXELS if vision else TEXT), **OWN.get(family, {})}
    config = jaxsmooth.family_config(family, **fields)
    model = jaxsmooth.init_encoder(config, jax.random.key(0), pooler=False)
    if vision:
        return model, jaxsmooth.image_batch(config, jnp.zeros((2, config.channels, 16, 16)))
    tokens = jnp.ones((2, 16), jnp.int32)
    return model, jaxsmooth.Batch(tokens=tokens, segments=0 * tokens, mask=tokens > 0)


def compile_seconds(model: Any, batch: Any) -> float:
    import jaxsmooth

    jax.clear_caches()
    start = time.process_time()
    jax.jit(lambda model, batch: jaxsmooth.encode(model, batch)).lower(model, batch).compile()
    return time.process_time() - start


def measure_compiling(rounds: int) -> dict[str, dict]:
    from jaxsmooth.checkpoints.families import FAMILIES

    taken: dict[str, dict[int, list[float]]] = {family: {depth: [] for depth in DEPTHS} for family in FAMILIES}
    compile_seconds(*tiny_model("bert", 2))  # what the first compilation alone pays for
    for _ in range(rounds):
        for family, by_depth in taken.items():
            for depth, seconds in by_depth.items():
                seconds.append(compile_seconds(*tiny_model(family, depth)))
    found = {}
    for family, by_depth in taken.items():
        ratios = [deep / shallow for deep, shallow in zip(by_depth[DEPTHS[-1]], by_depth[DEPTHS[0]], strict=True)]
        seconds = {str(depth): spread(values) for depth, values in by_depth.items()}
        found[family] = {"seconds": seconds, "ratio_24_to_2": spread(ratios)}
        medians = "".join(f"{s['median']:8.3f}" for s in seconds.values())
        print(f"{family:<14}{medians}", found[family]["ratio_24_to_2"], flush=True)
    return found


def import_package(root: Path) -> Any:
    """The package of a checkout, its modules taken out of the way of any other's again."""
    mine = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "jaxsmooth"}
    for name in mine:
        del sys.modules[name]
    sys.path.insert(0, str(root))
    try:
        package = importlib.import_module("jaxsmooth")
        assert Path(package.__file__).is_relative_to(root.resolve()), package.__file__
        return package
    finally:
        sys.path.remove(str(root))
        for name in [name for name in sys.modules if name.split(".")[0] == "jaxsmooth"]:
            del sys.modules[name]
        sys.modules.update(mine)


def ours(package: Any, folder: str, tokens: np.ndarray) -> tuple[Callable[[], np.ndarray], dict[str, float]]:
    """The forward pass, and what XLA counts of its compiled program."""
    model, _ = package.load(folder)
    ids = jnp.asarray(tokens)
    batch = package.Batch(tokens=ids, segments=0 * ids, mask=ids > 0)

    def nothing(trace: Any) -> tuple[()]:
        return ()

    compiled = jax.jit(lambda m, b: package.encode(m, b, collect=nothing)[0]).lower(model, batch).compile()
    cost = compiled.cost_analysis()
    counted = {"flops": cost["flops"], "bytes": cost["bytes accessed"], "transcendentals": cost["transcendentals"]}
    counted["instructions"] = compiled.as_text().count(" = ")
    return lambda: np.asarray(package.encode(model, batch, collect=nothing)[0]), counted


def theirs(folder: str, tokens: np.ndarray, attention: str) -> Callable[[], np.ndarray]:
    import torch
    from transformers import BertModel

    model = BertModel.from_pretrained(folder, attn_implementation=attention, add_pooling_layer=False).eval()
    ids = torch.from_numpy(tokens).long()

    def run() -> np.ndarray:
        with torch.no_grad():
            return model(input_ids=ids, attention_mask=(ids > 0).long()).last_hidden_state.numpy()

    return run


def measure_forward(args: Args) -> dict:
    import jaxsmooth

    config = jaxsmooth.EncoderConfig(vocab=1000, width=384, layers=6, heads=12, mlp_width=1536, max_length=128)
    tokens = np.random.default_rng(0).integers(1, 1000, SHAPE).astype(np.int32)
    tokens[:, SHAPE[1] // 2 :] *= (np.arange(SHAPE[0]) % 2).astype(np.int32)[:, None]  # every other is half padding
    with tempfile.TemporaryDirectory() as folder:
        jaxsmooth.save(jaxsmooth.init_encoder(config, jax.random.key(0), pooler=False), folder)
        sides, programs = {}, {}
        sides["ours"], programs["ours"] = ours(jaxsmooth, folder, tokens)
        if args.other is not None:
            sides["other"], programs["other"] = ours(import_package(args.other), folder, tokens)
        sides |= {f"torch {kind}": theirs(folder, tokens, kind) for kind in ("eager", "sdpa")}
        outputs = {side: run()[tokens > 0] for side, run in sides.items()}
        for side, output in outputs.items():
            assert np.abs(output - outputs["ours"]).max() < 1e-4, side
        taken: dict[str, list[float]] = {side: [] for side in sides}
        wall: dict[str, list[float]] = {side: [] for side in sides}
        for turn in range(args.forwards + 5):
            order = list(sides) if turn % 2 else list(sides)[::-1]
            for side in order:
                start, walled = time.process_time(), time.perf_counter()
                sides[side]()
                if turn >= 5:
                    taken[side].append(time.process_time() - start)
                    wall[side].append(time.perf_counter() - walled)
    ratios = {
        side: spread([other / own for other, own in zip(values, taken["ours"], strict=True)])
        for side, values in taken.items()
        if side != "ours"
    }
    seconds = {side: spread(values) for side, values in taken.items()}
    walls = {side: spread(values) for side, values in wall.items()}
    found = {"shape": SHAPE, "seconds": seconds, "side_over_ours": ratios, "wall_seconds": walls, "programs": programs}
    print(json.dumps(found, indent=1), flush=True)
    return found


def main(args: Args) -> None:
    jax.config.update("jax_enable_compilation_cache", False)
    found = {
        "task": "compile encode (default trace) for tiny models; forward pass of a 6-layer BERT of width 384, float32",
        "command": "python benchmarks/compile_depth.py" + (" --other DIR" if args.other else ""),
        "forward": measure_forward(args),
        "compile": measure_compiling(args.rounds),
        "rounds": args.rounds,
        "forwards": args.forwards,
        "cpu_count": os.cpu_count(),
        "machine": processor(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "torch", "transformers")},
        "date": datetime.date.today().isoformat(),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    aside = args.out.with_suffix(".part")
    aside.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    os.replace(aside, args.out)


if __name__ == "__main__":
    main(tyro.cli(Args))
