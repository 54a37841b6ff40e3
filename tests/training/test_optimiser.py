"""The optimiser: schedules, weight decay, layer-wise rates, clipping."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.training import PLAIN, compiled, make_trainer, small_batch, small_model, to_arrays

from jaxsmooth.training.config import FinetuneConfig
from jaxsmooth.training.optimiser import learning_rate, make_optimiser
from jaxsmooth.types import map_named


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [0, 0.5, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0, 0.5, 1, *(0.5 * (1 + np.cos(np.pi * k / 4)) for k in (1, 2, 3))]),
        ("constant", [0, 0.5, 1, 1, 1, 1]),
    ],
)
def test_schedules(schedule, expected):
    config = FinetuneConfig(learning_rate=1.0, warmup=1 / 3, schedule=schedule)
    rate = learning_rate(config, 6)
    np.testing.assert_allclose([float(rate(jnp.int32(k))) for k in range(6)], expected, atol=1e-6)


RATES = {  # transformers 5.24: TrainingArguments.get_warmup_steps, then get_scheduler, at a rate of 1
    ("linear", 0.0, 4): [1.0, 0.75, 0.5, 0.25, 0.0],
    ("linear", 0.1, 24): [0.0, 1 / 3, 2 / 3, 1.0, 20 / 21],
    ("linear", 0.5, 5): [0.0, 1 / 3, 2 / 3, 1.0, 0.5],
    ("linear", 3, 5): [0.0, 1 / 3, 2 / 3, 1.0, 0.5],
    ("linear", 2.9, 5): [0.0, 0.5, 1.0, 2 / 3, 1 / 3],
    ("linear", 1.0, 4): [0.0, 1.0, 2 / 3, 1 / 3, 0.0],
    ("linear", 5, 5): [0.0, 0.2, 0.4, 0.6, 0.8],
    ("linear", 1e-9, 3): [0.0, 1.0, 0.5, 0.0, 0.0],
    ("linear", 0.07, 100): [0.0, 0.125, 0.25, 0.375, 0.5],  # 100 * 0.07 is above 7 in doubles, so 8
    ("cosine", 0.26, 4): [0.0, 0.5, 1.0, 0.5, 0.0],
    ("cosine", 0.0, 3): [1.0, 0.75, 0.25, 0.0],
    ("constant", 0.3, 4): [0.0, 0.5, 1.0, 1.0, 1.0],
}
HF_NAMES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


@pytest.mark.compatibility("rule", "warm-up: 0.1 of 24 steps", "rounded up, 3 steps, as transformers", was=1)
@pytest.mark.compatibility("rule", "warm-up as a number of steps (500)", "steps from 1 on, as transformers 5", was=3)
@pytest.mark.compatibility(
    "rule", "schedules: linear, cosine, constant", "the rates of transformers' get_scheduler", was=0
)
@pytest.mark.parametrize(("schedule", "warmup", "steps"), RATES)
def test_rates_are_those_of_transformers(schedule, warmup, steps):
    rate = learning_rate(FinetuneConfig(learning_rate=1.0, warmup=warmup, schedule=schedule), steps)
    expected = RATES[schedule, warmup, steps]
    np.testing.assert_allclose([float(rate(jnp.int32(k))) for k in range(len(expected))], expected, atol=1e-6)


@pytest.mark.parity
@pytest.mark.parametrize(("schedule", "warmup", "steps"), RATES)
def test_the_frozen_rates_are_transformers(schedule, warmup, steps):
    import torch
    from transformers import TrainingArguments, get_scheduler

    arguments = types.SimpleNamespace(warmup_steps=warmup)  # the real one asks for accelerate
    warm = TrainingArguments.get_warmup_steps(arguments, steps)
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    found = get_scheduler(HF_NAMES[schedule], optimiser, num_warmup_steps=warm, num_training_steps=steps)
    for expected in RATES[schedule, warmup, steps]:
        assert found.get_last_lr()[0] == pytest.approx(expected, abs=1e-12)
        optimiser.step()
        found.step()


def one_update(config, model, gradient):
    optimiser = make_optimiser(config, model, 10)
    return to_arrays(compiled(lambda g, m: optimiser.update(g, optimiser.init(m), m)[0])(gradient, model))


def test_decay_and_layer_rates_reach_the_right_parameters():
    model = small_model("classification", jnp.float32)
    config = dataclasses.replace(PLAIN, warmup=0.0, weight_decay=0.5, clip=0.0, learning_rate=1.0, schedule="constant")
    still = jax.tree.map(jnp.zeros_like, model)
    decayed = one_update(config, model, still)
    for name, value in to_arrays(model).items():
        expected = 0 if name.endswith(("bias", "scale")) else -0.5 * value
        np.testing.assert_allclose(decayed[name], expected, rtol=1e-6, atol=1e-8, err_msg=name)
    ones = jax.tree.map(jnp.ones_like, model)
    slow = one_update(dataclasses.replace(config, weight_decay=0.0, layer_decay=0.5), model, ones)
    rates = {"encoder.embeddings.word": [0.125], "encoder.blocks.up.kernel": [0.25, 0.5], "head.out.kernel": [1.0]}
    for name, wanted in rates.items():
        found = -slow[name].reshape(len(wanted), -1)
        np.testing.assert_allclose(found, np.broadcast_to(np.array(wanted)[:, None], found.shape), rtol=1e-5)


def test_clipping_bounds_the_global_norm():
    model = small_model("classification", jnp.float32)
    data = small_batch("classification", dtype=np.float32)
    config = dataclasses.replace(PLAIN, warmup=0.0, clip=1e-9, adam_eps=1.0, schedule="constant", weight_decay=0.0)
    _, gradient = compiled(make_trainer("classification", model).gradients)(model, data)
    update = one_update(config, model, gradient)
    # With a large epsilon Adam is linear in the gradient, so the update's norm is that of the clipped gradient.
    norm = np.sqrt(sum((value.astype(np.float64) ** 2).sum() for value in update.values()))
    np.testing.assert_allclose(norm, 1e-9 * config.learning_rate, rtol=1e-3)


@pytest.mark.parametrize("clip", [0.9, 1e-20, 1e30])
def test_a_gradient_is_clipped_as_optax_clips_it(clip):
    """Longer than the bound and shorter, of norm 0, with a number that is not finite, too long for float32."""
    model = small_model("classification", jnp.float32)
    config = dataclasses.replace(PLAIN, warmup=0.0, clip=clip, adam_eps=1.0, schedule="constant", weight_decay=0.0)
    for size, bad in ((1.0, 0.0), (1e-9, 0.0), (0.0, 0.0), (1.0, np.nan), (1.0, np.inf), (1e30, 0.0)):
        gradient = jax.tree.map(lambda leaf, size=size: size * jnp.cos(leaf), model)
        gradient = map_named(lambda name, leaf, bad=bad: leaf + bad if name == "head.out.bias" else leaf, gradient)
        found = one_update(config, model, gradient)
        clipped = optax.clip_by_global_norm(clip).update(gradient, optax.EmptyState())[0]
        expected = one_update(dataclasses.replace(config, clip=0.0), model, clipped)
        for name, value in found.items():
            np.testing.assert_allclose(value, expected[name], rtol=1e-5, err_msg=f"{name} {size} {bad}")
