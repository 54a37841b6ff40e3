"""The neighbours' remedies against over-smoothing side by side: the same task, start, steps and seeds.

    python -m experiments.neighbours.remedies               # what results/neighbours/remedies.json does not have yet
    python -m experiments.neighbours.remedies --minutes 60 --only reuters-r8 --remedies contranorm softdecay
    python -m experiments.neighbours.remedies --draw

Time: 27 to 50 s of processor time a run, half an hour in all (AVX-512 EPYC and Xeon). Expect: a higher distance to
consensus and effective rank under ContraNorm, FeatScale and centring, which act on just that; of the scores nothing
was known beforehand (no difference came out decided). The papers' own gains are on other data and models: ContraNorm
(Guo et al. 2023) 82.59 to 83.54 on GLUE with BERT-base; SoftDecay (Yan et al. 2022) on sentence similarity without
training, BERT 62.97 to 71.26; GFSA (Choi et al. 2024) DeiT-S 79.8 to 81.1; TempScale (Zhou et al. 2024) +0.94% on
MTEB.

minilm-l6 on one substitute task; parameters at their defaults in this library, fixed, also where a paper learns them;
each remedy at the better of two learning rates, by the first seed's validation score (added when most had been run at
1e-4).
Rule: a remedy is better than none if the paired difference has p <= 5% after Holm over all remedies. Writes
results/neighbours/remedies.json, .md and .png.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tyro

from jaxsmooth.files import atomic_write
from jaxsmooth.mitigations import parse_remedies

from ..drawing import canvas, layer_axis, remark, save, title
from ..paper.grid import Cell, GridArgs, fill_at_rates, train
from ..paper.reading import Scores, each_by_itself, machines, markdown, mean_and_std
from ..paper.settings import COUNTED, GRIDS, RESULTS, RUNS, TASKS, run_settings
from ..paper.store import Store
from ..paper.verdicts import written

REMEDIES = {
    "contranorm": "#0072B2",
    "attnscale": "#D55E00",
    "featscale": "#009E73",
    "neutreno": "#CC79A7",
    "gfsa": "#E69F00",
    "softdecay": "#56B4E9",
    "centred": "#8B5A2B",
    "residual-scaling": "#888888",
    "tempscale": "#6A3D9A",
}
"""Names as in `jaxsmooth.mitigations.parse`, and colours."""
MODEL, LAYERS = "minilm-l6", 6
OUT, UNFINISHED = RESULTS.with_name("neighbours"), RUNS.with_name("neighbours")


@dataclasses.dataclass(frozen=True)
class Args(GridArgs):
    """Which runs to make."""

    only: tuple[str, ...] = ("tweets-score",)
    """Tasks; of one the budget is that of the paper's tables."""
    remedies: tuple[str, ...] = tuple(REMEDIES)
    """Remedies, besides none."""
    runs: Path = UNFINISHED
    """Folder of the runs that are not finished."""
    out: Path = OUT
    """Where the results go."""


def cells(args: Args) -> Iterator[Cell]:
    """Seed by seed; none first."""
    for seed in args.seeds:
        for task in args.tasks(tuple(TASKS)):
            for remedy in ("", *args.remedies):
                yield Cell(task, MODEL, remedy or "none", run_settings(task, MODEL, seed, remedy=remedy))


def smooth(scores: Scores, task: str, remedy: str, name: str) -> np.ndarray:
    """A measure by seed and layer."""
    return np.array([entry["after"][name] for entry in scores.chosen(task, MODEL, remedy)])


def table(scores: Scores, task: str) -> str:
    """Scores and smoothness at the last layer."""
    there = [remedy for remedy in REMEDIES if scores.chosen(task, MODEL, remedy)]
    tested = each_by_itself({r: list(scores.differences(task, MODEL, r, "none").values()) for r in there})
    rows = []
    for remedy in ["none", *there]:
        found = [smooth(scores, task, remedy, name)[:, -1] for name in ("relative_distance", "effective_rank")]
        what = "–" if remedy == "none" else parse_remedies(remedy)[0].description
        less = ["–"] * 3
        if remedy in tested:
            one, p, verdict = tested[remedy]
            less = [written(one), f"{p:.2g}", verdict]
        score = mean_and_std(list(scores.by_seed(task, MODEL, remedy).values()))
        measures = [mean_and_std(found[0].tolist()), mean_and_std(found[1].tolist(), 1.0)]
        seconds = [e["processor_seconds"] for e in scores.chosen(task, MODEL, remedy) if e["processor_seconds"]]
        rows.append([remedy, what, score, *less, *measures, f"{np.median(seconds):.0f}" if seconds else "–"])
    heads = ["less none [95%]", "p (Holm)", "better?", "100 d_M / norm of H", "effective rank", "processor s"]
    return markdown(["remedy", "parameters", f"100 {TASKS[task].score}", *heads], rows)


def draw(scores: Scores, tasks: list[str], path: Path) -> None:
    """Of every task distance to consensus by layer, and score against it."""
    with canvas(12.5, 0.6 + 4.4 * len(tasks)) as figure:
        for task, (layers, points) in zip(tasks, figure.subplots(len(tasks), 2, squeeze=False), strict=True):
            for remedy, colour in {"none": "#000000", **REMEDIES}.items():
                distance = smooth(scores, task, remedy, "relative_distance")
                found = scores.by_seed(task, MODEL, remedy)
                if not found:
                    continue
                layers.plot(
                    distance.mean(axis=0), color=colour, label=remedy, linewidth=2.5 if remedy == "none" else 1.8
                )
                points.plot(distance[:, -1], [100 * x for x in found.values()], "o", color=colour, label=remedy)
            layer_axis(layers, 0, LAYERS)
            layers.set_ylabel("d_M(H) / norm of H")
            points.set_xlabel("d_M(H) / norm of H at the last layer")
            points.set_ylabel(f"100 x {TASKS[task].score}")
            title(layers, f"distance to consensus, {MODEL} tuned")
            title(points, f"score on {task}, each seed")
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right upper")
        remark(figure, "Left: means over seeds, 64 validation texts. Right: score of the test split.")
        save(figure, path)


PAGE = """# Remedies side by side

`python -m experiments.neighbours.remedies`. {machines}

{model}; mean ± std over seeds, on the test split, differences in points; each at the better of two learning rates, by
the first seed's validation score. Substitutes, not benchmarks.

{tables}

![](remedies.png)
"""


def report(scores: Scores, out: Path) -> None:
    """Write the page and the figure."""
    tasks = scores.have(tuple(TASKS), MODEL)
    tables = "\n\n".join(f"`{task}`, {TASKS[task].stands_for}:\n\n{table(scores, task)}" for task in tasks)
    page = PAGE.format(machines=machines(scores.entries), model=MODEL, tables=tables)
    atomic_write(out / "remedies.md", page)
    draw(scores, tasks, out / "remedies.png")
    print(page)


def main(args: Args) -> None:
    also = tuple(RESULTS / f"{name}.json" for name in GRIDS)
    store = Store(args.out / "remedies.json", command="python -m experiments.neighbours.remedies", also=also)
    if not args.draw:
        fill_at_rates(cells(args), store, args, train)
    if store.entries():
        report(Scores(store.entries(), splits=COUNTED), args.out)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
