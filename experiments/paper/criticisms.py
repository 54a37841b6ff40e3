"""What readers objected to Shi et al. (2022), answered by measurements: three questions.

    python -m experiments.paper.criticisms

(a) "Is similarity above 0.9 still enough for a network to tell tokens apart?" A linear probe (least squares on one-hot
    targets, fitted on half of 400 film reviews, scored on the others) names the token's id, among the 40 most
    frequent, or its position, among 16, from a hidden state: from every layer as it is, and from the last layer
    smoothed further, x -> mean + s (x - mean) in every text, s chosen for a given mean cosine; in float32 and in
    float64. Rule: "enough"
    if at a mean cosine of .9 the probe of ids keeps at least 90% of the accuracy that it has on the states as they
    are, for every model; "not enough" if it keeps less than half in every one; else undecided.
(b) "Is anything in the theorem specific to attention?" In every layer and head attention's rows are replaced: by
    random rows (Dirichlet(1) over the real tokens), by one random token a row, by the uniform row, by the model's own
    with the keys permuted. Rule: "nothing" if no replaced matrix breaks any bound of the ladder (to 1e-3) and the
    median v with random rows is within a factor 2 of the model's own; "something" if a bound breaks; else undecided.
    With it, Lemma 1's last item as printed, d_M(AH) <= sqrt(lambda) d_M(H) with lambda the largest eigenvalue of A'(I
    - ee')A: e unnormalised as defined in the paper, and e / sqrt n.
(c) "Is the theorem's smoothing the cosine's?" For n rows of one norm d_M/‖H‖ = sqrt((1 - c)(n - 1)/n) exactly, c the
    mean cosine. Measured: how far the states of every layer and text are from that, and the rank correlation over
    layers and texts. Rule: "the same" if for every trained model the correlation of cosine and d_M/‖H‖ is at most
    -.95; "another" if above -.5 in every one; else "mostly". The theorem bounds d_M itself, not d_M/‖H‖: also how
    often d_M falls where the cosine rises.

Models: minilm-l6 and e5-small-q4 (4-bit); (c) all of observed.json. Hardware and time: 2 shared cores of an Intel
Xeon, about 4 minutes of processor time. Expect: (a) the accuracy falls as the text's mean token drowns the rest, to
chance at a cosine of .99 to .999, in both precisions alike (before the run no loss was expected until rounding eats the
differences); (b) no bound breaks; (c) the same up to the norms' differences, but d_M itself falls and the cosine rises
in different layers.

Writes results/paper/criticisms.json, .md and .png.
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
from jax.tree_util import Partial
from numpy.typing import NDArray

import jaxsmooth
from jaxsmooth import Batch, BlockTrace, Edits, Encoder, Tokenizer

from .. import keeping
from ..drawing import canvas, remark, save, title
from . import bounds, observed

PROBED = ("minilm-l6", "e5-small-q4")
GAPS = (None, 3e-1, 1e-1, 1e-2, 1e-3, 1e-5, 1e-7, 1e-9, 1e-11)
"""1 - mean cosine that the last layer is smoothed to; None for as it is."""
PRECISIONS = ("float32", "float64")
FREQUENT, POSITIONS = 40, 16
ROWS = ("own", "random", "one token", "uniform", "permuted")


@dataclasses.dataclass(frozen=True)
class Args(observed.Args):
    """What to look at."""

    probed: tuple[str, ...] = PROBED
    """Models of (a) and (b)."""
    probe_texts: int = 400
    """Film reviews of (a)."""
    rows_texts: int = 16
    """Film reviews of (b)."""


# (a) The probe


def least_squares_probe(x: NDArray, y: NDArray, test: NDArray, classes: int) -> NDArray:
    """Predicted classes of test rows by a linear map with a constant, fitted to one-hot targets in x's own precision.

    Args:
      x: states, [n D].
      y: their classes, [n].
      test: other states, [m D].
      classes: how many there are.

    Returns:
      [m].
    """
    centre = x.mean(axis=0)
    design, other = (np.concatenate([side - centre, np.ones((len(side), 1), x.dtype)], axis=1) for side in (x, test))
    kernel = np.linalg.lstsq(design, np.eye(classes, dtype=x.dtype)[y], rcond=None)[0]
    return np.argmax(other @ kernel, axis=1)


def smoothed(states: NDArray, text: NDArray, gap: float | None) -> NDArray:
    """Every text's rows drawn to their mean by one factor s, so that 1 - mean cosine is `gap`, in float64.

    Args:
      states: rows of all texts, [n D].
      text: the text of each row, [n], ascending.
      gap: wanted mean over texts of 1 - cosine, below what it is; None leaves the rows alone.
    """
    wide = states.astype(np.float64)
    if gap is None:
        return wide
    mean, _ = text_means(wide, text)
    scale = 1.0
    for _ in range(30):  # the gap goes like s^2 next to equal tokens
        reached = mean_gap(mean + scale * (wide - mean), text)
        if abs(reached / gap - 1) < 1e-4:
            break
        scale *= np.sqrt(gap / reached)
    return mean + scale * (wide - mean)


def text_means(rows: NDArray, text: NDArray) -> tuple[NDArray, NDArray]:
    """The mean row of its text for every row, [n D], and every text's number of rows; texts ascend."""
    starts = np.flatnonzero(np.diff(text, prepend=-1))
    counts = np.diff(starts, append=len(text))
    return np.repeat(np.add.reduceat(rows, starts, axis=0) / counts[:, None], counts, axis=0), counts


