"""Products of different attention: Birkhoff's and Dobrushin's coefficients, Hajnal's sum, Wolfowitz's finite sets."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.matrices import PADDED, TOKENS, structured, two_camps, window
from support.statements import few_or_many, few_or_many_seeds, record

from jaxsmooth.theory import (
    birkhoff1957_contraction,
    dobrushin1956_spread,
    ergodicity_coefficient,
    hajnal1958_sum,
    logit_spread,
    weak_ergodicity_bound,
    wolfowitz1963_products,
    wolfowitz1963_word_contraction,
)

CASES = 1000
wolfowitz = jax.jit(jax.vmap(functools.partial(wolfowitz1963_products, length=3)))
tau, birkhoff = jax.jit(ergodicity_coefficient), jax.jit(birkhoff1957_contraction)


def softmax(logits: np.ndarray) -> np.ndarray:
    top = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return top / top.sum(axis=-1, keepdims=True)


def test_birkhoff_bounds_tau_which_bounds_the_eigenvalue():
    """3.2 with Delta from the definition, over all quadruples of tokens."""
    rng = np.random.default_rng(8)
    logits = 10 ** rng.uniform(-2, 1, (CASES, 1, 1)) * rng.standard_normal((CASES, TOKENS, TOKENS))
    mask = np.arange(TOKENS) < rng.integers(2, TOKENS + 1, CASES)[:, None]
    seen = np.where(mask[:, None, :], logits, -np.inf)
    attn = softmax(seen)
    quadruples = logits[:, :, None, :, None] + logits[:, None, :, None, :]
    quadruples = quadruples - logits[:, :, None, None, :] - logits[:, None, :, :, None]
    real = mask[:, :, None] & mask[:, None, :]
    delta = np.where(real[:, :, :, None, None] & real[:, None, None], quadruples, 0).max(axis=(1, 2, 3, 4))
    np.testing.assert_allclose(jax.jit(logit_spread)(seen, mask), delta, rtol=1e-12)
    bound = np.asarray(birkhoff(seen, mask))
    np.testing.assert_allclose(bound, np.tanh(delta / 4), rtol=1e-12)
    assert np.all(tau(attn, mask) <= bound * (1 + 1e-12))
    biased = seen + rng.standard_normal((CASES, TOKENS, 1)) + rng.standard_normal((CASES, 1, TOKENS))
    np.testing.assert_allclose(birkhoff(biased, mask), bound, rtol=1e-10)


def test_birkhoff_is_attained_and_says_nothing_under_a_causal_mask():
    delta = 2.0
    logits = np.array([[delta / 4, -delta / 4], [-delta / 4, delta / 4]])
    both = np.ones(2, bool)
    assert float(tau(softmax(logits), both)) == pytest.approx(float(birkhoff(logits, both)), rel=1e-14)
    causal = np.where(np.tri(TOKENS, dtype=bool), 0.0, -np.inf)
    assert float(jax.jit(logit_spread)(causal, np.ones(TOKENS, bool))) == np.inf
    assert float(birkhoff(causal, np.ones(TOKENS, bool))) == 1


LAYERS = 3
dobrushin = jax.jit(jax.vmap(dobrushin1956_spread))
weakly = jax.jit(jax.vmap(weak_ergodicity_bound))


def check_products(seed: int) -> None:
    rng = np.random.default_rng(seed)
    attn = np.zeros((CASES, LAYERS, PADDED, PADDED))
    attn[:, :, :TOKENS, :TOKENS] = structured(rng, CASES * LAYERS).reshape(CASES, LAYERS, TOKENS, TOKENS)
    attn[:, :, TOKENS:] = rng.standard_normal((CASES, LAYERS, PADDED - TOKENS, PADDED))
    hidden = rng.standard_normal((CASES, PADDED, 2))
    mask = np.tile(np.arange(PADDED) < TOKENS, (CASES, 1))
    spread, distance = dobrushin(attn, hidden, mask), weakly(attn, hidden, mask)
    for statement in (spread, distance):
        record(statement.lhs, statement.rhs)
        assert np.all(statement.applicable)
        assert np.all(statement.lhs <= statement.rhs * (1 + 1e-12) + 1e-14)
    product = attn[:, 2, :TOKENS, :TOKENS] @ attn[:, 1, :TOKENS, :TOKENS] @ attn[:, 0, :TOKENS, :TOKENS]
    np.testing.assert_allclose(spread.lhs, np.ptp(product @ hidden[:, :TOKENS], axis=1), atol=1e-14)


@few_or_many_seeds
def test_products_of_different_attention_contract_by_the_product_of_taus(seeds):
    for seed in seeds:
        check_products(seed)


def test_the_product_bounds_are_attained():
    camps, mask = two_camps(TOKENS)[None], np.ones(TOKENS, bool)
    hidden = (np.eye(TOKENS)[0] - np.eye(TOKENS)[1])[:, None]
    found = jax.jit(weak_ergodicity_bound)(camps, hidden, mask)
    assert float(found.lhs) == pytest.approx(float(found.rhs), rel=1e-14)
    spread = jax.jit(dobrushin1956_spread)(camps, hidden, mask)
    assert float(spread.lhs[0]) == float(spread.rhs[0]) == 2


def test_rows_that_do_not_sum_to_one_are_not_covered():
    """Zeroed rows: consensus is torn apart, which no factor times 0 bounds; the statements do not apply."""
    attn = np.full((1, TOKENS, TOKENS), 1 / TOKENS)
    attn[0, 0] = 0
    found = jax.jit(weak_ergodicity_bound)(attn, np.ones((TOKENS, 1)), np.ones(TOKENS, bool))
    assert float(found.lhs) > 0.5
    assert float(found.rhs) < 1e-12
    assert not found.applicable


def test_hajnals_sum_needs_blocks_where_single_layers_do_not_mix():
    layers = np.tile(window(2, TOKENS), (12, 1, 1))
    mask = np.ones(TOKENS, bool)
    single, blocks = (float(hajnal1958_sum(jnp.asarray(layers), jnp.asarray(mask), block=b)) for b in (1, 6))
    assert single == 0
    power = np.linalg.matrix_power(layers[0], 6)
    apart = np.abs(power[:, None] - power[None]).sum(axis=2).max() / 2
    assert blocks == pytest.approx(2 * (1 - apart), rel=1e-13)
    assert blocks > 0.03


@few_or_many(CASES, 100_000)
def test_products_of_a_finite_set_contract_as_wolfowitz_says(seed, cases):
    """Random words of two matrices each."""
    rng = np.random.default_rng(seed)
    matrices = structured(rng, 2 * cases).reshape(cases, 2, TOKENS, TOKENS)
    # Half of them are one-step walks under a rooted mask, which do not mix at once.
    rooted = np.tril(np.triu(np.ones((TOKENS, TOKENS)), -1))
    walks = rooted * rng.uniform(0.1, 1, matrices.shape)
    matrices[::2] = (walks / walks.sum(axis=-1, keepdims=True))[::2]
    words, hidden = rng.integers(0, 2, (cases, 9)), rng.standard_normal((cases, TOKENS, 2))
    found = wolfowitz(matrices, words, hidden, np.ones((cases, TOKENS), bool))
    exact = hidden
    for letter in words.T:
        exact = matrices[np.arange(cases), letter] @ exact
    spread = exact.max(axis=1) - exact.min(axis=1)
    np.testing.assert_allclose(found.lhs, spread, atol=1e-12)
    assert np.all(found.applicable)
    record(spread, np.asarray(found.rhs))
    assert np.all(spread <= np.asarray(found.rhs) + 1e-12)
    assert 0.2 < float((spread[::2] / np.asarray(found.rhs)[::2]).max()) <= 1


def test_a_finite_set_may_need_words_of_several_letters():
    single = jax.vmap(lambda m: wolfowitz1963_word_contraction(m, jnp.ones(TOKENS, bool), length=1))
    rooted = np.tile(window(2, TOKENS), (1, 2, 1, 1))
    assert float(single(rooted)[0]) == 1
    long = wolfowitz1963_word_contraction(jnp.asarray(rooted[0]), jnp.ones(TOKENS, bool), length=6)
    assert 0.5 < float(long) < 1


def test_a_set_with_a_word_that_keeps_tokens_apart_promises_nothing():
    """Each of two matrices brings consensus in two steps; alternating they keep two tokens apart for ever."""
    pair, mask = np.stack([np.eye(3)[[1, 2, 2]], np.eye(3)[[0, 0, 1]]]), jnp.ones(3, bool)
    for matrix in pair:
        assert np.linalg.matrix_rank(np.linalg.matrix_power(matrix, 2)) == 1
    assert np.linalg.matrix_rank(np.linalg.matrix_power(pair[1] @ pair[0], 64)) == 2
    for length in (1, 2, 3, 6):
        assert float(wolfowitz1963_word_contraction(jnp.asarray(pair), mask, length=length)) == 1
