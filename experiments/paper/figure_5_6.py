"""Figures 5 and 6 of Shi et al. (2022): is smoothing, and what gates undo of it, largest where sigma1 sigma2 is?

    python -m experiments.paper.figure_5_6          # after tables_2_3, whose runs it reads; it trains nothing itself

Time: seconds. Expect: in the paper (twelve layers) the product of the least stds at the last layer's two LayerNorms has
its peak at 1.545 on STS-B, .94 on SQuAD, .14 and .70 on CoLA; tokens' similarity at the last layer is .86, .78 and .48,
and that of the gates' output .635, .71 and .46: the largest drop, .225, where the product is largest.

sigma1 and sigma2 are the least stds over a text's tokens, as in theorem 2; 64 validation texts of each task. Rules:
the drop is largest where the product is if, of the task whose product (median over texts, mean over seeds) is largest,
each seed's drop less the largest of the other tasks' drops has its 95% interval above 0. Also asked: whether gates have
a lower similarity at the last layer than none, and their output a lower one than none's last layer. Writes
figure_5_6.json, .md and .png to results/paper.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from matplotlib.axes import Axes

from jaxsmooth.files import atomic_write, dumps_strict

from ..drawing import canvas, remark, save, title
from .reading import CLAIMS, Scores, claim, machines, markdown
from .settings import MODELS, RESULTS, TASKS
from .store import Store
from .verdicts import paired

COLOURS = dict(zip(TASKS, ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9"), strict=True))


@dataclasses.dataclass(frozen=True)
class Args:
    """What to read."""

    models: tuple[str, ...] = MODELS
    """Models."""
    out: Path = RESULTS
    """Where the results of tables_2_3 are, and these go."""


def by_seed(scores: Scores, task: str, model: str, variant: str, read: Any) -> dict[int, Any]:
    """A number of every seed's run."""
    return {entry["seed"]: read(entry["after"]) for entry in scores.chosen(task, model, variant)}


def last(after: dict[str, Any]) -> float:
    """Similarity at the last layer."""
    return after["cosine_similarity"][-1]


def fused(after: dict[str, Any]) -> float:
    """Similarity of the fused output."""
    return after["fused"]["cosine_similarity"]


def product(after: dict[str, Any]) -> float:
    """Median over texts."""
    return float(np.median(after["std_product_texts"]))


def less(ours: dict[int, float], theirs: dict[int, float]) -> dict[int, float]:
    """The difference, of the seeds that both have."""
    return {seed: ours[seed] - theirs[seed] for seed in ours if seed in theirs}


def numbers(scores: Scores, model: str) -> dict[str, dict[str, dict[int, float]]]:
    """Of every task: product, similarities and drop, by seed."""
    found = {}
    for task in scores.have(tuple(TASKS), model):
        none, gate = (by_seed(scores, task, model, name, last) for name in ("none", "gate"))
        out = by_seed(scores, task, model, "gate", fused)
        products = by_seed(scores, task, model, "none", product)
        if not (none and gate):
            continue
        found[task] = {"product": products, "none": none, "gate": gate, "fused": out, "drop": less(none, out)}
    return found


def claims(found: dict[str, dict[str, dict[int, float]]], model: str) -> list[list[str]]:
    """The paper's claims, by the rules above; similarities in hundredths."""
    rows = []
    averages = {"the gates' last layer": "gate", "the gates' output": "fused"}
    for words, name in averages.items():
        parts = [less(one["none"], one[name]) for one in found.values()]
        seeds = set.intersection(*map(set, parts))
        values = [float(np.mean([part[seed] for part in parts])) for seed in sorted(seeds)]
        rows.append(claim(f"{model}: {words} is less similar than none's last layer", paired(values)))
    if len(found) > 1:
        top = max(found, key=lambda task: np.mean([*found[task]["product"].values()]))
        others = [found[task]["drop"] for task in found if task != top]
        seeds = set(found[top]["drop"]).intersection(*others)
        values = [found[top]["drop"][seed] - max(other[seed] for other in others) for seed in sorted(seeds)]
        rows.append(claim(f"{model}: the drop is largest where sigma1 sigma2 is ({top})", paired(values)))
    return rows


def table(found: dict[str, dict[str, dict[int, float]]], model: str) -> str:
    """Means over seeds, with the least and the largest."""
    names = ("product", "none", "gate", "fused", "drop")
    rows = [[task, *(_span(list(one[name].values())) for name in names)] for task, one in found.items()]
    heads = ["sigma1 sigma2 (none)", "last layer, none", "last layer, gate", "gates' output", "drop: none - output"]
    return markdown([model, *heads], rows)


