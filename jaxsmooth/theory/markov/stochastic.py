"""Contraction coefficients of row-stochastic matrices, and what they bound of products of such matrices."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ...errors import OptionError, require_int
from ...linalg.norms import within
from ...linalg.precision import at_least_float32, einsum, matmul
from ...linalg.rows import ROUNDING_OF_ROWS
from ...meshes import on_any_mesh
from ..consensus import per_row, real_pairs, subspace_distance
from ..mixing import is_row_stochastic
from ..statement import Statement


@at_least_float32
@on_any_mesh()
def ergodicity_coefficient(attn: Float[Array, "*B T S"], mask: Bool[Array, "..."]) -> Float[Array, "*B"]:
    """Dobrushin's coefficient tau(A) = 1/2 max_{i,k} sum_j |A_ij - A_kj| over real rows, in [0, 1].

    The spread of any vector shrinks at least by it, max(Ax) - min(Ax) <= tau(A) (max x - min x), it bounds
    the second eigenvalue, and sqrt(lambda) <= sqrt(n / 2) tau(A).

    Args:
      attn: attention whose rows sum to 1 over real keys and vanish on padded keys, [..., T, S].
      mask: True on real tokens, [..., T]; broadcast over the axes of `attn` in front of T (heads).

    Returns:
      [...].

    >>> import jax.numpy as jnp
    >>> ergodicity_coefficient(jnp.array([[0.75, 0.25], [0.5, 0.5]]), jnp.array([True, True]))
    Array(0.25, dtype=float32)

    References: Dobrushin (1956); Seneta (2006), Non-negative Matrices and Markov Chains, section 3.1.
    """
    real = per_row(mask, attn)

    # One row against all others at a time: memory stays that of `attn`, not n times as much.
    def farthest(i: Array) -> Array:
        apart = jnp.sum(jnp.abs(attn - attn[..., i, None, :]), axis=-1)
        return jnp.max(jnp.where(real & real[..., i, None], apart, 0), axis=-1)

    tau = 0.5 * jnp.max(jax.lax.map(farthest, jnp.arange(attn.shape[-2])), axis=0)
    # At most 1 but for the rounding of rows that sum to 1; of other rows it may be more.
    return within(tau, 0, 1, ROUNDING_OF_ROWS)


@at_least_float32
def logit_spread(logits: Float[Array, "*B T S"], mask: Bool[Array, "..."]) -> Float[Array, "*B"]:
    """Delta = max (l_ij + l_kr - l_ir - l_kj) over real tokens i, k, j, r: Hilbert's diameter of exp(logits).

    What is common to a row or to a column of the logits cancels, query and key biases among it. Logits of -inf are
    keys that are masked out; Delta is infinite when two queries may see different keys, as under a causal mask.

    Args:
      logits: attention scores, [..., T, S].
      mask: True on real tokens, [..., T]; broadcast over the axes of `logits` in front of T (heads).

    Returns:
      [...], in nats.

    >>> import jax.numpy as jnp
    >>> logit_spread(jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.ones(2, bool))
    Array(3., dtype=float32)
    """
    real = per_row(mask, logits)
    query, seen = real[..., :, None], jnp.isfinite(logits)
    common = jnp.any(seen & query, axis=-2) & real
    # Real queries that see different keys, whatever the logits, are infinitely far apart.
    apart = jnp.any(common & jnp.any(~seen & query, axis=-2), axis=-1)
    # Elsewhere a key that none sees, and a padded one, is given the logits of one that all see: no maximum changes, and
    # the loop needs no mask. Keys lie in rows, where reductions over them are vectorised.
    one = jnp.take_along_axis(logits, jnp.argmax(common, axis=-1)[..., None, None], axis=-1)
    keys = jnp.where(common[..., None, :], logits, one)
    keys = jnp.where(query & jnp.isfinite(keys), keys, 0).mT

    # One query against all others at a time: memory stays that of `logits`.
    def widest(i: Array) -> Array:
        difference = keys - keys[..., i, None]
        spread = jnp.max(difference, axis=-2) - jnp.min(difference, axis=-2)
        return jnp.max(jnp.where(real & real[..., i, None], spread, 0), axis=-1)

    return jnp.where(apart, jnp.inf, jnp.max(jax.lax.map(widest, jnp.arange(logits.shape[-2])), axis=0))


@at_least_float32
def birkhoff1957_contraction(logits: Float[Array, "*B T S"], mask: Bool[Array, "..."]) -> Float[Array, "*B"]:
    """tanh(Delta / 4) >= tau(softmax(logits)) >= |lambda_2|: a rate of mixing from the scores alone.

    Args:
      logits: attention scores, -inf where a key is masked out, [..., T, S].
      mask: True on real tokens, [..., T]; broadcast over the axes of `logits` in front of T (heads).

    Returns:
      [...], in [0, 1]; 1, which bounds nothing, when two queries may see different keys.

    >>> import jax.numpy as jnp
    >>> birkhoff1957_contraction(jnp.array([[1.0, -1.0], [-1.0, 1.0]]), jnp.ones(2, bool))
    Array(0.7615942, dtype=float32)

    References: Birkhoff (1957), Extensions of Jentzsch's theorem; that it bounds tau is proved in
    docs/theory.md.
    """
    return jnp.tanh(logit_spread(logits, mask) / 4)


@at_least_float32
def token_spread(hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]) -> Float[Array, "*B D"]:
    """max - min over real tokens of every feature.

    Args:
      hidden: token vectors, [..., T, D].
      mask: True on real tokens, [..., T].

    Returns:
      [..., D], in the units of `hidden`; 0 where a sentence has no real token.

    >>> import jax.numpy as jnp
    >>> token_spread(jnp.array([[1.0], [4.0], [99.0]]), jnp.array([True, True, False]))
    Array([3.], dtype=float32)
    """
    real = mask[..., None]
    low = jnp.min(jnp.where(real, hidden, jnp.inf), axis=-2)
    high = jnp.max(jnp.where(real, hidden, -jnp.inf), axis=-2)
    return jnp.where(jnp.any(real, axis=-2), high - low, 0)


@at_least_float32
def dobrushin1956_spread(
    attn: Float[Array, "*K T S"], hidden: Float[Array, "T D"], mask: Bool[Array, " T"]
) -> Statement:
    """osc(A_K ... A_1 x) <= tau(A_1) ... tau(A_K) osc(x) for every feature x.

    Args:
      attn: one matrix [T S], or K of them in the order in which they are applied, [K T S].
      hidden: the features in columns, [T D].
      mask: True on real tokens, [T].

    Returns:
      A `Statement` with sides [D]; applicable when the rows of real tokens sum to 1 over real keys.

    >>> import jax.numpy as jnp
    >>> attn, hidden = jnp.array([[0.75, 0.25], [0.5, 0.5]]), jnp.array([[1.0], [0.0]])
    >>> found = dobrushin1956_spread(attn, hidden, jnp.ones(2, bool))
    >>> float(found.lhs[0]), float(found.rhs[0])
    (0.25, 0.25)

    References: Dobrushin (1956); Seneta (2006), Non-negative Matrices and Markov Chains, section 3.1.
    """
    before, after, taus, sound = _apply_all(attn, hidden, mask)
    rhs = jnp.prod(taus) * token_spread(before, mask)
    return Statement(token_spread(after, mask), rhs, jnp.broadcast_to(sound, rhs.shape))


@at_least_float32
def weak_ergodicity_bound(
    attn: Float[Array, "*K T S"], hidden: Float[Array, "T D"], mask: Bool[Array, " T"]
) -> Statement:
    """d_M(A_K ... A_1 H) <= sqrt(n / 2) tau(A_1) ... tau(A_K) d_M(H): layers of different attention.

    For even n the constant is attained with K = 1 by matrices whose rows are two unit vectors; n - 1/n replaces n
    for odd n, which is not used here.

    Args:
      attn: one matrix [T S], or K of them in the order in which they are applied, [K T S].
      hidden: H, [T D].
      mask: True on real tokens, [T].

    Returns:
      A `Statement`; applicable when the rows of real tokens sum to 1 over real keys.

    >>> import jax.numpy as jnp
    >>> attn, hidden = jnp.array([[0.75, 0.25], [0.5, 0.5]]), jnp.array([[1.0], [-1.0]])
    >>> found = weak_ergodicity_bound(attn, hidden, jnp.ones(2, bool))
    >>> [round(float(side), 4) for side in (found.lhs, found.rhs)]
    [0.3536, 0.3536]

    References: Hajnal (1958), Weak ergodicity in non-homogeneous Markov chains; the constant is proved in
    docs/theory.md.
    """
    before, after, taus, sound = _apply_all(attn, hidden, mask)
    count = jnp.sum(mask).astype(hidden.dtype)
    return Statement(
        lhs=subspace_distance(after, mask),
        rhs=jnp.sqrt(count / 2) * jnp.prod(taus) * subspace_distance(before, mask),
        applicable=sound,
    )


@at_least_float32
def hajnal1958_sum(attn: Float[Array, "K T S"], mask: Bool[Array, " T"], *, block: int = 1) -> Float[Array, ""]:
    """sum (1 - tau(block)) over consecutive blocks of the sequence A_1, ..., A_K of layers.

    An infinite sequence forgets its start (all rows of the product become equal) if and only if for some division
    into blocks this sum diverges. A block longer than one layer is needed where single layers do not mix, tau = 1,
    though their products do: causal masks and windows.

    Args:
      attn: matrices in the order in which they are applied, [K T S].
      mask: True on real tokens, [T].
      block: layers in a block, at least 1; a last block that is not full is left out.

    Returns:
      A number from 0 to K / block.

    Raises:
      OptionError: a block of no layers.

    >>> import jax.numpy as jnp
    >>> hajnal1958_sum(jnp.array([[[0.75, 0.25], [0.5, 0.5]]] * 3), jnp.ones(2, bool))
    Array(2.25, dtype=float32)

    References: after Hajnal (1958), Weak ergodicity in non-homogeneous Markov chains.
    """
    require_int("block", block, 1, OptionError)
    blocks = attn.shape[0] // block
    grouped = attn[: blocks * block].reshape(blocks, block, *attn.shape[1:])
    real = mask[:, None] & mask[None, :]

    def product(layers: Array) -> Array:
        # The first layer is the rightmost factor.
        return jax.lax.fori_loop(1, block, lambda k, done: matmul(jnp.where(real, layers[k], 0), done), layers[0])

    return jnp.sum(1 - ergodicity_coefficient(jax.vmap(product)(grouped), jnp.broadcast_to(mask, (blocks, mask.size))))


@at_least_float32
def wolfowitz1963_word_contraction(
    matrices: Float[Array, "M T S"], mask: Bool[Array, " T"], *, length: int
) -> Float[Array, ""]:
    """max tau(A_w1 ... A_wl) over all words of `length` letters from M matrices.

    Below 1 it makes every infinite product of these matrices, in whatever order, tend to a matrix of equal rows: each
    `length` factors shrink every spread by it. By Wolfowitz's theorem some length is enough if every word is
    SIA, that is its powers tend to a matrix of equal rows. A rooted mask, under which one token reaches all others,
    and bounded scores make every attention such a matrix.

    Args:
      matrices: attention whose rows sum to 1 over real keys, [M T S]; M^length words are formed.
      mask: True on real tokens, [T].
      length: letters in a word, at least 1.

    Returns:
      A number in [0, 1].

    Raises:
      OptionError: a word of no letters.

    >>> import jax.numpy as jnp
    >>> pair = jnp.array([[[1.0, 0.0], [0.5, 0.5]], [[0.5, 0.5], [0.0, 1.0]]])
    >>> [float(wolfowitz1963_word_contraction(pair, jnp.ones(2, bool), length=k)) for k in (1, 2)]
    [0.5, 0.25]

    References: after Wolfowitz (1963), Products of indecomposable, aperiodic, stochastic matrices; Seneta (2006),
    section 4.3.
    """
    require_int("length", length, 1, OptionError)
    real = jnp.where(mask[None, :, None] & mask[None, None, :], matrices, 0)
    words = real
    for _ in range(length - 1):
        words = einsum("mts,wsu->mwtu", real, words).reshape(-1, *real.shape[1:])
    return jnp.max(ergodicity_coefficient(words, jnp.broadcast_to(mask, words.shape[:2])))


@at_least_float32
def wolfowitz1963_products(
    matrices: Float[Array, "M T S"],
    word: Int[Array, " K"],
    hidden: Float[Array, "T D"],
    mask: Bool[Array, " T"],
    *,
    length: int,
) -> Statement:
    """spread(A_wK ... A_w1 H) <= (max tau over words of `length`)^floor(K / length) spread(H), in every column.

    So the tokens of a finite set of attention matrices meet exponentially, in any order of application. Proof: tau is
    submultiplicative and at most 1; divide the product into blocks of `length`.

    Args:
      matrices: attention whose rows sum to 1 over real keys, [M T S].
      word: which matrix is applied first, second, ..., [K].
      hidden: H, [T D].
      mask: True on real tokens, [T].
      length: see `wolfowitz1963_word_contraction`.

    Returns:
      A `Statement`, [D]; applicable when the rows of real tokens sum to 1 over real keys.

    >>> import jax.numpy as jnp
    >>> pair = jnp.array([[[1.0, 0.0], [0.5, 0.5]], [[0.5, 0.5], [0.0, 1.0]]])
    >>> word, hidden = jnp.array([0, 1, 0]), jnp.array([[4.0], [0.0]])
    >>> found = wolfowitz1963_products(pair, word, hidden, jnp.ones(2, bool), length=2)
    >>> found.lhs, found.rhs
    (Array([0.5], dtype=float32), Array([1.], dtype=float32))

    References: after Wolfowitz (1963), Products of indecomposable, aperiodic, stochastic matrices.
    """
    before, after, _, sound = _apply_all(matrices[word], hidden, mask)
    rate = wolfowitz1963_word_contraction(matrices, mask, length=length) ** (word.shape[0] // length)
    spread = rate * token_spread(before, mask)
    return Statement(token_spread(after, mask), spread, jnp.broadcast_to(sound, spread.shape))


@at_least_float32
def causal_second_eigenvalue(attn: Float[Array, "*B T S"], mask: Bool[Array, "..."]) -> Float[Array, "*B"]:
    """max_i>=2 A_ii: the second eigenvalue of causal attention, whose eigenvalues are its diagonal.

    The first real token sees itself alone, so A^k tends to 1 e_1^T, all tokens becoming the first. The eigenvalue is
    the rate in the end only: a triangular matrix is far from normal, and a repeated diagonal entry brings powers of
    k. Under a window of 2 equal weights over 64 tokens it is 1/2, and 10 steps to 1e-3 become about 157.

    Args:
      attn: attention whose rows sum to 1 over real keys at or before the query, [..., T, S].
      mask: True on real tokens, [..., T]; broadcast over the axes of `attn` in front of T (heads).

    Returns:
      [...]; NaN where a real token attends to a later one.

    >>> import jax.numpy as jnp
    >>> causal_second_eigenvalue(jnp.array([[1.0, 0.0], [0.25, 0.75]]), jnp.ones(2, bool))
    Array(0.75, dtype=float32)
    """
    real = per_row(mask, attn)
    later = jnp.triu(jnp.ones(attn.shape[-2:], bool), k=1).reshape((1,) * (attn.ndim - 2) + attn.shape[-2:])
    ahead = jnp.any(later & real_pairs(real) & (attn != 0), axis=(-2, -1))
    first = jnp.cumsum(real, axis=-1) == 1
    diagonal = jnp.diagonal(attn, axis1=-2, axis2=-1)
    return jnp.where(ahead, jnp.nan, jnp.max(jnp.where(real & ~first, diagonal, 0), axis=-1))


def _apply_all(attn: Array, hidden: Array, mask: Array) -> tuple[Array, Array, Array, Array]:
    """H without padding, the product applied to it, every tau, and whether all layers are row-stochastic."""
    layers = attn[None] if attn.ndim == 2 else attn
    layers = jnp.where(mask[None, :, None] & mask[None, None, :], layers, 0)
    before = jnp.where(mask[:, None], hidden, 0)
    after, _ = jax.lax.scan(lambda x, layer: (matmul(layer, x), None), before, layers)
    every = jnp.broadcast_to(mask, layers.shape[:2])
    sound, taus = jnp.all(is_row_stochastic(layers, every)), ergodicity_coefficient(layers, every)
    return before, after, taus, sound