def mean_gap(states: NDArray, text: NDArray) -> float:
    """1 - mean cosine of a text's distinct rows, mean over texts of two rows or more; keeps its digits near 0."""
    unit = states / np.linalg.norm(states, axis=1, keepdims=True)
    mean, counts = text_means(unit, text)
    spread = np.add.reduceat(((unit - mean) ** 2).sum(axis=1), np.cumsum(counts) - counts)
    return float(np.mean((spread / np.maximum(counts - 1, 1))[counts > 1]))


def token_states(model: str, count: int) -> dict[str, NDArray]:
    """Hidden states of all real tokens of film reviews, [L+1 n D], with text, position and id of each, [n]."""
    encoder, tokenizer = observed.loaded(model)
    texts = observed.texts_of("movie-reviews", count)
    parts: dict[str, list[NDArray]] = {"states": [], "text": [], "position": [], "id": []}
    for encoded in tokenizer.batches(texts, tokens_per_batch=1024):
        rows = len(encoded.indices)
        batch = encoded.batch
        first, rest = jaxsmooth.embed(encoder, batch), jaxsmooth.encode(encoder, batch, collect=_hidden)[1]
        mask = np.asarray(batch.mask)[:rows]
        where, position = np.nonzero(mask)
        parts["states"].append(np.concatenate([np.asarray(first)[None], np.asarray(rest)])[:, where, position])
        parts["text"].append(encoded.indices[where])
        parts["position"].append(position)
        parts["id"].append(np.asarray(batch.tokens)[where, position])
    joined = {name: np.concatenate(part, axis=1 if name == "states" else 0) for name, part in parts.items()}
    order = np.argsort(joined["text"], kind="stable")
    return {name: value[:, order] if name == "states" else value[order] for name, value in joined.items()}


def _hidden(trace: BlockTrace) -> Array:
    return trace.hidden


def labels(found: dict[str, NDArray], what: str, special: frozenset[int]) -> NDArray:
    """The class of every token, -1 for those that are not asked about, [n].

    Of "id" the most frequent ids of the texts that the probe is fitted on; ids that stand in every text (special
    tokens, a prefix) are not asked about. Of "position" the first `POSITIONS` after the first token.
    """
    if what == "position":
        position = found["position"]
        return np.where((position >= 1) & (position <= POSITIONS), position - 1, -1)
    ids, fitted = found["id"], found["text"] % 2 == 0
    texts = len(np.unique(found["text"][fitted]))
    known, counts = np.unique(ids[fitted], return_counts=True)
    everywhere = {k for k in known if len(np.unique(found["text"][fitted & (ids == k)])) == texts}
    usable = [k for k in known[np.argsort(-counts, kind="stable")] if k not in special and k not in everywhere]
    table = {k: place for place, k in enumerate(usable[:FREQUENT])}
    return np.array([table.get(k, -1) for k in ids])


