"""Where A^k goes: limits, stationary laws, reversibility, against rational arithmetic and LAPACK."""

import functools
from fractions import Fraction

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components, shortest_path
from support.matrices import FAMILIES, PADDED, TOKENS, attention_batch, pad_attention
from support.statements import few_or_many, record

from jaxsmooth.theory import (
    chain_limit,
    closed_classes,
    detailed_balance_defect,
    reversible_contraction,
    stationary_law,
)

SEED = st.integers(0, 2**32 - 1)
CASES = 1000
limit_of, law_of, defect_of = jax.jit(chain_limit), jax.jit(stationary_law), jax.jit(detailed_balance_defect)


def many(seed: int, cases: int = CASES) -> tuple[np.ndarray, np.ndarray]:
    """At least this many padded matrices, as many of each family, at random lengths."""
    rng = np.random.default_rng(seed)
    batches = [attention_batch(rng) for _ in range(-(-cases // (2 * len(FAMILIES))))]
    attn, mask = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return attn, mask


def exact_limit(attn: np.ndarray) -> np.ndarray:
    """sum_c h_c pi_c^T in rational arithmetic: scipy's strong components, then one linear system for all of it.

    Rows are made to sum to 1 exactly by their diagonal.
    """
    size = len(attn)
    rational = [[Fraction(float(x)) for x in row] for row in attn]
    for i, row in enumerate(rational):
        row[i] = 1 - sum(row[:i] + row[i + 1 :])
    _, label = connected_components(attn > 0, connection="strong")
    limit = np.zeros((size, size))
    for component in range(label.max() + 1):
        inside = np.flatnonzero(label == component)
        if np.any(attn[np.ix_(inside, np.flatnonzero(label != component))] > 0):
            continue
        # pi (I - A) = 0 with one equation replaced by sum pi = 1.
        system = [[(i == j) - rational[j][i] for j in inside] for i in inside[:-1]] + [[Fraction(1)] * len(inside)]
        law = solve_exactly(system, [Fraction(0)] * (len(inside) - 1) + [Fraction(1)])
        # h = 1 in the class, 0 in the other closed ones, A h = h elsewhere.
        rest = [i for i in range(size) if i not in inside and reaches(attn, i, inside[0])]
        hits = solve_exactly(
            [[(i == j) - rational[i][j] for j in rest] for i in rest],
            [sum(rational[i][j] for j in inside) for i in rest],
        )
        ends = np.isin(np.arange(size), inside).astype(float)
        ends[rest] = [float(hit) for hit in hits]
        limit[:, inside] += np.outer(ends, [float(p) for p in law])
    return limit


def reaches(attn: np.ndarray, start: int, end: int) -> bool:
    return bool(np.isfinite(shortest_path(attn > 0, indices=start, unweighted=True)[end]))


def solve_exactly(system: list[list[Fraction]], right: list[Fraction]) -> list[Fraction]:
    """Gauss and Jordan."""
    rows = [[*row, value] for row, value in zip(system, right, strict=True)]
    for k in range(len(rows)):
        pivot = next(i for i in range(k, len(rows)) if rows[i][k] != 0)
        rows[k], rows[pivot] = rows[pivot], rows[k]
        rows[k] = [x / rows[k][k] for x in rows[k]]
        for i in range(len(rows)):
            if i != k and rows[i][k] != 0:
                rows[i] = [x - rows[i][k] * y for x, y in zip(rows[i], rows[k], strict=True)]
    return [row[-1] for row in rows]


def symmetric_scores(rng: np.random.Generator, size: int) -> np.ndarray:
    """softmax(X X^T): reversible, with a spectrum that is not negative."""
    tokens = rng.standard_normal((size, 3))
    scores = np.exp(tokens @ tokens.T)
    return scores / scores.sum(axis=1, keepdims=True)


def test_the_limit_of_every_family_in_rational_arithmetic():
    """Entry by entry to a relative error of rounding, however ill-conditioned the chain."""
    attn, mask = many(0, 100)
    for matrix, real, limit in zip(attn, mask, np.asarray(limit_of(attn, mask).matrix), strict=True):
        np.testing.assert_allclose(limit[real][:, real], exact_limit(matrix[real][:, real]), rtol=1e-12, atol=1e-300)


def test_the_limit_is_a_projection_that_commutes_with_attention():
    attn, mask = many(2)
    found = limit_of(attn, mask)
    limits = np.asarray(found.matrix)
    for matrix, real, limit in zip(attn, mask, limits, strict=True):
        inner = matrix[real][:, real]
        assert np.all(limit[~real] == 0)
        assert np.all(limit[:, ~real] == 0)
        np.testing.assert_allclose(limit[real].sum(axis=1), 1, rtol=1e-13)
        np.testing.assert_allclose(inner @ limit[real][:, real], limit[real][:, real], atol=1e-13)
        np.testing.assert_allclose(limit[real][:, real] @ inner, limit[real][:, real], atol=1e-13)
        np.testing.assert_allclose(limit @ limit, limit, atol=1e-13)


def closed_count(attn: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Closed classes by the boolean closure of the graph, [cases]."""
    real = mask[:, :, None] & mask[:, None]
    reach = (((attn > 0) & real) | np.eye(attn.shape[1], dtype=bool)).astype(float)
    for _ in range(3):  # 2^3 steps, as many as there are tokens
        reach = (reach @ reach > 0).astype(float)
    there = reach > 0
    together = there & np.swapaxes(there, 1, 2)
    closed = (~there | together).all(axis=2) & mask
    return np.rint(np.sum(closed / together.sum(axis=2), axis=1)).astype(int)


@few_or_many(CASES, 100_000)
def test_the_number_of_closed_classes_is_the_dimension_of_the_kernel(seed, cases):
    """P12: dim ker(I - A), the elimination's roots and the graph's closed classes are one number."""
    attn, mask = many(seed, cases)
    found = np.asarray(limit_of(attn, mask).classes)
    inner = np.where(mask[:, :, None] & mask[:, None], attn, 0)
    # Where padding was, I - A is I: no singular value near 0 comes from there.
    values = np.linalg.svd(np.eye(PADDED) - inner, compute_uv=False)
    small = np.sum(values < 1e-12, axis=1)
    # A chain that is nearly decoupled has a singular value near 0 that is none.
    decoupled = np.min(np.where(inner > 0, inner, 1), axis=(1, 2)) < 1e-9
    wrong = (found != closed_count(attn, mask)) | (small < found) | ((small != found) & ~decoupled)
    record(np.maximum(found, 1), np.maximum(small, 1), int(wrong.sum()))
    assert not wrong.any()
    assert (found > 1).mean() > 0.1
    assert decoupled.mean() < 0.1


def test_the_limit_and_the_graph_count_the_same_closed_classes():
    attn, mask = many(1, 100)
    for matrix, real, count in zip(attn, mask, np.asarray(limit_of(attn, mask).classes), strict=True):
        assert count == len(closed_classes(matrix, real).closed)


def test_the_kernel_counts_classes_at_the_extremes():
    """As many classes as tokens, one class next to two, and half of the identity, which keeps nothing."""
    every = np.ones(PADDED, bool)
    assert int(limit_of(np.eye(PADDED), every).classes) == PADDED
    assert np.linalg.matrix_rank(np.eye(PADDED) - np.eye(PADDED) / 2) == PADDED
    leak = np.kron(np.eye(2), np.full((4, 4), 1 / 4))
    assert int(limit_of(leak, every).classes) == 2
    leak[0, 0], leak[0, 7] = 1 / 4 - 1e-15, 1e-15
    assert int(limit_of(leak, every).classes) == 1
    assert np.linalg.svd(np.eye(PADDED) - leak, compute_uv=False)[-2] < 1e-12


def test_absorption_and_laws_by_hand():
    """Two absorbing tokens, a pair that attends only within itself, and two transient tokens (gambler's ruin)."""
    attn = np.zeros((6, 6))
    attn[0, 0] = 1
    attn[1, [0, 2]] = 0.5
    attn[2, [1, 3]] = 0.5
    attn[3, [3, 4]] = 0.25, 0.75
    attn[4, [3, 4]] = 0.5, 0.5
    attn[5, 5] = 1
    found = limit_of(attn, np.ones(6, bool))
    law = np.array([0, 0, 0, 0.4, 0.6, 0])
    expected = np.stack(
        [np.eye(6)[0], 2 / 3 * np.eye(6)[0] + law / 3, np.eye(6)[0] / 3 + 2 / 3 * law, law, law, np.eye(6)[5]]
    )
    np.testing.assert_allclose(found.matrix, expected, atol=1e-15)
    assert int(found.classes) == 3
    assert np.all(np.isnan(law_of(attn, np.ones(6, bool))))
    structure = closed_classes(attn, np.ones(6, bool))
    assert [members.tolist() for members in structure.closed] == [[0], [3, 4], [5]]
    assert (structure.transient.tolist(), structure.kind, structure.converges) == ([1, 2], "reducible", True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_law_over_sixty_orders_of_magnitude_keeps_its_digits(dtype):
    """A birth-death chain's law is a product of ratios; elimination never subtracts, so every entry is right."""
    size, ratio = 31, 1e-1 if dtype == np.float32 else 1e-2
    attn = np.zeros((size, size), dtype)
    for i in range(size - 1):
        attn[i, i + 1], attn[i + 1, i] = 0.5 * ratio, 0.5
    np.fill_diagonal(attn, 1 - attn.sum(axis=1))
    expected = ratio ** np.arange(size, dtype=np.float64)
    found = np.asarray(law_of(attn, np.ones(size, bool)), np.float64)
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=200 * np.finfo(dtype).eps)


@pytest.mark.parametrize("mode", [jax.jacrev, jax.jacfwd])
def test_a_law_has_its_derivatives_at_transient_tokens_too(mode):
    """Two tokens that stay among themselves and one that joins them: by what they begin to send there, it gains law."""
    attn, every, step = np.array([[0.5, 0.5, 0.0], [0.25, 0.75, 0.0], [0.25, 0.25, 0.5]]), np.ones(3, bool), 1e-6
    found = np.asarray(jax.jit(mode(lambda a: stationary_law(a, every)))(attn))
    # Diagonals are not read; an entry of 0 can only grow.
    for i, j in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]:
        more = [attn + factor * step * np.outer(np.eye(3)[i], np.eye(3)[j]) for factor in (1, 2)]
        one, two = (np.asarray(law_of(each, every)) for each in more)
        slope = (4 * one - two - 3 * np.asarray(law_of(attn, every))) / (2 * step)
        np.testing.assert_allclose(found[:, i, j], slope, atol=1e-7)
    assert found[2, 0, 2] > 0.1


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_a_law_of_what_is_not_finite_is_unknown(odd):
    attn = np.array([[0.5, 0.25, 0.25], [0.2, 0.3, 0.5], [0.2, 0.4, 0.4]])
    for place in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]:
        attn[place], before = odd, attn[place]
        assert np.any(np.isnan(law_of(attn, np.ones(3, bool)))), place
        attn[place] = before


def test_nearly_decoupled_blocks_keep_their_law():
    """Coupled by 1e-14, the law is still determined; eigenvectors of a float matrix cannot tell it."""
    attn = np.array([[0.5, 0.5, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.5]])
    attn[0, 2], attn[2, 0] = 1e-14, 3e-14
    found = law_of(attn, np.ones(4, bool))
    np.testing.assert_allclose(found, np.array([3, 3, 1, 1]) / 8, rtol=1e-13)


def test_heads_share_their_mask():
    attn, mask = attention_batch(np.random.default_rng(2))
    heads = np.stack([attn, attn @ attn], axis=1)
    together = limit_of(heads, mask)
    np.testing.assert_allclose(together.matrix[:, 0], limit_of(attn, mask).matrix, atol=1e-14)
    assert together.roots.shape == (len(attn), 2, PADDED)


@given(seed=SEED)
def test_padding_changes_no_limit(seed):
    rng = np.random.default_rng(seed)
    matrix = FAMILIES["closed classes"](rng, TOKENS)
    padded = pad_attention(rng, matrix)
    mask = np.arange(PADDED) < TOKENS
    padded[TOKENS:] = rng.standard_normal((PADDED - TOKENS, PADDED))
    found = limit_of(padded, mask).matrix[:TOKENS, :TOKENS]
    np.testing.assert_allclose(found, limit_of(pad_attention(rng, matrix), mask).matrix[:TOKENS, :TOKENS], rtol=1e-14)


def test_reversible_attention_contracts_without_a_transient():
    """3.3 on symmetric scores: detailed balance, a real spectrum that is not negative, and the bound at every k."""
    rng = np.random.default_rng(5)
    attn = np.stack([pad_attention(rng, symmetric_scores(rng, TOKENS)) for _ in range(CASES)])
    mask = np.arange(PADDED) < TOKENS
    hidden = rng.standard_normal((CASES, PADDED, 2))
    assert np.all(np.asarray(defect_of(attn, np.tile(mask, (CASES, 1)))) < 1e-13)
    spectra = np.linalg.eigvals(attn[:, :TOKENS, :TOKENS])
    assert np.abs(spectra.imag).max() < 1e-7
    assert spectra.real.min() > -1e-12
    second = np.sort(spectra.real, axis=1)[:, -2]
    five = functools.partial(reversible_contraction, steps=5)
    statement = jax.jit(jax.vmap(five, in_axes=(0, 0, None, 0)))(attn, hidden, mask, second)
    assert np.all(statement.applicable)
    assert np.all(statement.lhs <= statement.rhs * (1 + 1e-9) + 1e-13)


def test_the_reversible_bound_is_attained_and_fails_without_reversibility():
    """Doubly stochastic and symmetric: pi is uniform, the constant is 1, the eigenvector attains it. Under a causal
    window nothing like it holds, and the statement does not apply."""
    contraction = jax.jit(reversible_contraction, static_argnames="steps")
    symmetric = np.array([[0.6, 0.4], [0.4, 0.6]])
    found = contraction(symmetric, np.array([[1.0], [-1.0]]), np.ones(2, bool), np.float64(0.2), steps=5)
    assert float(found.lhs) == pytest.approx(float(found.rhs), rel=1e-12)
    size = 16
    window = (np.eye(size) + np.eye(size, k=-1)) / 2
    window[0] = np.eye(size)[0]
    hidden = np.linspace(1, 0, size)[:, None]
    found = contraction(window, hidden, np.ones(size, bool), np.float64(0.5), steps=5)
    assert not found.applicable
    after = np.linalg.matrix_power(window, 5) @ hidden
    assert np.linalg.norm(after - after.mean()) > 10 * 0.5**5 * np.linalg.norm(hidden - hidden.mean())


def test_defects_of_extremes():
    cycle, rest = np.eye(3)[[1, 2, 0]], np.eye(3)
    assert float(defect_of(cycle, np.ones(3, bool))) == 1
    assert np.isnan(defect_of(rest, np.ones(3, bool)))
    assert float(defect_of(np.array([[1.0, 0.0], [1.0, 0.0]]), np.ones(2, bool))) == 0
