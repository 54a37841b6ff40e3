"""A statement says nothing where a hypothesis of its theorem fails, and what has no answer says so by name."""

import jax.numpy as jnp
import numpy as np
import pytest
from flint import arb

from jaxsmooth import theory
from jaxsmooth.errors import OptionError, ShapeError
from jaxsmooth.linalg.intervals import Interval
from jaxsmooth.theory import Statement
from jaxsmooth.theory.block import apriori
from jaxsmooth.theory.certify.arb_calculus import ArbCalculus
from jaxsmooth.theory.certify.float_calculus import FloatCalculus, HostCalculus
from jaxsmooth.theory.literature import masked_attention, remedies, token_particles
from jaxsmooth.theory.theorems.heads import birkhoff, high_frequency, sink_mixing
from jaxsmooth.theory.theorems.quantities import HeadQuantities
from jaxsmooth.theory.theorems.registry import THEOREMS

BOTH = np.ones(2, bool)
LINE, EVEN = jnp.array([[0.0], [1.0]]), jnp.full((2, 2), 0.5)
HEAVY = jnp.array([[2.0, 0.0], [1.0, 1.0]])
SIGNED = jnp.array([[1.5, -0.5], [0.5, 0.5]])
ONE = jnp.ones(1)
UNIT, FAR = jnp.array([[0.6, 0.8], [-0.6, 0.8]]), jnp.array([[1.2, 1.6], [-1.2, 1.6]])

# Each is false, or of another theorem; and the same with the hypothesis.
BROKEN = {
    "masked attention, rows of sum 2": lambda: masked_attention.wu2024_masked_attention(
        HEAVY[None], LINE, HEAVY > 0, BOTH
    ),
    "graph attention, rows of sum 2": lambda: masked_attention.wu2023_gat_collapse(
        LINE, HEAVY @ LINE, HEAVY, jnp.ones((1, 1)), BOTH
    ),
    "tanh collapse, signed": lambda: apriori.tanh_collapse(LINE, SIGNED @ LINE, SIGNED[None], ONE, ONE, BOTH),
    "before attention, rows of sum 2": lambda: apriori.apriori_mixing_rate(HEAVY[None] + 1, LINE, ONE, BOTH),
    "the floor, std 0": lambda: apriori.shi2022_rate_floor(
        *(jnp.array(x) for x in (1.0, 0.5)), jnp.array(1), *(jnp.array(x) for x in (0.0, 1.0))
    ),
    "pair norm, negative": lambda: remedies.zhao2020_pair_norm(LINE, BOTH, -1.0),
    "clustering, off the sphere": lambda: token_particles.geshkovski2023_clustering(FAR, FAR, BOTH, 1.0, 1.0),
    "clustering, back in time": lambda: token_particles.geshkovski2023_clustering(UNIT, UNIT, BOTH, 1.0, -1.0),
    "a step, off the sphere": lambda: token_particles.geshkovski2023_discrete_step(UNIT, FAR, BOTH, 1.0),
    "reversible, rows of sum 2": lambda: theory.reversible_contraction(2 * EVEN, LINE - 0.5, BOTH, jnp.array(0.0), 2),
    "sensitivity of several classes, below": lambda: theory.meyer1994_lower(np.eye(2), BOTH),
    "sensitivity of several classes, above": lambda: theory.meyer1994_upper(np.eye(2), BOTH),
    "sensitivity, rows of sum 2": lambda: theory.meyer1994_upper(np.asarray(2 * EVEN), BOTH),
    "sensitivity of one token": lambda: theory.meyer1994_lower(np.eye(1), BOTH[:1]),
    "sensitivity of none": lambda: theory.meyer1994_upper(np.eye(2), ~BOTH),
}


@pytest.mark.parametrize("name", BROKEN)
def test_without_a_hypothesis_nothing_is_claimed(name):
    found = BROKEN[name]()
    assert isinstance(found, Statement)
    assert not np.any(found.applicable)


def test_with_them_it_is():
    graph = jnp.array([[True, False], [True, True]])
    attn = jnp.array([[1.0, 0.0], [0.25, 0.75]])
    assert masked_attention.wu2024_masked_attention(attn[None], LINE, graph, BOTH).applicable
    assert masked_attention.wu2023_gat_collapse(LINE, attn @ LINE, attn, jnp.ones((1, 1)), BOTH).applicable
    assert token_particles.geshkovski2023_clustering(UNIT, UNIT, BOTH, 1.0, 1.0).applicable
    assert remedies.zhao2020_pair_norm(LINE, BOTH, 1.0).applicable
    for bound in (theory.meyer1994_lower, theory.meyer1994_upper):
        found = bound(np.array([[0.5, 0.5], [0.25, 0.75]], np.float32), BOTH)
        assert found.applicable
        assert found.lhs <= found.rhs


