"""The MLP's activations, and their Lipschitz constants, exact."""

import functools
import math
from collections.abc import Callable

import jax
from jaxtyping import Array

FUNCTIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}
"""phi of each name that the encoder knows."""

LIPSCHITZ = {
    "relu": 1.0,
    # 1/2 (1 + erf 1) + e^-1 / sqrt(pi), the slope at x = sqrt 2
    "gelu": 0.5 * (1 + math.erf(1.0)) + math.exp(-1.0) / math.sqrt(math.pi),
    # the largest slope of the tanh form, at x = 1.4185040088...
    "gelu_tanh": 1.1289930686587718,
    # the largest slope of x sigmoid(x), at x = 2.3993572805...
    "silu": 1.099839320128867,
}
"""Largest slope L of each activation. Lemma 1(2) of Shi et al. (2022), d_M(phi(H)) <= d_M(H), holds for ReLU;
with any of the others the factor is L > 1. Their slopes range over [1 - L, L], because
phi'(x) + phi'(-x) = 1; so do ReLU's, over [0, 1]."""

SLOPES = {name: (1 - steepest, steepest) for name, steepest in LIPSCHITZ.items()} | {
    # x sigmoid(1.702 x): silu's slopes, met at other points, because scaling x on both sides of it cancels
    "quick_gelu": (1 - LIPSCHITZ["silu"], LIPSCHITZ["silu"]),
    # x tanh(log(1 + e^x)), at x = -2.2563763963... and x = 1.4905711794...
    "mish": (-0.1125261223894625564, 1.0884981612517278612),
}
"""Smallest and largest slope, [m, L], of each activation, exact; the encoder's and two more. A difference of two
values of phi is a factor in [m, L] times the difference of the arguments, c = (m + L) / 2 give or take
r = (L - m) / 2. Mish's slopes are not [1 - L, L]: they reach below 1 - L = -0.0885."""


ACTIVATION_FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}