def accuracy(states: NDArray, text: NDArray, label: NDArray) -> tuple[float, float, float]:
    """Share of held-out tokens (of odd texts) that the probe names, with its 95% interval over texts."""
    asked, held_out = label >= 0, text % 2 == 1
    fit, test = asked & ~held_out, asked & held_out
    right = least_squares_probe(states[fit], label[fit], states[test], label.max() + 1) == label[test]
    places = np.unique(text[test], return_inverse=True)[1]
    hits, all_ = np.bincount(places, right), np.bincount(places)
    low, high = keeping.bootstrap(lambda k: hits[k].sum(axis=1) / all_[k].sum(axis=1), len(all_))
    return float(right.mean()), float(low), float(high)


def probe(model: str, count: int) -> dict[str, Any]:
    """(a) of one model."""
    found = token_states(model, count)
    special = observed.loaded(model)[1].special_ids
    text, last, result = found["text"], found["states"][-1], {}
    own = mean_gap(last.astype(np.float64), text)
    drawn_in = [smoothed(last, text, gap) for gap in GAPS if gap is None or gap < own]
    cosines = [1 - mean_gap(layer.astype(np.float64), text) for layer in found["states"]]
    for what in ("id", "position"):
        label = labels(found, what, special)
        asked = label >= 0
        most = np.bincount(label[asked & (text % 2 == 0)]).argmax()
        tested = asked & (text % 2 == 1)
        result[what] = {
            "classes": int(label.max()) + 1,
            "tested": int(tested.sum()),
            "chance": float(np.mean(label[tested] == most)),
            "layers": [{"cosine": cosine, "accuracy": accuracy(layer, text, label)}
                       for cosine, layer in zip(cosines, found["states"], strict=True)],
            "smoothed": [],
        }  # fmt: skip
        for states in drawn_in:
            row = {"gap": mean_gap(states, text)}
            for kind in PRECISIONS:
                row[kind] = accuracy(states.astype(kind), text, label)
            result[what]["smoothed"].append(row)
    return result


# (b) Other matrices in attention's place


def rows_edit(kind: str, batch: Batch, seed: int = 0) -> Edits:
    """Attention's rows replaced in every layer and head by what `kind`, one of `ROWS`, says; all are stochastic."""
    return Edits(attn=Partial(_rows, jnp.int32(ROWS.index(kind)), batch.mask, jax.random.key(seed)))


def _rows(kind: Array, mask: Array, key: Array, layer: Array, attn: Array) -> Array:
    return jax.lax.switch(kind, _KINDS, mask, key, layer, attn)  # one program for all kinds


def _own(mask: Array, key: Array, layer: Array, attn: Array) -> Array:
    return attn


def _random(mask: Array, key: Array, layer: Array, attn: Array) -> Array:
    drawn = jax.random.exponential(jax.random.fold_in(key, layer), attn.shape, attn.dtype)
    drawn = jnp.where(mask[:, None, None], drawn, 0)
    return drawn / drawn.sum(axis=-1, keepdims=True)


def _one_token(mask: Array, key: Array, layer: Array, attn: Array) -> Array:
    return jax.nn.one_hot(_random(mask, key, layer, attn).argmax(axis=-1), attn.shape[-1], dtype=attn.dtype)


def _uniform(mask: Array, key: Array, layer: Array, attn: Array) -> Array:
    real = jnp.broadcast_to(mask[:, None, None], attn.shape).astype(attn.dtype)
    return real / real.sum(axis=-1, keepdims=True)


def _permuted(mask: Array, key: Array, layer: Array, attn: Array) -> Array:
    drawn = jax.random.uniform(jax.random.fold_in(key, layer), mask.shape)
    order = jnp.argsort(jnp.where(mask, drawn, 2.0), axis=-1)  # real keys among themselves; padding is on the right
    return jnp.take_along_axis(attn, order[:, None, None], axis=-1)


