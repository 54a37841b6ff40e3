"""Remedies: every formula against numpy, padded and unpadded; what each guarantees; names on the command line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import reference_remedies as reference
from support.matrices import GARBAGE, stochastic

from jaxsmooth import mitigations as ours
from jaxsmooth import theory
from jaxsmooth.errors import OptionError

pytestmark = pytest.mark.usefixtures("compiled_quickly")
LENGTHS, LONGEST, WIDTH, HEADS = (7, 4, 2), 8, 5, 3
MASK = np.arange(LONGEST)[None] < np.asarray(LENGTHS)[:, None]
RANDOM = np.random.default_rng(0)
X = np.where(MASK[..., None], RANDOM.standard_normal((3, LONGEST, WIDTH)) + 0.5, GARBAGE)
FIRST, VALUE = RANDOM.standard_normal((2, 3, LONGEST, WIDTH))
PER_CHANNEL, PER_HEAD = RANDOM.uniform(0.1, 0.9, WIDTH), RANDOM.uniform(-0.5, 0.9, HEADS)


def attention(seed: int = 1) -> np.ndarray:
    """[B N T S] of every sharpness; nothing on padded keys, something on padded queries."""
    random = np.random.default_rng(seed)
    attn = np.zeros((3, HEADS, LONGEST, LONGEST))
    attn[..., 0] = 1
    for b, n in enumerate(LENGTHS):
        for h in range(HEADS):
            attn[b, h, :n, :n] = stochastic(random, n)
    return attn


A = attention()

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


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_definite_form_is_definite_for_all_parameters(sign):
    lower, raw = RANDOM.standard_normal((2, WIDTH, WIDTH)), 3 * RANDOM.standard_normal((2, WIDTH))
    found = ours.definite_matrix(jnp.asarray(lower), jnp.asarray(raw), sign)
    for one, delta, mine in zip(lower, raw, np.asarray(found), strict=True):
        unit = np.tril(one, -1) + np.eye(WIDTH)
        np.testing.assert_allclose(mine, sign * unit @ np.diag(np.log1p(np.exp(delta))) @ unit.T, rtol=0, atol=1e-12)
        assert np.all(sign * np.linalg.eigvalsh(mine) > 0)


def test_a_wrong_option_is_refused():
    x, mask = jnp.asarray(X), jnp.asarray(MASK)
    unknown: dict = {"form": "gnn"}
    # beartype's import hook refuses a wrong Literal first in tests; a user without it meets ours.
    for call in (
        lambda: ours.contranorm.__wrapped__(x, mask, 0.1, **unknown),
        lambda: ours.feat_scale.__wrapped__(x, mask, 0.1, 0.1, convention="both"),
        lambda: ours.definite_kernels.__wrapped__(x, x[..., 0], 0),
    ):
        with pytest.raises(OptionError, match=r"must be .*; got"):
            call()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "remedies must be named"),
        ("contranorm,", "there is no remedy ''"),
        ("batchnorm", "there is no remedy 'batchnorm' .*contranorm, contranorm-vit"),
        ("contranorm:much", "contranorm:s must be a number from 0 to .*; got 'much'"),
        ("contranorm:-1", "contranorm:s must be a number from 0 .* got '-1'"),
        ("contranorm:nan", "got 'nan'"),
        ("contranorm:s=inf", "got 'inf'"),
        ("contranorm:0.1:0.2", "only the first parameter of contranorm needs no name"),
        ("contranorm:0.1:s=0.2", "'s' in .* is given twice"),
        ("contranorm:tau=2", "parameters of contranorm: s, temperature; 'tau' in .* is none of them"),
        ("definite:1", "parameters of definite: none; '1' in 'definite:1' is none of them"),
        ("attention-dropout:1", "must be a number from 0 below 1"),
        ("gfsa:0.1:order=2.5", "gfsa:order must be a whole number from 2 to 1000, K; got '2.5'"),
        ("initial-residual:1.5", "must be a number from 0 to 1"),
        ("neutreno,neutreno", "'neutreno' is listed 2 times"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused(text, message):
    with pytest.raises(OptionError, match=message):
        ours.parse_remedies(text)


def test_a_list_is_read():
    found = ours.parse_remedies("contranorm, attnscale:0.3,gfsa:-0.2:order=4,pairnorm,definite+neutreno:0.5")
    assert [one.label for one in found][:2] == ["contranorm", "attnscale:0.3"]
    assert [one.description for one in found] == [
        "contranorm(s=0.1, temperature=1)",
        "attnscale(strength=0.3)",
        "gfsa(power=-0.2, identity=0, linear=1, order=4)",
        "pairnorm(scale=default)",
        "definite() + neutreno(strength=0.5)",
    ]
    assert [one.mixes for one in found] == [True, True, False, True, False]


def test_every_method_is_described_with_its_source():
    lines = ours.describe_methods().splitlines()
    assert [line.split(":")[0] for line in lines] == list(ours.METHODS)
    assert all(line.endswith(".") and ("(20" in line or "smooths" in line) for line in lines)
