"""Masked attention collapses, attention with LayerNorm need not: rates, equilibria, attractors; tokens on a sphere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.sparse.csgraph
from support.catalogue import LONG_SEEDS, distance, many_attentions, many_tokens, tightness
from support.matrices import PADDED, lengths_mask, orthonormal, pad_tokens
from support.statements import record

from jaxsmooth.metrics import token_cosine_similarity
from jaxsmooth.theory.literature import masked_attention as lc
from jaxsmooth.theory.literature import token_particles
from jaxsmooth.theory.literature.plain_transformer import plain_layer_norm

DEPTH, CASES = 6, 1024
BOTH = np.ones(2, bool)
radius_of = jax.jit(lc.wu2024_radius)
masked, gat = jax.jit(lc.wu2024_masked_attention), jax.jit(lc.wu2023_gat_collapse)
cosine = jax.jit(token_cosine_similarity)
flow = jax.jit(token_particles.geshkovski2023_flow, static_argnums=(3, 4))
clustering, discrete = (
    jax.jit(token_particles.geshkovski2023_clustering),
    jax.jit(token_particles.geshkovski2023_discrete_step),
)


@jax.jit
def iterate(hidden: jax.Array, mask: jax.Array, query_key: jax.Array, value: jax.Array, steps: jax.Array) -> jax.Array:
    return jax.lax.fori_loop(0, steps, lambda _, x: lc.wu2024_layer(x, mask, query_key, value), hidden)


# Masked attention (Wu et al. 2024)


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
    assert tightness(masked(*masked_layers(rng))).max() > 0.3


def check_gat(rng: np.random.Generator) -> None:
    attn, mask = many_attentions(rng)
    hidden, weight = many_tokens(rng, mask, 3), rng.standard_normal((len(mask), 3, 3))
    activation = (lambda x: np.maximum(x, 0), np.tanh, lambda x: x)[rng.integers(3)]
    after = activation(attn @ np.where(mask[..., None], hidden, 0) @ weight)
    assert tightness(gat(hidden, after, attn, weight, mask), rtol=1e-10, atol=1e-12, share=0.9).max() > 0.05


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def acute_tokens(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors with non-negative coordinates in a random frame, from one octant to almost one point."""
    mask = lengths_mask(rng.integers(2, PADDED + 1, CASES))
    frame = orthonormal(rng, 4, 4)
    x = np.abs(rng.standard_normal((CASES, PADDED, 4))) * 10 ** rng.uniform(-3, 0, (CASES, 1, 1)) + np.where(
        rng.uniform(size=(CASES, 1, 1)) < 0.5, np.eye(4)[rng.integers(0, 4, (CASES, PADDED))], np.ones(4)
    )
    return np.where(mask[..., None], unit(x) @ frame.T, 1e6), mask


def check_clustering(rng: np.random.Generator) -> None:
    x, mask = acute_tokens(rng)
    sharpness = rng.choice([0.0, 1.0, 4.0])
    # Both cosines near 1: the comparison is of 1 - g, and 64 steps of the integrator leave 1e-9 of it.
    found = clustering(x, flow(x, mask, sharpness, 1.0, 64), mask, sharpness, 1.0)
    lhs, rhs, applicable = map(np.asarray, found)
    assert applicable.mean() > 0.99
    assert np.all((1 - rhs <= (1 - lhs) * (1 + 1e-8) + 1e-14)[applicable])


def check_discrete_step(rng: np.random.Generator) -> None:
    x, mask = acute_tokens(rng)
    sharpness = 10 ** rng.uniform(-2, 1)
    after = np.stack([numpy_sphere_layer(y, real, sharpness) for y, real in zip(x, mask, strict=True)])
    assert tightness(discrete(x, after, mask, sharpness), rtol=1e-9, atol=1e-14, share=0.9).max() > 0.5


def numpy_sphere_layer(x: np.ndarray, real: np.ndarray, sharpness: float) -> np.ndarray:
    logits = sharpness * x[real] @ x[real].T
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    out = x.copy()
    out[real] = unit(weights / weights.sum(axis=1, keepdims=True) @ x[real])
    return out


CHECKS = {
    "masked attention": check_masked_attention,
    "graph attention": check_gat,
    "clustering": check_clustering,
    "discrete step": check_discrete_step,
}


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS.keys())
def test_holds_on_a_thousand_cases(check):
    check(np.random.default_rng(0))


@pytest.mark.long
@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS.keys())
def test_holds_on_100_000_cases(check):
    for seed in LONG_SEEDS:
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


# LayerNorm: explicit counterexamples


def test_the_equilibrium_is_one_and_keeps_rank_two():
    x, value, attn = (np.asarray(part) for part in lc.wu2024_equilibrium())
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


