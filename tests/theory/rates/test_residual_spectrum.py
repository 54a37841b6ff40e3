import jax.numpy as jnp
import numpy as np
from support.matrices import GARBAGE, orthonormal
from support.regions import PHI, SENTENCES, TOKENS, WIDTH, small_attention, small_block
from support.statements import distances, few_or_many, record

from jaxsmooth.theory import block_of
from jaxsmooth.theory.rates.residual_spectrum import gain_correction, pair_root, residual_spectrum_rate


def _bound(block, mask, x, run):
    lengths = np.linalg.norm(run["less_shift"], axis=-1)
    arrays = (x, run["normed"], run["pre"], run["std_mlp"], lengths, mask)
    weights = block_of(*map(jnp.asarray, block.weights))
    return np.asarray(residual_spectrum_rate(weights, *map(jnp.asarray, arrays), block.activation))


def _case(rng, activation):
    block = small_block(rng, activation)
    attn, mask = small_attention(rng)
    x = 10 ** rng.uniform(-2, 2) * rng.standard_normal((SENTENCES, TOKENS, WIDTH))
    return block, attn, mask, x + rng.choice([0, 10]) * rng.standard_normal(WIDTH)


def _rounding(norm, std):
    """By how much rounding of the lengths e_i, [T], can move the correction K, and so by how much it can be too small.

    K is a difference of squared lengths times one of stds; where tokens nearly agree it is all that is left. To first
    order a squared length of WIDTH numbers, each rounded twice, rooted and squared again, is off by WIDTH + 7 half
    eps; the difference of the stds, products and quotients add 7, the sum one for each pair.
    """
    i, j = np.triu_indices(len(std), 1)
    sizes = np.abs(std[i] - std[j]) * (norm[i] ** 2 / std[j] + norm[j] ** 2 / std[i])
    return (WIDTH + 14 + len(i)) * np.finfo(float).eps / 2 * sizes.sum() / len(std)


def _holds(rng, cases):
    """Largest actual rate over its bound, less what `_rounding` allows."""
    rates, bounds = [], []
    for case in range(cases):
        block, attn, mask, x = _case(rng, list(PHI)[case % len(PHI)])
        run = block.run(attn, x)
        before, after = distances(x, mask), distances(run["less_shift"], mask)
        lengths, stds = np.linalg.norm(run["less_shift"], axis=-1), run["std_mlp"][..., 0]
        rounding = np.array([_rounding(e[m], s[m]) for e, s, m in zip(lengths, stds, mask, strict=True)])
        rates.append(np.sqrt(np.maximum(after**2 - rounding, 0)) / before)
        bounds.append(_bound(block, mask, x, run))
    rates, bounds = np.concatenate(rates), np.concatenate(bounds)
    record(rates, bounds, int(np.sum(rates > bounds * (1 + 1e-9))))
    return (rates / bounds).max()


@few_or_many(300, 25_000)  # blocks of SENTENCES sentences each
def test_rate_holds_on_random_blocks(seed, cases):
    assert 0.9 < _holds(np.random.default_rng(seed), cases) <= 1 + 1e-9


def test_rate_is_the_actual_one_where_the_mlp_is_linear_on_the_data():
    rng = np.random.default_rng(2)
    block, attn, mask, x = _case(rng, "relu")
    live = 1e3 * (1 + np.abs(block.biases[2]))
    object.__setattr__(block, "biases", (*block.biases[:2], live, block.biases[3]))
    run = block.run(attn, x)
    assert run["pre"].min() > 0
    actual = distances(run["less_shift"], mask) / distances(x, mask)
    np.testing.assert_allclose(_bound(block, mask, x, run), actual, rtol=1e-6)


def test_rate_fails_without_the_correction_for_the_gain():
    # Two rows of one direction and different lengths, gain on one of the two features only.
    std, norm = np.array([1.0, 2.0]), np.array([0.0, 3.0])
    rows = np.array([[0.0, 0.0], [0.0, 3.0]])
    exact = 0.5 * np.sum((rows[0] - rows[1]) ** 2)
    without = np.linalg.norm(pair_root(std)(rows * std[:, None])) ** 2
    assert exact < without + 1e-12
    np.testing.assert_allclose(without + gain_correction(std, norm), exact, rtol=1e-12)
    std, norm = np.array([1.0, 2.0]), np.array([3.0, 0.0])
    without = np.linalg.norm(pair_root(std)(rows[::-1] * std[:, None])) ** 2
    assert without < 0.6 * exact
    np.testing.assert_allclose(without + gain_correction(std, norm), exact, rtol=1e-12)


def test_the_correction_is_exact_for_any_rows():
    rng = np.random.default_rng(3)
    for _ in range(1000):
        n = rng.integers(2, 9)
        rows, std = rng.standard_normal((n, 4)), 10 ** rng.uniform(-2, 2, n)
        whole = np.linalg.norm(pair_root(std)(rows * std[:, None])) ** 2
        found = whole + gain_correction(std, np.linalg.norm(rows, axis=1))
        assert abs(found - np.linalg.norm(rows - rows.mean(axis=0)) ** 2) <= 1e-12 * (whole + 1) * std.max() / std.min()


def test_the_bound_covers_every_residual_of_that_spectrum():
    rng = np.random.default_rng(4)
    out = rng.standard_normal((9, 5))
    left, sizes, _ = np.linalg.svd(out, full_matrices=False)
    own = np.sort(rng.uniform(size=4))[::-1]
    frame = orthonormal(rng, 6, 4)
    aligned = frame * own @ left[:, :4].T
    linear = 3 * aligned @ out
    bound = np.linalg.norm(linear) + np.linalg.norm(own * sizes[:4])
    np.testing.assert_allclose(np.linalg.norm(linear + aligned @ out), bound, rtol=1e-12)
    for _ in range(1000):
        turned = orthonormal(rng, 6, 4) * own @ orthonormal(rng, 9, 4).T
        assert np.linalg.norm(linear + turned @ out) <= bound * (1 + 1e-12)


def test_padding_changes_nothing():
    rng = np.random.default_rng(5)
    block, attn, mask, x = _case(rng, "gelu")
    run = block.run(attn, x)
    littered = {key: np.where(mask[..., None], value, GARBAGE) for key, value in run.items()}
    np.testing.assert_array_equal(
        _bound(block, mask, np.where(mask[..., None], x, -GARBAGE), littered), _bound(block, mask, x, run)
    )


def test_consensus_has_no_rate():
    rng = np.random.default_rng(6)
    block, attn, mask, x = _case(rng, "gelu")
    x = np.ones_like(x)
    rate = _bound(block, mask, x, block.run(attn, x))
    assert np.isnan(rate).all()
