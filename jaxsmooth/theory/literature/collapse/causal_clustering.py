"""Attention whose first token sees itself alone, as under a causal mask: all tokens go to it, and where they wait.

Proofs are in docs/causal.md.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ....linalg.norms import norm, unit_vectors
from ....linalg.precision import at_least_float32, matmul
from ...consensus import real_tokens
from ...mixing import is_row_stochastic
from ...statement import Statement


@at_least_float32
def karagodin2024_first_token(
    attn: Float[Array, "*B T S"], hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]
) -> Statement:
    """max_i |y_i - y_1| <= (1 - min_i a_i1) max_i |x_i - x_1|, Y = A X, if the first token sees itself alone.

    So layers of causal attention, whatever their scores, draw all tokens to the first one, at least by the least
    attention that it receives. Attained where a token gives the farthest one all that it does not give the first.

    Args:
      attn: A, rows summing to 1 over real keys, [..., T, S].
      hidden: X, any vectors, [..., T, D].
      mask: True on real tokens, [..., T].

    Returns:
      A `Statement` of shape [...], applicable where real rows are probabilities over real keys and the first real
      token attends to no other.

    >>> import jax.numpy as jnp
    >>> a, x = jnp.array([[1.0, 0.0], [0.25, 0.75]]), jnp.array([[1.0], [5.0]])
    >>> found = karagodin2024_first_token(a, x, jnp.ones(2, bool))
    >>> float(found.lhs), float(found.rhs)
    (3.0, 3.0)

    References: after Karagodin, Polyanskiy and Rigollet (2024), arXiv 2411.04990, who prove that almost all starts
    converge for value matrix I; this rate and its proof are in docs/causal.md.
    """
    given, known = _to_the_first(attn, mask)
    tokens = real_tokens(hidden, mask)
    mixed = matmul(jnp.where(mask[..., None], attn, 0), tokens)
    before, after = (jnp.max(jnp.where(mask, norm(x - _leader(x, mask)), 0), axis=-1) for x in (tokens, mixed))
    return Statement(after, (1 - given) * before, known)


@at_least_float32
def karagodin2024_angle(
    attn: Float[Array, "*B T S"], hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]
) -> Statement:
    """tan t' <= (1 - m) sin t / (m + (1 - m) cos t) if m cos t + 1 - m >= 0, t the largest angle to the first token.

    For the step u_i <- (A u)_i / |(A u)_i| of unit vectors, whose angle after it is t'; m = min_i a_i1 is the least
    attention that the first token receives. The turn is where m cos t + 1 - m = 0, reached for m > 1/2 only; beyond it
    sin t' <= (1 - m) / m, which allows more than the first line. So for m > 1/2 no angle becomes larger than
    arcsin((1 - m) / m), wherever the tokens are. With a residual, u <- N(u + h A u), take (I + h A) / (1 + h) for A.
    Attained up to the turn by two tokens, beyond it where another token stands at the turn.

    Args:
      attn: A, rows summing to 1 over real keys, [..., T, S].
      hidden: vectors whose directions are the u_i, [..., T, D].
      mask: True on real tokens, [..., T].

    Returns:
      A `Statement` of angles in radians, [...]; applicable where real rows are probabilities over real keys, the first
      real token attends to no other, no real token is 0, and m + (1 - m) cos t > 0: for m = 0 an open hemisphere about
      the first token, for m > 1/2 the whole sphere.

    >>> import jax.numpy as jnp
    >>> a, x = jnp.array([[1.0, 0.0], [0.5, 0.5]]), jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> found = karagodin2024_angle(a, x, jnp.ones(2, bool))
    >>> round(float(found.lhs), 4), round(float(found.rhs), 4)
    (0.7854, 0.7854)

    References: after Karagodin, Polyanskiy and Rigollet (2024), arXiv 2411.04990, whose tokens flow on the sphere;
    this step and its proof are in docs/causal.md.
    """
    given, known = _to_the_first(attn, mask)
    units = unit_vectors(real_tokens(hidden, mask))
    mixed = unit_vectors(matmul(jnp.where(mask[..., None], attn, 0), units))
    before, after = (jnp.max(jnp.where(mask, _angles(x, _leader(x, mask)), 0), axis=-1) for x in (units, mixed))
    rest = 1 - given
    ahead = given + rest * jnp.cos(before)
    bound = jnp.arctan2(rest * jnp.sin(before), ahead)
    # Beyond this angle the attention to the first token brings a token nearer to it again.
    turned = given * jnp.cos(before) < -rest
    bound = jnp.where(turned, jnp.arcsin(jnp.minimum(rest / jnp.maximum(given, 0.5), 1)), bound)
    nonzero = jnp.all(jnp.any(units != 0, axis=-1) | ~mask, axis=-1)
    return Statement(after, bound, known & nonzero & (ahead > 0))


@at_least_float32
def karagodin2024_centres(
    hidden: Float[Array, "*B T D"],
    mask: Bool[Array, "*B T"],
    separation: Float[Array, ""] | float,
    *,
    strong: bool = False,
) -> Bool[Array, "*B T"]:
    """Rényi's centres: tokens farther than `separation` from every centre before them, as cars park one by one.

    Under sharp causal attention the others gather about such tokens and stay there for long, before all go to the
    first one. Distances are those of directions, |u_i - u_j| in [0, 2]; for scores beta <u_i, u_j> the length in
    question is of the order of beta^(-1/2). Every token is a centre or near one; no two centres are near each other.

    Args:
      hidden: vectors, [..., T, D].
      mask: True on real tokens, [..., T].
      separation: delta.
      strong: ask for the distance from every token before, centre or not; these are fewer, and all are centres.

    Returns:
      [..., T]; the first real token is one.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[1.0, 0.0], [0.9, 0.1], [0.7, 0.5], [-1.0, 0.0]])
    >>> [karagodin2024_centres(x, jnp.ones(4, bool), 0.6, strong=s).astype(int).tolist() for s in (False, True)]
    [[1, 0, 1, 1], [1, 0, 0, 1]]

    References: after Karagodin, Polyanskiy and Rigollet (2024), arXiv 2411.04990; Rényi (1958), On a one-dimensional
    problem concerning random space filling.
    """
    units = unit_vectors(real_tokens(hidden, mask))
    places = jnp.arange(mask.shape[-1]).reshape((1,) * (mask.ndim - 1) + (-1,))

    def park(i: Array, chosen: Array) -> Array:
        own = jax.lax.dynamic_index_in_dim(units, i, -2)
        others = mask & (places < i) if strong else chosen
        free = jnp.all((norm(units - own) > separation) | ~others, axis=-1, keepdims=True)
        return chosen | ((places == i) & mask & free)

    return jax.lax.fori_loop(0, mask.shape[-1], park, jnp.zeros_like(mask))


def _first(mask: Array) -> Array:
    """The place of the first real token, [... 1]."""
    return jnp.argmax(mask, axis=-1, keepdims=True)


def _leader(rows: Array, mask: Array) -> Array:
    """The first real token, [... 1 D]."""
    return jnp.take_along_axis(rows, _first(mask)[..., None], axis=-2)


def _to_the_first(attn: Array, mask: Array) -> tuple[Array, Array]:
    """The least that a real token gives the first, and whether rows are probabilities and the first sees none else."""
    first = _first(mask)[..., None]
    received = jnp.take_along_axis(attn, first, axis=-1)[..., 0]
    own = jnp.take_along_axis(attn, first, axis=-2)[..., 0, :]
    places = jnp.arange(attn.shape[-1]).reshape((1,) * (mask.ndim - 1) + (-1,))
    alone = jnp.all((own == 0) | (places == first[..., 0]) | ~mask, axis=-1)
    least = jnp.min(jnp.where(mask, received, 1), axis=-1)
    return least, alone & jnp.any(mask, axis=-1) & is_row_stochastic(attn, mask)


def _angles(units: Array, leader: Array) -> Array:
    """Between unit vectors, without the loss of digits of arccos (Kahan)."""
    return 2 * jnp.arctan2(norm(units - leader), norm(units + leader))
