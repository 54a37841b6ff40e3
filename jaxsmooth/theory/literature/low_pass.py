"""Attention as a filter on tokens: how much of what differs between them a layer passes.

High frequency: J X, with Frobenius norm d_M(X). Proofs are in docs/catalogue.md.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact

from ...linalg.lanczos import spectral_norm
from ...linalg.norms import quotient
from ...linalg.precision import at_least_float32, matmul
from ...linalg.rows import masked_softmax
from ..consensus import real_pairs, subspace_distance, token_mean
from ..operators import uniform_attention
from ..statement import Statement


@at_least_float32
def wang2022_low_pass_rate(largest_logit: Float[Array, "*B"], tokens: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """sqrt(n e^{2 alpha} / (e^{2 alpha} + n - 1)): how much high frequency softmax attention can pass, at most.

    alpha = max |logit|. It is the root of the largest possible column sum, so it is never attained: the true
    supremum is smaller by sqrt(2) or more as alpha grows.

    Args:
      largest_logit: alpha, [...].
      tokens: n, [...].

    Returns:
      [...], from 1 (alpha = 0, where nothing passes) to sqrt(n).

    >>> import jax.numpy as jnp
    >>> wang2022_low_pass_rate(jnp.array([0.0, 50.0]), jnp.array([4.0, 4.0]))
    Array([1., 2.], dtype=float32)

    References: after Wang et al. (2022), arXiv 2203.05962; proof in docs/catalogue.md.
    """
    # Divided through by e^{2 alpha}, which overflows long before the quotient is large.
    return jnp.sqrt(tokens / (1 + (tokens - 1) * jnp.exp(-2 * largest_logit)))


@at_least_float32
def wang2022_tanh_rate(largest_logit: Float[Array, "*B"], tokens: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """sqrt(n / 2) tanh(alpha): the same factor, vanishing with the logits; attained for n = 2.

    From sqrt(lambda) <= sqrt(n / 2) tau and tau <= tanh(alpha). Neither this nor `wang2022_low_pass_rate` is always
    the smaller one.

    Args:
      largest_logit: alpha = max |logit|, [...].
      tokens: n, [...].

    Returns:
      [...].

    >>> import jax.numpy as jnp
    >>> wang2022_tanh_rate(jnp.array([0.0, 50.0]), jnp.array([8.0, 8.0]))
    Array([0., 2.], dtype=float32)

    References: proved in docs/catalogue.md; refines Wang et al. (2022), arXiv 2203.05962.
    """
    return jnp.sqrt(tokens / 2) * jnp.tanh(largest_logit)


@at_least_float32
def wang2022_high_frequency(
    logits: Float[Array, "*B T S"],
    hidden: Float[Array, "*B T D"],
    value: Float[Array, "D E"],
    mask: Bool[Array, "*B T"],
) -> Statement:
    """d_M(softmax(logits) X W_V) <= rate ||W_V|| d_M(X), the rate the lesser of Wang et al.'s and the tanh form.

    Args:
      logits: of one head, [..., T, S].
      hidden: X, [..., T, D].
      value: W_V, [D, E].
      mask: True on real tokens, [..., T].

    Returns:
      A `Statement`, [...]; applicable where every logit of a real query and key is finite (no causal mask).

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[1.0], [-1.0]])
    >>> found = wang2022_high_frequency(x @ x.T, x, jnp.eye(1), jnp.ones(2, bool))
    >>> [round(float(side), 4) for side in found[:2]]
    [1.0771, 1.0771]

    References: after Wang et al. (2022), arXiv 2203.05962; proof in docs/catalogue.md.
    """
    real = real_pairs(mask)
    alpha = jnp.max(jnp.where(real, jnp.abs(logits), 0), axis=(-2, -1))
    count = jnp.sum(mask, axis=-1).astype(hidden.dtype)
    rate = jnp.minimum(wang2022_low_pass_rate(alpha, count), wang2022_tanh_rate(alpha, count))
    attn = masked_softmax(logits, mask[..., None, :])
    mixed = matmul(matmul(attn, hidden * mask[..., None].astype(hidden.dtype)), value)
    return Statement(
        lhs=subspace_distance(mixed, mask),
        rhs=rate * spectral_norm(value) * subspace_distance(hidden, mask),
        applicable=jnp.isfinite(alpha) & (count > 0),
    )


@at_least_float32
def wang2022_attn_scale(
    attn: Float[Array, "*B T S"], mask: Bool[Array, "*B T"], strength: Float[Array, ""] | float
) -> Float[Array, "*B T S"]:
    """AttnScale, A' = 1 1^T / n + (1 + omega)(A - 1 1^T / n): rows keep their sums, and J A' = (1 + omega) J A exactly.

    Args:
      attn: A, zero on padded keys, [..., T, S].
      mask: True on real tokens, [..., T].
      strength: omega.

    Returns:
      [..., T, S]; entries may be negative.

    >>> import jax.numpy as jnp
    >>> wang2022_attn_scale(jnp.array([[0.75, 0.25], [0.5, 0.5]]), jnp.ones(2, bool), 1.0)
    Array([[1. , 0. ],
           [0.5, 0.5]], dtype=float32)

    References: after Wang et al. (2022), arXiv 2203.05962.
    """
    uniform = uniform_attention(attn, mask)
    return uniform + (1 + strength) * (attn - uniform)


@at_least_float32
def wang2022_feat_scale(
    hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"], low: Float[Array, " D"], high: Float[Array, " D"]
) -> Float[Array, "*B T D"]:
    """FeatScale, (1 + s) (I - J) X + (1 + t) J X per channel: d_M lies within min and max |1 + t| of what it was.

    The paper's factor; its published code has 1 + 2 s and 1 + 2 t.

    Args:
      hidden: X, [..., T, D].
      mask: True on real tokens, [..., T].
      low: s, [D].
      high: t, [D].

    Returns:
      [..., T, D]; padding keeps its value.

    >>> import jax.numpy as jnp
    >>> wang2022_feat_scale(jnp.array([[1.0], [3.0]]), jnp.ones(2, bool), jnp.zeros(1), jnp.ones(1)).ravel()
    Array([0., 4.], dtype=float32)

    References: after Wang et al. (2022), arXiv 2203.05962.
    """
    mean = token_mean(hidden, mask)
    shape = (1,) * (hidden.ndim - 1) + low.shape
    scaled = (1 + low).reshape(shape) * mean + (1 + high).reshape(shape) * (hidden - mean)
    return jnp.where(mask[..., None], scaled, hidden)


@at_least_float32
def choi2024_filter_response(
    eigenvalues: Inexact[Array, "*B T"],
    power: Float[Array, ""] | float,
    *,
    identity: Float[Array, ""] | float = 0.0,
    linear: Float[Array, ""] | float = 1.0,
    order: int = 3,
) -> Inexact[Array, "*B T"]:
    """GFSA's filter on an eigenvalue x of attention: w0 + w1 x + wK (x + (K - 1)(x^2 - x)).

    The filter w0 I + w1 A + wK [A + (K - 1)(A^2 - A)] is a polynomial in A, so its eigenvalues are these and its
    eigenvectors A's. Tokens differ along all eigenvectors but the consensus, x = 1, whose gain is w0 + w1 + wK: it
    passes more of a difference than attention does where the modulus of the response exceeds that of x.

    Args:
      eigenvalues: of A, [..., T].
      power: wK.
      identity: w0.
      linear: w1.
      order: K.

    Returns:
      [..., T].

    >>> import jax.numpy as jnp
    >>> choi2024_filter_response(jnp.array([1.0, 0.5]), -0.5, order=3)
    Array([0.5, 0.5], dtype=float32)

    References: after Choi et al. (2024), GFSA, arXiv 2312.04234; the eigenvalues of a polynomial of a matrix.
    """
    x = eigenvalues
    return identity + linear * x + power * (x + (order - 1) * (x * x - x))


@at_least_float32
def dovonon2024_unification_rate(
    attn_eigenvalues: Inexact[Array, "*B T"], value_eigenvalues: Inexact[Array, "*B D"]
) -> Float[Array, "*B"]:
    """Factor per layer of d_M / ||X|| under X <- X + A X W: tokens become one if and only if it is below 1.

    max over i >= 2, j of |1 + lambda_i mu_j| over max_j |1 + mu_j|, with lambda_1 = 1 the eigenvalue of the consensus;
    for diagonalisable A, W and generic X. Above 1 the rank still falls in general, but to a matrix whose rows differ.
    Of values mu in [-1, 0) and lambda in [0, 1] the smallest lambda wins; for mu in (-2, -1) it need not.

    Args:
      attn_eigenvalues: of A over real tokens, the consensus' 1 first, [..., T].
      value_eigenvalues: mu, of W = W_V W_O, [..., D].

    Returns:
      [...]; 0 of a single token; NaN where the first eigenvalue of A is not 1 (to about 2e-3 in float32, 1e-6 in
      float64), and where nothing is left of any X, infinity where nothing is of its consensus.

    >>> import jax.numpy as jnp
    >>> eigenvalues = jnp.array([1.0, 0.5])
    >>> [round(float(dovonon2024_unification_rate(eigenvalues, jnp.array([mu]))), 4) for mu in (1.0, -0.5)]
    [0.75, 1.5]

    References: after Dovonon, Bronstein and Kusner (2024), arXiv 2401.04301; the criterion is proved in
    docs/catalogue.md.
    """
    apart = jnp.abs(1 + attn_eigenvalues[..., 1:, None] * value_eigenvalues[..., None, :])
    together = jnp.abs(1 + value_eigenvalues)
    tolerance = jnp.finfo(attn_eigenvalues.dtype).eps ** 0.375
    known = jnp.abs(attn_eigenvalues[..., 0] - 1) <= tolerance
    rest, kept = jnp.max(apart, axis=(-2, -1), initial=0), jnp.max(together, axis=-1, initial=0)
    return jnp.where(known & ((rest > 0) | (kept > 0)), quotient(rest, kept, jnp.inf), jnp.nan)
