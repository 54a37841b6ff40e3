"""What the bounds need to know of a block's parameters: a handful of norms, computed once per model."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from ...activations import LIPSCHITZ
from ...linalg.lanczos import root_of_largest_eigenvalue
from ..consensus import centre_features


class BlockWeights(NamedTuple):
    """The parameters of one post-LN block that the theory sees; biases cancel in d_M.

    Head h mixes tokens by A_h X W_h with W_h = `value[:, h]` @ `output[h]`; the MLP is
    Y + phi(Y `up` + b) `down`; `scale_attn`, `scale_mlp` are the LayerNorm gains (gamma_1, gamma_2).
    """

    value: Float[Array, "D N H"]
    output: Float[Array, "N H D"]
    scale_attn: Float[Array, "D"]
    up: Float[Array, "D F"]
    down: Float[Array, "F D"]
    scale_mlp: Float[Array, "D"]


class BlockNorms(NamedTuple):
    """Norms of one block's parameters, each a scalar except `heads`.

    Attributes:
      heads: ||W_h|| of every head, [N].
      value: ||W_V||, the kernels of all heads side by side.
      output: ||W_O||, likewise.
      stacked: ||sum_h W_h W_h^T||^(1/2).
      up: ||W_1||.
      down: ||W_2||.
      gain_attn: G_1 = max |gamma_1|.
      gain_mlp: G_2 = max |gamma_2|.
      mlp_lipschitz: 1 + L ||W_1|| ||W_2||, as in Shi et al.'s theorem.
      mlp: f, the least known Lipschitz constant of gain, MLP and residual together; at most
        G_1 * `mlp_lipschitz`.
    """

    heads: Float[Array, "N"]
    value: Float[Array, ""]
    output: Float[Array, ""]
    stacked: Float[Array, ""]
    up: Float[Array, ""]
    down: Float[Array, ""]
    gain_attn: Float[Array, ""]
    gain_mlp: Float[Array, ""]
    mlp_lipschitz: Float[Array, ""]
    mlp: Float[Array, ""]


def block_norms(weights: BlockWeights, activation: str) -> BlockNorms:
    """The parameter norms of one block. Use `jax.vmap` for stacked blocks.

    The mean-value form of f: two rows of the MLP's output differ by their difference times
    I + W_1 D W_2 with D diagonal in [1 - L, L] = 1/2 +- r, so that
    f <= ||Gamma_1 (I + W_1 W_2 / 2) C|| + r ||Gamma_1 W_1|| ||W_2 C||, C the centring of features.

    Args:
      weights: the block.
      activation: a key of `activations.LIPSCHITZ`.

    Returns:
      A `BlockNorms`; spectral norms by Lanczos, see `spectral_norm` for their accuracy.

    >>> import jax.numpy as jnp
    >>> one = jnp.eye(2)
    >>> block = BlockWeights(one[:, None], one[None], jnp.ones(2), one, one, jnp.ones(2))
    >>> round(float(block_norms(block, "relu").mlp_lipschitz), 4)
    2.0
    """
    lipschitz, radius = LIPSCHITZ[activation], LIPSCHITZ[activation] - 0.5
    gain_attn, gain_mlp = jnp.max(jnp.abs(weights.scale_attn)), jnp.max(jnp.abs(weights.scale_mlp))
    gamma = weights.scale_attn[:, None]
    width, heads = weights.value.shape[:2]
    linear = gamma * (jnp.eye(width, dtype=gamma.dtype) + 0.5 * (weights.up @ weights.down))
    head_grams = _head_grams(weights)
    # All as D x D Gram matrices, so that one Lanczos program, compiled once, finds every norm.
    grams = [
        _gram(weights.value.reshape(width, -1)),
        _gram(weights.output.reshape(-1, width).T),
        jnp.sum(head_grams, axis=0),
        _gram(weights.up),
        _gram(weights.down.T),
        _gram(centre_features(linear)),
        _gram(gamma * weights.up),
        _gram(centre_features(weights.down).T),
    ]
    norms = root_of_largest_eigenvalue(jnp.concatenate([head_grams, jnp.stack(grams)]))
    value, output, stacked, up, down, skew, left, right = norms[heads:]
    mean_value = skew + radius * left * right
    mlp_lipschitz = 1 + lipschitz * up * down
    return BlockNorms(
        heads=norms[:heads],
        value=value,
        output=output,
        stacked=stacked,
        up=up,
        down=down,
        gain_attn=gain_attn,
        gain_mlp=gain_mlp,
        mlp_lipschitz=mlp_lipschitz,
        mlp=jnp.minimum(mean_value, gain_attn * mlp_lipschitz),
    )


def _head_grams(weights: BlockWeights) -> Array:
    """W_h W_h^T of every head, [N D D]."""
    outer = jnp.einsum("nhd,ngd->nhg", weights.output, weights.output)
    return jnp.einsum("dnh,nhg,eng->nde", weights.value, outer, weights.value)


def _gram(matrix: Array) -> Array:
    return matrix @ matrix.T
