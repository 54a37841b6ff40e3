"""The region's rate, proved layer by layer, and how it grows with the length of the text.

Shows:    (a) theorem 2 of docs/rates.md, a box of 0.05 stds of its unit around every pre-activation, every norm in it
          certified (`theory.region_certificate`), for every layer of both models on one sentence; (b) the same rate as
          measured by Lanczos on the beginnings of one text, 16 to 128 tokens.
Command:  python experiments/rates_region.py
Hardware: 2 CPU cores, float64; (a) 10 minutes, (b) 20 minutes.
Expect:   (a) the certified rate within 2 % of the measured one or below it, at most 20 times the actual rate in the
          median; (b) multiples of the actual rate that grow with length.
Writes results/rates_region.json, rates_region.png and rates_region.md.
"""

import dataclasses
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax import Array

import jaxsmooth
from jaxsmooth import Batch, BlockTrace, Encoder, analysis
from jaxsmooth.assets.texts import read_texts
from jaxsmooth.report.drawing import canvas, remark, save, title
from jaxsmooth.report.files import write_aside
from jaxsmooth.theory import bounds
from jaxsmooth.theory.region import Region, secant_box_rate
from jaxsmooth.theory.region_certificate import certified_secant_box_rate

RADIUS = 0.05  # in stds of the unit over the sentence
COLOURS = ("#3B7A57", "#0072B2", "#D55E00")


@dataclasses.dataclass(frozen=True)
class Args:
    """What to measure."""

    models: tuple[str, ...] = ("minilm-l6", "e5-small-q4")
    """Model assets, directories or hub ids."""
    text: str = "Effective but too tepid biopic"
    """The sentence of the certificate."""
    lengths: tuple[int, ...] = (16, 24, 32, 64, 128)
    """Tokens of the beginnings of a text."""
    layers: int = 3
    """How many layers, evenly spaced and the last among them, each length is measured on."""
    starts: int = 1
    """How many texts: movie reviews one after another, from different ones on."""
    out: Path = Path(__file__).parent / "results"
    """Where the results go."""


def main(args: Args) -> None:
    jax.config.update("jax_enable_x64", True)
    found: dict[str, dict] = {}
    for name in args.models:
        model, tokenizer = jaxsmooth.load(name)
        model = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), model)
        found[name] = {
            "certified": certify(model, cut(tokenizer([args.text]))),
            "lengths": grow(args, model, tokenizer),
        }
        write_aside(args.out / "rates_region.json", json.dumps({"text": args.text, "models": found}, indent=1) + "\n")
    draw(args, found, args.out / "rates_region.png")
    text = markdown(args, found)
    write_aside(args.out / "rates_region.md", text)
    print(text)


def certify(model: Encoder, batch: Batch) -> list[dict[str, float]]:
    """Per layer: the actual rate, the region's as measured and as proved."""
    traces = traces_of(model, batch)
    rows = []
    for layer in range(model.config.layers):
        trace, weights, region = region_of(traces, layer, batch)
        start = time.process_time()
        proved = certified_secant_box_rate(weights, region, model.config.activation)
        rows.append(
            {
                "tokens": int(batch.mask.sum()),
                "actual": float(bounds.actual_rate(trace.input, trace.hidden, batch.mask)[0]),
                "measured": float(measured(weights, region, model.config.activation)[0]),
                "certified": proved.rate,
                "seconds": time.process_time() - start,
            }
        )
        print(layer + 1, rows[-1], flush=True)
    return rows


def grow(args: Args, model: Encoder, tokenizer) -> list[dict]:
    """Per text, length and layer: the actual rate and the region's."""
    layers = np.linspace(0, model.config.layers - 1, args.layers + 1).round().astype(int)[1:]
    reviews = read_texts("movie-reviews", limit=60 * args.starts)
    rows = []
    for start in range(args.starts):
        words = " ".join(reviews[60 * start :]).split()
        for length in args.lengths:
            batch = beginning(tokenizer, words, length)
            traces = traces_of(model, batch)
            for layer in layers.tolist():
                trace, weights, region = region_of(traces, layer, batch)
                row = {
                    "start": start,
                    "tokens": int(batch.mask.sum()),
                    "layer": layer + 1,
                    "actual": float(bounds.actual_rate(trace.input, trace.hidden, batch.mask)[0]),
                    "region": float(measured(weights, region, model.config.activation)[0]),
                }
                rows.append(row)
                print(row, flush=True)
    return rows