_KINDS = (_own, _random, _one_token, _uniform, _permuted)
"""In the order of `ROWS`."""


def replaced(model: str, count: int) -> dict[str, Any]:
    """(b) of one model: medians over texts and layers, and how often a bound is below the actual rate."""
    encoder, tokenizer = observed.loaded(model)
    texts = observed.short_reviews(tokenizer, count)
    result: dict[str, Any] = {}
    for kind in ROWS:
        found = bounds.bounds(encoder, tokenizer, texts, functools.partial(rows_edit, kind))
        actual = found["actual"]
        broken = sum(int(np.sum(actual > found[name] * (1 + 1e-3))) for name in bounds.BOUNDS)
        result[kind] = {
            **{name: float(np.median(found[name])) for name in ("actual", "v", *bounds.BOUNDS)},
            "least_v": float(found["v"].min()),
            "cosine": np.mean(found["cosine"], axis=1).tolist(),
            "comparisons": len(bounds.BOUNDS) * actual.size,
            "broken": broken,
        }
    return {"rows": result, "lemma": printed_lemma(encoder, tokenizer, texts[:4])}


def printed_lemma(encoder: Encoder, tokenizer: Tokenizer, texts: list[str]) -> dict[str, int]:
    """Lemma 1's last item, which is about every H, on the model's own attention: as printed, and with e of norm 1."""
    batch = tokenizer(texts)
    attn = np.moveaxis(np.asarray(jaxsmooth.encode(encoder, batch)[1].attn, np.float64), 1, 0)  # [B L N T S]
    counts = {"heads": 0, "printed_broken": 0, "normalised_broken": 0}
    for heads, real in zip(attn, np.asarray(batch.mask), strict=True):
        n = int(real.sum())
        for head in heads[..., :n, :n].reshape(-1, n, n):
            for name, broken in breaks(head).items():
                counts[f"{name}_broken"] += broken
            counts["heads"] += 1
    return counts


def breaks(attn: NDArray) -> dict[str, bool]:
    """Whether d_M(AH) <= sqrt(lambda) d_M(H) fails for the one column H that A stretches most, with either e.

    Args:
      attn: A, [n n], rows of one sum.
    """
    n = len(attn)
    forms = {"printed": np.ones((n, n)), "normalised": np.ones((n, n)) / n}  # e e' of either e
    found = {name: np.linalg.eigh(attn.T @ (np.eye(n) - form) @ attn) for name, form in forms.items()}
    h = found["normalised"].eigenvectors[:, -1]
    after, before = (np.linalg.norm(side - side.mean()) for side in (attn @ h, h))
    largest = {name: max(float(each.eigenvalues[-1]), 0.0) for name, each in found.items()}
    return {name: bool(after > np.sqrt(value) * before * (1 + 1e-6) + 1e-12) for name, value in largest.items()}


# (c) d_M and the cosine


def of_equal_norms(cosine: NDArray, tokens: NDArray) -> NDArray:
    """d_M/‖H‖ of n rows of one norm whose mean pairwise cosine is c: sqrt((1 - c)(n - 1)/n)."""
    return np.sqrt(np.maximum(1 - cosine, 0) * (tokens - 1) / tokens)


def bridge(args: Args) -> dict[str, Any]:
    """(c) of every trained model, over the layers and texts of each corpus; means over corpora, draws over texts."""
    gathered: dict[str, list[dict[str, Any]]] = {}
    for model, weights, _, found in observed.observe(args):
        if weights == "trained":
            gathered.setdefault(model, []).append(_bridge(found))
    result = {}
    for model, parts in gathered.items():
        low, high = keeping.interval(np.mean([part["draws"] for part in parts], axis=0))
        means = {name: float(np.mean([part[name] for part in parts])) for name in parts[0] if name != "draws"}
        result[model] = {**means, "low": float(low), "high": float(high)}
    return result


