"""Remedies that change attention, against numpy and the guarantees of `theory`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import reference_remedies as reference
from support.padded_batch import HEADS, LENGTHS, LONGEST, MASK, PER_HEAD, A, X

from jaxsmooth import mitigations as ours
from jaxsmooth import theory

pytestmark = pytest.mark.usefixtures("compiled_quickly")
MATRICES = {
    "attnscale": (
        lambda a, m: ours.attn_scale(a, m, jnp.asarray(PER_HEAD)),
        lambda a, h: reference.attn_scale(a, PER_HEAD[h]),
    ),
    "centred": (ours.centred_attention, lambda a, h: reference.centred(a)),
    "centred-half": (lambda a, m: ours.centred_attention(a, m, 0.5), lambda a, h: reference.centred(a, 0.5)),
    "gfsa": (
        lambda a, m: ours.graph_filter(a, m, jnp.asarray(PER_HEAD), identity=0.2, linear=0.9, order=4),
        lambda a, h: reference.gfsa(a, PER_HEAD[h], 0.2, 0.9, 4),
    ),
}


@pytest.mark.parametrize("name", MATRICES)
def test_attention_as_in_numpy_with_and_without_padding(name):
    formula, expected = MATRICES[name]
    padded = np.asarray(formula(jnp.asarray(A), jnp.asarray(MASK)))
    assert np.isfinite(padded).all()
    for b, n in enumerate(LENGTHS):
        for h in range(HEADS):
            np.testing.assert_allclose(padded[b, h, :n, :n], expected(A[b, h, :n, :n], h), rtol=0, atol=1e-12)
    # Padded keys stay unattended, so nothing of them enters.
    assert np.all(padded[np.broadcast_to(~MASK[:, None, None], padded.shape)] == 0)
    whole = np.asarray(formula(jnp.asarray(A[:1, :, :7, :7]), jnp.ones((1, 7), bool)))
    np.testing.assert_allclose(whole[0], padded[0, :, :7, :7], rtol=0, atol=1e-14)


def test_dropout_draws_by_place():
    key = jax.random.key(3)
    dropped = np.asarray(ours.attention_dropout(jnp.asarray(A), key, 0.3))
    kept = dropped != 0
    np.testing.assert_allclose(dropped[kept], A[kept] / 0.7, rtol=1e-15)
    # The draw of one weight, from the definition.
    b, h, t, s = 1, 2, 3, 0
    place = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key, b * HEADS + h), t), s)
    assert (dropped[b, h, t, s] != 0) == (float(jax.random.uniform(place)) < 0.7)
    longer = np.pad(A, ((0, 0), (0, 0), (0, 4), (0, 4)))
    again = ours.attention_dropout(jnp.asarray(longer), key, 0.3)
    np.testing.assert_array_equal(again[..., :LONGEST, :LONGEST], dropped)


def test_dropout_keeps_the_share_and_the_expectation():
    dropped = np.asarray(ours.attention_dropout(jnp.ones((4, 4, 32, 32)), jax.random.key(0), 0.25))
    # 16,384 draws: the standard deviation of the share is 0.0034, four of them 0.0135.
    assert abs((dropped == 0).mean() - 0.25) < 0.0135
    assert abs(dropped.mean() - 1) < 0.0135 / 0.75
    sums = dropped.sum(axis=-1)
    assert np.ptp(sums) > 1  # rows no longer have one sum


def test_attn_scale_has_its_guarantee():
    a, mask = jnp.asarray(A), jnp.asarray(MASK)
    real = jnp.broadcast_to(mask[:, None], a.shape[:-1])
    before, after = (theory.mixing_rate(m, real) for m in (a, ours.attn_scale(a, mask, 0.5)))
    np.testing.assert_allclose(after, 1.5 * before, rtol=1e-9)
    np.testing.assert_allclose(ours.attn_scale(a, mask, 0.5), theory.wang2022_attn_scale(a, real, 0.5), rtol=1e-15)


def test_centring_has_its_guarantee():
    a, x, mask = jnp.asarray(A[:, 0]), jnp.asarray(X), jnp.asarray(MASK)
    clean = jnp.where(mask[..., None], x, 0)
    found = theory.ali2023_centring_keeps_distance(a, x, mask)
    centred = ours.centred_attention(jnp.asarray(A), mask)[:, 0] @ clean
    np.testing.assert_allclose(theory.subspace_distance(centred, mask), found.rhs, rtol=1e-12)


def test_gfsa_filters_eigenvalues():
    a = jnp.asarray(A[:1, :, :7, :7])
    filtered = ours.graph_filter(a, jnp.ones((1, 7), bool), -0.4, identity=0.1, linear=0.8, order=5)
    for before, after in zip(np.asarray(a[0]), np.asarray(filtered[0]), strict=True):
        expected = theory.choi2024_filter_response(
            jnp.asarray(np.linalg.eigvals(before)), -0.4, identity=0.1, linear=0.8, order=5
        )
        # Both as polynomials' coefficients: eigenvalues have no order.
        np.testing.assert_allclose(np.poly(np.linalg.eigvals(after)), np.poly(expected), rtol=0, atol=1e-11)
