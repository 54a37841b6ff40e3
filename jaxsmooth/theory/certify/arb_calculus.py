"""The oracle: the methods of `FloatCalculus` in arbitrary precision, by Arb's ball arithmetic. Host only, slow, exact.

A number is an `arb`, a vector a numpy array of them, a matrix an `arb_mat`; every operation encloses its result, so
what it decides needs no trust in this library's rounding analysis. Real tokens only: there is no mask.

References: Johansson (2017), Arb: efficient arbitrary-precision midpoint-radius interval arithmetic.
"""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flint import arb, arb_mat, ctx

from ...linalg.intervals import Interval

BITS = 300
# Each squaring doubles the power at the price of about a bit: the norm is then known to 1e-24 or so.
SQUARINGS = 80
LARGEST_NORM = 160  # rows: beyond, a spectral norm takes minutes


class ArbCalculus:
    """Formulas on one sentence without padding, at `BITS` bits."""

    def __init__(self, tokens: int) -> None:
        # python-flint keeps one precision for the process.
        ctx.prec = BITS
        self.tokens = arb(tokens)

    # Data in

    def matrix(self, array: Any) -> Any:
        if np.ndim(array) == 3:
            return [self.matrix(head) for head in array]
        rows = np.asarray(array, np.float64).tolist()
        return arb_mat([[arb(x) for x in row] for row in rows])

    weight = matrix

    def number(self, value: float | int) -> Any:
        return arb(value)

    def lift(self, known: Interval) -> Any:
        """An enclosure found in floating point; arrays become arrays of numbers."""
        down, up = np.asarray(known.down, np.float64), np.asarray(known.up, np.float64)
        if down.ndim == 0:
            return _between(float(down), float(up))
        return _vector([self.lift(Interval(low, high)) for low, high in zip(down, up, strict=True)])

    # Matrices

    def matmul(self, x: Any, y: Any) -> Any:
        return x * y

    def add(self, x: Any, y: Any) -> Any:
        return x + y

    def transpose(self, matrix: Any) -> Any:
        return matrix.transpose()

    def scale(self, matrix: Any, factor: Any) -> Any:
        return matrix * factor

    def scale_columns(self, matrix: Any, gains: Any) -> Any:
        (row,) = gains.table()
        return arb_mat([[x * g for x, g in zip(line, row, strict=True)] for line in matrix.table()])

    def scale_rows(self, matrix: Any, factors: Any) -> Any:
        return arb_mat([[x * f for x in line] for line, f in zip(matrix.table(), factors, strict=True)])

    def add_row(self, matrix: Any, row: Any) -> Any:
        (added,) = row.table()
        return arb_mat([[x + y for x, y in zip(line, added, strict=True)] for line in matrix.table()])

    def identity(self, size: int) -> Any:
        return self.matrix(np.eye(size))

    def centre_features(self, matrix: Any) -> Any:
        lines = matrix.table()
        means = [sum(line, arb(0)) / len(line) for line in lines]
        return arb_mat([[x - mean for x in line] for line, mean in zip(lines, means, strict=True)])

    def centre_tokens(self, matrix: Any) -> Any:
        return self.centre_features(matrix.transpose()).transpose()

    def softmax(self, logits: Any) -> Any:
        rows = []
        for line in logits.table():
            weights = [(x - line[0]).exp() for x in line]
            rows.append([w / sum(weights, arb(0)) for w in weights])
        return arb_mat(rows)

    def activation(self, matrix: Any, function: str) -> Any:
        return arb_mat([[FUNCTIONS[function](x) for x in line] for line in matrix.table()])

    def layer_norm(self, matrix: Any, gains: Any, shift: Any, stds: Any) -> Any:
        normed = self.scale_rows(self.centre_features(matrix), 1 / stds)
        return self.add_row(self.scale_columns(normed, gains), shift)

    def mix(self, attn: Any, hidden: Any, value: Any, bias: Any, output: Any) -> Any:
        heads = zip(attn, value, bias, output, strict=True)
        found = [a * self.add_row(hidden * v, b) * o for a, v, b, o in heads]
        return sum(found[1:], found[0])

    def side_by_side(self, attn: Any) -> Any:
        return arb_mat([list(itertools.chain(*lines)) for lines in zip(*(head.table() for head in attn), strict=True)])

    def head_defects(self, attn: Any, hidden: Any, value: Any, bias: Any, output: Any) -> Any:
        mean = self.mean_row(hidden)
        heads = zip(attn, value, bias, output, strict=True)
        return sum((self.defect(a) * self.frobenius((mean * v + b) * o) for a, v, b, o in heads), arb(0))

    def sum_over_heads(self, function: Callable[[Any], tuple[Any, Any]], heads: Any) -> tuple[Any, Any]:
        count = len(jax.tree.leaves(heads)[0])
        found = [function(jax.tree.map(lambda leaf, h=h: leaf[h], heads)) for h in range(count)]
        matrices, numbers = zip(*found, strict=True)
        return sum(matrices[1:], matrices[0]), sum(numbers, arb(0))

    # Numbers

    def hull(self, low: Any, high: Any) -> Any:
        return low.union(high)

    def sqrt(self, value: Any) -> Any:
        return value.max(arb(0)).sqrt()

    def frobenius(self, matrix: Any) -> Any:
        return self.sqrt(_squares(matrix))

    def distance(self, matrix: Any) -> Any:
        return self.frobenius(self.centre_tokens(matrix))

    def pair_distance(self, matrix: Any, weights: Any) -> Any:
        lines, found = matrix.table(), arb(0)
        for i in range(len(lines)):
            for j in range(i):
                found += weights[i] * weights[j] * _gap(lines[i], lines[j])
        return self.sqrt(found / self.tokens)

    def norm(self, matrix: Any) -> Any:
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

    def largest_entry(self, matrix: Any) -> Any:
        return _extreme([abs(x) for line in matrix.table() for x in line])

    def mean_row(self, matrix: Any) -> Any:
        lines = matrix.transpose().table()
        return arb_mat([[sum(line, arb(0)) / len(line) for line in lines]])

    def stds(self, matrix: Any, eps: float) -> Any:
        lines = self.centre_features(matrix).table()
        return _vector([self.sqrt(sum((x * x for x in line), arb(0)) / len(line) + arb(eps)) for line in lines])

    def least(self, values: Any, count: int = 1) -> Any:
        rest, product = list(values), arb(1)
        for _ in range(count):
            product *= -_extreme([-x for x in rest])
            rest.remove(min(rest, key=lambda x: float(x.mid())))
        return product

    def largest(self, values: Any) -> Any:
        return _extreme(list(values))

    def smaller(self, *values: Any) -> Any:
        return -_extreme([-x for x in values])

    def sum(self, values: Any) -> Any:
        return sum(values, arb(0))

    def laplacian(self, weights: Any) -> Any:
        whole = sum(weights, arb(0))
        return arb_mat(
            [
                [(p * (whole - p) if i == j else -p * q) / self.tokens for j, q in enumerate(weights)]
                for i, p in enumerate(weights)
            ]
        )

    def diameter(self, matrix: Any) -> Any:
        lines = matrix.table()
        return self.sqrt(_extreme([_gap(x, y) for x in lines for y in lines]))

    def ergodicity(self, attn: Any) -> Any:
        lines = attn.table()
        return (
            _extreme([sum((abs(a - b) for a, b in zip(x, y, strict=True)), arb(0)) for x in lines for y in lines]) / 2
        )

    def cross_ratio(self, attn: Any) -> Any:
        lines, found = attn.table(), [arb(1)]
        for x in lines:
            for y in lines:
                known = [(a, b) for a, b in zip(x, y, strict=True) if a != 0 or b != 0]
                if any(a == 0 or b == 0 for a, b in known):
                    return arb(0)
                found.append(-_extreme([-a / b for a, b in known]) * -_extreme([-b / a for a, b in known]))
        return -_extreme([-x for x in found])

    def entry_ratio(self, attn: Any) -> Any:
        return -_extreme([_extreme([-x for x in line]) / _extreme(line) for line in attn.table()])

    def logit_spread(self, logits: Any) -> Any:
        lines = logits.table()
        found = []
        for x in lines:
            for y in lines:
                gaps = [a - b for a, b in zip(x, y, strict=True)]
                found.append(_extreme(gaps) + _extreme([-gap for gap in gaps]))
        return _extreme(found)

    def row_defect(self, attn: Any) -> Any:
        return _extreme([abs(sum(line, arb(-1))) for line in attn.table()])

    def defect(self, attn: Any) -> Any:
        return self.distance(arb_mat([[sum(line, arb(-1))] for line in attn.table()]))

    def tanh(self, value: Any) -> Any:
        return value.tanh()


