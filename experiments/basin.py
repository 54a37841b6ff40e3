"""The certified basin of collapse beside the nearest escape that is found: blocks and stacks, and random encoders.

Shows:    docs/basin.md's table: the radius within which every sentence of any length provably reaches consensus, the
          rate, and the nearest sentence that a search by gradients finds which does not end in equal tokens AT THAT
          ROW (basin_escape.py): it stays unequal, or its tokens become equal at another row.
Command:  python experiments/basin.py
          The stack of minilm-l6: --only "minilm-l6 stack" --tokens 2 --within 14 --laws --scores 1 2 4 5 --again
Hardware: 2 CPU cores, memory below 2 GB; a layer of width 384 takes about half a minute of processor time for the
          certificate and one to ten minutes for the search.
Expect:   positive radii for all but the stack of e5-small-q4; escapes 38 to 16,000 times as far. Ends with an error if
          an escape lies inside a certified radius: then the certificate is wrong.
Writes results/basin.json, basin.png and basin.md, after every row; rows that are there already are kept. The sentences
that escape are in basin_escapes.json: their tokens' moves from the row.
"""

import dataclasses
import json
import platform
import time
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from basin_escape import TOKENS, Search, starts

import jaxsmooth
from drawing import canvas, remark, save, title
from jaxsmooth.bert.config import EncoderConfig
from jaxsmooth.bert.params import Encoder, init_encoder
from jaxsmooth.files import atomic_write
from jaxsmooth.studies.fate.maps import token_map
from jaxsmooth.terminal import say
from jaxsmooth.theory import Basin, certified_basin
from jaxsmooth.theory.basin.row_map import row_map
from jaxsmooth.theory.equal_tokens import equal_token_map

PASSES = 200, 60  # of a layer and of a stack, after which a start that is not at the row has escaped
AHEAD = 6, 3  # passes that a search looks ahead
TEXT = "A sentimental mess that never rings true."
MODELS = ("minilm-l6", "e5-small-q4")


@dataclasses.dataclass(frozen=True)
class Args:
    """What to certify."""

    only: tuple[str, ...] = ()
    """Rows by name ("minilm-l6 layer 5"), which are certified anew; all that are missing by default."""
    search: bool = True
    """Whether to look for escapes where that was not done before."""
    tokens: tuple[int, ...] = TOKENS
    """Numbers of tokens of the sentences searched."""
    within: float | None = None
    """The radius at which the search starts; by default four times the row's length."""
    again: bool = False
    """Search although it was done before; of each number of tokens the nearer escape is kept."""
    laws: bool = False
    """Whether the search starts from leading directions of M and N, in place of those of P and Q."""
    scores: tuple[int, ...] = ()
    """Layers whose scores' axes are starts; by default the first of the map."""
    out: Path = Path(__file__).parent / "results"
    """Where the results go."""


def main(args: Args) -> None:
    path = args.out / "basin.json"
    kept = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = {row["name"]: row for row in kept}
    for name, model, layer, std, states in cases():
        if (args.only and name not in args.only) or (not args.only and name in rows):
            continue
        basin, certified = certificate(model, layer, std, states(layer))
        row = {"name": name, **certified}
        before = rows.get(name, {})
        if "escapes" in before and abs(before["size_of_point"] - row["size_of_point"]) <= 1e-9 * row["size_of_point"]:
            row |= {key: before[key] for key in ("escapes", "seconds_searched")}
        rows[name] = row
        write(args.out, list(rows.values()))
        if ("escapes" not in row or args.again) and args.search and basin.radius:
            looked = escapes(Model(model, layer, std, states(layer)), basin, args)
            keep_sentences(args.out, name, looked.pop("sentences"), row)
            row |= looked | {"escapes": nearer(row.get("escapes", []), looked["escapes"])}
        inside = [one for one in row.get("escapes", []) if one["distance"] and one["distance"] <= row["radius"]]
        if inside:
            raise AssertionError(f"{name}: {inside} inside the certified radius {row['radius']}")
        say(f"{name}: {row['radius']:.3g} certified, nearest escape {nearest(row)}")
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


