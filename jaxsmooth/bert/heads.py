"""Task heads: what turns the encoder's hidden states into logits, as pytrees of parameters and functions over them.

The maths is that of Hugging Face's classes. BERT's sentence-level heads read the encoder's own pooler,
tanh(W h_[CLS] + b), so an encoder without one gets it from `with_pooler`; `FORMS` lists what other families read.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ..activations import ACTIVATIONS
from ..errors import ConfigError
from ..linalg.precision import matmul
from ..meshes import on_any_mesh
from ..types import LayerNorm, Linear
from .attention import add_bias
from .block import normalise
from .config import EncoderConfig
from .params import Encoder

Kind = Literal["classification", "regression", "tokens", "span", "choice", "masked_lm", "causal_lm"]
KINDS: tuple[str, ...] = get_args(Kind)
POOLED = ("classification", "regression", "choice")
"""Kinds that read one vector per sentence; the others read every token."""
LANGUAGE = ("masked_lm", "causal_lm")
"""Kinds whose outputs are the vocabulary's words."""


@nnx.dataclass
class Head(nnx.Pytree):
    """A task head. `out` maps what it reads to the outputs of one sentence or token.

    Attributes:
      out: kernel [D K]; a decoder's is [E V], or None where it is tied to the word table.
      dense, norm: norm(f(W h + b)) before `out`, in a masked-LM head and in all of ModernBERT's.
      kind: what the head does, one of `KINDS`.
      reads: which vector of a sentence a sentence-level head reads, a key of `READERS`.
      activation: f; "" for the encoder's.
    """

    out: Linear = nnx.data()
    dense: Linear | None = nnx.data(default=None)
    norm: LayerNorm | None = nnx.data(default=None)
    kind: Kind = nnx.static(default="classification")
    reads: str = nnx.static(default="pooler")
    activation: str = nnx.static(default="")


class Form(NamedTuple):
    """How the heads of a family are built.

    Attributes:
      reads, activation: as in `Head`.
      dense: the kinds with a dense layer and a norm before the output.
      dense_bias: whether that dense layer has a bias.
      free_biases: whether checkpoints of the family choose the biases of that layer and of a decoder.
      unbiased: the kinds whose output has no bias.
    """

    reads: str = "pooler"
    activation: str = ""
    dense: tuple[str, ...] = ("masked_lm",)
    dense_bias: bool = True
    free_biases: bool = False
    unbiased: tuple[str, ...] = ("causal_lm",)


FORMS: dict[str, Form] = {
    **dict.fromkeys(("bert", "albert", "distilbert"), Form()),
    **dict.fromkeys(("roberta", "xlm-roberta", "camembert", "mpnet", "electra"), Form(activation="gelu")),
    "modernbert": Form(reads="first", activation="gelu", dense=KINDS, dense_bias=False, free_biases=True),
    **dict.fromkeys(("vit", "deit"), Form(reads="first")),
    "gpt2": Form(reads="last", unbiased=("classification", "regression", "causal_lm")),
}
"""The form of every family, by its name in `bert.config.FAMILY_NAMES`."""


