"""Paired differences over seeds, and what is said of a claim; the rules were written before the first run.

A seed sets a run's head, the order of its data and its dropout. Runs of two variants with one seed are a pair, and what
counts is the difference of their scores. Over n pairs the mean difference has the interval of Student's t with n - 1
degrees of freedom; it speaks of other seeds, on the same texts. Pooled over tasks: each seed's differences are averaged
over the tasks first, and the interval is over the seeds' averages, so that what tasks share with a seed (the first
values of the head) is not counted as independent.

Rules, with 95% intervals:

- "A is better than B" is reproduced if the interval of A - B lies above 0, contradicted if it lies below 0, else not
  decided.
- "A costs nothing against B" likewise with -0.01 in place of 0: one point of a score from 0 to 1.
- Fewer than three pairs, or differences without any spread, decide nothing.
- Where a claim is asked of several tasks, layers or remedies, each by itself, its p-value is multiplied as Holm (1979)
  does, and the verdict is by p <= 0.05 and the sign of the mean.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import scipy.stats

CONFIDENCE = 0.95
LEAST_PAIRS = 3
MARGIN = -0.01
"""What "costs nothing" may cost."""
REPRODUCED, CONTRADICTED, OPEN = "reproduced", "contradicted", "not decided"


@dataclasses.dataclass(frozen=True)
class Paired:
    """The mean of paired differences.

    Attributes:
      count: pairs.
      mean: of the differences.
      std: of the differences, with n - 1; NaN of one pair.
      low, high: the interval of the mean; infinite of one pair.
      p: two-sided, that the mean is `null`; NaN of one pair.
      effect: (mean - null) / std, Cohen's d of paired samples; NaN where both are 0, or of one pair.
      null: what the mean is compared with.
    """

    count: int
    mean: float
    std: float
    low: float
    high: float
    p: float
    effect: float
    null: float = 0.0

    @property
    def decides(self) -> bool:
        """Whether there is enough to decide anything."""
        return self.count >= LEAST_PAIRS and self.std > 0

    @property
    def verdict(self) -> str:
        """By the interval."""
        if not self.decides:
            return OPEN
        return REPRODUCED if self.low > self.null else CONTRADICTED if self.high < self.null else OPEN

    def verdict_by(self, p: float) -> str:
        """By a p-value that has been corrected for several tests."""
        if not self.decides or not p <= 1 - CONFIDENCE:
            return OPEN
        return REPRODUCED if self.mean > self.null else CONTRADICTED


def paired(differences: Sequence[float], *, null: float = 0.0) -> Paired:
    """Mean, interval and p-value of paired differences.

    Raises:
      ValueError: no difference, or one that is not finite.

    >>> found = paired([1.0, 2.0, 3.0])
    >>> round(found.low, 4), round(found.high, 4), round(found.p, 4), found.verdict
    (-0.4841, 4.4841, 0.0742, 'not decided')
    """
    values = np.asarray(differences, np.float64)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise ValueError(f"differences must be finite numbers, at least one; got {differences!r:.200}.")
    count, mean = len(values), float(values.mean())
    if count == 1:
        return Paired(1, mean, math.nan, -math.inf, math.inf, math.nan, math.nan, null)
    # of equal numbers the mean may be off by a rounding, which is no spread
    std = 0.0 if np.ptp(values) == 0 else float(values.std(ddof=1))
    mean = float(values[0]) if std == 0 else mean
    away, error = mean - null, std / math.sqrt(count)
    if std == 0:
        effect = math.copysign(math.inf, away) if away else math.nan
        return Paired(count, mean, std, mean, mean, 0.0 if away else 1.0, effect, null)
    reach = error * float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, count - 1))
    p = 2 * float(scipy.stats.t.sf(abs(away) / error, count - 1))
    return Paired(count, mean, std, mean - reach, mean + reach, p, away / std, null)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of several tests, made larger so that one falsely small among them is as rare as among one.

    Those that are NaN, of claims nothing can be said of, stay so, and count among the tests.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03, 0.005])]
    [0.03, 0.06, 0.06, 0.02]
    """
    given = np.asarray(p_values, np.float64)
    found, largest = given.copy(), 0.0
    for place, index in enumerate(np.argsort(given)):  # NaN come last
        if not np.isnan(given[index]):
            largest = max(largest, min(1.0, (len(given) - place) * given[index]))
            found[index] = largest
    return [float(p) for p in found]


def written(found: Paired, *, scale: float = 100.0) -> str:
    """Mean and interval in points.

    >>> written(paired([0.01, 0.02, 0.03]))
    '+2.00 [-0.48, +4.48]'
    """
    if found.count == 1:
        return f"{scale * found.mean:+.2f} [one seed]"
    return f"{scale * found.mean:+.2f} [{scale * found.low:+.2f}, {scale * found.high:+.2f}]"
