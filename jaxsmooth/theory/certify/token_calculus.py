"""Enclosures of what the theorems say about token vectors: distances, norms, standard deviations.

`float_calculus.FloatCalculus` adds attention. Proofs are in docs/certify.md.
"""

from ...linalg.enclosed_norms import squared_norm
from ...linalg.intervals import Ball, Interval, epsilon, frobenius, fuzzy, power_of_two, sum_of, sum_of_squares
from ..theorems.calculus import ArrayLike
from .matrix_calculus import FUNCTION_ULPS, MatrixCalculus, parts_of


class TokenCalculus(MatrixCalculus):
    """Numbers computed from token vectors."""

    def sqrt(self, value: Interval) -> Interval:
        return value.sqrt()

    def hull(self, low: Interval, high: Interval) -> Interval:
        """A number between two."""
        return Interval(low.lower, high.upper)

    def frobenius(self, matrix: Ball) -> Interval:
        return frobenius(matrix)

    def distance(self, matrix: Ball) -> Interval:
        """d_M = ||J M||_F, without cancellation however large the mean.

        For ANY vector m, d_M^2 = ||M - 1 m^T||^2 - |column sums of M - 1 m^T|^2 / n, and M - 1 m^T has entrywise
        relative errors. What of it is uncertain counts once, because J is a projection.
        """
        once = self._less(matrix, self._token_mean(matrix, self.real))
        square, scale = sum_of_squares(once.mid)
        columns = sum_of(Interval.exact(once.mid * (1 / scale)), axis=0)
        sums = self._square(columns)
        between = sum_of(sums, axis=0) / self.tokens
        return fuzzy((square - between).sqrt() * Interval.exact(scale), once.rad)

    def pair_distance(self, matrix: Ball, weights: Interval) -> Interval:
        """[(1/n) sum_{i<j} p_i p_j |m_i - m_j|^2]^(1/2); with p = 1 it is the distance."""
        weights = self._real_vector(weights)
        middle = (0.5 * weights.lower + 0.5 * weights.upper)[:, None]
        once = self._less(matrix, self._token_mean(matrix, middle))
        scale = Interval.exact(power_of_two(once.mid))
        scaled = self.scale(once, self.number(1.0) / scale)
        rows = sum_of(self._square(scaled.interval()), axis=-1)
        known = Ball.of(weights)
        mean = Ball(known.mid[None], known.rad[None]) @ scaled
        spread = sum_of(weights) * sum_of(weights * rows) - sum_of(self._square(mean.interval()))
        return (spread / self.tokens).sqrt() * scale

    def norm(self, matrix: Ball) -> Interval:
        """||M||, the largest singular value."""
        return fuzzy(self._spectral(matrix.mid), matrix.rad)

    def mean_row(self, matrix: Ball) -> Ball:
        """The mean token, [1 D]."""
        mean = sum_of(matrix.interval(), axis=0) / self.tokens
        return Ball(*(x[None] for x in parts_of(Ball.of(mean))))

    def stds(self, matrix: Ball, eps: float) -> Interval:
        """The standard deviation of every token, sqrt(variance + eps), [T]; 1 on padding."""
        centred = self.centre_features(matrix)
        square = sum_of(self._square(centred.interval()), axis=-1) / self.number(matrix.mid.shape[-1])
        found = (square + self.number(eps)).sqrt()
        return Interval(*(self.xp.where(self.mask, end, 1) for end in (found.lower, found.upper)))

    def least(self, values: Interval, count: int = 1) -> Interval:
        """The product of the `count` smallest of the real tokens' values."""
        xp = self.xp
        low = xp.where(xp.isnan(values.lower), -xp.inf, values.lower)
        smallest = [xp.sort(xp.where(self.mask, end, xp.inf))[:count] for end in (low, values.upper)]
        product = Interval(smallest[0][0], smallest[1][0])
        for place in range(1, len(smallest[0])):  # one token has no second
            product = product * Interval(smallest[0][place], smallest[1][place])
        return product

    def largest(self, values: Interval) -> Interval:
        return Interval(self.xp.max(values.lower), self.xp.max(values.upper))

    def smaller(self, *values: Interval) -> Interval:
        xp = self.xp
        low, high = values[0].lower, values[0].upper
        for value in values[1:]:
            low, high = xp.minimum(low, value.lower), xp.minimum(high, value.upper)
        return Interval(low, high)

    def sum(self, values: Interval) -> Interval:
        return sum_of(values)

    def tanh(self, value: Interval) -> Interval:
        xp = self.xp
        ulps = 2 * FUNCTION_ULPS * epsilon(value.lower)
        low, high = xp.tanh(value.lower) * (1 - ulps), xp.tanh(value.upper) * (1 + ulps)
        return Interval.around(low, xp.minimum(high, 1)).nonnegative()

    def _real_vector(self, values: Interval) -> Interval:
        return Interval(*(self.xp.where(self.mask, end, 0) for end in (values.lower, values.upper)))

    def _square(self, values: Interval) -> Interval:
        return (values * values).nonnegative()

    def _spectral(self, matrix: ArrayLike) -> Interval:
        return squared_norm(matrix)
