"""What statements of 2024 to 2026 about heads and clusters say of the model assets.

    python experiments/head_statements.py

For every model, layer and head, in single precision on movie reviews of 17 to 32 tokens, of antiberty on antibody
sequences: the sink beside the sink that the head's output needs, and that silence would need at least (docs/sinks.md,
"A silent head needs one"); the scores' temperature as a random energy model and the attention's sum of squares beside
that of normal scores of the same std (docs/initialisation.md); the degree of clusters that scores as sharp would make
first, the self-score's lead over log n, and the smallest cosine of two tokens (docs/causal.md). A minute or two of
processor time for the five models. Expect: most heads stay below the temperature 2^(1/2); no layer of a trained model
but the last ones has its tokens at acute angles only. Writes results/head_statements.json and head_statements.md.
"""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from readings import short_texts

import jaxsmooth
from jaxsmooth import theory
from jaxsmooth.files import atomic_write, dumps_strict, strict
from jaxsmooth.linalg.precision import einsum
from jaxsmooth.types import BlockTrace

RESULTS = Path(__file__).parent / "results"
DRAWS = 400


@dataclasses.dataclass(frozen=True)
class Options:
    """What is run."""

    models: tuple[str, ...] = ("minilm-l3", "minilm-l6", "e5-small-q4", "mpnet-base", "antiberty")
    """Models already in the results are run anew only if named here."""
    sentences: int = 8
    out: Path = RESULTS


def of_layer(trace: BlockTrace, mask: jax.Array) -> dict[str, jax.Array]:
    """Numbers of one layer: of heads [B N], of sentences [B]."""
    kernel = trace.block.attn.output.kernel
    values = einsum("bnsh,nhd->bnsd", trace.value, kernel)
    real = jnp.broadcast_to(mask[:, None], values.shape[:-1])
    sizes = jnp.where(real, jnp.linalg.norm(values, axis=-1), 0)
    outputs = theory.ranmilo2026_output(trace.attn, values, real)
    switch, far = (text(trace.attn, values, real) for text in (theory.lampert2026_switch, theory.sink_distance))
    seen = jnp.where(mask[:, None, None, :], trace.attn_logits, -jnp.inf)
    beta, squares = theory.giorlandino2025_temperature(seen, mask)
    units = trace.input / jnp.linalg.norm(trace.input, axis=-1, keepdims=True)
    cosines = jnp.where(mask[:, :, None] & mask[:, None, :], einsum("btd,bsd->bts", units, units), 2)
    return {
        "sink": theory.sink_strength(trace.attn, mask),
        "output from below": outputs.lhs / outputs.rhs,
        "needed for silence": theory.ranmilo2026_needed(trace.attn, values, real),
        "share of the largest value": outputs.rhs / jnp.max(sizes, axis=-1),
        "holds": (outputs.lhs <= outputs.rhs * (1 + 1e-4)) & (switch.lhs <= switch.rhs * (1 + 1e-4) + 1e-6),
        "switch from below": switch.lhs / switch.rhs,
        "switch from above": switch.rhs / far.rhs,
        "temperature": beta,
        "squares": squares,
        "lead of the own score": own_lead(trace.attn_logits, mask),
        "smallest cosine": jnp.min(cosines, axis=(-2, -1)),
    }


def own_lead(logits: jax.Array, mask: jax.Array) -> jax.Array:
    """By how much a token's score with itself exceeds its mean score with the others, [B N]."""
    count = mask.sum(axis=-1)[:, None]
    own = jnp.sum(jnp.where(mask[:, None], jnp.diagonal(logits, axis1=-2, axis2=-1), 0), axis=-1) / count
    both = (mask[:, :, None] & mask[:, None, :])[:, None]
    whole = jnp.sum(jnp.where(both, logits, 0), axis=(-2, -1)) / count
    return own - (whole - own) / (count - 1)


