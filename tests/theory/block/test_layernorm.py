"""The LayerNorm identity and its chain of bounds, with and without centring."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.matrices import GARBAGE, PADDED, centring, lengths_mask, normalised
from support.statements import CASES, MANY, assert_holds, attentions, distance, few_or_many, record

from jaxsmooth.theory import mixing_rate
from jaxsmooth.theory.block import layernorm, plain_calculus

DIM = 6
EPS = 1e-3
pair_distances = {
    centred: jax.jit(functools.partial(layernorm.layer_norm_pair_distances, centred=centred), static_argnums=1)
    for centred in (True, False)
}
bound = jax.jit(layernorm.shi2022_layer_norm, static_argnums=2)
pre_norm_attention = jax.jit(layernorm.pre_norm_attention_rate)


@functools.partial(jax.jit, static_argnums=(2, 4))
def chains(
    hidden: jax.Array, scale: jax.Array, eps: float, mask: jax.Array, centred: bool = True
) -> layernorm.LayerNormChain:
    return jax.vmap(lambda h, s, m: layernorm.layer_norm_chain(h, s, eps, m, centred=centred))(hidden, scale, mask)


def tokens_and_gains(seed: int, cases: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens of very different norms, nearly equal ones, constant ones, shared offsets; gains of both signs."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, PADDED + 1, cases)
    hidden = rng.standard_normal((cases, PADDED, DIM)) * 10 ** rng.uniform(-2, 2, (cases, PADDED, 1))
    near = rng.standard_normal((cases, 1, DIM)) + 1e-4 * rng.standard_normal((cases, PADDED, DIM))
    kind = rng.integers(0, 4, cases)[:, None, None]
    hidden = np.where(kind == 1, near, hidden)
    hidden = np.where(kind == 2, hidden + 10 * rng.standard_normal((cases, 1, DIM)), hidden)
    hidden = np.where((kind == 3) & (np.arange(PADDED)[:, None] == 0), 1.0, hidden)
    mask = lengths_mask(lengths)
    hidden = np.where(mask[..., None], hidden, GARBAGE * rng.standard_normal(hidden.shape))
    return hidden, rng.standard_normal((cases, DIM)) * rng.choice([1e-6, 1, 10], (cases, DIM)), mask


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("eps", [EPS, 0.0])
def test_the_identity(eps, centred):
    hidden, _, mask = tokens_and_gains(0, CASES)
    if eps == 0:
        # A constant token has no direction without eps.
        hidden[:, 0, 0] += 1
    found = np.asarray(pair_distances[centred](hidden, eps, mask))
    y = normalised(hidden, eps, centred)[0]
    expected = np.sum((y[:, :, None] - y[:, None]) ** 2, axis=-1) * mask[:, None] * mask[..., None]
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=2e-10)


@few_or_many(CASES, MANY)
def test_the_identity_on_all_pairs(seed, cases):
    """LN-id over all pairs, with and without centring, against the normalised tokens themselves."""
    hidden, _, mask = tokens_and_gains(seed, cases)
    for centred in (True, False):
        found = np.asarray(pair_distances[centred](hidden, EPS, mask))
        y = normalised(hidden, EPS, centred)[0]
        expected = np.sum((y[:, :, None] - y[:, None]) ** 2, axis=-1) * mask[:, None] * mask[..., None]
        wrong = np.any(np.abs(found - expected) > 1e-8 * expected + 2e-10, axis=(1, 2))
        record(found.max(axis=(1, 2)), expected.max(axis=(1, 2)), int(wrong.sum()))
        assert not wrong.any()


@few_or_many(CASES, MANY)
def test_the_chain(seed, cases):
    hidden, scale, mask = tokens_and_gains(seed, cases)
    for centred in (True, False):
        found = [np.asarray(part) for part in chains(hidden, scale, EPS, mask, centred)]
        for k in range(0, cases, 10):
            y = normalised(hidden[k][mask[k]], EPS, centred)[0] * scale[k]
            assert found[0][k] == pytest.approx(distance(y), rel=1e-9, abs=1e-11)
        for below, above in itertools.pairwise(found):
            record(below, above, int(np.sum(below > above * (1 + 1e-8))))
            assert np.all(below <= above * (1 + 1e-8)), np.max(below / above)


def test_the_spectral_bound_is_the_exact_norm():
    """||L_p^(1/2)|| by numpy, and the deviation that attains it among tokens that are free to choose."""
    hidden, scale, mask = tokens_and_gains(0, CASES)
    found = chains(hidden, scale, EPS, mask)
    for k in range(0, CASES, 25):
        real = hidden[k][mask[k]]
        p = 1 / normalised(real, EPS, True)[1][:, 0]
        laplacian = (np.diag(p) * p.sum() - np.outer(p, p)) / len(p)
        expected = np.abs(scale[k]).max() * np.sqrt(np.linalg.eigvalsh(laplacian)[-1])
        expected *= distance(real - real.mean(axis=1, keepdims=True))
        assert float(found.spectral[k]) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("spread", [1e-4, 1e-3, 1e-2, 1e-1])
def test_the_pair_weight_is_exact_in_single_precision(spread):
    """Tokens next to consensus: the largest eigenvalues of L_P are close, and an iteration may settle on the second."""
    precision = (1 + spread * np.random.default_rng(0).uniform(-1, 1, (200, 24))).astype(np.float32)
    found = np.asarray(jax.jit(plain_calculus.pair_weight)(precision, np.ones(precision.shape, bool)))
    p = precision.astype(np.float64)
    laplacians = (np.eye(24) * (p * p.sum(axis=1, keepdims=True))[:, None] - p[:, :, None] * p[:, None]) / 24
    expected = np.sqrt(np.linalg.eigvalsh(laplacians)[:, -1])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=4 * np.finfo(np.float32).eps)


def test_the_chain_is_attained():
    """Opposite tokens of one std along the features of the largest gain: five equal numbers."""
    direction = np.array([1.0, -1.0, 0, 0, 0, 0])
    hidden = np.outer(np.array([1.0, -1.0] * (PADDED // 2)), direction)
    scale = np.array([-3.0, 3, 1, 0, 1e-6, 2])
    found = chains(hidden[None], scale[None], 0.0, np.ones((1, PADDED), bool))
    np.testing.assert_allclose(np.array(found)[:, 0], float(found.actual[0]), rtol=1e-9)


def test_division_by_given_numbers_is_not_bounded():
    """As a linear statement, d_M(D^-1 H) <= d_M(H) / min D is false: H = 11^T and D = diag(1, 2), 0 -> .61."""
    consensus = np.ones((2, 3))
    divided = consensus / np.array([[1.0], [2.0]])
    assert distance(consensus) == 0
    assert distance(divided) == pytest.approx(np.sqrt(3 / 8))
    # LayerNorm of the same tokens divides both by one number.
    found = bound(consensus + np.arange(3.0), np.ones(3), 0.0, np.ones(2, bool))
    assert float(found.lhs) == 0


@few_or_many(CASES, MANY)
def test_the_bound(seed, cases):
    hidden, scale, mask = tokens_and_gains(seed, cases)
    for part in range(7):
        some = slice(part, None, 7)
        assert_holds(bound(hidden[some], scale[part], EPS, mask[some]))


def test_a_gain_left_out_makes_it_false():
    """All tokens normalised already, gain 2: the distance doubles, though 1 / std = 1."""
    x = normalised(np.random.default_rng(0).standard_normal((PADDED, DIM)), 0.0, True)[0]
    found = bound(x, 2 * np.ones(DIM), 0.0, np.ones(PADDED, bool))
    assert float(found.lhs) == pytest.approx(2 * distance(x))
    assert float(found.rhs) == pytest.approx(float(found.lhs))


def test_constant_tokens_without_eps_do_not_apply():
    x = np.random.default_rng(0).standard_normal((PADDED, DIM))
    assert bound(x, np.ones(DIM), 0.0, np.ones(PADDED, bool)).applicable
    x[1] = 3
    assert not bound(x, np.ones(DIM), 0.0, np.ones(PADDED, bool)).applicable
    assert bound(x, np.ones(DIM), 0.0, np.arange(PADDED) != 1).applicable


@few_or_many(CASES, MANY)
def test_pre_norm_attention(seed, cases):
    """d_M(X + sum_h A_h LN(X) W_h + b) against the rate, two heads, and the rate against 1."""
    rng = np.random.default_rng(seed)
    hidden, scale, _ = tokens_and_gains(seed, cases)
    attn, mask = attentions(rng, 2 * cases)
    attn, mask = attn.reshape(cases, 2, PADDED, PADDED), mask.reshape(cases, 2, PADDED)
    both = mask[:, 0] & mask[:, 1]
    attn = np.where(both[:, None, None], attn, 0)
    attn /= attn.sum(axis=-1, keepdims=True) + (attn.sum(axis=-1, keepdims=True) == 0)
    usable = np.all((attn.sum(axis=-1) > 0) | ~both[:, None], axis=(1, 2))
    hidden = np.where(both[..., None], np.where(np.abs(hidden) > 1e4, 1.0, hidden), 0)
    weight = rng.standard_normal((2, DIM, DIM))
    y, std = normalised(hidden, EPS, True)
    gain = scale[0]
    mixed = np.einsum("bnts,bsd,nde->bte", attn, y * gain, weight) + rng.standard_normal(DIM)
    rates = jax.jit(mixing_rate)(attn, both)
    rate = np.asarray(pre_norm_attention(std, rates, np.linalg.norm(weight, 2, axis=(1, 2)), gain, both))
    assert np.all(rate >= 1)
    assert usable.mean() > 0.4
    for k in np.flatnonzero(usable):
        real = both[k]
        before, after = distance(hidden[k][real]), distance((hidden[k] + mixed[k])[real])
        assert after <= rate[k] * before * (1 + 1e-9) + 1e-12


def test_pre_norm_attention_is_attained():
    """Deviations along one singular direction of A and of W, tokens of one std and no fold: rate = 1 + .7 * 2 / s."""
    pattern = np.array([1.0, 1, -1, -1])
    attn = (1 + 0.7 * np.outer(pattern, pattern)) / 4
    hidden = np.outer(pattern, np.array([3.0, -3.0, 3, -3, 3, -3]))
    y, std = normalised(hidden, 0.0, True)
    after = hidden + 2 * attn @ y
    rate = pre_norm_attention(std, np.array([0.7]), np.array([2.0]), np.ones(DIM), np.ones(4, bool))
    assert float(rate) == pytest.approx(distance(after) / distance(hidden), rel=1e-12)
    assert np.linalg.norm(centring(4) @ attn, 2) == pytest.approx(0.7)


def test_padding_changes_nothing():
    hidden, scale, mask = tokens_and_gains(3, CASES)
    short = np.flatnonzero(mask.sum(axis=1) == PADDED - 2)
    padded = chains(hidden, scale, EPS, mask)
    bare = chains(hidden[short][:, : PADDED - 2], scale[short], EPS, mask[short][:, : PADDED - 2])
    for ours, theirs in zip(bare, padded, strict=True):
        np.testing.assert_allclose(ours, jnp.asarray(theirs)[short], rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("size", [1e-30, 1e-15, 1e15, 1e30])
@pytest.mark.parametrize("eps", [0.0, 1e-12])
def test_what_layer_norm_makes_of_large_and_small_tokens(size, eps):
    """Against float64, where nothing under- or overflows: the squares of float32 end at 1e19."""
    hidden = size * np.random.default_rng(5).standard_normal((4, DIM))
    scale, mask = np.linspace(-1, 2, DIM), np.ones(4, bool)
    for function in (
        lambda x, g: layernorm.layer_norm_pair_distances(x, eps, mask),
        lambda x, g: tuple(layernorm.layer_norm_chain(x, g, eps, mask)),
    ):
        with np.errstate(under="ignore"):
            narrow = function(np.float32(hidden), np.float32(scale))
        np.testing.assert_allclose(narrow, function(hidden, scale), rtol=1e-4, atol=1e-30)
