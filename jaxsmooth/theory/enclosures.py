"""Enclosures of what the theorems speak of: distances, norms, standard deviations, coefficients, in floating point.

`FloatCalculus` evaluates a formula on floating-point data so that every result is an `Interval` or a `Ball` that
contains the exact value. It works on one sentence; batches are made by `jax.vmap`. `arb.ArbCalculus` has the same
methods in arbitrary precision, so that a formula written once is evaluated by either.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .activations import LIPSCHITZ
from .norms import decomposed_norm, squared_norm
from .rounding import (
    Ball,
    Interval,
    epsilon,
    fence,
    frobenius,
    fuzzy,
    gamma,
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
FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}


class FloatCalculus:
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

    def number(self, value: float | int) -> Interval:
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
        return Ball(*(self.xp.concatenate(parts, axis=1) for parts in zip(*map(_parts, matrices), strict=True)))

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
        return once - Ball(*(self.xp.broadcast_to(x[:, None], once.middle.shape) for x in _parts(Ball.of(mean))))

    def centre_tokens(self, matrix: Ball) -> Ball:
        """J M: every real row minus the mean of the real rows."""
        once = self._less(matrix, self._token_mean(matrix, self.real))
        mean = sum_of(once.interval(), axis=0) / self.tokens
        middle, radius = (x[None] * self.real for x in _parts(Ball.of(mean)))
        return once - Ball(middle, radius)

    def softmax(self, logits: Ball) -> Ball:
        """Rows of probabilities over real keys, zero on padded queries."""
        xp, keys = self.xp, self.mask[None]
        middle = xp.where(keys, logits.middle, -xp.inf)
        shifted = middle - xp.max(middle, axis=-1, keepdims=True)
        weights = xp.where(keys, xp.exp(shifted), 0)
        probs = weights / xp.sum(weights, axis=-1, keepdims=True)
        # Rounding of the shift and the radius of the logits move a probability by a factor of at most e^(2 slack).
        slack = xp.max(xp.where(keys, logits.radius + 4 * epsilon(middle) * abs(shifted), 0), axis=-1, keepdims=True)
        factor = 2.5 * slack + (2 * gamma(middle.shape[-1], middle) + 4 * FUNCTION_ULPS * epsilon(middle))
        # e^x - 1 <= 1.25 x only up to 0.4; beyond, a probability is known to lie in [0, 1] and no more.
        radius = xp.where(factor < 0.4, probs * (1.25 * factor) + 4 * tiny(middle), 1)
        return Ball(probs * self.real, raised(radius) * self.real * self.real.T)

    def activation(self, matrix: Ball, name: str) -> Ball:
        """phi entry by entry; |phi(x)| <= |x| and |phi'| <= L."""
        value = self._function(name, matrix.middle)
        rounding = abs(matrix.middle) * (2 * FUNCTION_ULPS * epsilon(value)) + 4 * tiny(value)
        return Ball(fence(value), raised(raised(matrix.radius * (1.001 * LIPSCHITZ[name]) + rounding)))

    def layer_norm(self, matrix: Ball, gains: Ball, shift: Ball, stds: Interval) -> Ball:
        normed = self.scale_rows(self.centre_features(matrix), self.number(1.0) / stds)
        return self._real(self.add_row(self.scale_columns(normed, gains), shift))

    def mix(self, attn: Ball, hidden: Ball, value: Ball, bias: Ball, output: Ball) -> Ball:
        """sum_h A_h (H V_h + 1 b_h) O_h, biases reaching real tokens only; [N T S], [N D H], [N 1 H], [N H D]."""
        spread = hidden @ value + Ball(self.real[None], self.xp.zeros_like(self.real[None])) @ bias
        by_head = attn @ spread @ output
        # Heads side by side in one row of a product: its rounding is bounded like that of any sum.
        found = sum_of(by_head.interval(), axis=0)
        return Ball.of(found)

    def side_by_side(self, attn: Ball) -> Ball:
        """[A_1 ... A_N], [T NS]."""
        tokens = attn.middle.shape[1]
        return Ball(*(x.transpose(1, 0, 2).reshape(tokens, -1) for x in _parts(attn)))

    def head_defects(self, attn: Ball, hidden: Ball, value: Ball, bias: Ball, output: Ball) -> Interval:
        """sum_h ||J (A_h 1 - 1)|| |(mean token V_h + b_h) O_h|."""
        mean = self.mean_row(hidden)
        rows = (mean @ value + bias) @ output

        def of_head(attn: Ball, row: Ball) -> Interval:
            return self.defect(attn) * self.frobenius(row)

        if self.xp is not np:
            return sum_of(jax.vmap(of_head)(attn, rows))
        pairs = zip(*_parts(attn), *_parts(rows), strict=True)
        found = [of_head(Ball(a, b), Ball(x, y)) for a, b, x, y in pairs]
        return sum_of(Interval(np.array([x.down for x in found]), np.array([x.up for x in found])))

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
        return Ball(*(x[None] for x in _parts(Ball.of(mean))))

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

    def laplacian(self, weights: Interval) -> Ball:
        """L_p = (1/n)[diag(p) sum(p) - p p^T], [T T]."""
        xp = self.xp
        weights = self._real_vector(weights)
        size = self.mask.shape[0]
        rows, columns = (
            Interval(*(xp.broadcast_to(end.reshape(shape), (size, size)) for end in (weights.down, weights.up)))
            for shape in ((size, 1), (1, size))
        )
        product = rows * columns
        apart = ~xp.eye(size, dtype=bool)
        off = Interval(*(xp.where(apart, end, 0) for end in (product.down, product.up)))
        row = sum_of(off, axis=-1)
        whole = self._full(self.number(1.0) / self.tokens, (size, size))
        diagonal = Interval(*(xp.where(apart, 0, end[:, None]) for end in (row.down, row.up)))
        return Ball.of((diagonal - off) * whole)

    def diameter(self, matrix: Ball) -> Interval:
        """max over pairs of real tokens of |m_i - m_j|, by one product: centred, the largest pair loses no digits."""
        xp, size = self.xp, self.mask.shape[0]
        once = self._less(matrix, self._token_mean(matrix, self.real))
        scale = Interval.exact(power_of_two(once.middle))
        scaled = self.scale(once, self.number(1.0) / scale)
        rows = sum_of(self._square(scaled.interval()), axis=-1)
        ends = [[xp.broadcast_to(end.reshape(s), (size, size)) for end in _ends(rows)] for s in ((size, 1), (1, size))]
        squares = Interval(*ends[0]) + Interval(*ends[1]) - self.scale(scaled @ scaled.T, self.number(2.0)).interval()
        both = self.mask[:, None] & self.mask[None]
        return Interval(*(xp.max(xp.where(both, end, 0)) for end in _ends(squares))).sqrt() * scale

    def ergodicity(self, attn: Ball) -> Interval:
        """tau(A) = 1/2 max_{i,k} sum_j |a_ij - a_kj| over real rows."""
        xp = self.xp

        def farthest(i: Any) -> tuple[Any, Any]:
            gap = attn - Ball(*(xp.broadcast_to(x[i][None], attn.middle.shape) for x in _parts(attn)))
            size = abs(gap.middle)
            apart = sum_of(Interval(xp.maximum(size - gap.radius, 0), raised(size + gap.radius)), axis=-1)
            both = self.mask & self.mask[i]
            return tuple(xp.max(xp.where(both, end, 0)) for end in (apart.down, apart.up))

        low, high = self._over_tokens(farthest)
        return Interval(xp.max(low), xp.max(high)) * self.number(0.5)

    def cross_ratio(self, attn: Ball) -> Interval:
        """min (a_ij' a_i'j) / (a_ij a_i'j') = e^-Delta, Delta of Birkhoff's theorem; 0 when only some vanish."""
        xp = self.xp
        low, high = xp.maximum(attn.middle - attn.radius, 0), attn.middle + attn.radius

        def smallest(i: Any) -> tuple[Any, Any]:
            found = []
            for over, under in ((low, high), (high, low)):
                ratios = []
                for above, below in ((over[i][None], under), (over, under[i][None])):
                    # Where both vanish, a key that nobody attends to, nothing is said about the rows.
                    known = self.mask[None] & ((above > 0) | (below > 0))
                    ratio = xp.where(below > 0, above / xp.where(below > 0, below, 1), xp.inf)
                    ratios.append(xp.min(xp.where(known, ratio, xp.inf), axis=-1))
                both = self.mask & self.mask[i]
                found.append(xp.min(xp.where(both, ratios[0] * ratios[1], 1)))
            return tuple(found)

        low_end, high_end = self._over_tokens(smallest)
        return Interval.around(xp.min(low_end), xp.min(high_end)).nonnegative()

    def entry_ratio(self, attn: Ball) -> Interval:
        """The least ratio of two entries of one row, min_i (min_j a_ij / max_j a_ij)."""
        xp = self.xp
        keys, rows = self.mask[None], self.mask
        ends = [xp.maximum(attn.middle - attn.radius, 0), attn.middle + attn.radius]
        least = [xp.min(xp.where(keys, end, xp.inf), axis=-1) for end in ends]
        most = [xp.max(xp.where(keys, end, 0), axis=-1) for end in ends]
        low, high = (a / xp.where(b > 0, b, 1) for a, b in zip(least, most[::-1], strict=True))
        return Interval.around(*(xp.min(xp.where(rows, end, 1)) for end in (low, high))).nonnegative()

    def logit_spread(self, logits: Ball) -> Interval:
        """Delta = max (l_ij + l_i'j' - l_ij' - l_i'j)."""
        xp = self.xp
        keys = self.mask[None]

        def widest(i: Any) -> tuple[Any, Any]:
            gap = (
                logits - Ball(*(xp.broadcast_to(x[i][None], logits.middle.shape) for x in _parts(logits)))
            ).interval()
            both = self.mask & self.mask[i]
            found = []
            for high, low in ((gap.down, gap.up), (gap.up, gap.down)):
                most = xp.max(xp.where(keys, high, -xp.inf), axis=-1)
                found.append(xp.max(xp.where(both, most - xp.min(xp.where(keys, low, xp.inf), axis=-1), 0)))
            return tuple(found)

        low, high = self._over_tokens(widest)
        return Interval.around(xp.max(low), xp.max(high)).nonnegative()

    def row_defect(self, attn: Ball) -> Interval:
        """max over real rows of |sum_j a_ij - 1|."""
        off = self._row_sums(attn)
        return Interval(self.number(0.0).down, self.xp.max(self.xp.maximum(-off.down, off.up) * self.real[:, 0]))

    def defect(self, attn: Ball) -> Interval:
        """||J (A 1 - 1)||: what float rows that do not sum to exactly 1 add to Lemma 1(4), per size of the mean."""
        off = Ball.of(self._row_sums(attn))
        return self.distance(Ball(off.middle[:, None], off.radius[:, None]))

    def tanh(self, value: Interval) -> Interval:
        xp = self.xp
        ulps = 2 * FUNCTION_ULPS * epsilon(value.down)
        low, high = xp.tanh(value.down) * (1 - ulps), xp.tanh(value.up) * (1 + ulps)
        return Interval.around(low, xp.minimum(high, 1)).nonnegative()

    # Parts

    def _function(self, name: str, argument: Any) -> Any:
        if self.xp is not np:
            return FUNCTIONS[name](argument)
        # jax would round numpy's float64 to float32 where 64 bits are not switched on.
        with jax.enable_x64(True):
            return np.asarray(FUNCTIONS[name](jnp.asarray(argument)), self.dtype)

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

    def _row_sums(self, attn: Ball) -> Interval:
        """sum_j a_ij - 1 of real rows, 0 on padding."""
        off = sum_of(attn.interval(), axis=-1) - self.number(1.0)
        real = self.real[:, 0]
        return Interval(off.down * real, off.up * real)

    def _real(self, matrix: Ball) -> Ball:
        return Ball(matrix.middle * self.real, matrix.radius * self.real)

    def _real_vector(self, values: Interval) -> Interval:
        return Interval(*(self.xp.where(self.mask, end, 0) for end in (values.down, values.up)))

    def _full(self, value: Interval, shape: tuple[int, ...]) -> Interval:
        return Interval(*(self.xp.broadcast_to(end, shape) for end in (value.down, value.up)))

    def _square(self, values: Interval) -> Interval:
        return (values * values).nonnegative()

    def _over_tokens(self, function: Callable[[Any], tuple[Any, Any]]) -> tuple[Any, Any]:
        """One token against all others at a time: memory stays that of one matrix."""
        places = self.xp.arange(self.mask.shape[0])
        if self.xp is np:
            low, high = zip(*map(function, places), strict=True)
            return np.array(low), np.array(high)
        return jax.lax.map(function, places)

    def _spectral(self, matrix: Any) -> Interval:
        return squared_norm(matrix)


class HostCalculus(FloatCalculus):
    """The same on the host, with sharper spectral norms."""

    def _spectral(self, matrix: Any) -> Interval:
        return decomposed_norm(matrix)


def _ends(interval: Interval) -> tuple[Any, Any]:
    return interval.down, interval.up


def _parts(ball: Ball) -> tuple[Any, Any]:
    return ball.middle, ball.radius
