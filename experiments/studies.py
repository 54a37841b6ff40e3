"""What `diagnose` and `verify` say of every model asset: the numbers that pages of docs/ quote.

    python experiments/studies.py               # what results/studies.json does not have yet
    python experiments/studies.py --models minilm-l6 --texts 16

Of 64 movie reviews drawn at random, of antiberty of antibody sequences, in single precision: sinks of every head, how
similarity and contraction go with length, what these texts say of others, and all measures of
`jaxsmooth.literature_metrics`, by layer. They are the functions that `jaxsmooth diagnose MODEL --data movie-reviews
--limit 64 --sample 0` calls, without the rest of that command. Of minilm-l6 also `verify`: all hypotheses on the first
four reviews, and the statements on what sub-layers move on 16 drawn at random; and of every model the statements named
in RECENT on four texts. results/studies.md says the time of each entry; minutes together. Expect: most heads of the
sentence encoders have their sink at the first token; the published hypothesis fails in every layer. Each entry is kept
in results/studies.json when it ends. Writes studies.md, too; `python -m experiments.pages` then puts the numbers into
the pages.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import keeping
import numpy as np
import tyro
from readings import ANTIBODIES

import jaxsmooth
from jaxsmooth import Batch, BlockTrace, Encoder, embed, encode, metrics
from jaxsmooth.assets.texts import read_texts, sample_texts
from jaxsmooth.files import atomic_write
from jaxsmooth.linalg.norms import unit_vectors
from jaxsmooth.results.texts import EMBEDDED, KeptTexts
from jaxsmooth.studies.requested.own_metrics import BlockMetric
from jaxsmooth.studies.statements.texts import text_statements
from jaxsmooth.theory import token_mean
from jaxsmooth.theory.hypotheses.asked import ASKED

MODELS = ("minilm-l3", "minilm-l6", "e5-small-q4", "mpnet-base", "antiberty")
MOVED = ("layer_norm_update_attn", "layer_norm_update_mlp", "update_turn")
RECENT = ("chen2025_clustering", "zhang2026_smoothing", "labovich2026_recall")


@dataclasses.dataclass(frozen=True)
class Options:
    """What is run."""

    models: tuple[str, ...] = MODELS
    texts: int = 64
    """Reviews that are drawn."""
    seeds: tuple[int, ...] = (0,)
    """Of the draws; of minilm-l6 seed 1 besides."""
    asked: int = 4
    """Reviews of which the hypotheses are decided, and statements of the literature."""
    moved: int = 16
    """Reviews of which it is asked how far sub-layers move them."""
    out: Path = keeping.RESULTS


LITERATURE = jaxsmooth.literature_metrics()


@jax.jit
def measures(model: Encoder, batch: Batch) -> dict[str, jax.Array]:
    """Of hidden states [L+1 B], of heads [L B N]; the direction of the last one's mean token, [D B]."""
    mask = batch.mask

    def of_state(hidden: jax.Array) -> dict[str, jax.Array]:
        found = {name: one(hidden, mask) for name, one in LITERATURE.items() if not isinstance(one, BlockMetric)}
        similar, distance = metrics.token_cosine_similarity(hidden, mask), metrics.subspace_distance(hidden, mask)
        return {"cosine_similarity": similar, "subspace_distance": distance, **found}

    def collect(trace: BlockTrace) -> tuple[dict[str, jax.Array], ...]:
        found = {name: one.text(trace, mask) for name, one in LITERATURE.items() if isinstance(one, BlockMetric)}
        heads = {
            "sink": metrics.sink_strength(trace.attn, mask),
            "first": metrics.first_token_attention(trace.attn, mask),
        }
        return of_state(trace.hidden), found, heads

    last, (states, blocks, heads) = encode(model, batch, collect=collect)
    first = of_state(embed(model, batch))
    states = {name: jnp.concatenate([first[name][None], value]) for name, value in states.items()}
    blocks = {name: jnp.concatenate([jnp.full_like(value[:1], jnp.nan), value]) for name, value in blocks.items()}
    return {**states, **blocks, **heads, "embedding": unit_vectors(token_mean(last, mask)[:, 0]).T}


