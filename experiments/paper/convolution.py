"""Attention as a graph convolution (Shi et al. 2022, section 3): what if a BERT's attention were ResGCN's?

    python -m experiments.paper.convolution

The paper sets softmax attention, whose rows sum to 1, beside ResGCN, X + ReLU(D^(-1/2) A D^(-1/2) X W). Here trained
encoders run with one in the other's place, weights, residual sums, norms and MLPs as they are: "attention";
"symmetric", D^(-1/2) A D^(-1/2) of the same scores' symmetric part; "ResGCN", that and the ReLU. For each layer the
mean token cosine, d_M/‖H‖, and the distance over ‖H‖ to the graph convolution's own subspace, span(D^(1/2) 1), of the
head to which it is least.

Hardware and time: 2 shared cores of an Intel Xeon; the seconds of every entry are in convolution_parts.json. Expect,
which was not known when the rules were written: with ResGCN the last layer's cosine is .09 to .23 lower in every model,
and tokens are nearer to the own subspace in the two smallest ones only.

Verdict rules, written before the run:
- "attention is the graph convolution that the analogy makes it": yes if in every model the last layer's mean cosine
  with ResGCN in attention's place is within .05 of its own; no if in every model it is off by more; else in part.
- "a graph convolution's tokens go to its own subspace": yes if in every model under ResGCN the last layer is nearer to
  span(D^(1/2) 1) than to equal tokens by two standard errors (paired over texts); no if it is farther in every model;
  else in part.

Writes results/paper/convolution.json, .md and .png.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax import Array

from jaxsmooth import Batch, BlockTrace, Edits, Encoder, embed, encode, metrics
from jaxsmooth.linalg.norms import norm
from jaxsmooth.mitigations import remedies
from jaxsmooth.theory import shi2022_affinity, span_distance, symmetric_basis

from .. import keeping
from ..drawing import canvas, layer_axis, remark, save, title
from . import observed

COLOURS = {"attention": "#0072B2", "symmetric": "#009E73", "ResGCN": "#D55E00"}
FORMS = {"attention": None, "symmetric": remedies.resgcn(relu=False), "ResGCN": remedies.resgcn()}
MEASURES = {"cosine": "mean token cosine", "equal": "d_M/‖H‖", "own": "distance to span(D^½ 1) over ‖H‖"}


@dataclasses.dataclass(frozen=True)
class Args(observed.Args):
    """What to look at."""

    corpora: tuple[str, ...] = ("movie-reviews",)
    """Text assets; of antiberty always its own sequences."""
    limit: int = 20
    """Texts of each corpus."""


def own_subspaces(logits: Array, mask: Array) -> Array:
    """D^(1/2) 1 of every head's graph, [N B T 1]: D the degrees of the scores' symmetric part."""
    over_heads = jax.vmap(jax.vmap(shi2022_affinity, in_axes=(0, None)))
    degrees = over_heads(logits, mask).sum(axis=-1)
    return symmetric_basis(jnp.moveaxis(degrees, 1, 0), jnp.broadcast_to(mask, (logits.shape[1], *mask.shape)))


@functools.partial(jax.jit, static_argnums=0)
def measures(form: str, model: Encoder, batch: Batch) -> dict[str, Array]:
    """The cosine, [L+1 B], and both distances over the size, [L B], with a form in attention's place."""
    mask, remedy = batch.mask, FORMS[form]
    edits = remedy(model, batch) if remedy else Edits()

    def collect(trace: BlockTrace) -> dict[str, Array]:
        bases = own_subspaces(trace.attn_logits, mask)
        distances = jax.vmap(span_distance, in_axes=(None, 0, None))(trace.hidden, bases, mask)
        size = norm(jnp.where(mask[..., None], trace.hidden, 0), (-2, -1))
        return {
            "cosine": metrics.token_cosine_similarity(trace.hidden, mask),
            "equal": metrics.relative_distance(trace.hidden, mask),
            "own": distances.min(axis=0) / size,
        }

    found = encode(model, batch, edits=edits, collect=collect)[1]
    first = metrics.token_cosine_similarity(embed(model, batch), mask)
    return found | {"cosine": jnp.concatenate([first[None], found["cosine"]])}


