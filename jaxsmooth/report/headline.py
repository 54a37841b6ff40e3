"""The plain-language answer: does this model over-smooth, where, and does the theory explain it?"""

import dataclasses

import numpy as np

from ..errors import arguments_checked
from ..results.diagnosis import Diagnosis
from . import wording
from .findings import MODERATE_RISE, PEAK_DROP, STRONG_SIMILARITY, Findings, findings
from .sections.attribution import attribution_words
from .sections.baselines import baseline_words
from .sections.next_step import next_step


@dataclasses.dataclass(frozen=True)
class Headline:
    """What the numbers say, in words.

    Attributes:
      level: "strong", "moderate", "little" or "undefined"; the rule is in `headline`.
      theory: "explains", "partial", "hardly", "vacuous", "contradicted", "inapplicable" or "undefined".
      headline: one sentence that answers the question.
      smoothing: how similar the tokens become.
      where: in which layers.
      explanation: whether the bounds predict it.
      measures: what cosine similarity and relative distance say against each other.
      why: which part of a block does it.
      baseline: what the similarity is compared with: tokens of different texts, the model before training.
      next_command: the command to run next, and
      next_why: for what; the rule is in `sections.next_step`.
      findings: the numbers.
    """

    level: str
    theory: str
    headline: str
    smoothing: str
    where: str
    explanation: str
    measures: str
    why: str
    baseline: str
    next_command: str
    next_why: str
    findings: Findings

    @property
    def answers(self) -> tuple[tuple[str, str], ...]:
        """The questions that terminal and page ask, each with its answer."""
        return (
            ("How alike do the tokens become?", self.smoothing),
            ("Compared with what?", self.baseline),
            ("Where?", self.where),
            ("Why?", self.why),
            ("Does the theory explain it?", self.explanation),
        )


@arguments_checked
def headline(diagnosis: Diagnosis) -> Headline:
    """Answer "does this model over-smooth, where, and does the theory explain it?".

    Level, from the token cosine similarity averaged over sentences:

    * "strong": the last layer has at least `STRONG_SIMILARITY`;
    * "moderate": otherwise, if it rose by at least `MODERATE_RISE` since the embedding output;
    * "little": otherwise;
    * "undefined": no sentence gives a value (every sentence has one token).

    Where: the fewest layers whose rises of the cosine make up `RISE_SHARE` of all rises, and the layers whose
    actual contraction rate is below 1. Theory, from the bounds L0 to L5 on that rate, averaged over sentences:

    * "contradicted": a measured rate exceeds a bound by more than `ROUNDING`; bounds are proved, so this means
      rounding or a defect, and nothing else should be read into the bounds;
    * "explains": every contracting layer has a bound below 1, and there is such a layer;
    * "partial": some bound is below 1 in some layer, but not as above;
    * "hardly": no bound is below 1 in any layer, but one is for some sentence;
    * "vacuous": the bounds hold, and every one of them is at least 1 in every layer for every sentence, so none
      promises that tokens become more alike; the sentence says so, and how near the tightest comes if that is within
      `NEAR` times the actual rate, with what that bound knows of the text;
    * "inapplicable": the bounds are not proved for blocks like this model's, and none is evaluated;
    * "undefined": no rate has a value.

    Args:
      diagnosis: what `jaxsmooth.diagnose` found.

    Returns:
      The answer and the numbers it rests on.
    """
    found = findings(diagnosis)
    departures = diagnosis.model.departures
    level, theory = _level(found), _theory(found) if diagnosis.model.rungs else "inapplicable"
    command, why = next_step(diagnosis, level, theory)
    return Headline(
        level=level,
        theory=theory,
        headline=wording.first_sentence(level, theory, diagnosis.model.name, None if departures else found),
        smoothing=wording.smoothing(level, found, STRONG_SIMILARITY, MODERATE_RISE, PEAK_DROP),
        where=wording.where(found),
        explanation=wording.explanation(theory, found, departures),
        measures=wording.measures(found),
        why=attribution_words(diagnosis),
        baseline=baseline_words(diagnosis),
        next_command=command,
        next_why=why,
        findings=found,
    )


def _level(found: Findings) -> str:
    if np.isnan(found.cosine_last):
        return "undefined"
    if found.cosine_last >= STRONG_SIMILARITY:
        return "strong"
    return "moderate" if found.cosine_rise >= MODERATE_RISE else "little"


def _theory(found: Findings) -> str:
    if np.isnan(found.rate_lowest) or np.isnan(found.smallest_bound):
        return "undefined"
    if found.exceeded:
        return "contradicted"
    certified = {layer for layers in found.certified_layers.values() for layer in layers}
    if found.contracting_layers and certified.issuperset(found.contracting_layers):
        return "explains"
    if certified:
        return "partial"
    return "hardly" if found.smallest_bound < 1 else "vacuous"