def certificate(model: Encoder, layer: int | None, std: float | None, state: np.ndarray) -> tuple[Basin, dict]:
    began = time.process_time()
    basin = certified_basin(model, layer=layer, std=std)
    seconds = time.process_time() - began
    if not basin.radius:  # another start: the mean of the sentence
        basin = certified_basin(model, layer=layer, std=std, start=state.mean(axis=0))
    return basin, {
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


def finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def farthest(basin: Basin) -> float:
    """How far is searched by default: four times the row's length, or a normed token's where the row is 0."""
    return 4 * max(float(np.linalg.norm(basin.point)), 0.5 * len(basin.point) ** 0.5)


class Model(NamedTuple):
    """A map, and a real sentence in front of it."""

    model: Encoder
    layer: int | None
    std: float | None
    state: np.ndarray


def escapes(of: Model, basin: Basin, args: Args) -> dict:
    """The nearest escape found, for every number of tokens, and the tokens' moves from the row."""
    began, found, sentences, stack = time.process_time(), [], {}, of.layer is None
    first = of.layer or 1
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, np.float64)), of.model.blocks)
        wide_model = dataclasses.replace(of.model, blocks=wide)
        imposed = None if of.std is None else jnp.float64(of.std)

        def once(x: jax.Array) -> jax.Array:
            mask = jnp.ones(x.shape[:2], bool)
            return token_map(wide_model, "stack" if stack else "layer", jnp.int32(first - 1), mask, imposed)(x)

        search = Search(once, basin.point, PASSES[stack], AHEAD[stack])
        roots = laws(of, basin) if args.laws else (basin.root, basin.root_mean)
        axes = {layer: attracted_axis(wide, layer - 1) for layer in args.scores or (first,)}
        for tokens in args.tokens:
            within = args.within or farthest(basin)
            one = search.nearest(starts(tokens, roots, of.state - basin.point, axes), within)
            found.append({"tokens": tokens, "distance": None})
            if one is not None:
                found[-1] = one._asdict()
                sentences[tokens] = found[-1].pop("moves").tolist()
    return {"escapes": found, "sentences": sentences, "seconds_searched": round(time.process_time() - began, 1)}


def laws(of: Model, basin: Basin) -> tuple[np.ndarray, np.ndarray]:
    """M and N of a pass at the row, which is a fixed point."""
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), of.model.blocks)
    places = range(of.model.config.layers) if of.layer is None else [of.layer - 1]
    row, eps = basin.point, float(of.model.config.eps)
    products = [np.eye(len(row))] * 2
    for place in places:
        block = jax.tree.map(lambda leaf, k=place: leaf[k], wide)
        at = row_map(block, row, eps, of.std)
        products = [product @ law.mid for product, law in zip(products, (at.law(), at.shared_law()), strict=True)]
        row = equal_token_map([block], eps, "gelu", of.std)(row[None])[0]
    return products[0], products[1]


def nearer(before: list[dict], after: list[dict]) -> list[dict]:
    """Of each number of tokens the nearer escape."""
    found = {one["tokens"]: one for one in before}
    for one in after:
        known = found.get(one["tokens"])
        if known is None or (one["distance"] or np.inf) < (known["distance"] or np.inf):
            found[one["tokens"]] = one
    return [found[tokens] for tokens in sorted(found)]


def keep_sentences(out: Path, name: str, sentences: dict[int, list], row: dict) -> None:
    """The moves of every escape that is nearer than the one known, beside the row, so that it can be replayed."""
    path = out / "basin_escapes.json"
    stored = json.loads(path.read_text()) if path.exists() else {}
    known = {one["tokens"]: one["distance"] or np.inf for one in row.get("escapes", [])}
    for tokens, moves in sentences.items():
        if float(np.linalg.norm(moves, axis=1).max()) < known.get(tokens, np.inf):
            stored.setdefault(name, {})[str(tokens)] = moves
    atomic_write(path, json.dumps(stored) + "\n")


def attracted_axis(blocks, layer: int) -> np.ndarray:
    """The axis along which a head's scores attract most."""
    query, key = (np.asarray(side.kernel[layer]) for side in (blocks.attn.query, blocks.attn.key))
    scores = np.einsum("dnh,enh->nde", query, key)
    values, axes = np.linalg.eigh(scores + scores.swapaxes(1, 2))
    return axes[np.argmax(values[:, -1]), :, -1]


