"""ResGCN, the graph convolution that Shi et al. set beside attention: X + ReLU(D^(-1/2) A D^(-1/2) X W).

Its subspace is span(D^(1/2) 1), not the equal tokens of row-normalised attention. The two are one walk in two frames,
D^(-1/2) A D^(-1/2) = D^(1/2) (D^(-1) A) D^(-1/2): of one spectrum, so as fast, but to other limits. Proof in
docs/catalogue.md.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ....linalg.lanczos import spectral_norm
from ....linalg.precision import at_least_float32, matmul
from ...consensus import span_distance, symmetric_basis
from ...operators import keep_real, symmetric_normalised
from ...statement import Statement


@at_least_float32
def shi2022_affinity(scores: Float[Array, "T S"], mask: Bool[Array, " T"]) -> Float[Array, "T S"]:
    """exp of the scores' symmetric part over its largest: a symmetric affinity above 0, of which softmax is the walk.

    Where W_Q = W_K scores are symmetric, and D^(-1) A is the softmax of their rows; a factor of A does not matter.

    Args:
      scores: x_i W_Q (x_j W_K)^T, [T S].
      mask: True on real tokens, [T].

    Returns:
      [T S], in [0, 1], zero on padding.

    >>> import jax.numpy as jnp
    >>> shi2022_affinity(jnp.log(jnp.array([[4.0, 2.0], [2.0, 1.0]])), jnp.ones(2, bool)).round(4)
    Array([[1.  , 0.5 ],
           [0.5 , 0.25]], dtype=float32)

    References: after Shi et al. (2022), arXiv 2202.08625, section 3.
    """
    real = mask[:, None] & mask[None]
    symmetric = jnp.where(real, scores / 2 + scores.T / 2, -jnp.inf)
    largest = jnp.max(symmetric)
    return jnp.exp(symmetric - jnp.where(jnp.isfinite(largest), largest, 0))


@at_least_float32
def shi2022_resgcn(
    hidden: Float[Array, "T D"],
    adjacency: Float[Array, "T S"],
    weight: Float[Array, "D D"],
    mask: Bool[Array, " T"],
) -> Float[Array, "T D"]:
    """X + ReLU(D^(-1/2) A D^(-1/2) X W), zero on padding.

    Args:
      hidden: X, [T D].
      adjacency: A, at least 0, [T S]: `shi2022_affinity`.
      weight: W, [D D].
      mask: True on real tokens, [T].

    Returns:
      [T D].

    >>> import jax.numpy as jnp
    >>> even = jnp.ones((2, 2))
    >>> shi2022_resgcn(jnp.array([[1.0], [3.0]]), even, jnp.ones((1, 1)), jnp.ones(2, bool)).ravel().round(4)
    Array([3., 5.], dtype=float32)

    References: Shi et al. (2022), arXiv 2202.08625, section 3 (ResGCN); Kipf and Welling (2017), arXiv 1609.02907.
    """
    mixed = symmetric_normalised(adjacency, mask).apply(hidden)
    return keep_real(hidden, mask) + jax.nn.relu(matmul(mixed, weight))


@at_least_float32
def shi2022_resgcn_stretch(
    hidden: Float[Array, "T D"],
    adjacency: Float[Array, "T S"],
    weight: Float[Array, "D D"],
    mask: Bool[Array, " T"],
) -> Statement:
    """d(X') <= (1 + lambda s) d(X), d the distance to span(D^(1/2) 1), X' = `shi2022_resgcn`.

    s = ||W||, lambda the largest modulus of the eigenvalues of D^(-1/2) A D^(-1/2) but for the one of D^(1/2) 1: of the
    walk D^(-1) A, its second. The factor is never below 1: the residual sum keeps the theorem from promising collapse.

    Args:
      hidden: X, [T D].
      adjacency: A, [T S].
      weight: W, [D D].
      mask: True on real tokens, [T].

    Returns:
      The statement; it applies where A is symmetric up to rounding, at least 0, and every real token has an edge. Norms
      by Lanczos, which are lower estimates.

    >>> import jax.numpy as jnp
    >>> graph = jnp.array([[3.0, 1.0], [1.0, 3.0]])  # lambda = 1/2
    >>> found = shi2022_resgcn_stretch(jnp.array([[1.0], [3.0]]), graph, jnp.ones((1, 1)), jnp.ones(2, bool))
    >>> round(float(found.lhs), 4), round(float(found.rhs), 4), bool(found.applicable)
    (2.1213, 2.1213, True)

    References: after Shi et al. (2022), arXiv 2202.08625, and Oono and Suzuki (2020), arXiv 1905.10947, Lemma 1 to 3.
    """
    real = jnp.where(mask[:, None] & mask[None], adjacency, 0)
    degrees, largest = jnp.sum(real, axis=-1), jnp.max(jnp.abs(real))
    basis = symmetric_basis(degrees, mask)
    share = basis[:, 0] / jnp.sqrt(jnp.where(jnp.sum(degrees) > 0, jnp.sum(degrees), 1))
    rest = symmetric_normalised(real, mask).matrix - share[:, None] * share[None]
    rate = 1 + spectral_norm(rest) * spectral_norm(weight)
    image = shi2022_resgcn(hidden, real, weight, mask)
    rounding = 8 * jnp.finfo(real.dtype).eps * largest
    fits = jnp.all(jnp.abs(real - real.T) <= rounding) & jnp.all(real >= 0) & jnp.all((degrees > 0) | ~mask)
    lhs, rhs = span_distance(image, basis, mask), rate * span_distance(hidden, basis, mask)
    return Statement(lhs, rhs, fits)
