"""What the bounds need to know of a block's parameters: a handful of norms, computed once per model.

`certify.enclosed_parameter_norms` encloses the same norms. The two texts stay apart: here all norms come out of one
batch of Lanczos iterations on Gram matrices, compiled once; there each matrix takes the products that prove its norm.
"""

import jax.numpy as jnp
from jaxtyping import Array

from ...activations import LIPSCHITZ
from ...linalg.lanczos import root_of_largest_eigenvalue
from ...linalg.norms import binary_size
from ...linalg.precision import at_least_float32, einsum, matmul
from ...meshes import on_any_mesh
from ...types import Block
from ..consensus import centre_features
from ..theorems.parameters import BlockNorms, mlp_stretches
from .plain_calculus import PlainCalculus


@at_least_float32
@on_any_mesh()
def block_norms(block: Block, activation: str) -> BlockNorms:
    """The parameter norms of one block. Use `jax.vmap` for stacked blocks.

    Args:
      block: the parameters.
      activation: a key of `activations.LIPSCHITZ`.

    Returns:
      A `BlockNorms`; spectral norms by Lanczos, see `spectral_norm` for their accuracy.

    >>> import jax.numpy as jnp
    >>> from jaxsmooth.theory import block_of
    >>> one = jnp.eye(2)
    >>> block = block_of(one[:, None], one[None], jnp.ones(2), one, one, jnp.ones(2))
    >>> round(float(block_norms(block, "relu").mlp_lipschitz), 4)
    2.0
    """
    gain_attn, gain_mlp = jnp.max(jnp.abs(block.norm_attn.scale)), jnp.max(jnp.abs(block.norm_mlp.scale))
    gamma = block.norm_attn.scale[:, None]
    width, heads = block.attn.value.kernel.shape[:2]
    linear = gamma * (jnp.eye(width, dtype=gamma.dtype) + 0.5 * matmul(block.up.kernel, block.down.kernel))
    head_grams, head_size = _head_grams(block)
    # All as D x D Gram matrices, so that one Lanczos program, compiled once, finds every norm.
    own = [
        _gram(block.attn.value.kernel.reshape(width, -1)),
        _gram(block.attn.output.kernel.reshape(-1, width).T),
        (jnp.sum(head_grams, axis=0), head_size),
        _gram(block.up.kernel),
        _gram(block.down.kernel.T),
        _gram(centre_features(linear)),
        _gram(gamma * block.up.kernel),
        _gram(centre_features(block.down.kernel).T),
    ]
    grams, sizes = (jnp.stack(side) for side in zip(*own, strict=True))
    norms = root_of_largest_eigenvalue(jnp.concatenate([head_grams, grams]))
    norms = norms * jnp.concatenate([jnp.broadcast_to(head_size, (heads,)), sizes])
    value, output, stacked, up, down, skew, left, right = norms[heads:]
    c = PlainCalculus(jnp.ones(1, bool), gamma.dtype)
    slope, radius = c.number(LIPSCHITZ[activation]), c.number(LIPSCHITZ[activation] - 0.5)
    mlp_lipschitz, mlp = mlp_stretches(c, slope, radius, (up, down), gain_attn, (skew, left, right))
    return BlockNorms(norms[:heads], value, output, stacked, up, down, gain_attn, gain_mlp, mlp_lipschitz, mlp)


def _head_grams(block: Block) -> tuple[Array, Array]:
    """W_h W_h^T of every head, [N D D], over the square of a size, and that."""
    (value, value_size), (output, output_size) = (
        _moderate(kernel) for kernel in (block.attn.value.kernel, block.attn.output.kernel)
    )
    outer = einsum("nhd,ngd->nhg", output, output)
    return einsum("dnh,nhg,eng->nde", value, outer, value), value_size * output_size


def _gram(matrix: Array) -> tuple[Array, Array]:
    """The Gram matrix over the square of a size, and that."""
    scaled, size = _moderate(matrix)
    return matmul(scaled, scaled.T), size


def _moderate(kernel: Array) -> tuple[Array, Array]:
    """The kernel over a power of two next to its largest entry, and that: its squares neither vanish nor overflow."""
    size = binary_size(kernel)
    return kernel / size, jnp.squeeze(size)
