"""Attention operators against plain numpy; their norms against LAPACK."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.heads import HEAD, LENGTHS, REACHES, SIZE, WIDTH, attention_matrix, head
from support.matrices import GARBAGE, stochastic

from jaxsmooth.theory import (
    Centred,
    Dense,
    MultiHead,
    Operator,
    Residual,
    allowed_pairs,
    masked_attention,
    operator_norm,
)


@pytest.mark.parametrize("name", REACHES)
def test_masked_attention_and_its_pattern(name):
    query, key, _ = head(3)
    mask, (behind, ahead) = LENGTHS["holes"], REACHES[name]
    logits = jnp.asarray(query @ key.T / np.sqrt(HEAD))
    found = masked_attention(logits, allowed_pairs(jnp.asarray(mask), behind=behind, ahead=ahead))
    np.testing.assert_allclose(found, attention_matrix(query, key, mask, behind, ahead), atol=1e-15)


def operators(matrix: np.ndarray, mask: np.ndarray) -> dict[str, tuple[Operator, np.ndarray]]:
    """Each kind with the matrix that it is on vec(X), rows of X first."""
    rng = np.random.default_rng(5)
    kept = np.where(mask[:, None] & mask[None], matrix, 0)
    frame = np.diag(mask.astype(float))
    centre = frame - np.outer(mask, mask) / mask.sum()
    weight = rng.standard_normal((2, WIDTH, WIDTH))
    heads = Dense(jnp.stack([matrix, matrix.T]), jnp.stack([mask, mask]))
    eye = np.eye(WIDTH)
    both = np.kron(frame, eye) + np.kron(kept, weight[0].T) + np.kron(kept.T, weight[1].T)
    dense = Dense(jnp.asarray(matrix), jnp.asarray(mask))
    return {
        "dense": (dense, np.kron(kept, eye)),
        "centred": (Centred(dense), np.kron(centre @ kept, eye)),
        "residual": (Residual(dense, jnp.asarray(0.5)), np.kron(frame + 0.5 * kept, eye)),
        "heads": (MultiHead(heads, jnp.asarray(weight)), both),
    }


KINDS = ("dense", "centred", "residual", "heads")


@pytest.mark.parametrize("kind", KINDS)
def test_every_operator_is_its_matrix_and_its_transpose_the_transpose(kind):
    rng = np.random.default_rng(6)
    mask = LENGTHS["padded"]
    operator, matrix = operators(rng.standard_normal((SIZE, SIZE)), mask)[kind]
    assert isinstance(operator, Operator)
    assert operator.size == SIZE
    np.testing.assert_array_equal(operator.mask, mask)
    hidden = rng.standard_normal((SIZE, WIDTH))
    real = np.where(mask[:, None], hidden, 0).ravel()
    hidden[~mask] = np.nan
    tokens = jnp.asarray(hidden)
    for found, expected in ((operator.apply(tokens), matrix), (operator.transpose_apply(tokens), matrix.T)):
        np.testing.assert_allclose(np.ravel(found), expected @ real, atol=1e-13)


@jax.jit(static_argnames="width")
def norm_of(operator, width):
    return operator_norm(operator, width=width)


@pytest.mark.parametrize("kind", ["centred", "heads"])
def test_the_norm_of_every_operator(kind):
    mask = LENGTHS["padded"]
    operator, matrix = operators(stochastic(np.random.default_rng(7), SIZE), mask)[kind]
    width = WIDTH if kind == "heads" else 1
    found = norm_of(operator, width)
    values = np.linalg.svd(matrix, compute_uv=False)
    assert float(found.value) == pytest.approx(values[0], rel=1e-12)
    assert np.abs(values - float(found.value)).min() <= float(found.residual) + 1e-12
    assert 0 < int(found.steps) <= 600


def test_the_residual_of_a_short_search_is_that_of_its_singular_triple():
    """Some singular value lies within it though the value is still poor."""
    matrix = np.diag(np.linspace(0, 1, 200))
    operator = Dense(jnp.asarray(matrix), jnp.ones(200, bool))
    found = jax.jit(lambda op: operator_norm(op, tolerance=0.0, max_steps=1))(operator)
    assert float(found.value) < 1 - 1e-5
    assert float(found.residual) > 1e-4
    assert np.abs(np.diag(matrix) - float(found.value)).min() <= float(found.residual)


def test_consensus_has_norm_zero():
    """Equal rows: J A is rounding at most."""
    uniform = Centred(Dense(jnp.full((SIZE, SIZE), 1 / SIZE), jnp.ones(SIZE, bool)))
    found = norm_of(uniform, 1)
    assert float(found.value) + float(found.residual) < 1e-15


@pytest.mark.parametrize("garbage", [GARBAGE, np.nan])
def test_padding_changes_nothing(garbage):
    matrix = stochastic(np.random.default_rng(9), 8)
    padded = np.full((11, 11), garbage)
    padded[:8, :8] = matrix
    mask = np.arange(11) < 8
    hidden = np.random.default_rng(9).standard_normal((8, 2))
    wide = np.full((11, 2), garbage)
    wide[:8] = hidden
    # A matrix with NaN on padding is not attention; zeros there are, and any number in padded query rows.
    dense = Dense(jnp.asarray(np.where(mask[None, :], np.nan_to_num(padded), 0)), jnp.asarray(mask))
    found = dense.apply(jnp.asarray(wide))
    np.testing.assert_allclose(found[:8], matrix @ hidden, rtol=1e-14)
    np.testing.assert_array_equal(found[8:], 0)


def test_long_sums_of_a_transposed_product_lose_little():
    """2,048 terms of one sign in float32: added up one after the other they lose three times what is allowed here."""
    rng = np.random.default_rng(0)
    attn, hidden = rng.random((2048, 2048)), rng.random((2048, 1))
    exact = attn.T @ hidden
    found = Dense(jnp.asarray(attn, jnp.float32), jnp.ones(2048, bool)).transpose_apply(
        jnp.asarray(hidden, jnp.float32)
    )
    assert np.linalg.norm(np.asarray(found, np.float64) - exact) < 2e-7 * np.linalg.norm(exact)
