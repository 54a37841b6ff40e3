"""From some texts to all of their kind: bounds with confidence that assume nothing about how values are distributed.

The bounds need the same of the texts: that they are random draws of the population that is meant, independent or
at least exchangeable. For draws of a finite corpus without repetition, all hold of the corpus. Ties make them cautious,
never wrong. The correlation and the sign test need as much for their p-values. Host only, numpy.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import OptionError


class ShareLimits(NamedTuple):
    """Limits of a share of the population, each with its confidence by itself.

    Attributes:
      at_least: the share is at least this.
      at_most: the share is at most this.
    """

    at_least: float
    at_most: float


def clopper_pearson1934_limits(count: int, draws: int, confidence: float = 0.95) -> ShareLimits:
    """Limits of the share of a population that has a property which `count` of `draws` random members have.

    The upper limit is the p for which so few would be drawn with probability 1 - confidence: P(Bin(draws, p) <= count)
    = 1 - confidence; the lower one likewise. What is asked must not have been chosen by the draws themselves (as "more
    than the largest value seen" is; that is what `wilks1941_limit` is for).

    Args:
      count: how many have it, from 0 to `draws`.
      draws: how many were drawn, at least 0; of none the limits are 0 and 1.
      confidence: between 0 and 1; of each limit by itself.

    Returns:
      A `ShareLimits`.

    Raises:
      OptionError: numbers out of range.

    >>> limits = clopper_pearson1934_limits(0, 299)
    >>> round(limits.at_most, 5), limits.at_least
    (0.00997, 0.0)

    References: Clopper and Pearson (1934), The use of confidence or fiducial limits; Biometrika 26.
    """
    from scipy.special import betaincinv

    _check(confidence)
    if not 0 <= count <= draws:
        raise OptionError(f"count must be from 0 to draws; got {count} of {draws}.")
    least = float(betaincinv(count, draws - count + 1, 1 - confidence)) if count else 0.0
    most = float(betaincinv(count + 1, draws - count, confidence)) if count < draws else 1.0
    return ShareLimits(least, most)


def wilks1941_limit(values: ArrayLike, share: float = 0.95, confidence: float = 0.95) -> float:
    """An upper tolerance limit: with confidence, at least `share` of the population is at most this.

    The k-th smallest of n values bounds a share p with probability P(Bin(n, p) <= k - 1) at least; the least such k
    is taken. A lower limit of x is minus the upper limit of -x.

    Args:
      values: of n random members, [n], none NaN.
      share: between 0 and 1.
      confidence: between 0 and 1.

    Returns:
      One of the values; infinity where they are too few (fewer than ln(1 - confidence) / ln(share): 59 by default).

    Raises:
      OptionError: numbers out of range, values that are NaN or no vector.

    >>> wilks1941_limit(np.arange(59.0)), wilks1941_limit(np.arange(58.0)), wilks1941_limit(np.arange(1000.0))
    (58.0, inf, 961.0)

    References: Wilks (1941), Determination of sample sizes for setting tolerance limits; Annals of Math. Stat. 12.
    """
    from scipy.special import bdtr

    _check(confidence)
    _check(share)
    ordered = _ordered(values)
    sure = bdtr(np.arange(len(ordered), dtype=np.float64), len(ordered), share) >= confidence if len(ordered) else []
    return float(ordered[np.argmax(sure)]) if np.any(sure) else math.inf


def vovk2005_limit(values: ArrayLike, confidence: float = 0.95) -> float:
    """A conformal prediction: the next member's value is at most this with probability `confidence` at least.

    The rank of the next among n + 1 exchangeable values is uniform, so it is at most the ceil((n + 1) confidence)-th
    smallest of the n. The probability is over these draws and the next together.

    Args:
      values: of n random members, [n], none NaN.
      confidence: between 0 and 1.

    Returns:
      One of the values; infinity where they are too few (fewer than confidence / (1 - confidence): 19 by default).

    Raises:
      OptionError: numbers out of range, values that are NaN or no vector.

    >>> vovk2005_limit(np.arange(19.0)), vovk2005_limit(np.arange(18.0)), vovk2005_limit(np.arange(99.0))
    (18.0, inf, 94.0)

    References: Vovk, Gammerman and Shafer (2005), Algorithmic learning in a random world.
    """
    _check(confidence)
    ordered = _ordered(values)
    rank = math.ceil((len(ordered) + 1) * confidence)
    return float(ordered[rank - 1]) if rank <= len(ordered) else math.inf


class PairedSigns(NamedTuple):
    """What differences, one for each text, say of the median difference of all such texts.

    Attributes:
      texts: how many differences there are.
      below: how many are below 0.
      above: how many are above 0.
      median: the median of those that were drawn; NaN of none.
      at_least: with confidence, the population's median lies between this
      at_most: and this; infinite where the draws are too few (fewer than 6 for 95 %).
      p_value: the probability of counts at least as uneven if either sign were equally likely; 1 where all are 0.
    """

    texts: int
    below: int
    above: int
    median: float
    at_least: float
    at_most: float
    p_value: float


def dixon1946_sign_test(differences: ArrayLike, confidence: float = 0.95) -> PairedSigns:
    """The sign test of paired differences, and the interval of the median that goes with it.

    Were a difference as likely to be positive as negative, the number of negative ones would be binomial with 1/2;
    those that are 0 are left out. The k-th smallest and the k-th largest of n values enclose the median with
    probability 1 - 2 P(Bin(n, 1/2) <= k - 1) at least; the largest such k is taken (Thompson 1936).

    Args:
      differences: one for each of n random members, [n], none NaN.
      confidence: between 0 and 1.

    Returns:
      A `PairedSigns`.

    Raises:
      OptionError: numbers out of range, differences that are NaN or no vector.

    >>> found = dixon1946_sign_test([-3.0, -1.0, -2.0, -2.0, -5.0, -4.0])
    >>> found.below, found.median, (found.at_least, found.at_most), found.p_value
    (6, -2.5, (-5.0, -1.0), 0.03125)

    References: Dixon and Mood (1946), The statistical sign test; Journal of the American Statistical Association 41.
    Thompson (1936), On confidence ranges for the median; Annals of Math. Stat. 7.
    """
    from scipy.special import bdtr

    _check(confidence)
    ordered = _ordered(differences)
    below, above = int(np.sum(ordered < 0)), int(np.sum(ordered > 0))
    decided = below + above
    p_value = min(1.0, 2 * float(bdtr(min(below, above), decided, 0.5))) if decided else 1.0
    wrong = 2 * bdtr(np.arange(len(ordered) // 2, dtype=np.float64), len(ordered), 0.5)
    rank = int(np.sum(wrong <= 1 - confidence))
    limits = (float(ordered[rank - 1]), float(ordered[-rank])) if rank else (-math.inf, math.inf)
    median = float(np.median(ordered)) if len(ordered) else math.nan
    return PairedSigns(len(ordered), below, above, median, *limits, p_value)


class RankCorrelation(NamedTuple):
    """A rank correlation.

    Attributes:
      correlation: from -1 to 1.
      p_value: the probability of one at least as far from 0 if the two had nothing to do with each other.
    """

    correlation: float
    p_value: float


def spearman1904_correlation(values: ArrayLike, other: ArrayLike) -> RankCorrelation:
    """Spearman's rank correlation, equal values sharing their mean rank: 1 where each grows with the other.

    The p-value, two-sided, takes sqrt((n - 2) / (1 - r^2)) r for Student's t with n - 2 degrees of freedom: an
    approximation, good from about ten draws on.

    Args:
      values: one number for each of n random members, [n], none NaN.
      other: another, [n].

    Returns:
      A `RankCorrelation`; NaN for fewer than three members, and where all have one value.

    Raises:
      OptionError: values that are NaN or no vector, or not as many of one as of the other.

    >>> round(spearman1904_correlation([1.0, 2.0, 3.0, 4.0], [1.0, 8.0, 9.0, 2.0]).correlation, 4)
    0.4

    References: Spearman (1904); Kendall and Stuart (1973), The advanced theory of statistics, volume 2, section 31.19.
    """
    x, y = np.asarray(values, np.float64), np.asarray(other, np.float64)
    if len(_ordered(x)) != len(_ordered(y)):
        raise OptionError(
            f"a correlation is of two numbers for each text; got {len(x)} of one and {len(y)} of another."
        )
    if len(x) < 3 or x.min() == x.max() or y.min() == y.max():
        return RankCorrelation(math.nan, math.nan)
    # scipy.stats has this too, and takes longer to import than all else that a short run does on the host.
    from scipy.special import stdtr

    found = float(np.clip(np.corrcoef(_mean_ranks(x), _mean_ranks(y))[0, 1], -1, 1))
    with np.errstate(divide="ignore"):
        student = abs(found) * np.sqrt(np.float64(len(x) - 2) / np.float64(1 - found**2))
    return RankCorrelation(found, float(2 * stdtr(len(x) - 2, -student)))


def _mean_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]


def _check(number: float) -> None:
    if not 0 < number < 1:
        raise OptionError(f"share and confidence must be between 0 and 1, as in 0.95; got {number!r}.")


def _ordered(values: ArrayLike) -> NDArray[np.float64]:
    found = np.sort(np.asarray(values, np.float64))
    if found.ndim != 1 or np.any(np.isnan(found)):
        raise OptionError(f"values must be one number for each text, none of them NaN; got shape {found.shape}.")
    return found
