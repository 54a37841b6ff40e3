"""The rules of claims.py as functions: each reads the JSON of an experiment, and says a word and its numbers."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from .observed import label

REPRODUCED, NOT_REPRODUCED, CONTRADICTED = "reproduced", "not reproduced", "contradicted"
NOT_TESTABLE, NOT_RUN = "not testable here", "not run yet"
UPHELD, REJECTED, MIXED = "yes", "no", "in part"
"""Verdicts on objections, which are questions."""


class Verdict(NamedTuple):
    """What is said of a claim, and the numbers that it rests on."""

    word: str
    measured: str


def _trained(found: Mapping[str, Any], least_layers: int = 0) -> dict[str, list[Mapping[str, Any]]]:
    """Label of every trained model -> its cases, one a corpus."""
    models: dict[str, list[Mapping[str, Any]]] = {}
    for name, one in found["cases"].items():
        count = len(one["mean"]) - 1 if "mean" in one else len(one["similarity"]["mean"]) + 1
        if one["weights"] == "trained" and count >= least_layers:
            models.setdefault(name.split(", ")[0], []).append(one)
    return models


def _by(good: bool, bad: bool) -> str:
    return REPRODUCED if good else CONTRADICTED if bad else NOT_REPRODUCED


def rising(found: Mapping[str, Any]) -> Verdict:
    """Figure 1a: similarity rises with depth, in every trained model and corpus."""
    cases = [one for each in _trained(found).values() for one in each]
    up = sum(one["rank_correlation"] >= 0.9 and one["rise"] > 2 * one["rise_error"] for one in cases)
    down = sum(one["rise"] < -2 * one["rise_error"] for one in cases)
    return Verdict(_by(up == len(cases), 2 * down > len(cases)), f"{up} of {len(cases)} cases rise, {down} fall")


def high(found: Mapping[str, Any]) -> Verdict:
    """Figure 1a: the last layer's similarity is at least .8 in every trained model."""
    means = {model: float(np.mean([one["mean"][-1] for one in each])) for model, each in _trained(found).items()}
    word = _by(min(means.values()) >= 0.8, max(means.values()) < 0.5)
    return Verdict(word, "; ".join(f"{model} {value:.2f}" for model, value in means.items()))


def alike(found: Mapping[str, Any]) -> Verdict:
    """Figure 3: in the upper half attention is alike, at least .8, in every model of six layers or more."""
    models = _trained(found, 6)
    means = {m: float(np.mean([one["similarity"]["upper"] for one in each])) for m, each in models.items()}
    word = _by(min(means.values()) >= 0.8, max(means.values()) < 0.5)
    return Verdict(word, "; ".join(f"{model} {value:.2f}" for model, value in means.items()))


def growing(found: Mapping[str, Any]) -> Verdict:
    """Figure 3: the upper half's pairs are more alike than the lower half's."""
    steps = [one["similarity"]["upper_less_lower"] for each in _trained(found, 6).values() for one in each]
    up, down = sum(a > 2 * e for a, e in steps), sum(a < -2 * e for a, e in steps)
    return Verdict(_by(up == len(steps), 2 * down > len(steps)), f"{up} of {len(steps)} cases grow, {down} fall")


def takes_training(found: Mapping[str, Any]) -> Verdict:
    """An objection to figure 3: is attention more alike after training than at random weights?"""
    random = {(one["model"], one["corpus"]): one for one in found["cases"].values() if one["weights"] == "random"}
    above = below = total = 0
    for one in (one for each in _trained(found, 6).values() for one in each):
        (mean, error), (other, own) = one["similarity"]["all"], random[one["model"], one["corpus"]]["similarity"]["all"]
        reach = 2 * float(np.hypot(error, own))
        total, above, below = total + 1, above + (mean - other > reach), below + (mean - other < -reach)
    word = UPHELD if above == total else REJECTED if 2 * below > total else MIXED
    return Verdict(word, f"trained above random in {above} of {total} cases, below in {below}")


# Theorem 2 and the LayerNorm's std


def std_caused(found: Mapping[str, Any]) -> Verdict:
    """A larger std makes the last layer smoother, when it is imposed."""
    pairs = [(one[f"{kind}_distance"], one[f"{kind}_cosine"]) for one in found["caused"].values()
             for kind in ("imposed", "factor")]  # fmt: skip
    good, bad = (sum(s * d <= -0.9 and s * c >= 0.9 for d, c in pairs) for s in (1, -1))
    shown = ", ".join(f"{distance:.2f} / {cosine:.2f}" for distance, cosine in pairs)
    return Verdict(_by(good == len(pairs), bad == len(pairs)), f"rank correlations with d_M/‖H‖ / cosine: {shown}")


