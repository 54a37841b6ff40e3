"""A block's parameters as the theorems read them, and the norms of them that the bounds are made of."""

import dataclasses
from typing import Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
from jaxtyping import Array, Float

from ...errors import arguments_checked
from ...linalg.intervals import namespace
from ...types import Attention, Block, LayerNorm, Linear
from .calculus import ArrayLike, Calculus, M, N

Covariant = TypeVar("Covariant", covariant=True)


@runtime_checkable
class HeadNorms(Protocol[Covariant]):
    """Norms of the heads' kernels, part of `BlockNorms` and of `EnclosedNorms`."""

    @property
    def heads(self) -> Covariant: ...
    @property
    def value(self) -> Covariant: ...
    @property
    def output(self) -> Covariant: ...
    @property
    def stacked(self) -> Covariant: ...


class BlockNorms(NamedTuple):
    """Norms of one block's parameters, each a scalar except `heads`.

    Attributes:
      heads: ||W_h|| of every head, [N].
      value: ||W_V||, the kernels of all heads side by side.
      output: ||W_O||, likewise.
      stacked: ||sum_h W_h W_h^T||^(1/2).
      up: ||W_1||.
      down: ||W_2||.
      gain_attn: G_1 = max |gamma_1|.
      gain_mlp: G_2 = max |gamma_2|.
      mlp_lipschitz: 1 + L ||W_1|| ||W_2||, as in Shi et al.'s theorem.
      mlp: f, the least known Lipschitz constant of gain, MLP and residual together; at most
        G_1 * `mlp_lipschitz`.
    """

    heads: Float[Array, "N"]
    value: Float[Array, ""]
    output: Float[Array, ""]
    stacked: Float[Array, ""]
    up: Float[Array, ""]
    down: Float[Array, ""]
    gain_attn: Float[Array, ""]
    gain_mlp: Float[Array, ""]
    mlp_lipschitz: Float[Array, ""]
    mlp: Float[Array, ""]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class EnclosedNorms(Generic[N]):
    """Norms of one block's parameters, enclosed; all numbers but `heads` and `scores`, which are [N].

    Attributes:
      heads: ||W_V^h W_O^h||.
      scores: ||W_Q^h W_K^hT||.
      value, output, stacked, up, down: as in `BlockNorms`.
      skew: ||Gamma_1 (I + W_1 W_2 / 2) C||.
      left: ||Gamma_1 W_1||.
      right: ||W_2 C||.
      largest: the largest of ||W_h||, ||W_1||, ||W_2|| over all blocks of the model.
    """

    heads: N
    scores: N
    value: N
    output: N
    stacked: N
    up: N
    down: N
    skew: N
    left: N
    right: N
    largest: N


def mlp_stretches(
    calculus: Calculus[M, N], slope: N, radius: N, norms: tuple[N, N], gain_attn: N, mean_value: tuple[N, N, N]
) -> tuple[N, N]:
    """1 + L ||W_1|| ||W_2||, and f: how much gain, MLP and residual together can stretch differences of tokens.

    The mean-value form of f: two rows of the MLP's output differ by their difference times
    I + W_1 D W_2 with D diagonal in [1 - L, L] = 1/2 +- r, so that
    f <= ||Gamma_1 (I + W_1 W_2 / 2) C|| + r ||Gamma_1 W_1|| ||W_2 C||, C the centring of features.

    Args:
      calculus: of the numbers.
      slope: L, the activation's Lipschitz constant.
      radius: r = L - 1/2.
      norms: ||W_1|| and ||W_2||.
      gain_attn: G_1.
      mean_value: the three norms of the mean-value form, in this order.
    """
    up, down = norms
    skew, left, right = mean_value
    lipschitz = calculus.number(1.0) + slope * up * down
    return lipschitz, calculus.smaller(skew + radius * left * right, gain_attn * lipschitz)


@arguments_checked
def block_of(
    value: Float[ArrayLike, "*L D N H"],
    output: Float[ArrayLike, "*L N H D"],
    scale_attn: Float[ArrayLike, "*L D"],
    up: Float[ArrayLike, "*L D F"],
    down: Float[ArrayLike, "*L F D"],
    scale_mlp: Float[ArrayLike, "*L D"],
    *,
    value_bias: Float[ArrayLike, "*L N H"] | None = None,
    output_bias: Float[ArrayLike, "*L D"] | None = None,
    bias_attn: Float[ArrayLike, "*L D"] | None = None,
    up_bias: Float[ArrayLike, "*L F"] | None = None,
    down_bias: Float[ArrayLike, "*L D"] | None = None,
    bias_mlp: Float[ArrayLike, "*L D"] | None = None,
) -> Block:
    """A block, or a stack of blocks, from plain arrays; its queries and keys, which no bound of a block sees, are zero.

    Head h mixes tokens by A_h X W_h with W_h = `value[:, h]` @ `output[h]`; the MLP is
    Y + phi(Y `up` + b) `down`; `scale_attn`, `scale_mlp` are the LayerNorm gains (gamma_1, gamma_2).

    >>> import jax.numpy as jnp
    >>> eye, one = jnp.eye(2), jnp.ones(2)
    >>> block_of(eye[:, None], eye[None], one, eye, eye, one).up.kernel.shape
    (2, 2)
    """
    scores = Linear(kernel=0 * value)
    return Block(
        attn=Attention(
            query=scores, key=scores, value=Linear(kernel=value, bias=value_bias), output=Linear(output, output_bias)
        ),
        norm_attn=LayerNorm(scale=scale_attn, bias=bias_attn),
        up=Linear(kernel=up, bias=up_bias),
        down=Linear(kernel=down, bias=down_bias),
        norm_mlp=LayerNorm(scale=scale_mlp, bias=bias_mlp),
    )


def bias_of(part: Linear | LayerNorm) -> ArrayLike:
    """The bias of one LayerNorm or of a map onto one axis; zeros where it has none."""
    if part.bias is not None:
        return part.bias
    like = part.scale if isinstance(part, LayerNorm) else part.kernel
    return namespace(like).zeros(like.shape[-1:], like.dtype)


def heads_of(attn: Attention) -> Attention:
    """One block's attention with heads on a leading axis: kernels [N D H] and biases [N 1 H]; `output` [N H D]."""

    def of(side: Linear) -> Linear:
        kernel = side.kernel.transpose(1, 0, 2)
        none = namespace(kernel).zeros((len(kernel), kernel.shape[-1]), kernel.dtype)
        bias = none if side.bias is None else side.bias
        return Linear(kernel=kernel, bias=bias[:, None])

    return Attention(
        query=of(attn.query), key=of(attn.key), value=of(attn.value), output=Linear(kernel=attn.output.kernel)
    )
