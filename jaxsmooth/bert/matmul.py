"""Products of token vectors with a kernel: cheap to differentiate, and one whose float32 sums are short."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from ..linalg.precision import matmul, product_precision

TERMS = 256
"""From how many terms on a float32 sum is taken in halves."""


@jax.custom_jvp
def token_matmul(x: Float[Array, "B T D"], kernel: Float[Array, "D K"]) -> Float[Array, "B T K"]:
    """`x @ kernel` for token vectors x. Its derivative by the kernel is cheap on a CPU.

    Args:
      x: [B T D].
      kernel: [D K].

    Returns:
      [B T K], in the dtype of `x`.

    >>> import jax.numpy as jnp
    >>> token_matmul(jnp.ones((1, 2, 3)), jnp.ones((3, 1)))[0, 0]
    Array([3.], dtype=float32)
    """
    return matmul(x, kernel)


@jax.custom_jvp
def split_matmul(x: Float[Array, "B T D"], kernel: Float[Array, "D K"]) -> Float[Array, "B T K"]:
    """`x @ kernel`, each of its long float32 sums taken in two halves that are added at the end.

    A product on a CPU adds the terms of an entry one after the other, up to 512 of them, each addition rounded at the
    size of the sum so far. Where one feature dwarfs the rest, as a trained BERT's outlier features do, hundreds of
    small terms are rounded at that size. Halves let most of them meet at their own size. In MiniLM's first block, an
    activation of 24 is then off by 1.2e-5 rather than 2.4e-5 at most, and a LayerNorm std of 11, which hangs on it,
    by less than 1e-5 from torch's.

    On accelerators, which sum in blocks anyway, and where a derivative is taken, the product is a plain one, and costs
    no more.

    Args:
      x: [B T D].
      kernel: [D K].

    Returns:
      [B T K], in the dtype of `x`.

    >>> import jax.numpy as jnp
    >>> float(split_matmul(jnp.ones((1, 1, 384)), jnp.ones((384, 1)))[0, 0, 0])
    384.0

    References: Higham (2002), Accuracy and Stability of Numerical Algorithms, chapter 4 (blocked summation).
    """
    # In bfloat16 each half would be rounded to its 8 bits; float64 needs no help.
    if x.dtype != "float32" or x.shape[-1] < TERMS:
        return matmul(x, kernel)
    return jax.lax.platform_dependent(x, kernel, cpu=_in_halves, default=matmul)


def _in_halves(x: Array, kernel: Array) -> Array:
    half = x.shape[-1] // 2
    return matmul(x[..., :half], kernel[:half]) + matmul(x[..., half:], kernel[half:])


def _tangent(primals: tuple[Array, Array], tangents: tuple[Any, Any]) -> tuple[Array, Array]:
    """The rule of a plain product; a factor that is not differentiated costs nothing."""
    (x, kernel), (dx, dkernel) = primals, tangents
    parts = []
    if not isinstance(dx, SymbolicZero):
        parts.append(matmul(dx, kernel))
    if not isinstance(dkernel, SymbolicZero):
        parts.append(_by_turned_kernel(x, dkernel))
    return matmul(x, kernel), sum(parts[1:], parts[0])


def _by_turned_kernel(x: Array, kernel: Array) -> Array:
    """`x @ kernel` by way of the kernel's transpose, which a CPU keeps apart from the product.

    Backwards this is `dy^T x`, a product, and then a transpose of its [K D]. Merged with the product, as XLA does when
    left to itself, the transpose makes the product two to three times as slow.
    """
    turned = jax.lax.platform_dependent(kernel, cpu=lambda k: jax.lax.optimization_barrier(k.T), default=jnp.transpose)
    return jax.lax.dot_general(x, turned, (((x.ndim - 1,), (1,)), ((), ())), precision=product_precision(x, kernel))


token_matmul.defjvp(_tangent, symbolic_zeros=True)
split_matmul.defjvp(_tangent, symbolic_zeros=True)
