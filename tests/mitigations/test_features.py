"""Remedies that change hidden states, against numpy and the guarantees of `theory`."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import reference_remedies as reference
from support.padded_batch import FIRST, LENGTHS, MASK, PER_CHANNEL, VALUE, A, X

from jaxsmooth import mitigations as ours
from jaxsmooth import theory
from jaxsmooth.errors import OptionError

FEATURES = {
    "contranorm": (lambda x, m: ours.contranorm(x, m, 0.3), lambda x: reference.contranorm(x, 0.3)),
    "contranorm-vit": (
        lambda x, m: ours.contranorm(x, m, 0.3, form="vit", temperature=0.5),
        lambda x: reference.contranorm(x, 0.3, form="vit", temperature=0.5),
    ),
    "contranorm-dual": (
        lambda x, m: ours.contranorm(x, m, 0.3, dual=True),
        lambda x: reference.contranorm(x, 0.3, dual=True),
    ),
    "contranorm-unit": (
        lambda x, m: ours.contranorm(x, m, 0.3, unit=True, form="vit", dual=True),
        lambda x: reference.contranorm(x, 0.3, unit=True, form="vit", dual=True),
    ),
    "contranorm-channels": (
        lambda x, m: ours.contranorm(x, m, jnp.asarray(PER_CHANNEL)),
        lambda x: reference.contranorm(x, PER_CHANNEL),
    ),
    "featscale": (
        lambda x, m: ours.feat_scale(x, m, jnp.asarray(PER_CHANNEL), 0.7),
        lambda x: reference.feat_scale(x, PER_CHANNEL, 0.7),
    ),
    "featscale-released": (
        lambda x, m: ours.feat_scale(x, m, -0.2, jnp.asarray(PER_CHANNEL), convention="released"),
        lambda x: reference.feat_scale(x, -0.2, PER_CHANNEL, factor=2),
    ),
    "pairnorm": (lambda x, m: ours.pair_norm(x, m, 2.5), lambda x: reference.pair_norm(x, 2.5)),
    "pairnorm-si": (
        lambda x, m: ours.pair_norm(x, m, 2.5, each_token=True),
        lambda x: reference.pair_norm(x, 2.5, each_token=True),
    ),
    "softdecay": (lambda x, m: ours.soft_decay(x, m), reference.soft_decay),
    "softdecay-raw": (
        lambda x, m: ours.soft_decay(x, m, -0.6, keep_largest=False),
        lambda x: reference.soft_decay(x, -0.6, keep_largest=False),
    ),
}


@pytest.mark.parametrize("name", FEATURES)
def test_hidden_states_as_in_numpy_with_and_without_padding(name):
    formula, expected = FEATURES[name]
    padded = np.asarray(formula(jnp.asarray(X), jnp.asarray(MASK)))
    assert np.isfinite(padded).all()
    for b, n in enumerate(LENGTHS):
        wanted = expected(X[b, :n])
        np.testing.assert_allclose(padded[b, :n], wanted, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(padded[~MASK], X[~MASK])
    whole = formula(jnp.asarray(X[:1, :7]), jnp.ones((1, 7), bool))
    np.testing.assert_allclose(whole[0], expected(X[0, :7]), rtol=0, atol=1e-12)
    # Whatever stands on padding, real tokens do not see it.
    other = np.asarray(formula(jnp.asarray(np.where(MASK[..., None], X, -3.0)), jnp.asarray(MASK)))
    np.testing.assert_allclose(other[MASK], padded[MASK], rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", FEATURES)
def test_derivatives_are_numpys_central_differences(name):
    """Of every real token in a random direction, on a padded batch; what is done to padding has none."""
    formula, expected = FEATURES[name]
    direction = np.where(MASK[..., None], np.random.default_rng(5).standard_normal(X.shape), 0)
    _, found = jax.jvp(lambda x: formula(x, jnp.asarray(MASK)), (jnp.asarray(X),), (jnp.asarray(direction),))
    for b, n in enumerate(LENGTHS):
        ends = [expected(X[b, :n] + step * direction[b, :n]) for step in (1e-6, -1e-6)]
        np.testing.assert_allclose(found[b, :n], (ends[0] - ends[1]) / 2e-6, rtol=1e-6, atol=1e-7)
    weights = jnp.asarray(direction)
    backward = jax.grad(lambda x: jnp.sum(weights * formula(x, jnp.asarray(MASK))))(jnp.asarray(X))
    assert jnp.sum(backward * direction) == pytest.approx(float(jnp.sum(weights * found)), rel=1e-9)


@pytest.mark.parametrize("keep_largest", [True, False])
def test_softdecay_has_a_derivative_where_singular_values_coincide(keep_largest):
    """By x and by alpha, against central differences of numpy's formula, which is smooth there."""
    rng = np.random.default_rng(7)
    left, right = (np.linalg.qr(rng.standard_normal((6, 4)))[0] for _ in range(2))
    x = left @ np.diag([3.0, 2.0, 2.0, 2.0]) @ right.T
    # within the matrices of that rank: others are near a singular value of 0, where there is none
    dx = left @ rng.standard_normal((4, 6)) + rng.standard_normal((6, 4)) @ right.T
    alpha, keep = -0.4, {"keep_largest": keep_largest}

    def ours_of(x, alpha):
        return ours.soft_decay(x, jnp.ones(6, bool), alpha, **keep)

    def numpys(step):
        u, s, vt = np.linalg.svd(x + step * dx)
        s = s[:4]
        new = -np.log(1 - alpha * (s + alpha) + 1e-7) / alpha
        new = new * (s[0] / new[0]) if keep_largest else new
        return u[:, :4] @ np.diag(new) @ vt[:4]

    found = jax.jvp(lambda x: ours_of(x, jnp.float64(alpha)), (jnp.asarray(x),), (jnp.asarray(dx),))[1]
    np.testing.assert_allclose(found, (numpys(1e-6) - numpys(-1e-6)) / 2e-6, rtol=1e-6, atol=1e-6)
    of_alpha = jax.jvp(lambda a: ours_of(jnp.asarray(x), a), (jnp.float64(alpha),), (jnp.float64(1.0),))[1]
    ends = [ours_of(jnp.asarray(x), jnp.float64(alpha + step)) for step in (1e-6, -1e-6)]
    np.testing.assert_allclose(of_alpha, (ends[0] - ends[1]) / 2e-6, rtol=1e-6, atol=1e-7)


