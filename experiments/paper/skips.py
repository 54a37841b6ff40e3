"""Is fusion's gain explained by smoothing, or would any skip to an earlier layer do? Objections to Shi et al. (2022).

    python -m experiments.paper.skips               # after tables_2_3, whose runs it reads; trains what is lacking
    python -m experiments.paper.skips --draw

Time: 21 s of processor time for each of 36 runs on an AVX-512 EPYC. Expect here: each skip as good as the gate over all
or better, and no correlation. The paper says that fusion betters BERT by .8 to 1.3 points because the output is less
smooth.

minilm-l3 on three tasks, of which one gains by the gates of tables_2_3 and one loses: `skip k` is the same gate between
layer k and the last alone. It has as many parameters as the gate over all layers, the width. Each variant at
the better of two learning rates, by the first seed's validation score; what counts is the test split. Rules, written
before the skips were run; the runs of tables_2_3, which 40 of the second one's 46 cases are, were known by then, though
not their correlation:

- "a skip to one earlier layer does as much as all layers": yes if the 95% interval of every skip less the gate over
  all, paired over seeds and averaged over tasks, lies within a point of 0; no if every one lies below 0; else in part.
- "the gain is explained by less smoothing": over every model, task and fusion of tables_2_3 but the shared block, and
  the skips, the rank correlation of two differences from none of the same seed: how much less alike the tokens of the
  output are that the head reads from, and how much better the score is. Yes if the 95% interval of the seeds'
  correlations lies above .5; no if below; else in part. Beside it, and without a rule, the mean correlation among the
  fusions of one model and task.

Writes skips_runs.json, skips.json, .md and .png to results/paper.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from matplotlib.axes import Axes
from numpy.typing import NDArray

from .. import keeping
from ..drawing import canvas, remark, save, title
from .cost import FUSIONS
from .grid import Cell, GridArgs, fill_at_rates, train
from .reading import CLAIMS, Scores, claim, machines, markdown, mean_and_std
from .settings import COUNTED, MODELS, TASKS, run_settings
from .store import Store
from .verdicts import Paired, paired, written

MODEL, LAYERS = "minilm-l3", 3
CHOSEN = ("movie-reviews", "tweets-score", "reuters-r8")
SKIPS = tuple(f"skip {layer}" for layer in range(1, LAYERS))
FUSED = tuple(name for name in FUSIONS if name != "none")
COLOURS = {
    "weights": "#56B4E9", "concat": "#888888", "max": "#E69F00", "gate": "#000000",
    "skip 1": "#0072B2", "skip 2": "#D55E00",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Args(GridArgs):
    """Which runs to make."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Seeds of head, order of the data and dropout."""


def cells(args: Args) -> Iterator[Cell]:
    """Seed by seed."""
    for seed in args.seeds:
        for task in args.tasks(CHOSEN):
            for layer, variant in enumerate(SKIPS, 1):
                fused = run_settings(task, MODEL, seed, fusion="gate", fusion_layers=f"{layer},{LAYERS}")
                yield Cell(task, MODEL, variant, fused)


def read_less_alike(scores: Scores, task: str, model: str, variant: str) -> dict[int, tuple[float, float]]:
    """Seed -> how much less alike the tokens of the output are than without fusion, and the score's gain."""
    alike = {e["seed"]: e["after"]["cosine_similarity"][-1] for e in scores.chosen(task, model, "none")}
    gains = scores.differences(task, model, variant, "none")
    read = {e["seed"]: e["after"]["fused"]["cosine_similarity"] for e in scores.chosen(task, model, variant)}
    return {seed: (alike[seed] - read[seed], gain) for seed, gain in gains.items()}


def summary(scores: Scores) -> dict[str, Any]:
    """What the rules read: differences of the skips, and each case's seeds of `read_less_alike`."""
    places = [(task, MODEL) for task in CHOSEN]
    cases = [(task, model, fusion) for model in MODELS for task in TASKS for fusion in FUSED]
    cases += [(task, MODEL, skip) for task in CHOSEN for skip in SKIPS]
    read = {", ".join(case): read_less_alike(scores, *case) for case in cases}
    seeds = sorted(set.intersection(*map(set, read.values())))
    if not seeds:
        raise SystemExit("no seed has all runs yet; the same command goes on with them, tables_2_3 with its own.")
    pairs = np.array([[one[seed] for seed in seeds] for one in read.values()])  # [case, seed, 2]
    groups = [[k for k, case in enumerate(cases) if case[:2] == place] for place in dict.fromkeys(c[:2] for c in cases)]
    return {
        "seeds": seeds,
        "less_gate": {skip: scores.pooled(places, skip, "gate") for skip in SKIPS},
        "cases": {name: pair.tolist() for name, pair in zip(read, pairs, strict=True)},
        "correlations": [_correlation(pairs[:, k]) for k in range(len(seeds))],
        "within": [float(np.mean([_correlation(pairs[group, k]) for group in groups])) for k in range(len(seeds))],
    }


