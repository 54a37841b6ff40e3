"""Rates that hold on a region of inputs, proved on real text: by layer, by length and by the size of the box.

Shows:    theorem 4 of docs/rates.md, certified (`theory.neighbourhood`), and theorem 2, measured by Lanczos
          (`theory.region.secant_box_rate`), as multiples of the actual rate: (a) theorem 4 on whole movie reviews,
          every layer; (b) both on the beginnings of one text; (c) both for boxes of several sizes.
Command:  python experiments/rates_region.py     # OPENBLAS_NUM_THREADS=1 where other programs want the cores
Hardware: 2 CPU cores, float64; less than half an hour.
Expect:   for boxes of 0.05 deviations about 1.4 times the actual rate, whatever the length, and below 1 in the last
          layer of e5-small-q4; theorem 2 some ten times, growing with length; theorem 4 grows faster with the box, and
          passes theorem 2 on the way to a whole deviation.
Writes results/rates_region.json, rates_region.png and rates_region.md.
"""

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax import Array

import jaxsmooth
from drawing import canvas, remark, save, title
from jaxsmooth import Batch, BlockTrace, Encoder
from jaxsmooth.assets.texts import read_texts
from jaxsmooth.files import atomic_write
from jaxsmooth.theory.block import ladder
from jaxsmooth.theory.rates.neighbourhood import Neighbourhood, neighbourhood_rate
from jaxsmooth.theory.rates.region import Region, secant_box_rate
from jaxsmooth.types import Block

RADIUS = 0.05  # in deviations of the unit over the sentence
FOUR_BITS = "Models named -q4 have 4-bit weights."
COLOURS = ("#3B7A57", "#0072B2", "#D55E00")


@dataclasses.dataclass(frozen=True)
class Args:
    """What to measure."""

    models: tuple[str, ...] = ("minilm-l6", "e5-small-q4")
    """Model assets, directories or hub ids."""
    sentences: int = 24
    """How many movie reviews, from the first on, (a) is proved for."""
    lengths: tuple[int, ...] = (16, 32, 64, 128)
    """Tokens of the beginnings of a text, (b)."""
    longest: int = 64
    """Longest of them for theorem 2, whose time grows as the square."""
    boxes: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
    """Half-widths in deviations of the unit, (c)."""
    box_tokens: int = 24
    """Tokens of the text of (c)."""
    layers: int = 3
    """How many layers, evenly spaced and the last among them, (b) and (c) are measured on."""
    out: Path = Path(__file__).parent / "results"
    """Where the results go."""


def main(args: Args) -> None:
    jax.config.update("jax_enable_x64", True)
    found: dict[str, dict] = {}
    for name in args.models:
        model, tokenizer = jaxsmooth.load(name)
        model = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), model)
        parts = {"proved": proved, "lengths": by_length, "boxes": by_box}
        found[name] = {part: list(told(rows(args, model, tokenizer))) for part, rows in parts.items()}
        atomic_write(args.out / "rates_region.json", json.dumps({"box": RADIUS, "models": found}, indent=1) + "\n")
    draw(args, found, args.out / "rates_region.png")
    text = markdown(args, found)
    atomic_write(args.out / "rates_region.md", text)
    print(text)


def told(rows: Iterator[dict]) -> Iterator[dict]:
    for row in rows:
        print(row, flush=True)
        yield row


def proved(args: Args, model: Encoder, tokenizer) -> Iterator[dict]:
    """(a), per sentence and layer."""
    for sentence, text in enumerate(read_texts("movie-reviews", args.sentences)):
        batch = cut(tokenizer([text]))
        traces = traces_of(model, batch)
        for layer in range(model.config.layers):
            yield {"sentence": sentence, **row_of(model, traces, layer, batch, RADIUS, both=False)}


def by_length(args: Args, model: Encoder, tokenizer) -> Iterator[dict]:
    """(b), per length and layer."""
    for length in args.lengths:
        batch = beginning(tokenizer, length)
        traces = traces_of(model, batch)
        for layer in some_layers(args, model):
            yield row_of(model, traces, layer, batch, RADIUS, both=length <= args.longest)


def by_box(args: Args, model: Encoder, tokenizer) -> Iterator[dict]:
    """(c), per box and layer."""
    batch = beginning(tokenizer, args.box_tokens)
    traces = traces_of(model, batch)
    for box in args.boxes:
        for layer in some_layers(args, model):
            yield row_of(model, traces, layer, batch, box, both=True)


