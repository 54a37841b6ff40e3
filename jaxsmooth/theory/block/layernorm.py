"""What LayerNorm does to the distance between tokens: an identity, and the chain of bounds that follows from it.

LayerNorm divides each token by its own std. As a linear map, division of the rows by given numbers bounds nothing
(consensus divided by 1 and 2 is no consensus); that the divisor is the token's own std is what makes it contract.
Proofs are in docs/theory.md.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from ...linalg.norms import binary_size, safe_sqrt
from ...linalg.precision import at_least_float32
from ...linalg.rows import centre_features, wide_row_std
from ..consensus import real_tokens
from ..statement import Statement
from ..theorems import layer_norms
from ..theorems.quantities import NormQuantities
from .plain_calculus import PlainCalculus


class LayerNormChain(NamedTuple):
    """d_M after LayerNorm and its upper bounds, each [...], none larger than the next.

    Attributes:
      actual: d_M(LN(H)).
      pairs: G (1/n sum_{i<j} ||u_i - u_j||^2 / (s_i s_j))^(1/2), u the centred tokens, s their stds, G = max |scale|.
      spectral: G lambda_max(L_p)^(1/2) d_M(HC), L_p = (1/n)[diag(p) sum(p) - p p^T], p = 1 / s.
      two_smallest: G d_M(HC) / sqrt(the product of the two smallest stds).
      smallest: G d_M(H) / min s, as in Shi et al. (2022).
    """

    actual: Float[Array, "..."]
    pairs: Float[Array, "..."]
    spectral: Float[Array, "..."]
    two_smallest: Float[Array, "..."]
    smallest: Float[Array, "..."]


class LayerNormCalculus(PlainCalculus):
    """Of tokens whose stds are however far apart; `root` is that of epsilon, in the units of the tokens."""

    def __init__(self, mask: Array, dtype: DTypeLike, root: Array) -> None:
        super().__init__(mask, dtype)
        self.root = root

    def stds(self, matrix: Array, eps: float) -> Array:
        return jnp.where(self.mask, wide_row_std(self.centre_features(matrix), self.root)[..., 0], 1)

    def pair_distance(self, matrix: Array, weights: Array) -> Array:
        """Pair by pair: through the Laplacian, tokens that are close and of small std would lose digits."""
        size = binary_size(matrix, (-2, -1))  # beside epsilon it may be next to nothing
        gaps = _pair_gaps(matrix / size, safe_sqrt(jnp.where(self.mask, weights, 0))[..., None])
        return size[..., 0, 0] * safe_sqrt(jnp.sum(gaps, axis=(-2, -1)) / (2 * self.tokens))


class RMSNormCalculus(LayerNormCalculus):
    """With C = I."""

    def centre_features(self, matrix: Array) -> Array:
        return matrix


@at_least_float32
def layer_norm_pair_distances(
    hidden: Float[Array, "*B T D"], eps: float, mask: Bool[Array, "*B T"], *, centred: bool = True
) -> Float[Array, "*B T T"]:
    """Squared distances of the normalised tokens y = u / s without normalising: the LayerNorm identity.

    ||y_i - y_j||^2 = [ ||u_i - u_j||^2 - d (s_i - s_j)^2 (1 + eps / (s_i s_j)) ] / (s_i s_j), exact, with u = x - mean
    over features and s^2 = ||u||^2 / d + eps. The bracket's second term is what LayerNorm gains over a division of
    both tokens by one number.

    Args:
      hidden: X, [..., T, D].
      eps: LayerNorm's epsilon, at least 0.
      mask: True on real tokens, [..., T].
      centred: False for RMSNorm, where u = x.

    Returns:
      [..., T, T], 0 where a token is padding.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[1.0, -1.0], [-2.0, 2.0]])
    >>> layer_norm_pair_distances(x, 0.0, jnp.ones(2, bool))[0, 1].round(4)
    Array(8., dtype=float32)
    """
    scaled, root = _scaled(hidden, eps, mask)
    moved = centre_features(scaled) if centred else scaled
    std = jnp.where(mask[..., None], wide_row_std(moved, root), 1)
    weight, share = jnp.sqrt(1 / std), root / std
    gap = (std - std.mT) * weight * weight.mT
    fold = hidden.shape[-1] * gap**2 * (1 + share * share.mT)
    return jnp.where(mask[..., None] & mask[..., None, :], _pair_gaps(moved, weight) - fold, 0)


@at_least_float32
def layer_norm_chain(
    hidden: Float[Array, "*B T D"],
    scale: Float[Array, " D"],
    eps: float,
    mask: Bool[Array, "*B T"],
    *,
    centred: bool = True,
) -> LayerNormChain:
    """d_M(LN(H)) and four upper bounds of it, from the identity of `layer_norm_pair_distances` down to G / min s.

    Args:
      hidden: H, [..., T, D].
      scale: gain, [D]; the shift cancels in d_M.
      eps: LayerNorm's epsilon, at least 0.
      mask: True on real tokens, [..., T].
      centred: False for RMSNorm, where C = I.

    Returns:
      A `LayerNormChain`.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[1.0, -1.0], [-1.0, 1.0]])
    >>> [round(float(v), 4) for v in layer_norm_chain(x, jnp.array([1.0, 3.0]), 0.0, jnp.ones(2, bool))]
    [4.4721, 6.0, 6.0, 6.0, 6.0]

    References: Shi et al. (2022), arXiv 2202.08625, proof of Theorem 2, for the last bound.
    """
    q = _quantities(hidden, scale, eps, mask, centred)
    chain = layer_norms.pairs, layer_norms.weighted, layer_norms.two_smallest, layer_norms.least
    return LayerNormChain(q.normed, *(bound(q).rhs for bound in chain))


@at_least_float32
def shi2022_layer_norm(
    hidden: Float[Array, "*B T D"],
    scale: Float[Array, " D"],
    eps: float,
    mask: Bool[Array, "*B T"],
    *,
    centred: bool = True,
) -> Statement:
    """d_M(LN(H)) <= max |scale| d_M(H) / min s: the step of Shi et al.'s Theorem 2, with the gain restored.

    With the gain left out it is false: tokens already normalised, and scale = 2, double their distance.

    Args:
      hidden: H, [..., T, D].
      scale: gain, [D].
      eps: LayerNorm's epsilon, at least 0.
      mask: True on real tokens, [..., T].
      centred: False for RMSNorm.

    Returns:
      A `Statement` of shape [...], applicable where every real token has a positive std.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[1.0, -1.0], [-2.0, 2.0]])
    >>> found = shi2022_layer_norm(x, jnp.ones(2), 0.0, jnp.ones(2, bool))
    >>> round(float(found.lhs), 4), round(float(found.rhs), 4)
    (2.0, 3.0)

    References: after Shi et al. (2022), arXiv 2202.08625, Theorem 2.
    """
    q = _quantities(hidden, scale, eps, mask, centred)
    return layer_norms.least(q)._replace(applicable=jnp.all(q.stds > 0, axis=-1))


@at_least_float32
def pre_norm_attention_rate(
    std: Float[Array, "*B T 1"],
    mixing_rates: Float[Array, "*B N"],
    head_norms: Float[Array, " N"],
    scale: Float[Array, " D"],
    mask: Bool[Array, "*B T"],
) -> Float[Array, "*B"]:
    """d_M(X + sum_h A_h LN(X) W_h + b) <= (1 + G sum_h sqrt(lambda_h) ||W_h|| / sqrt(s_(1) s_(2))) d_M(X).

    Never below 1: for a pre-LN network no rate of this kind can promise collapse, and what can vanish is the relative
    distance d_M(X) / ||X||.

    Args:
      std: stds of the tokens of X, [..., T, 1].
      mixing_rates: sqrt(lambda_h) = ||J A_h||, [..., N].
      head_norms: ||W_h||, [N].
      scale: gain of the LayerNorm, [D].
      mask: True on real tokens, [..., T].

    Returns:
      [...].

    >>> import jax.numpy as jnp
    >>> pre_norm_attention_rate(jnp.ones((2, 1)), jnp.array([0.5]), jnp.array([2.0]), jnp.ones(4), jnp.ones(2, bool))
    Array(2., dtype=float32)
    """
    precision = jnp.sort(jnp.where(mask, 1 / jnp.where(mask, std[..., 0], 1), 0), axis=-1)
    stretch = jnp.sum(mixing_rates * head_norms.reshape((1,) * (mixing_rates.ndim - 1) + head_norms.shape), axis=-1)
    return 1 + jnp.max(jnp.abs(scale)) * stretch * safe_sqrt(precision[..., -1] * precision[..., -2])


def _quantities(hidden: Array, scale: Array, eps: float, mask: Array, centred: bool) -> NormQuantities[Array, Array]:
    scaled, root = _scaled(hidden, eps, mask)
    c = (LayerNormCalculus if centred else RMSNormCalculus)(mask, jnp.result_type(hidden), root)
    return NormQuantities(c, scaled, scale, jnp.zeros_like(scale), eps)


def _scaled(hidden: Array, eps: float, mask: Array) -> tuple[Array, Array]:
    """The tokens and the root of epsilon over their size, which changes nothing in what LayerNorm makes of them."""
    root = jnp.sqrt(jnp.asarray(eps, hidden.dtype))
    real = real_tokens(hidden, mask)
    size = jnp.maximum(binary_size(real, (-2, -1)), jnp.where(root > 0, binary_size(root, ()), 0))
    return real / size, root / size


def _pair_gaps(x: Array, weight: Array) -> Array:
    """||x_i - x_j||^2 w_i^2 w_j^2."""

    # By differences: through the Gram matrix, tokens that are close would lose all digits.
    def from_one(i: Array) -> Array:
        return jnp.sum(((x - x[..., i, None, :]) * weight * weight[..., i, None, :]) ** 2, axis=-1)

    return jnp.moveaxis(jax.lax.map(from_one, jnp.arange(x.shape[-2])), 0, -1)
