"""Rank collapse of pure attention: Dong et al. (2021) for any weights, Noci et al. (2022) at initialisation.

Proofs are in docs/catalogue.md.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ...linalg.norms import binary_size, norm, quotient, safe_sqrt, within
from ...linalg.precision import at_least_float32, einsum, matmul
from ...linalg.rows import masked_softmax
from ..consensus import real_pairs, real_tokens, token_mean
from ..statement import Statement

# exp(x) - 1 <= 2 x up to here; the root is 1.25643...
SMALL_LOGITS = 1.256


@at_least_float32
def dong2021_composite_norm(matrix: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]) -> Float[Array, "*B"]:
    """||X||_{1,inf} = sqrt(||X||_1 ||X||_inf) over real tokens: largest column sum times largest row sum of moduli.

    It is submultiplicative but not a norm: a row of ones and a column of ones, n = 5, have 2.24 each and their sum 6.

    Args:
      matrix: [..., T, D].
      mask: True on real tokens, [..., T].

    Returns:
      [...], in the units of `matrix`.

    >>> import jax.numpy as jnp
    >>> dong2021_composite_norm(jnp.array([[3.0, 1.0], [1.0, 0.0]]), jnp.ones(2, bool))
    Array(4., dtype=float32)

    References: after Dong, Cordonnier and Loukas (2021), arXiv 2103.03404.
    """
    moduli = jnp.where(mask[..., None], jnp.abs(matrix), 0)
    size = binary_size(moduli, (-2, -1))
    moduli, size = moduli / size, size[..., 0, 0]
    return safe_sqrt(jnp.max(jnp.sum(moduli, axis=-2), axis=-1) * jnp.max(jnp.sum(moduli, axis=-1), axis=-1)) * size


@at_least_float32
def dong2021_gamma(deviations: Float[Array, "*B T S"], mask: Bool[Array, "*B T"]) -> Float[Array, "*B"]:
    """gamma of Dong et al.: how much worse the rows of the logits are, one by one, than their worst pair of columns.

    gamma^2 = sum_i max_jk |E_ij - E_ik| / max_jk sum_i |E_ij - E_ik|, between 1 and the number of tokens: a
    condition on the data, not a constant of the network. 1 where all rows of E are constant.

    Args:
      deviations: E = R W_QK R^T / sqrt(d), R the tokens minus their centre, [..., T, S].
      mask: True on real tokens, [..., T].

    Returns:
      [...].

    >>> import jax.numpy as jnp
    >>> dong2021_gamma(jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.ones(2, bool))
    Array(1., dtype=float32)

    References: after Dong, Cordonnier and Loukas (2021), arXiv 2103.03404, main theorem; gamma has the form with which
    docs/catalogue.md proves it.
    """
    real = real_pairs(mask)

    def against(k: Array) -> Array:
        gaps = jnp.sum(jnp.where(real, jnp.abs(deviations - deviations[..., k, None]), 0), axis=-2)
        return jnp.where(mask[..., k], jnp.max(gaps, axis=-1), 0)

    worst_pair = jnp.max(jax.lax.map(against, jnp.arange(deviations.shape[-1])), axis=0)
    by_row = jnp.sum(_row_range(deviations, mask), axis=-1)
    return safe_sqrt(quotient(by_row, worst_pair, 1))


@at_least_float32
def dong2021_cubic_rate(
    hidden: Float[Array, "*B T D"],
    mask: Bool[Array, "*B T"],
    centre: Float[Array, "*B 1 D"],
    query_key: Float[Array, "N D D"],
    value: Float[Array, "N D E"],
    head_width: int,
) -> Float[Array, "*B"]:
    """The c of one layer of pure attention: its residual is at most c times the cube of the residual before.

    c = 4 gamma beta / sqrt(d) for one head, beta = ||W_QK||_1 ||W_V||_{1,inf}. For N heads
    c = (4 / sqrt d) sqrt(sum_h gamma_h^2 ||W_QK^h||_1 ||W_h||_1 sum_h ||W_QK^h||_1 ||W_h||_inf): the two norms are
    summed separately, because their geometric mean obeys no triangle inequality.

    Args:
      hidden: X, [..., T, D].
      mask: True on real tokens, [..., T].
      centre: the row that is taken from every token, [..., 1, D].
      query_key: W_Q W_K^T of every head, [N, D, D].
      value: W_h, value kernel times output kernel, of every head, [N, D, E].
      head_width: d of the logits' factor 1 / sqrt(d).

    Returns:
      [...], in inverse squared units of `hidden`.

    >>> import jax.numpy as jnp
    >>> x, one = jnp.array([[0.5], [-0.5]]), jnp.ones((1, 1, 1))
    >>> dong2021_cubic_rate(x, jnp.ones(2, bool), jnp.zeros((1, 1)), one, one, 1)
    Array(4., dtype=float32)

    References: after Dong, Cordonnier and Loukas (2021), arXiv 2103.03404, main theorem; proof in docs/catalogue.md.
    """
    gamma = dong2021_gamma(_deviations(hidden - centre, query_key, head_width), _each_head(mask, query_key))
    moduli = jnp.abs(value)
    query_key_norm = _column_norm(jnp.abs(query_key))
    columns = jnp.sum(gamma**2 * _lead(query_key_norm * _column_norm(moduli), gamma), axis=-1)
    rows = jnp.sum(query_key_norm * jnp.max(jnp.sum(moduli, axis=-1), axis=-1))
    return 4 * safe_sqrt(columns * rows / head_width)


@at_least_float32
def dong2021_one_layer(
    hidden: Float[Array, "*B T D"],
    mask: Bool[Array, "*B T"],
    centre: Float[Array, "*B 1 D"],
    query_key: Float[Array, "N D D"],
    value: Float[Array, "N D E"],
    head_width: int,
) -> Statement:
    """One layer of pure attention cubes the residual: ||X' - 1 c'^T||_{1,inf} <= c ||X - 1 c^T||_{1,inf}^3.

    X' = sum_h softmax(X W_QK^h X^T / sqrt d) X W_h; c is `dong2021_cubic_rate`, c' is `dong2021_next_centre`, so the
    statement chains over layers whatever the first centre. Dong et al. take the centre that minimises the residual;
    with c' in its place the left-hand side is only larger. Applicable where every row of the logits' deviation
    ranges over at most 1.256.

    Args:
      hidden: X, [..., T, D].
      mask: True on real tokens, [..., T].
      centre: c, for instance `token_mean`, [..., 1, D].
      query_key: W_Q W_K^T of every head, [N, D, D].
      value: W_h, [N, D, E].
      head_width: d of the logits' factor 1 / sqrt(d).

    Returns:
      A `Statement`, [...].

    >>> import jax.numpy as jnp
    >>> x, one = jnp.array([[0.25], [-0.25]]), jnp.ones((1, 1, 1))
    >>> found = dong2021_one_layer(x, jnp.ones(2, bool), jnp.zeros((1, 1)), one, one, 1)
    >>> bool(found.applicable & (found.lhs <= found.rhs))
    True

    References: after Dong, Cordonnier and Loukas (2021), arXiv 2103.03404, main theorem; proof in docs/catalogue.md.
    """
    residual = hidden - centre
    rate = dong2021_cubic_rate(hidden, mask, centre, query_key, value, head_width)
    deviations = _deviations(residual, query_key, head_width)
    reach = jnp.max(_row_range(deviations, _each_head(mask, query_key)), axis=(-2, -1))
    attn = masked_softmax(_deviations(hidden, query_key, head_width), mask[..., None, None, :])
    mixed = einsum("...nts,...sd,nde->...te", attn, hidden, value)
    after = mixed - dong2021_next_centre(hidden, mask, centre, query_key, value, head_width)
    return Statement(
        lhs=dong2021_composite_norm(after, mask),
        rhs=rate * dong2021_composite_norm(residual, mask) ** 3,
        applicable=reach <= SMALL_LOGITS,
    )


@at_least_float32
def dong2021_next_centre(
    hidden: Float[Array, "*B T D"],
    mask: Bool[Array, "*B T"],
    centre: Float[Array, "*B 1 D"],
    query_key: Float[Array, "N D D"],
    value: Float[Array, "N D E"],
    head_width: int,
) -> Float[Array, "*B 1 E"]:
    """The row that all tokens would become, sum_h mu_h^T X W_h, mu_h the attention of a query at the centre.

    Args: as `dong2021_one_layer`.

    Returns:
      [..., 1, E]; zero where no token is real.

    >>> import jax.numpy as jnp
    >>> x, one = jnp.array([[0.5], [-0.5]]), jnp.ones((1, 1, 1))
    >>> dong2021_next_centre(x, jnp.ones(2, bool), jnp.zeros((1, 1)), one, one, 1)
    Array([[0.]], dtype=float32)
    """
    hidden = real_tokens(hidden, mask)
    logits = einsum("...td,nde,...se->...nts", centre, query_key, hidden) / jnp.sqrt(
        jnp.asarray(head_width, hidden.dtype)
    )
    attn = masked_softmax(logits, mask[..., None, None, :])
    return einsum("...nts,...sd,nde->...te", attn, hidden, value)


@at_least_float32
def dong2021_log_residual(
    log_residual: Float[Array, "*B"], log_rate: Float[Array, "*B"], depth: int
) -> Float[Array, "*B"]:
    """ln of the bound after `depth` layers, (3^L - 1)/2 ln c + 3^L ln ||res(X)||: doubly exponential in depth.

    It tends to -infinity only where c ||res||^2 < 1; elsewhere it bounds nothing. Logarithms, because the bound itself
    underflows within a few layers.

    Args:
      log_residual: ln ||X - 1 c^T||_{1,inf} before the first layer, [...].
      log_rate: ln of the largest `dong2021_cubic_rate` of the layers, [...].
      depth: L, at least 0.

    Returns:
      [...].

    >>> import jax.numpy as jnp
    >>> round(float(dong2021_log_residual(jnp.log(0.5), jnp.log(2.0), 2)), 4)
    -3.4657

    References: after Dong, Cordonnier and Loukas (2021), arXiv 2103.03404, main theorem.
    """
    power = 3**depth
    return (power - 1) / 2 * log_rate + power * log_residual


@at_least_float32
def noci2022_step(
    hidden: Float[Array, "*B T D"],
    mask: Bool[Array, "*B T"],
    weight: Float[Array, "*B D D"],
    strength: Float[Array, ""] | float,
) -> Float[Array, "*B T D"]:
    """X + alpha (1 1^T / n) X W: a residual block whose attention is uniform, as it is at initialisation.

    Args:
      hidden: X, [..., T, D].
      mask: True on real tokens, [..., T].
      weight: W, [..., D, D].
      strength: alpha, the factor of the residual branch.

    Returns:
      [..., T, D].

    >>> import jax.numpy as jnp
    >>> noci2022_step(jnp.array([[1.0], [3.0]]), jnp.ones(2, bool), jnp.ones((1, 1)), 0.5)
    Array([[2.],
           [4.]], dtype=float32)

    References: after Noci et al. (2022), arXiv 2206.03126.
    """
    return hidden + matmul(strength * token_mean(hidden, mask), weight)


@at_least_float32
def noci2022_mean_growth(strength: Float[Array, "*B"], depth: int) -> Float[Array, "*B"]:
    """E||mean after L blocks||^2 / ||mean||^2 = (1 + alpha^2)^L for `noci2022_step` with W_ij ~ N(0, 1/D).

    d_M stays exactly what it was, so the mean drowns the differences unless alpha^2 = O(1 / L), where the growth
    stays below e.

    Args:
      strength: alpha, [...].
      depth: L.

    Returns:
      [...], at least 1.

    >>> import jax.numpy as jnp
    >>> noci2022_mean_growth(jnp.array([1.0, 0.5]), 2)
    Array([4.    , 1.5625], dtype=float32)

    References: after Noci et al. (2022), arXiv 2206.03126; proof in docs/catalogue.md.
    """
    return (1 + strength * strength) ** depth


@at_least_float32
def noci2022_relative_distance(
    distance: Float[Array, "*B"], mean_norm: Float[Array, "*B"], tokens: int, growth: Float[Array, "*B"]
) -> Float[Array, "*B"]:
    """d_M / ||X||_F once the squared mean has grown: d / sqrt(d^2 + n ||mean||^2 growth).

    With the expected growth in the place of the random one it is, by Jensen, at most the expected relative distance.

    Args:
      distance: d_M(X), [...].
      mean_norm: Euclidean norm of the mean token, [...].
      tokens: n.
      growth: factor of the squared norm of the mean, see `noci2022_mean_growth`, [...].

    Returns:
      [...], in [0, 1].

    >>> import jax.numpy as jnp
    >>> float(noci2022_relative_distance(jnp.array(2.0), jnp.array(1.0), 4, jnp.array(3.0)))
    0.5

    References: after Noci et al. (2022), arXiv 2206.03126; proof in docs/catalogue.md.
    """
    sides = jnp.stack([distance, mean_norm * jnp.sqrt(tokens * growth)])
    return within(quotient(distance, norm(sides, 0)), 0, 1)


def _deviations(tokens: Array, query_key: Array, head_width: int) -> Array:
    """Logits of every head, [..., N, T, S]."""
    scaled = query_key / jnp.sqrt(jnp.asarray(head_width, tokens.dtype))
    return einsum("...td,nde,...se->...nts", tokens, scaled, tokens)


def _row_range(deviations: Array, mask: Array) -> Array:
    """Largest minus smallest entry of each real row over real columns, [..., T]."""
    real = mask[..., None, :]
    high = jnp.max(jnp.where(real, deviations, -jnp.inf), axis=-1)
    low = jnp.min(jnp.where(real, deviations, jnp.inf), axis=-1)
    return jnp.where(mask, high - low, 0)


def _each_head(mask: Array, query_key: Array) -> Array:
    return jnp.broadcast_to(mask[..., None, :], (*mask.shape[:-1], query_key.shape[0], mask.shape[-1]))


def _lead(per_head: Array, like: Array) -> Array:
    return per_head.reshape((1,) * (like.ndim - 1) + per_head.shape)


def _column_norm(moduli: Array) -> Array:
    return jnp.max(jnp.sum(moduli, axis=-2), axis=-1)
