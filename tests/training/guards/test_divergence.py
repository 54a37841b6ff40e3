"""What is said of a step, a state and an evaluation that are not finite."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsmooth.errors import DivergedError
from jaxsmooth.training.guards.divergence import Watch, not_finite
from jaxsmooth.training.step import StepMetrics


def steps(*numbers):
    return [StepMetrics(jnp.float32(loss), jnp.float32(norm), jnp.int32(5)) for loss, norm in numbers]


def watch(newest=None):
    return Watch(lambda step: 0.5 * step, lambda: newest)


GOOD = (0.7, 2.0)


@pytest.mark.compatibility("long", "a gradient that overflows, its loss finite", "stops there and says so", was=1)
@pytest.mark.parametrize(
    ("before", "pending", "number", "expected"),
    [
        ((), (GOOD, (np.nan, np.nan), (np.nan, np.nan)), 9, ("the loss of step 8 is nan", "rate of 3.5; step 7 had a")),
        (
            (),
            (GOOD, (np.inf, 1.0)),
            4,
            ("the loss of step 4 is inf", "step 3 had a loss of 0.7 and a gradient of norm 2"),
        ),
        (
            (),
            ((0.3, np.inf),),
            1,
            ("the norm of the gradient of step 1 is inf, with a loss of 0.3", "at a learning rate of 0."),
        ),
        ((GOOD,), ((np.nan, 1.0),), 3, ("the loss of step 3 is nan", "step 2 had a loss of 0.7")),
    ],
)
def test_the_first_step_is_named(before, pending, number, expected):
    watching = watch(6)
    watching.check_steps(steps(*before), number - len(pending))
    with pytest.raises(DivergedError) as caught:
        watching.check_steps(steps(*pending), number)
    assert all(part in str(caught.value) for part in expected), caught.value
    assert "The checkpoint of step 6 is from before it and is kept; nothing later is. Usual causes: " in str(
        caught.value
    )


@pytest.mark.compatibility(
    "long", "parameters or moments that overflow though loss and gradient are finite", "never saved; named", was=1
)
def test_a_state_is_named_by_its_array():
    state = {"kernel": jnp.ones(3), "half": jnp.array([1, jnp.inf], jnp.bfloat16), "step": jnp.int32(7)}
    (name,) = not_finite(state)
    assert "half" in name
    with pytest.raises(DivergedError, match=r"after step 5 .*half.* is not finite. There is no checkpoint yet"):
        watch().check_state(state, 5)
    watch().check_state({"kernel": jnp.ones(3)}, 5)
    assert "evaluating after step 5: logits hold NaN." in str(watch().blame(ValueError("logits hold NaN."), 5))
