"""Phase diagram of collapse: depth against an imposed LayerNorm std, for random and for real weights.

    python experiments/phase_diagram.py             # 2,048 random encoders and minilm-l6, each at 32 stds

Time: about ten minutes of processor time, on 2 CPU cores. Expect: every encoder's tokens meet once the std passes a
threshold; the theory's threshold for the same encoders is several times larger for random weights and tens of times
for real ones; nowhere does a distance exceed what the theory promises ("violations" 0).

Shi et al. (2022) predict that d_M contracts once the stds at both LayerNorms are large enough,
sigma_1 sigma_2 > threshold. Here both LayerNorms divide all tokens of all layers by one imposed number instead of
their own std, and that number is swept: one compiled program, an `Edits` on the two stds, `vmap` over stds and over
a few encoders, `lax.map` over all; norms are computed once for each encoder. Above the diagram's line "rate = 1"
(L1, the theorem with each layer's own constants; L2, refined norms) the theory promises contraction in every layer;
its promise for each depth is compared with what happened, case by case.
Writes results/phase_diagram.json, phase_diagram.png and phase_diagram.md.
"""

import dataclasses
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib.axes import Axes

import jaxsmooth
from drawing import canvas, remark, save, title
from jaxsmooth import Batch, Edits, Encoder, EncoderConfig, embed, encode, init_encoder, metrics, theory
from jaxsmooth.assets.texts import read_texts
from jaxsmooth.files import atomic_write
from jaxsmooth.studies.measurements import model_norms
from jaxsmooth.types import BlockTrace

RUNGS = ("L1", "L2")
TOGETHER = 4  # encoders run at once, each at every std


@dataclasses.dataclass(frozen=True)
class Args:
    """What to sweep."""

    encoders: int = 2048
    """Random encoders; each is run at every std."""
    stds: int = 32
    """Values of the imposed std, evenly spaced in the logarithm."""
    depth: int = 12
    """Layers of a random encoder."""
    model: str = "minilm-l6"
    """The real model."""
    data: str = "movie-reviews"
    sentences: int = 16
    """Sentences that the real model reads; random encoders read one of random tokens each."""
    out: Path = Path(__file__).parent / "results"
    """Where the results go."""


def sweep(model: Encoder, batch: Batch, norms: theory.BlockNorms, stds: jax.Array) -> dict[str, jax.Array]:
    """Every std through the whole encoder at once: name -> [stds layers sentences].

    `log_distance` is log10 of d_M after each layer over d_M of the embeddings; L1 and L2 are rates at std 1, to be
    divided by the square of the std.
    """
    start = theory.subspace_distance(embed(model, batch), batch.mask)

    def collect(trace: BlockTrace) -> dict[str, jax.Array]:
        own = jax.tree.map(lambda stacked: stacked[trace.layer], norms)
        mixing = theory.mixing_rate(trace.attn, batch.mask, tolerance=1e-4)
        state = theory.BlockState(
            trace.input, trace.attn, trace.pre_attn, trace.std_attn, trace.std_mlp, batch.mask, mixing
        )
        return {
            "log_distance": jnp.log10(theory.subspace_distance(trace.hidden, batch.mask) / start),
            "relative": theory.relative_distance(trace.hidden, batch.mask),
            "cosine": metrics.token_cosine_similarity(trace.hidden, batch.mask),
            "L1": theory.contraction_threshold(own, state),
            # All tokens are divided by one number, so no LayerNorm identity is needed: a f G_2 is enough.
            "L2": theory.attention_stretch(own, state) * own.mlp * own.gain_mlp,
        }

    def one(std: jax.Array) -> dict[str, jax.Array]:
        def impose(layer: jax.Array, own: jax.Array) -> jax.Array:
            return jnp.full_like(own, std)

        return encode(model, batch, edits=Edits(std_attn=impose, std_mlp=impose), collect=collect)[1]

    return jax.vmap(one)(stds)


