"""The sentences of a headline, from its numbers; every rule is in `jaxsmooth.report.headline`."""

import math
from typing import NamedTuple

import numpy as np

from ..results.diagnosis import Diagnosis
from .findings import NEAR, Findings
from .format import digits, layer_list

SINK_LEVEL = 0.3
"""Mean attention above which a head's strongest key is called a sink: the level of `theory.has_sink`."""

_LEVELS = {
    "strong": "{model} over-smooths strongly",
    "moderate": "{model} over-smooths moderately",
    "little": "{model} hardly over-smooths",
    "undefined": "Whether {model} over-smooths cannot be told from this text",
}


class Verdict(NamedTuple):
    """What the bounds say of the rates, as the headline and as the text says it.

    Attributes:
      headline: follows "and"; `{far}` is how far the tightest bound is above the rates.
      answer: begins the answer to "Does the theory explain it?".
      near: in the place of `headline` where the tightest bound is near the rates: follows "the theory, told this text".
    """

    headline: str
    answer: str
    near: str = ""


VERDICTS = {
    "explains": Verdict("the theory predicts it", "It does", "predicts it"),
    "partial": Verdict("the theory predicts part of it", "In part", "predicts part of it"),
    "hardly": Verdict("the theory hardly predicts it", "Hardly", "hardly predicts it"),
    "vacuous": Verdict(
        "the theory's bounds are too loose to explain it", "It does not", "is {far} the rates and promises nothing"
    ),
    "contradicted": Verdict("a measured rate exceeds a proved bound: distrust the numbers", "It cannot be told"),
    "inapplicable": Verdict("the theory's bounds are not proved for blocks like its own", "It says nothing"),
    "undefined": Verdict("its contraction rates have no value", "It cannot be told"),
}
"""By `Headline.theory`: the one place that says how a verdict is called."""


KNOWS = {
    "L0": "the weights, and the largest mixing rate and least standard deviations of the text, over all layers",
    "L1": "the weights, and the text's mixing rates and least standard deviations in this layer",
    "L2": "the same, with the two least standard deviations",
    "L2b": "the weights, and the text's mixing rates and every token's standard deviations",
    "L3": "the weights, and the text's attention and standard deviations",
    "L4": "also the token vectors before and after attention: it holds for this text only",
    "L5": "also the MLP's inputs, and how large what its nonlinearity adds to straight lines is: it holds for this text"
    " only",
}
"""What each bound is told; of weights alone none is."""

_PROMISE = (
    "The theorem promises contraction only where the product of a block's two smallest LayerNorm standard deviations is"
    " large enough, above a threshold made of its weights."
)

_TOLD = {"L5": "told this text", "L4": "told this text", "L3": "told this text's attention"}


def first_sentence(level: str, theory: str, model: str, found: Findings | None = None) -> str:
    """One sentence for both answers; `found` where bounds apply to the model's blocks."""
    verdict = VERDICTS[theory]
    tail = verdict.headline
    if level == "little" and theory == "vacuous":
        tail = "the theory's bounds are too loose to promise either way"
    if verdict.near and found is not None and found.tightest_over_actual <= NEAR:
        told = _TOLD.get(found.tightest or "", "told its norms")
        tail = f"the theory, {told}, {verdict.near.format(far=above(found.tightest_over_actual))}"
    joint = "; " if level == "undefined" else ", but " if theory == "contradicted" else ", and "
    return f"{_LEVELS[level].format(model=model)}{joint}{tail}."


def above(ratio: float) -> str:
    """How far a bound is above the rates, as it fits before "the rates".

    >>> above(40.0), above(1.2), above(1.004)
    ('40.0 times', '20 % above', 'less than 1 % above')
    """
    if not ratio < 1.5:
        return f"{digits(ratio)} times"
    return f"{100 * (ratio - 1):.0f} % above" if ratio >= 1.01 else "less than 1 % above"


def smoothing(level: str, found: Findings, strong: float, moderate_rise: float, peak_drop: float) -> str:
    """How similar the tokens become, and what the words of the headline mean."""
    if level == "undefined":
        return "No sentence has two tokens after the last layer whose cosine could be taken."
    if math.isnan(found.cosine_first):
        return f"The mean cosine similarity of two tokens is {digits(found.cosine_last)} in the last layer."
    moved = "rises" if found.cosine_rise >= 0 else "falls"
    text = (
        f"The mean cosine similarity of two tokens of a sentence {moved} from {digits(found.cosine_first)} in the"
        f" embedding output to {digits(found.cosine_last)} in the last layer (0: unrelated, 1: the same direction)."
    )
    if level == "strong" and found.cosine_rise < moderate_rise:
        text += " The tokens were already that similar before the first layer, so the layers add little."
    if found.cosine_peak - found.cosine_last >= peak_drop:
        text += f" It is highest, {digits(found.cosine_peak)}, in layer {found.cosine_peak_layer}."
    return text + (
        f" We say strongly where the last layer has {strong:g} or more, moderately where the cosine rises by"
        f" {moderate_rise:g} or more, hardly otherwise."
    )


