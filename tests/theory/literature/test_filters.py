"""Attention as a low-pass filter, the remedies' guarantees, and when residual attention unifies tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.special
from support.catalogue import LONG_SEEDS, distance, many_attentions, many_tokens, tightness
from support.matrices import PADDED, WIDTH, centring, lengths_mask, two_camps, uniform_causal

from jaxsmooth.theory import mixing_rate, subspace_distance
from jaxsmooth.theory.literature import low_pass as filters
from jaxsmooth.theory.literature import remedies
from jaxsmooth.theory.literature.initialisation import ali2023_centred_attention

VALUE = np.random.default_rng(99).standard_normal((WIDTH, 3))
high_frequency = jax.jit(filters.wang2022_high_frequency)
low_pass, tanh_rate = jax.jit(filters.wang2022_low_pass_rate), jax.jit(filters.wang2022_tanh_rate)
attn_scale, feat_scale = jax.jit(filters.wang2022_attn_scale), jax.jit(filters.wang2022_feat_scale)
least_eigenvalue, contranorm = jax.jit(remedies.guo2023_smallest_eigenvalue), jax.jit(remedies.guo2023_contranorm)
fixed_point, kept = jax.jit(remedies.nguyen2023_neutreno_fixed_point), jax.jit(remedies.nguyen2023_neutreno_distance)
initial_residual = jax.jit(remedies.scholkemper2024_initial_residual)
batch_norm = jax.jit(remedies.scholkemper2024_batch_norm)
unification = jax.jit(filters.dovonon2024_unification_rate)
apart, rate = jax.jit(subspace_distance), jax.jit(mixing_rate)
BOTH = np.ones(2, bool)


def logit_batch(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    mask = lengths_mask(rng.integers(1, PADDED + 1, 1008))
    logits = 10 ** rng.uniform(-2, 1.5, (1008, 1, 1)) * rng.standard_normal((1008, PADDED, PADDED))
    # A third in two camps, which pass the most.
    camps = 10 * two_camps(PADDED) * rng.uniform(0, 1, (336, 1, 1))
    logits[:336] = camps - camps.mean(axis=-1, keepdims=True)
    return logits, many_tokens(rng, mask), mask


def check_wang(rng: np.random.Generator) -> None:
    logits, hidden, mask = logit_batch(rng)
    assert tightness(high_frequency(logits, hidden, VALUE, mask), rtol=1e-9).max() > 0.2


def check_contranorm(rng: np.random.Generator) -> None:
    attn, mask = many_attentions(rng)
    strength = 10 ** rng.uniform(-3, 2)
    ratio = tightness(contranorm(many_tokens(rng, mask), attn, mask, strength), rtol=1e-9, atol=1e-12)
    assert ratio.max() > 0.5


def check_neutreno(rng: np.random.Generator) -> None:
    attn, mask = many_attentions(rng)
    ratio = tightness(kept(attn, many_tokens(rng, mask), mask, 10 ** rng.uniform(-2, 1)), rtol=1e-9, atol=1e-12)
    assert ratio.max() > 0.3


CHECKS = {"wang": check_wang, "contranorm": check_contranorm, "neutreno": check_neutreno}


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS.keys())
def test_holds_on_1008_cases(check):
    check(np.random.default_rng(0))


@pytest.mark.long
@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS.keys())
def test_holds_on_100_000_cases(check):
    for seed in LONG_SEEDS:
        check(np.random.default_rng(seed))


# Wang et al. (2022)


def test_wang_against_numpy():
    logits, hidden, mask = logit_batch(np.random.default_rng(1))
    found = high_frequency(logits, hidden, VALUE, mask)
    for case in range(0, 1008, 25):
        real = mask[case]
        x, z, n = hidden[case][real], logits[case][real][:, real], real.sum()
        alpha = np.abs(z).max()
        expected = distance(scipy.special.softmax(z, axis=1) @ x @ VALUE)
        assert float(found.lhs[case]) == pytest.approx(expected, rel=1e-8, abs=1e-11 * np.abs(x).max())
        factor = min(np.sqrt(n / (1 + (n - 1) * np.exp(-2 * alpha))), np.sqrt(n / 2) * np.tanh(alpha))
        bound = factor * np.linalg.norm(VALUE, 2) * distance(x)
        assert float(found.rhs[case]) == pytest.approx(bound, rel=1e-9, abs=1e-11 * np.abs(x).max())


@pytest.mark.parametrize("alpha", [1e-3, 0.5, 3.0])
def test_the_tanh_form_is_attained_by_two_tokens(alpha):
    logits, hidden = alpha * np.array([[1.0, -1.0], [-1.0, 1.0]]), np.array([[1.0], [-1.0]])
    found = high_frequency(logits, hidden, np.eye(1), BOTH)
    assert float(found.lhs) == pytest.approx(np.sqrt(2) * np.tanh(alpha), rel=1e-12)
    assert float(found.rhs) == pytest.approx(float(found.lhs), rel=1e-9)


def test_the_published_form_is_off_by_root_two_at_its_best():
    """Two camps attain the supremum sqrt(n/2) of all attention; the published factor tends to sqrt(n)."""
    logits = 20.0 * (2 * two_camps(PADDED) - 1)
    worst = float(rate(scipy.special.softmax(logits, axis=1), np.ones(PADDED, bool)))
    alpha, n = jnp.array(20.0), jnp.array(float(PADDED))
    assert worst / float(low_pass(alpha, n)) == pytest.approx(2**-0.5, rel=1e-6)
    assert worst / float(tanh_rate(alpha, n)) == pytest.approx(1, rel=1e-6)


def test_neither_form_is_always_the_smaller():
    n = jnp.array(100.0)
    assert float(tanh_rate(jnp.array(0.01), n)) < float(low_pass(jnp.array(0.01), n))
    assert float(tanh_rate(jnp.array(1.0), n)) > float(low_pass(jnp.array(1.0), n))


def test_a_causal_mask_breaks_it_and_is_refused():
    """All finite logits are 0, yet the causal mask expands d_M by 1.235 where the factor would be at most 1."""
    attn = uniform_causal(64)
    assert float(rate(attn, np.ones(64, bool))) > 1.2 > float(low_pass(jnp.array(0.0), jnp.array(64.0))) == 1
    logits = np.where(np.tri(64, dtype=bool), 0.0, -np.inf)
    found = high_frequency(logits, np.ones((64, 1)), np.eye(1), np.ones(64, bool))
    assert not found.applicable


def test_attn_scale_multiplies_what_attention_passes():
    rng = np.random.default_rng(3)
    attn, mask = many_attentions(rng)
    hidden = np.where(mask[..., None], many_tokens(rng, mask), 0)
    scaled = np.asarray(attn_scale(attn, mask, 0.7))
    size = np.abs(hidden).max(axis=(1, 2))
    np.testing.assert_allclose(
        apart(scaled @ hidden / size[:, None, None], mask),
        1.7 * apart(attn @ hidden / size[:, None, None], mask),
        atol=1e-13,
    )
    np.testing.assert_allclose((scaled.sum(axis=-1) - attn.sum(axis=-1))[mask], 0, atol=1e-14)
    assert np.all(np.swapaxes(scaled, -1, -2)[~mask] == 0)


def test_feat_scale_lies_between_its_smallest_and_largest_factor():
    rng = np.random.default_rng(4)
    mask = lengths_mask(rng.integers(1, PADDED + 1, 1008))
    hidden, low, high = many_tokens(rng, mask), rng.standard_normal(WIDTH), rng.standard_normal(WIDTH)
    scaled = np.asarray(feat_scale(hidden, mask, low, high))
    before, after = np.asarray(apart(hidden, mask)), np.asarray(apart(scaled, mask))
    rounding = 1e-12 * np.abs(np.where(mask[..., None], hidden, 0)).max(axis=(1, 2))
    assert np.all(after <= np.abs(1 + high).max() * before + rounding)
    assert np.all(after >= np.abs(1 + high).min() * before - rounding)
    np.testing.assert_array_equal(scaled[~mask], hidden[~mask])
    x = hidden[0][mask[0]]
    expected = (1 + low) * x.mean(axis=0) + (1 + high) * (x - x.mean(axis=0))
    np.testing.assert_allclose(scaled[0][mask[0]], expected, rtol=1e-12, atol=1e-12 * np.abs(x).max())


# ContraNorm (Guo et al. 2023)


def complement_spectrum(attn: np.ndarray) -> np.ndarray:
    """Eigenvalues of J(I - A) + (I - A)^T J in an orthonormal basis of the complement of 1."""
    n = len(attn)
    basis = scipy.linalg.null_space(np.ones((1, n)))
    half = centring(n) @ (np.eye(n) - attn)
    return np.linalg.eigvalsh(basis.T @ (half + half.T) @ basis)


def test_sigma_min_against_scipy():
    attn, mask = many_attentions(np.random.default_rng(5))
    found = np.asarray(least_eigenvalue(attn, mask))
    for case in range(0, len(attn), 20):
        real = mask[case]
        assert found[case] == pytest.approx(complement_spectrum(attn[case][real][:, real])[0], abs=1e-13)


def test_contranorm_is_attained_without_mixing_and_to_first_order_elsewhere():
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


# NeuTRENO and initial residuals


def test_the_fixed_point_solves_its_equation():
    rng = np.random.default_rng(6)
    attn, mask = many_attentions(rng)
    first = many_tokens(rng, mask)
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
    attn, mask = many_attentions(rng)
    clean = np.where(mask[..., None], many_tokens(rng, mask), 0)
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


# Dovonon et al. (2024)

UNION_CASES, STEPS = 1000, 600


def test_the_criterion_predicts_the_factor_per_layer():
    """X <- X + A X W for 1000 pairs of prescribed spectra: relative distances fall by the predicted factor or stay."""
    rng = np.random.default_rng(10)
    n, d = 5, 3
    frame = np.linalg.qr(
        np.concatenate([np.ones((UNION_CASES, n, 1)), rng.standard_normal((UNION_CASES, n, n - 1))], 2)
    )[0]
    lam = np.concatenate([np.ones((UNION_CASES, 1)), rng.uniform(-0.5, 0.95, (UNION_CASES, n - 1))], axis=1)
    basis = np.linalg.qr(rng.standard_normal((UNION_CASES, d, d)))[0]
    mu = rng.uniform(-1.9, 1.5, (UNION_CASES, d))
    attn = (frame * lam[:, None]) @ np.swapaxes(frame, 1, 2)
    weight = (basis * mu[:, None]) @ np.swapaxes(basis, 1, 2)
    predicted = np.asarray(unification(lam, mu))
    x, kept_log = rng.standard_normal((UNION_CASES, n, d)), []
    for _ in range(STEPS):
        x = x + attn @ x @ weight
        x /= np.linalg.norm(x, axis=(1, 2), keepdims=True)
        kept_log.append(np.linalg.norm(x - x.mean(axis=1, keepdims=True), axis=(1, 2)))
    late = np.array(kept_log)
    unify, stay = predicted < 0.9, predicted > 1.05
    assert unify.sum() > 300
    assert stay.sum() > 100
    assert late[-1][unify].max() < 1e-12
    assert late[-1][stay].min() > 0.999
    # The factor itself, before rounding takes over: from 1e-6 to 1e-11 of the state.
    for case in np.flatnonzero(unify):
        first, last = np.argmax(late[:, case] < 1e-6), np.argmax(late[:, case] < 1e-11)
        if last - first < 10:
            continue
        seen = (late[last, case] / late[first, case]) ** (1 / (last - first))
        assert seen == pytest.approx(predicted[case], rel=0.05)


def test_rank_collapse_without_token_uniformity():
    """All mu in (-1, 0), lambda in [0, 1]: the smallest lambda wins, the rank falls to one, the rows stay apart."""
    rng = np.random.default_rng(11)
    frame = np.linalg.qr(np.column_stack([np.ones(5), rng.standard_normal((5, 4))]))[0]
    lam, mu = np.array([1.0, 0.8, 0.5, 0.3, 0.05]), np.array([-0.8, -0.5, -0.2])
    attn, x = frame * lam @ frame.T, rng.standard_normal((5, 3))
    for _ in range(2000):
        x = x + attn @ x @ np.diag(mu)
        x /= np.linalg.norm(x)
    values = np.linalg.svd(x)[1]
    assert float(unification(lam, mu)) > 1
    assert values[1] / values[0] < 1e-5
    assert distance(x) > 0.999


def test_beyond_minus_one_the_smallest_lambda_need_not_win():
    """lambda = (1, 1/2), mu = -1.9, inside (-2, 0): |1 - 1.9| = .9 beats |1 - .95| = .05, and the tokens do unify."""
    lam, mu = np.array([1.0, 0.5]), np.array([-1.9])
    assert float(unification(lam, mu)) == pytest.approx(0.05 / 0.9)
    attn, x = np.array([[0.75, 0.25], [0.25, 0.75]]), np.array([[1.0], [-0.5]])
    for _ in range(20):
        x = x - 1.9 * attn @ x
    assert distance(x) / np.linalg.norm(x) < 1e-12


def test_without_the_consensus_eigenvalue_first_it_is_nan():
    assert np.isnan(float(unification(np.array([0.5, 1.0]), np.array([1.0]))))


def test_complex_eigenvalues_are_taken_as_they_are():
    lam, mu = np.array([1.0, 0.5j, -0.5j]), np.array([1.0 + 0j])
    assert float(unification(lam, mu)) == pytest.approx(abs(1 + 0.5j) / 2)


# Padding


def test_padding_changes_nothing():
    rng = np.random.default_rng(12)
    attn, mask = many_attentions(rng)
    hidden = many_tokens(rng, mask)
    clean = np.where(mask[..., None], hidden, 0)
    for function in (kept, lambda a, x, m, s: contranorm(x, a, m, s)):
        for dirty, tidy in zip(function(attn, hidden, mask, 0.5), function(attn, clean, mask, 0.5), strict=True):
            np.testing.assert_array_equal(dirty, tidy)
    np.testing.assert_array_equal(fixed_point(attn, hidden, mask, 0.5), fixed_point(attn, clean, mask, 0.5))
    assert np.all(
        np.swapaxes(np.asarray(ali2023_centred_attention(jnp.array(attn), jnp.array(mask))), 1, 2)[~mask] == 0
    )
