"""Distribution-free limits: against scipy and sums of binomials, and their coverage on populations that are hard."""

import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats

from jaxsmooth.errors import OptionError
from jaxsmooth.theory import clopper_pearson1934_limits, paired_difference, vovk2005_limit, wilks1941_limit
from jaxsmooth.theory.distribution_free import spearman1904_correlation

RUNS = 300
# So many runs miss the nominal coverage by more than this with a probability of about 1e-4.
SLACK = 3.8 * math.sqrt(0.95 * 0.05 / RUNS)
POPULATIONS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "Cauchy": lambda rng, shape: rng.standard_cauchy(shape),
    "two values": lambda rng, shape: (rng.uniform(size=shape) < 0.03).astype(np.float64),
    "ties": lambda rng, shape: rng.geometric(0.3, shape).astype(np.float64),
    "one value": lambda rng, shape: np.ones(shape),
}


def tail(count: int, draws: int, share: Fraction) -> Fraction:
    """P(Bin(draws, share) <= count), exactly."""
    return sum((math.comb(draws, k) * share**k * (1 - share) ** (draws - k) for k in range(count + 1)), Fraction(0))


@pytest.mark.parametrize(("count", "draws"), [(0, 1), (1, 1), (0, 20), (3, 20), (19, 20), (20, 20), (2, 50)])
def test_limits_of_a_share_solve_their_equation(count, draws):
    found = clopper_pearson1934_limits(count, draws)
    if count < draws:
        assert float(tail(count, draws, Fraction(found.at_most))) == pytest.approx(0.05, rel=1e-9)
    else:
        assert found.at_most == 1
    if count:
        assert float(1 - tail(count - 1, draws, Fraction(found.at_least))) == pytest.approx(0.05, rel=1e-9)
    else:
        assert found.at_least == 0


def test_a_known_number():
    """None of 299: 1 - 0.05^(1/299), under 1 %; of 298 it is not."""
    assert clopper_pearson1934_limits(0, 299).at_most == pytest.approx(1 - 0.05 ** (1 / 299), rel=1e-12)
    assert clopper_pearson1934_limits(0, 299).at_most < 0.01 < clopper_pearson1934_limits(0, 298).at_most
    assert clopper_pearson1934_limits(0, 0) == (0, 1)


@pytest.mark.parametrize("draws", [1, 2, 7, 40])
@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_coverage_of_a_share_is_exact_and_never_short(draws, confidence):
    """Summed over all counts, not simulated: at every share the limit covers it at least so often."""
    limits = [clopper_pearson1934_limits(count, draws, confidence) for count in range(draws + 1)]
    for share in np.linspace(0.001, 0.999, 31):
        weight = scipy.stats.binom.pmf(np.arange(draws + 1), draws, share)
        assert sum(w for w, own in zip(weight, limits, strict=True) if own.at_most >= share) >= confidence - 1e-12
        assert sum(w for w, own in zip(weight, limits, strict=True) if own.at_least <= share) >= confidence - 1e-12
    tight = [own.at_most for own in limits[:-1]]
    for count, share in enumerate(tight):  # next to a limit the coverage is the confidence: nothing is given away
        assert scipy.stats.binom.cdf(count, draws, share) == pytest.approx(1 - confidence, rel=1e-6)


@pytest.mark.parametrize("draws", [0, 1, 5, 6, 7, 40, 201])
@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_the_interval_of_a_median_is_the_narrowest_that_covers(draws, confidence):
    """By order statistics of 1 ... n: P(both ends on one side of the median) is exact, and one rank more would fail."""
    found = paired_difference(np.arange(1.0, draws + 1), np.zeros(draws), confidence)
    rank = 0 if math.isinf(found.median_low) else int(found.median_low)
    assert math.isinf(found.median_low) == math.isinf(found.median_high)
    assert rank == 0 or found.median_high == draws + 1 - rank
    if rank:
        assert 1 - 2 * tail(rank - 1, draws, Fraction(1, 2)) >= confidence
    assert draws < 2 * (rank + 1) or 1 - 2 * tail(rank, draws, Fraction(1, 2)) < confidence


