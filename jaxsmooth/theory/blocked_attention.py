"""softmax(Q K^T / sqrt d) as an operator, a block of it at a time: memory grows with n, not with n^2."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..linalg.precision import at_least_float32, matmul
from ..linalg.reverse import forward_only
from .operators import keep_real, limit_of


class Blocked(NamedTuple):
    """Softmax attention that is recomputed block by block whenever it is applied. Built by `blocked_attention`.

    One application costs 4 n^2 times the width in multiplications and additions and n^2 exponentials; blocks that
    the causal mask or the window rules out are not computed.

    Attributes:
      query: queries over sqrt(H), K blocks of R tokens, [K R H].
      key: keys, [K R H].
      log_sum: log of the sum of exp(score) over the keys that each query may see, [K R].
      mask: True on real tokens, [T]; T is at most K R.
      behind: how many tokens back a query sees.
      ahead: how many tokens ahead.
    """

    query: Float[Array, "K R H"]
    key: Float[Array, "K R H"]
    log_sum: Float[Array, "K R"]
    mask: Bool[Array, " T"]
    behind: Int[Array, ""]
    ahead: Int[Array, ""]

    @property
    def size(self) -> int:
        return self.mask.shape[-1]

    @forward_only
    def apply(self, hidden: Float[Array, "T D"]) -> Float[Array, "T D"]:
        """A X, one block of queries after the other."""
        values = _split(keep_real(hidden, self.mask), self.query.shape[1])

        def rows(_: None, i: Array) -> tuple[None, Array]:
            query, log_sum = self.query[i], self.log_sum[i]

            def add(j: Array, total: Array) -> Array:
                weight = _exp(matmul(query, self.key[j].T) - log_sum[:, None], _allowed(self, i, j))
                return total + matmul(weight, values[j])

            return None, jax.lax.fori_loop(*_span(self, i, self.behind, self.ahead), add, jnp.zeros_like(values[0]))

        _, image = jax.lax.scan(rows, None, jnp.arange(values.shape[0]))
        return _join(image, self.size)

    @forward_only
    def transpose_apply(self, hidden: Float[Array, "T D"]) -> Float[Array, "T D"]:
        """A^T X, one block of keys after the other, from scores computed transposed: nothing is transposed."""
        values = _split(keep_real(hidden, self.mask), self.query.shape[1])

        def columns(_: None, j: Array) -> tuple[None, Array]:
            key = self.key[j]

            def add(i: Array, total: Array) -> Array:
                weight = _exp(matmul(key, self.query[i].T) - self.log_sum[i][None, :], _allowed(self, i, j).T)
                return total + matmul(weight, values[i])

            return None, jax.lax.fori_loop(*_span(self, j, self.ahead, self.behind), add, jnp.zeros_like(values[0]))

        _, image = jax.lax.scan(columns, None, jnp.arange(values.shape[0]))
        return _join(image, self.size)


@at_least_float32
@forward_only
def blocked_attention(
    query: Float[Array, "T H"],
    key: Float[Array, "T H"],
    mask: Bool[Array, " T"],
    *,
    behind: int | Int[Array, ""] | None = None,
    ahead: int | Int[Array, ""] | None = None,
    block: int = 512,
) -> Blocked:
    """The operator of one head from its queries and keys; the softmax's denominators are computed here, once.

    It has no derivative in reverse (`jax.grad`), only forwards, nor have its applications.

    Args:
      query: queries, not yet divided by sqrt(H), [T H].
      key: keys, [T H].
      mask: True on real tokens, [T].
      behind: a query sees at most so many tokens back; None for no limit.
      ahead: at most so many tokens ahead; None for no limit, 0 for a causal mask.
      block: tokens in a block; memory beyond the arguments is about 2 block^2 numbers.

    Returns:
      A `Blocked`.

    >>> import jax.numpy as jnp
    >>> head = blocked_attention(jnp.zeros((3, 2)), jnp.zeros((3, 2)), jnp.ones(3, bool), ahead=0, block=2)
    >>> head.apply(jnp.array([[2.0], [4.0], [6.0]])).ravel().round(4)
    Array([2., 3., 4.], dtype=float32)

    References: Rabe and Staats (2021), arXiv 2112.05682; Dao et al. (2022), arXiv 2205.14135.
    """
    size = min(block, mask.shape[0])
    # Padding becomes zero, so that garbage there cannot turn into a NaN score.
    split_query = _split(keep_real(query, mask), size) / math.sqrt(query.shape[-1])
    split_key = _split(keep_real(key, mask), size)
    unknown = jnp.zeros(split_key.shape[:2], split_key.dtype)
    parts = Blocked(split_query, split_key, unknown, mask, limit_of(behind, mask), limit_of(ahead, mask))
    return parts._replace(log_sum=_log_sums(parts))


def _log_sums(parts: Blocked) -> Array:
    """log sum exp of every query's scores in one pass, with a running maximum."""

    def rows(_: None, i: Array) -> tuple[None, Array]:
        query = parts.query[i]

        def add(j: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
            top, total = state
            scores = jnp.where(_allowed(parts, i, j), matmul(query, parts.key[j].T), -jnp.inf)
            higher = jnp.maximum(top, jnp.max(scores, axis=1))
            return higher, total * jnp.exp(top - higher) + jnp.sum(jnp.exp(scores - higher[:, None]), axis=1)

        # The lowest finite number, not -inf: -inf - -inf is NaN.
        lowest = jnp.full_like(query[:, 0], jnp.finfo(query.dtype).min)
        start = (lowest, jnp.zeros_like(lowest))
        top, total = jax.lax.fori_loop(*_span(parts, i, parts.behind, parts.ahead), add, start)
        return None, jnp.where(total > 0, top + jnp.log(jnp.where(total > 0, total, 1)), 0)

    return jax.lax.scan(rows, None, jnp.arange(parts.query.shape[0]))[1]


def _exp(scores: Array, allowed: Array) -> Array:
    return jnp.where(allowed, jnp.exp(scores), 0)


def _allowed(parts: Blocked, i: Array, j: Array) -> Array:
    """Which queries of block i may see which keys of block j, [R R]."""
    size = parts.query.shape[1]
    index = jnp.arange(size, dtype=jnp.int32)
    queries, keys = i.astype(jnp.int32) * size + index, j.astype(jnp.int32) * size + index
    offset = keys[None, :] - queries[:, None]
    real = _split(parts.mask[:, None], size)[:, :, 0]
    return (offset >= -parts.behind) & (offset <= parts.ahead) & real[i][:, None] & real[j][None, :]


def _span(parts: Blocked, i: Array, before: Array, after: Array) -> tuple[Array, Array]:
    """Blocks [first, last) that hold anything within `before` tokens back and `after` on from a token of block i."""
    count, size = parts.query.shape[:2]
    start = i.astype(jnp.int32) * size
    first = jnp.maximum(start - before, 0) // size
    last = jnp.minimum((start + size - 1 + after) // size + 1, count)
    return first, last


def _split(rows: Array, size: int) -> Array:
    """[T D] to [K R D], filled up with zeros."""
    count = -(-rows.shape[0] // size)
    return jnp.pad(rows, ((0, count * size - rows.shape[0]), (0, 0))).reshape(count, size, rows.shape[1])


def _join(blocks: Array, size: int) -> Array:
    return blocks.reshape(-1, blocks.shape[-1])[:size]
