"""One block on one sentence, followed in the arithmetic of a calculus from its input and attention on."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from ...activations import LIPSCHITZ
from ...linalg.intervals import Interval
from ...types import Attention, Block, LayerNorm
from ..statement import Truth
from .calculus import ArrayLike, Calculus, M, N
from .parameters import EnclosedNorms, bias_of, heads_of, mlp_stretches
from .quantities import BlockQuantities, HeadKnown, HeadQuantities, NormQuantities


class Observation(NamedTuple):
    """What blocks computed, rows of padding zero: of one block for one sentence, or with leading axes [L B].

    Attributes:
      input: X, [T D].
      attn: A_h, [N T S].
      mixed: the attention sub-layer's output, [T D].
      pre_attn: U, [T D].
      normed: Y, [T D].
      pre_activation: Y W_1 + b_1, [T F].
      activated: phi of it, [T F].
      mlp: the MLP's output before the residual is added, [T D].
      pre_mlp: Z, [T D].
    """

    input: Float[Array, "*B T D"] | NDArray[np.float64]
    attn: Float[Array, "*B N T S"] | NDArray[np.float64]
    mixed: Float[Array, "*B T D"] | NDArray[np.float64]
    pre_attn: Float[Array, "*B T D"] | NDArray[np.float64]
    normed: Float[Array, "*B T D"] | NDArray[np.float64]
    pre_activation: Float[Array, "*B T F"] | NDArray[np.float64]
    activated: Float[Array, "*B T F"] | NDArray[np.float64]
    mlp: Float[Array, "*B T D"] | NDArray[np.float64]
    pre_mlp: Float[Array, "*B T D"] | NDArray[np.float64]


class Mixing(NamedTuple):
    """Enclosures of sqrt(lambda_h) of every head, [N], and of the largest over heads and blocks of the model."""

    by_head: Interval
    largest: Interval


class Architecture(NamedTuple):
    """What of a block is no array: the LayerNorms' epsilon and the name of the activation."""

    eps: float
    activation: str