def random_sweep(args: Args, stds: np.ndarray) -> dict[str, np.ndarray]:
    """Random encoders of width 64, all in one jit: name -> [encoders stds layers 1]."""
    config = EncoderConfig(
        vocab=128, width=64, layers=args.depth, heads=4, mlp_width=256, max_length=16, std_init=0.125
    )

    def run(key: jax.Array) -> dict[str, jax.Array]:
        weights, words = jax.random.split(key)
        model = init_encoder(config, weights, dtype=jnp.float64, pooler=False)
        tokens = jax.random.randint(words, (1, 16), 1, config.vocab)
        batch = Batch(tokens=tokens, segments=jnp.zeros_like(tokens), mask=jnp.ones(tokens.shape, bool))
        return sweep(model, batch, model_norms(model), jnp.asarray(stds))

    # Over a dozen layers distances change by more orders of magnitude than single precision has.
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), args.encoders)
        # Some encoders at a time: memory does not grow with their number, and what they hold stays in the cache.
        return jax.tree.map(np.asarray, jax.jit(partial(jax.lax.map, run, batch_size=TOGETHER))(keys))


def real_sweep(args: Args, stds: np.ndarray) -> dict[str, np.ndarray]:
    """The real model on real sentences: name -> [1 stds layers sentences]."""
    model, tokenizer = jaxsmooth.load(args.model)
    batch = tokenizer(read_texts(args.data, args.sentences))
    norms = model_norms(model)
    # A few stds at a time: all of them would hold the attention of hundreds of sentences at once.
    run = jax.jit(partial(sweep, model, batch, norms))
    parts = [run(part) for part in jnp.split(jnp.asarray(stds, jnp.float32), max(1, stds.size // 8))]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[None], *parts)


def analyse(found: dict[str, np.ndarray], stds: np.ndarray) -> dict:
    """Medians over encoders and sentences, the thresholds, and promises broken."""
    middle = {name: np.median(values, axis=(0, 3)) for name, values in found.items()}
    squared = 2 * np.log10(stds)[None, :, None, None]
    promised = {name: np.cumsum(np.log10(found[name]) - squared, axis=2) for name in RUNGS}
    # A distance is known to the precision of the tokens' size, not of itself.
    seen = found["relative"] > 1e3 * np.finfo(found["relative"].dtype).eps
    broken = {name: int(np.sum(seen & (found["log_distance"] > promised[name] + 1e-3))) for name in RUNGS}
    # d_M of the last layer falls with the std: where it crosses that of the embeddings.
    critical = _crossing(stds, middle["log_distance"][:, -1])
    thresholds = {name: _crossing(stds, (np.log10(middle[name]) - squared[0, :, :, 0]).max(axis=1)) for name in RUNGS}
    return {
        "log_distance": middle["log_distance"],
        "cosine": middle["cosine"],
        "promised": {name: np.median(promised[name], axis=(0, 3)) for name in RUNGS},
        "critical_std": critical,
        "threshold_std": thresholds,
        "cases": int(seen.sum()),
        "violations": broken,
    }


def _crossing(stds: np.ndarray, falling: np.ndarray) -> float:
    """The std from which on the numbers stay below 0, by linear interpolation in the logarithm; NaN if nowhere."""
    above = np.flatnonzero(falling >= 0)
    if not above.size or above[-1] + 1 == stds.size:
        return float("nan") if above.size else float(stds[0])
    k = above[-1]
    share = falling[k] / (falling[k] - falling[k + 1])
    return float(np.exp(np.log(stds[k]) + share * np.log(stds[k + 1] / stds[k])))


def draw(panels: dict[str, dict], grids: dict[str, np.ndarray], path: Path) -> None:
    with canvas(13.0, 9.4) as figure:
        grid = figure.subplots(2, len(panels), squeeze=False)
        for column, (name, found) in zip(grid.T, panels.items(), strict=True):
            depth, stds = found["log_distance"].shape[1], grids[name]
            levels = np.arange(depth + 1) + 0.5
            settings = (
                ("log_distance", "RdBu_r", -6, 6, r"$\log_{10}$ of $d_M$ after / before"),
                ("cosine", "viridis", 0, 1, "cosine similarity of two tokens"),
            )
            for axes, (key, colours, low, high, label) in zip(column, settings, strict=True):
                edges = np.exp(_edges(np.log(stds)))
                shown = axes.pcolormesh(edges, levels, found[key].T, cmap=colours, vmin=low, vmax=high, rasterized=True)
                figure.colorbar(shown, ax=axes, label=label, extend="both" if low else "neither")
                _boundaries(axes, found, stds)
                axes.set_xscale("log")
                axes.set_xlim(edges[0], edges[-1])
                axes.set_ylim(depth + 0.5, 0.5)
                axes.set_xlabel("imposed std of both LayerNorms (log scale)")
                axes.set_ylabel("layer")
                axes.grid(False)
            title(column[0], name)
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=4)
        remark(
            figure,
            "Blue: tokens are closer to one another than in the embeddings. Right of a dashed line the theory promises "
            "contraction in every\nlayer; right of and below a dotted curve it promises a distance below 1/1000 of the "
            "first, which the white curve shows as observed.",
        )
        save(figure, path)


def _boundaries(axes: Axes, found: dict, stds: np.ndarray) -> None:
    layers = np.arange(1, found["log_distance"].shape[1] + 1)
    for name, colour in zip(RUNGS, ("#000000", "#D55E00"), strict=True):
        axes.axvline(found["threshold_std"][name], color=colour, linestyle="--", label=f"theory {name}: rate = 1")
        axes.contour(stds, layers, found["promised"][name].T, levels=[-3], colors=colour, linestyles="dotted")
    axes.contour(stds, layers, found["log_distance"].T, levels=[-3], colors="white", linewidths=2.5, linestyles="solid")
    axes.axvline(found["critical_std"], color="#E69F00", linewidth=2.5, label="observed: last layer as the embeddings")


def _edges(centres: np.ndarray) -> np.ndarray:
    half = np.diff(centres)[0] / 2
    return np.append(centres - half, centres[-1] + half)


def report(args: Args, panels: dict[str, dict], seconds: dict[str, float]) -> str:
    lines = []
    for name, found in panels.items():
        observed = found["critical_std"]
        cells = [
            f"{found['threshold_std'][rung]:.1f} ({found['threshold_std'][rung] / observed:.1f} x)" for rung in RUNGS
        ]
        broken = " / ".join(str(found["violations"][rung]) for rung in RUNGS)
        cells = [name, f"{observed:.2f}", *cells, f"{found['cases']:,}", broken, f"{seconds[name]:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    rows = "\n".join(lines)
    return f"""# Phase diagram of collapse

`python experiments/phase_diagram.py --encoders {args.encoders} --stds {args.stds} --depth {args.depth}
--model {args.model} --data {args.data} --sentences {args.sentences}`, {jax.devices()[0].device_kind}.

The std from which on tokens end closer to one another than they began (median over encoders or sentences), and the
std from which on the theory promises contraction in every layer, with its ratio to the observed one. A violation is
an encoder, sentence and layer whose distance exceeds the product of the rates up to there; cases whose distance is
below a thousand roundings of the tokens' norm are not counted. Random weights run in double precision, real ones in
single.

| weights | observed | L1, the theorem | L2 | cases | violations L1 / L2 | seconds |
| --- | --- | --- | --- | --- | --- | --- |
{rows}

![](phase_diagram.png)
"""


def main(args: Args) -> None:
    ranges: dict[str, tuple[Callable, float, float]] = {
        f"{args.encoders} random encoders, {args.depth} layers of width 64": (random_sweep, 0.5, 50.0),
        f"{args.model} on {args.sentences} sentences": (real_sweep, 0.2, 500.0),
    }
    panels, seconds, grids = {}, {}, {}
    for name, (run, low, high) in ranges.items():
        stds = np.geomspace(low, high, args.stds)
        started = time.perf_counter()
        panels[name] = analyse(run(args, stds), stds)
        seconds[name], grids[name] = time.perf_counter() - started, stds
    draw(panels, grids, args.out / "phase_diagram.png")
    numbers = {
        name: {"std": grids[name].tolist(), "seconds": round(seconds[name], 1)}
        | {
            key: jax.tree.map(lambda x: x.tolist() if isinstance(x, np.ndarray) else x, value)
            for key, value in found.items()
        }
        for name, found in panels.items()
    }
    versions = {"jax": jax.__version__, "device": jax.devices()[0].device_kind}
    atomic_write(args.out / "phase_diagram.json", json.dumps({"versions": versions, "panels": numbers}) + "\n")
    text = report(args, panels, seconds)
    atomic_write(args.out / "phase_diagram.md", text)
    print(text)


if __name__ == "__main__":
    main(tyro.cli(Args))
