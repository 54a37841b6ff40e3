"""Attention with normalisation as the power method: tokens turn towards one eigenvector of F = W_V W_O.

Rows are tokens, so x -> x F: an invariant direction is a LEFT eigenvector, v F = mu v. Proofs: docs/catalogue.md.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float

from ...errors import arguments_checked
from ...linalg.norms import norm, quotient, unit_vectors, within
from ...linalg.precision import at_least_float32, einsum, matmul
from ..consensus import real_tokens, token_mean


@at_least_float32
def li2026_step(
    hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"], weight: Float[Array, "*B D D"]
) -> Float[Array, "*B T D"]:
    """N(X + (1 1^T / n) X F): uniform attention, residual, every token back to norm 1.

    Args:
      hidden: X, [..., T, D].
      mask: True on real tokens, [..., T].
      weight: F, [..., D, D].

    Returns:
      [..., T, D], unit rows.

    >>> import jax.numpy as jnp
    >>> li2026_step(jnp.eye(2), jnp.ones(2, bool), 2 * jnp.eye(2)).round(4)
    Array([[0.8944, 0.4472],
           [0.4472, 0.8944]], dtype=float32)

    References: after Li and Altafini (2026), arXiv 2605.25619: full attention, shared weights, no MLP.
    """
    moved = hidden + matmul(token_mean(hidden, mask), weight)
    return unit_vectors(moved)


@at_least_float32
def li2026_tangent(
    hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"], direction: Float[Array, "*B D"]
) -> Float[Array, "*B"]:
    """Tangent of the angle between the mean token and a direction.

    Under `li2026_step` with symmetric F of top eigenvector `direction` its ratio from step to step tends to
    `li2026_rate`.

    Args:
      hidden: X, [..., T, D].
      mask: True on real tokens, [..., T].
      direction: a unit vector, [..., D].

    Returns:
      [...]; infinite where the mean is orthogonal to it.

    >>> import jax.numpy as jnp
    >>> li2026_tangent(jnp.array([[3.0, 4.0]]), jnp.ones(1, bool), jnp.array([0.0, 1.0]))
    Array(0.75, dtype=float32)
    """
    mean = token_mean(hidden, mask)[..., 0, :]
    along = jnp.sum(mean * direction, axis=-1, keepdims=True)
    return quotient(norm(mean - along * direction), jnp.abs(along[..., 0]), jnp.inf)


@at_least_float32
def li2026_rate(eigenvalues: Float[Array, "*B D"]) -> Float[Array, "*B"]:
    """(1 + mu_2) / (1 + mu_1): factor per layer of the tangent to the top eigenvector, for symmetric F.

    The tokens agree after a while, x_i = x, and then x <- N(x (I + F)) is the power method on I + F. With a true
    LayerNorm in place of N, the eigenvalues are those of C (I + F) C instead, see `li2026_layer_norm_matrix`.

    Args:
      eigenvalues: mu of F, any order, [..., D].

    Returns:
      [...], 0 of a single feature; NaN of none, and unless 1 + mu_1 is positive and exceeds every other |1 + mu_j|,
      and mu_1 > 0, without which tokens need not agree.

    >>> import jax.numpy as jnp
    >>> li2026_rate(jnp.array([0.5, 1.0, 0.0]))
    Array(0.75, dtype=float32)

    References: after Li and Altafini (2026), arXiv 2605.25619; proof in docs/catalogue.md.
    """
    largest = jnp.max(eigenvalues, axis=-1, initial=-jnp.inf)  # of none: not positive
    top = 1 + largest
    rest = jnp.max(jnp.abs(1 + jnp.sort(eigenvalues, axis=-1)[..., :-1]), axis=-1, initial=0)
    return jnp.where((largest > 0) & (rest < top), rest / top, jnp.nan)


@at_least_float32
def li2026_layer_norm_matrix(weight: Float[Array, "*B D D"]) -> Float[Array, "*B D D"]:
    """C (I + F) C, C the centring of features: what consensus under LayerNorm iterates.

    Args:
      weight: F, [..., D, D].

    Returns:
      [..., D, D].

    >>> import jax.numpy as jnp
    >>> li2026_layer_norm_matrix(jnp.zeros((2, 2)))
    Array([[ 0.5, -0.5],
           [-0.5,  0.5]], dtype=float32)

    References: docs/catalogue.md.
    """
    eye = jnp.broadcast_to(jnp.eye(weight.shape[-1], dtype=weight.dtype), weight.shape)
    centred = eye + weight
    centred = centred - jnp.mean(centred, axis=-1, keepdims=True)
    return centred - jnp.mean(centred, axis=-2, keepdims=True)


@at_least_float32
def li2026_alignment(
    hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"], direction: Float[Array, "*B D"]
) -> Float[Array, "*B"]:
    """Mean over real tokens of |cos(x_i, v)|: 1 when all lie on the line of v, about sqrt(2 / (pi D)) by chance.

    Args:
      hidden: X, [..., T, D].
      mask: True on real tokens, [..., T].
      direction: v, any non-zero length, [..., D].

    Returns:
      [...], in [0, 1]; a zero token counts as 0.

    >>> import jax.numpy as jnp
    >>> li2026_alignment(jnp.array([[2.0, 0.0], [0.0, 3.0]]), jnp.ones(2, bool), jnp.array([1.0, 0.0]))
    Array(0.5, dtype=float32)

    References: after Li and Altafini (2026), arXiv 2605.25619 (projection of tokens on the principal eigenvector).
    """
    return li2026_projection(hidden, mask, unit_vectors(direction)[..., None, :])


@at_least_float32
def li2026_projection(
    hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"], frame: Float[Array, "*B K D"]
) -> Float[Array, "*B"]:
    """Mean over real tokens of ||P x_i|| / ||x_i||, P the orthogonal projection on the span of the frame's rows.

    Of one row it is `li2026_alignment`. By chance it is about sqrt(2 / (pi D)) for a line and sqrt(pi / (2 D)) for a
    plane.

    Args:
      hidden: X, [..., T, D].
      mask: True on real tokens, [..., T].
      frame: orthonormal rows, zero rows allowed, [..., K, D]: `PrincipalSubspace.frame`.

    Returns:
      [...], in [0, 1]; a zero token counts as 0; NaN where the frame is.

    >>> import jax.numpy as jnp
    >>> round(float(li2026_projection(jnp.array([[3.0, 0.0, 4.0]]), jnp.ones(1, bool), jnp.eye(3)[:2])), 4)
    0.6

    References: after Li and Altafini (2026), arXiv 2605.25619.
    """
    unit = unit_vectors(real_tokens(hidden, mask))
    along = norm(einsum("...td,...kd->...tk", unit, frame))
    along = jnp.where(mask, along, 0)
    count = jnp.maximum(jnp.sum(mask, axis=-1), 1).astype(hidden.dtype)
    return within(jnp.sum(along, axis=-1) / count, 0, 1)


class PrincipalSubspace(NamedTuple):
    """Where x -> x F turns x in the long run: the left eigenvector of F's eigenvalue of largest modulus.

    Attributes:
      frame: orthonormal rows. Of a real eigenvalue the first is its eigenvector and the second 0; of a complex pair
        both span the real plane that F keeps. NaN for F = 0 and where F is not finite, [..., 2, D].
      eigenvalue: the one of largest modulus, of a pair that with a positive imaginary part, [...].
      runner_up: the largest modulus of the others, the pair's own left out; as large as the first where the subspace is
        one of several, and then its choice means nothing, [...].
    """

    frame: Float[np.ndarray, "*L 2 D"]
    eigenvalue: Complex[np.ndarray, "*L"]
    runner_up: Float[np.ndarray, "*L"]


@arguments_checked
def li2026_principal_subspace(weight: Float[np.ndarray, "*L D D"]) -> PrincipalSubspace:
    """The principal left eigenvector of F, or the real plane of a complex pair; float64 on the host.

    A real F need not be symmetric, and its eigenvalue of largest modulus need not be real: powers of F then turn x
    about in a plane instead of towards a line, and the plane takes the eigenvector's place. The symmetric part of F has
    a real eigenvector always, but x F^k does not tend to it.

    Args:
      weight: F, rows are tokens: x -> x F, [..., D, D].

    Returns:
      A `PrincipalSubspace`.

    >>> found = li2026_principal_subspace(np.array([[0.0, 2.0, 0.0], [-2.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
    >>> complex(found.eigenvalue), float(found.runner_up), bool(np.allclose(found.frame[:, 2], 0))
    (2j, 1.0, True)

    References: after Li and Altafini (2026), arXiv 2605.25619, who assume symmetric F; Horn and Johnson (2013), Matrix
    Analysis, section 1.3, for the plane.
    """
    every = np.asarray(weight, np.float64)
    found = [_principal(each) for each in every.reshape(-1, *every.shape[-2:])]
    frame, eigenvalue, runner_up = (np.array(side) for side in zip(*found, strict=True))
    lead = every.shape[:-2]
    return PrincipalSubspace(
        frame.reshape(*lead, 2, every.shape[-1]), eigenvalue.reshape(lead), runner_up.reshape(lead)
    )


def _principal(weight: np.ndarray) -> tuple[np.ndarray, complex, float]:
    none = np.full((2, len(weight)), np.nan)
    if not np.isfinite(weight).all():
        return none, complex(np.nan), np.nan
    size = np.abs(weight).max(initial=0)
    if size == 0:
        return none, 0j, 0.0
    values, vectors = np.linalg.eig(weight.T / size)
    best = int(np.lexsort((-values.imag, -np.abs(values)))[0])
    value, vector = values[best], vectors[:, best]
    if value.imag == 0:
        frame, own = np.stack([vector.real, np.zeros(len(vector))]), 1
    else:
        frame, own = np.linalg.qr(np.stack([vector.real, vector.imag], axis=1))[0].T, 2
    frame[0] /= np.linalg.norm(frame[0])
    moduli = np.sort(np.abs(values))[::-1]
    return frame, complex(size * value), float(size * moduli[own]) if len(moduli) > own else 0.0


@at_least_float32
def li2026_steered_weight(
    weight: Float[Array, "*B D D"], direction: Float[Array, "*B D"], eigenvalue: Float[Array, "*B"]
) -> Float[Array, "*B D D"]:
    """F with `direction` made an eigenvector: (I - v v^T) F (I - v v^T) + mu v v^T, v of norm 1.

    v F' = mu v and F' v^T = mu v^T exactly, and the rest of F acts on v's complement only; v is the principal
    eigenvector once mu exceeds ||F||. Symmetric F stays symmetric.

    Args:
      weight: F, [..., D, D].
      direction: v, any non-zero length, [..., D].
      eigenvalue: mu, [...].

    Returns:
      [..., D, D].

    >>> import jax.numpy as jnp
    >>> li2026_steered_weight(jnp.ones((2, 2)), jnp.array([1.0, 0.0]), jnp.array(5.0))
    Array([[5., 0.],
           [0., 1.]], dtype=float32)

    References: after Li and Altafini (2026), arXiv 2605.25619 (steering); this form is ours.
    """
    unit = unit_vectors(direction)
    outer = unit[..., :, None] * unit[..., None, :]
    rest = jnp.broadcast_to(jnp.eye(weight.shape[-1], dtype=weight.dtype), weight.shape) - outer
    return matmul(matmul(rest, weight), rest) + eigenvalue[..., None, None] * outer
