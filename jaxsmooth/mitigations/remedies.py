"""Remedies as edits: each function takes a method's strength and returns a `Remedy`, `(model, batch) -> Edits`.

    edits = combine(contranorm(0.1), attn_scale(0.3))(model, batch)
    hidden, trace = encode(model, batch, edits=edits)

Strengths and masks travel as arrays: sweeping a strength never recompiles, and gradients reach it. Formulas, their
sources and what is guaranteed are with the functions of the same name in `jaxsmooth.mitigations`. A published
method learns its strengths from values that change nothing; the defaults here, which do change something, are meant
for looking at a trained model without training it, and are ours unless said otherwise.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Array, PRNGKeyArray

from ..bert.encoder import embed, encode
from ..bert.params import Encoder
from ..errors import OptionError, arguments_checked, takes
from ..types import Batch, BlockTrace, Edits, ImageBatch, compose
from . import attention, features

AnyBatch = Batch | ImageBatch
Remedy = Callable[[Encoder, AnyBatch], Edits]
Number = ArrayLike

CONTRANORM_POSITIONS = ("input", "context", "mixed", "normed", "mlp", "hidden", "pre_attn", "pre_mlp")
"""Where the released code can put ContraNorm in a BERT block, in the order of its numbers 1 to 8.

"input" is the embedding output and every block's output but the last. At "normed" (its 4, after the attention's
LayerNorm) ours changes what the MLP reads but not the residual; theirs changes both.
"""


@arguments_checked
def contranorm(
    strength: Number = 0.1,
    *,
    position: str = "pre_attn",
    form: Literal["bert", "vit"] = "bert",
    dual: bool = False,
    temperature: Number = 1.0,
    unit: bool = False,
) -> Remedy:
    """ContraNorm at one of `CONTRANORM_POSITIONS`: by default on attention output plus residual, before LayerNorm.

    In a post-LN encoder the form "vit" there is LN(X - s S X), as published for Vision Transformers.

    Raises:
      OptionError: a position that does not exist.

    >>> import jaxsmooth
    >>> model, tokenizer = jaxsmooth.load("tiny")
    >>> batch = tokenizer(["A film worth seeing."])
    >>> edits = contranorm(0.2, dual=True)(model, batch)
    >>> jaxsmooth.encode(model, batch, edits=edits)[0].shape == (*batch.tokens.shape, model.config.width)
    True
    """
    if position not in CONTRANORM_POSITIONS:
        raise OptionError(f"position must be one of {', '.join(CONTRANORM_POSITIONS)}; got {position!r}.")
    formula = functools.partial(_fixed, formula=features.contranorm, form=form, dual=dual, unit=unit)

    def remedy(model: Encoder, batch: AnyBatch) -> Edits:
        arrays = (batch.mask, jnp.asarray(strength), jnp.asarray(temperature))
        if position == "input":
            last = jnp.int32(model.config.layers - 1)
            rest = Partial(formula(_contranorm_but_last), last, *arrays)
            return Edits(embedded=Partial(formula(_contranorm), *arrays), hidden=rest)
        own = _contranorm_joined if position == "context" else _contranorm
        edit: dict[str, Any] = {position: Partial(formula(own), *arrays)}
        return Edits(**edit)

    return remedy


@arguments_checked
def attn_scale(strength: Number = 0.3) -> Remedy:
    """AttnScale with w = `strength`, [] or one per head [N], in every layer."""
    return lambda model, batch: Edits(attn=Partial(_attn_scale, batch.mask, jnp.asarray(strength)))


@arguments_checked
def centred_attention(strength: Number = 1.0) -> Remedy:
    """A - c J0 in every layer, c = `strength`."""
    return lambda model, batch: Edits(attn=Partial(_centred_attention, batch.mask, jnp.asarray(strength)))


@arguments_checked
def graph_filter(power: Number = -0.3, *, identity: Number = 0.0, linear: Number = 1.0, order: int = 3) -> Remedy:
    """GFSA with wK = `power`, w0 = `identity`, w1 = `linear` and K = `order` in every layer."""
    weights = (power, identity, linear, order)
    return lambda model, batch: Edits(attn=Partial(_graph_filter, batch.mask, *map(jnp.asarray, weights)))


@arguments_checked
def temp_scale(temperature: Number = 0.8) -> Remedy:
    """TempScale in every layer, one temperature, [] or one per head [N]."""
    return lambda model, batch: Edits(attn_logits=Partial(_temp_scale, jnp.asarray(temperature)))


@arguments_checked
def length_scale(reference: Number = 32) -> Remedy:
    """Scores times log n / log n0 in every layer, n0 = `reference`."""
    return lambda model, batch: Edits(attn_logits=Partial(_length_scale, batch.mask, jnp.asarray(reference)))


@arguments_checked
def attention_dropout(key: PRNGKeyArray, rate: Number = 0.1) -> Remedy:
    """Dropout on attention weights, rate 0.1 as in BERT's training, another draw in every layer."""
    return lambda model, batch: Edits(attn=Partial(_attention_dropout, key, jnp.asarray(rate)))


