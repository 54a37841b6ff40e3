"""Does a larger LayerNorm std mean more smoothing, as Theorem 2 of Shi et al. (2022) says? Observed, and caused.

    python -m experiments.paper.std

The paper's claim, with its quantifiers: for every post-LN block, d_M(H') <= v d_M(H) with v = (1 + s^2)(1 +
sqrt(lambda) h s)/(sigma1 sigma2), sigma1 and sigma2 the minimal stds at the block's two LayerNorms, s and lambda
maxima over the whole model. So IF v < 1 in every layer, tokens converge to the subspace, the faster the larger sigma1
sigma2; the paper explains with it that similarity falls most under fusion where sigma1 sigma2 is largest (its figures
5 and 6). Where v >= 1 the theorem says nothing, and a relation between the std and smoothing is an extrapolation.

Observed: over texts, within a layer, the rank correlation of sigma1 sigma2 with the rate d_M(H')/d_M(H) (claim:
negative) and with the change of the cosine (claim: positive), the number of tokens partialled out (a minimum over more
tokens is smaller, and longer texts smooth differently); mean over corpora, with a 95% bootstrap interval over texts.
Caused: both norms of every block divide (i) by one imposed number, (ii) by their own std times a factor; d_M/‖H‖ and
cosine of the last layer.

Models, texts, hardware and time of the observed part as figure_1a's (observed.json serves both); the caused part is 16
film reviews, three models, about 5 minutes of processor time.

Expect: v at 80,000 and more everywhere (thousands were expected), so nothing is promised; caused, smoothing rises
with the imposed std, past a threshold near 1 to 2; observed, signs of both kinds.

Verdict rules, written before the run:
- caused: reproduced if in every model the rank correlation of imposed std with the last layer's mean d_M/‖H‖ is at
  most -.9 and with the cosine at least .9, for numbers imposed and for factors; contradicted if in all both have the
  other sign by as much; else not reproduced.
- observed: a layer is "as claimed" if the interval of the correlation with the rate lies below 0, "opposite" if above.
  Reproduced if at least two thirds of all trained models' layers are as claimed; contradicted if as many are opposite;
  else not reproduced.
- v < 1: the share of texts and layers where the theorem promises anything.

Writes results/paper/std.json, .md and .png.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import tyro
from jax import Array
from jax.tree_util import Partial
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray

from jaxsmooth import Edits

from .. import keeping
from ..drawing import canvas, remark, save, title
from . import bounds, observed

IMPOSED = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 8.0, 16.0)
FACTORS = (0.25, 0.5, 0.71, 0.84, 1.0, 1.19, 1.41, 2.0, 4.0, 8.0)
CAUSED = ("minilm-l6", "e5-small-q4", "mpnet-base")
COLOURS = {"minilm-l3": "#E69F00", "minilm-l6": "#000000", "e5-small-q4": "#D55E00", "mpnet-base": "#0072B2",
           "antiberty": "#009E73"}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Args(observed.Args):
    """What to look at."""

    caused: tuple[str, ...] = CAUSED
    """Models whose stds are changed."""
    reviews: int = 16
    """Film reviews for that."""


# Observed


def correlations(found: dict[str, NDArray], draws: int = 400) -> dict[str, Any]:
    """Of one model and corpus: by layer the rank correlations and their bootstrap draws, [L] and [draws L]."""
    tokens, product = found["tokens"], found["std_product"]
    sides = {"rate": found["rate"], "cosine": np.diff(found["cosine"], axis=0)}
    places = np.random.default_rng(0).integers(0, len(tokens), (draws, 1, len(tokens)))
    whole = np.arange(len(tokens))[None, None]
    result = {}
    for name, side in sides.items():
        for kind, chosen in (("value", whole), ("draws", places)):
            parts = [np.take_along_axis(np.broadcast_to(x, (len(chosen), *x.shape)), chosen, axis=-1)
                     for x in (product, side, np.broadcast_to(tokens, side.shape))]  # fmt: skip
            result[f"{name}_{kind}"] = keeping.partial_rank_correlation(*parts)
    return result


def by_layer(args: Args) -> dict[str, Any]:
    """Of every trained model: mean over corpora of the correlations by layer, with intervals; median sigma1 sigma2."""
    gathered: dict[str, list[dict[str, Any]]] = {}
    for model, weights, _, found in observed.observe(args):
        if weights == "trained":
            gathered.setdefault(model, []).append({**correlations(found), "product": found["std_product"]})
    result = {}
    for model, parts in gathered.items():
        one: dict[str, Any] = {"texts": sum(part["product"].shape[1] for part in parts)}
        for name in ("rate", "cosine"):
            value = np.mean([part[f"{name}_value"][0] for part in parts], axis=0)
            low, high = keeping.interval(np.mean([part[f"{name}_draws"] for part in parts], axis=0))
            one[name] = {"value": value.tolist(), "low": low.tolist(), "high": high.tolist()}
        one["product"] = np.median(np.concatenate([part["product"] for part in parts], axis=1), axis=1).tolist()
        result[model] = one
    return result


def tally(layers: dict[str, Any]) -> dict[str, int]:
    """How many layers of all models are as claimed, opposite, or neither."""
    lows, highs = (np.concatenate([one["rate"][end] for one in layers.values()]) for end in ("low", "high"))
    claimed, opposite = int(np.sum(highs < 0)), int(np.sum(lows > 0))
    return {"layers": len(lows), "as_claimed": claimed, "opposite": opposite}


# Caused


def caused(model: str, reviews: int) -> dict[str, Any]:
    """Last layer's d_M/‖H‖ and cosine, mean over texts, and the least v of all texts and layers, for every std."""
    encoder, tokenizer = observed.loaded(model)
    texts = observed.short_reviews(tokenizer, reviews)
    own = bounds.bounds(encoder, tokenizer, texts, lambda batch: changed_std(1, 0))
    result: dict[str, Any] = {"own": ends(own), "ranked": ranked(own)}
    for kind, values in (("imposed", IMPOSED), ("factor", FACTORS)):
        runs = []
        for value in values:
            edits = changed_std(0, value) if kind == "imposed" else changed_std(value, 0)
            found = bounds.bounds(encoder, tokenizer, texts, lambda batch, e=edits: e, ("L1",))
            runs.append({"std": value, **ends(found)})
        result[kind] = runs
        std = np.array(values)
        for name in ("distance", "cosine"):
            measured = np.array([run[name] for run in runs])
            known = np.isfinite(measured)
            result[f"{kind}_{name}"] = float(keeping.rank_correlation(std[known], measured[known]))
    return result


