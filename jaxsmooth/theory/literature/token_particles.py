"""Tokens as particles on the unit sphere: clustering, with explicit rates. Proofs are in docs/catalogue.md."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ...errors import OptionError, require_int
from ...linalg.norms import norm, unit_vectors
from ...linalg.precision import at_least_float32, einsum, matmul
from ...linalg.rows import masked_softmax
from ..block.lemmas import ROUNDING
from ..consensus import diameter, real_pairs, real_tokens
from ..statement import Statement


@at_least_float32
def geshkovski2023_velocity(
    hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"], sharpness: Float[Array, ""] | float
) -> Float[Array, "*B T D"]:
    """dx_i/dt = P_i sum_j A_ij x_j, P_i = I - x_i x_i^T, A_ij the softmax over j of beta <x_i, x_j>.

    Args:
      hidden: unit vectors, or others, of which the directions are taken, [..., T, D].
      mask: True on real tokens, [..., T].
      sharpness: beta >= 0.

    Returns:
      [..., T, D], tangent to the sphere; zero on padding.

    >>> import jax.numpy as jnp
    >>> geshkovski2023_velocity(jnp.eye(2), jnp.ones(2, bool), 0.0)
    Array([[0. , 0.5],
           [0.5, 0. ]], dtype=float32)

    References: after Geshkovski et al. (2023), arXiv 2312.10794.
    """
    real = mask[..., None].astype(hidden.dtype)
    clean = unit_vectors(real_tokens(hidden, mask))
    logits = sharpness * einsum("...td,...sd->...ts", clean, clean)
    pull = matmul(masked_softmax(logits, mask[..., None, :]), clean)
    return (pull - jnp.sum(pull * clean, axis=-1, keepdims=True) * clean) * real


@at_least_float32
def geshkovski2023_flow(
    hidden: Float[Array, "*B T D"],
    mask: Bool[Array, "*B T"],
    sharpness: Float[Array, ""] | float,
    time: Float[Array, ""] | float,
    steps: int,
) -> Float[Array, "*B T D"]:
    """Tokens after `time` of `geshkovski2023_velocity`, by Runge and Kutta's fourth-order steps back onto the sphere.

    Args:
      hidden: unit vectors, [..., T, D].
      mask: True on real tokens, [..., T].
      sharpness: beta >= 0.
      time: duration.
      steps: number of steps; the error is of the order of (time / steps)^4.

    Returns:
      [..., T, D], unit vectors; padding does not move.

    Raises:
      OptionError: fewer than one step.

    >>> import jax.numpy as jnp
    >>> x = geshkovski2023_flow(jnp.eye(2), jnp.ones(2, bool), 0.0, 1.0, 20)
    >>> round(float(x[0] @ x[1]), 4), round(float(jnp.tanh(1.0)), 4)
    (0.7616, 0.7616)

    References: after Geshkovski et al. (2023), arXiv 2312.10794.
    """
    require_int("steps", steps, 1, OptionError)
    width = time / steps

    def step(_: Array, x: Array) -> Array:
        k1 = geshkovski2023_velocity(x, mask, sharpness)
        k2 = geshkovski2023_velocity(x + width / 2 * k1, mask, sharpness)
        k3 = geshkovski2023_velocity(x + width / 2 * k2, mask, sharpness)
        k4 = geshkovski2023_velocity(x + width * k3, mask, sharpness)
        moved = x + width / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return jnp.where(mask[..., None], unit_vectors(moved), x)

    return jax.lax.fori_loop(0, steps, step, hidden)


@at_least_float32
def geshkovski2023_clustering(
    before: Float[Array, "*B T D"],
    after: Float[Array, "*B T D"],
    mask: Bool[Array, "*B T"],
    sharpness: Float[Array, ""] | float,
    time: Float[Array, ""] | float,
) -> Statement:
    """Tokens at acute angles cluster exponentially: tanh(artanh g_0 + (2/n) e^{-beta(1 - g_0)} t) <= g(t).

    g = min_ij <x_i, x_j>. Attained at every time for n = 2 and beta = 0. Geshkovski et al. need an open hemisphere
    only, which contains the acute case, and give no such constant.

    Args:
      before: unit vectors at time 0, [..., T, D].
      after: the same at time t, see `geshkovski2023_flow`, [..., T, D].
      mask: True on real tokens, [..., T].
      sharpness: beta.
      time: t.

    Returns:
      A `Statement`, [...]; applicable where beta and t are not negative, a token is real, all real ones have length 1
      up to rounding, and no two are at an obtuse angle.

    >>> import jax.numpy as jnp
    >>> after = geshkovski2023_flow(jnp.eye(2), jnp.ones(2, bool), 0.0, 1.0, 20)
    >>> found = geshkovski2023_clustering(jnp.eye(2), after, jnp.ones(2, bool), 0.0, 1.0)
    >>> [round(float(side), 4) for side in found[:2]]
    [0.7616, 0.7616]

    References: after Geshkovski et al. (2023), arXiv 2312.10794; constant and proof in docs/catalogue.md.
    """
    start = smallest_cosine(before, mask)
    count = jnp.maximum(jnp.sum(mask, axis=-1), 1).astype(before.dtype)
    speed = 2 / count * jnp.exp(-sharpness * (1 - start))
    # Rounding may leave the cosine of equal unit vectors above 1.
    known = jnp.clip(start, 0, 1)
    # tanh(artanh g + y), without artanh's pole at consensus.
    moved = jnp.tanh(speed * time)
    bound = (known + moved) / (1 + known * moved)
    sound = on_sphere(before, mask) & on_sphere(after, mask) & (start >= 0) & (sharpness >= 0) & (time >= 0)
    return Statement(lhs=bound, rhs=smallest_cosine(after, mask), applicable=sound)


@at_least_float32
def geshkovski2023_discrete_step(
    before: Float[Array, "*B T D"],
    after: Float[Array, "*B T D"],
    mask: Bool[Array, "*B T"],
    sharpness: Float[Array, ""] | float,
) -> Statement:
    """One layer x_i <- N(sum_j A_ij x_j) without residual: D' <= tanh(beta D^2 / 4) / sqrt(1 - (1 - 1/n) D^2 / 2) D.

    D is the largest distance of two tokens, N the projection onto the sphere: cubic near consensus, as without N.

    Args:
      before: unit vectors, [..., T, D].
      after: the layer's output, [..., T, D].
      mask: True on real tokens, [..., T].
      sharpness: beta >= 0.

    Returns:
      A `Statement`, [...]; applicable where beta >= 0, a token is real, all real ones have length 1 up to rounding,
      and all angles are acute, D^2 < 2.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[0.6, 0.8], [-0.6, 0.8]])
    >>> found = geshkovski2023_discrete_step(x, jnp.array([[0.0, 1.0], [0.0, 1.0]]), jnp.ones(2, bool), 0.0)
    >>> [float(side) for side in found[:2]]
    [0.0, 0.0]

    References: proved in docs/catalogue.md; the dynamics after Geshkovski et al. (2023), arXiv 2312.10794.
    """
    size = diameter(before, mask)
    square = size * size
    count = jnp.maximum(jnp.sum(mask, axis=-1), 1).astype(before.dtype)
    acute = square < 2
    length = 1 - (1 - 1 / count) * jnp.where(acute, square, 0) / 2
    rate = jnp.tanh(sharpness * square / 4) / jnp.sqrt(length)
    sound = on_sphere(before, mask) & on_sphere(after, mask) & (sharpness >= 0)
    return Statement(lhs=diameter(after, mask), rhs=rate * size, applicable=acute & sound)


def on_sphere(hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]) -> Bool[Array, "*B"]:
    """Whether there are real tokens and all of them are unit vectors up to rounding.

    >>> import jax.numpy as jnp
    >>> on_sphere(jnp.array([[[1.0, 0.0]], [[2.0, 0.0]]]), jnp.ones((2, 1), bool))
    Array([ True, False], dtype=bool)
    """
    slack = ROUNDING * hidden.shape[-1] * jnp.finfo(hidden.dtype).eps
    return jnp.all((jnp.abs(norm(hidden) - 1) <= slack) | ~mask, axis=-1) & jnp.any(mask, axis=-1)


def smallest_cosine(hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]) -> Float[Array, "*B"]:
    """min_ij <x_i, x_j> over real tokens, for unit vectors: 1 at consensus.

    Args:
      hidden: unit vectors, [..., T, D].
      mask: True on real tokens, [..., T].

    Returns:
      [...], in [-1, 1].

    >>> import jax.numpy as jnp
    >>> smallest_cosine(jnp.eye(2), jnp.ones(2, bool))
    Array(0., dtype=float32)
    """
    products = einsum("...td,...sd->...ts", hidden, hidden)
    real = real_pairs(mask)
    return jnp.min(jnp.where(real, products, jnp.inf), axis=(-2, -1))
