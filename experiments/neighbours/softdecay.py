"""SoftDecay (Yan et al. 2022): does it better the similarity of sentences, without training?

    python -m experiments.neighbours.softdecay

SoftDecay flattens the singular values of the last layer's token matrix; for pooled embeddings the paper reports mean
Spearman correlations on seven STS sets of 62.97 -> 71.26 (BERT), 51.87 -> 64.06 (ALBERT), 59.53 -> 68.50 (RoBERTa),
models that nobody tuned for sentence similarity. STS is not to be had here; the STAND-INS are: do two newswire stories
(reuters-r8), or two newsgroup posts (newsgroups), have one topic? Area under the ROC curve of the cosine of the
mean-pooled embeddings over all pairs of 60 texts; and which of four goals of wikiHow does a step serve
(wikihow-goals, 75 questions)? Share answered rightly by the largest cosine. And the trained models here ARE tuned for
sentence similarity; the one that is not is random.

Hardware and time: four minutes on one shared core of an AVX-512 EPYC. Expect: changes within one or two points, of
either sign.

Verdict rule, written before the run: at the published strength -0.2, over trained models and tasks: reproduced if the
paired 95% bootstrap interval (over texts, or questions) of the change lies above 0 in at least half of the cases and
below 0 in none; contradicted if it lies below 0 in more than half; else not reproduced.

Writes results/neighbours/softdecay.json, .md and .png.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from numpy.typing import NDArray
from scipy.stats import rankdata

import jaxsmooth
from jaxsmooth import mitigations, theory
from jaxsmooth.assets.texts import read_rows
from jaxsmooth.training.data.catalogue import read_task
from jaxsmooth.training.data.splits import sample
from jaxsmooth.training.data.tasks import Choice

from .. import keeping
from ..drawing import canvas, remark, save, title
from ..paper import observed

RESULTS = keeping.RESULTS / "neighbours"
STRENGTHS = (-0.2, -1.0)
PUBLISHED = -0.2
MODELS = ("minilm-l6", "e5-small-q4", "mpnet-base", "minilm-l6 random")
TASKS = ("reuters-r8", "newsgroups", "wikihow-goals")
DRAWS = 200


@dataclasses.dataclass(frozen=True)
class Args:
    """What to look at."""

    models: tuple[str, ...] = MODELS
    """Model assets; " random" after a name is its architecture at random initialisation."""
    tasks: tuple[str, ...] = TASKS
    """Topic corpora, and wikihow-goals."""
    texts: int = 60
    """Texts of a topic corpus; questions are a quarter more."""
    out: Path = RESULTS
    """Where the results go."""


# Scores


def area(scores: NDArray, same: NDArray) -> float:
    """Area under the ROC curve: the share of (same, different) pairs that the scores put in order, ties half.

    >>> area(np.array([0.9, 0.2, 0.5]), np.array([True, False, False]))
    1.0
    """
    ranks = rankdata(scores)
    ones = same.sum()
    return float((ranks[same].sum() - ones * (ones + 1) / 2) / (ones * (len(same) - ones)))


def topic_score(embeddings: NDArray, topics: NDArray, chosen: NDArray) -> float:
    """`area` over the pairs of the chosen texts, pairs of one text with itself left out."""
    one, two = np.triu_indices(len(chosen), 1)
    one, two = chosen[one], chosen[two]
    kept = one != two
    cosine = (embeddings @ embeddings.T)[one[kept], two[kept]]
    return area(cosine, topics[one[kept]] == topics[two[kept]])


def choice_score(embeddings: NDArray, right: NDArray, chosen: NDArray) -> float:
    """Share of the chosen questions whose right answer is nearest to the prompt; rows are prompt, then the choices."""
    rows = embeddings.reshape(len(right), -1, embeddings.shape[-1])
    found = np.argmax(np.einsum("qd,qcd->qc", rows[:, 0], rows[:, 1:]), axis=1)
    return float(np.mean((found == right)[chosen]))


@dataclasses.dataclass(frozen=True)
class Setting:
    """A task: texts, and the score of their embeddings on chosen cases."""

    texts: list[str]
    cases: int
    score: Callable[[NDArray, NDArray], float]


def setting(task: str, count: int) -> Setting:
    """Topics of `count` random texts, or half as many questions and half again."""
    rng = np.random.default_rng(0)
    if task == "wikihow-goals":
        questions = [e for e in sample(read_task(task)[1].splits["train"], count * 5 // 4) if isinstance(e, Choice)]
        texts = [text for question in questions for text in (question.prompt, *question.choices)]
        right = np.array([question.label for question in questions])
        return Setting(texts, len(questions), lambda e, k: choice_score(e, right, k))
    rows = read_rows(task)
    chosen = np.sort(rng.permutation(len(rows))[:count])
    topics = np.unique([rows[k][0] for k in chosen], return_inverse=True)[1]
    return Setting([rows[k][-1] for k in chosen], count, lambda e, k: topic_score(e, topics, k))


# Embeddings


@jax.jit
def pooled(model: jaxsmooth.Encoder, batch: jaxsmooth.Batch, strengths: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean token of the last layer, plain and after SoftDecay of each strength, [1+K B D]; token cosine, [1+K B]."""
    hidden = jaxsmooth.encode(model, batch, collect=jaxsmooth.keep_nothing)[0]
    decayed = jax.lax.map(lambda a: mitigations.soft_decay(hidden, batch.mask, a), strengths)
    every = jax.numpy.concatenate([hidden[None], decayed])
    mask = jax.numpy.broadcast_to(batch.mask, every.shape[:-1])
    return theory.token_mean(every, mask)[:, :, 0], jaxsmooth.metrics.token_cosine_similarity(every, mask)


