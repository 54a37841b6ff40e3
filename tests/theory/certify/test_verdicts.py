"""Certified verdicts: a true lemma is never violated, a false one never confirmed, in the judgement of Arb."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from support.certify import (
    TOKENS,
    attention,
    extremal_mixing,
    extremal_product,
    matrix,
    on_device,
    on_host,
    tokens,
)
from support.statements import record

from jaxsmooth.linalg.intervals import Interval
from jaxsmooth.theory.certify.arb_calculus import ArbCalculus
from jaxsmooth.theory.certify.float_calculus import FloatCalculus, HostCalculus
from jaxsmooth.theory.statement import Statement, Verdict, decide


def lemma_product(c, h, w):
    """Lemma 1(1)."""
    return c.distance(c.matmul(c.matrix(h), c.matrix(w))), c.norm(c.matrix(w)) * c.distance(c.matrix(h))


def lemma_mixing(c, a, h):
    """Lemma 1(4), rows that do not sum to 1 included."""
    attn, hidden = c.matrix(a), c.matrix(h)
    bound = c.norm(c.centre_tokens(attn)) * c.distance(hidden)
    return c.distance(c.matmul(attn, hidden)), bound + c.defect(attn) * c.frobenius(c.mean_row(hidden))


def lemma_sum(c, h):
    """Lemma 1(3) with B = 2 H: equality."""
    hidden = c.matrix(h)
    twice = c.scale(hidden, c.number(2.0))
    return c.distance(c.add(hidden, twice)), c.distance(hidden) + c.distance(twice)


LEMMAS = {
    "product": (lemma_product, lambda rng, dtype: (tokens(rng, dtype), matrix(rng, dtype)), extremal_product),
    "mixing": (lemma_mixing, lambda rng, dtype: (attention(rng, dtype), tokens(rng, dtype)), extremal_mixing),
    "sum": (lemma_sum, lambda rng, dtype: (tokens(rng, dtype),), lambda rng, dtype: (tokens(rng, dtype),)),
}


def device_verdicts(lemma, dtype: str, columns, *, tightened: float = 1.0) -> np.ndarray:
    def both(c, *arrays):
        lhs, rhs = lemma(c, *arrays)
        return Statement(lhs, rhs * c.number(tightened), True)

    found = on_device(both if tightened != 1 else lemma, dtype)(*(jnp.asarray(column) for column in columns))
    return np.asarray(decide(found[0], found[1]))


def cases_of(name: str, kind: int, dtype: str, cases: int, seed: int):
    rng = np.random.default_rng(seed)
    return [np.stack(column) for column in zip(*(LEMMAS[name][kind](rng, dtype) for _ in range(cases)), strict=True)]


@pytest.mark.parametrize(
    "seeds", [pytest.param([0], id="few"), pytest.param(range(1, 18), id="many", marks=pytest.mark.long)]
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LEMMAS)
@pytest.mark.parametrize("kind", [1, 2], ids=["random", "extremal"])
def test_a_true_lemma_is_never_violated(name, kind, dtype, seeds):
    """12 x 500 cases for each seed, those of equality among them; most random ones are confirmed."""
    for seed in seeds:
        verdicts = device_verdicts(LEMMAS[name][0], dtype, cases_of(name, kind, dtype, 500, seed))
        violated = verdicts == Verdict.VIOLATED
        record(np.zeros(verdicts.shape), np.ones(verdicts.shape), int(violated.sum()))
        assert not violated.any()
        if kind == 1 and name != "sum":
            assert np.mean(verdicts == Verdict.CONFIRMED) > 0.5


@pytest.mark.parametrize("name", LEMMAS)
def test_no_verdict_contradicts_arb(name):
    """A right side smaller by 1e-6 is false in the extremal cases: never CONFIRMED where Arb says so."""
    lemma, columns = LEMMAS[name][0], cases_of(name, 2, "float64", 100, 3)
    verdicts = device_verdicts(lemma, "float64", columns, tightened=1 - 1e-6)
    false = 0
    for verdict, arrays in zip(verdicts, zip(*columns, strict=True), strict=True):
        lhs, rhs = lemma(ArbCalculus(TOKENS), *arrays)
        bound = rhs * (1 - 1e-6)
        if verdict == Verdict.UNDECIDED:
            # Equal singular values leave the squarings 3e-4 above the norm; the SVD does not.
            left, right = on_host(lemma, HostCalculus, "float64", *arrays)
            verdict = int(decide(left, right * Interval.exact(np.float64(1 - 1e-6))))
        assert not (verdict == Verdict.CONFIRMED and lhs > bound)
        assert not (verdict == Verdict.VIOLATED and lhs <= bound)
        false += int(lhs > bound and verdict == Verdict.VIOLATED)
    assert false > 50


@pytest.mark.parametrize("calculus", [FloatCalculus, HostCalculus, ArbCalculus])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_false_statements_are_violated(calculus, dtype):
    """Lemma 1(4) with e = ones unnormalised; 1(2) for GELU with slope 1; the rate without its gain."""
    c = ArbCalculus(2) if calculus is ArbCalculus else calculus(np.ones(2, bool), np.dtype(dtype))
    verdict = functools.partial(_verdict, c)
    attn = c.matrix(np.array([[0.9, 0.1], [0.8, 0.2]], dtype))
    h = c.matrix(np.array([[1.0], [-1.0]], dtype))
    mixed = c.distance(c.matmul(attn, h))
    assert verdict(mixed, c.norm(c.centre_tokens(attn)) * c.distance(h)) != Verdict.VIOLATED
    # The largest eigenvalue of A^T (I - 1 1^T) A, the projector as it reads with e = ones, is 0.00673.
    assert verdict(mixed, c.sqrt(c.number(0.00674)) * c.distance(h)) == Verdict.VIOLATED
    near = c.matrix(np.array([[1.40], [1.43]], dtype))
    assert verdict(c.distance(c.activation(near, "gelu")), c.distance(near)) == Verdict.VIOLATED
    x = c.matrix(np.array([[1.0, -1.0], [-1.0, 1.0]], dtype))
    twos, zeros = c.matrix(np.full((1, 2), 2, dtype)), c.matrix(np.zeros((1, 2), dtype))
    stds = c.stds(x, 0.0)
    after = c.distance(c.layer_norm(x, twos, zeros, stds))
    assert verdict(after, c.distance(x) / c.least(stds)) == Verdict.VIOLATED
    assert verdict(after, c.number(2.1) * c.distance(x) / c.least(stds)) == Verdict.CONFIRMED


def _verdict(c, lhs, rhs) -> int:
    if isinstance(c, ArbCalculus):
        return Verdict.CONFIRMED if lhs <= rhs else Verdict.VIOLATED if lhs > rhs else Verdict.UNDECIDED
    return int(decide(lhs, rhs))


def test_what_says_nothing_decides_nothing():
    one, nan, inf = (np.float64(x) for x in (1, np.nan, np.inf))
    for unknown in (Interval(nan, nan), Interval(nan, inf), Interval(-inf, inf), Interval(one, inf)):
        assert int(decide(Interval(one, one), unknown)) == Verdict.UNDECIDED or unknown.lower == 1
        assert int(decide(unknown, Interval(one, one))) == Verdict.UNDECIDED
    assert int(decide(Interval(one, one), Interval(one, one), False)) == Verdict.NOT_APPLICABLE
