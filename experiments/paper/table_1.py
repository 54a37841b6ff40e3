"""Table 1 of Shi et al. (2022): what does it cost if upper layers attend by the attention of a layer below?

    python -m experiments.paper.table_1                         # what results/paper/table_1.json does not have yet
    python -m experiments.paper.table_1 --minutes 60 --only tweets-score
    python -m experiments.paper.table_1 --draw

Time: 43 s of processor time a run, 1 hour in all (AVX-512 EPYC and Xeon). Expect here: -1.5 points with one layer
less, -5 with five. Of the paper (twelve layers, average of GLUE's dev sets, FLOPs of attention) none 83.8 and 2.7G;
11-12 84.0, 2.4G; 9-12 83.7, 2.1G; 7-12 83.4, 1.8G; 5-12 83.4, 1.5G; 3-12 81.3, 1.2G; 1-12 80.9, 1.1G.

Here `a-6` of minilm-l6: layers a + 1 to 6 use the probabilities of layer a; each at the better of two learning rates
(as tables_2_3.py; added when all had been run at 1e-4). By its FLOPs the paper's a-12 uses those of
layer a - 1 (see the page), so its 11-12 saves a sixth of the layers, 5-12 two thirds. Rules: sharing costs nothing if
the average difference from none has its 95% interval above -1 point; sharing everything (1-6) costs if none is better.
Writes results/paper/table_1.json, .md and .png.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tyro

from jaxsmooth import EncoderConfig
from jaxsmooth.files import atomic_write
from jaxsmooth.training.accelerators import forward_flops
from jaxsmooth.training.config import shared_blocks

from ..drawing import canvas, remark, save, title
from .grid import Cell, GridArgs, fill_at_rates, train
from .reading import CLAIMS, Scores, claim, machines, markdown, mean_and_std
from .settings import COUNTED, GRIDS, TASKS, run_settings
from .store import Store
from .verdicts import MARGIN, paired, written

CHOSEN = ("movie-reviews", "tweets-score", "reuters-r8")
MODEL = "minilm-l6"
SHAPE = EncoderConfig(width=384, layers=6, heads=12, mlp_width=1536)
"""minilm-l6's, for its FLOPs."""
LENGTH = 128
"""Tokens of the sentence whose FLOPs are stated, as in the paper."""
SHARED = ("", "5-6", "4-6", "3-6", "2-6", "1-6")
COLOURS = dict(zip(CHOSEN, ("#0072B2", "#D55E00", "#009E73"), strict=True))


@dataclasses.dataclass(frozen=True)
class Args(GridArgs):
    """Which runs to make."""


def cells(args: Args) -> Iterator[Cell]:
    """Seed by seed."""
    for seed in args.seeds:
        for task in args.tasks(CHOSEN):
            for shared in SHARED:
                yield Cell(task, MODEL, shared or "none", run_settings(task, MODEL, seed, share_attention=shared))


def saved_layers(shared: str) -> int:
    """How many layers compute no attention of their own.

    >>> saved_layers(""), saved_layers("3-6")
    (0, 3)
    """
    found = shared_blocks(shared)
    return 0 if found is None else found[1] - found[0]


def attention_flops(shared: str) -> float:
    """FLOPs of the attention of one sentence of `LENGTH` tokens, forward, two per multiply-add.

    All four projections, the scores and the mixing; in a layer that uses another's probabilities value, output, mixing.
    """
    mlp = 4.0 * LENGTH * SHAPE.layers * SHAPE.width * SHAPE.mlp_width
    return forward_flops(SHAPE, 1, LENGTH, sharing=saved_layers(shared)) - mlp


def claims(scores: Scores, tasks: list[str]) -> list[list[str]]:
    """On the average over tasks."""
    places = [(task, MODEL) for task in tasks]
    rows = []
    for shared in SHARED[1:]:
        found = scores.pooled(places, shared, "none")
        rows += [claim(f"{shared} costs nothing (a point at most)", paired(found, null=MARGIN))] if found else []
    whole = scores.pooled(places, "none", SHARED[-1])
    return rows + (
        [claim(f"sharing everything costs: none is better than {SHARED[-1]}", paired(whole))] if whole else []
    )