@arguments_checked
def resgcn(*, relu: bool = True) -> Remedy:
    """ResGCN in the attention's place, in every layer: X + ReLU(sum over heads of D^(-1/2) A D^(-1/2) X W_V W_O).

    A = exp of the scores' symmetric part, the biases of values and output as they are, residual sum, norms and MLP
    untouched: what is left of the difference between a graph convolution and attention, with the weights of a BERT.
    Not a remedy; it is among them so that whatever takes a remedy, `finetune` too, takes it.

    Args:
      relu: whether the aggregate passes a ReLU; without it only the normalisation differs from attention.

    Raises:
      OptionError: of the returned function: a causal encoder, whose graph has no symmetric adjacency.

    >>> import jaxsmooth
    >>> model, tokenizer = jaxsmooth.load("tiny")
    >>> batch = tokenizer(["A film worth seeing."])
    >>> trace = jaxsmooth.encode(model, batch, edits=resgcn()(model, batch))[1]
    >>> bool(jnp.allclose(trace.attn, trace.attn.swapaxes(-1, -2)))
    True

    References: Shi et al. (2022), arXiv 2202.08625, section 3; Kipf and Welling (2017), arXiv 1609.02907.
    """

    def remedy(model: Encoder, batch: AnyBatch) -> Edits:
        if model.config.causal:
            raise OptionError("resgcn needs a graph whose edges go both ways; this encoder is causal.")
        return Edits(attn_logits=_symmetric_scores, attn=_symmetric_attention, mixed=_relu if relu else None)

    return remedy


@arguments_checked
def neutreno(strength: Number = 0.6) -> Remedy:
    """NeuTRENO with lambda = `strength` (0.6 after the paper) in every layer but the first.

    A V + lambda (V_0 - V) is computed as (A - lambda I) V + lambda V_0, so a trace shows A - lambda I as its attention,
    and of remedies that change attention those composed before it act on A alone. V_0 is what the first layer computes
    from the unedited embedding.
    """

    def remedy(model: Encoder, batch: AnyBatch) -> Edits:
        lam = jnp.asarray(strength)
        return Edits(
            attn=Partial(_neutreno_attn, lam), context=Partial(_neutreno_context, lam, first_values(model, batch))
        )

    return remedy


@arguments_checked
def feat_scale(low: Number = 0.0, high: Number = 0.3, *, convention: Literal["paper", "released"] = "paper") -> Remedy:
    """FeatScale on the attention sub-layer's output, t1 = `low` and t2 = `high`, [] or one per channel [D]."""
    edit = _fixed(_feat_scale, formula=features.feat_scale, convention=convention)
    return lambda model, batch: Edits(mixed=Partial(edit, batch.mask, jnp.asarray(low), jnp.asarray(high)))


@arguments_checked
def pair_norm(scale: Number | None = None, *, each_token: bool = False) -> Remedy:
    """PairNorm on every block's output; a `scale` of None is sqrt(D), the length of a token after a plain LayerNorm."""
    edit = _fixed(_pair_norm, formula=features.pair_norm, each_token=each_token)

    def remedy(model: Encoder, batch: AnyBatch) -> Edits:
        size = jnp.asarray(math.sqrt(model.config.width) if scale is None else scale)
        return Edits(hidden=Partial(edit, batch.mask, size))

    return remedy


@arguments_checked
def initial_residual(share: Number = 0.1) -> Remedy:
    """A share a = `share` of the (unedited) embedding output put back into every block's output."""
    return lambda model, batch: Edits(hidden=Partial(_initial_residual, embed(model, batch), jnp.asarray(share)))


@arguments_checked
def soft_decay(alpha: Number = -0.2, *, keep_largest: bool = True, last_only: bool = True) -> Remedy:
    """SoftDecay on the last block's output, as published, or on every block's."""
    edit = _fixed(_soft_decay, formula=features.soft_decay, keep_largest=keep_largest)

    def remedy(model: Encoder, batch: AnyBatch) -> Edits:
        first = jnp.int32(model.config.layers - 1 if last_only else 0)
        return Edits(hidden=Partial(edit, batch.mask, jnp.asarray(alpha), first))

    return remedy


@arguments_checked
def residual_scaling(factor: Number | None = None) -> Remedy:
    """Both sub-layers' outputs times a factor before they are added; None is 1/sqrt(L), as after Noci et al. (2022)."""

    def remedy(model: Encoder, batch: AnyBatch) -> Edits:
        size = jnp.asarray(1 / math.sqrt(model.config.layers) if factor is None else factor)
        return Edits(mixed=Partial(_scale_branch, size), mlp=Partial(_scale_branch, size))

    return remedy


@arguments_checked
def combine(*several: Remedy) -> Remedy:
    """All of them in one; where two change the same site, the first acts first.

    Raises:
      OptionError: something that is no remedy.

    >>> import jaxsmooth
    >>> model, tokenizer = jaxsmooth.load("tiny")
    >>> batch = tokenizer(["Dull."])
    >>> edits = combine(attn_scale(0.3), contranorm(0.1))(model, batch)
    >>> edits.attn is not None, edits.pre_attn is not None
    (True, True)
    """
    for one in several:
        if not takes(one, 2):
            raise OptionError(
                f"combine takes remedies, functions (model, batch) -> Edits, as contranorm(0.1); got {one!r}. By name "
                "they are read by mitigations.parse_remedies."
            )
    return lambda model, batch: compose(*(one(model, batch) for one in several))


