"""The weights' spectra, and how far tokens lie along the principal direction of each layer: words, rows, JSON."""

from typing import Any

import numpy as np

from ...results.diagnosis import Diagnosis
from ...results.weights import MATRICES, WeightSpectra
from ..format import digits, finite

TRAINED = (2.0, 6.0)
"""Exponents that WeightWatcher takes for those of well-trained layers (Martin, Peng and Mahoney 2021)."""

ENOUGH = 50
"""Values that a tail should have before its fit is believed (Clauset, Shalizi and Newman 2009, section 3.3)."""


def weights_section(diagnosis: Diagnosis) -> dict[str, Any]:
    """What the page says of weights: `principal` and `spectra` in words, and the `rows` of the table."""
    found = diagnosis.weights
    rows = [] if found is None else weight_rows(found)
    return {
        "principal": principal_words(diagnosis),
        "spectra": "" if found is None else weights_words(found),
        "rows": rows,
    }


def principal_words(diagnosis: Diagnosis) -> str:
    """Whether tokens lie along each layer's principal direction, against chance, and whether more so with depth."""
    along, weights = diagnosis.principal_alignment.mean, diagnosis.weights
    if weights is None or not np.isfinite(along).any():
        return "No layer has a principal direction to compare tokens with."
    most = int(np.nanargmax(along))
    above = int(np.nansum(along > weights.chance))
    planes = int(np.sum(weights.eigenvalue.imag != 0))
    text = (
        f"Of a token's length, the share along the principal direction of the layer that hands it out goes from"
        f" {digits(float(along[0]))} in the first layer to {digits(float(along[-1]))} in the last; it is largest in"
        f" layer {most + 1}, {digits(float(along[most]))}, where tokens in random directions would have"
        f" {digits(float(weights.chance[most]))}. It is above chance in {above} of {along.size} layers."
    )
    if planes:
        text += f" In {planes} the eigenvalue of largest modulus is complex, and the direction a plane."
    return text + " That attention acts like the power method (Li and Altafini 2026) would make it grow with depth."


def weights_words(found: WeightSpectra) -> str:
    """How heavy the tails are, and how far that is to be believed."""
    alpha, tail, distance = (
        np.concatenate([np.ravel(getattr(one, name)) for one in found.matrices.values()])
        for name in ("alpha", "tail", "distance")
    )
    known = finite(alpha)
    if not known.size:
        return "No matrix has a spectrum with a tail to fit."
    low, high = TRAINED
    inside, few = int(np.sum((known >= low) & (known <= high))), int(np.sum(tail[np.isfinite(alpha)] < ENOUGH))
    return (
        f"The tails of the eigenvalues of W Wᵀ fit exponents α from {digits(known.min())} to {digits(known.max())}, in"
        f" {inside} of {known.size} matrices between {low:g} and {high:g}, taken for the mark of trained layers"
        " (Martin, Peng and Mahoney 2021). The fits' Kolmogorov-Smirnov distance is"
        f" {digits(float(np.nanmedian(distance)))} in the median; {few} of {known.size} tails have fewer than {ENOUGH}"
        " eigenvalues, too few to tell a power law from another law."
    )


def weight_rows(found: WeightSpectra) -> list[tuple[str, ...]]:
    """Layer, matrix, stable rank, largest singular values, exponent with its error, distance, tail of how many."""
    depth = len(found.chance)
    return [
        (
            *(str(layer + 1), MATRICES[name], digits(float(one.stable_rank[layer]))),
            " ".join(digits(float(value)) for value in one.singular_values[layer] if np.isfinite(value)),
            f"{digits(float(one.alpha[layer]))} ± {digits(float(one.error[layer]))}",
            digits(float(one.distance[layer])),
            f"{one.tail[layer]} of {one.count[layer]}",
        )
        for layer in range(depth)
        for name, one in found.matrices.items()
    ]


def weights_json(found: WeightSpectra) -> dict[str, Any]:
    """For report.json: of each matrix and of F = sum_h W_V^h W_O^h one list a quantity, by layer."""
    matrices = {
        name: {key: values.tolist() for key, values in vars(one).items()} for name, one in found.matrices.items()
    }
    principal = {
        "eigenvalue_real": found.eigenvalue.real.tolist(),
        "eigenvalue_imag": found.eigenvalue.imag.tolist(),
        "runner_up": found.runner_up.tolist(),
        "chance": found.chance.tolist(),
    }
    return {"matrices": matrices, "principal": principal}
