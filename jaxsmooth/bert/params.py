"""The parameter trees: what a BERT has learned, as plain pytrees, stacked over layers.

Kernels are stored input axis first (`x @ kernel`), the transpose of torch's layout; heads are axes of their
own. In a stacked tree every array of `Block` has one leading axis L.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from ..errors import ConfigError, arguments_checked, is_int
from ..types import Attention, Block, LayerNorm, Linear, named_leaves
from .config import EncoderConfig


@nnx.dataclass
class Embeddings(nnx.Pytree):
    """Word, position and segment tables [V E], [P E], [segments E], the norm over their sum, a projection E -> D.

    A vision encoder has `patch`, a linear map of a patch's pixels, and `classes`, learned tokens put before the
    patches, in place of the word table. What a family lacks is None.
    """

    word: Float[Array, "V E"] = nnx.data(default=None)
    position: Float[Array, "P E"] | None = nnx.data(default=None)
    segment: Float[Array, "G E"] | None = nnx.data(default=None)
    norm: LayerNorm | None = nnx.data(default=None)
    projection: Linear | None = nnx.data(default=None)
    patch: Linear = nnx.data(default=None)
    classes: Float[Array, "K D"] = nnx.data(default=None)


@nnx.dataclass
class Encoder(nnx.Pytree):
    """A whole encoder: embeddings, blocks stacked on a leading axis, an optional pooler, the static config.

    The leading axis of `blocks` is L, or 1 where all layers share one set of parameters. `relative` is a table of
    relative attention biases, [R N]; `final_norm` follows the last block.
    """

    embeddings: Embeddings = nnx.data()
    blocks: Block = nnx.data()
    pooler: Linear | None = nnx.data()
    config: EncoderConfig = nnx.static()
    relative: Float[Array, "R N"] | None = nnx.data(default=None)
    final_norm: LayerNorm | None = nnx.data(default=None)


@arguments_checked
def init_encoder(
    config: EncoderConfig, key: PRNGKeyArray, *, dtype: DTypeLike = jnp.float32, pooler: bool = True
) -> Encoder:
    """Randomly initialised parameters, as BERT's.

    Kernels and tables are normal of std `config.std_init`, truncated at two standard deviations; biases are zero,
    LayerNorm scales one, the embedding of the padding token zero.

    Args:
      config: the architecture.
      key: a `jax.random.key`.
      dtype: floating dtype of every array.
      pooler: whether to add the dense layer over the first token.

    Returns:
      An `Encoder` whose blocks are stacked on a leading axis of `config.layers` (1 when layers are shared).

    >>> import jax
    >>> config = EncoderConfig(vocab=100, width=48, layers=2, heads=4, mlp_width=96, max_length=16)
    >>> init_encoder(config, jax.random.key(0)).blocks.attn.query.kernel.shape
    (2, 48, 4, 12)

    References: Devlin et al. (2019), BERT, arXiv 1810.04805; its released code for the truncation.
    """
    draw = _Draw(config, key, dtype)
    blocks = _init_blocks(config, draw)
    return Encoder(
        embeddings=_init_embeddings(config, draw),
        blocks=blocks,
        pooler=draw.linear((config.width, config.width)) if pooler else None,
        config=config,
        relative=draw.normal(config.relative_buckets, config.heads) if config.relative_buckets else None,
        final_norm=draw.norm(config.width) if config.final_norm else None,
    )


def first_blocks(model: Encoder, count: int) -> Encoder:
    """The encoder without the blocks above the first `count`: its output is what the last of them makes.

    A norm behind the last block, where there is one, then acts on that.

    Args:
      model: the encoder.
      count: how many blocks to keep.

    Returns:
      An encoder of `count` layers.

    Raises:
      ConfigError: no block, or more than there are.

    >>> import jax
    >>> model = init_encoder(EncoderConfig(vocab=9, width=8, layers=3, heads=2, mlp_width=8), jax.random.key(0))
    >>> first_blocks(model, 2).blocks.up.kernel.shape
    (2, 8, 8)
    """
    if not is_int(count, 1, model.config.layers):
        raise ConfigError(f"count must lie in 1..{model.config.layers}, the model's layers; got {count}.")
    blocks = model.blocks if model.config.shared_layers else jax.tree.map(lambda leaf: leaf[:count], model.blocks)
    return dataclasses.replace(model, blocks=blocks, config=dataclasses.replace(model.config, layers=count))


class _Draw:
    """Initial values of parameters, each from a key of its own."""

    def __init__(self, config: EncoderConfig, key: PRNGKeyArray, dtype: DTypeLike) -> None:
        self.config, self.dtype = config, dtype
        self.keys = iter(jax.random.split(key, 16))

    def normal(self, *shape: int) -> Array:
        # jax's unit truncated normal is not rescaled to unit variance, nor is BERT's.
        unit = jax.random.truncated_normal(next(self.keys), -2.0, 2.0, shape, self.dtype)
        return self.config.std_init * unit

    def linear(
        self, kernel: tuple[int, ...], *, inputs: int = 1, bias: bool = True, stacked: tuple[int, ...] = ()
    ) -> Linear:
        """An affine map whose first `inputs` axes are contracted."""
        shape = (*stacked, *kernel[inputs:])
        return Linear(kernel=self.normal(*stacked, *kernel), bias=jnp.zeros(shape, self.dtype) if bias else None)

    def norm(self, *shape: int) -> LayerNorm:
        bias = jnp.zeros(shape, self.dtype) if self.config.norm_bias else None
        return LayerNorm(scale=jnp.ones(shape, self.dtype), bias=bias)


def _init_blocks(c: EncoderConfig, draw: _Draw) -> Block:
    stacked = (1 if c.shared_layers else c.layers,)
    n, h = c.heads, c.head_width

    def linear(kernel: tuple[int, ...], bias: bool, inputs: int = 1) -> Linear:
        return draw.linear(kernel, inputs=inputs, bias=bias, stacked=stacked)

    attn = Attention(
        query=linear((c.width, n, h), c.attn_bias),
        key=linear((c.width, n, h), c.attn_bias),
        value=linear((c.width, n, h), c.attn_bias),
        output=linear((n, h, c.width), c.attn_bias, inputs=2),
    )
    sandwich = c.placement == "sandwich"
    return Block(
        attn=attn,
        norm_attn=draw.norm(*stacked, c.width),
        up=linear((c.width, c.mlp_width), c.mlp_bias),
        down=linear((c.mlp_width, c.width), c.mlp_bias),
        norm_mlp=draw.norm(*stacked, c.width),
        gate=linear((c.width, c.mlp_width), c.mlp_bias) if c.gated else None,
        norm_attn_out=draw.norm(*stacked, c.width) if sandwich else None,
        norm_mlp_out=draw.norm(*stacked, c.width) if sandwich else None,
    )


def _init_embeddings(c: EncoderConfig, draw: _Draw) -> Embeddings:
    e = c.table_width
    norm = draw.norm(e) if c.embedding_norm else None
    if c.is_vision:
        return Embeddings(
            patch=draw.linear((c.channels * c.patch_size**2, c.width)),
            classes=draw.normal(c.class_tokens, c.width),
            position=draw.normal(c.position_rows, c.width),
            norm=norm,
        )
    return Embeddings(
        word=draw.normal(c.vocab, e).at[c.pad_token].set(0.0),
        position=draw.normal(c.position_rows, e) if c.positions == "learned" else None,
        segment=draw.normal(c.segments, e) if c.segments else None,
        norm=norm,
        projection=draw.linear((e, c.width)) if e != c.width or c.embedding_width else None,
    )


def encoder_shapes(config: EncoderConfig, *, pooler: bool = True) -> dict[str, tuple[int, ...]]:
    """Shape of every array of an `Encoder` by its dotted path, without allocating any.

    Args:
      config: the architecture.
      pooler: whether to count the dense layer over the first token.

    Returns:
      Paths from the `Encoder` down, as "blocks.attn.query.kernel", and shapes.

    >>> config = EncoderConfig(vocab=100, width=48, layers=2, heads=4, mlp_width=96, max_length=16)
    >>> encoder_shapes(config)["blocks.attn.query.kernel"]
    (2, 48, 4, 12)
    """
    return {path: leaf.shape for path, leaf in named_leaves(blank_encoder(config, pooler)).items()}


@functools.lru_cache(maxsize=16)
def blank_encoder(config: EncoderConfig, pooler: bool) -> Encoder:
    """An `Encoder` of `jax.ShapeDtypeStruct` leaves, float32; traced once for each architecture.

    Args:
      config: the architecture.
      pooler: whether it has the dense layer over the first token.
    """
    return jax.eval_shape(lambda: init_encoder(config, jax.random.key(0), pooler=pooler))
