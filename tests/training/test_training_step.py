"""One training step: losses against numpy, accumulation, dropout, the optimiser, what padding and filler may not do."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.training import (
    PLAIN,
    QUICK,
    SMALL,
    TASKS,
    make_trainer,
    padded,
    small_batch,
    small_encoder,
    small_model,
    to_arrays,
)

import jaxsmooth
from jaxsmooth import Edits
from jaxsmooth.errors import ConfigError
from jaxsmooth.mitigations import parse_remedies
from jaxsmooth.training.config import FinetuneConfig
from jaxsmooth.training.dropout import drop, dropout
from jaxsmooth.training.model import task_logits
from jaxsmooth.training.objectives.losses import label_count, loss_sum
from jaxsmooth.training.optimiser import learning_rate, make_optimiser
from jaxsmooth.training.step import compile_step, init_state

WORST = 1e-12


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def compiled(function):
    """Op by op it would take ten times as long."""
    return jax.jit(function, compiler_options=QUICK)


def gradients(trainer, model, data, key=None):
    return compiled(trainer.gradients)(model, data, key)


def numpy_loss(kind, logits, data):
    """Mean loss from its definition, record by record."""
    real = [k for k, weight in enumerate(np.asarray(data.weights)) if weight]
    if kind == "regression":
        return np.mean([(logits[k, 0] - float(data.labels[k])) ** 2 for k in real])
    if kind == "span":
        ends = ((data.labels.start, 0), (data.labels.end, 1))
        return np.mean([-log_softmax(logits[k, :, place])[int(labels[k])] for labels, place in ends for k in real])
    if kind == "masked_lm":
        labels = np.asarray(data.labels)
        asked = [(k, t) for k in real for t in range(labels.shape[1]) if labels[k, t] >= 0]
        return np.mean([-log_softmax(logits[k, t])[labels[k, t]] for k, t in asked])
    return np.mean([-log_softmax(logits[k])[int(data.labels[k])] for k in real])


@pytest.mark.parametrize("kind", TASKS)
def test_losses_and_what_padding_may_not_do(kind):
    model, data = small_model(kind), small_batch(kind)
    trainer = make_trainer(kind, model)
    loss_of = compiled(lambda model, data: (trainer.loss(model, data), trainer.logits(model, data)))
    loss, logits = float(loss_of(model, data)[0]), loss_of(model, data)[1]
    assert abs(loss - numpy_loss(kind, np.asarray(logits), data)) < WORST
    assert abs(float(loss_of(model, padded(data, 5))[0]) - loss) < WORST
    # the filler row counts for nothing, whatever it holds
    rows = TASKS[kind].choices
    tokens = data.batch.tokens.at[-rows:].set(5)
    other = dataclasses.replace(data, batch=dataclasses.replace(data.batch, tokens=tokens))
    assert float(loss_of(model, other)[0]) == loss


def test_an_untold_class_counts_nothing():
    model, data = small_model("classification"), small_batch("classification")
    untold = dataclasses.replace(data, labels=data.labels.at[0].set(-1))
    logits = task_logits(model, data.batch)
    without = dataclasses.replace(data, weights=data.weights.at[0].set(0.0))
    assert float(label_count("classification", untold)) == 2
    assert float(loss_sum("classification", logits, untold)) == float(loss_sum("classification", logits, without))


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


def test_dropout_keeps_the_mean_and_is_a_function_of_its_key():
    value = jnp.ones((400, 100))
    one, two = drop(jax.random.key(0), 0.1, value), drop(jax.random.key(1), 0.1, value)
    assert set(np.unique(one)) == {0.0, np.float64(1 / np.float32(0.9))} or len(np.unique(one)) == 2
    assert abs(float(one.mean()) - 1) < 0.01  # 4 standard deviations are 0.0067
    assert np.array_equal(one, drop(jax.random.key(0), 0.1, value))
    assert not np.array_equal(one, two)


def test_dropout_acts_at_berts_places_with_a_mask_of_its_own_at_each():
    model, batch = small_encoder(), small_batch("classification").batch
    edits = dropout(jax.random.key(0), hidden=0.5, attention=0.5)
    assert {site for site in jaxsmooth.SITES if getattr(edits, site) is not None} == {
        "embedded",
        "attn",
        "mixed",
        "mlp",
    }

    def zeros(trace):
        return {name: getattr(trace, name) == 0 for name in ("mixed", "mlp")}

    _, found = jaxsmooth.encode(model, batch, edits=edits, collect=zeros)
    masks = [np.asarray(found[name][layer]) for name in found for layer in range(SMALL.layers)]
    assert all(0.4 < mask.mean() < 0.6 for mask in masks)
    assert not any(np.array_equal(a, b) for k, a in enumerate(masks) for b in masks[:k])


def test_dropout_averages_out_in_a_linear_place():
    """The mean over keys of the dropped attention output is the output itself."""
    model, batch = small_encoder(), small_batch("classification").batch

    def mixed(edits):
        return jaxsmooth.encode(model, batch, edits=edits, collect=lambda t: t.mixed)[1][0]

    keys = jax.random.split(jax.random.key(0), 500)
    mean = compiled(jax.vmap(lambda key: mixed(dropout(key, hidden=0.0, attention=0.3))))(keys).mean(0)
    exact = mixed(Edits())
    spread = float(jnp.abs(exact).max())
    assert float(jnp.abs(mean - exact).max()) < 0.15 * spread


@pytest.mark.parametrize("fusion", ["concat", "max", "gate"])
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
    _, gradient = gradients(make_trainer("classification", model), model, data)
    update = one_update(config, model, gradient)
    # With a large epsilon Adam is linear in the gradient, so the update's norm is that of the clipped gradient.
    norm = np.sqrt(sum((value.astype(np.float64) ** 2).sum() for value in update.values()))
    np.testing.assert_allclose(norm, 1e-9 * config.learning_rate, rtol=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 10, "accumulate": 4}, "accumulate must divide batch_size"),
        ({"learning_rate": float("nan")}, "learning_rate must be a finite number"),
        ({"hidden_dropout": 1.0}, "hidden_dropout must lie in"),
        ({"schedule": "square"}, "schedule must be one of"),
        ({"epochs": 0.0}, "epochs must be above 0"),
        ({"batch_size": 0}, "batch_size must lie in"),
        ({"fusion": "sum"}, "fusion must be one of"),
        ({"seed": True}, "seed must be a finite number"),
    ],
)
def test_configurations_that_contradict_themselves(settings, message):
    with pytest.raises(ConfigError, match=message):
        FinetuneConfig(**settings)


def test_a_configuration_is_read_as_it_was_saved(tmp_path):
    config = FinetuneConfig(task="x", ema=0.99, out=tmp_path / "run")
    config.save(tmp_path / "config.json")
    assert FinetuneConfig.read(tmp_path / "config.json") == config
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ConfigError, match="one JSON object"):
        FinetuneConfig.read(tmp_path / "config.json")
    with pytest.raises(ConfigError, match="no saved run"):
        FinetuneConfig.read(tmp_path / "nothing.json")