def _correlation(pairs: NDArray[np.float64]) -> float:
    return float(keeping.rank_correlation(*pairs.T))


def draw(scores: Scores, found: Mapping[str, Any], path: Path) -> None:
    """Gains of the skips by task; gain against what the head reads."""
    with canvas(13.0, 5.2) as figure:
        left, right = figure.subplots(1, 2)
        for place, variant in enumerate(("gate", *SKIPS)):
            parts = [paired([*scores.differences(task, MODEL, variant, "none").values()]) for task in CHOSEN]
            _bars(left, np.arange(len(CHOSEN)) + 0.2 * (place - 1), parts, variant)
        left.set_xticks(range(len(CHOSEN)), CHOSEN)
        left.axhline(0, color="#000000", linewidth=1)
        left.set_ylabel("points over none")
        left.legend()
        title(left, f"{MODEL}: a gate over all layers, and over two")
        for variant, colour in COLOURS.items():
            cases = [np.mean(pairs, axis=0) for name, pairs in found["cases"].items() if name.endswith(f", {variant}")]
            right.plot(*(np.array(cases).T * [[1], [100]]), ".", color=colour, markersize=10, label=variant)
        right.axhline(0, color="#000000", linewidth=1)
        right.axvline(0, color="#000000", linewidth=1)
        right.set_xlabel("how much less alike the tokens of the output are (cosine)")
        right.set_ylabel("points over none")
        right.legend(ncols=2)
        title(right, "every model, task and fusion")
        remark(figure, "Means over seeds, on the test split; bars: 95% interval (Student's t) over seeds.")
        save(figure, path)


def _bars(axes: Axes, where: np.ndarray, parts: list[Paired], name: str) -> None:
    reach = [100 * (one.high - one.mean) if one.count > 1 else 0.0 for one in parts]
    means = [100 * one.mean for one in parts]
    axes.errorbar(where, means, reach, fmt="o", capsize=3, color=COLOURS[name], label=name)


PAGE = """# Fusion against a skip of equal size

`python -m experiments.paper.skips`. {machines}

{model}; substitutes, not GLUE: 100 x score on the test split, mean ± std over seeds; each variant at the better of two
learning rates, by the first seed's validation score. `skip k`: a gate between layer k and the last; `gate`: over all.

{table}

{claims}

Rank correlation, over {cases} models, tasks and fusions, of how much less alike the tokens of the output are with how
much better the score is, both against none of the same seed; mean over {seeds} seeds [95%]: {correlation}; among the
fusions of one model and task, on average: {within}.

![](skips.png)
"""


def report(scores: Scores, out: Path) -> None:
    """Write what the rules read, the page and the figure."""
    found = summary(scores)
    rows = []
    for variant in ("none", "gate", *SKIPS):
        parts = [list(scores.by_seed(task, MODEL, variant).values()) for task in CHOSEN]
        alike = [[e["after"] for e in scores.chosen(task, MODEL, variant)] for task in CHOSEN]
        read = [
            float(np.mean([one["fused"]["cosine_similarity"] if "fused" in one else one["cosine_similarity"][-1]
                           for one in each])) for each in alike
        ]  # fmt: skip
        rows.append([variant, *(mean_and_std(values) for values in parts), ", ".join(f"{x:.2f}" for x in read)])
    heads = [f"{task} ({TASKS[task].heading})" for task in CHOSEN]
    less = [claim(f"{skip} is better than the gate over all", paired(found["less_gate"][skip])) for skip in SKIPS]
    page = PAGE.format(
        machines=machines({k: e for k, e in scores.entries.items() if e["variant"] in SKIPS}),
        model=MODEL,
        table=markdown(["", *heads, "cosine of two tokens of the output"], rows),
        claims=markdown(CLAIMS, less),
        cases=len(found["cases"]),
        seeds=len(found["seeds"]),
        correlation=written(paired(found["correlations"]), scale=1.0),
        within=written(paired(found["within"]), scale=1.0),
    )
    keeping.write(out, "skips", found, page)
    draw(scores, found, out / "skips.png")
    print(page)


def main(args: Args) -> None:
    store = Store(args.out / "skips_runs.json", command="python -m experiments.paper.skips")
    if not args.draw:
        fill_at_rates(cells(args), store, args, train)
    if store.entries():
        others = Store(args.out / "tables_2_3.json", command="").entries()
        report(Scores(others | store.entries(), splits=COUNTED), args.out)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
