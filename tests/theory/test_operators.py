"""Attention operators, dense and blocked, against plain numpy; their norms against LAPACK."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from support.matrices import FAMILIES, GARBAGE, centring, stochastic

from jaxsmooth.theory import (
    Centred,
    Dense,
    MultiHead,
    Operator,
    Residual,
    allowed_pairs,
    arnoldi,
    blocked_attention,
    masked_attention,
    operator_norm,
    ritz_values,
)

SIZE, HEAD, WIDTH = 23, 5, 3
# What a query may see: how far back, how far ahead.
REACHES = {"full": (None, None), "causal": (None, 0), "window": (3, 0), "band": (2, 4), "self": (0, 0)}
LENGTHS = {"whole": np.ones(SIZE, bool), "padded": np.arange(SIZE) < 15, "holes": np.arange(SIZE) % 3 != 0}


def head(seed: int = 0, scale: float = 3.0, size: int = SIZE) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    query, key = scale * rng.standard_normal((2, size, HEAD))
    return query, key, rng.standard_normal((size, WIDTH))


def reference(query, key, mask, behind, ahead) -> np.ndarray:
    """The attention matrix by the book, zero in the rows and columns of padding."""
    out = np.zeros((len(mask), len(mask)))
    for i in np.flatnonzero(mask):
        keys = [
            j for j in np.flatnonzero(mask) if (behind is None or j >= i - behind) and (ahead is None or j <= i + ahead)
        ]
        out[i, keys] = scipy.special.softmax(query[i] @ key[keys].T / np.sqrt(query.shape[1]))
    return out


@jax.jit(static_argnames="block")
def both_ways(query, key, hidden, mask, behind, ahead, block):
    operator = blocked_attention(query, key, mask, behind=behind, ahead=ahead, block=block)
    return operator.apply(hidden), operator.transpose_apply(hidden)


def reach(limit: int | None) -> np.int32:
    return np.int32(SIZE if limit is None else limit)


@pytest.mark.parametrize("block", [4, 8, 64])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", REACHES)
def test_blocked_attention_is_the_softmax_it_never_forms(name, length, block):
    query, key, hidden = head()
    mask, (behind, ahead) = LENGTHS[length], REACHES[name]
    matrix = reference(query, key, mask, behind, ahead)
    # Whatever stands on padding, even NaN, must not be read.
    for rows in (query, key, hidden):
        rows[~mask] = np.nan
    forward, backward = both_ways(query, key, hidden, mask, reach(behind), reach(ahead), block)
    real = np.where(mask[:, None], hidden, 0)
    np.testing.assert_allclose(forward, matrix @ real, atol=2e-15, rtol=1e-13)
    np.testing.assert_allclose(backward, matrix.T @ real, atol=2e-15, rtol=1e-13)


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 1000.0])
def test_blocked_attention_survives_any_scores(scale):
    """Scores of 1e6 overflow exp; the running maximum does not let them."""
    query, key, hidden = head(1, scale)
    mask = LENGTHS["padded"]
    forward, backward = both_ways(query, key, hidden, mask, reach(None), reach(None), 4)
    matrix, real = reference(query, key, mask, None, None), np.where(mask[:, None], hidden, 0)
    # Scores of size s carry s times the rounding error into the exponent.
    tolerance = 1e-14 * max(1.0, 10 * scale**2)
    np.testing.assert_allclose(forward, matrix @ real, atol=tolerance)
    np.testing.assert_allclose(backward, matrix.T @ real, atol=tolerance)


def test_blocked_attention_in_single_precision():
    query, key, hidden = (part.astype(np.float32) for part in head(2, 1.0))
    mask = LENGTHS["whole"]
    forward, backward = both_ways(query, key, hidden, mask, reach(3), reach(0), 8)
    assert forward.dtype == backward.dtype == np.float32
    matrix = reference(query.astype(np.float64), key.astype(np.float64), mask, 3, 0)
    np.testing.assert_allclose(forward, matrix @ hidden, atol=2e-6)
    np.testing.assert_allclose(backward, matrix.T @ hidden, atol=2e-6)


def test_a_batch_of_heads_and_of_masks_is_one_vmap():
    query, key, hidden = (np.stack(parts) for parts in zip(*(head(seed) for seed in range(5)), strict=True))
    behinds, aheads = (np.stack([reach(pair[k]) for pair in REACHES.values()]) for k in (0, 1))
    mask = jnp.asarray(LENGTHS["padded"])

    @jax.jit
    @jax.vmap
    def run(query, key, hidden, behind, ahead):
        return blocked_attention(query, key, mask, behind=behind, ahead=ahead, block=8).apply(hidden)

    found = run(query, key, hidden, behinds, aheads)
    for k, (behind, ahead) in enumerate(REACHES.values()):
        matrix = reference(query[k], key[k], mask, behind, ahead)
        np.testing.assert_allclose(found[k], matrix @ hidden[k], atol=2e-15, rtol=1e-13)


@pytest.mark.parametrize("name", REACHES)
def test_masked_attention_and_its_pattern(name):
    query, key, _ = head(3)
    mask, (behind, ahead) = LENGTHS["holes"], REACHES[name]
    logits = jnp.asarray(query @ key.T / np.sqrt(HEAD))
    found = masked_attention(logits, allowed_pairs(jnp.asarray(mask), behind=behind, ahead=ahead))
    np.testing.assert_allclose(found, reference(query, key, mask, behind, ahead), atol=1e-15)


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


def test_the_mixing_rate_of_attention_that_is_never_formed():
    """sqrt(lambda) = ||J A|| under every mask at once, for a matrix in 12 blocks."""
    query, key, _ = (np.stack(parts) for parts in zip(*(head(seed, 1.5) for seed in range(5)), strict=True))
    behinds, aheads = (np.stack([reach(pair[k]) for pair in REACHES.values()]) for k in (0, 1))
    mask = jnp.asarray(LENGTHS["padded"])

    @jax.jit
    @jax.vmap
    def run(query, key, behind, ahead):
        return operator_norm(Centred(blocked_attention(query, key, mask, behind=behind, ahead=ahead, block=4)))

    found = run(query, key, behinds, aheads)
    mask = LENGTHS["padded"]
    centre = np.diag(mask.astype(float)) - np.outer(mask, mask) / mask.sum()
    for k, (behind, ahead) in enumerate(REACHES.values()):
        expected = np.linalg.norm(centre @ reference(query[k], key[k], mask, behind, ahead), 2)
        assert float(found.value[k]) == pytest.approx(expected, rel=1e-10)


def test_the_residual_of_a_search_that_was_cut_short_is_that_of_its_singular_triple():
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


def test_arnoldi_finds_the_eigenvalues_of_every_family():
    """The whole Krylov space gives every eigenvalue; diagonalisable ones to many digits."""
    size = 6
    run = jax.jit(jax.vmap(lambda a: arnoldi(Centred(Dense(a, jnp.ones(size, bool))), size)))
    matrices = np.stack([make(np.random.default_rng(k), size) for k, make in enumerate(FAMILIES.values())])
    found = run(matrices)
    for k, matrix in enumerate(matrices):
        values, residuals = ritz_values(jax.tree.map(lambda leaf, k=k: leaf[k], found))
        exact = np.linalg.eigvals(centring(size) @ matrix)
        assert abs(values[0]) == pytest.approx(np.abs(exact).max(), rel=1e-6, abs=1e-6)
        assert residuals[0] < 1e-12


def test_arnoldi_cut_short_says_how_far_it_is_off():
    rng = np.random.default_rng(8)
    matrix = stochastic(rng, 60) @ stochastic(rng, 60)
    values, residuals = ritz_values(arnoldi(Dense(jnp.asarray(matrix), jnp.ones(60, bool)), 12))
    exact = np.linalg.eigvals(matrix)
    assert np.abs(values[0] - 1) < 1e-6
    # Residual r: value is an eigenvalue of A + E with ||E|| <= r, so A - value is singular to within r.
    for value, residual in zip(values, residuals, strict=True):
        least = np.linalg.svd(matrix - value * np.eye(60), compute_uv=False)[-1]
        assert least <= residual + 1e-12
    assert np.all(np.abs(values[:1, None] - exact).min(axis=1) < 1e-6)


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
