"""Li and Altafini (2026): do tokens turn to the principal direction of each layer's F, in real models?

    python -m experiments.neighbours.projection

The paper (arXiv 2605.25619, of which abstract and introduction were to be had): F = sum_h W_V^h W_O^h, the MLP left
out; exact for full attention, symmetric F and shared weights. Its experiment: the projection of tokens on the
principal eigenvector of the layer's F grows with depth in real models, most in ALBERT, whose layers share weights; and
setting the dominant direction steers tokens there. Here: ||P x||/||x|| of the tokens that a layer hands out, P on the
left eigenvector of F's eigenvalue of largest modulus (of a complex pair: its real plane), for every model asset and
its random initialisation; one of its blocks in the place of all, 24 times (no ALBERT is to be had); and with that
direction removed from what every block hands out, against a random direction or plane removed. power_method.py steers
minilm-l6 by setting it.

Hardware and time: 2 shared cores of an Intel Xeon, about 8 minutes of processor time. Expect: projections near chance,
1/sqrt(D) times a constant, with a few layers above; no steady growth; of repeated blocks some turn to their direction
and some not; removal changes little.

Verdict rules, written before the run (of minilm-l6 on film reviews the values were known, those near chance):
- "the projection grows with depth": reproduced if in every trained model and corpus its rank correlation with the
  layer is at least .9 and the last layer's exceeds the first's by more than two standard errors; contradicted if in
  more than half the last is below the first by as much; else not reproduced.
- "most with shared weights": reproduced if for more than half of the repeated blocks the projection after as many
  passes as the model has layers exceeds that of the model's own last layer; contradicted if for less than a quarter;
  else not reproduced.

Writes results/neighbours/projection.json, .md and .png.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax import Array
from jax.tree_util import Partial
from numpy.typing import NDArray

from jaxsmooth import Batch, BlockTrace, Edits, Encoder, Tokenizer, encode, metrics, theory
from jaxsmooth.studies.weights import principal_subspaces, projection_by_chance
from jaxsmooth.theory import PrincipalSubspace

from .. import keeping
from ..drawing import canvas, layer_axis, remark, save, title
from ..paper import observed
from ..sharing import sharing

RESULTS = keeping.RESULTS / "neighbours"
REMOVED = ("none", "principal", "random")
PASSES = 24


@dataclasses.dataclass(frozen=True)
class Args:
    """What to look at."""

    models: tuple[str, ...] = observed.MODELS
    """Model assets."""
    corpora: tuple[str, ...] = ("movie-reviews", "vitaminc")
    """As of `paper.observed`."""
    limit: int = 24
    """Texts of each corpus."""
    repeated: tuple[str, ...] = ("minilm-l6", "e5-small-q4")
    """Models whose blocks are repeated."""
    out: Path = RESULTS
    """Where the results go."""


@jax.jit
def projections(model: Encoder, batch: Batch, frames: Array, edits: Edits) -> dict[str, Array]:
    """What every block hands out projected on its own direction and (mean) on other blocks'; its cosine; [L B]."""

    def onto(hidden: Array, frame: Array) -> Array:
        return theory.li2026_projection(hidden, batch.mask, jnp.broadcast_to(frame, (len(hidden), *frame.shape)))

    def collect(trace: BlockTrace) -> dict[str, Array]:
        every = jax.lax.map(functools.partial(onto, trace.hidden), frames)
        own = every[trace.layer]
        others = (every.sum(axis=0) - own) / max(len(frames) - 1, 1)
        alike = metrics.token_cosine_similarity(trace.hidden, batch.mask)
        return {"own": own, "others": others, "entering": onto(trace.input, frames[trace.layer]), "cosine": alike}

    return encode(model, batch, edits=edits, collect=collect)[1]


def removal(frames: Array) -> Edits:
    """What every block hands out loses its part in the span of that block's frame, [L K D] of orthonormal rows."""
    return Edits(hidden=Partial(_without, frames))


def _without(frames: Array, layer: Array, hidden: Array) -> Array:
    frame = frames[layer].astype(hidden.dtype)
    return hidden - (hidden @ frame.T) @ frame


def random_frames(like: NDArray, seed: int = 0) -> NDArray:
    """Random orthonormal rows, as many in every layer as `like` has that are not zero, [L 2 D]."""
    drawn = np.random.default_rng(seed).standard_normal(like.shape)
    frames = np.stack([np.linalg.qr(each.T)[0].T for each in drawn])
    return frames * np.any(like != 0, axis=-1, keepdims=True)


