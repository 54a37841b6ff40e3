"""Masked attention collapses, attention with LayerNorm need not: rates, equilibria, attractors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.sparse.csgraph
from support.matrices import PADDED, lengths_mask, pad_tokens
from support.statements import assert_holds, attentions, distance, few_or_many, few_or_many_seeds, record, tokens_for

from jaxsmooth.linalg.rows import standardise_rows
from jaxsmooth.metrics import token_cosine_similarity
from jaxsmooth.theory.literature import masked_attention as theory

DEPTH, CASES = 6, 1024
BOTH = np.ones(2, bool)
radius_of = jax.jit(theory.wu2024_radius)
masked, gat = jax.jit(theory.wu2024_masked_attention), jax.jit(theory.wu2023_gat_collapse)
cosine = jax.jit(token_cosine_similarity)


@jax.jit
def iterate(hidden: jax.Array, mask: jax.Array, query_key: jax.Array, value: jax.Array, steps: jax.Array) -> jax.Array:
    return jax.lax.fori_loop(0, steps, lambda _, x: theory.wu2024_layer(x, mask, query_key, value), hidden)


def rooted_graphs(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Windows, causal masks, stars and random graphs with a root, every token attending to itself: (graph, mask)."""
    mask = lengths_mask(rng.integers(1, PADDED + 1, CASES))
    i, j = np.indices((PADDED, PADDED))
    kinds = [np.abs(i - j) <= 1, (j <= i) & (i - j <= 2), j <= i, (j == 0) | (i == j)]
    graphs = np.empty((CASES, PADDED, PADDED), bool)
    for case in range(CASES):
        kind = rng.integers(0, 5)
        if kind < 4:
            graphs[case] = kinds[kind]
        else:
            order = np.zeros((PADDED, PADDED), bool)
            order[np.arange(1, PADDED), [rng.integers(0, k) for k in range(1, PADDED)]] = True
            graphs[case] = order | np.eye(PADDED, dtype=bool) | (rng.uniform(size=(PADDED, PADDED)) < 0.1)
    return graphs, mask


