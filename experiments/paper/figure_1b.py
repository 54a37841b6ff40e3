"""Figure 1b of Shi et al. (2022): is an earlier layer's output better than the last ("over-thinking")?

    python -m experiments.paper.figure_1b                       # what results/paper/figure_1b.json does not have yet
    python -m experiments.paper.figure_1b --minutes 60 --only tweets-score
    python -m experiments.paper.figure_1b --draw

Time: 15 s of processor time a run, 0.6 hours in all (AVX-512 EPYC). Expect here: tuned, least at the last layer or
level there. In the paper (MRPC, twelve layers) the error is 15.6, 14.4, 13.1, 12.3, 12.6 and 12.65% when the output is
taken at layers 7 to 12, and the similarity of tokens .780, .774, .7705, .766, .779 and .852: both least at layer 10.

minilm-l6 with its layers above the exit cut off, once tuned whole and once with the encoder frozen, so that head and
pooler alone learn: the first is the paper's question, the second asks what the pre-trained layers hold. Each exit has
its own choice of two learning rates, as in tables_2_3.py: at 1e-4 alone the three exits that were run first learned
nothing. Rule: with Holm over the earlier exits, over-thinking is reproduced on a task if one of them is better than
the last layer, contradicted if the last is better than each of them, else not decided. Beside them, how far the token
that the head reads differs between texts in the model as it is. Writes results/paper/figure_1b.json, .md, .png and
figure_1b_between.json.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from matplotlib.axes import Axes
from numpy.typing import NDArray

from jaxsmooth import encode, load
from jaxsmooth.files import atomic_write
from jaxsmooth.training.data.catalogue import load_task

from ..drawing import canvas, layer_axis, remark, save, title
from ..keeping import kept
from .grid import SENTENCES, Cell, GridArgs, fill_at_rates, train
from .measures import fixed_sentences
from .reading import Scores, each_by_itself, machines, markdown, mean_and_std
from .settings import COUNTED, GRIDS, TASKS, run_settings
from .store import Store
from .verdicts import CONTRADICTED, OPEN, REPRODUCED, Paired

CHOSEN = ("movie-reviews", "tweets-score", "reuters-r8")
MODEL, LAYERS = "minilm-l6", 6
READ = ("first", "others")
COLOURS = dict(zip(CHOSEN, ("#0072B2", "#D55E00", "#009E73"), strict=True))


@dataclasses.dataclass(frozen=True)
class Args(GridArgs):
    """Which runs to make."""


def variant(layer: int, freeze: bool) -> str:
    """What a table calls the run that exits at a layer."""
    return f"exit {layer}{' frozen' if freeze else ''}"


def cells(args: Args) -> Iterator[Cell]:
    """Seed by seed. Nothing is cut off at the last layer, so that run is also one of the other tables'."""
    for seed in args.seeds:
        for task in args.tasks(CHOSEN):
            for freeze in (False, True):
                for layer in range(1, LAYERS + 1):
                    settings = run_settings(task, MODEL, seed, exit_layer=layer % LAYERS, freeze=freeze)
                    yield Cell(task, MODEL, variant(layer, freeze), settings)


def over_thinking(found: Mapping[int, tuple[Paired, float, str]]) -> str:
    """The rule: of each earlier exit less the last."""
    verdicts = [verdict for _, _, verdict in found.values()]
    if REPRODUCED in verdicts:
        best = max((layer for layer, one in found.items() if one[2] == REPRODUCED), key=lambda k: found[k][0].mean)
        return f"{REPRODUCED} (layer {best})"
    return CONTRADICTED if verdicts and set(verdicts) == {CONTRADICTED} else OPEN


def exits(scores: Scores, task: str, freeze: bool) -> dict[int, tuple[Paired, float, str]]:
    """Each earlier exit less the last layer, corrected over them."""
    last = variant(LAYERS, freeze)
    earlier = range(1, LAYERS)
    by_layer = {str(k): scores.differences(task, MODEL, variant(k, freeze), last) for k in earlier}
    found = each_by_itself({layer: list(values.values()) for layer, values in by_layer.items()})
    return {int(layer): one for layer, one in found.items()}


def similarity(scores: Scores, task: str, layer: int, freeze: bool) -> list[float]:
    """Token cosine of the output that the head reads, of every seed."""
    return [e["after"]["cosine_similarity"][-1] for e in scores.chosen(task, MODEL, variant(layer, freeze))]


def row(scores: Scores, task: str, freeze: bool) -> list[list[str]]:
    """Error and similarity by exit, and the verdict."""
    layers = range(1, LAYERS + 1)
    errors = [[1 - x for x in scores.by_seed(task, MODEL, variant(k, freeze)).values()] for k in layers]
    alike = [similarity(scores, task, layer, freeze) for layer in layers]
    name, found = f"{task}{', frozen' if freeze else ''}", exits(scores, task, freeze)
    less = [f"{100 * found[k][0].mean:+.1f} (p {found[k][1]:.2g})" if k in found else "–" for k in layers]
    return [
        [name, f"100 (1 - {TASKS[task].score})", *(mean_and_std(values) for values in errors), over_thinking(found)],
        ["", "similarity", *(f"{np.mean(values):.3f}" if values else "–" for values in alike), ""],
        ["", "points over the last", *less, ""],
    ]


