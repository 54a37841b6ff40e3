"""The ladder L0 >= L1 >= L2 >= L2b >= L3 >= L4 >= what a real block does."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st
from support.blocks import (
    CONFIGS,
    EVERY,
    LENGTH,
    RTOL,
    aligned_block,
    imposed_attention,
    ladder,
    random_encoder,
    random_state,
    run_and_measure,
)
from support.matrices import lengths_mask, normalised
from support.statements import record

from jaxsmooth import Edits, theory
from jaxsmooth.results import summaries
from jaxsmooth.types import Block

SEED = st.integers(0, 2**32 - 1)
RANDOM_BLOCKS = [
    pytest.param("relu", 0, 30, id="few-relu", marks=pytest.mark.long),
    pytest.param("gelu", 0, 30, id="few-gelu"),
    *(pytest.param(name, 1, 5000, id=f"many-{name}", marks=pytest.mark.long) for name in CONFIGS),
]
distance = jax.jit(theory.subspace_distance)
# L5, of the spectrum of what was observed, is no rung of the registry: test_spectrum_rung.py.
RATES = tuple(rate for rate in summaries.RATES if rate != "L5")


def assert_ordered(rungs: dict[str, np.ndarray], mask: np.ndarray) -> None:
    """Every rung bounds the one below it, wherever a sentence has two tokens to compare."""
    some = mask.sum(axis=1) > 1
    for below, above in itertools.pairwise(RATES):
        low, high = rungs[below][..., some], rungs[above][..., some]
        assert np.isfinite(high).all(), above
        assert np.all(low <= high * (1 + RTOL)), (below, above, np.max(low / high))
        record(low, high)


# The ladder on real encoder blocks


@pytest.mark.parametrize(("name", "seed", "cases"), RANDOM_BLOCKS)
def test_every_rung_bounds_the_one_below(name, seed, cases):
    """Random models, masks, gains of both signs and near zero, biases, and attention of every family imposed."""
    for case in range(cases):
        rng = np.random.default_rng([seed, case])
        model, batch = random_encoder(rng, CONFIGS[name])
        rungs, _ = run_and_measure(model, batch, imposed_attention(rng, CONFIGS[name], batch))
        assert_ordered(rungs, np.asarray(batch.mask))


@pytest.mark.parametrize("activation", [pytest.param("relu", marks=pytest.mark.long), "gelu"])
def test_every_rung_is_attained(activation):
    """One block in which everything is aligned: all rungs and the actual rate are the same number.

    Attention with sqrt(lambda) = 0.7 acts along its own singular vector, both LayerNorms see tokens of one std,
    and the MLP's pre-activations sit where the activation is steepest, as closely as the gain 1e-4 allows.
    """
    weights, state, after = aligned_block(activation)
    rungs = ladder(activation)(weights, state, after)
    assert set(rungs) == set(RATES)
    for key, value in rungs.items():
        np.testing.assert_allclose(value, rungs["actual"], rtol=1e-6, err_msg=key)
    assert_ordered({key: np.asarray(value) for key, value in rungs.items()}, np.asarray(state.mask))


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "silu"])
def test_without_the_slope_of_the_activation_the_rungs_are_false(activation):
    """The theorem states ReLU; its constant 1 in place of L > 1 is beaten by a real block."""
    weights, state, after = aligned_block(activation)
    rungs = ladder("relu")(weights, state, after)
    for key in RATES[1:]:
        assert np.all(rungs[key] < 0.99 * np.asarray(rungs["actual"])), key


@pytest.mark.parametrize("gain", ["scale_attn", "scale_mlp"])
def test_without_the_gains_the_rungs_are_false(gain):
    """All weights zero and a gain of 2: with the gain left out every rung is half of what d_M does."""
    gains = {"scale_attn": 1.0, "scale_mlp": 1.0, gain: 2.0}
    weights, state, after = aligned_block("relu", mixing=0.0, mlp=0.0, gains=gains)
    with_gain = ladder("relu")(weights, state, after)
    norm = gain.replace("scale", "norm")
    unit = dataclasses.replace(getattr(weights, norm), scale=jnp.ones_like(weights.norm_mlp.scale))
    without = ladder("relu")(dataclasses.replace(weights, **{norm: unit}), state, after)
    for key in RATES[1:]:
        np.testing.assert_allclose(with_gain[key], with_gain["actual"], rtol=1e-9)
        np.testing.assert_allclose(without[key], np.asarray(with_gain["actual"]) / 2, rtol=1e-9)


@settings(max_examples=20)
@given(seed=SEED)
def test_layers_multiply(seed):
    rng = np.random.default_rng(seed)
    model, batch = random_encoder(rng, CONFIGS["gelu"])
    rungs, hidden = run_and_measure(model, batch, imposed_attention(rng, CONFIGS["gelu"], batch))
    some = np.asarray(batch.mask).sum(axis=1) > 1
    before, after = (np.asarray(distance(x, batch.mask))[some] for x in (hidden[0], hidden[-1]))
    for key in RATES[1:]:
        assert np.all(after <= np.prod(rungs[key], axis=0)[some] * before * (1 + RTOL))


def test_rows_that_do_not_sum_to_one_break_every_rung_on_attention():
    """Queries set to zero: tokens on the verge of consensus are torn apart, whatever the constants say.

    L4 starts from U itself, so it alone survives.
    """
    rungs = measure_near_consensus(Edits(attn=jax.tree_util.Partial(_silence)))
    assert np.all(rungs["actual"] <= rungs["L4"] * (1 + RTOL))
    for key in RATES[2:]:
        assert np.all(rungs["actual"][0] > rungs[key][0]), key


def test_stds_that_are_not_the_tokens_own_break_every_rung():
    rungs = measure_near_consensus(Edits(std_attn=jax.tree_util.Partial(_uneven)))
    for key in RATES[1:]:
        assert np.all(rungs["actual"][0] > rungs[key][0]), key


def measure_near_consensus(edits: Edits) -> dict[str, np.ndarray]:
    model, batch = random_encoder(np.random.default_rng(0), CONFIGS["gelu"])
    batch = dataclasses.replace(batch, mask=jnp.ones_like(batch.mask))
    return run_and_measure(model, batch, edits, near_consensus=True)[0]


def _silence(layer: jax.Array, attn: jax.Array) -> jax.Array:
    return attn * (jnp.arange(attn.shape[-2]) % 2).astype(attn.dtype)[None, None, :, None]


def _uneven(layer: jax.Array, std: jax.Array) -> jax.Array:
    return std * (1 + jnp.arange(std.shape[-2]) % 2).astype(std.dtype)[None, :, None]


# The parts


@settings(max_examples=30)
@given(seed=SEED)
def test_attention_stretch_bounds_attention_with_its_residual(seed):
    rng = np.random.default_rng(seed)
    weights, state = random_state(rng)
    stretch = EVERY["stretch"](EVERY["norms"](weights), state)
    before = np.asarray(distance(state.input, state.mask))
    assert np.all(distance(state.pre_attn, state.mask) <= stretch * before * (1 + RTOL))


@pytest.mark.parametrize("kind", ["by head", "joint", "together"])
def test_each_bound_of_the_attention_stretch_is_attained(kind):
    """One case for each of the three, in which it alone is the actual stretch."""
    weights, state = {"by head": _one_head, "joint": _split_heads, "together": _orthogonal_heads}[kind]()
    norms = EVERY["norms"](weights)
    actual = float((distance(state.pre_attn, state.mask) / distance(state.input, state.mask))[0])
    assert float(EVERY["stretch"](norms, state)[0]) == pytest.approx(actual, rel=1e-9)
    rates = np.asarray(state.mixing_rate)[0]
    by_head = 1 + float(rates @ np.asarray(norms.heads))
    joint = 1 + float(rates.max() * norms.value * norms.output)
    if kind != "by head":
        assert by_head > 1.05 * actual
    if kind == "together":
        assert joint > 1.02 * actual


CAMPS = np.array([1.0, 1, 1, -1, -1, -1]) / np.sqrt(6)


def _one_head() -> tuple[Block, theory.BlockState]:
    return _stretching([0.7 * np.outer(CAMPS, CAMPS)] * 2, [np.eye(6), np.zeros((6, 6))], CAMPS)


def _split_heads() -> tuple[Block, theory.BlockState]:
    """Two heads that read and write disjoint features: one factor, not two."""
    halves = [np.diag([1.0, 1, 1, 0, 0, 0]), np.diag([0.0, 0, 0, 1, 1, 1])]
    return _stretching([0.7 * np.outer(CAMPS, CAMPS)] * 2, halves, CAMPS)


def _orthogonal_heads() -> tuple[Block, theory.BlockState]:
    """Two heads of equal weights that write to orthogonal directions of token space: a factor sqrt 2."""
    first, second = np.array([1.0, -1, 0, 0, 0, 0]) / np.sqrt(2), np.array([0.0, 0, 1, -1, 0, 0]) / np.sqrt(2)
    read = (first + second) / np.sqrt(2)
    return _stretching([np.outer(first, read) / 6, np.outer(second, read) / 6], [np.eye(6)] * 2, read)


def _stretching(
    deviations: list[np.ndarray], heads: list[np.ndarray], pattern: np.ndarray
) -> tuple[Block, theory.BlockState]:
    """Attention 11^T/n + deviation, W_h a projection, and tokens that differ along `pattern` in every feature."""
    attn = np.stack([1 / 6 + deviation for deviation in deviations]) * np.ones((4, 1, 1, 1))
    assert attn.min() >= 0
    value, output = np.stack(heads, axis=1), np.stack(heads)
    zeros = jnp.zeros((6, 6))
    weights = theory.block_of(jnp.asarray(value), jnp.asarray(output), jnp.ones(6), zeros, zeros, jnp.ones(6))
    hidden = np.outer(pattern, np.ones(6)) * np.ones((4, 1, 1))
    mixed = np.einsum("bnts,bsd,dnh,nhe->bte", attn, hidden, value, output)
    ones, mask, attn = jnp.ones((4, 6, 1)), jnp.ones((4, 6), bool), jnp.asarray(attn)
    before, after = jnp.asarray(hidden), jnp.asarray(hidden + mixed)
    return weights, theory.BlockState(before, attn, after, ones, ones, mask, EVERY["rate"](attn, mask))


def test_the_two_smallest_stds_and_the_pair_weights():
    """L2 takes the two smallest stds, L2b every pair's own, by hand for three tokens."""
    weights, state = random_state(np.random.default_rng(0))
    std = jnp.zeros((state.mask.shape[0], LENGTH, 1)).at[:, :3, 0].set(jnp.array([1.0, 2.0, 5.0]))
    state = state._replace(mask=jnp.asarray(lengths_mask([3] * len(state.mask), LENGTH)), std_attn=std, std_mlp=std)
    norms = EVERY["norms"](weights)
    common = EVERY["stretch"](norms, state) * norms.mlp * norms.gain_mlp
    np.testing.assert_allclose(EVERY["L2"](norms, state), np.asarray(common) / 2, rtol=1e-12)
    inverse = np.array([1, 1 / 4, 1 / 25])
    laplacian = (np.diag(inverse) * inverse.sum() - np.outer(inverse, inverse)) / 3
    expected = np.asarray(common) * np.sqrt(np.linalg.eigvalsh(laplacian)[-1])
    np.testing.assert_allclose(EVERY["L2b"](norms, state), expected, rtol=RTOL)
    assert np.all(EVERY["product"](state) == 1)