@pytest.mark.parametrize(("below", "above", "ties"), [(5, 0, 0), (9, 1, 3), (2, 2, 0), (0, 0, 4), (30, 70, 1)])
def test_the_sign_test_is_scipys(below, above, ties):
    differences = np.array([*below * [-1.0], *above * [2.0], *ties * [0.0]])
    found = paired_difference(differences, np.zeros_like(differences))
    assert (found.lower, found.equal, found.higher) == (below, ties, above)
    expected = scipy.stats.binomtest(below, below + above).pvalue if below + above else 1.0
    assert found.p_value == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", POPULATIONS)
@pytest.mark.parametrize("draws", [1, 10, 200])
def test_coverage_of_tolerance_limits_and_predictions(name, draws):
    _covered(name, draws, RUNS)


@pytest.mark.long
@pytest.mark.parametrize("name", POPULATIONS)
@pytest.mark.parametrize("draws", [1, 10, 59, 200])
def test_coverage_in_many_more_runs(name, draws):
    _covered(name, draws, 10_000)


def _covered(name, draws, runs):
    rng, slack = np.random.default_rng(draws), 3.8 * math.sqrt(0.95 * 0.05 / runs)
    values = POPULATIONS[name](rng, (runs, draws))
    many = np.sort(POPULATIONS[name](rng, 200_000))
    limits = np.array([wilks1941_limit(own) for own in values])
    shares = np.searchsorted(many, limits, side="right") / len(many)
    # The population's share is itself known to within 0.0015 or so.
    assert np.mean(shares >= 0.95 - 0.002) >= 0.95 - slack
    following = POPULATIONS[name](rng, runs)
    assert np.mean(following <= [vovk2005_limit(own) for own in values]) >= 0.95 - slack


def test_limits_are_not_wider_than_they_must_be():
    """Of a continuous population: the tolerance limit's and the prediction's coverage are next to nominal."""
    rng = np.random.default_rng(0)
    values, following = rng.uniform(size=(RUNS, 199)), rng.uniform(size=RUNS)
    assert abs(np.mean(following <= [vovk2005_limit(own) for own in values]) - 0.95) < SLACK
    covered = np.mean([wilks1941_limit(own) >= 0.95 for own in values])
    ranks = [k for k in range(1, 200) if scipy.stats.binom.cdf(k - 1, 199, 0.95) >= 0.95]
    assert abs(covered - scipy.stats.binom.cdf(ranks[0] - 1, 199, 0.95)) < SLACK


def test_a_finite_corpus_without_repetition():
    """60 of 200 texts: the limits are about the corpus."""
    rng = np.random.default_rng(1)
    corpus = np.concatenate([np.ones(12), np.zeros(188)])
    found = [clopper_pearson1934_limits(int(rng.choice(corpus, 60, replace=False).sum()), 60) for _ in range(RUNS)]
    assert np.mean([own.at_most >= 12 / 200 for own in found]) >= 0.95 - SLACK
    assert np.mean([own.at_least <= 12 / 200 for own in found]) >= 0.95 - SLACK


@pytest.mark.parametrize("ties", [False, True])
def test_rank_correlation_is_that_of_scipy(ties):
    for count in (3, 4, 10, 200):
        pair = np.random.default_rng(count).standard_normal((2, count))
        x, y = np.round(2 * pair) if ties else pair
        x[:2] = 7.0, -7.0  # never all one value
        y[:2] = -7.0, 7.0
        found, theirs = spearman1904_correlation(x, y), scipy.stats.spearmanr(x, y)
        assert found.correlation == pytest.approx(theirs.statistic, rel=1e-12, abs=1e-15)
        assert found.p_value == pytest.approx(theirs.pvalue, rel=1e-9, abs=1e-15)
    assert spearman1904_correlation([1.0, 2.0, 3.0], [4.0, 8.0, 9.0]) == (1.0, 0.0)


def test_too_few_texts_bound_nothing():
    assert wilks1941_limit([]) == vovk2005_limit([]) == wilks1941_limit([1.0] * 58) == vovk2005_limit([1.0] * 18)
    assert wilks1941_limit([]) == math.inf
    assert wilks1941_limit([3.0] * 59) == vovk2005_limit([3.0] * 19) == 3.0


