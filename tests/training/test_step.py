"""One training step: parts of a batch, recomputation, precision, averages, fusion and remedies."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.training import PLAIN, QUICK, compiled, make_trainer, small_batch, small_model, to_arrays

from jaxsmooth.bert.fusion import FUSIONS
from jaxsmooth.mitigations import parse_remedies
from jaxsmooth.training.model import task_logits
from jaxsmooth.training.step import compile_step, init_state

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def gradients(trainer, model, data, key=None):
    return compiled(trainer.gradients)(model, data, key)


@pytest.mark.parametrize("kind", ["classification", "masked_lm"])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(kind):
    model, data = small_model(kind), small_batch(kind)
    whole = gradients(make_trainer(kind, model), model, data)
    parts = gradients(make_trainer(kind, model, dataclasses.replace(PLAIN, accumulate=2)), model, data)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-13)


def test_remat_changes_no_gradient():
    model, data = small_model("classification"), small_batch("classification")
    dropped = dataclasses.replace(PLAIN, hidden_dropout=0.1, attention_dropout=0.1)
    found = [
        gradients(
            make_trainer("classification", model, dataclasses.replace(dropped, remat=remat)),
            model,
            data,
            jax.random.key(0),
        )
        for remat in ("none", "full")
    ]
    for one, other in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-13)


def test_training_learns_and_follows_its_average():
    config = dataclasses.replace(PLAIN, ema=0.5, layer_decay=0.9, hidden_dropout=0.1, warmup=0.1)
    model, data = small_model("classification", jnp.float32), small_batch("classification", dtype=np.float32)
    trainer = make_trainer("classification", model, config)
    step, state = (
        compile_step(trainer, compiler_options=QUICK),
        init_state(jax.tree.map(jnp.copy, model), trainer.optimiser, config),
    )
    losses, average = [], to_arrays(model)
    for _ in range(25):
        state, metrics = step(state, data)
        losses.append(float(metrics.loss))
        average = {name: 0.5 * average[name] + 0.5 * value for name, value in to_arrays(state.model).items()}
    assert losses[-1] < losses[0]
    assert int(state.step) == 25
    assert int(metrics.tokens) == int(data.batch.mask[:-1].sum())
    for name, value in to_arrays(state.ema).items():
        np.testing.assert_allclose(value, average[name], rtol=1e-4, atol=1e-6)


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_masters():
    config = dataclasses.replace(PLAIN, precision="bfloat16")
    model, data = small_model("classification", jnp.float32), small_batch("classification", dtype=np.float32)
    trainer = make_trainer("classification", model, config)
    assert jax.eval_shape(trainer.logits, model, data).dtype == jnp.bfloat16
    loss, gradient = gradients(trainer, model, data)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves((loss, gradient))} == {"float32"}
    exact, _ = gradients(make_trainer("classification", model), model, data)
    assert 0 < abs(float(loss) - float(exact)) < 0.05


@pytest.mark.parametrize("fusion", FUSIONS)
def test_fusion_is_trained(fusion):
    model, data = small_model("classification", fusion=fusion), small_batch("classification")
    loss, gradient = gradients(make_trainer("classification", model), model, data)
    plain = float(compiled(make_trainer("classification", model).loss)(dataclasses.replace(model, fusion=None), data))
    assert float(loss) != plain
    assert all(np.abs(np.asarray(leaf)).max() > 0 for leaf in jax.tree.leaves(gradient.fusion))


def test_a_remedy_acts_in_training_and_in_evaluation():
    (remedy,) = parse_remedies("contranorm:0.5")
    model, data = small_model("classification"), small_batch("classification")
    with_it = make_trainer("classification", model, remedy=remedy.edits)
    expected = task_logits(model, data.batch, edits=remedy.edits(model.encoder, data.batch))
    np.testing.assert_allclose(with_it.logits(model, data), expected, rtol=1e-10, atol=1e-12)
    plain = make_trainer("classification", model).logits(model, data)
    assert np.abs(np.asarray(expected - plain)).max() > 1e-4