def nearest(row: dict) -> dict | None:
    met = [one for one in row.get("escapes", []) if one["distance"]]
    return min(met, key=lambda one: one["distance"]) if met else None


def write(out: Path, rows: list[dict]) -> None:
    about = {"text": TEXT, "processor": platform.processor() or platform.machine(), "rows": rows}
    atomic_write(out / "basin.json", json.dumps(about, indent=1) + "\n")
    atomic_write(out / "basin.md", markdown(rows))
    draw(rows, out / "basin.png")


def markdown(rows: list[dict]) -> str:
    lines = [
        "# A certified basin of collapse",
        "",
        "`python experiments/basin.py`. Radii are Euclidean, of every token around the consensus row, whose length is",
        "given beside; certified radii are rounded down, certified rates up. The nearest escape is the one that a",
        "search by gradients finds which does not end in equal tokens at that row: its farthest token's distance, how",
        "many tokens, and where it ends. Searched: sentences of so many tokens, from a radius of",
        "max(4 |row|, 2 sqrt(D)) down (stack of minilm-l6: from 14).",
        "",
        "| map | certified radius | row's length | rate a pass | rho(M) | rho(N) | searched | nearest escape found "
        "| its end | escape / certified |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        keys = ("spectral_radius", "spectral_radius_mean")
        differences, mean = (f"{row[key]:.4g}" if row[key] is not None else "-" for key in keys)
        rate = "-" if row["rate"] is None else rounded(row["rate"], 4, ROUND_CEILING)
        radius = rounded(row["radius"], 3, ROUND_FLOOR)
        tokens = [str(one["tokens"]) for one in row.get("escapes", [])]
        lines.append(
            f"| {row['name']} | {radius} | {row['size_of_point']:.3g} | {rate} | {differences} | {mean} "
            f"| {', '.join(tokens) or '-'} | {' | '.join(met(row))} |"
        )
    return "\n".join([*lines, "", "![](basin.png)", ""])


def rounded(value: float, digits: int, direction: str) -> str:
    """To so many significant digits, towards the side on which a certified number stays true."""
    exact = Decimal(value)
    step = Decimal(1).scaleb(exact.adjusted() - digits + 1) if exact else Decimal(1)
    return f"{float(exact.quantize(step, rounding=direction)):.{digits}g}"


def met(row: dict) -> tuple[str, str, str]:
    """The nearest escape, its end, and its distance over the certified radius."""
    one = nearest(row)
    if one is None:
        return ("none" if "escapes" in row else "not searched"), "-", "-"
    count = f"{one['tokens']} token{'s' * (one['tokens'] > 1)}"
    end = "unequal tokens" if one["spread"] > 1e-6 * one["off"] else "another row"
    return f"{one['distance']:.3g} ({count})", end, f"{one['distance'] / row['radius']:,.0f}"


def draw(rows: list[dict], path: Path) -> None:
    with canvas(8.5, 1.8 + 0.3 * len(rows)) as figure:
        axes = figure.subplots()
        places = np.arange(len(rows))[::-1]
        for tokens, colour, marker in zip(TOKENS, ("#0072B2", "#009E73", "#56B4E9", "#CC79A7"), "os^v", strict=True):
            of = [[one for one in row.get("escapes", []) if one["tokens"] == tokens] for row in rows]
            sizes = [found[0]["distance"] or np.nan if found else np.nan for found in of]
            label = f"nearest escape found, {tokens} token{'s' * (tokens > 1)}"
            axes.plot(sizes, places, marker, color=colour, label=label, alpha=0.8)
            edge = [
                row["farthest"] if found and not found[0]["distance"] else np.nan
                for row, found in zip(rows, of, strict=True)
            ]
            axes.plot(edge, places, ">", color=colour)
        axes.plot([row["radius"] or np.nan for row in rows], places, "D", color="#D55E00", label="certified")
        if any(row["radius"] for row in rows):
            axes.set_xscale("log")
        axes.set_yticks(places, [row["name"] for row in rows])
        axes.set_xlabel("largest distance of a token from the consensus row")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        title(axes, "How near consensus a sentence is certain to collapse")
        remark(figure, "One layer repeated, or all in turn. Right triangle: no escape found up to there.")
        save(figure, path)


if __name__ == "__main__":
    main(tyro.cli(Args))