FUNCTIONS = {
    "relu": lambda x: x.max(arb(0)),
    "gelu": lambda x: x * (1 + (x / arb(2).sqrt()).erf()) / 2,
    "gelu_tanh": lambda x: x * (1 + ((2 / arb.pi()).sqrt() * (x + arb("0.044715") * x * x * x)).tanh()) / 2,
    "silu": lambda x: x / (1 + (-x).exp()),
}


def ends(value: Any) -> tuple[float, float]:
    """Floating-point ends of an `arb`: at or outside its own."""
    if not value.is_finite():
        return -np.inf, np.inf
    low, high = float(value.lower()), float(value.upper())
    return float(np.nextafter(low, -np.inf)), float(np.nextafter(high, np.inf))


def _between(low: float, high: float) -> Any:
    return arb(low).union(arb(high)) if np.isfinite(low) and np.isfinite(high) else arb("nan")


def _vector(values: list[Any]) -> Any:
    found = np.empty(len(values), object)
    found[:] = values
    return found


def _extreme(values: list[Any]) -> Any:
    found = values[0]
    for value in values[1:]:
        found = found.max(value)
    return found


def _squares(matrix: Any) -> Any:
    return sum((x * x for line in matrix.table() for x in line), arb(0))


def _gap(x: list[Any], y: list[Any]) -> Any:
    gaps = [a - b for a, b in zip(x, y, strict=True)]
    # Not a power: that of a ball around zero is not a number.
    return sum((gap * gap for gap in gaps), arb(0))
