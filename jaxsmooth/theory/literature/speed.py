"""Normalisation as a regulator of speed: how fast tokens close up under each placement of the norm.

Tokens on a cone: all of one size r, and at one angle to their mean. Uniform attention, and softmax attention of tokens
with one pairwise cosine, keep them there, whatever the norm's placement, so that a layer is a map of two numbers: r and
the tangent t of the angle, which is d_M(X) / ||mean||_F (`metrics.frequency_ratio`). Proofs are in docs/speed.md.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...linalg.norms import quotient
from ...linalg.precision import at_least_float32

PLACEMENTS = ("none", "post", "pre", "sandwich", "sphere")


class ConePath(NamedTuple):
    """Tokens on a cone, layer after layer.

    Attributes:
      tangent: t after 0, 1, ..., L layers, [..., L + 1].
      size: r, in units of what the norm makes of a token (std 1), [..., L + 1]; 1 behind a norm.
    """

    tangent: Float[Array, "*B M"]
    size: Float[Array, "*B M"]


@at_least_float32
def simplex_share(
    sharpness: Float[Array, "*B"], tangent: Float[Array, "*B"], tokens: Float[Array, "*B"]
) -> Float[Array, "*B"]:
    """a = A_ii - A_ij of softmax(beta cos) over n tokens of one pairwise cosine: 0 is uniform, 1 is the identity.

    Args:
      sharpness: beta, the score of a token with itself, at least 0; D / sqrt(H) for W_Q = W_K = I behind a LayerNorm.
      tangent: t, of the angle between a token and the mean.
      tokens: n.

    Returns:
      [...], in [0, 1); it vanishes as the tokens meet.

    >>> import jax.numpy as jnp
    >>> one = jnp.array(1.0)
    >>> round(float(simplex_share(one, one, jnp.array(2.0))), 4)
    0.4621
    """
    _, sine = _direction(tangent)
    gap = sine * sine * tokens / jnp.maximum(tokens - 1, 1)  # 1 - cos of two tokens
    apart = -jnp.expm1(-sharpness * gap)
    return apart / (tokens - (tokens - 1) * apart)


@at_least_float32
def karagodin2025_step(
    tangent: Float[Array, "*B"],
    size: Float[Array, "*B"],
    strength: Float[Array, "*B"],
    share: Float[Array, "*B"],
    *,
    placement: str,
) -> tuple[Float[Array, "*B"], Float[Array, "*B"]]:
    """One attention layer of values alpha I on tokens of a cone: t' = t (s + alpha a) / (s + alpha).

    The regulator s is what the placement decides: 1 for "post", N(x + f(x)), and "none", x + f(x); r for "pre",
    x + f(N(x)); r rho for "sandwich" (Peri-LN), x + N(f(N(x))), rho = |mean + a (token - mean)| of unit tokens; and
    (1 - alpha) rho for "sphere" (nGPT), N(x + alpha (N(f(x)) - x)). The larger s, the slower.

    Args:
      tangent: t, at least 0; infinite where the mean vanishes.
      size: r > 0 in units of the norm's output; only "pre" and "sandwich" read it.
      strength: alpha > -1; in (0, 1) for "sphere".
      share: a = A_ii - A_ij: 0 of uniform attention, 1 of the identity; `simplex_share` of a softmax.
      placement: of the norm.

    Returns:
      t and r after the layer, [...] each; NaN where s + alpha <= 0, which turns the mean over.

    Raises:
      ValueError: another placement.

    >>> import jax.numpy as jnp
    >>> one, none = jnp.array(1.0), jnp.array(0.0)
    >>> [round(float(karagodin2025_step(one, one, one, none, placement=p)[0]), 4) for p in ("post", "pre", "sandwich")]
    [0.5, 0.5, 0.4142]

    References: after Karagodin, Ge, Polyanskiy and Rigollet (2025), arXiv 2510.22026, whose particles move in
    continuous time; this layer, its hypotheses and proof are those of docs/speed.md.
    """
    if placement not in PLACEMENTS:
        raise ValueError(f"placement must be one of {PLACEMENTS}; got {placement!r}.")
    cosine, sine = _direction(tangent)
    rho = jnp.hypot(cosine, share * sine)
    regulator = {
        **dict.fromkeys(("none", "post"), jnp.ones_like(tangent)),
        "pre": size,
        "sandwich": size * rho,
        "sphere": (1 - strength) * rho,
    }[placement]
    kept, whole = regulator + strength * share, regulator + strength
    after = jnp.where(whole > 0, tangent * quotient(kept, whole), jnp.nan)
    if placement in ("post", "sphere"):
        return after, jnp.where(whole > 0, 1.0, jnp.nan).astype(size.dtype)
    gain = quotient(jnp.hypot(whole * cosine, kept * sine), regulator)
    return after, jnp.where(whole > 0, size * gain, jnp.nan)


@at_least_float32
def karagodin2025_path(
    tangent: Float[Array, "*B"],
    size: Float[Array, "*B"],
    strength: Float[Array, "*B L"],
    sharpness: Float[Array, "*B"],
    tokens: Float[Array, "*B"],
    *,
    placement: str,
) -> ConePath:
    """L layers of `karagodin2025_step`, attention the softmax of the tokens' cosines: beta = 0 is uniform attention.

    A strength for every layer: alpha / l^(1/2) in "pre" is LayerNorm Scaling, learned ones in "sphere" are nGPT's, and
    alpha over the skip's factor in "post" is DeepNorm. Mix-LN is one path from where another ends.

    Args:
      tangent: t at the start.
      size: r at the start, see `ConePath`.
      strength: alpha of each layer, [..., L].
      sharpness: beta, see `simplex_share`.
      tokens: n.
      placement: of the norm.

    Returns:
      A `ConePath`.

    >>> import jax.numpy as jnp
    >>> one, none, two = jnp.array(1.0), jnp.array(0.0), jnp.array(2.0)
    >>> for placement in ("post", "pre", "sandwich"):
    ...     path = karagodin2025_path(one, one, jnp.ones(4), none, two, placement=placement)
    ...     print(placement, [round(float(t), 3) for t in path.tangent])
    post [1.0, 0.5, 0.25, 0.125, 0.062]
    pre [1.0, 0.5, 0.306, 0.217, 0.167]
    sandwich [1.0, 0.414, 0.261, 0.191, 0.15]

    References: as of `karagodin2025_step`.
    """

    def layer(state: tuple[Array, Array], alpha: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        share = simplex_share(sharpness, state[0], tokens)
        after = karagodin2025_step(*state, alpha, share, placement=placement)
        return after, after

    batch = strength.shape[:-1]
    start = jnp.broadcast_to(tangent, batch), jnp.broadcast_to(size, batch)
    _, later = jax.lax.scan(layer, start, jnp.moveaxis(strength, -1, 0))
    joined = (jnp.concatenate([first[None], rest]) for first, rest in zip(start, later, strict=True))
    return ConePath(*(jnp.moveaxis(part, 0, -1) for part in joined))


@at_least_float32
def karagodin2025_range(
    tangent: Float[Array, "*B"],
    size: Float[Array, "*B"],
    strength: Float[Array, "*B"],
    layers: Float[Array, "*B"],
    *,
    placement: str,
) -> tuple[Float[Array, "*B"], Float[Array, "*B"]]:
    """Between what t lies after L layers of uniform attention, in closed form; equal where the law is exact.

    With M = r cos the size of the mean: t / (1 + alpha)^L exactly for "none" and "post"; t / (1 + alpha L / M) exactly
    for "sandwich"; between that and t / (1 + alpha L cos / M) for "pre"; between
    t ((1 - alpha) cos / ((1 - alpha) cos + alpha))^L and t (1 - alpha)^L for "sphere". So Post-LN and nGPT close up
    exponentially, Pre-LN and Peri-LN like 1 / L, with the same L t -> d / alpha in the end, d = r sin.

    Args:
      tangent: t at the start, finite.
      size: r at the start.
      strength: alpha >= 0, at most 1 for "sphere".
      layers: L.
      placement: of the norm.

    Returns:
      The lower and the upper end, [...] each.

    Raises:
      ValueError: another placement.

    >>> import jax.numpy as jnp
    >>> one, ten = jnp.array(1.0), jnp.array(10.0)
    >>> [round(float(end), 4) for end in karagodin2025_range(one, one, one, ten, placement="pre")]
    [0.066, 0.0909]

    References: as of `karagodin2025_step`.
    """
    if placement not in PLACEMENTS:
        raise ValueError(f"placement must be one of {PLACEMENTS}; got {placement!r}.")
    cosine, _ = _direction(tangent)
    if placement in ("none", "post"):
        factors = (1 + strength) ** -layers, (1 + strength) ** -layers
    elif placement == "sphere":
        kept = (1 - strength) * cosine
        factors = quotient(kept, kept + strength) ** layers, (1 - strength) ** layers
    else:
        steps = strength * layers
        fast, slow = 1 / (1 + quotient(steps, size * cosine, jnp.inf)), 1 / (1 + quotient(steps, size, jnp.inf))
        factors = (fast, fast) if placement == "sandwich" else (fast, slow)
    return tangent * factors[0], tangent * factors[1]


def _direction(tangent: Array) -> tuple[Array, Array]:
    """Cosine and sine of an angle, from its tangent, which may be infinite."""
    steep = tangent > 1
    ratio = jnp.where(steep, 1 / jnp.where(steep, tangent, 1), tangent)
    short = 1 / jnp.sqrt(1 + ratio * ratio)
    return jnp.where(steep, ratio * short, short), jnp.where(steep, short, ratio * short)
