"""The one command to run after a diagnosis, and why; the findings decide."""

import re
import shlex
from typing import NamedTuple

from ...results.diagnosis import Diagnosis
from .attribution import PART_NAMES, totals

AGAINST = {
    "attention": "gfsa,neutreno,attnscale,contranorm",
    "norm_attn": "initial-residual,residual-scaling,contranorm,pairnorm",
    "mlp": "initial-residual,residual-scaling,softdecay,pairnorm",
    "norm_mlp": "initial-residual,residual-scaling,softdecay,pairnorm",
}
"""Part that brings tokens together -> published remedies that act on it or next to it."""


class NextStep(NamedTuple):
    """What to do next.

    Attributes:
      command: a command line.
      why: one sentence.
    """

    command: str
    why: str


def next_step(diagnosis: Diagnosis, level: str, theory: str) -> NextStep:
    """One command, by the first of these rules that applies.

    * "contradicted": the same in float64;
    * "undefined": texts with more tokens;
    * weights that are random: a trained model;
    * "strong" or "moderate": the remedies against the part of a block that brings tokens together most;
    * "explains", "partial" or "hardly": have the bounds certified;
    * else: apply the stack again and again, which says whether more depth would change the answer.

    Args:
      diagnosis: what `jaxsmooth.diagnose` found.
      level: as in `headline`.
      theory: as in `headline`.
    """
    name, texts = _quoted(diagnosis.model.name, "MODEL"), _texts(diagnosis)
    if theory == "contradicted":
        return NextStep(
            f"jaxsmooth diagnose {name}{texts} --precision float64",
            "a proved bound cannot be exceeded; more digits tell rounding from a defect",
        )
    if level == "undefined":
        return NextStep(f"jaxsmooth diagnose {name} --data FILE", "with sentences of at least two tokens")
    if "random weights" in diagnosis.model.note:
        return NextStep(
            f"jaxsmooth diagnose minilm-l6{texts}",
            "these weights are random, so what they do says little of a trained model",
        )
    if level in ("strong", "moderate"):
        return _against(diagnosis, name, texts)
    if theory in ("explains", "partial", "hardly"):
        return NextStep(
            f"jaxsmooth verify {name}{texts} --limit 8", "it certifies the bounds below 1, rounding accounted for"
        )
    return NextStep(
        f"jaxsmooth converge {name}{texts} --limit 8 --map stack",
        "it applies all layers again and again: would more depth make the tokens equal?",
    )


def _against(diagnosis: Diagnosis, name: str, texts: str) -> NextStep:
    parts = totals(diagnosis)
    worst = min(parts, key=lambda part: parts[part]) if parts else ""
    if worst not in AGAINST or parts[worst] >= 0:
        return NextStep(f"jaxsmooth compare {name}{texts}", "it tries published remedies on this model and these texts")
    return NextStep(
        f"jaxsmooth compare {name}{texts} --with {AGAINST[worst]}",
        f"{PART_NAMES[worst]} brings tokens together most, and these published remedies act on it or next to it",
    )


def _texts(diagnosis: Diagnosis) -> str:
    """The flags that read the same texts again; the command line names a column other than "text" in brackets."""
    name = diagnosis.data.name
    if name == "movie-reviews":
        return ""
    column = re.fullmatch(r"(.+) \(column ([^()]+)\)", name)
    if column is None:
        return f" --data {_quoted(name, 'FILE')}"
    return f" --data {_quoted(column[1], 'FILE')} --text-column {_quoted(column[2], 'NAME')}"


def _quoted(name: str, word: str) -> str:
    """The name as a shell takes it; the word for it where it is no name, or one that no shell should be given."""
    plain = name.isprintable() and name not in ("model", "texts", "standard input") and "(drawn at random" not in name
    return shlex.quote(name) if plain and len(name) <= 120 else word
