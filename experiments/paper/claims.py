"""What Shi et al. (2022), their critics and two neighbours claim; each claim with its rule, in words and as a function.

A rule reads the JSON that an experiment wrote and says "reproduced", "not reproduced", "contradicted" or "not testable
here". Rules in words stand also at the heads of the experiments, where they were written before the runs. Where there
is no JSON, the verdict is "not run yet". `python -m experiments.pages` makes the table of docs/paper.md of it.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import keeping
from . import rules
from .rules import Verdict


@dataclasses.dataclass(frozen=True)
class Claim:
    """What a paper says.

    Attributes:
      says: the claim.
      where: its place in the paper.
      number: the paper's number, "–" where it gives none.
      experiment: "folder/name" of the experiment, which is that of its JSON as well; "" where there can be none.
      rule: when it counts as reproduced, in words.
      verdict: the rule as a function of the JSON; of a claim without an experiment, of {}.
    """

    says: str
    where: str
    number: str
    experiment: str
    rule: str
    verdict: Callable[[Mapping[str, Any]], Verdict]


def judged(claims: tuple[Claim, ...], results: Path) -> Iterator[tuple[Claim, Verdict]]:
    """Each claim with its verdict, from the results that are there."""
    for claim in claims:
        path = results / f"{claim.experiment}.json"
        if not claim.experiment:
            yield claim, claim.verdict({})
        elif path.exists():
            yield claim, claim.verdict(json.loads(path.read_text(encoding="utf-8")))
        else:
            yield claim, Verdict(rules.NOT_RUN, "–")


# Figures 1a and 3


_BY_INTERVAL = "paired over seeds, averaged over tasks: 95% interval above 0"

PAPER = (
    Claim(
        "tokens grow more alike with depth",
        "figure 1a",
        "BERT .17 to .83",
        "paper/figure_1a",
        "every trained model and corpus: rank correlation of layer and mean cosine ≥ .9, last above first by 2 s.e.",
        rules.rising,
    ),
    Claim(
        "at the last layer they are very alike",
        "figure 1a",
        ".83, .96, .96",
        "paper/figure_1a",
        "mean over corpora ≥ .8 in every trained model; contradicted if all below .5",
        rules.high,
    ),
    Claim(
        "an earlier layer's output is better than the last (over-thinking)",
        "figure 1b",
        "error 12.3 at layer 10, 12.65 at 12",
        "paper/figure_1b",
        "on most tasks some earlier exit is better (Holm)",
        rules.over_thinking,
    ),
    Claim(
        "gates better deep encoders (12 layers and more)",
        "figure 1c",
        "+0.4 at 12, +0.9 at 24 layers",
        "paper/figure_1c",
        _BY_INTERVAL,
        rules.deeper,
    ),
    Claim(
        "attention of successive layers is nearly one matrix in the upper half",
        "figure 3",
        ".91 to .98 (BERT)",
        "paper/figure_3",
        "mean over corpora ≥ .8 in every trained model of 6 layers or more; contradicted if all below .5",
        rules.alike,
    ),
    Claim(
        "and the more so the deeper",
        "figure 3",
        "BERT .10 to .98",
        "paper/figure_3",
        "upper half above lower half by 2 s.e. in every such model and corpus",
        rules.growing,
    ),
    Claim(
        "Lemma 1's last item, as printed: d_M(AH) ≤ √λ d_M(H), λ of A'(I − ee')A, e the vector of ones",
        "lemma 1",
        "–",
        "paper/criticisms",
        "no attention matrix of a trained model breaks it",
        rules.printed_lemma,
    ),
    Claim(
        "Theorem 2's inequality, d_M(H') ≤ v d_M(H), gains and slope restored",
        "theorem 2",
        "–",
        "paper/criticisms",
        "no layer and text breaks it",
        rules.bound_holds,
    ),
    Claim(
        "if v < 1 in every layer, tokens converge to equal ones",
        "theorem 2",
        "v < 1",
        "paper/std",
        "the hypothesis holds somewhere",
        rules.converges,
    ),
    Claim(
        "over-smoothing may exist although v ≥ 1",
        "after theorem 2",
        "–",
        "paper/std",
        "a model with v ≥ 1 on all texts and layers whose last layer's cosine is ≥ .8",
        rules.although,
    ),
    Claim(
        "a larger LayerNorm std smooths more: imposed",
        "theorem 2",
        "–",
        "paper/std",
        "rank correlation of imposed std with last layer's d_M/‖H‖ ≤ −.9, with cosine ≥ .9, every model",
        rules.std_caused,
    ),
    Claim(
        "a larger LayerNorm std smooths more: over texts, within a layer",
        "theorem 2, figure 5",
        "–",
        "paper/std",
        "in two thirds of the layers the interval of the partial rank correlation with d_M(H')/d_M(H) is below 0",
        rules.std_observed,
    ),
    Claim(
        "similarity falls most under fusion where σ1σ2 is largest",
        "figures 5, 6",
        "−.225 on STS-B",
        "paper/figure_5_6",
        "interval above 0 of the drop less the other tasks' largest",
        rules.gates_undo("the drop is largest"),
    ),
    Claim(
        "gates make the output less alike than the plain last layer",
        "figure 6",
        ".86 to .635 on STS-B",
        "paper/figure_5_6",
        _BY_INTERVAL,
        rules.gates_undo("the gates' output"),
    ),
    Claim(
        "weighted sums of layers (the paper's concatenation) better a tuned BERT",
        "tables 2, 3",
        "+0.8",
        "paper/tables_2_3",
        _BY_INTERVAL,
        rules.fused_better("weights"),
    ),
    Claim("maxima over layers do", "tables 2, 3", "+0.9", "paper/tables_2_3", _BY_INTERVAL, rules.fused_better("max")),
    Claim("gates do", "tables 2, 3", "+1.3", "paper/tables_2_3", _BY_INTERVAL, rules.fused_better("gate")),
    Claim(
        "gates better a model that shares its block, as ALBERT",
        "table 2",
        "+0.9",
        "paper/tables_2_3",
        _BY_INTERVAL,
        rules.fused_better("gate", "minilm-l6-shared"),
    ),
    Claim(
        "four of six layers attending by a lower one's attention cost nothing",
        "table 1: 5-12",
        "83.4 for 83.8",
        "paper/table_1",
        "95% interval of the difference above −1 point",
        rules.shared_attention("2-6 costs nothing"),
    ),
    Claim(
        "sharing in all layers costs",
        "table 1: 1-12",
        "80.9 for 83.8",
        "paper/table_1",
        _BY_INTERVAL,
        rules.shared_attention("sharing everything costs"),
    ),
    Claim(
        "which layers the gates choose", "figure 7", "–", "", "–", rules.not_testable("the figure was not to be had")
    ),
    Claim(
        "ALBERT is smoother than BERT",
        "figure 1a",
        ".96 for .83",
        "",
        "–",
        rules.not_testable("no trained ALBERT, and no pair of models that differ in that alone, is to be had here"),
    ),
)

OBJECTIONS = (
    Claim(
        "Is similarity above .9 still enough to tell tokens apart?",
        "slides",
        "–",
        "paper/criticisms",
        "yes: a linear probe of ids keeps ≥ 90% of its accuracy at cosine .9 in every model; no: less than half",
        rules.tells_apart,
    ),
    Claim(
        "Is anything in the theorem specific to attention?",
        "slides",
        "–",
        "paper/criticisms",
        "no: no stochastic matrix in its place breaks a bound, and v stays within a factor 2",
        rules.specific,
    ),
    Claim(
        "Is the theorem's smoothing the cosine's?",
        "slides",
        "–",
        "paper/criticisms",
        "yes: rank correlation of cosine and d_M/‖H‖ over layers and texts ≤ −.95 in every model",
        rules.same_smoothing,
    ),
    Claim(
        "Would a gate to one earlier layer do as much as one over all?",
        "slides",
        "–",
        "paper/skips",
        "yes: of each such skip less the gate, 95% interval within a point of 0; no: each below 0",
        rules.skip_does_as_much,
    ),
    Claim(
        "Is fusion's gain explained by less smoothing?",
        "slides",
        "–",
        "paper/skips",
        "yes: rank correlation of what smoothness and what score differ from none: 95% interval above .5; no: below",
        rules.less_alike_is_better,
    ),
    Claim(
        "Does the likeness of attention take training?",
        "ours",
        "–",
        "paper/figure_3",
        "yes: trained above random weights by 2 s.e. in every model and corpus; no: below in most",
        rules.takes_training,
    ),
    Claim(
        "Is attention the graph convolution (ResGCN) that the analogy makes it?",
        "section 3",
        "–",
        "paper/convolution",
        "yes: with ResGCN in its place the last layer's cosine is within .05 in every model; no: in none",
        rules.is_convolution,
    ),
    Claim(
        "Do a graph convolution's tokens go to its own subspace, span(D^½ 1)?",
        "section 3",
        "–",
        "paper/convolution",
        "yes: nearer to it than to equal tokens by 2 s.e. at every model's last layer; no: farther in every one",
        rules.own_subspace,
    ),
)

NEIGHBOURS = (
    Claim(
        "tokens' projection on F's principal direction grows with depth",
        "Li and Altafini 2026",
        "–",
        "neighbours/projection",
        "every trained model and corpus: rank correlation ≥ .9, last above first by 2 s.e.",
        rules.projection_grows,
    ),
    Claim(
        "most with shared weights",
        "Li and Altafini 2026",
        "–",
        "neighbours/projection",
        "most blocks, repeated, end above the model's own last layer",
        rules.most_when_shared,
    ),
    Claim(
        "setting the dominant direction steers tokens there",
        "Li and Altafini 2026",
        "–",
        "neighbours/power_method",
        "mean |cos| rises with every step of μ, above .7 at the largest",
        rules.steers,
    ),
    Claim(
        "SoftDecay betters sentence similarity without training",
        "Yan et al. 2022",
        "STS 63.0 to 71.3",
        "neighbours/softdecay",
        "better (interval above 0) in half of the cases, worse in none",
        rules.softdecay_better,
    ),
)

TABLES = {"paper": PAPER, "objections": OBJECTIONS, "neighbours": NEIGHBOURS}


def claims_table(claims: tuple[Claim, ...], results: Path) -> str:
    """Verdicts first."""
    rows = []
    for claim, verdict in judged(claims, results):
        source = f"`{claim.experiment}`" if claim.experiment else "–"
        rows.append(
            [f"**{verdict.word}**", claim.says, claim.where, claim.number, verdict.measured, claim.rule, source]
        )
    return keeping.table(["verdict", "claim", "where", "paper's number", "measured", "rule", "experiment"], rows)