def projected(
    model: Encoder, tokenizer: Tokenizer, texts: list[str], frames: NDArray, edits: Edits
) -> dict[str, NDArray]:
    """`projections` of all texts, [L texts]."""
    own = jnp.asarray(frames, jnp.float32)
    return observed.by_text(tokenizer, texts, lambda batch: projections(model, batch, own, edits))


@functools.lru_cache(maxsize=1)
def principal_of(model: str, weights: str) -> PrincipalSubspace:
    """`principal_subspaces`, once for all corpora."""
    return principal_subspaces(observed.loaded(model, weights)[0])


def looked_at(model: str, weights: str, corpus: str, limit: int) -> dict[str, Any]:
    """A model as it is and with directions removed: means by layer with their errors."""
    encoder, tokenizer = observed.loaded(model, weights)
    texts = observed.texts_of(corpus, limit)
    principal = principal_of(model, weights)
    frames = (np.zeros_like(principal.frame), principal.frame, random_frames(principal.frame))
    removed = {name: removal(jnp.asarray(each, jnp.float32)) for name, each in zip(REMOVED, frames, strict=True)}
    runs = {name: projected(encoder, tokenizer, texts, principal.frame, edits) for name, edits in removed.items()}
    plain = runs["none"]
    rise, error = keeping.mean_and_error(plain["own"][-1] - plain["own"][0])
    means = {}
    for name in ("own", "others", "entering", "cosine"):
        means[name], means[f"{name}_error"] = (side.tolist() for side in keeping.mean_and_error(plain[name]))
    return {
        **means,
        "chance": projection_by_chance(principal).tolist(),
        "complex": (principal.eigenvalue.imag != 0).tolist(),
        "rank_correlation": float(keeping.rank_correlation(np.arange(len(plain["own"])), plain["own"].mean(axis=1))),
        "rise": float(rise),
        "rise_error": float(error),
        "removed": {name: [float(x) for x in keeping.mean_and_error(run["cosine"][-1])] for name, run in runs.items()},
    }


def repeated(model: str, limit: int) -> dict[str, Any]:
    """Each block in the place of all, `PASSES` times: projection on its direction and cosine after every pass."""
    encoder, tokenizer = observed.loaded(model)
    texts = observed.short_reviews(tokenizer, limit)
    blocks = []
    for block in range(1, encoder.config.layers + 1):
        shared = sharing(encoder, block, PASSES)
        principal = principal_subspaces(shared)
        found = projected(shared, tokenizer, texts, principal.frame, Edits())
        blocks.append(
            {
                "own": found["own"].mean(axis=1).tolist(),
                "cosine": found["cosine"].mean(axis=1).tolist(),
                "chance": float(projection_by_chance(principal)[0]),
            }
        )
    return {"layers": encoder.config.layers, "blocks": blocks}


def tally(cases: dict[str, Any], shared: dict[str, Any]) -> dict[str, int]:
    """The counts that the rules ask for."""
    trained = [one for one in cases.values() if one["weights"] == "trained"]
    above = total = 0
    for model, one in shared.items():
        last = next(c["own"][-1] for c in trained if c["model"] == model and c["corpus"] == "movie-reviews")
        total += len(one["blocks"])
        above += sum(block["own"][one["layers"] - 1] > last for block in one["blocks"])
    return {
        "cases": len(trained),
        "grow": sum(one["rank_correlation"] >= 0.9 and one["rise"] > 2 * one["rise_error"] for one in trained),
        "fall": sum(one["rise"] < -2 * one["rise_error"] for one in trained),
        "repeated": total,
        "above_own_last": above,
    }


# The page