def where(found: Findings) -> str:
    """In which layers tokens become more alike, by angle and by distance."""
    return " ".join(filter(None, (_where_cosine(found), _where_rate(found), _where_only_angles(found))))


def _where_cosine(found: Findings) -> str:
    if math.isnan(found.cosine_peak):
        return "The cosine similarity has no value in any layer."
    if not found.rising_layers:
        return "The cosine similarity rises in no layer."
    steps = ", ".join(f"layer {layer} (+{digits(rise)})" for layer, rise in found.rising_layers.items())
    return f"Most of the rise happens in {steps}."


def _where_rate(found: Findings) -> str:
    if math.isnan(found.rate_lowest):
        return "No contraction rate has a value."
    if found.layers == 1:
        verb = "shrinks" if found.contracting_layers else "does not shrink"
        return f"In the only layer the tokens' distance from their mean {verb}: the actual rate is " + (
            f"{digits(found.rate_lowest)}."
        )
    span = f"the actual rates lie between {digits(found.rate_lowest)} and {digits(found.rate_highest)}"
    if not found.contracting_layers:
        return f"The tokens' distance from their mean shrinks in no layer: {span}."
    if len(found.contracting_layers) == found.layers:
        return f"The tokens' distance from their mean shrinks in every layer: {span}."
    return f"The tokens' distance from their mean shrinks in {layer_list(found.contracting_layers)} only: {span}."


def _where_only_angles(found: Findings) -> str:
    """Layers where the two measures disagree: a distance grows with the norms, a cosine does not."""
    turning = [layer for layer in found.rising_layers if layer not in found.contracting_layers]
    if not turning or math.isnan(found.rate_lowest):
        return ""
    return (
        f"In {layer_list(tuple(turning))} tokens turn towards each other while their distance, which grows with their"
        " norms, does not shrink: there no true bound on the distance could be below 1."
    )


def inapplicable(departures: tuple[str, ...]) -> str:
    """Why no bound has a value."""
    listed = ", ".join(departures[:-1]) + " and " * (len(departures) > 1) + departures[-1]
    return (
        f"{VERDICTS['inapplicable'].answer}: the bounds L0 to L5 are proved for BERT's post-LN blocks, with LayerNorm"
        f" after each unscaled residual sum and an ungated MLP. This model has {listed}, so none of them is evaluated;"
        " the actual rates are measured all the same."
    )


def pre_norm(found: Findings) -> str:
    """What the one bound that is proved for pre-LN blocks says."""
    return (
        f"{VERDICTS['vacuous'].answer}. Pre-LN blocks add to the residual stream and never divide it: the rate that is"
        " proved of them, shown here as L1, cannot be below 1. In the median layer it is"
        f" {above(found.L1_over_actual)} the actual rate. L0 and L2 to L5 are proved for BERT's post-LN blocks and not"
        " evaluated."
    )


def explanation(theory: str, found: Findings, departures: tuple[str, ...] = ()) -> str:
    """Whether the bounds predict what was measured."""
    if theory == "inapplicable":
        return inapplicable(departures)
    if theory == "undefined":
        return f"{VERDICTS[theory].answer}: too few tokens per sentence for a contraction rate or a bound."
    if theory == "contradicted":
        bound, layer = found.exceeded[0]
        return (
            f"{VERDICTS[theory].answer}: the actual rate exceeds {bound} in layer {layer} ({len(found.exceeded)} such"
            " cases). A proved bound cannot be exceeded, so this is rounding or a defect; repeat with --precision"
            " float64, and report it if it stays."
        )
    if departures:
        return pre_norm(found)
    return f"{_bounds(theory, found)} {_looseness(found)} {_threshold(found)}"


def _bounds(theory: str, found: Findings) -> str:
    answer = VERDICTS[theory].answer
    smallest = f"{digits(found.smallest_bound)}, {found.smallest_bound_name} in layer {found.smallest_bound_layer}"
    if theory == "vacuous":
        return (
            f"{answer}. Every bound holds, but none is below 1 in any layer for any sentence, so none promises"
            f" that tokens become more alike; the smallest is {smallest}."
        )
    best = {bound: layers for bound, layers in found.certified_layers.items() if layers}
    named = "; ".join(f"{bound} in {layer_list(layers)}" for bound, layers in best.items())
    if theory == "explains":
        knows = KNOWS[found.tightest or next(iter(best))]
        return f"{answer}: every layer that contracts has a bound below 1 ({named}). The tightest knows {knows}."
    if theory == "partial":
        contracting = layer_list(found.contracting_layers)
        return f"{answer}: a bound is below 1 for {named}; the actual rate is below 1 in {contracting}."
    return f"{answer}: on average no bound is below 1; only for some sentence is one ({smallest})."


