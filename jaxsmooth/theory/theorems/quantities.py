"""What the theorems are about: one head, one LayerNorm, one block on one sentence, and what follows from it, once each.

Every quantity is computed by a `Calculus`. Two readings of the data occur. The lemmas take each computed array as the
exact input of the next inequality. The rates take the input and the attention as given; `ExactBlock` follows the block
in exact arithmetic from there, where `ladder.TracedBlock` takes what the model computed.
"""

import functools
from typing import Generic

from ...linalg.intervals import Interval
from ...types import Attention
from .calculus import ArrayLike, Calculus, M, N
from .parameters import HeadNorms, bias_of


class HeadKnown:
    """What is plain to see of the data of one head, of several on a leading axis: no rounding is in it.

    Attributes:
      alike: all real tokens of X are equal.
      even: all queries attend alike, J A = 0.
      mute: W_O is zero.
      silent: W_V or W_O is zero.
      level: all exact scores of a key are equal, so that the exact softmax has J A = 0.
      positive: no weight is negative.
    """

    def __init__(self, calculus: Calculus[M, N], weights: Attention, hidden: ArrayLike, attn: ArrayLike) -> None:
        self.alike, self.even = calculus.alike(hidden), calculus.alike(attn)
        self.mute = _is_zero(weights.output.kernel)
        self.silent = self.mute | _is_zero(weights.value.kernel)
        self.level = self.alike | _is_zero(weights.query.kernel) | _is_zero(weights.key.kernel)
        self.positive = ~(attn < 0).any(axis=(-2, -1))


def _is_zero(kernel: ArrayLike) -> ArrayLike:
    return ~(kernel != 0).any(axis=(-2, -1))


class HeadQuantities(Generic[M, N]):
    """One head of one block on one sentence."""

    def __init__(
        self,
        calculus: Calculus[M, N],
        weights: Attention,
        norms: tuple[Interval, Interval],
        hidden: ArrayLike,
        attn: ArrayLike,
    ) -> None:
        """`weights` are the head's, as of `heads_of`; `norms` enclose ||W_V W_O|| and ||W_Q W_K^T||."""
        self.c, self.weights = calculus, weights
        self.head_norm, self.score_norm = (calculus.lift(norm) for norm in norms)
        self.hidden, self.attn = calculus.matrix(hidden), calculus.matrix(attn)
        self.root_width = calculus.sqrt(calculus.number(float(weights.query.kernel.shape[-1])))
        self.known = HeadKnown(calculus, weights, hidden, attn)

    @functools.cached_property
    def distance(self) -> N:
        """d_M(X)."""
        return self.c.distance(self.hidden)

    @functools.cached_property
    def diameter(self) -> N:
        """D(X), the largest distance of two tokens."""
        return self.c.diameter(self.hidden)

    @functools.cached_property
    def mixing(self) -> N:
        """sqrt(lambda) = ||J A||."""
        return self.c.norm(self.c.centre_tokens(self.attn))

    @functools.cached_property
    def mixed(self) -> M:
        """A X."""
        return self.c.matmul(self.attn, self.hidden)

    @functools.cached_property
    def values(self) -> M:
        """X W_h, without the bias."""
        c, w = self.c, self.weights
        return c.matmul(c.matmul(self.hidden, c.matrix(w.value.kernel)), c.matrix(w.output.kernel))

    @functools.cached_property
    def logits(self) -> M:
        """The exact scores of the given X, biases included."""
        c = self.c
        queries, keys = (
            c.add_row(c.matmul(self.hidden, c.matrix(side.kernel)), c.matrix(bias_of(side)))
            for side in (self.weights.query, self.weights.key)
        )
        return c.scale(c.matmul(queries, c.transpose(keys)), c.number(1.0) / self.root_width)

    @functools.cached_property
    def exact_attn(self) -> M:
        """The exact softmax of the exact scores."""
        return self.c.softmax(self.logits)

    @functools.cached_property
    def ergodicity(self) -> N:
        """tau(A)."""
        return self.c.ergodicity(self.attn)

    @functools.cached_property
    def row_defect(self) -> N:
        """How far a row of A is from summing to 1."""
        return self.c.row_defect(self.attn)

    @functools.cached_property
    def defect(self) -> N:
        """||J (A 1 - 1)||."""
        return self.c.defect(self.attn)

    @functools.cached_property
    def mean_size(self) -> N:
        """The norm of the mean token."""
        return self.c.frobenius(self.c.mean_row(self.hidden))


