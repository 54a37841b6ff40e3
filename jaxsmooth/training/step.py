"""One training step as a pure function of a state and a batch."""

import contextlib
import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt32

from ..bert.kernels import Kernel
from ..bert.params import Encoder
from ..errors import ConfigError
from ..types import Batch, Block, Edits, compose, map_named
from .config import FinetuneConfig, shared_blocks
from .data.tasks import Task, TrainBatch
from .dropout import dropout, generator
from .model import TaskModel, cast_floats, task_logits
from .objectives.losses import label_count, loss_sum
from .optimiser import frozen

REMAT: dict[str, Callable[..., bool] | bool] = {
    "auto": False,  # not resolved, so nothing is differentiated
    "none": False,
    "full": True,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}

Remedy = Callable[[Any, Any], Edits]


@nnx.dataclass
class TrainState(nnx.Pytree):
    """Everything a run needs to go on.

    Attributes:
      step: how many were done.
      model: the parameters.
      optimiser: optax's state.
      key: the words of the key that dropout's masks are drawn from.
      ema: exponential moving average of the parameters, None where none is kept.
    """

    step: Int[Array, ""] = nnx.data()
    model: TaskModel = nnx.data()
    optimiser: Any = nnx.data()
    key: UInt32[Array, " W"] = nnx.data()
    ema: TaskModel | None = nnx.data(default=None)


@nnx.dataclass
class StepMetrics(nnx.Pytree):
    """What a step reports.

    Attributes:
      loss: mean over the labels.
      gradient_norm: global norm before clipping.
      tokens: real ones, of records with weight.
    """

    loss: Float[Array, ""] = nnx.data()
    gradient_norm: Float[Array, ""] = nnx.data()
    tokens: Int[Array, ""] = nnx.data()


