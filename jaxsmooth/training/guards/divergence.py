"""The first step whose loss or gradient is not finite, and arrays that are not: named, before they are saved."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from ...errors import DivergedError
from ...types import named_leaves
from ..step import StepMetrics

CAUSES = (
    "Usual causes: too high a --learning-rate, too short a --warmup, --clip 0, bfloat16 where float32 is needed, or an "
    "example whose label is not finite."
)


def check_steps(pending: Sequence[StepMetrics], number: int, rate: Callable[[Any], Any], kept: int | None) -> None:
    """Refuse steps of which one has a loss or a gradient that is not finite.

    Args:
      pending: what the last steps reported, in order.
      number: the step that the last of them is.
      rate: step 0, 1, ... -> learning rate.
      kept: the step of the newest checkpoint, which is from before all of them or of a finite one; None without one.

    Raises:
      DivergedError: names the first such step, what came before it, and the checkpoint that is kept.
    """
    first = number - len(pending) + 1
    for place, metrics in enumerate(pending):
        loss, norm = float(metrics.loss), float(metrics.gradient_norm)
        if math.isfinite(loss) and math.isfinite(norm):
            continue
        step = first + place
        what = f"the gradient of step {step} is {norm:g}, with a loss of {loss:.4g}"
        if not math.isfinite(loss):
            what = f"the loss of step {step} is {loss:g}"
        before = ""
        if place:
            last = pending[place - 1]
            before = f"; step {step - 1} had a loss of {float(last.loss):.4g} and a gradient of norm "
            before += f"{float(last.gradient_norm):.4g}"
        raise DivergedError(
            f"{what}, at a learning rate of {float(rate(np.int32(step - 1))):.3g}{before}. {_kept(kept)} {CAUSES}"
        )


def check_state(state: Any, step: int, kept: int | None) -> None:
    """Refuse a state that is not finite: it would be no checkpoint to go on from.

    Args:
      state: any pytree of arrays.
      step: how many steps were done.
      kept: as for `check_steps`.

    Raises:
      DivergedError: names the first such array.
    """
    wrong = not_finite(state)
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        if not step:
            raise DivergedError(
                f"{wrong[0]}{more}: the model's own values are not finite before the first step. Is its file damaged?"
            )
        raise DivergedError(f"after step {step} {wrong[0]}{more} is not finite. {_kept(kept)} {CAUSES}")


def outputs_diverged(error: Exception, step: int, kept: int | None) -> DivergedError:
    """What to say of an evaluation whose outputs are not finite, though the parameters are.

    Args:
      error: the evaluation's.
      step: how many steps were done.
      kept: as for `check_steps`.
    """
    return DivergedError(f"evaluating after step {step}: {error} {_kept(kept)} {CAUSES}")


def not_finite(tree: Any) -> list[str]:
    """The names of the floating arrays that hold a NaN or an infinity.

    Args:
      tree: any pytree of arrays, on any devices.
    """
    floats = {name: leaf for name, leaf in named_leaves(tree).items() if jnp.issubdtype(leaf.dtype, jnp.floating)}
    finite = np.asarray(_finite(list(floats.values())))
    return [name for name, good in zip(floats, finite, strict=True) if not good]


@jax.jit
def _finite(arrays: list[Array]) -> Bool[Array, " K"]:
    return jnp.stack([jnp.isfinite(array).all() for array in arrays])


def _kept(step: int | None) -> str:
    if step is None:
        return "There is no checkpoint yet."
    return f"The checkpoint of step {step} is from before it and is kept; nothing later is."
