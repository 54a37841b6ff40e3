"""What the numbers of a diagnosis amount to."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from ..results.diagnosis import Diagnosis
from ..results.summaries import RATES
from .format import finite
from .sections.attribution import totals
from .sections.baselines import across_texts, before_training

STRONG_SIMILARITY = 0.8
"""Mean cosine of the last layer from which we say "strongly": for tokens of equal length four fifths of their squared
length is then one common vector, and a fifth is left to tell them apart. A convention, like every such limit."""


MODERATE_RISE = 0.2
"""Rise of the mean cosine from the embedding output to the last layer from which we say "moderately": a fifth of the
way from unrelated to identical, about the least that is plain to see on an axis from 0 to 1. A convention."""


PEAK_DROP = 0.1
"""A middle layer this much more similar than the last one is worth a remark: the last layers undo smoothing."""

RISE_SHARE = 0.5
"""The layers named as "where" are the fewest whose rises add up to at least this share of all rises."""


ROUNDING = 1e-3
"""How far a measured rate may exceed a bound before it is called a contradiction: float32 sums over a sentence are
good to about 1e-5, and a bound that is attained exactly must not raise an alarm."""

NEAR = 3.0
"""A bound of at most so many times the actual rate, in the median layer, is called near: of its size. A convention."""

BOUNDS = RATES[1:]


@dataclasses.dataclass(frozen=True)
class Findings:
    """The numbers that a headline rests on. NaN: the data does not define it. Layers count from 1.

    Attributes:
      cosine_first: mean token cosine similarity of the embedding output.
      cosine_last: the same of the last layer.
      cosine_rise: the difference of the two.
      cosine_peak: the largest of all layers, and
      cosine_peak_layer: where it is (0 is the embedding output), None if there is no value at all.
      relative_first: mean d_M(H) / ||H||_F of the embedding output.
      relative_last: the same of the last layer.
      rising_layers: the fewest layers that make up `RISE_SHARE` of all rises of the cosine, with their rises.
      contracting_layers: layers whose mean actual rate is below 1.
      rate_lowest: smallest mean actual rate of a layer.
      rate_highest: largest mean actual rate of a layer.
      layers: how many blocks the model has.
      L1_over_actual: median over layers of (mean L1) / (mean actual rate).
      L4_over_actual: the same for L4.
      tightest: the bound whose median over layers of (mean bound) / (mean actual rate) is least, None if none has one.
      tightest_over_actual: that median.
      certified_layers: for each bound, the layers in which its mean is below 1.
      smallest_bound: smallest value of any bound in any layer for any sentence, and
      smallest_bound_name: which bound that is.
      smallest_bound_layer: in which layer.
      exceeded: "bound in layer" pairs in which the actual rate is above the bound by more than `ROUNDING`.
      threshold_met_layers: layers whose mean `std_product` is above the mean threshold.
      threshold_over_product: median over layers of (mean threshold) / (mean std_product).
      attribution: part of a block -> its change of ln(d_M / ||H||), added up over layers; empty where unknown.
      cosine_across: mean cosine of tokens of different texts in the last layer.
      cosine_untrained: last layer's cosine of the same architecture before training.
    """

    cosine_first: float
    cosine_last: float
    cosine_rise: float
    cosine_peak: float
    cosine_peak_layer: int | None
    relative_first: float
    relative_last: float
    rising_layers: dict[int, float]
    contracting_layers: tuple[int, ...]
    rate_lowest: float
    rate_highest: float
    layers: int
    L1_over_actual: float
    L4_over_actual: float
    tightest: str | None
    tightest_over_actual: float
    certified_layers: dict[str, tuple[int, ...]]
    smallest_bound: float
    smallest_bound_name: str | None
    smallest_bound_layer: int | None
    exceeded: tuple[tuple[str, int], ...]
    threshold_met_layers: tuple[int, ...]
    threshold_over_product: float
    attribution: dict[str, float]
    cosine_across: float
    cosine_untrained: float


def findings(diagnosis: Diagnosis) -> Findings:
    """Collect the numbers that the rules of `headline` look at."""
    cosine, relative = diagnosis.cosine_similarity.mean, diagnosis.relative_distance.mean
    rates = {name: diagnosis.rates[name].mean for name in RATES}
    actual = rates["actual"]
    product, threshold = diagnosis.std_product.mean, diagnosis.threshold.mean
    peak = int(np.nanargmax(cosine)) if finite(cosine).size else None
    smallest, name, layer = _smallest_bound(diagnosis)
    tightest, least = _tightest({bound: median_ratio(rates[bound], actual) for bound in BOUNDS})
    return Findings(
        cosine_first=float(cosine[0]),
        cosine_last=float(cosine[-1]),
        cosine_rise=float(cosine[-1] - cosine[0]),
        cosine_peak=float("nan") if peak is None else float(cosine[peak]),
        cosine_peak_layer=peak,
        relative_first=float(relative[0]),
        relative_last=float(relative[-1]),
        rising_layers=_rising(cosine),
        contracting_layers=_layers(actual < 1),
        rate_lowest=min(finite(actual).tolist(), default=float("nan")),
        rate_highest=max(finite(actual).tolist(), default=float("nan")),
        layers=actual.size,
        L1_over_actual=median_ratio(rates["L1"], actual),
        L4_over_actual=median_ratio(rates["L4"], actual),
        tightest=tightest,
        tightest_over_actual=least,
        certified_layers={bound: _layers(rates[bound] < 1) for bound in BOUNDS},
        smallest_bound=smallest,
        smallest_bound_name=name,
        smallest_bound_layer=layer,
        exceeded=tuple((b, i) for b in BOUNDS for i in _layers(actual > rates[b] * (1 + ROUNDING))),
        threshold_met_layers=_layers(product > threshold),
        threshold_over_product=median_ratio(threshold, product),
        attribution=totals(diagnosis),
        cosine_across=across_texts(diagnosis),
        cosine_untrained=before_training(diagnosis),
    )


def _layers(chosen: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(block) + 1 for block in np.flatnonzero(chosen))


def median_ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> float:
    """Median over layers of one number over another: the one ratio that text, figures and legends give of a bound."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = above / below
    defined = ratio[~np.isnan(ratio)]
    return float(np.median(defined)) if defined.size else float("nan")


def _tightest(ratios: dict[str, float]) -> tuple[str | None, float]:
    known = {bound: ratio for bound, ratio in ratios.items() if not np.isnan(ratio)}
    best = min(known, key=lambda bound: known[bound], default=None)
    return (best, known[best]) if best is not None else (None, float("nan"))


def _rising(cosine: NDArray[np.float64]) -> dict[int, float]:
    rises = np.nan_to_num(np.diff(cosine), nan=0.0).clip(min=0.0)
    chosen: dict[int, float] = {}
    for block in np.argsort(-rises, kind="stable"):
        if rises[block] == 0 or sum(chosen.values()) >= RISE_SHARE * rises.sum():
            break
        chosen[int(block) + 1] = float(rises[block])
    return dict(sorted(chosen.items()))


def _smallest_bound(diagnosis: Diagnosis) -> tuple[float, str | None, int | None]:
    values = [(v, name, block + 1) for name in BOUNDS for block, v in enumerate(diagnosis.rates[name].min.tolist())]
    defined = [entry for entry in values if not np.isnan(entry[0])]
    return min(defined, key=lambda entry: entry[0]) if defined else (float("nan"), None, None)
