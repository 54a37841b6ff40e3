"""X -> X + A X W: its spectrum, when tokens unify, and rank collapse without uniformity."""

import numpy as np
import pytest
from support.matrices import FAMILIES, centring
from support.statements import few_or_many, record

from jaxsmooth.theory.literature import residual_attention

SIZE, DIM = 6, 4


def reversible(rng: np.random.Generator, eigenvalues: np.ndarray) -> np.ndarray:
    """A symmetric matrix with these eigenvalues beside 1, which belongs to the vector of ones (rows sum to 1)."""
    frame = np.linalg.qr(np.column_stack([np.ones(SIZE), rng.standard_normal((SIZE, SIZE - 1))]))[0]
    return frame * np.concatenate([[1.0], eigenvalues]) @ frame.T


def with_eigenvalues(rng: np.random.Generator, values: np.ndarray) -> np.ndarray:
    basis = rng.standard_normal((DIM, DIM)) + 2 * np.eye(DIM)
    return basis * values @ np.linalg.inv(basis)


def iterate(attn: np.ndarray, weight: np.ndarray, steps: int, seed: int = 0) -> np.ndarray:
    """The state after so many steps, of norm 1, from a generic start."""
    x = np.random.default_rng(seed).standard_normal((SIZE, DIM))
    for _ in range(steps):
        x = x + attn @ x @ weight
        x /= np.linalg.norm(x)
    return x


def relative(x: np.ndarray) -> float:
    return float(np.linalg.norm(centring(SIZE) @ x) / np.linalg.norm(x))


def second_singular(x: np.ndarray) -> float:
    values = np.linalg.svd(x, compute_uv=False)
    return float(values[1] / values[0])


