"""Attention as a linear operator on token matrices: applied forwards and transposed, whether or not it is formed.

Every operator acts on hidden states [T D] and sees real tokens only: padding is not read, and the
image is zero there. All are NamedTuples of arrays, so they pass through `jax.jit` and `jax.vmap`; a batch of
sentences or heads is one operator whose leaves have leading axes, used under `jax.vmap`. The one that never forms
its matrix is in `blocked_attention`.
"""

import math
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..linalg.precision import at_least_float32, matmul
from ..linalg.rows import masked_softmax
from .consensus import centre_tokens


@runtime_checkable
class Operator(Protocol):
    """A linear map of hidden states [T D] that ignores padding."""

    @property
    def mask(self) -> Bool[Array, " T"]:
        """True on real tokens."""

    @property
    def size(self) -> int:
        """Number of tokens T, padding included."""

    def apply(self, hidden: Float[Array, "T D"]) -> Float[Array, "T D"]:
        """The image of `hidden`, zero on padding."""

    def transpose_apply(self, hidden: Float[Array, "T D"]) -> Float[Array, "T D"]:
        """The image under the adjoint (in the Frobenius inner product), zero on padding."""


PARTS = 8  # of the sums over tokens of a transposed product


class Dense(NamedTuple):
    """A matrix that is formed: A over real tokens.

    Attributes:
      matrix: A, [T S]; rows and columns of padding are not used.
      mask: True on real tokens, [T].

    >>> import jax.numpy as jnp
    >>> swap = Dense(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.ones(2, bool))
    >>> swap.apply(jnp.array([[1.0], [3.0]])).ravel()
    Array([3., 1.], dtype=float32)
    """

    matrix: Float[Array, "T S"]
    mask: Bool[Array, " T"]

    @property
    def size(self) -> int:
        return self.matrix.shape[-1]

    def apply(self, hidden: Float[Array, "T D"]) -> Float[Array, "T D"]:
        return keep_real(matmul(self.matrix, keep_real(hidden, self.mask)), self.mask)

    def transpose_apply(self, hidden: Float[Array, "T D"]) -> Float[Array, "T D"]:
        # As left products: XLA's CPU backend is far slower at A^T v than at v A. In parts, because it adds up row after
        # row, and what long sums lose grows with their terms.
        tokens, width = hidden.shape
        parts = math.gcd(tokens, PARTS)
        rows = keep_real(hidden, self.mask).reshape(parts, tokens // parts, width)
        products = matmul(rows.mT, self.matrix.reshape(parts, tokens // parts, self.size))
        return keep_real(jnp.sum(products, axis=0).T, self.mask)


class Centred(NamedTuple):
    """J A: what A does to the distance from consensus; its norm is the mixing rate sqrt(lambda).

    Attributes:
      inner: A.

    >>> import jax.numpy as jnp
    >>> uniform = Dense(jnp.full((2, 2), 0.5), jnp.ones(2, bool))
    >>> Centred(uniform).apply(jnp.array([[1.0], [3.0]])).ravel()
    Array([0., 0.], dtype=float32)
    """

    inner: Operator

    @property
    def mask(self) -> Bool[Array, " T"]:
        return self.inner.mask

    @property
    def size(self) -> int:
        return self.inner.size

    def apply(self, hidden: Float[Array, "T D"]) -> Float[Array, "T D"]:
        return centre_tokens(self.inner.apply(hidden), self.mask)

    def transpose_apply(self, hidden: Float[Array, "T D"]) -> Float[Array, "T D"]:
        return self.inner.transpose_apply(centre_tokens(keep_real(hidden, self.mask), self.mask))


class Residual(NamedTuple):
    """I + step A: attention with its skip connection.

    Attributes:
      inner: A.
      step: weight of the attention branch.

    >>> import jax.numpy as jnp
    >>> uniform = Dense(jnp.full((2, 2), 0.5), jnp.ones(2, bool))
    >>> Residual(uniform, jnp.array(1.0)).apply(jnp.array([[1.0], [3.0]])).ravel()
    Array([3., 5.], dtype=float32)
    """

    inner: Operator
    step: Float[Array, ""]

    @property
    def mask(self) -> Bool[Array, " T"]:
        return self.inner.mask

    @property
    def size(self) -> int:
        return self.inner.size

    def apply(self, hidden: Float[Array, "T D"]) -> Float[Array, "T D"]:
        return keep_real(hidden, self.mask) + self.step * self.inner.apply(hidden)

    def transpose_apply(self, hidden: Float[Array, "T D"]) -> Float[Array, "T D"]:
        return keep_real(hidden, self.mask) + self.step * self.inner.transpose_apply(hidden)


class MultiHead(NamedTuple):
    """X + sum_h A_h X W_h: a whole attention sub-layer with its skip connection, biases and LayerNorm left out.

    Heads are taken one after the other, so the memory is that of one head.

    Attributes:
      heads: the A_h, one operator whose leaves have a leading axis N (the mask too).
      weight: W_h = W_V^h W_O^h, [N D D].

    >>> import jax.numpy as jnp
    >>> two = Dense(jnp.full((2, 2, 2), 0.5), jnp.ones((2, 2), bool))
    >>> MultiHead(two, jnp.ones((2, 1, 1))).apply(jnp.array([[1.0], [3.0]])).ravel()
    Array([5., 7.], dtype=float32)
    """

    heads: Operator
    weight: Float[Array, "N D D"]

    @property
    def mask(self) -> Bool[Array, " T"]:
        return self.heads.mask[0]

    @property
    def size(self) -> int:
        return self.heads.size

    def apply(self, hidden: Float[Array, "T D"]) -> Float[Array, "T D"]:
        def add(total: Array, head: tuple[Operator, Array]) -> tuple[Array, None]:
            operator, weight = head
            return total + matmul(operator.apply(hidden), weight), None

        return jax.lax.scan(add, keep_real(hidden, self.mask), (self.heads, self.weight))[0]

    def transpose_apply(self, hidden: Float[Array, "T D"]) -> Float[Array, "T D"]:
        def add(total: Array, head: tuple[Operator, Array]) -> tuple[Array, None]:
            operator, weight = head
            return total + operator.transpose_apply(matmul(hidden, weight.T)), None

        return jax.lax.scan(add, keep_real(hidden, self.mask), (self.heads, self.weight))[0]


@at_least_float32
def allowed_pairs(
    mask: Bool[Array, " T"], *, behind: int | Int[Array, ""] | None = None, ahead: int | Int[Array, ""] | None = None
) -> Bool[Array, "T T"]:
    """Which query may look at which key: real keys at most `behind` tokens back and `ahead` tokens on.

    (None, None) is full attention, (None, 0) causal, (w - 1, 0) a causal sliding window of w tokens.

    Args:
      mask: True on real tokens, [T].
      behind: how far back a query sees; None for no limit.
      ahead: how far ahead; None for no limit.

    Returns:
      [T T], False in the rows and columns of padding.

    >>> import jax.numpy as jnp
    >>> allowed_pairs(jnp.array([True, True, False]), ahead=0).astype(int)
    Array([[1, 0, 0],
           [1, 1, 0],
           [0, 0, 0]], dtype=int32)
    """
    index = jnp.arange(mask.shape[0], dtype=jnp.int32)
    offset = index[None, :] - index[:, None]
    near = (offset >= -limit_of(behind, mask)) & (offset <= limit_of(ahead, mask))
    return near & mask[None, :] & mask[:, None]


@at_least_float32
def symmetric_normalised(adjacency: Float[Array, "T S"], mask: Bool[Array, " T"]) -> Dense:
    """D^(-1/2) A D^(-1/2) of a graph, D the row sums over real tokens: what leaves span(D^(1/2) 1) in place.

    The rows do not have one sum, so it does not keep M, the states of equal tokens; its subspace is that of
    `symmetric_basis`. See `converge_symmetric`.

    Args:
      adjacency: A, at least 0, [T S]; symmetric, if the subspace is to be kept by the transpose too.
      mask: True on real tokens, [T].

    Returns:
      A `Dense`; rows and columns of tokens without an edge are zero.

    >>> import jax.numpy as jnp
    >>> symmetric_normalised(jnp.array([[0.0, 2.0], [2.0, 6.0]]), jnp.ones(2, bool)).matrix.round(4).tolist()
    [[0.0, 0.5], [0.5, 0.75]]

    References: Kipf and Welling (2017), arXiv 1609.02907; Shi et al. (2022), arXiv 2202.08625, section 3.
    """
    real = jnp.where(mask[:, None] & mask[None], adjacency, 0)
    degrees = jnp.sum(real, axis=-1)
    weight = jnp.where(degrees > 0, 1 / jnp.sqrt(jnp.where(degrees > 0, degrees, 1)), 0)
    return Dense(weight[:, None] * real * weight[None], mask)


@at_least_float32
def masked_attention(logits: Float[Array, "T T"], allowed: Bool[Array, "T T"]) -> Float[Array, "T T"]:
    """Row-wise softmax over the allowed keys; a row without any is zero.

    >>> import jax.numpy as jnp
    >>> masked_attention(jnp.zeros((2, 2)), jnp.array([[True, False], [True, True]]))
    Array([[1. , 0. ],
           [0.5, 0.5]], dtype=float32)
    """
    return jnp.where(allowed, masked_softmax(logits, allowed), 0)


def uniform_attention(attn: Float[Array, "*B T S"], mask: Bool[Array, "*B S"]) -> Float[Array, "*B T S"]:
    """1 1^T / n over real keys, of the shape of `attn`: the projection onto consensus.

    >>> import jax.numpy as jnp
    >>> uniform_attention(jnp.zeros((1, 3)), jnp.array([True, True, False]))
    Array([[0.5, 0.5, 0. ]], dtype=float32)
    """
    weight = mask.astype(attn.dtype)
    share = weight / jnp.maximum(jnp.sum(weight, axis=-1, keepdims=True), 1)
    return jnp.broadcast_to(share[..., None, :], attn.shape)


def limit_of(reach: int | Array | None, mask: Array) -> Array:
    """How far a query sees as an int32 array; without a limit, the number of tokens."""
    return jnp.asarray(mask.shape[-1] if reach is None else reach, jnp.int32)


def keep_real(hidden: Float[Array, "T D"], mask: Bool[Array, " T"]) -> Float[Array, "T D"]:
    """Zero on padding, even where the value there is NaN."""
    return jnp.where(mask[:, None], hidden, 0)
