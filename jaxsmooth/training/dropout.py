"""Dropout as edits of the encoder, with explicit keys: one mask per layer and site, nothing hidden in a module."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..types import Edits

HIDDEN_SITES = ("embedded", "mixed", "mlp")
"""Where BERT drops hidden values: the embedding output and both sub-layers' outputs before their residual sums."""


def generator(prng: str, platform: str = "") -> str:
    """The generator of dropout's masks that a setting stands for.

    Args:
      prng: "auto", or a generator as `jax.random.key` names it.
      platform: of the devices; "" for that of jax's default device.

    Returns:
      For "auto" threefry2x32 on a CPU, where it costs little, and rbg on accelerators, whose compilers take several
      times as long over threefry's rounds.

    >>> generator("auto", "cpu"), generator("auto", "tpu"), generator("threefry2x32", "tpu")
    ('threefry2x32', 'rbg', 'threefry2x32')
    """
    if prng != "auto":
        return prng
    return "threefry2x32" if (platform or jax.default_backend()) == "cpu" else "rbg"


def drop(key: PRNGKeyArray, rate: float | Array, value: Float[Array, "*N"]) -> Float[Array, "*N"]:
    """Each entry is zero with probability `rate`, else divided by `1 - rate`: the mean is the value.

    Args:
      key: a `jax.random.key`.
      rate: in [0, 1), taken to the nearest multiple of 2^-16.
      value: any array of floats. What is dropped of a number that is not finite is NaN, as torch has it.

    >>> import jax, jax.numpy as jnp
    >>> dropped = drop(jax.random.key(0), 0.5, jnp.ones(1000))
    >>> sorted(set(dropped.tolist())), 400 < int((dropped == 0).sum()) < 600
    ([0.0, 2.0], True)

    References: Srivastava et al. (2014), JMLR 15.
    """
    # Half a random word an entry: drawing them is what dropout costs. Of 2^16 values, so many drop the entry:
    few = jnp.round(jnp.asarray(rate, jnp.float32) * 2.0**16)
    keep = _halves(key, value.shape) >= few.astype(jnp.uint32)
    return _kept(keep, value, 1 - few / 2.0**16)


@functools.partial(jax.checkpoint, prevent_cse=False)  # so the way back keeps a byte an entry, not its divisor
def _kept(keep: Array, value: Array, share: Array) -> Array:
    """`value / share` where `keep`, else divided by infinity.

    XLA computes a division once for all that read it, and a product anew for each. On the way back one reader is a
    product that wants the gradient transposed, in which order a CPU takes five times as long over the mask.
    """
    return value / jnp.where(keep, share.astype(value.dtype), jnp.full((), jnp.inf, value.dtype))


def _halves(key: PRNGKeyArray, shape: tuple[int, ...]) -> Array:
    """Random numbers below 2^16, two of every 32 bits drawn."""
    *lead, last = shape
    words = jax.random.bits(key, (*lead, -(-last // 2)), jnp.uint32)
    return jnp.concatenate([words & 0xFFFF, words >> 16], axis=-1)[..., :last]


def dropout(key: PRNGKeyArray, *, hidden: float = 0.1, attention: float = 0.1) -> Edits:
    """BERT's dropout as edits: of the embedding, the attention probabilities and both sub-layers' outputs.

    The mask of a layer and site is a function of the key, the layer and the site alone, so recomputing a block in
    the backward pass drops the same entries. Rows of dropped attention no longer sum to 1.

    Args:
      key: a `jax.random.key`, a fresh one each step; a traced leaf.
      hidden: rate of the hidden sites, in [0, 1).
      attention: rate of the attention probabilities.

    Returns:
      Edits of the sites whose rate is not 0.

    >>> import jax, jaxsmooth
    >>> model, tokenizer = jaxsmooth.load("tiny")
    >>> edits = dropout(jax.random.key(0), hidden=0.1, attention=0.0)
    >>> edits.attn is None, edits.mixed is None
    (True, False)

    References: Devlin et al. (2019), arXiv 1810.04805, and its released code for the places.
    """
    keys = jax.random.split(key, len(HIDDEN_SITES) + 1)
    rates = {**dict.fromkeys(HIDDEN_SITES, hidden), "attn": attention}
    edits: dict[str, Any] = {
        site: Partial(_drop_attention if site == "attn" else _drop_layer, keys[k], jnp.asarray(rate, jnp.float32))
        for k, (site, rate) in enumerate(rates.items())
        if rate
    }
    return Edits(**edits)


def _drop_layer(key: PRNGKeyArray, rate: Array, layer: Int[Array, ""], value: Array) -> Array:
    return drop(jax.random.fold_in(key, layer + 1), rate, value)  # the embedding's layer is -1


def _drop_attention(key: PRNGKeyArray, rate: Array, layer: Int[Array, ""], value: Array) -> Array:
    # The barrier keeps the mask out of the products before and after: with it in one fusion with both, libtpu's cost
    # model overflows its stack (0.0.42.1, BERT-base for v6e). Elsewhere it would only be in the way.
    dropped = _drop_layer(key, rate, layer, value)
    return jax.lax.platform_dependent(dropped, tpu=jax.lax.optimization_barrier, default=lambda same: same)