def init_head(
    config: EncoderConfig,
    kind: Kind,
    key: PRNGKeyArray,
    *,
    labels: int = 2,
    tied: bool = True,
    dtype: DTypeLike = jnp.float32,
) -> Head:
    """A freshly drawn head: kernels normal with std `config.std_init`, zero biases, as Hugging Face's.

    Args:
      config: the encoder's.
      kind: what the head does, one of `KINDS`.
      key: a `jax.random.key`.
      labels: classes, or numbers to predict; ignored for span (2), choice (1) and language heads (`config.vocab`).
      tied: a language head decodes with the word table instead of a kernel of its own.
      dtype: floating dtype of every array.

    Returns:
      A `Head`; its `out.kernel` is [D K], of a language head [E V] or None.

    Raises:
      ConfigError: an unknown kind, fewer than one label, or a causal LM over tables of another width.

    >>> import jax
    >>> config = EncoderConfig(vocab=100, width=48, layers=2, heads=4, mlp_width=96)
    >>> init_head(config, "classification", jax.random.key(0), labels=3).out.kernel.shape
    (48, 3)
    """
    if kind not in KINDS:
        raise ConfigError(f"a head's kind must be one of {KINDS}; got {kind!r}.")
    if labels < 1:
        raise ConfigError(f"a head needs at least one label; got {labels}.")
    form = FORMS[config.family]
    outputs = {"span": 2, "choice": 1, **dict.fromkeys(LANGUAGE, config.vocab)}.get(kind, labels)
    read = config.table_width if kind in LANGUAGE else config.width
    has_dense = kind in form.dense
    if read != config.width and not has_dense:
        raise ConfigError(f"a causal LM needs a word table of the hidden width {config.width}; got {read}.")
    draw = functools.partial(_linear, config, dtype=dtype)
    out_key, dense_key = jax.random.split(key)
    out = draw(out_key, read, outputs, bias=kind not in form.unbiased)
    dense = draw(dense_key, config.width, read, bias=form.dense_bias) if has_dense else None
    shift = jnp.zeros(read, dtype) if config.norm_bias else None
    return Head(
        out=tied_output(out.bias) if tied and kind in LANGUAGE else out,
        dense=dense,
        norm=LayerNorm(scale=jnp.ones(read, dtype), bias=shift) if has_dense else None,
        kind=kind,
        reads=form.reads,
        activation=form.activation,
    )


def tied_output(bias: Array | None) -> Linear:
    """The output of a language head that decodes with the word table: no kernel of its own."""
    return Linear(kernel=None, bias=bias)  # type: ignore[arg-type]  # every other linear map has a kernel


def with_pooler(model: Encoder, key: PRNGKeyArray) -> Encoder:
    """The encoder itself if it has a pooler, else the encoder with a freshly drawn one.

    Args:
      model: the encoder.
      key: a `jax.random.key`.

    Returns:
      An `Encoder` with a pooler, D -> D.

    >>> import jax, jaxsmooth
    >>> model = jaxsmooth.load("tiny")[0]
    >>> with_pooler(dataclasses.replace(model, pooler=None), jax.random.key(0)).pooler.kernel.shape
    (64, 64)
    """
    if model.pooler is not None:
        return model
    dtype = jax.tree.leaves(model)[0].dtype
    return dataclasses.replace(model, pooler=_linear(model.config, key, model.config.width, model.config.width, dtype))


@on_any_mesh(lambda model, hidden: hidden)
def pool(model: Encoder, hidden: Float[Array, "B T D"]) -> Float[Array, "B D"]:
    """The pooler: f(W h + b) of the first token, as BertPooler, whose f is tanh.

    Args:
      model: the encoder.
      hidden: its last hidden states, [B T D].

    Returns:
      [B D].

    Raises:
      ConfigError: the encoder has no pooler.
    """
    if model.pooler is None:
        raise ConfigError("the encoder has no pooler; with_pooler adds one.")
    name = model.config.pooler_activation
    function = jnp.tanh if name == "tanh" else ACTIVATIONS[name].function
    return function(_affine(model.pooler, hidden[:, :1]))[:, 0]


def _pooled(model: Encoder, hidden: Array, mask: Array) -> Array:
    return pool(model, hidden)


def _first(model: Encoder, hidden: Array, mask: Array) -> Array:
    return hidden[:, 0]


def _last(model: Encoder, hidden: Array, mask: Array) -> Array:
    place = jnp.where(mask, jnp.arange(mask.shape[1])[None], 0).max(axis=1)
    return jnp.take_along_axis(hidden, place[:, None, None], axis=1)[:, 0]


def _mean(model: Encoder, hidden: Array, mask: Array) -> Array:
    real = mask[:, :, None]
    count = jnp.maximum(mask.sum(axis=1, keepdims=True), 1).astype(hidden.dtype)
    return jnp.where(real, hidden, 0).sum(axis=1) / count


