"""The oracle: the methods of `FloatCalculus` in arbitrary precision, by Arb's ball arithmetic. Host only, slow, exact.

A number is an `arb`, a vector a numpy array of them, a matrix an `arb_mat`; every operation encloses its result, so
what it decides needs no trust in this library's rounding analysis. Real tokens only: there is no mask.

References: Johansson (2017), Arb: efficient arbitrary-precision midpoint-radius interval arithmetic.
"""

import numpy as np
from flint import arb, arb_mat

from ..theorems.calculus import ArrayLike, Heads
from .arb_matrices import ArbMatrices, Matrix, Number, vector

# Each squaring doubles the power at the price of about a bit: the norm is then known to 1e-24 or so.
SQUARINGS = 80
LARGEST_NORM = 160  # rows: beyond, a spectral norm takes minutes


class ArbCalculus(ArbMatrices):
    """Numbers computed from matrices."""

    def hull(self, low: Number, high: Number) -> Number:
        return low.union(high)

    def sqrt(self, value: Number) -> Number:
        return value.max(arb(0)).sqrt()

    def frobenius(self, matrix: Matrix) -> Number:
        return self.sqrt(_squares(matrix))

    def distance(self, matrix: Matrix) -> Number:
        return self.frobenius(self.centre_tokens(matrix))

    def pair_distance(self, matrix: Matrix, weights: Number) -> Number:
        lines, found = matrix.table(), arb(0)
        for i in range(len(lines)):
            for j in range(i):
                found += weights[i] * weights[j] * _gap(lines[i], lines[j])
        return self.sqrt(found / self.tokens)

    def norm(self, matrix: Matrix) -> Number:
        """(trace(G^p) / n)^(1/p) <= ||M||^2 <= trace(G^p)^(1/p), G the Gram matrix, p = 2^SQUARINGS."""
        if matrix.nrows() > matrix.ncols():
            matrix = matrix.transpose()
        size = matrix.nrows()
        if size > LARGEST_NORM:
            raise ValueError(f"a norm of {size} rows takes too long in Arb; the most is {LARGEST_NORM}.")
        power = matrix * matrix.transpose()
        logarithm = arb(0)
        for _ in range(SQUARINGS):
            trace = power.trace().max(arb(0))
            if not trace > 0:
                # Nothing is known but a bound: zero, or next to it.
                return arb(0).union(self.frobenius(matrix))
            power = power * (1 / trace)
            # In units of the whole power: log of the largest eigenvalue, doubled with every squaring.
            logarithm = 2 * (logarithm + trace.log())
            power = power * power
        trace = power.trace().max(arb(0))
        exponent = arb(2) ** SQUARINGS
        if not trace > 0:
            return arb(0).union(self.frobenius(matrix))
        low = (logarithm + (trace / size).log()) / exponent
        high = (logarithm + trace.log()) / exponent
        return low.union(high).exp().sqrt()

    def stds(self, matrix: Matrix, eps: float) -> Number:
        lines = self.centre_features(matrix).table()
        return vector([self.sqrt(sum((x * x for x in line), arb(0)) / len(line) + arb(eps)) for line in lines])

    def least(self, values: Number, count: int = 1) -> Number:
        # Whatever the numbers are, their k-th smallest lies between the k-th smallest of the ends.
        lows, highs = sorted(x.lower() for x in values), sorted(x.upper() for x in values)
        product = arb(1)
        # Of fewer numbers than `count` the least takes the place of those that are missing.
        for place in [*range(min(count, len(lows))), *[0] * (count - len(lows))]:
            product *= lows[place].union(highs[place])
        return product

    def mixing_norm(self, attn: Heads) -> Number:
        return self.norm(self.centre_tokens(self.side_by_side(attn)))

    def pair_weight(self, weights: Number) -> Number:
        return self.sqrt(self.norm(self.laplacian(weights)))

    def gain(self, scale: ArrayLike) -> Number:
        return arb(float(np.max(np.abs(scale))))

    def largest(self, values: Number) -> Number:
        return _extreme(list(values))

    def smaller(self, *values: Number) -> Number:
        return -_extreme([-x for x in values])

    def sum(self, values: Number) -> Number:
        return sum(values, arb(0))

    def laplacian(self, weights: Number) -> Matrix:
        whole = sum(weights, arb(0))
        return arb_mat(
            [
                [(p * (whole - p) if i == j else -p * q) / self.tokens for j, q in enumerate(weights)]
                for i, p in enumerate(weights)
            ]
        )

    def diameter(self, matrix: Matrix) -> Number:
        lines = matrix.table()
        return self.sqrt(_extreme([_gap(x, y) for x in lines for y in lines]))

    def ergodicity(self, attn: Matrix) -> Number:
        lines = attn.table()
        return (
            _extreme([sum((abs(a - b) for a, b in zip(x, y, strict=True)), arb(0)) for x in lines for y in lines]) / 2
        )

    def cross_ratio(self, attn: Matrix) -> Number:
        lines, found = attn.table(), [arb(1)]
        for x in lines:
            for y in lines:
                known = [(a, b) for a, b in zip(x, y, strict=True) if a != 0 or b != 0]
                if any(a == 0 or b == 0 for a, b in known):
                    return arb(0)
                found.append(-_extreme([-a / b for a, b in known]) * -_extreme([-b / a for a, b in known]))
        return -_extreme([-x for x in found])

    def entry_ratio(self, attn: Matrix) -> Number:
        return -_extreme([_extreme([-x for x in line]) / _extreme(line) for line in attn.table()])

    def received(self, attn: Matrix) -> Number:
        return vector([sum(line, arb(0)) / self.tokens for line in attn.transpose().table()])

    def logit_spread(self, logits: Matrix) -> Number:
        lines = logits.table()
        found = []
        for x in lines:
            for y in lines:
                gaps = [a - b for a, b in zip(x, y, strict=True)]
                found.append(_extreme(gaps) + _extreme([-gap for gap in gaps]))
        return _extreme(found)

    def row_defect(self, attn: Matrix) -> Number:
        return _extreme([abs(sum(line, arb(-1))) for line in attn.table()])

    def defect(self, attn: Matrix) -> Number:
        return self.distance(arb_mat([[sum(line, arb(-1))] for line in attn.table()]))

    def tanh(self, value: Number) -> Number:
        return value.tanh()

    def head_defects(self, attn: Heads, hidden: Matrix, value: Heads, bias: Heads, output: Heads) -> Number:
        mean = self.mean_row(hidden)
        heads = zip(attn, value, bias, output, strict=True)
        return sum((self.defect(a) * self.frobenius((mean * v + b) * o) for a, v, b, o in heads), arb(0))


def ends(value: Number) -> tuple[float, float]:
    """Floating-point ends of an `arb`: at or outside its own."""
    if not value.is_finite():
        return -np.inf, np.inf
    low, high = float(value.lower()), float(value.upper())
    return float(np.nextafter(low, -np.inf)), float(np.nextafter(high, np.inf))


def _extreme(values: list[Number]) -> Number:
    found = values[0]
    for value in values[1:]:
        found = found.max(value)
    return found


def _squares(matrix: Matrix) -> Number:
    return sum((x * x for line in matrix.table() for x in line), arb(0))


def _gap(x: list[Number], y: list[Number]) -> Number:
    gaps = [a - b for a, b in zip(x, y, strict=True)]
    # Not a power: that of a ball around zero is not a number.
    return sum((gap * gap for gap in gaps), arb(0))
