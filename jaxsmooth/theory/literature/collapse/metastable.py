"""How many clusters appear first when tokens start spread evenly over a sphere. Proofs are in docs/causal.md."""

import math

import numpy as np
from numpy.typing import NDArray

from ....errors import OptionError, arguments_checked, is_number, require_int

LARGEST_SHARPNESS = 1e5  # beyond it the recursion takes long


@arguments_checked
def bruno2024_growth(sharpness: float, dimension: int, degrees: int) -> NDArray[np.float64]:
    """Rates at which small ripples of degree 1, 2, ... on evenly spread tokens grow under softmax attention.

    Many tokens flow on the unit sphere of R^d, dx_i/dt = P_i sum_j A_ij x_j, A the softmax of beta <x_i, x_j>. A
    density 1 + h, h a small spherical harmonic of degree k, has h growing like e^(rt), r = k (k + d - 2)
    lambda_k / (beta lambda_0), lambda_k the mean of e^(beta u) against Gegenbauer's polynomial of degree k, that is a
    Bessel function I of order k + d/2 - 1 at beta. Without the softmax's division they are lambda_0 times as large.

    Args:
      sharpness: beta, from 0 to 10^5.
      dimension: d, at least 2.
      degrees: up to which degree, at least 1.

    Returns:
      The rates of degrees 1, ..., `degrees`.

    Raises:
      OptionError: an argument outside these ranges.

    >>> bruno2024_growth(5.0, 2, 5).round(4).tolist()
    [0.1787, 0.5141, 0.6827, 0.6001, 0.3961]

    References: after Bruno, Pasqualotto and Agazzi (2024), arXiv 2410.23228; derived in docs/causal.md.
    """
    if not (is_number(sharpness) and 0 <= sharpness <= LARGEST_SHARPNESS):
        raise OptionError(f"sharpness must be a number from 0 to {LARGEST_SHARPNESS:g}; got {sharpness!r}.")
    require_int("dimension", dimension, 2, OptionError)
    require_int("degrees", degrees, 1, OptionError)
    quotients = _bessel_quotients(sharpness, dimension / 2 - 1, degrees)
    k = np.arange(1, degrees + 1)
    # The first of the quotients is over beta, so that beta = 0 has a rate.
    return k * (k + dimension - 2.0) * np.cumprod(np.r_[quotients[0], sharpness * quotients[1:]])


@arguments_checked
def bruno2024_degree(sharpness: float, dimension: int = 2) -> int:
    """The degree k that grows fastest; for d = 2 the number of clusters that appear first, about (2 beta)^(1/2).

    The clusters then stay for long before they merge. In more dimensions k is the degree of the spherical harmonics
    that appear, not a number of clusters.

    Args:
      sharpness: beta, from 0 to 10^5.
      dimension: d, at least 2.

    Returns:
      k, at least 1; the smaller of two that grow alike.

    Raises:
      OptionError: an argument outside these ranges.

    >>> [bruno2024_degree(beta) for beta in (1.0, 5.0, 50.0)], bruno2024_degree(5.0, 32)
    ([1, 3, 10], 1)

    References: as of `bruno2024_growth`.
    """
    enough = 4 + math.ceil(2 * math.sqrt(2 * sharpness)) if is_number(sharpness) and sharpness > 0 else 4
    return int(np.argmax(bruno2024_growth(sharpness, dimension, enough))) + 1


def _bessel_quotients(sharpness: float, order: float, count: int) -> NDArray[np.float64]:
    """I_(order + 1) / (beta I_order) and the following ones, by the continued fraction from far behind."""
    far = count + 60 + math.ceil(2 * sharpness)
    found, last = np.zeros(count), 0.0
    for k in reversed(range(far)):
        last = 1 / (2 * (order + k + 1) + sharpness * sharpness * last)
        if k < count:
            found[k] = last
    return found
