"""The region's rate with every norm in it proved: host only, float64, one sentence. Proofs: docs/rates.md.

`region.secant_box_rate` finds norms by Lanczos, from below. Here the pairs' matrices are enclosed in balls, the one
operator on all tokens is written down as a matrix, and its norm is proved by one Cholesky factorisation.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from .enclosures import HostCalculus
from .norms import squared_norm
from .region import GAIN_SPLIT, Region
from .rounding import Ball, Interval, epsilon, frobenius, fuzzy, gamma, quiet, raised, tiny
from .slopes import secant_range
from .token_enclosures import FUNCTION_ULPS
from .weights import BlockWeights

# Candidates for the norm's square over a lower estimate of it: the first that passes is taken.
MARGINS = (1e-6, 1e-4, 1e-3, 1e-2, 0.1, 1.0)
POWER_STEPS = 60


class CertifiedRate(NamedTuple):
    """Proved upper bounds, see `RegionRate`."""

    rate: float
    composed: float
    separate: float


class _Known(NamedTuple):
    """A matrix to within `error` in Frobenius norm."""

    middle: NDArray[np.float64]
    error: float

    def __matmul__(self, other: "_Known") -> "_Known":
        left, right = _size(self.middle), _size(other.middle)
        rounding = gamma(self.middle.shape[-1], self.middle) * left * right
        error = rounding + left * other.error + self.error * (right + other.error)
        product = self.middle @ other.middle
        return _Known(product, _up(error + 16 * product.size * self.middle.shape[-1] * tiny(product)))


@quiet
def certified_secant_box_rate(weights: BlockWeights, region: Region, activation: str) -> CertifiedRate:
    """An upper bound of d_M(H') / d_M(X) on a region, rounding accounted for: theorem 2 of docs/rates.md.

    The arrays are taken as exact, but for attention, whose rows are meant to be divided by their sums. The work grows
    as T^3 D^3, the memory as T^2 D^2: a minute for a layer of a small BERT on a dozen tokens.

    Args:
      weights: the block's parameters, float64.
      region: of one sentence, [1 ...], without padding.
      activation: "gelu": the slopes of others are not enclosed.

    Returns:
      A `CertifiedRate`.

    Raises:
      ValueError: another activation, several sentences, padding, or a factorisation that never passes.

    References: docs/rates.md, theorem 2 and its certificate; Higham (2002), theorems 10.3 and 10.5, for Cholesky.
    """
    if activation != "gelu":
        raise ValueError(f"activation must be 'gelu' for a certificate; got {activation!r}.")
    if region.mask.shape[0] != 1 or not np.all(region.mask):
        given = f"{region.mask.shape[0]} sentences, {np.sum(~np.asarray(region.mask))} padded tokens"
        raise ValueError(f"region must hold one sentence without padding; got {given}. Crop it first.")
    weights = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), weights)
    attn, std_attn, std_mlp, _, centre, radius = (np.asarray(leaf[0], np.float64) for leaf in region)
    n, d = centre.shape[0], weights.scale_attn.size
    first, second = np.triu_indices(n, 1)
    sums = [std[first, 0] + std[second, 0] for std in (std_attn, std_mlp)]
    shares = _raise_all(1 / (sums[0] * sums[1]))
    mlp = _MLP(weights)
    squares, lengths = np.zeros((n, d, n, d)), np.empty(len(first))
    missed = 0.0
    for place, (i, j) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        slope, spread = _enclosed_slopes(centre[i], centre[j], radius[i], radius[j])
        matrix = mlp.linear(slope)
        lengths[place] = shares[place] * (_norm(matrix) + 2 * mlp.box(spread))
        square = _gram(matrix, shares[place])
        missed = _up(missed + square.error + 4 * n * epsilon(square.middle) * _size(square.middle))
        for row, column, sign in ((i, i, 1), (j, j, 1), (i, j, -1), (j, i, -1)):
            squares[row, :, column] += sign * square.middle
    mixing = _mixing(weights, attn)
    composed = _pulled_back(mixing, _Known(squares.reshape(n * d, n * d), _up(2 * missed)), n)
    separate = _pulled_back(mixing, _separate(n, d, first, second, _raise_all(lengths)), n)
    return CertifiedRate(_up(composed + separate), composed, separate)


class _MLP:
    """C Gamma_1 (I + W_1 D W_2) C Gamma~ and the norms of what a box adds to it."""

    def __init__(self, weights: BlockWeights) -> None:
        top = np.max(np.abs(weights.scale_mlp))
        # Any gains that are large enough will do: from here on they are exact.
        gains = _raise_all(np.sqrt((1 + GAIN_SPLIT) * weights.scale_mlp**2 + (1 + 1 / GAIN_SPLIT) * top**2))
        c = HostCalculus(np.ones(1, bool), np.float64)
        exact = Interval.exact(weights.scale_attn)
        self.gains = c.matrix(gains[None])
        self.left = c.centre_features(c.scale_rows(c.matrix(weights.up), exact).T).T
        self.right = c.scale_columns(c.centre_features(c.matrix(weights.down)), self.gains)
        identity = c.scale_rows(c.identity(gains.size), exact)
        self.residual = c.scale_columns(c.centre_features(c.centre_features(identity.T).T), self.gains)
        inner, outer = np.linalg.norm(self.left.middle, axis=0), np.linalg.norm(self.right.middle, axis=1)
        dead = (inner == 0) | (outer == 0)
        self.balance = np.where(dead, 1, np.sqrt(outer / np.where(dead, 1, inner)))

    def linear(self, slope: NDArray[np.float64]) -> Ball:
        """With these slopes, taken as exact."""
        return self.residual + _columns(self.left, slope) @ self.right

    def box(self, spread: NDArray[np.float64]) -> float:
        """||C Gamma_1 W_1 p|| ||q W_2 C Gamma~||, p and q diagonal with p q at least `spread`."""
        inward = np.sqrt(spread) * self.balance
        outward = _raise_all(spread / np.where(inward > 0, inward, 1))
        return _norm(_columns(self.left, inward)) * _norm(_columns(self.right.T, outward).T)


def _enclosed_slopes(a: NDArray, b: NDArray, *radii: NDArray) -> tuple[NDArray, NDArray]:
    """The middles of the ranges of a pair's secant slopes of GELU, and half-widths with room for rounding, [F]."""
    with jax.enable_x64(True):
        ends = secant_range("gelu", *(jnp.asarray(array) for array in (a, b, *radii)))
    least, largest = (np.asarray(end, np.float64) for end in ends)
    middle = (least + largest) / 2
    apart, size = np.abs(a - b), np.abs(a) + np.abs(b) + radii[0] + radii[1]
    near = apart < epsilon(apart) ** (1 / 3)
    # Far apart, the quotient's rounding; near, the tangent at the middle for the secant: |phi'''| < 2.
    quotient = 4 * FUNCTION_ULPS * epsilon(apart) * size / np.where(near, 1, apart)
    pad = np.where(near, apart**2 / 12, quotient) + 8 * FUNCTION_ULPS * epsilon(apart) * (1 + size)
    return middle, _raise_all((largest - least) / 2 + pad)


def _columns(matrix: Ball, factors: NDArray[np.float64]) -> Ball:
    """Every column times a number that is exact."""
    return matrix * Ball(np.broadcast_to(factors, matrix.middle.shape), np.zeros(matrix.middle.shape))


def _norm(matrix: Ball) -> float:
    return float(fuzzy(squared_norm(matrix.middle), matrix.radius).up)


def _gram(matrix: Ball, share: float) -> _Known:
    """share^2 E E^T, symmetric."""
    spread = float(frobenius(Ball(matrix.radius, np.zeros_like(matrix.radius))).up)
    known = _Known(matrix.middle, spread)
    found = known @ _Known(matrix.middle.T, spread)
    scaled = share**2 * (found.middle + found.middle.T) / 2
    return _Known(scaled, _up(share**2 * found.error + 16 * epsilon(scaled) * _size(scaled)))


def _mixing(weights: BlockWeights, attn: NDArray[np.float64]) -> _Known:
    """X -> X + sum_h A_h X W_h on the rows of X one after the other, as a matrix on the right of it, [TD TD]."""
    heads, n, _ = attn.shape
    d = weights.scale_attn.size
    by_head = Ball.exact(weights.value.transpose(1, 0, 2)) @ Ball.exact(weights.output)
    # Rows divided by their sums: off by at most that much, entry by entry.
    off = np.max(np.abs(attn.sum(axis=-1) - 1)) + 4 * n * epsilon(attn)
    mixed = _Known(attn.reshape(heads, n * n).T, _up(2 * off * _size(attn)))
    flat = _Known(by_head.middle.reshape(heads, d * d), _size(by_head.radius))
    product = mixed @ flat
    matrix = product.middle.reshape(n, n, d, d).transpose(1, 2, 0, 3).reshape(n * d, n * d)
    matrix = matrix + np.eye(n * d)
    return _Known(matrix, _up(product.error + 4 * epsilon(matrix) * _size(matrix)))


def _separate(n: int, d: int, first: NDArray, second: NDArray, lengths: NDArray[np.float64]) -> _Known:
    """L (x) C, L the weighted Laplacian of the pairs."""
    laplacian = np.zeros((n, n))
    weight = _raise_all(lengths**2)
    np.add.at(laplacian, (first, first), weight)
    np.add.at(laplacian, (second, second), weight)
    laplacian[first, second] = laplacian[second, first] = -weight
    matrix = np.kron(laplacian, np.eye(d) - 1 / d).astype(np.float64)
    return _Known(matrix, _up(8 * (n + 2) * epsilon(matrix) * d**0.5 * _size(laplacian)))


def _pulled_back(mixing: _Known, square: _Known, tokens: int) -> float:
    """||M S M^T / n||^(1/2): the norm of the pairs' map after the mixing of tokens."""
    found = mixing @ square @ _Known(mixing.middle.T, mixing.error)
    return _up(np.sqrt(_up(_largest_eigenvalue(found) / tokens)))


def _largest_eigenvalue(matrix: _Known) -> float:
    """An upper bound for an exact symmetric matrix that is known to within `error`.

    If the Cholesky factorisation of l I - G runs to its end, l I - G + E is positive semidefinite for some
    ||E|| <= gamma / (1 - gamma) trace(l I - G): no eigenvalue of G exceeds l + ||E||.
    """
    symmetric = (matrix.middle + matrix.middle.T) / 2
    size = len(symmetric)
    estimate = _estimate(symmetric)
    for margin in MARGINS:
        level = estimate * (1 + margin)
        shifted = -symmetric
        shifted[np.diag_indices(size)] += level
        try:
            np.linalg.cholesky(shifted)
        except np.linalg.LinAlgError:
            continue
        part = gamma(size + 1, shifted) / (1 - gamma(size + 1, shifted))
        trace = np.sum(np.abs(np.diag(shifted)))
        rounding = 8 * epsilon(shifted) * (np.max(np.abs(np.diag(symmetric))) + level + _size(symmetric))
        return _up(level + 2 * part * trace + rounding + matrix.error + 16 * size**2 * tiny(shifted))
    raise ValueError(f"no level up to {1 + MARGINS[-1]} times the estimate {estimate:.3g} passes Cholesky's test.")


def _estimate(matrix: NDArray[np.float64]) -> float:
    """The largest eigenvalue, roughly and from below, of a positive semidefinite matrix."""
    vector = np.random.default_rng(0).standard_normal(len(matrix))
    value = 0.0
    for _ in range(POWER_STEPS):
        vector = vector / np.linalg.norm(vector)
        vector = matrix @ vector
        value = float(np.linalg.norm(vector))
        if value == 0:
            return float(tiny(matrix))
    return value


def _size(matrix: NDArray[np.float64]) -> float:
    """||M||_F, raised past its rounding."""
    return float(frobenius(Ball.exact(matrix.reshape(-1, matrix.shape[-1]))).up)


def _up(value: float) -> float:
    """A number made by a handful of operations on non-negative ones, moved up past their rounding."""
    return float(value) * (1 + 64 * epsilon(np.float64(0))) + tiny(np.float64(0))


def _raise_all(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return raised(raised(values))