kept = jax.jit(jax.vmap(lc.wu2024_layer, (0, None, None, 0)))


def check_equilibria(seed: int, cases: int) -> None:
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


def test_every_frame_is_an_equilibrium():
    check_equilibria(0, 1000)


@pytest.mark.long
def test_every_frame_is_an_equilibrium_many():
    check_equilibria(1, 100_000)


def test_an_equilibrium_needs_its_value_matrix():
    """With W_V = I in its place the same tokens have turned towards each other after one layer."""
    x, _, _ = (np.asarray(part) for part in lc.wu2024_equilibrium())
    after = iterate(x, BOTH, np.eye(3), np.eye(3), 1)
    assert float(cosine(after, BOTH)) > 0.3


def test_the_equilibrium_is_unstable():
    """An eigenvalue of its Jacobian exceeds 1, so rounding alone drives it away in the end."""
    x, value, _ = lc.wu2024_equilibrium()
    layer = lambda flat: lc.wu2024_layer(flat.reshape(2, 3), jnp.asarray(BOTH), jnp.eye(3), value).ravel()  # noqa: E731
    jacobian = np.asarray(jax.jacfwd(layer)(x.ravel()))
    assert np.abs(np.linalg.eigvals(jacobian)).max() > 1.2
    nudged = np.asarray(x) + 1e-9 * np.random.default_rng(0).standard_normal((2, 3))
    assert abs(float(cosine(iterate(nudged, BOTH, np.eye(3), value, 300), BOTH))) > 1 - 1e-9


def test_random_starts_leave_the_equilibrium_for_agreement_or_opposition():
    """71 % end at cosine +1 and 29 % at -1, each within four standard errors; nothing stays between."""
    value = lc.wu2024_equilibrium().value
    starts = plain_layer_norm(jnp.asarray(np.random.default_rng(0).standard_normal((2000, 2, 3))))
    ends = np.asarray(
        cosine(iterate(starts, np.ones((2000, 2), bool), np.eye(3), value, 400), np.ones((2000, 2), bool))
    )
    settled = np.abs(np.abs(ends) - 1) < 1e-6
    assert settled.mean() > 0.995
    agree = (ends > 0.999).mean()
    error = np.sqrt(agree * (1 - agree) / 2000)
    assert abs(agree - 0.71) < 4 * error


def check_antipodal(seed: int, cases: int) -> None:
    """d_M as large as LayerNorm allows, and every start within distance .5 comes back, at the rate .532."""
    x, value, _ = (np.asarray(part) for part in lc.wu2024_antipodal())
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


def test_the_antipodal_pair_attracts_an_open_set():
    x, value, _ = (np.asarray(part) for part in lc.wu2024_antipodal())
    np.testing.assert_allclose(iterate(x, BOTH, np.eye(3), value, 1), x, atol=1e-15)
    assert distance(x) == pytest.approx(np.linalg.norm(x)) == pytest.approx(np.sqrt(6))
    check_antipodal(1, 1000)


@pytest.mark.long
def test_the_antipodal_pair_attracts_many():
    check_antipodal(2, 100_000)


def test_the_antipodal_pair_does_not_attract_everything():
    """Tokens that agree go on agreeing."""
    x, value, _ = (np.asarray(part) for part in lc.wu2024_antipodal())
    end = iterate(x[[0, 0]], BOTH, np.eye(3), value, 80)
    assert float(cosine(end, BOTH)) > 1 - 1e-12


def test_most_wide_starts_end_at_the_antipodal_pair():
    """Noise of std .5 per entry: the share that ends at cosine -1 is .996, within four standard errors."""
    x, value, _ = (np.asarray(part) for part in lc.wu2024_antipodal())
    starts = plain_layer_norm(jnp.asarray(x + 0.5 * np.random.default_rng(2).standard_normal((4000, 2, 3))))
    every = np.ones((4000, 2), bool)
    ends = np.asarray(cosine(iterate(starts, every, np.eye(3), value, 200), every))
    share = (ends < -0.999).mean()
    assert abs(share - 0.996) < 4 * np.sqrt(0.996 * 0.004 / 4000)


def test_with_identity_values_layer_norm_does_not_stop_collapse():
    """W_V = I and LayerNorm: after 60 layers the cosine of any two tokens is 1 to rounding."""
    starts = plain_layer_norm(jnp.asarray(np.random.default_rng(3).standard_normal((500, 4, 5)) + 0.0))
    every = np.ones((500, 4), bool)
    ends = np.asarray(cosine(iterate(starts, every, 0.1 * np.eye(5), np.eye(5), 60), every))
    np.testing.assert_allclose(ends, 1, atol=1e-13)


