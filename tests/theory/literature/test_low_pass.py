"""Attention as a low-pass filter, the remedies that undo it, and when residual attention unifies tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.special
from support.matrices import PADDED, WIDTH, lengths_mask, two_camps, uniform_causal
from support.statements import assert_holds, attentions, distance, few_or_many_seeds, tokens_for

from jaxsmooth.theory import mixing_rate, subspace_distance
from jaxsmooth.theory.literature import low_pass as filters

VALUE = np.random.default_rng(99).standard_normal((WIDTH, 3))
high_frequency = jax.jit(filters.wang2022_high_frequency)
low_pass, tanh_rate = jax.jit(filters.wang2022_low_pass_rate), jax.jit(filters.wang2022_tanh_rate)
attn_scale, feat_scale = jax.jit(filters.wang2022_attn_scale), jax.jit(filters.wang2022_feat_scale)
unification = jax.jit(filters.dovonon2024_unification_rate)
apart, rate = jax.jit(subspace_distance), jax.jit(mixing_rate)
BOTH = np.ones(2, bool)


def logit_batch(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    mask = lengths_mask(rng.integers(1, PADDED + 1, 1008))
    logits = 10 ** rng.uniform(-2, 1.5, (1008, 1, 1)) * rng.standard_normal((1008, PADDED, PADDED))
    # A third in two camps, which pass the most.
    camps = 10 * two_camps(PADDED) * rng.uniform(0, 1, (336, 1, 1))
    logits[:336] = camps - camps.mean(axis=-1, keepdims=True)
    return logits, tokens_for(rng, mask), mask


@few_or_many_seeds
def test_wang_holds(seeds):
    for seed in seeds:
        logits, hidden, mask = logit_batch(np.random.default_rng(seed))
        assert assert_holds(high_frequency(logits, hidden, VALUE, mask), rtol=1e-9).max() > 0.2


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
    attn, mask = attentions(rng)
    hidden = np.where(mask[..., None], tokens_for(rng, mask), 0)
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
    hidden, low, high = tokens_for(rng, mask), rng.standard_normal(WIDTH), rng.standard_normal(WIDTH)
    scaled = np.asarray(feat_scale(hidden, mask, low, high))
    before, after = np.asarray(apart(hidden, mask)), np.asarray(apart(scaled, mask))
    rounding = 1e-12 * np.abs(np.where(mask[..., None], hidden, 0)).max(axis=(1, 2))
    assert np.all(after <= np.abs(1 + high).max() * before + rounding)
    assert np.all(after >= np.abs(1 + high).min() * before - rounding)
    np.testing.assert_array_equal(scaled[~mask], hidden[~mask])
    x = hidden[0][mask[0]]
    expected = (1 + low) * x.mean(axis=0) + (1 + high) * (x - x.mean(axis=0))
    np.testing.assert_allclose(scaled[0][mask[0]], expected, rtol=1e-12, atol=1e-12 * np.abs(x).max())


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
