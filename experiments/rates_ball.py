"""Rates proved for an open set of inputs, and for a ball of them: how large, and what lies inside.

Shows:    theorem 5 of docs/rates.md, certified: attention, stds and pre-activations may move (`neighbourhood_rate`);
          the largest ball of inputs inside that set (`inner_radius`); theorem 6, certified: the rate of a ball of given
          radius (`ball_rate`); whether the same text run in float32 and in bfloat16 lies in the sets; how far away the
          text is that differs in one token, by its nearest neighbour.
Command:  python experiments/rates_ball.py       # OPENBLAS_NUM_THREADS=1 where other programs want the cores
Hardware: 2 CPU cores, float64; 6 minutes of processor time.
Expect:   the open set costs a tenth more than theorem 4's, whose attention is fixed; float32 is inside by far; bfloat16
          is inside the larger set; a ball of 0.001 costs some tenths; another text is thousands of radii away.
Writes results/rates_ball.json, rates_ball.png and rates_ball.md.
"""

import dataclasses
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rates_region import cut, traces_of

import jaxsmooth
from drawing import canvas, remark, save, title
from jaxsmooth import Batch, BlockTrace, Encoder
from jaxsmooth.assets.texts import read_texts
from jaxsmooth.files import atomic_write
from jaxsmooth.theory import Neighbourhood, ball_rate, inner_radius, neighbourhood_rate

COLOURS = ("#3B7A57", "#0072B2", "#D55E00", "#7A3B69")


class Sizes(NamedTuple):
    """Of an open set: how far a row of attention may move, how much stds may fall, half-widths in deviations."""

    attn_move: float
    fall: float
    box: float


OPEN = {"small": Sizes(0.01, 0.05, 0.05), "bfloat16": Sizes(0.03, 0.02, 0.15)}


@dataclasses.dataclass(frozen=True)
class Args:
    """What to measure."""

    model: str = "minilm-l6"
    """A model asset, directory or hub id."""
    sentences: int = 3
    """How many movie reviews, the first of at most `longest` tokens."""
    longest: int = 32
    """Tokens of a review, special ones included."""
    radii: tuple[float, ...] = (1e-4, 1e-3, 2e-3)
    """Of the balls."""
    out: Path = Path(__file__).parent / "results"
    """Where the results go."""


def main(args: Args) -> None:
    jax.config.update("jax_enable_x64", True)
    model, tokenizer = jaxsmooth.load(args.model)
    rows = []
    for row in measured(args, model, tokenizer):
        print(row, flush=True)
        rows.append(row)
        found = {"model": args.model, "sets": {name: size._asdict() for name, size in OPEN.items()}, "rows": rows}
        atomic_write(args.out / "rates_ball.json", json.dumps(found, indent=1) + "\n")
    draw(args, rows, args.out / "rates_ball.png")
    atomic_write(args.out / "rates_ball.md", markdown(args, rows))
    print(markdown(args, rows))


def measured(args: Args, model: Encoder, tokenizer) -> Iterator[dict]:
    """Per sentence and layer."""
    exact, *rough = (jax.tree.map(lambda leaf, d=d: leaf.astype(d), model) for d in ("float64", "float32", "bfloat16"))
    every = (cut(tokenizer([text])) for text in read_texts("movie-reviews", 100))
    short = (batch for batch in every if batch.mask.sum() <= args.longest)
    for sentence, batch in enumerate(itertools.islice(short, args.sentences)):
        traces = host(traces_of(exact, batch))
        others = {str(m.embeddings.word.dtype): host(traces_of(m, batch)) for m in rough}
        others["one token"] = host(traces_of(exact, nearest_text(exact, batch)))
        for layer in range(exact.config.layers):
            own = jax.tree.map(lambda leaf, k=layer: leaf[k], traces)
            start = time.process_time()
            row = {
                "sentence": sentence,
                "layer": layer + 1,
                "tokens": int(batch.mask.sum()),
                **proved(args, exact, own),
            }
            row["seconds"] = time.process_time() - start
            row["others"] = {
                name: difference(own, jax.tree.map(lambda leaf, k=layer: leaf[k], other))
                for name, other in others.items()
            }
            yield row