READERS: dict[str, Callable[[Encoder, Array, Array], Array]] = {
    "pooler": _pooled,
    "first": _first,
    "last": _last,
    "mean": _mean,
}
"""What a sentence-level head reads: the pooler, the first or the last real token, or the mean over real tokens."""


def _transformed(head: Head, model: Encoder, hidden: Array) -> Array:
    """norm(f(W h + b)), where the head has these; the norm keeps the encoder's epsilon."""
    if head.dense is None or head.norm is None:
        return hidden
    function = ACTIVATIONS[head.activation or model.config.activation].function
    wide = function(_affine(head.dense, hidden))
    return normalise(dataclasses.replace(model.config, norm="layernorm"), head.norm, wide)


@on_any_mesh(lambda head, model, hidden: hidden)
def read_vocabulary(head: Head, model: Encoder, hidden: Float[Array, "*N D"]) -> Float[Array, "*N V"]:
    """Logits of a language head, LN(f(W h + b)) E^T + c, of any set of tokens; a causal one's are h E^T.

    Args:
      head: of a kind in `LANGUAGE`.
      model: the encoder, whose word table a tied head decodes with.
      hidden: [..., D]; give only the masked tokens to save the large product.

    Returns:
      [..., V].

    References: Devlin et al. (2019), arXiv 1810.04805, and its released code.
    """
    wide = _transformed(head, model, hidden.reshape(1, -1, hidden.shape[-1]))
    kernel = model.embeddings.word.T if head.out.kernel is None else head.out.kernel
    return add_bias(matmul(wide, kernel), head.out.bias).reshape(*hidden.shape[:-1], kernel.shape[1])


@on_any_mesh(lambda head, model, hidden, mask, **options: mask)
def apply_head(
    head: Head,
    model: Encoder,
    hidden: Float[Array, "B T D"],
    mask: Bool[Array, "B T"],
    *,
    choices: int = 1,
    drop: Callable[[Array], Array] = lambda features: features,
) -> Float[Array, "..."]:
    """Everything from hidden states to logits.

    Args:
      head: any head.
      model: the encoder that made `hidden`.
      hidden: last or fused hidden states, [B T D].
      mask: True on real tokens, [B T].
      choices: C, how many rows of a multiple-choice batch belong together.
      drop: the dropout before the output layer, which transformers' span and language heads do not have.

    Returns:
      [B K] for classification and regression, [B/C C] for choice, [B T K] for the others. A span head's are the lowest
      finite number on padding.

    Raises:
      ConfigError: the head reads the pooler, which the encoder lacks.

    >>> import jax, jaxsmooth
    >>> model, tokenizer = jaxsmooth.load("tiny")
    >>> head = init_head(model.config, "span", jax.random.key(0))
    >>> batch = tokenizer(["A film worth seeing.", "Dull."])
    >>> apply_head(head, model, jaxsmooth.embed(model, batch), batch.mask).shape
    (2, 32, 2)
    """
    if head.kind in LANGUAGE:
        return read_vocabulary(head, model, hidden)
    if head.kind in POOLED:
        vectors = READERS[head.reads](model, hidden, mask)
        features = drop(_transformed(head, model, vectors[:, None])[:, 0])
        logits = _affine(head.out, features[:, None])[:, 0]
        return logits.reshape(-1, choices) if head.kind == "choice" else logits
    features = _transformed(head, model, hidden)
    if head.kind == "tokens":
        return _affine(head.out, drop(features))
    logits = _affine(head.out, features)
    # No span starts on padding.
    return jnp.where(mask[:, :, None], logits, jnp.finfo(logits.dtype).min)


def _affine(linear: Linear, x: Float[Array, "B T D"]) -> Float[Array, "B T K"]:
    return add_bias(matmul(x, linear.kernel), linear.bias)


def _linear(
    config: EncoderConfig, key: Array, inputs: int, outputs: int, dtype: DTypeLike, *, bias: bool = True
) -> Linear:
    kernel = jnp.asarray(config.std_init, dtype) * jax.random.normal(key, (inputs, outputs), dtype)
    return Linear(kernel=kernel, bias=jnp.zeros(outputs, dtype) if bias else None)
