"""Figure 3 of Shi et al. (2022): cosine of the flattened attention of layers i and i + 1. Is it nearly one graph?

    python -m experiments.paper.figure_3

Texts, models, hardware and time as figure_1a's; observed.json serves both. How the paper joins heads is not known;
three ways are measured: attention averaged over the heads (the one that counts), each head with the head of its
number, and the average less the uniform matrix 1/n, which is common to all attention and by itself gives a high
cosine.

Expect: averaged attention is alike from layer to layer, .59 to .93, but at random weights, where
attention is uniform, more: the measure says little; less the uniform part, trained layers are alike at .41 to .92.

Verdict rules, written before the run (of movie reviews minilm-l6's averaged values were known):
- "attention of successive layers is alike in the upper half" (paper: .83 to .98 from layer 6 on): reproduced if in
  every trained model of six layers or more the mean over corpora and the upper half's pairs is at least .8;
  contradicted if in all of them it is below .5; else not reproduced.
- "it grows with depth" (BERT: .10 to .98): reproduced if in every one the mean of the upper half's pairs is above the
  lower half's by more than two standard errors in every corpus; contradicted if below by as much in more than half;
  else not reproduced.
- what a sceptic would ask, "does it take training?": yes if in every such model and corpus the trained weights' mean
  over all pairs is above the random ones' by more than two standard errors; no if below in more than half.

Writes results/paper/figure_3.json, .md and .png.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray

from .. import keeping
from ..drawing import canvas, remark, save, title
from . import observed

PAPER = {
    "BERT": (0.10, 0.07, 0.09, 0.44, 0.91, 0.945, 0.92, 0.905, 0.955, 0.965, 0.98),
    "RoBERTa": (0.20, 0.84, 0.86, 0.86, 0.84, 0.855, 0.85, 0.855, 0.91, 0.90, 0.945),
    "ALBERT": (0.67, 0.775, 0.82, 0.815, 0.81, 0.815, 0.83, 0.835, 0.83, 0.87, 0.95),
}
"""Read off the paper's figure: pairs (1, 2) to (11, 12), texts of WikiBio."""
KINDS = {
    "similarity": "heads averaged",
    "similarity_heads": "head by head",
    "similarity_centred": "heads averaged, less 1/n",
}
COLOURS = {"similarity": "#000000", "similarity_heads": "#0072B2", "similarity_centred": "#D55E00"}


def summary(found: dict[str, NDArray]) -> dict[str, Any]:
    """Of one model and corpus: mean of every pair of layers with its error, and of the pairs' halves."""
    one: dict[str, Any] = {"texts": found["similarity"].shape[1]}
    for kind in KINDS:
        pairs = found[kind][1:]
        mean, error = keeping.mean_and_error(pairs)
        middle = len(pairs) // 2
        step = pairs[middle:].mean(axis=0) - (pairs[:middle].mean(axis=0) if middle else np.nan)
        one[kind] = {
            "mean": mean.tolist(),
            "error": error.tolist(),
            "upper": float(np.nanmean(mean[middle:])),
            "all": [float(x) for x in keeping.mean_and_error(pairs.mean(axis=0))],
            "upper_less_lower": [float(x) for x in keeping.mean_and_error(step)],
        }
    return one


def lines(cases: dict[str, Any]) -> str:
    rows = []
    for name, one in cases.items():
        cells = [f"{one[kind]['all'][0]:.3f} ± {one[kind]['all'][1]:.3f}" for kind in KINDS]
        rows.append([name, *cells, f"{one['similarity']['upper']:.3f}", f"{one['similarity']['mean'][-1]:.3f}"])
    head = ["model, weights, corpus", *KINDS.values(), "averaged: upper half", "averaged: last pair"]
    return keeping.table(head, rows)


def draw(found: dict[str, Any], path: Path) -> None:
    models = list(dict.fromkeys(one["model"] for one in found["cases"].values()))
    with canvas(15.0, 4.3 * ((len(models) + 3) // 3)) as figure:
        grid = figure.subplots((len(models) + 3) // 3, 3, squeeze=False).ravel()
        for axes, model in zip(grid, models, strict=False):
            cases = [one for one in found["cases"].values() if one["model"] == model]
            for kind, name in KINDS.items():
                for weights, style in (("trained", "-"), ("random", "--")):
                    every = np.array([one[kind]["mean"] for one in cases if one["weights"] == weights])
                    pairs = np.arange(1, every.shape[1] + 1)
                    axes.plot(pairs, every.mean(axis=0), style, color=COLOURS[kind], marker=".",
                              label=f"{name}, {weights}")  # fmt: skip
                    axes.fill_between(pairs, every.min(axis=0), every.max(axis=0), color=COLOURS[kind], alpha=0.12)
            title(axes, observed.label(model))
        for colour, (name, values) in zip(("#009E73", "#CC79A7", "#E69F00"), PAPER.items(), strict=False):
            grid[len(models)].plot(range(1, 12), values, color=colour, marker="o", label=name)
        title(grid[len(models)], "Shi et al. (2022), WikiBio, read off")
        grid[len(models)].legend(loc="lower right")
        for axes in grid[: len(models) + 1]:
            axes.set(ylim=(-0.1, 1.03), xlabel="pair of layers (i, i + 1)", ylabel="cosine of attention")
            axes.xaxis.get_major_locator().set_params(integer=True)
        for axes in grid[len(models) + 1 :]:
            axes.set_axis_off()
        figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
        remark(figure, "Mean over corpora; bands from the least to the largest corpus' mean.")
        save(figure, path)


def main(args: observed.Args) -> dict[str, Any]:
    cases = {
        f"{observed.label(model)}, {weights}, {corpus}": {
            "model": model, "weights": weights, "corpus": corpus, **summary(found)
        }
        for model, weights, corpus, found in observed.observe(args)
    }  # fmt: skip
    found = {"args": dataclasses.asdict(args) | {"out": None}, "paper": PAPER, "cases": cases}
    draw(found, args.out / "figure_3.png")
    paper = keeping.table(
        ["paper", *(f"{k}, {k + 1}" for k in range(1, 12))],
        [[name, *(f"{value:g}" for value in row)] for name, row in PAPER.items()],
    )
    page = f"""# Cosine of successive layers' attention (Shi et al. 2022, figure 3)

`python -m experiments.paper.figure_3`: mean over texts and pairs of layers ± standard error over texts.

{lines(cases)}

Read off the paper's figure, pairs (1, 2) to (11, 12):

{paper}

![](figure_3.png)
"""
    keeping.write(args.out, "figure_3", found, page)
    print(page)
    return found


if __name__ == "__main__":
    main(tyro.cli(observed.Args))
