"""What a head adds, from below: silence takes a sink. Where the bounds are attained, and what breaks them."""

import jax
import numpy as np
import pytest
import scipy.optimize
from support.matrices import PADDED, WIDTH, lengths_mask
from support.statements import assert_holds, attentions, few_or_many_seeds, tokens_for

from jaxsmooth.theory import lampert2026_switch, ranmilo2026_needed, ranmilo2026_output, sink_distance

CASES = 1008
OUTPUT, SWITCH, NEEDED = map(jax.jit, (ranmilo2026_output, lampert2026_switch, ranmilo2026_needed))
DISTANCE = jax.jit(sink_distance)
SIGNED = np.array([[1.5, -0.5], [-0.5, 1.5]])


def cases(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Attention of every family, part of it with a sink; values about 0 or on one side of it, some 0 at the sink."""
    attn, mask = attentions(rng)
    first = np.argmax(mask, axis=1)
    share = rng.choice([0, 0.5, 0.99, 1.0], (CASES, 1, 1))
    sunk = (1 - share) * attn + share * np.eye(PADDED)[first][:, None]
    values = tokens_for(rng, mask)
    at_first = np.arange(PADDED) == first[:, None]
    values[at_first] *= rng.choice([0.0, 1.0, -1.0], (CASES, 1))
    return np.where(mask[..., None], sunk, attn), values, mask


def by_solver(values: np.ndarray) -> float:
    """The distance of 0 from the hull of the rows, by non-negative least squares."""
    scale = np.abs(values).max()
    sides = np.vstack([values.T / scale, np.full(len(values), 1e4)]), np.r_[np.zeros(WIDTH), 1e4]
    weights, _ = scipy.optimize.nnls(*sides)
    return float(np.linalg.norm(weights / weights.sum() @ values))


@few_or_many_seeds
def test_they_hold_and_are_those_of_the_hull(seeds):
    for seed in seeds:
        attn, values, mask = cases(np.random.default_rng(seed))
        single = mask.sum(axis=1) < 2
        found = {text: text(attn, values, mask) for text in (OUTPUT, SWITCH)}
        for statement in found.values():
            assert not np.asarray(statement.applicable)[single].any()
            assert_holds(statement, rtol=1e-9, atol=1e-13, share=1 - single.mean())
        for k in np.flatnonzero(~single)[::29]:
            a, v = attn[k][mask[k]][:, mask[k]], values[k][mask[k]]
            t, *equal = np.flatnonzero(a.mean(axis=0) >= a.mean(axis=0).max() - 1e-12)
            if equal:  # rounding says which of two keys is the strongest
                continue
            s, others, scale = a.mean(axis=0)[t], np.delete(v, t, axis=0), np.abs(v).max()
            assert float(found[OUTPUT].rhs[k]) == pytest.approx(np.linalg.norm(a @ v, axis=1).mean(), rel=1e-9)
            assert float(found[SWITCH].rhs[k]) == pytest.approx(np.linalg.norm(a @ v - v[t], axis=1).mean(), rel=1e-9)
            most, far = (1 - s) * by_solver(others - v[t]), np.linalg.norm(others - v[t], axis=1).max()
            assert float(found[SWITCH].lhs[k]) <= most + 1e-6 * scale
            assert float(found[SWITCH].lhs[k]) >= most - 0.05 * (1 - s) * far


def one(attn: list | np.ndarray, values: list | np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One case, padded to one shape, so that each function is compiled once for all of them."""
    count, features = np.shape(values)
    wide = np.pad(attn, (0, PADDED - count)), np.pad(values, ((0, PADDED - count), (0, WIDTH - features)))
    return *wide, np.arange(PADDED) < count


def test_they_are_attained():
    """Where the others agree along one direction: whatever each query gives the sink."""
    given = one([[0.7, 0.2, 0.1], [0.5, 0.0, 0.5], [0.75, 0.2, 0.05]], [[-0.5, 0.0], [2.0, 0.0], [2.0, 0.0]])
    for text in (OUTPUT, SWITCH):
        found = text(*given)
        assert float(found.lhs) == pytest.approx(float(found.rhs), rel=1e-14)
    # Of this head the strength 0.65 is what its output needs, and silence would take c / (c + 1/2).
    assert float(NEEDED(*given, float(OUTPUT(*given).rhs))) == pytest.approx(0.65, rel=1e-14)
    assert float(NEEDED(*given)) == pytest.approx(0.8, rel=1e-14)


def test_a_silent_head_has_the_sink_that_it_needs_and_the_switch_is_an_equivalence():
    rng = np.random.default_rng(3)
    for _ in range(20):
        values = np.r_[np.zeros((1, WIDTH)), rng.standard_normal((4, WIDTH)) + 3]
        copies = np.eye(5)[[0] * 5]
        silent = one(copies, values)
        assert float(OUTPUT(*silent).rhs) == 0
        assert float(NEEDED(*silent)) == pytest.approx(1, rel=1e-14)
        # Between (1 - s) r and (1 - s) times the farthest.
        share = rng.uniform(0.6, 1, (5, 1))
        attn = share * copies + (1 - share) * rng.dirichlet(np.ones(5), 5) * [0, 1, 1, 1, 1]
        attn[:, 0] += 1 - attn.sum(axis=1)
        low, high = SWITCH(*one(attn, values)), DISTANCE(*one(attn, values))
        assert 0 < float(low.lhs) <= float(low.rhs)
        assert float(low.rhs) == pytest.approx(float(high.lhs), rel=1e-12)
        assert float(high.lhs) <= float(high.rhs)
    # Of v_t, that is: uniform attention adds something else to both tokens, and 0 of a sink value that is not 0.
    same, zero = one([[0.5, 0.5]] * 2, np.eye(2)), one([[0.5, 0.5]] * 2, [[-1.0], [1.0]])
    for given, distance in ((same, 2**0.5), (zero, 2.0)):
        found = SWITCH(*given)
        assert float(found.lhs) == pytest.approx(distance / 2, rel=1e-14)
        assert float(found.rhs) == pytest.approx(distance / 2, rel=1e-14)
    added = same[0] @ same[1]
    np.testing.assert_array_equal(added[0], added[1])
    assert added[0].any()
    assert float(OUTPUT(*zero).rhs) == 0


def test_without_the_hypotheses_a_head_is_silent_without_a_sink():
    """Values that cancel (no hyperplane), a sink value that cancels the others, weights of other signs (ReLU's sum)."""
    cancel = one([[0.4, 0.3, 0.3]] * 3, [[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    assert float(OUTPUT(*cancel).rhs) == 0
    assert float(OUTPUT(*cancel).lhs) <= 0
    assert float(NEEDED(*cancel)) == 0
    opposite = one([[0.5, 0.5]] * 2, [[-1.0], [1.0]])
    assert float(OUTPUT(*opposite).rhs) == 0
    assert float(NEEDED(*opposite)) == pytest.approx(0.5)
    # As the paper's ReLU attention: rows of sum 0 need no sink.
    loose = one([[0.0, 0.0]] * 2, [[1.0], [1.0]])
    assert not OUTPUT(*loose).applicable
    assert float(OUTPUT(*loose).lhs) > float(OUTPUT(*loose).rhs)
    signed = one(SIGNED, [[1.0], [3.0]])
    assert not SWITCH(*signed).applicable
    # Where the sink's own value lies beyond the others no attention makes the head silent.
    assert np.isinf(NEEDED(*one([[0.5, 0.5]] * 2, [[2.0], [1.0]])))


def test_a_strength_that_suffices_for_nothing_is_not_excluded():
    """At most 1 is necessary only: along (1, 0) the values cancel, across it they cannot."""
    given = one([[0.5, 0.25, 0.25]] * 3, [[-0.1, 1.0], [1.0, 0.0], [1.0, 0.0]])
    assert float(NEEDED(*given)) == pytest.approx(1 / 1.1, rel=1e-14)
    # The least that a mean of these values can be long.
    assert by_solver(given[1][:3]) > 0.6


def test_outputs_below_0_are_refused_with_nan():
    given = one([[0.5, 0.5]] * 2, [[-1.0], [1.0]])
    assert np.isnan([NEEDED(*given, -0.5), NEEDED(*given, np.nan)]).all()
    assert float(NEEDED(*given, 2.0)) == 0


def test_padding_and_scale_change_nothing():
    attn, values, mask = cases(np.random.default_rng(7))
    garbage = np.where(mask[..., None], attn, 1e6), np.where(mask[..., None], values, -1e6)
    for text in (OUTPUT, SWITCH):
        for one_side, other in zip(text(attn, values, mask), text(*garbage, mask), strict=True):
            np.testing.assert_array_equal(one_side, other)
    np.testing.assert_array_equal(NEEDED(attn, values, mask), NEEDED(*garbage, mask))
    for scale in (2.0**-90, 2.0**90):
        found, scaled = OUTPUT(attn, values, mask), OUTPUT(attn, scale * values, mask)
        np.testing.assert_allclose(scaled.lhs, scale * np.asarray(found.lhs), rtol=1e-9)
    few = lengths_mask(np.arange(CASES) % 2)
    assert not np.asarray(NEEDED(attn, values, few)).any()