class ExactBlock(BlockQuantities[M, N]):
    """One block on one sentence, in exact arithmetic from the given input and attention."""

    def __init__(
        self,
        calculus: Calculus[M, N],
        block: Block,
        architecture: Architecture,
        norms: EnclosedNorms[Interval],
        data: Observation,
        mixing: Mixing,
    ) -> None:
        c = self.c = calculus
        self.block, self.architecture, self.data, self.enclosed = block, architecture, data, norms
        self.norms: EnclosedNorms[N] = jax.tree.map(c.lift, norms, is_leaf=lambda norm: isinstance(norm, Interval))
        self.largest_norm = self.norms.largest
        self.mixing, self.largest_mixing = c.lift(mixing.by_head), c.lift(mixing.largest)
        self.hidden = c.matrix(data.input)
        self.heads = block.attn.value.kernel.shape[-2]
        slope = LIPSCHITZ[architecture.activation]
        margin = 8 * float(np.finfo(np.float64).eps)
        self.slope = c.number(slope) if slope == 1 else c.lift(Interval(slope * (1 - margin), slope * (1 + margin)))
        self._norms_at: dict[str, NormQuantities[M, N]] = {}

    def norm_at(self, site: str) -> NormQuantities[M, N]:
        """One of the block's two LayerNorms, "attn" or "mlp", on the array that the model gave it."""
        if site not in self._norms_at:
            norm: LayerNorm = getattr(self.block, f"norm_{site}")
            given = getattr(self.data, f"pre_{site}")
            self._norms_at[site] = NormQuantities(self.c, given, norm.scale, bias_of(norm), self.architecture.eps)
        return self._norms_at[site]

    def over_heads(self, function: Callable[[HeadQuantities[M, N]], tuple[M, N]]) -> tuple[M, N]:
        """The sums over heads of a matrix and of a number that a function of one head gives."""
        diameter = self.diameter

        def of_head(own: tuple) -> tuple[M, N]:
            weights, norms, attn = own
            head = HeadQuantities(self.c, weights, norms, self.data.input, attn)
            head.diameter = diameter
            return function(head)

        known = self.enclosed
        return self.c.sum_over_heads(of_head, (self.by_head, (known.heads, known.scores), self.data.attn))

    @functools.cached_property
    def by_head(self) -> Attention:
        """The attention's parameters, heads on a leading axis."""
        return heads_of(self.block.attn)

    @functools.cached_property
    def known(self) -> HeadKnown:
        """Of all heads, [N]."""
        return HeadKnown(self.c, self.by_head, self.data.input, self.data.attn)

    @functools.cached_property
    def level(self) -> Truth:
        """Whether the tokens of U are plainly equal: those of X are, and what attention adds is the same for all."""
        return self.known.alike & (self.known.even | self.known.mute).all()

    @functools.cached_property
    def attn(self) -> M:
        return self.c.matrix(self.data.attn)

    @functools.cached_property
    def row_defect(self) -> N:
        """What float rows of A, which do not sum to exactly 1, add to d_M(U): sum_h ||J (A_h 1 - 1)|| |mean_h|."""
        return self.c.head_defects(self.attn, self.hidden, *self.values)

    @functools.cached_property
    def values(self) -> tuple[M, M, M]:
        """V_h, b_h and O_h: [N D H], [N 1 H], [N H D]."""
        value, output = self.by_head.value, self.by_head.output
        return self.c.weight(value.kernel), self.c.weight(bias_of(value)), self.c.weight(output.kernel)

    @functools.cached_property
    def pre_attn(self) -> M:
        """U = X + sum_h A_h (X V_h + 1 b_h) O_h + 1 b."""
        c = self.c
        mixed = c.mix(self.attn, self.hidden, *self.values)
        return c.add_row(c.add(self.hidden, mixed), self._row(bias_of(self.block.attn.output)))

    @functools.cached_property
    def operator_norm(self) -> N:
        """||T|| lies between what T does to the data themselves and a lambda_max(L_P)^(1/2).

        The lower end confirms a statement as well as ||T|| itself: its right side may be replaced by less.
        """
        c = self.c
        shown = c.pair_distance(c.centre_features(self.mixed_directions), self.precision) / self.distance
        return c.hull(shown, self.pair_weight * self.stretch)

    @functools.cached_property
    def mixed_directions(self) -> M:
        """X' + sum_h A_h X' W_h at X' = J X, on which the operator norm of L3 is at least what the data show."""
        c = self.c
        value, _, output = self.values
        centred = c.centre_tokens(self.hidden)
        none = c.weight(0 * bias_of(self.by_head.value))
        return c.add(centred, c.mix(self.attn, centred, value, none, output))

    @functools.cached_property
    def pre_mlp(self) -> M:
        """Z = Y + phi(Y W_1 + b_1) W_2 + b_2, Y = LN(U)."""
        c, b = self.c, self.block
        normed = self._layer_norm(self.pre_attn, b.norm_attn, self.std_attn)
        wide = c.add_row(c.matmul(normed, c.weight(b.up.kernel)), self._row(bias_of(b.up)))
        down = c.matmul(c.activation(wide, self.architecture.activation), c.weight(b.down.kernel))
        return c.add_row(c.add(normed, down), self._row(bias_of(b.down)))

    @functools.cached_property
    def after(self) -> N:
        """d_M of the block's output."""
        return self.c.distance(self._layer_norm(self.pre_mlp, self.block.norm_mlp, self.std_mlp))

    @functools.cached_property
    def std_attn(self) -> N:
        return self.c.stds(self.pre_attn, self.architecture.eps)

    @functools.cached_property
    def std_mlp(self) -> N:
        return self.c.stds(self.pre_mlp, self.architecture.eps)

    @functools.cached_property
    def gain_attn(self) -> N:
        return self.c.gain(self.block.norm_attn.scale)

    @functools.cached_property
    def gain_mlp(self) -> N:
        return self.c.gain(self.block.norm_mlp.scale)

    @functools.cached_property
    def mlp_lipschitz(self) -> N:
        return self._mlp_stretches[0]

    @functools.cached_property
    def mlp(self) -> N:
        return self._mlp_stretches[1]

    @functools.cached_property
    def _mlp_stretches(self) -> tuple[N, N]:
        n, radius = self.norms, self.slope - self.c.number(0.5)
        mean_value = (n.skew, n.left, n.right)
        return mlp_stretches(self.c, self.slope, radius, (n.up, n.down), self.gain_attn, mean_value)

    def _layer_norm(self, matrix: M, norm: LayerNorm, stds: N) -> M:
        return self.c.layer_norm(matrix, self._row(norm.scale), self._row(bias_of(norm)), stds)

    def _row(self, vector: ArrayLike) -> M:
        return self.c.weight(vector[None])
