"""Constants of attention known before it is computed, from weights and how far apart the tokens are.

Everywhere else in `theory` sqrt(lambda) is that of the attention at hand. Here it is bounded by logits, and logits by
the diameter of the tokens, D(X) = max_ij ||x_i - x_j||: attention flattens as tokens meet. Hence pure attention
collapses cubically, D_(l+1) <= b D_l^3. All of it needs one mask for all queries; a causal one makes the logits'
oscillation infinite, and no statement here applies.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ...linalg.lanczos import spectral_norm
from ...linalg.norms import binary_size
from ...linalg.precision import at_least_float32, einsum
from ..consensus import diameter, per_row, subspace_distance
from ..markov.stochastic import ergodicity_coefficient, logit_spread
from ..mixing import is_row_stochastic, mixing_rate
from ..statement import Statement
from .lemmas import ROUNDING


@at_least_float32
def oscillation_ergodicity(
    attn: Float[Array, "*B T S"], logits: Float[Array, "*B T S"], mask: Bool[Array, "..."]
) -> Statement:
    """tau(softmax(l)) <= tanh(Delta / 4): the ergodicity coefficient from the logits.

    Two rows are p and p e^delta up to a factor, 0 <= delta <= Delta; the probability of a set S of keys under the
    second is at most x e^Delta / (x e^Delta + 1 - x) for x = p(S), which exceeds x by tanh(Delta / 4) at most.

    Args:
      attn: softmax of `logits` over real keys, [..., T, S].
      logits: [..., T, S].
      mask: True on real tokens, [..., T]; broadcast over the axes of `attn` in front of T (heads).

    Returns:
      A `Statement` of shape [...], applicable where no query hides a real key (no causal mask).

    >>> import jax, jax.numpy as jnp
    >>> logits = jnp.array([[1.0, -1.0], [-1.0, 1.0]])
    >>> found = oscillation_ergodicity(jax.nn.softmax(logits), logits, jnp.ones(2, bool))
    >>> round(float(found.lhs), 4), round(float(found.rhs), 4)
    (0.7616, 0.7616)

    References: Birkhoff (1957) and Hopf (1963) for the bound of the second eigenvalue; proof in docs/lemmas.md.
    """
    oscillation = logit_spread(logits, mask)
    return Statement(ergodicity_coefficient(attn, mask), jnp.tanh(oscillation / 4), jnp.isfinite(oscillation))


@at_least_float32
def weight_oscillation(
    query: Float[Array, "D N H"], key: Float[Array, "D N H"], hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]
) -> Statement:
    """Delta <= ||W_Q W_K^T|| D(X)^2 / sqrt(H), for the logits X W_Q W_K^T X^T / sqrt(H) and any biases.

    Delta is the largest (x_i - x_i') W_Q W_K^T (x_j - x_j')^T / sqrt(H).

    Args:
      query: W_Q, [D, N, H].
      key: W_K, [D, N, H].
      hidden: X, [..., T, D].
      mask: True on real tokens, [..., T].

    Returns:
      A `Statement` of shape [..., N], always applicable.

    >>> import jax.numpy as jnp
    >>> one = jnp.ones((1, 1, 1))
    >>> weight_oscillation(one, one, jnp.array([[0.5], [-0.5]]), jnp.ones(2, bool)).lhs
    Array([1.], dtype=float32)
    """
    width = query.shape[-1]
    # From the mean of the real tokens: what all queries or all keys share cancels, and its rounding errors with it.
    count = jnp.maximum(jnp.sum(mask, axis=-1), 1).astype(hidden.dtype)[..., None, None]
    real = mask[..., None].astype(hidden.dtype)
    moved = (hidden - jnp.sum(hidden * real, axis=-2, keepdims=True) / count) * real
    # Of X over its size, with whose square both sides grow.
    size = binary_size(moved, (-2, -1))
    scaled = moved / size
    asked, offered = (einsum("...td,dnh->...nth", scaled, kernel) for kernel in (query, key))
    logits = einsum("...nth,...nsh->...nts", asked, offered) / jnp.sqrt(jnp.asarray(width, hidden.dtype))
    lhs = logit_spread(logits, mask)
    squared = diameter(scaled, mask)[..., None] ** 2
    rhs = coupling_norms(query, key).reshape((1,) * (squared.ndim - 1) + (-1,)) * squared
    lhs, rhs = (side * size[..., 0] * size[..., 0] for side in (lhs, rhs))
    return Statement(lhs, rhs, jnp.ones(lhs.shape, bool))


@at_least_float32
def apriori_mixing_rate(
    attn: Float[Array, "*B N T S"],
    hidden: Float[Array, "*B T D"],
    couplings: Float[Array, " N"],
    mask: Bool[Array, "*B T"],
) -> Statement:
    """sqrt(lambda_h) <= sqrt(n / 2) tanh(||W_Q W_K^T|| d_M(X)^2 / (2 sqrt(H))), before any attention is computed.

    The two bounds of this module and D(X)^2 <= 2 d_M(X)^2. So lambda vanishes like the fourth power of d_M.

    Args:
      attn: A_h, [..., N, T, S].
      hidden: X, [..., T, D].
      couplings: ||W_Q W_K^T|| / sqrt(H) of every head, see `coupling_norms`, [N].
      mask: True on real tokens, [..., T].

    Returns:
      A `Statement` of shape [..., N], applicable where every query gives every real key positive weight and padding
      none (one mask for all queries), and the weights of a row sum to 1.

    >>> import jax, jax.numpy as jnp
    >>> x, real = jnp.array([[1.0], [-1.0]]), jnp.ones(2, bool)
    >>> found = apriori_mixing_rate(jax.nn.softmax(x @ x.T)[None], x, jnp.ones(1), real)
    >>> round(float(found.lhs[0]), 4), round(float(found.rhs[0]), 4)
    (0.7616, 0.7616)
    """
    count = jnp.sum(mask, axis=-1, keepdims=True).astype(hidden.dtype)
    squared = subspace_distance(hidden, mask)[..., None] ** 2
    shape = (1,) * (squared.ndim - 1) + couplings.shape
    rhs = jnp.sqrt(count / 2) * jnp.tanh(couplings.reshape(shape) * squared / 2)
    return Statement(mixing_rate(attn, mask), rhs, _one_mask(attn, mask))


@at_least_float32
def shi2022_rate_floor(
    norm: Float[Array, "*B"],
    mixing_rate: Float[Array, "*B"],
    heads: Int[Array, ""],
    std_attn: Float[Array, "*B"],
    std_mlp: Float[Array, "*B"],
) -> Statement:
    """(1 + sqrt(lambda) h s) / (1 + h s) <= v: how small the rate of Shi et al.'s Theorem 2 can be at all.

    v = (1 + s^2)(1 + sqrt(lambda) h s) / (sigma_1 sigma_2). Tokens of norm sqrt(d), unit gains and no biases give
    sigma_1 <= 1 + h s and sigma_2 <= 1 + s^2, for ReLU and GELU, |phi(x)| <= |x|. So v < 1 needs sqrt(lambda) < 1 AND
    sub-layer outputs nearly aligned with the residual.

    Args:
      norm: s, the largest spectral norm of the weights, [...].
      mixing_rate: sqrt(lambda), [...].
      heads: h.
      std_attn: sigma_1, the smallest std at the attention LayerNorm, [...].
      std_mlp: sigma_2, the smallest std at the MLP LayerNorm, [...].

    Returns:
      A `Statement` of shape [...], applicable where the stds are positive and at most what such a block can reach, and
      s and sqrt(lambda) are not negative.

    >>> import jax.numpy as jnp
    >>> one = jnp.array(1.0)
    >>> found = shi2022_rate_floor(one, 0.5 * one, jnp.array(1), 2 * one, 2 * one)
    >>> round(float(found.lhs), 4), round(float(found.rhs), 4)
    (0.75, 0.75)

    References: Shi et al. (2022), arXiv 2202.08625, Theorem 2, for v; the bound in docs/lemmas.md.
    """
    stretch = heads.astype(norm.dtype) * norm
    most_attn, most_mlp = 1 + stretch, 1 + norm**2
    rate = most_mlp * (1 + mixing_rate * stretch) / (std_attn * std_mlp)
    slack = 1 + ROUNDING * jnp.finfo(norm.dtype).eps
    reachable = (std_attn <= most_attn * slack) & (std_mlp <= most_mlp * slack)
    signs = (std_attn > 0) & (std_mlp > 0) & (norm >= 0) & (mixing_rate >= 0)
    return Statement((1 + mixing_rate * stretch) / (1 + stretch), rate, reachable & signs)


@at_least_float32
def tanh_collapse(
    hidden: Float[Array, "*B T D"],
    mixed: Float[Array, "*B T D"],
    attn: Float[Array, "*B N T S"],
    couplings: Float[Array, " N"],
    mixers: Float[Array, " N"],
    mask: Bool[Array, "*B T"],
) -> Statement:
    """D(SA(X)) <= sum_h ||W_h|| tanh(||W_QK^h|| D(X)^2 / (4 sqrt(H))) D(X), SA(X) = sum_h A_h X W_h + 1 b^T.

    Two rows of A differ by tau (mu - nu), mu and nu probability vectors. An equality for two tokens x = +-c, one
    head, W = 1.

    Args:
      hidden: X, [..., T, D].
      mixed: SA(X), without residual, [..., T, D].
      attn: A_h, [..., N, T, S].
      couplings: ||W_Q W_K^T|| / sqrt(H) of every head, see `coupling_norms`, [N].
      mixers: ||W_h|| of every head, see `mixer_norms`, [N].
      mask: True on real tokens, [..., T].

    Returns:
      A `Statement` of shape [...], applicable where every query gives every real key positive weight and padding none,
      and the weights of a row sum to 1.

    >>> import jax, jax.numpy as jnp
    >>> x, real = jnp.array([[0.5], [-0.5]]), jnp.ones(2, bool)
    >>> attn = jax.nn.softmax(x @ x.T)
    >>> found = tanh_collapse(x, attn @ x, attn[None], jnp.ones(1), jnp.ones(1), real)
    >>> round(float(found.lhs), 5), round(float(found.rhs), 5)
    (0.24492, 0.24492)

    References: docs/lemmas.md; it takes the place of Dong, Cordonnier and Loukas (2021), arXiv 2103.03404.
    """
    before = diameter(hidden, mask)
    shape = (1,) * before.ndim + couplings.shape
    flat = jnp.tanh(couplings.reshape(shape) * before[..., None] ** 2 / 4)
    rhs = jnp.sum(mixers.reshape(shape) * flat, axis=-1) * before
    return Statement(diameter(mixed, mask), rhs, jnp.all(_one_mask(attn, mask), axis=-1))


@at_least_float32
def cubic_collapse(
    hidden: Float[Array, "*B T D"],
    mixed: Float[Array, "*B T D"],
    attn: Float[Array, "*B N T S"],
    couplings: Float[Array, " N"],
    mixers: Float[Array, " N"],
    mask: Bool[Array, "*B T"],
) -> Statement:
    """D(SA(X)) <= b D(X)^3, b = sum_h ||W_h|| ||W_QK^h|| / (4 sqrt(H)): `tanh_collapse` with tanh x <= x.

    Arguments as `tanh_collapse`. The constant 1/4 cannot be lowered.

    >>> import jax, jax.numpy as jnp
    >>> x, real = jnp.array([[0.05], [-0.05]]), jnp.ones(2, bool)
    >>> attn = jax.nn.softmax(x @ x.T)
    >>> found = cubic_collapse(x, attn @ x, attn[None], jnp.ones(1), jnp.ones(1), real)
    >>> bool(found.lhs > 0.9999 * found.rhs)
    True

    References: docs/lemmas.md; it takes the place of Dong, Cordonnier and Loukas (2021), arXiv 2103.03404.
    """
    sharp = tanh_collapse(hidden, mixed, attn, couplings, mixers, mask)
    rhs = collapse_coefficient(couplings, mixers) * diameter(hidden, mask) ** 3
    return Statement(sharp.lhs, rhs, sharp.applicable)


@at_least_float32
def cubic_collapse_depth(
    coefficient: Float[Array, "*B"], start: Float[Array, "*B"], layers: Int[Array, "*B"]
) -> Float[Array, "*B"]:
    """D_L <= b^((3^L - 1) / 2) D_0^(3^L): the cubic bound after L layers of pure attention.

    Collapse when sqrt(b) D_0 < 1; above 1 the bound grows as fast.

    Args:
      coefficient: b, the largest over the layers, [...].
      start: D_0, [...].
      layers: L, [...].

    Returns:
      [...]; 0 or infinity where the number is beyond the dtype.

    >>> import jax.numpy as jnp
    >>> round(float(cubic_collapse_depth(jnp.array(0.25), jnp.array(1.0), jnp.array(2))), 6)
    0.003906
    """
    # (sqrt(b) D)^(3^L) / sqrt(b), with the power taken of the logarithm
    power = 3.0 ** layers.astype(start.dtype)
    zero = (coefficient == 0) | (start == 0)
    b, distance = jnp.where(zero, 1, coefficient), jnp.where(zero, 1, start)
    bound = jnp.exp(power * jnp.log(jnp.sqrt(b) * distance) - jnp.log(b) / 2)
    # b^0 D of no layer, 0 of any number of them.
    return jnp.where(zero, jnp.where(layers == 0, start, 0), bound)


@at_least_float32
def collapse_coefficient(couplings: Float[Array, " N"], mixers: Float[Array, " N"]) -> Float[Array, ""]:
    """b = sum_h ||W_h|| ||W_QK^h|| / (4 sqrt(H)) of `cubic_collapse`.

    >>> import jax.numpy as jnp
    >>> collapse_coefficient(jnp.array([2.0, 1.0]), jnp.array([1.0, 2.0]))
    Array(1., dtype=float32)
    """
    return jnp.sum(couplings * mixers) / 4


@at_least_float32
def coupling_norms(query: Float[Array, "D N H"], key: Float[Array, "D N H"]) -> Float[Array, " N"]:
    """||W_Q W_K^T|| / sqrt(H) of every head.

    >>> import jax.numpy as jnp
    >>> coupling_norms(jnp.eye(4)[:, None], jnp.eye(4)[:, None]).round(4)
    Array([0.5], dtype=float32)
    """
    width = jnp.asarray(query.shape[-1], query.dtype)
    asked, offered = (binary_size(kernel, (0, 2)) for kernel in (query, key))
    found = spectral_norm(einsum("dnh,enh->nde", query / asked, key / offered)) / jnp.sqrt(width)
    return found * asked[0, :, 0] * offered[0, :, 0]


@at_least_float32
def mixer_norms(value: Float[Array, "D N H"], output: Float[Array, "N H D"]) -> Float[Array, " N"]:
    """||W_h|| of every head, W_h = value[:, h] @ output[h].

    >>> import jax.numpy as jnp
    >>> mixer_norms(2 * jnp.eye(4)[:, None], jnp.eye(4)[None]).round(4)
    Array([2.], dtype=float32)
    """
    before, after = binary_size(value, (0, 2)), binary_size(output, (1, 2))
    found = spectral_norm(einsum("dnh,nhe->nde", value / before, output / after))
    return found * before[0, :, 0] * after[:, 0, 0]


def _one_mask(attn: Array, mask: Array) -> Array:
    """Whether real queries give positive weight to real keys and none to padding, 1 together, [..., N]."""
    real = per_row(mask, attn)
    as_masked = (attn > 0) == real[..., None, :]
    return jnp.all(as_masked | ~real[..., None], axis=(-2, -1)) & is_row_stochastic(attn, mask)
