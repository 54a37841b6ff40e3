"""The remedy that changes weights: value and output maps whose product W_h = W_V^h W_O^h is definite.

Dovonon, Bronstein and Kusner (2024) show that the eigenvalues of W_V W_O decide together with those of attention
whether X <- X + A X W unifies tokens: `theory.dovonon2024_unification_rate`. Where the eigenvalues of A lie in [0, 1],
it does not if all those of W lie in [-1, 0).
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from ..bert.params import Encoder
from ..errors import OptionError, arguments_checked
from ..linalg.precision import matmul
from ..types import Linear

Sign = Literal[-1, 1]


@arguments_checked
def definite_matrix(
    lower: Float[Array, "*B D K"], raw: Float[Array, "*B K"], sign: Sign = -1
) -> Float[Array, "*B D D"]:
    """W = L diag(+-softplus(delta)) L^T with L unit lower triangular: definite for every value of the parameters.

    Args:
      lower: what of it lies below the diagonal is L's, the rest is ignored; [..., D, K]. With K = D the result is
        definite; with K = H < D, the width of a head, semidefinite of rank H.
      raw: delta, [..., K].
      sign: -1 or 1.

    Returns:
      [..., D, D], symmetric.

    >>> import jax.numpy as jnp
    >>> definite_matrix(jnp.zeros((2, 2)), jnp.zeros(2)).round(4)
    Array([[-0.6931,  0.    ],
           [ 0.    , -0.6931]], dtype=float32)

    References: after Dovonon, Bronstein and Kusner (2024), arXiv 2401.04301, whose eigenvalues this fixes in sign.
    """
    value, output = definite_kernels(lower, raw, sign)
    return matmul(value, output)


@arguments_checked
def definite_kernels(
    lower: Float[Array, "*B D K"], raw: Float[Array, "*B K"], sign: Sign = -1
) -> tuple[Float[Array, "*B D K"], Float[Array, "*B K D"]]:
    """The two factors of `definite_matrix`: a head's value map L and output map diag(+-softplus(delta)) L^T.

    >>> import jax.numpy as jnp
    >>> value, output = definite_kernels(jnp.ones((3, 2)), jnp.zeros(2))
    >>> value
    Array([[1., 0.],
           [1., 1.],
           [1., 1.]], dtype=float32)
    """
    if sign not in (-1, 1):
        raise OptionError(f"sign must be -1 or 1; got {sign!r}.")
    eye = jnp.eye(lower.shape[-2], lower.shape[-1], dtype=lower.dtype)
    value = jnp.tril(lower, -1) + jnp.broadcast_to(eye, lower.shape)
    return value, sign * jax.nn.softplus(raw)[..., :, None] * jnp.swapaxes(value, -1, -2)


@arguments_checked
def make_definite(model: Encoder, *, sign: Sign = -1) -> Encoder:
    """The encoder whose every head has the nearest semidefinite W_h = W_V^h W_O^h, in the Frobenius norm.

    The nearest is what remains of the symmetric part of W_h when eigenvalues of the other sign become 0. As it has
    rank H at most, it fits the head. The values' bias moves through the old output map into the output bias, which
    is exact where rows of attention sum to 1. Queries, keys and everything else stay.

    Args:
      model: an encoder of any family.
      sign: of the eigenvalues, -1 or 1.

    Returns:
      An encoder of the same configuration, dtypes and shapes, except that it has an output bias if it had a value
      bias.

    >>> import jax, jaxsmooth
    >>> model, _ = jaxsmooth.load("tiny")
    >>> attn = make_definite(model).blocks.attn
    >>> product = attn.value.kernel[0, :, 0] @ attn.output.kernel[0, 0]
    >>> bool(jnp.linalg.eigvalsh(product).max() < 1e-6)
    True

    References: Higham (1988) for the nearest semidefinite matrix; the use after Dovonon et al. (2024).
    """
    if sign not in (-1, 1):
        raise OptionError(f"sign must be -1 or 1; got {sign!r}.")
    attn = model.blocks.attn
    value, output = attn.value, attn.output
    old_v, old_o = (np.asarray(linear.kernel, np.float64) for linear in (value, output))
    new_v, new_o = np.empty_like(old_v), np.empty_like(old_o)
    for layer, head in np.ndindex(old_o.shape[:2]):
        new_v[layer, :, head], new_o[layer, head] = _nearest(old_v[layer, :, head], old_o[layer, head], sign)
    value_bias, output_bias = value.bias, output.bias
    if value_bias is not None:
        moved = np.einsum("lnh,lnhd->ld", np.asarray(value_bias, np.float64), old_o)
        moved = moved if output_bias is None else moved + np.asarray(output_bias, np.float64)
        value_bias, output_bias = jnp.zeros_like(value_bias), jnp.asarray(moved, output.kernel.dtype)
    changed = dataclasses.replace(
        attn,
        value=Linear(jnp.asarray(new_v, value.kernel.dtype), value_bias),
        output=Linear(jnp.asarray(new_o, output.kernel.dtype), output_bias),
    )
    return dataclasses.replace(model, blocks=dataclasses.replace(model.blocks, attn=changed))


def _nearest(value: NDArray, output: NDArray, sign: int) -> tuple[NDArray, NDArray]:
    """Factors [D H], [H D] of the nearest semidefinite matrix to `value @ output`, by its 2H x 2H core."""
    width = value.shape[1]
    frame, core = np.linalg.qr(np.concatenate([value, output.T], axis=1))
    one, other = core[:, :width], core[:, width:]
    eigenvalues, vectors = np.linalg.eigh((one @ other.T + other @ one.T) / 2)
    # The symmetric part of a matrix of rank H has at most H eigenvalues of either sign.
    kept = np.argsort(-sign * eigenvalues)[:width]
    root = np.sqrt(np.maximum(sign * eigenvalues[kept], 0))
    scaled = np.zeros((len(value), width))
    scaled[:, : len(kept)] = frame @ vectors[:, kept] * root
    return scaled, sign * scaled.T