def test_layer_norm_keeps_the_linear_rank_and_not_the_affine_one():
    """Rows u and 2u become one row, against Cirrincione (2026) as worded; the rank of H C is what LayerNorm keeps."""
    u = np.array([1.0, -2.0, 4.0, 0.5])
    rows = np.stack([u, 2 * u])
    normed = np.asarray(plain_layer_norm(jnp.asarray(rows)))
    np.testing.assert_allclose(normed[0], normed[1], atol=1e-15)
    assert np.linalg.matrix_rank(rows[1:] - rows[:1]) == 1
    rng = np.random.default_rng(4)
    for rank in range(1, 5):
        hidden = rng.standard_normal((6, rank)) @ rng.standard_normal((rank, 7)) + rng.standard_normal((6, 1))
        centred = hidden - hidden.mean(axis=1, keepdims=True)
        normed = np.asarray(plain_layer_norm(jnp.asarray(hidden)))
        assert np.linalg.matrix_rank(normed, tol=1e-9) == np.linalg.matrix_rank(centred, tol=1e-9) == rank


# The sphere (Geshkovski et al. 2023)


@pytest.mark.parametrize("start", [0.0, 0.5, 0.99])
def test_the_clustering_rate_is_attained_by_two_uniform_tokens(start):
    """n = 2, beta = 0: g(t) = tanh(artanh g_0 + t) exactly."""
    x = np.array([[1.0, 0.0], [start, np.sqrt(1 - start**2)]])
    found = clustering(x, flow(x, BOTH, 0.0, 1.0, 64), BOTH, 0.0, 1.0)
    assert float(found.lhs) == pytest.approx(np.tanh(np.arctanh(start) + 1), rel=1e-14)
    assert 1 - float(found.rhs) == pytest.approx(1 - float(found.lhs), rel=1e-7)


def test_the_flow_against_scipy():
    x, mask = acute_tokens(np.random.default_rng(5))
    found = np.asarray(flow(x, mask, 4.0, 1.0, 64))
    for case in range(0, CASES, 128):
        start = x[case][mask[case]]

        def velocity(_: float, flat: np.ndarray, shape: tuple = start.shape) -> np.ndarray:
            y = flat.reshape(shape)
            weights = np.exp(4 * y @ y.T)
            pull = weights / weights.sum(axis=1, keepdims=True) @ y
            return (pull - np.sum(pull * y, axis=1, keepdims=True) * y).ravel()

        solved = scipy.integrate.solve_ivp(velocity, (0, 1), start.ravel(), rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(found[case][mask[case]], solved.y[:, -1].reshape(start.shape), atol=1e-7)
        np.testing.assert_array_equal(found[case][~mask[case]], x[case][~mask[case]])


def test_almost_every_start_clusters_and_symmetric_ones_do_not():
    """300 uniform starts of 5 tokens on the sphere of R^3 end in one point; opposite pairs and triangles stay."""
    starts = unit(np.random.default_rng(6).standard_normal((300, 5, 3)))
    every = np.ones((300, 5), bool)
    ends = np.asarray(flow(starts, every, 1.0, 120.0, 1200))
    assert np.asarray(cosine(ends, every)).min() > 1 - 1e-9
    for count in (2, 3):
        angles = 2 * np.pi * np.arange(count) / count
        ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        np.testing.assert_allclose(flow(ring, np.ones(count, bool), 1.0, 1.0, 20), ring, atol=1e-14)
        assert not clustering(ring, ring, np.ones(count, bool), 1.0, 1.0).applicable


def test_obtuse_angles_break_the_rate():
    """Just inside a hemisphere two tokens do cluster, but from g_0 < 0 no rate of the acute form holds uniformly."""
    nearly = np.pi - 1e-3
    x = np.array([[1.0, 0.0], [np.cos(nearly), np.sin(nearly)]])
    found = clustering(x, flow(x, BOTH, 0.0, 1.0, 64), BOTH, 0.0, 1.0)
    assert not found.applicable
    assert float(found.lhs) > float(found.rhs) + 0.5


def test_the_discrete_step_is_attained_near_consensus():
    """Two tokens: the ratio of both sides is the norm of the mixed token over its bound, 1 as D -> 0; and cubic."""
    for half in (1e-2, 1e-1):
        x = np.array([[np.cos(half), np.sin(half)], [np.cos(half), -np.sin(half)]])
        found = discrete(x, numpy_sphere_layer(x, BOTH, 1.0), BOTH, 1.0)
        assert float(found.lhs / found.rhs) == pytest.approx(1, abs=2 * half**4)
        assert float(found.lhs) == pytest.approx((2 * half) ** 3 / 4, rel=2 * half**2 + 1e-9)


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