@pytest.mark.parametrize("calculus", [FloatCalculus, HostCalculus, ArbCalculus])
def test_theorems_of_attention_say_nothing_of_negative_weights(calculus):
    """tau of [[1.5, -0.5], [-0.5, 1.5]] is 2, above any tanh."""
    from support.certify import one_head  # late: it reads the registry's room

    for attn, claimed in (([[1.5, -0.5], [-0.5, 1.5]], False), ([[0.75, 0.25], [0.25, 0.75]], True)):
        head = one_head(calculus, np.array([[0.0], [1.0]]), np.array(attn))
        assert isinstance(head, HeadQuantities)
        assert [bool(text(head).applicable) for text in (birkhoff, high_frequency, sink_mixing)] == [claimed] * 3
    assert {"birkhoff1957_ergodicity", "wang2022_high_frequency", "sink_mixing"} <= set(THEOREMS)


def test_answers_at_the_least_sizes():
    """One token, one feature, a share of 1: limits where there are any."""
    value = jnp.array([0.5])
    assert theory.dovonon2024_unification_rate(jnp.array([1.0]), value) == 0
    assert theory.dovonon2024_unification_rate(jnp.array([1.0, 0.5]), -jnp.ones(1)) == np.inf
    assert theory.li2026_rate(value) == 0
    first = jnp.array([[3.0], [1.0]])
    whole = theory.scholkemper2024_initial_residual(EVEN, first, BOTH, 1.0)
    np.testing.assert_allclose(whole, first, rtol=1e-6)
    near = theory.scholkemper2024_initial_residual(EVEN, first, BOTH, 1 - 1e-6)
    np.testing.assert_allclose(near, whole, rtol=1e-5)
    rates = theory.wu2024_collapse_rate(jnp.full(3, 0.5), jnp.array([-1, 0, 1]), 4)
    assert rates.tolist() == [1, 0.0625, 0.0625]


def test_what_has_no_answer_is_refused_by_name():
    attn = jnp.stack([EVEN, EVEN])
    for refused, error, message in (
        (lambda: theory.hajnal1958_sum(attn, BOTH, block=0), OptionError, "block must be"),
        (lambda: theory.wolfowitz1963_word_contraction(attn, BOTH, length=0), OptionError, "length must be"),
        (lambda: theory.geshkovski2023_flow(UNIT, BOTH, 1.0, 1.0, 0), OptionError, "steps must be"),
        (lambda: theory.group_inverse(np.eye(2), BOTH), ShapeError, "one closed class; this has 2"),
        (lambda: theory.group_inverse(np.eye(2), ~BOTH), ShapeError, "one closed class; this has 0"),
    ):
        with pytest.raises(error, match=message):
            refused()


def test_products_of_least_values_enclose_overlapping_balls():
    """2 +- 2 and 2.15 +- 0.05: 3.9 and 2.15 are in them, of product 8.385."""
    c = ArbCalculus(2)
    balls = [arb(2, 2), arb(2.15, 0.05)]
    assert c.least(balls, 2).contains(arb(3.9) * arb(2.15))
    rng = np.random.default_rng(0)
    for _ in range(200):
        middle, radius = rng.uniform(0, 3, 4), rng.uniform(0, 2, 4)
        found = [c.least([arb(m, r) for m, r in zip(middle.tolist(), radius.tolist(), strict=True)], k) for k in (1, 2)]
        for _ in range(20):
            x = np.sort(middle + radius * rng.choice([-1, 1, rng.uniform(-1, 1)], 4))
            assert float(found[0].lower()) - 1e-12 <= x[0] <= float(found[0].upper()) + 1e-12
            assert float(found[1].lower()) - 1e-12 <= x[0] * x[1] <= float(found[1].upper()) + 1e-12


@pytest.mark.parametrize("tokens", [1, 3])
def test_two_least_values_of_one_token(tokens):
    """The least is taken twice, in every calculus, with and without padding."""
    mask = np.arange(tokens) < 1
    values = np.where(mask, 2.0, 1.0)
    for calculus in (FloatCalculus, HostCalculus):
        found = calculus(mask, np.float64).least(Interval.exact(values), 2)
        assert found.lower == pytest.approx(4)
        assert found.upper == pytest.approx(4)
    assert float(ArbCalculus(1).least([arb(2)], 2).mid()) == 4
