"""A head that adds nothing needs a sink: lower bounds of what it adds, by where its values lie.

Proofs are in docs/sinks.md.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ....linalg.norms import quotient, unit_vectors
from ....linalg.precision import at_least_float32, matmul
from ...markov.sinks import at_the_sink, mean_size
from ...mixing import is_row_stochastic
from ...statement import Statement

STEPS = 200
"""Of Gilbert's search for the point of a hull that is nearest to the origin; any direction gives a bound that holds."""


@at_least_float32
def ranmilo2026_output(
    attn: Float[Array, "*B T S"], hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]
) -> Statement:
    """(1 - s) c + s <v_t, u> <= (1/n) sum_i |(A V)_i|, t the strongest key, s its strength, c = min_(k != t) <v_k, u>.

    A head whose other values lie beyond a hyperplane (c > 0) can be silent only through its sink: solved for s,
    s >= (c - e) / (c - <v_t, u>) for an output e. Holds for every unit vector u; taken is the direction of the point
    nearest to 0 in the hull of the other values, which makes c largest. Attained where these agree along u and outputs
    point along it.

    Args:
      attn: A, rows summing to 1 over real keys, [..., T, S].
      hidden: V, any vectors, [..., T, D].
      mask: True on real tokens, [..., T].

    Returns:
      A `Statement` of shape [...], applicable where real rows are probabilities over real keys and two tokens are real.

    >>> import jax.numpy as jnp
    >>> a, v = jnp.array([[0.75, 0.25], [0.5, 0.5]]), jnp.array([[0.0], [2.0]])
    >>> found = ranmilo2026_output(a, v, jnp.ones(2, bool))
    >>> float(found.lhs), float(found.rhs)
    (0.75, 0.75)

    References: after Ran-Milo (2026), arXiv 2603.11487, who proves that a model which must at times output 0 develops
    a sink; this inequality for a given head is proved in docs/sinks.md.
    """
    given, key, values, mixed = at_the_sink(attn, hidden, mask)
    least, own = _beyond(values, key, mask)
    return Statement((1 - given) * least + given * own, mean_size(mixed, mask), _sound(attn, mask))


@at_least_float32
def ranmilo2026_needed(
    attn: Float[Array, "*B T S"],
    hidden: Float[Array, "*B T D"],
    mask: Bool[Array, "*B T"],
    output: Float[Array, "*#B"] | float = 0.0,
) -> Float[Array, "*B"]:
    """A lower bound of the least strength of the strongest key with which the head's mean output is at most `output`.

    (c - output) / (c - <v_t, u>) of `ranmilo2026_output`: 0 where it asks for nothing (the search finds no hyperplane
    with c > output), and infinite where no attention of any kind makes the output so small. A number of at most 1 is
    necessary, not sufficient: it excludes nothing, and does not say that some attention does make it so small.

    Args:
      attn: A, which says which key is the strongest, [..., T, S].
      hidden: V, [..., T, D].
      mask: True on real tokens, [..., T].
      output: a mean norm, [...]; NaN is answered below 0.

    Returns:
      [...], at least 0; 0 of fewer than two tokens. Above 1 no attention suffices either.

    >>> import jax.numpy as jnp
    >>> a, v = jnp.array([[0.75, 0.25], [0.5, 0.5]]), jnp.array([[-0.5], [2.0]])
    >>> round(float(ranmilo2026_needed(a, v, jnp.ones(2, bool))), 4)
    0.8

    References: as of `ranmilo2026_output`.
    """
    _, key, values, _ = at_the_sink(attn, hidden, mask)
    least, own = _beyond(values, key, mask)
    above = least - output
    needed = jnp.where(least > own, quotient(above, least - own, jnp.inf), jnp.inf)
    needed = jnp.where((above > 0) & (jnp.sum(mask, axis=-1) > 1), needed, 0)
    return jnp.where(jnp.asarray(output) >= 0, needed, jnp.nan)