def std_observed(found: Mapping[str, Any]) -> Verdict:
    """Texts with a larger sigma1 sigma2 are smoothed more, in two thirds of the layers."""
    counts = found["tally"]
    good, bad = (3 * counts[name] >= 2 * counts["layers"] for name in ("as_claimed", "opposite"))
    shown = f"of {counts['layers']} layers {counts['as_claimed']} as claimed, {counts['opposite']} opposite"
    return Verdict(_by(good, bad), shown)


def converges(found: Mapping[str, Any]) -> Verdict:
    """If v < 1 in every layer, tokens converge: asks whether the hypothesis ever holds."""
    own = {model: one["own"] for model, one in found["caused"].items()}
    shown = "least v " + ", ".join(f"{one['least_v']:,.0f} ({label(model)})" for model, one in own.items())
    if all(one["share_v_below_1"] == 0 for one in own.values()):
        return Verdict(NOT_TESTABLE, f"the hypothesis never holds: {shown}")
    return Verdict(NOT_REPRODUCED, f"v < 1 somewhere; no rule was written for that: {shown}")


def although(found: Mapping[str, Any]) -> Verdict:
    """Over-smoothing may exist although v >= 1: a model with v >= 1 everywhere and a last cosine of at least .8."""
    own = {model: one["own"] for model, one in found["caused"].items()}
    there = {model: one["cosine"] for model, one in own.items() if one["least_v"] >= 1}
    shown = ", ".join(f"{label(model)} {cosine:.2f}" for model, cosine in there.items())
    return Verdict(_by(any(c >= 0.8 for c in there.values()), False), f"last layer's cosine where v ≥ 1: {shown}")


def bound_holds(found: Mapping[str, Any]) -> Verdict:
    """d_M(H') <= v d_M(H), with gains and slope restored (L0), and the sharper rungs."""
    own = [one["rows"]["own"] for one in found["rows"].values()]
    broken, all_ = sum(one["broken"] for one in own), sum(one["comparisons"] for one in own)
    loose = ", ".join(f"{one['L0'] / one['actual']:,.0f}" for one in own)
    return Verdict(_by(broken == 0, broken > 0), f"{broken} of {all_} comparisons broken; L0 / actual rate: {loose}")


def printed_lemma(found: Mapping[str, Any]) -> Verdict:
    """Lemma 1's last item as printed, with e unnormalised."""
    counts = [one["lemma"] for one in found["rows"].values()]
    heads, printed, mended = (sum(c[k] for c in counts) for k in ("heads", "printed_broken", "normalised_broken"))
    shown = f"{printed} of {heads} attention matrices break it as printed, {mended} with e of norm 1"
    return Verdict(_by(printed == 0, printed > 0), shown)


# What the other experiments of this folder train


def _module(name: str) -> Any:
    """A module of this folder, imported only where its results are there."""
    return importlib.import_module(f".{name}", __package__)


def _rows(rows: list[list[str]], start: str) -> Verdict:
    """The verdict of a row (claim, seeds, difference, p, effect, verdict) whose claim starts so."""
    row = next((row for row in rows if row[0].startswith(start)), None)
    if row is None:
        return Verdict(NOT_RUN, "–")
    if int(row[1]) < 3:
        return Verdict(NOT_RUN, f"{row[2]} points; {row[1]} seeds decide nothing")
    word = row[-1] if row[-1] in (REPRODUCED, CONTRADICTED) else NOT_REPRODUCED
    return Verdict(word, f"{row[2]} points, {row[1]} seeds" + (" (not decided)" if word == NOT_REPRODUCED else ""))


def _tested(found: Mapping[str, Any]) -> Any:
    """Scores of a grid whose learning rates the validation split has chosen."""
    return _module("reading").Scores(found["entries"], splits=_module("settings").COUNTED)


def fused_better(variant: str, model: str = "all but the shared") -> Callable[[Mapping[str, Any]], Verdict]:
    """Tables 2 and 3: a fusion is better than none, averaged over tasks."""

    def verdict(found: Mapping[str, Any]) -> Verdict:
        tables, scores = _module("tables_2_3"), _tested(found)
        models = list(dict.fromkeys(entry["model"] for entry in found["entries"].values()))
        return _rows(tables.claims(scores, models), f"{model}: {variant} is better than none")

    return verdict