def paired(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest distance between two sets of complex numbers, matched greedily."""
    left, worst = list(expected), 0.0
    for value in found:
        nearest = int(np.argmin(np.abs(np.array(left) - value)))
        worst = max(worst, abs(left.pop(nearest) - value))
    return worst


@few_or_many(1000, 100_000)
def test_the_spectrum(seed, cases):
    """Against the dense Kronecker matrix I + A (x) W^T."""
    rng = np.random.default_rng(seed)
    names = ["stochastic", "doubly stochastic", "causal", "closed classes"]
    errors = []
    for k in range(cases):
        attn = FAMILIES[names[k % 4]](rng, SIZE)
        weight = rng.standard_normal((DIM, DIM))
        found = residual_attention.residual_eigenvalues(attn, weight)
        assert found.shape == (SIZE, DIM)
        dense = np.linalg.eigvals(np.eye(SIZE * DIM) + np.kron(attn, weight.T))
        # Eigenvalues of defective matrices are known to the root of the precision only; power sums are not so.
        for power in (1, 2, 3):
            assert np.sum(found**power) == pytest.approx(np.sum(dense**power), rel=1e-7, abs=1e-6)
        errors.append(abs(np.sum(found**2) - np.sum(dense**2)) / np.sum(np.abs(dense) ** 2))
        # A mixture of few permutations may leave several patterns in place: then any of them may come first.
        if names[k % 4] == "doubly stochastic":
            continue
        np.testing.assert_allclose(np.sort(np.abs(found[0])), np.sort(np.abs(1 + np.linalg.eigvals(weight))), rtol=1e-6)
    record(1 + np.array(errors), np.ones(cases))


def test_the_spectrum_to_rounding():
    rng = np.random.default_rng(0)
    for _ in range(50):
        attn, weight = reversible(rng, rng.uniform(-1, 1, SIZE - 1)), with_eigenvalues(rng, rng.standard_normal(DIM))
        dense = np.linalg.eigvals(np.eye(SIZE * DIM) + np.kron(attn, weight.T))
        assert paired(residual_attention.residual_eigenvalues(attn, weight).ravel(), dense) < 1e-8


@few_or_many(250, 20_000)
def test_the_fate(seed, cases):
    """Iterated, 400 steps: the tokens unify where predicted and nowhere else, at the predicted rate."""
    rng = np.random.default_rng(seed)
    decided = 0
    for _ in range(cases):
        attn = reversible(rng, rng.uniform(0, 1, SIZE - 1) * rng.choice([1, 1, -1], SIZE - 1))
        weight = with_eigenvalues(rng, rng.uniform(-1.9, 1.5, DIM))
        fate = residual_attention.residual_fate(attn, weight)
        ratio = fate.rest / fate.consensus
        # Too near the boundary for 400 steps to tell.
        if 0.97 < ratio < 1.03:
            continue
        decided += 1
        x = iterate(attn, weight, 400)
        assert fate.tokens_unify == (ratio < 1)
        assert (relative(x) < 1e-2) == fate.tokens_unify
        if fate.separation < 0.97:
            assert fate.rank_collapses
            assert second_singular(x) < 1e-2
    assert decided > 0.7 * cases


def test_the_rate():
    """d_M / ||X|| decays by rest / consensus per step."""
    rng = np.random.default_rng(1)
    attn, weight = (
        reversible(rng, np.array([0.8, 0.5, 0.3, 0.2, 0.1])),
        with_eigenvalues(rng, np.array([1.0, 0.2, -0.3, 0.1])),
    )
    fate = residual_attention.residual_fate(attn, weight)
    assert fate.rest / fate.consensus == pytest.approx(1.8 / 2)
    early, late = relative(iterate(attn, weight, 100)), relative(iterate(attn, weight, 150))
    assert (late / early) ** (1 / 50) == pytest.approx(0.9, rel=1e-3)


def test_rank_collapse_without_token_uniformity():
    """All mu in (-2, 0), all lambda in [0, 1]: the smallest lambda wins, and it is not that of consensus."""
    rng = np.random.default_rng(0)
    attn = reversible(rng, np.array([0.7, 0.6, 0.5, 0.4, 0.1]))
    weight = with_eigenvalues(rng, np.array([-0.4, -0.8, -1.0, -1.5]))
    fate = residual_attention.residual_fate(attn, weight)
    assert (fate.tokens_unify, fate.rank_collapses) == (False, True)
    x = iterate(attn, weight, 1200)
    assert second_singular(x) < 1e-6
    assert relative(x) == pytest.approx(1, abs=1e-6)


def test_eigenvalues_of_one_modulus_that_share_a_vector_leave_rank_one():
    """W a rotation: |1 + mu| is that of a conjugate pair, X turns for ever, but as tokens unify its rank is one."""
    attn = reversible(np.random.default_rng(0), np.zeros(SIZE - 1))
    weight = np.kron(np.eye(2), np.array([[0.3, -1.0], [1.0, 0.3]]))
    fate = residual_attention.residual_fate(attn, weight)
    assert (fate.tokens_unify, fate.rank_collapses, fate.applicable) == (True, True, True)
    assert second_singular(iterate(attn, weight, 400)) < 1e-9
    one = residual_attention.residual_fate(np.ones((1, 1)), np.array([[0.5]]))
    assert (one.tokens_unify, one.rest, one.rank_collapses) == (True, 0, True)


def test_a_jordan_block_leaves_rank_one():
    """The largest eigenvalue is double and has one vector: no pair dominates, yet the rank does collapse."""
    attn, weight = np.array([[0.9, 0.1], [0.1, 0.9]]), np.array([[0.5, 1.0], [0.0, 0.5]])
    fate = residual_attention.residual_fate(attn, weight)
    assert (fate.tokens_unify, fate.rank_collapses, fate.applicable, fate.separation) == (True, True, True, 1)
    x = np.array([[1.0, 0.3], [-0.4, 0.8]])
    for _ in range(400):
        x = x + attn @ x @ weight
        x /= np.linalg.norm(x)
    assert np.linalg.svd(x)[1][1] < 1e-9


def test_rank_two_and_what_is_not_known():
    """Several tokens and several features tie: rank two for matrices with as many vectors, else nothing is claimed."""
    two = residual_attention.residual_fate(np.eye(2), 0.5 * np.eye(2))
    assert (two.rank_collapses, two.applicable) == (False, True)
    unknown = residual_attention.residual_fate(np.eye(2), np.array([[0.5, 1.0], [0.0, 0.5]]))
    assert not unknown.applicable
    for attn, weight in ((np.zeros((0, 0)), np.eye(2)), (np.full((1, 1), np.nan), np.eye(1))):
        assert not residual_attention.residual_fate(attn, weight).applicable