@at_least_float32
def lampert2026_switch(
    attn: Float[Array, "*B T S"], hidden: Float[Array, "*B T D"], mask: Bool[Array, "*B T"]
) -> Statement:
    """(1 - s) r <= (1/n) sum_i |(A V)_i - v_t|, t the strongest key, s its strength, r = dist(v_t, hull of the others).

    With `sink_distance`, which bounds the same mean by (1 - s) max_k |v_k - v_t|: a head whose sink value is a corner
    (r > 0) adds v_t at every token if and only if s = 1; where v_t = 0 it adds nothing if and only if s = 1. Another
    vector it can add to all tokens at any s, 0 too if v_t is not 0. For r stands a lower bound of it, the least of
    <v_k - v_t, u>, k != t, or 0.

    Arguments and answer as `ranmilo2026_output`.

    >>> import jax.numpy as jnp
    >>> a, v = jnp.array([[0.75, 0.25], [0.5, 0.5]]), jnp.array([[1.0], [3.0]])
    >>> found = lampert2026_switch(a, v, jnp.ones(2, bool))
    >>> float(found.lhs), float(found.rhs)
    (0.75, 0.75)

    References: after Lampert, López Amado, Mondelli and Súkeník (2026), arXiv 2605.08453, who prove an equivalence of
    sinks and a hard switch of attention; this inequality is proved in docs/sinks.md.
    """
    given, key, values, _ = at_the_sink(attn, hidden, mask)
    at_sink = jnp.take_along_axis(values, key[..., None], axis=-2)
    moves = jnp.where(mask[..., None], values - at_sink, 0)
    least, _ = _beyond(moves, key, mask)
    added = matmul(jnp.where(mask[..., None], attn, 0), moves)
    return Statement((1 - given) * jnp.maximum(least, 0), mean_size(added, mask), _sound(attn, mask))


def _beyond(values: Array, key: Array, mask: Array) -> tuple[Array, Array]:
    """The least <v_k, u> of real k != t, and <v_t, u>; 0 and 0 without another token."""
    places = jnp.arange(mask.shape[-1]).reshape((1,) * (mask.ndim - 1) + (-1,))
    others = mask & (places != key)
    along = jnp.sum(values * _direction(values, others)[..., None, :], axis=-1)
    least = jnp.min(jnp.where(others, along, jnp.inf), axis=-1)
    own = jnp.take_along_axis(along, key, axis=-1)[..., 0]
    some = jnp.any(others, axis=-1)
    return jnp.where(some, least, 0), jnp.where(some, own, 0)


def _direction(values: Array, others: Array) -> Array:
    """A unit vector, [... D], along the point of the others' hull that is nearest to 0: Gilbert (1966)."""
    size = jnp.max(jnp.where(others[..., None], jnp.abs(values), 0), axis=(-2, -1), keepdims=True)
    points = jnp.where(others[..., None], quotient(values, size, 0), 0)
    count = jnp.maximum(jnp.sum(others, axis=-1, keepdims=True), 1).astype(values.dtype)

    def nearer(_: Array, point: Array) -> Array:
        along = jnp.where(others, jnp.sum(points * point[..., None, :], axis=-1), jnp.inf)
        lowest = jnp.argmin(along, axis=-1, keepdims=True)
        step = jnp.take_along_axis(points, lowest[..., None], axis=-2)[..., 0, :] - point
        square = jnp.sum(step * step, axis=-1, keepdims=True)
        share = quotient(-jnp.sum(point * step, axis=-1, keepdims=True), square, 0)
        return point + jnp.clip(share, 0, 1) * step

    return unit_vectors(jax.lax.fori_loop(0, STEPS, nearer, jnp.sum(points, axis=-2) / count))


def _sound(attn: Array, mask: Array) -> Array:
    return is_row_stochastic(attn, mask) & (jnp.sum(mask, axis=-1) > 1)