def embedded(model: str, texts: list[str]) -> tuple[NDArray, NDArray]:
    """Unit embeddings of all texts, [1+K texts D], and the mean token cosine, [1+K]."""
    name, _, random = model.partition(" ")
    encoder, tokenizer = observed.loaded(name, random or "trained")
    parts = np.empty((1 + len(STRENGTHS), len(texts), encoder.config.width))
    cosine = np.empty(parts.shape[:2])
    for encoded in tokenizer.batches(texts, tokens_per_batch=256):
        found, alike = pooled(encoder, encoded.batch, np.array(STRENGTHS, np.float32))
        rows = len(encoded.indices)
        parts[:, encoded.indices], cosine[:, encoded.indices] = found[:, :rows], alike[:, :rows]
    return parts / np.linalg.norm(parts, axis=-1, keepdims=True), np.nanmean(cosine, axis=1)


def compared(model: str, task: str, count: int) -> dict[str, Any]:
    """Score without and with SoftDecay, and the change's interval from paired draws of texts or questions."""
    asked = setting(task, count)
    embeddings, cosine = embedded(model, asked.texts)
    draws = np.random.default_rng(0).integers(0, asked.cases, (DRAWS, asked.cases))
    whole = [asked.score(each, np.arange(asked.cases)) for each in embeddings]
    drawn = np.array([[asked.score(each, places) for each in embeddings] for places in draws])
    low, high = keeping.interval(drawn[:, 1:] - drawn[:, :1])
    rows = [
        {"strength": a, "score": whole[k + 1], "change": whole[k + 1] - whole[0], "low": low[k], "high": high[k],
         "cosine": cosine[k + 1]}
        for k, a in enumerate(STRENGTHS)
    ]  # fmt: skip
    plain = [float(x) for x in keeping.interval(drawn[:, 0])]
    rows = [{key: float(value) for key, value in row.items()} for row in rows]
    return {"cases": asked.cases, "none": whole[0], "none_interval": plain, "cosine": float(cosine[0]), "rows": rows}


# The page


def tally(found: dict[str, Any]) -> dict[str, int]:
    """Of the trained models' cases at the published strength: all, better, worse."""
    cases = [each for name, each in found.items() if " random" not in name]
    rows = [next(row for row in each["rows"] if row["strength"] == PUBLISHED) for each in cases]
    return {"cases": len(rows), "better": sum(r["low"] > 0 for r in rows), "worse": sum(r["high"] < 0 for r in rows)}


def draw(args: Args, cases: dict[str, Any], path: Path) -> None:
    with canvas(5.2 * len(args.tasks), 4.6) as figure:
        every = np.atleast_1d(figure.subplots(1, len(args.tasks)))
        for axes, task in zip(every, args.tasks, strict=True):
            for place, model in enumerate(args.models):
                one = cases[f"{model}, {task}"]
                where = np.arange(len(STRENGTHS)) + 0.12 * (place - 1.5)
                value, low, high = (100 * np.array([row[k] for row in one["rows"]]) for k in ("change", "low", "high"))
                colour = ("#000000", "#D55E00", "#0072B2", "#999999")[place % 4]
                ends = np.maximum((value - low, high - value), 0)
                axes.errorbar(where, value, ends, fmt="o", color=colour, label=observed.label(model))
            axes.axhline(0, color="#555555", linewidth=1)
            axes.set_xticks(range(len(STRENGTHS)), [f"{a:g}" for a in STRENGTHS])
            axes.set(xlabel="SoftDecay's strength (published: -0.2)", ylabel="change in points (of 100)")
            scores = ", ".join(f"{100 * cases[f'{model}, {task}']['none']:.0f}" for model in args.models)
            title(axes, f"{task}: {scores} without")
        figure.legend(*every[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(args.models))
        remark(
            figure,
            "Stand-ins for STS. Topics: area under the ROC curve; wikihow-goals: share right. Paired 95% intervals.",
        )
        save(figure, path)


def lines(args: Args, cases: dict[str, Any]) -> str:
    rows = []
    for model in args.models:
        for task in args.tasks:
            one = cases[f"{model}, {task}"]
            cells = [
                keeping.spelled(*(100 * row[k] for k in ("change", "low", "high")), form="+.1f") for row in one["rows"]
            ]
            rows.append([observed.label(model), task, f"{100 * one['none']:.1f}", f"{one['cosine']:.2f}", *cells])
    return keeping.table(["model", "stand-in", "without", "token cosine", *(f"{a:g}" for a in STRENGTHS)], rows)


def main(args: Args) -> dict[str, Any]:
    names = [(model, task) for model in args.models for task in args.tasks]
    work = {f"{m}, {t}, {args.texts} texts": functools.partial(compared, m, t, args.texts) for m, t in names}
    entries = keeping.kept(args.out / "softdecay_parts.json", work, doing="comparing embeddings")
    cases = {f"{m}, {t}": one for (m, t), one in zip(names, entries.values(), strict=True)}
    found = {"args": dataclasses.asdict(args) | {"out": None}, "tally": tally(cases), "cases": cases}
    draw(args, cases, args.out / "softdecay.png")
    counts = found["tally"]
    page = f"""# SoftDecay and the similarity of sentences (Yan et al. 2022), on stand-ins for STS

`python -m experiments.neighbours.softdecay`: score in points without SoftDecay, and its change [paired 95% interval] at
each strength. At the published -0.2, of {counts["cases"]} cases of trained models {counts["better"]} are better,
{counts["worse"]} worse.

{lines(args, cases)}

![](softdecay.png)
"""
    keeping.write(args.out, "softdecay", found, page)
    print(page)
    return found


if __name__ == "__main__":
    main(tyro.cli(Args))
