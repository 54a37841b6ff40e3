"""A post-LN block at one point: the map of a row behind attention, its derivative and what bounds the higher ones.

u -> LN_2(y + phi(y W_1 + b_1) W_2 + b_2), y = LN_1(u), at u = x + x W + b: all tokens equal to x. Everything is
enclosed in float64.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ...linalg.intervals import epsilon
from ...linalg.norm_ball import NormBall, size, stretch, up
from ...types import Block, LayerNorm
from ..certify.matrix_calculus import FUNCTION_ULPS
from ..theorems.parameters import bias_of, heads_of
from .matrices import columns, exact, negative, row_product, scaled, transposed


@dataclasses.dataclass(frozen=True)
class NormPoint:
    """A LayerNorm at a row.

    Attributes:
      unit: n = C u / (sqrt(D) std), a row [1 D]; zero where the std is imposed, and then no term of it bends.
      off: C - n^T n, the derivative times the std, [D D].
      linear: L, the derivative with its gain, [D D].
      inverse_std: at least 1 / std.
      unit_per_move: at least 1 / (sqrt(D) std): by it a move of u turns into one of n; 0 where the std is imposed.
      rest: at least (1 - |n|^2)^(1/2), which eps makes positive.
      gain: the gain, [D].
    """

    unit: NormBall
    off: NormBall
    linear: NormBall
    inverse_std: float
    unit_per_move: float
    rest: float
    gain: NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class RowMap:
    """The block at a consensus row.

    Attributes:
      first, second: its LayerNorms.
      mlp: H = I + W_1 diag(phi') W_2.
      up, down: W_1, W_2.
      bends: phi'' and phi''' / 2 of every unit, rows [1 F].
      mixer: W = sum_h W_h.
      after: the row that comes out, enclosed.
    """

    first: NormPoint
    second: NormPoint
    mlp: NormBall
    up: NormBall
    down: NormBall
    bends: tuple[NormBall, NormBall]
    mixer: NormBall
    after: NormBall

    def law(self) -> NormBall:
        """M = L_1 H L_2."""
        return self.first.linear @ self.mlp @ self.second.linear

    def shared_law(self) -> NormBall:
        """N = (I + W) M, the derivative of the one-token map."""
        return (exact(np.eye(len(self.mixer.mid))) + self.mixer) @ self.law()

    def gap(self, row: NDArray[np.float64]) -> NormBall:
        """What comes out, less a given row."""
        return self.after + exact(-row[None])


def row_map(block: Block, row: NDArray[np.float64], eps: float, std: float | None) -> RowMap:
    """The block at x.

    Args:
      block: float64 numpy leaves, one layer, GELU.
      row: x, [D].
      eps: LayerNorm's epsilon.
      std: what both LayerNorms divide by; None for the tokens' own.
    """
    at, width = exact(row[None]), len(row)
    value = exact(block.attn.value.kernel.reshape(width, -1))
    output = exact(block.attn.output.kernel.reshape(-1, width))
    values = row_product(at, value) + exact(bias_of(heads_of(block.attn).value).reshape(1, -1))
    mixed = row_product(values, output) + exact(bias_of(block.attn.output)[None])
    first, normed = _norm(block.norm_attn, at + mixed, eps, std)
    kernels = exact(block.up.kernel), exact(block.down.kernel)
    pre = row_product(normed, kernels[0]) + exact(bias_of(block.up)[None])
    wide, slopes = _activated(pre)
    behind = row_product(wide, kernels[1]) + exact(bias_of(block.down)[None])
    second, after = _norm(block.norm_mlp, normed + behind, eps, std)
    mlp = exact(np.eye(width)) + columns(kernels[0], slopes[0], stretch(kernels[0].mid)) @ kernels[1]
    return RowMap(first, second, mlp, *kernels, (slopes[1], slopes[2]), value @ output, after)


def _norm(norm: LayerNorm, row: NormBall, eps: float, std: float | None) -> tuple[NormPoint, NormBall]:
    """A LayerNorm at a row, and what comes out."""
    width, digit = row.mid.shape[1], epsilon(row.mid)
    mean = math.fsum(row.mid[0]) / width
    centred = row.mid - mean
    error = up(row.error + 4 * digit * (size(row.mid) + np.sqrt(width) * abs(mean)))
    length = size(centred)
    low, high = (std, std) if std is not None else _ends(centred, error, eps)
    middle = 0.5 * low + 0.5 * high
    # Of C u / std, whatever is lost on the way from the computed row.
    spread = up((error + length * (high / low - 1) + 16 * digit * length) / low)
    gain, shift = np.asarray(norm.scale), bias_of(norm)[None]
    after, most = centred / middle * gain + shift, float(np.max(np.abs(gain)))
    out = NormBall(after, up(most * spread + 16 * digit * (most * length / low + size(after) + size(shift))))
    scale = 0.0 if std is not None else 1 / np.sqrt(width)
    unit = NormBall(centred / middle * scale, up(scale * (spread + 16 * digit * length / low)))
    centring = NormBall(np.eye(width) - 1 / width, up(2 * width * digit))
    off = centring + negative(transposed(unit) @ unit)
    inverses = (1 - 8 * digit) / high, (1 + 8 * digit) / low
    rest = 0.0 if std is not None else up(np.sqrt(eps) * inverses[1])
    linear = scaled(off, *inverses).columns(gain)
    return NormPoint(unit, off, linear, inverses[1], up(scale * inverses[1]), rest, gain), out


def _ends(centred: NDArray[np.float64], error: float, eps: float) -> tuple[float, float]:
    """Below and above the std of a row whose centred values are known to within an error."""
    width, length = centred.shape[1], float(np.sqrt(math.fsum((centred * centred)[0])))
    slack = 16 * epsilon(centred)
    low, high = max(length * (1 - slack) - error, 0.0), length * (1 + slack) + error
    ends = np.sqrt(low * low / width + eps) * (1 - slack), np.sqrt(high * high / width + eps) * (1 + slack)
    return float(ends[0]), float(ends[1])


def _activated(pre: NormBall) -> tuple[NormBall, list[NormBall]]:
    """GELU, and its phi', phi'' and half of phi''', rows [1 F].

    phi' = Phi + x n, phi'' = (2 - x^2) n, phi''' = (x^2 - 4) x n with n the normal density; all four change by less
    than 1.6 times the change of x, and none is computed with an error of more than 64 u (1 + |x| + (1 + x^2)^3 n).
    """
    x = pre.mid
    with jax.enable_x64(True):
        whole = np.asarray(0.5 * (1 + jax.lax.erf(jnp.asarray(x / np.sqrt(2.0)))))
    density = np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi)
    found = [x * whole, whole + x * density, (2 - x * x) * density, 0.5 * (x * x - 4) * x * density]
    rounding = 2 * FUNCTION_ULPS * epsilon(x) * (1 + np.abs(x) + (1 + x * x) ** 3 * density)
    balls = [NormBall(value, up(size(rounding) + 1.6 * pre.error)) for value in found]
    return balls[0], balls[1:]