def diagnosed(name: str, count: int, seed: int) -> dict[str, Any]:
    """Of one model: what the texts say."""
    model, tokenizer = jaxsmooth.load(name)
    texts = list(ANTIBODIES) if name == "antiberty" else sample_texts("movie-reviews", count, seed)
    batch = tokenizer(texts)
    found = {key: np.asarray(value, np.float64) for key, value in measures(model, batch).items()}
    tokens, places = np.asarray(batch.mask).sum(axis=1)[None], np.arange(len(texts))
    kept, embedded, distance = KeptTexts(), KeptTexts(EMBEDDED), found["subspace_distance"]
    needed = {"subspace_distance": distance, "actual": distance[1:] / distance[:-1], "tokens": tokens}
    kept.add({**needed, "cosine_similarity": found["cosine_similarity"]}, places)
    embedded.add({"embedding": found["embedding"], "tokens": tokens}, places)
    said = text_statements(kept, each_text=False, embedded=embedded)
    return {
        "model": name,
        "texts": len(texts),
        "tokens": [int(tokens.min()), int(tokens.max())],
        "sink": keeping.rounded(found["sink"].mean(axis=1)),
        "first": keeping.rounded(found["first"].mean(axis=1)),
        "contraction": dataclasses.asdict(said.rows[0]),
        "lengths": {trend.quantity: dataclasses.asdict(trend) for trend in said.lengths},
        "groups": [dataclasses.asdict(group) for group in said.groups],
        "metrics": {key: keeping.rounded(keeping.mean_and_error(found[key])[0]) for key in LITERATURE},
    }


def asked(count: int) -> dict[str, Any]:
    """All hypotheses of minilm-l6 on the first reviews."""
    model, tokenizer = jaxsmooth.load("minilm-l6")
    found = jaxsmooth.verify(model, tokenizer, read_texts("movie-reviews", count), hypotheses=tuple(ASKED))
    checks = [check for check in found.hypothesis_checks if check.hypothesis == "consensus_attracts"]
    return {
        "texts": count,
        "hypotheses": {row.hypothesis: dataclasses.asdict(row) for row in found.hypotheses},
        "states": [dataclasses.asdict(check) for check in checks],
    }


def verified(name: str, count: int, theorems: tuple[str, ...]) -> dict[str, Any]:
    """Statements about what a model does, beside what happens."""
    model, tokenizer = jaxsmooth.load(name)
    texts = ANTIBODIES[:count] if name == "antiberty" else sample_texts("movie-reviews", count, 0)
    found = jaxsmooth.verify(model, tokenizer, texts, theorems=theorems)
    return {
        "texts": count,
        "theorems": {row.theorem: {"counts": row.counts, "tightness": row.tightness} for row in found.theorems},
        "stages": found.stages,
    }


def work(options: Options) -> dict[str, Callable[[], dict[str, Any]]]:
    """Of every entry its name, and what computes it."""
    draws = [(name, seed) for name in options.models for seed in options.seeds]
    draws += [("minilm-l6", 1)] * ("minilm-l6" in options.models)
    found: dict[str, Callable[[], dict[str, Any]]] = {}
    for name, seed in dict.fromkeys(draws):
        kind = "antibodies" if name == "antiberty" else f"{options.texts} reviews, seed {seed}"
        found[f"{name}, {kind}"] = functools.partial(diagnosed, name, options.texts, seed)
    if "minilm-l6" in options.models:
        found[f"hypotheses, {options.asked} reviews"] = functools.partial(asked, options.asked)
        found[f"moved, {options.moved} reviews"] = functools.partial(verified, "minilm-l6", options.moved, MOVED)
    for name in options.models:
        found[f"{name}, recent, {options.asked} texts"] = functools.partial(verified, name, options.asked, RECENT)
    return found


def measures_table(entries: dict[str, Any]) -> str:
    """Of every measure the embedding's, the first and the last block's mean, and the range over layers."""
    rows = []
    for name, entry in entries.items():
        for key, values in entry.get("metrics", {}).items():
            known = keeping.numbers(values)
            ends = [f"{value:.3g}" if np.isfinite(value) else "–" for value in (known[0], known[1], known[-1])]
            rows.append([name, key, *ends, f"{np.nanmin(known):.3g} to {np.nanmax(known):.3g}"])
    return keeping.table(["", "measure", "embedding", "block 1", "last block", "range"], rows)


def main(options: Options) -> None:
    entries = keeping.kept(options.out / "studies.json", work(options), doing="reading reviews")
    seconds = keeping.table(
        ["entry", "processor seconds"], [[name, f"{entry['processor_seconds']:.0f}"] for name, entry in entries.items()]
    )
    page = f"""# What `diagnose` and `verify` say of the model assets

`python experiments/studies.py`, single precision, 2 shared cores of an Intel Xeon with AVX-512; loading and compiling
are in the seconds.

{seconds}

## Measures of the literature, means over texts

{measures_table(entries)}
"""
    atomic_write(options.out / "studies.md", page)
    print(page)


if __name__ == "__main__":
    main(tyro.cli(Options))
