"""The parameter trees: what a BERT has learned, as plain pytrees, stacked over layers.

Kernels are stored input axis first (`x @ kernel`), the transpose of torch's layout; heads are axes of their
own. In a stacked tree every array of `Block` has one leading axis L.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from .config import EncoderConfig


@nnx.dataclass
class LayerNorm(nnx.Pytree):
    """Learned gain (`scale`) and shift (`bias`). The standard deviation is no parameter: see `norm`."""

    scale: Float[Array, "*L D"] = nnx.data()
    bias: Float[Array, "*L D"] = nnx.data()


@nnx.dataclass
class Linear(nnx.Pytree):
    """An affine map. In attention, `query`, `key` and `value` map D -> N H and `output` maps N H -> D."""

    kernel: Float[Array, "..."] = nnx.data()
    bias: Float[Array, "..."] = nnx.data()


@nnx.dataclass
class Attention(nnx.Pytree):
    """Multi-head self-attention: kernels [D N H] for query, key, value and [N H D] for output."""

    query: Linear = nnx.data()
    key: Linear = nnx.data()
    value: Linear = nnx.data()
    output: Linear = nnx.data()


@nnx.dataclass
class Block(nnx.Pytree):
    """One post-LN Transformer block: LN(MLP(LN(Attn(X)))), both residuals inside."""

    attn: Attention = nnx.data()
    norm_attn: LayerNorm = nnx.data()
    up: Linear = nnx.data()
    down: Linear = nnx.data()
    norm_mlp: LayerNorm = nnx.data()


@nnx.dataclass
class Embeddings(nnx.Pytree):
    """Word, position and segment tables [V D], [max_length D], [segments D], and the LayerNorm over their sum."""

    word: Float[Array, "V D"] = nnx.data()
    position: Float[Array, "P D"] = nnx.data()
    segment: Float[Array, "G D"] = nnx.data()
    norm: LayerNorm = nnx.data()


@nnx.dataclass
class Encoder(nnx.Pytree):
    """A whole BERT: embeddings, blocks stacked on a leading axis L, an optional pooler, the static config."""

    embeddings: Embeddings = nnx.data()
    blocks: Block = nnx.data()
    pooler: Linear | None = nnx.data()
    config: EncoderConfig = nnx.static()


def init_encoder(
    config: EncoderConfig, key: PRNGKeyArray, *, dtype: DTypeLike = jnp.float32, pooler: bool = True
) -> Encoder:
    """Randomly initialised parameters, as BERT's: normal kernels and tables of std `config.std_init`
    truncated at two standard deviations, zero biases, unit LayerNorm scales, a zero embedding for padding.

    Args:
      config: the architecture.
      key: a `jax.random.key`.
      dtype: floating dtype of every array.
      pooler: whether to add the dense layer over the first token.

    Returns:
      An `Encoder` whose blocks are stacked on a leading axis of `config.layers`.

    >>> import jax
    >>> config = EncoderConfig(vocab=100, width=48, layers=2, heads=4, mlp_width=96, max_length=16)
    >>> init_encoder(config, jax.random.key(0)).blocks.attn.query.kernel.shape
    (2, 48, 4, 12)

    References: Devlin et al. (2019), BERT, arXiv 1810.04805; its released code for the truncation.
    """
    c, n, h = config, config.heads, config.head_width
    keys = iter(jax.random.split(key, 10))

    def normal(*shape: int) -> Array:
        # jax's unit truncated normal is not rescaled to unit variance, nor is BERT's.
        return c.std_init * jax.random.truncated_normal(next(keys), -2.0, 2.0, shape, dtype)

    def linear(kernel: tuple[int, ...], bias: tuple[int, ...]) -> Linear:
        return Linear(kernel=normal(c.layers, *kernel), bias=jnp.zeros((c.layers, *bias), dtype))

    def norm(*shape: int) -> LayerNorm:
        return LayerNorm(scale=jnp.ones(shape, dtype), bias=jnp.zeros(shape, dtype))

    attn = Attention(
        query=linear((c.width, n, h), (n, h)),
        key=linear((c.width, n, h), (n, h)),
        value=linear((c.width, n, h), (n, h)),
        output=linear((n, h, c.width), (c.width,)),
    )
    blocks = Block(
        attn=attn,
        norm_attn=norm(c.layers, c.width),
        up=linear((c.width, c.mlp_width), (c.mlp_width,)),
        down=linear((c.mlp_width, c.width), (c.width,)),
        norm_mlp=norm(c.layers, c.width),
    )
    embeddings = Embeddings(
        word=normal(c.vocab, c.width).at[c.pad_token].set(0.0),
        position=normal(c.max_length, c.width),
        segment=normal(c.segments, c.width),
        norm=norm(c.width),
    )
    pool = Linear(kernel=normal(c.width, c.width), bias=jnp.zeros((c.width,), dtype)) if pooler else None
    return Encoder(embeddings=embeddings, blocks=blocks, pooler=pool, config=config)


def encoder_shapes(config: EncoderConfig, *, pooler: bool = True) -> dict[str, tuple[int, ...]]:
    """Shape of every array of an `Encoder` by its dotted path, without allocating any.

    >>> config = EncoderConfig(vocab=100, width=48, layers=2, heads=4, mlp_width=96, max_length=16)
    >>> encoder_shapes(config)["blocks.attn.query.kernel"]
    (2, 48, 4, 12)
    """
    model = jax.eval_shape(lambda: init_encoder(config, jax.random.key(0), pooler=pooler))
    leaves = jax.tree_util.tree_leaves_with_path(model)
    return {"".join(map(str, path)).strip("."): leaf.shape for path, leaf in leaves}
