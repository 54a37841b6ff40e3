"""How tight is each rung of the ladder L0 ... L4, layer by layer, on a real model and real text?

    python experiments/ladder.py                    # minilm-l6, 256 movie reviews

Time: a few minutes on 2 CPU cores. Expect, as medians over layers and sentences: an actual rate near 1 (1.15 in the
first layer, 0.7 in the last); bound over actual about 160,000 for L0 and 7,700 for L1, the theorem, 210 for L3 and 57
for L4, which is given attention, stds and data; and no sentence in which a bound is below the rung under it.

Each sentence and layer gives one value of bound / actual rate per rung; 1 would be a perfect prediction, and the
number is the factor by which the theory overestimates how far apart the block's output is. Writes
results/ladder.json, ladder.png and ladder.md.
"""

import dataclasses
import itertools
import json
import time
from pathlib import Path

import jax
import numpy as np
import tyro

import jaxsmooth
from drawing import COLOURS, canvas, layer_axis, log_axis, remark, save, title
from jaxsmooth.assets.texts import read_texts
from jaxsmooth.files import atomic_write
from jaxsmooth.results.summaries import LADDER as RATES
from jaxsmooth.studies.measurements import measure_batch, model_norms

BOUNDS = RATES[1:]
LABELS = {
    "L4": "L4  this data",
    "L3": "L3  operator norm",
    "L2b": "L2b  weighted pairs",
    "L2": "L2  refined norms",
    "L1": "L1  theorem, per layer",
    "L0": "L0  theorem, global",
}
QUANTILES = (0, 25, 50, 75, 100)


@dataclasses.dataclass(frozen=True)
class Args:
    """What to measure."""

    model: str = "minilm-l6"
    """Name of a model asset, a directory or a hub id."""
    data: str = "movie-reviews"
    """Name of a text asset, or a file."""
    limit: int = 256
    """Number of sentences."""
    out: Path = Path(__file__).parent / "results"
    """Where the results go."""


def rates_of(args: Args) -> dict[str, np.ndarray]:
    """The actual rate and every bound of it, name -> [layers sentences], sentences of one token left out."""
    model, tokenizer = jaxsmooth.load(args.model)
    norms = model_norms(model)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in RATES}
    for encoded in tokenizer.batches(read_texts(args.data, args.limit)):
        found = measure_batch(model, norms, encoded.batch)
        for name in RATES:
            parts[name].append(np.asarray(found[name], np.float64)[:, : len(encoded.indices)])
    rates = {name: np.concatenate(values, axis=1) for name, values in parts.items()}
    some = np.isfinite(rates["actual"]).all(axis=0)
    return {name: values[:, some] for name, values in rates.items()}


def summarise(args: Args, rates: dict[str, np.ndarray], seconds: float) -> dict:
    """Quantiles of the actual rate and of bound / actual over sentences, and how often the order of rungs is broken."""
    looseness = {name: rates[name] / rates["actual"] for name in BOUNDS}
    # Single precision: bounds that are equal in exact arithmetic may come out a few units apart.
    broken = sum(int(np.sum(rates[low] > rates[high] * (1 + 1e-3))) for low, high in itertools.pairwise(RATES))
    return {
        "model": args.model,
        "data": args.data,
        "sentences": rates["actual"].shape[1],
        "layers": rates["actual"].shape[0],
        "seconds": round(seconds, 1),
        "versions": {"jax": jax.__version__, "device": jax.devices()[0].device_kind},
        "quantiles": QUANTILES,
        "actual": np.percentile(rates["actual"], QUANTILES, axis=1).T.tolist(),
        "bound_over_actual": {
            name: np.percentile(values, QUANTILES, axis=1).T.tolist() for name, values in looseness.items()
        },
        "median_actual": float(np.median(rates["actual"])),
        "median_bound_over_actual": {name: float(np.median(values)) for name, values in looseness.items()},
        "rungs_out_of_order": broken,
    }


def draw(found: dict, path: Path) -> None:
    layers = np.arange(1, found["layers"] + 1)
    with canvas(11.5, 5.2) as figure:
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.9])
        actual = np.array(found["actual"])
        left.fill_between(layers, actual[:, 0], actual[:, 4], color="#000000", alpha=0.10, linewidth=0)
        left.fill_between(layers, actual[:, 1], actual[:, 3], color="#000000", alpha=0.22, linewidth=0)
        left.plot(layers, actual[:, 2], color="#000000", marker="o")
        left.axhline(1, color="#3B7A57", linestyle="--", linewidth=1.2)
        left.set_ylabel("$d_M$ after the block / $d_M$ before it")
        title(left, "What happens")
        for name in reversed(BOUNDS):
            values = np.array(found["bound_over_actual"][name])
            median = found["median_bound_over_actual"][name]
            right.fill_between(layers, values[:, 0], values[:, 4], color=COLOURS[name], alpha=0.13, linewidth=0)
            right.plot(layers, values[:, 2], color=COLOURS[name], marker="o", label=f"{LABELS[name]}  ({median:,.0f})")
        log_axis(right, [np.array(found["bound_over_actual"][name]) for name in BOUNDS])
        right.set_ylim(bottom=1)
        right.set_ylabel("bound / actual rate (1 = exact, log scale)")
        right.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), title="rung (median)", alignment="left")
        title(right, "By how much the theory overestimates it")
        for axes in (left, right):
            layer_axis(axes, 1, int(layers[-1]))
        words = f"{found['model']}, {found['sentences']} sentences of {found['data']}. Lines: median sentence; bands: "
        remark(figure, words + "all sentences (light), the middle half (dark, left).")
        save(figure, path)


def table(found: dict) -> str:
    head = ["layer", "actual", *BOUNDS]
    lines = [" | ".join(head), " | ".join(["---"] * len(head))]
    for k in range(found["layers"]):
        cells = [f"{found['actual'][k][2]:.2f}"]
        cells += [f"{found['bound_over_actual'][name][k][2]:,.0f}" for name in BOUNDS]
        lines.append(" | ".join([str(k + 1), *cells]))
    median = [f"{found['median_bound_over_actual'][name]:,.0f}" for name in BOUNDS]
    lines.append(" | ".join(["all", f"{found['median_actual']:.2f}", *median]))
    return "\n".join(f"| {line} |" for line in lines)


def main(args: Args) -> None:
    started = time.perf_counter()
    rates = rates_of(args)
    found = summarise(args, rates, time.perf_counter() - started)
    atomic_write(args.out / "ladder.json", json.dumps(found, indent=1) + "\n")
    draw(found, args.out / "ladder.png")
    text = f"""# Tightness of the ladder, layer by layer

`python experiments/ladder.py --model {args.model} --data {args.data} --limit {args.limit}`:
{found["sentences"]} sentences, {found["seconds"]} s on {found["versions"]["device"]}, single precision.

Median over sentences of the actual rate, and of each bound divided by the actual rate of the same sentence.

{table(found)}

Rungs out of order beyond rounding: {found["rungs_out_of_order"]}.

![](ladder.png)
"""
    atomic_write(args.out / "ladder.md", text)
    print(text)


if __name__ == "__main__":
    main(tyro.cli(Args))
