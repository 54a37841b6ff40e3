"""The MLP's activations, with their exact Lipschitz constants: one table."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Elementwise = Callable[[jax.Array], jax.Array]


class Activation(NamedTuple):
    """One activation phi.

    A difference of two values of phi is a factor in [m, L] times the difference of the arguments.

    Attributes:
      function: phi, elementwise.
      slopes: its smallest and largest slope, (m, L), exact; |m| <= L.
    """

    function: Callable[[jax.Array], jax.Array]
    slopes: tuple[float, float]

    @property
    def lipschitz(self) -> float:
        """The largest slope L, which is phi's Lipschitz constant.

        Lemma 1(2) of Shi et al. (2022), d_M(phi(H)) <= d_M(H), holds for ReLU; with any other the factor is L > 1.
        """
        return self.slopes[1]


def slope_kept(function: Elementwise, both: Callable[[jax.Array], Any] | None = None) -> Elementwise:
    """The elementwise function, of whose derivative a backward pass keeps one array, the slope.

    Left to itself GELU's keeps three: the argument, erfc and the exponential.

    Args:
      function: elementwise.
      both: its value and slope, where a derivative is taken; None for what jax makes of `function`.

    >>> jax.grad(slope_kept(jnp.sin))(0.0)
    Array(1., dtype=float32, weak_type=True)
    """
    kept = jax.custom_jvp(function)

    def rule(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
        (x,) = primals
        value, slope = both(x) if both else jax.jvp(function, (x,), (jnp.ones_like(x),))
        return value, slope * tangents[0]

    kept.defjvp(rule)
    return kept


def _gelu_and_slope(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """x Phi(x) and Phi(x) + x phi(x), Phi by erf: one operation, which value and slope share. In at least float32.

    jax.nn.gelu takes erfc, more exact in the left tail (by less than 2e-7 |x|, float32); but XLA makes
    several arrays of that, and value and slope between them hold on to most. Torch's GELU is by erf.
    """
    wide = x.astype(jnp.float64 if x.dtype == jnp.float64 else jnp.float32)
    normal = 0.5 * (1 + jax.lax.erf(wide * math.sqrt(0.5)))
    slope = normal + wide * jnp.exp(-0.5 * wide * wide) / math.sqrt(2 * math.pi)
    return (wide * normal).astype(x.dtype), slope.astype(x.dtype)


def _symmetric(function: Elementwise, steepest: float, both: Callable[[jax.Array], Any] | None = None) -> Activation:
    """An activation with phi'(x) + phi'(-x) = 1, whose slopes therefore range over [1 - L, L]."""
    return Activation(slope_kept(function, both), (1 - steepest, steepest))


ACTIVATIONS: dict[str, Activation] = {
    "relu": _symmetric(jax.nn.relu, 1.0),
    # 1/2 (1 + erf 1) + e^-1 / sqrt(pi), the slope at x = sqrt 2
    "gelu": _symmetric(
        functools.partial(jax.nn.gelu, approximate=False),
        0.5 * (1 + math.erf(1.0)) + math.exp(-1.0) / math.sqrt(math.pi),
        _gelu_and_slope,
    ),
    # the largest slope of the tanh form, at x = 1.4185040088...
    "gelu_tanh": _symmetric(functools.partial(jax.nn.gelu, approximate=True), 1.1289930686587718),
    # the largest slope of x sigmoid(x), at x = 2.3993572805...
    "silu": _symmetric(jax.nn.silu, 1.099839320128867),
}
"""The activations that an encoder here can have, by our names."""

OTHERS: dict[str, Activation] = {
    # silu's slopes, met at other points, because scaling x on both sides of it cancels
    "quick_gelu": _symmetric(lambda x: x * jax.nn.sigmoid(1.702 * x), ACTIVATIONS["silu"].lipschitz),
    # at x = -2.2563763963... and x = 1.4905711794...: they reach below 1 - L = -0.0885
    "mish": Activation(lambda x: x * jnp.tanh(jax.nn.softplus(x)), (-0.1125261223894625564, 1.0884981612517278612)),
}
"""Activations that only the lemma is checked for."""

LIPSCHITZ = {name: activation.lipschitz for name, activation in ACTIVATIONS.items()}
"""The Lipschitz constant of every activation of the encoder."""

SLOPES = {name: activation.slopes for name, activation in (ACTIVATIONS | OTHERS).items()}
"""Smallest and largest slope of every activation, the encoder's and two more."""
