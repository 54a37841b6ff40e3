"""The tables and sentences of docs/ that are made of results, each a function of the folder of results.

`experiments.pages` says in which page each stands. Layers and heads are counted from 1.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxsmooth.report.format import layer_runs
from jaxsmooth.theory import clopper_pearson1934_limits

from . import keeping

MODELS = ("minilm-l3", "minilm-l6", "e5-small-q4", "mpnet-base", "antiberty")


def _read(results: Path, name: str) -> dict[str, Any]:
    return json.loads((results / f"{name}.json").read_text(encoding="utf-8"))


def _span(values: Iterable[float], form: str = ".2g") -> str:
    """The least and the largest, as one where they look alike.

    >>> _span([0.5, 0.25])
    '0.25 to 0.5'
    """
    low, high = (format(float(end(list(values))), form) for end in (min, max))
    return low if low == high else f"{low} to {high}"


def _places(layers: Iterable[int]) -> str:
    """Layers in words, runs of three and more by their ends.

    >>> _places([1, 3, 4, 5]), _places([])
    ('1, 3 to 5', 'none')
    """
    return ", ".join(layer_runs(layers)) or "none"


# results/studies.json


def _reviews(results: Path, seed: int) -> dict[str, Any]:
    return _read(results, "studies")[f"minilm-l6, 64 reviews, seed {seed}"]


def texts(results: Path) -> str:
    one = _reviews(results, 1)
    said, count = one["contraction"], one["texts"]
    best = clopper_pearson1934_limits(0, count, 0.95).at_most
    return (
        f"`jaxsmooth diagnose minilm-l6 --data movie-reviews --limit {count} --sample 1`: {said['exceeding']} of the "
        f"{count} reviews\nend farther from consensus (d_M) than the embedding output left them, so with confidence "
        f"0.95 at most\n{100 * said['share_at_most']:.1f} % of such reviews do. For 95 % of them d_M of the last layer "
        f"is at most {said['most_below']:.3f} times that of\nthe embedding output, with the same confidence, and the "
        f"next review's at most {said['next_below']:.3f} times with\nprobability 0.95. With the limits of a share "
        f"{count} reviews can say at best {100 * best:.1f} %: below 1 % takes 299."
    )


def _sinks(one: dict[str, Any]) -> tuple[NDArray, tuple[int, int]]:
    """The heads' sinks, [L N], and the place of the largest."""
    sinks = keeping.numbers(one["sink"])
    layer, head = np.unravel_index(sinks.argmax(), sinks.shape)
    return sinks, (int(layer) + 1, int(head) + 1)


TRENDS = ("cosine_similarity", "contraction", "embedding_similarity")


def _trend(one: dict[str, Any], quantity: str) -> str:
    found = one["lengths"][quantity]
    return f"{found['spearman']:.2f} (p = {found['p_value']:.1g})"


def sinks(results: Path) -> str:
    one, other = _reviews(results, 1), _reviews(results, 0)
    found, (layer, head) = _sinks(one)
    least = int(found.max(axis=1).argmin())
    groups, slope = other["groups"], one["lengths"]["contraction"]["per_doubling"]
    return (
        f"`minilm-l6` on {one['texts']} movie reviews drawn at random (`--sample 1`, {one['tokens'][0]} to "
        f"{one['tokens'][1]} tokens, float32): the\nstrongest key receives more than 0.3 in {(found > 0.3).sum()} of "
        f"{found.size} heads and more than ½ in {(found > 0.5).sum()} (means over the reviews;\nmost "
        f"{found.max():.2f}, layer {layer}, head {head}); the first token, [CLS], receives "
        f"{np.mean(one['first']):.2f}, all heads taken\ntogether; in layer {least + 1} no head exceeds "
        f"{found[least].max():.2f}. Cosine similarity of the last layer has rank correlation\n"
        f"{_trend(one, 'cosine_similarity')} with the length, and d_M(H_L)/d_M(H_0)\n{_trend(one, 'contraction')}, by "
        f"{slope:.2f} for twice as many tokens; what p above 0.01 goes with is called no trend.\nOn {other['texts']} "
        f"others (`--sample 0`, {other['tokens'][0]} to {other['tokens'][1]} tokens) the embeddings have rank "
        f"correlation\n{_trend(other, 'embedding_similarity')}; two of the shortest quarter have a mean cosine of "
        f"{groups[0]['similarity']:.3f}, two of the longest {groups[-1]['similarity']:.3f}."
    )


