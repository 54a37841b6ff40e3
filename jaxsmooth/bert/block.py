"""One block of the encoder, every intermediate value named: post-LN (BERT), pre-LN (GPT-2, ViT) or sandwich.

Read `post_norm_block` first. `at(site, value)` passes a value through its edit and records it for the trace.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..activations import ACTIVATIONS
from ..errors import ShapeError
from ..types import Block, BlockTrace, Edit, Edits, LayerNorm, as_edited
from .attention import add_bias, attention_logits, attention_probs, join_heads, mix_tokens, project_heads
from .config import EncoderConfig
from .kernels import PROBABILITIES, Attend
from .matmul import split_matmul, token_matmul
from .norm import gained, layer_norm, standardise
from .positions import rotate, visible_tokens

UNKNOWN_YET = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)
"""What jax raises where Python asks for the value of a traced array."""


class Sites:
    """The named values of one block: each is edited as it is computed, and kept for the `BlockTrace`."""

    def __init__(self, edits: Edits, layer: Int[Array, ""]) -> None:
        self.edits, self.layer = edits, layer
        self.values: dict[str, Array] = {}

    def __call__(self, site: str, value: Array) -> Array:
        self.values[site] = self.edit(site, value)
        return self.values[site]

    def edit(self, site: str, value: Array) -> Array:
        """The value after its edit, not kept: for the norms' gains, which are parameters."""
        return apply_edit(site, getattr(self.edits, site), self.layer, value)


class Scope(NamedTuple):
    """What every part of a block needs beside its input.

    Attributes:
      config: which variant of a block this is.
      layer: the block's index.
      block: its parameters, without a layer axis.
      mask: True on real tokens.
      bias: positional bias of the attention logits.
      at: edits and records the named values.
      probs: the attention probabilities of an earlier block, to be used in the place of this block's own.
      attend: a kernel that computes the context at once; None for explicit attention.
    """

    config: EncoderConfig
    layer: Int[Array, ""]
    block: Block
    mask: Bool[Array, "B T"]
    bias: Float[Array, "N T S"] | None
    at: Sites
    probs: Float[Array, "B N T S"] | None = None
    attend: Attend | None = None


