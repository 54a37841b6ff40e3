"""Matrices in arbitrary precision, by Arb's ball arithmetic: data, products, centring, attention. Host only."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flint import arb, arb_mat, ctx

from ...linalg.intervals import Interval
from ..statement import Statement
from ..theorems.calculus import ArrayLike, Heads

BITS = 300
Matrix = Any  # an `arb_mat`, or a list of them by head: python-flint has no types
Number = Any  # an `arb`, or a vector: a numpy array of them


class ArbMatrices:
    """Formulas on one sentence without padding, at `BITS` bits."""

    def __init__(self, tokens: int) -> None:
        # python-flint keeps one precision for the process.
        ctx.prec = BITS
        self.tokens = arb(tokens)

    def matrix(self, array: ArrayLike) -> Matrix:
        if np.ndim(array) == 3:
            return [self.matrix(head) for head in array]
        return arb_mat(np.asarray(array, np.float64).tolist())

    weight = matrix

    def number(self, value: float | int) -> Number:
        return arb(value)

    def lift(self, known: Interval) -> Number:
        """An enclosure found in floating point; arrays become arrays of numbers."""
        down, up = np.asarray(known.lower, np.float64), np.asarray(known.upper, np.float64)
        if down.ndim == 0:
            return _between(float(down), float(up))
        return vector([self.lift(Interval(low, high)) for low, high in zip(down, up, strict=True)])

    def matmul(self, x: Matrix, y: Matrix) -> Matrix:
        return x * y

    def add(self, x: Matrix, y: Matrix) -> Matrix:
        return x + y

    def transpose(self, matrix: Matrix) -> Matrix:
        return matrix.transpose()

    def scale(self, matrix: Matrix, factor: Number) -> Matrix:
        return matrix * factor

    def scale_columns(self, matrix: Matrix, gains: Matrix) -> Matrix:
        (row,) = gains.table()
        return arb_mat([[x * g for x, g in zip(line, row, strict=True)] for line in matrix.table()])

    def scale_rows(self, matrix: Matrix, factors: Number) -> Matrix:
        return arb_mat([[x * f for x in line] for line, f in zip(matrix.table(), factors, strict=True)])

    def add_row(self, matrix: Matrix, row: Matrix) -> Matrix:
        (added,) = row.table()
        return arb_mat([[x + y for x, y in zip(line, added, strict=True)] for line in matrix.table()])

    def centre_features(self, matrix: Matrix) -> Matrix:
        lines = matrix.table()
        means = [sum(line, arb(0)) / len(line) for line in lines]
        return arb_mat([[x - mean for x in line] for line, mean in zip(lines, means, strict=True)])

    def centre_tokens(self, matrix: Matrix) -> Matrix:
        return self.centre_features(matrix.transpose()).transpose()

    def alike(self, array: ArrayLike) -> ArrayLike:
        array = np.asarray(array)
        return (array == array[..., :1, :]).all(axis=(-2, -1))

    def zero_where(self, known: ArrayLike, statement: Statement[Number]) -> Statement[Number]:
        lhs, rhs, applicable = statement
        return Statement(arb(0) if known else lhs, rhs, applicable)

    def softmax(self, logits: Matrix) -> Matrix:
        rows = []
        for line in logits.table():
            weights = [(x - line[0]).exp() for x in line]
            rows.append([w / sum(weights, arb(0)) for w in weights])
        return arb_mat(rows)

    def activation(self, matrix: Matrix, function: str) -> Matrix:
        return arb_mat([[FUNCTIONS[function](x) for x in line] for line in matrix.table()])

    def layer_norm(self, matrix: Matrix, gains: Matrix, shift: Matrix, stds: Number) -> Matrix:
        normed = self.scale_rows(self.centre_features(matrix), 1 / stds)
        return self.add_row(self.scale_columns(normed, gains), shift)

    def mix(self, attn: Matrix, hidden: Matrix, value: Matrix, bias: Matrix, output: Matrix) -> Matrix:
        heads = zip(attn, value, bias, output, strict=True)
        found = [a * self.add_row(hidden * v, b) * o for a, v, b, o in heads]
        return sum(found[1:], found[0])

    def side_by_side(self, attn: Matrix) -> Matrix:
        return arb_mat([list(itertools.chain(*lines)) for lines in zip(*(head.table() for head in attn), strict=True)])

    def sum_over_heads(self, function: Callable[[Heads], tuple[Matrix, Number]], heads: Heads) -> tuple[Matrix, Number]:
        count = len(jax.tree.leaves(heads)[0])
        found = [function(jax.tree.map(lambda leaf, h=h: leaf[h], heads)) for h in range(count)]
        matrices, numbers = zip(*found, strict=True)
        return sum(matrices[1:], matrices[0]), sum(numbers, arb(0))

    def mean_row(self, matrix: Matrix) -> Matrix:
        lines = matrix.transpose().table()
        return arb_mat([[sum(line, arb(0)) / len(line) for line in lines]])


FUNCTIONS = {
    "relu": lambda x: x.max(arb(0)),
    "gelu": lambda x: x * (1 + (x / arb(2).sqrt()).erf()) / 2,
    "gelu_tanh": lambda x: x * (1 + ((2 / arb.pi()).sqrt() * (x + arb("0.044715") * x * x * x)).tanh()) / 2,
    "silu": lambda x: x / (1 + (-x).exp()),
}


def _between(low: float, high: float) -> Number:
    return arb(low).union(arb(high)) if np.isfinite(low) and np.isfinite(high) else arb("nan")


def vector(values: list[Number]) -> Number:
    """An array of numbers."""
    found = np.empty(len(values), object)
    found[:] = values
    return found