def masked_layers(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    graph, mask = rooted_graphs(rng)
    real = graph & mask[:, None] & mask[:, :, None]
    weights = rng.dirichlet(np.ones(PADDED), (DEPTH, CASES, PADDED)) * real[None] + 1e-9 * np.eye(PADDED)
    # Half with nearly equal weights, whose least entry makes the bound say something.
    weights[:, ::2] = np.where(real[::2], rng.uniform(0.8, 1.2, (DEPTH, CASES // 2, PADDED, PADDED)), 0)
    weights[:, ::2] += np.where(mask[::2, :, None], 0, np.eye(PADDED))
    attn = weights / weights.sum(axis=-1, keepdims=True)
    hidden = rng.standard_normal((CASES, PADDED, 3))
    hidden[::4] = np.where(np.arange(PADDED)[:, None] == 0, 1.0, 0.0)
    return attn, np.where(mask[..., None], hidden, 1e6), graph, mask


def check_masked_attention(rng: np.random.Generator) -> None:
    assert assert_holds(masked(*masked_layers(rng))).max() > 0.3


def check_gat(rng: np.random.Generator) -> None:
    attn, mask = attentions(rng)
    hidden, weight = tokens_for(rng, mask, 3), rng.standard_normal((len(mask), 3, 3))
    activation = (lambda x: np.maximum(x, 0), np.tanh, lambda x: x)[rng.integers(3)]
    after = activation(attn @ np.where(mask[..., None], hidden, 0) @ weight)
    assert assert_holds(gat(hidden, after, attn, weight, mask), rtol=1e-10, atol=1e-12, share=0.9).max() > 0.05


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


CHECKS = {"masked attention": check_masked_attention, "graph attention": check_gat}


@few_or_many_seeds
@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS.keys())
def test_it_holds(check, seeds):
    for seed in seeds:
        check(np.random.default_rng(seed))


def test_the_radius_against_shortest_paths():
    graph, mask = rooted_graphs(np.random.default_rng(1))
    graph[::3] &= np.random.default_rng(2).uniform(size=(PADDED, PADDED)) < 0.5
    found = np.asarray(radius_of(graph, mask))
    for case in range(CASES):
        real = mask[case]
        # An edge from key to query: information flows from s to t.
        paths = scipy.sparse.csgraph.shortest_path(graph[case][real][:, real].T, unweighted=True)
        expected = paths.max(axis=1).min()
        assert found[case] == (expected if np.isfinite(expected) else -1)
    assert (found == -1).sum() > 50


@pytest.mark.parametrize("least", [0.1, 0.4])
def test_masked_collapse_is_attained(least):
    """A chain 1 -> 2 -> 3 of radius 2 and its first token apart: two layers leave exactly 1 - eps^2."""
    attn = np.array([[1.0, 0, 0], [least, 1 - least, 0], [0, least, 1 - least]])
    found = masked(np.stack([attn, attn]), np.array([[1.0], [0], [0]]), attn > 0, np.ones(3, bool))
    assert float(found.lhs) == pytest.approx(1 - least**2, rel=1e-14) == pytest.approx(float(found.rhs), rel=1e-14)


def test_masked_collapse_needs_a_root_and_loops():
    two_groups = np.eye(2)
    hidden = np.array([[1.0], [0.0]])
    found = masked(np.stack([two_groups] * 3), hidden, two_groups > 0, BOTH)
    assert not found.applicable
    assert float(found.lhs) == 1
    exchange = np.array([[0.0, 1.0], [1.0, 0.0]])
    found = masked(np.stack([exchange] * 3), hidden, exchange > 0, BOTH)
    assert not found.applicable
    assert float(found.lhs) == 1 > float(found.rhs) == 0


def test_local_masks_collapse_later():
    """Windows of width 1, 2 and all of 8 tokens, equal weights: the narrower, the more remains after 12 layers."""
    i, j = np.indices((PADDED, PADDED))
    left = []
    for width in (1, 2, PADDED):
        graph = np.abs(i - j) <= width
        attn = graph / graph.sum(axis=1, keepdims=True)
        found = masked(np.stack([attn] * 12), np.eye(PADDED)[:, :3], graph, np.ones(PADDED, bool))
        assert float(found.lhs) <= float(found.rhs) * (1 + 1e-12) + 1e-15
        left.append(float(found.lhs))
    assert left[0] > left[1] > left[2]


def test_a_ratio_in_zero_one_does_not_suffice_for_one_layer():
    """phi(x) = x below 1 and 0 above has phi(x)/x in [0, 1] and no slope bound: near tokens are torn apart."""
    attn, x = np.array([[0.9, 0.1], [0.1, 0.9]]), np.array([[0.9], [1.05]])
    mixed = attn @ x
    torn = np.where(mixed < 1, mixed, 0.0)
    found = gat(x, torn, attn, np.ones((1, 1)), BOTH)
    assert float(found.lhs) > 5 * float(found.rhs)


def test_the_equilibrium_is_one_and_keeps_rank_two():
    x, value, attn = (np.asarray(part) for part in theory.wu2024_equilibrium())
    assert attn[0, 0] == pytest.approx(0.8496745531, abs=1e-10)
    after = np.asarray(iterate(x, BOTH, np.eye(3), value, 1))
    np.testing.assert_allclose(after, x, atol=2e-15)
    assert np.linalg.matrix_rank(x) == 2
    assert float(cosine(x, BOTH)) == pytest.approx(0, abs=1e-15)
    # By numpy alone, from the definition.
    mixed = attn @ x @ value
    normed = (mixed - mixed.mean(axis=1, keepdims=True)) / mixed.std(axis=1, keepdims=True)
    np.testing.assert_allclose(normed, x, atol=1e-14)
    logits = x @ x.T / np.sqrt(3)
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), attn, atol=1e-14)


def frames(rng: np.random.Generator, cases: int, width: int, count: int) -> np.ndarray:
    """Orthonormal columns orthogonal to 1, [cases width count]."""
    drawn = rng.standard_normal((cases, width, count + 1))
    drawn[..., 0] = 1
    return np.linalg.qr(drawn)[0][..., 1:]


kept = jax.jit(jax.vmap(theory.wu2024_layer, (0, None, None, 0)))


@few_or_many(1000, 100_000)
def test_every_frame_is_an_equilibrium(seed, cases):
    """P13: X = sqrt D F^T, W_V = F A^-1 F^T for any frame F of n < D centred directions: LN(A X W_V) = X, rank n."""
    rng = np.random.default_rng(seed)
    for width, tokens in ((3, 2), (6, 2), (6, 3), (6, 5)):
        frame = frames(rng, cases // 4, width, tokens)
        x = np.sqrt(width) * np.swapaxes(frame, 1, 2)
        # Logits sqrt D on the diagonal, 0 elsewhere.
        attn = np.exp(np.sqrt(width) * np.eye(tokens))
        attn /= attn.sum(axis=1, keepdims=True)
        value = frame @ np.linalg.inv(attn) @ np.swapaxes(frame, 1, 2)
        after = np.asarray(kept(x, np.ones(tokens, bool), np.eye(width), value))
        error = np.abs(after - x).max(axis=(1, 2))
        record(1 + error, np.ones_like(error), int(np.sum(error > 1e-13)))
        assert np.all(error < 1e-13)
        assert np.all(np.linalg.svd(after, compute_uv=False)[:, -1] > 0.99 * np.sqrt(width))
        np.testing.assert_allclose(cosine(after, np.ones((cases // 4, tokens), bool)), 0, atol=1e-13)


def test_an_equilibrium_needs_its_value_matrix():
    """With W_V = I in its place the same tokens have turned towards each other after one layer."""
    x, _, _ = (np.asarray(part) for part in theory.wu2024_equilibrium())
    after = iterate(x, BOTH, np.eye(3), np.eye(3), 1)
    assert float(cosine(after, BOTH)) > 0.3


def test_the_equilibrium_is_unstable():
    """An eigenvalue of its Jacobian exceeds 1, so rounding alone drives it away in the end."""
    x, value, _ = theory.wu2024_equilibrium()
    layer = lambda flat: theory.wu2024_layer(flat.reshape(2, 3), jnp.asarray(BOTH), jnp.eye(3), value).ravel()  # noqa: E731
    jacobian = np.asarray(jax.jacfwd(layer)(x.ravel()))
    assert np.abs(np.linalg.eigvals(jacobian)).max() > 1.2
    nudged = np.asarray(x) + 1e-9 * np.random.default_rng(0).standard_normal((2, 3))
    assert abs(float(cosine(iterate(nudged, BOTH, np.eye(3), value, 300), BOTH))) > 1 - 1e-9


def test_random_starts_leave_the_equilibrium_for_agreement_or_opposition():
    """71 % end at cosine +1 and 29 % at -1, each within four standard errors; nothing stays between."""
    value = theory.wu2024_equilibrium().value
    starts = standardise_rows(jnp.asarray(np.random.default_rng(0).standard_normal((2000, 2, 3))))
    ends = np.asarray(
        cosine(iterate(starts, np.ones((2000, 2), bool), np.eye(3), value, 400), np.ones((2000, 2), bool))
    )
    settled = np.abs(np.abs(ends) - 1) < 1e-6
    assert settled.mean() > 0.995
    agree = (ends > 0.999).mean()
    error = np.sqrt(agree * (1 - agree) / 2000)
    assert abs(agree - 0.71) < 4 * error


@few_or_many(1000, 100_000)
def test_the_antipodal_pair_attracts_an_open_set(seed, cases):
    """d_M as large as LayerNorm allows, and every start within distance .5 comes back, at the rate .532."""
    x, value, _ = (np.asarray(part) for part in theory.wu2024_antipodal())
    rng = np.random.default_rng(seed)
    shifts = unit(rng.standard_normal((cases, 6))).reshape(cases, 2, 3)
    # Half of them on the boundary.
    shifts *= np.where(np.arange(cases) % 2, 0.5, rng.uniform(0, 0.5, cases))[:, None, None]
    every = np.ones((cases, 2), bool)
    early, late, end = (np.asarray(iterate(x + shifts, every, np.eye(3), value, steps)) for steps in (12, 13, 80))
    away = np.abs(end - x).max(axis=(1, 2))
    record(away / 1e-13, np.ones(cases), int(np.sum(away > 1e-13)))
    assert np.all(away <= 1e-13)
    # What is common to both tokens, in the plane and across the pair.
    common = [np.abs(np.sum(y, axis=1) @ np.array([1, 1, -2])) for y in (early, late)]
    np.testing.assert_allclose(np.median(common[1] / common[0]), 0.5 / np.tanh(np.sqrt(3)), rtol=1e-3)


def test_the_antipodal_pair_is_as_far_apart_as_layer_norm_allows():
    x, value, _ = (np.asarray(part) for part in theory.wu2024_antipodal())
    np.testing.assert_allclose(iterate(x, BOTH, np.eye(3), value, 1), x, atol=1e-15)
    assert distance(x) == pytest.approx(np.linalg.norm(x)) == pytest.approx(np.sqrt(6))


def test_the_antipodal_pair_does_not_attract_everything():
    """Tokens that agree go on agreeing."""
    x, value, _ = (np.asarray(part) for part in theory.wu2024_antipodal())
    end = iterate(x[[0, 0]], BOTH, np.eye(3), value, 80)
    assert float(cosine(end, BOTH)) > 1 - 1e-12


def test_most_wide_starts_end_at_the_antipodal_pair():
    """Noise of std .5 per entry: the share that ends at cosine -1 is .996, within four standard errors."""
    x, value, _ = (np.asarray(part) for part in theory.wu2024_antipodal())
    starts = standardise_rows(jnp.asarray(x + 0.5 * np.random.default_rng(2).standard_normal((4000, 2, 3))))
    every = np.ones((4000, 2), bool)
    ends = np.asarray(cosine(iterate(starts, every, np.eye(3), value, 200), every))
    share = (ends < -0.999).mean()
    assert abs(share - 0.996) < 4 * np.sqrt(0.996 * 0.004 / 4000)


def test_with_identity_values_layer_norm_does_not_stop_collapse():
    """W_V = I and LayerNorm: after 60 layers the cosine of any two tokens is 1 to rounding."""
    starts = standardise_rows(jnp.asarray(np.random.default_rng(3).standard_normal((500, 4, 5)) + 0.0))
    every = np.ones((500, 4), bool)
    ends = np.asarray(cosine(iterate(starts, every, 0.1 * np.eye(5), np.eye(5), 60), every))
    np.testing.assert_allclose(ends, 1, atol=1e-13)


def test_padding_changes_nothing():
    rng = np.random.default_rng(7)
    attn, hidden, graph, mask = masked_layers(rng)
    clean = np.where(mask[..., None], hidden, 0)
    wild = graph | ~mask[:, None] | ~mask[:, :, None]
    for dirty, tidy in zip(masked(attn, hidden, wild, mask), masked(attn, clean, graph, mask), strict=True):
        np.testing.assert_array_equal(dirty, tidy)
    x = rng.standard_normal((3, 3))
    padded = iterate(pad_tokens(rng, x), np.arange(PADDED) < 3, np.eye(3), np.eye(3), 1)
    np.testing.assert_allclose(padded[:3], iterate(x, np.ones(3, bool), np.eye(3), np.eye(3), 1), atol=1e-14)
