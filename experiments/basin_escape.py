"""The nearest input that does not end in equal tokens at a given row: a search by gradients, for experiments/basin.py.

An escape is a sentence of which, after many passes, some token is away from the fixed point: in clusters, moving, or at
another row. Searching cannot show that there is none nearer: what is found bounds every certified radius from above.
"""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

Map = Callable[[jax.Array], jax.Array]  # of sentences [B T D]
Moves = NDArray[np.float64]

TOKENS = (1, 2, 3, 9)
SHRINK = 0.8  # of the radius, whenever an escape is found
LEAST = 0.96  # the search of one token count ends where none is found at this share of the nearest
ASCENTS = 20  # steps of the gradient at one radius
EVERY = 5  # of them, after which the sentences are followed to their end
RATE = 0.4  # of the first steps, relative to the radius
HALVINGS = 8
HELD = 1e-3  # of the starting radius: nearer to the row than this is no escape


class Escape(NamedTuple):
    """A sentence that does not end at the row.

    Attributes:
      distance: of its farthest token from the row.
      tokens: how many it has.
      origin: the kind of start the search came from.
      spread: after all passes, the largest distance of a token from the first; next to 0 if it ends in equal tokens.
      off: after all passes, the largest distance of a token from the row.
      moves: of the tokens from the row, [T D].
    """

    distance: float
    tokens: int
    origin: str
    spread: float
    off: float
    moves: Moves


class Search:
    """Of one map, around one row."""

    def __init__(self, once: Map, point: Moves, passes: int, ahead: int) -> None:
        self.point, self.passes, self.ahead = jnp.asarray(point), passes, ahead
        self._far = jax.jit(functools.partial(_far, once), static_argnums=1)
        self._push = jax.jit(functools.partial(_push, once), static_argnums=3)

    def nearest(self, starts: dict[str, Moves], farthest: float) -> Escape | None:
        """The nearest escape that is found from sentences [T D] whose directions are given; None if there is none."""
        names = list(starts)
        moves = jnp.asarray(np.stack([starts[name] for name in names]))
        moves = moves / jnp.max(jnp.linalg.norm(moves, axis=-1), axis=1)[:, None, None]
        best, radius, step = None, farthest, SHRINK
        while True:
            moves, found = self._climb(moves, radius)
            if np.any(found):
                place = int(np.flatnonzero(found)[0])
                best, step = (moves[place], names[place], self._along_ray(moves[place], radius)), SHRINK
            elif best is None or step >= LEAST:
                break
            else:
                step = step**0.5
            radius = step * best[2]
        if best is None:
            return None
        move, name, distance = best
        x, off = self._end(move[None], distance)
        spread = float(jnp.max(jnp.linalg.norm(x - x[:, :1], axis=-1)))
        return Escape(distance, len(move), name, spread, float(off[0]), distance * np.asarray(move))

    def _climb(self, moves: jax.Array, radius: float) -> tuple[jax.Array, NDArray[np.bool_]]:
        """Moves of length at most 1 that end farther from the row, until one escapes."""
        found = self._escapes(moves, radius)
        for step in range(ASCENTS):
            if np.any(found):
                break
            moves = self._push(moves, self.point, radius, self.ahead, RATE / (1 + step / EVERY))
            if (step + 1) % EVERY == 0:
                found = self._escapes(moves, radius)
        return moves, found

    def _along_ray(self, move: jax.Array, high: float) -> float:
        low = 0.0
        for _ in range(HALVINGS):
            middle = low / 2 + high / 2
            low, high = (low, middle) if self._escapes(move[None], middle)[0] else (middle, high)
        return high

    def _escapes(self, moves: jax.Array, radius: float) -> NDArray[np.bool_]:
        return ~(self._end(moves, radius)[1] <= HELD * radius)

    def _end(self, moves: jax.Array, radius: float) -> tuple[jax.Array, NDArray[np.float64]]:
        x, off = self.point + radius * moves, np.full(len(moves), np.inf)
        for _ in range(0, self.passes, self.ahead):
            x, found = self._far(x, self.ahead, self.point)
            off = np.asarray(found)
            if np.all(off <= HELD * radius):
                break
        return x, off


def _repeat(once: Map, x: jax.Array, times: int) -> jax.Array:
    return jax.lax.scan(lambda y, _: (once(y), None), x, None, length=times)[0]


def _far(once: Map, x: jax.Array, times: int, point: jax.Array) -> tuple[jax.Array, jax.Array]:
    x = _repeat(once, x, times)
    return x, jnp.max(jnp.linalg.norm(x - point, axis=-1), axis=1)


def _push(once: Map, moves: jax.Array, point: jax.Array, radius: float, times: int, rate: float) -> jax.Array:
    """One step up the gradient of how far from the row the sentences are some passes later, in logarithms."""

    def away(moves: jax.Array) -> jax.Array:
        x = _repeat(once, point + radius * moves, times)
        return jnp.sum(jnp.log(jnp.sum((x - point) ** 2, axis=(1, 2))))

    slope = jax.grad(away)(moves)
    longest = jnp.max(jnp.linalg.norm(slope, axis=-1), axis=1)[:, None, None]
    moved = moves + rate * slope / jnp.where(longest > 0, longest, 1)
    return moved / jnp.max(jnp.linalg.norm(moved, axis=-1), axis=1)[:, None, None]


def starts(tokens: int, roots: tuple[Moves, Moves], state: Moves, axes: dict[int, Moves]) -> dict[str, Moves]:
    """Directions of the tokens, [T D]: from P and Q, or M and N, a real sentence, at random, and along axes.

    These are the ones that the scores of the layers named attract most.
    """
    width = state.shape[1]
    return {name: move + np.zeros((tokens, width)) for name, move in _starts(tokens, roots, state, axes)}


def _starts(
    tokens: int, roots: tuple[Moves, Moves], state: Moves, axes: dict[int, Moves]
) -> Iterator[tuple[str, Moves]]:
    rng = np.random.default_rng(tokens)
    leading = {name: np.linalg.svd(root)[0][:, 0] for name, root in zip(("differences", "mean"), roots, strict=True)}
    yield "mean, along", leading["mean"]
    yield "mean, against", -leading["mean"]
    yield "random", rng.standard_normal((tokens, state.shape[1]))
    if tokens == 1:
        yield "sentence's mean", state.mean(axis=0)
        yield "random, another", rng.standard_normal((1, state.shape[1]))
        return
    yield "sentence", state[rng.choice(len(state), tokens, replace=len(state) < tokens)]
    signs = np.where(np.arange(tokens) % 2, 1.0, -1.0)[:, None]
    alone = np.where(np.arange(tokens) == 0, 1.0, -1.0)[:, None]
    for layer, axis in axes.items():
        yield f"scores of layer {layer}, two clusters", signs * axis
    yield "differences, two clusters", signs * leading["differences"]
    yield "differences, one against all", alone * leading["differences"]