def _bridge(found: dict[str, NDArray], draws: int = 400) -> dict[str, Any]:
    cosine, distance, tokens = found["cosine"], found["distance"], found["tokens"]
    off = np.abs(of_equal_norms(cosine, tokens) - distance)
    count = len(tokens)
    places = np.random.default_rng(0).integers(0, count, (draws, count))
    drawn = [side[:, places].swapaxes(0, 1).reshape(draws, -1) for side in (cosine, distance)]
    rises, falls = np.diff(cosine, axis=0) > 0, found["rate"] < 1
    return {
        "correlation": float(keeping.rank_correlation(cosine.ravel(), distance.ravel())),
        "draws": keeping.rank_correlation(*drawn),
        "largest_difference": float(off.max()),
        "median_difference": float(np.median(off)),
        "cosine_rises": float(rises.mean()),
        "distance_falls": float(falls.mean()),
        "falls_where_cosine_rises": float((falls & rises).sum() / max(rises.sum(), 1)),
        "agree": float((falls == rises).mean()),
    }


# The page


def draw(found: dict[str, Any], path: Path) -> None:
    with canvas(16.0, 5.2) as figure:
        left, middle, right = figure.subplots(1, 3)
        colours = {"id": "#0072B2", "position": "#D55E00"}
        model = next(reversed(found["probe"]))
        for what, one in found["probe"][model].items():
            gaps = [row["gap"] for row in one["smoothed"]]
            for kind, style in (("float64", "-"), ("float32", "--")):
                values = np.array([row[kind] for row in one["smoothed"]])
                left.plot(gaps, values[:, 0], style, marker=".", color=colours[what], label=f"{what}, {kind}")
                left.fill_between(gaps, values[:, 1], values[:, 2], color=colours[what], alpha=0.15)
            left.axhline(one["chance"], color=colours[what], linestyle=":", linewidth=1.2, label=f"{what}, chance")
        left.set(xscale="log", xlabel="1 − mean token cosine (smoother to the right)", ylabel="held-out accuracy",
                 ylim=(0, 1))  # fmt: skip
        left.invert_xaxis()
        left.legend(fontsize=8.5, loc="center right")
        title(left, f"(a) {observed.label(model)}: probe of the last layer")
        model = next(iter(found["rows"]))
        one = found["rows"][model]["rows"]
        names = ["actual", *bounds.BOUNDS, "v"]
        for place, kind in enumerate(ROWS):
            where = np.arange(len(names)) + 0.16 * (place - 2)
            shade = ("#000000", "#0072B2", "#56B4E9", "#E69F00", "#D55E00")[place]
            middle.bar(where, [one[kind][name] for name in names], width=0.16, color=shade, label=kind)
        middle.set_xticks(range(len(names)), names)
        middle.set(yscale="log", ylabel="median rate per block")
        middle.axhline(1, color="#555555", linewidth=1)
        middle.legend(fontsize=9, loc="upper left")
        title(middle, f"(b) {model}: rows in attention's place")
        for place, each in enumerate(found["bridge"].values()):
            ends = [[each["correlation"] - each["low"]], [each["high"] - each["correlation"]]]
            right.errorbar([place], [each["correlation"]], np.maximum(ends, 0), fmt="o", color="#000000",
                           label="rank correlation of cosine and d_M/‖H‖" if place == 0 else None)  # fmt: skip
            right.bar([place], [each["agree"]], width=0.5, color="#56B4E9", zorder=0,
                      label="share of layers and texts: d_M falls iff cosine up" if place == 0 else None)  # fmt: skip
        right.set_xticks(
            range(len(found["bridge"])),
            [observed.label(name).replace("-", "-\n", 1).replace(" (", "\n(") for name in found["bridge"]],
            fontsize=9,
        )
        right.set(ylim=(-1.05, 1.45))
        right.legend(fontsize=9, loc="upper left")
        title(right, "(c) the theorem's distance and the cosine")
        remark(figure, "Film reviews; (c) six corpora. Bands and bars: 95% bootstrap intervals over texts.")
        save(figure, path)


def probe_table(every: dict[str, Any]) -> str:
    rows = []
    for model, both in every.items():
        for what, one in both.items():
            for place, row in enumerate(one["smoothed"]):
                state = "last layer" if place == 0 else "smoothed"
                cells = [keeping.spelled(*row[kind], form=".3f") for kind in PRECISIONS]
                rows.append([observed.label(model), what, f"{one['chance']:.3f}", state, f"{row['gap']:.2g}", *cells])
    return keeping.table(["model", "asked", "chance", "states", "1 - mean cosine", *PRECISIONS], rows)