def beginning(tokenizer, words: list[str], length: int) -> Batch:
    """As many words as give at most this many tokens."""
    count = length
    while int((batch := tokenizer([" ".join(words[:count])])).mask.sum()) > length:
        count -= 1
    return cut(batch)


def cut(batch: Batch) -> Batch:
    length = int(batch.mask.sum())
    return Batch(*(leaf[:, :length] for leaf in (batch.tokens, batch.segments, batch.mask)))


def traces_of(model: Encoder, batch: Batch) -> BlockTrace:
    return jaxsmooth.encode(model, batch, collect=lambda trace: trace)[1]


def region_of(traces: BlockTrace, layer: int, batch: Batch) -> tuple[BlockTrace, bounds.BlockWeights, Region]:
    trace = jax.tree.map(lambda leaf: leaf[layer], traces)
    pre = trace.normed @ trace.block.up.kernel + trace.block.up.bias[None, None]
    spread = RADIUS * jnp.broadcast_to(pre.std(axis=1, keepdims=True), pre.shape)
    region = Region(trace.attn, trace.std_attn, trace.std_mlp, batch.mask, pre, spread)
    return trace, analysis.block_weights(trace.block), region


def _measured(weights: bounds.BlockWeights, region: Region, activation: str) -> Array:
    return secant_box_rate(weights, region, activation).rate


measured = jax.jit(_measured, static_argnums=2)


def draw(args: Args, found: dict[str, dict], path: Path) -> None:
    with canvas(11, 4.4) as figure:
        left, right = figure.subplots(1, 2)
        for (name, result), colour in zip(found.items(), COLOURS, strict=False):
            rows = result["certified"]
            layers = np.arange(1, len(rows) + 1)
            ratios = [row["certified"] / row["actual"] for row in rows]
            left.plot(layers, ratios, color=colour, marker="s", label=f"{name}, {rows[0]['tokens']} tokens")
            lengths = sorted({row["tokens"] for row in result["lengths"]})
            every = [[r["region"] / r["actual"] for r in result["lengths"] if r["tokens"] == n] for n in lengths]
            right.plot(lengths, [np.median(v) for v in every], color=colour, marker="o", label=name)
            right.fill_between(lengths, [min(v) for v in every], [max(v) for v in every], color=colour, alpha=0.15)
        for axes in (left, right):
            axes.axhline(20, color="#555555", linestyle=":", linewidth=1.2)
            axes.set_ylabel("rate of the region / actual rate")
            axes.legend(loc="best")
        left.set(xlabel="layer", ylim=(0, None))
        right.set(xlabel="tokens", xscale="log", ylim=(0, None))
        right.set_xticks(args.lengths, [str(n) for n in args.lengths])
        right.minorticks_off()
        title(left, "(a) certified, one sentence")
        title(right, "(b) measured, beginnings of a text")
        words = f"Box of {RADIUS} stds around every pre-activation; dotted: 20 times the actual rate"
        remark(figure, f"{words}; (b): median, range over layers.")
        save(figure, path)


def markdown(args: Args, found: dict[str, dict]) -> str:
    lines = [
        "# The rate of a region: certified, and by length",
        "",
        f"`python experiments/rates_region.py`; float64, boxes of {RADIUS} stds of their unit.",
        "",
        f"## Certified, “{args.text}”",
        "",
        "| model | layer | tokens | actual rate | measured | certified | certified / actual | CPU seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, result in found.items():
        lines += [
            f"| {name} | {k} | {row['tokens']} | {row['actual']:.3f} | {row['measured']:.4f} | {row['certified']:.4f} "
            f"| {row['certified'] / row['actual']:.1f} | {row['seconds']:.0f} |"
            for k, row in enumerate(result["certified"], 1)
        ]
        ratios = [row["certified"] / row["actual"] for row in result["certified"]]
        lines.append(f"| {name} | median | | | | | {np.median(ratios):.1f} | |")
    lines += ["", "## By length: multiples of the actual rate", ""]
    for name, result in found.items():
        rows = result["lengths"]
        layers = sorted({row["layer"] for row in rows})
        lines += [
            f"| {name}, tokens | " + " | ".join(f"layer {k}" for k in layers) + " |",
            "|---" * (len(layers) + 1) + "|",
        ]
        for n in sorted({row["tokens"] for row in rows}):
            cells = [
                " / ".join(f"{r['region'] / r['actual']:.1f}" for r in rows if (r["tokens"], r["layer"]) == (n, k))
                for k in layers
            ]
            lines.append(f"| {n} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join([*lines, "![](rates_region.png)", ""])


if __name__ == "__main__":
    main(tyro.cli(Args))
