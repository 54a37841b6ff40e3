"""Enclosures of matrices: data, products, centring, activations, LayerNorm. Proofs are in docs/certify.md."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from ...activations import ACTIVATIONS, LIPSCHITZ
from ...linalg.intervals import Ball, Interval, epsilon, fence, namespace, raised, settled, sum_of, tiny
from ..statement import Statement
from ..theorems.calculus import ArrayLike

# exp, tanh, erf and what is made of them are not correctly rounded anywhere; 32 u of the argument's size (of the
# value, for exp and tanh) is several times the largest error met on any device, and is tested against Arb.
FUNCTION_ULPS = 16


class MatrixCalculus:
    """Formulas on one sentence of T tokens, `mask` of which are real. Token-wise data must vanish on padding."""

    def __init__(self, mask: ArrayLike, dtype: DTypeLike) -> None:
        xp = namespace(mask)
        self.xp, self.mask, self.dtype = xp, mask, dtype
        self.real = mask.astype(dtype)[:, None]
        self.tokens = Interval.exact(xp.maximum(xp.sum(self.real), 1))

    def matrix(self, array: ArrayLike) -> Ball:
        return Ball.exact(self.xp.asarray(array, self.dtype))

    # The same for arrays that all sentences of a batch share.
    weight = matrix

    def number(self, value: ArrayLike) -> Interval:
        return Interval.exact(self.xp.asarray(value, self.dtype))

    def gain(self, scale: ArrayLike) -> Interval:
        """max |scale|: exact, but for gains too small to be normal numbers."""
        return self.number(namespace(scale).max(abs(scale)))

    def lift(self, known: Interval) -> Interval:
        """An enclosure found elsewhere."""
        return Interval(*(self.xp.asarray(end, self.dtype) for end in (known.lower, known.upper)))

    def matmul(self, x: Ball, y: Ball) -> Ball:
        return x @ y

    def add(self, x: Ball, y: Ball) -> Ball:
        return x + y

    def transpose(self, matrix: Ball) -> Ball:
        return matrix.T

    def scale(self, matrix: Ball, factor: Interval) -> Ball:
        return matrix * Ball.of(self._full(factor, matrix.mid.shape))

    def concatenate(self, matrices: list[Ball]) -> Ball:
        """Side by side."""
        return Ball(*(self.xp.concatenate(parts, axis=1) for parts in zip(*map(parts_of, matrices), strict=True)))

    def scale_columns(self, matrix: Ball, gains: Ball) -> Ball:
        return matrix * Ball(*(self.xp.broadcast_to(x, matrix.mid.shape) for x in (gains.mid, gains.rad)))

    def scale_rows(self, matrix: Ball, factors: Interval) -> Ball:
        known = Ball.of(factors)
        columns = (self.xp.broadcast_to(x[:, None], matrix.mid.shape) for x in (known.mid, known.rad))
        return matrix * Ball(*columns)

    def alike(self, array: ArrayLike) -> ArrayLike:
        """Whether all real tokens have the same row, bit by bit: of [... T D] every matrix, [...]."""
        first = array[..., self.xp.argmax(self.mask), :][..., None, :]
        padding = ~self.mask.reshape((1,) * (array.ndim - 2) + (-1, 1))
        return self.xp.all((array == first) | padding, axis=(-2, -1))

    def zero_where(self, known: ArrayLike, statement: Statement[Interval]) -> Statement[Interval]:
        """With a left side of exactly 0 where that is known; no side is negative."""
        xp, (lhs, rhs, applicable) = self.xp, statement
        low, high = (xp.where(known, 0, end) for end in ends_of(lhs))
        return Statement(Interval(low, high), Interval(xp.fmax(rhs.lower, 0), rhs.upper), applicable)

    def add_row(self, matrix: Ball, row: Ball) -> Ball:
        """The same row onto every real token."""
        return matrix + Ball(self.real, self.xp.zeros_like(self.real)) @ row

    def identity(self, size: int) -> Ball:
        return self.matrix(self.xp.eye(size, dtype=self.dtype))

    def centre_features(self, matrix: Ball) -> Ball:
        """M C: every row minus its mean."""
        once = self._shifted(matrix, self.xp.mean(matrix.mid, axis=-1, keepdims=True))
        mean = sum_of(once.interval(), axis=-1) / self.number(matrix.mid.shape[-1])
        return once - Ball(*(self.xp.broadcast_to(x[:, None], once.mid.shape) for x in parts_of(Ball.of(mean))))

    def centre_tokens(self, matrix: Ball) -> Ball:
        """J M: every real row minus the mean of the real rows."""
        once = self._less(matrix, self._token_mean(matrix, self.real))
        mean = sum_of(once.interval(), axis=0) / self.tokens
        return once - Ball(*(x[None] * self.real for x in parts_of(Ball.of(mean))))

    def activation(self, matrix: Ball, name: str) -> Ball:
        """phi entry by entry; |phi(x)| <= |x| and |phi'| <= L."""
        value = self._function(name, matrix.mid)
        rounding = abs(matrix.mid) * (2 * FUNCTION_ULPS * epsilon(value)) + 4 * tiny(value)
        return Ball(fence(value), raised(raised(matrix.rad * (1.001 * LIPSCHITZ[name]) + rounding)))

    def layer_norm(self, matrix: Ball, gains: Ball, shift: Ball, stds: Interval) -> Ball:
        normed = self.scale_rows(self.centre_features(matrix), self.number(1.0) / stds)
        return self._real(self.add_row(self.scale_columns(normed, gains), shift))

    def _function(self, name: str, argument: ArrayLike) -> ArrayLike:
        if self.xp is not np:
            return ACTIVATIONS[name].function(argument)
        # jax would round numpy's float64 to float32 where 64 bits are not switched on.
        with jax.enable_x64(True):
            return np.asarray(ACTIVATIONS[name].function(jnp.asarray(argument)), self.dtype)

    def _less(self, matrix: Ball, row: ArrayLike) -> Ball:
        """M - 1 m^T on real tokens."""
        return self._real(self._shifted(matrix, row))

    def _shifted(self, matrix: Ball, vector: ArrayLike) -> Ball:
        """Less a vector of floating-point numbers that is the same wherever it is used."""
        shape = matrix.mid.shape
        return matrix - Ball(self.xp.broadcast_to(settled(vector), shape), self.xp.zeros(shape, self.dtype))

    def _token_mean(self, matrix: Ball, weights: ArrayLike) -> ArrayLike:
        whole = self.xp.sum(weights)
        return self.xp.sum(matrix.mid * weights, axis=0, keepdims=True) / self.xp.where(whole > 0, whole, 1)

    def _real(self, matrix: Ball) -> Ball:
        return Ball(matrix.mid * self.real, matrix.rad * self.real)

    def _full(self, value: Interval, shape: tuple[int, ...]) -> Interval:
        return Interval(*(self.xp.broadcast_to(end, shape) for end in (value.lower, value.upper)))


def ends_of(interval: Interval) -> tuple[ArrayLike, ArrayLike]:
    return interval.lower, interval.upper


def parts_of(ball: Ball) -> tuple[ArrayLike, ArrayLike]:
    return ball.mid, ball.rad
