"""Tokens under causal attention go to the first one: a step's bounds, where attained, what breaks them."""

import functools

import jax
import numpy as np
import pytest
import scipy.special
from support.matrices import GARBAGE, PADDED, TOKENS, WIDTH, lengths_mask, window
from support.statements import assert_holds, few_or_many_seeds

from jaxsmooth.theory import karagodin2024_angle, karagodin2024_centres, karagodin2024_first_token

CASES = 512
STEP, ANGLE = jax.jit(karagodin2024_first_token), jax.jit(karagodin2024_angle)
CENTRES = jax.jit(karagodin2024_centres, static_argnames="strong")


def led(rng: np.random.Generator, real: int, kind: int) -> np.ndarray:
    """Attention whose first token sees itself alone: causal, causal with a sink, a window, or later tokens seen too."""
    logits = 10 ** rng.uniform(-1, 1) * rng.standard_normal((real, real))
    seen = np.tri(real, dtype=bool) if kind < 3 else np.ones((real, real), bool)
    seen[0] = np.arange(real) == 0
    attn = scipy.special.softmax(np.where(seen, logits, -np.inf), axis=1)
    if kind == 2:
        attn = window(2, real)
    share = rng.choice([0.0, 0.3, 0.9]) if kind == 1 else 0.0
    return (1 - share) * attn + share * np.eye(real)[0]