def normal_squares(beta: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Mean sum of squares of a softmax of normal scores, for each sentence's number of tokens: beta [L B N]."""
    rng, found = np.random.default_rng(0), np.zeros(beta.shape)
    for k, n in enumerate(tokens):
        scores = beta[:, k, :, None, None] * np.sqrt(np.log(n)) * rng.standard_normal((DRAWS, n))
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        found[:, k] = np.mean(np.sum(weights**2, axis=-1) / weights.sum(axis=-1) ** 2, axis=-1)
    return found


def measured(name: str, sentences: int) -> dict[str, Any]:
    """Of one model: name -> numbers, [L B N] or [L B]."""
    model, tokenizer = jaxsmooth.load(name)
    texts, _ = short_texts(name, tokenizer, sentences)
    batch = tokenizer(texts)
    run = jax.jit(lambda m: jaxsmooth.encode(m, batch, collect=lambda trace: of_layer(trace, batch.mask))[1])
    found = {key: np.asarray(value, np.float64) for key, value in run(model).items()}
    tokens = np.asarray(batch.mask.sum(axis=-1))
    found["squares of normal scores"] = normal_squares(found["temperature"], tokens)
    found["log n"] = np.log(tokens)
    width = model.config.width // model.config.heads
    sharp = found["temperature"] * np.sqrt(np.log(tokens))[:, None] * np.sqrt(width)
    degree = np.vectorize(lambda beta: theory.bruno2024_degree(float(beta), width))
    return {**found, "degree": degree(sharp).astype(float), "sharpness": sharp}


def five_digits(value: float) -> float:
    return float(f"{value:.5g}")


def cell(values: np.ndarray) -> str:
    """Median [least, largest]."""
    middle, low, high = (float(f(values)) for f in (np.median, np.min, np.max))
    return f"{middle:.3g}" if low == high else f"{middle:.3g} [{low:.3g}, {high:.3g}]"


def tables(name: str, found: dict[str, np.ndarray]) -> str:
    """Of one model: a row a layer; of heads their means over sentences first."""
    heads = {key: value.mean(axis=1) for key, value in found.items() if value.ndim == 3}
    lines = [
        f"## {name}",
        "",
        "| layer | heads with a sink above 0.3 | above 0.5 | output over the largest value | its bound over it | "
        "no sink asked for | silence not excluded | strength asked for | silence excluded | switch: below | above |",
        "|" + " --- |" * 11,
    ]
    for k in range(len(found["sink"])):
        sink, needed = heads["sink"][k], found["needed for silence"][k]
        row = [f"{(sink > 0.3).sum()} of {len(sink)}", (sink > 0.5).sum(), cell(heads["share of the largest value"][k])]
        possible = needed[(needed > 0) & (needed <= 1)]
        row += [cell(heads["output from below"][k]), (needed == 0).sum(), possible.size]
        row += [cell(possible) if possible.size else "-", (needed > 1).sum()]
        row += [cell(heads["switch from below"][k]), cell(heads["switch from above"][k])]
        lines.append(f"| {k + 1} | {' | '.join(map(str, row))} |")
    lines += [
        "",
        "| layer | temperature | heads above 2^(1/2) | sum of squares | of normal scores | degree of clusters | "
        "heads whose own score leads by log n | smallest cosine |",
        "|" + " --- |" * 8,
    ]
    for k in range(len(found["sink"])):
        beta = heads["temperature"][k]
        leads = (found["lead of the own score"][k] / found["log n"][:, None]).mean(axis=0) > 1
        row = [cell(beta), (beta > 2**0.5).sum(), cell(heads["squares"][k]), cell(heads["squares of normal scores"][k])]
        row += [cell(found["degree"][k]), leads.sum(), cell(found["smallest cosine"][k])]
        lines.append(f"| {k + 1} | {' | '.join(map(str, row))} |")
    return "\n".join(lines)


def main(options: Options) -> None:
    path = options.out / "head_statements.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    for name in options.models:
        began = time.process_time()
        found = measured(name, options.sentences)
        assert found["holds"].all()
        kept[name] = {key: np.vectorize(five_digits)(value).tolist() for key, value in found.items()}
        kept[name]["seconds"] = round(time.process_time() - began, 1)
    atomic_write(path, dumps_strict(strict(kept), indent=None) + "\n")
    seconds = ", ".join(f"{name} {found['seconds']}" for name, found in kept.items())
    text = [
        "# Heads and clusters by statements of 2024 to 2026",
        f"`python experiments/head_statements.py`: {options.sentences} movie reviews of 17 to 32 tokens, of antiberty "
        f"antibody sequences, single precision; seconds of processor time: {seconds}. Of heads, means over the texts; "
        "median [least, largest] over heads, of cosines, degrees and strengths over heads and texts; 'silence' counts "
        "heads and texts.",
    ]
    for name, found in kept.items():
        arrays = {key: np.asarray(value, float) for key, value in found.items() if key != "seconds"}
        # JSON has no infinity.
        arrays = {key: np.where(np.isnan(value), np.inf, value) for key, value in arrays.items()}
        text.append(tables(name, arrays))
    atomic_write(options.out / "head_statements.md", "\n\n".join(text) + "\n")
    print("\n\n".join(text))


if __name__ == "__main__":
    main(tyro.cli(Options))