def observe(args: Args) -> dict[str, dict[str, Any]]:
    """Case -> model, form and `measures` text by text; what the file lacks is measured."""

    def work(model: str, form: str, corpus: str) -> dict[str, Any]:
        encoder, tokenizer = observed.loaded(model)
        texts = observed.texts_of(corpus, args.limit)
        found = observed.by_text(tokenizer, texts, functools.partial(measures, form, encoder))
        return {"model": model, "form": form} | {name: keeping.rounded(values) for name, values in found.items()}

    cases = [(m, f, c) for m in args.models for c in observed.corpora_of(args, m) for f in FORMS]
    wanted = {f"{observed.label(m)}, {f}, {args.limit} of {c}": functools.partial(work, m, f, c) for m, f, c in cases}
    return keeping.kept(args.out / "convolution_parts.json", wanted, doing="convolving")


def summary(one: dict[str, Any]) -> dict[str, Any]:
    """Of one case: means over texts by layer, and at the last layer the distance to M less the one to its own."""
    values = {name: keeping.numbers(one[name]) for name in MEASURES}
    nearer, error = keeping.mean_and_error(values["equal"][-1] - values["own"][-1])
    found: dict[str, Any] = {name: keeping.mean_and_error(each)[0].tolist() for name, each in values.items()}
    own = {"model": one["model"], "form": one["form"], "texts": values["cosine"].shape[1]}
    return own | found | {"nearer_to_own": float(nearer), "nearer_error": float(error)}


def lines(cases: dict[str, Any]) -> str:
    rows = [
        [name, str(one["texts"]), *(f"{one[key][-1]:.3f}" for key in MEASURES),
         f"{one['nearer_to_own']:+.4f} ± {one['nearer_error']:.4f}"]
        for name, one in cases.items()
    ]  # fmt: skip
    head = ["model, form, texts", "texts", *(f"{words}, last layer" for words in MEASURES.values())]
    return keeping.table([*head, "nearer to span(D^½ 1) by"], rows)


def draw(cases: dict[str, Any], path: Path) -> None:
    """A column for every model: the cosine by layer, and under ResGCN the two distances."""
    models = list(dict.fromkeys(one["model"] for one in cases.values()))
    with canvas(3.6 * len(models) + 0.6, 6.4) as figure:
        grid = figure.subplots(2, len(models), squeeze=False, sharey="row")
        for column, model in enumerate(models):
            above, below = grid[:, column]
            own = {one["form"]: one for one in cases.values() if one["model"] == model}
            for form, one in own.items():
                above.plot(one["cosine"], color=COLOURS[form], marker=".", label=form)
            steps = np.arange(1, len(own["ResGCN"]["own"]) + 1)
            for style, key in (("-", "equal"), ("--", "own")):
                below.plot(steps, own["ResGCN"][key], style, color=COLOURS["ResGCN"], label=MEASURES[key])
            for axes in (above, below):
                layer_axis(axes, 0, len(steps))
            above.set(ylim=(-0.05, 1.05), ylabel="mean token cosine" if not column else "")
            below.set(ylabel="share of ‖H‖, under ResGCN" if not column else "")
            title(above, observed.label(model))
        grid[0, 0].legend()
        grid[1, 0].legend()
        remark(figure, "Trained weights; only what stands in attention's place differs. Means over texts.")
        save(figure, path)


def main(args: Args) -> dict[str, Any]:
    cases = {name: summary(one) for name, one in observe(args).items()}
    found = {"args": dataclasses.asdict(args) | {"out": None}, "cases": cases}
    draw(cases, args.out / "convolution.png")
    page = f"""# A graph convolution in attention's place (Shi et al. 2022, section 3)

`python -m experiments.paper.convolution`: means over texts; of the last column its standard error too. "symmetric" is
D^(−½)AD^(−½) of the scores' symmetric part, "ResGCN" that with a ReLU after the sum over heads; weights are the trained
ones of attention. The distance to span(D^½ 1) is that of the head to which it is least.

{lines(cases)}

![](convolution.png)
"""
    keeping.write(args.out, "convolution", found, page)
    print(page)
    return found


if __name__ == "__main__":
    main(tyro.cli(Args))
