"""A sentence of equal tokens stays one: the map of its row, and where rows come to rest. From numpy to numpy, float64.

What is proved of a fixed row stands elsewhere: an enclosure in `hypotheses.consensus_state`, a basin in `basin`. For
maps of any family, on the device and with a deviation beside the row, there is `fate.stability.approach_consensus`.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpy.typing import NDArray

from ..activations import ACTIVATIONS
from ..linalg.precision import matmul
from ..types import Block
from .theorems.parameters import bias_of, heads_of

Rows = NDArray[np.float64]
Walk = Callable[[Rows], Iterator[Rows]]

AT_ONCE = 32

NEARLY_AT_REST = 1e-2
"""A row that moves by more of its length a step is near no fixed row of which anything could be asked."""


def equal_token_map(
    blocks: Sequence[Block], eps: float, activation: str, std: float | None = None
) -> Callable[[Rows], Rows]:
    """F: what blocks in turn make of sentences of equal tokens.

    Attention averages equal values, whatever its weights are, so every sentence is given by its one row.

    Args:
      blocks: plain post-LN blocks, one layer each, numpy leaves in float64.
      eps: LayerNorm's epsilon.
      activation: its name.
      std: what both LayerNorms of every block divide by; None for the row's own.

    Returns:
      A function of rows, [K D] -> [K D], each a sentence by itself; to rounding.

    >>> from jaxsmooth.theory import block_of
    >>> eye, one = np.eye(3), np.ones(3)
    >>> two_norms = block_of(0 * eye[:, None], eye[None], one, 0 * eye, eye, one)
    >>> equal_token_map([two_norms], 0.0, "gelu")(np.array([[3.0, 0.0, -3.0]])).round(4)
    array([[ 1.2247,  0.    , -1.2247]])
    """
    walk = equal_token_walk(blocks, eps, activation, std, at_once=1)
    return lambda rows: next(walk(rows))


def equal_token_walk(
    blocks: Sequence[Block], eps: float, activation: str, std: float | None = None, *, at_once: int = AT_ONCE
) -> Walk:
    """F(x), F(F(x)), ... of the map of `equal_token_map`, for `settle`.

    Args:
      blocks: as for `equal_token_map`, and so the others.
      eps: LayerNorm's epsilon.
      activation: its name.
      std: what both LayerNorms divide by.
      at_once: so many steps are one call of a compiled program; each is little work, and a call costs as much as five.

    Returns:
      A function of rows, [K D], that gives their iterates one after the other, without end.

    >>> from jaxsmooth.theory import block_of
    >>> eye, one = np.eye(3), np.ones(3)
    >>> two_norms = block_of(0 * eye[:, None], eye[None], one, 0 * eye, eye, one, bias_mlp=np.array([3.0, 0.0, -3.0]))
    >>> walk = equal_token_walk([two_norms], 0.0, "gelu")(np.array([[3.0, 0.0, -3.0]]))
    >>> [round(float(next(walk)[0, 0]), 4) for _ in range(3)]
    [4.2247, 4.2247, 4.2247]
    """
    with jax.enable_x64(True):
        # Once, for it costs more than a step does.
        parts = jax.device_put([_parts(block) for block in blocks])

    def walk(rows: Rows) -> Iterator[Rows]:
        while True:
            with jax.enable_x64(True):
                ahead = np.asarray(_iterates(parts, rows, eps, std, activation=activation, steps=at_once))
            yield from ahead
            rows = ahead[-1]

    return walk


@functools.partial(jax.jit, static_argnames=("activation", "steps"))
def _iterates(parts: Any, rows: Array | Rows, eps: Any, std: Any, *, activation: str, steps: int) -> Array:
    """The next rows, [steps K D]: one program for all maps of as many blocks of one size."""

    def step(rows: Array, _: None) -> tuple[Array, Array]:
        after = _through(parts, rows, eps, std, activation)
        return after, after

    return jax.lax.scan(step, jnp.asarray(rows), None, length=steps)[1]


def _through(parts: Any, rows: Array, eps: Any, std: Any, activation: str) -> Array:
    def normed(rows: Array, scale: Array, bias: Array) -> Array:
        centred = rows - jnp.mean(rows, axis=1, keepdims=True)
        own = jnp.sqrt(jnp.mean(centred**2, axis=1, keepdims=True) + eps) if std is None else std
        return centred / own * scale[None] + bias[None]

    def linear(rows: Array, kernel: Array, bias: Array) -> Array:
        return matmul(rows, kernel) + bias.reshape(1, -1)

    for value, output, up, down, norm_attn, norm_mlp in parts:
        between = normed(rows + linear(linear(rows, *value), *output), *norm_attn)
        wide = ACTIVATIONS[activation].function(linear(between, *up))
        rows = normed(between + linear(wide, *down), *norm_mlp)
    return rows


def _parts(block: Block) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Kernel (scale) and bias of values, output, up, down and both LayerNorms; heads side by side."""
    attn, width = block.attn, len(block.attn.value.kernel)
    value, output = attn.value.kernel.reshape(width, -1), attn.output.kernel.reshape(-1, width)
    pairs = [
        (value, np.reshape(bias_of(heads_of(attn).value), (1, -1))),
        (output, bias_of(attn.output)),
        *((dense.kernel, bias_of(dense)) for dense in (block.up, block.down)),
        *((norm.scale, bias_of(norm)) for norm in (block.norm_attn, block.norm_mlp)),
    ]
    return [(np.asarray(kernel), np.asarray(bias)) for kernel, bias in pairs]


class Rest(NamedTuple):
    """Where rows came to rest.

    Attributes:
      rows: the last ones, [K D].
      period: how many steps before the last one a row was the same, 1 at rest; 0 if at none of those looked at, [K].
      change: |x_k - x_(k-1)| / |x_k| at the last step, [K].
    """

    rows: Rows
    period: NDArray[np.int64]
    change: NDArray[np.float64]


def settle(walk: Walk, rows: Rows, *, steps: int, tolerance: float, longest_cycle: int = 1) -> Rest:
    """Apply a map of rows until every row repeats, up to a tolerance, or the steps are used up.

    Args:
      walk: gives the iterates of the map, [K D] -> [K D], each row by itself.
      rows: where to begin, [K D].
      steps: how often at most, at least once.
      tolerance: distance of two rows, over the length of the later one, that counts as none.
      longest_cycle: how many steps back a row is looked for.

    Returns:
      A `Rest`. A row that is not finite repeats nothing.

    >>> def walk(x):
    ...     while True:
    ...         yield (x := np.stack([1 + x[0] / 2, -x[1]]))
    >>> found = settle(walk, np.ones((2, 1)), steps=99, tolerance=1e-13, longest_cycle=2)
    >>> found.rows.ravel().round(6).tolist(), found.period.tolist()
    ([2.0, -1.0], [1, 2])
    """
    recent = [rows]
    for after in itertools.islice(walk(rows), steps):
        recent = [*recent[-longest_cycle:], after]
        size = np.linalg.norm(recent[-1], axis=1)
        apart = np.stack([np.linalg.norm(recent[-1] - before, axis=1) for before in recent[-2::-1]])
        back = apart <= tolerance * size
        period = np.where(back.any(axis=0), back.argmax(axis=0) + 1, 0)
        if np.all(period):
            break
    return Rest(recent[-1], period, apart[0] / np.maximum(size, 1e-300))
