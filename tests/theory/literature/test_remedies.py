"""What ContraNorm, NeuTRENO, initial residuals and BatchNorm guarantee, and where each guarantee ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.special
from support.matrices import WIDTH, centring
from support.statements import assert_holds, attentions, distance, few_or_many_seeds, tokens_for

from jaxsmooth.theory import mixing_rate, subspace_distance
from jaxsmooth.theory.literature import remedies
from jaxsmooth.theory.literature.initialisation import ali2023_centred_attention

least_eigenvalue, contranorm = jax.jit(remedies.guo2023_smallest_eigenvalue), jax.jit(remedies.guo2023_contranorm)
fixed_point, kept = jax.jit(remedies.nguyen2023_neutreno_fixed_point), jax.jit(remedies.nguyen2023_neutreno_distance)
initial_residual = jax.jit(remedies.scholkemper2024_initial_residual)
batch_norm = jax.jit(remedies.scholkemper2024_batch_norm)
apart, rate = jax.jit(subspace_distance), jax.jit(mixing_rate)
BOTH = np.ones(2, bool)


def check_contranorm(rng: np.random.Generator) -> None:
    attn, mask = attentions(rng)
    strength = 10 ** rng.uniform(-3, 2)
    ratio = assert_holds(contranorm(tokens_for(rng, mask), attn, mask, strength), rtol=1e-9, atol=1e-12)
    assert ratio.max() > 0.5


def check_neutreno(rng: np.random.Generator) -> None:
    attn, mask = attentions(rng)
    ratio = assert_holds(kept(attn, tokens_for(rng, mask), mask, 10 ** rng.uniform(-2, 1)), rtol=1e-9, atol=1e-12)
    assert ratio.max() > 0.3


CHECKS = {"contranorm": check_contranorm, "neutreno": check_neutreno}


@few_or_many_seeds
@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS.keys())
def test_it_holds(check, seeds):
    for seed in seeds:
        check(np.random.default_rng(seed))


def complement_spectrum(attn: np.ndarray) -> np.ndarray:
    """Eigenvalues of J(I - A) + (I - A)^T J in an orthonormal basis of the complement of 1."""
    n = len(attn)
    basis = scipy.linalg.null_space(np.ones((1, n)))
    half = centring(n) @ (np.eye(n) - attn)
    return np.linalg.eigvalsh(basis.T @ (half + half.T) @ basis)


def test_sigma_min_against_scipy():
    attn, mask = attentions(np.random.default_rng(5))
    found = np.asarray(least_eigenvalue(attn, mask))
    for case in range(0, len(attn), 20):
        real = mask[case]
        assert found[case] == pytest.approx(complement_spectrum(attn[case][real][:, real])[0], abs=1e-13)


def test_contranorm_is_attained_without_mixing():
    """Two closed classes: (I - A) v = 0, sigma_min = 0, equality. Symmetric A: the gap is (s sigma_min / 2)^2."""
    attn = scipy.linalg.block_diag(np.full((2, 2), 0.5), np.full((2, 2), 0.5))
    hidden = np.array([[1.0], [1.0], [-1.0], [-1.0]])
    every = np.ones(4, bool)
    found = contranorm(hidden, attn, every, 3.0)
    assert float(found.lhs) == pytest.approx(float(found.rhs), rel=1e-13) == pytest.approx(4)
    symmetric = np.array([[0.6, 0.4], [0.4, 0.6]])
    least = 2 * (1 - 0.2)
    for s in (1e-3, 1e-1, 1.0):
        found = contranorm(np.array([[1.0], [-1.0]]), symmetric, BOTH, s)
        assert float(found.rhs - found.lhs) == pytest.approx(2 * (s * least / 2) ** 2, rel=1e-8)


def test_contranorm_over_the_whole_space_promises_nothing():
    """1 is in the kernel, so the eigenvalue over all of space is at most 0 whatever A; on the complement it is 2."""
    uniform = np.full((4, 4), 0.25)
    half = centring(4) @ (np.eye(4) - uniform)
    assert np.linalg.eigvalsh(half + half.T)[0] <= 1e-15
    assert float(least_eigenvalue(uniform, np.ones(4, bool))) == pytest.approx(2)


def test_contranorm_needs_a_strength_that_is_not_negative():
    attn = np.diag([0.9, 0.5, 0.1]) + 0.0
    attn = attn + (1 - np.diag(attn))[:, None] * (1 - np.eye(3)) / 2
    basis = scipy.linalg.null_space(np.ones((1, 3)))
    half = centring(3) @ (np.eye(3) - attn)
    worst = basis @ np.linalg.eigh(basis.T @ (half + half.T) @ basis)[1][:, -1:]
    found = contranorm(worst, attn, np.ones(3, bool), -0.01)
    assert not found.applicable
    assert float(found.lhs) > float(found.rhs) * (1 + 1e-3)


def test_contranorm_needs_rows_that_sum_to_one():
    """With unequal sums a large mean can cancel every difference."""
    attn = np.diag([2.0, 0.0])
    hidden = np.array([[1.0], [-1.0]]) + 1.0  # (1 + s) H - s A H = (0, 0) at s = 1
    found = contranorm(hidden, attn, BOTH, 1.0)
    assert float(found.rhs) == 0
    assert float(found.lhs) > 1
    assert not found.applicable


def test_the_fixed_point_solves_its_equation():
    rng = np.random.default_rng(6)
    attn, mask = attentions(rng)
    first = tokens_for(rng, mask)
    found = np.asarray(fixed_point(attn, first, mask, 0.3))
    clean = np.where(mask[..., None], first, 0)
    size = np.abs(clean).max(axis=(1, 2), keepdims=True)
    residual = np.where(mask[..., None], attn @ found + 0.3 * (clean - found) - found, 0)
    np.testing.assert_allclose(residual / size, 0, atol=1e-13)
    assert np.all(found[~mask] == 0)
    for case in range(0, len(attn), 50):
        real = mask[case]
        a, x = attn[case][real][:, real], first[case][real]
        expected = scipy.linalg.solve(1.3 * np.eye(len(a)) - a, 0.3 * x)
        np.testing.assert_allclose(found[case][real], expected, rtol=1e-9, atol=1e-10 * np.abs(x).max())


def test_the_kept_distance_is_attained_by_exchanging_tokens():
    swap, hidden = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([[1.0], [-1.0]])
    for strength in (0.1, 1.0, 10.0):
        found = kept(swap, hidden, BOTH, strength)
        assert float(found.lhs) == pytest.approx(float(found.rhs), rel=1e-10)


def test_neutreno_iterates_to_it_for_psd_attention_and_not_for_an_exchange():
    """Q = K gives eigenvalues in [0, 1] and convergence for lambda < 1; -1 - lambda of the exchange diverges."""
    rng = np.random.default_rng(7)
    keys = rng.standard_normal((6, 3))
    attn = scipy.special.softmax(keys @ keys.T, axis=1)
    first = rng.standard_normal((6, WIDTH))
    value = first
    for _ in range(400):
        value = attn @ value + 0.3 * (first - value)
    np.testing.assert_allclose(fixed_point(attn, first, np.ones(6, bool), 0.3), value, atol=1e-12)
    swap, value = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([[1.0], [-1.0]])
    for _ in range(50):
        value = swap @ value + 0.3 * (np.array([[1.0], [-1.0]]) - value)
    assert np.abs(value).max() > 1e4


def test_an_initial_residual_always_converges_and_keeps_tokens_apart():
    """Against plain attention, which collapses on the same matrices."""
    rng = np.random.default_rng(8)
    attn, mask = attentions(rng)
    clean = np.where(mask[..., None], tokens_for(rng, mask), 0)
    clean /= np.abs(clean).max(axis=(1, 2), keepdims=True)
    x = clean
    for _ in range(120):
        x = 0.7 * attn @ x + 0.3 * clean
    limit = np.asarray(initial_residual(attn, clean, mask, 0.3))
    np.testing.assert_allclose(np.where(mask[..., None], x, 0), limit, atol=1e-12)
    bound = 0.3 / (1 + 0.7 * np.asarray(rate(attn, mask))) * np.asarray(apart(clean, mask))
    assert np.all(np.asarray(apart(limit, mask)) >= bound - 1e-12)
    uniform = np.full((5, 5), 0.2)
    assert distance(uniform @ clean[0][:5]) < 1e-14


def test_batch_norm_iterates_tend_to_the_leading_eigenspace():
    """X <- BN(A X W): the columns come to span J A's two leading eigenvectors, at the rate of the third."""
    rng = np.random.default_rng(9)
    n, columns = 6, 2
    frame = np.linalg.qr(np.column_stack([np.ones(n), rng.standard_normal((n, n - 1))]))[0]
    eigenvalues = np.array([1.0, 0.8, -0.7, 0.35, 0.2, 0.1])
    attn, mask = frame * eigenvalues @ frame.T, np.ones(n, bool)
    leading = frame[:, 1 : 1 + columns]
    x, angles = rng.standard_normal((n, columns)), []
    for _ in range(40):
        x = np.asarray(batch_norm(attn @ x @ scipy.linalg.qr(rng.standard_normal((columns, columns)))[0], mask))
        np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-14)
        np.testing.assert_allclose((x**2).mean(axis=0), 1, rtol=1e-13)
        angles.append(scipy.linalg.subspace_angles(x, leading).max())
    assert angles[-1] < 1e-7
    assert (angles[20] / angles[5]) ** (1 / 15) == pytest.approx(0.35 / 0.7, rel=0.05)
    assert np.linalg.matrix_rank(x, tol=1e-3) == columns


def test_batch_norm_of_a_constant_feature_is_zero_and_padding_is_ignored():
    mask = np.array([True, True, False])
    x = np.array([[1.0, 2.0], [1.0, 4.0], [9e6, 9e6]])
    np.testing.assert_array_equal(batch_norm(x, mask), [[0, -1], [0, 1], [0, 0]])


def test_padding_changes_nothing():
    rng = np.random.default_rng(12)
    attn, mask = attentions(rng)
    hidden = tokens_for(rng, mask)
    clean = np.where(mask[..., None], hidden, 0)
    for function in (kept, lambda a, x, m, s: contranorm(x, a, m, s)):
        for dirty, tidy in zip(function(attn, hidden, mask, 0.5), function(attn, clean, mask, 0.5), strict=True):
            np.testing.assert_array_equal(dirty, tidy)
    np.testing.assert_array_equal(fixed_point(attn, hidden, mask, 0.5), fixed_point(attn, clean, mask, 0.5))
    assert np.all(
        np.swapaxes(np.asarray(ali2023_centred_attention(jnp.array(attn), jnp.array(mask))), 1, 2)[~mask] == 0
    )
