"""What the certified theorems are about: one sentence in one block, and what follows from it, each computed once.

The facts are evaluated by a calculus, `FloatCalculus` or `ArbCalculus`, so every quantity is an enclosure. Two
readings of the data occur. The lemmas take each computed array as the exact input of the next inequality. The
rates take the input and the attention as given and follow the block in exact arithmetic from there.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ...activations import LIPSCHITZ
from ...linalg.intervals import Interval, namespace
from .observations import BlockParameters, HeadWeights, KnownNorms, SentenceData


class HeadFacts:
    """One head of one block on one sentence."""

    def __init__(
        self, calculus: Any, weights: HeadWeights, norms: Any, hidden: Any, attn: Any, mixing: Any = None
    ) -> None:
        """`norms` holds the enclosures (||W_V W_O||, ||W_Q W_K^T||), `mixing` that of ||J A|| where it is known."""
        self.c, self.weights, self._mixing = calculus, weights, mixing
        self.head_norm, self.score_norm = (calculus.lift(norm) for norm in norms)
        self.hidden, self.attn = calculus.matrix(hidden), calculus.matrix(attn)
        self.root_width = calculus.sqrt(calculus.number(float(weights.query.shape[-1])))

    @functools.cached_property
    def distance(self) -> Any:
        """d_M(X)."""
        return self.c.distance(self.hidden)

    @functools.cached_property
    def diameter(self) -> Any:
        """D(X), the largest distance of two tokens."""
        return self.c.diameter(self.hidden)

    @functools.cached_property
    def mixing(self) -> Any:
        """sqrt(lambda) = ||J A||."""
        if self._mixing is not None:
            return self.c.lift(self._mixing)
        return self.c.norm(self.c.centre_tokens(self.attn))

    @functools.cached_property
    def mixed(self) -> Any:
        """A X."""
        return self.c.matmul(self.attn, self.hidden)

    @functools.cached_property
    def values(self) -> Any:
        """X W_h, without the bias."""
        c, w = self.c, self.weights
        return c.matmul(c.matmul(self.hidden, c.matrix(w.value)), c.matrix(w.output))

    @functools.cached_property
    def logits(self) -> Any:
        """The exact scores of the given X, biases included."""
        c, w = self.c, self.weights
        queries, keys = (
            c.add_row(c.matmul(self.hidden, c.matrix(kernel)), c.matrix(bias))
            for kernel, bias in ((w.query, w.query_bias), (w.key, w.key_bias))
        )
        return c.scale(c.matmul(queries, c.transpose(keys)), c.number(1.0) / self.root_width)

    @functools.cached_property
    def exact_attn(self) -> Any:
        """The exact softmax of the exact scores."""
        return self.c.softmax(self.logits)

    @functools.cached_property
    def ergodicity(self) -> Any:
        """tau(A)."""
        return self.c.ergodicity(self.attn)

    @functools.cached_property
    def row_defect(self) -> Any:
        """How far a row of A is from summing to 1."""
        return self.c.row_defect(self.attn)

    @functools.cached_property
    def defect(self) -> Any:
        """||J (A 1 - 1)||."""
        return self.c.defect(self.attn)

    @functools.cached_property
    def mean_size(self) -> Any:
        """The norm of the mean token."""
        return self.c.frobenius(self.c.mean_row(self.hidden))


class NormFacts:
    """One LayerNorm on one sentence: the exact LN of the given array."""

    def __init__(self, calculus: Any, hidden: Any, scale: Any, shift: Any, eps: float) -> None:
        self.c, c = calculus, calculus
        self.hidden = c.matrix(hidden)
        self.gains = c.weight(scale[None])
        self.stds = c.stds(self.hidden, eps)
        self.precision = c.number(1.0) / self.stds
        self.normed = c.distance(c.layer_norm(self.hidden, self.gains, c.weight(shift[None]), self.stds))
        self.gain = _largest_gain(c, scale)
        self.centred = c.centre_features(self.hidden)


class BlockFacts:
    """One block on one sentence, in exact arithmetic from the given input and attention."""

    def __init__(self, calculus: Any, block: BlockParameters, norms: KnownNorms, data: SentenceData) -> None:
        c = self.c = calculus
        self.block, self.data, self._known = block, data, norms
        self.norms = KnownNorms(*(c.lift(norm) for norm in norms))
        self.mixing, self.largest_mixing = c.lift(data.mixing), c.lift(data.largest_mixing)
        self.hidden = c.matrix(data.input)
        self.one = c.number(1.0)
        slope = LIPSCHITZ[block.activation]
        margin = 8 * float(np.finfo(np.float64).eps)
        self.slope = c.number(slope) if slope == 1 else c.lift(_between(slope * (1 - margin), slope * (1 + margin)))

    @functools.cached_property
    def distance(self) -> Any:
        """d_M(X)."""
        return self.c.distance(self.hidden)

    @functools.cached_property
    def diameter(self) -> Any:
        """D(X)."""
        return self.c.diameter(self.hidden)

    def over_heads(self, function: Callable[[HeadFacts], tuple[Any, Any]]) -> tuple[Any, Any]:
        """The sums over heads of a matrix and of a number that a function of one head's facts gives."""
        diameter = self.diameter

        def of_head(own: tuple) -> tuple[Any, Any]:
            weights, norms, attn = own
            head = HeadFacts(self.c, weights, norms, self.data.input, attn)
            head.diameter = diameter
            return function(head)

        known = self._known
        return self.c.sum_over_heads(of_head, (self.block.heads, (known.heads, known.scores), self.data.attn))

    @functools.cached_property
    def row_defect(self) -> Any:
        """What the float rows of A, which do not sum to exactly 1, add to d_M(U): sum_h ||J (A_h 1 - 1)|| |mean_h|."""
        return self.c.head_defects(self.attn, self.hidden, *self.values)

    @functools.cached_property
    def attn(self) -> Any:
        """A_h, [N T S]."""
        return self.c.matrix(self.data.attn)

    @functools.cached_property
    def values(self) -> tuple[Any, Any, Any]:
        """V_h, b_h and O_h: [N D H], [N 1 H], [N H D]."""
        heads = self.block.heads
        return tuple(self.c.weight(x) for x in (heads.value, heads.value_bias, heads.output))

    @functools.cached_property
    def stretches(self) -> tuple[Any, Any, Any]:
        """The three bounds of what attention and residual can stretch: by head, joint, together."""
        c, n = self.c, self.norms
        together = c.norm(c.centre_tokens(c.side_by_side(self.attn)))
        return (
            self.one + c.sum(self.mixing * n.heads),
            self.one + c.largest(self.mixing) * n.value * n.output,
            self.one + together * n.stacked,
        )

    @functools.cached_property
    def stretch(self) -> Any:
        """a, the least of the three."""
        return self.c.smaller(*self.stretches)

    @functools.cached_property
    def pre_attn(self) -> Any:
        """U = X + sum_h A_h (X V_h + 1 b_h) O_h + 1 b."""
        c = self.c
        mixed = c.mix(self.attn, self.hidden, *self.values)
        return c.add_row(c.add(self.hidden, mixed), c.weight(self.block.output_bias[None]))

    @functools.cached_property
    def mixed_directions(self) -> Any:
        """X' + sum_h A_h X' W_h at X' = J X, on which the operator norm of L3 is at least what the data show."""
        c = self.c
        value, _, output = self.values
        centred = c.centre_tokens(self.hidden)
        none = c.weight(0 * self.block.heads.value_bias)
        return c.add(centred, c.mix(self.attn, centred, value, none, output))

    @functools.cached_property
    def pre_mlp(self) -> Any:
        """Z = Y + phi(Y W_1 + b_1) W_2 + b_2, Y = LN(U)."""
        c, b = self.c, self.block
        normed = c.layer_norm(self.pre_attn, c.weight(b.scale_attn[None]), c.weight(b.bias_attn[None]), self.std_attn)
        wide = c.add_row(c.matmul(normed, c.weight(b.up)), c.weight(b.up_bias[None]))
        down = c.matmul(c.activation(wide, b.activation), c.weight(b.down))
        return c.add_row(c.add(normed, down), c.weight(b.down_bias[None]))

    @functools.cached_property
    def after(self) -> Any:
        """d_M of the block's output."""
        c, b = self.c, self.block
        scale, bias = c.weight(b.scale_mlp[None]), c.weight(b.bias_mlp[None])
        return c.distance(c.layer_norm(self.pre_mlp, scale, bias, self.std_mlp))

    @functools.cached_property
    def std_attn(self) -> Any:
        return self.c.stds(self.pre_attn, self.block.eps)

    @functools.cached_property
    def std_mlp(self) -> Any:
        return self.c.stds(self.pre_mlp, self.block.eps)

    @functools.cached_property
    def precision(self) -> Any:
        """P_i = 1 / (std_attn_i std_mlp_i)."""
        return self.one / (self.std_attn * self.std_mlp)

    @functools.cached_property
    def pair_weight(self) -> Any:
        """lambda_max(L_P)^(1/2)."""
        return self.c.sqrt(self.c.norm(self.c.laplacian(self.precision)))

    @functools.cached_property
    def gain_attn(self) -> Any:
        return _largest_gain(self.c, self.block.scale_attn)

    @functools.cached_property
    def gain_mlp(self) -> Any:
        return _largest_gain(self.c, self.block.scale_mlp)

    @functools.cached_property
    def mlp_lipschitz(self) -> Any:
        """1 + L ||W_1|| ||W_2||."""
        return self.one + self.slope * self.norms.up * self.norms.down

    @functools.cached_property
    def mlp(self) -> Any:
        """f."""
        n = self.norms
        mean_value = n.skew + (self.slope - self.c.number(0.5)) * n.left * n.right
        return self.c.smaller(mean_value, self.gain_attn * self.mlp_lipschitz)


def head_facts(calculus: Any, block: BlockParameters, norms: KnownNorms, data: SentenceData, head: int) -> HeadFacts:
    """One head of one sentence."""
    known = (norms.heads, norms.scores)
    weights, own, attn = jax.tree.map(lambda leaf: leaf[head], (block.heads, known, data.attn))
    return HeadFacts(calculus, weights, own, data.input, attn)


def _largest_gain(calculus: Any, scale: Any) -> Any:
    """G: exact, but for gains too small to be normal numbers."""
    return calculus.number(namespace(scale).max(abs(scale)))


def _between(low: float, high: float) -> Interval:
    return Interval(np.float64(low), np.float64(high))