def sinks_models(results: Path) -> str:
    rows = []
    for name, one in _read(results, "studies").items():
        if "sink" not in one or name.endswith("seed 1"):
            continue
        found, (layer, head) = _sinks(one)
        few = one["texts"] < 10
        trends = ["–" if few else _trend(one, key) for key in TRENDS]
        kind = "sequences" if one["model"] == "antiberty" else "reviews"
        row = [f"`{one['model']}`", f"{one['texts']} {kind}", f"{(found > 0.3).sum()} of {found.size}"]
        row += [
            f"{(found > 0.5).sum()}",
            f"{found.max():.2f}, layer {layer}, head {head}",
            f"{np.mean(one['first']):.2f}",
        ]
        rows.append([*row, *trends, f"{one['processor_seconds']:.0f}"])
    head = ["model", "texts", "heads with s > 0.3", "> ½", "largest s", "the first token receives"]
    head += ["similarity with length", "d_M(H_L)/d_M(H_0) with length", "embeddings with length", "processor s"]
    return keeping.table(head, rows)


def hypotheses(results: Path) -> str:
    one = _read(results, "studies")["hypotheses, 4 reviews"]
    rows = []
    for name, found in one["hypotheses"].items():
        counts = found["counts"]
        cells = [str(counts.get(word, 0)) for word in ("HOLDS", "FAILS", "UNDECIDED")]
        known = found["least"] is not None
        number = f"{found['shown']}: {_span([found['least'], found['largest']], '.3g')}" if known else ""
        rows.append([f"`{name}`", *cells, number])
    head = f"`minilm-l6`, float32, the first {one['texts']} movie reviews, all hypotheses and no theorem: "
    seconds = f"{one['processor_seconds']:.0f} s of processor time on a loaded machine.\n\n"
    return head + seconds + keeping.table(["hypothesis", "holds", "fails", "open", "number"], rows)


def fixed_states(results: Path) -> str:
    states = _read(results, "studies")["hypotheses, 4 reviews"]["states"]
    rows = []
    for state in states:
        counts = state["counts"]
        known = state["least"] is not None
        ends = f"{state['least']:.4g}, {state['largest']:.4g}" if known else "–"
        place = "the stack" if state["layer"] is None else str(state["layer"])
        rows.append([place, ends, *(str(counts.get(word, 0)) for word in ("HOLDS", "FAILS", "UNDECIDED"))])
    return keeping.table(
        ["layer", "ρ(M), least and largest end over the reviews' states", "attracts", "does not", "open"], rows
    )


def updates(results: Path) -> str:
    one = _read(results, "studies")["moved, 16 reviews"]
    counts = [found["counts"] for found in one["theorems"].values()]
    whole, confirmed, undecided = (
        sum(sum(count.get(word, 0) for word in words) for count in counts)
        for words in (("CONFIRMED", "UNDECIDED", "VIOLATED"), ("CONFIRMED",), ("UNDECIDED",))
    )
    attn, mlp, turn = (
        f"{least:.2f} to {most:.2f} times (median {middle:.2f})"
        for least, middle, most in (found["tightness"] for found in one["theorems"].values())
    )
    return (
        f"`verify minilm-l6 --data movie-reviews --limit {one['texts']} --sample 0 --theorem layer_norm_update_attn "
        f"--theorem layer_norm_update_mlp\n--theorem update_turn`: of {whole} statements {confirmed} hold and "
        f"{undecided} are left open ({one['processor_seconds']:.0f} s of processor time). The bound of Theorem 4 is\n"
        f"{attn} what happens behind attention and {mlp}\nbehind the MLP, of which the largest gain accounts for most; "
        f"Theorem 3's, of attention and at the token where it is nearest,\nis {turn} it: in 384 dimensions an update "
        f"is almost at a right angle to the stream."
    )


