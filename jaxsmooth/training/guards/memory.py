"""What a training step needs beside its state, estimated before it is compiled, and the rematerialisation that fits.

The step holds, on each device and beside parameters, moments and average:

    gradients + what the forward pass leaves for the backward pass + what one block's backward pass works on

The second is not a formula of ours: jax is asked for the residuals of the loss's own vjp under each policy, shapes
only, nothing allocated. The third is (residuals without rematerialisation - those with full) / layers, what one block
makes anew; twice that where it is recomputed and differentiated at once. Compilers fuse much of the third where it
matters most, at long sentences, so only what the first two leave no room for is refused. Everything but the state is
taken to be cut evenly over the mesh, so with `tensor` it is a lower bound.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Var

from ...errors import ConfigError
from ...types import Batch
from ..config import Remat
from ..data.records import most_masked
from ..data.tasks import MaskedLabels, SpanLabels, Task, TrainBatch
from ..dropout import generator
from ..step import Trainer, TrainState

POLICIES: tuple[Remat, ...] = ("none", "dots", "full")
"""In the order in which they are tried: each saves less and computes more than the one before."""


@dataclasses.dataclass(frozen=True)
class Need:
    """Bytes on one device.

    Attributes:
      remat: the policy.
      state: parameters, moments and average, and the gradients.
      left: by the forward pass for the backward pass.
      works: what one block's backward pass works on, before the compiler fuses any of it.
    """

    remat: Remat
    state: int
    left: int
    works: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.state + self.left + self.works

    @property
    def least(self) -> int:
        """What no compiler can do without."""
        return self.state + self.left


def abstract_batch(task: Task, rows: int, length: int) -> TrainBatch:
    """Shapes of a step's data.

    Args:
      task: kind and number of choices.
      rows: records.
      length: tokens of each.
    """

    def each(dtype: Any) -> Any:
        return jax.ShapeDtypeStruct((rows,), dtype)

    def whole(dtype: Any) -> Any:
        return jax.ShapeDtypeStruct((rows * task.choices, length), dtype)

    asked: Any = jax.ShapeDtypeStruct((rows, most_masked(length)), jnp.int32)
    ints, floats = each(jnp.int32), each(jnp.float32)
    others = {"regression": floats, "span": SpanLabels(ints, ints), "masked_lm": MaskedLabels(asked, asked)}
    batch = Batch(tokens=whole(jnp.int32), segments=whole(jnp.int32), mask=whole(jnp.bool_))
    return TrainBatch(batch, others.get(task.kind, ints), floats, ints)


def residual_bytes(trainer: Trainer, model: Any, data: TrainBatch) -> int:
    """Bytes that the loss's forward pass leaves for its backward pass, the parameters themselves not counted.

    Args:
      trainer: task, dropout, precision and rematerialisation.
      model: the `TaskModel`, or its shapes.
      data: the batch's shapes.

    Returns:
      Over all devices together.
    """
    impl = generator(trainer.config.prng)
    words = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0, impl=impl)))

    def residuals(model: Any, data: TrainBatch, words: Any) -> list[Any]:
        key = jax.random.wrap_key_data(words, impl=impl)
        return jax.tree.leaves(jax.vjp(lambda m: trainer.loss(m, data, key), model)[1])

    jaxpr = jax.make_jaxpr(residuals)(model, data, words).jaxpr
    arguments = set(jaxpr.invars)
    kept = {var for var in jaxpr.outvars if isinstance(var, Var) and var not in arguments}
    return sum(math.prod(var.aval.shape) * var.aval.dtype.itemsize for var in kept)  # type: ignore[attr-defined]


def estimate(trainer: Trainer, model: Any, rows: int, length: int, *, state: int, devices: int) -> list[Need]:
    """What a step needs under each policy.

    Args:
      trainer: task and settings, whatever its own policy.
      model: the `TaskModel`, or its shapes.
      rows: records of a step, over all devices.
      length: tokens of each.
      state: bytes of state and gradients on one device.
      devices: how many share the batch.

    Returns:
      One entry for each of `POLICIES`.
    """
    data = abstract_batch(trainer.task, max(1, rows // trainer.config.accumulate), length)
    left = {
        remat: residual_bytes(
            dataclasses.replace(trainer, config=dataclasses.replace(trainer.config, remat=remat)), model, data
        )
        for remat in POLICIES
    }
    block = (left["none"] - left["full"]) // model.encoder.config.layers
    times = {"none": 1, "dots": 2, "full": 2}
    return [Need(p, state, math.ceil(left[p] / devices), math.ceil(times[p] * block / devices)) for p in POLICIES]


def state_bytes(shapes: TrainState) -> int:
    """Bytes of a state and of the gradients on one device.

    Args:
      shapes: the state's, with shardings.
    """
    leaves = [*jax.tree.leaves(shapes), *jax.tree.leaves(shapes.model)]
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)


def choose_remat(needs: Callable[[int, int], list[Need]], rows: int, length: int, memory: float) -> tuple[Need, str]:
    """The first policy that fits.

    Args:
      needs: rows, length -> `estimate`.
      rows: records of a step.
      length: tokens of each.
      memory: bytes of one device; 0 where it is not known, and then nothing is recomputed.

    Returns:
      What the chosen one needs, and a sentence that says why it is not "none"; "" where it is.

    Raises:
      ConfigError: not even full rematerialisation fits; names a batch that would.
    """
    none, dots, full = needs(rows, length)
    if not memory or none.total <= memory:
        return none, ""
    chosen = dots if dots.total <= memory else full
    if chosen.least <= memory:
        return chosen, (
            f"--remat {chosen.remat}: without recomputation a step would need about {_gib(none.total)} of "
            f"{_gib(memory)} on each device; with it {_gib(chosen.least)} to {_gib(chosen.total)}"
        )
    smaller = _that_fits(needs, rows, length, memory)
    advice = f"Estimated to fit: {smaller}." if smaller else "Its state alone does not fit: cut it with --mesh fsdp=N."
    raise ConfigError(
        f"a step of {rows} records of {length} tokens needs at least {_gib(full.least)} of {_gib(memory)} on each "
        f"device, with --remat full too. {advice} An explicit --remat full tries it all the same."
    )


def _that_fits(needs: Callable[[int, int], list[Need]], rows: int, length: int, memory: float) -> str:
    """The largest batch, by the need's growth with its rows, else one record of a length halved again and again."""
    if rows > 1:
        whole, half = (needs(r, length)[-1].total for r in (rows, rows // 2))
        each = (whole - half) / (rows - rows // 2)
        fits = rows - math.ceil((whole - memory) / each)
        if fits >= 1:
            return f"--batch-size {fits - fits % 8 if fits > 8 else fits} (or as many more parts with --accumulate)"
    while length > 8:
        length //= 2
        if needs(1, length)[-1].total <= memory:
            return f"--batch-size 1 with sentences of {length} tokens"
    return ""


def device_memory() -> int:
    """Bytes that the first device gives to this process; 0 where it does not say, as a CPU."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return int(stats.get("bytes_limit", 0))


def _gib(size: float) -> str:
    return f"{size / 2**30:.3g} GiB"