def test_what_acts_on_each_token_alone():
    context, value, first = (jnp.asarray(part) for part in (X, VALUE, FIRST))
    np.testing.assert_allclose(
        ours.neutreno(context, value, first, 0.6), reference.neutreno(X, VALUE, FIRST, 0.6), rtol=1e-15
    )
    np.testing.assert_allclose(
        ours.initial_residual(context, first, 0.1), reference.initial_residual(X, FIRST, 0.1), rtol=1e-15
    )
    np.testing.assert_array_equal(ours.scale_branch(value, 0.25), VALUE / 4)


def test_no_strength_changes_nothing():
    x, a, mask = jnp.asarray(X), jnp.asarray(A), jnp.asarray(MASK)
    for hidden in (ours.contranorm(x, mask, 0.0), ours.feat_scale(x, mask, 0.0, 0.0)):
        np.testing.assert_allclose(hidden, x, rtol=1e-15)
    for attn in (ours.attn_scale(a, mask, 0.0), ours.centred_attention(a, mask, 0.0), ours.graph_filter(a, mask, 0.0)):
        np.testing.assert_allclose(attn, a, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(ours.attention_dropout(a, jax.random.key(0), 0.0), a)


def test_hidden_states_at_the_edge():
    """Zero vectors, equal tokens, one token: finite, and where a direction is lost nothing is invented."""
    one = jnp.ones((1, 1), bool)
    for states in (jnp.zeros((1, 4, 3)), jnp.ones((1, 4, 3))):
        mask = jnp.ones((1, 4), bool)
        assert np.all(ours.pair_norm(states, mask) == 0)
        for found in (ours.contranorm(states, mask, 0.5), ours.soft_decay(states, mask)):
            np.testing.assert_allclose(found, states, rtol=0, atol=1e-14)
    lone = jnp.asarray(X[:1, :1])
    np.testing.assert_allclose(ours.contranorm(lone, one, 0.5), lone, rtol=1e-14)
    np.testing.assert_allclose(ours.soft_decay(lone, one), lone, rtol=1e-13)


def test_contranorm_has_its_guarantee():
    x, mask = jnp.asarray(X), jnp.asarray(MASK)
    similar = ours.contranorm_similarity(x, mask)
    found = theory.guo2023_contranorm(x, similar, mask, 0.4)
    assert found.applicable.all()
    # The statement is about what the remedy computes, and it is an increase here.
    np.testing.assert_allclose(
        theory.subspace_distance(ours.contranorm(x, mask, 0.4), mask) ** 2, found.rhs, rtol=1e-12
    )
    before = theory.subspace_distance(x, mask) ** 2
    assert np.all(found.lhs <= found.rhs * (1 + 1e-12))
    assert np.all(found.lhs > before)


@pytest.mark.parametrize("dual", [False, True])
def test_similarity_leaves_padding_out(dual):
    similar = np.asarray(ours.contranorm_similarity(jnp.asarray(X), jnp.asarray(MASK), dual=dual, temperature=0.3))
    assert np.all(similar[np.broadcast_to(~MASK[:, None], similar.shape)] == 0)
    real = [one[:n, :n] for one, n in zip(similar, LENGTHS, strict=True)]
    for one in real:
        if dual:  # rows of the one softmax plus columns of the other
            np.testing.assert_allclose(one, one.T, rtol=1e-12)
            np.testing.assert_allclose(one.sum(), 2 * len(one), rtol=1e-12)
        else:
            np.testing.assert_allclose(one.sum(axis=1), 1, rtol=1e-12)


def test_feat_scale_has_its_guarantee():
    x, mask = jnp.asarray(X), jnp.asarray(MASK)
    low, high = jnp.asarray(PER_CHANNEL), jnp.asarray(PER_CHANNEL[::-1] - 0.5)
    scaled = ours.feat_scale(x, mask, low, high)
    np.testing.assert_allclose(scaled, theory.wang2022_feat_scale(x, mask, low, high), rtol=1e-12)
    before, after = (theory.subspace_distance(h, mask) for h in (x, scaled))
    gains = np.abs(1 + np.asarray(high))
    assert np.all(after >= gains.min() * before * (1 - 1e-12))
    assert np.all(after <= gains.max() * before * (1 + 1e-12))


def test_neutreno_iterates_to_its_fixed_point():
    a, first, mask = jnp.asarray(A[:, 1]), jnp.asarray(FIRST), jnp.asarray(MASK)
    value = first
    for _ in range(400):
        # Half a step at a time converges for every A: its spectral radius is (1 + 1 - lambda) / 2.
        value = (value + ours.neutreno(a @ jnp.where(mask[..., None], value, 0), value, first, 0.6)) / 2
    limit = theory.nguyen2023_neutreno_fixed_point(a, first, mask, 0.6)
    np.testing.assert_allclose(np.asarray(value)[MASK], np.asarray(limit)[MASK], rtol=0, atol=1e-12)
    found = theory.nguyen2023_neutreno_distance(a, first, mask, 0.6)
    assert np.all(found.lhs <= found.rhs * (1 + 1e-12))


def test_pair_norm_has_its_guarantee():
    x, mask = jnp.asarray(X), jnp.asarray(MASK)
    found = theory.zhao2020_pair_norm(x, mask, 2.5)
    assert found.applicable.all()
    np.testing.assert_allclose(found.rhs, 2.5 * np.sqrt(LENGTHS), rtol=1e-14)
    np.testing.assert_allclose(found.lhs, found.rhs, rtol=1e-12)
    np.testing.assert_allclose(theory.subspace_distance(ours.pair_norm(x, mask, 2.5), mask), found.rhs, rtol=1e-12)


def test_a_wrong_option_is_refused():
    x, mask = jnp.asarray(X), jnp.asarray(MASK)
    unknown: dict = {"form": "gnn"}
    # beartype's import hook refuses a wrong Literal first in tests; a user without it meets ours.
    for call in (
        lambda: inspect.unwrap(ours.contranorm)(x, mask, 0.1, **unknown),
        lambda: inspect.unwrap(ours.feat_scale)(x, mask, 0.1, 0.1, convention="both"),
        lambda: inspect.unwrap(ours.definite_kernels)(x, x[..., 0], 0),
    ):
        with pytest.raises(OptionError, match=r"must be .*; got"):
            call()
