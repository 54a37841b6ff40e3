"""How long do a trained layer's tokens stay in clusters, and what keeps them apart when their input is put in again?

    python experiments/loops.py
    python experiments/loops.py --model minilm-l3        (and e5-small-q4, mpnet-base, antiberty)

Reviews of 17 to 32 tokens, of antiberty antibody sequences, in single precision; a minute of processor time for
minilm-l6, several for mpnet-base and antiberty. Tables: Rényi's centres and ranks
of the hidden states of the model's own run; the clusters through which a layer goes when it is applied again and again,
with the longest stay in two or more; the same layer with recall, X <- block(X) + U, U its first input, beside the two
distances between which docs/looped.md puts a fixed state. Expect: without recall layers 1, 5 and 6 end in one cluster;
with it no layer brings tokens nearer than the lower one. Writes results/loops.json and loops.md; of another model
loops_NAME.json and loops_NAME.md.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from readings import short_texts

import jaxsmooth
from jaxsmooth import metrics, theory
from jaxsmooth.files import atomic_write, dumps_strict, strict
from jaxsmooth.studies.fate.maps import token_map
from jaxsmooth.types import BlockTrace

RESULTS = Path(__file__).parent / "results"
SEPARATION = 0.5
"""Of directions, for Rényi's centres: an angle of 29 degrees."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What is run."""

    model: str = "minilm-l6"
    sentences: int = 8
    steps: int = 200
    """How often a layer is applied; 0 for the table of hidden states alone."""
    out: Path = RESULTS


def centres(hidden: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
    """Of one hidden state, numbers of every sentence."""
    found = theory.karagodin2024_centres(hidden, mask, SEPARATION)
    strong = theory.karagodin2024_centres(hidden, mask, SEPARATION, strong=True)
    counts = {"centres": found.sum(axis=-1), "strong centres": strong.sum(axis=-1)}
    ranks = {
        "numerical rank": metrics.stable_rank(hidden, mask),
        "effective rank": metrics.effective_rank(hidden, mask),
    }
    return {**counts, **ranks, "d_M / norm": metrics.relative_distance(hidden, mask)}


def looped(model: Any, start: jax.Array, mask: jax.Array, layer: jax.Array, steps: int) -> dict[str, jax.Array]:
    """One layer applied again and again, without recall and with it."""
    block = token_map(model, "layer", layer, mask)
    counts = theory.cluster_counts(block, start, mask, steps=steps)
    dwell = theory.dwell_times(counts, mask.shape[1])
    orbit = theory.follow(lambda x: block(x) + start, start, mask, steps=steps)
    apart, injected = (theory.subspace_distance(x, mask) for x in (orbit.final, start))
    rate = theory.subspace_distance(block(orbit.final), mask) / apart
    return {
        "clusters at first": counts[0],
        "clusters at last": counts[-1],
        "longest stay in two or more": dwell[:, 1:].max(axis=-1),
        "at rest": orbit.fate == theory.Fate.CLUSTERS,
        "change": orbit.change,
        "d_M of U": injected,
        "v": rate,
        "lower end": injected / (1 + rate),
        "d_M": apart,
        "upper end": jnp.where(rate < 1, injected / (1 - rate), jnp.inf),
    }


def measured(options: Options) -> tuple[dict[str, Any], str]:
    """Name of a table -> one row of numbers a layer, of each sentence one; and what the sentences are."""
    model, tokenizer = jaxsmooth.load(options.model)
    texts, kind = short_texts(options.model, tokenizer, options.sentences)
    batch = tokenizer(texts)

    def collect(trace: BlockTrace) -> tuple[jax.Array, dict[str, jax.Array]]:
        return trace.input, centres(trace.hidden, batch.mask)

    _, (inputs, states) = jax.jit(lambda model: jaxsmooth.encode(model, batch, collect=collect))(model)
    run = jax.jit(lambda x, layer: looped(model, x, batch.mask, layer, options.steps))
    first = centres(inputs[0], batch.mask)
    rows = [first, *({key: value[k] for key, value in states.items()} for k in range(len(inputs)))]
    layers = range(len(inputs) if options.steps else 0)
    loops = [run(inputs[layer], jnp.int32(layer)) for layer in layers]
    found = {"states": rows, "loops": loops}
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64).tolist(), found), kind


def cell(values: list[float]) -> str:
    """Median [least, largest]."""
    middle, low, high = (float(f(np.asarray(values))) for f in (np.median, np.min, np.max))
    return f"{middle:.3g}" if low == high else f"{middle:.3g} [{low:.3g}, {high:.3g}]"


def table(rows: list[dict[str, list[float]]], first: int, names: tuple[str, ...]) -> str:
    lines = [f"| layer | {' | '.join(names)} |", f"|{' --- |' * (len(names) + 1)}"]
    lines += [f"| {first + k} | {' | '.join(cell(row[name]) for name in names)} |" for k, row in enumerate(rows)]
    return "\n".join(lines)


def main(options: Options) -> None:
    began = time.process_time()
    own = options.model == Options.model
    model, stem = ("", "loops") if own else (f" --model {options.model}", f"loops_{options.model}")
    model += "".join(
        f" --{flag} {getattr(options, flag)}"
        for flag in ("sentences", "steps")
        if getattr(options, flag) != getattr(Options, flag)
    )
    found, kind = measured(options)
    loops = [{**row, "at rest": [float(sum(row["at rest"]))]} for row in found["loops"]]
    clusters = ("clusters at first", "clusters at last", "longest stay in two or more")
    recall = ("at rest", "change", "d_M of U", "v", "lower end", "d_M", "upper end")
    parts = [
        "# Clusters and loops",
        f"`python experiments/loops.py{model}`: {options.model}, {kind}, single precision, {options.steps} steps, "
        f"{time.process_time() - began:.0f} s of processor time. Median [least, largest] over texts.",
        f"## Hidden states of the model's own run, separation {SEPARATION}",
        table(found["states"], 0, tuple(found["states"][0])),
    ]
    if loops:
        parts += ["## A layer applied again and again", table(loops, 1, clusters)]
        parts += ["## The same with recall, X <- block(X) + U", table(loops, 1, recall)]
    text = "\n\n".join(parts)
    atomic_write(options.out / f"{stem}.json", dumps_strict(strict(found), indent=1) + "\n")
    atomic_write(options.out / f"{stem}.md", text + "\n")
    print(text)


if __name__ == "__main__":
    main(tyro.cli(Options))