def draw(found: dict[str, Any], path: Path) -> None:
    models = list(dict.fromkeys(one["model"] for one in found["cases"].values()))
    panels = len(models) + len(found["repeated"])
    with canvas(15.0, 4.0 * ((panels + 2) // 3)) as figure:
        grid = figure.subplots((panels + 2) // 3, 3, squeeze=False).ravel()
        for axes, model in zip(grid, models, strict=False):
            first = True
            for one in (each for each in found["cases"].values() if each["model"] == model):
                layers = np.arange(1, len(one["own"]) + 1)
                style = "-" if one["weights"] == "trained" else "--"
                lines = {"own": ("#D55E00", "own direction"), "others": ("#999999", "other layers'")}
                for name, (colour, told) in lines.items():
                    axes.plot(layers, one[name], style, marker=".", color=colour,
                              label=told if first else None, alpha=1 if style == "-" else 0.5)  # fmt: skip
                first = False
            axes.plot(layers, one["chance"], ":", color="#000000", label="chance")
            axes.set_ylim(0, None)
            axes.set_ylabel("mean ‖Px‖/‖x‖ of tokens")
            layer_axis(axes, 1, len(layers))
            title(axes, observed.label(model))
            axes.legend(fontsize=9)
        for axes, (model, one) in zip(grid[len(models) :], found["repeated"].items(), strict=False):
            count = len(one["blocks"])
            for place, block in enumerate(one["blocks"]):
                shade = (0.0, 0.25 + 0.6 * place / count, 0.9 - 0.8 * place / count, 1.0)
                axes.plot(range(1, PASSES + 1), block["own"], color=shade, linewidth=1.3, label=str(place + 1))
            axes.axvline(one["layers"], color="#555555", linewidth=1, linestyle=":")
            axes.set(xlabel="pass", ylabel="mean ‖Px‖/‖x‖ of tokens", ylim=(0, 0.5))
            axes.legend(
                fontsize=8, ncols=6, title="block in all places", loc="upper center", framealpha=1, frameon=True
            )
            title(axes, f"{observed.label(model)}: one block repeated")
        for axes in grid[panels:]:
            axes.set_axis_off()
        remark(
            figure,
            "Solid: trained, dashed: random initialisation; one line a corpus. Dotted upright: the model's own depth.",
        )
        save(figure, path)


def report(found: dict[str, Any]) -> str:
    rows = []
    for name, one in found["cases"].items():
        own = np.array(one["own"]) / np.array(one["chance"])
        cells = [with_error(one["removed"][kind]) for kind in REMOVED]
        last = f"{one['own'][-1]:.3f} ± {one['own_error'][-1]:.3f}"
        rows.append([name, f"{one['own'][0]:.3f}", last, f"{max(one['own']):.3f}",
                     f"{own.min():.2f} to {own.max():.2f}", f"{one['rank_correlation']:.2f}", *cells])  # fmt: skip
    head = ["model, weights, corpus", "first", "last", "largest", "over chance", "rank correlation",
            "cosine, last layer", "principal removed", "random removed"]  # fmt: skip
    blocks = [
        [observed.label(model), str(k + 1), *(f"{block['own'][at]:.3f}" for at in (0, one["layers"] - 1, PASSES - 1)),
         f"{block['chance']:.3f}", f"{block['cosine'][-1]:.3f}"]
        for model, one in found["repeated"].items() for k, block in enumerate(one["blocks"])
    ]  # fmt: skip
    counts = found["tally"]
    passes = ["after 1 pass", "after as many as the model has", f"after {PASSES}"]
    return f"""# Projection of tokens on every layer's principal direction (Li and Altafini 2026)

`python -m experiments.neighbours.projection`. Mean ‖Px‖/‖x‖ of the tokens that a layer hands out.
Of {counts["cases"]} trained models and corpora {counts["grow"]} grow with depth by the rule, {counts["fall"]} fall.
Of {counts["repeated"]} repeated blocks {counts["above_own_last"]} end above the model's own last layer.

{keeping.table(head, rows)}

One block in all places, film reviews:

{keeping.table(["model", "block", *passes, "chance", "cosine at the end"], blocks)}

![](projection.png)
"""


def with_error(pair: list[float]) -> str:
    return f"{pair[0]:.3f} ± {pair[1]:.3f}"


def main(args: Args) -> dict[str, Any]:
    wanted = observed.Args(models=args.models, corpora=args.corpora)
    names = [(m, w, c) for m in args.models for w in observed.WEIGHTS for c in observed.corpora_of(wanted, m)]
    work = {f"{m}, {w}, {args.limit} of {c}": functools.partial(looked_at, m, w, c, args.limit) for m, w, c in names}
    again = {f"{m} repeated, {args.limit} reviews": functools.partial(repeated, m, args.limit) for m in args.repeated}
    entries = list(keeping.kept(args.out / "projection_parts.json", work | again, doing="projecting").values())
    cases = {
        f"{observed.label(m)}, {w}, {c}": {"model": m, "weights": w, "corpus": c, **one}
        for (m, w, c), one in zip(names, entries, strict=False)
    }
    shared = dict(zip(args.repeated, entries[len(names) :], strict=True))
    found = {"args": dataclasses.asdict(args) | {"out": None}, "cases": cases, "repeated": shared,
             "tally": tally(cases, shared)}  # fmt: skip
    draw(found, args.out / "projection.png")
    keeping.write(args.out, "projection", found, report(found))
    print(report(found))
    return found


if __name__ == "__main__":
    main(tyro.cli(Args))
