"""Attention with normalisation as the power method: the rate, the true LayerNorm, steering."""

import math

import jax
import numpy as np
import pytest
from support.matrices import orthonormal, symmetric
from support.statements import few_or_many_seeds, record

from jaxsmooth.theory.literature import power_method as pm

CASES, TOKENS, FEATURES = 1000, 6, 5
step, tangent, rate = jax.jit(pm.li2026_step), jax.jit(pm.li2026_tangent), jax.jit(pm.li2026_rate)
alignment, steered = jax.jit(pm.li2026_alignment), jax.jit(pm.li2026_steered_weight)
projection = jax.jit(pm.li2026_projection)
normed_matrix = jax.jit(pm.li2026_layer_norm_matrix)


@jax.jit
def tangents(hidden: jax.Array, mask: jax.Array, weight: jax.Array, direction: jax.Array) -> jax.Array:
    def body(x: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        x = pm.li2026_step(x, mask, weight)
        return x, pm.li2026_tangent(x, mask, direction)

    return jax.lax.scan(body, hidden, None, length=60)[1]


def frames(rng: np.random.Generator) -> np.ndarray:
    return np.linalg.qr(rng.standard_normal((CASES, FEATURES, FEATURES)))[0]


def random_tokens(rng: np.random.Generator) -> np.ndarray:
    hidden = rng.standard_normal((CASES, TOKENS, FEATURES)) + 0.5 * rng.standard_normal((CASES, 1, FEATURES))
    return hidden / np.linalg.norm(hidden, axis=-1, keepdims=True)


@few_or_many_seeds
def test_the_tangent_falls_by_the_predicted_factor(seeds):
    for seed in seeds:
        check_rate(np.random.default_rng(seed))


def check_rate(rng: np.random.Generator) -> None:
    """1000 spectra: once tokens agree, the ratio of tangents of two layers is (1 + mu_2) / (1 + mu_1).

    Tokens agree at 1 / (1 + mu_1) and the third direction dies at (1 + mu_3) / (1 + mu_2), both well below the rate.
    """
    first, ratio = rng.uniform(1.5, 3, CASES), rng.uniform(0.7, 0.95, CASES)
    second = (1 + first) * ratio - 1
    rest = 0.6 * (1 + second)[:, None] * rng.uniform(-1, 1, (CASES, FEATURES - 2)) - 1
    mu = rng.permuted(np.column_stack([first, second, rest]), axis=1)
    frame = frames(rng)
    weight = np.einsum("cde,ce,cfe->cdf", frame, mu, frame)
    top = np.take_along_axis(frame, mu.argmax(axis=1)[:, None, None], axis=2)[..., 0]
    seen = np.asarray(tangents(random_tokens(rng), np.ones((CASES, TOKENS), bool), weight, top))
    predicted = np.asarray(rate(mu))
    np.testing.assert_allclose(predicted, ratio, rtol=1e-13)
    assert np.all(seen[40] > 1e-11)
    found = seen[40] / seen[39]
    record(found, predicted, int(np.sum(np.abs(found - predicted) > 1e-2 * predicted)))
    np.testing.assert_allclose(found, predicted, rtol=1e-2)


def test_the_direction_is_reached_for_every_spectrum():
    """At the slower of the two factors, down to rounding, where mu_1 > 0 and 1 + mu_1 exceeds all |1 + mu_j|."""
    rng = np.random.default_rng(0)
    mu = np.sort(rng.uniform(-0.9, 1.0, (CASES, FEATURES)), axis=1)[:, ::-1]
    mu[:, 0] = np.maximum(mu[:, 0], 0) + rng.uniform(0.3, 1.0, CASES)
    frame = frames(rng)
    weight = np.einsum("cde,ce,cfe->cdf", frame, mu, frame)
    seen = np.asarray(tangents(random_tokens(rng), np.ones((CASES, TOKENS), bool), weight, frame[..., 0]))
    slowest = np.maximum(rate(mu), 1 / (1 + mu[:, 0]))
    assert np.all(seen[-1] <= 1e4 * slowest**59 + 1e-13)


def test_the_ratio_of_the_worked_example():
    """mu = (1, .5, ...): .75, met to .5 % at layer 30."""
    rng = np.random.default_rng(1)
    mu = np.array([1.0, 0.5, 0.1, -0.2, -0.5])
    weight = symmetric(rng, mu)
    hidden = rng.standard_normal((TOKENS, FEATURES))
    hidden /= np.linalg.norm(hidden, axis=-1, keepdims=True)
    seen = np.asarray(tangents(hidden, np.ones(TOKENS, bool), weight, np.linalg.eigh(weight)[1][:, -1]))
    assert float(rate(mu)) == pytest.approx(0.75)
    assert seen[30] / seen[29] == pytest.approx(0.75, rel=5e-3)


@pytest.mark.parametrize("mu", [[-0.5, -0.6], [0.5, -2.6], [0.0, -0.5], []])
def test_no_rate_without_a_dominant_growing_direction(mu):
    assert np.isnan(float(rate(np.array(mu))))


def test_with_negative_eigenvalues_tokens_need_not_agree():
    """F = -I / 2: the mean shrinks, the differences survive, and no direction attracts."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal((TOKENS, FEATURES))
    for _ in range(60):
        x = np.asarray(step(x, np.ones(TOKENS, bool), -0.5 * np.eye(FEATURES)))
    assert np.linalg.norm(x - x.mean(axis=0)) / np.linalg.norm(x) > 0.9


def test_with_layer_norm_it_is_the_centred_matrix_that_is_iterated():
    """X <- LN(X + (11^T/n) X F) turns to the top eigenvector of C (I + F) C, which is not F's."""
    rng = np.random.default_rng(3)
    weight = symmetric(rng, np.array([2.0, 0.5, 0.3, 0.1, -0.2]))
    matrix = np.asarray(normed_matrix(weight))
    centring = np.eye(FEATURES) - 1 / FEATURES
    np.testing.assert_allclose(matrix, centring @ (np.eye(FEATURES) + weight) @ centring, atol=1e-15)
    x = rng.standard_normal((TOKENS, FEATURES))
    for _ in range(300):
        x = x + x.mean(axis=0) @ weight
        x = (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)
    tops = [np.linalg.eigh(m)[1][:, -1] for m in (matrix, weight)]
    mask = np.ones(TOKENS, bool)
    assert float(alignment(x, mask, tops[0])) == pytest.approx(1, abs=1e-12)
    assert float(alignment(x, mask, tops[1])) < 0.99


def test_distinct_weights_have_no_common_direction():
    """The same spectra in other frames every layer: the last layer's eigenvector is approached, never reached."""
    rng = np.random.default_rng(4)
    mask, ends = np.ones(TOKENS, bool), []
    mu = np.array([2.0, 0.5, 0.3, 0.1, -0.2])
    for shared in (True, False):
        x, weight = rng.standard_normal((TOKENS, FEATURES)), symmetric(rng, mu)
        for _ in range(100):
            weight = weight if shared else symmetric(rng, mu)
            x = np.asarray(step(x, mask, weight))
        ends.append(float(alignment(x, mask, np.linalg.eigh(weight)[1][:, -1])))
    assert ends[0] == pytest.approx(1, abs=1e-12)
    assert ends[1] < 0.999


def test_steering_makes_any_direction_the_principal_one():
    rng = np.random.default_rng(5)
    weight, wish = rng.standard_normal((CASES, FEATURES, FEATURES)), rng.standard_normal((CASES, FEATURES))
    gain = 1.5 * np.linalg.norm(weight, ord=2, axis=(1, 2))
    set_to = np.asarray(steered(weight, wish, gain))
    unit = wish / np.linalg.norm(wish, axis=1, keepdims=True)
    np.testing.assert_allclose(np.einsum("cd,cde->ce", unit, set_to), gain[:, None] * unit, atol=1e-12)
    np.testing.assert_allclose(np.einsum("cde,ce->cd", set_to, unit), gain[:, None] * unit, atol=1e-12)
    moduli = np.sort(np.abs(np.linalg.eigvals(set_to)), axis=1)
    np.testing.assert_allclose(moduli[:, -1], gain, rtol=1e-10)
    assert np.all(moduli[:, -2] < gain * 0.7)
    x = rng.standard_normal((CASES, TOKENS, FEATURES)) + 0.5 * wish[:, None]
    for _ in range(60):
        x = np.asarray(step(x, np.ones((CASES, TOKENS), bool), set_to))
    assert np.asarray(alignment(x, np.ones((CASES, TOKENS), bool), wish)).min() > 1 - 1e-6


def test_alignment_against_the_definition_and_padding():
    rng = np.random.default_rng(6)
    x, v = rng.standard_normal((4, FEATURES)), rng.standard_normal(FEATURES)
    expected = np.mean(np.abs(x @ v) / (np.linalg.norm(x, axis=1) * np.linalg.norm(v)))
    padded, mask = np.concatenate([x, np.full((2, FEATURES), 1e6)]), np.arange(6) < 4
    assert float(alignment(padded, mask, v)) == pytest.approx(expected, rel=1e-14)
    moved = np.asarray(step(padded, mask, np.eye(FEATURES)))
    np.testing.assert_allclose(moved[:4], step(x, np.ones(4, bool), np.eye(FEATURES)), rtol=1e-13)
    zero = np.concatenate([x, np.zeros((2, FEATURES))])
    assert float(alignment(zero, np.ones(6, bool), v)) == pytest.approx(expected * 4 / 6, rel=1e-14)
    frame = orthonormal(rng, FEATURES, 2)
    assert float(
        tangent(np.tile(frame[:, 0] + 2 * frame[:, 1], (3, 1)), np.ones(3, bool), frame[:, 0])
    ) == pytest.approx(2)


def test_alignment_by_chance():
    """Random tokens in D dimensions: sqrt(2 / (pi D)) up to O(1/D), within four standard errors."""
    x = np.random.default_rng(7).standard_normal((20000, 384))
    seen = np.abs(x[:, 0]) / np.linalg.norm(x, axis=1)
    found = float(alignment(x, np.ones(20000, bool), np.eye(384)[0]))
    assert found == pytest.approx(seen.mean(), rel=1e-12)
    assert abs(found - np.sqrt(2 / (np.pi * 384))) < 4 * seen.std() / np.sqrt(20000) + 1e-3 * found


@pytest.mark.parametrize("size", [1e-20, 1.0, 1e20])
def test_the_principal_subspace_is_kept_and_is_where_powers_go(size):
    """Random F of real and of complex top eigenvalue: P F = P F P, and x F^k lies in it for large k."""
    rng = np.random.default_rng(6)
    kinds = set()
    for _ in range(200):
        weight = size * rng.standard_normal((FEATURES, FEATURES))
        found = pm.li2026_principal_subspace(weight)
        frame = found.frame[np.any(found.frame != 0, axis=1)]
        kinds.add(len(frame))
        assert len(frame) == 1 + (found.eigenvalue.imag != 0)
        np.testing.assert_allclose(frame @ frame.T, np.eye(len(frame)), atol=1e-12)
        image = frame @ weight / size
        np.testing.assert_allclose(image, image @ frame.T @ frame, atol=1e-10)
        moduli = np.sort(np.abs(np.linalg.eigvals(weight)))[::-1]
        np.testing.assert_allclose(abs(found.eigenvalue), moduli[0], rtol=1e-9)
        np.testing.assert_allclose(found.runner_up, moduli[len(frame)], rtol=1e-9)
        x, gap = rng.standard_normal((TOKENS, FEATURES)), found.runner_up / abs(found.eigenvalue)
        if gap < 0.9:
            for _ in range(400):
                x = x @ weight
                x /= np.linalg.norm(x, axis=1, keepdims=True)
            mask = np.ones(TOKENS, bool)
            assert float(projection(x, mask, found.frame)) == pytest.approx(1, abs=1e-9)
    assert kinds == {1, 2}


def test_the_symmetric_part_is_not_where_powers_go():
    """Why it is not what is measured: a shear turns all to its left eigenvector, its symmetric part has another."""
    shear = np.array([[1.0, 3.0], [0.0, 0.5]])
    x = np.random.default_rng(7).standard_normal((TOKENS, 2))
    for _ in range(200):
        x = x @ shear
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    mask = np.ones(TOKENS, bool)
    own = pm.li2026_principal_subspace(shear).frame
    assert float(projection(x, mask, own)) == pytest.approx(1, abs=1e-12)
    assert float(alignment(x, mask, np.linalg.eigh(shear + shear.T)[1][:, -1])) < 0.9
    right = np.linalg.eig(shear)[1][:, 0]  # and a right eigenvector is another thing too
    assert float(alignment(x, mask, right)) < 0.9


def test_principal_subspaces_that_are_not():
    """F = 0 and F that is not finite have none; of I any direction is one, and the runner-up says so."""
    frame, value, runner_up = pm.li2026_principal_subspace(
        np.stack([np.zeros((3, 3)), np.eye(3), np.full((3, 3), np.inf)])
    )
    assert np.isnan(frame).all(axis=(1, 2)).tolist() == [True, False, True]
    assert (value[0], value[1], runner_up[1]) == (0, 1, 1)
    assert np.isnan(value[2])
    alone = pm.li2026_principal_subspace(np.array([[-2.0]]))
    assert (alone.eigenvalue, alone.runner_up, abs(alone.frame[0, 0]), alone.frame[1, 0]) == (-2, 0, 1, 0)


def test_projection_by_chance_padding_and_scale():
    """Of random tokens sqrt(2 / (pi D)) on a line and sqrt(pi / (2 D)) on a plane; padding and size change nothing."""
    rng = np.random.default_rng(8)
    x, mask, plane = rng.standard_normal((20_000, 64)), np.ones(20_000, bool), np.eye(2, 64)
    line = plane * [[1], [0]]
    assert float(projection(x, mask, line)) == pytest.approx(math.sqrt(2 / (math.pi * 64)), rel=0.03)
    assert float(projection(x, mask, plane)) == pytest.approx(math.sqrt(math.pi / (2 * 64)), rel=0.03)
    mask[7:] = False
    expected = np.mean(np.linalg.norm(x[:7, :2], axis=1) / np.linalg.norm(x[:7], axis=1))
    x[7:] = np.nan
    for size in (1e-20, 1.0, 1e20):
        assert float(projection(size * x, mask, plane)) == pytest.approx(expected, rel=1e-12)
    assert np.isnan(float(projection(x, mask, np.nan * plane)))
