"""The fate of the tokens in plain sentences."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ...results.fate import FATES, MapConvergence, MapFates, StdSweep
from ..format import digits, finite

APPLIED = {
    "attention": "The mean attention of {of}, applied to the tokens again and again",
    "attention-values": "The attention sub-layer of {of} alone, without its residual sum, applied again and again",
    "layer": "{Of} applied again and again",
    "stack": "All {layers} layers, applied again and again",
}
MEANING = {
    "consensus": "all tokens become equal",
    "clusters": "they come to rest in groups of equal tokens",
    "cycle": "they go round in a cycle",
    "moving": "still moving when the steps ended",
    "diverged": "the numbers grow beyond all bounds",
}
SHOWN_TOKENS = 6


def place(found: MapConvergence, one: MapFates | StdSweep) -> str:
    """Which map, in a word or two."""
    return f"layer {one.layer}" if one.layer else f"stack of {found.model.layers}"


def answers(found: MapConvergence) -> Iterator[str]:
    """For each map, where the tokens go, and what the theory says of it."""
    for one in found.maps:
        yield fate_of(found, one)
        yield from _consensus(one)
        yield from _rest(found, one)
        yield from _basin(one)
    for sweep in found.sweeps:
        yield _swept(found, sweep)


def whole_answer(found: MapConvergence) -> str:
    """Where the tokens go, of all maps in one sentence."""
    alike: dict[str, list[str]] = {}
    for one in found.maps:
        counts = [(fate, one.fate.count(fate)) for fate in FATES if fate in one.fate]
        words = ", ".join(f"{fate} in {_counted(count, len(one.fate))}" for fate, count in counts)
        alike.setdefault(words, []).append(place(found, one))
    parts = [f"{words} ({', '.join(places)})" for words, places in alike.items()]
    meant = "; ".join(f"{fate}: {MEANING[fate]}" for fate in FATES if any(fate in one.fate for one in found.maps))
    listed = "; ".join(parts)
    return f"{listed[:1].upper()}{listed[1:]}. {meant[:1].upper()}{meant[1:]}."


def _counted(count: int, total: int) -> str:
    return "every sentence" if count == total else f"{count} of {total} sentences"


def fate_of(found: MapConvergence, one: MapFates) -> str:
    """Where the tokens of a map go, in one sentence."""
    return f"{_applied(found, one)}: {_fates(found, one)}"


def _applied(found: MapConvergence, one: MapFates) -> str:
    of = f"layer {one.layer}"
    words = APPLIED[found.map].format(of=of, Of=of.capitalize(), layers=found.model.layers)
    return words if found.std is None else f"{words} with an imposed std of {digits(found.std)}"


def _fates(found: MapConvergence, one: MapFates) -> str:
    total, parts = len(one.fate), []
    for fate in FATES:
        count = one.fate.count(fate)
        if count:
            taken = one.numbers["steps"][np.array(one.fate) == fate]
            when = f", after {_middle(taken)} steps" if fate in ("consensus", "clusters", "cycle") else ""
            parts.append(f"{count} of {total} sentences: {fate} ({MEANING[fate]}{when})")
    return "; ".join(parts) + f"; at most {found.steps} steps."


def _consensus(one: MapFates) -> Iterator[str]:
    """Next to consensus: watched against the local law."""
    seen, law = one.numbers["consensus_rate"], one.numbers["consensus_radius"]
    at_rest = np.isfinite(seen) & np.isfinite(law) & (one.numbers["row_change"] <= 1e-3)
    if not at_rest.any():
        return
    seen, law = seen[at_rest], law[at_rest]
    stable = law < 1
    attracts = "attracts" if stable.all() else "repels" if not stable.any() else _of(stable, "attracts")
    yield (
        f"  Next to consensus, where its common token is at rest ({len(law)} of {len(one.fate)} sentences), the "
        f"distance changes by {_middle(seen)} per step; the local law says {_middle(law)}, so consensus {attracts} "
        "what is near."
    )


def _of(which: NDArray[np.bool_], word: str) -> str:
    return f"{word} in {int(which.sum())} of {len(which)}"


def _rest(found: MapConvergence, one: MapFates) -> Iterator[str]:
    """States in which tokens stay apart, with one of them in full."""
    still = [k for k, fate in enumerate(one.fate) if fate in ("clusters", "cycle")]
    if still:
        radius = one.numbers["radius"][still]
        ranks = one.numbers["effective_rank"][still]
        yield (
            f"  Where tokens stay apart the effective rank of their differences is {_middle(ranks)}; small deviations "
            f"from there change by {_middle(radius)} per step ({_of(radius < 1, 'it attracts')})."
        )
    apart = still or [k for k, fate in enumerate(one.fate) if fate == "moving" and len(one.clusters[k]) < 4]
    if apart:
        yield f"  For example: {_groups(found, one, apart[0])}."


def _groups(found: MapConvergence, one: MapFates, k: int) -> str:
    tokens = found.tokens[k]
    parts = []
    for group in one.clusters[k][:4]:
        named = " ".join(tokens[t] for t in group[:SHOWN_TOKENS])
        parts.append(f"{len(group)} ({named}{' …' if len(group) > SHOWN_TOKENS else ''})")
    more = len(one.clusters[k]) - len(parts)
    return " | ".join(parts) + (f" | and {more} more groups" if more > 0 else "")


def _basin(one: MapFates) -> Iterator[str]:
    reached, missed = one.numbers["basin_reached"], one.numbers["basin_missed"]
    if np.isnan(reached).all():
        return
    open_ended = int(np.isinf(missed).sum())
    ends = finite(reached[np.isfinite(missed)])
    words = (
        f"  Drawn towards their mean by a factor s, tokens reach consensus up to s = {_middle(ends)}"
        if len(ends)
        else ""
    )
    whole = (
        f"  from as far as was tried, s = {digits(float(reached.max()))}, in {open_ended} of {len(reached)} sentences"
    )
    yield (
        words + (f", and{whole[1:]}" if open_ended else "") if words else f"  Tokens reach consensus{whole[1:]}"
    ) + "."


def _swept(found: MapConvergence, sweep: StdSweep) -> str:
    words = f"Imposed std, {place(found, sweep)}: {_from_std(sweep)}"
    if np.isfinite(sweep.layer_threshold):
        words += (
            "; the theorem's bound of one step, with attention as in the model's own run, is below 1 from "
            f"{digits(sweep.paper_threshold)} on as the paper states it, from "
            f"{digits(sweep.layer_threshold)} on with this model's own constants"
        )
    return words + "."


def _from_std(sweep: StdSweep) -> str:
    """From which of the stds that were tried on all sentences reached consensus."""
    tried = sorted(zip((float(std) for std in sweep.stds), sweep.fate, strict=True), key=lambda pair: pair[0])
    every = [std for std, row in tried if row.count("consensus") == len(row)]
    failed = [std for std, row in tried if row.count("consensus") < len(row)]
    if not every:
        return "no std tried brings all"
    largest = digits(tried[-1][0])
    above = [std for std in every if std > max(failed, default=0.0)]
    if above:
        return f"all sentences reach consensus from a std of {digits(above[0])} on, up to the largest tried, {largest}"
    which = ", ".join(digits(std) for std in every)
    return f"all sentences reach consensus with a std of {which}, but not with the largest tried, {largest}"


def _middle(numbers: NDArray[np.float64]) -> str:
    """Median, with the range where it is more than a number."""
    known = finite(np.asarray(numbers, np.float64))
    if not known.size:
        return "(unknown)"
    low, middle, high = (digits(float(x)) for x in (known.min(), np.median(known), known.max()))
    return middle if low == high else f"{middle} ({low} to {high})"