def draw(scores: Scores, tasks: list[str], path: Path) -> None:
    """Difference from none by layers saved."""
    with canvas(9.0, 4.8) as figure:
        axes = figure.subplots()
        lines = [(task, COLOURS[task], [(task, MODEL)], 1.2) for task in tasks]
        for name, colour, places, width in [*lines, ("average", "#000000", [(task, MODEL) for task in tasks], 2.5)]:
            parts = {saved_layers(shared): scores.pooled(places, shared, "none") for shared in SHARED[1:]}
            found = {saved: paired(values) for saved, values in parts.items() if values}
            where = np.array([*found]) + 0.06 * (len(axes.lines) / 3 - 1.5)
            reach = [100 * (one.high - one.mean) if one.count > 1 else 0.0 for one in found.values()]
            means = [100 * one.mean for one in found.values()]
            axes.errorbar(where, means, reach, color=colour, marker="o", capsize=3, linewidth=width, label=name)
        axes.axhline(0, color="#000000", linewidth=1)
        axes.axhline(100 * MARGIN, color="#888888", linestyle="--", linewidth=1)
        axes.set_xticks(*zip(*((saved_layers(s), f"{saved_layers(s)} ({s})") for s in SHARED[1:]), strict=True))
        axes.set_xlabel("layers without attention of their own, of 6")
        axes.set_ylabel("points over none")
        axes.legend(ncols=2)
        title(axes, f"{MODEL}: attention shared by upper layers")
        remark(
            figure,
            "Mean over seeds of the paired difference, 95% interval (Student's t). Dashed: a point.",
        )
        save(figure, path)


PAGE = """# Table 1: one attention matrix for several layers

`python -m experiments.paper.table_1`. {machines}

{model}; substitutes, not GLUE: 100 x score on the test split, mean ± std over seeds; each variant at the better of two
learning rates, by the first seed's validation score. `a-6`: layers a + 1 to 6 attend by the probabilities of layer a.
FLOPs of the attention of one sentence of {length} tokens, forward, two per multiply-add: four projections,
scores and mixing.

{table}

{claims}

The paper (twelve layers, GLUE's average): none 83.8, 2.7G; 11-12 84.0, 2.4G; 9-12 83.7, 2.1G; 7-12 83.4, 1.8G; 5-12
83.4, 1.5G; 3-12 81.3, 1.2G; 1-12 80.9, 1.1G. To the digits printed these FLOPs are 128 (36 - 2 s) 768^2: the
multiply-adds of query, key and value at 128 tokens, s layers without query and key. s is 2, 4, 6, 8 and 10, and 11 for
1-12: so all layers of "11-12" use what layer 10 attends by, which is `10-12` here. The output's projection, scores and
mixing are not counted there.

![](table_1.png)
"""


def report(scores: Scores, out: Path) -> None:
    """Write the page and the figure."""
    tasks = scores.have(CHOSEN, MODEL)
    rows = []
    for name in (shared or "none" for shared in SHARED):
        flops, none = attention_flops(name), attention_flops("")
        found = [list(scores.by_seed(task, MODEL, name).values()) for task in tasks]
        over = scores.pooled([(task, MODEL) for task in tasks], name, "none")
        less = written(paired(over)) if over and name != "none" else "–"
        cost = f"{flops / 1e9:.2f}G ({100 * (1 - flops / none):.0f}% fewer)"
        rows.append([name, str(saved_layers(name)), cost, *(mean_and_std(values) for values in found), less])
    heads = [f"{task} ({TASKS[task].heading})" for task in tasks]
    page = PAGE.format(
        machines=machines(scores.entries),
        model=MODEL,
        length=LENGTH,
        table=markdown(["shared", "layers saved", "FLOPs", *heads, "average less none"], rows),
        claims=markdown(CLAIMS, claims(scores, tasks)),
    )
    atomic_write(out / "table_1.md", page)
    draw(scores, tasks, out / "table_1.png")
    print(page)


def main(args: Args) -> None:
    also = tuple(args.out / f"{name}.json" for name in GRIDS)
    store = Store(args.out / "table_1.json", command="python -m experiments.paper.table_1", also=also)
    if not args.draw:
        fill_at_rates(cells(args), store, args, train)
    if store.entries():
        report(Scores(store.entries(), splits=COUNTED), args.out)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
