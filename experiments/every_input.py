"""Can the theorem's hypothesis hold for any text at all? Certified bounds over every input, layer by layer.

Shows:    theorems 1 to 3 of docs/every-input.md on the trained models: no token of any text has a product of its two
          LayerNorm stds above the certified bound; the hypothesis asks for more than the threshold.
Command:  python experiments/every_input.py     # OPENBLAS_NUM_THREADS=1 where other programs want the cores
          python experiments/every_input.py --models mpnet-base
          A model's layers that are in the results already are not computed again; --again does.
Hardware: 2 CPU cores, float64 and float32 on the host; seconds of processor time are written beside every layer.
Expect:   "never" in every layer of minilm-l6, its bounds within 1.2 to 1.7 times what a search finds.
Writes results/every_input.json, every_input.png, every_input.md, and stored.json of jaxsmooth.theory.every_input,
from which the report of `diagnose` quotes.
"""

import dataclasses
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.progress import Progress

import jaxsmooth
from drawing import canvas, remark, save, title
from jaxsmooth.assets.texts import read_texts
from jaxsmooth.files import atomic_write
from jaxsmooth.theory.every_input.hypothesis import (
    CUT_STEPS,
    STEPS,
    LayerForEveryInput,
    hypothesis_for_every_input,
)
from jaxsmooth.theory.every_input.stored import weights_digest

STORED = Path(jaxsmooth.__file__).parent / "theory" / "every_input" / "stored.json"
RESULTS = Path(__file__).resolve().parent / "results"
TEXTS, BATCH = 256, 32


@dataclasses.dataclass(frozen=True)
class Args:
    """What to bound."""

    models: tuple[str, ...] = ("minilm-l6", "minilm-l3", "e5-small-q4", "antiberty")
    """Names of model assets."""
    best: tuple[str, ...] = ("minilm-l6", "minilm-l3")
    """Of which the best bound is searched for; of the others one that decides."""
    layers: tuple[int, ...] = ()
    """Which, from 1, in this order; all if empty."""
    steps: tuple[int, int] = (STEPS, CUT_STEPS)
    """Of the search over all inputs, and over each half of them."""
    retry: bool = False
    """Compute anew the layers that are open, for instance with more steps."""
    again: bool = False
    """Compute anew what is in the results already."""
    out: Path = RESULTS
    """Where the results go; what the library quotes is written beside those in the repository alone."""


def main(args: Args) -> None:
    path = args.out / "every_input.json"
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    for name in args.models:
        model, tokenizer = jaxsmooth.load(name)
        entry = found.get(name, {})
        if args.again or entry.get("weights") != weights_digest(model):
            entry = {"weights": weights_digest(model), "processor": _processor(), "layers": []}
        if "texts" not in entry and name != "antiberty":  # whose texts are proteins
            entry["texts"] = on_texts(model, tokenizer)
        found[name] = entry
        done = {layer["layer"]: layer for layer in entry["layers"]}
        for layer in args.layers or range(1, model.config.layers + 1):
            if layer in done and not (args.retry and is_open(done[layer])):
                continue
            done[layer] = one_layer(model, name, layer, args)
            entry["layers"] = [done[place] for place in sorted(done)]
            atomic_write(path, json.dumps(found, indent=1) + "\n")
            print(name, done[layer], flush=True)
        entry["complete"] = len(done) == model.config.layers
        atomic_write(path, json.dumps(found, indent=1) + "\n")
        publish(found, args.out)


def publish(found: dict[str, Any], out: Path) -> None:
    """What the library quotes of the models that are done, the figure and the tables."""
    if out.resolve() == RESULTS:
        done = [entry for entry in found.values() if entry.get("complete")]
        stored = {entry["weights"]: [bounds_of(layer) for layer in entry["layers"]] for entry in done}
        atomic_write(STORED, json.dumps(stored, indent=1) + "\n")
    draw(found, out / "every_input.png")
    atomic_write(out / "every_input.md", markdown(found))


def is_open(layer: dict[str, Any]) -> bool:
    """Whether a layer's bounds leave the hypothesis open."""
    return LayerForEveryInput(**bounds_of(layer)).verdict == "open"


