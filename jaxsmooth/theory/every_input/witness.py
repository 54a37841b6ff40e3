"""How large std_attn * std_mlp is found to be: gradient ascent over everything that `reachable` lets reach a block.

What it finds is reached by rows that a LayerNorm can put out; whether a text's tokens can be those rows is not asked.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...activations import ACTIVATIONS
from ...linalg.precision import einsum, matmul
from ...linalg.rows import centre_features
from ...types import Block
from ..theorems.parameters import bias_of, heads_of
from .reachable import Rows

RATE = 0.1
STARTS = 6


class Witness(NamedTuple):
    """Stds of one token of a block, at the largest product found.

    Attributes:
      std_attn: of the token before the attention LayerNorm.
      std_mlp: of the token before the MLP LayerNorm.
    """

    std_attn: float
    std_mlp: float

    @property
    def product(self) -> float:
        """std_attn * std_mlp."""
        return self.std_attn * self.std_mlp


class _Sources(NamedTuple):
    maps: Float[Array, "K E D"]  # of the residual and of every head
    mean: Float[Array, " D"]


def largest_found(block: Block, rows: Rows, activation: str, eps: float, *, steps: int = 200, seed: int = 0) -> Witness:
    """The largest std_attn * std_mlp that gradient ascent from a few random inputs finds, in float64.

    Args:
      block: one post-LN block.
      rows: what its input's rows can be.
      activation: a key of `activations.ACTIVATIONS`.
      eps: of the LayerNorms.
      steps: of Adam.
      seed: of the starts.

    Returns:
      The `Witness`.
    """
    with jax.enable_x64(True):
        block = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf).astype(np.float64)), block)
        sources = _sources(block, rows)
        kinds, size = sources.maps.shape[:2]
        first = jnp.asarray(np.random.default_rng(seed).standard_normal((STARTS, kinds, size)))
        found = _ascend(block, sources, first, jnp.float64(eps), activation, steps)
        return Witness(float(found[0]), float(found[1]))


def _sources(block: Block, rows: Rows) -> _Sources:
    heads = heads_of(block.attn)
    mixers = einsum("ndh,nhe->nde", heads.value.kernel, heads.output.kernel)
    source, centre = jnp.asarray(rows.map.mid) * rows.radius, jnp.asarray(rows.centre.mid[0])
    mean = centre + jnp.sum(einsum("d,nde->ne", centre, mixers), axis=0)
    mean = mean + jnp.sum(einsum("nqh,nhe->nqe", heads.value.bias, heads.output.kernel), axis=(0, 1))
    if block.attn.output.bias is not None:
        mean = mean + block.attn.output.bias
    maps = jnp.concatenate([source[None], einsum("ed,ndf->nef", source, mixers)])
    return _Sources(centre_features(maps), centre_features(mean[None])[0])


_State = tuple[Array, Array, Array, Array, Array]  # where, Adam's two averages, and the best stds so far


def _stds(block: Block, sources: _Sources, eps: Array, activation: str, at: Array) -> tuple[Array, Array]:
    """Both stds where the residual and every head read the rows `at` points to, [R K E]."""
    u = einsum("rke,ked->rd", _unit(at), sources.maps) + sources.mean[None]
    std_attn = jnp.sqrt(jnp.mean(u * u, axis=-1) + eps)
    normed = u / std_attn[:, None] * block.norm_attn.scale[None] + bias_of(block.norm_attn)[None]
    pre = matmul(normed, block.up.kernel) + bias_of(block.up)[None]
    out = normed + matmul(ACTIVATIONS[activation].function(pre), block.down.kernel) + bias_of(block.down)[None]
    return std_attn, jnp.sqrt(jnp.mean(centre_features(out) ** 2, axis=-1) + eps)


@functools.partial(jax.jit, static_argnames=("activation", "steps"))
def _ascend(
    block: Block, sources: _Sources, first: Array, eps: Array, activation: str, steps: int
) -> tuple[Array, Array]:
    """The best of all steps of Adam, as a pair of stds."""

    def size(at: Array) -> tuple[Array, tuple[Array, Array]]:
        found = _stds(block, sources, eps, activation, at)
        return jnp.sum(jnp.log(found[0]) + jnp.log(found[1])), found

    def step(carry: _State, count: Array) -> tuple[_State, None]:
        at, mean, square, attn, mlp = carry
        (_, found), slope = jax.value_and_grad(size, has_aux=True)(at)
        place = jnp.argmax(found[0] * found[1])
        better = found[0][place] * found[1][place] > attn * mlp
        attn, mlp = (jnp.where(better, new[place], old) for new, old in zip(found, (attn, mlp), strict=True))
        mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
        unbiased = mean / (1 - 0.9 ** (count + 1)), square / (1 - 0.999 ** (count + 1))
        at = at + RATE * (1 - count / steps) * unbiased[0] / (jnp.sqrt(unbiased[1]) + 1e-30)
        return (_unit(at), mean, square, attn, mlp), None

    zero = jnp.zeros((), first.dtype)
    start = (_unit(first), 0 * first, 0 * first, zero, zero)
    return jax.lax.scan(step, start, jnp.arange(steps, dtype=first.dtype))[0][3:]


def _unit(at: Array) -> Array:
    return at / jnp.linalg.norm(at, axis=-1, keepdims=True)
