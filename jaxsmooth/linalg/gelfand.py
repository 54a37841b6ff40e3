"""Gelfand's formula: the spectral radius of a matrix by repeated squaring, rho = lim ||B^m||^(1/m).

Matrix products only, so it runs where eigenvalues of a nonsymmetric matrix do not exist.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .norms import norm
from .precision import at_least_float32, matmul

RADIUS_SQUARINGS = 40  # at the 2^40-th power the formula has converged to rounding


class Power(NamedTuple):
    """B^m, scaled so that nothing overflows.

    Attributes:
      matrix: B^m over its Frobenius norm; zero where that is zero.
      exponent: m.
      log_root: log ||B^m||_F / m, an upper bound of log rho(B); -inf where B^m is zero.
      last_norm: norm of the product of two matrices of norm 1 that it was made of; 1 where that is zero.
    """

    matrix: Float[Array, "D D"]
    exponent: Float[Array, ""]
    log_root: Float[Array, ""]
    last_norm: Float[Array, ""]


def first_power(matrix: Float[Array, "D D"]) -> Power:
    """B^1.

    >>> import jax.numpy as jnp
    >>> round(float(first_power(jnp.array([[3.0, 0.0], [0.0, 4.0]])).log_root), 4)
    1.6094
    """
    unit, log_norm = unit_norm(matrix)
    one = jnp.ones((), matrix.dtype)
    return Power(unit, one, log_norm, one)


def squared(power: Power) -> Power:
    """B^(2 m) from B^m.

    >>> import jax.numpy as jnp
    >>> round(float(squared(first_power(jnp.array([[0.0, 4.0], [-1.0, 0.0]]))).log_root), 4)
    0.8664
    """
    unit, length = _scaled(matmul(power.matrix, power.matrix))
    exponent = 2 * power.exponent
    # From the first power that vanishes the matrix is nilpotent.
    return Power(unit, exponent, power.log_root + _log(length) / exponent, jnp.where(length == 0, 1, length))


@at_least_float32
def log_spectral_radius(matrix: Float[Array, "D D"]) -> Float[Array, ""]:
    """log of the largest eigenvalue modulus.

    Args:
      matrix: [D, D].

    Returns:
      A scalar; -inf for a nilpotent matrix, up to rounding.

    >>> import jax.numpy as jnp
    >>> round(float(jnp.exp(log_spectral_radius(jnp.array([[0.0, 4.0], [-1.0, 0.0]])))), 4)
    2.0

    References: Gelfand (1941), Normierte Ringe.
    """
    last = jax.lax.fori_loop(0, RADIUS_SQUARINGS, lambda _, power: squared(power), first_power(matrix))
    return last.log_root


def unit_norm(matrix: Float[Array, "D D"]) -> tuple[Float[Array, "D D"], Float[Array, ""]]:
    """The matrix over its Frobenius norm, and the logarithm of that norm; zero and -inf for zero.

    >>> import jax.numpy as jnp
    >>> unit, log_norm = unit_norm(jnp.array([[3.0, 0.0], [0.0, 4.0]]))
    >>> [round(float(entry), 4) for entry in unit.diagonal()], round(float(log_norm), 4)
    ([0.6, 0.8], 1.6094)
    """
    unit, length = _scaled(matrix)
    return unit, _log(length)


def _scaled(matrix: Array) -> tuple[Array, Array]:
    length = norm(matrix, (-2, -1))
    return matrix / jnp.where(length == 0, 1, length), length


def _log(length: Array) -> Array:
    return jnp.where(length == 0, -jnp.inf, jnp.log(jnp.where(length == 0, 1, length)))
