"""Measures of over-smoothing: hidden states or attention and a mask in, one number per sentence out.

Every function runs over real tokens only; adding padding changes nothing. Leading axes are free, so a stacked trace
goes in as it is, [L B T D] or [L B N T S] with the mask [B T] of its batch. Those that the theory is stated in live in
`jaxsmooth.theory` and are listed here again: `subspace_distance`, `relative_distance`, `mixing_rate`,
`ergodicity_coefficient`, `sink_strength`, `first_token_attention`.

All compute in float32 at least, whatever the hidden states are kept in, and return that. Measures without a unit do not
change with the scale of the hidden states. A derivative is finite wherever the value is; where there is none, as of a
norm at 0, it is 0. Second derivatives are not to be had of singular values. Numbers that are not finite make NaN.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .errors import OptionError
from .linalg.norms import binary_size, norm, quotient, unit_vectors, within
from .linalg.precision import at_least_float32, einsum
from .linalg.rows import ROUNDING_OF_ROWS
from .linalg.singular import effective_rank_of as effective_rank_of
from .linalg.singular import row_singular_values
from .linalg.singular import stable_rank_of as stable_rank_of
from .meshes import on_any_mesh
from .theory.consensus import centre_tokens, per_row, real_tokens, token_mean
from .theory.consensus import relative_distance as relative_distance
from .theory.consensus import subspace_distance as subspace_distance
from .theory.literature.rank_collapse import dong2021_composite_norm
from .theory.markov.sinks import first_token_attention as first_token_attention
from .theory.markov.sinks import sink_strength as sink_strength
from .theory.markov.stochastic import ergodicity_coefficient as ergodicity_coefficient
from .theory.mixing import mixing_rate as mixing_rate


@at_least_float32
@on_any_mesh()
def token_cosine_similarity(hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]) -> Float[Array, "*B"]:
    """Mean cosine over distinct pairs of real tokens, 1/(n(n-1)) sum_{i != j} cos(h_i, h_j).

    Computed as 1 - MAD, so no T x T matrix is formed, and identical tokens give 1. A zero vector has cosine 0 with
    everything.

    Args:
      hidden: token vectors, [..., T, D].
      mask: True on real tokens, [..., T].

    Returns:
      [...], in [-1, 1]; NaN for a sentence with fewer than two real tokens.

    >>> import jax.numpy as jnp
    >>> token_cosine_similarity(jnp.array([[1.0, 0.0], [5.0, 0.0], [0.0, 2.0]]), jnp.ones(3, bool)).round(4)
    Array(0.3333, dtype=float32)

    References: after Shi et al. (2022), arXiv 2202.08625, section 3 (CosSim).
    """
    return 1 - _cosine_distance(hidden, mask)


@at_least_float32
@on_any_mesh()
def cosine_matrix(hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]) -> Float[Array, "*B T T"]:
    """Cosine similarity of every pair of tokens, in [-1, 1], zero on padding.

    >>> import jax.numpy as jnp
    >>> cosine_matrix(jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.ones(2, bool))
    Array([[1., 0.],
           [0., 1.]], dtype=float32)
    """
    unit = unit_vectors(real_tokens(hidden, mask))
    return within(einsum("...td,...sd->...ts", unit, unit), -1, 1)


@at_least_float32
@on_any_mesh()
def dirichlet_energy(hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]) -> Float[Array, "*B"]:
    """Dirichlet energy on the complete graph of real tokens, (1/n) sum_ij ||h_i - h_j||^2 = 2 d_M(H)^2.

    >>> import jax.numpy as jnp
    >>> dirichlet_energy(jnp.array([[0.0], [2.0]]), jnp.ones(2, bool))
    Array(4., dtype=float32)

    References: Rusch, Bronstein and Mishra (2023), arXiv 2303.10993, for the energy; ordered pairs.
    """
    centred = centre_tokens(hidden, mask)
    size = binary_size(centred, (-2, -1))
    return 2 * jnp.sum((centred / size) ** 2, axis=(-2, -1)) * size[..., 0, 0] ** 2


@at_least_float32
@on_any_mesh()
def mean_average_distance(
    hidden: Float[Array, "*B T D"],
    mask: Bool[Array, "*B T"],
    *,
    convention: Literal["mean_pairs", "sum_neighbours"] = "mean_pairs",
) -> Float[Array, "*B"]:
    """MAD: cosine distance between tokens. Two conventions are published; they differ by the factor n - 1.

    "mean_pairs": mean of 1 - cos over distinct pairs, 1 - CosSim (Chen et al. 2020). "sum_neighbours":
    (1/n) sum_i sum_{j != i} (1 - cos_ij), as Rusch et al. (2023) define it on the complete graph. Never negative;
    NaN for a sentence with fewer than two real tokens.

    >>> import jax.numpy as jnp
    >>> h = jnp.array([[1.0, 0.0], [0.0, 2.0], [0.0, 1.0]])
    >>> [round(float(mean_average_distance(h, jnp.ones(3, bool), convention=c)), 4)
    ...  for c in ("mean_pairs", "sum_neighbours")]
    [0.6667, 1.3333]

    References: Chen et al. (2020), arXiv 1909.03211; Rusch, Bronstein and Mishra (2023), arXiv 2303.10993.
    """
    if convention not in ("mean_pairs", "sum_neighbours"):
        raise OptionError(f"convention must be 'mean_pairs' or 'sum_neighbours'; got {convention!r}.")
    distance = _cosine_distance(hidden, mask)
    return distance * (_count(hidden, mask) - 1) if convention == "sum_neighbours" else distance


@at_least_float32
@on_any_mesh()
def singular_values(hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]) -> Float[Array, "*B K"]:
    """Singular values of H over real tokens, largest first, K = min(T, D); zero beyond the number of real tokens.

    >>> import jax.numpy as jnp
    >>> singular_values(jnp.array([[3.0, 0.0, 0.0], [0.0, 4.0, 0.0]]), jnp.ones(2, bool)).round(4)
    Array([4., 3.], dtype=float32)
    """
    real = real_tokens(hidden, mask)
    size = binary_size(real, (-2, -1))
    return row_singular_values(real / size) * size[..., 0]


@at_least_float32
@on_any_mesh()
def singular_value_profile(hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]) -> Float[Array, "*B K"]:
    """Singular values over the largest: 1 first, and how fast they fall off. NaN for a zero matrix.

    >>> import jax.numpy as jnp
    >>> singular_value_profile(jnp.array([[2.0, 0.0], [0.0, 4.0]]), jnp.ones(2, bool)).round(4)
    Array([1. , 0.5], dtype=float32)
    """
    values = row_singular_values(_scaled(hidden, mask))
    return within(quotient(values, values[..., :1]), 0, 1)


@at_least_float32
@on_any_mesh()
def effective_rank(hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]) -> Float[Array, "*B"]:
    """exp(-sum_k p_k ln p_k), p the singular values over their sum, 0 ln 0 = 0: from 1 (rank one) to the rank.

    Returns NaN for a zero matrix only; at exact collapse it is 1.

    >>> import jax.numpy as jnp
    >>> effective_rank(jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.ones(2, bool)).round(4)
    Array(2., dtype=float32)

    References: Roy and Vetterli (2007), The effective rank: a measure of effective dimensionality.
    """
    return effective_rank_of(row_singular_values(_scaled(hidden, mask)))


@at_least_float32
@on_any_mesh()
def stable_rank(hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]) -> Float[Array, "*B"]:
    """||H||_F^2 / ||H||_2^2 of H itself (not of its Gram matrix): from 1 to the rank. NaN for a zero matrix.

    >>> import jax.numpy as jnp
    >>> stable_rank(jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.ones(2, bool)).round(4)
    Array(1.25, dtype=float32)

    References: Rudelson and Vershynin (2007), Sampling from large matrices.
    """
    return stable_rank_of(row_singular_values(_scaled(hidden, mask)))


@at_least_float32
@on_any_mesh()
def frequency_ratio(hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]) -> Float[Array, "*B"]:
    """||J H||_F / ||(I - J) H||_F: high frequency (what differs between tokens) over low (their mean).

    Returns infinity when the mean is zero and the tokens are not; NaN when both are zero.

    >>> import jax.numpy as jnp
    >>> frequency_ratio(jnp.array([[1.0], [3.0]]), jnp.ones(2, bool))
    Array(0.5, dtype=float32)

    References: Wang et al. (2022), arXiv 2203.05962.
    """
    scaled = _scaled(hidden, mask)
    low = jnp.sqrt(_count(hidden, mask)) * norm(token_mean(scaled, mask), (-2, -1))
    high = subspace_distance(scaled, mask)
    return jnp.where(high > 0, quotient(high, low, jnp.inf), quotient(high, low))


@at_least_float32
@on_any_mesh()
def attention_entropy(attn: Float[Array, "*B T S"], mask: Bool[Array, "..."]) -> Float[Array, "*B"]:
    """Mean entropy of the attention rows of real tokens, in nats: 0 (one token each) to ln n (uniform).

    Args:
      attn: rows that sum to 1 over real keys, [..., T, S].
      mask: True on real tokens, [..., T]; broadcast over the axes of `attn` in front of T (heads).

    Returns:
      [...]; NaN for a sentence without real tokens.

    >>> import jax.numpy as jnp
    >>> attention_entropy(jnp.array([[0.5, 0.5], [1.0, 0.0]]), jnp.ones(2, bool)).round(4)
    Array(0.3466, dtype=float32)
    """
    real = per_row(mask, attn)
    attn = jnp.where(real[..., None], attn, 0)
    # entr has an infinite slope at 0, where every padded key is; entr(1) = 0 has the value without the slope.
    rows = jnp.sum(jax.scipy.special.entr(jnp.where(attn == 0, 1, attn)), axis=-1)
    count = jnp.sum(real, axis=-1).astype(attn.dtype)
    # Rows that sum to 1 up to rounding have entropies in their range up to rounding; others are left as they are.
    most = jnp.log(jnp.maximum(count, 1))
    return within(quotient(jnp.sum(rows, axis=-1), count), 0, most, ROUNDING_OF_ROWS * (1 + most))


@at_least_float32
@on_any_mesh()
def attention_similarity(
    attn: Float[Array, "*B N T S"], other: Float[Array, "*B M T S"], mask: Bool[Array, "*B T"]
) -> Float[Array, "*B"]:
    """Cosine of two layers' attention, each averaged over its heads and taken as one long vector: 1 if they are equal.

    The mean over heads does not depend on their order, which means nothing from one layer to the next. Of matrices
    without negative entries it is at least 0.

    Args:
      attn: attention probabilities of one layer, [..., N, T, S].
      other: of another layer; it may have another number of heads.
      mask: True on real tokens, [..., T].

    Returns:
      [...]; NaN for a sentence without real tokens.

    >>> import jax.numpy as jnp
    >>> one, half = jnp.eye(2)[None], jnp.full((1, 2, 2), 0.5)
    >>> attention_similarity(one, half, jnp.ones(2, bool)).round(4)
    Array(0.7071, dtype=float32)

    References: Shi et al. (2022), arXiv 2202.08625, figure 3, whose text does not say how heads are joined.
    """
    pair = (mask[..., :, None] & mask[..., None, :]).reshape(*mask.shape[:-1], -1)
    flat = [jnp.where(pair, jnp.mean(each, axis=-3).reshape(pair.shape), 0) for each in (attn, other)]
    one, two = (unit_vectors(each) for each in flat)
    cosine = within(jnp.sum(one * two, axis=-1), -1, 1, ROUNDING_OF_ROWS)
    return jnp.where(jnp.any(mask, axis=-1), cosine, jnp.nan)


@at_least_float32
@on_any_mesh()
def dong_residual(
    hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"], *, centre: Literal["mean", "minimiser"] = "mean"
) -> Float[Array, "*B"]:
    """||X - 1 c^T|| / ||X|| in the composite norm sqrt(||.||_1 ||.||_inf) of Dong et al.: 0 at rank collapse.

    ||.||_1 is the largest column sum of moduli, ||.||_inf the largest row sum. Their c minimises the composite
    norm ("minimiser"); their experiments, and most that followed, subtract the mean of the tokens ("mean").
    The minimiser has no closed form: it is approached from the mean and from the median by subgradient steps,
    and the smallest value found is returned, which is never below the minimum.

    >>> import jax.numpy as jnp
    >>> dong_residual(jnp.array([[3.0], [1.0]]), jnp.ones(2, bool)).round(4)
    Array(0.4082, dtype=float32)

    References: Dong, Cordonnier and Loukas (2021), arXiv 2103.03404.
    """
    if centre not in ("mean", "minimiser"):
        raise OptionError(f"centre must be 'mean' or 'minimiser'; got {centre!r}.")

    hidden = _scaled(hidden, mask)

    def residual(c: Array) -> Array:
        return dong2021_composite_norm(hidden - c, mask)

    mean = token_mean(hidden, mask)
    least = residual(mean)
    if centre == "minimiser":
        least = jnp.minimum(_descend(residual, mean), _descend(residual, _token_median(hidden, mask)))
    return quotient(least, dong2021_composite_norm(hidden, mask))


@at_least_float32
@on_any_mesh()
def token_norm(hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]) -> Float[Array, "*B"]:
    """Mean Euclidean norm of a real token.

    >>> import jax.numpy as jnp
    >>> token_norm(jnp.array([[3.0, 4.0], [0.0, 1.0]]), jnp.ones(2, bool))
    Array(3., dtype=float32)
    """
    return quotient(jnp.sum(norm(real_tokens(hidden, mask)), axis=-1), _count(hidden, mask))


@at_least_float32
@on_any_mesh()
def std_range(
    std: Float[Array, "*B T 1"], mask: Bool[Array, "*B T"]
) -> tuple[Float[Array, "*B"], Float[Array, "*B"], Float[Array, "*B"]]:
    """Least, mean and largest LayerNorm std over real tokens; the least is Shi et al.'s sigma.

    >>> import jax.numpy as jnp
    >>> [float(x) for x in std_range(jnp.array([[1.0], [2.0], [9.0]]), jnp.array([True, True, False]))]
    [1.0, 1.5, 2.0]
    """
    value = std[..., 0]
    mean = quotient(jnp.sum(jnp.where(mask, value, 0), axis=-1), _count(std, mask))
    return jnp.min(jnp.where(mask, value, jnp.inf), axis=-1), mean, jnp.max(jnp.where(mask, value, -jnp.inf), axis=-1)


def _count(hidden: Array, mask: Array) -> Array:
    return jnp.sum(mask, axis=-1).astype(hidden.dtype)


def _scaled(hidden: Array, mask: Array) -> Array:
    """Zero on padding, and scaled to a moderate size: for measures that do not change with it."""
    real = real_tokens(hidden, mask)
    return real / binary_size(real, (-2, -1))


def _cosine_distance(hidden: Array, mask: Array) -> Array:
    """1 - CosSim: the m unit vectors among n tokens spread by S about their mean give 1 - m/n + S/(n - 1)."""
    unit = unit_vectors(real_tokens(hidden, mask))
    count, units = _count(hidden, mask), _count(hidden, jnp.any(unit != 0, axis=-1))
    spread = jnp.sum(centre_tokens(unit, mask) ** 2, axis=(-2, -1))
    others = jnp.maximum(count - 1, 1)
    found = within((count - units) / jnp.maximum(count, 1) + spread / others, 0, count / others)
    # Asked for, not left to 0 / 0: rounding may make the spread of a single token 1e-16, and the quotient infinite.
    return jnp.where(count > 1, found, jnp.nan)


def _token_median(hidden: Array, mask: Array) -> Array:
    """Median over real tokens of every feature: the c that minimises ||X - 1 c^T||_1."""
    median = jnp.nanmedian(jnp.where(mask[..., None], hidden, jnp.nan), axis=-2, keepdims=True)
    return jnp.where(jnp.any(mask, axis=-1)[..., None, None], median, 0)


def _descend(residual: Callable[[Array], Array], start: Array, steps: int = 400) -> Array:
    """The least residual found on a subgradient descent with geometrically shrinking steps."""
    reach = residual(start)[..., None, None]

    def step(k: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        c, least = state
        slope = jax.grad(lambda c: jnp.sum(residual(c)))(c)
        length = norm(slope, keepdims=True)
        shrink = jnp.asarray(0.5 ** (20 / steps), c.dtype) ** k.astype(c.dtype)
        # The slope is 0 where the residual is: there is nothing left to descend.
        c = c - 0.25 * reach * shrink * jnp.where(length > 0, slope / jnp.where(length > 0, length, 1), 0)
        return c, jnp.minimum(least, residual(c))

    return jax.lax.fori_loop(0, steps, step, (start, residual(start)))[1]
