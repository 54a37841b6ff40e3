"""How near consensus an input can be whose attention sub-layer's output points, token by token, where it is known to.

By duality: for any G of rows and columns of sum zero, <G, X + sum_h A_h X W_h> is at most ||T* G|| d_M(X) and is a sum
over tokens of their stds times what G finds in the direction of the token. The best G solves a linear system; no
solution of it is trusted. Statement and proof: docs/rates.md, theorem 4, second half. Host only, float64.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.sparse.linalg import cg
from numpy.typing import NDArray

from ...linalg.intervals import Ball, Interval, epsilon, frobenius, sum_of
from ...linalg.norm_ball import raise_all, size, up
from ...linalg.precision import matmul
from ...types import Block
from ..block.attention_operator import mixing_adjoint, mixing_operator
from ..certify.float_calculus import HostCalculus
from ..consensus import centre_features
from ..theorems.parameters import bias_of, heads_of
from .moved_attention import moved_adjoint

WEIGHT = 0.05  # of the box against the distance in the search, whose result hardly depends on it from 0.01 to 0.1
STEPS = 200
RESIDUAL = 1e-4  # relative, at which the search stops
ROUNDS = 8
SPARE = 1.2  # what a held token's term is over what the box takes of it


class Neighbourhood(NamedTuple):
    """The inputs of one block and one sentence with attention near this, stds at least these, pre-activations in a box.

    Stds computed from an input may exceed its own by their rounding; lowered by 1e-12 of them, they let it in.

    Attributes:
      attn: A_h, at least 0, whose rows, of sums near 1, are meant to be divided by them, [N T T].
      normed: Y, the output of the attention LayerNorm at the centre, [T D]; the box is around Y W_1 + b_1.
      std_attn: lower bounds of the stds at the attention LayerNorm, [T].
      std_mlp: lower bounds of the stds at the MLP LayerNorm, [T].
      radius: half-widths of the box, positive, one for every unit of the MLP and shared by tokens, [F].
      attn_move: how far, in Euclidean length, a row of an input's attention may be from that of `attn`: one number, or
        one for every head and token, [N T]. With 0, attention is `attn`.
    """

    attn: NDArray[np.float64]
    normed: NDArray[np.float64]
    std_attn: NDArray[np.float64]
    std_mlp: NDArray[np.float64]
    radius: NDArray[np.float64]
    attn_move: NDArray[np.float64] | float = 0.0


class Box(NamedTuple):
    """The displacements e of a normed token with |e W_1| <= radius, every unit, and an ellipsoid around them.

    Attributes:
      root: R, [D D]; every such e is f R for some f.
      length: at least |f|.
      scales: S, [F]; the ellipsoid is that of |e W_1 S| <= its largest value over the box.
      radius: [F].
    """

    root: NDArray[np.float64]
    length: float
    scales: NDArray[np.float64]
    radius: NDArray[np.float64]


def least_distance(block: Block, near: Neighbourhood, box: Box) -> float:
    """A lower bound of d_M(X) over all X whose attention, stds and normed tokens are the neighbourhood's.

    Args:
      block: float64 parameters; no gain of the attention LayerNorm is zero.
      near: the neighbourhood.
      box: around every normed token of it.

    Returns:
      The bound; 0 where none was found.

    References: docs/rates.md, theorems 4 and 5.
    """
    return _proved(block, near, box, _best_dual(block, near, box))


def _proved(block: Block, near: Neighbourhood, box: Box, dual: NDArray[np.float64]) -> float:
    """sum_i s_i (<v_i, y_i - b> - what the box can take of it) / ||T* G||, v = G / gamma_1, if no term is negative."""
    c = HostCalculus(np.ones(len(dual), bool), np.float64)
    dual_ball = c.centre_tokens(c.centre_features(c.matrix(dual)))
    inverse = 1 / block.norm_attn.scale
    direction = dual_ball * _rows_of(Ball(inverse, 4 * epsilon(inverse) * abs(inverse)), len(dual))
    centre = c.matrix(near.normed) - _rows_of(Ball.exact(bias_of(block.norm_attn)), len(dual))
    found = sum_of((direction * centre).interval(), axis=-1)
    # <v, e> = <w, e W_1> + <v - W_1 w, e> for any w: here the one that the ellipsoid suggests.
    w = ((direction.mid @ box.root.T @ box.root) @ block.up.kernel) * box.scales**2
    missed = direction - Ball.exact(w) @ Ball.exact(block.up.kernel.T)
    rest = np.array([size(x[None]) + size(r[None]) for x, r in zip(missed.mid, missed.rad, strict=True)])
    longest = Interval.exact(np.full_like(rest, up(box.length * size(box.root))))
    taken = sum_of(Interval.exact(np.abs(w)) * Interval.exact(np.broadcast_to(box.radius, w.shape)), axis=-1)
    taken = taken + Interval.exact(raise_all(rest)) * longest
    kept = (found - taken).lower
    if not np.all(kept >= 0):
        return 0.0
    terms = Interval.exact(kept) * Interval.exact(near.std_attn)
    length = frobenius(_mixed_back(block, near.attn, dual_ball))
    if np.any(near.attn_move):
        move = np.broadcast_to(np.asarray(near.attn_move, np.float64), near.attn.shape[:2])
        length = length + Interval.exact(np.float64(moved_adjoint(block, move, dual_ball)))
    quotient = sum_of(terms) / length
    return float(quotient.lower) if quotient.lower > 0 else 0.0


def _mixed_back(block: Block, attn: NDArray[np.float64], dual: Ball) -> Ball:
    """G + sum_h A_h^T G W_h^T, the rows of A_h divided by their sums."""
    # |1/s - 1| <= 2 |s - 1| for a sum s of at least 1/2; nothing cancels in a sum of weights.
    off = np.max(np.abs(attn.sum(axis=-1) - 1)) + 4 * attn.shape[-1] * epsilon(attn)
    total = dual
    own = heads_of(block.attn)
    for head, value, output in zip(attn, own.value.kernel, own.output.kernel, strict=True):
        divided = Ball(head, up(2 * off) * head)
        total = total + (divided.T @ (dual @ Ball.exact(output.T))) @ Ball.exact(value.T)
    return total


def _rows_of(row: Ball, count: int) -> Ball:
    return Ball(*(np.broadcast_to(x, (count, x.shape[-1])) for x in (row.mid, row.rad)))


def _best_dual(block: Block, near: Neighbourhood, box: Box) -> NDArray[np.float64]:
    """The G of largest bound, by a quadratic stand-in for what the box takes; its centring is left to the proof.

    As stds may be larger than their bounds, no token may be left with a negative term: those that would are held at a
    term that is just positive, <G_i, y_i> = `floor`_i with y_i the direction of the token.
    """
    direction = (near.normed - bias_of(block.norm_attn)) / block.norm_attn.scale
    held, floor = np.zeros(len(direction), bool), np.zeros(len(direction))
    for _ in range(ROUNDS):
        with jax.enable_x64(True):
            found = _solve(block, near.attn, direction, near.std_attn[:, None], box.root, held, floor)
        dual = np.asarray(found)
        taken = np.linalg.norm((dual / block.norm_attn.scale) @ box.root.T, axis=1)
        short = np.sum(dual * direction, axis=1) <= taken
        if not np.any(short):
            break
        held |= short
        floor = np.where(short, SPARE * taken, floor)
    return dual


@jax.jit
def _solve(block: Block, attn: Array, direction: Array, std: Array, root: Array, held: Array, floor: Array) -> Array:
    y = jnp.where(held[:, None], direction, 0)
    square = jnp.where(held, jnp.sum(y * y, axis=1), 1)
    inverse = jnp.linalg.pinv(len(y) * jnp.eye(y.shape[1]) - matmul((y / square[:, None]).T, y), hermitian=True)

    def meet(x: Array, goal: Array) -> Array:
        """The nearest G of centred rows, columns that sum to zero, and held rows of <G_i, y_i> = goal_i."""
        x = centre_features(x)
        excess = (jnp.sum(x * y, axis=1) - goal) / square
        common = matmul(jnp.sum(x, axis=0) - matmul(excess, y), inverse)
        return x - common[None] - (excess - matmul(y, common) / square)[:, None] * y

    def apply(x: Array) -> Array:
        gain = block.norm_attn.scale[None]
        box = WEIGHT * std**2 * matmul(matmul(x / gain, root.T), root) / gain
        return mixing_operator(block, attn, mixing_adjoint(block, attn, x)) + box

    free = jnp.zeros_like(floor)
    fixed = meet(jnp.zeros_like(y), floor)
    right = meet(std * direction - apply(fixed), free)
    return fixed + cg(lambda x: meet(apply(x), free), right, tol=RESIDUAL, maxiter=STEPS)[0]
