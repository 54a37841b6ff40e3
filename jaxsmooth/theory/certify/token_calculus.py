"""Enclosures of what the theorems say about token vectors: distances, norms, standard deviations, LayerNorm.

`enclosures.FloatCalculus` adds attention. Proofs are in docs/certify.md.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...activations import ACTIVATIONS, LIPSCHITZ
from ...linalg.enclosed_norms import squared_norm
from ...linalg.intervals import (
    Ball,
    Interval,
    epsilon,
    fence,
    frobenius,
    fuzzy,
    namespace,
    power_of_two,
    raised,
    settled,
    sum_of,
    sum_of_squares,
    tiny,
)

# exp, tanh, erf and what is made of them are not correctly rounded anywhere; 32 u of the argument's size (of the
# value, for exp and tanh) is several times the largest error met on any device, and is tested against Arb.
FUNCTION_ULPS = 16


class TokenCalculus:
    """Formulas on one sentence of T tokens, `mask` of which are real. Token-wise data must vanish on padding."""

    def __init__(self, mask: Any, dtype: Any) -> None:
        xp = namespace(mask)
        self.xp, self.mask, self.dtype = xp, mask, dtype
        self.real = mask.astype(dtype)[:, None]
        self.tokens = Interval.exact(xp.maximum(xp.sum(self.real), 1))

    # Data in

    def matrix(self, array: Any) -> Ball:
        return Ball.exact(self.xp.asarray(array, self.dtype))

    # The same for arrays that all sentences of a batch share.
    weight = matrix

    def number(self, value: Any) -> Interval:
        return Interval.exact(self.xp.asarray(value, self.dtype))

    def lift(self, known: Interval) -> Interval:
        """An enclosure found elsewhere."""
        return Interval(*(self.xp.asarray(end, self.dtype) for end in (known.down, known.up)))

    # Matrices

    def matmul(self, x: Ball, y: Ball) -> Ball:
        return x @ y

    def add(self, x: Ball, y: Ball) -> Ball:
        return x + y

    def transpose(self, matrix: Ball) -> Ball:
        return matrix.T

    def scale(self, matrix: Ball, factor: Interval) -> Ball:
        return matrix * Ball.of(self._full(factor, matrix.middle.shape))

    def concatenate(self, matrices: list[Ball]) -> Ball:
        """Side by side."""
        return Ball(*(self.xp.concatenate(parts, axis=1) for parts in zip(*map(parts_of, matrices), strict=True)))

    def scale_columns(self, matrix: Ball, gains: Ball) -> Ball:
        return matrix * Ball(*(self.xp.broadcast_to(x, matrix.middle.shape) for x in (gains.middle, gains.radius)))

    def scale_rows(self, matrix: Ball, factors: Interval) -> Ball:
        known = Ball.of(factors)
        columns = (self.xp.broadcast_to(x[:, None], matrix.middle.shape) for x in (known.middle, known.radius))
        return matrix * Ball(*columns)

    def add_row(self, matrix: Ball, row: Ball) -> Ball:
        """The same row onto every real token."""
        return matrix + Ball(self.real, self.xp.zeros_like(self.real)) @ row

    def identity(self, size: int) -> Ball:
        return self.matrix(self.xp.eye(size, dtype=self.dtype))

    def centre_features(self, matrix: Ball) -> Ball:
        """M C: every row minus its mean."""
        once = self._shifted(matrix, self.xp.mean(matrix.middle, axis=-1, keepdims=True))
        mean = sum_of(once.interval(), axis=-1) / self.number(matrix.middle.shape[-1])
        return once - Ball(*(self.xp.broadcast_to(x[:, None], once.middle.shape) for x in parts_of(Ball.of(mean))))

    def centre_tokens(self, matrix: Ball) -> Ball:
        """J M: every real row minus the mean of the real rows."""
        once = self._less(matrix, self._token_mean(matrix, self.real))
        mean = sum_of(once.interval(), axis=0) / self.tokens
        middle, radius = (x[None] * self.real for x in parts_of(Ball.of(mean)))
        return once - Ball(middle, radius)

    def activation(self, matrix: Ball, name: str) -> Ball:
        """phi entry by entry; |phi(x)| <= |x| and |phi'| <= L."""
        value = self._function(name, matrix.middle)
        rounding = abs(matrix.middle) * (2 * FUNCTION_ULPS * epsilon(value)) + 4 * tiny(value)
        return Ball(fence(value), raised(raised(matrix.radius * (1.001 * LIPSCHITZ[name]) + rounding)))

    def layer_norm(self, matrix: Ball, gains: Ball, shift: Ball, stds: Interval) -> Ball:
        normed = self.scale_rows(self.centre_features(matrix), self.number(1.0) / stds)
        return self._real(self.add_row(self.scale_columns(normed, gains), shift))

    # Numbers

    def sqrt(self, value: Interval) -> Interval:
        return value.sqrt()

    def hull(self, low: Interval, high: Interval) -> Interval:
        """A number between two."""
        return Interval(low.down, high.up)

    def frobenius(self, matrix: Ball) -> Interval:
        return frobenius(matrix)

    def distance(self, matrix: Ball) -> Interval:
        """d_M = ||J M||_F, without cancellation however large the mean.

        For ANY vector m, d_M^2 = ||M - 1 m^T||^2 - |column sums of M - 1 m^T|^2 / n, and M - 1 m^T has entrywise
        relative errors. What of it is uncertain counts once, because J is a projection.
        """
        once = self._less(matrix, self._token_mean(matrix, self.real))
        square, scale = sum_of_squares(once.middle)
        columns = sum_of(Interval.exact(once.middle * (1 / scale)), axis=0)
        sums = self._square(columns)
        between = sum_of(sums, axis=0) / self.tokens
        return fuzzy((square - between).sqrt() * Interval.exact(scale), once.radius)

    def pair_distance(self, matrix: Ball, weights: Interval) -> Interval:
        """[(1/n) sum_{i<j} p_i p_j |m_i - m_j|^2]^(1/2); with p = 1 it is the distance."""
        weights = self._real_vector(weights)
        middle = (0.5 * weights.down + 0.5 * weights.up)[:, None]
        once = self._less(matrix, self._token_mean(matrix, middle))
        scale = Interval.exact(power_of_two(once.middle))
        scaled = self.scale(once, self.number(1.0) / scale)
        rows = sum_of(self._square(scaled.interval()), axis=-1)
        known = Ball.of(weights)
        mean = Ball(known.middle[None], known.radius[None]) @ scaled
        spread = sum_of(weights) * sum_of(weights * rows) - sum_of(self._square(mean.interval()))
        return (spread / self.tokens).sqrt() * scale

    def norm(self, matrix: Ball) -> Interval:
        """||M||, the largest singular value."""
        return fuzzy(self._spectral(matrix.middle), matrix.radius)

    def largest_entry(self, matrix: Ball) -> Interval:
        """max |m_ij|."""
        xp = self.xp
        low, high = (xp.max(abs(matrix.middle) + sign * matrix.radius) for sign in (-1, 1))
        return Interval.around(low, high).nonnegative()

    def mean_row(self, matrix: Ball) -> Ball:
        """The mean token, [1 D]."""
        mean = sum_of(matrix.interval(), axis=0) / self.tokens
        return Ball(*(x[None] for x in parts_of(Ball.of(mean))))

    def stds(self, matrix: Ball, eps: float) -> Interval:
        """The standard deviation of every token, sqrt(variance + eps), [T]; 1 on padding."""
        centred = self.centre_features(matrix)
        square = sum_of(self._square(centred.interval()), axis=-1) / self.number(matrix.middle.shape[-1])
        found = (square + self.number(eps)).sqrt()
        return Interval(*(self.xp.where(self.mask, end, 1) for end in (found.down, found.up)))

    def least(self, values: Interval, count: int = 1) -> Interval:
        """The product of the `count` smallest of the real tokens' values."""
        xp = self.xp
        low = xp.where(xp.isnan(values.down), -xp.inf, values.down)
        smallest = [xp.sort(xp.where(self.mask, end, xp.inf))[:count] for end in (low, values.up)]
        product = Interval(smallest[0][0], smallest[1][0])
        for place in range(1, count):
            product = product * Interval(smallest[0][place], smallest[1][place])
        return product

    def largest(self, values: Interval) -> Interval:
        return Interval(self.xp.max(values.down), self.xp.max(values.up))

    def smaller(self, *values: Interval) -> Interval:
        xp = self.xp
        low, high = values[0].down, values[0].up
        for value in values[1:]:
            low, high = xp.minimum(low, value.down), xp.minimum(high, value.up)
        return Interval(low, high)

    def sum(self, values: Interval) -> Interval:
        return sum_of(values)

    def tanh(self, value: Interval) -> Interval:
        xp = self.xp
        ulps = 2 * FUNCTION_ULPS * epsilon(value.down)
        low, high = xp.tanh(value.down) * (1 - ulps), xp.tanh(value.up) * (1 + ulps)
        return Interval.around(low, xp.minimum(high, 1)).nonnegative()

    # Parts

    def _function(self, name: str, argument: Any) -> Any:
        if self.xp is not np:
            return ACTIVATIONS[name].function(argument)
        # jax would round numpy's float64 to float32 where 64 bits are not switched on.
        with jax.enable_x64(True):
            return np.asarray(ACTIVATIONS[name].function(jnp.asarray(argument)), self.dtype)

    def _less(self, matrix: Ball, row: Any) -> Ball:
        """M - 1 m^T on real tokens."""
        return self._real(self._shifted(matrix, row))

    def _shifted(self, matrix: Ball, vector: Any) -> Ball:
        """Less a vector of floating-point numbers that is the same wherever it is used."""
        shape = matrix.middle.shape
        return matrix - Ball(self.xp.broadcast_to(settled(vector), shape), self.xp.zeros(shape, self.dtype))

    def _token_mean(self, matrix: Ball, weights: Any) -> Any:
        whole = self.xp.sum(weights)
        return self.xp.sum(matrix.middle * weights, axis=0, keepdims=True) / self.xp.where(whole > 0, whole, 1)

    def _real(self, matrix: Ball) -> Ball:
        return Ball(matrix.middle * self.real, matrix.radius * self.real)

    def _real_vector(self, values: Interval) -> Interval:
        return Interval(*(self.xp.where(self.mask, end, 0) for end in (values.down, values.up)))

    def _full(self, value: Interval, shape: tuple[int, ...]) -> Interval:
        return Interval(*(self.xp.broadcast_to(end, shape) for end in (value.down, value.up)))

    def _square(self, values: Interval) -> Interval:
        return (values * values).nonnegative()

    def _spectral(self, matrix: Any) -> Interval:
        return squared_norm(matrix)


def ends_of(interval: Interval) -> tuple[Any, Any]:
    return interval.down, interval.up


def parts_of(ball: Ball) -> tuple[Any, Any]:
    return ball.middle, ball.radius
