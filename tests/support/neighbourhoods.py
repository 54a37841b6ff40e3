"""A small block of more units than features, an input, and the inputs of its neighbourhoods, by numpy and scipy."""

import dataclasses
import functools

import numpy as np
import scipy.optimize
from scipy.special import softmax

from jaxsmooth.theory import block_of
from jaxsmooth.theory.rates.neighbourhood import Neighbourhood, NeighbourhoodRate, neighbourhood_rate
from support.regions import SmallBlock, small_block
from support.statements import distance

TOKENS, WIDTH, HEADS, UNITS = 4, 6, 2, 11


@dataclasses.dataclass(frozen=True)
class Setting:
    """A block without zero gains and of more units than features, attention, an input and what is made of it."""

    block: SmallBlock
    attn: np.ndarray
    x: np.ndarray
    run: dict[str, np.ndarray]
    least: dict[str, np.ndarray]
    radius: np.ndarray

    @staticmethod
    def random(seed: int, size: float) -> "Setting":
        """`size` is that of the box over the deviation of the unit."""
        rng = np.random.default_rng(seed)
        drawn = small_block(rng, "gelu")
        scale = 10 ** rng.uniform(-0.5, 0.5, 2)
        block = dataclasses.replace(
            drawn,
            scale_attn=rng.choice([-1, 1], WIDTH) * rng.uniform(0.3, 2, WIDTH),
            up=scale[0] * rng.standard_normal((WIDTH, UNITS)),
            down=scale[1] * rng.standard_normal((UNITS, WIDTH)),
            biases=(*drawn.biases[:2], rng.standard_normal(UNITS), drawn.biases[3]),
            eps=float(rng.choice([0.0, 1e-12])),
        )
        attn = softmax(rng.choice([0.5, 2, 5]) * rng.standard_normal((HEADS, TOKENS, TOKENS)), axis=-1)
        x = rng.standard_normal((TOKENS, WIDTH)) + rng.choice([0, 3]) * rng.standard_normal(WIDTH)
        run = {key: value[0] for key, value in block.run(attn[None], x[None]).items()}
        # A little lower than the observed ones: scipy's inputs attain them but for rounding.
        least = {
            "std_attn": (1 - 1e-9) * run["std_attn"][:, 0],
            "std_mlp": rng.choice([0.5, 0.9]) * run["std_mlp"][:, 0],
        }
        return Setting(block, attn, x, run, least, size * run["pre"].std(axis=0))

    def rate(self, **changes: np.ndarray) -> NeighbourhoodRate:
        near = Neighbourhood(self.attn, self.run["normed"], *self.least.values(), self.radius)
        return rate_of(self.block, near._replace(**changes))

    def actual(self, x: np.ndarray) -> float:
        return distance(self.made(x)["less_shift"]) / distance(x)

    def made(self, x: np.ndarray) -> dict[str, np.ndarray]:
        return {key: value[0] for key, value in self.block.run(self.attn[None], x[None]).items()}

    def holds(self, x: np.ndarray) -> bool:
        """Whether an input is in the neighbourhood."""
        run = self.made(x)
        near = np.all(np.abs(run["pre"] - self.run["pre"]) <= self.radius)
        return bool(near and all(np.all(run[key][:, 0] >= least) for key, least in self.least.items()))

    @functools.cached_property
    def unmix(self) -> np.ndarray:
        """The inverse of X -> X + sum_h A_h X W_h on the rows of X one after another, a dense matrix on the left."""
        total = np.eye(TOKENS * WIDTH)
        for head, attn in enumerate(self.attn):
            total += np.kron(attn, (self.block.value[:, head] @ self.block.output[head]).T)
        return np.linalg.inv(total)

    def nearest(self, normed: np.ndarray, more: np.ndarray | None = None) -> np.ndarray:
        """The input nearest to consensus of these normed tokens and stds of at least the bounds, by scipy.

        U = sigma_i times the token's direction, plus a common row, plus any multiple of 1 in every row. With `more`
        the stds are the bounds and so much, [T].
        """
        direction = (normed - self.block.biases[1]) / self.block.scale_attn
        units = [np.kron(np.eye(TOKENS)[i], row) for i, row in enumerate(direction)]
        free = [np.kron(np.eye(TOKENS)[i], np.ones(WIDTH)) for i in range(TOKENS)]
        free += [np.kron(np.ones(TOKENS), row) for row in np.eye(WIDTH)]
        back = self.unmix @ np.array(units + free).T
        rows = back.reshape(TOKENS, WIDTH, -1)
        spread = (rows - rows.mean(axis=0)).reshape(TOKENS * WIDTH, -1)
        fitted = np.linalg.lstsq(spread[:, TOKENS:], spread[:, :TOKENS], rcond=1e-10)[0]
        rest, least = spread[:, :TOKENS] - spread[:, TOKENS:] @ fitted, self.least["std_attn"]
        stds = least + (scipy.optimize.nnls(rest, -rest @ least)[0] if more is None else more)
        # A common row changes no distance: it undoes what the biases add to every token alike.
        bias = self.unmix @ np.tile(self.block.biases[0], TOKENS)
        return (back[:, :TOKENS] @ stds - back[:, TOKENS:] @ (fitted @ stds) - bias).reshape(TOKENS, WIDTH)


def rate_of(block: SmallBlock, near: Neighbourhood) -> NeighbourhoodRate:
    b_attn, b_norm, b_up, b_down = block.biases
    biases = {"output_bias": b_attn, "bias_attn": b_norm, "up_bias": b_up, "down_bias": b_down}
    return neighbourhood_rate(block_of(*block.weights, **biases), near, block.activation, block.eps)


def moved(setting: Setting, rng: np.random.Generator) -> np.ndarray:
    """Normed tokens that some input has, as far from the observed ones as the box allows in a random direction."""
    direction = (setting.run["normed"] - setting.block.biases[1]) / setting.block.scale_attn
    step = rng.standard_normal(direction.shape)
    step -= step.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(direction, axis=1, keepdims=True)

    def at(size: np.ndarray) -> np.ndarray:
        new = direction + size * step
        new *= lengths / np.linalg.norm(new, axis=1, keepdims=True)
        return new * setting.block.scale_attn + setting.block.biases[1]

    low, high = np.zeros((TOKENS, 1)), np.ones((TOKENS, 1))
    for _ in range(30):
        middle = (low + high) / 2
        off = np.abs((at(middle) - setting.run["normed"]) @ setting.block.up)
        fits = np.all(off <= setting.radius, axis=1, keepdims=True)
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    return at(low * rng.choice([0.5, 1, 1]))
