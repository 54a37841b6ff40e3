"""Task heads against numpy in float64."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf
from support.training import SMALL, small_encoder

import jaxsmooth
from jaxsmooth.bert.heads import KINDS, apply_head, init_head, pool, with_pooler
from jaxsmooth.errors import ConfigError

RNG = np.random.default_rng(3)
HIDDEN = RNG.normal(size=(4, 6, SMALL.width))
MASK = np.arange(6)[None] < np.array([6, 3, 5, 1])[:, None]


@pytest.fixture(scope="module")
def model():
    return small_encoder()


def drawn(kind, **options):
    """A head with biases and gains that matter."""
    head = init_head(SMALL, kind, jax.random.key(5), dtype=jnp.float64, **options)
    leaves, tree = jax.tree.flatten(head)
    return jax.tree.unflatten(tree, [leaf + jnp.asarray(RNG.normal(size=leaf.shape)) for leaf in leaves])


def apply(head, model, **options):
    return np.asarray(apply_head(head, model, jnp.asarray(HIDDEN), jnp.asarray(MASK), **options))


def pooled(model):
    return np.tanh(HIDDEN[:, 0] @ np.asarray(model.pooler.kernel) + np.asarray(model.pooler.bias))


@pytest.mark.parametrize(("kind", "labels"), [("classification", 3), ("regression", 1), ("choice", 1)])
def test_sentence_heads(kind, labels, model):
    head = drawn(kind, labels=labels)
    expected = pooled(model) @ np.asarray(head.out.kernel) + np.asarray(head.out.bias)
    found = apply(head, model, choices=2) if kind == "choice" else apply(head, model)
    expected = expected.reshape(2, 2) if kind == "choice" else expected
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-13)


def test_token_head(model):
    head = drawn("tokens", labels=5)
    expected = HIDDEN @ np.asarray(head.out.kernel) + np.asarray(head.out.bias)
    np.testing.assert_allclose(apply(head, model), expected, rtol=1e-13, atol=1e-13)


def test_span_head_never_chooses_padding(model):
    head = drawn("span")
    expected = HIDDEN @ np.asarray(head.out.kernel) + np.asarray(head.out.bias)
    found = apply(head, model)
    np.testing.assert_allclose(found[MASK], expected[MASK], rtol=1e-13, atol=1e-13)
    shares = np.asarray(jax.nn.softmax(jnp.asarray(found), axis=1))
    assert np.all(shares[~MASK] == 0)
    assert np.all(np.isfinite(found))


@pytest.mark.parametrize("tied", [True, False])
def test_masked_lm_head(tied, model):
    head = drawn("masked_lm", tied=tied)
    wide = HIDDEN @ np.asarray(head.dense.kernel) + np.asarray(head.dense.bias)
    wide = wide * (1 + erf(wide / np.sqrt(2))) / 2
    std = np.sqrt(wide.var(-1, keepdims=True) + SMALL.eps)
    wide = (wide - wide.mean(-1, keepdims=True)) / std * np.asarray(head.norm.scale) + np.asarray(head.norm.bias)
    decoder = np.asarray(model.embeddings.word).T if tied else np.asarray(head.out.kernel)
    assert (head.out.kernel is None) == tied
    np.testing.assert_allclose(apply(head, model), wide @ decoder + np.asarray(head.out.bias), rtol=1e-12, atol=1e-12)


def test_a_tied_decoder_sends_its_gradient_to_the_word_table(model):
    head = drawn("masked_lm")

    def loss(model):
        return apply_head(head, model, jnp.asarray(HIDDEN), jnp.asarray(MASK)).sum()

    gradient = jax.grad(loss)(model).embeddings.word
    assert np.abs(np.asarray(gradient)).min() > 0


def test_a_pooler_is_added_only_where_there_is_none(model):
    assert with_pooler(model, jax.random.key(0)) is model
    bare = dataclasses.replace(model, pooler=None)
    with pytest.raises(ConfigError, match="no pooler"):
        pool(bare, jnp.asarray(HIDDEN))
    assert with_pooler(bare, jax.random.key(0)).pooler.kernel.dtype == jnp.float64


def test_init_is_berts():
    wide = jaxsmooth.EncoderConfig(vocab=48, width=256, layers=1, heads=2, mlp_width=32)
    for kind in KINDS:
        head = init_head(wide, kind, jax.random.key(0), labels=200, tied=False)
        assert head.out.bias is None if kind == "causal_lm" else not np.any(head.out.bias)
        if kind in ("classification", "masked_lm"):
            assert abs(float(jnp.std(head.out.kernel)) / wide.std_init - 1) < 0.03


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("classifier", {}, "kind must be one of"),
        ("classification", {"labels": 0}, "at least one label"),
    ],
)
def test_refusals(kind, options, message):
    with pytest.raises(ConfigError, match=message):
        init_head(SMALL, kind, jax.random.key(0), **options)


def test_a_decoder_reads_the_width_of_the_word_table():
    narrow = dataclasses.replace(SMALL, embedding_width=8)
    head = init_head(narrow, "masked_lm", jax.random.key(0))
    assert (head.dense.kernel.shape, head.norm.scale.shape, head.out.kernel) == ((16, 8), (8,), None)
    assert init_head(narrow, "masked_lm", jax.random.key(0), tied=False).out.kernel.shape == (8, 48)
    with pytest.raises(ConfigError, match="width 16; got 8"):
        init_head(narrow, "causal_lm", jax.random.key(0))


@pytest.mark.parametrize("reads", ["first", "last", "mean"])
def test_what_a_sentence_head_reads_is_real(reads, model):
    """From what a loop over real tokens says, in a batch padded on either side; whatever lies under the padding."""
    head = dataclasses.replace(drawn("classification", labels=3), reads=reads)
    for mask in (MASK, MASK[:, ::-1]):
        if reads == "first" and not mask[:, 0].all():
            continue  # the first token is [CLS], which is never padding
        take = {"first": lambda rows: rows[0], "last": lambda rows: rows[-1], "mean": lambda rows: rows.mean(axis=0)}
        expected = np.stack([take[reads](h[m]) for h, m in zip(HIDDEN, mask, strict=True)])
        expected = expected @ np.asarray(head.out.kernel) + np.asarray(head.out.bias)
        for hidden in (HIDDEN, np.where(mask[:, :, None], HIDDEN, np.nan)):
            found = apply_head(head, model, jnp.asarray(hidden), jnp.asarray(mask))
            np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-13)


def test_a_causal_language_head_is_the_word_table(model):
    head = init_head(SMALL, "causal_lm", jax.random.key(0), dtype=jnp.float64)
    assert (head.out.kernel, head.out.bias, head.dense) == (None, None, None)
    expected = HIDDEN @ np.asarray(model.embeddings.word).T
    np.testing.assert_allclose(apply(head, model), expected, rtol=1e-12, atol=1e-13)
