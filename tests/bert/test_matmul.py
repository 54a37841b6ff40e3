"""The MLP's first product: nearer the exact sum than a plain one, and the same to everything but float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxsmooth.bert.matmul import TERMS, split_matmul

D, K = 384, 24


def factors(dtype: type, width: int = D) -> tuple[jax.Array, jax.Array]:
    """Small terms after one that dwarfs them, as MiniLM's feature 99 does."""
    rng = np.random.default_rng(0)
    x, kernel = rng.uniform(0.1, 0.3, (4, 32, width)), rng.uniform(0.05, 0.15, (width, K))
    x[..., 0], kernel[0] = 25.0, rng.uniform(0.8, 1.0, K)
    return jnp.asarray(x, dtype), jnp.asarray(kernel, dtype)


def test_float32_sums_are_nearer_the_exact_ones_than_plain_ones():
    x, kernel = factors(jnp.float32)
    exact = np.asarray(x, np.float64) @ np.asarray(kernel, np.float64)
    halved, plain = (
        np.abs(np.asarray(product(x, kernel), np.float64) - exact) for product in (split_matmul, jnp.matmul)
    )
    assert np.sqrt((halved**2).mean()) < 0.8 * np.sqrt((plain**2).mean())
    # Half of the additions are rounded at the size of the large term, and one adds the halves.
    assert halved.max() < 0.5 * np.spacing(np.float32(exact.max())) * (D / 2 + 1)


@pytest.mark.parametrize(("dtype", "width"), [(jnp.float64, D), (jnp.bfloat16, D), (jnp.float32, TERMS - 1)])
def test_other_products_are_plain(dtype, width):
    x, kernel = factors(dtype, width)
    assert np.array_equal(split_matmul(x, kernel), x @ kernel)


def test_its_derivative_is_a_plain_product_s():
    x, kernel = factors(jnp.float32)
    weights = jnp.linspace(-1.0, 1.0, K, dtype=jnp.float32)[None, None]
    pairs = [
        jax.value_and_grad(lambda x, kernel, own=own: (own(x, kernel) * weights).sum(), argnums=which)(x, kernel)
        for which in (0, 1, (0, 1))
        for own in (split_matmul, jnp.matmul)
    ]
    for ours, plain in zip(pairs[::2], pairs[1::2], strict=True):
        jax.tree.map(np.testing.assert_array_equal, ours, plain)
    wide = jnp.float64(0.5)
    check_grads(lambda a: jnp.sin(split_matmul(a * factors(jnp.float64)[0], factors(jnp.float64)[1])), (wide,), 2)


def test_a_batch_of_kernels_is_mapped_over():
    x, kernel = factors(jnp.float32)
    kernels = jnp.stack([kernel, 2 * kernel])
    both = jax.vmap(split_matmul, (None, 0))(x, kernels)
    np.testing.assert_allclose(both[1], 2 * both[0], rtol=1e-6)
