"""What the long experiments share, against scipy and by hand."""

import doctest
import json

import numpy as np
import pytest
import scipy.stats

from experiments import keeping


def test_examples():
    found = doctest.testmod(keeping)
    assert found.attempted >= 8
    assert found.failed == 0


def test_entries_are_computed_once_and_kept(tmp_path):
    calls = []

    def work(name: str):
        def compute() -> dict:
            calls.append(name)
            return {"value": [1.0, float("nan")], "name": name}

        return compute

    path = tmp_path / "entries.json"
    keeping.kept(path, {"a": work("a")}, doing="testing")
    found = keeping.kept(path, {"b": work("b"), "a": work("a")}, doing="testing")
    assert calls == ["a", "b"]
    assert list(found) == ["b", "a"]
    assert found["a"]["value"] == [1.0, None]
    assert set(json.loads(path.read_text())) == {"a", "b"}
    keeping.kept(path, {"a": work("a")}, doing="testing", again=True)
    assert calls == ["a", "b", "a"]
    assert set(json.loads(path.read_text())) == {"a", "b"}


def test_an_interrupted_run_keeps_what_it_had(tmp_path):
    def fails() -> dict:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keeping.kept(tmp_path / "x.json", {"a": lambda: {"value": 1}, "b": fails}, doing="testing")
    assert set(json.loads((tmp_path / "x.json").read_text())) == {"a"}


def test_rank_correlations_are_scipys():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, (2, 3, 20)).astype(float)
    expected = [scipy.stats.spearmanr(a, b).statistic for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(keeping.rank_correlation(x, y), expected, rtol=1e-12)
    assert np.isnan(keeping.rank_correlation(np.ones(5), np.arange(5.0)))


def test_partial_correlation_is_that_of_the_residuals():
    rng = np.random.default_rng(1)
    x, y, z = rng.standard_normal((3, 30))
    x, y = x + z, y - z
    ranks = [scipy.stats.rankdata(side) for side in (x, y, z)]
    design = np.stack([np.ones(30), ranks[2]], axis=1)
    left = [side - design @ np.linalg.lstsq(design, side, rcond=None)[0] for side in ranks[:2]]
    assert keeping.partial_rank_correlation(x, y, z) == pytest.approx(np.corrcoef(*left)[0, 1], abs=1e-12)
    plain = keeping.rank_correlation(x, y)
    assert keeping.partial_rank_correlation(x, y, np.full(30, 7.0)) == plain != keeping.rank_correlation(x, z)


def test_the_interval_of_a_mean_is_the_normal_one():
    values = np.random.default_rng(2).standard_normal(400)
    low, high = keeping.bootstrap(lambda k: values[k].mean(axis=1), 400, draws=4000)
    error = float(keeping.mean_and_error(values)[1])
    assert (low, high) == (pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error),
                           pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error))  # fmt: skip
    assert error == pytest.approx(values.std(ddof=1) / 20)


def test_nothing_known_gives_nan():
    low, high = keeping.interval(np.array([[np.nan, 1.0], [np.nan, 1.0]]))
    assert np.isnan(low[0])
    assert (low[1], high[1]) == (1, 1)
    assert np.isnan(keeping.mean_and_error(np.array([np.nan, np.nan]))[0])


def test_a_bar_in_a_cell_does_not_end_it():
    assert keeping.table(["mean |cos|"], [["0.5"]]).splitlines()[0] == r"| mean \|cos\| |"