def _span(values: list[float]) -> str:
    return f"{np.mean(values):.3f} [{min(values):.3f}, {max(values):.3f}]" if values else "–"


def draw(scores: Scores, models: list[str], path: Path) -> None:
    """For each model the densities of the product, and similarity by layer."""
    with canvas(13.0, 0.8 + 3.6 * len(models)) as figure:
        for panels, model in zip(figure.subplots(len(models), 2, squeeze=False), models, strict=True):
            for task in scores.have(tuple(TASKS), model):
                _densities(panels[0], scores, task, model)
                _layers(panels[1], scores, task, model)
            panels[0].set_xlabel("σ₁σ₂ at the last layer")
            panels[0].set_ylabel("share of texts at or below")
            panels[0].legend(fontsize=9)
            panels[1].set_ylabel("mean cosine of two tokens")
            panels[1].set_xlabel("layer (0 = embedding output, F = gates' output)")
            title(panels[0], f"{model}, tuned: distribution over texts")
            title(panels[1], f"{model}: similarity by layer")
        remark(figure, "Means over seeds. Left: solid tuned, dotted before. Right: solid none, dashed gates, star F.")
        save(figure, path)


def _densities(axes: Axes, scores: Scores, task: str, model: str) -> None:
    entries = scores.chosen(task, model, "none")
    if not entries:
        return
    texts = {when: np.concatenate([e[when]["std_product_texts"] for e in entries]) for when in ("after", "before")}
    for when, style in (("after", "-"), ("before", ":")):
        values = np.sort(texts[when])
        shares = np.arange(1, len(values) + 1) / len(values)
        label = task if when == "after" else None
        axes.plot(values, shares, style, color=COLOURS[task], label=label, linewidth=2 if when == "after" else 1.2)


def _layers(axes: Axes, scores: Scores, task: str, model: str) -> None:
    for variant, style in (("none", "-"), ("gate", "--")):
        curves = [*by_seed(scores, task, model, variant, lambda after: after["cosine_similarity"]).values()]
        if not curves:
            continue
        mean = np.mean(curves, axis=0)
        axes.plot(np.arange(len(mean)), mean, style, color=COLOURS[task])
        if variant == "gate":
            out = np.mean([*by_seed(scores, task, model, variant, fused).values()])
            axes.plot([len(mean)], [out], "*", color=COLOURS[task], markersize=11)
            axes.set_xticks(range(len(mean) + 1), [*map(str, range(len(mean))), "F"])


PAGE = """# Figures 5 and 6: the stds' product, and what gates do to similarity

`python -m experiments.paper.figure_5_6`, from the runs of tables_2_3: {machines}

Substitutes, not GLUE or SQuAD; {texts} validation texts of each task. Means over seeds, [least, largest] seed. The
product is the median over texts at the last layer of a model tuned without fusion.

{tables}

Differences of similarity in hundredths:

{claims}

The paper: product STS-B 1.545, SQuAD .94, CoLA .14 and .70; last layer .86, .78, .48; gates' last layer .76 (STS-B);
their output .635, .71, .46.

![](figure_5_6.png)
"""


def main(args: Args) -> None:
    entries = Store(args.out / "tables_2_3.json", command="").entries()
    scores = Scores({key: one for key, one in entries.items() if one["variant"] in ("none", "gate")})
    found = {model: numbers(scores, model) for model in args.models}
    found = {model: one for model, one in found.items() if one}
    if not found:
        raise SystemExit("no runs of none and gate yet: python -m experiments.paper.tables_2_3")
    page = PAGE.format(
        machines=machines(scores.entries),
        texts=len(next(iter(scores.entries.values()))["after"]["std_product_texts"]),
        tables="\n\n".join(table(one, model) for model, one in found.items()),
        claims=markdown(CLAIMS, [row for model, one in found.items() for row in claims(one, model)]),
    )
    atomic_write(args.out / "figure_5_6.md", page)
    about = {"command": "python -m experiments.paper.figure_5_6", "from": "tables_2_3.json"}
    atomic_write(args.out / "figure_5_6.json", dumps_strict({**about, "models": found}) + "\n")
    draw(scores, list(found), args.out / "figure_5_6.png")
    print(page)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