def proved(args: Args, model: Encoder, trace: BlockTrace) -> dict:
    eps, hidden = model.config.eps, trace.input[0]
    row: dict = {"actual": distance(trace.hidden[0]) / distance(hidden)}
    for name, size in OPEN.items():
        near = around(trace, size)
        rate = neighbourhood_rate(trace.block, near, "gelu", eps).rate
        row[name] = rate if np.isfinite(rate) else None
        if name == "small":
            row["fixed"] = neighbourhood_rate(
                trace.block, around(trace, size._replace(attn_move=0, fall=0)), "gelu", eps
            ).rate
            row["inner radius"] = inner_radius(trace.block, hidden, near, eps)
    rates = [ball_rate(trace.block, hidden, radius, "gelu", eps).rate for radius in args.radii]
    row["balls"] = [rate if np.isfinite(rate) else None for rate in rates]
    return row


def around(trace: BlockTrace, size: Sizes) -> Neighbourhood:
    """The open set of these sizes around an observed input."""
    # 1e-12: the observed stds are computed ones.
    stds = ((1 - 1e-12 - size.fall) * std[0, :, 0] for std in (trace.std_attn, trace.std_mlp))
    radius = size.box * (trace.normed[0] @ trace.block.up.kernel).std(axis=0)
    return Neighbourhood(trace.attn[0], trace.normed[0], *stds, radius, size.attn_move)


def difference(own: BlockTrace, other: BlockTrace) -> dict:
    """How far another run is from this one, in the sizes of an open set, and its tokens in Euclidean length."""
    pre = own.normed[0] @ own.block.up.kernel
    moved = np.abs((other.normed[0] - own.normed[0]) @ own.block.up.kernel) / pre.std(axis=0)
    return {
        "attn_move": float(np.linalg.norm(other.attn[0] - own.attn[0], axis=-1).max()),
        "fall": float(max(np.max(1 - other.std_attn / own.std_attn), np.max(1 - other.std_mlp / own.std_mlp))),
        "box": float(moved.max()),
        "tokens": float(np.linalg.norm(other.input[0] - own.input[0], axis=-1).max()),
    }


def nearest_text(model: Encoder, batch: Batch) -> Batch:
    """The text with one of its tokens, special ones apart, replaced by the one of the nearest embedding."""
    words = np.asarray(model.embeddings.word)
    tokens = np.asarray(batch.tokens)[0]
    far = np.array([np.linalg.norm(words - words[token], axis=1) for token in tokens[1:-1]])
    far[np.arange(len(far)), tokens[1:-1]] = np.inf
    place, word = np.unravel_index(far.argmin(), far.shape)
    return dataclasses.replace(batch, tokens=batch.tokens.at[0, 1 + int(place)].set(int(word)))


