"""The referee refereed: closed forms and orderings of the independent implementation."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize
from support import reference, reference_ladder
from support.make_frozen import RANDOM
from support.parity import frozen_model


def frozen_sentences(expected: dict[str, np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    lengths = expected["mask"].sum(axis=1)
    return [(expected["tokens"][b, :n], expected["segments"][b, :n]) for b, n in enumerate(lengths)]


@pytest.mark.parametrize("name", RANDOM)
def test_every_rung_bounds_the_one_below(name):
    tensors, config, expected = frozen_model(name)
    weights = reference.Weights(tensors, config)
    layers = [reference_ladder.Layer(weights, k) for k in range(weights.layers)]
    for sentence in frozen_sentences(expected):
        rungs = reference_ladder.ladder(layers, reference.forward(tensors, config, *sentence))
        for below, above in zip(reference_ladder.RATES, reference_ladder.RATES[1:], strict=False):
            assert np.all(rungs[below] <= rungs[above] * (1 + 1e-12)), (below, above)


@pytest.mark.parametrize("name", ["gelu-many-heads", "silu-deep"])
def test_matrix_free_and_dense_norms_agree(name, monkeypatch):
    tensors, config, expected = frozen_model(name)
    dense = reference_ladder.diagnose(tensors, config, frozen_sentences(expected))["L3"]
    monkeypatch.setattr(reference_ladder, "DENSE_LIMIT", 0)
    free = reference_ladder.diagnose(tensors, config, frozen_sentences(expected))["L3"]
    np.testing.assert_allclose(free["mean"], dense["mean"], rtol=1e-12)


def test_largest_slopes():
    exact = 0.5 * (1 + math.erf(1)) + math.exp(-1) / math.sqrt(math.pi)
    found = {name: reference_ladder.largest_slope(name) for name in ("relu", "gelu", "gelu_new", "silu")}
    assert found == pytest.approx(
        {"relu": 1.0, "gelu": exact, "gelu_new": 1.1289930687, "silu": 1.0998393201}, rel=1e-10
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_composite_minimiser_beats_other_centres_and_a_direct_search(seed):
    x = np.random.default_rng(seed).standard_normal((5, 3))
    best = reference.smallest_composite_residual(x)
    total = reference.composite_norm(x)
    for centre in ("mean", "median"):
        assert best <= reference.dong_residual(x, centre) * total + 1e-9
    options = {"fatol": 1e-10, "maxfev": 4000}
    starts = (x.mean(axis=0), np.median(x, axis=0), *x)
    searches = [
        minimize(lambda c: reference.composite_norm(x - c), start, method="Nelder-Mead", options=options)
        for start in starts
    ]
    assert min(search.fun for search in searches) == pytest.approx(best, rel=1e-4)


def test_the_median_centre_minimises_the_column_norm():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((7, 4))  # odd, so that the median is unique
    least = np.abs(x - np.median(x, axis=0)).sum(axis=0).max()
    assert all(least <= np.abs(x - rng.standard_normal(4)).sum(axis=0).max() for _ in range(1000))


def test_energies_agree_with_their_closed_forms():
    x = np.random.default_rng(1).standard_normal((7, 5))
    assert reference.dirichlet_energy(x) == pytest.approx(2 * reference.subspace_distance(x) ** 2)
    pairs = reference.mean_average_distance(x, "pairs")
    assert pairs == pytest.approx(1 - reference.token_cosine_similarity(x))
    assert reference.mean_average_distance(x, "neighbours") == pytest.approx(6 * pairs)


def test_ranks_of_known_matrices():
    assert reference.effective_rank(np.eye(4)) == pytest.approx(4)
    assert reference.stable_rank(np.diag([2.0, 1.0, 1.0])) == pytest.approx(1.5)
    assert reference.effective_rank(np.ones((3, 4))) == pytest.approx(1)


def test_attention_extremes():
    uniform = np.full((4, 4), 0.25)
    assert reference.mixing_rate(uniform) == pytest.approx(0, abs=1e-15)
    assert reference.ergodicity_coefficient(uniform) == 0
    assert reference.attention_entropy(uniform) == pytest.approx(math.log(4))
    assert reference.mixing_rate(np.eye(4)) == pytest.approx(1)
    assert reference.ergodicity_coefficient(np.eye(4)) == 1
    assert reference.attention_entropy(np.eye(4)) == 0