def test_texts_that_are_no_random_sample_may_be_missed():
    """A file in the order of its lengths: its first lines say nothing of the others."""
    file = np.arange(1000.0)
    assert np.mean(file <= vovk2005_limit(file[:100])) < 0.1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: clopper_pearson1934_limits(3, 2), "count must be from 0 to draws; got 3 of 2"),
        (lambda: clopper_pearson1934_limits(1, 2, 95.0), "between 0 and 1, as in 0.95; got 95"),
        (lambda: wilks1941_limit([1.0], share=1.0), "between 0 and 1"),
        (lambda: vovk2005_limit([1.0, math.nan]), "none of them NaN"),
        (lambda: wilks1941_limit(np.ones((2, 2))), "one number for each text"),
        (lambda: spearman1904_correlation([1.0, 2.0], [1.0]), "got 2 of one and 1 of another"),
        (lambda: spearman1904_correlation([1.0, math.nan], [1.0, 2.0]), "none of them NaN"),
        (lambda: paired_difference([1.0, 2.0], [1.0]), r"got shapes \(2,\) and \(1,\)"),
        (lambda: paired_difference([1.0], [1.0], confidence=95.0), "between 0 and 1"),
    ],
)
def test_what_is_out_of_range_is_refused(call, message):
    with pytest.raises(OptionError, match=message):
        call()


def test_paired_differences_against_scipy():
    rng = np.random.default_rng(2)
    first, other = rng.gamma(2.0, size=40), rng.gamma(2.3, size=40)
    other[:3] = first[:3]
    found = paired_difference([*first, math.nan, 1.0, math.inf], [*other, 1.0, math.nan, 1.0])
    student = scipy.stats.ttest_rel(first, other).confidence_interval(0.95)
    assert (found.mean_low, found.mean_high) == pytest.approx((student.low, student.high), rel=1e-12)
    assert found.standard_error == pytest.approx(scipy.stats.sem(first - other), rel=1e-12)
    counts = tuple(int(np.sum(each)) for each in (first < other, first == other, first > other))
    assert (found.lower, found.equal, found.higher, found.texts) == (*counts, 40)
    sign = scipy.stats.binomtest(counts[0], counts[0] + counts[2])
    assert found.p_value == pytest.approx(sign.pvalue, rel=1e-12)
    share = scipy.stats.binomtest(counts[0], 40).proportion_ci(0.95, "exact")
    assert (found.share_low, found.share_high) == pytest.approx((share.low, share.high), rel=1e-9)
    exact = scipy.stats.quantile_test(first - other, q=0, p=0.5).confidence_interval(0.95)
    assert (found.median_low, found.median_high) == (exact.low, exact.high)


@pytest.mark.parametrize("name", POPULATIONS)
def test_the_median_s_interval_holds_the_median_of_any_population(name):
    rng = np.random.default_rng(3)
    draws, many = POPULATIONS[name](rng, (RUNS, 2, 25)), POPULATIONS[name](rng, (2, 40_001))
    median = np.median(many[0] - many[1])
    found = [paired_difference(*draw) for draw in draws]
    # The median of a continuous difference is 0; of the others it is that of many draws.
    median = 0.0 if name in ("normal", "Cauchy") else median
    assert np.mean([own.median_low <= median <= own.median_high for own in found]) >= 0.95 - SLACK
    # Both sides are as likely, so at most 5 % of the tests may say otherwise.
    assert np.mean([own.p_value < 0.05 for own in found]) <= 0.05 + SLACK


def test_few_pairs_bound_little():
    none, one = paired_difference([], []), paired_difference([2.0], [1.0])
    assert (none.texts, none.p_value, none.share_low, none.share_high) == (0, 1.0, 0.0, 1.0)
    assert math.isnan(none.mean)
    assert (one.mean, one.higher, one.p_value) == (1.0, 1, 1.0)
    assert math.isnan(one.standard_error)
    five, six = paired_difference([1.0] * 5, [0.0] * 5), paired_difference([1.0] * 6, [0.0] * 6)
    assert (five.median_low, five.median_high) == (-math.inf, math.inf)
    assert (six.median_low, six.median_high, six.p_value) == (1.0, 1.0, 2 / 64)
