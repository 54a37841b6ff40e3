"""Arnoldi's iteration: Ritz values of an operator that need not be symmetric."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from ...errors import arguments_checked
from ...linalg.lanczos import start_vector
from ...linalg.norms import norm, unit_vectors
from ...linalg.precision import at_least_float32, matmul
from ..mixing import operator_dtype
from ..operators import Operator


class Hessenberg(NamedTuple):
    """An operator on a Krylov space, in an orthonormal basis: small enough for the host.

    Attributes:
      projected: [K K].
      coupling: norm of the last image's part outside the space; 0 when the space is invariant.
    """

    projected: Float[Array, "K K"]
    coupling: Float[Array, ""]


@at_least_float32
def arnoldi(operator: Operator, steps: int) -> Hessenberg:
    """The operator on the Krylov space of a fixed random start, by Arnoldi with two orthogonalisations.

    Runs on the device and needs no transpose. For one operator of token vectors [T 1]; `jax.vmap` for several.

    Args:
      operator: for the second eigenvalue of A, `Centred(A)`: J A has the eigenvalues of A with one 1 replaced by 0.
      steps: dimension of the Krylov space, at most the number of real tokens.

    Returns:
      A `Hessenberg`, see `ritz_values`.

    >>> import jax, jax.numpy as jnp
    >>> from jaxsmooth.theory import Dense
    >>> found = arnoldi(Dense(jnp.diag(jnp.array([3.0, 1.0])), jnp.ones(2, bool)), 2)
    >>> [round(float(abs(value)), 4) for value in ritz_values(found)[0]]
    [3.0, 1.0]

    References: Saad (2011), Numerical Methods for Large Eigenvalue Problems, chapter 6.
    """
    start = jnp.where(operator.mask, start_vector((operator.size,), operator_dtype(operator)), 0)
    basis = jnp.zeros((steps + 1, operator.size), start.dtype).at[0].set(unit_vectors(start))

    def step(j: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        basis, projected = state
        image = operator.apply(basis[j][:, None])[:, 0]
        size = norm(image)
        once = matmul(basis, image)
        image = image - matmul(once, basis)
        twice = matmul(basis, image)
        image = image - matmul(twice, basis)
        left = norm(image)
        # The remainder of an invariant space is rounding noise; normalised, it would pass for a direction.
        real = left > 8 * jnp.finfo(image.dtype).eps * size
        unit = jnp.where(real, image / jnp.where(real, left, 1), 0)
        column = (once + twice).at[j + 1].set(jnp.where(real, left, 0))
        return basis.at[j + 1].set(unit), projected.at[:, j].set(column)

    projected = jnp.zeros((steps + 1, steps), start.dtype)
    _, projected = jax.lax.fori_loop(0, steps, step, (basis, projected))
    return Hessenberg(projected[:steps], projected[steps, steps - 1])


@arguments_checked
def ritz_values(found: Hessenberg) -> tuple[Complex[np.ndarray, " K"], Float[np.ndarray, " K"]]:
    """Eigenvalues of the small matrix, largest modulus first, and their residuals; on the host.

    The residual is ||A v - value v|| of the unit Ritz vector v. Unlike for symmetric operators it does not bound the
    distance to an eigenvalue: the value is an eigenvalue of A + E for some ||E|| of that size.

    Args:
      found: one `Hessenberg`.

    Returns:
      `(values, residuals)`, [K] each.
    """
    values, vectors = np.linalg.eig(np.asarray(found.projected, np.float64))
    residuals = float(found.coupling) * np.abs(vectors[-1:].sum(axis=0))
    order = np.argsort(-np.abs(values), kind="stable")
    return values[order].astype(np.complex128), residuals[order]