def changed_std(factor: float, imposed: float) -> Edits:
    """Both norms of every block divide by `factor` times their own std plus `imposed`; one program for all of these."""
    edit = Partial(_changed, jnp.float32(factor), jnp.float32(imposed))
    return Edits(std_attn=edit, std_mlp=edit)


def _changed(factor: Array, imposed: Array, layer: Array, std: Array) -> Array:
    return factor * std + imposed


def ranked(found: dict[str, NDArray]) -> dict[str, list[float]]:
    """What goes with the actual rate: of each bound its rank correlation over layers, mean over texts and its error."""
    return {
        name: [float(x) for x in keeping.mean_and_error(keeping.rank_correlation(found[name].T, found["actual"].T))]
        for name in ("v", *reversed(bounds.BOUNDS))
    }


def ends(found: dict[str, NDArray]) -> dict[str, float]:
    return {
        "distance": float(np.mean(found["distance"][-1])),
        "cosine": float(np.mean(found["cosine"][-1])),
        "rate": float(np.median(found["actual"])),
        "least_v": float(np.min(found["v"])),
        "share_v_below_1": float(np.mean(found["v"] < 1)),
        "least_L1": float(np.min(found["L1"])),
        "share_L1_below_1": float(np.mean(found["L1"] < 1)),
    }


# The page


def draw(found: dict[str, Any], path: Path) -> None:
    with canvas(15.0, 9.0) as figure:
        above, below = figure.subplots(2, 2)
        for axes, name, told in zip(above, ("rate", "cosine"), ("d_M(H')/d_M(H)", "change of cosine"), strict=True):
            for model, one in found["layers"].items():
                value, low, high = (np.array(one[name][key], float) for key in ("value", "low", "high"))
                where = np.arange(1, len(value) + 1) + 0.08 * (list(COLOURS).index(model) - 2)
                axes.errorbar(where, value, (value - low, high - value), fmt="o", color=COLOURS[model], markersize=4,
                              linewidth=1, label=observed.label(model))  # fmt: skip
            axes.axhline(0, color="#555555", linewidth=1)
            axes.set(xlabel="layer", ylabel="partial rank correlation", ylim=(-1, 1))
            axes.xaxis.get_major_locator().set_params(integer=True)
            title(axes, f"Observed: σ1σ2 with {told}, claim: {'below' if name == 'rate' else 'above'} 0")
        for axes, kind, told in zip(
            below, ("imposed", "factor"), ("std imposed on both norms", "own std times"), strict=True
        ):
            for model, one in found["caused"].items():
                stds = [run["std"] for run in one[kind]]
                for name, style in (("distance", "o-"), ("cosine", "s--")):
                    axes.plot(stds, [run[name] for run in one[kind]], style, color=COLOURS[model], markersize=4)
            axes.set(xscale="log", xlabel=told, ylabel="last layer", ylim=(-0.05, 1.05))
            axes.set_xticks([0.25, 0.5, 1, 2, 4, 8, 16][: 6 + (kind == "imposed")])
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
            title(axes, "Caused: solid d_M/‖H‖ (claim: falls), dashed cosine (rises)")
        figure.legend(*above[0].get_legend_handles_labels(), loc="outside upper center", ncols=5)
        remark(figure, "Bars: 95% bootstrap intervals over texts; the number of tokens is partialled out.")
        save(figure, path)