def _looseness(found: Findings) -> str:
    text = (
        f"The theorem of Shi et al. taken layer by layer (L1) is {above(found.L1_over_actual)} the actual rate, the"
        f" tightest bound ({found.tightest}) {above(found.tightest_over_actual)} (median over layers)."
    )
    return text if found.tightest is None else f"{text} {found.tightest} knows {KNOWS[found.tightest]}."


def _threshold(found: Findings) -> str:
    if math.isnan(found.threshold_over_product):
        return "The LayerNorm standard deviations cannot be compared with the theorem's threshold."
    if found.threshold_met_layers:
        met = layer_list(found.threshold_met_layers)
        return f"{_PROMISE} The product exceeds the theorem's threshold in {met}."
    return (
        f"{_PROMISE} The product stays below the theorem's threshold in every layer, in the median by a factor of"
        f" {digits(found.threshold_over_product)}."
    )


def measures(found: Findings) -> str:
    """What the two measures of similarity say against each other."""
    relative = f"from {digits(found.relative_first)} to {digits(found.relative_last)}"
    change = found.relative_last - found.relative_first
    if math.isnan(change) or math.isnan(found.cosine_rise):
        return f"Relative distance goes {relative}; the two measures cannot be compared."
    text = f"The relative distance d_M/‖H‖, how far the tokens are from their mean for their size, goes {relative}."
    if (found.cosine_rise > 0) == (change < 0):
        return text + (
            " It agrees with the cosine in direction; it moves less because for tokens of equal length it is about"
            " √(1 − cosine)."
        )
    return text + (
        " It disagrees with the cosine: the cosine counts every token alike, the distance is ruled by the longest"
        " tokens, so the longest tokens are likely to behave unlike the rest."
    )


def rank_words(diagnosis: Diagnosis) -> str:
    """How many directions the last layer's tokens still use, and what the distance to consensus alone says of that."""
    ranks = [spread.mean for spread in (diagnosis.stable_rank, diagnosis.effective_rank)]
    if not np.isfinite([rank[-1] for rank in ranks]).all():
        return "No sentence of the last layer has tokens that differ from 0, so nothing is said of ranks."
    numerical, effective = (f"goes from {digits(float(rank[0]))} to {digits(float(rank[-1]))}" for rank in ranks)
    farthest = float(diagnosis.relative_distance.max[-1])
    # r <= 1 / (1 - d^2): docs/ranks.md.
    known = (
        f" From d_M/‖H‖, at most {digits(farthest)} in the last layer, it follows that the numerical rank is at most"
        f" {digits(1 / (1 - farthest**2))} there."
        if farthest < 0.999
        else ""
    )
    return (
        f"From the embedding output to the last layer the numerical rank ‖H‖²_F/‖H‖²₂ {numerical}, the effective rank"
        f" {effective}. 1 means that all tokens are multiples of one vector; equal tokens are, but such tokens need not"
        f" be equal.{known}"
    )


def sink_words(diagnosis: Diagnosis) -> str:
    """How many heads have an attention sink, where the strongest is, and what the first token gets."""
    strength, first = diagnosis.sink_strength.mean, diagnosis.first_token_attention.mean
    known = np.isfinite(strength)
    if not known.any():
        return "No sentence has tokens to attend to, so nothing is said of attention sinks."
    layer, head = np.unravel_index(int(np.nanargmax(strength)), strength.shape)
    return (
        f"In {int(np.sum(strength > SINK_LEVEL))} of {int(known.sum())} heads the strongest key, a sink, receives more"
        f" than {SINK_LEVEL} of the attention; most in layer {layer + 1}, head {head + 1}:"
        f" {digits(float(strength[layer, head]))}. The first token receives {digits(float(np.nanmean(first)))}, all"
        " heads taken together. A head that sends all queries to one key adds the same vector to every token and moves"
        " none relative to the others: at strength s and n tokens √λ is at most √(2 n s (1 − s))."
    )


def attention_words(diagnosis: Diagnosis) -> str:
    """Where successive layers attend alike, and where they do not."""
    cosine = diagnosis.attention_similarity.mean
    if not np.isfinite(cosine).any():
        return "No two layers can be compared."
    least, most = int(np.nanargmin(cosine)), int(np.nanargmax(cosine))
    if digits(float(cosine[least])) == digits(float(cosine[most])):
        return f"From each layer to the next attention changes alike: its cosine is {digits(float(cosine[least]))}."
    return (
        f"From layer to layer attention changes most between layers {least} and {least + 1} (cosine"
        f" {digits(float(cosine[least]))}) and least between layers {most} and {most + 1}"
        f" ({digits(float(cosine[most]))}); the mean is {digits(float(np.nanmean(cosine)))}. Near 1 layers pass tokens"
        " along one and the same graph, which is when a layer can use the attention of the one before."
    )
