"""The tail of a spectrum as a power law: its exponent, and how bad the fit is. On the host, in float64."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ..errors import arguments_checked


class PowerLaw(NamedTuple):
    """The density x^(-alpha) that fits the largest of some values best.

    Attributes:
      alpha: the exponent, above 1; NaN where no two values differ.
      error: its standard error if the tail were independent draws from a power law, (alpha - 1) / sqrt(tail).
      smallest: where the tail begins.
      distance: the Kolmogorov-Smirnov distance of the tail from the fit, in [0, 1], the best beginning being chosen.
        Large means that no part of the values is a power law.
      tail: how many values are in the tail; an exponent of a few says little.
      used: how many values there are, zeros left out.
    """

    alpha: float
    error: float
    smallest: float
    distance: float
    tail: int
    used: int


@arguments_checked
def clauset2009_power_law(values: Float[np.ndarray, " K"]) -> PowerLaw:
    """The power law that fits the tail of some values best, the tail's beginning included.

    For each beginning the maximum of the likelihood, alpha = 1 + n / sum ln(x_i / x_min); of all beginnings the one
    whose fit has the least Kolmogorov-Smirnov distance max |S(x) - P(x)|, both sides of every step of S counted. A fit
    is found to anything: whether there is a power law, distance and tail must say. (Clauset et al. ask for about 50
    values, and for a test of the fit against draws; eigenvalues repel and are no independent draws.)

    Args:
      values: [K], in any order; those not above K eps times the largest count as 0 and are left out.

    Returns:
      A `PowerLaw`; NaN with a tail of 0 where fewer than two values differ, or where one is not finite.

    >>> draws = (1 - np.arange(1000) / 1000) ** -0.5  # quantiles of the density 2 x^-3
    >>> found = clauset2009_power_law(draws)
    >>> round(found.alpha, 2), found.distance < 0.01, found.used
    (3.01, True, 1000)

    References: Clauset, Shalizi and Newman (2009), arXiv 0706.1062, equation 3.1 and section 3.3; of spectra of
    weights Martin and Mahoney (2021), arXiv 1810.01075.
    """
    every = np.sort(np.asarray(values, np.float64))
    largest = every[-1] if every.size else 0.0
    real = every[every > len(every) * np.finfo(np.float64).eps * largest]
    if not np.isfinite(every).all() or len(np.unique(real)) < 2:
        return PowerLaw(*4 * (float("nan"),), 0, len(real))
    logs = np.log(real / largest)
    begins = np.flatnonzero(np.diff(logs, prepend=-np.inf))
    fits = [(*_fit(logs[k:]), k) for k in begins if logs[k] < logs[-1]]
    distance, alpha, k = min(fits)
    tail = len(real) - int(k)
    return PowerLaw(alpha, (alpha - 1) / tail**0.5, float(real[k]), distance, tail, len(real))


def _fit(logs: np.ndarray) -> tuple[float, float]:
    """Distance and exponent of the tail that is all of these logarithms, in ascending order."""
    above, count = logs - logs[0], len(logs)
    slope = count / above.sum()
    law = -np.expm1(-slope * above)
    steps = np.arange(count + 1) / count
    return float(max(np.max(law - steps[:-1]), np.max(steps[1:] - law))), float(1 + slope)
