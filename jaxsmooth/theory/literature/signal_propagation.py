"""A random block of infinite width as a map of two numbers, and its two exponents: of the angle and of the gradient.

On the host, in float64: the Gaussian integrals are sums over nodes. Proofs are in docs/initialisation.md.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import OptionError, arguments_checked, is_number, require_int

PLACEMENTS = ("post", "pre", "sandwich")
Numbers = NDArray[np.float64] | np.float64
# The trapezoidal rule over the whole line converges exponentially for smooth activations, which these nodes resolve to
# 1e-9 up to this std; ReLU has closed forms.
LARGEST_STD = 12.0
NODES = np.arange(-9 * 32, 9 * 32 + 1) / 32
WEIGHTS = np.exp(-NODES * NODES / 2) / np.sqrt(2 * np.pi) / 32


@dataclasses.dataclass(frozen=True)
class RandomBlock:
    """A block whose kernels have independent entries of mean 0, biases 0 and gains 1.

    Attributes:
      value: std of what attention adds to a feature where all tokens are one token of std 1: std(W_V) std(W_O) times
        the roots of D and of N H; s^2 D for BERT's initialisation of std s.
      up: std of a unit's argument for a token of std 1, std(W_1) D^(1/2).
      down: std(W_2) F^(1/2).
      skip: factor of the residual stream at each sum.
      branch: factor of what a sub-layer adds.
      activation: "relu", "gelu" (exact), "silu" or "tanh".
      placement: of the norms, as in `EncoderConfig`.
    """

    value: float = 1.0
    up: float = 1.0
    down: float = 1.0
    skip: float = 1.0
    branch: float = 1.0
    activation: str = "gelu"
    placement: str = "post"

    def __post_init__(self) -> None:
        if self.activation not in _FUNCTIONS:
            raise OptionError(f"activation must be one of {tuple(_FUNCTIONS)}; got {self.activation!r}.")
        if self.placement not in PLACEMENTS:
            raise OptionError(f"placement must be one of {PLACEMENTS}; got {self.placement!r}.")


class Exponents(NamedTuple):
    """Of one block at consensus, natural logarithms per block.

    Attributes:
      angle: of the factor of 1 - cos of two tokens: below 0 they meet.
      gradient: of the factor of the expected square of a gradient that is the same for all tokens, from a block's
        output back to its input: above 0 it grows towards the first layers.
      difference: the same of a gradient whose sum over tokens is 0.
    """

    angle: Numbers
    gradient: Numbers
    difference: Numbers


@arguments_checked
def activation_kernel(activation: str, std: float, cosine: Numbers | float) -> Numbers:
    """E phi(x) phi(y) for Gaussian x, y of that std and correlation.

    Args:
      activation: as of `RandomBlock`.
      std: of both arguments.
      cosine: their correlation, in [-1, 1], any shape.

    Returns:
      The shape of `cosine`; NaN of other activations than ReLU beyond a std of 12.

    Raises:
      OptionError: another activation, a std that is negative, or a correlation outside [-1, 1].

    >>> float(activation_kernel("relu", 2.0, 1.0))
    2.0

    References: Cho and Saul (2009), Kernel methods for deep learning, for ReLU.
    """
    _require(activation, std)
    c = _correlation(cosine)
    if activation == "relu":
        angle = np.arccos(c)
        return std * std * (np.sin(angle) + (np.pi - angle) * c) / (2 * np.pi)
    if not std <= LARGEST_STD:
        return np.full_like(c, np.nan)
    function, x, y = _FUNCTIONS[activation], NODES[:, None], NODES[None]
    left = WEIGHTS * function(std * NODES)
    shape = c.shape
    inner = [function(std * (k * x + np.sqrt((1 - k) * (1 + k)) * y)) @ WEIGHTS for k in c.ravel()]
    return np.array([left @ row for row in inner]).reshape(shape)


@arguments_checked
def activation_slope(activation: str, std: float) -> float:
    """std^2 E phi'(std z)^2, z a Gaussian of std 1: the slope of `activation_kernel` in the correlation at 1.

    NaN of other activations than ReLU beyond a std of 12.

    Raises:
      OptionError: another activation, or a std that is negative.

    >>> activation_slope("relu", 2.0)
    2.0
    """
    _require(activation, std)
    if activation == "relu":
        return 0.5 * std * std
    if not std <= LARGEST_STD:
        return float("nan")
    return std * std * float(_SLOPES[activation](std * NODES) ** 2 @ WEIGHTS)


@arguments_checked
def cowsik2024_step(
    block: RandomBlock, size: Numbers | float, cosine: Numbers | float, tokens: int
) -> tuple[Numbers, Numbers]:
    """What a wide random block makes of n tokens of one std and one pairwise cosine: both again, two numbers.

    Attention is uniform, which a softmax is where queries and keys are small; at consensus it does not matter what they
    are. With q = (1 + (n - 1) c) / n, r^2 <- skip^2 r^2 + branch^2 value^2 q and r^2 c likewise, for tokens of std 1
    inside the branch; then the MLP adds branch^2 down^2 times `activation_kernel`.

    Args:
      block: the block.
      size: r, the tokens' std over features, [...]; 1 in a post-LN block.
      cosine: c, of two centred tokens, [...].
      tokens: n.

    Returns:
      r and c after the block, [...] each.

    Raises:
      OptionError: no token, or a cosine outside [-1 / (n - 1), 1], which no n tokens have in common.

    >>> size, cosine = cowsik2024_step(RandomBlock(activation="relu", down=0.0), 1.0, 0.0, tokens=2)
    >>> round(float(size), 4), round(float(cosine), 4)
    (1.0, 0.3333)

    References: after Cowsik, Nebabu, Qi and Ganguli (2024), arXiv 2403.02579, whose particles start as a simplex; the
    MLP's part is the kernel recursion of Cho and Saul (2009). The form used here is derived in docs/initialisation.md.
    """
    require_int("tokens", tokens, 1, OptionError)
    least = -1.0 if tokens == 1 else -1 / (tokens - 1)
    r, c = np.broadcast_arrays(np.asarray(size, np.float64), _correlation(cosine, least))
    square, inner = r * r, r * r * c
    alike = (1 + (tokens - 1) * c) / tokens if tokens > 1 else np.ones_like(c)  # the square of the mean token
    mixed = np.ones_like(c) if block.placement == "sandwich" else block.value**2 * alike
    square, inner = _added(block, square, inner, mixed, mixed)
    if block.placement == "post":
        square, inner = np.ones_like(square), inner / square
    whole = activation_kernel(block.activation, block.up, 1.0)
    part = activation_kernel(block.activation, block.up, inner / square)
    scale = 1 / whole if block.placement == "sandwich" else block.down**2
    square, inner = _added(block, square, inner, scale * whole, scale * part)
    return np.ones_like(square) if block.placement == "post" else np.sqrt(square), inner / square


@arguments_checked
def cowsik2024_exponents(block: RandomBlock, size: Numbers | float = 1.0) -> Exponents:
    """The angle and the gradient exponent of a wide random block at consensus, whatever its queries and keys.

    For "post" they are tied: angle = gradient - log(1 + (branch value / skip)^2), so that both vanish only without
    attention. Behind a growing residual stream ("pre", "sandwich") all fall like 1 / r^2: powers of the depth, see
    `cowsik2024_powers`.

    Args:
      block: the block.
      size: r, the std of the tokens that come in, any shape; "post" does not read it.

    Returns:
      `Exponents`, each of the shape of `size`.

    >>> found = cowsik2024_exponents(RandomBlock(activation="relu"))
    >>> [round(float(x), 4) for x in found]
    [-0.6931, 0.0, -0.6931]

    References: that two exponents decide, after Cowsik et al. (2024), arXiv 2403.02579; compare Giorlandino and Goldt
    (2025), arXiv 2505.24333. These, at consensus, are derived in docs/initialisation.md.
    """
    value, whole, slope = _branches(block)
    before = np.ones_like(np.asarray(size, np.float64)) if block.placement == "post" else np.asarray(size) ** 2.0
    skip, branch = block.skip**2, block.branch**2
    middle = skip * before + branch * value
    inside = np.ones_like(middle) if block.placement == "post" else middle
    after = skip * inside + branch * whole
    attn, mlp = np.log1p(branch * value / (skip * before)), np.log1p(branch * slope / (skip * inside))
    grown = np.log(middle / before) + np.log(after / inside)
    together, apart = 2 * np.log(skip) + mlp + attn, 2 * np.log(skip) + mlp
    angle = apart - grown
    if block.placement == "post":
        return Exponents(angle, together - grown, angle)
    return Exponents(angle, together, apart)


@arguments_checked
def cowsik2024_powers(block: RandomBlock) -> tuple[float, float]:
    """Powers of the depth l where the stream grows ("pre", "sandwich", skip 1): of 1 - cos and of the gradient.

    1 - cos ~ l^-p with p = (v + w - w') / (v + w), and the expected square of a common gradient at the first block over
    that at block l ~ l^g with g = (v + w') / (v + w); v, w and w' are what attention, the MLP and the MLP's slope add:
    value^2, down^2 E phi^2 and down^2 std^2 E phi'^2. p + g = 1 + v / (v + w) > 1: both cannot vanish.

    Args:
      block: of placement "pre" or "sandwich", whose `skip` is 1.

    Returns:
      p and g; NaN where nothing is added.

    Raises:
      OptionError: a block whose stream does not grow like l^(1/2).

    >>> cowsik2024_powers(RandomBlock(activation="relu", placement="pre", down=2.0))
    (0.3333333333333333, 1.0)

    References: derived in docs/initialisation.md.
    """
    if block.placement == "post" or block.skip != 1:
        raise OptionError(f"powers are of blocks with norms inside and skip 1; got {block.placement!r}, {block.skip}.")
    value, whole, slope = _branches(block)
    added = value + whole
    return ((value + whole - slope) / added, (value + slope) / added) if added > 0 else (np.nan, np.nan)


@arguments_checked
def cowsik2024_critical_value(block: RandomBlock) -> float:
    """The `value` at which the angle exponent of a post-LN block is 0, given its MLP: below, tokens part; above, meet.

    value^2 = (skip / branch)^2 (exp(gradient exponent) - 1).

    Args:
      block: of placement "post"; its own `value` is not read.

    Returns:
      The critical value; 0 where tokens meet at any, as ReLU's do.

    Raises:
      OptionError: another placement, where the exponent depends on the size of the tokens.

    >>> cowsik2024_critical_value(RandomBlock(activation="relu"))
    0.0

    References: derived in docs/initialisation.md.
    """
    if block.placement != "post":
        raise OptionError(f"the critical value is that of a post-LN block; got {block.placement!r}.")
    excess = float(np.expm1(cowsik2024_exponents(block).gradient))
    return block.skip / block.branch * float(np.sqrt(max(excess, 0.0)))


def _require(activation: str, std: float) -> None:
    if activation not in _FUNCTIONS:
        raise OptionError(f"activation must be one of {tuple(_FUNCTIONS)}; got {activation!r}.")
    if not is_number(std) or std < 0:
        raise OptionError(f"std must be a number of at least 0; got {std!r}.")


def _correlation(cosine: Numbers | float, least: float = -1.0) -> Numbers:
    """In [least, 1], up to rounding; NaN stays what it is."""
    given = np.asarray(cosine, np.float64)
    if np.any(given > 1 + 1e-9) or np.any(given < least - 1e-9):
        raise OptionError(f"cosine must lie in [{least:.6g}, 1]; got {given.min():.6g} to {given.max():.6g}.")
    return np.clip(given, least, 1)


def _branches(block: RandomBlock) -> tuple[float, float, float]:
    """What attention adds to a token's variance at consensus, what the MLP does, and the slope of the latter."""
    whole = float(activation_kernel(block.activation, block.up, 1.0))
    slope = activation_slope(block.activation, block.up)
    if block.placement == "sandwich":
        return 1.0, 1.0, slope / whole if whole > 0 else np.nan
    return block.value**2, block.down**2 * whole, block.down**2 * slope


def _added(
    block: RandomBlock, square: Numbers, inner: Numbers, own: Numbers, other: Numbers
) -> tuple[Numbers, Numbers]:
    skip, branch = block.skip**2, block.branch**2
    return skip * square + branch * own, skip * inner + branch * other


def _ndtr(x: NDArray) -> NDArray:
    from scipy.special import ndtr  # only now: it takes longer to import than most commands to run

    return ndtr(x)


def _logistic(x: NDArray) -> NDArray:
    return 0.5 * (1 + np.tanh(0.5 * x))


def _gelu(x: NDArray) -> NDArray:
    return x * _ndtr(x)


def _gelu_slope(x: NDArray) -> NDArray:
    return _ndtr(x) + x * np.exp(-x * x / 2) / np.sqrt(2 * np.pi)


_FUNCTIONS: dict[str, Callable[[NDArray], NDArray]] = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": _gelu,
    "tanh": np.tanh,
    "silu": lambda x: x * _logistic(x),
}
_SLOPES: dict[str, Callable[[NDArray], NDArray]] = {
    "gelu": _gelu_slope,
    "tanh": lambda x: 1 / np.cosh(x) ** 2,
    "silu": lambda x: _logistic(x) * (1 + x * _logistic(-x)),
}
