"""The certified basin of collapse beside the measured one: blocks and stacks of real models, and random encoders.

Shows:    docs/basin.md's table: the radius within which every sentence of any length provably reaches consensus, the
          rate, and how far along four directions (a sentence's, its differences, random, two clusters) they still do.
Command:  python experiments/basin.py
Hardware: 2 CPU cores; the certificate of one layer of width 384 takes 4 to 10 s of processor time, memory below 2 GB.
Expect:   positive radii for layers and stacks of both models; measured ones 10 to 10^5 times as large.
Writes results/basin.json, basin.png and basin.md, after every row; rows that are there already are kept.
"""

import dataclasses
import json
import platform
import time
from pathlib import Path

import jax
import numpy as np
import tyro
from scipy.special import erf, softmax

import jaxsmooth
from drawing import canvas, remark, save, title
from jaxsmooth.bert.config import EncoderConfig
from jaxsmooth.bert.params import Encoder, init_encoder
from jaxsmooth.files import atomic_write
from jaxsmooth.terminal import say
from jaxsmooth.theory import Basin, certified_basin

PASSES = 60  # through one layer; a fifth of it through a stack
HALVINGS = 9
REACHED = 1e-4  # of the starting differences
TEXT = "A sentimental mess that never rings true."
MODELS = ("minilm-l6", "e5-small-q4")


@dataclasses.dataclass(frozen=True)
class Args:
    """What to certify."""

    only: tuple[str, ...] = ()
    """Rows by name ("minilm-l6 layer 5"); all by default."""
    out: Path = Path(__file__).parent / "results"
    """Where the results go."""


def main(args: Args) -> None:
    path = args.out / "basin.json"
    kept = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = {row["name"]: row for row in kept}
    for name, model, layer, std, states in cases():
        if (args.only and name not in args.only) or (not args.only and name in rows):
            continue
        rows[name] = {"name": name, **one_row(model, layer, std, states(layer))}
        say(f"{name}: {rows[name]['radius']:.3g} certified, {rows[name]['measured']} measured")
        write(args.out, list(rows.values()))
    write(args.out, list(rows.values()))


def cases():
    """(name, model, layer, imposed std, layer -> a real sentence's input of that layer)."""
    for std in (1.5, 2.0, 4.0):
        yield f"random encoder, std {std:g}", random_encoder(), None, std, random_states
    for name in MODELS:
        model, tokenizer = jaxsmooth.load(name)
        states = hidden_states(model, tokenizer)
        yield f"{name} stack", model, None, None, states
        for layer in range(1, model.config.layers + 1):
            yield f"{name} layer {layer}", model, layer, None, states


def hidden_states(model: Encoder, tokenizer):
    batch = tokenizer([TEXT])
    real = np.asarray(batch.mask[0])
    _, trace = jaxsmooth.encode(model, batch)
    states = [jaxsmooth.embed(model, batch)[0], *trace.hidden[:, 0]]
    return lambda layer: np.asarray(states[(layer or 1) - 1], np.float64)[real]


def random_encoder() -> Encoder:
    config = EncoderConfig(vocab=100, width=64, layers=2, heads=4, mlp_width=256, max_length=16, std_init=0.1)
    return init_encoder(config, jax.random.key(0))


def random_states(layer: int | None) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((9, 64))


def one_row(model: Encoder, layer: int | None, std: float | None, state: np.ndarray) -> dict:
    began = time.process_time()
    basin = certified_basin(model, layer=layer, std=std)
    seconds = time.process_time() - began
    if not basin.radius:  # another start: the mean of the sentence
        basin = certified_basin(model, layer=layer, std=std, start=state.mean(axis=0))
    row = {
        "radius": basin.radius,
        "size_of_point": float(np.linalg.norm(basin.point)),
        "farthest": farthest(basin),
        "mean_radius": basin.mean_radius,
        "diameter": basin.diameter,
        "rate": finite(basin.rate),
        "rate_at_point": finite(basin.rate_at_point),
        "spectral_radius": finite(basin.spectral_radius),
        "spectral_radius_mean": finite(basin.spectral_radius_mean),
        "period": basin.period,
        "limit": basin.limit,
        "seconds": round(seconds, 1),
    }
    began = time.process_time()
    first = jax.tree.map(lambda leaf: np.asarray(leaf[(layer or 1) - 1], np.float64), model.blocks)
    passes = PASSES if layer else PASSES // 5
    found = measured(real_map(model, layer, std), first, basin, state, passes) if basin.period else {}
    return {**row, "measured": found, "seconds_measured": round(time.process_time() - began, 1)}


def finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def measured(once, block, basin: Basin, state: np.ndarray, passes: int) -> dict[str, float | None]:
    """The largest radius, by halving, from which a direction reaches consensus; None if every one tried does."""
    found = {}
    for name, moves in directions(block, basin, state):
        moves = moves / np.linalg.norm(moves, axis=-1).max()
        low, high = 0.0, farthest(basin)
        if reaches(once, basin.point + high * moves, passes):
            found[name] = None
            continue
        for _ in range(HALVINGS):
            middle = low / 2 + high / 2
            low, high = (middle, high) if reaches(once, basin.point + middle * moves, passes) else (low, middle)
        found[name] = low
    return found


def farthest(basin: Basin) -> float:
    """How far is tried: four times the row's length, or a normed token's where the row is 0."""
    return 4 * max(float(np.linalg.norm(basin.point)), 0.5 * len(basin.point) ** 0.5)


