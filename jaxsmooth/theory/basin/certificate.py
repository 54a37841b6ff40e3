"""A certified basin of collapse: how near equal tokens an input of any length is certain to end in equal tokens.

The reference is the orbit of a sentence of equal tokens, computed in floating point and taken as given rows. What is
proved holds for the real block: attention, the stds and the MLP are those of the input. Theorem and proof:
docs/basin.md. Host only, float64.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError, DivergedError, OptionError, ShapeError, arguments_checked, is_int, is_number
from ...linalg.intervals import quiet
from ...linalg.norm_ball import size as length
from ...linalg.norm_ball import up
from ...types import Block
from ..equal_tokens import equal_token_map, equal_token_walk, settle
from ..theorems.parameters import bias_of
from .comparison import Roots, Step, step
from .matrices import Matrix, adapted_roots, exact, norm
from .row_map import RowMap, row_map

MARGINS = (0.75, 0.75)
PASSES = 2000  # of a token through a block, before it is said to settle nowhere; of a stack at least 600
SETTLED = 1e-11  # relative change at which it has
LONGEST_CYCLE = 8  # passes after which equal tokens may repeat
ITERATIONS = 2000
HALVINGS = 80
DIGITS = 1e-3  # to which the largest radius is sought
SMALL = 1e-3  # of the start: where the comparison system has come as near as it needs to
STALLED = 0.9999  # of the mean before: rounding of the reference orbit keeps it from coming nearer
TRAP = 2.0  # how much wider than what was reached the box is that must be mapped into itself


@runtime_checkable
class Model(Protocol):
    """What is needed of an encoder: its stacked blocks and its configuration."""

    @property
    def blocks(self) -> Block: ...
    @property
    def config(self) -> Any: ...


class Basin(NamedTuple):
    """What is certified about the repetition of a block, or of all blocks in turn.

    Every sentence of any number of tokens with max_i |x_i - point| <= `radius` converges to consensus; and so does,
    with P and Q the given roots, every one with |mean - point|_Q <= `mean_radius` and |x_i - x_j|_P <= `diameter` for
    all i, j. |e|_P is the Euclidean length of e P.

    Attributes:
      radius: Euclidean, of every token around `point`; 0 where nothing is certified.
      mean_radius: of the mean token, in |.|_Q.
      diameter: of the tokens, in |.|_P.
      rate: after finitely many passes the largest |x_i - x_j|_P falls at least by this factor a pass.
      rate_at_point: the same next to `point`, at least the spectral radius it is made for.
      spectral_radius: rho(M) of a pass: the true rate, computed without enclosure.
      spectral_radius_mean: rho(N) of a pass, of the map of equal tokens.
      point: the reference row in front of the first block, [D].
      period: passes after which equal tokens repeat; 1 at a fixed point. A pass of the rates is so many.
      root: P in front of the first block, [D D].
      root_mean: Q there.
      limit: what keeps the radius from being larger, in words.
    """

    radius: float
    mean_radius: float
    diameter: float
    rate: float
    rate_at_point: float
    spectral_radius: float
    spectral_radius_mean: float
    point: NDArray[np.float64]
    period: int
    root: Matrix | None
    root_mean: Matrix | None
    limit: str


class Orbit(NamedTuple):
    """Equal tokens under repetition.

    Attributes:
      rows: in front of every block of one period, a list of [D].
      blocks: as many.
      period: how many passes that is; 0 if no period was found.
    """

    rows: list[NDArray[np.float64]]
    blocks: list[Block]
    period: int


@arguments_checked
@quiet
def certified_basin(
    model: Model,
    *,
    layer: int | None = None,
    std: float | None = None,
    start: NDArray[np.float64] | None = None,
    margins: tuple[float, float] = MARGINS,
) -> Basin:
    """A radius around consensus within which every sentence, of any length, provably collapses.

    The map is one block repeated, or all blocks in turn, for ever: attention over all real tokens, both LayerNorms and
    the MLP computed anew each time. Weights are taken as they are, in float64.

    Args:
      model: an encoder of post-LN blocks with erf-GELU, and attention by content over all tokens.
      layer: which block to repeat, counting from 1; None for all in turn.
      std: a standard deviation that both LayerNorms divide by, in place of the tokens' own.
      start: a row from which the fixed point of equal tokens is sought, [D]; by default the shift of the LayerNorm in
        front of the first block that is repeated, the last block's for the first.
      margins: for M and for N, where between its spectral radius (0) and 1 the rate lies that the norms are made for.

    Returns:
      A `Basin`; of radius 0 with the reason in `limit` where consensus does not attract, or no norm was found in which
      it can be proved to.

    Raises:
      ConfigError: another kind of block, activation or attention.
      DivergedError: parameters that are not finite.
      ShapeError: a start that is no finite row of the model's width.
      OptionError: a layer that does not exist, margins not two numbers between 0 and 1, or a std that is not positive.

    >>> import jax, numpy as np
    >>> from jaxsmooth.bert.config import EncoderConfig
    >>> from jaxsmooth.bert.params import init_encoder
    >>> config = EncoderConfig(vocab=9, width=8, layers=1, heads=2, mlp_width=16, max_length=8)
    >>> basin = certified_basin(init_encoder(config, jax.random.key(0)), std=2.0)
    >>> bool(basin.radius > 0.1 and basin.rate < 1)
    True

    References: docs/basin.md.
    """
    blocks, front = _checked(model, layer, std, margins)
    eps = float(model.config.eps)
    row = _row(bias_of(front.norm_mlp) if start is None else start, model.config.width)
    orbit = _orbit(blocks, row, eps, std)
    if not orbit.period:
        return _nothing(row, 0, math.nan, math.nan, f"equal tokens settle in no cycle of up to {LONGEST_CYCLE} passes")
    try:
        return _certified(orbit, eps, std, margins)
    except (np.linalg.LinAlgError, OverflowError) as error:  # the numbers of some step do not fit in float64
        reason = f"{error}" or type(error).__name__
        return _nothing(row, orbit.period, math.nan, math.nan, f"the arithmetic fails: {reason.rstrip('.')}")


def _certified(orbit: Orbit, eps: float, std: float | None, margins: tuple[float, float]) -> Basin:
    """What is certified around equal tokens that settle."""
    at = [row_map(block, row, eps, std) for block, row in zip(orbit.blocks, orbit.rows, strict=True)]
    laws = [[point.law().mid for point in at], [point.shared_law().mid for point in at]]
    found = [float(np.max(np.abs(np.linalg.eigvals(_product(matrices))))) for matrices in laws]
    radii = found[0], found[1]
    for radius, name in zip(radii, ("rho(M), of differences,", "rho(N), of equal tokens,"), strict=True):
        if not radius < 1:
            return _nothing(orbit.rows[0], orbit.period, *radii, f"{name} is {radius:.6g}: consensus does not attract")
    count = len(at)
    rates = [(radius + margin * (1 - radius)) ** (1 / count) for radius, margin in zip(radii, margins, strict=True)]
    roots = [adapted_roots(matrices, rate) for matrices, rate in zip(laws, rates, strict=True)]
    norms = [Roots(p, q) for p, q in zip(*roots, strict=True)]
    return _largest(_steps(orbit, at, norms), norms[0], orbit, radii)


def _checked(
    model: Model, layer: int | None, std: float | None, margins: tuple[float, float]
) -> tuple[list[Block], Block]:
    """The blocks of one pass, float64 on the host, and the one whose output enters them."""
    config = model.config
    if config.departures or not config.has_plain_scores or config.activation != "gelu":
        what = [*config.departures, *(["attention that is masked or positional"] * (not config.has_plain_scores))]
        what += [f"activation {config.activation!r}"] * (config.activation != "gelu")
        raise ConfigError(
            "a basin is certified for post-LN blocks with erf-GELU and attention by content over all tokens; "
            f"got {', '.join(what)}."
        )
    if layer is not None and not is_int(layer, 1, config.layers):
        raise OptionError(f"layer must be a whole number from 1 to {config.layers}, or None; got {layer!r}.")
    if std is not None and not (is_number(std) and math.isfinite(std) and std > 0):
        raise OptionError(f"std must be a positive number, or None for the tokens' own; got {std!r}.")
    if not (
        isinstance(margins, tuple | list) and len(margins) == 2 and all(is_number(m) and 0 < m < 1 for m in margins)
    ):
        raise OptionError(f"margins must lie between 0 and 1, two numbers; got {margins!r}.")
    stacked = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), model.blocks)
    if not all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(stacked)):
        raise DivergedError("the model's parameters are not all finite: nothing can be certified of it.")
    held = 1 if config.shared_layers else config.layers
    single = [jax.tree.map(lambda leaf, k=place: leaf[k % held], stacked) for place in range(config.layers)]
    return (single, single[-1]) if layer is None else ([single[layer - 1]], single[layer - 2])


def _row(start: Any, width: int) -> NDArray[np.float64]:
    try:
        row = np.asarray(start, np.float64)
    except (TypeError, ValueError) as error:
        raise ShapeError(f"start must be {width} finite numbers; got {type(start).__name__}: {error}.") from error
    if row.shape != (width,) or not np.all(np.isfinite(row)):
        raise ShapeError(f"start must be {width} finite numbers; got an array of shape {row.shape}.")
    return row


def _orbit(blocks: list[Block], row: NDArray[np.float64], eps: float, std: float | None) -> Orbit:
    """Where equal tokens settle."""
    steps = max(PASSES // len(blocks), min(PASSES, 600))
    walk = equal_token_walk(blocks, eps, "gelu", std)
    rest = settle(walk, row[None], steps=steps, tolerance=SETTLED, longest_cycle=LONGEST_CYCLE)
    period = int(rest.period[0])
    if not period:
        return Orbit([row], blocks, 0)
    rows, all_blocks = [rest.rows], blocks * period
    for block in all_blocks[:-1]:
        rows.append(equal_token_map([block], eps, "gelu", std)(rows[-1]))
    return Orbit([one[0] for one in rows], all_blocks, period)


def _product(laws: list[Matrix]) -> Matrix:
    product = laws[0]
    for law in laws[1:]:
        product = product @ law
    return product


def _steps(orbit: Orbit, at: list[RowMap], norms: list[Roots]) -> tuple[Step, list[Step]]:
    """The first block of all, which a ball enters, and the blocks of a period for whatever comes out of it."""
    count = len(at)

    def made(place: int, before: Roots | None, ratio: float) -> Step:
        after = (place + 1) % count
        behind = orbit.rows[after], norms[after]
        return step(orbit.blocks[place], orbit.rows[place], at[place], behind, before, ratio)

    entry = made(0, None, 1.0)
    ratio = 2 * entry.contraction(0.0, 0.0) / entry.mean
    steps: dict[int, Step] = {}
    for place in [*range(1, count), 0]:
        steps[place] = made(place, norms[place], ratio)
        ratio *= steps[place].contraction(0.0, 0.0) / steps[place].mean
    return entry, [steps[place] for place in range(count)]


def _largest(made: tuple[Step, list[Step]], roots: Roots, orbit: Orbit, radii: tuple[float, float]) -> Basin:
    """The largest ball, and the largest box in the adapted norms, that the comparison system certifies."""
    entry, steps = made

    def in_ball(r: float) -> float:
        return certified_rates(steps, *_passed([entry, *steps[1:]], r, 2 * r))

    def in_box(m: float) -> float:
        return certified_rates(steps, m, steps[0].ratio * m)

    high = 16.0 * max(length(orbit.rows[0][None]), len(orbit.rows[0]) ** 0.5)
    radius, beyond = _halved(in_ball, high)
    box, _ = _halved(in_box, high * up(norm(exact(roots.mean))))
    at_point = math.prod(one.contraction(0.0, 0.0) for one in steps)
    if not (radius and box):
        shared = math.prod(one.consensus_contraction(0.0) for one in steps)
        text = (
            f"the adapted norms contract no box: {at_point:.3g} a pass for differences, {shared:.3g} for equal tokens"
        )
        return _nothing(orbit.rows[0], orbit.period, *radii, text)
    rate = max(in_ball(radius), in_box(box))
    limit = _limit([entry, *steps[1:]], steps, beyond)
    point, diameter = orbit.rows[0], steps[0].ratio * box
    return Basin(
        radius, box, diameter, rate, at_point, *radii, point, orbit.period, roots.differences, roots.mean, limit
    )


def _halved(rate: Callable[[float], float], high: float) -> tuple[float, float]:
    """The largest number, to a thousandth, for which a rate is certified, and one beyond for which none is."""
    low = 0.0
    for _ in range(HALVINGS):
        middle = low / 2 + high / 2
        low, high = (middle, high) if math.isfinite(rate(middle)) else (low, middle)
        if high - low < DIGITS * low:
            break
    return low, high


def certified_rates(steps: list[Step], m: float, d: float) -> float:
    """What the comparison system proves from the box [0, m] x [0, d].

    Args:
      steps: the blocks of a period.
      m: of the mean.
      d: of the differences.

    Returns:
      The factor by which the differences fall each pass once a box that is mapped into itself is reached; infinite if
      none is reached.
    """
    first = m, d
    for _ in range(ITERATIONS):
        if not (math.isfinite(m) and math.isfinite(d)) or max(m, d) > 1e6 * max(*first, 1e-300):
            return math.inf
        before = m
        m, d = _passed(steps, m, d)
        # All steps grow with m and d, so whatever stays in the wider box falls at least as fast as it does there.
        if d <= SMALL * first[1] and (m <= SMALL * first[0] or STALLED * before <= m <= first[0]):
            return _trap(steps, TRAP * m, TRAP * d)
    return math.inf


def _passed(steps: list[Step], m: float, d: float) -> tuple[float, float]:
    for one in steps:
        m, d = one(m, d)
    return m, d


def _trap(steps: list[Step], m: float, d: float) -> float:
    """The rate in a box that is mapped into itself and on whose equal tokens the map contracts; infinite if not so."""
    after, rate, shared = (m, d), 1.0, 1.0
    for one in steps:
        rate = up(rate * one.contraction(*after))
        shared = up(shared * one.consensus_contraction(after[0]))
        after = one(*after)
    inside = after[0] <= m and rate < 1 and shared < 1
    return rate if inside else math.inf


def _limit(entered: list[Step], steps: list[Step], radius: float) -> str:
    """Which of the two comparisons fails just outside the radius, and in which block."""
    start = m, d = radius, 2 * radius
    for turn in range(ITERATIONS):
        for place, one in enumerate(steps if turn else entered):
            before = m, d
            m, d = one(m, d)
            if not (math.isfinite(m) and math.isfinite(d)):
                return f"a std may change by half in step {place + 1}: m {before[0]:.3g}, D {before[1]:.3g}"
        if m > 8 * start[0] and m / start[0] >= d / start[1]:
            return "the mean: its second-order terms outgrow what N contracts"
        if d > 8 * start[1]:
            return "the differences: second-order terms outgrow what M contracts"
    return "the mean stays, neither growing nor falling"


def _nothing(point: NDArray[np.float64], period: int, differences: float, mean: float, why: str) -> Basin:
    return Basin(0.0, 0.0, 0.0, math.inf, math.inf, differences, mean, point, period, None, None, why)
