"""What published remedies of over-smoothing guarantee: ContraNorm, NeuTRENO, initial residuals, BatchNorm, PairNorm.

Proofs are in docs/catalogue.md; the edits that apply remedies to an encoder are in `jaxsmooth.mitigations`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ...linalg.eigh import batched_eigh
from ...linalg.norms import binary_size, norm, quotient, safe_sqrt
from ...linalg.precision import at_least_float32, einsum, matmul
from ..consensus import centre_tokens, real_pairs, real_tokens, subspace_distance, token_mean
from ..mixing import mixing_rate, rows_sum_to_one
from ..operators import uniform_attention
from ..statement import Statement


@at_least_float32
def guo2023_smallest_eigenvalue(attn: Float[Array, "*B T S"], mask: Bool[Array, "*B T"]) -> Float[Array, "*B"]:
    """sigma_min of ContraNorm: least eigenvalue of J(I - A) + (I - A)^T J on the complement of 1.

    The matrix annihilates 1, so over the whole space its least eigenvalue is never positive and the guarantee is empty.

    Args:
      attn: A, rows of sum 1, zero on padded keys, [..., T, S].
      mask: True on real tokens, [..., T].

    Returns:
      [...]; meaningless for fewer than two real tokens.

    >>> import jax.numpy as jnp
    >>> guo2023_smallest_eigenvalue(jnp.array([[0.75, 0.25], [0.25, 0.75]]), jnp.ones(2, bool)).round(4)
    Array(1., dtype=float32)

    References: after Guo et al. (2023), arXiv 2303.06562; the restriction to the complement is proved necessary in
    docs/catalogue.md.
    """
    real = real_pairs(mask)
    eye = jnp.broadcast_to(jnp.eye(attn.shape[-1], dtype=attn.dtype), attn.shape)
    half = centre_tokens(jnp.where(real, eye - attn, 0), mask)
    symmetric = half + jnp.swapaxes(half, -1, -2)
    # The direction 1 and the padding are lifted above everything else instead of being projected out.
    lift = 1 + norm(symmetric, (-2, -1), keepdims=True)
    rest = jnp.where(real, uniform_attention(attn, mask), eye)
    lifted = symmetric + lift * rest
    values, vectors = batched_eigh(jax.lax.stop_gradient(lifted))
    # The eigenvalue has the derivative of x^T M x, x its unit eigenvector held still.
    form = einsum("...i,...ij,...j->...", vectors[..., 0], lifted, vectors[..., 0])
    return values[..., 0] + (form - jax.lax.stop_gradient(form))


@at_least_float32
def guo2023_contranorm(
    hidden: Float[Array, "*B T D"],
    attn: Float[Array, "*B T S"],
    mask: Bool[Array, "*B T"],
    strength: Float[Array, ""] | float,
) -> Statement:
    """ContraNorm spreads tokens: (1 + s sigma_min) d_M(H)^2 <= d_M((1 + s) H - s A H)^2.

    A is softmax(H H^T) in the method; only its row sums matter here. sigma_min: `guo2023_smallest_eigenvalue`; the
    guarantee is an increase only where that is positive.

    Args:
      hidden: H, [..., T, D].
      attn: A, rows of sum 1, zero on padded keys, [..., T, S].
      mask: True on real tokens, [..., T].
      strength: s.

    Returns:
      A `Statement`, [...], in squared units; applicable where s >= 0, real rows sum to 1 and two tokens are real.

    >>> import jax.numpy as jnp
    >>> found = guo2023_contranorm(jnp.array([[1.0], [-1.0]]), jnp.full((2, 2), 0.5), jnp.ones(2, bool), 1.0)
    >>> [round(float(side), 4) for side in found[:2]]
    [6.0, 8.0]

    References: after Guo et al. (2023), arXiv 2303.06562; proof in docs/catalogue.md.
    """
    spread = hidden + strength * (hidden - matmul(attn, hidden * mask[..., None].astype(hidden.dtype)))
    least = guo2023_smallest_eigenvalue(attn, mask)
    return Statement(
        lhs=(1 + strength * least) * subspace_distance(hidden, mask) ** 2,
        rhs=subspace_distance(spread, mask) ** 2,
        applicable=rows_sum_to_one(attn, mask) & (jnp.sum(mask, axis=-1) > 1) & (strength >= 0),
    )


@at_least_float32
def nguyen2023_neutreno_fixed_point(
    attn: Float[Array, "*B T S"],
    first_value: Float[Array, "*B T D"],
    mask: Bool[Array, "*B T"],
    strength: Float[Array, ""] | float,
) -> Float[Array, "*B T D"]:
    """The V with V = A V + lambda (V_0 - V): lambda ((1 + lambda) I - A)^{-1} V_0, NeuTRENO's linear core.

    It exists for lambda > 0, as A has spectral radius 1, and keeps part of V_0's differences; see
    `nguyen2023_neutreno_distance`. Iterating V <- A V + lambda (V_0 - V) reaches it where the spectral radius of
    A - lambda I is below 1.

    Args:
      attn: A, rows of sum 1, zero on padded keys, [..., T, S].
      first_value: V_0, the values of the first layer, [..., T, D].
      mask: True on real tokens, [..., T].
      strength: lambda > 0.

    Returns:
      [..., T, D]; zero on padding.

    >>> import jax.numpy as jnp
    >>> v = nguyen2023_neutreno_fixed_point(jnp.full((2, 2), 0.5), jnp.array([[3.0], [1.0]]), jnp.ones(2, bool), 1.0)
    >>> v.round(4).ravel()
    Array([2.5, 1.5], dtype=float32)

    References: after Nguyen et al. (2023), NeuTRENO, NeurIPS 2023.
    """
    eye = jnp.broadcast_to(jnp.eye(attn.shape[-1], dtype=attn.dtype), attn.shape)
    matrix = (1 + strength) * eye - jnp.where(real_pairs(mask), attn, 0)
    return _solved(matrix, strength * real_tokens(first_value, mask))


@at_least_float32
def nguyen2023_neutreno_distance(
    attn: Float[Array, "*B T S"],
    first_value: Float[Array, "*B T D"],
    mask: Bool[Array, "*B T"],
    strength: Float[Array, ""] | float,
) -> Statement:
    """NeuTRENO's fixed point does not collapse: lambda / (1 + lambda + sqrt(lambda(A))) d_M(V_0) <= d_M(V).

    sqrt(lambda(A)) is `mixing_rate`.

    Args:
      attn: A, rows of sum 1, zero on padded keys, [..., T, S].
      first_value: V_0, [..., T, D].
      mask: True on real tokens, [..., T].
      strength: lambda.

    Returns:
      A `Statement`, [...]; applicable where lambda > 0 and real rows sum to 1.

    >>> import jax.numpy as jnp
    >>> swap = jnp.array([[0.0, 1.0], [1.0, 0.0]])
    >>> found = nguyen2023_neutreno_distance(swap, jnp.array([[1.0], [-1.0]]), jnp.ones(2, bool), 1.0)
    >>> [round(float(side), 4) for side in found[:2]]
    [0.4714, 0.4714]

    References: proved in docs/catalogue.md; the method after Nguyen et al. (2023), NeuTRENO, NeurIPS 2023.
    """
    limit = nguyen2023_neutreno_fixed_point(attn, first_value, mask, strength)
    kept = strength / (1 + strength + mixing_rate(attn, mask))
    return Statement(
        lhs=kept * subspace_distance(first_value, mask),
        rhs=subspace_distance(limit, mask),
        applicable=rows_sum_to_one(attn, mask) & (strength > 0),
    )


@at_least_float32
def scholkemper2024_initial_residual(
    attn: Float[Array, "*B T S"],
    first: Float[Array, "*B T D"],
    mask: Bool[Array, "*B T"],
    share: Float[Array, ""] | float,
) -> Float[Array, "*B T D"]:
    """The limit of X <- (1 - a) A X + a X_0: a (I - (1 - a) A)^{-1} X_0, reached from everywhere for 0 < a <= 1.

    It is NeuTRENO's fixed point with lambda = a / (1 - a), so a residual to the first layer prevents collapse;
    unlike NeuTRENO's, this iteration always converges, at rate 1 - a or better.

    Args:
      attn: A, rows of sum 1, zero on padded keys, [..., T, S].
      first: X_0, [..., T, D].
      mask: True on real tokens, [..., T].
      share: a, above 0 and at most 1.

    Returns:
      [..., T, D]; zero on padding; X_0 for a = 1.

    >>> import jax.numpy as jnp
    >>> x = scholkemper2024_initial_residual(jnp.full((2, 2), 0.5), jnp.array([[3.0], [1.0]]), jnp.ones(2, bool), 0.5)
    >>> x.round(4).ravel()
    Array([2.5, 1.5], dtype=float32)

    References: after Scholkemper et al. (2024), arXiv 2406.02997.
    """
    eye = jnp.broadcast_to(jnp.eye(attn.shape[-1], dtype=attn.dtype), attn.shape)
    matrix = eye - (1 - share) * jnp.where(real_pairs(mask), attn, 0)
    return _solved(matrix, share * real_tokens(first, mask))


@at_least_float32
def scholkemper2024_batch_norm(hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]) -> Float[Array, "*B T D"]:
    """BatchNorm over tokens: every feature gets mean 0 and variance 1 over real tokens.

    Between linear mixings X <- BN(A X W), with W invertible, it is subspace iteration: the column space tends to the
    eigenspace of the D eigenvalues of J A that are largest in modulus, not to one direction.

    Args:
      hidden: [..., T, D].
      mask: True on real tokens, [..., T].

    Returns:
      [..., T, D]; zero on padding and in features that are constant over tokens.

    >>> import jax.numpy as jnp
    >>> scholkemper2024_batch_norm(jnp.array([[1.0], [5.0]]), jnp.ones(2, bool)).ravel()
    Array([-1.,  1.], dtype=float32)

    References: after Scholkemper et al. (2024), arXiv 2406.02997.
    """
    centred = centre_tokens(hidden, mask)
    scaled = centred / binary_size(centred, -2)
    return quotient(scaled, safe_sqrt(token_mean(scaled * scaled, mask)), 0)


@at_least_float32
def zhao2020_pair_norm(
    hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"], scale: Float[Array, ""] | float
) -> Statement:
    """PairNorm, s sqrt(n) J X / ||J X||_F, puts every state at one distance: d_M = s sqrt(n), given as both sides.

    The sum of squared distances of all pairs, n d_M^2, is then s^2 n^2 in every layer: no depth can unify the tokens.

    Args:
      hidden: X, [..., T, D].
      mask: True on real tokens, [..., T].
      scale: s, at least 0.

    Returns:
      A `Statement`, an equality, [...]; applicable where the real tokens are not all equal and s is not negative.

    >>> import jax.numpy as jnp
    >>> found = zhao2020_pair_norm(jnp.array([[1.0], [5.0]]), jnp.ones(2, bool), 3.0)
    >>> [round(float(side), 4) for side in found[:2]]
    [4.2426, 4.2426]

    References: Zhao and Akoglu (2020), PairNorm, arXiv 1909.12223.
    """
    centred = centre_tokens(hidden, mask)
    scaled = centred / binary_size(centred, (-2, -1))
    size = norm(scaled, (-2, -1), keepdims=True)
    root = jnp.sqrt(jnp.sum(mask, axis=-1).astype(hidden.dtype))
    put = scale * root[..., None, None] * quotient(scaled, size, 0)
    return Statement(
        lhs=subspace_distance(put, mask), rhs=scale * root, applicable=(size[..., 0, 0] > 0) & (scale >= 0)
    )


def _solved(matrix: Array, target: Array) -> Array:
    """M^{-1} X, one at a time: XLA's CPU spreads a batch of LAPACK calls over a pool that can wait for itself."""
    flat = (matrix.reshape(-1, *matrix.shape[-2:]), target.reshape(-1, *target.shape[-2:]))
    return jax.lax.map(lambda pair: jnp.linalg.solve(*pair), flat).reshape(target.shape)