def one_layer(model: jaxsmooth.Encoder, name: str, layer: int, args: Args) -> dict[str, Any]:
    """One layer's bounds, and the seconds of processor time they took."""
    before, best = time.process_time(), name in args.best
    with Progress(transient=True) as progress:
        task = progress.add_task(f"{name}, layer {layer}", total=None)

        def report(layer: int, bound: float) -> None:
            progress.update(task, advance=1, description=f"{name}, layer {layer}: {bound:.4g}")

        (bounds,) = hypothesis_for_every_input(model, layers=(layer,), best=best, steps=args.steps, report=report)
    return {
        **dataclasses.asdict(bounds),
        "best": best,
        "steps": args.steps,
        "processor_s": round(time.process_time() - before, 1),
    }


def on_texts(model: jaxsmooth.Encoder, tokenizer: Any) -> dict[str, Any]:
    """The largest min std_attn * min std_mlp of real sentences, by layer."""
    texts, largest = read_texts("movie-reviews", TEXTS), np.zeros(model.config.layers)
    for first in range(0, len(texts), BATCH):
        batch = tokenizer(texts[first : first + BATCH])
        _, stds = jaxsmooth.encode(model, batch, collect=lambda trace: (trace.std_attn, trace.std_mlp))
        least = [np.where(batch.mask[None, :, :, None], std, np.inf).min(axis=(2, 3)) for std in stds]
        largest = np.maximum(largest, (least[0] * least[1]).max(axis=1))
    return {"name": "movie-reviews", "sentences": len(texts), "largest": largest.tolist()}


def bounds_of(layer: dict[str, Any]) -> dict[str, Any]:
    """What a `LayerForEveryInput` has."""
    return {field.name: layer[field.name] for field in dataclasses.fields(LayerForEveryInput)}


def draw(found: dict[str, Any], path: Path) -> None:
    with canvas(9, 1.2 + 2.4 * len(found)) as figure:
        panels = np.atleast_1d(figure.subplots(len(found), 1))
        for axes, (name, entry) in zip(panels, found.items(), strict=True):
            layers = [LayerForEveryInput(**bounds_of(layer)) for layer in entry["layers"]]
            places = np.array([layer.layer for layer in layers])
            low, high = (np.array([getattr(layer, key) for layer in layers]) for key in ("product_found", "product"))
            axes.bar(places, high - low, 0.5, bottom=low, color="#56B4E9", label="found to certified, all inputs")
            thresholds = [layer.threshold for layer in layers]
            axes.plot(places, thresholds, "_", color="#D55E00", markersize=22, markeredgewidth=3, label="threshold")
            if "texts" in entry:
                axes.plot(
                    places,
                    [entry["texts"]["largest"][place - 1] for place in places],
                    "o",
                    color="#000000",
                    label="largest of real texts",
                )
            axes.set(yscale="log", xticks=places, ylabel="$\\sigma_1\\sigma_2$")
            title(axes, name)
        panels[0].legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        panels[-1].set_xlabel("layer")
        remark(figure, "Where the blue bar ends below the orange mark, no text of any length fulfils the hypothesis.")
        save(figure, path)


def markdown(found: dict[str, Any]) -> str:
    lines = [
        "# The theorem's hypothesis, over every input",
        "",
        "`python experiments/every_input.py`: docs/every-input.md.",
    ]
    for name, entry in found.items():
        lines += ["", f"## {name}", "", f"On {entry['processor']}.", "", *table(entry)]
    return "\n".join([*lines, "", "![](every_input.png)", ""])


def table(entry: dict[str, Any]) -> list[str]:
    """One row a layer."""
    rows = [
        "| layer | σ₁ at most | σ₁σ₂ found | σ₁σ₂ at most | threshold from | L0 | 1 + s² | real texts | holds | s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for raw in entry["layers"]:
        layer = LayerForEveryInput(**bounds_of(raw))
        numbers = (layer.std_attn, layer.product_found, layer.product, layer.threshold)
        seen = f"{entry['texts']['largest'][layer.layer - 1]:.3g}" if "texts" in entry else ""
        rows.append(
            f"| {layer.layer} | {' | '.join(f'{x:.4g}' for x in numbers)} | {layer.threshold_model:.4g} |"
            f" {layer.threshold_paper:.4g} | {seen} | {layer.verdict} | {raw['processor_s']:.0f} |"
        )
    return rows


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return f"{line.split(':')[1].strip()}, {os.cpu_count()} cores"
    return platform.machine()


if __name__ == "__main__":
    main(tyro.cli(Args))
