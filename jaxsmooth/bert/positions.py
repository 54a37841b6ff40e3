"""Positions of tokens: ids, rotary rotation, relative biases, causal and local masks."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .config import EncoderConfig
from .norm import accumulation_dtype

RELATIVE_REACH = 128  # distance from which MPNet puts all positions into one bucket


def position_ids(config: EncoderConfig, tokens: Int[Array, "B T"]) -> Int[Array, "B T"]:
    """Row of the position table for every token.

    0, 1, 2, ... as BERT, wherever the padding is; with an offset o, as RoBERTa and MPNet: o, o + 1, ... over the tokens
    that are not the padding, whose id is o - 1, and o - 1 for the padding. What counts is the id, not the mask: a text
    that spells the padding token out has it counted as padding, as in transformers.

    Args:
      config: the encoder's.
      tokens: token ids, [B T].

    Returns:
      [B T].

    >>> import jax.numpy as jnp
    >>> position_ids(EncoderConfig(position_offset=2), jnp.array([[5, 1, 7, 1]]))
    Array([[2, 1, 3, 1]], dtype=int32)

    References: `create_position_ids_from_input_ids` of transformers; `make_positions` of fairseq.
    """
    if not config.position_offset:
        return jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32)[None], tokens.shape)
    padding = config.position_offset - 1
    real = tokens != padding
    return jnp.where(real, jnp.cumsum(real, axis=1, dtype=jnp.int32), 0) + padding


def is_local(config: EncoderConfig, layer: Int[Array, ""]) -> Bool[Array, ""]:
    """Whether a layer's attention is limited to its window.

    Args:
      config: the encoder's.
      layer: index of the block.

    Returns:
      A scalar.

    >>> config = EncoderConfig(window=2, global_every=3)
    >>> [bool(is_local(config, jnp.int32(layer))) for layer in range(4)]
    [False, True, True, False]
    """
    if not config.window:
        return jnp.zeros((), bool)
    return jnp.ones((), bool) if not config.global_every else layer % config.global_every != 0


def visible_tokens(config: EncoderConfig, layer: Int[Array, ""], length: int) -> Bool[Array, "T S"] | None:
    """Which keys each query attends to, padding not considered; None for all.

    A local layer attends to `window` tokens to either side; a causal encoder to no later token.

    Args:
      config: the encoder's.
      layer: index of the block.
      length: T, number of tokens.

    Returns:
      [T S] or None.

    >>> visible_tokens(EncoderConfig(causal=True), jnp.int32(0), 2)
    Array([[ True, False],
           [ True,  True]], dtype=bool)
    """
    if not (config.causal or config.window):
        return None
    ahead = np.arange(length)[None, :] - np.arange(length)[:, None]
    seen = jnp.asarray(ahead <= 0 if config.causal else np.ones_like(ahead, bool))
    if not config.window:
        return seen
    return seen & (~is_local(config, layer) | jnp.asarray(np.abs(ahead) <= config.window))


def rotate(config: EncoderConfig, layer: Int[Array, ""], heads: Float[Array, "B N T H"]) -> Float[Array, "B N T H"]:
    """Queries or keys with their position turned into them; unchanged for an encoder without rotary positions.

    Coordinates k and k + H/2 of token t turn by the angle t / base^(2k/H).

    Args:
      config: the encoder's.
      layer: index of the block: local and global layers differ in their base.
      heads: queries or keys, [B N T H].

    Returns:
      [B N T H].

    >>> turned = rotate(EncoderConfig(positions="rotary"), jnp.int32(0), jnp.ones((1, 1, 2, 2)))
    >>> [round(float(x), 2) for x in turned[0, 0, 1]]  # by one radian
    [-0.3, 1.38]

    References: Su et al. (2021), RoFormer, arXiv 2104.09864; the halves pair up as in GPT-NeoX.
    """
    if config.positions != "rotary":
        return heads
    wide = heads.astype(accumulation_dtype(heads.dtype))
    half = heads.shape[-1] // 2
    # Frequencies in float64 on the host: an error of theirs grows with the token's position.
    whole, local = (
        jnp.asarray(base ** (-np.arange(half) / half), wide.dtype)
        for base in (config.rotary_base, config.rotary_base_local)
    )
    frequencies = jnp.where(is_local(config, layer), local, whole)
    angles = jnp.arange(heads.shape[2], dtype=wide.dtype)[:, None] * frequencies[None]
    cos, sin = jnp.cos(angles)[None, None], jnp.sin(angles)[None, None]
    left, right = wide[..., :half], wide[..., half:]
    return jnp.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1).astype(heads.dtype)


def relative_bias(table: Float[Array, "R N"] | None, length: int) -> Float[Array, "N T S"] | None:
    """Biases of the attention logits by relative position, from a table of buckets; None without a table.

    Args:
      table: one bias per bucket and head, [R N].
      length: T, number of tokens.

    Returns:
      [N T S] or None.

    >>> relative_bias(jnp.arange(4.0)[:, None], 2)
    Array([[[0., 3.],
            [1., 0.]]], dtype=float32)

    References: Raffel et al. (2020), T5, arXiv 1910.10683; Song et al. (2020), MPNet, arXiv 2004.09297.
    """
    if table is None:
        return None
    ahead = np.arange(length)[None, :] - np.arange(length)[:, None]
    return table[jnp.asarray(relative_buckets(ahead, table.shape[0]))].transpose(2, 0, 1)


def relative_buckets(ahead: np.ndarray, buckets: int) -> np.ndarray:
    """T5's two-sided buckets of key position minus query position.

    Half of the buckets are for keys behind the query, half for keys ahead; of each half, the first half is one
    bucket per distance, the rest are spaced logarithmically up to `RELATIVE_REACH`.

    Args:
      ahead: key position minus query position, any shape.
      buckets: number of buckets, at least 4.

    Returns:
      Bucket of every entry, in 0..buckets - 1.

    >>> import numpy as np
    >>> relative_buckets(np.array([-200, -1, 0, 1, 200]), 32).tolist()
    [15, 1, 0, 17, 31]
    """
    side = buckets // 2
    exact = side // 2
    distance = np.abs(ahead)
    # float32, as the published code: at powers of the spacing, float64 would round into another bucket.
    steps = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact)) / np.float32(
        math.log(RELATIVE_REACH / exact)
    )
    far = np.minimum(exact + (steps * (side - exact)).astype(np.int64), side - 1)
    return np.where(ahead > 0, side, 0) + np.where(distance < exact, distance, far)