@arguments_checked
def first_values(model: Encoder, batch: AnyBatch) -> Array:
    """V_0, the values of the first block on the embedding output, [B N S H]; one block is run, in any family.

    >>> import jaxsmooth
    >>> model, tokenizer = jaxsmooth.load("tiny")
    >>> batch = tokenizer(["Dull."])
    >>> _, values = jaxsmooth.encode(model, batch, collect=lambda trace: trace.value)
    >>> bool((first_values(model, batch) == values[0]).all())
    True
    """
    first = jax.tree.map(lambda leaf: leaf[:1], model.blocks)
    one = dataclasses.replace(model, blocks=first, config=dataclasses.replace(model.config, layers=1))
    return encode(one, batch, collect=_value)[1][0]


def _value(trace: BlockTrace) -> Array:
    return trace.value


@functools.cache
def _fixed(edit: Callable, *, formula: Callable, **options: Any) -> Callable:
    """The edit with its formula's options fixed: the same object for the same options, so the same compiled program."""
    return functools.partial(edit, functools.partial(formula, **options))


# Edits: arrays first, then (layer, value); module-level, so that two remedies of one kind are one compiled program.


def _contranorm(formula: Callable, mask: Array, s: Array, temperature: Array, layer: Array, x: Array) -> Array:
    return formula(x, mask, s, temperature=temperature)


def _contranorm_but_last(
    formula: Callable, last: Array, mask: Array, s: Array, temperature: Array, layer: Array, x: Array
) -> Array:
    return jnp.where(layer == last, x, formula(x, mask, s, temperature=temperature))


def _contranorm_joined(formula: Callable, mask: Array, s: Array, temperature: Array, layer: Array, x: Array) -> Array:
    """On the heads side by side, [B T (N H)], as the output projection reads them."""
    b, n, t, h = x.shape
    joined = x.transpose(0, 2, 1, 3).reshape(b, t, n * h)
    return formula(joined, mask, s, temperature=temperature).reshape(b, t, n, h).transpose(0, 2, 1, 3)


def _attn_scale(mask: Array, strength: Array, layer: Array, attn: Array) -> Array:
    return attention.attn_scale(attn, mask, strength)


def _centred_attention(mask: Array, strength: Array, layer: Array, attn: Array) -> Array:
    return attention.centred_attention(attn, mask, strength)


def _graph_filter(
    mask: Array, power: Array, identity: Array, linear: Array, order: Array, layer: Array, attn: Array
) -> Array:
    return attention.graph_filter(attn, mask, power, identity=identity, linear=linear, order=order)


def _temp_scale(temperature: Array, layer: Array, logits: Array) -> Array:
    return attention.temp_scale(logits, temperature)


def _length_scale(mask: Array, reference: Array, layer: Array, logits: Array) -> Array:
    return attention.length_scale(logits, mask, reference)


def _attention_dropout(key: PRNGKeyArray, rate: Array, layer: Array, attn: Array) -> Array:
    return attention.attention_dropout(attn, jax.random.fold_in(key, layer), rate)


def _symmetric_scores(layer: Array, logits: Array) -> Array:
    return attention.symmetric_scores(logits)


def _symmetric_attention(layer: Array, attn: Array) -> Array:
    return attention.symmetric_attention(attn)


def _relu(layer: Array, mixed: Array) -> Array:
    return jax.nn.relu(mixed)


def _neutreno_attn(strength: Array, layer: Array, attn: Array) -> Array:
    eye = jnp.eye(attn.shape[-2], attn.shape[-1], dtype=attn.dtype)
    return jnp.where(layer > 0, attn - strength.astype(attn.dtype) * eye[None, None], attn)


def _neutreno_context(strength: Array, first: Array, layer: Array, context: Array) -> Array:
    return jnp.where(layer > 0, context + strength.astype(context.dtype) * first.astype(context.dtype), context)


def _feat_scale(formula: Callable, mask: Array, low: Array, high: Array, layer: Array, x: Array) -> Array:
    return formula(x, mask, low, high)


def _pair_norm(formula: Callable, mask: Array, scale: Array, layer: Array, x: Array) -> Array:
    return formula(x, mask, scale)


def _initial_residual(first: Array, share: Array, layer: Array, x: Array) -> Array:
    return features.initial_residual(x, first.astype(x.dtype), share)


def _soft_decay(formula: Callable, mask: Array, alpha: Array, first: Array, layer: Array, x: Array) -> Array:
    # A conditional, not a choice between two values: the decomposition is the costly part.
    return jax.lax.cond(layer >= first, lambda: formula(x, mask, alpha), lambda: x)


def _scale_branch(factor: Array, layer: Array, branch: Array) -> Array:
    return features.scale_branch(branch, factor)