def layer_table(layers: dict[str, Any]) -> str:
    rows = []
    for model, one in layers.items():
        for k, product in enumerate(one["product"]):
            cells = [keeping.spelled(*(_number(one[name][key][k]) for key in ("value", "low", "high")))
                     for name in ("rate", "cosine")]  # fmt: skip
            rows.append([observed.label(model), str(k + 1), f"{product:.3g}", *cells])
    return keeping.table(["model", "layer", "median σ1σ2", "with d_M(H')/d_M(H)", "with the change of cosine"], rows)


def caused_table(every: dict[str, Any]) -> str:
    rows = []
    for model, one in every.items():
        for kind in ("own", "imposed", "factor"):
            for run in [one["own"]] if kind == "own" else one[kind]:
                std = "own" if kind == "own" else f"{run['std']:g}" + " × own" * (kind == "factor")
                cells = [f"{_number(run[key]):.3f}" for key in ("distance", "cosine", "rate")]
                rows.append(
                    [
                        observed.label(model),
                        std,
                        *cells,
                        f"{_number(run['least_v']):.3g}",
                        f"{_number(run['least_L1']):.3g}",
                    ]
                )
    head = ["model", "std", "d_M/‖H‖, last layer", "cosine, last layer", "median rate", "least v", "least L1"]
    return keeping.table(head, rows)


def ranked_table(every: dict[str, Any]) -> str:
    names = list(next(iter(every.values()))["ranked"])
    rows = [
        [observed.label(model), *(f"{one['ranked'][name][0]:.2f} ± {one['ranked'][name][1]:.2f}" for name in names)]
        for model, one in every.items()
    ]
    return keeping.table(["model", *names], rows)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def main(args: Args) -> dict[str, Any]:
    layers = by_layer(args)
    work = {f"{model}, {args.reviews} reviews": functools.partial(caused, model, args.reviews) for model in args.caused}
    runs = keeping.kept(args.out / "std_caused.json", work, doing="imposing stds")
    found = {
        "args": dataclasses.asdict(args) | {"out": None},
        "layers": layers,
        "tally": tally(layers),
        "caused": dict(zip(args.caused, runs.values(), strict=True)),
    }
    draw(found, args.out / "std.png")
    signs = "; ".join(
        f"{observed.label(model)} "
        + ", ".join(
            f"{kind} {one[f'{kind}_distance']:.2f} / {one[f'{kind}_cosine']:.2f}" for kind in ("imposed", "factor")
        )
        for model, one in found["caused"].items()
    )
    counts = found["tally"]
    page = f"""# LayerNorm's std and smoothing (Shi et al. 2022, Theorem 2)

`python -m experiments.paper.std`. See the head of that file for the claim and the rules.

## Caused: both norms of every block divide by what is said

{args.reviews} film reviews. Rank correlation of the std with d_M/‖H‖ / with the cosine of the last layer: {signs}.

{caused_table(found["caused"])}

Which bound tells the layers that smooth from those that do not: rank correlation over the layers of a text of the bound
with the actual d_M(H')/d_M(H), mean over texts ± its error. `v` is the paper's; L4 knows the block's data.

{ranked_table(found["caused"])}

## Observed, within layers and over texts

Of {counts["layers"]} layers {counts["as_claimed"]} are as claimed (interval with the rate below 0),
{counts["opposite"]} opposite.

{layer_table(layers)}

![](std.png)
"""
    keeping.write(args.out, "std", found, page)
    print(page)
    return found


if __name__ == "__main__":
    main(tyro.cli(Args))