def measures(results: Path) -> str:
    """Of every measure of the literature its range over a model's layers."""
    found = {one["model"]: one["metrics"] for one in _read(results, "studies").values() if "metrics" in one}
    models = [model for model in MODELS if model in found]
    rows = []
    for name in found[models[0]]:
        values = [keeping.numbers(found[model][name])[1:] for model in models]
        rows.append([f"`{name}`", *(f"{_span(one)}; last {one[-1]:.2g}" for one in values)])
    return keeping.table(["measure", *(f"`{model}`" for model in models)], rows)


def recent(results: Path) -> str:
    """What `verify` says of statements of 2024 to 2026; a bound within its margin of 0 is 0."""
    entries, rows = _read(results, "studies"), []
    for model in MODELS:
        for name, found in entries[f"{model}, recent, 4 texts"]["theorems"].items():
            counts = [str(found["counts"][word]) for word in ("CONFIRMED", "VIOLATED", "UNDECIDED", "NOT_APPLICABLE")]
            ends = found["tightness"]
            loose = "–" if ends is None or ends[0] > 1e8 else " ".join(f"{end:.3g}" for end in ends)
            rows.append([f"`{name}`", f"`{model}`", *counts, loose])
    head = ["statement", "model", "holds", "violated", "open", "not applicable"]
    return keeping.table([*head, "larger over smaller side: least, median, largest"], rows)


# results/speed.json


def separation(results: Path) -> str:
    """F of classes and of texts by layer: at the embedding, where it is largest, at the last layer."""
    rows = []
    every = _read(results, "speed")["separation"]
    for key, found in sorted(every.items(), key=lambda item: MODELS.index(item[0].partition(", ")[0])):
        model, _, source = key.partition(", ")
        kind = {"movie-reviews": "reviews", "reuters-r8": "topics"}[source]
        for name, words in (("separation", "classes"), ("texts", "texts")):
            values = np.asarray(found[name])
            top = int(np.argmax(values))
            cells = [f"{values[0]:.2g}", f"{values[top]:.2g} ({top})", f"{values[-1]:.2g}"]
            rows.append([f"`{model}`, {kind}: {words}", *cells])
    return keeping.table(["", "embedding", "largest (layer)", "last"], rows)


def turned(results: Path) -> str:
    """How far sub-layers turn tokens: medians over tokens, least and largest over layers."""
    rows = []
    for model, found in sorted(_read(results, "speed")["turns"].items(), key=lambda item: MODELS.index(item[0])):
        cells = []
        for part in ("attn", "mlp"):
            used = np.asarray(found[f"{part}_used"])
            cells += [_span(found[f"{part}_turn"]), _span(used), _span(found[f"{part}_small"])]
        rows.append([f"`{model}`", *cells])
    parts = [f"{part}: {what}" for part in ("attention", "MLP") for what in ("turn, °", "of its limit", "s < 1")]
    return keeping.table(["model", *parts], rows)


# results/no_false_verdict.json

KINDS = {
    "sink": "sink, level met to units in the last place",
    "root": "root",
    "half-space": "half-space, planted or exactly vanishing",
    "radius": "spectral radius 1 ± 2⁻ᵏ, k up to 49",
    "rate": "rate and threshold, 1 ± 2⁻ᵏ, k up to 52",
    "state": "fixed state of a block",
    "ladder": "L2b, L3, L4 at 1 ± 10⁻ᵏ, k up to 9, drawn blocks",
    "trained ladder": "the same, trained blocks",
}


