"""Attention of normal scores against random draws: of small n, of the limit process, and of n = e^10000."""

import jax
import numpy as np
import pytest
import scipy.special
from support.matrices import GARBAGE

from jaxsmooth.theory import giorlandino2025_exponents, giorlandino2025_participation, giorlandino2025_temperature

TEMPERATURE = jax.jit(giorlandino2025_temperature)


def squares_of(logits: np.ndarray) -> np.ndarray:
    """sum a^2 along the last axis."""
    return np.sum(scipy.special.softmax(logits, axis=-1) ** 2, axis=-1)


def test_the_measure_is_that_of_the_definition():
    """Per query over the keys that it sees, under padding on both sides and a causal mask."""
    rng = np.random.default_rng(0)
    logits = 10 ** rng.uniform(-1, 1, (20, 2, 1, 1)) * rng.standard_normal((20, 2, 8, 8)) + rng.normal(
        0, 9, (20, 2, 8, 1)
    )
    mask = (np.arange(8) >= rng.integers(0, 4, (20, 1))) & (np.arange(8) < rng.integers(4, 9, (20, 1)))
    seen = np.tri(8, dtype=bool) | (np.arange(20) < 10)[:, None, None, None]
    shown = np.where(mask[:, None, :, None] & mask[:, None, None, :], np.where(seen, logits, -np.inf), GARBAGE)
    found = TEMPERATURE(shown, mask)
    for k in range(20):
        for head in range(2):
            rows = [np.r_[row[mask[k]]] for row in shown[k, head][mask[k]]]
            rows = [row[row > -np.inf] for row in rows if np.sum(row > -np.inf) > 1]
            beta = [np.std(row) / np.sqrt(np.log(len(row))) for row in rows]
            expected = [np.mean(beta) if rows else 0, np.mean([squares_of(row) for row in rows]) if rows else 0]
            np.testing.assert_allclose([found[0][k, head], found[1][k, head]], expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(TEMPERATURE(np.where(shown == GARBAGE, -3.0, shown), mask)[1], found[1])


def test_of_normal_scores_it_finds_their_temperature():
    """400 queries of 4,000 keys: the std to four standard errors; the softmax's squares to those of e^(s^2) / n."""
    rng, keys, beta = np.random.default_rng(1), 4000, 0.4
    std = beta * np.sqrt(np.log(keys))
    logits = std * rng.standard_normal((400, keys)) + rng.standard_normal((400, 1))
    square = np.zeros((keys, keys))
    square[:400] = logits
    mask = np.arange(keys) < 400
    seen = scipy.special.softmax(logits[:, :400], axis=1)
    found = TEMPERATURE(square[:400, :400], mask[:400])
    spread = beta * np.sqrt(np.log(keys) / np.log(400))
    assert float(found[0]) == pytest.approx(spread, abs=4 * spread / np.sqrt(2 * 400 * 400) + spread / 800)
    assert float(found[1]) == pytest.approx(np.mean(np.sum(seen**2, axis=1)), rel=1e-12)
    many = squares_of(logits)
    assert many.mean() * keys / np.exp(std**2) == pytest.approx(1, abs=4 * many.std() / many.mean() / 20 + 0.02)
    # The exponent of the limit, up to what sqrt(n) and the variance leave.
    assert -np.log(many.mean()) / np.log(keys) == pytest.approx(1 - beta**2, abs=0.01)
    assert float(giorlandino2025_exponents(np.float64(beta))[0]) == pytest.approx(1 - beta**2)


@pytest.mark.parametrize("beta", [1.6, 2.0, 4.0])
def test_the_frozen_phase_is_that_of_the_limit_process(beta):
    """Weights of a Poisson process of intensity x^(-1-m), m = 2^(1/2) / beta: E sum a^2 = 1 - m."""
    rng, m = np.random.default_rng(2), np.sqrt(2) / beta
    arrivals = np.cumsum(rng.exponential(size=(2000, 1500)), axis=1)
    points = arrivals ** (-1 / m)
    # What lies beyond the last point, in expectation.
    rest = arrivals[:, -1] ** (1 - 1 / m) / (1 / m - 1)
    found = np.sum(points**2, axis=1) / (points.sum(axis=1) + rest) ** 2
    error = found.std() / np.sqrt(len(found))
    assert float(giorlandino2025_participation(np.float64(beta))) == pytest.approx(found.mean(), abs=4 * error)


def drawn(rng: np.random.Generator, log_keys: float, beta: float, draws: int, points: int) -> tuple[np.ndarray, float]:
    """sum a^2 of e^log_keys normal scores: the largest drawn, from Poisson's arrivals, all others in expectation."""
    arrivals = np.log(np.cumsum(rng.exponential(size=(draws, points)), axis=1))
    largest, std = -scipy.special.ndtri_exp(arrivals - log_keys), beta * np.sqrt(log_keys)
    last = largest[:, -1:]

    def rest(power: float) -> np.ndarray:
        return log_keys + (power * std) ** 2 / 2 + scipy.special.log_ndtr(last - power * std)

    whole = scipy.special.logsumexp(np.concatenate([std * largest, rest(1)], axis=1), axis=1)
    square = scipy.special.logsumexp(np.concatenate([2 * std * largest, rest(2)], axis=1), axis=1)
    return square - 2 * whole, std


@pytest.mark.parametrize("beta", [0.3, 0.7, 1.0, 1.3])
def test_the_exponents_at_very_many_keys(beta):
    """n = e^10000, where log log n / log n is 0.001."""
    log_squares, _ = drawn(np.random.default_rng(3), 1e4, beta, 20, 2000)
    assert np.median(-log_squares) / 1e4 == pytest.approx(
        float(giorlandino2025_exponents(np.float64(beta))[0]), abs=3e-3
    )


@pytest.mark.parametrize("beta", [1.8, 2.5])
def test_participation_at_very_many_keys_and_at_few(beta):
    """At e^10000 keys the limit, at 50 not yet: there a share is lost."""
    squares = np.exp(drawn(np.random.default_rng(4), 1e4, beta, 2000, 500)[0])
    limit = float(giorlandino2025_participation(np.float64(beta)))
    assert limit == pytest.approx(squares.mean(), abs=4 * squares.std() / np.sqrt(2000) + 2e-3)
    few = squares_of(beta * np.sqrt(np.log(50)) * np.random.default_rng(5).standard_normal((4000, 50)))
    assert few.mean() > limit + 0.05


def test_the_entropy_of_the_limit():
    """From its definition: log n - (log Z - std^2 / 2 ...) of the annealed sums, which hold below 2^(1/2)."""
    rng, keys = np.random.default_rng(6), 200_000
    for beta in (0.2, 0.5):
        weights = scipy.special.softmax(beta * np.sqrt(np.log(keys)) * rng.standard_normal((10, keys)), axis=1)
        entropy = -np.sum(weights * np.log(weights), axis=1).mean() / np.log(keys)
        assert float(giorlandino2025_exponents(np.float64(beta))[1]) == pytest.approx(entropy, abs=5e-3)
    assert [float(x) for x in giorlandino2025_exponents(np.float64(3.0))] == [0, 0]


def test_no_std_is_negative():
    for beta in (np.float64(-1e-9), np.float64(-3.0), np.float64(np.nan)):
        assert np.isnan([giorlandino2025_participation(beta), *giorlandino2025_exponents(beta)]).all()
    for beta, share, exponents in ((0.0, 0, (1, 1)), (np.inf, 1, (0, 0))):
        assert float(giorlandino2025_participation(np.float64(beta))) == share
        assert tuple(map(float, giorlandino2025_exponents(np.float64(beta)))) == exponents


def test_scores_that_are_not_normal_or_not_independent_have_another_threshold():
    """Two values only: half the keys share, at any temperature. One number: uniform. Heavy tails: one key."""
    rng, keys = np.random.default_rng(7), 4000
    std = 3 * np.sqrt(np.log(keys))  # beta = 3, where normal scores leave 0.53
    assert squares_of(std * rng.choice([-1.0, 1.0], keys)) < 3 / keys
    assert squares_of(np.full(keys, std * rng.standard_normal())) == pytest.approx(1 / keys)
    # Laplace's, of beta = 0.7 as above: the largest of n grows like log n, not like its root.
    tails = 0.7 * np.sqrt(np.log(keys) / 2) * rng.laplace(size=(200, keys))
    assert squares_of(tails).mean() > 0.2
    assert float(giorlandino2025_participation(np.float64(0.7))) == 0
