"""Does consensus attract? A fixed state of equal tokens of a post-LN block, or of a stack, and the law next to it.

Equal tokens stay equal: they follow a map of one row, F(x). Where F(x) = x, deviations from consensus are multiplied
by M (`block.linearisation.local_law`), so consensus attracts where rho(M) < 1 and repels where rho(M) > 1. A fixed row
is found by iterating and by Newton's method, and its existence proved by a contraction near it; M is then enclosed over
that whole neighbourhood. One mask for all queries is assumed, and attention by content alone. Host only, float64.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpy.typing import NDArray

from ...activations import LIPSCHITZ
from ...linalg.intervals import Ball, Interval, epsilon, quiet, raised, tiny
from ...linalg.norm_ball import NormBall, size, up
from ...types import Block, LayerNorm
from ..certify.arb_calculus import ArbCalculus, ends
from ..certify.arb_matrices import Matrix
from ..certify.matrix_calculus import FUNCTION_ULPS
from ..equal_tokens import NEARLY_AT_REST, equal_token_map, equal_token_walk, settle
from ..rates.activation_slopes import slope_range
from ..theorems.exact_block import Architecture
from ..theorems.parameters import bias_of
from .spectral_radius import spectral_radius

STEPS = 400  # of the plain iteration; what is slower than 1e-13 in so many is Newton's
REFRESHED, CHORDS = 3, 12  # Jacobians of Newton's method, and steps with each
SETTLED = 1e-13
CLOSE = 1e-13  # relative distance of a row from the fixed one that is near enough for the proof


class ConsensusState(NamedTuple):
    """A fixed state of equal tokens.

    Attributes:
      row: its token to rounding, [D].
      distance: a fixed row is proved to lie within this Euclidean distance of `row`.
      radius: encloses rho(M) at that fixed row.
    """

    row: NDArray[np.float64]
    distance: float
    radius: Interval


class _Whole(NamedTuple):
    """F(x) - x at a row, [1 D]; F' and M over a ball of rows around it."""

    away: Ball
    jacobian: NormBall
    law: NormBall


class _Linear(NamedTuple):
    """What of a block's parameters is used again and again.

    Attributes:
      mixer: I + sum_h W_h, [D D].
      mixed: at least the spectral norm of `mixer`.
      mlp: at least 1 + L ||W_1|| ||W_2||.
      units: at least the norms of the columns of W_1, [F].
    """

    mixer: NormBall
    mixed: float
    mlp: float
    units: NDArray[np.float64]