class NormQuantities(Generic[M, N]):
    """One LayerNorm on one sentence: the exact LN of the given array."""

    def __init__(
        self, calculus: Calculus[M, N], hidden: ArrayLike, scale: ArrayLike, shift: ArrayLike, eps: float
    ) -> None:
        self.c, c = calculus, calculus
        self.hidden = c.matrix(hidden)
        self.stds = c.stds(self.hidden, eps)
        self.precision = c.number(1.0) / self.stds
        self.normed = c.distance(c.layer_norm(self.hidden, c.weight(scale[None]), c.weight(shift[None]), self.stds))
        self.level = c.alike(hidden) | ~(scale != 0).any()
        """Whether the normalised tokens are plainly equal."""
        self.gain = c.gain(scale)
        self.centred = c.centre_features(self.hidden)


class BlockQuantities(Generic[M, N]):
    """One post-LN block on one sentence, as far as its rates are concerned; subclasses say where it comes from."""

    c: Calculus[M, N]
    hidden: M
    """X."""
    mixing: N
    """sqrt(lambda_h) of every head, a vector."""
    largest_mixing: N
    """The largest of them over heads and blocks of the model."""
    slope: N
    """L, the activation's Lipschitz constant."""
    heads: int
    """How many there are."""
    norms: HeadNorms[N]
    largest_norm: N
    """The largest of ||W_h||, ||W_1|| and ||W_2|| over all blocks of the model."""

    @functools.cached_property
    def gain_attn(self) -> N:
        """G_1 = max |gamma_1|."""
        raise NotImplementedError

    @functools.cached_property
    def gain_mlp(self) -> N:
        """G_2 = max |gamma_2|."""
        raise NotImplementedError

    @functools.cached_property
    def mlp_lipschitz(self) -> N:
        """1 + L ||W_1|| ||W_2||."""
        raise NotImplementedError

    @functools.cached_property
    def mlp(self) -> N:
        """f, see `mlp_stretches`."""
        raise NotImplementedError

    @functools.cached_property
    def attn(self) -> M:
        """A_h, [N T S]."""
        raise NotImplementedError

    @functools.cached_property
    def pre_attn(self) -> M:
        """U = X + sum_h A_h (X V_h + 1 b_h) O_h + 1 b."""
        raise NotImplementedError

    @functools.cached_property
    def std_attn(self) -> N:
        """Of the rows of U, a vector."""
        raise NotImplementedError

    @functools.cached_property
    def std_mlp(self) -> N:
        """Of the rows of Z, a vector."""
        raise NotImplementedError

    @functools.cached_property
    def operator_norm(self) -> N:
        """||T||, T(X) = L_P^(1/2) J (X + sum_h A_h X W_h) C."""
        raise NotImplementedError

    @functools.cached_property
    def one(self) -> N:
        return self.c.number(1.0)

    @functools.cached_property
    def distance(self) -> N:
        """d_M(X)."""
        return self.c.distance(self.hidden)

    def over_distance(self, value: N) -> N:
        """The value over d_M(X)."""
        return value / self.distance

    @functools.cached_property
    def diameter(self) -> N:
        """D(X)."""
        return self.c.diameter(self.hidden)

    @functools.cached_property
    def added_by_head(self) -> N:
        """sum_h sqrt(lambda_h) ||W_h||: how much attention can add to d_M(X), over d_M(X)."""
        return self.c.sum(self.mixing * self.norms.heads)

    @functools.cached_property
    def added_jointly(self) -> N:
        """max_h sqrt(lambda_h) ||W_V|| ||W_O||, without a factor of the number of heads."""
        return self.c.largest(self.mixing) * self.norms.value * self.norms.output

    @functools.cached_property
    def added_together(self) -> N:
        """||sum_h J A_h A_h^T J||^(1/2) ||sum_h W_h W_h^T||^(1/2), by Cauchy and Schwarz."""
        return self.c.mixing_norm(self.attn) * self.norms.stacked

    @functools.cached_property
    def stretch(self) -> N:
        """a = 1 + the least of the three: how much attention and residual can stretch d_M."""
        return self.one + self.c.smaller(self.added_by_head, self.added_jointly, self.added_together)

    @functools.cached_property
    def precision(self) -> N:
        """P_i = 1 / (std_attn_i std_mlp_i), a vector."""
        return self.one / (self.std_attn * self.std_mlp)

    @functools.cached_property
    def pair_weight(self) -> N:
        """lambda_max(L_P)^(1/2)."""
        return self.c.pair_weight(self.precision)

    @functools.cached_property
    def least_stds(self) -> N:
        """sigma_1 sigma_2."""
        return self.c.least(self.std_attn) * self.c.least(self.std_mlp)