def init_state(model: TaskModel, optimiser: optax.GradientTransformation, config: FinetuneConfig) -> TrainState:
    """The state before the first step. The model's arrays become the state's own: a step may overwrite them.

    Args:
      model: the parameters.
      optimiser: from `make_optimiser`.
      config: seed, generator, and whether an average is kept.
    """
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        model=model,
        optimiser=optimiser.init(model),
        key=jax.random.key_data(jax.random.key(config.seed, impl=generator(config.prng))),
        ema=jax.tree.map(jnp.copy, model) if config.ema else None,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Trainer:
    """The functions of one run, over its static parts. Hashable by identity.

    Attributes:
      task: kind and number of choices.
      config: the run's settings.
      optimiser: from `make_optimiser`.
      schedule: the learning rate by step, for the record.
      remedy: `(encoder, batch) -> Edits`, or None.
      constrain: edits that pin the shardings of hidden states, from `sharding.constraints`.
      kernel: the one that attention is left to where it can be, from `sharding.attention_kernel`; None for none.
      place: says where a block's parameters and gradients lie, from `sharding.block_placement`; None on one device.
      unroll: differentiate the blocks one after the other and not in a loop, as in `encode`; blocks that are recomputed
        stay in their loop.
    """

    task: Task
    config: FinetuneConfig
    optimiser: optax.GradientTransformation
    schedule: optax.Schedule
    remedy: Remedy | None = None
    constrain: Edits = dataclasses.field(default_factory=Edits)
    kernel: Kernel | None = None
    place: Callable[[Block], Block] | None = None
    unroll: bool = False

    def products(self) -> AbstractContextManager[Any]:
        """In which the run's float32 products have the precision it states. bfloat16 is left as fast as it is."""
        if self.config.precision == "bfloat16":
            return contextlib.nullcontext()
        return jax.default_matmul_precision(self.config.matmul_precision)

    def edits(self, encoder: Encoder, batch: Batch) -> Edits:
        """What acts on the encoder in training and in evaluation: the remedy, and attention that layers share.

        Args:
          encoder: the parameters at this step.
          batch: tokens, segments and mask.
        """
        own = self.remedy(encoder, batch) if self.remedy else Edits()
        return compose(own, Edits(shared_attn=shared_blocks(self.config.share_attention)))

    def logits(
        self, model: TaskModel, data: TrainBatch, key: PRNGKeyArray | None = None, *, unroll: bool = False
    ) -> Float[Array, "..."]:
        """Logits of a batch in the run's precision.

        Args:
          model: the parameters, in float32 or float64.
          data: the batch.
          key: of dropout; None for no dropout.
          unroll: as in `encode`.

        Returns:
          As `task_logits`.
        """
        with self.products():
            return self._logits(model, data, key, unroll)

    def _logits(
        self, model: TaskModel, data: TrainBatch, key: PRNGKeyArray | None, unroll: bool
    ) -> Float[Array, "..."]:
        if self.config.precision == "bfloat16":
            model = cast_floats(model, jnp.bfloat16)
        if self.config.freeze:
            model = map_named(lambda name, leaf: jax.lax.stop_gradient(leaf) if frozen(name) else leaf, model)
        edits, head_key = self.edits(model.encoder, data.batch), None
        if key is not None:
            key, head_key = jax.random.split(key)
            rates = {"hidden": self.config.hidden_dropout, "attention": self.config.attention_dropout}
            edits = compose(edits, dropout(key, **rates))
        return task_logits(
            model,
            data.batch,
            edits=compose(edits, self.constrain),
            choices=self.task.choices,
            places=data.labels.places if self.task.kind == "masked_lm" else None,
            remat=REMAT[self.config.remat],
            key=head_key,
            head_dropout=self.config.head_dropout,
            attention=self.kernel or "explicit",
            place=self.place,
            unroll=unroll,
        )

    def loss(self, model: TaskModel, data: TrainBatch, key: PRNGKeyArray | None = None) -> Float[Array, ""]:
        """Mean loss over the labels of a batch.

        Args:
          model: the parameters.
          data: the batch; with no label at all the loss is 0.
          key: as for `logits`.
        """
        loss = self._loss_sum(model, data, key)
        return loss / jnp.maximum(label_count(self.task.kind, data), 1).astype(loss.dtype)

    def _loss_sum(self, model: TaskModel, data: TrainBatch, key: PRNGKeyArray | None) -> Float[Array, ""]:
        unroll = self.unroll and not REMAT[self.config.remat]
        return loss_sum(self.task.kind, self.logits(model, data, key, unroll=unroll), data)

    def gradients(
        self, model: TaskModel, data: TrainBatch, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, ""], TaskModel]:
        """Mean loss and its gradient; in `config.accumulate` parts, whose sum is that of the whole batch.

        Args:
          model: the parameters.
          data: the batch.
          key: as for `logits`; each part has one of its own.

        Returns:
          The loss, and its gradient as a tree like the model.
        """
        parts = self.config.accumulate
        if parts == 1:
            return jax.value_and_grad(self.loss)(model, data, key)
        count = jnp.maximum(label_count(self.task.kind, data), 1)
        cut = jax.tree.map(lambda leaf: _interleaved(leaf, parts), data)

        def part(model: TaskModel, data: TrainBatch, key: PRNGKeyArray | None) -> Array:
            loss = self._loss_sum(model, data, key)
            return loss / count.astype(loss.dtype)

        def add(total: tuple, numbered: tuple[Array, TrainBatch]) -> tuple[tuple, None]:
            number, data = numbered
            own = None if key is None else jax.random.fold_in(key, number)
            return jax.tree.map(jnp.add, total, jax.value_and_grad(part)(model, data, own)), None

        zero = (jnp.zeros((), jax.eval_shape(self.loss, model, data, key).dtype), jax.tree.map(jnp.zeros_like, model))
        return jax.lax.scan(add, zero, (jnp.arange(parts), cut))[0]

    def step(self, state: TrainState, data: TrainBatch) -> tuple[TrainState, StepMetrics]:
        """The next state. Dropout's key is a function of the run's key and the step alone.

        Args:
          state: before the step.
          data: the batch.

        Returns:
          The state after it, and what it reports.
        """
        with self.products():
            return self._step(state, data)

    def _step(self, state: TrainState, data: TrainBatch) -> tuple[TrainState, StepMetrics]:
        config = self.config
        drops = max(config.hidden_dropout, config.attention_dropout, config.head_dropout) > 0
        root = jax.random.wrap_key_data(state.key, impl=generator(config.prng))
        key = jax.random.fold_in(root, state.step) if drops else None
        loss, gradient = self.gradients(state.model, data, key)
        updates, optimiser = self.optimiser.update(gradient, state.optimiser, state.model)
        model = optax.apply_updates(state.model, updates)
        ema = None if state.ema is None else optax.incremental_update(model, state.ema, 1 - config.ema)
        after = TrainState(step=state.step + 1, model=model, optimiser=optimiser, key=state.key, ema=ema)
        seen = data.weights.repeat(self.task.choices, total_repeat_length=data.batch.mask.shape[0])
        tokens = (data.batch.mask * (seen > 0)[:, None]).sum(dtype=jnp.int32)
        return after, StepMetrics(loss=loss, gradient_norm=optax.tree.norm(gradient), tokens=tokens)


def _interleaved(leaf: Array, parts: int) -> Array:
    """[B ...] as [parts B/parts ...], part p holding rows p, p + parts, ...: every process keeps rows of every part."""
    rows = leaf.shape[0] // parts
    return jnp.moveaxis(leaf.reshape(rows, parts, *leaf.shape[1:]), 1, 0)


def compile_step(trainer: Trainer, **options: Any) -> jax.stages.Wrapped:
    """`trainer.step`, jitted; the old state's memory is reused for the new one.

    Args:
      trainer: the functions.
      options: of `jax.jit`.
    """
    effort = compile_options(trainer.config.compile_effort)
    options["compiler_options"] = effort | options.get("compiler_options", {}) or None
    return jax.jit(trainer.step, donate_argnums=0, **options)


def compile_options(effort: float) -> dict[str, Any]:
    """What the compiler is told of its effort: nothing where the default is wanted.

    Args:
      effort: from -1, quick to compile, to 1.

    Raises:
      ConfigError: an effort out of that range.
    """
    if not -1 <= effort <= 1:
        raise ConfigError(f"compile_effort must be from -1 to 1; got {effort:g}.")
    return {"exec_time_optimization_effort": effort} if effort else {}
