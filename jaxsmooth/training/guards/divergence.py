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


class Watch:
    """Looks at what the steps report, and at a state before it is saved."""

    def __init__(self, rate: Callable[[Any], Any], newest: Callable[[], int | None]) -> None:
        """
        Args:
          rate: step 0, 1, ... -> learning rate, for the message.
          newest: the step of the newest checkpoint, None without one: of a state that has been looked at.
        """
        self.rate, self.newest, self.last = rate, newest, ""

    def check_steps(self, pending: Sequence[StepMetrics], number: int) -> None:
        """Refuse steps of which one has a loss or a gradient that is not finite.

        Args:
          pending: what the last steps reported, in order; steps that were looked at before may be among them.
          number: the step that the last of them is.

        Raises:
          DivergedError: names the first such step, what came before it, and the checkpoint that is kept.
        """
        for step, metrics in enumerate(pending, number - len(pending) + 1):
            loss, norm = float(metrics.loss), float(metrics.gradient_norm)
            if math.isfinite(loss) and math.isfinite(norm):
                self.last = f"; step {step} had a loss of {loss:.4g} and a gradient of norm {norm:.4g}"
                continue
            what = f"the loss of step {step} is {loss:g}"
            if math.isfinite(loss):
                what = f"the norm of the gradient of step {step} is {norm:g}, with a loss of {loss:.4g}"
            rate = float(self.rate(np.int32(step - 1)))
            raise DivergedError(f"{what}, at a learning rate of {rate:.3g}{self.last}. {self._advice()}")

    def check_state(self, state: Any, step: int) -> None:
        """Refuse a state that is not finite: it would be no checkpoint to go on from.

        Args:
          state: any pytree of arrays.
          step: how many steps were done.

        Raises:
          DivergedError: names the first such array.
        """
        wrong = not_finite(state)
        if wrong:
            more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            if not step:
                raise DivergedError(
                    f"{wrong[0]}{more}: the model's own values are not finite before the first step. Is its file "
                    "damaged?"
                )
            raise DivergedError(f"after step {step} {wrong[0]}{more} is not finite{self.last}. {self._advice()}")

    def blame(self, error: Exception, step: int) -> DivergedError:
        """What to say of an evaluation whose outputs are not finite, though the parameters are.

        Args:
          error: the evaluation's.
          step: how many steps were done.
        """
        return DivergedError(f"evaluating after step {step}: {error} {self._advice()}")

    def _advice(self) -> str:
        step = self.newest()
        kept = "There is no checkpoint yet."
        if step is not None:
            kept = f"The checkpoint of step {step} is from before it and is kept; nothing later is."
        return f"{kept} {CAUSES}"


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
