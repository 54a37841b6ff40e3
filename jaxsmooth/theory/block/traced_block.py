"""One block on a batch of sentences as the model ran it: what the rates of the ladder are computed from."""

import functools
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ...linalg.lanczos import Eigenvalue
from ...linalg.norms import quotient, safe_sqrt
from ...types import Block
from ..theorems.parameters import BlockNorms
from ..theorems.quantities import BlockQuantities
from .attention_operator import squared_operator_norm
from .plain_calculus import PlainCalculus


class BlockState(NamedTuple):
    """What one block did to a batch of sentences.

    Attributes:
      input: X, [B T D].
      attn: A_h, [B N T S].
      pre_attn: U, [B T D].
      std_attn: std of the rows of U, [B T 1].
      std_mlp: std of the rows of Z, [B T 1].
      mask: True on real tokens, [B T].
      mixing_rate: sqrt(lambda_h) = ||J A_h||, [B N].
    """

    input: Float[Array, "B T D"]
    attn: Float[Array, "B N T S"]
    pre_attn: Float[Array, "B T D"]
    std_attn: Float[Array, "B T 1"]
    std_mlp: Float[Array, "B T 1"]
    mask: Bool[Array, "B T"]
    mixing_rate: Float[Array, "B N"]


class TracedBlock(BlockQuantities[Array, Array]):
    """The quantities of the rates at what the model computed: numbers are [B], vectors [B T] or, of heads, [B N]."""

    def __init__(
        self, norms: BlockNorms, state: BlockState, block: Block | None = None, *, tolerance: float | None = None
    ) -> None:
        """`block` and the `tolerance` of its norm are for `operator_norm` alone."""
        self.c = PlainCalculus(state.mask, state.input.dtype)
        self.norms = norms._replace(heads=norms.heads[None])
        self.state, self.block, self.tolerance = state, block, tolerance
        self.hidden, self.attn, self.pre_attn = state.input, state.attn, state.pre_attn
        self.mixing = state.mixing_rate
        self.std_attn, self.std_mlp = state.std_attn[..., 0], state.std_mlp[..., 0]
        self.gain_attn, self.gain_mlp = norms.gain_attn, norms.gain_mlp
        self.mlp_lipschitz, self.mlp = norms.mlp_lipschitz, norms.mlp

    def over_distance(self, value: Array) -> Array:
        """The same, with a derivative where the distance is 0."""
        at_rest = quotient(value, self.distance)
        return jnp.where(value > 0, quotient(value, self.distance, jnp.inf), at_rest)

    @functools.cached_property
    def squared_operator_norm(self) -> Eigenvalue:
        """||T||^2, a lower estimate."""
        if self.block is None:
            raise ValueError("the operator's norm takes the block's parameters.")
        precision = jnp.where(self.state.mask, self.precision, 0)[..., None]
        return squared_operator_norm(self.block, self.attn, precision, self.state.mask, self.tolerance)

    @functools.cached_property
    def operator_norm(self) -> Array:
        return safe_sqrt(jnp.maximum(self.squared_operator_norm.value, 0))
