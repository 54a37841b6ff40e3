"""From some texts to all of their kind: bounds with confidence that assume nothing about how values are distributed.

The bounds need the same of the texts: that they are random draws of the population that is meant, independent or
at least exchangeable. For draws of a finite corpus without repetition, all hold of the corpus. Ties make them cautious,
never wrong. The correlation needs as much for its p-value. Two numbers of every text, as with and without a remedy, are
compared text by text: `paired_difference`. Host only, numpy.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import OptionError, arguments_checked


class ShareLimits(NamedTuple):
    """Limits of a share of the population, each with its confidence by itself.

    Attributes:
      at_least: the share is at least this.
      at_most: the share is at most this.
    """

    at_least: float
    at_most: float


@arguments_checked
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


@arguments_checked
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


@arguments_checked
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


class PairedDifference(NamedTuple):
    """How one number of each text differs from another of the same text, first less second.

    Attributes:
      texts: how many have both numbers, finite; the others are left out.
      mean: mean difference.
      standard_error: of the mean, std / sqrt(texts - 1) with the divisor `texts` in the std; NaN for fewer than two.
      mean_low: the mean difference over all such texts is at least this, and
      mean_high: at most this: Student's interval, for which the MEAN must be nearly normal. It is from some 30 texts on
        unless a few differences are far larger than all others.
      median: median difference.
      median_low: the median over all such texts is at least this, and
      median_high: at most this, with the confidence or more, however differences are distributed; infinite where the
        texts are too few (fewer than 6 for 0.95).
      lower: in how many texts the first number is below the second,
      equal: in how many it is equal, and
      higher: in how many above.
      share_lower: `lower` over `texts`.
      share_low: at least this share of all such texts has a first number below the second, and
      share_high: at most this share; the two together with the confidence.
      p_value: of the exact sign test, two-sided: the probability of so uneven a split of `lower` and `higher` or a more
        uneven one, if above and below were as likely in every text. Texts with equal numbers take no part.
    """

    texts: int
    mean: float
    standard_error: float
    mean_low: float
    mean_high: float
    median: float
    median_low: float
    median_high: float
    lower: int
    equal: int
    higher: int
    share_lower: float
    share_low: float
    share_high: float
    p_value: float


@arguments_checked
def paired_difference(values: ArrayLike, other: ArrayLike, confidence: float = 0.95) -> PairedDifference:
    """Two numbers of each text compared text by text: mean and median difference, shares, a test.

    Differences of the same text leave out what makes texts differ from each other, so far fewer texts show an effect
    than two means with their deviations would need. The median's interval is the k-th smallest and the k-th largest
    difference, k the largest with P(Bin(n, 1/2) <= k - 1) at most (1 - confidence) / 2; it, the share's limits (Clopper
    and Pearson) and the p-value assume nothing about how differences are distributed.

    Args:
      values: the first number of each text, [n]; NaN or infinite where there is none.
      other: the second, [n].
      confidence: of each interval by itself, between 0 and 1.

    Returns:
      A `PairedDifference`; NaN, with limits of 0 and 1 or infinity and a p-value of 1, where no text has both.

    Raises:
      OptionError: numbers of different texts (unequal lengths), or a confidence out of range.

    >>> found = paired_difference([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2.0, 4.0, 6.0, 8.0, 10.0, 12.0])
    >>> found.mean, found.median, found.lower, found.p_value, (found.median_low, found.median_high)
    (-3.5, -3.5, 6, 0.03125, (-6.0, -1.0))

    References: Arbuthnott (1710) for the sign test; Thompson (1936), On confidence ranges for the median, Annals of
    Math. Stat. 7; Student (1908), The probable error of a mean, Biometrika 6.
    """
    from scipy.special import bdtr

    _check(confidence)
    x, y = np.asarray(values, np.float64), np.asarray(other, np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise OptionError(
            f"values and other must be one number each of the same texts; got shapes {x.shape} and {y.shape}. "
            "Were both kept, of the same texts in the same order?"
        )
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    apart, texts = np.sort(x - y), len(x)
    lower, higher = int(np.sum(x < y)), int(np.sum(x > y))
    mean, error, mean_low, mean_high = _mean(apart, confidence)
    outside = bdtr(np.arange(texts, dtype=np.float64), texts, 0.5) <= (1 - confidence) / 2 if texts else np.zeros(0)
    k = int(np.sum(outside))
    side = (1 + confidence) / 2
    share = clopper_pearson1934_limits(lower, texts, side)
    uneven = float(bdtr(float(min(lower, higher)), lower + higher, 0.5)) if lower + higher else 1.0
    return PairedDifference(
        texts=texts,
        mean=mean,
        standard_error=error,
        mean_low=mean_low,
        mean_high=mean_high,
        median=float(np.median(apart)) if texts else math.nan,
        median_low=float(apart[k - 1]) if k else -math.inf,
        median_high=float(apart[texts - k]) if k else math.inf,
        lower=lower,
        equal=texts - lower - higher,
        higher=higher,
        share_lower=lower / texts if texts else math.nan,
        share_low=share.at_least,
        share_high=share.at_most,
        p_value=min(1.0, 2 * uneven),
    )


def _mean(apart: NDArray[np.float64], confidence: float) -> tuple[float, float, float, float]:
    """Mean, its standard error, and the ends of Student's interval."""
    from scipy.special import stdtrit

    if len(apart) == 0:
        return math.nan, math.nan, -math.inf, math.inf
    mean = float(np.mean(apart))
    if len(apart) == 1:
        return mean, math.nan, -math.inf, math.inf
    error = float(np.std(apart, ddof=1)) / math.sqrt(len(apart))
    reach = float(stdtrit(len(apart) - 1, (1 + confidence) / 2)) * error
    return mean, error, mean - reach, mean + reach


def _check(number: float) -> None:
    if not 0 < number < 1:
        raise OptionError(f"share and confidence must be between 0 and 1, as in 0.95; got {number!r}.")


def _ordered(values: ArrayLike) -> NDArray[np.float64]:
    found = np.sort(np.asarray(values, np.float64))
    if found.ndim != 1 or np.any(np.isnan(found)):
        raise OptionError(f"values must be one number for each text, none of them NaN; got shape {found.shape}.")
    return found
