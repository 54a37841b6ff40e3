"""What a theorem may be written in: the operations that plain arrays, float enclosures and Arb have in common.

A theorem's text is one function of quantities that a `Calculus` computes. Three calculi evaluate it:

=================  ======================  ====================  =============================================
calculus           a matrix ``M``          a number ``N``        evaluates
=================  ======================  ====================  =============================================
`PlainCalculus`    an array [B T D]        an array [B]          a batch on the device, to rounding; `diagnose`
`FloatCalculus`    a `Ball` [T D]          an `Interval`         one sentence, enclosed; `verify`, first stages
`ArbCalculus`      an `arb_mat` [T D]      an `arb`              one sentence, enclosed; `verify`, last stage
=================  ======================  ====================  =============================================

A vector of numbers, one per token or head, has the type of a number. Matrices of all heads have a leading axis N.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, runtime_checkable

from ...linalg.intervals import Interval
from ..statement import Statement

ArrayLike = Any  # numpy or jax
Heads = Any  # a pytree of arrays with a leading axis N


Same = TypeVar("Same")


@runtime_checkable
class Number(Protocol):
    """A number, or a vector of them."""

    def __add__(self: Same, other: Same, /) -> Same: ...
    def __sub__(self: Same, other: Same, /) -> Same: ...
    def __mul__(self: Same, other: Same, /) -> Same: ...
    def __truediv__(self: Same, other: Same, /) -> Same:
        """By something positive."""
        ...


M = TypeVar("M")
N = TypeVar("N", bound=Number)


@runtime_checkable
class Calculus(Protocol[M, N]):
    """Formulas on one sentence (plain arrays: on each of a batch), over its real tokens alone."""

    tokens: N
    """n, how many tokens are real."""

    def matrix(self, array: ArrayLike, /) -> M:
        """Given exactly; token-wise data must vanish on padding."""
        ...

    def weight(self, array: ArrayLike, /) -> M:
        """The same of what all sentences share."""
        ...

    def number(self, value: float, /) -> N: ...
    def lift(self, known: Interval, /) -> N:
        """A number, or a vector of them, that was enclosed elsewhere."""
        ...

    def matmul(self, x: M, y: M, /) -> M: ...
    def add(self, x: M, y: M, /) -> M: ...
    def transpose(self, matrix: M, /) -> M: ...
    def scale(self, matrix: M, factor: N, /) -> M: ...
    def add_row(self, matrix: M, row: M, /) -> M:
        """One row, [1 D], onto every real token."""
        ...

    def centre_features(self, matrix: M, /) -> M:
        """M C."""
        ...

    def centre_tokens(self, matrix: M, /) -> M:
        """J M."""
        ...

    def mean_row(self, matrix: M, /) -> M:
        """The mean token, [1 D]."""
        ...

    def softmax(self, logits: M, /) -> M:
        """Row by row over real keys."""
        ...

    def activation(self, matrix: M, name: str, /) -> M: ...
    def layer_norm(self, matrix: M, gains: M, shift: M, stds: N, /) -> M: ...
    def mix(self, attn: M, hidden: M, value: M, bias: M, output: M, /) -> M:
        """sum_h A_h (H V_h + 1 b_h) O_h."""
        ...

    def sum_over_heads(self, function: Callable[[Heads], tuple[M, N]], heads: Heads, /) -> tuple[M, N]:
        """The sums of a matrix and of a number that a function of one head gives."""
        ...

    def alike(self, array: ArrayLike, /) -> ArrayLike:
        """Whether all real tokens have the same row, bit by bit, of data given exactly."""
        ...

    def zero_where(self, known: ArrayLike, statement: Statement[N], /) -> Statement[N]:
        """With a left side of exactly 0 where that is known without computing it; sides are at least 0."""
        ...

    def sqrt(self, value: N, /) -> N: ...
    def tanh(self, value: N, /) -> N: ...
    def sum(self, values: N, /) -> N:
        """Of a vector."""
        ...

    def largest(self, values: N, /) -> N:
        """Of a vector."""
        ...

    def smaller(self, *values: N) -> N:
        """The least of several numbers."""
        ...

    def least(self, values: N, count: int = 1, /) -> N:
        """The product of the `count` smallest values of real tokens."""
        ...

    def hull(self, low: N, high: N, /) -> N:
        """A number between two; plain arrays have no such thing and take the upper one."""
        ...

    def frobenius(self, matrix: M, /) -> N: ...
    def norm(self, matrix: M, /) -> N:
        """The largest singular value."""
        ...

    def mixing_norm(self, attn: M, /) -> N:
        """||J [A_1 ... A_N]||."""
        ...

    def distance(self, matrix: M, /) -> N:
        """d_M = ||J M||_F."""
        ...

    def pair_distance(self, matrix: M, weights: N, /) -> N:
        """[(1/n) sum_{i<j} p_i p_j |m_i - m_j|^2]^(1/2)."""
        ...

    def pair_weight(self, weights: N, /) -> N:
        """lambda_max(L_p)^(1/2), L_p = (1/n)[diag(p) sum(p) - p p^T]."""
        ...

    def diameter(self, matrix: M, /) -> N:
        """The largest distance of two tokens."""
        ...

    def stds(self, matrix: M, eps: float, /) -> N:
        """sqrt(variance + eps) of every token, [T]."""
        ...

    def gain(self, scale: ArrayLike, /) -> N:
        """max |scale|."""
        ...

    def ergodicity(self, attn: M, /) -> N:
        """tau(A)."""
        ...

    def cross_ratio(self, attn: M, /) -> N:
        """e^-Delta, Delta of Birkhoff's theorem; 0 where only one of two weights vanishes."""
        ...

    def entry_ratio(self, attn: M, /) -> N:
        """The least ratio of two entries of one row."""
        ...

    def received(self, attn: M, /) -> N:
        """(1/n) sum_i a_ij, the attention that every key receives on average, a vector."""
        ...

    def logit_spread(self, logits: M, /) -> N:
        """max (l_ij + l_kr - l_ir - l_kj)."""
        ...

    def row_defect(self, attn: M, /) -> N:
        """max |sum_j a_ij - 1|."""
        ...

    def defect(self, attn: M, /) -> N:
        """||J (A 1 - 1)||."""
        ...

    def head_defects(self, attn: M, hidden: M, value: M, bias: M, output: M, /) -> N:
        """sum_h ||J (A_h 1 - 1)|| |(mean token V_h + b_h) O_h|."""
        ...
