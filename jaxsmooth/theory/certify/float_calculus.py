"""The calculus of enclosures in floating point: attention's quantities on top of those of token vectors.

`FloatCalculus` evaluates a formula on floating-point data so that every result is an `Interval` or a `Ball` that
contains the exact value. It works on one sentence; batches are made by `jax.vmap`. `ArbCalculus` has the same
methods in arbitrary precision. Proofs are in docs/certify.md.
"""

from collections.abc import Callable

import jax
import numpy as np

from ...linalg.enclosed_norms import decomposed_norm
from ...linalg.intervals import Ball, Interval, epsilon, gamma, power_of_two, raised, sum_of, tiny
from ..theorems.calculus import ArrayLike, Heads
from .matrix_calculus import FUNCTION_ULPS, ends_of, parts_of
from .token_calculus import TokenCalculus


class FloatCalculus(TokenCalculus):
    """Formulas on one sentence of T tokens, `mask` of which are real. Token-wise data must vanish on padding."""

    def softmax(self, logits: Ball) -> Ball:
        """Rows of probabilities over real keys, zero on padded queries."""
        xp, keys = self.xp, self.mask[None]
        middle = xp.where(keys, logits.mid, -xp.inf)
        shifted = middle - xp.max(middle, axis=-1, keepdims=True)
        weights = xp.where(keys, xp.exp(shifted), 0)
        probs = weights / xp.sum(weights, axis=-1, keepdims=True)
        # Rounding of the shift and the radius of the logits move a probability by a factor of at most e^(2 slack).
        slack = xp.max(xp.where(keys, logits.rad + 4 * epsilon(middle) * abs(shifted), 0), axis=-1, keepdims=True)
        factor = 2.5 * slack + (2 * gamma(middle.shape[-1], middle) + 4 * FUNCTION_ULPS * epsilon(middle))
        # e^x - 1 <= 1.25 x only up to 0.4; beyond, a probability is known to lie in [0, 1] and no more.
        radius = xp.where(factor < 0.4, probs * (1.25 * factor) + 4 * tiny(middle), 1)
        return Ball(probs * self.real, raised(radius) * self.real * self.real.T)

    def mix(self, attn: Ball, hidden: Ball, value: Ball, bias: Ball, output: Ball) -> Ball:
        """sum_h A_h (H V_h + 1 b_h) O_h, biases reaching real tokens only; [N T S], [N D H], [N 1 H], [N H D]."""
        spread = hidden @ value + Ball(self.real[None], self.xp.zeros_like(self.real[None])) @ bias
        by_head = attn @ spread @ output
        # Heads side by side in one row of a product: its rounding is bounded like that of any sum.
        found = sum_of(by_head.interval(), axis=0)
        return Ball.of(found)

    def side_by_side(self, attn: Ball) -> Ball:
        """[A_1 ... A_N], [T NS]."""
        tokens = attn.mid.shape[1]
        return Ball(*(x.transpose(1, 0, 2).reshape(tokens, -1) for x in parts_of(attn)))

    def head_defects(self, attn: Ball, hidden: Ball, value: Ball, bias: Ball, output: Ball) -> Interval:
        """sum_h ||J (A_h 1 - 1)|| |(mean token V_h + b_h) O_h|."""
        mean = self.mean_row(hidden)
        rows = (mean @ value + bias) @ output

        def of_head(attn: Ball, row: Ball) -> Interval:
            return self.defect(attn) * self.frobenius(row)

        if self.xp is not np:
            return sum_of(jax.vmap(of_head)(attn, rows))
        pairs = zip(*parts_of(attn), *parts_of(rows), strict=True)
        found = [of_head(Ball(a, b), Ball(x, y)) for a, b, x, y in pairs]
        return sum_of(jax.tree.map(lambda *ends: np.array(ends), *found))

    def sum_over_heads(self, function: Callable[[Heads], tuple[Ball, Interval]], heads: Heads) -> tuple[Ball, Interval]:
        """The sums of a matrix and of a number over heads, given as arrays with a leading axis N."""
        if self.xp is np:
            count = len(jax.tree.leaves(heads)[0])
            found = [function(jax.tree.map(lambda leaf, h=h: leaf[h], heads)) for h in range(count)]
            matrices, numbers = jax.tree.map(lambda *leaves: np.stack(leaves), *found)
        else:
            # One head at a time: memory stays that of one.
            matrices, numbers = jax.lax.map(function, heads)
        return Ball.of(sum_of(matrices.interval(), axis=0)), sum_of(numbers)

    def mixing_norm(self, attn: Ball) -> Interval:
        return self.norm(self.centre_tokens(self.side_by_side(attn)))

    def pair_weight(self, weights: Interval) -> Interval:
        return self.norm(self.laplacian(weights)).sqrt()

    def laplacian(self, weights: Interval) -> Ball:
        """L_p = (1/n)[diag(p) sum(p) - p p^T], [T T]."""
        xp = self.xp
        weights = self._real_vector(weights)
        size = self.mask.shape[0]
        rows, columns = (
            Interval(*(xp.broadcast_to(end.reshape(shape), (size, size)) for end in (weights.lower, weights.upper)))
            for shape in ((size, 1), (1, size))
        )
        product = rows * columns
        apart = ~xp.eye(size, dtype=bool)
        off = Interval(*(xp.where(apart, end, 0) for end in (product.lower, product.upper)))
        row = sum_of(off, axis=-1)
        whole = self._full(self.number(1.0) / self.tokens, (size, size))
        diagonal = Interval(*(xp.where(apart, 0, end[:, None]) for end in (row.lower, row.upper)))
        return Ball.of((diagonal - off) * whole)

    def diameter(self, matrix: Ball) -> Interval:
        """max over pairs of real tokens of |m_i - m_j|, by one product: centred, the largest pair loses no digits."""
        xp, size = self.xp, self.mask.shape[0]
        once = self._less(matrix, self._token_mean(matrix, self.real))
        scale = Interval.exact(power_of_two(once.mid))
        scaled = self.scale(once, self.number(1.0) / scale)
        rows = sum_of(self._square(scaled.interval()), axis=-1)
        ends = [
            [xp.broadcast_to(end.reshape(s), (size, size)) for end in ends_of(rows)] for s in ((size, 1), (1, size))
        ]
        squares = Interval(*ends[0]) + Interval(*ends[1]) - self.scale(scaled @ scaled.T, self.number(2.0)).interval()
        both = self.mask[:, None] & self.mask[None]
        return Interval(*(xp.max(xp.where(both, end, 0)) for end in ends_of(squares))).sqrt() * scale

    def ergodicity(self, attn: Ball) -> Interval:
        """tau(A) = 1/2 max_{i,k} sum_j |a_ij - a_kj| over real rows."""
        xp = self.xp

        def farthest(i: ArrayLike) -> tuple[ArrayLike, ArrayLike]:
            gap = attn - Ball(*(xp.broadcast_to(x[i][None], attn.mid.shape) for x in parts_of(attn)))
            size = abs(gap.mid)
            apart = sum_of(Interval(xp.maximum(size - gap.rad, 0), raised(size + gap.rad)), axis=-1)
            both = self.mask & self.mask[i]
            return tuple(xp.max(xp.where(both, end, 0)) for end in (apart.lower, apart.upper))

        low, high = self._over_tokens(farthest)
        return Interval(xp.max(low), xp.max(high)) * self.number(0.5)

    def cross_ratio(self, attn: Ball) -> Interval:
        """min (a_ij' a_i'j) / (a_ij a_i'j') = e^-Delta, Delta of Birkhoff's theorem; 0 when only some vanish."""
        xp = self.xp
        low, high = xp.maximum(attn.mid - attn.rad, 0), attn.mid + attn.rad

        def smallest(i: ArrayLike) -> tuple[ArrayLike, ArrayLike]:
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
        ends = [xp.maximum(attn.mid - attn.rad, 0), attn.mid + attn.rad]
        least = [xp.min(xp.where(keys, end, xp.inf), axis=-1) for end in ends]
        most = [xp.max(xp.where(keys, end, 0), axis=-1) for end in ends]
        low, high = (a / xp.where(b > 0, b, 1) for a, b in zip(least, most[::-1], strict=True))
        return Interval.around(*(xp.min(xp.where(rows, end, 1)) for end in (low, high))).nonnegative()

    def received(self, attn: Ball) -> Interval:
        """(1/n) sum_i a_ij of every key, [S]."""
        return sum_of(attn.interval(), axis=0) / self.tokens

    def logit_spread(self, logits: Ball) -> Interval:
        """Delta = max (l_ij + l_i'j' - l_ij' - l_i'j)."""
        xp = self.xp
        keys = self.mask[None]

        def widest(i: ArrayLike) -> tuple[ArrayLike, ArrayLike]:
            gap = (logits - Ball(*(xp.broadcast_to(x[i][None], logits.mid.shape) for x in parts_of(logits)))).interval()
            both = self.mask & self.mask[i]
            found = []
            for high, low in ((gap.lower, gap.upper), (gap.upper, gap.lower)):
                most = xp.max(xp.where(keys, high, -xp.inf), axis=-1)
                found.append(xp.max(xp.where(both, most - xp.min(xp.where(keys, low, xp.inf), axis=-1), 0)))
            return tuple(found)

        low, high = self._over_tokens(widest)
        return Interval.around(xp.max(low), xp.max(high)).nonnegative()

    def row_defect(self, attn: Ball) -> Interval:
        """max over real rows of |sum_j a_ij - 1|."""
        off = self._row_sums(attn)
        return Interval(self.number(0.0).lower, self.xp.max(self.xp.maximum(-off.lower, off.upper) * self.real[:, 0]))

    def defect(self, attn: Ball) -> Interval:
        """||J (A 1 - 1)||: what float rows that do not sum to exactly 1 add to Lemma 1(4), per size of the mean."""
        off = Ball.of(self._row_sums(attn))
        return self.distance(Ball(off.mid[:, None], off.rad[:, None]))

    def _row_sums(self, attn: Ball) -> Interval:
        """sum_j a_ij - 1 of real rows, 0 on padding."""
        off = sum_of(attn.interval(), axis=-1) - self.number(1.0)
        real = self.real[:, 0]
        return Interval(off.lower * real, off.upper * real)

    def _over_tokens(self, function: Callable[[ArrayLike], tuple[ArrayLike, ArrayLike]]) -> tuple[ArrayLike, ArrayLike]:
        """One token against all others at a time: memory stays that of one matrix."""
        places = self.xp.arange(self.mask.shape[0])
        if self.xp is np:
            low, high = zip(*map(function, places), strict=True)
            return np.array(low), np.array(high)
        return jax.lax.map(function, places)


class HostCalculus(FloatCalculus):
    """The same on the host, with sharper spectral norms."""

    def _spectral(self, matrix: ArrayLike) -> Interval:
        return decomposed_norm(matrix)