def post_norm_block(scope: Scope, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    """LN(U + MLP(U)), U = LN(X + Attn(X)): Vaswani et al. (2017); BERT."""
    x = norm_attn(scope, residual(scope, "pre_attn", x, attention(scope, x)))
    return norm_mlp(scope, residual(scope, "pre_mlp", x, mlp(scope, x)))


def pre_norm_block(scope: Scope, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    """U + MLP(LN(U)), U = X + Attn(LN(X)): Xiong et al. (2020), arXiv 2002.04745; GPT-2, ViT, ModernBERT."""
    x = residual(scope, "pre_attn", x, attention(scope, norm_attn(scope, x)))
    return residual(scope, "pre_mlp", x, mlp(scope, norm_mlp(scope, x)))


def sandwich_norm_block(scope: Scope, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    """U + LN(MLP(LN(U))), U = X + LN(Attn(LN(X))): Ding et al. (2021), CogView, arXiv 2105.13290."""
    config, block = scope.config, scope.block
    attended = normalise(config, block.norm_attn_out, attention(scope, norm_attn(scope, x)))
    x = residual(scope, "pre_attn", x, attended)
    mapped = normalise(config, block.norm_mlp_out, mlp(scope, norm_mlp(scope, x)))
    return residual(scope, "pre_mlp", x, mapped)


BLOCKS = {"post": post_norm_block, "pre": pre_norm_block, "sandwich": sandwich_norm_block}
"""The block of each `EncoderConfig.placement`."""


def run_block(
    config: EncoderConfig,
    layer: Int[Array, ""],
    block: Block,
    hidden: Float[Array, "B T D"],
    mask: Bool[Array, "B T"],
    edits: Edits,
    bias: Float[Array, "N T S"] | None = None,
    probs: Float[Array, "B N T S"] | None = None,
    attend: Attend | None = None,
) -> BlockTrace:
    """One block, every intermediate value returned.

    Args:
      config: which variant of a block this is, eps and activation.
      layer: the block's index, handed to the edits.
      block: the block's parameters, without a layer axis.
      hidden: input, [B T D].
      mask: True on real tokens, [B T].
      edits: see `Edits`.
      bias: positional bias of the attention logits, [N T S].
      probs: attention probabilities of an earlier block, used in the place of this block's own.
      attend: a kernel of `kernels.make_attend`, which computes the context at once; logits and probabilities are then
        NaN, for nobody to read.

    Returns:
      The `BlockTrace`; its `hidden` is the block's output, [B T D].

    Raises:
      ShapeError: an edit that changes a shape.

    >>> import jax, jaxsmooth
    >>> model, tokenizer = jaxsmooth.load("tiny")
    >>> batch = tokenizer(["Dull."])
    >>> first = jax.tree.map(lambda leaf: leaf[0], model.blocks)
    >>> embedded = jaxsmooth.embed(model, batch)
    >>> trace = run_block(model.config, jnp.int32(0), first, embedded, batch.mask, Edits())
    >>> trace.hidden.shape == embedded.shape
    True

    References: Vaswani et al. (2017), arXiv 1706.03762; Devlin et al. (2019), BERT, arXiv 1810.04805.
    """
    at = Sites(edits, layer)
    at("hidden", BLOCKS[config.placement](Scope(config, layer, block, mask, bias, at, probs, attend), hidden))
    return BlockTrace(layer=layer, block=block, input=hidden, **at.values)


def attention(scope: Scope, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    """Multi-head self-attention, sum over heads of A_h X W_V^h W_O^h, biases included."""
    config, layer, block, mask, at = scope.config, scope.layer, scope.block, scope.mask, scope.at
    query = at("query", rotate(config, layer, project_heads(block.attn.query, x)))
    key = at("key", rotate(config, layer, project_heads(block.attn.key, x)))
    value = at("value", project_heads(block.attn.value, x))
    if scope.attend is None:
        logits = at("attn_logits", attention_logits(query, key, scope.bias))
        own = attention_probs(logits, mask, visible_tokens(config, layer, mask.shape[1]))
        probs = at.values["attn_probs"] = own if scope.probs is None else scope.probs
        mixed = mix_tokens(at("attn", probs), value)
    else:
        unknown = jnp.full((*query.shape[:3], key.shape[2]), jnp.nan, query.dtype)
        at.values.update(dict.fromkeys(PROBABILITIES, unknown))
        mixed = scope.attend(layer, query, key, value)
    return at("mixed", join_heads(block.attn.output, at("context", mixed)))


def mlp(scope: Scope, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    """f(x W_up + b) W_down + c, or its gated form."""
    down = scope.block.down
    wide = feed_forward(scope.config, scope.block, scope.at("normed", x))
    return scope.at("mlp", add_bias(token_matmul(wide, down.kernel), down.bias))


def norm_attn(scope: Scope, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    """The norm of the attention sub-layer: after its residual sum, or before it."""
    normed = norm_site(scope, "attn", scope.block.norm_attn, x)
    return normed if scope.config.first_norm else jnp.where(scope.layer == 0, x, normed)


def norm_mlp(scope: Scope, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    """The norm of the MLP sub-layer: after its residual sum, or before it."""
    return norm_site(scope, "mlp", scope.block.norm_mlp, x)


def norm_site(scope: Scope, site: str, norm: LayerNorm, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    """A norm whose std and gain can be edited; an edited std divides in the place of the token's own."""
    config, at = scope.config, scope.at
    unit, own = standardise(x, config.eps, config.norm)
    std, scale = at(f"std_{site}", own), at.edit(f"scale_{site}", norm.scale)
    if std is own:
        return gained(unit, scale, norm.bias).astype(x.dtype)
    return layer_norm(x, scale, norm.bias, std, norm=config.norm)


def residual(scope: Scope, site: str, x: Float[Array, "B T D"], branch: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    """x + branch; DeepNorm (Wang et al. 2022, arXiv 2203.00555) weighs the first, Noci et al. (2022) the second."""
    return scope.at(site, scaled(x, scope.config.skip_scale) + scaled(branch, scope.config.branch_scale))


def normalise(config: EncoderConfig, norm: LayerNorm | None, hidden: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    """The encoder's kind of norm without a site: of the embedding, after the last block, of a sandwich's branch.

    Args:
      config: kind of norm and eps.
      norm: gain and shift, [D]; None where the encoder has no such norm.
      hidden: [B T D].

    Returns:
      [B T D].

    >>> norm = LayerNorm(scale=jnp.ones(2), bias=jnp.zeros(2))
    >>> normalise(EncoderConfig(), norm, jnp.array([[[1.0, 3.0]]]))
    Array([[[-1.,  1.]]], dtype=float32)
    """
    if norm is None:
        return hidden
    unit, _ = standardise(hidden, config.eps, config.norm)
    return gained(unit, norm.scale, norm.bias).astype(hidden.dtype)


def feed_forward(config: EncoderConfig, block: Block, x: Float[Array, "B T D"]) -> Float[Array, "B T F"]:
    """The MLP's wide layer: f(x W_up + b), times x W_gate + c in a gated MLP.

    Args:
      config: names the activation f.
      block: the block's parameters, without a layer axis.
      x: the MLP's input, [B T D].

    Returns:
      [B T F].

    References: gated: Shazeer (2020), GLU Variants Improve Transformer, arXiv 2002.05202.
    """
    wide = ACTIVATIONS[config.activation].function(add_bias(split_matmul(x, block.up.kernel), block.up.bias))
    return wide if block.gate is None else wide * add_bias(split_matmul(x, block.gate.kernel), block.gate.bias)


def attention_input(config: EncoderConfig, trace: BlockTrace) -> Float[Array, "B T D"]:
    """What a block's queries, keys and values are maps of: its input, normed in a pre-LN or sandwich block.

    Args:
      config: the encoder's.
      trace: of one block.

    Returns:
      [B T D].
    """
    if config.placement == "post":
        return trace.input
    norm = trace.block.norm_attn
    normed = layer_norm(trace.input, norm.scale, norm.bias, trace.std_attn, norm=config.norm)
    return normed if config.first_norm else jnp.where(trace.layer == 0, trace.input, normed)


def scaled(x: Array, factor: float) -> Array:
    """`factor * x`; BERT's factor of 1 costs nothing."""
    return x if factor == 1 else x * jnp.asarray(factor, x.dtype)


def apply_edit(site: str, edit: Edit | None, layer: Array, value: Array) -> Array:
    """`edit(layer, value)` in the value's dtype; the value itself when there is no edit.

    Args:
      site: the value's name, for the message.
      edit: see `Edits`.
      layer: the block's index; -1 at the embedding.
      value: any array.

    Returns:
      An array of the value's shape and dtype.

    Raises:
      ShapeError: the edit returns another shape or no array, or asks in Python for what is only known when it runs.
    """
    if edit is None:
        return value
    try:
        found = edit(layer, value)
    except UNKNOWN_YET as error:
        raise ShapeError(
            f"the edit of {site!r} asks in Python (if, int, an index, numpy) for a number that is not known while it "
            f"is compiled; the layer is one too. In place of `if layer == 3`: jnp.where(layer == 3, new, value), "
            f"or jaxsmooth.interventions.restrict(Edits({site}=...), layers=3)."
        ) from error
    return as_edited(found, value, f"the edit of {site!r}")
