"""Task heads: what turns the encoder's hidden states into logits, as pytrees of parameters and functions over them.

The maths is that of Hugging Face's BertFor... classes. Sentence-level heads read the encoder's own pooler,
tanh(W h_[CLS] + b), so an encoder without one gets it from `with_pooler`; dropout is the caller's.
"""

import dataclasses
import functools
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ..errors import ConfigError
from .attention import add_bias
from .config import EncoderConfig
from .encoder import ACTIVATION_FUNCTIONS, normalise
from .params import Encoder, LayerNorm, Linear

Kind = Literal["classification", "regression", "tokens", "span", "choice", "masked_lm"]
KINDS: tuple[str, ...] = get_args(Kind)
POOLED = ("classification", "regression", "choice")
"""Kinds that read one vector per sentence; the others read every token."""


@nnx.dataclass
class Head(nnx.Pytree):
    """A task head. `out` maps D to the outputs of one sentence or token.

    The masked-LM head has `dense` and `norm` before it, and its `out.kernel` is [D V], or None where it is tied to
    the word table.
    """

    out: Linear = nnx.data()
    dense: Linear | None = nnx.data(default=None)
    norm: LayerNorm | None = nnx.data(default=None)
    kind: str = nnx.static(default="classification")


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
      labels: classes, or numbers to predict; span, choice and masked LM know theirs (2, 1, `config.vocab`).
      tied: a masked-LM head decodes with the word table instead of a kernel of its own.
      dtype: floating dtype of every array.

    Raises:
      ConfigError: an unknown kind, fewer than one label, or a tied decoder over tables of another width.

    >>> import jax
    >>> config = EncoderConfig(vocab=100, width=48, layers=2, heads=4, mlp_width=96)
    >>> init_head(config, "classification", jax.random.key(0), labels=3).out.kernel.shape
    (48, 3)
    """
    if kind not in KINDS:
        raise ConfigError(f"a head's kind must be one of {KINDS}; got {kind!r}.")
    if labels < 1:
        raise ConfigError(f"a head needs at least one label; got {labels}.")
    outputs = {"span": 2, "choice": 1, "masked_lm": config.vocab}.get(kind, labels)
    draw = functools.partial(_linear, config, dtype=dtype)
    out_key, dense_key = jax.random.split(key)
    if kind != "masked_lm":
        return Head(out=draw(out_key, config.width, outputs), kind=kind)
    if tied and config.table_width != config.width:
        raise ConfigError(
            f"a tied decoder needs a word table of the hidden width {config.width}; got {config.table_width}."
        )
    norm = LayerNorm(scale=jnp.ones(config.width, dtype), bias=jnp.zeros(config.width, dtype))
    out = draw(out_key, config.width, outputs)
    if tied:
        out = Linear(kernel=None, bias=out.bias)  # type: ignore[arg-type]  # only a tied decoder has no kernel
    return Head(out=out, dense=draw(dense_key, config.width, config.width), norm=norm, kind=kind)


def with_pooler(model: Encoder, key: PRNGKeyArray) -> Encoder:
    """The encoder itself if it has a pooler, else the encoder with a freshly drawn one."""
    if model.pooler is not None:
        return model
    dtype = jax.tree.leaves(model)[0].dtype
    return dataclasses.replace(model, pooler=_linear(model.config, key, model.config.width, model.config.width, dtype))


def pool(model: Encoder, hidden: Float[Array, "B T D"]) -> Float[Array, "B D"]:
    """The pooler: f(W h + b) of the first token, as BertPooler, whose f is tanh.

    Raises:
      ConfigError: the encoder has no pooler.
    """
    if model.pooler is None:
        raise ConfigError("the encoder has no pooler; with_pooler adds one.")
    activation = {"tanh": jnp.tanh, **ACTIVATION_FUNCTIONS}[model.config.pooler_activation]
    return activation(_affine(model.pooler, hidden[:, :1]))[:, 0]


def read_sentences(head: Head, pooled: Float[Array, "B D"]) -> Float[Array, "B K"]:
    """Logits of a sentence-level head from pooled vectors; a multiple-choice head scores each choice, [B*C 1]."""
    return _affine(head.out, pooled[:, None])[:, 0]


def read_tokens(head: Head, hidden: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, "B T K"]:
    """Logits of every token. A span head's are the lowest finite number on padding, so no span starts there.

    Args:
      head: of kind "tokens" or "span".
      hidden: [B T D].
      mask: True on real tokens, [B T].
    """
    logits = _affine(head.out, hidden)
    if head.kind != "span":
        return logits
    return jnp.where(mask[:, :, None], logits, jnp.finfo(logits.dtype).min)


def read_vocabulary(head: Head, model: Encoder, hidden: Float[Array, "*N D"]) -> Float[Array, "*N V"]:
    """Masked-LM logits, LN(f(W h + b)) E^T + c, of any set of tokens.

    The norm keeps BERT's epsilon; the activation is the encoder's.

    Args:
      head: of kind "masked_lm".
      model: the encoder, whose word table a tied head decodes with.
      hidden: [..., D]; give only the masked tokens to save the large product.

    References: Devlin et al. (2019), arXiv 1810.04805, and its released code.
    """
    assert head.dense is not None
    assert head.norm is not None
    wide = hidden.reshape(1, -1, hidden.shape[-1])
    wide = ACTIVATION_FUNCTIONS[model.config.activation](_affine(head.dense, wide))
    wide = normalise(dataclasses.replace(model.config, norm="layernorm"), head.norm, wide)
    kernel = model.embeddings.word.T if head.out.kernel is None else head.out.kernel
    return add_bias(wide @ kernel, head.out.bias).reshape(*hidden.shape[:-1], kernel.shape[1])


def apply_head(
    head: Head, model: Encoder, hidden: Float[Array, "B T D"], mask: Bool[Array, "B T"], *, choices: int = 1
) -> Float[Array, "..."]:
    """Everything from hidden states to logits, nothing dropped.

    Args:
      head: any head.
      model: the encoder that made `hidden`.
      hidden: last or fused hidden states, [B T D].
      mask: True on real tokens, [B T].
      choices: C, how many rows of a multiple-choice batch belong together.

    Returns:
      [B K] for classification and regression, [B/C C] for choice, [B T K] for the others.

    >>> import jax, jaxsmooth
    >>> model, tokenizer = jaxsmooth.load("tiny")
    >>> head = init_head(model.config, "span", jax.random.key(0))
    >>> batch = tokenizer(["A film worth seeing.", "Dull."])
    >>> apply_head(head, model, jaxsmooth.embed(model, batch), batch.mask).shape
    (2, 32, 2)
    """
    if head.kind in POOLED:
        logits = read_sentences(head, pool(model, hidden))
        return logits.reshape(-1, choices) if head.kind == "choice" else logits
    if head.kind == "masked_lm":
        return read_vocabulary(head, model, hidden)
    return read_tokens(head, hidden, mask)


def _affine(linear: Linear, x: Float[Array, "B T D"]) -> Float[Array, "B T K"]:
    return add_bias(x @ linear.kernel, linear.bias)


def _linear(config: EncoderConfig, key: Array, inputs: int, outputs: int, dtype: DTypeLike) -> Linear:
    kernel = jnp.asarray(config.std_init, dtype) * jax.random.normal(key, (inputs, outputs), dtype)
    return Linear(kernel=kernel, bias=jnp.zeros(outputs, dtype))
