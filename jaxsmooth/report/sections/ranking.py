"""Remedies ranked: the rows of the one table of `compare`, its answer, and a sentence on each remedy."""

import math
from collections.abc import Iterator

import numpy as np

from ...results.comparison import Comparison, Measured, PairedEffect
from ..format import digits
from .attribution import PART_NAMES, signed
from .glossary import Column

RANKED = (
    Column("remedy", "remedy"),
    Column("cosine", "cosine"),
    Column("change", "effect"),
    Column("95 % interval", "interval"),
    Column("lower in", "lower-in"),
    Column("p", "p-value"),
    Column("d_M/‖H‖", "relative-distance"),
    Column("output\nmoved", "moved"),
    Column("FLOPs", "flops"),
)
"""The columns of the table; cosine and d_M/‖H‖ are those of the last layer."""

LEAST_IMPORTANT = ("p", "lower in", "FLOPs", "d_M/‖H‖", "95 % interval", "output\nmoved")
"""What is left out where there is no room, in this order."""

LAYERS = "Layer by layer, with rates, bounds and parts: compare.json and compare.png."
UNTRAINED = (
    "No remedy was trained with: this says what each does to the geometry of the states, not to accuracy (compare"
    f" --finetune TASK does). {LAYERS}"
)
SURE = 0.05
"""The level of the sign test; divided by the number of remedies, so that all tests together are wrong so seldom."""


SEEN = 0.01
"""A median change of the cosine from which a remedy is said to keep tokens apart: a hundredth of the way from equal
directions to unrelated ones. However sure, less makes no difference. A convention."""


def order(found: Comparison) -> list[int]:
    """Places of the remedies among the entries, most effective first: by the median change of the last cosine."""
    places = range(1, len(found.entries))
    return sorted(places, key=lambda place: _key(found.entries[place]))


def _key(entry: Measured) -> tuple[bool, float]:
    effect = entry.effects.get("cosine_similarity")
    unknown = effect is None or math.isnan(effect.median)
    return unknown, 0.0 if effect is None or unknown else effect.median


def ranked_rows(found: Comparison) -> list[tuple[str, ...]]:
    """The cells of the table, remedies in order, the model as it is last."""
    return [_row(found.entries[place]) for place in (*order(found), 0)]


def _row(entry: Measured) -> tuple[str, ...]:
    effect, cost = entry.effects.get("cosine_similarity"), entry.cost
    cells = ("", "", "", "")
    if effect is not None:
        chance = f"{effect.p_value:.1g}"
        cells = (signed(effect.median), _interval(effect), f"{effect.lower} of {effect.texts}", chance)
    return (
        entry.label,
        digits(_last(entry, "cosine_similarity")),
        *cells,
        digits(_last(entry, "relative_distance")),
        digits(float(entry.change.mean[0])),
        "" if cost is None else f"{'' if cost.counted else '≥ '}{digits(cost.flops)} ×",
    )


def _last(entry: Measured, field: str) -> float:
    return float(getattr(entry, field).mean[-1])


def _interval(effect: PairedEffect) -> str:
    return f"{_end(effect.at_least)} to {_end(effect.at_most)}"


def _end(value: float) -> str:
    return signed(value) if math.isfinite(value) else ("−∞" if value < 0 else "∞")


def answer(found: Comparison) -> str:
    """Which remedy keeps tokens most apart, and whether that is more than chance, in one or two sentences."""
    none, count = found.entries[0], len(found.entries) - 1
    now = f"the last layer's cosine is {digits(_last(none, 'cosine_similarity'))}"
    clear = [k for k in order(found) if _lowers(found.entries[k], count)]
    if not clear:
        return f"No remedy clearly keeps tokens apart: without one {now}."
    best = found.entries[clear[0]]
    then = digits(_last(best, "cosine_similarity"))
    text = f"{best.label} keeps tokens most apart: {now} without a remedy, {then} with it"
    gentle = min((found.entries[k] for k in clear), key=lambda entry: float(entry.change.mean[0]))
    moved = f"{_percent(best)} of its size"
    if gentle is best:
        return f"{text}; its output moves by {moved}."
    return (
        f"{text}, but its output moves by {moved}. Of those that clearly help, {gentle.label} moves it least"
        f" ({_percent(gentle)}), to {digits(_last(gentle, 'cosine_similarity'))}."
    )


def _clear(entry: Measured, count: int) -> bool:
    """Whether it changes the cosine, more than by chance and more than a little."""
    effect = entry.effects.get("cosine_similarity")
    return effect is not None and effect.p_value < SURE / count and abs(effect.median) >= SEEN


def _lowers(entry: Measured, count: int) -> bool:
    return _clear(entry, count) and entry.effects["cosine_similarity"].median < 0


def _percent(entry: Measured) -> str:
    share = 100 * float(entry.change.mean[0])
    return f"{digits(share)} %"


def sentences(found: Comparison) -> Iterator[str]:
    """One sentence a remedy, the most effective first: what it does, how surely, through which part, at what cost."""
    for place in order(found):
        entry = found.entries[place]
        count = len(found.entries) - 1
        through = _through(found, entry) if _clear(entry, count) else ""
        yield f"{entry.label}: {_does(entry, count)}{through}; {_costs(entry)}.{_beware(entry)}"


def _does(entry: Measured, count: int) -> str:
    effect = entry.effects.get("cosine_similarity")
    if effect is None or not effect.texts:
        return "no text has a cosine to compare"
    which, many = ("lower", effect.lower) if effect.lower >= effect.higher else ("higher", effect.higher)
    seen = f"the cosine is {which} in {many} of {effect.texts} texts (median {signed(effect.median)})"
    if effect.p_value >= SURE / count:
        return f"no clear effect: {seen}, which chance explains"
    if abs(effect.median) < SEEN:
        return f"hardly changes how alike tokens are: {seen}"
    return f"{'keeps tokens apart' if which == 'lower' else 'makes tokens more alike'}: {seen}"


def _through(found: Comparison, entry: Measured) -> str:
    """The part of a block that does most of it: of those that change in the direction of the effect."""
    change = (entry.attribution.mean - found.entries[0].attribution.mean).sum(axis=0)
    apart = -np.sign(entry.effects["cosine_similarity"].median)
    place = int(np.argmax(apart * change))
    if not (np.isfinite(change).all() and apart * change[place] > 0):
        return ""
    part = PART_NAMES.get(found.parts[place], found.parts[place])
    return f", mostly through {part} ({signed(float(change[place]))} in ln(d_M/‖H‖))"


def _costs(entry: Measured) -> str:
    moved = f"moves the output by {_percent(entry)} of its size"
    if entry.cost is None:
        return moved
    cost = entry.cost
    parameters = "no parameters" if not cost.parameters else f"{cost.parameters:+,} parameters"
    flops = f"{'' if cost.counted else 'at least '}{digits(cost.flops)} × the FLOPs"
    return f"{moved}; costs {parameters} and {flops}"


def _beware(entry: Measured) -> str:
    warning = f" It {entry.warning}." if entry.warning else ""
    lost = [rate for rate in ("L4", "L1") if not entry.rates[rate].count.any()]
    which = "that bound has" if len(lost) == 1 else "those bounds have"
    missing = f" It breaks the hypotheses of {' and '.join(lost)}, so {which} no value with it." if lost else ""
    described = f" In full: {entry.description}." if entry.description != entry.label else ""
    return described + warning + missing
