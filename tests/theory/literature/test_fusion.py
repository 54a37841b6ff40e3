"""Fusing layers: concatenation and maximum cannot leave consensus, gates can."""

import jax
import numpy as np
import pytest
from support.matrices import PADDED, TOKENS, WIDTH, token_batch
from support.statements import CASES, MANY, assert_at_most, distance, few_or_many

from jaxsmooth.theory.literature import fusion

LAYERS = 4
concat = jax.jit(fusion.fusion_concat)
maximum, gate = jax.jit(fusion.fusion_max), jax.jit(fusion.fusion_gate)


def layers(seed: int, cases: int) -> tuple[np.ndarray, np.ndarray]:
    """Outputs of several layers of every scale and offset, some of them in consensus: ([LAYERS cases T D], mask)."""
    rng = np.random.default_rng(seed)
    hidden, mask = zip(*[token_batch(rng, cases) for _ in range(LAYERS)], strict=True)
    hidden = np.where(np.abs(hidden) > 1e5, 1.0, hidden)
    hidden[:, ::5] = hidden[:, ::5, :1]
    hidden[0, 1::5] = hidden[0, 1::5, :1]
    return hidden, mask[0]


@few_or_many(CASES, MANY)
def test_fusions(seed, cases):
    rng = np.random.default_rng(seed)
    hidden, mask = layers(seed, cases)
    weight = rng.standard_normal((LAYERS, WIDTH, 7)) * 10 ** rng.uniform(-2, 2, (LAYERS, 1, 1))
    soft = np.moveaxis(rng.dirichlet(np.ones(LAYERS), (cases, PADDED)), -1, 0)
    sigmoid = 1 / (1 + np.exp(3 * rng.standard_normal(soft.shape)))
    size = np.max(np.abs(hidden) * mask[..., None], axis=(0, 2, 3))
    for found in (
        concat(hidden, weight, mask),
        maximum(hidden, mask),
        gate(hidden, soft, mask),
        gate(hidden, sigmoid - 0.5, mask),
    ):
        assert found.applicable.all()
        slack = 1e-13 * size * np.abs(weight).max()
        assert_at_most(found, slack, recorded=1e4 * slack)
    # Layers in consensus: what concatenation and the maximum make of them is consensus.
    for found in (concat(hidden, weight, mask), maximum(hidden, mask)):
        assert np.all(found.lhs[::5] <= 1e-11 * size[::5] * np.abs(weight).max())


def test_the_references():
    hidden, mask = layers(0, CASES)
    rng = np.random.default_rng(0)
    weight, gates = rng.standard_normal((LAYERS, WIDTH, 7)), rng.uniform(size=(LAYERS, CASES, PADDED))
    found = [concat(hidden, weight, mask), maximum(hidden, mask), gate(hidden, gates, mask)]
    for k in range(2, CASES, 25):
        own, g = hidden[:, k, mask[k]], gates[:, k, mask[k]]
        each = [distance(x) for x in own]
        side_by_side = np.concatenate(list(own), axis=1)
        expected = [
            (
                distance(side_by_side @ weight.reshape(-1, 7)),
                np.linalg.norm(weight.reshape(-1, 7), 2) * np.hypot.reduce(each),
            ),
            (distance(own.max(axis=0)), np.hypot.reduce(each)),
            (
                distance(np.einsum("lt,ltd->td", g, own)),
                g.max(axis=1) @ each + distance(np.einsum("lt,ld->td", g, own.mean(axis=1))),
            ),
        ]
        for statement, (lhs, rhs) in zip(found, expected, strict=True):
            assert float(statement.lhs[k]) == pytest.approx(lhs, rel=1e-9, abs=1e-9)
            assert float(statement.rhs[k]) == pytest.approx(rhs, rel=1e-9, abs=1e-9)


def test_concatenation_is_attained():
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((LAYERS, WIDTH, 7))
    left = np.linalg.svd(weight.reshape(-1, 7))[0][:, 0].reshape(LAYERS, 1, WIDTH)
    found = concat(
        rng.standard_normal((1, TOKENS, 1)) * left + rng.standard_normal((LAYERS, 1, WIDTH)),
        weight,
        np.ones(TOKENS, bool),
    )
    assert float(found.lhs) == pytest.approx(float(found.rhs), rel=1e-12)


def test_the_maximum_is_attained():
    """Each layer decides features of its own."""
    hidden = np.full((LAYERS, TOKENS, LAYERS), -100.0)
    hidden[np.arange(LAYERS), :, np.arange(LAYERS)] = np.random.default_rng(0).standard_normal((LAYERS, TOKENS))
    found = maximum(hidden, np.ones(TOKENS, bool))
    assert float(found.lhs) == pytest.approx(float(found.rhs), rel=1e-14)


def test_gates_leave_consensus():
    """H_1 = 1 [1], H_2 = 1 [2], gates .1, .5, .9: both layers in consensus, the fusion .566 away from it."""
    hidden = np.stack([np.full((3, 1), 1.0), np.full((3, 1), 2.0)])
    gates = np.array([0.1, 0.5, 0.9])
    found = gate(hidden, np.stack([gates, 1 - gates]), np.ones(3, bool))
    assert distance(hidden[0]) == distance(hidden[1]) == 0
    assert float(found.lhs) == pytest.approx(0.5657, abs=5e-5)
    assert float(found.rhs) == pytest.approx(float(found.lhs), rel=1e-14)


def test_gates_of_consensus_are_exact_and_have_rank_at_most_the_number_of_layers():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((2, CASES, 1, WIDTH)) * np.ones((PADDED, 1))
    gates = np.moveaxis(rng.dirichlet(np.ones(2), (CASES, PADDED)), -1, 0)
    mask = np.ones((CASES, PADDED), bool)
    found = gate(rows, gates, mask)
    np.testing.assert_allclose(found.lhs, found.rhs, rtol=1e-9)
    fused = np.einsum("lbt,lbtd->btd", gates, rows)
    assert np.all(np.linalg.matrix_rank(fused, tol=1e-9) <= 2)


def test_padding_changes_nothing():
    hidden, mask = layers(0, CASES)
    bare, weight = hidden[:, :, :TOKENS], np.random.default_rng(0).standard_normal((LAYERS, WIDTH, 7))
    gates = np.random.default_rng(1).uniform(size=(LAYERS, CASES, PADDED))
    short = mask & (np.arange(PADDED) < TOKENS)
    garbage = np.where(short[..., None], hidden, 1e6)
    for padded, cut in (
        (concat(garbage, weight, short), concat(bare, weight, short[:, :TOKENS])),
        (maximum(garbage, short), maximum(bare, short[:, :TOKENS])),
        (gate(garbage, gates, short), gate(bare, gates[..., :TOKENS], short[:, :TOKENS])),
    ):
        np.testing.assert_allclose(padded.lhs, cut.lhs, rtol=1e-9, atol=1e-8)
        np.testing.assert_allclose(padded.rhs, cut.rhs, rtol=1e-9, atol=1e-8)