def row_of(model: Encoder, traces: BlockTrace, layer: int, batch: Batch, box: float, *, both: bool) -> dict:
    """The actual rate, theorem 4's and, if `both`, theorem 2's."""
    trace = jax.tree.map(lambda leaf: leaf[layer], traces)
    start = time.process_time()
    found = neighbourhood_rate(*neighbourhood_of(model, trace, box))
    row = {
        "layer": layer + 1,
        "tokens": int(batch.mask.sum()),
        "box": box,
        "actual": float(ladder.actual_rate(trace.input, trace.hidden, batch.mask)[0]),
        "proved": found.rate if np.isfinite(found.rate) else None,
        "seconds": time.process_time() - start,
    }
    if both:
        region = region_of(trace, batch, box)
        row["theorem 2"] = float(measured(trace.block, region, model.config.activation)[0])
    return row


def neighbourhood_of(model: Encoder, trace: BlockTrace, box: float):
    """Of the observed input: its attention, stds and normed tokens, `box` deviations around its pre-activations."""
    trace = jax.tree.map(np.asarray, trace)
    radius = box * (trace.normed[0] @ trace.block.up.kernel).std(axis=0)
    # Lowered past their own rounding, so that the observed input is in the region.
    stds = ((1 - 1e-12) * std[0, :, 0] for std in (trace.std_attn, trace.std_mlp))
    near = Neighbourhood(trace.attn[0], trace.normed[0], *stds, radius)
    return trace.block, near, model.config.activation, model.config.eps


def some_layers(args: Args, model: Encoder) -> list[int]:
    return np.linspace(0, model.config.layers - 1, args.layers + 1).round().astype(int)[1:].tolist()


def beginning(tokenizer, length: int) -> Batch:
    """As many words of one movie review after another as give at most this many tokens."""
    words = " ".join(read_texts("movie-reviews", limit=60)).split()
    count = length
    while int((batch := tokenizer([" ".join(words[:count])])).mask.sum()) > length:
        count -= 1
    return cut(batch)


def cut(batch: Batch) -> Batch:
    length = int(batch.mask.sum())
    return Batch(*(leaf[:, :length] for leaf in (batch.tokens, batch.segments, batch.mask)))


def traces_of(model: Encoder, batch: Batch) -> BlockTrace:
    return jaxsmooth.encode(model, batch, collect=lambda trace: trace)[1]


def region_of(trace: BlockTrace, batch: Batch, box: float) -> Region:
    pre = trace.normed @ trace.block.up.kernel + trace.block.up.bias[None, None]
    spread = box * jnp.broadcast_to(pre.std(axis=1, keepdims=True), pre.shape)
    return Region(trace.attn, trace.std_attn, trace.std_mlp, batch.mask, pre, spread)


def _measured(block: Block, region: Region, activation: str) -> Array:
    return secant_box_rate(block, region, activation).rate


measured = jax.jit(_measured, static_argnums=2)


def multiples(rows: list[dict], key: str = "proved") -> list[float]:
    """Of the actual rate; infinite where nothing was proved."""
    return [row[key] / row["actual"] if row[key] is not None else np.inf for row in rows]


def draw(args: Args, found: dict[str, dict], path: Path) -> None:
    with canvas(14, 4.4) as figure:
        layers, lengths, boxes = figure.subplots(1, 3)
        for (name, result), colour in zip(found.items(), COLOURS, strict=False):
            _range(layers, result["proved"], "layer", "proved", colour, "o-", name)
            for axes, part, over in ((lengths, "lengths", "tokens"), (boxes, "boxes", "box")):
                rows = [{**row, "tokens": nominal(args, row["tokens"])} for row in result[part]]
                _range(axes, rows, over, "proved", colour, "o-", f"{name}, theorem 4, proved")
                some = [row for row in rows if "theorem 2" in row]
                _range(axes, some, over, "theorem 2", colour, "s--", f"{name}, theorem 2")
        for axes in (layers, lengths, boxes):
            axes.set_ylabel("rate of the region / actual rate")
            axes.axhline(20, color="#555555", linestyle=":", linewidth=1.2)
            axes.set_yscale("log")
            axes.set_yticks([1, 2, 5, 10, 20, 50, 100], ["1", "2", "5", "10", "20", "50", "100"])
            axes.set_ylim(0.9, 150)
            axes.minorticks_off()
            axes.legend(loc="upper left" if axes is not boxes else "lower right", fontsize=8)
        layers.set_xlabel("layer")
        lengths.set(xlabel="tokens", xscale="log")
        lengths.set_xticks(args.lengths, [str(n) for n in args.lengths])
        boxes.set(xlabel="half-width of the box, deviations of the unit", xscale="log")
        boxes.set_xticks(args.boxes, [f"{box:g}" for box in args.boxes])
        for axes in (lengths, boxes):
            axes.minorticks_off()
        title(layers, f"(a) {args.sentences} movie reviews")
        title(lengths, "(b) beginnings of a text")
        title(boxes, f"(c) {args.box_tokens} tokens, by the box")
        words = f"(a), (b): box of {RADIUS} deviations around every pre-activation. Median and range over"
        remark(figure, f"{words} sentences (a), layers (b, c); dotted: 20 times the actual rate. {FOUR_BITS}")
        save(figure, path)


