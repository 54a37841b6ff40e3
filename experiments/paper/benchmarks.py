"""Tables 2 and 3 of Shi et al. (2022) proper: GLUE, SWAG and SQuAD, with any BERT, RoBERTa or ALBERT.

    python -m experiments.paper.benchmarks                            # everything, from the hub
    python -m experiments.paper.benchmarks --data-dir glue_data       # from a folder of the official files
    python -m experiments.paper.benchmarks --models roberta-base --only glue/rte glue/mrpc --seeds 0 1
    python -m experiments.paper.benchmarks --draw                     # table and figure again, of what is there

Not run yet: it wants a GPU or TPU, a network or the files, and `pip install ".[data]"` for the hub. The eleven tasks
are about 3.5 million examples a seed, model and fusion. It goes on where it was, in sittings of `--minutes`. Expect the
numbers under "The paper's" in benchmarks.md, up to what a public BERT differs from the one that the authors trained
themselves; their settings are not known, ours are in settings.py. Scores are of the dev sets, as in the paper. Writes
benchmarks.json, .md and .png to results/paper.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import tyro

from jaxsmooth.files import atomic_write
from jaxsmooth.training.config import Fusion

from .grid import Cell, GridArgs, fill, train
from .reading import CLAIMS, Scores, machines, markdown
from .settings import BENCHMARKS, run_settings
from .store import Store
from .tables_2_3 import claims, differences_table, draw, scores_table, seconds_table

PAPER = (
    ["", "MNLI m / mm", "QQP", "QNLI", "SST-2", "CoLA", "STS-B", "MRPC", "RTE", "average", "SWAG", "SQuAD 1.1", "2.0"],
    "BERT|85.4 / 85.8|88.2|91.5|92.9|62.1|88.8|90.4|69.0|83.8|81.6|79.7 / 87.1|72.9 / 75.5",
    "weights|85.3 / 85.4|87.8|91.8|93.8|65.1|89.8|91.3|71.1|84.6|82.0|80.2 / 87.8|74.1 / 77.0",
    "max|85.3 / 85.6|88.5|92.0|93.7|64.6|90.3|91.7|71.5|84.7|81.9|80.1 / 87.6|73.6 / 76.6",
    "gate|85.4 / 85.7|88.4|92.3|93.9|64.0|90.3|92.0|73.9|85.1|82.1|80.7 / 88.0|73.9 / 77.3",
    "ALBERT|81.6 / 82.2|85.6|90.7|90.3|50.8|89.4|91.3|75.5|81.8|–|–|–",
    "weights|82.8 / 82.8|86.7|90.9|90.7|48.7|89.7|91.5|76.5|82.3|–|–|–",
    "max|82.5 / 82.8|86.9|91.1|90.7|50.5|89.6|92.6|77.3|82.6|–|–|–",
    "gate|83.0 / 83.7|87.0|90.9|90.4|51.3|90.0|92.4|76.2|82.7|–|–|–",
)
"""Tables 2 and 3 as printed; the average is of GLUE, SQuAD is exact match and F1."""


@dataclasses.dataclass(frozen=True)
class Args(GridArgs):
    """Which runs to make."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Seeds of head, order of the data and dropout."""
    models: tuple[str, ...] = ("bert-base-uncased", "albert-base-v2")
    """Assets, folders in Hugging Face's format, or hub ids."""
    fusions: tuple[Fusion, ...] = ("none", "weights", "max", "gate")
    """How the layers' outputs are fused; none is what the others are compared with."""
    data_dir: str = ""
    """Folder of the official files; without one they come from the hub."""


def cells(args: Args) -> Iterator[Cell]:
    """Seed by seed, task by task."""
    for seed in args.seeds:
        for model in args.models:
            for task in args.tasks(tuple(BENCHMARKS)):
                for fusion in args.fusions:
                    settings = run_settings(task, model, seed, fusion=fusion, data_dir=args.data_dir)
                    yield Cell(task, model, fusion, settings)


PAGE = """# Tables 2 and 3 on GLUE, SWAG and SQuAD

`python -m experiments.paper.benchmarks`. {machines}

Scores of the dev sets at the last step, times 100; ± is the std over seeds. SQuAD is exact match and F1. Intervals
speak of other seeds on the same texts.

## Scores

{scores}

## The paper's

{paper}

## The paper's claims, averaged over the tasks

{claims}

## Task by task: difference from none, points, p after Holm over the tasks

{differences}

## Cost

{seconds}

![](benchmarks.png)
"""


def report(scores: Scores, out: Path) -> None:
    """Write the page and the figure."""
    models = list(dict.fromkeys(entry["model"] for entry in scores.entries.values()))
    head, *rows = PAPER
    page = PAGE.format(
        machines=machines(scores.entries),
        scores="\n\n".join(scores_table(scores, model) for model in models),
        paper=markdown(head, (row.split("|") for row in rows)),
        claims=markdown(CLAIMS, claims(scores, models)),
        differences="\n\n".join(differences_table(scores, model) for model in models),
        seconds=seconds_table(scores, models),
    )
    atomic_write(out / "benchmarks.md", page)
    draw(scores, models, out / "benchmarks.png")
    print(page)


def main(args: Args) -> None:
    store = Store(args.out / "benchmarks.json", command="python -m experiments.paper.benchmarks")
    if not args.draw:
        fill(cells(args), store, args, train)
    if store.entries():
        report(Scores(store.entries(), BENCHMARKS), args.out)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