def test_a_sentence_of_one_token_has_bounds_and_no_rate():
    weights, state = random_state(np.random.default_rng(1))
    state = state._replace(mask=jnp.asarray(lengths_mask([1] * len(state.mask), LENGTH)))
    norms = EVERY["norms"](weights)
    least = np.asarray(state.std_attn * state.std_mlp)[:, 0, 0]
    common = np.asarray(EVERY["stretch"](norms, state) * norms.mlp * norms.gain_mlp)
    np.testing.assert_allclose(EVERY["L2"](norms, state), common / least, rtol=1e-12)
    np.testing.assert_array_equal(EVERY["product"](state), least)
    assert np.isnan(EVERY["actual"](state, state.input)).all()


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_a_pre_norm_block_stays_within_its_own_rate(activation):
    """numpy runs the block; the rate is never below 1, and the post-LN ladder, misapplied, is broken."""
    rng = np.random.default_rng(7)
    tokens, width, heads, wide, sentences = 6, 8, 2, 12, 200
    phi = {"relu": lambda x: np.maximum(x, 0), "gelu": lambda x: x * scipy.stats.norm.cdf(x)}[activation]
    rate = jax.jit(lambda w, s: theory.pre_norm_block_rate(theory.block_norms(w, activation), s, activation))
    post_norm = jax.jit(lambda w, s: theory.block_rate(theory.block_norms(w, activation), s))
    largest, broken = 0.0, 0
    for _ in range(5):
        weights = theory.block_of(
            value=rng.standard_normal((width, heads, 4)) / 3,
            output=rng.standard_normal((heads, 4, width)) / 3,
            scale_attn=rng.standard_normal(width),
            up=rng.standard_normal((width, wide)) / 4,
            down=rng.standard_normal((wide, width)) / 4,
            scale_mlp=rng.standard_normal(width),
        )
        x = rng.standard_normal((sentences, tokens, width)) * 10 ** rng.uniform(-1, 1, (sentences, 1, 1))
        mask = np.arange(tokens) < rng.integers(2, tokens + 1, sentences)[:, None]
        logits = np.where(mask[:, None, None], rng.standard_normal((sentences, heads, tokens, tokens)), -np.inf)
        attn = scipy.special.softmax(logits, axis=-1)
        normed, std_attn = normalised(x, 1e-5)
        mixed = np.einsum(
            "bnts,bsd,dnh,nhe->bte",
            attn,
            normed * weights.norm_attn.scale,
            weights.attn.value.kernel,
            weights.attn.output.kernel,
        )
        u = x + mixed + rng.standard_normal(width)
        again, std_mlp = normalised(u, 1e-5)
        after = (
            u
            + phi(again * weights.norm_mlp.scale @ weights.up.kernel + rng.standard_normal(wide)) @ weights.down.kernel
        )
        mixing = jax.jit(theory.mixing_rate)(attn, mask)
        state = theory.BlockState(x, attn, u, std_attn, std_mlp, mask, mixing)
        bound = np.asarray(rate(weights, state))
        actual = np.asarray(distance(after, mask) / distance(x, mask))
        assert np.all(bound >= 1)
        assert np.all(actual <= bound * (1 + 1e-12))
        largest = max(largest, float((actual / bound).max()))
        broken += int((actual > np.asarray(post_norm(weights, state))).sum())
    assert largest > 0.2
    assert broken > 0
