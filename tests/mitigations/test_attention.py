"""Remedies that change attention, against numpy and the guarantees of `theory`."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import reference_remedies as reference
from support.padded_batch import HEADS, LENGTHS, LONGEST, MASK, PER_HEAD, A, X

from jaxsmooth import mitigations as ours
from jaxsmooth import theory

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


def test_the_softmax_of_symmetric_scores_is_the_walk_of_the_symmetric_normalisation():
    """sqrt(P_ij P_ji) is D^(-1/2) A D^(-1/2) as `theory` has it from the scores, and its subspace the one there."""
    scores = np.random.default_rng(2).normal(0, 3, (HEADS, 7, 7))
    mask = jnp.arange(7) < 5
    logits = ours.symmetric_scores(jnp.asarray(scores))
    seen = np.where(np.asarray(mask), np.exp(np.asarray(logits)), 0)
    found = ours.symmetric_attention(jnp.asarray(seen / seen.sum(axis=-1, keepdims=True)))
    for h in range(HEADS):
        affinity = theory.shi2022_affinity(jnp.asarray(scores[h]), mask)
        expected = theory.symmetric_normalised(affinity, mask).matrix
        np.testing.assert_allclose(found[h], expected, rtol=0, atol=1e-14)
        kept = theory.symmetric_basis(affinity.sum(axis=-1), mask)
        np.testing.assert_allclose(found[h] @ kept, kept, rtol=0, atol=1e-14)
        assert np.abs(found[h].sum(axis=-1)[:5] - 1).max() > 0.1  # equal tokens are not kept


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


def entropies(attn: np.ndarray) -> np.ndarray:
    return -np.sum(attn * np.log(np.where(attn > 0, attn, 1)), axis=-1)


def test_a_lower_temperature_sharpens_every_row():
    """Its entropy falls, the largest share grows; at temperature 1 and at the reference length nothing changes."""
    scores = np.random.default_rng(0).standard_normal((3, HEADS, LONGEST, LONGEST))

    def rows(logits):
        return np.asarray(jax.nn.softmax(logits, axis=-1))

    found = [rows(ours.temp_scale(jnp.asarray(scores), tau)) for tau in (2.0, 1.0, 0.5, 0.1)]
    for warm, cold in itertools.pairwise(found):
        assert np.all(entropies(cold) < entropies(warm))
        assert np.all(cold.max(axis=-1) > warm.max(axis=-1))
    np.testing.assert_array_equal(found[1], rows(scores))
    np.testing.assert_allclose(
        ours.temp_scale(jnp.asarray(scores), jnp.asarray([0.5, 1.0, 2.0]))[:, 2], scores[:, 2] / 2
    )
    same = ours.length_scale(jnp.asarray(scores), jnp.asarray(MASK), 7.0)
    np.testing.assert_allclose(same[0], scores[0], rtol=1e-15)
    one = ours.length_scale(jnp.asarray(scores[:1]), jnp.arange(LONGEST)[None] < 1, 7.0)
    np.testing.assert_array_equal(one, scores[:1])


def test_a_key_keeps_its_share_if_scores_grow_like_log_n():
    """One key 3 above all others: without, its share falls like 1/n; times log n / log n0 it does not."""
    shares = {"plain": [], "scaled": []}
    for n in (8, 64, 512):
        scores, mask = jnp.zeros((1, 1, 1, n)).at[..., 0].set(3.0), jnp.ones((1, n), bool)
        shares["plain"].append(float(jax.nn.softmax(scores)[0, 0, 0, 0]))
        shares["scaled"].append(float(jax.nn.softmax(ours.length_scale(scores, mask, 8.0))[0, 0, 0, 0]))
    expected = [1 / (1 + (n - 1) * n ** (-3 / np.log(8))) for n in (8, 64, 512)]
    np.testing.assert_allclose(shares["scaled"], expected, rtol=1e-12)
    assert shares["plain"][2] < shares["plain"][0] / 15
    assert shares["scaled"][2] > shares["scaled"][0]
