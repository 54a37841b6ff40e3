"""What the similarity of tokens is compared with: tokens of different texts, the same architecture before training."""

from typing import Any

import numpy as np

from ...results.diagnosis import Diagnosis
from ..format import digits

OWN = "two tokens of a text"
ACROSS = "two tokens of different texts"
BEFORE = "of a text, before training"
SAME = 0.005
"""Two rises of the cosine that differ by less are called the same. A convention."""


def baselines_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """The key `baselines` of report.json; nothing where nothing was measured."""
    found: dict[str, Any] = {}
    if diagnosis.anisotropy is not None:
        found["anisotropy"] = diagnosis.anisotropy.tolist()
    if diagnosis.untrained is not None:
        arrays = {key: getattr(diagnosis.untrained, key).tolist() for key in ("cosine_similarity", "relative_distance")}
        found["untrained"] = {"texts": diagnosis.untrained.texts, "seed": diagnosis.untrained.seed, **arrays}
    return {"baselines": found} if found else {}


def across_texts(diagnosis: Diagnosis) -> float:
    """The cosine of tokens of different texts in the last layer; NaN where it is not known."""
    return float("nan") if diagnosis.anisotropy is None else float(diagnosis.anisotropy[-1])


def before_training(diagnosis: Diagnosis) -> float:
    """The last layer's cosine of the same architecture before training; NaN where it is not known."""
    return float("nan") if diagnosis.untrained is None else float(diagnosis.untrained.cosine_similarity[-1])


def baseline_words(diagnosis: Diagnosis) -> str:
    """How much of the similarity is the text's own, and how much training has to do with it."""
    return " ".join(filter(None, (_across_words(diagnosis), _before_words(diagnosis))))


def _across_words(diagnosis: Diagnosis) -> str:
    own, across = float(diagnosis.cosine_similarity.mean[-1]), across_texts(diagnosis)
    if np.isnan(own) or np.isnan(across):
        return "Two texts are needed to compare the tokens of different ones." if np.isnan(across) else ""
    text = (
        f"In the last layer the mean cosine is {digits(own)} for two tokens of one text and {digits(across)} for two of"
        " different texts (anisotropy): "
    )
    if across >= own:
        return f"{text}tokens of one text are no more alike than those of different texts."
    text += f"{digits(own - across)} is what a text's own tokens have in common."
    if own > 0 and across > own / 2:
        return f"{text} More than half of the similarity is shared by all texts, whatever they say."
    return text


def _before_words(diagnosis: Diagnosis) -> str:
    twin, trained = diagnosis.untrained, diagnosis.cosine_similarity.mean
    if twin is None or np.isnan(before_training(diagnosis)):
        return ""
    first, last = (digits(float(value)) for value in twin.cosine_similarity[[0, -1]])
    rise = float(trained[-1] - trained[0]) - float(twin.cosine_similarity[-1] - twin.cosine_similarity[0])
    than = "as much" if abs(rise) < SAME else f"{digits(abs(rise))} {'more' if rise > 0 else 'less'}"
    whose = "this model" if "random weights" in diagnosis.model.note else "the trained model"
    return (
        f"With weights as before training (drawn at random, {_count(twin.texts)}) the cosine goes from {first} to"
        f" {last}; {whose}'s rises {than}."
    )


def _count(texts: int) -> str:
    return f"{texts} texts" if texts > 1 else "one text"
