"""AdamW as BERT is fine-tuned with it: warm-up and decay, no decay of biases and norms, layer-wise rates."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from ..types import map_named
from .config import FinetuneConfig

UNDECAYED = ("bias", "scale")
"""Last parts of the names of parameters that weight decay leaves alone: biases and gains of norms."""


def learning_rate(config: FinetuneConfig, steps: int) -> Callable[[Array], Array]:
    """The rate at step 0, 1, ...: linear warm-up from 0, then linear or cosine decay to 0, or constant.

    Args:
      config: `learning_rate`, `warmup` and `schedule`.
      steps: of the whole run.

    Returns:
      Step -> rate. Step t of a linear warm-up over w steps has rate * t / w, as Hugging Face's schedules.

    >>> rate = learning_rate(FinetuneConfig(learning_rate=1.0, warmup=0.5), steps=4)
    >>> [float(rate(jnp.int32(step))) for step in range(4)]
    [0.0, 0.5, 1.0, 0.5]
    """
    warm = warmup_steps(config.warmup, steps)
    rate, rest = config.learning_rate, max(1, steps - warm)
    decays = {
        "linear": optax.linear_schedule(rate, 0.0, rest),
        "cosine": optax.cosine_decay_schedule(rate, rest),
        "constant": optax.constant_schedule(rate),
    }
    decay = decays[config.schedule]
    return _promoting(optax.join_schedules([optax.linear_schedule(0.0, rate, warm), decay], [warm]) if warm else decay)


def warmup_steps(warmup: float | int, steps: int) -> int:
    """How many steps the rate rises for, by the rule of transformers' `TrainingArguments.get_warmup_steps`.

    Args:
      warmup: below 1 a share of the steps, rounded up; from 1 on their number.
      steps: of the whole run.

    >>> warmup_steps(0.1, 24), warmup_steps(500, 24), warmup_steps(0.0, 24)
    (3, 500, 0)
    """
    return int(warmup) if warmup >= 1 else math.ceil(steps * warmup)


def make_optimiser(config: FinetuneConfig, model: Any, steps: int) -> optax.GradientTransformation:
    """Clipping by global norm, Adam, decoupled weight decay, layer-wise rates, the schedule.

    Args:
      config: the run's.
      model: the `TaskModel`, or its shapes.
      steps: of the whole run.

    Returns:
      What optax calls a gradient transformation; its state is a pytree like the model's parameters, twice.

    References: Loshchilov and Hutter (2019), arXiv 1711.05101; Clark et al. (2020), arXiv 2003.10555, for rates
    that fall with depth.
    """
    rates = layer_rates(model, config.layer_decay) if config.layer_decay != 1 else None
    chain = optax.chain(
        _clip(config.clip) if config.clip else optax.identity(),
        optax.scale_by_adam(b1=config.beta1, b2=config.beta2, eps=config.adam_eps),
        optax.add_decayed_weights(config.weight_decay, mask=decayed(model))
        if config.weight_decay
        else optax.identity(),
        _multiply_by(rates) if rates is not None else optax.identity(),
        optax.scale_by_learning_rate(learning_rate(config, steps)),
        optax.masked(optax.set_to_zero(), map_named(lambda name, _: frozen(name), model))
        if config.freeze
        else optax.identity(),
    )
    return optax.GradientTransformation(_promoting(chain.init), _promoting(chain.update))


def _clip(most: float) -> optax.GradientTransformation:
    """Gradients scaled down to the global norm `most` if theirs is larger; else as they are.

    `optax.clip_by_global_norm` divides every gradient by its norm, which is one more pass over all of them.
    """

    def clipped(gradient: Any, _: Any) -> Any:
        norm = optax.tree.norm(gradient)
        factor = jnp.where(norm < most, 1, most / norm)
        return jax.tree.map(lambda leaf: leaf * factor.astype(leaf.dtype), gradient)

    return optax.stateless(clipped)


def _promoting(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function under standard promotion: optax raises Python floats to integer powers, which strict forbids."""

    def run(*arguments: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            return function(*arguments)

    return run


def decayed(model: Any) -> Any:
    """Which parameters weight decay acts on.

    Args:
      model: the `TaskModel`, or its shapes.

    Returns:
      The same tree, True at kernels and embedding tables, False at biases and gains.
    """
    return map_named(lambda name, _: name.rpartition(".")[2] not in UNDECAYED, model)


def frozen(name: str) -> bool:
    """Whether a parameter keeps its value in a run with `freeze`: those of the encoder below its pooler.

    Args:
      name: its dotted path in the `TaskModel`.

    >>> frozen("encoder.blocks.up.kernel"), frozen("encoder.pooler.kernel"), frozen("head.out.bias")
    (True, False, False)
    """
    return name.startswith("encoder.") and not name.startswith("encoder.pooler.")


def layer_rates(model: Any, decay: float) -> Any:
    """What each parameter's rate is multiplied by: 1 at the head, decay^(L - l) in block l, decay^(L + 1) below.

    Args:
      model: the `TaskModel`, or its shapes.
      decay: each layer's rate over that of the layer above it.

    Returns:
      The same tree of float32 factors. Blocks are stacked, so theirs are vectors over the layer axis, with axes of
      length 1 behind it.
    """
    layers = model.encoder.config.layers

    def rate(name: str, leaf: Any) -> Array:
        if name.startswith("encoder.blocks."):
            depth = jnp.arange(leaf.shape[0], dtype=jnp.float32)
            return (decay ** (layers - depth)).reshape(-1, *[1] * (len(leaf.shape) - 1))
        below = name.startswith(("encoder.embeddings.", "encoder.relative"))
        return jnp.asarray(decay ** (layers + 1) if below else 1.0, jnp.float32)

    return map_named(rate, model)


def _multiply_by(rates: Any) -> optax.GradientTransformation:
    def scaled(update: Array, rate: Array) -> Array:
        return update * jnp.broadcast_to(rate, update.shape).astype(update.dtype)

    return optax.stateless(lambda updates, _: jax.tree.map(scaled, updates, rates))
