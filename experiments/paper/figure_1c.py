"""Figure 1c of Shi et al. (2022): does depth stop helping, and does fusion let it go on? Encoders trained from nothing.

    python -m experiments.paper.figure_1c                       # what results/paper/figure_1c.json does not have yet
    python -m experiments.paper.figure_1c --depths 6 12 --seeds 0 --minutes 60
    python -m experiments.paper.figure_1c --draw

Time: 119 s of processor time a run, pre-training and tuning together, 1.2 hours in all (AVX-512 EPYC). Expect here: no
difference between none and gates at any depth. In the paper (GLUE's average at 8, 12,
16, 20 and 24 layers) BERT 82.8, 83.8, 84.5, 84.8, 84.7 and with fusion 83.2, 84.2, 84.9, 85.3, 85.6. This is small: a
minute or two of masked language modelling on five thousand newswire stories where the paper had 16 GB of text, which
comes to little more than the words' frequencies.

Width 128, from random weights: masked LM on the training stories of `reuters-r8-mlm`, then their topics
(`reuters-r8`, whose splits agree), a task that six layers learn from random weights in two hundred steps;
`movie-reviews`, tried first, takes six times as many. None, gate fusion, ContraNorm and residual scaling in both
phases. Steps and learning rates were fixed by tries of none at 6 and 24 layers, seed 0, validation split. Rule: fusion
helps deep encoders if gate less none, averaged over depths of 12 and more, has its 95% interval above 0, on the test
split. Writes figure_1c.json, .md and .png and figure_1c_frequencies.json to results/paper.
"""

import dataclasses
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from jaxsmooth import EncoderConfig, init_encoder, load
from jaxsmooth.checkpoints.save import save
from jaxsmooth.files import atomic_write
from jaxsmooth.training.config import FinetuneConfig
from jaxsmooth.training.data.catalogue import load_task
from jaxsmooth.training.loop import finetune

from ..drawing import canvas, remark, title
from ..drawing import save as save_figure
from ..keeping import kept
from .grid import Cell, GridArgs, fill, train
from .measures import fixed_sentences
from .reading import CLAIMS, Scores, claim, machines, markdown, mean_and_std
from .settings import COUNTED, ONCE, run_settings
from .store import Store
from .verdicts import paired

TASK = "reuters-r8"
DEPTHS = (6, 12, 24)
VARIANTS: dict[str, dict[str, str]] = {
    "none": {},
    "gate": {"fusion": "gate"},
    "contranorm": {"remedy": "contranorm"},
    "residual-scaling": {"remedy": "residual-scaling"},
}
COLOURS = dict(zip(VARIANTS, ("#000000", "#D55E00", "#0072B2", "#888888"), strict=True))
ROWS, LENGTH = 32, 32
"""Of a step, in both phases."""
TUNED = {"steps": 200, "batch_size": ROWS, "max_length": LENGTH, "limit": 0, "learning_rate": 3e-4}
"""How the task is trained: these encoders have more to learn than the trained ones that `settings.TASKS` is for."""


@dataclasses.dataclass(frozen=True)
class Args(GridArgs):
    """Which runs to make."""

    depths: tuple[int, ...] = DEPTHS
    """Layers."""
    steps: int = 300
    """Of pre-training."""


def cells(args: Args) -> Iterator[Cell]:
    """Seed by seed, depth by depth."""
    for seed in args.seeds:
        for depth in args.depths:
            for variant, settings in VARIANTS.items():
                model = f"random-{depth}, {args.steps} steps of {ROWS} x {LENGTH}"
                yield Cell(TASK, f"random-{depth}", variant, run_settings(TASK, model, seed, **TUNED, **settings))


def random_model(depth: int, seed: int, folder: Path) -> Path:
    """A folder with random weights and minilm-l6's tokenizer."""
    if not (folder / "config.json").exists():
        _, tokenizer = load("minilm-l6")
        assert tokenizer is not None
        config = EncoderConfig(width=128, layers=depth, heads=4, mlp_width=512, max_length=64)
        tokenizer.save(folder)
        save(init_encoder(config, jax.random.key(seed)), folder)
    return folder


def pretrain_and_train(cell: Cell, folder: Path) -> dict[str, Any]:
    """Masked LM from random weights, then the task; both go on where they were."""
    depth, steps = map(int, re.findall(r"\d+", cell.config.model)[:2])
    seed = cell.config.seed
    begun, start = (folder / "pretrained").exists(), time.process_time()
    pretraining = FinetuneConfig(
        task=f"{TASK}-mlm", model=str(random_model(depth, seed, folder / "random")), out=folder / "pretrained",
        seed=seed, steps=steps, batch_size=ROWS, max_length=LENGTH, learning_rate=5e-4, eval_every=ONCE, keep=1,
        probe=0, fusion=cell.config.fusion, remedy=cell.config.remedy,
    )  # fmt: skip
    scores = finetune(pretraining).scores
    spent = time.process_time() - start
    tuned = dataclasses.replace(cell.config, model=str(folder / "pretrained" / "best"))
    entry = train(dataclasses.replace(cell, config=tuned), folder / "tuned")
    whole = None if begun or entry["processor_seconds"] is None else round(spent + entry["processor_seconds"], 1)
    return {**entry, "pretraining": scores, "processor_seconds": whole}