def verdicts(results: Path) -> str:
    """A kind whose counts nobody has written down has none."""
    found, rows = _read(results, "no_false_verdict"), []
    for kind, words in KINDS.items():
        if kind not in found:
            rows.append([words, *["–"] * 5])
            continue
        one = found[kind]
        counts = [f"{one[key]:,}" for key in ("cases", "HOLDS", "FAILS", "UNDECIDED")]
        rows.append([words, *counts, f"{one['processor_seconds']:.0f}"])
    return keeping.table(["kind", "cases", "HOLDS", "FAILS", "UNDECIDED", "processor s"], rows)


# results/head_statements.json


def _heads(results: Path, name: str) -> dict[str, NDArray]:
    """Of one model its numbers, [L B N] or [L B]; JSON has no infinity."""
    found = {key: keeping.numbers(value) for key, value in _read(results, "head_statements")[name].items()}
    return {key: np.where(np.isnan(value), np.inf, value) for key, value in found.items()}


def _medians(values: NDArray) -> NDArray:
    """Of every layer the median over heads of means over texts, of [L B N]."""
    return np.median(values.mean(axis=1), axis=1)


def silent_heads(results: Path) -> str:
    rows = []
    for name in MODELS:
        found = _heads(results, name)
        needed = found["needed for silence"]
        possible = (needed > 0) & (needed <= 1)
        asked = [np.median(layer[some]) for layer, some in zip(needed, possible, strict=True) if some.any()]
        share = found["share of the largest value"].mean(axis=1)
        row = [f"`{name}`", str(needed.size), str(int((needed == 0).sum())), f"{100 * possible.mean():.0f} %"]
        row += [
            _span(asked) if asked else "–",
            f"{_span(share.ravel())}; {_span(_medians(found['share of the largest value']))}",
        ]
        row += [_span(_medians(found["output from below"])), _span(_medians(found["switch from below"]))]
        rows.append(row)
    head = ["model", "heads × texts", "0 in the hull", "silence not excluded", "strength asked for there"]
    head += ["output over the largest value: heads; layers", "Theorem 5 promises of it", "Theorem 6 of the distance"]
    return keeping.table(head, rows)


def temperature(results: Path) -> str:
    rows = []
    for name in MODELS:
        found = _heads(results, name)
        beta = found["temperature"].mean(axis=1)
        ratio = np.median(found["squares"].mean(axis=1) / found["squares of normal scores"].mean(axis=1), axis=1)
        layer = int(beta.max(axis=1).argmax()) + 1
        row = [f"`{name}`", _span(np.median(beta, axis=1)), f"{(beta > 2**0.5).sum()} of {beta.size}"]
        above = [k + 1 for k, one in enumerate(ratio) if one > 1.6]
        rows.append([*row, f"{beta.max():.2g}, layer {layer}", _span(ratio), _places(above)])
    head = [
        "model",
        "β, medians of layers",
        "heads above √2",
        "largest β",
        "Σ_j a_j² over that of normal scores, medians of layers",
    ]
    return keeping.table([*head, "layers where it is above 1.6"], rows)


def clusters(results: Path) -> str:
    rows = []
    for name in MODELS:
        found = _heads(results, name)
        cosine, degree = found["smallest cosine"], found["degree"]
        acute = (cosine >= 0).sum(axis=1)
        where = [f"{k + 1} ({count})" for k, count in enumerate(acute) if count]
        leads = (found["lead of the own score"] / found["log n"][:, None]).mean(axis=1) > 1
        lead = [k + 1 for k, one in enumerate(leads.any(axis=1)) if one]
        row = [f"`{name}`", ", ".join(where) or "none", _span([cosine.min(), cosine.max()])]
        row += [_span(_medians(found["sharpness"])), f"{100 * (degree > 1).mean():.1f} %, to {degree.max():.0f}"]
        rows.append([*row, f"{leads.sum()} of {leads.size}", _places(lead)])
    head = ["model", "layers that acute angles enter (of 8 texts)", "smallest cosine", "sharpness, medians of layers"]
    return keeping.table([*head, "degree above 1", "heads whose own score leads by log n", "in layers"], rows)