def cases(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Padded attention and tokens from the whole space, a half-space, or nearly one point; and the mask."""
    mask = lengths_mask(rng.integers(1, PADDED + 1, CASES))
    attn = np.zeros((CASES, PADDED, PADDED))
    for k, real in enumerate(mask.sum(axis=1)):
        attn[k, :real, :real] = led(rng, real, rng.integers(4))
    spread = 10 ** rng.uniform(-3, 1, (CASES, 1, 1))
    x = rng.standard_normal((CASES, 1, WIDTH)) + spread * rng.standard_normal((CASES, PADDED, WIDTH))
    return np.where(mask[..., None], attn, GARBAGE), np.where(mask[..., None], x, GARBAGE), mask


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def angles(x: np.ndarray, first: np.ndarray) -> np.ndarray:
    return np.arctan2(np.linalg.norm(x - np.outer(x @ first, first), axis=1), x @ first)


def bound(m: float, widest: float) -> float:
    return float(np.arctan2((1 - m) * np.sin(widest), m + (1 - m) * np.cos(widest)))


@few_or_many_seeds
def test_the_first_token_draws_all_others(seeds):
    for seed in seeds:
        attn, x, mask = cases(np.random.default_rng(seed))
        assert assert_holds(STEP(attn, x, mask), rtol=1e-12, atol=1e-14).max() > 0.99
        found = ANGLE(attn, x, mask)
        assert_holds(found, rtol=1e-9, atol=1e-14, share=0.6)
        for k in range(0, CASES, 16):
            real, a = mask[k], attn[k][mask[k]][:, mask[k]]
            y, m = x[k][real], a[:, 0].min()
            lhs, rhs = np.abs(a @ y - y[0]), np.abs(y - y[0])
            sides = np.linalg.norm(lhs, axis=1).max(), (1 - m) * np.linalg.norm(rhs, axis=1).max()
            np.testing.assert_allclose([side[k] for side in STEP(attn, x, mask)[:2]], sides, rtol=1e-12, atol=1e-13)
            widest = angles(unit(y), unit(y[0])).max()
            if m + (1 - m) * np.cos(widest) > 1e-9 and m * np.cos(widest) > m - 1:
                after = angles(unit(a @ unit(y)), unit(y[0])).max()
                np.testing.assert_allclose([found.lhs[k], found.rhs[k]], [after, bound(m, widest)], atol=1e-9)


def two(m: float, angle: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    attn, x = np.array([[1, 0], [m, 1 - m]]), np.array([[1, 0], [np.cos(angle), np.sin(angle)]])
    return attn, x, np.ones(2, bool)


@pytest.mark.parametrize("m", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_both_are_attained_by_two_tokens(m):
    for angle in (1e-6, 0.5, 1.5):
        found = STEP(*two(m, angle))
        assert float(found.lhs) == pytest.approx(float(found.rhs), rel=1e-9, abs=1e-15)
        found = ANGLE(*two(m, angle))
        assert found.applicable
        assert float(found.lhs) == pytest.approx(float(found.rhs), rel=1e-9, abs=1e-15)
        # Many steps: the recursion is exact.
        x, expected = two(m, angle)[1], angle
        for _ in range(20):
            x, expected = unit(two(m, angle)[0] @ x), bound(m, expected)
        assert angles(x, x[0]).max() == pytest.approx(expected, rel=1e-9, abs=1e-14)


def test_far_behind_a_strong_first_token_draws_all_the_same():
    """m = 0.6 and angles near pi: the bound arcsin((1 - m) / m) is attained on the way, and holds from anywhere."""
    m, widest = 0.6, float(np.arccos(-0.4 / 0.6))
    found = ANGLE(*two(m, widest))
    assert float(found.lhs) == pytest.approx(np.arcsin(0.4 / 0.6), rel=1e-12)
    found = ANGLE(*two(m, 3.1))
    assert found.applicable
    assert float(found.lhs) < float(found.rhs) == pytest.approx(np.arcsin(0.4 / 0.6), rel=1e-12)
    # Without that limit: a mean of such tokens may stand at a larger angle than the farthest one after its step.
    assert float(found.lhs) > bound(m, 3.1) - 1e-9
    a = np.array([[1, 0, 0], [m, 1 - m, 0], [m, 0.1, 0.3]])
    x = np.array([[1, 0], [np.cos(3.1), np.sin(3.1)], [np.cos(widest), np.sin(widest)]])
    found = ANGLE(a, x, np.ones(3, bool))
    assert bound(m, 3.1) < float(found.lhs) <= float(found.rhs)
    # A third token that stands at the turn attains it.
    a[2] = [m, 0, 1 - m]
    found = ANGLE(a, x, np.ones(3, bool))
    assert bound(m, 3.1) < 0.5 * float(found.lhs)
    assert float(found.lhs) == pytest.approx(float(found.rhs), rel=1e-12)


def test_a_first_token_that_sees_others_moves_itself():
    """To one side, while it sends the others to the other side."""
    m, side = 0.4, 0.5
    a = np.array([[m, 1 - m, 0], [m, 0, 1 - m], [m, 0, 1 - m]])
    x = np.array([[1, 0], [np.cos(side), np.sin(side)], [np.cos(side), -np.sin(side)]])
    for text, factor in ((STEP, 1.7), (ANGLE, 1.9)):
        found = text(a, x, np.ones(3, bool))
        assert not found.applicable
        assert float(found.lhs) > factor * float(found.rhs)


def test_probabilities_and_the_open_cap_are_needed():
    """Weights of other sums or signs, and tokens behind the cap whose mean is short: the bounds fail."""
    for weights in ([0.5, 1.0], [0.5, -2.0]):
        found = STEP(np.array([[1.0, 0.0], weights]), np.array([[1.0], [2.0]]), np.ones(2, bool))
        assert not found.applicable
        assert float(found.lhs) > float(found.rhs)
    m, back = 0.1, 2 * np.pi / 3
    a = np.array([[1, 0, 0], [m, 0.9, 0], [m, 0.45, 0.45]])
    x = np.array([[1, 0], [np.cos(back), np.sin(back)], [np.cos(back), -np.sin(back)]])
    found = ANGLE(a, x, np.ones(3, bool))
    assert not found.applicable
    assert float(found.lhs) == pytest.approx(np.pi)
    assert float(found.rhs) < 2.3


@pytest.mark.parametrize("residual", [0.0, 1.0])
def test_almost_all_starts_go_to_the_first_token(residual):
    """What Karagodin et al. prove of the flow, watched in steps: any scores, tokens from the whole sphere.

    Without the mask they agree too, but not on the first token; with values of the other sign they part.
    """
    rng = np.random.default_rng(3)
    scores, start = 0.7 * rng.standard_normal((4, 4)), unit(rng.standard_normal((20, TOKENS, 4)))

    def run(causal: bool, value: float) -> np.ndarray:
        x = start
        for _ in range(600):
            logits = np.where(np.tri(TOKENS, dtype=bool) | (not causal), x @ scores @ x.swapaxes(1, 2), -np.inf)
            x = unit(residual * x + value * scipy.special.softmax(logits, axis=2) @ x)
        return x

    def to_first(x):
        return np.linalg.norm(x - start[:, :1], axis=2).max(axis=1)

    assert np.all(to_first(run(True, 1.0)) < 1e-6)
    assert np.all(to_first(run(False, 1.0)) > 0.01)
    if residual:
        assert np.all(to_first(run(True, -0.9)) > 0.5)


def test_equal_attention_to_the_past_shows_how_loose_the_least_attention_is():
    """m = 1/n promises 1 - 1/n per layer; next to consensus the rate is the second weight on the diagonal, 1/2."""
    attn = np.tri(TOKENS) / np.arange(1, TOKENS + 1)[:, None]
    x, sizes = np.random.default_rng(0).standard_normal((TOKENS, 2)), []
    x[0] = 0
    for _ in range(80):
        sizes.append(np.linalg.norm(x, axis=1).max())
        x = attn @ x
    assert sizes[-1] / sizes[-2] == pytest.approx(0.5, rel=0.02)
    assert np.all(np.array(sizes[1:]) <= (1 - 1 / TOKENS) * np.array(sizes[:-1]) * (1 + 1e-12))


def test_centres_are_those_of_the_definition():
    rng = np.random.default_rng(1)
    mask = lengths_mask(rng.integers(0, PADDED + 1, 60))
    mask[::2] = np.roll(mask[::2], 1, axis=1)
    x = np.where(mask[..., None], rng.standard_normal((60, PADDED, 3)), GARBAGE)
    found = {strong: np.asarray(CENTRES(x, mask, 0.8, strong=strong)) for strong in (False, True)}
    for k in range(60):
        u, real = unit(x[k]), np.flatnonzero(mask[k])
        near = np.linalg.norm(u[:, None] - u[None], axis=2) <= 0.8
        chosen = functools.reduce(lambda c, i: c if near[i, c].any() else [*c, i], real, [])
        strong = [i for j, i in enumerate(real) if not near[i, real[:j]].any()]
        assert np.flatnonzero(found[False][k]).tolist() == chosen
        assert np.flatnonzero(found[True][k]).tolist() == strong
        assert set(strong) <= set(chosen)
        # A packing that covers: no two are near, and every token is near one.
        assert not (near[np.ix_(chosen, chosen)] & ~np.eye(len(chosen), dtype=bool)).any()
        assert near[np.ix_(real, chosen)].any(axis=1).all()


def test_cars_park_as_renyi_says():
    """On a long circle cars of length delta park, at random and one by one, on the share 0.7476 of the road."""
    turns = np.random.default_rng(2).uniform(0, 2 * np.pi, (1, 3000))
    x, delta = np.stack([np.cos(turns), np.sin(turns)], axis=-1), 0.1
    road = 2 * np.pi / (2 * np.arcsin(delta / 2))
    parked = int(CENTRES(x, np.ones((1, 3000), bool), delta, strong=False).sum())
    # Variance 0.038 of a road's unit (Mackenzie 1962): a standard deviation of 1.55 cars.
    assert abs(parked - 0.7476 * road) < 4 * 1.55


def test_scale_and_degenerate_sentences():
    attn, x, mask = cases(np.random.default_rng(5))
    for factor in (1e-20, 1e20):
        near, far = ANGLE(attn, factor * x, mask), ANGLE(attn, x, mask)
        np.testing.assert_allclose(near.lhs, far.lhs, rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(CENTRES(factor * x, mask, 0.5), CENTRES(x, mask, 0.5))
    one = np.zeros(PADDED, bool), np.arange(PADDED) < 1
    none, single = (STEP(attn[0], x[0], real) for real in one)
    assert (bool(none.applicable), float(single.lhs), float(single.rhs)) == (False, 0, 0)
    equal = STEP(attn, np.ones_like(x), mask)
    assert np.asarray(equal.lhs).max() < 1e-14
    assert not np.asarray(equal.rhs).any()
