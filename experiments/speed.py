"""How fast tokens close up: by the norm's placement, at random weights, in trained layers; and what it does to classes.

    python experiments/speed.py                     # the placements, random encoders, four models, two sets of classes

Time: a few minutes of processor time, on 2 CPU cores. Expect: Post-LN and nGPT exponential, Pre-LN and Peri-LN like
1 / depth with the encoder's own blocks on the law; random encoders within their fluctuation of the mean-field map; in
trained layers a sub-layer turns a token by tens of degrees, next to the largest angle that its size allows.

Karagodin et al. (2025) read normalisation as a regulator of speed, Cowsik et al. (2024) a random block as two
exponents, Zhang and Papyan (2026) find that smoothing can help. Laws and proofs: docs/speed.md, docs/initialisation.md,
docs/separation.md. Writes results/speed.json, speed.png and speed.md.
"""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib.axes import Axes

import jaxsmooth
from drawing import canvas, layer_axis, log_axis, remark, save, title
from jaxsmooth import Batch, Edits, Encoder, EncoderConfig, embed, encode, metrics, theory
from jaxsmooth.assets.texts import read_rows, sample_texts
from jaxsmooth.files import atomic_write
from jaxsmooth.linalg.rows import centre_features
from jaxsmooth.types import BlockTrace, map_named

COLOURS = {"post": "#000000", "pre": "#0072B2", "sandwich": "#D55E00", "sphere": "#009E73"}
NAMES = {"post": "Post-LN", "pre": "Pre-LN", "sandwich": "Peri-LN", "sphere": "nGPT"}


@dataclasses.dataclass(frozen=True)
class Args:
    """What to run."""

    depth: int = 32
    """Layers of the laws, and of the random encoders."""
    width: int = 128
    """Of the random encoders."""
    seeds: int = 4
    """Random encoders of each placement."""
    models: tuple[str, ...] = ("minilm-l3", "minilm-l6", "e5-small-q4", "mpnet-base")
    """Trained models."""
    data: str = "movie-reviews"
    limit: int = 16
    """Texts that the turns are measured on."""
    labelled: tuple[str, ...] = ("movie-reviews", "reuters-r8")
    """Texts with classes: the sign of a score, or a topic."""
    texts: int = 120
    """How many of each."""
    words: int = 40
    """Of each labelled text, the first so many words."""
    out: Path = Path(__file__).parent / "results"
    """Where the results go."""


# The laws, and random encoders


def simplex(rng: np.random.Generator, tokens: int, width: int, cosine: float) -> np.ndarray:
    """Tokens of std 1 and one pairwise cosine, features centred."""
    frame = np.linalg.qr(np.column_stack([np.ones(width), rng.standard_normal((width, tokens))]))[0][:, 1:]
    return np.sqrt(width) * np.linalg.cholesky((1 - cosine) * np.eye(tokens) + cosine) @ frame.T


