"""Paired differences against numbers known from elsewhere, and the rules of the verdicts at their edges."""

import math

import numpy as np
import pytest
import scipy.stats

from experiments.paper.verdicts import CONTRADICTED, MARGIN, OPEN, REPRODUCED, holm, paired

SLEEP = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
"""Student's (1908) own example: extra hours of sleep under the one drug less those under the other."""


def test_students_own_example():
    found = paired(SLEEP)
    # as R's t.test(extra ~ group, paired = TRUE) prints them
    assert (found.count, found.mean) == (10, pytest.approx(1.58))
    assert found.p == pytest.approx(0.002833, abs=1e-6)
    assert (found.low, found.high) == (pytest.approx(0.7001142, abs=1e-6), pytest.approx(2.4598858, abs=1e-6))
    assert found.effect == pytest.approx(4.0621 / math.sqrt(10), abs=1e-4)
    assert found.verdict == REPRODUCED
    assert paired([-x for x in SLEEP]).verdict == CONTRADICTED


@pytest.mark.parametrize("null", [0.0, MARGIN, 1.0])
def test_as_scipy_tests_one_sample(null):
    values = np.random.default_rng(0).normal(0.2, 1.0, 7)
    found, theirs = paired(values.tolist(), null=null), scipy.stats.ttest_1samp(values, null)
    assert found.p == pytest.approx(theirs.pvalue, rel=1e-12)
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval(0.95)), rel=1e-12)
    # the interval leaves the null out exactly where p is below 5%
    assert (found.low > null or found.high < null) == (found.p < 0.05)


def test_one_seed_decides_nothing():
    found = paired([0.3])
    assert (found.mean, found.low, found.high, found.verdict) == (0.3, -math.inf, math.inf, OPEN)
    assert math.isnan(found.p)
    assert paired([0.3, 0.31]).verdict == OPEN  # nor do two, though their interval lies above 0
    assert paired([0.3, 0.31]).low > 0


@pytest.mark.parametrize("value", [0.0, 0.1, -0.1])
def test_equal_differences_decide_nothing(value):
    found = paired([value] * 4)
    assert (found.mean, found.std, found.low, found.high, found.verdict) == (value, 0.0, value, value, OPEN)
    assert found.p == (0.0 if value else 1.0)
    assert found.verdict_by(found.p) == OPEN


@pytest.mark.parametrize("values", [[], [0.1, math.nan], [0.1, math.inf], [[0.1]]])
def test_what_is_no_difference_is_refused(values):
    with pytest.raises(ValueError, match="finite"):
        paired(values)


def test_costs_nothing_allows_for_a_point():
    values = [-0.004, -0.006, -0.005, -0.0045]
    assert paired(values).verdict == CONTRADICTED
    assert paired(values, null=MARGIN).verdict == REPRODUCED
    assert paired([4 * x for x in values], null=MARGIN).verdict == CONTRADICTED
    assert paired([2 * x for x in values], null=MARGIN).verdict == OPEN


def test_holm():
    # R: p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm")
    assert holm([0.05, 0.01, 0.03, 0.02, 0.04]) == pytest.approx([0.09, 0.05, 0.09, 0.08, 0.09])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
    first, second = holm([0.02, math.nan])  # a test that could not be made still counts as one of two
    assert first == pytest.approx(0.04)
    assert math.isnan(second)


def test_a_verdict_by_a_corrected_p():
    found = paired(SLEEP)
    assert found.verdict_by(0.05) == REPRODUCED
    assert found.verdict_by(0.051) == OPEN
    assert found.verdict_by(math.nan) == OPEN
    assert paired([-x for x in SLEEP]).verdict_by(0.01) == CONTRADICTED