def shared_attention(start: str) -> Callable[[Mapping[str, Any]], Verdict]:
    """Table 1: a row of its claims."""

    def verdict(found: Mapping[str, Any]) -> Verdict:
        table, scores = _module("table_1"), _tested(found)
        return _rows(table.claims(scores, scores.have(table.CHOSEN, table.MODEL)), start)

    return verdict


def deeper(found: Mapping[str, Any]) -> Verdict:
    """Figure 1c: gates are better than none in deep encoders."""
    return _rows(_module("figure_1c").claims(_tested(found)), "gate is better than none at 12 layers and more")


def over_thinking(found: Mapping[str, Any]) -> Verdict:
    """Figure 1b: an earlier layer's output is better than the last, on most of the tasks that have enough seeds."""
    figure, scores = _module("figure_1b"), _tested(found)
    by_task = {task: figure.exits(scores, task, False) for task in scores.have(figure.CHOSEN, figure.MODEL)}
    enough = [task for task, exits in by_task.items() if any(one.count >= 3 for one, _, _ in exits.values())]
    if not enough:
        return Verdict(NOT_RUN, "–")
    said = {task: figure.over_thinking(by_task[task]) for task in enough}
    good, bad = (sum(word.startswith(kind) for word in said.values()) for kind in (REPRODUCED, CONTRADICTED))
    shown = "; ".join(f"{task}: {word}" for task, word in said.items())
    return Verdict(_by(2 * good > len(said), 2 * bad > len(said)), shown)


def gates_undo(start: str) -> Callable[[Mapping[str, Any]], Verdict]:
    """Figures 5 and 6: a row of their claims, of minilm-l6."""

    def verdict(found: Mapping[str, Any]) -> Verdict:
        model = "minilm-l6" if "minilm-l6" in found["models"] else next(iter(found["models"]))
        return _rows(_module("figure_5_6").claims(found["models"][model], model), f"{model}: {start}")

    return verdict


# Objections


def tells_apart(found: Mapping[str, Any]) -> Verdict:
    """Is similarity .9 still enough to tell tokens apart?"""
    kept = {}
    for model, both in found["probe"].items():
        rows = both["id"]["smoothed"]
        at = min(rows[1:], key=lambda row: abs(np.log(row["gap"] / 0.1)))
        kept[model] = at["float32"][0] / rows[0]["float32"][0]
    least, most = min(kept.values()), max(kept.values())
    word = UPHELD if least >= 0.9 else REJECTED if most < 0.5 else MIXED
    shown = ", ".join(f"{value:.0%} ({label(model)})" for model, value in kept.items())
    return Verdict(word, f"of the probe's accuracy on the last layer {shown} is left at cosine .9")


def specific(found: Mapping[str, Any]) -> Verdict:
    """Is anything in the theorem specific to attention?"""
    every = [one["rows"] for one in found["rows"].values()]
    other = [row for rows in every for kind, row in rows.items() if kind != "own"]
    broken = sum(row["broken"] for row in other)
    ratios = [rows["random"]["v"] / rows["own"]["v"] for rows in every]
    word = UPHELD if broken else REJECTED if all(0.5 <= ratio <= 2 for ratio in ratios) else MIXED
    shown = f"v with random rows over v: {', '.join(f'{r:.2f}' for r in ratios)}; bounds broken: {broken}"
    return Verdict(word, shown)


def same_smoothing(found: Mapping[str, Any]) -> Verdict:
    """Is the theorem's smoothing the cosine's?"""
    values = {model: one["correlation"] for model, one in found["bridge"].items()}
    word = UPHELD if max(values.values()) <= -0.95 else REJECTED if min(values.values()) > -0.5 else MIXED
    agree = [one["agree"] for one in found["bridge"].values()]
    shown = ", ".join(f"{label(model)} {value:.3f}" for model, value in values.items())
    return Verdict(
        word, f"cosine with d_M/‖H‖: {shown}; d_M falls iff the cosine rises: {min(agree):.0%} to {max(agree):.0%}"
    )