def directions(block, basin: Basin, state: np.ndarray):
    """A sentence's tokens, their differences, a random one, and two clusters on the axis that scores attract most."""
    yield "sentence", state - basin.point
    yield "differences", state - state.mean(axis=0)
    yield "random", np.random.default_rng(0).standard_normal(state.shape)
    scores = np.einsum("dnh,enh->nde", block.attn.query.kernel, block.attn.key.kernel)
    values, axes = np.linalg.eigh(scores + scores.swapaxes(1, 2))
    axis = axes[np.argmax(values[:, -1]), :, -1]
    halves = np.where(np.arange(len(state)) % 2, 1.0, -1.0)
    yield "two clusters", halves[:, None] * axis


def reaches(once, x: np.ndarray, passes: int) -> bool:
    start = np.linalg.norm(x - x[:1], axis=-1).max()
    for _ in range(passes):
        x = once(x)
        if np.linalg.norm(x - x[:1], axis=-1).max() <= REACHED * start:
            return True
    return False


def real_map(model: Encoder, layer: int | None, std: float | None):
    """The real block, or all in turn, in numpy and float64: a sentence [T D] in, one out."""
    blocks = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), model.blocks)
    places = range(model.config.layers) if layer is None else [layer - 1]
    chosen = [jax.tree.map(lambda leaf, k=k: leaf[k], blocks) for k in places]

    def norm(u, of):
        centred = u - u.mean(axis=-1, keepdims=True)
        own = np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + model.config.eps) if std is None else std
        return centred / own * of.scale + of.bias

    def one(b, x):
        q, k, v = (
            np.einsum("td,dnh->nth", x, side.kernel, optimize=True) + side.bias[:, None]
            for side in (b.attn.query, b.attn.key, b.attn.value)
        )
        attn = softmax(q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1]), axis=-1)
        mixed = np.einsum("nth,nhd->td", attn @ v, b.attn.output.kernel, optimize=True) + b.attn.output.bias
        y = norm(x + mixed, b.norm_attn)
        pre = y @ b.up.kernel + b.up.bias
        return norm(y + (0.5 * pre * (1 + erf(pre / np.sqrt(2)))) @ b.down.kernel + b.down.bias, b.norm_mlp)

    def once(x):
        for block in chosen:
            x = one(block, x)
        return x

    return once


def write(out: Path, rows: list[dict]) -> None:
    about = {"text": TEXT, "processor": platform.processor() or platform.machine(), "rows": rows}
    atomic_write(out / "basin.json", json.dumps(about, indent=1) + "\n")
    atomic_write(out / "basin.md", markdown(rows))
    draw(rows, out / "basin.png")


def ratio(row: dict) -> str:
    sizes = [size for size in row["measured"].values() if size]
    if not row["radius"]:
        return "-"
    return f"{min(sizes) / row['radius']:,.0f}" if sizes else "all tried converge"


def markdown(rows: list[dict]) -> str:
    lines = [
        "# A certified basin of collapse",
        "",
        "`python experiments/basin.py`. Radii are Euclidean, of every token around the consensus row, whose length is",
        "given beside; measured along a sentence's tokens, along their differences, at random, and for two clusters on",
        "the axis that the scores of attention attract most, up to four times that length (all: no end was met).",
        "",
        "| map | certified radius | row's length | rate a pass | rho(M) | rho(N) "
        "| measured: sentence, differences, random, two clusters | least / certified |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        sizes = [f"{size:.3g}" if size else "all" for size in row["measured"].values()] or ["-"]
        numbers = [f"{row[key]:.4g}" if row[key] is not None else "-" for key in ("rate", "spectral_radius")]
        mean = "-" if row["spectral_radius_mean"] is None else f"{row['spectral_radius_mean']:.4g}"
        lines.append(
            f"| {row['name']} | {row['radius']:.3g} | {row['size_of_point']:.3g} | {numbers[0]} | {numbers[1]} "
            f"| {mean} | {', '.join(sizes)} | {ratio(row)} |"
        )
    return "\n".join([*lines, "", "![](basin.png)", ""])


def draw(rows: list[dict], path: Path) -> None:
    with canvas(8.5, 1.8 + 0.3 * len(rows)) as figure:
        axes = figure.subplots()
        places = np.arange(len(rows))[::-1]
        styles = (
            ("sentence", "#0072B2", "s"),
            ("differences", "#009E73", "^"),
            ("random", "#56B4E9", "o"),
            ("two clusters", "#CC79A7", "v"),
        )
        for name, colour, marker in styles:
            sizes = [row["measured"].get(name) or np.nan for row in rows]
            axes.plot(sizes, places, marker, color=colour, label=f"measured, {name}")
            beyond = [row["measured"].get(name, 0) is None for row in rows]
            edge = [row["farthest"] if far else np.nan for row, far in zip(rows, beyond, strict=True)]
            axes.plot(edge, places, ">", color=colour)
        axes.plot([row["radius"] or np.nan for row in rows], places, "D", color="#D55E00", label="certified")
        if any(row["radius"] for row in rows):
            axes.set_xscale("log")
        axes.set_yticks(places, [row["name"] for row in rows])
        axes.set_xlabel("largest distance of a token from the consensus row")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        title(axes, "How near consensus a sentence is certain to collapse")
        remark(
            figure,
            "One layer repeated, or all in turn; any number of tokens. Right triangle: no end met up to there.",
        )
        save(figure, path)


if __name__ == "__main__":
    main(tyro.cli(Args))