def random_encoder(args: Args, placement: str, block: theory.RandomBlock, seed: int, tokens: int) -> Encoder:
    """Kernels of the block's stds, no scores: attention is uniform."""
    d = args.width
    config = EncoderConfig(
        vocab=9, width=d, layers=args.depth, heads=4, mlp_width=4 * d, max_length=tokens, placement=placement
    )
    stds = {
        **dict.fromkeys(("value", "output"), (block.value / d) ** 0.5),
        "up": block.up / d**0.5,
        "down": block.down / (4 * d) ** 0.5,
    }
    rng = np.random.default_rng(seed)

    def draw(name: str, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        kernel = name.startswith("blocks") and name.endswith("kernel")
        std = stds.get(name.split(".")[-2], 0.0) if kernel else 0.0
        drawn = std * rng.standard_normal(leaf.shape) if std else np.full(leaf.shape, float(name.endswith("scale")))
        return jnp.asarray(drawn, jnp.float32)

    return map_named(draw, jax.eval_shape(lambda: jaxsmooth.init_encoder(config, jax.random.key(0), pooler=False)))


def cosines(model: Encoder, x: np.ndarray) -> np.ndarray:
    """Mean cosine of two tokens, features centred, after every layer."""
    ids = jnp.ones((1, len(x)), jnp.int32)
    batch = Batch(tokens=ids, segments=0 * ids, mask=jnp.ones((1, len(x)), bool))
    start = Edits(embedded=lambda layer, value: jnp.asarray(x, jnp.float32)[None])

    def collect(trace: BlockTrace) -> jax.Array:
        return metrics.token_cosine_similarity(centre_features(trace.hidden), batch.mask)[0]

    return np.asarray(jax.jit(lambda m: encode(m, batch, edits=start, collect=collect)[1])(model))


def laws(args: Args) -> dict[str, list[float]]:
    """Tangents by depth under uniform attention, values I / 2, from two tokens at 60 degrees to their mean."""
    start = (jnp.asarray(x) for x in (3**0.5, 1.0))
    start, strength = tuple(start), jnp.full(args.depth, 0.5)
    zero, two = jnp.asarray(0.0), jnp.asarray(2.0)
    return {
        name: np.asarray(theory.karagodin2025_path(*start, strength, zero, two, placement=name).tangent).tolist()
        for name in NAMES
    }


def random_sweep(args: Args, tokens: int = 8) -> dict[str, dict]:
    """1 - cos by depth of random encoders of BERT's stds at width 768, beside the map of two numbers."""
    std = 0.02 * 0.87962566  # truncated at two standard deviations
    block = theory.RandomBlock(std**2 * 768, std * 768**0.5, std * 3072**0.5)
    found = {}
    for placement in ("post", "pre", "sandwich"):
        own = dataclasses.replace(block, placement=placement)
        state, expected = (1.0, 0.2), []
        for _ in range(args.depth):
            state = theory.cowsik2024_step(own, *state, tokens)
            expected.append(1 - float(state[1]))
        seen = [
            1 - cosines(random_encoder(args, placement, own, seed, tokens), simplex(rng, tokens, args.width, 0.2))
            for seed, rng in ((seed, np.random.default_rng(100 + seed)) for seed in range(args.seeds))
        ]
        exponents = theory.cowsik2024_exponents(own)
        found[placement] = {
            "map": expected,
            "seen": np.array(seen).tolist(),
            "exponents": [float(x) for x in exponents],
            "powers": None if placement == "post" else theory.cowsik2024_powers(own),
        }
    return found


# Trained layers


def turns(model: Encoder, batch: Batch) -> dict[str, np.ndarray]:
    """Of every sub-layer: the angle in degrees by which it turns a token, s, and the limit; medians over tokens [L]."""

    def collect(trace: BlockTrace) -> dict[str, jax.Array]:
        found = {"tangent": jnp.median(metrics.frequency_ratio(trace.hidden, batch.mask))}
        for name, x, added in (("attn", trace.input, trace.mixed), ("mlp", trace.normed, trace.mlp)):
            turn, limit, known = theory.update_turn(x, added, batch.mask)
            middle = jnp.where(batch.mask, jnp.degrees(turn), jnp.nan)
            found |= {
                f"{name}_turn": jnp.nanmedian(middle),
                f"{name}_limit": jnp.nanmedian(jnp.where(known, jnp.degrees(limit), jnp.nan)),
                f"{name}_used": jnp.nanmedian(jnp.where(known, turn / limit, jnp.nan)),
                f"{name}_small": jnp.sum(known) / jnp.sum(batch.mask),
            }
        return found

    return jax.tree.map(np.asarray, jax.jit(lambda m: encode(m, batch, collect=collect)[1])(model))


def labelled(args: Args, name: str) -> tuple[list[str], np.ndarray]:
    """Texts drawn at random, and their classes."""
    rows = read_rows(name)
    chosen = np.random.default_rng(0).permutation(len(rows))[: args.texts]
    rows = [rows[k] for k in sorted(chosen)]
    topics = [row[0] if len(row) == 2 else str(float(row[1]) > 0) for row in rows]
    return [" ".join(row[-1].split()[: args.words]) for row in rows], np.unique(topics, return_inverse=True)[1]


def separation(model: Encoder, tokenizer, texts: list[str], classes: np.ndarray) -> dict[str, np.ndarray]:
    """By layer from the embedding on: F of texts' mean tokens by class, F of tokens by text, token cosine."""

    def measure(batch: Batch) -> tuple[jax.Array, ...]:
        states = jnp.concatenate([embed(model, batch)[None], encode(model, batch)[1].hidden])
        mask = jnp.broadcast_to(batch.mask, states.shape[:-1])
        spread = theory.subspace_distance(states, mask) ** 2
        return theory.token_mean(states, mask)[..., 0, :], spread, metrics.token_cosine_similarity(states, mask)

    run, parts, lengths = jax.jit(measure), [], []
    for start in range(0, len(texts), 20):
        batch = tokenizer(texts[start : start + 20])
        parts.append([np.asarray(part, np.float64) for part in run(batch)])
        lengths.append(np.asarray(batch.mask.sum(axis=1)))
    means, spread, cosine = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
    count = np.concatenate(lengths)[:, None]
    away = means - (count * means).sum(axis=1, keepdims=True) / count.sum()
    labels, real = np.broadcast_to(classes, means.shape[:-1]), np.ones(means.shape[:-1], bool)
    return {
        "separation": np.asarray(theory.class_separation(*map(jnp.asarray, (means, labels, real)))),
        "texts": (count * away**2).sum(axis=(1, 2)) / spread.sum(axis=1),
        "cosine": np.nanmean(cosine, axis=1),
    }


# The page


def draw(args: Args, found: dict, path: Path) -> None:
    with canvas(13.0, 9.6) as figure:
        (law, random), (turn, classes) = figure.subplots(2, 2)
        depths = np.arange(args.depth + 1)
        for name, path_ in found["laws"].items():
            law.plot(depths[1:], path_[1:], color=COLOURS[name], label=NAMES[name])
        law.set_ylabel("tangent of the angle to the mean")
        law.set_ylim(1e-5, 3)
        title(law, "the law: uniform attention, values I / 2")
        for name, one in found["random"].items():
            random.plot(depths[1:], one["map"], color=COLOURS[name], label=NAMES[name])
            random.plot(depths[1:], np.transpose(one["seen"]), ".", color=COLOURS[name], markersize=3)
        random.set_ylabel("1 - cosine of two tokens")
        title(random, f"random weights, width {args.width}: map and encoders")
        for axes in (law, random):
            axes.set_yscale("log")
            axes.set_xscale("log")
            axes.set_xlabel("layers (log scale)")
            axes.legend()
        _draw_turns(turn, found["turns"])
        _draw_classes(classes, found["separation"])
        remark(
            figure,
            "Bottom left: medians over tokens; dashed: the largest turn that the update's size allows. "
            "Bottom right: of texts' mean tokens by class, of tokens by text (dashed).",
        )
        save(figure, path)


def _draw_turns(axes: Axes, found: dict) -> None:
    for colour, (name, one) in zip(("#000000", "#D55E00", "#0072B2"), found.items(), strict=False):
        layers = np.arange(1, len(one["attn_turn"]) + 1)
        for part, marker in (("attn", "o"), ("mlp", "s")):
            axes.plot(layers, one[f"{part}_turn"], marker=marker, color=colour, label=f"{name}, {part}")
            # Of few tokens, those that turn little, it would stand below the median of all.
            limit = np.where(np.array(one[f"{part}_small"]) > 0.9, one[f"{part}_limit"], np.nan)
            axes.plot(layers, limit, "--", color=colour, linewidth=1)
    layer_axis(axes, 1, max(len(one["attn_turn"]) for one in found.values()))
    axes.set_ylim(0, None)
    axes.set_ylabel("turn of a token, degrees")
    axes.legend(fontsize=9)
    title(axes, "trained layers: how far a sub-layer turns a token")


def _draw_classes(axes: Axes, found: dict) -> None:
    values = []
    for colour, (name, one) in zip(("#000000", "#D55E00", "#0072B2", "#009E73"), found.items(), strict=False):
        axes.plot(one["separation"], marker="o", color=colour, label=f"{name}: classes")
        axes.plot(one["texts"], "--", marker="x", color=colour, label=f"{name}: texts")
        values += [np.array(one["separation"]), np.array(one["texts"])]
    layer_axis(axes, 0, max(len(one["separation"]) for one in found.values()) - 1)
    log_axis(axes, values)
    axes.set_ylim(8e-4, None)
    axes.set_ylabel("scatter between over within")
    axes.legend(fontsize=8, loc="lower center", ncols=2)
    title(axes, "separation F by layer")


def report(args: Args, found: dict) -> str:
    marks = sorted({k for k in (1, 4, 16, args.depth) if k <= args.depth})
    laws_ = "\n".join(
        f"| {NAMES[name]} | {' | '.join(f'{path[k]:.3g}' for k in marks)} |" for name, path in found["laws"].items()
    )
    random = "\n".join(f"| {NAMES[name]} | {' | '.join(_cells(one))} |" for name, one in found["random"].items())
    rows = []
    for name, one in found["turns"].items():
        for k, _ in enumerate(one["attn_turn"]):
            cells = [
                f"{one[f'{part}_turn'][k]:.1f} | {one[f'{part}_limit'][k]:.1f} | {one[f'{part}_small'][k]:.2f}"
                for part in ("attn", "mlp")
            ]
            rows.append(f"| {name} | {k + 1} | {' | '.join(cells)} | {one['tangent'][k]:.2f} |")
    classes = "\n".join(
        f"| {name} | {label} | {' '.join(f'{x:.3g}' for x in one[key])} |"
        for name, one in found["separation"].items()
        for key, label in (("cosine", "token cosine"), ("separation", "F of classes"), ("texts", "F of texts"))
    )
    command = (
        f"python experiments/speed.py --depth {args.depth} --width {args.width} --seeds {args.seeds} "
        f"--models {' '.join(args.models)} --data {args.data} --limit {args.limit} "
        f"--labelled {' '.join(args.labelled)} --texts {args.texts} --words {args.words}"
    )
    rules = " | ".join(["---"] * (len(marks) + 1))
    return PAGE.format(
        **dataclasses.asdict(args), command=command, marks=" | ".join(map(str, marks)), rules=rules, laws=laws_,
        random=random, turns="\n".join(rows), classes=classes, device=jax.devices()[0].device_kind,
    )  # fmt: skip


def _cells(one: dict) -> list[str]:
    """Of random encoders of one placement."""
    ends = np.array(one["seen"])[:, -1]
    powers = ["", ""] if one["powers"] is None else [f"{power:.3f}" for power in one["powers"]]
    spread = f"{ends.mean():.3f} [{ends.min():.3f}, {ends.max():.3f}]"
    return [f"{one['exponents'][0]:.4f}", f"{one['exponents'][1]:.4f}", *powers, f"{one['map'][-1]:.3f}", spread]


PAGE = """# The speed of tokens

`{command}`, {device}.

## Placements: tangent of the angle to the mean after so many layers

| | {marks} |
| {rules} |
{laws}

## Random encoders: exponents at consensus, powers of the depth, and 1 - cos after {depth} layers

Size 1 where the exponent depends on the tokens' size; of {seeds} encoders of width {width}, mean [least, largest].

| | angle | gradient | p | g | the map | encoders |
| --- | --- | --- | --- | --- | --- | --- |
{random}

## Trained layers: turn of a token in degrees

Medians over the tokens of {limit} texts of {data}; the limit arcsin s over those with s < 1, whose share stands
behind it; t of the layer's output.

| model | layer | attention | limit | s < 1 | MLP | limit | s < 1 | t |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
{turns}

## Classes: by layer, the embedding first

{texts} texts each, at most {words} words; sign of the score, or topic.

| | | |
| --- | --- | --- |
{classes}

![](speed.png)
"""


def main(args: Args) -> None:
    found: dict[str, dict] = {"laws": laws(args), "random": random_sweep(args), "turns": {}, "separation": {}}
    for name in args.models:
        model, tokenizer = jaxsmooth.load(name)
        found["turns"][name] = turns(model, tokenizer(sample_texts(args.data, args.limit, 0)))
        for source in args.labelled:
            found["separation"][f"{name}, {source}"] = separation(model, tokenizer, *labelled(args, source))
    draw(args, found, args.out / "speed.png")
    plain = jax.tree.map(lambda leaf: leaf.tolist() if isinstance(leaf, np.ndarray) else leaf, found)
    versions = {"jax": jax.__version__, "device": jax.devices()[0].device_kind}
    atomic_write(args.out / "speed.json", json.dumps({"versions": versions, **plain}) + "\n")
    text = report(args, found)
    atomic_write(args.out / "speed.md", text)
    print(text)


if __name__ == "__main__":
    main(tyro.cli(Args))