def host(traces: BlockTrace) -> BlockTrace:
    return jax.tree.map(
        lambda leaf: np.asarray(leaf, np.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, traces
    )


def distance(hidden: np.ndarray) -> float:
    return float(np.linalg.norm(hidden - hidden.mean(axis=0)))


def within(other: dict, size: Sizes) -> bool:
    return all(other[key] <= getattr(size, key) for key in size._fields)


def draw(args: Args, rows: list[dict], path: Path) -> None:
    layers = sorted({row["layer"] for row in rows})
    with canvas(13, 4.4) as figure:
        sets, balls = figure.subplots(1, 2)
        for key, label, colour in (
            ("fixed", "theorem 4: attention fixed, box 0.05", COLOURS[0]),
            ("small", "theorem 5: attention 0.01, stds 5 %, box 0.05", COLOURS[1]),
            ("bfloat16", "theorem 5: attention 0.03, stds 2 %, box 0.15", COLOURS[2]),
        ):
            values = [factors(rows, key, layer) for layer in layers]
            sets.plot(layers, [np.median(v) for v in values], "o-", color=colour, label=label, markersize=4)
            sets.fill_between(layers, [min(v) for v in values], [max(v) for v in values], color=colour, alpha=0.12)
        for layer, colour in zip((layers[0], layers[len(layers) // 2], layers[-1]), COLOURS, strict=False):
            values = [ball_factors(rows, k, layer) for k in range(len(args.radii))]
            balls.plot(
                args.radii, [np.median(v) for v in values], "o-", color=colour, label=f"layer {layer}", markersize=4
            )
            balls.fill_between(args.radii, [min(v) for v in values], [max(v) for v in values], color=colour, alpha=0.12)
        sets.set(xlabel="layer", ylabel="proved rate / actual rate", yscale="log", ylim=(0.95, 12))
        sets.set_yticks([1, 1.5, 2, 3, 5, 10], ["1", "1.5", "2", "3", "5", "10"])
        balls.set(
            xlabel="radius of every token (a token is 5 to 10 from the mean)",
            xscale="log",
            ylabel="proved rate / actual rate",
        )
        sets.minorticks_off()
        for axes in (sets, balls):
            axes.legend(loc="upper left", fontsize=8)
        title(sets, "(a) open sets around a text")
        title(balls, "(b) theorem 6: balls of inputs, attention recomputed")
        remark(
            figure,
            f"{args.model}, {args.sentences} movie reviews, float64, certified; line: median, band: least to largest.",
        )
        save(figure, path)


def factors(rows: list[dict], key: str, layer: int | None = None) -> list[float]:
    some = [row for row in rows if layer in (None, row["layer"])]
    return [np.inf if row[key] is None else row[key] / row["actual"] for row in some]


def ball_factors(rows: list[dict], place: int, layer: int | None = None) -> list[float]:
    some = [row for row in rows if layer in (None, row["layer"])]
    return [np.inf if row["balls"][place] is None else row["balls"][place] / row["actual"] for row in some]


def cell(values: list[float], form: str = ".2f") -> str:
    return f"{np.median(values):{form}} [{min(values):{form}}, {max(values):{form}}]"


def markdown(args: Args, rows: list[dict]) -> str:
    layers = sorted({row["layer"] for row in rows})
    tokens = [row["tokens"] for row in rows]
    span, seconds = f"{min(tokens)} to {max(tokens)}", np.median([row["seconds"] for row in rows])
    lines = [
        "# Rates of open sets and of balls of inputs",
        "",
        f"`python experiments/rates_ball.py --model {args.model}`; float64, certified. The first {args.sentences}",
        f"movie reviews of at most {args.longest} tokens ({span}), every layer; {seconds:.0f} CPU s for each of both.",
        "Multiples of the actual rate, median [least, largest].",
        "",
        "## Open sets (theorem 5)",
        "",
        "| layer | theorem 4, box 0.05 | attention 0.01, stds 5 %, box 0.05 | radius of a ball inside | attention 0.03,"
        " stds 2 %, box 0.15 |",
        "|---|---|---|---|---|",
    ]
    for layer in [*layers, None]:
        some = [row for row in rows if layer in (None, row["layer"])]
        inner = cell([row["inner radius"] for row in some], ".1e")
        first, second, third = (cell(factors(rows, key, layer)) for key in ("fixed", "small", "bfloat16"))
        lines.append(f"| {layer or 'all'} | {first} | {second} | {inner} | {third} |")
    lines += ["", "## Balls (theorem 6)", "", "| layer | " + " | ".join(f"radius {r:g}" for r in args.radii) + " |"]
    lines.append("|---" * (len(args.radii) + 1) + "|")
    for layer in [*layers, None]:
        cells = [cell(ball_factors(rows, k, layer)) for k in range(len(args.radii))]
        lines.append(f"| {layer or 'all'} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, *_others(rows), "", "![](rates_ball.png)", ""])


def _others(rows: list[dict]) -> list[str]:
    lines = [
        "",
        "## What lies inside",
        "",
        "Largest over tokens, heads and units; median [least, largest] over reviews and layers.",
        "",
        "| run | row of attention moves | stds fall | box needed | token moves | over the inner radius | inside the"
        " first set | inside the second |",
        "|---" * 8 + "|",
    ]
    for name in rows[0]["others"]:
        every = [row["others"][name] for row in rows]
        cells = [cell([other[key] for other in every], ".1e") for key in ("attn_move", "fall", "box", "tokens")]
        over = [other["tokens"] / row["inner radius"] for other, row in zip(every, rows, strict=True)]
        inside = [f"{sum(within(o, size) for o in every)} of {len(every)}" for size in OPEN.values()]
        lines.append(f"| {name} | " + " | ".join([*cells, cell(over, ".1e"), *inside]) + " |")
    return lines


if __name__ == "__main__":
    main(tyro.cli(Args))
