"""Remedies that change hidden states: what each makes of X, on arrays.

Rows of X are tokens. Sums and means run over real tokens only; padded rows keep their value, which is never read.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..errors import OptionError, arguments_checked
from ..linalg.precision import einsum, matmul
from ..linalg.rows import masked_softmax
from ..theory.consensus import centre_tokens, token_mean

Strength = Float[Array, ""] | Float[Array, " D"] | float
"""One number for all channels, or one per channel."""


@arguments_checked
def contranorm(
    hidden: Float[Array, "*B T D"],
    mask: Bool[Array, "*B T"],
    strength: Strength,
    *,
    form: Literal["bert", "vit"] = "bert",
    dual: bool = False,
    temperature: Float[Array, ""] | float = 1.0,
    unit: bool = False,
) -> Float[Array, "*B T D"]:
    """ContraNorm: push every token away from the tokens that resemble it.

    "bert": (1 + s) X - s S X; "vit": X - s S X, where S = softmax(Xn Xn^T / temperature) and Xn has unit rows. In a
    Vision Transformer a LayerNorm follows; here that is the one of the site where the result is put.
    `theory.guo2023_contranorm`: d_M grows by (1 + s sigma_min)^(1/2) at least, sigma_min on the complement of 1.

    Args:
      hidden: X, [..., T, D].
      mask: True on real tokens, [..., T].
      strength: s, [] or [D].
      form: which of the two published combinations.
      dual: add the softmax over columns to the one over rows, so S has columns as well as rows that sum to 1 each.
      temperature: of the softmax.
      unit: let Xn, not X, be what is combined (`pre_norm` in the released code).

    Returns:
      [..., T, D].

    >>> import jax.numpy as jnp
    >>> contranorm(jnp.array([[1.0, 0.0], [1.0, 0.0]]), jnp.ones(2, bool), 0.5)
    Array([[1., 0.],
           [1., 0.]], dtype=float32)

    References: Guo et al. (2023), ContraNorm, arXiv 2303.06562; variants after their released code.
    """
    if form not in ("bert", "vit"):
        raise OptionError(f"form must be 'bert' or 'vit'; got {form!r}.")
    s = per_channel(strength, hidden)
    similar = contranorm_similarity(hidden, mask, dual=dual, temperature=temperature)
    rows = unit_rows(hidden, mask) if unit else jnp.where(mask[..., None], hidden, 0)
    away = s * matmul(similar, rows)
    return jnp.where(mask[..., None], (1 + s if form == "bert" else 1) * rows - away, hidden)


@arguments_checked
def contranorm_similarity(
    hidden: Float[Array, "*B T D"],
    mask: Bool[Array, "*B T"],
    *,
    dual: bool = False,
    temperature: Float[Array, ""] | float = 1.0,
) -> Float[Array, "*B T T"]:
    """ContraNorm's S: softmax over real tokens of the cosines of tokens, over rows, and in dual form also columns.

    >>> import jax.numpy as jnp
    >>> contranorm_similarity(jnp.ones((2, 1)), jnp.ones(2, bool), dual=True)
    Array([[1., 1.],
           [1., 1.]], dtype=float32)
    """
    unit = unit_rows(hidden, mask)
    cosines = einsum("...td,...sd->...ts", unit, unit) / jnp.asarray(temperature).astype(hidden.dtype)
    rows = masked_softmax(cosines, mask[..., None, :])
    if not dual:
        return rows
    # The cosines are symmetric, so the softmax over columns is the transpose, less its padded columns.
    return rows + jnp.where(mask[..., None, :], jnp.swapaxes(rows, -1, -2), 0)


@arguments_checked
def feat_scale(
    hidden: Float[Array, "*B T D"],
    mask: Bool[Array, "*B T"],
    low: Strength,
    high: Strength,
    *,
    convention: Literal["paper", "released"] = "paper",
) -> Float[Array, "*B T D"]:
    """FeatScale, (1 + t1) J0 Y + (1 + t2)(I - J0) Y per channel: low and high frequency get gains of their own.

    "released": 1 + 2 t1 and 1 + 2 t2, as a published version of the code computes (VITA-Group/ViT-Anti-Oversmoothing,
    issue 9). `theory.wang2022_feat_scale` is the paper's form; d_M lies within min and max |1 + t2| of what it was.

    Args:
      hidden: Y, the attention sub-layer's output, [..., T, D].
      mask: True on real tokens, [..., T].
      low: t1, [] or [D]; learned from 0.
      high: t2, [] or [D]; learned from 0.
      convention: the paper's gains or the released code's.

    Returns:
      [..., T, D].

    >>> import jax.numpy as jnp
    >>> y = jnp.array([[1.0], [3.0]])
    >>> [feat_scale(y, jnp.ones(2, bool), 0.0, 1.0, convention=c).ravel().tolist() for c in ("paper", "released")]
    [[0.0, 4.0], [-1.0, 5.0]]

    References: after Wang et al. (2022), arXiv 2203.05962.
    """
    if convention not in ("paper", "released"):
        raise OptionError(f"convention must be 'paper' or 'released'; got {convention!r}.")
    factor = 1 if convention == "paper" else 2
    mean = token_mean(hidden, mask).astype(hidden.dtype)
    gains = [1 + factor * per_channel(t, hidden) for t in (low, high)]
    return jnp.where(mask[..., None], gains[0] * mean + gains[1] * (hidden - mean), hidden)


@arguments_checked
def neutreno(
    context: Float[Array, "*B T H"],
    value: Float[Array, "*B T H"],
    first_value: Float[Array, "*B T H"],
    strength: Float[Array, ""] | float,
) -> Float[Array, "*B T H"]:
    """NeuTRENO, U_l = A_l V_l + lambda (V_0 - V_l): values are drawn back to those of the first layer.

    `theory.nguyen2023_neutreno_distance`: the fixed point of the linear core keeps d_M above
    lambda / (1 + lambda + sqrt(lambda_A)) of d_M(V_0).

    Args:
      context: A_l V_l, [..., T, H].
      value: V_l, [..., T, H].
      first_value: V_0, the values of the first layer, [..., T, H].
      strength: lambda.

    Returns:
      [..., T, H]; every token by itself, so no padding can leak.

    >>> import jax.numpy as jnp
    >>> neutreno(jnp.array([[1.0]]), jnp.array([[2.0]]), jnp.array([[4.0]]), 0.5)
    Array([[2.]], dtype=float32)

    References: after Nguyen, Nguyen and Baraniuk (2023), NeurIPS 2023.
    """
    return context + jnp.asarray(strength).astype(context.dtype) * (first_value - value)


@arguments_checked
def pair_norm(
    hidden: Float[Array, "*B T D"],
    mask: Bool[Array, "*B T"],
    scale: Float[Array, ""] | float = 1.0,
    *,
    each_token: bool = False,
) -> Float[Array, "*B T D"]:
    """PairNorm: centre over tokens, then scale so that the mean squared length of a token is s^2.

    `theory.zhao2020_pair_norm`: d_M becomes exactly s sqrt(n) unless it was 0.

    Args:
      hidden: X, [..., T, D].
      mask: True on real tokens, [..., T].
      scale: s.
      each_token: scale every centred token to length s by itself (the paper's PairNorm-SI).

    Returns:
      [..., T, D]; real tokens of a state in consensus become zero.

    >>> import jax.numpy as jnp
    >>> pair_norm(jnp.array([[1.0], [5.0]]), jnp.ones(2, bool)).ravel()
    Array([-1.,  1.], dtype=float32)

    References: Zhao and Akoglu (2020), PairNorm, arXiv 1909.12223.
    """
    centred = centre_tokens(hidden, mask).astype(hidden.dtype)
    squares = jnp.sum(centred * centred, axis=-1, keepdims=True)
    if not each_token:
        squares = jnp.broadcast_to(token_mean(squares, mask).astype(hidden.dtype), squares.shape)
    known = squares > 0
    unit = jnp.where(known, centred / jnp.sqrt(jnp.where(known, squares, 1)), 0)
    return jnp.where(mask[..., None], jnp.asarray(scale).astype(hidden.dtype) * unit, hidden)


@arguments_checked
def initial_residual(
    hidden: Float[Array, "*B T D"], first: Float[Array, "*B T D"], share: Float[Array, ""] | float
) -> Float[Array, "*B T D"]:
    """(1 - a) X + a X_0: a share of the embedding output is put back into every layer.

    `theory.scholkemper2024_initial_residual` is the limit of the linear iteration, which does not collapse.

    Args:
      hidden: X, [..., T, D].
      first: X_0, the embedding output, [..., T, D].
      share: a, from 0 to 1.

    Returns:
      [..., T, D]; every token by itself, so no padding can leak.

    >>> import jax.numpy as jnp
    >>> initial_residual(jnp.array([[1.0]]), jnp.array([[3.0]]), 0.5)
    Array([[2.]], dtype=float32)

    References: Chen et al. (2020), GCNII, arXiv 2007.02133; Scholkemper et al. (2024), arXiv 2406.02997.
    """
    a = jnp.asarray(share).astype(hidden.dtype)
    return (1 - a) * hidden + a * first


@arguments_checked
def soft_decay(
    hidden: Float[Array, "*B T D"],
    mask: Bool[Array, "*B T"],
    alpha: Float[Array, ""] | float = -0.2,
    *,
    keep_largest: bool = True,
) -> Float[Array, "*B T D"]:
    """SoftDecay: the singular values s of X become -ln(1 - a (s + a) + 1e-7) / a, which flattens them for a < 0.

    The released code then multiplies all of them by one number so that the largest is what it was. For a = -0.2 the
    function is negative below s = 0.2: such directions change sign. A singular value of 0, up to rounding, has no
    direction and stays 0. The derivative is right where singular values coincide too, as long as the rank stays and the
    largest, if it is kept, is single; second derivatives are not.

    Args:
      hidden: X, [..., T, D].
      mask: True on real tokens, [..., T].
      alpha: a, below 0; -0.2 at initialisation in the paper's code.
      keep_largest: whether to restore the largest singular value.

    Returns:
      [..., T, D].

    >>> import jax.numpy as jnp
    >>> spread = soft_decay(jnp.array([[9.0, 0.0], [0.0, 1.0]]), jnp.ones(2, bool))
    >>> [round(float(x), 3) for x in jnp.diagonal(spread)]
    [9.0, 1.316]

    References: after Yan et al. (2022), UAI 2022, and their released code.
    """
    real = jnp.where(mask[..., None], hidden, 0)
    a = jnp.asarray(alpha).astype(hidden.dtype)
    # One at a time: XLA's CPU spreads a batch of LAPACK calls over a pool that can wait for itself.
    flat = real.reshape(-1, *real.shape[-2:])
    flattened = jax.lax.map(lambda x: _decayed(x, a, keep_largest), flat).reshape(real.shape)
    return jnp.where(mask[..., None], flattened, hidden)


def _decayed(x: Array, a: Array, keep_largest: bool) -> Array:
    found, largest = _flattened(x, a)
    if not keep_largest:
        return found
    there = largest > 0
    return found * jnp.where(there, largest / _flatter(jnp.where(there, largest, 1), a), 0)


def _flatter(values: Array, a: Array) -> Array:
    return -jnp.log(1 - a * (values + a) + jnp.asarray(1e-7, values.dtype)) / a


@jax.custom_jvp
def _flattened(x: Array, a: Array) -> tuple[Array, Array]:
    """U g(S) V^T and the largest singular value."""
    left, values, right, there = _singular(x)
    return matmul(left * jnp.where(there, _flatter(values, a), 0)[None], right), values[0]


@_flattened.defjvp
def _flattened_tangent(
    primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Daleckii and Krein's formula for U g(S) V^T, whose divided differences have no poles.

    jax's own derivative of the decomposition divides by differences of singular values, and of a padded sentence all
    those of the padding are 0.
    """
    (x, a), (dx, da) = primals, tangents
    left, values, right, there = _singular(x)
    new, by_a = jax.jvp(lambda a: _flatter(values, a), (a,), (da,))
    inside = matmul(matmul(left.T, dx), right.T)
    # (g_i - g_j) / (s_i - s_j) by the logarithm of a quotient; at s_i = s_j it is g'.
    inner = 1 - a * (values + a) + jnp.asarray(1e-7, x.dtype)
    step = -a * (values[:, None] - values[None]) / inner[None]
    apart = jnp.where(step == 0, 1, jnp.log1p(step) / jnp.where(step == 0, 1, step)) / inner[None]
    total = values[:, None] + values[None]
    together = (new[:, None] + new[None]) / jnp.where(total > 0, total, 1)
    both = apart * (inside + inside.T) / 2 + together * (inside - inside.T) / 2
    pairs = there[:, None] & there[None]
    share = jnp.where(there, new / jnp.where(there, values, 1), 0)
    known = jnp.where(pairs, inside, 0)
    core = (
        jnp.where(pairs, both, 0) - share[:, None] * known - known * share[None] + jnp.diag(jnp.where(there, by_a, 0))
    )
    changed = matmul(matmul(left, core), right)
    changed += matmul(matmul(dx, right.T) * share[None], right) + matmul(left * share[None], matmul(left.T, dx))
    found = matmul(left * jnp.where(there, new, 0)[None], right)
    return (found, values[0]), (changed, inside[0, 0])


def _singular(x: Array) -> tuple[Array, Array, Array, Array]:
    """U, S, V^T, and which singular values are not 0 up to rounding."""
    left, values, right = jnp.linalg.svd(x, full_matrices=False)
    there = values > max(x.shape) * jnp.finfo(x.dtype).eps * values[0]
    return left, values, right, there


@arguments_checked
def scale_branch(branch: Float[Array, "*B T D"], factor: Float[Array, ""] | float) -> Float[Array, "*B T D"]:
    """A sub-layer's output times a factor, 1/sqrt(L) in the paper, before it is added to the residual stream.

    `theory.noci2022_relative_distance`: at initialisation the relative distance then survives any depth.

    >>> import jax.numpy as jnp
    >>> scale_branch(jnp.array([[4.0]]), 0.5)
    Array([[2.]], dtype=float32)

    References: after Noci et al. (2022), arXiv 2206.03126.
    """
    return jnp.asarray(factor).astype(branch.dtype) * branch


def per_channel(strength: Strength, hidden: Float[Array, "*B D"]) -> Float[Array, "..."]:
    """A strength in the dtype of `hidden`, shaped to multiply it without rank promotion.

    >>> import jax.numpy as jnp
    >>> per_channel(jnp.ones(3), jnp.ones((2, 5, 3))).shape
    (1, 1, 3)
    """
    cast = jnp.asarray(strength).astype(hidden.dtype)
    return cast.reshape((1,) * (hidden.ndim - 1) + cast.shape) if cast.ndim else cast


def unit_rows(hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]) -> Float[Array, "*B T D"]:
    """Real tokens divided by their length, with a derivative everywhere; zero vectors and padding become zero.

    >>> import jax.numpy as jnp
    >>> unit_rows(jnp.array([[3.0, 4.0], [9.0, 9.0]]), jnp.array([True, False]))
    Array([[0.6, 0.8],
           [0. , 0. ]], dtype=float32)
    """
    real = jnp.where(mask[..., None], hidden, 0)
    squares = jnp.sum(real * real, axis=-1, keepdims=True)
    known = squares > 0
    return jnp.where(known, real / jnp.sqrt(jnp.where(known, squares, 1)), 0)
