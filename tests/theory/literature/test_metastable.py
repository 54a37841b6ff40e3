"""Which clusters appear first on a sphere: growth rates against a flow of many tokens, and their number."""

import numpy as np
import pytest
import scipy.special

from jaxsmooth.errors import OptionError
from jaxsmooth.theory import bruno2024_degree, bruno2024_growth

TOKENS = 60


def velocity(turns: np.ndarray, beta: float) -> np.ndarray:
    """Of tokens on the circle, softmax attention: d theta_i / dt = sum_j A_ij sin(theta_j - theta_i)."""
    apart = turns[None] - turns[:, None]
    weights = scipy.special.softmax(beta * np.cos(apart), axis=1)
    return np.sum(weights * np.sin(apart), axis=1)


def flow(turns: np.ndarray, beta: float, time: float, steps: int) -> np.ndarray:
    width = time / steps
    for _ in range(steps):
        k1 = velocity(turns, beta)
        k2 = velocity(turns + width / 2 * k1, beta)
        k3 = velocity(turns + width / 2 * k2, beta)
        k4 = velocity(turns + width * k3, beta)
        turns = turns + width / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return turns


def even() -> np.ndarray:
    return 2 * np.pi * np.arange(TOKENS) / TOKENS


@pytest.mark.parametrize("beta", [0.0, 1.0, 5.0, 20.0])
def test_ripples_on_even_tokens_grow_as_predicted(beta):
    """Each degree by itself, from 1e-6, for a unit of time."""
    found = bruno2024_growth(beta, 2, 5)
    for degree in (1, 2, 3, 5):
        start = even() + 1e-6 * np.cos(degree * even())
        end = flow(start, beta, 1.0, 20) - even()
        grown = 2 * np.mean(end * np.cos(degree * even())) / 1e-6
        assert np.log(abs(grown)) == pytest.approx(found[degree - 1], abs=2e-5)


@pytest.mark.parametrize("dimension", [3, 8, 32])
def test_in_more_dimensions_they_are_the_integrals(dimension):
    """lambda_k from Gegenbauer's polynomials and quadrature; and Bessel's functions for all orders."""
    nodes, weights = scipy.special.roots_gegenbauer(120, dimension / 2 - 1)
    for beta in (0.5, 5.0, 40.0):
        kernel = weights * np.exp(beta * (nodes - 1))
        k = np.arange(1, 7)
        ratios = [np.sum(kernel * gegenbauer(m, dimension, nodes)) / np.sum(kernel) for m in k]
        found, factor = bruno2024_growth(beta, dimension, 6), k * (k + dimension - 2) / beta
        np.testing.assert_allclose(found, factor * ratios, rtol=1e-9, atol=1e-11)
        orders = scipy.special.ive(k + dimension / 2 - 1, beta) / scipy.special.ive(dimension / 2 - 1, beta)
        np.testing.assert_allclose(found, factor * orders, rtol=1e-11)


def gegenbauer(degree: int, dimension: int, nodes: np.ndarray) -> np.ndarray:
    """Over its value at 1."""
    alpha = dimension / 2 - 1
    return scipy.special.eval_gegenbauer(degree, alpha, nodes) / scipy.special.eval_gegenbauer(degree, alpha, 1.0)


def camps(turns: np.ndarray, apart: float) -> int:
    """Groups of tokens on the circle, by gaps."""
    gaps = np.diff(np.sort(turns % (2 * np.pi)), append=np.min(turns % (2 * np.pi)) + 2 * np.pi)
    return max(1, int(np.sum(gaps > apart)))


@pytest.mark.parametrize(("beta", "clusters"), [(1.0, 1), (5.0, 3), (12.0, 5)])
def test_as_many_clusters_appear_first(beta, clusters):
    """From even tokens and faint noise, with all degrees alike; a nearly even start keeps each cluster's symmetry."""
    assert bruno2024_degree(beta) == clusters
    rng = np.random.default_rng(1)
    degrees = np.arange(1, 9)
    noise = np.cos(degrees * even()[:, None] + rng.uniform(0, 2 * np.pi, 8)).sum(axis=1)
    rate = bruno2024_growth(beta, 2, 8).max()
    # Long enough for the fastest to grow from 1e-8 to the size of the circle, and then to gather.
    end = flow(even() + 1e-8 * noise, beta, 18 / rate + 6, 700)
    assert camps(end, 2 * np.pi / clusters / 2 if clusters > 1 else 2.0) == clusters


def test_a_start_that_is_not_even_leads_elsewhere():
    """On an arc of a third of the circle, where beta = 5 would have three clusters, one appears; two camps stay two."""
    rng = np.random.default_rng(2)
    arc = rng.uniform(0, 2 * np.pi / 3, TOKENS)
    assert camps(flow(arc, 5.0, 20.0, 400), 0.1) == 1
    opposite = np.r_[np.zeros(30), np.full(30, np.pi)] + 0.01 * rng.standard_normal(TOKENS)
    assert camps(flow(opposite, 5.0, 20.0, 400), 0.5) == 2


def test_numbers_of_clusters_and_their_asymptote():
    """By Bessel's functions, k^2 I_k(beta); about the root of 2 beta; degree 1 alone in many dimensions."""
    for beta in (0.0, 1e-8, 0.5, 1.0, 3.0, 10.0, 100.0, 3000.0):
        k = np.arange(1, 200)
        expected = int(np.argmax(k**2 * scipy.special.ive(k, beta))) + 1 if beta > 1e-6 else 1
        assert bruno2024_degree(beta) == expected
        wide = int(np.argmax(k * (k + 30) * scipy.special.ive(k + 15, max(beta, 1e-3)))) + 1
        assert bruno2024_degree(beta, 32) == wide
    assert bruno2024_degree(1e5) == pytest.approx(np.sqrt(2e5), abs=1)
    # Where degree 2 overtakes: 4 I_2 = I_1 on the circle.
    for beta, dimension in ((1.0444568, 2), (21.28108, 32)):
        assert [bruno2024_degree(beta + step, dimension) for step in (-1e-4, 1e-4)] == [1, 2]
    np.testing.assert_allclose(bruno2024_growth(0.0, 5, 3), [0.8, 0, 0])


@pytest.mark.parametrize("given", [(-1.0, 2, 3), (np.nan, 2, 3), (2e5, 2, 3), (1.0, 1, 3), (1.0, 2, 0)])
def test_other_arguments_are_refused(given):
    with pytest.raises(OptionError):
        bruno2024_growth(*given)
