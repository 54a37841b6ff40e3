"""Theorem 3 of docs/rates.md, compiled and by the batch: the tightest rung of the ladder that `diagnose` shows.

As `residual_spectrum_rate`, but with one scaling t for every text, so that the spectrum of t W_2 C Gamma_2 is found
once a model, and with eigenvalues of Gram matrices in the place of singular value decompositions.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ...linalg.eigh import batched_eigvalsh
from ...linalg.norms import norm, quotient, safe_sqrt
from ...linalg.precision import einsum, matmul
from ...types import Block
from ..consensus import centre_features
from ..theorems.parameters import bias_of
from .activation_slopes import activate


class OutputSpectrum(NamedTuple):
    """What a block's second MLP kernel makes of the residual of the nonlinearity.

    Attributes:
      scale: t, which makes all rows of t W_2 C Gamma_2 as long as the root of their length, [F].
      gram: B^T B for B = t W_2 C Gamma_2, [D D].
      squares: its eigenvalues, the squared singular values of B, largest first, [D].
    """

    scale: Float[Array, "*L F"]
    gram: Float[Array, "*L D D"]
    squares: Float[Array, "*L D"]


def output_spectrum(block: Block) -> OutputSpectrum:
    """Of one block.

    >>> from jaxsmooth.theory import block_of
    >>> one = jnp.eye(2)
    >>> output_spectrum(block_of(one[:, None], one[None], jnp.ones(2), one, one, jnp.ones(2))).squares.shape
    (2,)
    """
    out = _outputs(block)
    length = norm(out)
    scale = jnp.where(length > 0, jnp.sqrt(1 / jnp.where(length > 0, length, 1)), 1)
    scaled = out * scale[:, None]
    gram = matmul(scaled.T, scaled)
    return OutputSpectrum(scale, gram, jnp.maximum(batched_eigvalsh(gram[None])[0, ::-1], 0))


def spectrum_rung(
    block: Block,
    spectrum: OutputSpectrum,
    distance: Float[Array, " B"],
    normed: Float[Array, "B T D"],
    std_mlp: Float[Array, "B T 1"],
    token_norm: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
    activation: str,
) -> Float[Array, " B"]:
    """Bound d_M(H') / d_M(X) as theorem 3 does; see `residual_spectrum_rate` for the statement and the names.

    Args:
      block: the parameters.
      spectrum: `output_spectrum` of them.
      distance: d_M(X), [B].
      normed: Y, the MLP's input, [B T D].
      std_mlp: stds of the rows of Z, [B T 1].
      token_norm: e_i, lengths of the rows of H' less the LayerNorm's shift, [B T].
      mask: True on real tokens, [B T].
      activation: a key of `activations.LIPSCHITZ`.

    Returns:
      [B]; NaN where X is at consensus.

    References: docs/rates.md, theorem 3.
    """
    weight = jnp.where(mask, 1 / std_mlp[..., 0], 0)
    count = jnp.maximum(jnp.sum(mask, axis=1), 1).astype(weight.dtype)
    total = jnp.sum(weight, axis=1)
    root = safe_sqrt(weight * (total / count)[:, None])[..., None]

    def weighted(rows: Array) -> Array:
        """Q V: zero on padding, where the weight is."""
        mean = einsum("bt,btf->bf", weight, rows) / total[:, None]
        return root * (rows - mean[:, None])

    pre = matmul(normed, block.up.kernel) + bias_of(block.up)[None, None]
    wide, fitted = weighted(activate(activation, pre)), weighted(pre)
    energy = jnp.sum(fitted * fitted, axis=1)
    slope = jnp.sum(fitted * wide, axis=1) / jnp.where(energy > 0, energy, 1)
    line = fitted * slope[:, None]
    residual = (wide - line) / spectrum.scale[None, None]
    linear = centre_features(weighted(normed)) * block.norm_mlp.scale[None, None] + matmul(line, _outputs(block))
    own = einsum("btf,bsf->bts", residual, residual)
    turned = einsum("btd,bsd->bts", matmul(linear, spectrum.gram), linear)
    squares, crossed = (jnp.maximum(batched_eigvalsh(gram)[:, ::-1], 0) for gram in (own, turned))
    rows = min(squares.shape[1], spectrum.squares.shape[0])
    rho = safe_sqrt(jnp.sum(squares[:, :rows] * spectrum.squares[None, :rows], axis=1))
    size = jnp.sum(linear * linear, axis=(1, 2))
    cross = jnp.minimum(safe_sqrt(size) * rho, jnp.sum(safe_sqrt(squares * crossed), axis=1))
    square = size + 2 * cross + rho**2 + _gain_correction(std_mlp[..., 0], token_norm, mask, count)
    return quotient(safe_sqrt(jnp.maximum(square, 0)), distance)


def _outputs(block: Block) -> Array:
    """W_2 C Gamma_2."""
    return centre_features(block.down.kernel) * block.norm_mlp.scale[None]


def _gain_correction(std: Array, norm: Array, mask: Array, count: Array) -> Array:
    """K, over pairs of real tokens."""
    both = mask[:, :, None] & mask[:, None, :]
    first, second = std[:, :, None], std[:, None, :]
    apart = (second - first) * (norm[:, :, None] ** 2 * first - norm[:, None, :] ** 2 * second) / (first * second)
    return jnp.sum(jnp.where(both, apart, 0), axis=(1, 2)) / (2 * count)