def skip_does_as_much(found: Mapping[str, Any]) -> Verdict:
    """Would a gate to one earlier layer do as much as a gate over all?"""
    verdicts = _module("verdicts")
    parts = {skip: verdicts.paired(values) for skip, values in found["less_gate"].items()}
    if not all(one.decides for one in parts.values()):
        return Verdict(NOT_RUN, "–")
    shown = "; ".join(f"{skip} less gate {verdicts.written(one)}" for skip, one in parts.items())
    near = all(max(-one.low, one.high) < -verdicts.MARGIN for one in parts.values())
    below = all(one.high < 0 for one in parts.values())
    return Verdict(UPHELD if near else REJECTED if below else MIXED, f"{shown} points")


def less_alike_is_better(found: Mapping[str, Any]) -> Verdict:
    """Is the gain of a fusion explained by how much less alike the tokens of its output are?"""
    verdicts = _module("verdicts")
    one = verdicts.paired(found["correlations"])
    if not one.decides:
        return Verdict(NOT_RUN, "–")
    word = UPHELD if one.low > 0.5 else REJECTED if one.high < 0.5 else MIXED
    return Verdict(word, f"rank correlation {verdicts.written(one, scale=1.0)}, {len(found['cases'])} cases")


def is_convolution(found: Mapping[str, Any]) -> Verdict:
    """Does a BERT smooth as it does with ResGCN in attention's place?"""
    lasts: dict[str, dict[str, float]] = {}
    for one in found["cases"].values():
        lasts.setdefault(label(one["model"]), {})[one["form"]] = one["cosine"][-1]
    near = [abs(one["ResGCN"] - one["attention"]) <= 0.05 for one in lasts.values()]
    word = UPHELD if all(near) else MIXED if any(near) else REJECTED
    shown = ", ".join(f"{model} {one['attention']:.2f} and {one['ResGCN']:.2f}" for model, one in lasts.items())
    return Verdict(word, f"last layer's cosine with attention and with ResGCN: {shown}")


def own_subspace(found: Mapping[str, Any]) -> Verdict:
    """Under ResGCN, are tokens nearer to span(D^(1/2) 1) than to equal ones?"""
    cases = [one for one in found["cases"].values() if one["form"] == "ResGCN"]
    nearer = [one["nearer_to_own"] > 2 * one["nearer_error"] for one in cases]
    farther = [one["nearer_to_own"] < 0 for one in cases]
    shown = ", ".join(f"{label(one['model'])} {one['equal'][-1]:.3f} and {one['own'][-1]:.3f}" for one in cases)
    word = UPHELD if all(nearer) else REJECTED if all(farther) else MIXED
    return Verdict(word, f"to equal tokens and to its own, over ‖H‖: {shown}")


# Neighbours


def projection_grows(found: Mapping[str, Any]) -> Verdict:
    """Li and Altafini: the projection on the principal direction grows with depth."""
    counts = found["tally"]
    word = _by(counts["grow"] == counts["cases"], 2 * counts["fall"] > counts["cases"])
    return Verdict(word, f"grows in {counts['grow']} of {counts['cases']} cases, falls in {counts['fall']}")


def most_when_shared(found: Mapping[str, Any]) -> Verdict:
    """Li and Altafini: it grows most with shared weights."""
    counts = found["tally"]
    share = counts["above_own_last"] / max(counts["repeated"], 1)
    shown = f"{counts['above_own_last']} of {counts['repeated']} repeated blocks end above the model's own last layer"
    return Verdict(_by(share > 0.5, share < 0.25), shown)


def steers(found: Mapping[str, Any]) -> Verdict:
    """Li and Altafini: setting the dominant direction steers tokens there."""
    ends = np.array(found["steer"]["alignment"])[:, :, -1].mean(axis=1)
    word = _by(bool(np.all(np.diff(ends) > 0) and ends[-1] > 0.7), bool(ends[-1] <= ends[0]))
    return Verdict(word, "mean |cos| by μ: " + ", ".join(f"{end:.2f}" for end in ends))


def softdecay_better(found: Mapping[str, Any]) -> Verdict:
    """SoftDecay: better sentence similarity without training."""
    counts = found["tally"]
    good = 2 * counts["better"] >= counts["cases"] and counts["worse"] == 0
    shown = f"better in {counts['better']}, worse in {counts['worse']} of {counts['cases']} cases"
    return Verdict(_by(good, 2 * counts["worse"] > counts["cases"]), shown)


def not_testable(why: str) -> Callable[[Mapping[str, Any]], Verdict]:
    return lambda found: Verdict(NOT_TESTABLE, why)
