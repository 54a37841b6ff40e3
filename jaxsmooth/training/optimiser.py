"""AdamW as BERT is fine-tuned with it: warm-up and decay, no decay of biases and norms, layer-wise rates."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

if TYPE_CHECKING:
    from .config import FinetuneConfig

UNDECAYED = ("bias", "scale")
"""Last parts of the names of parameters that weight decay leaves alone: biases and gains of norms."""


def learning_rate(config: "FinetuneConfig", steps: int) -> Callable[[Array], Array]:
    """The rate at step 0, 1, ...: linear warm-up from 0, then linear or cosine decay to 0, or constant.

    Step t of a linear warm-up over w steps has rate * t / w, as Hugging Face's schedules.

    Args:
      config: `learning_rate`, `warmup` (a share of the steps) and `schedule`.
      steps: of the whole run.
    """
    warm = round(config.warmup * steps)
    rate, rest = config.learning_rate, max(1, steps - warm)
    decays = {
        "linear": optax.linear_schedule(rate, 0.0, rest),
        "cosine": optax.cosine_decay_schedule(rate, rest),
        "constant": optax.constant_schedule(rate),
    }
    decay = decays[config.schedule]
    return _loose(optax.join_schedules([optax.linear_schedule(0.0, rate, warm), decay], [warm]) if warm else decay)


def make_optimiser(config: "FinetuneConfig", model: Any, steps: int) -> optax.GradientTransformation:
    """Clipping by global norm, Adam, decoupled weight decay, layer-wise rates, the schedule.

    Args:
      config: the run's.
      model: the `TaskModel`, or its shapes.
      steps: of the whole run.

    References: Loshchilov and Hutter (2019), arXiv 1711.05101; Clark et al. (2020), arXiv 2003.10555, for rates
    that fall with depth.
    """
    rates = layer_rates(model, config.layer_decay) if config.layer_decay != 1 else None
    chain = optax.chain(
        optax.clip_by_global_norm(config.clip) if config.clip else optax.identity(),
        optax.scale_by_adam(b1=config.beta1, b2=config.beta2, eps=config.adam_eps),
        optax.add_decayed_weights(config.weight_decay, mask=decayed(model))
        if config.weight_decay
        else optax.identity(),
        _multiply_by(rates) if rates is not None else optax.identity(),
        optax.scale_by_learning_rate(learning_rate(config, steps)),
    )
    return optax.GradientTransformation(_loose(chain.init), _loose(chain.update))


def _loose(function: Callable[..., Any]) -> Callable[..., Any]:
    """Optax raises Python floats to integer powers, which jax's strict promotion of dtypes forbids."""

    def run(*arguments: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            return function(*arguments)

    return run


def decayed(model: Any) -> Any:
    """True at every parameter that weight decay acts on."""
    return jax.tree_util.tree_map_with_path(lambda path, _: name_of(path[-1]) not in UNDECAYED, model)


def layer_rates(model: Any, decay: float) -> Any:
    """What each parameter's rate is multiplied by: 1 at the head, decay^(L - l) in block l, decay^(L + 1) below.

    Blocks are stacked, so theirs are vectors over the layer axis, with axes of length 1 behind it.
    """
    layers = model.encoder.config.layers

    def rate(path: tuple, leaf: Any) -> Any:
        names = [name_of(part) for part in path]
        if names[:2] == ["encoder", "blocks"]:
            depth = jnp.arange(leaf.shape[0], dtype=jnp.float32)
            return (decay ** (layers - depth)).reshape(-1, *[1] * (len(leaf.shape) - 1))
        below = names[0] == "encoder" and names[1] in ("embeddings", "relative")
        return jnp.asarray(decay ** (layers + 1) if below else 1.0, jnp.float32)

    return jax.tree_util.tree_map_with_path(rate, model)


def _multiply_by(rates: Any) -> optax.GradientTransformation:
    def scaled(update: Array, rate: Array) -> Array:
        return update * jnp.broadcast_to(rate, update.shape).astype(update.dtype)

    return optax.stateless(lambda updates, _: jax.tree.map(scaled, updates, rates))


def name_of(part: Any) -> str:
    """The field's name in one step of a leaf's path."""
    return str(part).strip(".[]'\"")
