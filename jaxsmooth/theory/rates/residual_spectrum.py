"""A rate for the observed data that uses only the spectrum of the MLP's nonlinearity, not its directions.

The MLP is replaced by the linear map that fits it best on the data, unit by unit, and the residual of that fit
enters by its singular values alone. Statement and proof: docs/rates.md, theorem 3. Host code, float64: it needs
complete singular value decompositions of matrices as tall as a sentence.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from numpy.typing import NDArray

from ...errors import arguments_checked
from ...types import Block
from .activation_slopes import activate


@arguments_checked
def residual_spectrum_rate(
    block: Block,
    hidden: Float[Array, "B T D"],
    normed: Float[Array, "B T D"],
    pre_activation: Float[Array, "B T F"],
    std_mlp: Float[Array, "B T 1"],
    token_norm: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
    activation: str,
) -> Float[Array, " B"]:
    """Bound d_M(H') / d_M(X) by the data's linear part and the spectrum of the MLP's nonlinearity.

    Write pair(V)^2 = (1/n) sum_{i<j} q_i q_j ||v_i - v_j||^2 = ||Q V||_F^2 with q_i = 1 / std_mlp_i, c_k for the
    slope of the regression of unit k's activation on its pre-activation a_k in this norm, Lambda = Q (Y + a
    diag(c) W_2) C Gamma_2, R = Q (phi(a) - a diag(c)) t^-1 for the residuals, t > 0 diagonal, and B = t W_2 C
    Gamma_2. With s_i(.) the singular values in descending order and rho^2 = sum_i s_i(R)^2 s_i(B)^2,

      d_M(H')^2 <= ||Lambda||_F^2 + 2 min(||Lambda||_F rho, sum_i s_i(R) s_i(B Lambda^T)) + rho^2 + K,

    where K = (1/n) sum_{i<j} (1/q_j - 1/q_i)(e_i^2 / q_i - e_j^2 / q_j) q_i q_j is exact and e_i = ||h'_i - beta_2||.
    What it uses of the data: X through d_M(X) alone, Y, the pre-activations, the stds, the lengths e_i, the
    regression slopes, and of the residuals only the singular values. It holds for every residual with those
    singular values, however turned; t takes two values, and the smaller bound counts.

    Args:
      block: the parameters.
      hidden: X, [B T D].
      normed: Y, the attention LayerNorm's output, [B T D].
      pre_activation: a = Y W_1 + b_1, [B T F].
      std_mlp: stds of the rows of Z, [B T 1].
      token_norm: e_i, lengths of the rows of H' less the LayerNorm's shift, [B T].
      mask: True on real tokens, [B T].
      activation: a key of `activations.LIPSCHITZ`.

    Returns:
      [B], in float64 where that is allowed; NaN where X is at consensus.

    >>> import jax.numpy as jnp
    >>> one, x = jnp.eye(2), jnp.array([[[1.0, -1.0], [-1.0, 1.0]]])
    >>> from jaxsmooth.theory import block_of
    >>> block = block_of(one[:, None], one[None], jnp.ones(2), one, 0 * one, jnp.ones(2))
    >>> real, ones = jnp.ones((1, 2), bool), jnp.ones((1, 2))
    >>> rate = residual_spectrum_rate(block, x, x, x, ones[..., None], 2**0.5 * ones, real, "relu")
    >>> round(float(rate[0]), 4)
    1.0

    References: docs/rates.md, theorem 3; von Neumann's trace inequality: Horn and Johnson (2013), Matrix Analysis,
    theorem 7.4.1.1.
    """
    rows = np.asarray(mask)
    active = np.asarray(activate(activation, pre_activation))
    arrays = [np.asarray(a, np.float64) for a in (hidden, normed, pre_activation, active, std_mlp[..., 0], token_norm)]
    down, gain = (np.asarray(a, np.float64) for a in (block.down.kernel, block.norm_mlp.scale))
    out = (down - down.mean(axis=1, keepdims=True)) * gain
    return jnp.asarray([_sentence_rate([a[row, real] for a in arrays], out, gain) for row, real in enumerate(rows)])


def _sentence_rate(arrays: list[NDArray], out: NDArray, gain: NDArray) -> float:
    hidden, normed, pre, active, std, norm = arrays
    distance = np.linalg.norm(hidden - hidden.mean(axis=0)) if len(hidden) else 0.0
    if distance == 0:
        return np.nan
    weighted = pair_root(std)
    wide, fitted = weighted(active), weighted(pre)
    energy = (fitted * fitted).sum(axis=0)
    slope = (fitted * wide).sum(axis=0) / np.where(energy > 0, energy, 1)
    residual = wide - fitted * slope
    skip = weighted(normed)
    linear = (skip - skip.mean(axis=1, keepdims=True)) * gain + (fitted * slope) @ out
    bounds = [_squared_bound(linear, residual / t, out * t[:, None]) for t in _scales(residual, out)]
    return float(np.sqrt(max(min(bounds) + gain_correction(std, norm), 0.0)) / distance)


def pair_root(std: NDArray) -> Callable[[NDArray], NDArray]:
    """V -> Q V with ||Q V||_F^2 = (1/n) sum_{i<j} ||v_i - v_j||^2 / (std_i std_j)."""
    weight = 1 / std
    total = weight.sum()
    root = np.sqrt(weight * total / len(std))[:, None]
    return lambda v: root * (v - weight @ v / total)


def gain_correction(std: NDArray, norm: NDArray) -> float:
    """K: what the pairs of normalised rows differ from the pairs of rows over the root of both stds, summed."""
    apart = (std[None, :] - std[:, None]) * (norm[:, None] ** 2 * std[:, None] - norm[None, :] ** 2 * std[None, :])
    return float(np.triu(apart / (std[:, None] * std[None, :]), 1).sum() / len(std))


def _scales(residual: NDArray, out: NDArray) -> list[NDArray]:
    """Two choices of t: none, and the one that balances a unit's residual against the length of its output row."""
    sizes, lengths = np.linalg.norm(residual, axis=0), np.linalg.norm(out, axis=1)
    usable = (sizes > 0) & (lengths > 0)
    balanced = np.sqrt(np.where(usable, sizes, 1) / np.where(usable, lengths, 1))
    return [np.ones(len(out)), balanced]


def _squared_bound(linear: NDArray, residual: NDArray, out: NDArray) -> float:
    own, rows, turned = (np.linalg.svd(m, compute_uv=False) for m in (residual, out, linear @ out.T))
    count = min(len(own), len(rows))
    rho, size = float(np.linalg.norm(own[:count] * rows[:count])), float(np.linalg.norm(linear))
    cross = min(size * rho, float(own @ turned))
    return size**2 + 2 * cross + rho**2