def between_texts(task: str) -> dict[str, list[float]]:
    """By layer, how far tokens of the pre-trained model are from their mean over texts, over their norm; no training.

    Returns:
      "first" [L]: of the first token, which the pooler reads; "others" [L]: of all others, from the mean of these.
    """
    model, tokenizer = load(MODEL)
    assert tokenizer is not None
    length = TASKS[task].max_length
    data = load_task(task, tokenizer, split="validation", max_length=length, limit=SENTENCES)
    batch = fixed_sentences(data, SENTENCES)
    _, trace = encode(model, batch)
    others = np.asarray(batch.mask).astype(bool)
    others[:, 0] = False
    chosen = {"first": np.asarray(trace.hidden)[:, :, 0], "others": np.asarray(trace.hidden)[:, others]}
    return {name: [float(f"{value:.5g}") for value in _apart(tokens)] for name, tokens in chosen.items()}


def _apart(tokens: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of tokens [L N D], the mean of ‖h - mean‖/‖h‖ by layer."""
    away = np.linalg.norm(tokens - tokens.mean(axis=1, keepdims=True), axis=-1)
    return (away / np.linalg.norm(tokens, axis=-1)).mean(axis=1)


def draw(scores: Scores, tasks: list[str], path: Path) -> None:
    """Error and similarity by exit, tuned and frozen."""
    with canvas(11.0, 7.0) as figure:
        for panels, freeze in zip(figure.subplots(2, 2), (False, True), strict=True):
            for task in tasks:
                found = [scores.by_seed(task, MODEL, variant(k, freeze)) for k in range(1, LAYERS + 1)]
                _curve(panels[0], task, [[100 - 100 * x for x in one.values()] for one in found])
                _curve(panels[1], task, [similarity(scores, task, k, freeze) for k in range(1, LAYERS + 1)])
            panels[0].set_ylabel("100 (1 - score)")
            panels[1].set_ylabel("mean cosine of two tokens")
            for axes in panels:
                layer_axis(axes, 1, LAYERS)
                axes.set_xlabel("layer whose output the head reads")
            title(panels[0], f"error, {'frozen' if freeze else 'tuned'}")
            title(panels[1], f"similarity, {'frozen' if freeze else 'tuned'}")
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(tasks))
        remark(figure, f"{MODEL}; points: seeds; lines: their means. Error: 100 less the score in points.")
        save(figure, path)


def _curve(axes: Axes, task: str, values: list[list[float]]) -> None:
    layers = [k + 1 for k, one in enumerate(values) if one]
    axes.plot(layers, [np.mean(one) for one in values if one], color=COLOURS[task], label=task)
    points: list[tuple[Any, float]] = [(k, x) for k, one in zip(layers, filter(None, values), strict=True) for x in one]
    axes.plot(*zip(*points, strict=True), ".", color=COLOURS[task], markersize=5)


PAGE = """# Figure 1b: the output taken at an earlier layer

`python -m experiments.paper.figure_1b`. {machines}

{model}; substitutes, not GLUE: mean ± std over seeds, on the test split; each exit at the better of two learning rates,
by the first seed's validation score. "Points over the last" is the paired difference of the score from
that of the last layer, p after Holm over the earlier layers; the last column is the verdict on over-thinking.

{table}

How far the token that the head reads (the first) differs between texts, before any tuning: ‖h − mean over {sentences}
validation texts‖/‖h‖, and the same of all other tokens, from the mean of these.

{between}

The paper, MRPC: error 15.6, 14.4, 13.1, 12.3, 12.6, 12.65% and similarity .780, .774, .7705, .766, .779, .852 at layers
7 to 12 of twelve.

![](figure_1b.png)
"""


def report(scores: Scores, out: Path) -> None:
    """Write the page and the figure."""
    tasks = scores.have(CHOSEN, MODEL)
    rows = [line for freeze in (False, True) for task in tasks for line in row(scores, task, freeze)]
    table = markdown(["task", "", *(f"layer {k}" for k in range(1, LAYERS + 1)), "over-thinking"], rows)
    work = {f"{task}, {MODEL}, {SENTENCES} texts": functools.partial(between_texts, task) for task in tasks}
    found = kept(out / "figure_1b_between.json", work, doing="comparing texts")
    apart = [
        [f"{task}, {name}", *(f"{x:.3f}" for x in one[name])]
        for task, one in zip(tasks, found.values(), strict=True)
        for name in READ
    ]
    page = PAGE.format(
        machines=machines(scores.entries),
        model=MODEL,
        table=table,
        sentences=SENTENCES,
        between=markdown(["task", *(f"layer {k}" for k in range(1, LAYERS + 1))], apart),
    )
    atomic_write(out / "figure_1b.md", page)
    draw(scores, tasks, out / "figure_1b.png")
    print(page)


def main(args: Args) -> None:
    command = "python -m experiments.paper.figure_1b"
    store = Store(args.out / "figure_1b.json", command=command, also=tuple(args.out / f"{name}.json" for name in GRIDS))
    if not args.draw:
        fill_at_rates(cells(args), store, args, train)
    if store.entries():
        report(Scores(store.entries(), splits=COUNTED), args.out)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