def _range(axes, rows: list[dict], over: str, key: str, colour: str, style: str, label: str) -> None:
    places = sorted({row[over] for row in rows})
    every = [multiples([row for row in rows if row[over] == place], key) for place in places]
    axes.plot(places, [np.median(v) for v in every], style, color=colour, label=label, markersize=4)
    axes.fill_between(places, [min(v) for v in every], [max(v) for v in every], color=colour, alpha=0.12)


def nominal(args: Args, tokens: int) -> int:
    """The length asked for, of which a text of whole words may be a little short."""
    return min((n for n in (*args.lengths, args.box_tokens) if n >= tokens), default=tokens)


def markdown(args: Args, found: dict[str, dict]) -> str:
    lines = [
        "# The rate of a region: by layer, by length, by the size of the box",
        "",
        f"`python experiments/rates_region.py --sentences {args.sentences}`; float64. Multiples of the actual rate;",
        "theorem 4 is proved, theorem 2 measured by Lanczos. Box: in deviations of the unit over the tokens.",
        *([FOUR_BITS] if any(name.endswith("-q4") for name in found) else []),
        "",
        f"## (a) Theorem 4, box {RADIUS}, the first {args.sentences} movie reviews",
        "",
        "| model | layer | actual rate | proved rate | multiple: median [least, largest] |",
        "|---|---|---|---|---|",
    ]
    for name, result in found.items():
        rows = result["proved"]
        for k in sorted({row["layer"] for row in rows}):
            some = [row for row in rows if row["layer"] == k]
            ends = [
                (min(v), np.median(v), max(v))
                for v in ([row[key] or np.inf for row in some] for key in ("actual", "proved"))
            ]
            cells = [f"{m:.3f} [{a:.3f}, {b:.3f}]" for a, m, b in ends]
            lines.append(f"| {name} | {k} | {cells[0]} | {cells[1]} | {cell(multiples(some))} |")
        tokens, seconds = ([row[key] for row in rows] for key in ("tokens", "seconds"))
        words = f"{min(tokens)} to {max(tokens)} tokens, {np.median(seconds):.0f} CPU s each"
        lines.append(f"| {name} | all | {words} | | {cell(multiples(rows))} |")
    lines += ["", f"## (b) By length, box {RADIUS}", ""]
    for name, result in found.items():
        lines += table(name, result["lengths"], "tokens")
    lines += [f"## (c) By the box, at most {args.box_tokens} tokens", ""]
    for name, result in found.items():
        lines += table(name, result["boxes"], "box")
    return "\n".join([*lines, "![](rates_region.png)", ""])


def cell(values: list[float]) -> str:
    return f"{np.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


def table(name: str, rows: list[dict], over: str) -> list[str]:
    layers = sorted({row["layer"] for row in rows})
    lines = [
        f"| {name}, {over} | " + " | ".join(f"layer {k}: theorem 4 | theorem 2" for k in layers) + " |",
        "|---" * (2 * len(layers) + 1) + "|",
    ]
    for place in sorted({row[over] for row in rows}):
        cells = []
        for k in layers:
            row = next(r for r in rows if (r[over], r["layer"]) == (place, k))
            cells += [f"{multiples([row], key)[0]:.2f}" if key in row else "" for key in ("proved", "theorem 2")]
        lines.append(f"| {place} | " + " | ".join(cells) + " |")
    return [*lines, ""]


if __name__ == "__main__":
    main(tyro.cli(Args))
