"""What the bounds need to know of a block's parameters: a handful of norms, computed once per model."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from .activations import LIPSCHITZ
from .spectrum import default_tolerance, largest_eigenvalue, spectral_norm, start_vector


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
    up, down = spectral_norm(weights.up), spectral_norm(weights.down)
    gain_attn, gain_mlp = jnp.max(jnp.abs(weights.scale_attn)), jnp.max(jnp.abs(weights.scale_mlp))
    gamma = weights.scale_attn[:, None]
    width = gamma.shape[0]
    linear = gamma * (jnp.eye(width, dtype=gamma.dtype) + 0.5 * (weights.up @ weights.down))
    mean_value = spectral_norm(_centre_features(linear)) + radius * (
        spectral_norm(gamma * weights.up) * spectral_norm(_centre_features(weights.down))
    )
    mlp_lipschitz = 1 + lipschitz * up * down
    return BlockNorms(
        heads=_head_norms(weights),
        value=spectral_norm(weights.value.reshape(width, -1)),
        output=spectral_norm(weights.output.reshape(-1, width)),
        stacked=_stacked_norm(weights),
        up=up,
        down=down,
        gain_attn=gain_attn,
        gain_mlp=gain_mlp,
        mlp_lipschitz=mlp_lipschitz,
        mlp=jnp.minimum(mean_value, gain_attn * mlp_lipschitz),
    )


def _centre_features(matrix: Array) -> Array:
    return matrix - jnp.mean(matrix, axis=-1, keepdims=True)


def _head_norms(weights: BlockWeights) -> Array:
    # W_h W_h^T and the H x H matrix (V^T V)(O O^T) share their eigenvalues, but only the former is symmetric:
    # apply it factor by factor, so that no D x D matrix per head is ever formed.
    def norm_squared(value: Array, output: Array) -> Array:
        def apply(v: Array) -> Array:
            return value @ (output @ (output.T @ (value.T @ v)))

        return _top(apply, value.shape[:1], value.dtype)

    return jnp.sqrt(jax.vmap(norm_squared, in_axes=(1, 0))(weights.value, weights.output))


def _stacked_norm(weights: BlockWeights) -> Array:
    def apply(v: Array) -> Array:
        narrow = jnp.einsum("dnh,d->nh", weights.value, v)
        narrow = jnp.einsum("nhd,ngd,ng->nh", weights.output, weights.output, narrow)
        return jnp.einsum("dnh,nh->d", weights.value, narrow)

    return jnp.sqrt(_top(apply, weights.scale_attn.shape, weights.value.dtype))


def _top(apply: Callable[[Array], Array], shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    found = largest_eigenvalue(apply, start_vector(shape, dtype), tolerance=default_tolerance(dtype))
    return jnp.maximum(found.value, 0)