def layer_table(every: dict[str, Any]) -> str:
    rows = [
        [observed.label(model), str(k), f"{at['cosine']:.3f}"]
        + [keeping.spelled(*both[what]["layers"][k]["accuracy"], form=".3f") for what in ("id", "position")]
        for model, both in every.items()
        for k, at in enumerate(both["id"]["layers"])
    ]
    return keeping.table(["model", "layer", "mean cosine", "id", "position"], rows)


def rows_table(every: dict[str, Any]) -> str:
    names = ["actual", *bounds.BOUNDS, "v", "least_v"]
    rows = [
        [observed.label(model), kind, *(f"{one[name]:.3g}" for name in names), f"{one['cosine'][-1]:.3f}",
         f"{one['broken']} of {one['comparisons']}"]
        for model, both in every.items() for kind, one in both["rows"].items()
    ]  # fmt: skip
    head = ["model", "rows", *names, "cosine, last layer", "bounds broken"]
    return keeping.table([name.replace("_", " ") for name in head], rows)


def bridge_table(every: dict[str, Any]) -> str:
    shares = ("cosine_rises", "distance_falls", "falls_where_cosine_rises", "agree")
    rows = [
        [observed.label(model), keeping.spelled(one["correlation"], one["low"], one["high"], ".3f"),
         f"{one['median_difference']:.2g}", f"{one['largest_difference']:.2g}",
         *(f"{one[name]:.2f}" for name in shares)]
        for model, one in every.items()
    ]  # fmt: skip
    head = ["model", "rank correlation", "median difference", "largest", "cosine rises", "d_M falls",
            "d_M falls where cosine rises", "agree"]  # fmt: skip
    return keeping.table(head, rows)


def page(found: dict[str, Any]) -> str:
    lemma = "; ".join(
        f"{observed.label(model)}: of {one['lemma']['heads']} matrices {one['lemma']['printed_broken']} break it as "
        f"printed, {one['lemma']['normalised_broken']} with e of norm 1"
        for model, one in found["rows"].items()
    )
    return f"""# Objections, answered by measurements

`python -m experiments.paper.criticisms`. See the head of that file for questions and rules.

## (a) Can tokens be told apart at similarity .9?

Share of held-out tokens that a linear probe names, [95% interval over texts]; "smoothed": x → mean + s (x − mean).

{probe_table(found["probe"])}

Every layer as it is, float32:

{layer_table(found["probe"])}

## (b) Is anything in the theorem specific to attention?

Medians over texts and layers. `v` is the paper's; L0 has gains and the activation's slope besides.

{rows_table(found["rows"])}

Lemma 1, last item: {lemma}.

## (c) Is the theorem's smoothing the cosine's?

Difference: of d_M/‖H‖ from √((1 − c)(n − 1)/n), its value at rows of one norm. Shares of layers and texts.

{bridge_table(found["bridge"])}

![](criticisms.png)
"""


def main(args: Args) -> dict[str, Any]:
    work = {
        f"probe, {m}, {args.probe_texts} reviews": functools.partial(probe, m, args.probe_texts) for m in args.probed
    }
    rows = {
        f"rows, {m}, {args.rows_texts} reviews": functools.partial(replaced, m, args.rows_texts) for m in args.probed
    }
    parts = list(keeping.kept(args.out / "criticisms_parts.json", work | rows, doing="answering").values())
    count = len(args.probed)
    found = {
        "args": dataclasses.asdict(args) | {"out": None},
        "probe": {m: {w: part[w] for w in ("id", "position")} for m, part in zip(args.probed, parts, strict=False)},
        "rows": dict(zip(args.probed, parts[count:], strict=True)),
        "bridge": bridge(args),
    }
    draw(found, args.out / "criticisms.png")
    keeping.write(args.out, "criticisms", found, page(found))
    print(page(found))
    return found


if __name__ == "__main__":
    main(tyro.cli(Args))
