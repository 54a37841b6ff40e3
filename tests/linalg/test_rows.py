"""Softmax and standardisation of rows."""

import jax.numpy as jnp
import numpy as np
import scipy.special

from jaxsmooth.linalg.rows import centre_features, masked_softmax, reciprocal, row_std, standardise_rows


def test_layer_norm_keeps_the_linear_rank_and_not_the_affine_one():
    """Rows u and 2u become one row, against Cirrincione (2026) as worded; the rank of H C is what LayerNorm keeps."""
    u = np.array([1.0, -2.0, 4.0, 0.5])
    rows = np.stack([u, 2 * u])
    normed = np.asarray(standardise_rows(jnp.asarray(rows)))
    np.testing.assert_allclose(normed[0], normed[1], atol=1e-15)
    assert np.linalg.matrix_rank(rows[1:] - rows[:1]) == 1
    rng = np.random.default_rng(4)
    for rank in range(1, 5):
        hidden = rng.standard_normal((6, rank)) @ rng.standard_normal((rank, 7)) + rng.standard_normal((6, 1))
        centred = hidden - hidden.mean(axis=1, keepdims=True)
        normed = np.asarray(standardise_rows(jnp.asarray(hidden)))
        assert np.linalg.matrix_rank(normed, tol=1e-9) == np.linalg.matrix_rank(centred, tol=1e-9) == rank


def test_softmax_over_allowed_columns_is_scipys():
    rng = np.random.default_rng(0)
    logits, allowed = 30 * rng.standard_normal((5, 4, 7)), rng.uniform(size=(5, 1, 7)) < 0.7
    allowed[0], allowed[1] = True, False
    found = masked_softmax(jnp.asarray(logits), jnp.asarray(allowed))
    expected = scipy.special.softmax(np.where(allowed, logits, -np.inf)[[0, 2, 3, 4]], axis=-1)
    np.testing.assert_allclose(found[np.array([0, 2, 3, 4])], expected, atol=1e-15)
    np.testing.assert_allclose(found[1], 1 / 7, rtol=1e-15)


def test_rows_are_standardised_as_numpy_does():
    rows = np.random.default_rng(1).standard_normal((3, 4, 9)) + 5
    rows[0, 0] = 5
    centred = rows - rows.mean(axis=-1, keepdims=True)
    np.testing.assert_allclose(centre_features(jnp.asarray(rows)), centred, atol=1e-15)
    std = np.sqrt(rows.var(axis=-1, keepdims=True) + 0.5)
    np.testing.assert_allclose(row_std(jnp.asarray(centred), 0.5), std, rtol=1e-14)
    with np.errstate(invalid="ignore"):
        expected = np.nan_to_num(centred / rows.std(axis=-1, keepdims=True))
    np.testing.assert_allclose(standardise_rows(jnp.asarray(rows)), expected, atol=1e-14)
    np.testing.assert_array_equal(reciprocal(jnp.array([2.0, 0.0])), [0.5, 0.0])
