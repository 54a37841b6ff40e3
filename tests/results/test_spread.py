"""Running spreads against numpy on all values at once, however they are cut into batches."""

import numpy as np
import pytest

from jaxsmooth.results.spread import RunningSpread, RunningSpreads

FIELDS = ("mean", "std", "min", "max")


@pytest.mark.parametrize("cuts", [[], [1, 2], [5, 6, 11]], ids=["one batch", "three", "four"])
def test_batches_merge_to_the_spread_of_the_whole(cuts):
    values = 1e6 + np.random.default_rng(0).standard_normal((3, 12, 2))
    values[0, 2:7] = np.nan
    running = RunningSpread()
    for part in np.split(values, cuts, axis=1):
        running.add(part)
    spread = running.spread()
    expected = (np.nanmean(values, axis=1), np.nanstd(values, axis=1), np.nanmin(values, axis=1))
    np.testing.assert_allclose(spread.mean, expected[0], rtol=1e-15)
    np.testing.assert_allclose(spread.std, expected[1], rtol=1e-9)  # a difference of values near 1e6
    np.testing.assert_array_equal(spread.min, expected[2])
    np.testing.assert_array_equal(spread.max, np.nanmax(values, axis=1))
    np.testing.assert_array_equal(spread.count, [[7, 7], [12, 12], [12, 12]])


def test_what_has_no_value_is_nan_with_count_0():
    running = RunningSpread()
    running.add(np.full((2, 3), np.nan))
    spread = running.spread()
    assert np.isnan([getattr(spread, field) for field in FIELDS]).all()
    assert spread.count.tolist() == [0, 0]


def test_infinite_values_are_left_out_if_asked_for():
    values = np.array([[[1.0], [3.0], [np.inf], [np.nan]], [[np.nan]] * 4])
    running = RunningSpreads(finite=True)
    running.add({"x": values}, 4)
    spread = running.spreads()["x"]
    assert (spread.mean[0, 0], spread.std[0, 0], spread.min[0, 0], spread.max[0, 0]) == (2, 1, 1, 3)
    assert spread.count.ravel().tolist() == [2, 0]
    assert np.isnan([spread.mean[1, 0], spread.max[1, 0]]).all()
    whole = RunningSpreads()
    with np.errstate(invalid="ignore"):  # inf - inf
        whole.add({"x": values[:1]}, 4)
    assert (whole.spreads()["x"].max.item(), whole.spreads()["x"].count.item()) == (np.inf, 3)


def test_the_rows_that_fill_a_batch_do_not_count():
    running = RunningSpreads()
    running.add({"x": np.array([[1.0, 2.0, 9.0]])}, 2)
    assert running.spreads()["x"].max.tolist() == [2.0]


def test_a_spread_can_be_cut_and_reshaped():
    running = RunningSpread()
    running.add(np.arange(12.0).reshape(4, 3))
    cut = running.spread().map(lambda field: field.reshape(2, 2)[1])
    assert (cut.mean.tolist(), cut.count.tolist()) == ([7.0, 10.0], [3, 3])
