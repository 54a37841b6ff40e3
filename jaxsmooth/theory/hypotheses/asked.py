"""What is asked about a model: every hypothesis that is decided, with what it means in words."""

import enum
from typing import Literal, NamedTuple

from ..theorems.hypotheses import ABOVE_THRESHOLD, RATE_BELOW_1
from ..theorems.registry import HYPOTHESES
from .attention_pattern import SINK_LEVEL


class Truth(enum.IntEnum):
    """What is known of a hypothesis on given data."""

    HOLDS = 0
    FAILS = 1
    UNDECIDED = 2
    NOT_APPLICABLE = 3


class Asked(NamedTuple):
    """One hypothesis.

    Attributes:
      asks: the question, in words.
      shown: the number that is shown with it, or "" for none.
      limit: what the number must satisfy for the hypothesis to hold.
      source: whose theorem asks for it.
      about: "block" and "state" need a plain post-LN block, "state" attention by content alone besides; "tokens",
        "mask" and "head" are asked of every encoder.
    """

    asks: str
    shown: str
    limit: str
    source: str
    about: Literal["block", "state", "tokens", "mask", "head"]


_RUNGS = {
    "L0": "does the theorem of Shi et al., with the worst constants of the whole model, promise a contraction?",
    "L1": "the same with the constants of each layer; it is the question above, asked of the rate",
    "L2": "the same with finer norms",
    "L2b": "the same with every pair of tokens weighted by its own stds",
    "L3": "the same with the norm of attention, residual and weights together",
    "L4": "the same with what these make of the sentence's own tokens",
}

CONSENSUS, ROOTED, HEMISPHERE, SINK = "consensus_attracts", "rooted_mask", "open_hemisphere", "attention_sink"


def _asked() -> dict[str, Asked]:
    found = {
        ABOVE_THRESHOLD: Asked(
            "Shi et al.'s condition: are the stds of the LayerNorms so large that their theorem gives a contraction?",
            *("σ₁σ₂ / threshold", "> 1", HYPOTHESES[ABOVE_THRESHOLD].source, "block"),
        )
    }
    for name, entry in HYPOTHESES.items():
        if name.startswith(RATE_BELOW_1):
            rung = name.removeprefix(RATE_BELOW_1)
            words = _RUNGS.get(rung, f"the same of the rate {rung}")
            found[name] = Asked(words, "the rate's bound v", "< 1", entry.source, "block")
    return found | {
        CONSENSUS: Asked(
            "applied again and again, would the layer (the whole stack) make nearly equal tokens equal?",
            *("ρ(M)", "< 1", "docs/lemmas.md", "state"),
        ),
        ROOTED: Asked(
            "does some token reach all others through attention, in layers like this one?",
            *("radius", ">= 0", "Wu et al. (2024), arXiv 2405.18781", "mask"),
        ),
        HEMISPHERE: Asked(
            "do all tokens that enter the layer lie on one side of a plane through the origin?",
            *("", "some w with w·x > 0", "Geshkovski et al. (2023), arXiv 2312.10794", "tokens"),
        ),
        SINK: Asked(
            f"does some token get more than {SINK_LEVEL} of a head's attention on average?",
            *("largest mean weight", f"> {SINK_LEVEL}", "Gu et al. (2024), arXiv 2410.10781", "head"),
        ),
    }


ASKED = _asked()
"""All of them by name, in the order in which they are shown."""
