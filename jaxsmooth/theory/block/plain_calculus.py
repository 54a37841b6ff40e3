"""The calculus of plain arrays: every quantity of a theorem to rounding, for a batch of sentences, on the device."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from ...activations import ACTIVATIONS
from ...linalg.intervals import Interval
from ...linalg.lanczos import root_of_largest_eigenvalue, spectral_norm
from ...linalg.norms import binary_size, norm, quotient, safe_sqrt, unit_vectors
from ...linalg.precision import at_least_float32, einsum, matmul
from ...linalg.rows import centre_features, masked_softmax, row_std
from .. import consensus
from ..markov import stochastic
from ..statement import Statement
from ..theorems.calculus import ArrayLike, Heads


class PlainCalculus:
    """Formulas on every sentence of a batch: matrices [... T D], numbers [...], vectors [... T] or, of heads, [... N].

    Spectral norms are lower estimates by Lanczos. What is stacked over heads, [N T S], is understood of one sentence.
    """

    def __init__(self, mask: Bool[Array, "*B T"], dtype: DTypeLike) -> None:
        self.mask, self.dtype = mask, dtype
        self.tokens = jnp.maximum(jnp.sum(mask, axis=-1), 1).astype(dtype)

    def matrix(self, array: ArrayLike) -> Array:
        return jnp.asarray(array, self.dtype)

    weight = matrix

    def number(self, value: float) -> Array:
        return jnp.asarray(value, self.dtype)

    def lift(self, known: Interval) -> Array:
        """The middle of what is known."""
        return self.matrix(0.5 * known.lower + 0.5 * known.upper)

    def matmul(self, x: Array, y: Array) -> Array:
        return matmul(x, y)

    def add(self, x: Array, y: Array) -> Array:
        return x + y

    def transpose(self, matrix: Array) -> Array:
        return matrix.mT

    def scale(self, matrix: Array, factor: Array) -> Array:
        return matrix * factor[..., None, None]

    def add_row(self, matrix: Array, row: Array) -> Array:
        return self._real(matrix + self._row(row, matrix))

    def alike(self, array: Array) -> Array:
        mask = self.mask.reshape((1,) * (array.ndim - 1 - self.mask.ndim) + self.mask.shape)
        first = jnp.take_along_axis(array, jnp.argmax(mask, axis=-1)[..., None, None], axis=-2)
        return jnp.all((array == first) | ~mask[..., None], axis=(-2, -1))

    def zero_where(self, known: Array, statement: Statement[Array]) -> Statement[Array]:
        return statement._replace(lhs=jnp.where(known, 0, statement.lhs))

    def centre_features(self, matrix: Array) -> Array:
        return centre_features(matrix)

    def centre_tokens(self, matrix: Array) -> Array:
        return consensus.centre_tokens(matrix, self.mask)

    def mean_row(self, matrix: Array) -> Array:
        return consensus.token_mean(matrix, self.mask)

    def softmax(self, logits: Array) -> Array:
        return self._real(masked_softmax(logits, jnp.broadcast_to(self.mask[..., None, :], logits.shape)))

    def activation(self, matrix: Array, name: str) -> Array:
        return ACTIVATIONS[name].function(matrix)

    def layer_norm(self, matrix: Array, gains: Array, shift: Array, stds: Array) -> Array:
        normed = self.centre_features(matrix) / stds[..., None]
        return self._real(normed * self._row(gains, matrix) + self._row(shift, matrix))

    def mix(self, attn: Array, hidden: Array, value: Array, bias: Array, output: Array) -> Array:
        spread = einsum("sd,ndh->nsh", hidden, value) + bias
        return einsum("nts,nsh,nhd->td", attn, spread, output)

    def sum_over_heads(self, function: Callable[[Heads], tuple[Array, Array]], heads: Heads) -> tuple[Array, Array]:
        matrices, numbers = jax.vmap(function)(heads)
        return jnp.sum(matrices, axis=0), jnp.sum(numbers)

    def sqrt(self, value: Array) -> Array:
        return safe_sqrt(value)

    def tanh(self, value: Array) -> Array:
        return jnp.tanh(value)

    def sum(self, values: Array) -> Array:
        return jnp.sum(values, axis=-1)

    def largest(self, values: Array) -> Array:
        return jnp.max(values, axis=-1)

    def smaller(self, *values: Array) -> Array:
        found, *others = values
        for value in others:
            found = jnp.minimum(found, value)
        return found

    def least(self, values: Array, count: int = 1) -> Array:
        """With fewer real tokens than `count`, the least value takes the place of those that are missing."""
        real = jnp.where(self.mask, values, jnp.inf)
        if count == 1:
            return jnp.min(real, axis=-1)
        missing = jnp.full((*real.shape[:-1], count - 1), jnp.inf, real.dtype)
        ordered = jnp.sort(jnp.concatenate([real, missing], axis=-1), axis=-1)[..., :count]
        return jnp.prod(jnp.where(jnp.isfinite(ordered), ordered, ordered[..., :1]), axis=-1)

    def hull(self, low: Array, high: Array) -> Array:
        return high

    def frobenius(self, matrix: Array) -> Array:
        return norm(matrix, (-2, -1))

    def norm(self, matrix: Array) -> Array:
        return spectral_norm(matrix)

    def mixing_norm(self, attn: Float[Array, "*B N T S"]) -> Float[Array, "*B"]:
        real = jnp.broadcast_to(self.mask[..., None, :], attn.shape[:-1])
        centred = consensus.centre_tokens(attn, real)
        return root_of_largest_eigenvalue(einsum("...nts,...nus->...tu", centred, centred))

    def distance(self, matrix: Array) -> Array:
        return consensus.subspace_distance(matrix, self.mask)

    def pair_distance(self, matrix: Array, weights: Array) -> Array:
        # Subtracting the token mean changes no pair difference and keeps the cancellation small.
        centred = self.centre_tokens(matrix)
        size = binary_size(centred, (-2, -1))
        scaled, precision = centred / size, jnp.where(self.mask, weights, 0)[..., None]
        spread = jnp.sum(scaled * pair_laplacian(precision, self.tokens[..., None, None], scaled), axis=(-2, -1))
        return size[..., 0, 0] * safe_sqrt(jnp.maximum(spread, 0))

    def pair_weight(self, weights: Array) -> Array:
        return pair_weight(weights, self.mask)

    def diameter(self, matrix: Array) -> Array:
        return consensus.diameter(matrix, self.mask)

    def stds(self, matrix: Array, eps: float) -> Array:
        return jnp.where(self.mask, row_std(self.centre_features(matrix), eps)[..., 0], 1)

    def gain(self, scale: ArrayLike) -> Array:
        return jnp.max(jnp.abs(self.matrix(scale)), axis=-1)

    def ergodicity(self, attn: Array) -> Array:
        return stochastic.ergodicity_coefficient(attn, self.mask)

    def cross_ratio(self, attn: Array) -> Array:
        logits = jnp.where(attn == 0, -jnp.inf, jnp.log(jnp.where(attn == 0, 1, attn)))
        return jnp.exp(-self.logit_spread(logits))

    def entry_ratio(self, attn: Array) -> Array:
        keys = self.mask[..., None, :]
        least = jnp.min(jnp.where(keys, attn, jnp.inf), axis=-1)
        ratio = quotient(least, jnp.max(jnp.where(keys, attn, 0), axis=-1))
        return jnp.min(jnp.where(self.mask, ratio, 1), axis=-1)

    def received(self, attn: Array) -> Array:
        return jnp.sum(self._real(attn), axis=-2) / self.tokens[..., None]

    def logit_spread(self, logits: Array) -> Array:
        return stochastic.logit_spread(logits, self.mask)

    def row_defect(self, attn: Array) -> Array:
        return jnp.max(jnp.abs(self._row_sums(attn)), axis=-1)

    def defect(self, attn: Array) -> Array:
        return self.distance(self._row_sums(attn)[..., None])

    def head_defects(self, attn: Array, hidden: Array, value: Array, bias: Array, output: Array) -> Array:
        rows = matmul(matmul(self.mean_row(hidden), value) + bias, output)
        return jnp.sum(jax.vmap(self.defect)(attn) * self.frobenius(rows))

    def _row_sums(self, attn: Array) -> Array:
        """sum_j a_ij - 1 of real rows, 0 on padding."""
        return jnp.where(self.mask, jnp.sum(attn, axis=-1) - 1, 0)

    def _real(self, matrix: Array) -> Array:
        return jnp.where(self.mask[..., None], matrix, 0)

    def _row(self, row: Array, like: Array) -> Array:
        return row.reshape((1,) * (like.ndim - row.ndim) + row.shape)


@at_least_float32
def pair_weight(precision: Float[Array, "*B T"], mask: Bool[Array, "*B T"]) -> Float[Array, "*B"]:
    """lambda_max(L_p)^(1/2), L_p = (1/n)[diag(p) sum(p) - p p^T]: the most that weighting pairs by p_i p_j adds to d_M.

    L_p is diag(d) - q q^T with d = p sum(p) / n and q = p / n^(1/2), so its largest eigenvalue is the root of
    sum_i q_i^2 / (d_i - mu) = 1 between the two largest d, where the sum increases from -inf to inf. Halving finds it
    to rounding however close these two are, and the upper end is kept. Tokens near consensus have stds equal to many
    digits; there Lanczos may settle on the second eigenvalue.

    Args:
      precision: p, positive, [..., T].
      mask: True on real tokens, [..., T].

    Returns:
      [...], 0 for one token.

    >>> import jax.numpy as jnp
    >>> pair_weight(jnp.array([2.0, 2.0, 2.0]), jnp.ones(3, bool)).round(4)
    Array(2., dtype=float32)

    References: Golub (1973), Some modified matrix eigenvalue problems, for the secular equation.
    """
    precision = jnp.where(mask, precision, 0)
    size = binary_size(precision, -1)
    precision = precision / size
    count = jnp.maximum(jnp.sum(precision > 0, axis=-1, keepdims=True), 1).astype(precision.dtype)
    diagonal = precision * jnp.sum(precision, axis=-1, keepdims=True) / count
    padding = [(0, 0)] * (precision.ndim - 1) + [(1, 0)]
    top = jnp.sort(jnp.pad(diagonal, padding), axis=-1)[..., -2:]

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = low + (high - low) / 2
        apart = diagonal - middle
        terms = jnp.where(apart == 0, jnp.inf, precision**2 / jnp.where(apart == 0, 1, apart))
        beyond = jnp.sum(terms, axis=-1, keepdims=True) >= count
        return jnp.where(beyond, low, middle), jnp.where(beyond, middle, high)

    steps = jnp.finfo(precision.dtype).nmant + 4
    still = jax.lax.stop_gradient
    high = jax.lax.fori_loop(0, steps, halve, (still(top[..., :1]), still(top[..., 1:])))[1]
    x = _pair_vector(still(precision), still(diagonal), high)
    # The eigenvalue has the derivative of x^T L_p x, x its unit eigenvector held still.
    own, common = (jnp.sum(part, axis=-1, keepdims=True) for part in (diagonal * x**2, precision * x))
    form = own - common**2 / count
    return (size * safe_sqrt(jnp.where(count > 1, high + (form - still(form)), 0)))[..., 0]


def _pair_vector(precision: Array, diagonal: Array, value: Array) -> Array:
    """The unit eigenvector of L_p; of a repeated eigenvalue, the one that tells the first two tokens apart."""
    rank = jnp.argsort(jnp.argsort(-diagonal, axis=-1), axis=-1)
    two = jnp.where(rank == 0, 1, jnp.where(rank == 1, -1, 0)).astype(diagonal.dtype) * 0.5**0.5
    apart = diagonal - value
    near = jnp.min(jnp.abs(apart), axis=-1, keepdims=True) <= 64 * jnp.finfo(value.dtype).eps * value
    return jnp.where(near, two, unit_vectors(quotient(precision, apart, 0)))


def pair_laplacian(
    precision: Float[Array, "*#B T 1"], count: Float[Array, "..."], x: Float[Array, "*#B T D"]
) -> Float[Array, "*#B T D"]:
    """L_P x along the token axis: (1/n)[P sum(P) x - P (P^T x)]; <x, L_P x> = (1/n) sum_{i<j} P_i P_j |x_i - x_j|^2."""
    total = jnp.sum(precision, axis=-2, keepdims=True)
    return precision * (total * x - jnp.sum(precision * x, axis=-2, keepdims=True)) / count