# results/loops*.json


def _loops(results: Path, name: str) -> dict[str, list[dict[str, NDArray]]]:
    found = _read(results, "loops" if name == "minilm-l6" else f"loops_{name}")
    return {part: [{key: keeping.numbers(v) for key, v in row.items()} for row in rows] for part, rows in found.items()}


def _middles(rows: list[dict[str, NDArray]], key: str) -> list[float]:
    """Of every layer the median over texts."""
    return [float(np.median(row[key])) for row in rows]


def loops(results: Path) -> str:
    rows = []
    for name in MODELS:
        found = _loops(results, name)
        if not found["loops"]:
            continue
        last = [(row["clusters at last"] == 1).sum() for row in found["loops"]]
        texts, stays = len(found["loops"][0]["v"]), _middles(found["loops"], "longest stay in two or more")
        every = [k + 1 for k, count in enumerate(last) if count == texts]
        most = [k + 1 for k, count in enumerate(last) if texts / 2 < count < texts]
        rest = [k + 1 for k, count in enumerate(last) if count <= texts / 2]
        brief = _span([stays[k - 1] for k in every], ".3g") if every else "–"
        long = _span([stays[k - 1] for k in rest], ".3g") if rest else "–"
        centres = _middles(found["states"], "centres")
        row = [f"`{name}`", str(texts), _places(every), _places(most), _places(rest), brief, long]
        rows.append([*row, f"{centres[0]:g} → {centres[-1]:g}"])
    head = [
        "model",
        "texts",
        "one cluster: for all",
        "for most",
        "for half or fewer",
        "longest stay in two or more: in the first",
    ]
    return keeping.table([*head, "in the last", "centres, embedding → last layer"], rows)


RECALL = ("d_M of U", "v", "lower end", "d_M", "upper end")


def recall(results: Path) -> str:
    rows = []
    for k, row in enumerate(_loops(results, "minilm-l6")["loops"]):
        cells = [f"{float(np.median(row[key])):.3g}" for key in RECALL]
        rows.append([str(k + 1), f"{row['at rest'].sum():.0f} of {row['at rest'].size}", *cells])
    return keeping.table(["layer", "at rest", "d_M(U)", "v", "d_M(U)/(1 + v)", "d_M(X)", "d_M(U)/(1 − v)"], rows)


def recall_models(results: Path) -> str:
    rows = []
    for name in MODELS:
        found = _loops(results, name)["loops"]
        if not found:
            continue
        rest, texts = [int(row["at rest"].sum()) for row in found], len(found[0]["v"])
        share = [float(np.median(row["d_M"] / row["upper end"])) for row in found]
        row = [f"`{name}`", str(texts), " ".join(map(str, rest)), _span(_middles(found, "v"))]
        rows.append([*row, f"{100 * min(share):.0f} to {100 * max(share):.0f} %"])
    head = ["model", "texts", "of them at rest, layer by layer", "v, medians of layers"]
    return keeping.table([*head, "d_M(X) of the upper end, medians of layers"], rows)


def ranks(results: Path) -> str:
    rows = []
    for name in MODELS:
        first, *_, last = _loops(results, name)["states"]
        row = [f"`{name}`", str(len(first["centres"]))]
        for key in ("d_M / norm", "numerical rank", "effective rank"):
            row.append(" → ".join(f"{float(np.median(state[key])):.3g}" for state in (first, last)))
        promised = (1 / (1 - float(np.median(state["d_M / norm"])) ** 2) for state in (first, last))
        rows.append([*row, " → ".join(f"{one:.3g}" for one in promised)])
    head = ["model", "texts", "d", "r", "erank", "Theorem 1's limit of r at that d"]
    return keeping.table(head, rows)
