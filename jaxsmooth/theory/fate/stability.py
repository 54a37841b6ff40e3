"""Whether small deviations from a state grow under a map: watched next to consensus, and by its Jacobian anywhere."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ...errors import arguments_checked
from ...linalg.norms import norm, quotient
from ...linalg.precision import at_least_float32, einsum
from ..consensus import centre_tokens, real_tokens, token_mean
from .orbit import TokenMap, default_tolerance, require_sentences, towards_mean


class Approach(NamedTuple):
    """How a sentence next to consensus moves.

    Attributes:
      row: the common token in the end, [B D].
      row_change: ||x_k - x_(k-1)|| / ||x_k|| at the last step, [B]: small where the common token has come to rest.
      deviation: X - 1 x^T at the end, [B T D].
      rate: d_M after a step over d_M before it, geometric mean over the last half of the steps, [B].
    """

    row: Float[Array, "B D"]
    row_change: Float[Array, " B"]
    deviation: Float[Array, "B T D"]
    rate: Float[Array, " B"]


@at_least_float32
def approach_consensus(
    apply: TokenMap,
    hidden: Float[Array, "B T D"],
    mask: Bool[Array, "B T"],
    *,
    steps: int = 100,
    size: float | None = None,
) -> Approach:
    """Follow a sentence next to consensus for as long as its common token needs to come to rest.

    The map itself is applied, not its derivative; before every step the deviation from the mean is drawn in, or out, to
    d_M(X) = size ||X||, so that it stays small enough for the local law and large enough to be seen.

    Args:
      apply: the map, [B T D] -> [B T D].
      hidden: its mean is where the common token starts, its deviation the first direction, [B T D].
      mask: True on real tokens, [B T].
      steps: how many.
      size: the square root of `default_tolerance` unless given.

    Returns:
      An `Approach`; the rate is 0 where a step leaves no more than rounding of the deviation, as attention alone
      does, and NaN where there was no more than that from the first, or where the sentence
      vanishes or outgrows the finite numbers.

    Raises:
      ShapeError: tokens that are not [B T D], or a mask that is not [B T].
      OptionError: fewer steps than one, or a size that is not a number of at least 0.

    >>> import jax.numpy as jnp
    >>> found = approach_consensus(lambda x: 1 + x / 2, jnp.array([[[0.0], [1.0]]]), jnp.ones((1, 2), bool))
    >>> [round(float(side.ravel()[0]), 4) for side in (found.row, found.rate)]
    [2.0, 0.5]
    """
    require_sentences(hidden, mask, steps, size, 1)
    size = default_tolerance(hidden.dtype) ** 0.5 if size is None else size

    def apart(x: Array) -> Array:
        """d_M(X), 0 where it is rounding, NaN where X is not finite."""
        distance, whole = (norm(side, (-2, -1)) for side in (centre_tokens(x, mask), x))
        found = jnp.where(distance > 32 * jnp.finfo(x.dtype).eps * whole, distance, 0)
        return jnp.where(jnp.isfinite(whole), found, jnp.nan)

    def drawn(x: Array) -> Array:
        return towards_mean(x, quotient(size * norm(x, (-2, -1)), apart(x), 0), mask)

    def step(k: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        x, _, log = state
        after = jnp.where(mask[..., None], apply(x), 0)
        # From nothing comes nothing: the first step that leaves none makes the rate 0.
        before, left = apart(x), apart(after)
        ratio = jnp.where((left == 0) & (before == 0) & (k > 0), 0, quotient(left, before))
        row = token_mean(after, mask)
        change = quotient(norm(row - token_mean(x, mask), (-2, -1)), norm(row, (-2, -1)), 0)
        return drawn(after), change, log + jnp.where((k >= steps // 2) | jnp.isnan(ratio), jnp.log(ratio), 0)

    start = drawn(real_tokens(hidden, mask))
    unknown = jnp.zeros(hidden.shape[0], hidden.dtype)
    x, change, log = jax.lax.fori_loop(0, steps, step, (start, unknown, unknown))
    rate = jnp.exp(log / (steps - steps // 2))
    return Approach(token_mean(x, mask)[:, 0], change, centre_tokens(x, mask), rate)


class Krylov(NamedTuple):
    """The Jacobian of a map on a Krylov space of every sentence: small enough for the host.

    Attributes:
      projected: in an orthonormal basis, [B K K].
      coupling: norm of the last image's part outside the space; 0 where the space is invariant, [B].
    """

    projected: Float[Array, "B K K"]
    coupling: Float[Array, " B"]


@at_least_float32
def jacobian_krylov(
    apply: TokenMap,
    state: Float[Array, "B T D"],
    mask: Bool[Array, "B T"],
    *,
    period: Int[Array, " B"],
    centred: Bool[Array, " B"],
    start: Float[Array, "B T D"] | None = None,
    size: int = 24,
) -> Krylov:
    """The derivative of a map, or of so many applications as a cycle has steps, on Krylov spaces.

    Args:
      apply: the map, [B T D] -> [B T D], differentiable.
      state: where the derivative is taken: X, or for a cycle the states X, F(X), F(F(X)), ..., [B T D].
      mask: True on real tokens, [B T]; deviations of padding are not followed.
      period: of every sentence, at least 1, [B].
      centred: where True, deviations are taken without their mean over tokens. At consensus, which a map of equal
        tokens keeps, that is the derivative on the quotient by M: how deviations from consensus grow, [B].
      start: a guess at the direction that grows most, any length; a fixed random direction a thousandth as long is
        added to it, and is the start where this is None or 0.
      size: dimension of the Krylov space.

    Returns:
      A `Krylov`, see `krylov_radius`.

    Raises:
      ShapeError: a state that is not [B T D], or a mask that is not [B T].
      OptionError: a Krylov space of no dimension.

    >>> import jax.numpy as jnp
    >>> real, one = jnp.ones((1, 2), bool), jnp.ones(1, jnp.int32)
    >>> found = jacobian_krylov(lambda x: x**3, jnp.full((1, 2, 1), 0.5), real, period=one, centred=one == 1, size=2)
    >>> round(float(krylov_radius(found, np.ones(1, np.int32))[0][0]), 4)  # 3 x^2
    0.75

    References: Saad (2011), Numerical Methods for Large Eigenvalue Problems, chapter 6.
    """
    require_sentences(state, mask, size, None, 1)
    real = mask[..., None]

    def projected_on(vector: Array) -> Array:
        vector = jnp.where(real, vector, 0)
        return jnp.where(centred[:, None, None], centre_tokens(vector, mask), vector)

    def image(vector: Array) -> Array:
        def once(k: Array, pair: tuple[Array, Array]) -> tuple[Array, Array]:
            moved = jax.jvp(apply, (pair[0],), (pair[1],))
            active = (k < period)[:, None, None]
            after, direction = (jnp.where(active & real, new, old) for new, old in zip(moved, pair, strict=True))
            return after, direction

        return projected_on(jax.lax.fori_loop(0, jnp.max(period), once, (state, vector))[1])

    # The same for every sentence and, token by token, for every length: neither padding nor the batch counts.
    random = jax.random.normal(jax.random.key(0), state.shape[1:], jnp.float32).astype(state.dtype)
    first = _unit(projected_on(jnp.broadcast_to(random, state.shape)))
    if start is not None:
        first = _unit(projected_on(start)) + 0.001 * first
    return _arnoldi(image, first, size)


def _arnoldi(image: TokenMap, start: Array, size: int) -> Krylov:
    """Arnoldi with two orthogonalisations, of every sentence by itself."""
    basis = jnp.zeros((size + 1, *start.shape), start.dtype).at[0].set(_unit(start))

    def step(j: Array, found: tuple[Array, Array]) -> tuple[Array, Array]:
        basis, projected = found
        vector = image(basis[j])
        whole = norm(vector, (-2, -1))
        once = einsum("kbtd,btd->kb", basis, vector)
        vector = vector - einsum("kb,kbtd->btd", once, basis)
        twice = einsum("kbtd,btd->kb", basis, vector)
        vector = vector - einsum("kb,kbtd->btd", twice, basis)
        left = norm(vector, (-2, -1))
        # The remainder of an invariant space is rounding noise; normalised, it would pass for a direction.
        left = jnp.where(left > 64 * jnp.finfo(vector.dtype).eps * whole, left, 0)
        unit = jnp.where(left[:, None, None] > 0, _unit(vector), 0)
        column = (once + twice).at[j + 1].set(left)
        return basis.at[j + 1].set(unit), projected.at[:, j].set(column)

    projected = jnp.zeros((size + 1, size, start.shape[0]), start.dtype)
    _, projected = jax.lax.fori_loop(0, size, step, (basis, projected))
    return Krylov(jnp.moveaxis(projected[:size], -1, 0), projected[size, size - 1])


def _unit(hidden: Array) -> Array:
    return quotient(hidden, norm(hidden, (-2, -1), keepdims=True), 0)


@arguments_checked
def krylov_radius(
    found: Krylov, period: Int[np.ndarray, " B"]
) -> tuple[Float[np.ndarray, " B"], Float[np.ndarray, " B"]]:
    """The largest eigenvalue modulus found, per step, and the residual of its Ritz pair over it; on the host.

    An estimate: the value is an eigenvalue of the Jacobian plus a matrix of the size of the residual, and a larger one
    that hardly shows in the start may have been missed.

    Args:
      found: of `jacobian_krylov`.
      period: as there; the radius is the p-th root of that of p steps, [B].

    Returns:
      `(radius, residual)`, [B] each; NaN where the Jacobian is not finite.

    >>> import numpy as np
    >>> found = Krylov(np.array([[[0.0, 0.25], [-0.25, 0.0]]]), np.zeros(1))
    >>> [float(side[0]) for side in krylov_radius(found, np.array([2]))]
    [0.5, 0.0]
    """
    radii, residuals = [], []
    for matrix, coupling, p in zip(*(np.asarray(side, np.float64) for side in found), np.asarray(period), strict=True):
        if not np.isfinite(matrix).all():
            radii.append(np.nan)
            residuals.append(np.nan)
            continue
        values, vectors = np.linalg.eig(matrix)
        top = int(np.argmax(np.abs(values)))
        radius = abs(values[top])
        radii.append(radius ** (1 / max(int(p), 1)))
        residuals.append(coupling * abs(vectors[-1, top]) / radius if radius > 0 else 0.0)
    return np.array(radii), np.array(residuals)