def frequencies_alone() -> dict[str, float]:
    """What masked LM comes to that knows how frequent tokens are and nothing of their neighbours, per token.

    Counted on the training stories, a tenth added to every count, of the tokens of the validation stories.
    """
    model, tokenizer = load("minilm-l6")
    assert tokenizer is not None
    parts = []
    for split in ("train", "validation"):
        data = load_task(TASK, tokenizer, split=split, max_length=LENGTH)
        batch = fixed_sentences(data, len(data))
        tokens = np.asarray(batch.tokens)[np.asarray(batch.mask)]
        parts.append(tokens[~np.isin(tokens, [*tokenizer.special_ids])])
    counts = np.bincount(parts[0], minlength=model.config.vocab) + 0.1
    return {"log_likelihood": float(np.log(counts / counts.sum())[parts[1]].mean())}


def claims(scores: Scores) -> list[list[str]]:
    """Of the deeper encoders together."""
    rows = []
    for variant in list(VARIANTS)[1:]:
        there = [(TASK, f"random-{d}") for d in DEPTHS if d >= 12 and scores.chosen(TASK, f"random-{d}", variant)]
        found = scores.pooled(there, variant, "none")
        rows += [claim(f"{variant} is better than none at 12 layers and more", paired(found))] if found else []
    return rows


def table(scores: Scores, depths: list[int]) -> str:
    """Score, masked LM's log-likelihood, similarity at the last layer."""
    rows = []
    for variant in VARIANTS:
        for name in ("score", "log-likelihood", "similarity"):
            cells = []
            for depth in depths:
                entries = scores.chosen(TASK, f"random-{depth}", variant)
                values = {
                    "score": list(scores.by_seed(TASK, f"random-{depth}", variant).values()),
                    "log-likelihood": [e["pretraining"]["log_likelihood"] for e in entries],
                    "similarity": [e["after"]["cosine_similarity"][-1] for e in entries],
                }[name]
                one = mean_and_std(values) if name == "score" else f"{np.mean(values):.3f}" if values else "–"
                cells.append(one)
            rows.append([variant if name == "score" else "", name, *cells])
    return markdown(["", "", *(f"{depth} layers" for depth in depths)], rows)


def draw(scores: Scores, depths: list[int], path: Path) -> None:
    """Score and similarity by depth."""
    with canvas(11.0, 4.6) as figure:
        left, right = figure.subplots(1, 2)
        for variant, colour in COLOURS.items():
            there = [d for d in depths if scores.chosen(TASK, f"random-{d}", variant)]
            found = [list(scores.by_seed(TASK, f"random-{d}", variant).values()) for d in there]
            alike = [
                [e["after"]["cosine_similarity"][-1] for e in scores.chosen(TASK, f"random-{d}", variant)]
                for d in there
            ]
            for axes, parts, scale in ((left, found, 100), (right, alike, 1)):
                axes.plot(there, [scale * np.mean(one) for one in parts], color=colour, label=variant)
                for depth, one in zip(there, parts, strict=True):
                    axes.plot([depth] * len(one), [scale * value for value in one], ".", color=colour)
        left.set_ylabel("accuracy, %")
        right.set_ylabel("mean cosine of two tokens, last layer")
        for axes in (left, right):
            axes.set_xlabel("layers")
            axes.set_xticks(depths)
        figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=len(COLOURS))
        title(left, f"{TASK} after pre-training from nothing")
        title(right, "similarity after tuning")
        remark(figure, "Lines: means over seeds; points: seeds.")
        save_figure(figure, path)


PAGE = """# Figure 1c: depth

`python -m experiments.paper.figure_1c`. {machines}

Width 128; masked LM from random weights ({steps}), then the topics of `{task}`, a substitute
for GLUE. Score: accuracy on the test split, mean ± std over seeds; log-likelihood per masked token on
validation stories after pre-training. The frequencies of tokens alone, of the training stories, give {alone:.3f}.

{table}

{claims}

The paper, GLUE's average at 8, 12, 16, 20, 24 layers: 82.8, 83.8, 84.5, 84.8, 84.7; with fusion 83.2, 84.2, 84.9,
85.3, 85.6.

![](figure_1c.png)
"""


def report(scores: Scores, out: Path) -> None:
    """Write the page and the figure."""
    depths = sorted({int(entry["model"].removeprefix("random-")) for entry in scores.entries.values()})
    alone = kept(out / "figure_1c_frequencies.json", {f"{TASK}, {LENGTH} tokens": frequencies_alone}, doing="counting")
    page = PAGE.format(
        alone=next(iter(alone.values()))["log_likelihood"],
        machines=machines(scores.entries),
        steps="; ".join(sorted({entry["settings"]["model"].partition(", ")[2] for entry in scores.entries.values()})),
        task=TASK,
        table=table(scores, depths),
        claims=markdown(CLAIMS, claims(scores)),
    )
    atomic_write(out / "figure_1c.md", page)
    draw(scores, depths, out / "figure_1c.png")
    print(page)


def main(args: Args) -> None:
    store = Store(args.out / "figure_1c.json", command="python -m experiments.paper.figure_1c")
    if not args.draw:
        fill(cells(args), store, args, pretrain_and_train)
    if store.entries():
        report(Scores(store.entries(), splits=COUNTED), args.out)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