class EqualTokenMap:
    """F(x): what a block, or one block after the other, makes of a sentence of equal tokens x.

    >>> from jaxsmooth.theory import block_of
    >>> eye, one = np.eye(3), np.ones(3)
    >>> shift = np.array([3.0, 0.0, -3.0])
    >>> block = block_of(0 * eye[:, None], eye[None], one, 0 * eye, eye, one, bias_mlp=shift)  # two LayerNorms alone
    >>> token_map = EqualTokenMap([block], Architecture(0.0, "gelu"))
    >>> state = token_map.fixed_state(token_map.orbit(shift[None])[0])
    >>> state.row.round(4), round(float(state.radius.upper), 4)  # 1 over the std of the row, and over 1
    (array([ 4.2247,  0.    , -4.2247]), 0.2899)
    """

    def __init__(self, blocks: list[Block], architecture: Architecture) -> None:
        """Plain post-LN blocks with numpy parameters in float64."""
        self.architecture, self.blocks = architecture, blocks
        self._linear = [_linear(block, architecture.activation) for block in blocks]
        self._apply, self._walk = equal_token_map(blocks, *architecture), equal_token_walk(blocks, *architecture)

    def __call__(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """F of each row, [K D], to rounding."""
        return self._apply(rows)

    def orbit(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where rows, [K D], come to rest or are after `STEPS` steps; NaN for a row that still moves by more than 1e-2.

        Args:
          rows: the tokens to begin with.
        """
        found = settle(self._walk, rows, steps=STEPS, tolerance=SETTLED)
        return np.where((found.change <= NEARLY_AT_REST)[:, None], found.rows, np.nan)

    @quiet
    def fixed_state(self, row: NDArray[np.float64]) -> ConsensusState | None:
        """The fixed state near a row, [D], proved; None where there is none or none can be proved.

        N(x) = x - (F(x) - x) Y maps the ball of radius r around the row into itself, and contracts, if
        ||I - (F' - I) Y|| <= q < 1 over the ball and |(F(x) - x) Y| <= (1 - q) r at its centre (Krawczyk, Moore).
        """
        start, eye = row, np.eye(len(row))
        for _ in range(REFRESHED):
            whole = self._over(row, 0.0)
            try:
                inverse = np.asarray(np.linalg.inv(whole.jacobian.mid - eye), np.float64)
            except np.linalg.LinAlgError:
                return None
            moved = float(np.linalg.norm(whole.away.mid @ inverse))
            if moved <= CLOSE * np.linalg.norm(row):
                return self._proved(row, whole.away, NormBall(inverse, 0.0))
            for _ in range(CHORDS):
                row = row - (self(row[None])[0] - row) @ inverse
            # Newton may move a row that far to be the fixed state that the iteration was going to.
            if not np.linalg.norm(row - start) <= NEARLY_AT_REST * np.linalg.norm(row):
                return None
        return None

    def _proved(self, row: NDArray[np.float64], away: Ball, inverse: NormBall) -> ConsensusState | None:
        """The test, on a ball a little larger than it must be, then on a larger one."""
        eye = NormBall(-np.eye(len(row)), 0.0)
        residual = NormBall.of(away) @ inverse
        moved = up(size(residual.mid) + residual.error)
        for factor in (2.0, 8.0, 64.0):
            distance = up(factor * moved)
            whole = self._over(row, distance)
            off = (whole.jacobian + eye).times(inverse, up(whole.jacobian.norm() + 1), inverse.norm()) + eye
            contraction = up(size(off.mid) + off.error)
            if contraction < 1 and moved <= (1 - contraction) * distance * (1 - 1e-15):
                return ConsensusState(row, distance, spectral_radius(whole.law))
        return None

    def _over(self, row: NDArray[np.float64], distance: float) -> _Whole:
        """Over all rows within `distance`."""
        c = ArbCalculus(1)
        given = after = c.matrix(row[None])
        laws: list[NormBall] = []
        jacobians: list[NormBall] = []
        for block, linear in zip(self.blocks, self._linear, strict=True):
            after, own = _block_law(c, block, linear, after, distance, self.architecture)
            full = linear.mixer.times(own, linear.mixed, own.norm())
            laws, jacobians = [*laws, own], [*jacobians, full]
            distance = up(distance * full.norm())  # mean value theorem
        return _Whole(_ball(after - given), _product(jacobians), _product(laws))


def _linear(block: Block, activation: str) -> _Linear:
    value, output = _flat(block)
    mixer = NormBall(value, 0.0) @ NormBall(output, 0.0) + NormBall(np.eye(len(value)), 0.0)
    kernels = up(NormBall(_own(block.up.kernel), 0.0).norm() * NormBall(_own(block.down.kernel), 0.0).norm())
    units = np.linalg.norm(block.up.kernel, axis=0) * (1 + 4 * len(value) * epsilon(value)) + tiny(value)
    return _Linear(mixer, mixer.norm(), up(1 + up(LIPSCHITZ[activation] * kernels)), units)


def _flat(block: Block) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The kernels of values and output, heads side by side: [D NH] and [NH D]."""
    value, output = block.attn.value.kernel, block.attn.output.kernel
    return _own(value.reshape(len(value), -1)), _own(output.reshape(-1, output.shape[-1]))


def _own(array: Array | NDArray) -> NDArray[np.float64]:
    return np.asarray(array, np.float64)


def _block_law(
    c: ArbCalculus, block: Block, linear: _Linear, row: Matrix, distance: float, architecture: Architecture
) -> tuple[Matrix, NormBall]:
    """F of a row, in Arb, and M over all rows within a distance of it.

    How far a vector may be from that of the row is one number, by norms: entry by entry it would grow with the width.
    """
    value, output = map(c.matrix, _flat(block))
    values = row * value
    if block.attn.value.bias is not None:
        values += c.matrix(block.attn.value.bias.reshape(1, -1))
    summed = row + values * output + c.matrix(bias_of(block.attn.output)[None])
    moved, first, stretch = _layer_norm(c, summed, up(distance * linear.mixed), block.norm_attn, architecture.eps)
    apart = up(stretch * up(distance * linear.mixed))
    wide = moved * c.matrix(block.up.kernel) + c.matrix(bias_of(block.up)[None])
    own = _ball(wide)
    slopes = enclosed_slopes(Ball(own.mid, raised(own.rad + raised(apart * linear.units))), architecture.activation)
    down = c.activation(wide, architecture.activation) * c.matrix(block.down.kernel)
    after, second, last = _layer_norm(
        *(c, moved + down + c.matrix(bias_of(block.down)[None]), up(apart * linear.mlp)),
        *(block.norm_mlp, architecture.eps),
    )
    eye = NormBall(np.eye(len(block.up.kernel)), 0.0)
    bent = NormBall.of(Ball.exact(block.up.kernel) * _rows(slopes, len(block.up.kernel)))
    mlp = bent @ NormBall(_own(block.down.kernel), 0.0) + eye
    return after, first.times(mlp, stretch, linear.mlp).times(second, up(stretch * linear.mlp), last)


def _product(balls: list[NormBall]) -> NormBall:
    return functools.reduce(lambda left, right: left.times(right, left.norm(), right.norm()), balls)


def _layer_norm(
    c: ArbCalculus, row: Matrix, distance: float, norm: LayerNorm, eps: float
) -> tuple[Matrix, NormBall, float]:
    """LN of a row, [1 D]; over all rows within a distance (1/s)(C - u^T u / (D s^2)) Gamma, u = C row, and its norm.

    u / (D^(1/2) s) is no longer than 1 and moves by at most distance / (D^(1/2) s), s by distance / D^(1/2).
    """
    width = len(norm.scale)
    gains, shift = c.matrix(norm.scale[None]), c.matrix(bias_of(norm)[None])
    centred, stds = c.centre_features(row), c.stds(row, eps)
    unit = _ball(c.scale(centred, 1 / (stds[0] * c.number(width).sqrt())))
    # I - 1 1^T / D is known to a rounding an entry.
    across = Ball(np.eye(width) - 1 / width, np.full((width, width), 4 * epsilon(norm.scale))) - unit.T @ unit
    least = ends(stds[0])[0] * (1 - 1e-15) - up(distance / np.sqrt(width))
    turned = up(distance / (least * np.sqrt(width))) if least > 0 else np.inf
    found = NormBall.of(across)
    found = NormBall(found.mid, up(found.error + up(2 * turned + turned * turned))).columns(_own(norm.scale))
    by = ends(1 / stds[0])[1]
    scaled = found.mid * by
    error = up(found.error * by) * (1 + turned) + size(scaled) * (turned + 8 * epsilon(scaled))
    stretch = up(np.max(np.abs(norm.scale)) / least) if least > 0 else np.inf
    return c.layer_norm(row, gains, shift, stds), NormBall(scaled, up(up(error))), stretch


def _rows(row: Ball, count: int) -> Ball:
    """A row, [1 K], so many times."""
    return Ball(*(np.repeat(part, count, axis=0) for part in (row.mid, row.rad)))


def _ball(matrix: Matrix) -> Ball:
    """The enclosure of an Arb matrix in floating point."""
    found = np.array([[ends(value) for value in row] for row in matrix.table()])
    return Ball.of(Interval(found[..., 0], found[..., 1]))


def enclosed_slopes(argument: Ball, activation: str) -> Ball:
    """phi' over a ball of arguments, rounding included.

    >>> found = enclosed_slopes(Ball(np.zeros((1, 1)), np.full((1, 1), 1e-3)), "gelu")
    >>> bool(abs(found.mid[0, 0] - 0.5) < 1e-6), bool(7e-4 < found.rad[0, 0] < 9e-4)
    (True, True)
    """
    low, high = argument.mid - raised(argument.rad), argument.mid + raised(argument.rad)
    with jax.enable_x64(True):
        ends = slope_range(activation, jnp.asarray(low), jnp.asarray(high))
    least, largest = (np.asarray(end, np.float64) for end in ends)
    if activation == "relu":
        return Ball((least + largest) / 2, (largest - least) / 2)
    farthest = np.maximum(np.abs(low), np.abs(high))
    # The tanh form's derivative multiplies the rounding of 1 - tanh^2 by a cubic, until tanh rounds to 1.
    cubic = (1 + np.minimum(farthest, 16)) ** 3 if activation == "gelu_tanh" else 0
    pad = 8 * FUNCTION_ULPS * epsilon(low) * (1 + 2 * farthest + cubic)
    return Ball((least + largest) / 2, raised((largest - least) / 2 + pad))
